//! The distribution of a test statistic that has not crossed its bounds yet.
//!
//! On the score scale S = Z √t increments between looks are independent N(drift · dt, dt), so the
//! density of "S_k = s, never crossed" is a convolution with the one before (Armitage, McPherson, Rowe
//! 1969). Gauss–Legendre panels as wide as an increment's deviation: errors are near rounding, and a
//! node only sees the few panels within reach of one increment.

use super::super::integrate::gauss_legendre;
use super::super::special::{normal_density, normal_sf};

/// Nodes further than this many deviations away contribute less than 1e-17.
const REACH: f64 = 8.6;

/// What is known after a number of looks: the sub-density before the last look, and where the last look
/// cut it. The density after the last look is only laid out when the next one tells how fine.
#[derive(Debug, Clone)]
pub(super) struct Walk {
    drift: f64,
    t: f64,
    bound: f64,
    before: Stage,
}

/// The law of S at a look, before that look's bound is applied.
#[derive(Debug, Clone)]
pub(super) struct Stage {
    /// Nodes of the look before: place and probability mass. Empty at the first look.
    nodes: Vec<(f64, f64)>,
    /// Expected increment and its deviation.
    shift: f64,
    deviation: f64,
    t: f64,
}

impl Walk {
    /// The start: S = 0 at t = 0.
    pub(super) fn new(drift: f64) -> Self {
        Self {
            drift,
            t: 0.0,
            bound: f64::INFINITY,
            before: Stage {
                nodes: vec![(0.0, 1.0)],
                shift: 0.0,
                deviation: 0.0,
                t: 0.0,
            },
        }
    }

    /// The law at the next look, `t` above the last.
    pub(super) fn advance(&self, t: f64) -> Stage {
        let deviation = (t - self.t).sqrt();
        let nodes = if self.t == 0.0 {
            vec![(0.0, 1.0)]
        } else {
            let low = self.drift * self.t - REACH * self.t.sqrt();
            let high = self.bound.min(self.drift * self.t + REACH * self.t.sqrt());
            if high <= low {
                Vec::new()
            } else {
                let panel = deviation.min(self.before.deviation);
                gauss_legendre(low, high, panel)
                    .into_iter()
                    .map(|(s, weight)| (s, weight * self.before.density(s)))
                    .collect()
            }
        };
        Stage {
            nodes,
            shift: self.drift * (t - self.t),
            deviation,
            t,
        }
    }

    /// Applies the look's bound.
    pub(super) fn close(&mut self, stage: Stage, bound: f64) {
        self.t = stage.t;
        self.bound = bound;
        self.before = stage;
    }
}

impl Stage {
    /// Probability of not having crossed before and being at or above `bound` now.
    pub(super) fn exit_above(&self, bound: f64) -> f64 {
        self.nodes
            .iter()
            .map(|&(s, mass)| mass * normal_sf((bound - s - self.shift) / self.deviation))
            .sum()
    }

    /// Density of being at `s` now without having crossed before.
    fn density(&self, s: f64) -> f64 {
        let centre = s - self.shift;
        let reach = REACH * self.deviation;
        let from = self.nodes.partition_point(|n| n.0 < centre - reach);
        let sum: f64 = self.nodes[from..]
            .iter()
            .take_while(|n| n.0 <= centre + reach)
            .map(|&(u, mass)| mass * normal_density((centre - u) / self.deviation))
            .sum();
        sum / self.deviation
    }
}
