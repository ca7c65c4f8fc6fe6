//! Partitions of records: in memory up to a budget, then in unlinked temporary files.

use std::io::{Read as _, Seek as _, SeekFrom, Write as _};
use std::path::PathBuf;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Mutex, MutexGuard, PoisonError};

use super::record::Record;

/// What one thread may hold while it works on a partition.
const PARTITION_BYTES: u64 = 48 << 20;
const MAX_PARTITIONS: u64 = 512;

/// All records of a log, dealt out by unit.
#[derive(Debug)]
pub(crate) struct Partitions {
    parts: Vec<Mutex<Part>>,
    in_memory: AtomicUsize,
    budget: usize,
    folder: PathBuf,
}

#[derive(Debug, Default)]
struct Part {
    memory: Vec<Record>,
    file: Option<std::fs::File>,
    filed: u64,
}

impl Partitions {
    /// Room for `rows` records. How many partitions there are depends on `rows` alone, so a result
    /// cannot depend on threads or memory.
    pub(crate) fn new(rows: u64, budget: usize, folder: PathBuf) -> Self {
        let bytes = rows.saturating_mul(size_of::<Record>() as u64);
        let parts = bytes
            .div_ceil(PARTITION_BYTES)
            .clamp(1, MAX_PARTITIONS)
            .next_power_of_two();
        Self {
            parts: (0..parts).map(|_| Mutex::default()).collect(),
            in_memory: AtomicUsize::new(0),
            budget,
            folder,
        }
    }

    pub(crate) fn len(&self) -> usize {
        self.parts.len()
    }

    /// Which partition a unit belongs to.
    #[expect(
        clippy::cast_possible_truncation,
        reason = "less than the number of partitions"
    )]
    pub(crate) fn of(&self, unit: [u64; 2]) -> usize {
        ((u128::from(unit[0]) * self.parts.len() as u128) >> 64) as usize
    }

    /// Takes over the records of a buffer, which is empty afterwards.
    pub(crate) fn append(&self, partition: usize, buffer: &mut Vec<Record>) -> std::io::Result<()> {
        let bytes = size_of_val(buffer.as_slice());
        let mut part = self.lock(partition);
        if self.in_memory.fetch_add(bytes, Ordering::Relaxed) + bytes <= self.budget {
            part.memory.append(buffer);
            return Ok(());
        }
        self.in_memory.fetch_sub(bytes, Ordering::Relaxed);
        let filed = buffer.len() as u64;
        let file = match &mut part.file {
            Some(file) => file,
            none => none.insert(tempfile::tempfile_in(&self.folder)?),
        };
        file.write_all(bytemuck::cast_slice(buffer))?;
        part.filed += filed;
        buffer.clear();
        Ok(())
    }

    /// All records of a partition, sorted.
    pub(crate) fn sorted(&self, partition: usize) -> std::io::Result<Vec<Record>> {
        let mut part = self.lock(partition);
        let held = part.memory.len();
        let filed = usize::try_from(part.filed).unwrap_or(usize::MAX);
        let mut records = Vec::with_capacity(held + filed);
        records.extend_from_slice(&part.memory);
        if let Some(file) = &mut part.file {
            records.resize(held + filed, bytemuck::Zeroable::zeroed());
            file.seek(SeekFrom::Start(0))?;
            file.read_exact(bytemuck::cast_slice_mut(&mut records[held..]))?;
        }
        drop(part);
        records.sort_unstable();
        Ok(records)
    }

    /// Bytes that went to temporary files.
    pub(crate) fn spilled(&self) -> u64 {
        (0..self.len())
            .map(|at| self.lock(at).filed * size_of::<Record>() as u64)
            .sum()
    }

    fn lock(&self, partition: usize) -> MutexGuard<'_, Part> {
        self.parts[partition]
            .lock()
            .unwrap_or_else(PoisonError::into_inner)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_goes_in_comes_out_sorted_in_memory_or_not() {
        for budget in [0, 2_000, usize::MAX] {
            let partitions = Partitions::new(4_000_000, budget, std::env::temp_dir());
            assert!(partitions.len() > 1);
            let mut all = Vec::new();
            for i in 0..500_u64 {
                let unit = super::super::record::unit_hash(&format!("u{}", i % 97));
                let record = Record {
                    unit,
                    kind: 0,
                    code: 0,
                    ts: 1_000 - i.cast_signed(),
                    value: i,
                    extra: 0,
                };
                all.push(record);
                partitions
                    .append(partitions.of(unit), &mut vec![record])
                    .expect("room");
            }
            let mut out: Vec<Record> = (0..partitions.len())
                .flat_map(|at| partitions.sorted(at).expect("readable"))
                .collect();
            assert!(out.is_sorted(), "partitions are in the order of units");
            all.sort_unstable();
            out.sort_unstable();
            assert_eq!(out, all);
            assert_eq!(partitions.spilled() > 0, budget < usize::MAX);
        }
    }
}
