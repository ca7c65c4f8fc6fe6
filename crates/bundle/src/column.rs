//! A mapped array of numbers.

use std::fmt;
use std::marker::PhantomData;

use bytemuck::AnyBitPattern;
use bytes::Bytes;

/// A section seen as an array of `T`, without a copy. Checked once, when made.
pub struct Column<T> {
    bytes: Bytes,
    of: PhantomData<T>,
}

impl<T: AnyBitPattern> Column<T> {
    /// A view of `bytes`, which must be aligned for `T` and hold a whole number of them.
    pub fn new(bytes: Bytes) -> Option<Self> {
        bytemuck::try_cast_slice::<u8, T>(&bytes).ok()?;
        Some(Self {
            bytes,
            of: PhantomData,
        })
    }

    /// The values.
    pub fn as_slice(&self) -> &[T] {
        // `new` has checked the cast and `Bytes` never moves or changes: the default is never taken.
        bytemuck::try_cast_slice(&self.bytes).unwrap_or_default()
    }

    /// The value at `at`, if there is one.
    pub fn get(&self, at: usize) -> Option<T> {
        self.as_slice().get(at).copied()
    }

    /// The number of values.
    pub fn len(&self) -> usize {
        self.bytes.len() / size_of::<T>()
    }

    /// Whether there are no values.
    pub fn is_empty(&self) -> bool {
        self.bytes.is_empty()
    }

    /// The bytes behind the values; a cheap clone.
    pub fn bytes(&self) -> Bytes {
        self.bytes.clone()
    }
}

impl<T> Clone for Column<T> {
    fn clone(&self) -> Self {
        Self {
            bytes: self.bytes.clone(),
            of: PhantomData,
        }
    }
}

impl<T> fmt::Debug for Column<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(
            f,
            "Column<{}>({} bytes)",
            std::any::type_name::<T>(),
            self.bytes.len()
        )
    }
}
