//! Have offline metrics predicted online effects? Over the archive of past experiments.
//!
//! Mind the selection: only variants that looked good offline were ever tested, which narrows the
//! offline range and weakens every correlation seen here.

use serde::{Deserialize, Serialize};

use super::effect::Interval;
use super::error::{MethodError, check_count, check_finite, check_open_unit, check_positive};
use super::moments::length;
use super::special::{normal_two_sided, normal_upper_quantile, t_two_sided};

/// With fewer experiments, nothing here is more than an anecdote.
pub const FEW_EXPERIMENTS: usize = 20;

/// One past experiment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Experiment {
    /// Change of the offline metric.
    pub offline: f64,
    /// Effect measured online.
    pub online: f64,
    /// Standard error of the online effect.
    pub se: f64,
}

/// How offline and online went together.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Agreement {
    /// Experiments.
    pub n: u64,
    /// Pearson's correlation.
    pub pearson: Correlation,
    /// Its interval by Fisher's transformation.
    pub pearson_interval: Interval,
    /// Spearman's rank correlation.
    pub spearman: Correlation,
    /// Kendall's τ-b.
    pub kendall: Correlation,
    /// Pearson's correlation, experiments weighted by `1/se²`.
    pub weighted: f64,
    /// Online effect for one unit of the offline metric, least squares weighted by `1/se²`.
    pub slope: f64,
    /// Its intercept.
    pub intercept: f64,
    /// Share of experiments in which both have the same sign.
    pub sign_agreement: f64,
    /// Share of the variance of online effects that is not noise: `1 − mean se² / variance`.
    pub reliability: f64,
    /// Pearson over the root of reliability: what it would be without online noise. At most 1; `None`
    /// when noise explains all variance.
    pub noise_corrected: Option<f64>,
    /// The corrected value before the cap; above 1, there are too few experiments.
    pub noise_corrected_raw: Option<f64>,
    /// Root mean square error of predicting each experiment's effect from a line through the others.
    pub leave_one_out_rmse: f64,
    /// The same with the mean of the others as prediction: what the line must beat.
    pub leave_one_out_baseline: f64,
    /// Fewer than [`FEW_EXPERIMENTS`].
    pub few: bool,
}

/// A correlation with its two-sided p-value.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Correlation {
    /// −1..=1.
    pub value: f64,
    /// P-value of "no association".
    pub p: f64,
}

/// Correlations over four or more experiments. O(n²).
///
/// p-values: t with n − 2 degrees of freedom for Pearson and Spearman; for Kendall exact up to 33
/// experiments without ties, else normal with the variance for ties.
///
/// # Errors
/// Fewer than four experiments, numbers that are not finite, standard errors not above 0, no variance.
pub fn agreement(experiments: &[Experiment], confidence: f64) -> Result<Agreement, MethodError> {
    let n = experiments.len();
    check_count("past experiments", 4, n as u64)?;
    check_open_unit("a confidence level", confidence)?;
    for e in experiments {
        check_finite("an offline change", e.offline)?;
        check_finite("an online effect", e.online)?;
        check_positive("a standard error", e.se)?;
    }
    let x: Vec<f64> = experiments.iter().map(|e| e.offline).collect();
    let y: Vec<f64> = experiments.iter().map(|e| e.online).collect();
    let ones = vec![1.0; n];
    let line = Line::fit(&x, &y, &ones)?;
    let precision: Vec<f64> = experiments.iter().map(|e| 1.0 / (e.se * e.se)).collect();
    let r = line.correlation;
    let pearson = Correlation {
        value: r,
        p: p_of(r, n),
    };
    let ranked = Line::fit(&ranks(&x), &ranks(&y), &ones)?.correlation;
    let variance = line.syy / length(n - 1);
    let noise = experiments.iter().map(|e| e.se * e.se).sum::<f64>() / length(n);
    let reliability = 1.0 - noise / variance;
    let raw = (reliability > 0.0).then(|| r / reliability.sqrt());
    let weighted = Line::fit(&x, &y, &precision)?;
    let (model, baseline) = leave_one_out(&x, &y, &precision);
    let half = normal_upper_quantile(0.5 * (1.0 - confidence)) / length(n - 3).sqrt();
    let fisher = libm::atanh(r.clamp(-1.0 + 1e-15, 1.0 - 1e-15));
    let same = experiments.iter().filter(|e| e.offline * e.online > 0.0);
    Ok(Agreement {
        n: n as u64,
        pearson,
        pearson_interval: Interval {
            low: libm::tanh(fisher - half),
            high: libm::tanh(fisher + half),
        },
        spearman: Correlation {
            value: ranked,
            p: p_of(ranked, n),
        },
        kendall: kendall(&x, &y),
        weighted: weighted.correlation,
        slope: weighted.slope,
        intercept: weighted.intercept,
        sign_agreement: length(same.count()) / length(n),
        reliability,
        noise_corrected: raw.map(|r| r.clamp(-1.0, 1.0)),
        noise_corrected_raw: raw,
        leave_one_out_rmse: model,
        leave_one_out_baseline: baseline,
        few: n < FEW_EXPERIMENTS,
    })
}

struct Line {
    slope: f64,
    intercept: f64,
    correlation: f64,
    syy: f64,
}

impl Line {
    fn fit(x: &[f64], y: &[f64], weights: &[f64]) -> Result<Self, MethodError> {
        let total: f64 = weights.iter().sum();
        let mean = |v: &[f64]| super::matrix::dot(v, weights) / total;
        let (mx, my) = (mean(x), mean(y));
        let (mut sxx, mut sxy, mut syy) = (0.0, 0.0, 0.0);
        for ((x, y), w) in x.iter().zip(y).zip(weights) {
            sxx += w * (x - mx) * (x - mx);
            sxy += w * (x - mx) * (y - my);
            syy += w * (y - my) * (y - my);
        }
        if sxx == 0.0 || syy == 0.0 {
            return Err(MethodError::NoVariance {
                what: "the offline change or the online effect",
            });
        }
        let slope = sxy / sxx;
        Ok(Self {
            slope,
            intercept: my - slope * mx,
            correlation: (sxy / (sxx * syy).sqrt()).clamp(-1.0, 1.0),
            syy,
        })
    }
}

fn p_of(r: f64, n: usize) -> f64 {
    let df = length(n - 2);
    if r.abs() >= 1.0 {
        return 0.0;
    }
    t_two_sided(r * (df / ((1.0 - r) * (1.0 + r))).sqrt(), df)
}

/// Ranks from 1, ties sharing their average.
fn ranks(values: &[f64]) -> Vec<f64> {
    let mut order: Vec<usize> = (0..values.len()).collect();
    order.sort_by(|&a, &b| values[a].total_cmp(&values[b]));
    let mut ranks = vec![0.0; values.len()];
    let mut start = 0;
    for group in order.chunk_by(|&a, &b| values[a] == values[b]) {
        let rank = length(start) + 0.5 * (length(group.len()) + 1.0);
        for &i in group {
            ranks[i] = rank;
        }
        start += group.len();
    }
    ranks
}

fn kendall(x: &[f64], y: &[f64]) -> Correlation {
    let n = x.len();
    let (mut score, mut discordant) = (0_i64, 0_usize);
    for i in 0..n {
        for j in i + 1..n {
            let product = (x[i] - x[j]) * (y[i] - y[j]);
            if product > 0.0 {
                score += 1;
            } else if product < 0.0 {
                score -= 1;
                discordant += 1;
            }
        }
    }
    let pairs = length(n * (n - 1) / 2);
    let ties_x = ties(x);
    let ties_y = ties(y);
    let tied = |t: &[f64]| t.iter().map(|t| 0.5 * t * (t - 1.0)).sum::<f64>();
    #[expect(clippy::cast_precision_loss, reason = "at most n²")]
    let s = score as f64;
    let scale = ((pairs - tied(&ties_x)) * (pairs - tied(&ties_y))).sqrt();
    let value = if scale > 0.0 { s / scale } else { 0.0 };
    let p = if ties_x.is_empty() && ties_y.is_empty() && n <= 33 {
        exact_kendall(n, discordant)
    } else {
        normal_two_sided(s / kendall_variance(n, &ties_x, &ties_y).sqrt())
    };
    Correlation { value, p }
}

/// Sizes of groups of equal values, 2 or more.
fn ties(values: &[f64]) -> Vec<f64> {
    let mut sorted = values.to_vec();
    sorted.sort_by(f64::total_cmp);
    sorted
        .chunk_by(|a, b| a == b)
        .filter(|g| g.len() > 1)
        .map(|g| length(g.len()))
        .collect()
}

/// Two-sided p-value from the number of permutations with so many inversions (Kendall 1938).
fn exact_kendall(n: usize, discordant: usize) -> f64 {
    let pairs = n * (n - 1) / 2;
    let few = discordant.min(pairs - discordant);
    // Probability of each number of inversions: one element after the other adds 0..=i of them.
    let mut mass = vec![1.0];
    for i in 1..n {
        let mut next = vec![0.0; mass.len() + i];
        for (at, m) in mass.iter().enumerate() {
            for slot in &mut next[at..=at + i] {
                *slot += m / length(i + 1);
            }
        }
        mass = next;
    }
    let tail: f64 = mass[..=few].iter().sum();
    (2.0 * tail).min(1.0)
}

fn kendall_variance(n: usize, x: &[f64], y: &[f64]) -> f64 {
    let n = length(n);
    let cubic = |t: f64| t * (t - 1.0) * (2.0 * t + 5.0);
    let sum = |t: &[f64], f: &dyn Fn(f64) -> f64| t.iter().map(|&t| f(t)).sum::<f64>();
    let pairs = |t: f64| t * (t - 1.0);
    let triples = |t: f64| t * (t - 1.0) * (t - 2.0);
    (cubic(n) - sum(x, &cubic) - sum(y, &cubic)) / 18.0
        + sum(x, &triples) * sum(y, &triples) / (9.0 * triples(n))
        + sum(x, &pairs) * sum(y, &pairs) / (2.0 * pairs(n))
}

/// Root mean square errors of the weighted line and of the weighted mean, each fitted without the one
/// predicted.
fn leave_one_out(x: &[f64], y: &[f64], weights: &[f64]) -> (f64, f64) {
    let n = x.len();
    let without = |v: &[f64], i: usize| [&v[..i], &v[i + 1..]].concat();
    let (mut line, mut mean) = (0.0, 0.0);
    for i in 0..n {
        let (xs, ys, ws) = (without(x, i), without(y, i), without(weights, i));
        let average = super::matrix::dot(&ys, &ws) / ws.iter().sum::<f64>();
        let predicted = Line::fit(&xs, &ys, &ws).map_or(average, |l| l.intercept + l.slope * x[i]);
        line += (y[i] - predicted) * (y[i] - predicted);
        mean += (y[i] - average) * (y[i] - average);
    }
    ((line / length(n)).sqrt(), (mean / length(n)).sqrt())
}
