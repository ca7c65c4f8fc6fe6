//! Items as the walk sees them, and scoring against them.

use refrain_kernels::{
    Kernels, Lines, Metric,
    codes::{CodeRows, Panels, Simd, WIDE},
    prefetch_at,
};

use crate::{
    codes::{self, CodeQuery, RUNGS},
    debias::Debias,
    heads::Heads,
    nibbles::{NibbleQuery, NibbleScorer, Nibbles},
    search::normalise,
    walk::count,
};

/// The coded items of an index, by place; borrowed from a file or from a build.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Space<'a> {
    pub(crate) metric: Metric,
    pub(crate) dim: usize,
    pub(crate) rows: CodeRows<'a>,
    pub(crate) scales: &'a [u8],
    pub(crate) steps: &'a [f32; RUNGS],
    /// Of l2 only.
    pub(crate) squares: &'a [f32],
    /// Of inner product only: the longest of each `RUN` items, falling; weighted as scores are.
    pub(crate) lengths: &'a [f32],
    /// Of inner product only: what a search scores before it walks.
    pub(crate) heads: Heads,
    /// What each score is multiplied by, by place; empty where by nothing.
    pub(crate) weights: &'a [f32],
    /// The widest step an item can have, weighted as scores are.
    pub(crate) widest: f32,
    pub(crate) centre: &'a [f32],
    pub(crate) remainders: &'a [i8],
    /// Of long vectors only.
    pub(crate) sketch: Option<Sketch<'a>>,
    /// What is walked of vectors of two cache lines.
    pub(crate) nibbles: Option<Nibbles<'a>>,
    /// The first of the rows that are walked, side by side, where that is of use.
    pub(crate) panels: &'a Panels,
    /// Longest error of the high bytes, in steps.
    pub(crate) coarse_error: f32,
}

/// What is walked of long vectors.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Sketch<'a> {
    /// `width × dim`.
    pub(crate) projection: &'a [f32],
    pub(crate) rows: CodeRows<'a>,
    pub(crate) scales: &'a [u8],
}

impl<'a> Space<'a> {
    pub(crate) fn len(&self) -> usize {
        self.rows.len()
    }

    /// The step of an item; the widest for a place past the end.
    #[inline(always)]
    pub(crate) fn step(&self, place: u32) -> f32 {
        let rung = self.scales.get(place as usize).copied().unwrap_or(0);
        self.steps[usize::from(rung)]
    }

    /// The step of an item as far as it matters for its score: weighted as that is.
    #[inline(always)]
    pub(crate) fn weighted_step(&self, place: u32) -> f32 {
        self.step(place) * self.weight(place)
    }

    /// What the score of an item is multiplied by; 0 for a place past the end.
    #[inline(always)]
    pub(crate) fn weight(&self, place: u32) -> f32 {
        if self.weights.is_empty() {
            return 1.0;
        }
        self.weights.get(place as usize).copied().unwrap_or(0.0)
    }

    /// The same space, its scores weighted.
    pub(crate) fn debiased(self, debias: Option<&'a Debias>) -> Self {
        let Some(debias) = debias else { return self };
        Self {
            weights: &debias.weights,
            lengths: &debias.lengths,
            heads: debias.heads,
            widest: debias.widest,
            ..self
        }
    }

    #[inline(always)]
    pub(crate) fn square(&self, place: u32) -> f32 {
        self.squares.get(place as usize).copied().unwrap_or(0.0)
    }

    /// Writes the vector at a place, as stored, less the centre.
    #[inline(always)]
    pub(crate) fn decode(&self, place: u32, out: &mut Lines<f32>) {
        let place = (place as usize).min(self.len().saturating_sub(1));
        let (stride, dim) = (self.rows.stride(), self.dim);
        // All of it is written.
        out.resize(dim);
        let at = u32::try_from(place).unwrap_or(u32::MAX);
        let Some(high) = self.rows.row(at) else {
            out.fill(0.0);
            return;
        };
        debug_assert!(stride >= dim);
        let low = &self.remainders[place * dim..][..dim];
        codes::decode(&high[..dim], low, self.step(at), out);
    }

    /// The query as it is scored: of unit length for cosine, less the centre for l2.
    pub(crate) fn unit(&self, query: &[f32], out: &mut Lines<f32>) {
        out.resize(query.len());
        out.copy_from_slice(query);
        match self.metric {
            Metric::Cosine => normalise(out),
            Metric::InnerProduct => {}
            Metric::L2 => {
                for (value, centre) in out.iter_mut().zip(self.centre) {
                    *value -= centre;
                }
            }
        }
    }

    /// Asks for the memory of all bytes of an item.
    #[inline(always)]
    pub(crate) fn prefetch(&self, place: u32) {
        self.rows.prefetch::<0>(place);
        self.prefetch_remainders(place);
        prefetch_at(self.scales, place as usize);
    }

    /// Asks for the memory of the low bytes of an item.
    #[inline(always)]
    pub(crate) fn prefetch_remainders(&self, place: u32) {
        let start = place as usize * self.dim;
        for line in 0..(self.dim / 64 + 1).min(16) {
            prefetch_at(self.remainders, start + line * 64);
        }
    }

    /// The rows that are walked, where those are no nibbles.
    pub(crate) fn walked_rows(&self) -> CodeRows<'a> {
        self.sketch.map_or(self.rows, |sketch| sketch.rows)
    }

    /// Takes on a query from [`Space::unit`] for a walk.
    pub(crate) fn code_for_walk(&self, query: &[f32], row: &mut Lines<f32>, coded: &mut CodeQuery) {
        match self.sketch {
            None => coded.set(query, self.rows.stride()),
            Some(sketch) => {
                row.resize(sketch.projection.len() / self.dim.max(1));
                codes::project(sketch.projection, query, row);
                coded.set(row, sketch.rows.stride());
            }
        }
    }

    /// Scores by what is walked: the high bytes, or those of the sketch.
    #[inline(always)]
    pub(crate) fn walker<const B: usize>(&self, coded: &'a CodeQuery) -> Scorer<'a, B> {
        match self.sketch {
            None => self.scanner(coded),
            Some(Sketch { rows, scales, .. }) => Scorer {
                rows,
                scales,
                panels: self.panels,
                ..self.scanner(coded)
            },
        }
    }

    /// Scores by nibbles, where there are any.
    pub(crate) fn nibble_walker(&self, query: &'a NibbleQuery) -> Option<NibbleScorer<'a>> {
        self.nibbles.map(|nibbles| NibbleScorer { nibbles, query })
    }

    /// Whether a search walks by less than the high bytes of all dimensions, which give no bound.
    pub(crate) fn is_abridged(&self) -> bool {
        self.sketch.is_some() || self.nibbles.is_some()
    }

    /// Scores by the high bytes of all dimensions.
    #[inline(always)]
    pub(crate) fn scanner<const B: usize>(&self, coded: &'a CodeQuery) -> Scorer<'a, B> {
        Scorer {
            rows: self.rows,
            scales: self.scales,
            steps: self.steps,
            squares: self.squares,
            panels: match self.sketch {
                None => self.panels,
                Some(_) => Panels::EMPTY,
            },
            coded,
            weights: self.weights,
        }
    }

    /// The score of an item by all its bytes; `query` comes from [`Space::unit`].
    #[inline(always)]
    pub(crate) fn exact(
        &self,
        kernels: Kernels,
        query: &[f32],
        place: u32,
        row: &mut Lines<f32>,
    ) -> f32 {
        self.decode(place, row);
        kernels.score(self.metric, query, row) * self.weight(place)
    }
}

/// How items score against a query: larger is better.
pub(crate) trait Scores: Copy {
    /// How many items there are.
    fn len(&self) -> usize;

    /// Asks for the memory that scoring an item takes.
    fn prefetch(&self, place: u32);

    /// Scores four items.
    fn score_four<S: Simd>(&self, simd: S, places: &[u32; 4]) -> [f32; 4];

    /// Scores items: the inner product, or `2 q·x - |x|²` for l2.
    ///
    /// # Panics
    /// When there are fewer places for scores than items.
    #[inline(always)]
    fn score<S: Simd>(&self, simd: S, places: &[u32], scores: &mut [f32]) {
        let scores = &mut scores[..places.len()];
        let (fours, rest) = places.as_chunks::<4>();
        let (four_scores, scores) = scores.as_chunks_mut::<4>();
        for (places, scores) in fours.iter().zip(four_scores) {
            *scores = self.score_four(simd, places);
        }
        // One to three take no longer than four.
        if let Some(last) = rest.last() {
            let mut places = [*last; 4];
            places[..rest.len()].copy_from_slice(rest);
            let four = self.score_four(simd, &places);
            scores.copy_from_slice(&four[..rest.len()]);
        }
    }

    /// Writes what [`Scores::score_run`] takes of the items from `first` on besides their codes: the same for every query.
    fn steps(&self, _first: usize, _steps: &mut [f32]) {}

    /// As [`Scores::score`] of as many items as there are scores, which lie one after another from `first` on. `steps` come
    /// from [`Scores::steps`]. Unless a scorer knows better, place by place.
    ///
    /// # Panics
    /// When there are fewer items or steps than scores.
    #[inline(always)]
    fn score_run<S: Simd>(&self, simd: S, first: usize, _steps: &[f32], scores: &mut [f32]) {
        let mut at = count(first);
        for scores in scores.chunks_mut(4) {
            let places = [at, at + 1, at + 2, at + 3];
            scores.copy_from_slice(&self.score_four(simd, &places)[..scores.len()]);
            at += 4;
        }
    }
}

/// Scores by high bytes alone; `B` as in [`Simd::dots`].
#[derive(Clone, Copy, Debug)]
pub(crate) struct Scorer<'a, const B: usize> {
    rows: CodeRows<'a>,
    scales: &'a [u8],
    steps: &'a [f32; RUNGS],
    /// Of l2 only.
    squares: &'a [f32],
    /// Some of the rows, side by side.
    pub(crate) panels: &'a Panels,
    coded: &'a CodeQuery,
    /// What each score is multiplied by, by place; empty where by nothing.
    weights: &'a [f32],
}

impl<'a, const B: usize> Scorer<'a, B> {
    /// The same, each score multiplied by the weight of its place.
    pub(crate) fn weighted(self, weights: &'a [f32]) -> Self {
        Self { weights, ..self }
    }

    /// The same, with these of the rows side by side.
    #[inline(always)]
    pub(crate) fn beside(self, panels: &'a Panels) -> Self {
        Self { panels, ..self }
    }

    /// What a product of codes and query stands for, for an item's step.
    #[inline(always)]
    fn factor(&self) -> f32 {
        let twice = if self.squares.is_empty() { 1.0 } else { 2.0 };
        twice * self.coded.factor
    }

    /// What items score whose products with the query are these. One thing for all, then the next: so the
    /// numbers stay in a register.
    #[inline(always)]
    fn finish(&self, dots: [i32; 4], places: &[u32; 4]) -> [f32; 4] {
        let l2 = !self.squares.is_empty();
        let factor = self.factor();
        let (mut factors, mut squares) = ([0.0; 4], [0.0; 4]);
        for r in 0..4 {
            factors[r] = self.steps[usize::from(at(self.scales, places[r]))] * factor;
        }
        if l2 {
            for r in 0..4 {
                squares[r] = at(self.squares, places[r]);
            }
        }
        let mut scores = [0.0; 4];
        for r in 0..4 {
            scores[r] = dots[r] as f32 * factors[r] - squares[r];
        }
        if !self.weights.is_empty() {
            for r in 0..4 {
                scores[r] *= at(self.weights, places[r]);
            }
        }
        scores
    }
}

/// The value at a place; of one past the end, which only a damaged file leads to, the last. Without a branch: what
/// is loaded for many places comes together.
#[inline(always)]
pub(crate) fn at<T: Copy + Default>(values: &[T], place: u32) -> T {
    match values.len().checked_sub(1) {
        Some(last) => values[(place as usize).min(last)],
        None => T::default(),
    }
}

impl<const B: usize> Scores for Scorer<'_, B> {
    fn len(&self) -> usize {
        self.rows.len()
    }

    #[inline(always)]
    fn prefetch(&self, place: u32) {
        self.rows.prefetch::<B>(place);
        prefetch_at(self.scales, place as usize);
        if !self.squares.is_empty() {
            prefetch_at(self.squares, place as usize);
        }
        if !self.weights.is_empty() {
            prefetch_at(self.weights, place as usize);
        }
    }

    #[inline(always)]
    fn score_four<S: Simd>(&self, simd: S, places: &[u32; 4]) -> [f32; 4] {
        let dots = simd.dots::<B, 4>(&self.coded.values, self.rows, *places);
        self.finish(dots, places)
    }

    #[inline(always)]
    fn steps(&self, first: usize, steps: &mut [f32]) {
        let scales = &self.scales[first..][..steps.len()];
        for (step, scale) in steps.iter_mut().zip(scales) {
            *step = self.steps[usize::from(*scale)];
        }
    }

    // The same operations in the same order as `finish`: scores do not depend on which of the two computes them.
    #[inline(always)]
    fn score_run<S: Simd>(&self, simd: S, first: usize, steps: &[f32], scores: &mut [f32]) {
        let (query, factor) = (&self.coded.values, self.factor());
        if S::PANELS && self.panels.hold(first, scores.len()) {
            // The sums first lie where the scores then do.
            let sums: &mut [i32] = bytemuck::cast_slice_mut(scores);
            simd.panel_dots(query, self.panels, first, sums);
            for (score, step) in scores.iter_mut().zip(steps) {
                *score = score.to_bits().cast_signed() as f32 * (step * factor);
            }
        } else {
            let (wide, rest) = scores.as_chunks_mut::<WIDE>();
            let (wide_steps, rest_steps) = steps.as_chunks::<WIDE>();
            let mut at = first;
            for (scores, steps) in wide.iter_mut().zip(wide_steps) {
                let dots = simd.run_dots_wide::<B>(query, self.rows, at);
                for r in 0..WIDE {
                    scores[r] = dots[r] as f32 * (steps[r] * factor);
                }
                at += WIDE;
            }
            for (score, step) in rest.iter_mut().zip(rest_steps) {
                let [dot] = simd.run_dots::<B, 1>(query, self.rows, at);
                *score = dot as f32 * (step * factor);
                at += 1;
            }
        }
        if !self.squares.is_empty() {
            let squares = &self.squares[first..][..scores.len()];
            for (score, square) in scores.iter_mut().zip(squares) {
                *score -= square;
            }
        }
        if !self.weights.is_empty() {
            let weights = &self.weights[first..][..scores.len()];
            for (score, weight) in scores.iter_mut().zip(weights) {
                *score *= weight;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;
    use refrain_kernels::codes::Task;

    use super::*;
    use crate::{BuildParams, made};

    /// Items of a run, scored as a run and one by one.
    struct Both<T>(T, std::ops::Range<usize>);

    impl<T: Scores> Task for Both<T> {
        type Output = (Vec<f32>, Vec<f32>);

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Self::Output {
            let Self(scorer, run) = self;
            let mut steps = vec![0.0; run.len()];
            let (mut one_by_one, mut together) = (steps.clone(), steps.clone());
            let places: Vec<u32> = run.clone().map(count).collect();
            scorer.score(simd, &places, &mut one_by_one);
            scorer.steps(run.start, &mut steps);
            scorer.score_run(simd, run.start, &steps, &mut together);
            (one_by_one, together)
        }
    }

    proptest! {
        #[test]
        fn a_run_scores_what_its_items_score(
            metric in prop::sample::select(Metric::ALL.to_vec()),
            dim in prop_oneof![1_usize..=70, 71_usize..=130],
            seed in prop::collection::vec(-1.0_f32..1.0, 60),
            ends in (0_usize..=40, 0_usize..=40),
            weighted in any::<bool>(),
        ) {
            let n = 40;
            let value = |at: usize| seed[at * 7 % seed.len()] * seed[at / 3 % seed.len()] * (1 + at % 5) as f32;
            let vectors: Vec<f32> = (0..n * dim).map(value).collect();
            let query: Vec<f32> = (0..dim).map(|at| value(at + 7_000)).collect();
            let index = made::index(&vectors, dim, &BuildParams { metric, ..BuildParams::default() });
            let space = index.searched();
            let (mut unit, mut coded) = (Lines::new(), CodeQuery::default());
            space.unit(&query, &mut unit);
            coded.set(&unit, space.rows.stride());
            let weights: Vec<f32> = (0..n).map(|at| 0.5 + at as f32 / 7.0).collect();
            let scorer = space.scanner::<0>(&coded);
            let scorer = if weighted { scorer.weighted(&weights) } else { scorer };
            let run = ends.0.min(ends.1)..ends.0.max(ends.1);
            let bits = |scores: &[f32]| scores.iter().map(|score| score.to_bits()).collect::<Vec<_>>();
            let (one_by_one, together) = Kernels::active().run(Both(scorer, run.clone()));
            prop_assert_eq!(bits(&one_by_one), bits(&together));
            if let Some(nibbles) = space.nibbles {
                let mut query = NibbleQuery::default();
                query.set(&unit, metric);
                let scorer = NibbleScorer { nibbles, query: &query };
                let (one_by_one, together) = Kernels::active().run(Both(scorer, run));
                prop_assert_eq!(bits(&one_by_one), bits(&together));
            }
        }
    }
}
