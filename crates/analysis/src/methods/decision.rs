//! From tests of single metrics to one recommendation, with the risks of both wrong decisions under
//! control (Spotify's risk-aware product decisions; Schultzberg, Ankargren, Frånberg 2024).
//!
//! Ship if and only if at least one success metric is superior, every guardrail with a margin is
//! non-inferior, nothing has deteriorated and no quality check has failed.

use serde::{Deserialize, Serialize};

use super::effect::{Effect, Interval};
use super::error::{MethodError, check_open_unit};
use super::moments::count;

/// Which way a metric should move.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Direction {
    /// More is better.
    Up,
    /// Less is better.
    Down,
}

/// How much worse a guardrail may get.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Margin {
    /// In units of the metric, above 0.
    Absolute(f64),
    /// As a share of the control's mean, above 0.
    Relative(f64),
}

impl Margin {
    /// The margin in units of the metric.
    ///
    /// # Errors
    /// A margin that is not above 0, or a relative one of a control mean of 0.
    pub fn absolute(&self, control_mean: f64) -> Result<f64, MethodError> {
        let margin = match *self {
            Self::Absolute(m) => m,
            Self::Relative(share) if share > 0.0 => share * control_mean.abs(),
            Self::Relative(share) => share,
        };
        super::error::check_positive("a margin", margin)
    }
}

/// What a metric is for. Quality checks are not metrics: they come in as [`Inputs::quality_failed`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Role {
    /// Should improve: tested for superiority.
    Success,
    /// Must not get worse by the margin or more: tested for non-inferiority. Without a margin it can
    /// only be scanned for deterioration and proves nothing.
    Guardrail(Option<Margin>),
    /// Only scanned for deterioration.
    Scan,
}

/// The risks an owner accepts and the shape of the experiment.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct RiskPlan {
    /// Probability of shipping without a true success (or with a guardrail beyond its margin).
    pub alpha: f64,
    /// Probability of not shipping what should be shipped.
    pub beta: f64,
    /// Part of `beta` given to the deterioration tests.
    pub alpha_deterioration: f64,
    /// Part of `beta` given to the quality checks.
    pub alpha_quality: f64,
    /// Arms compared with the control.
    pub treatments: u64,
    /// Success metrics.
    pub successes: u64,
    /// Guardrails with a margin.
    pub guardrails: u64,
    /// Metrics scanned for deterioration (all, usually).
    pub scanned: u64,
    /// Quality checks.
    pub checks: u64,
}

/// One-sided levels of every single test.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Levels {
    /// Superiority of one success metric: `α / (S C)`.
    pub success: f64,
    /// Non-inferiority of one guardrail: `α / C`. Not split further: all must pass.
    pub guardrail: f64,
    /// Deterioration of one metric: `α_det / (J C)`.
    pub deterioration: f64,
    /// One quality check: `α_q / Q`.
    pub quality: f64,
    /// Power that each metric must be planned for, so that the *decision* has power 1 − β:
    /// `1 − (β − α_det − α_q) / (G + min(S, 1))`.
    pub power: f64,
}

impl RiskPlan {
    /// The levels of the single tests, with both error corrections.
    ///
    /// # Errors
    /// Risks outside 0..1, deterioration and quality levels that use up β, or nothing to test.
    pub fn levels(&self) -> Result<Levels, MethodError> {
        check_open_unit("alpha", self.alpha)?;
        check_open_unit("beta", self.beta)?;
        for (what, level) in [
            ("the deterioration level", self.alpha_deterioration),
            ("the quality level", self.alpha_quality),
        ] {
            if !(0.0..1.0).contains(&level) {
                return Err(MethodError::OutOfRange {
                    what,
                    value: level,
                    range: "from 0 to below 1",
                });
            }
        }
        super::error::check_count("treatments", 1, self.treatments)?;
        let decided = self.guardrails + self.successes.min(1);
        super::error::check_count("success metrics and guardrails with a margin", 1, decided)?;
        let left = self.beta - self.alpha_deterioration - self.alpha_quality;
        if left <= 0.0 {
            return Err(MethodError::OutOfRange {
                what: "beta less the deterioration and quality levels",
                value: left,
                range: "above 0",
            });
        }
        let arms = count(self.treatments);
        let among = |level: f64, tests: u64| level / count(tests.max(1));
        Ok(Levels {
            success: among(self.alpha, self.successes) / arms,
            guardrail: self.alpha / arms,
            deterioration: among(self.alpha_deterioration, self.scanned) / arms,
            quality: among(self.alpha_quality, self.checks),
            power: 1.0 - left / count(decided),
        })
    }
}

/// How many standard errors each of a metric's tests asks for at this look: from
/// [`super::effect::critical`], a group-sequential look, or an always-valid multiplier, each at the level
/// of [`Levels`].
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Bounds {
    /// For superiority (success metrics).
    pub success: f64,
    /// For non-inferiority (guardrails with a margin).
    pub guardrail: f64,
    /// For deterioration. Infinite switches it off.
    pub deterioration: f64,
}

/// A metric judged in its role. Fields are in the good direction: positive z is good news.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Judgement {
    /// The role judged.
    pub role: Role,
    /// Superiority shown (success metrics; false for others).
    pub superior: bool,
    /// Non-inferiority shown; `None` without a margin.
    pub noninferior: Option<bool>,
    /// Deterioration shown.
    pub deteriorated: bool,
    /// z against zero.
    pub z: f64,
    /// z against the margin.
    pub z_margin: Option<f64>,
    /// The margin in units of the metric.
    pub margin: Option<f64>,
    /// One-sided p of the role's own test at a single look: superiority, non-inferiority, or (scan)
    /// deterioration.
    pub p: f64,
    /// The effect with as many standard errors on each side as the role's own test asks for, in the
    /// metric's own direction.
    pub interval: Interval,
}

/// Judges one metric at one look.
///
/// Superiority: reject δ ≤ 0 if `z ≥ bound`. Non-inferiority: reject δ ≤ −m if
/// `(δ + m)/se ≥ bound`. Deterioration: reject δ ≥ 0 if `−z ≥ bound`. All after turning the sign where
/// down is good.
///
/// # Errors
/// A margin that is not above 0.
pub fn judge(
    role: Role,
    direction: Direction,
    effect: &Effect,
    control_mean: f64,
    bounds: &Bounds,
) -> Result<Judgement, MethodError> {
    let good = match direction {
        Direction::Up => *effect,
        Direction::Down => effect.flipped(),
    };
    let margin = match role {
        Role::Guardrail(Some(margin)) => Some(margin.absolute(control_mean)?),
        _ => None,
    };
    let z = good.z();
    let z_margin = margin.map(|m| (good.delta + m) / good.se);
    let (bound, p) = match (role, margin) {
        (Role::Success, _) => (bounds.success, good.p_above(0.0)),
        (_, Some(m)) => (bounds.guardrail, good.p_above(-m)),
        _ => (bounds.deterioration, good.flipped().p_above(0.0)),
    };
    Ok(Judgement {
        role,
        superior: role == Role::Success && z >= bounds.success,
        noninferior: z_margin.map(|z| z >= bounds.guardrail),
        deteriorated: -z >= bounds.deterioration,
        z,
        z_margin,
        margin,
        p,
        interval: effect.interval_at(bound),
    })
}

/// What the rule needs besides the judgements.
#[derive(Debug, Clone, Copy, PartialEq, Serialize, Deserialize)]
pub struct Inputs {
    /// Any quality check failed: sample ratio, balance, units in several arms, losses.
    pub quality_failed: bool,
    /// Information fraction; 1 at the planned end.
    pub information: f64,
    /// Power reached for what the plan wanted to see, if known.
    pub achieved_power: Option<f64>,
    /// The power that was planned a metric ([`Levels::power`]).
    pub planned_power: f64,
}

/// The recommendation. The owner's decision is another thing.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Recommendation {
    /// A quality check failed: no effect may be read.
    Invalid,
    /// Something got worse: stop.
    StopHarm,
    /// Ship.
    Ship,
    /// Not enough information yet.
    KeepRunning,
    /// The end, without grounds to ship, although the power to see them was there.
    NoShipPowered,
    /// The end, without grounds to ship and without the power to have seen them.
    NoShipInconclusive,
}

/// The decision rule over all metrics of one treatment. An experiment without success metrics (a
/// rollout) ships on its guardrails alone; one with neither never ships.
#[must_use]
pub fn decide(judgements: &[Judgement], inputs: &Inputs) -> Recommendation {
    if inputs.quality_failed {
        return Recommendation::Invalid;
    }
    if judgements.iter().any(|j| j.deteriorated) {
        return Recommendation::StopHarm;
    }
    let mut successes = judgements
        .iter()
        .filter(|j| j.role == Role::Success)
        .peekable();
    let mut guardrails = judgements.iter().filter_map(|j| j.noninferior).peekable();
    let nothing_to_show = successes.peek().is_none() && guardrails.peek().is_none();
    let succeeded = successes.peek().is_none() || successes.any(|j| j.superior);
    if succeeded && !nothing_to_show && guardrails.all(|passed| passed) {
        return Recommendation::Ship;
    }
    if inputs.information < 1.0 {
        return Recommendation::KeepRunning;
    }
    match inputs.achieved_power {
        Some(power) if power >= inputs.planned_power => Recommendation::NoShipPowered,
        _ => Recommendation::NoShipInconclusive,
    }
}
