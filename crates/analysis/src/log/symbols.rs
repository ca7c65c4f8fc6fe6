//! Numbers for names, shared by all threads.

use std::sync::{Mutex, PoisonError};

use rustc_hash::FxHashMap;

use super::record;

/// Most distinct values of one column that are kept apart.
pub(crate) const MAX_SYMBOLS: usize = 4096;
/// Most distinct combinations of arm, segment and version.
pub(crate) const MAX_CLASSES: usize = 1 << 20;

/// Distinct names in the order in which they were first met.
#[derive(Debug, Default)]
pub(crate) struct Symbols(Mutex<Names>);

#[derive(Debug, Default)]
struct Names {
    by_name: FxHashMap<String, u32>,
    names: Vec<String>,
}

impl Symbols {
    /// The number of a name; `None` when there are too many.
    pub(crate) fn intern(&self, name: &str) -> Option<u32> {
        let mut names = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&number) = names.by_name.get(name) {
            return Some(number);
        }
        if names.names.len() >= MAX_SYMBOLS {
            return None;
        }
        let number = u32::try_from(names.names.len()).ok()?;
        names.names.push(name.to_owned());
        names.by_name.insert(name.to_owned(), number);
        Some(number)
    }

    pub(crate) fn into_names(self) -> Vec<String> {
        self.0
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .names
    }
}

/// What an exposure says beside unit, time and measurements: few distinct combinations.
#[derive(Debug, Clone, PartialEq, Eq, Hash)]
pub(crate) struct Class {
    /// Index of the assigned arm.
    pub(crate) arm: u32,
    /// Index of the arm that was served; [`NO_ARM`] for something else.
    pub(crate) served: u32,
    /// Weights in force, as a symbol.
    pub(crate) weights: u32,
    pub(crate) digest: u32,
    pub(crate) index_version: u32,
    pub(crate) model_version: u32,
    /// The ranking variant that ranked.
    pub(crate) ranking: u32,
    /// Values of the declared segments.
    pub(crate) segments: [u32; 4],
}

/// Served was none of the plan's arms: a fallback.
pub(crate) const NO_ARM: u32 = u32::MAX;

impl Class {
    /// Whether another arm, or none, was served.
    pub(crate) fn served_other(&self) -> bool {
        self.served != self.arm
    }
}

/// Distinct classes.
#[derive(Debug, Default)]
pub(crate) struct Classes(Mutex<(FxHashMap<Class, u32>, Vec<Class>)>);

impl Classes {
    pub(crate) fn intern(&self, class: &Class) -> Option<u32> {
        let mut inner = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        if let Some(&number) = inner.0.get(class) {
            return Some(number);
        }
        if inner.1.len() >= MAX_CLASSES {
            return None;
        }
        let number = u32::try_from(inner.1.len()).ok()?;
        inner.1.push(class.clone());
        inner.0.insert(class.clone(), number);
        Some(number)
    }

    pub(crate) fn into_classes(self) -> Vec<Class> {
        self.0
            .into_inner()
            .unwrap_or_else(PoisonError::into_inner)
            .1
    }
}

/// Hash of bytes to 64 bits.
pub(crate) fn hash_bytes(bytes: &[u8]) -> u64 {
    xxhash_rust::xxh3::xxh3_64(bytes)
}

/// Hash of an id column's bytes; never 0, which means "none".
pub(crate) fn id_hash(bytes: &[u8]) -> u64 {
    hash_bytes(bytes).max(1)
}

pub(crate) use record::unit_hash;
