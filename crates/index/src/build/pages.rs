//! Memory for what a walk jumps about in.

use std::{
    io,
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use bytemuck::Pod;
use memmap2::MmapMut;
use rayon::prelude::*;

/// Values filled in by one task.
const CHUNK: usize = 1 << 20;

/// A fixed number of values in memory of their own, in large pages where the system grants them.
///
/// A walk touches vectors and links in no order; with pages of 4 KiB nearly each of them misses
/// the address cache too, which took a sixth of a build's time (100,000 × 64, M 16, beam 200).
#[derive(Debug)]
pub(super) struct Pages<T> {
    /// At least one byte long, and longer than the values if they are none.
    map: MmapMut,
    len: usize,
    of: PhantomData<T>,
}

impl<T: Pod + Send + Sync> Pages<T> {
    /// `len` times `value`.
    ///
    /// # Errors
    /// When the system has not that much memory.
    pub(super) fn filled(len: usize, value: T) -> io::Result<Self> {
        let mut pages = Self::zeroed(len)?;
        // Zeros are there already; who writes first to a page then pays for it, on a thread of its own.
        if bytemuck::bytes_of(&value).iter().any(|byte| *byte != 0) {
            let parts = pages.par_chunks_mut(CHUNK);
            parts.for_each(|part| part.fill(value));
        }
        Ok(pages)
    }

    fn zeroed(len: usize) -> io::Result<Self> {
        let bytes = len.checked_mul(size_of::<T>());
        let bytes = bytes.ok_or(io::ErrorKind::OutOfMemory)?;
        let map = MmapMut::map_anon(bytes.max(1))?;
        // A wish: where it cannot be granted, small pages do as well, slower.
        #[cfg(target_os = "linux")]
        let _granted = map.advise(memmap2::Advice::HugePage);
        Ok(Self {
            map,
            len,
            of: PhantomData,
        })
    }
}

impl<T> AsRef<[u8]> for Pages<T> {
    fn as_ref(&self) -> &[u8] {
        &self.map[..self.len * size_of::<T>()]
    }
}

impl<T: Pod> Deref for Pages<T> {
    type Target = [T];

    fn deref(&self) -> &[T] {
        bytemuck::cast_slice(self.as_ref())
    }
}

impl<T: Pod> DerefMut for Pages<T> {
    fn deref_mut(&mut self) -> &mut [T] {
        bytemuck::cast_slice_mut(&mut self.map[..self.len * size_of::<T>()])
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_are_kept() {
        let none = Pages::<u32>::filled(0, 7).expect("memory");
        assert!(none.is_empty() && none.as_ref().is_empty());
        let mut some = Pages::filled(3, 7_u32).expect("memory");
        some[1] = 8;
        assert_eq!(*some, [7, 8, 7]);
        assert_eq!(some.as_ref()[4..8], [8, 0, 0, 0]);
    }

    #[test]
    fn too_much_is_an_error() {
        assert!(Pages::filled(usize::MAX / 2, 0_u32).is_err());
    }
}
