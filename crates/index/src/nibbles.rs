//! Four bits a value: what is walked of vectors of 65 to 128 dimensions.
//!
//! Such a vector is two cache lines of high bytes, and a walk waits for memory more than it computes:
//! in nibbles it is one line, and its step and square lie side by side in another. The order by
//! them is a little off, so what a walk found is scored again by all bytes, as with a sketch. Not
//! under inner product, where the bound that ends a search needs the high bytes.
//!
//! A value is held as `step · (code - 7.5)`. The step of an item is the best of a few, from one that
//! cuts its longest values to one that reaches all, then scaled so that the product of the
//! item with what stands for it is its own square: the error then leans to neither side (as in Gao and
//! Long, *RaBitQ*, 2024).

use refrain_kernels::{
    Metric,
    codes::{BLOCK, CodeRows, NIBBLES, NibbleValues, Simd, put_nibble},
    prefetch_at,
};

use crate::{
    codes,
    layout::WHOLE,
    space::{Scores, at},
};

/// Whether vectors of a kind are walked by nibbles.
pub(crate) fn are_walked(metric: Metric, dim: usize) -> bool {
    metric != Metric::InnerProduct && dim > NIBBLES && dim <= WHOLE
}

/// Bytes of a row.
pub(crate) fn stride(dim: usize) -> usize {
    dim.div_ceil(NIBBLES) * BLOCK
}

/// Blocks of a row of all vectors that are walked so.
const BLOCKS: usize = WHOLE / NIBBLES;

/// Values to an item in the section of terms: the step, and the squared length (l2, else 0).
pub(crate) const TERMS: usize = 2;

/// What a code of 0 stands for, in steps: codes lie around zero.
const MIDDLE: f32 = 7.5;

/// Steps tried for an item.
const TRIED: usize = 12;

/// The narrowest step tried reaches so many times the root mean square of the values.
const NARROWEST: f32 = 1.6;

/// Codes `values` into a row of zeros; returns the step.
pub(crate) fn encode(values: &[f32], row: &mut [i8]) -> f32 {
    let square: f32 = values.iter().map(|value| value * value).sum();
    let typical = (square / values.len().max(1) as f32).sqrt();
    let largest = codes::magnitude(values);
    // Values no catalogue has, or none at all: these stand for nothing.
    if square <= 0.0 || !square.is_finite() {
        return 0.0;
    }
    let narrowest = (NARROWEST * typical).min(largest);
    let mut best = (f32::INFINITY, largest / MIDDLE);
    for tried in 0..TRIED {
        let part = tried as f32 / (TRIED - 1) as f32;
        let step = (narrowest + (largest - narrowest) * part) / MIDDLE;
        let error = values.iter().map(|value| {
            let back = (code(*value, step) - MIDDLE) * step;
            (value - back) * (value - back)
        });
        let error: f32 = error.sum();
        if error < best.0 {
            best = (error, step);
        }
    }
    let step = best.1;
    let mut product = 0.0;
    for (at, value) in values.iter().enumerate() {
        let code = code(*value, step);
        product += value * (code - MIDDLE);
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a whole number of 0 to 15"
        )]
        put_nibble(row, at, code as u8);
    }
    let scaled = square / product;
    if scaled.is_finite() { scaled } else { step }
}

/// The code of a value: 0 to 15.
fn code(value: f32, step: f32) -> f32 {
    codes::nearest((value / step + MIDDLE).clamp(0.0, 15.0))
}

/// The nibbles of all items, by place.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Nibbles<'a> {
    pub(crate) rows: CodeRows<'a>,
    /// [`TERMS`] to an item.
    pub(crate) terms: &'a [f32],
}

/// A query as nibbles are scored with.
#[derive(Clone, Debug, Default)]
pub(crate) struct NibbleQuery {
    values: NibbleValues,
    /// What is taken off a sum of products: codes are not around zero.
    middle: f32,
    /// A sum is multiplied by it, and by the step of the item.
    factor: f32,
}

impl NibbleQuery {
    /// Takes on a query from `Space::unit`.
    pub(crate) fn set(&mut self, query: &[f32], metric: Metric) {
        let largest = codes::magnitude(query);
        let scale = f32::from(i8::MAX) / largest;
        let scale = if scale.is_finite() { scale } else { 0.0 };
        self.values.set(query.iter().map(|value| {
            #[expect(clippy::cast_possible_truncation, reason = "at most 127")]
            let whole = codes::nearest(value * scale) as i8;
            whole
        }));
        self.middle = MIDDLE * self.values.sum() as f32;
        let twice = if metric == Metric::L2 { 2.0 } else { 1.0 };
        self.factor = if scale > 0.0 { twice / scale } else { 0.0 };
    }
}

/// Scores by nibbles.
#[derive(Clone, Copy, Debug)]
pub(crate) struct NibbleScorer<'a> {
    pub(crate) nibbles: Nibbles<'a>,
    pub(crate) query: &'a NibbleQuery,
}

impl NibbleScorer<'_> {
    /// What items score whose sums with the query are these.
    #[inline(always)]
    fn finish(&self, sums: [i32; 4], places: &[u32; 4]) -> [f32; 4] {
        let terms = self.nibbles.terms.as_chunks::<TERMS>().0;
        let (mut factors, mut squares) = ([0.0; 4], [0.0; 4]);
        for r in 0..4 {
            let [step, square] = at(terms, places[r]);
            factors[r] = self.query.factor * step;
            squares[r] = square;
        }
        let mut scores = [0.0; 4];
        for r in 0..4 {
            scores[r] = (sums[r] as f32 - self.query.middle) * factors[r] - squares[r];
        }
        scores
    }
}

impl Scores for NibbleScorer<'_> {
    fn len(&self) -> usize {
        self.nibbles.rows.len()
    }

    #[inline(always)]
    fn prefetch(&self, place: u32) {
        self.nibbles.rows.prefetch::<BLOCKS>(place);
        prefetch_at(self.nibbles.terms, place as usize * TERMS);
    }

    #[inline(always)]
    fn score_four<S: Simd>(&self, simd: S, places: &[u32; 4]) -> [f32; 4] {
        let (query, rows) = (&self.query.values, self.nibbles.rows);
        let sums = simd.nibble_dots::<BLOCKS, 4>(query, rows, *places);
        self.finish(sums, places)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use refrain_kernels::{Kernels, codes::Task};

    struct Score<'a>(NibbleScorer<'a>, &'a [u32]);

    impl Task for Score<'_> {
        type Output = Vec<f32>;

        #[inline(always)]
        fn run<S: Simd>(self, simd: S) -> Vec<f32> {
            let mut scores = vec![0.0; self.1.len()];
            self.0.score(simd, self.1, &mut scores);
            scores
        }
    }

    fn coded(vectors: &[Vec<f32>], metric: Metric) -> (Vec<i8>, Vec<f32>) {
        let stride = stride(vectors[0].len());
        let mut rows = vec![0; vectors.len() * stride];
        let mut terms = Vec::new();
        for (vector, row) in vectors.iter().zip(rows.chunks_exact_mut(stride)) {
            let square: f32 = vector.iter().map(|value| value * value).sum();
            terms.push(encode(vector, row));
            terms.push(if metric == Metric::L2 { square } else { 0.0 });
        }
        (rows, terms)
    }

    proptest! {
        #[test]
        fn scores_are_within_what_four_bits_lose(
            seed in prop::collection::vec(-1.0_f32..1.0, 200),
            dim in 65_usize..=128,
            scale in -12_i32..12,
            l2 in any::<bool>(),
        ) {
            let metric = if l2 { Metric::L2 } else { Metric::Cosine };
            let value = |at: usize| seed[at * 7 % seed.len()] * seed[at / 3 % seed.len()] * 2_f32.powi(scale);
            let vectors: Vec<Vec<f32>> = (0..9).map(|row| (0..dim).map(|at| value(row * 131 + at)).collect()).collect();
            let query: Vec<f32> = (0..dim).map(|at| value(5_000 + at)).collect();
            let (rows, terms) = coded(&vectors, metric);
            let mut given = NibbleQuery::default();
            given.set(&query, metric);
            let nibbles = Nibbles { rows: CodeRows::new(&rows, stride(dim)), terms: &terms };
            let places: Vec<u32> = (0..9).collect();
            let scores = Kernels::active().run(Score(NibbleScorer { nibbles, query: &given }, &places));
            let length = |vector: &[f32]| vector.iter().map(|value| value * value).sum::<f32>().sqrt();
            let largest = codes::magnitude(&query);
            for (place, (vector, score)) in vectors.iter().zip(scores).enumerate() {
                // As docs/format.md says that a row is read.
                let row = &rows[place * stride(dim)..][..stride(dim)];
                let step = terms[place * TERMS];
                let back: Vec<f32> = (0..dim).map(|at| {
                    let byte = row[at / 64 * 32 + at % 32].cast_unsigned();
                    let code = if at % 64 < 32 { byte & 15 } else { byte >> 4 };
                    (f32::from(code) - 7.5) * step
                }).collect();
                let apart: Vec<f32> = vector.iter().zip(&back).map(|(a, b)| a - b).collect();
                prop_assert!(length(&apart) <= 0.25 * length(vector), "{} {}", length(&apart), length(vector));
                let product: f32 = back.iter().zip(&query).map(|(a, b)| a * b).sum();
                let twice = if l2 { 2.0 } else { 1.0 };
                let exact = twice * product - if l2 { length(vector).powi(2) } else { 0.0 };
                // What the query loses: half of a 127th of its largest value, in each dimension.
                let weight: f32 = back.iter().map(|value| value.abs()).sum();
                let slack = twice * (largest / 254.0 * weight * 1.001 + 1e-4 * length(vector) * length(&query));
                prop_assert!((score - exact).abs() <= slack + 1e-5 * length(vector).powi(2), "{score} {exact} {slack}");
            }
        }
    }

    #[test]
    fn an_item_is_nearest_to_itself_and_unbiased() {
        let vector: Vec<f32> = (0..100)
            .map(|at| ((at * 37 % 101) as f32 - 50.0) / 10.0)
            .collect();
        let (rows, terms) = coded(std::slice::from_ref(&vector), Metric::Cosine);
        let mut query = NibbleQuery::default();
        query.set(&vector, Metric::Cosine);
        let nibbles = Nibbles {
            rows: CodeRows::new(&rows, stride(100)),
            terms: &terms,
        };
        let score = Kernels::active().run(Score(
            NibbleScorer {
                nibbles,
                query: &query,
            },
            &[0],
        ));
        let square: f32 = vector.iter().map(|value| value * value).sum();
        assert!(
            (score[0] / square - 1.0).abs() < 2e-3,
            "{} of {square}",
            score[0]
        );
    }

    #[test]
    fn what_cannot_be_coded_scores_nothing() {
        for vector in [vec![0.0; 65], vec![f32::MAX; 65]] {
            let (rows, terms) = coded(std::slice::from_ref(&vector), Metric::Cosine);
            assert_eq!(terms[0], 0.0);
            let mut query = NibbleQuery::default();
            query.set(&[f32::MAX; 65], Metric::Cosine);
            let nibbles = Nibbles {
                rows: CodeRows::new(&rows, stride(65)),
                terms: &terms,
            };
            let score = Kernels::active().run(Score(
                NibbleScorer {
                    nibbles,
                    query: &query,
                },
                &[0],
            ));
            assert_eq!(score, [0.0]);
        }
    }

    #[test]
    fn one_line_of_a_cache() {
        assert_eq!([65, 100, 128].map(stride), [64, 64, 64]);
        assert!(are_walked(Metric::L2, 65) && are_walked(Metric::Cosine, 128));
        assert!(!are_walked(Metric::L2, 64) && !are_walked(Metric::L2, 129));
        assert!(!are_walked(Metric::InnerProduct, 100));
    }
}
