//! Scoring by all bytes: of what a walk has found, or of every allowed item.

use refrain_kernels::{
    Kernels, Lines, Metric,
    codes::{self, Panels, Simd, Task, WIDE},
};

use crate::{
    cap::Cap,
    codes::CodeQuery,
    deadline::Deadline,
    filter::Filter,
    layout::RUN,
    pool::{Pool, Ranked},
    scratch::{Block, Scratch, not_below},
    space::{Scorer, Scores, Space},
    walk::{End, Spent, count},
};

/// Queries for whom items are put side by side: that takes as long as seven queries' sums then do (by the profile of a build
/// with AVX-512 VNNI), and each is spared four fifths as much.
const WORTH_PANELS: usize = 9;

/// Items scored at a time: few enough for their scores to stay in the first-level cache.
pub(crate) const STEP: usize = 256;

/// The best score an item can have by all its bytes, from the one by its high bytes.
#[derive(Clone, Copy)]
pub(crate) struct Bound {
    l2: bool,
    /// Squared length of the query, and its length.
    square: f32,
    length: f32,
    /// What the low bytes may add to the score, for a step and a unit of the query's length.
    coarse: f32,
    /// What rounding of the query may add, for a step.
    rounding: f32,
}

impl Bound {
    /// `query` comes from [`Space::unit`].
    #[inline(always)]
    pub(crate) fn new(space: &Space<'_>, query: &[f32], coded: &CodeQuery) -> Self {
        let square = Kernels::active().dot(query, query);
        let length = square.sqrt();
        // Bounds are computed in floats, too: they are a little wider than they need.
        let coarse = space.coarse_error * 1.001;
        Self {
            l2: space.metric == Metric::L2,
            square,
            length,
            coarse,
            rounding: coded.factor * 0.5 * 127.0 * space.dim as f32 + length * coarse * 1e-3,
        }
    }

    /// `step` is weighted as the score is. Let the item be `x = x̂ + e`, `x̂` by its high bytes. By Cauchy and Schwarz `q·e ≤ |q| |e|`.
    /// For l2, where `score = 2 q·x̂ - |x̂|²`: `-|q - x|² = score - |q|² + 2 (q - x̂)·e - |e|²`.
    #[inline(always)]
    pub(crate) fn best(&self, score: f32, step: f32) -> f32 {
        if self.l2 {
            let square = (self.square - score).max(0.0);
            let apart = square.sqrt() * self.coarse * step;
            2.0 * (apart + self.rounding * step) + self.square * 1e-5 - square
        } else {
            score + (self.length * self.coarse + self.rounding) * step
        }
    }

    /// The least score that can belong to an item whose [`Bound::best`] reaches `bar`, whatever its
    /// step: most items of a scan end at this one comparison.
    ///
    /// For l2, with `d² = |q|² - score`, an item is hopeless where `d² - 2 d e > K`, the step being
    /// the widest: `e` what its low bytes may add, `K = 2 · rounding + 1e-5 |q|² - bar`.
    #[inline(always)]
    fn least(&self, bar: f32, widest: f32) -> f32 {
        let (apart, rounding) = (self.coarse * widest, self.rounding * widest);
        if self.l2 {
            let room = apart * apart + 2.0 * rounding + self.square * 1e-5 - bar;
            let farthest = apart + room.max(0.0).sqrt();
            // Rounded down: it is compared with before the bound is.
            self.square - farthest * farthest * (1.0 + 1e-5) - self.square * 1e-5
        } else {
            let slack = self.length * apart + rounding;
            bar - slack - bar.abs().max(slack) * 1e-5
        }
    }

    /// The best score an item of that length can have; inner product only.
    #[inline(always)]
    fn longest(&self, length: f32) -> f32 {
        self.length * length * 1.000_1
    }

    /// The least score that `item` can have by all its bytes; inner product only.
    #[inline(always)]
    fn worst(&self, space: &Space<'_>, item: Ranked) -> f32 {
        let step = space.weighted_step(item.position());
        item.score() - (self.length * self.coarse + self.rounding) * step
    }
}

/// How far a scan for the best `k` would have to go.
#[derive(Clone, Copy)]
pub(crate) struct Reach<'a> {
    pub(crate) space: &'a Space<'a>,
    pub(crate) bound: Bound,
    pub(crate) k: usize,
}

impl Reach<'_> {
    /// Items that it would score at most, where these were found before; where less than the high bytes was
    /// walked, about.
    #[inline(always)]
    pub(crate) fn items(&self, found: &Pool) -> usize {
        let (lengths, n) = (self.space.lengths, self.space.len());
        let Some(least) = self.least(found) else {
            return n;
        };
        // The section falls, unless it is damaged: then the reach is wrong, but within the items.
        let runs = lengths.partition_point(|longest| self.bound.longest(*longest) >= least);
        (runs * RUN).min(n)
    }

    /// What an item must be able to score to be among the best; `None` where that cannot be told.
    #[inline(always)]
    pub(crate) fn least(&self, found: &Pool) -> Option<f32> {
        let last = found.score_at(self.k)?;
        let told = !self.space.lengths.is_empty();
        told.then(|| self.bound.worst(self.space, last))
    }

    /// Whether an item from a place on can: the longest come first, and `q·x ≤ |q| |x|`.
    #[inline(always)]
    pub(crate) fn goes_on(&self, least: Option<f32>, place: usize) -> bool {
        let longest = self.space.lengths.get(place / RUN);
        let can = |least| longest.is_some_and(|longest| self.bound.longest(*longest) >= least);
        place < self.space.len() && least.is_none_or(can)
    }
}

/// Scores what is in `found` (places) by all bytes into `results` (ordinals), leaving out what
/// cannot be among them.
#[inline(always)]
pub(crate) fn refine<S: Simd>(
    simd: S,
    reach: &Reach<'_>,
    (ordinals, cap): (&[u32], Option<Cap<'_>>),
    (query, whole): (&[f32], &mut CodeQuery),
    found: &Pool,
    results: &mut Pool,
    (row, block): (&mut Lines<f32>, &mut Block),
) {
    let Reach { space, bound, .. } = reach;
    let found = found.items();
    let mut whole_score = Whole {
        space,
        ordinals,
        cap,
        query,
        row,
    };
    if !space.is_abridged() {
        let ahead = |item: &Ranked| space.prefetch(item.position());
        found.iter().take(AHEAD).for_each(ahead);
        for (at, item) in found.iter().enumerate() {
            found.get(at + AHEAD).into_iter().for_each(ahead);
            let place = item.position();
            // Not the other way round: what is not a number is none.
            let hopeless =
                bound.best(item.score(), space.weighted_step(place)) < results.bar_score();
            if !hopeless {
                whole_score.take(simd, place, results);
            }
        }
        return;
    }
    // What was walked gives no bound, the high bytes do. They come in its order, so it ends
    // when enough in a row did not get in.
    whole.set(query, space.rows.stride());
    let scorer = space.scanner::<0>(whole);
    let bound = Bound::new(space, query, whole);
    let patience = PATIENCE + found.len() / 8;
    let ahead = |item: &Ranked| scorer.prefetch(item.position());
    found.iter().take(2 * AHEAD).for_each(ahead);
    let mut missed = 0;
    for (group, items) in found.chunks(AHEAD).enumerate() {
        let later = found.iter().skip((group + 2) * AHEAD).take(AHEAD);
        later.for_each(ahead);
        for (place, item) in block.positions.iter_mut().zip(items) {
            *place = item.position();
        }
        let places = &block.positions[..items.len()];
        scorer.score(simd, places, &mut block.scores);
        // Their other bytes come together, instead of one item's after another's.
        for (place, score) in places.iter().zip(&block.scores) {
            if bound.best(*score, space.weighted_step(*place)) >= results.bar_score() {
                space.prefetch_remainders(*place);
            }
        }
        for (place, score) in places.iter().zip(&block.scores) {
            let hopeless = bound.best(*score, space.weighted_step(*place)) < results.bar_score();
            missed = match !hopeless && whole_score.take(simd, *place, results) {
                true => 0,
                false => missed + 1,
            };
        }
        if missed >= patience {
            return;
        }
    }
}

/// Scoring by all bytes. A function and no closure: those are compiled without the instruction set.
struct Whole<'a> {
    space: &'a Space<'a>,
    ordinals: &'a [u32],
    cap: Option<Cap<'a>>,
    query: &'a [f32],
    row: &'a mut Lines<f32>,
}

impl Whole<'_> {
    /// Scores an item into the results; whether it got in.
    #[inline(always)]
    fn take(&mut self, simd: impl Simd, place: u32, results: &mut Pool) -> bool {
        let ordinal = self.ordinals.get(place as usize).copied();
        let ordinal = ordinal.unwrap_or(u32::MAX);
        if ordinal as usize >= self.ordinals.len() {
            return false;
        }
        let kernels = Kernels::active();
        let score = self.space.exact(kernels, self.query, place, self.row);
        let newcomer = Ranked::new(score, ordinal);
        let better = newcomer < results.bar();
        match self.cap {
            None => results.insert(simd, newcomer),
            Some(cap) => results.insert_capped(newcomer, cap.groups.group(ordinal), cap.most()),
        }
        better
    }

    /// As [`Whole::take`], of an item that a filter may rule out and a bound leave out.
    #[inline(always)]
    fn offer(
        &mut self,
        simd: impl Simd,
        bound: &Bound,
        (place, score): (u32, f32),
        filter: Option<&Filter<'_>>,
        results: &mut Pool,
    ) -> bool {
        if bound.best(score, self.space.weighted_step(place)) < results.bar_score() {
            return false;
        }
        let ordinal = self.ordinals.get(place as usize).copied();
        let allowed = filter.is_none_or(|filter| ordinal.is_some_and(|at| filter.allows(at)));
        allowed && self.take(simd, place, results)
    }
}

/// Items scored together, and ahead of which memory is requested.
const AHEAD: usize = 4;

/// Items in a row that did not get in, in the order they were walked in, after which none of the
/// others is expected to; a wide beam, which is asked for to find what a narrow one does not, waits for
/// an eighth of its width more.
const PATIENCE: usize = 16;

/// What scoring a vector picked from an allow-list costs, in vectors read one after another; measured
/// by `examples/costs.rs`, see [`crate::search`].
pub(crate) const GATHER_COST: usize = 4;

/// Whether a scan picks those of an allow-list, instead of reading all.
pub(crate) fn gathers(n: usize, listed: usize) -> bool {
    listed.saturating_mul(GATHER_COST) < n
}

/// What asking a filter about an item costs, in vectors read one after another: one of so many.
pub(crate) const ASKED_A_VECTOR: usize = 4;

/// Whether a scan first asks the filter about every item and picks those it allows, instead of reading all:
/// only where that is less than half, as a scan of all may end early.
pub(crate) fn asks(n: usize, allowed: usize) -> bool {
    asking(n, allowed) < n / 2
}

/// What that costs.
pub(crate) fn asking(n: usize, allowed: usize) -> usize {
    n / ASKED_A_VECTOR + allowed.saturating_mul(GATHER_COST)
}

/// All ordinals below `n` that a filter allows.
fn left<'a>(filter: &'a Filter<'a>, n: usize) -> impl Iterator<Item = u32> + 'a {
    (0..count(n)).step_by(64).flat_map(move |first| {
        let ordinals: [u32; 64] = std::array::from_fn(|at| first + count(at));
        let mut mask = filter.mask(&ordinals[..(n - first as usize).min(64)]);
        std::iter::from_fn(move || {
            let next = (mask != 0).then(|| first + mask.trailing_zeros());
            mask &= mask.wrapping_sub(1);
            next
        })
    })
}

/// Ordinals that a scan picks: of an allow-list, or those that are left of all.
enum Chosen<A, B> {
    Listed(A),
    Left(B),
}

impl<A: Iterator<Item = u32>, B: Iterator<Item = u32>> Iterator for Chosen<A, B> {
    type Item = u32;

    #[inline(always)]
    fn next(&mut self) -> Option<u32> {
        match self {
            Self::Listed(listed) => listed.next(),
            Self::Left(left) => left.next(),
        }
    }
}

/// Every allowed item scored, to be compiled for each instruction set.
///
/// O(n · dim), or O(allowed · dim) when few are: of an allow-list, or what exclusions leave (and O(n) to find
/// out). All are scored by their high bytes, and
/// those that can be among the best by all their bytes: the outcome is exact.
pub(crate) struct Scan<'a> {
    pub(crate) space: Space<'a>,
    pub(crate) ordinals: &'a [u32],
    pub(crate) places: &'a [u32],
    pub(crate) filter: &'a Filter<'a>,
    pub(crate) cap: Option<Cap<'a>>,
    pub(crate) deadline: Option<Deadline>,
    /// `results` (reset by the caller to `k`) ends with the best.
    pub(crate) scratch: &'a mut Scratch,
}

impl Task for Scan<'_> {
    type Output = (End, Spent);

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> (End, Spent) {
        match self.space.rows.stride() / codes::BLOCK {
            2 => self.go::<S, 2>(simd),
            4 => self.go::<S, 4>(simd),
            _ => self.go::<S, 0>(simd),
        }
    }
}

impl Scan<'_> {
    #[inline(always)]
    fn go<S: Simd, const B: usize>(self, simd: S) -> (End, Spent) {
        let Self {
            space,
            ordinals,
            places,
            filter,
            cap,
            deadline,
            scratch,
        } = self;
        let Scratch {
            results,
            block,
            query,
            coded,
            row,
            ..
        } = scratch;
        let n = space.len();
        let mut spent = Spent::default();
        let whole = Whole {
            space: &space,
            ordinals,
            cap,
            query,
            row,
        };
        let mut scanner = Scanner::<B>::new(coded, whole, results);
        let chosen = match filter.allow {
            Some(allow) if gathers(n, allow.len()) => {
                let listed = allow.iter().filter(|ordinal| !filter.excludes(*ordinal));
                Some(Chosen::Listed(listed))
            }
            _ if asks(n, filter.expected(n)) => Some(Chosen::Left(left(filter, n))),
            _ => None,
        };
        match chosen {
            Some(ids) => {
                let place = |ordinal: u32| places.get(ordinal as usize).copied();
                let mut ids = ids.filter_map(place).filter(|place| (*place as usize) < n);
                loop {
                    let mut count = 0;
                    for place in ids.by_ref().take(STEP) {
                        block.positions[count] = place;
                        scanner.scorer.prefetch(place);
                        count += 1;
                    }
                    if count == 0 {
                        return (End::Complete, spent);
                    }
                    if past(deadline) {
                        return (End::Deadline, spent);
                    }
                    // Asked once more: in a damaged file a place may lead to another ordinal.
                    scanner.take(simd, (block, count), Some(filter), &mut spent);
                }
            }
            None => {
                let asked = (!filter.is_open()).then_some(filter);
                for first in (0..n).step_by(STEP) {
                    if past(deadline) {
                        return (End::Deadline, spent);
                    }
                    if scanner.is_done(first) {
                        break;
                    }
                    let len = STEP.min(n - first);
                    scanner.scorer.steps(first, &mut block.steps[..len]);
                    scanner.take_run(simd, (first, None), (block, len), asked, &mut spent);
                }
                (End::Complete, spent)
            }
        }
    }
}

/// Every item scored for each of several queries, to be compiled for each instruction set: a step of items is
/// in the nearest cache when the second query comes to it, and side by side, where that is faster.
pub(crate) struct ScanTogether<'a> {
    pub(crate) space: Space<'a>,
    pub(crate) ordinals: &'a [u32],
    /// Of each, `results` (reset by the caller to `k`) ends with the best.
    pub(crate) scratches: &'a mut [Scratch],
}

impl Task for ScanTogether<'_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.space.rows.stride() / codes::BLOCK {
            2 => self.go::<S, 2>(simd),
            4 => self.go::<S, 4>(simd),
            _ => self.go::<S, 0>(simd),
        }
    }
}

impl ScanTogether<'_> {
    #[inline(always)]
    fn go<S: Simd, const B: usize>(self, simd: S) {
        let Self {
            space,
            ordinals,
            scratches,
        } = self;
        let n = space.len();
        let mut block = Block::default();
        let mut spent = Spent::default();
        let mut panels = Panels::default();
        let mut scanners = Vec::with_capacity(scratches.len());
        for scratch in scratches {
            let whole = Whole {
                space: &space,
                ordinals,
                cap: None,
                query: &scratch.query,
                row: &mut scratch.row,
            };
            let (coded, results) = (&scratch.coded, &mut scratch.results);
            scanners.push(Scanner::<B>::new(coded, whole, results));
        }
        for first in (0..n).step_by(STEP) {
            let len = STEP.min(n - first);
            if let Some(any) = scanners.first() {
                any.scorer.steps(first, &mut block.steps[..len]);
            }
            scanners.retain(|scanner| !scanner.is_done(first));
            if scanners.is_empty() {
                return;
            }
            let mut run = (first, None);
            if S::PANELS && scanners.len() >= WORTH_PANELS {
                panels.set(space.rows, first..first + len);
                run.1 = Some(&panels);
            }
            for scanner in &mut scanners {
                scanner.take_run(simd, run, (&mut block, len), None, &mut spent);
            }
        }
    }
}

/// What a scan knows of one query: what it scores by, and the best it has found.
struct Scanner<'a, const B: usize> {
    scorer: Scorer<'a, B>,
    bound: Bound,
    /// The least score that may still get in.
    least: f32,
    whole: Whole<'a>,
    results: &'a mut Pool,
}

impl<'a, const B: usize> Scanner<'a, B> {
    #[inline(always)]
    fn new(coded: &'a CodeQuery, whole: Whole<'a>, results: &'a mut Pool) -> Self {
        let space = whole.space;
        let bound = Bound::new(space, whole.query, coded);
        Self {
            scorer: space.scanner(coded),
            bound,
            // Nothing is known before there are results.
            least: bound.least(results.bar_score(), space.widest),
            whole,
            results,
        }
    }

    /// Whether no item from a place on can get in: under inner product the longest come first, and none
    /// can be better than its length allows.
    #[inline(always)]
    fn is_done(&self, first: usize) -> bool {
        let longest = self.whole.space.lengths.get(first / RUN).copied();
        longest.is_some_and(|longest| self.bound.longest(longest) < self.results.bar_score())
    }

    /// Scores the first places of a block, and takes those that are among the best and that the filter, if any,
    /// allows.
    #[inline(always)]
    fn take<S: Simd>(
        &mut self,
        simd: S,
        (block, len): (&mut Block, usize),
        filter: Option<&Filter<'_>>,
        spent: &mut Spent,
    ) {
        // In registers: behind the reference every score would be thought to change it.
        let scorer = self.scorer;
        scorer.score(simd, &block.positions[..len], &mut block.scores);
        self.pick(simd, None, (block, len), filter, spent);
    }

    /// As [`Scanner::take`] of the items from `first` on, whose steps are in the block; read side by side, if they are given so.
    #[inline(always)]
    fn take_run<S: Simd>(
        &mut self,
        simd: S,
        (first, panels): (usize, Option<&Panels>),
        (block, len): (&mut Block, usize),
        filter: Option<&Filter<'_>>,
        spent: &mut Spent,
    ) {
        let scorer = self.scorer.beside(panels.unwrap_or(self.scorer.panels));
        scorer.score_run(simd, first, &block.steps[..len], &mut block.scores[..len]);
        self.pick(simd, Some(first), (block, len), filter, spent);
    }

    /// Takes of what was scored what may get in: places of the block, or from `first` on.
    #[inline(always)]
    fn pick<S: Simd>(
        &mut self,
        simd: S,
        first: Option<usize>,
        (block, len): (&Block, usize),
        filter: Option<&Filter<'_>>,
        spent: &mut Spent,
    ) {
        spent.scored(len);
        for from in (0..len).step_by(WIDE) {
            for slot in not_below(simd, &block.scores, from..len, self.least) {
                let place = first.map_or(block.positions[slot], |first| count(first + slot));
                self.offer(simd, (place, block.scores[slot]), filter);
            }
        }
    }

    /// Takes an item that was not below what may get in when its neighbours were compared.
    #[inline(always)]
    fn offer(&mut self, simd: impl Simd, item: (u32, f32), filter: Option<&Filter<'_>>) {
        // Not the other way round: what is not a number gets in while there is room.
        if item.1 < self.least {
            return;
        }
        if self
            .whole
            .offer(simd, &self.bound, item, filter, self.results)
        {
            let bar = self.results.bar_score();
            self.least = self.bound.least(bar, self.whole.space.widest);
        }
    }
}

pub(crate) fn past(deadline: Option<Deadline>) -> bool {
    deadline.is_some_and(Deadline::has_passed)
}
