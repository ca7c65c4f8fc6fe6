//! Solved tastes of recent listeners, kept.

use std::hash::Hash;
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use refrain_taste::{Profile, Weights};

use crate::recommend::Scratch;
use crate::solve::{FoldError, SolvedTaste, fold_in};
use crate::version::Version;

/// Keeps what [`fold_in`] gave for recent listeners, bounded in bytes; safe to share between threads.
///
/// It never gives a stale one: an entry counts only for the very version, delta, listener and profile
/// revision it was solved for, and only while no rule has expired since. Because the weights belong to
/// the cache, another configuration means another cache.
#[derive(Debug)]
pub struct TasteCache {
    entries: Cache<Key, Arc<SolvedTaste>, Bytes>,
    weights: Weights,
}

impl TasteCache {
    /// A cache of at most about `max_bytes` that solves with `weights`.
    #[must_use]
    pub fn new(max_bytes: u64, weights: Weights) -> Self {
        let estimate = usize::try_from(max_bytes / TYPICAL_BYTES).unwrap_or(usize::MAX);
        let estimate = estimate.clamp(1, MOST_ENTRIES);
        Self {
            entries: Cache::with_weighter(estimate, max_bytes, Bytes),
            weights,
        }
    }

    /// The weights it solves with.
    #[must_use]
    pub fn weights(&self) -> &Weights {
        &self.weights
    }

    /// What [`fold_in`] gives for the listener's profile at this instant, from memory if it is there.
    /// Revision 0 stands for profiles that no store numbers and is always solved anew.
    ///
    /// # Errors
    /// As [`fold_in`].
    pub fn get_or_solve(
        &self,
        version: &Version,
        user: &str,
        profile: &Profile,
        now_us: i64,
        scratch: &mut Scratch,
    ) -> Result<Arc<SolvedTaste>, FoldError> {
        let kept = self.entries.get(&KeyRef {
            version: version.id(),
            user,
        });
        if let Some(kept) = kept
            && kept.revision() == profile.revision
            && profile.revision != 0
            && kept.delta() == version.delta()
            && kept.is_valid_at(now_us)
        {
            return Ok(kept);
        }
        let solved = Arc::new(fold_in(version, profile, now_us, &self.weights, scratch)?);
        if profile.revision != 0 {
            let key = Key {
                version: Arc::clone(version.shared_id()),
                user: user.into(),
            };
            self.entries.insert(key, Arc::clone(&solved));
        }
        Ok(solved)
    }

    /// Forgets all that it holds of a listener. O(entries): for an erasure, not for a change, which the
    /// revision tells.
    pub fn forget(&self, user: &str) {
        self.entries.retain(|key, _| *key.user != *user);
    }

    /// How many tastes it holds.
    #[must_use]
    pub fn len(&self) -> usize {
        self.entries.len()
    }

    /// Whether it holds none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }
}

/// A taste of a few hundred events at 64 dimensions: sizes the table, not the bound.
const TYPICAL_BYTES: u64 = 8 * 1024;
/// So that a generous bound does not make a huge empty table.
const MOST_ENTRIES: usize = 1 << 16;

#[derive(Debug, Clone, PartialEq, Eq, Hash)]
struct Key {
    version: Arc<str>,
    user: Box<str>,
}

/// Looks a [`Key`] up without making one. Hashes as it: the fields, as text, in the same order.
#[derive(Hash)]
struct KeyRef<'a> {
    version: &'a str,
    user: &'a str,
}

impl Equivalent<Key> for KeyRef<'_> {
    fn equivalent(&self, key: &Key) -> bool {
        *self.version == *key.version && *self.user == *key.user
    }
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Key, Arc<SolvedTaste>> for Bytes {
    fn weight(&self, key: &Key, solved: &Arc<SolvedTaste>) -> u64 {
        solved.bytes() + (size_of::<Key>() + key.user.len()) as u64
    }
}
