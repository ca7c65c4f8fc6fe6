//! Which versions a store need not keep.

use std::collections::{BTreeMap, BTreeSet};

use jiff::{SignedDuration, Timestamp};

use super::label::LabelFile;
use super::{Place, Store, StoreError};

/// What collection leaves alone.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct Keep {
    /// So many versions, the newest, beside those that labels point at or would roll back to.
    pub newest: usize,
    /// Whatever was published, or begun, within this time.
    pub younger_than: SignedDuration,
}

impl Default for Keep {
    /// Two more versions, and nothing of the last hour.
    fn default() -> Self {
        Self {
            newest: 2,
            younger_than: SignedDuration::from_hours(1),
        }
    }
}

/// What collection took away, or would.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Collected {
    /// Versions, with their deltas.
    pub versions: Vec<String>,
    /// Versions that stay, and why.
    pub kept: BTreeMap<String, &'static str>,
    /// Leavings of publications that did not end.
    pub leavings: Vec<String>,
    /// Bytes of all that.
    pub bytes: u64,
}

impl Store {
    /// Removes versions that no label points at or would roll back to, except the newest, and what
    /// publications that died left behind. With `dry_run` it only says what it would remove.
    ///
    /// Safe beside publishers and servers: a label that moves meanwhile keeps its version, and what a
    /// server has mapped stays mapped.
    ///
    /// # Errors
    /// [`StoreError`]; what was removed until then is gone, everything else is whole.
    pub fn collect(&self, keep: Keep, dry_run: bool, actor: &str) -> Result<Collected, StoreError> {
        match &self.place {
            Place::Local(local) => local.collect(keep, dry_run, actor),
            Place::Remote(remote) => remote.collect(keep, dry_run, actor),
        }
    }
}

/// Splits versions, given with the time of their publication, into those to keep and those to remove.
pub(super) fn judge(
    versions: &BTreeMap<String, Timestamp>,
    labels: &[LabelFile],
    keep: Keep,
    now: Timestamp,
) -> (BTreeMap<String, &'static str>, Vec<String>) {
    let current: BTreeSet<&str> = labels.iter().map(|label| &*label.version).collect();
    let previous: BTreeSet<&str> = labels
        .iter()
        .filter_map(|label| label.history.last())
        .map(|id| &**id)
        .collect();
    let (mut kept, mut doomed) = (BTreeMap::new(), Vec::new());
    let mut room = keep.newest;
    // Ids sort by time of creation.
    for (version, &since) in versions.iter().rev() {
        let reason = if current.contains(&**version) {
            "a label points at it"
        } else if previous.contains(&**version) {
            "a label would roll back to it"
        } else if room > 0 {
            room -= 1;
            "it is among the newest"
        } else if now.duration_since(since) < keep.younger_than {
            "it was published a short time ago"
        } else {
            doomed.push(version.clone());
            continue;
        };
        kept.insert(version.clone(), reason);
    }
    doomed.reverse();
    (kept, doomed)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_labels_need_and_what_is_new_stays() {
        let id = |day: u32| format!("v202611{day:02}T000000Z-00000000");
        let now: Timestamp = "2026-11-30T00:00:00Z".parse().unwrap();
        let hours = |hours| now - SignedDuration::from_hours(hours);
        let mut versions: BTreeMap<String, Timestamp> =
            (1..=9).map(|day| (id(day), hours(100))).collect();
        versions.insert(id(6), hours(0));
        let label = |at: u32, before: &[u32]| {
            LabelFile::next(
                None,
                id(at),
                before.iter().map(|&day| id(day)).collect(),
                "me",
            )
        };
        let labels = [label(1, &[]), label(8, &[2, 3])];
        let keep = Keep {
            newest: 2,
            ..Keep::default()
        };
        let (kept, doomed) = judge(&versions, &labels, keep, now);
        // 1 and 8 are labelled, 3 is before 8, 9 and 7 are newest beside them, 6 is an hour old.
        assert_eq!(doomed, [2, 4, 5].map(id));
        assert_eq!(kept.len(), 6);
        assert_eq!(kept[&id(6)], "it was published a short time ago");
    }
}
