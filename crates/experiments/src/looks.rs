//! Bounds of a one-sided test that is looked at more than once (Lan and DeMets 1983; the recursion is
//! Armitage, McPherson and Rowe 1969). The server needs the few lines that stop a rollout; the whole
//! of the analysis engine stays out of the serving path.

use std::f64::consts::{FRAC_1_SQRT_2, PI};

/// How much of the error rate may be spent by an information fraction `t`.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub enum Spending {
    /// `alpha * t^rho`, `rho` greater than 0.
    Power(f64),
    /// Like O'Brien and Fleming: almost nothing early.
    ObrienFleming,
    /// Like Pocock: nearly even.
    Pocock,
}

impl Spending {
    /// What may be spent of `alpha` up to `t` in `0..=1`.
    #[must_use]
    pub fn spent(self, alpha: f64, t: f64) -> f64 {
        let t = t.clamp(0.0, 1.0);
        if t <= 0.0 {
            return 0.0;
        }
        match self {
            Self::Power(rho) => alpha * t.powf(rho),
            Self::ObrienFleming => 2.0 * upper_tail(quantile(1.0 - alpha / 2.0) / t.sqrt()),
            Self::Pocock => alpha * ((std::f64::consts::E - 1.0) * t).ln_1p(),
        }
    }
}

/// The looks that were made at one test, and what the next may use. Only looks made are paid for.
#[derive(Debug, Clone)]
pub struct Looks {
    alpha: f64,
    spending: Spending,
    t: f64,
    spent: f64,
    bound: f64,
    /// Density of the score `Z * sqrt(t)` among those that have not crossed yet, with the weights of
    /// Simpson's rule in it; empty before the first look.
    density: Vec<(f64, f64)>,
}

/// A look that adds less information than this reuses the bound before it.
const LEAST_STEP: f64 = 1e-5;
/// Bounds beyond this are not worth telling apart.
const FARTHEST: f64 = 12.0;

impl Looks {
    /// No look made yet. `alpha` is one-sided, between 0 and 0.5.
    #[must_use]
    pub fn new(alpha: f64, spending: Spending) -> Self {
        Self {
            alpha,
            spending,
            t: 0.0,
            spent: 0.0,
            bound: f64::INFINITY,
            density: Vec::new(),
        }
    }

    /// Makes a look at information fraction `t`: the z at or above which the test rejects. O(grid^2),
    /// some milliseconds.
    ///
    /// At 1 everything is spent. Beyond, the last bound stays, which holds for the data of the look at 1
    /// alone: whoever goes on looking at more data begins another test, with an error rate of its own.
    pub fn look(&mut self, t: f64) -> f64 {
        if t.is_nan() || t.min(1.0) < self.t + LEAST_STEP {
            return self.bound;
        }
        let t = t.min(1.0);
        let may = self.spending.spent(self.alpha, t) - self.spent;
        if may < 1e-16 {
            self.bound = FARTHEST;
            // Nothing to spend yet: nobody is lost, and the next look starts from here.
            if self.density.is_empty() {
                return self.bound;
            }
        }
        let deviation = (t - self.t).sqrt();
        let crossing = |score: f64| -> f64 {
            if self.density.is_empty() {
                return upper_tail(score / t.sqrt());
            }
            let beyond = |&(at, mass): &(f64, f64)| mass * upper_tail((score - at) / deviation);
            self.density.iter().map(beyond).sum()
        };
        let root = t.sqrt();
        let score = bisect(-FARTHEST * root, FARTHEST * root, |score| {
            crossing(score) - may
        });
        if t < 1.0 {
            self.density = self.carry(t, score, deviation);
        }
        self.t = t;
        self.spent += may;
        self.bound = score / root;
        self.bound
    }

    /// Density of the score at `t` below `score`.
    fn carry(&self, t: f64, score: f64, deviation: f64) -> Vec<(f64, f64)> {
        let low = -8.0 * t.sqrt();
        let span = (score - low).max(1e-9);
        // Steps of a sixth of the kernel's deviation: Simpson's error is then below 1e-7.
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "a count between 200 and 4000"
        )]
        let steps =
            ((span / deviation * 6.0).ceil().clamp(200.0, 4000.0) as usize).next_multiple_of(2);
        let width = span / f64::from(u32::try_from(steps).unwrap_or(u32::MAX));
        let normal = |x: f64| (-0.5 * x * x).exp() / (2.0 * PI).sqrt();
        (0..=steps)
            .map(|i| {
                let at = low + width * f64::from(u32::try_from(i).unwrap_or(u32::MAX));
                let density = if self.density.is_empty() {
                    normal(at / t.sqrt()) / t.sqrt()
                } else {
                    self.density
                        .iter()
                        .map(|&(from, mass)| mass * normal((at - from) / deviation))
                        .sum::<f64>()
                        / deviation
                };
                let simpson = match i {
                    0 => 1.0,
                    i if i == steps => 1.0,
                    i if i % 2 == 1 => 4.0,
                    _ => 2.0,
                };
                (at, density * simpson * width / 3.0)
            })
            .collect()
    }
}

/// `P(Z > z)` of a standard normal, without cancellation in either tail.
#[must_use]
pub fn upper_tail(z: f64) -> f64 {
    0.5 * libm::erfc(z * FRAC_1_SQRT_2)
}

/// The z below which a standard normal falls with probability `p` in 0..1.
#[must_use]
pub fn quantile(p: f64) -> f64 {
    bisect(-40.0, 40.0, |z| upper_tail(z) - (1.0 - p))
}

/// Root of a falling function.
fn bisect(mut low: f64, mut high: f64, f: impl Fn(f64) -> f64) -> f64 {
    for _ in 0..200 {
        let middle = 0.5 * (low + high);
        if middle <= low || middle >= high || high - low < 1e-11 {
            break;
        }
        if f(middle) > 0.0 {
            low = middle;
        } else {
            high = middle;
        }
    }
    0.5 * (low + high)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn bounds(alpha: f64, spending: Spending, at: &[f64]) -> Vec<f64> {
        let mut looks = Looks::new(alpha, spending);
        at.iter().map(|&t| looks.look(t)).collect()
    }

    fn equal(n: u32) -> Vec<f64> {
        (1..=n).map(|k| f64::from(k) / f64::from(n)).collect()
    }

    /// Computed by an independent recursion at a finer grid.
    #[test]
    fn reproduces_published_bounds() {
        use Spending::{ObrienFleming, Pocock, Power};
        let cases: [(f64, Spending, Vec<f64>, &[f64]); 6] = [
            (
                0.025,
                ObrienFleming,
                equal(4),
                &[4.332_634, 2.963_132, 2.359_044, 2.014_090],
            ),
            (
                0.025,
                Pocock,
                equal(5),
                &[2.437_977, 2.426_814, 2.410_194, 2.396_649, 2.386_000],
            ),
            (
                0.05,
                Power(2.0),
                equal(4),
                &[2.734_369, 2.301_870, 2.010_185, 1.769_190],
            ),
            (
                0.025,
                Power(2.0),
                equal(4),
                &[2.955_167, 2.559_350, 2.300_855, 2.091_967],
            ),
            (
                0.025,
                ObrienFleming,
                vec![0.1, 0.35, 0.55, 0.9, 1.0],
                &[6.991_352, 3.612_789, 2.812_588, 2.112_199, 2.059_746],
            ),
            (
                0.05,
                Power(2.0),
                equal(14),
                &[
                    3.475_341, 3.146_318, 2.944_354, 2.786_668, 2.653_835, 2.537_387, 2.432_690,
                    2.336_873, 2.248_017, 2.164_765, 2.086_112, 2.011_298, 1.939_726, 1.870_919,
                ],
            ),
        ];
        for (alpha, spending, at, expected) in cases {
            for (got, want) in bounds(alpha, spending, &at).iter().zip(expected) {
                assert!(
                    (got - want).abs() < 1e-5,
                    "{spending:?} {alpha}: {got} {want}"
                );
            }
        }
    }

    #[test]
    fn a_look_without_news_costs_nothing() {
        let mut looks = Looks::new(0.05, Spending::Power(2.0));
        let first = looks.look(0.5);
        assert_eq!(looks.look(0.5).to_bits(), first.to_bits());
        assert_eq!(looks.look(f64::NAN).to_bits(), first.to_bits());
        let last = looks.look(1.0);
        assert_eq!(looks.look(3.0).to_bits(), last.to_bits());
        let direct = bounds(0.05, Spending::Power(2.0), &[0.5, 1.0]);
        assert_eq!(last.to_bits(), direct[1].to_bits());
    }

    #[test]
    fn quantile_and_tail_agree() {
        for p in [1e-9, 0.001, 0.025, 0.5, 0.8, 0.975, 0.999_999] {
            assert!((1.0 - upper_tail(quantile(p)) - p).abs() < 1e-10, "{p}");
        }
        assert!((quantile(0.975) - 1.959_963_985).abs() < 1e-8);
    }
}
