//! The memory map: the only `unsafe` of this crate.
#![expect(
    unsafe_code,
    reason = "mapping a file is unsafe by nature; everything above sees `Bytes` or counts"
)]

use std::io::{self, Read as _};
use std::path::Path;
use std::sync::atomic::{AtomicU64, Ordering};

use bytes::Bytes;
use memmap2::{MmapMut, MmapOptions};

use crate::section::OpenMode;

/// Maps the whole of `path` read-only, or copies it. The bytes live until the last clone or slice is
/// dropped.
///
/// An empty file cannot be mapped and gives an error of kind `InvalidInput`.
pub(crate) fn map(path: &Path, mode: OpenMode) -> io::Result<Bytes> {
    let file = fs_err::File::open(path)?;
    let mut options = MmapOptions::new();
    match mode {
        OpenMode::Map => {}
        OpenMode::Populate => {
            options.populate();
        }
        OpenMode::Copy => return copy(file),
    }
    // SAFETY: the bytes of a map must not change while `&[u8]` to them exist. Every file of a
    // bundle is written under a temporary name, renamed into place when complete and never opened
    // for writing again (`durable` has no other way to write); published files are read-only. A
    // replacement is a new inode, so a live map keeps its own. Someone who truncates or overwrites
    // a published file from outside breaks this rule, as with any mapped file: docs/format.md says so.
    let map = unsafe { options.map(file.file()) }.map_err(|error| {
        io::Error::new(
            error.kind(),
            format!("cannot map {}: {error}", path.display()),
        )
    })?;
    Ok(Bytes::from_owner(map))
}

fn copy(mut file: fs_err::File) -> io::Result<Bytes> {
    let len = usize::try_from(file.metadata()?.len()).map_err(io::Error::other)?;
    if len == 0 {
        // As mapping it would be.
        return Err(io::ErrorKind::InvalidInput.into());
    }
    let mut map = MmapMut::map_anon(len)?;
    // A wish: where it cannot be granted, small pages do as well, slower.
    #[cfg(target_os = "linux")]
    let _granted = map.advise(memmap2::Advice::HugePage);
    file.read_exact(&mut map)?;
    Ok(Bytes::from_owner(map.make_read_only()?))
}

/// Counters in a file of their own, which the system keeps when the process dies: what they count costs an
/// addition in memory, and no call.
///
/// The file belongs to whoever made the counters, for as long as they live.
#[derive(Debug)]
pub struct Counters {
    map: memmap2::MmapRaw,
    len: usize,
}

impl Counters {
    /// A new file of `len` counters at 0, little-endian `u64` one after the other. All of it is on disk when
    /// this returns: a full disk cannot stop the counting later.
    ///
    /// # Errors
    /// The file cannot be made, written or mapped.
    pub fn create(path: &Path, len: usize) -> io::Result<Self> {
        use std::io::Write as _;
        let mut file = fs_err::OpenOptions::new()
            .read(true)
            .write(true)
            .create(true)
            .truncate(true)
            .open(path)?;
        file.write_all(&vec![0; len * size_of::<u64>()])?;
        file.sync_all()?;
        let map = MmapOptions::new().map_raw(file.file())?;
        Ok(Self { map, len })
    }

    /// Adds to a counter; a number past the last one counts nowhere.
    pub fn add(&self, counter: usize, amount: u64) {
        if let Some(counter) = self.counter(counter) {
            let add = |value: u64| Some(u64::from_le(value).wrapping_add(amount).to_le());
            // Little-endian in the file, so an addition of the processor will not do on every machine.
            let _ = counter.fetch_update(Ordering::Relaxed, Ordering::Relaxed, add);
        }
    }

    /// The sum of all counters.
    #[must_use]
    pub fn total(&self) -> u64 {
        (0..self.len)
            .filter_map(|counter| self.counter(counter))
            .map(|counter| u64::from_le(counter.load(Ordering::Relaxed)))
            .fold(0, u64::saturating_add)
    }

    fn counter(&self, counter: usize) -> Option<&AtomicU64> {
        (counter < self.len).then(|| {
            let place = self.map.as_mut_ptr().cast::<u64>().wrapping_add(counter);
            // Nothing but these atomics reaches the map: the file is new and this process' own. Who truncates it
            // from outside breaks that, as with any mapped file.
            // SAFETY: the place is inside the map, which starts a page, hence aligned, and lives as long as `self`.
            unsafe { AtomicU64::from_ptr(place) }
        })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn counters_are_in_the_file_at_once_and_from_all_threads() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counters");
        let counters = Counters::create(&path, 3).unwrap();
        std::thread::scope(|scope| {
            for thread in 0..4 {
                let counters = &counters;
                scope.spawn(move || (0..1_000).for_each(|_| counters.add(thread, 2)));
            }
        });
        // The fourth thread's is not there.
        assert_eq!(counters.total(), 6_000);
        let bytes = fs_err::read(&path).unwrap();
        let (values, rest) = bytes.as_chunks::<8>();
        let values: Vec<u64> = values
            .iter()
            .map(|value| u64::from_le_bytes(*value))
            .collect();
        assert_eq!((values, rest.len()), (vec![2_000; 3], 0));
    }

    #[test]
    fn counters_start_at_nothing() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("counters");
        Counters::create(&path, 2).unwrap().add(1, 7);
        assert_eq!(Counters::create(&path, 2).unwrap().total(), 0);
        assert!(Counters::create(&dir.path().join("no/such"), 2).is_err());
    }
}
