//! Splitting with all rows in memory: what the streamed split is compared with.

use super::*;
use refrain_als::InteractionsError;

/// Listens as columns of equal length; ordinals below `users` and `items`.
#[derive(Debug, Clone, Default, PartialEq)]
pub(super) struct Listens {
    /// Number of users.
    pub(super) users: u32,
    /// Number of items.
    pub(super) items: u32,
    /// User of each listen.
    pub(super) user: Vec<u32>,
    /// Item of each listen.
    pub(super) item: Vec<u32>,
    /// Plays of each listen, above 0.
    pub(super) count: Vec<f32>,
    /// Time of each listen in microseconds since 1970 UTC, if the log has times.
    pub(super) time_us: Option<Vec<i64>>,
}

impl Listens {
    /// All listens as interactions: the plays of equal pairs are added.
    ///
    /// # Errors
    /// A sum of plays that is too large.
    pub(super) fn interactions(&self) -> Result<Interactions, InteractionsError> {
        self.interactions_where(|_| true)
    }

    fn interactions_where(
        &self,
        keep: impl Fn(usize) -> bool,
    ) -> Result<Interactions, InteractionsError> {
        let rows = (0..self.user.len()).filter(|&row| keep(row));
        let triplets = rows
            .map(|row| (self.user[row], self.item[row], self.count[row]))
            .collect();
        Interactions::from_triplets(self.users, self.items, triplets)
    }
}

/// Which listens a protocol holds out. `O(n log n)`.
///
/// # Errors
/// A share out of range, or no times where the protocol needs them.
pub(super) fn held_rows(listens: &Listens, hold_out: HoldOut) -> Result<Vec<bool>, SplitError> {
    let share = checked(hold_out)?;
    let times = || listens.time_us.as_deref().ok_or(SplitError::NoTimes);
    Ok(match hold_out {
        HoldOut::Last { .. } => last_of_each_user(listens, times()?, share),
        HoldOut::Since { .. } => since_a_moment(times()?, share),
        HoldOut::Random { seed, .. } => random_of_each_user(listens, share, seed),
    })
}

/// Splits a log. `O(n log n)` for `n` listens; the same split for the same log.
///
/// # Errors
/// A share out of range, no times where the protocol needs them, or plays that are too many.
pub(super) fn split(listens: &Listens, hold_out: HoldOut) -> Result<Split, SplitError> {
    let held = held_rows(listens, hold_out)?;
    let train = listens.interactions_where(|row| !held[row])?;
    let mut pairs: Vec<(u32, u32)> = (0..listens.user.len())
        .filter(|&row| held[row])
        .map(|row| (listens.user[row], listens.item[row]))
        .collect();
    pairs.sort_unstable();
    pairs.dedup();
    Ok(Split::of(train, pairs))
}

fn last_of_each_user(listens: &Listens, times: &[i64], share: f64) -> Vec<bool> {
    let mut held = vec![false; times.len()];
    let (item, time) = (|row: usize| listens.item[row], |row: usize| times[row]);
    for rows in rows_by_user(listens).chunk_by_mut(|&a, &b| listens.user[a] == listens.user[b]) {
        hold_last(rows, share, item, time, &mut held);
    }
    held
}

fn rows_by_user(listens: &Listens) -> Vec<usize> {
    let mut rows: Vec<usize> = (0..listens.user.len()).collect();
    rows.sort_unstable_by_key(|&row| (listens.user[row], row));
    rows
}

fn since_a_moment(times: &[i64], share: f64) -> Vec<bool> {
    let mut sorted = times.to_vec();
    sorted.sort_unstable();
    let cut = sorted.get(sorted.len().saturating_sub(part_of(sorted.len(), share)));
    times
        .iter()
        .map(|time| cut.is_some_and(|cut| time >= cut))
        .collect()
}

fn random_of_each_user(listens: &Listens, share: f64, seed: u64) -> Vec<bool> {
    let mut held = vec![false; listens.user.len()];
    let item = |row: usize| listens.item[row];
    let hash = |row: usize| mix(seed, listens.user[row], listens.item[row]);
    for rows in rows_by_user(listens).chunk_by_mut(|&a, &b| listens.user[a] == listens.user[b]) {
        hold_random(rows, share, hash, item, &mut held);
    }
    held
}
