//! What a walk does where a filter shuts out just what the query leads to.
//!
//! What chance shuts out leaves the nearest of the rest where they were. But what a listener has heard and
//! excluded *is* the nearest, and the best of the rest then lie in a shell around it. That costs a walk two
//! things: it passes through all that is shut out, and in the shell, which is wide and of near equals, it
//! finds fewer of the best, as links are chosen for what is near. So the walk counts what it expands in
//! vain beyond those that chance would have it, widens by their square root, and looks ahead whether
//! scoring everything has become the shorter way.

use refrain_kernels::codes::Simd;

use crate::{
    exact::Reach,
    pool::Pool,
    scratch::Block,
    space::Scores,
    walk::{Spent, count, score},
};

/// A walk of width `ef` for `k` that passes `d` in vain is as wide as `ef · √(1 + d / k)`, `k` being at least
/// so many: the fewer are asked for, the thinner is what is asked of the shell.
///
/// The width it took for a recall@10 of 0.95 where so many of the very nearest are shut out, by the walk without
/// a detour, on the grid of `examples/exclusions.rs`. That ends at 512; with a star, by a walk of 16 that
/// widened by all that it passed in vain, and by one of 256 that did by half.
///
/// | set | 0 | 10 | 100 | 1,000 | 5,000 |
/// |---|---|---|---|---|---|
/// | 100,000 x 64, inner product | 48 | 96 | 192 | 384 | 128 |
/// | 1,000,000 x 64, inner product | 128 | 128 | 512 | 1,016* | 2,756* |
const FEWEST: u64 = 8;

/// What a hop in vain costs, in cache lines that a scan reads one after another.
///
/// With AVX-512 on a million such a hop took 850 ns (eight new items, each with its visited mark, its code and
/// its place in the filter somewhere in memory), a line of a scan 3.5 ns: 240 lines; on a hundred thousand 300 ns
/// and 2.9. With AVX2 on an older machine a line took four times as long and a hop hardly longer: there a walk
/// gives up where it would have taken a third of the scan's time. Its answer is then exact.
const HOP_COST: usize = 192;

/// Bytes.
const LINE: usize = 64;

/// Looks ahead begin when so much of what a scan would take was spent in vain.
const FIRST_LOOK: usize = 8;

/// Items scored to look ahead: enough for several to be better than the bar where a scan pays.
const SAMPLE: usize = 1024;

/// How a walk stands to what it passes in vain.
pub(crate) struct Detour<'a> {
    ef: u64,
    k: u64,
    /// Of all items, those that may come back, in 2^-16.
    allowed: u64,
    expanded: u64,
    in_vain: u64,
    /// In vain by then, the next look ahead is due.
    next_look: u64,
    /// The other way, where there is one.
    scan: Option<Reach<'a>>,
    /// Of one in vain, in items that it would score.
    hop_cost: usize,
}

impl<'a> Detour<'a> {
    /// Of a walk of that width for the best `k` of `allowed` of `n` items.
    pub(crate) fn new(
        (ef, k): (usize, usize),
        (allowed, n): (usize, usize),
        scan: Option<Reach<'a>>,
    ) -> Self {
        let lines = scan.map_or(1, |scan| scan.space.rows.stride().div_ceil(LINE));
        let hop_cost = (HOP_COST / lines.max(1)).max(1);
        Self {
            ef: ef as u64,
            k: (k as u64).max(FEWEST),
            allowed: ((allowed as u64) << 16) / (n as u64).max(1),
            expanded: 0,
            in_vain: 0,
            next_look: (n / (FIRST_LOOK * hop_cost)).max(1) as u64,
            scan,
            hop_cost,
        }
    }

    /// Counts one that was expanded; what the pool is to hold from now on.
    #[inline(always)]
    pub(crate) fn pass(&mut self, is_allowed: bool) -> usize {
        self.expanded += 1;
        self.in_vain += u64::from(!is_allowed);
        let beyond = self.beyond_chance();
        if beyond == 0 {
            return usize::try_from(self.ef).unwrap_or(usize::MAX);
        }
        // The root in 2^-10; nothing overflows, as there are below 2^31 items.
        let factor = (((self.k + beyond) << 20) / self.k).isqrt();
        usize::try_from((self.ef * factor) >> 10).unwrap_or(usize::MAX)
    }

    fn beyond_chance(&self) -> u64 {
        let by_chance = self.expanded - ((self.expanded * self.allowed) >> 16);
        self.in_vain.saturating_sub(by_chance)
    }

    /// Whether to give up and scan: what lies ahead, by a sample of all items, would take longer.
    #[inline(always)]
    pub(crate) fn is_longer<S: Simd>(
        &mut self,
        simd: S,
        scorer: &impl Scores,
        found: &Pool,
        (sample, block): (&mut Vec<f32>, &mut Block),
        spent: &mut Spent,
    ) -> bool {
        let Some(scan) = self.scan else { return false };
        let beyond = self.beyond_chance();
        if beyond < self.next_look {
            return false;
        }
        self.next_look = 2 * beyond;
        let n = scorer.len();
        let affordable = scan.items(found) / self.hop_cost;
        let Some(bar) = found.score_at(scan.k) else {
            // Nothing to tell by: as long as a scan takes.
            return beyond >= affordable as u64;
        };
        if sample.is_empty() {
            take(simd, scorer, sample, block, spent);
        }
        let better = sample.iter().filter(|score| **score > bar.score()).count();
        let ahead = (better * n / sample.len().max(1)) as u64;
        ahead.saturating_sub(beyond) >= affordable as u64
    }
}

/// Scores items that lie evenly among all.
#[inline(always)]
fn take<S: Simd>(
    simd: S,
    scorer: &impl Scores,
    sample: &mut Vec<f32>,
    block: &mut Block,
    spent: &mut Spent,
) {
    let n = scorer.len();
    let size = SAMPLE.min(n / 16);
    for first in (0..size).step_by(STEP) {
        let len = STEP.min(size - first);
        for (at, place) in (first..).zip(&mut block.positions[..len]) {
            *place = count(at * n / size);
        }
        score(simd, scorer, block, len, spent);
        sample.extend_from_slice(&block.scores[..len]);
    }
}

/// Items whose memory is asked for at a time.
const STEP: usize = 32;

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chance_makes_no_walk_wider_and_what_it_does_not_explain_does() {
        let (n, ef) = (1_000_000, 100);
        let mut by_chance = Detour::new((ef, 10), (n / 4, n), None);
        let widths = (0..1000).map(|hop| by_chance.pass(hop % 4 == 3));
        assert!(widths.max() <= Some(120));
        let widths_in_vain = |k: usize| -> Vec<usize> {
            let mut in_vain = Detour::new((ef, k), (n - 1000, n), None);
            (0..1000).map(|_| in_vain.pass(false)).collect()
        };
        let widths = widths_in_vain(10);
        assert!(widths.is_sorted());
        // 100 * sqrt(1 + 1000 / 10) is 1,004, of a hundred asked for 331.
        assert!((990..=1_004).contains(&widths[999]), "{}", widths[999]);
        let last = widths_in_vain(100)[999];
        assert!((325..=331).contains(&last), "{last}");
        // The widest there can be: nothing overflows.
        let most = (1 << 31) - 1;
        let mut widest = Detour::new((most, 1), (most, most), None);
        assert!((0..100).all(|_| widest.pass(false) >= most));
    }
}
