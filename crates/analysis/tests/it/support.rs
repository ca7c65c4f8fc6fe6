//! Fixtures shared by the tests.

use refrain_analysis::methods::moments::{Moments, Tally};

/// Asserts that two numbers agree to an absolute tolerance.
#[track_caller]
pub(crate) fn close(got: f64, expected: f64, tolerance: f64) {
    assert!(
        (got - expected).abs() <= tolerance,
        "got {got}, expected {expected} within {tolerance:e}"
    );
}

/// Columns y, d, x of the control and the treatment arm of the twelve-row table.
pub(crate) fn t12() -> [Vec<[f64; 3]>; 2] {
    let arm = |rows: [(f64, f64, f64); 6]| rows.iter().map(|&(x, y, d)| [y, d, x]).collect();
    [
        arm([
            (3., 4., 20.),
            (0., 1., 10.),
            (5., 6., 30.),
            (2., 2., 15.),
            (1., 0., 5.),
            (4., 5., 25.),
        ]),
        arm([
            (3., 5., 20.),
            (1., 2., 12.),
            (5., 8., 28.),
            (2., 4., 16.),
            (0., 1., 6.),
            (4., 5., 24.),
        ]),
    ]
}

/// Columns y, d, x of both arms of the generated table of 2,000 rows.
pub(crate) fn gen42() -> [Vec<[f64; 3]>; 2] {
    let mut random = SplitMix::new(42);
    let mut arms = [Vec::new(), Vec::new()];
    for i in 0..2000 {
        let (u1, u2, u3) = (random.uniform(), random.uniform(), random.uniform());
        let x = (8.0 * u1).floor();
        let d = 5.0 + (20.0 * u2).floor();
        let lift = if i % 2 == 1 && u2 < 0.25 { 1.0 } else { 0.0 };
        arms[i % 2].push([x + (4.0 * u3).floor() + lift, d, x]);
    }
    arms
}

/// Moments of the chosen columns.
pub(crate) fn moments(rows: &[[f64; 3]], columns: &[usize]) -> Moments {
    let mut tally = Tally::new(columns.len());
    for row in rows {
        let picked: Vec<f64> = columns.iter().map(|&c| row[c]).collect();
        tally.push(&picked).expect("finite");
    }
    tally.moments()
}

/// Splitmix64 (Steele, Lea, Flood 2014).
pub(crate) struct SplitMix {
    state: u64,
}

impl SplitMix {
    pub(crate) fn new(seed: u64) -> Self {
        Self { state: seed }
    }

    pub(crate) fn next(&mut self) -> u64 {
        self.state = self.state.wrapping_add(0x9e37_79b9_7f4a_7c15);
        let mut z = self.state;
        z = (z ^ (z >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
        z ^ (z >> 31)
    }

    /// Uniform on 0..1.
    #[expect(clippy::cast_precision_loss, reason = "53 bits")]
    pub(crate) fn uniform(&mut self) -> f64 {
        (self.next() >> 11) as f64 * (1.0 / 9_007_199_254_740_992.0)
    }
}
