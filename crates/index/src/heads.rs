//! How many of the longest vectors a search by inner product scores before it walks.
//!
//! Learned vectors are long where items are popular, and the longest are in most answers. They lie first, so
//! that to score them costs a fraction of what it costs to meet them on a walk; and what is best of them is
//! where a walk had better begin, for walks from elsewhere end at the first top that they come to.
//!
//! How far that goes is told by the lengths alone. Taken that a query scores an item of length `l` as `l · z`, with `z`
//! normally distributed, an item is among the best `ef` with probability `P(z > t / l)`, where these sum up to `ef` over
//! all items. The head ends where that falls below [`LEAST_LIKELY`]. On factors of real and of generated logs
//! (40,981 to a million items, the best 10 to 64) that was, at 1 in 256, within a factor of three of where the share of items
//! that are in answers does: of 1.5 but for the two real ones, whose answers come from further down.
//!
//! One thread, recall@10, against 128 items at every width: 1,000,000 × 64 generated music factors 0.95 at 2 times the
//! queries a second and 0.99 at 3 times; the factors of a generated log (290,870 × 64), where the best ten of everybody
//! are among 3,072 items, 7 times and 7 times.

use crate::layout::RUN;

/// Widths that heads are kept for: 16, 32, … 2048.
pub(crate) const WIDTHS: usize = 8;

/// The first of them.
const NARROWEST: usize = 16;

/// Items scored in any case: what a walk begins with.
const LEAST: usize = 2 * RUN;

/// Items scored at most, for one that a walk keeps: one after another they cost half as much again as the walk
/// (`WALK_COST`), side by side, at 1.0 ns where that takes 1.8, five sixths of it.
const MOST_A_WIDTH: usize = 96;

/// The least probability to be among the best with which an item is scored.
const LEAST_LIKELY: f64 = 1.0 / 1024.0;

/// And how many times as likely as an item at random it must be: where all are alike, none is to be preferred.
const MORE_LIKELY: f64 = 2.0;

/// The part of the normal distribution beyond 0, ¼, ½, … 6. A table, so that every machine gets the same.
const BEYOND: [f64; 25] = [
    0.5,
    0.401_293_674,
    0.308_537_539,
    0.226_627_352,
    0.158_655_254,
    0.105_649_774,
    0.066_807_201,
    0.040_059_157,
    0.022_750_132,
    0.012_224_473,
    0.006_209_665,
    0.002_979_763,
    0.001_349_898,
    5.770_25e-4,
    2.326_29e-4,
    8.841_7e-5,
    3.167_1e-5,
    1.068_9e-5,
    3.397_7e-6,
    1.017_1e-6,
    2.866_5e-7,
    7.604_9e-8,
    1.899_0e-8,
    4.462_2e-9,
    9.865_9e-10,
];

/// The heads of an index, by the width of the search.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(crate) struct Heads(pub(crate) [u32; WIDTHS]);

impl Heads {
    /// Of `n` items whose longest of each [`RUN`] are given, falling. O(n / 64).
    pub(crate) fn new(lengths: &[f32], n: usize) -> Self {
        Self(std::array::from_fn(|step| {
            let ef = NARROWEST << step;
            let head = head(lengths, n, ef).min(ef * MOST_A_WIDTH).min(n);
            u32::try_from(head).unwrap_or(u32::MAX)
        }))
    }

    /// Items that a search of that width scores first, of `n`.
    #[inline(always)]
    pub(crate) fn at(self, ef: usize, n: usize) -> usize {
        let step = (ef / NARROWEST).max(1).ilog2() as usize;
        let below = self.0[step.min(WIDTHS - 1)] as usize;
        let above = self.0[(step + 1).min(WIDTHS - 1)] as usize;
        let from = NARROWEST << step.min(WIDTHS - 1);
        let past = ef.saturating_sub(from).min(from);
        // A damaged file may hold any number.
        let head = below + above.saturating_sub(below) * past / from;
        head.max(LEAST).min(n)
    }
}

fn head(lengths: &[f32], n: usize, ef: usize) -> usize {
    let least = LEAST_LIKELY.max(MORE_LIKELY * ef as f64 / n as f64);
    let longest = f64::from(lengths.first().copied().unwrap_or(0.0));
    let (mut low, mut high) = (0.0, longest * (BEYOND.len() - 1) as f64 / 4.0);
    // Halved to a part in a million.
    for _ in 0..20 {
        let bar = f64::midpoint(low, high);
        match expected(lengths, bar) > ef as f64 {
            true => low = bar,
            false => high = bar,
        }
    }
    RUN * lengths.partition_point(|length| beyond(low / f64::from(*length)) >= least)
}

/// How many items are expected to score more than `bar`.
fn expected(lengths: &[f32], bar: f64) -> f64 {
    let beyond = lengths
        .iter()
        .map(|length| beyond(bar / f64::from(*length)));
    // Lengths fall: after the first that cannot, none can.
    beyond.take_while(|share| *share > 0.0).sum::<f64>() * RUN as f64
}

/// The part of the normal distribution beyond `x`, which is not negative; 0 from 6 on.
fn beyond(x: f64) -> f64 {
    let at = x * 4.0;
    if at.is_nan() || at >= (BEYOND.len() - 1) as f64 {
        return 0.0;
    }
    #[expect(
        clippy::cast_possible_truncation,
        clippy::cast_sign_loss,
        reason = "0 to 23"
    )]
    let from = at as usize;
    BEYOND[from] + (BEYOND[from + 1] - BEYOND[from]) * (at - from as f64)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const N: usize = 40_000;
    const DIM: usize = 24;

    /// The longest of each run of items whose lengths are given, falling.
    fn longest(lengths: &[f32]) -> Vec<f32> {
        lengths.iter().step_by(RUN).copied().collect()
    }

    /// A few, popular, are long: the `i`-th is of length `(i + 20)^-0.4`.
    fn popular() -> Vec<f32> {
        let length = |at: usize| ((at + 20) as f32).powf(-0.4);
        (0..N).map(length).collect()
    }

    #[test]
    fn a_head_ends_where_items_cease_to_be_in_answers() {
        let lengths = popular();
        let heads = Heads::new(&longest(&lengths), N);
        // Directions that have nothing to do with lengths, from a generator of one line.
        let mut state = 1_u64;
        let mut draw = || {
            let sum = (0..4).map(|_| {
                state = state
                    .wrapping_mul(6_364_136_223_846_793_005)
                    .wrapping_add(1);
                (state >> 40) as f32 / (1 << 24) as f32 - 0.5
            });
            sum.sum::<f32>()
        };
        let mut items: Vec<Vec<f32>> = Vec::with_capacity(N);
        for length in &lengths {
            let row: Vec<f32> = (0..DIM).map(|_| draw()).collect();
            let scale = length / row.iter().map(|v| v * v).sum::<f32>().sqrt();
            items.push(row.iter().map(|v| v * scale).collect());
        }
        let (ef, queries) = (32, 200);
        let head = heads.at(ef, N);
        let (mut within, mut at_its_end, mut behind) = (0, 0, 0);
        for _ in 0..queries {
            let query: Vec<f32> = (0..DIM).map(|_| draw()).collect();
            let score = |row: &Vec<f32>| row.iter().zip(&query).map(|(a, b)| a * b).sum::<f32>();
            let mut ranked: Vec<(f32, usize)> = items.iter().map(score).zip(0..).collect();
            ranked.select_nth_unstable_by(ef - 1, |a, b| b.0.total_cmp(&a.0));
            for (_, at) in &ranked[..ef] {
                within += usize::from(*at < head);
                at_its_end += usize::from((head / 2..head).contains(at));
                behind += usize::from((head..2 * head).contains(at));
            }
        }
        let share = |count: usize| count as f64 / (queries * head) as f64;
        assert!((256..2048).contains(&head), "{head}");
        assert!(within > queries * ef / 4, "{within}");
        assert!(share(at_its_end) * 2.0 > LEAST_LIKELY, "{at_its_end}");
        assert!(share(behind) < LEAST_LIKELY * 2.0, "{behind}");
    }

    #[test]
    fn where_all_are_as_long_none_come_first() {
        for n in [1, 63, 1000, N] {
            let heads = Heads::new(&longest(&vec![0.5; n]), n);
            assert_eq!(heads, Heads::default(), "{n}");
            assert_eq!(heads.at(64, n), LEAST.min(n));
        }
        assert_eq!(Heads::new(&[], 0).at(10, 0), 0);
        assert_eq!(Heads::new(&longest(&vec![0.0; N]), N), Heads::default());
    }

    #[test]
    fn a_wider_search_has_a_longer_head() {
        let heads = Heads::new(&longest(&popular()), N);
        let of: Vec<usize> = (1..3000).map(|ef| heads.at(ef, N)).collect();
        assert!(
            of.is_sorted() && of[15] < of[100] && of[100] < of[1000],
            "{heads:?}"
        );
        assert!(
            of.iter()
                .zip(1..)
                .all(|(head, ef)| *head <= LEAST.max(ef.max(16) * MOST_A_WIDTH))
        );
    }

    proptest! {
        #[test]
        fn whatever_a_file_holds_a_head_is_of_its_items(
            held: [u32; WIDTHS], ef in 0_usize..1 << 20, n in 0_usize..1 << 31,
        ) {
            let head = Heads(held).at(ef, n);
            prop_assert!(head <= n && head >= LEAST.min(n));
        }
    }
}
