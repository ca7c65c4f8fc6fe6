//! Memory that begins where a cache line does.

use std::{
    marker::PhantomData,
    ops::{Deref, DerefMut},
};

use bytemuck::Pod;

/// A cache line of all machines that are met.
const LINE: usize = 64;

/// Values that begin where a cache line does, as a `Vec`'s begin wherever its allocator likes: a register of 64 bytes that
/// lies across two lines is loaded in two parts, and of those that begin anywhere all but a few lie so.
///
/// Values are no longer than a line, and divide it.
#[derive(Clone, Debug)]
pub struct Lines<T> {
    lines: Vec<Line>,
    len: usize,
    of: PhantomData<T>,
}

#[derive(Clone, Copy, Debug, bytemuck::Zeroable, bytemuck::Pod)]
#[repr(C, align(64))]
struct Line([u8; LINE]);

impl<T> Lines<T> {
    /// None.
    pub const fn new() -> Self {
        Self {
            lines: Vec::new(),
            len: 0,
            of: PhantomData,
        }
    }
}

impl<T> Default for Lines<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T: Pod> Lines<T> {
    /// From now on it is so many values: those it had, as far as they go, and then zeros or what was there before. Keeps its
    /// memory.
    pub fn resize(&mut self, len: usize) {
        const { assert!(size_of::<T>() > 0 && LINE.is_multiple_of(size_of::<T>())) }
        self.len = len;
        let lines = len.div_ceil(LINE / size_of::<T>());
        if self.lines.len() < lines {
            self.lines.resize(lines, Line([0; LINE]));
        }
    }
}

impl<T: Pod> Deref for Lines<T> {
    type Target = [T];

    #[inline(always)]
    fn deref(&self) -> &[T] {
        &bytemuck::cast_slice(&self.lines)[..self.len]
    }
}

impl<T: Pod> DerefMut for Lines<T> {
    #[inline(always)]
    fn deref_mut(&mut self) -> &mut [T] {
        &mut bytemuck::cast_slice_mut(&mut self.lines)[..self.len]
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn values_begin_at_a_line_and_stay() {
        let mut some = Lines::<i16>::new();
        assert!(some.is_empty());
        let mut before = 0;
        for len in [1, 31, 32, 33, 1000, 7, 0, 64] {
            some.resize(len);
            assert_eq!(some.len(), len);
            assert!(some.as_ptr().addr().is_multiple_of(LINE));
            assert!(some.iter().take(before).all(|value| *value == 9));
            some.fill(9);
            before = len;
        }
    }
}
