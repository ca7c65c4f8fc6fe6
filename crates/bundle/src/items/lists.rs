//! Lists of ordinals by number: the items of an artist, the tags of an item.

use std::iter::FusedIterator;
use std::slice;

use crate::column::Column;
use crate::corruption::Corruption;
use crate::section::{OpenError, SectionFile, SectionWriter, WriteError};

/// Sections `<name>.offsets` (`u64`, one more than there are lists) and `<name>.values` (`u32`).
#[derive(Debug, Clone)]
pub(super) struct Lists {
    name: &'static str,
    offsets: Column<u64>,
    values: Column<u32>,
    /// Values are below this.
    bound: u32,
}

impl Lists {
    /// `len` lists of ordinals below `bound`.
    pub(super) fn open(
        file: &SectionFile,
        name: &'static str,
        len: u32,
        bound: u32,
    ) -> Result<Self, OpenError> {
        let offsets_name = format!("{name}.offsets");
        let offsets = file.column::<u64>(&offsets_name)?;
        let values = file.column::<u32>(&format!("{name}.values"))?;
        if offsets.len() as u64 != u64::from(len) + 1 {
            return Err(file
                .broken(&offsets_name, 0, super::WRONG_COUNT, offsets.len() as u64)
                .into());
        }
        Ok(Self {
            name,
            offsets,
            values,
            bound,
        })
    }

    /// List number `at`, empty when there is none.
    pub(super) fn get(&self, at: u32) -> Ordinals<'_> {
        Ordinals::new(self.range(at).unwrap_or_default(), self.bound)
    }

    /// Values of all lists together.
    pub(super) fn total(&self) -> usize {
        self.values.len()
    }

    /// Checks that lists follow one another to the end, ascend and stay below the bound.
    pub(super) fn check(&self, file: &SectionFile) -> Result<(), Corruption> {
        let offsets_name = format!("{}.offsets", self.name);
        let mut end = 0;
        for (at, &offset) in self.offsets.as_slice().iter().enumerate() {
            if offset < end || offset > self.values.len() as u64 || (at == 0 && offset != 0) {
                let rule = "offsets ascend from 0 to the number of values";
                return Err(file.broken(&offsets_name, at as u64 * 8, rule, offset));
            }
            end = offset;
        }
        if end != self.values.len() as u64 {
            return Err(file.broken(&offsets_name, 0, "offsets end where the values do", end));
        }
        let lists = u32::try_from(self.offsets.len().saturating_sub(1)).unwrap_or_default();
        for list in 0..lists {
            let values = self.range(list).unwrap_or_default();
            let ascends = values.is_sorted_by(|a, b| a < b);
            if !ascends || values.last().is_some_and(|&last| last >= self.bound) {
                let rule = "lists ascend and stay below their bound";
                return Err(file.broken(&offsets_name, u64::from(list) * 8, rule, list.into()));
            }
        }
        Ok(())
    }

    pub(super) fn write(
        writer: &mut SectionWriter<'_>,
        name: &str,
        lists: &[Vec<u32>],
    ) -> Result<(), WriteError> {
        let mut offsets = vec![0u64];
        let mut values = Vec::new();
        for list in lists {
            values.extend_from_slice(list);
            offsets.push(values.len() as u64);
        }
        writer.add_array(&format!("{name}.offsets"), &offsets)?;
        writer.add_array(&format!("{name}.values"), &values)
    }

    fn range(&self, at: u32) -> Option<&[u32]> {
        let start = usize::try_from(self.offsets.get(at as usize)?).ok()?;
        let end = usize::try_from(self.offsets.get((at as usize).checked_add(1)?)?).ok()?;
        self.values.as_slice().get(start..end)
    }
}

/// Ordinals from a file. Those that are out of range, in a damaged file, are left out.
#[derive(Debug, Clone)]
pub struct Ordinals<'a> {
    values: slice::Iter<'a, u32>,
    bound: u32,
}

impl<'a> Ordinals<'a> {
    pub(super) fn new(values: &'a [u32], bound: u32) -> Self {
        Self {
            values: values.iter(),
            bound,
        }
    }

    /// Whether `ordinal` is among the rest of an ascending list: O(log n).
    pub fn contains(&self, ordinal: u32) -> bool {
        ordinal < self.bound && self.values.as_slice().binary_search(&ordinal).is_ok()
    }
}

impl Iterator for Ordinals<'_> {
    type Item = u32;

    fn next(&mut self) -> Option<u32> {
        let bound = self.bound;
        self.values.find(|&&ordinal| ordinal < bound).copied()
    }

    fn size_hint(&self) -> (usize, Option<usize>) {
        (0, self.values.size_hint().1)
    }
}

impl FusedIterator for Ordinals<'_> {}
