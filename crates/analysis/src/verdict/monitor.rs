//! How many standard errors are enough at this look, given those before it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::methods::MethodError;
use crate::methods::always_valid::{ConfidenceSequence, msprt, msprt_multiplier};
use crate::methods::decision::{Bounds, Levels};
use crate::methods::effect::{Effect, Interval, critical};
use crate::methods::fixed_power::{Progress, Rule};
use crate::methods::moments::count;
use crate::methods::sequential::{self, GroupSequential, Spending};
use crate::methods::special::{normal_sf, t_sf};
use crate::plan::{Design, Method, SpendingRule};

/// Looks at an experiment, oldest first: what a group-sequential design must remember.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Looks {
    /// Name of the experiment.
    pub experiment: String,
    /// Its epoch.
    pub epoch: u32,
    /// Digest of the plan under which the looks were made.
    pub plan: String,
    /// The looks.
    pub looks: Vec<Look>,
}

/// One look.
#[derive(Debug, Clone, Default, PartialEq, Serialize, Deserialize)]
pub struct Look {
    /// Data up to this instant, microseconds since 1970 UTC.
    pub cutoff_us: i64,
    /// P-value of the sequential sample-ratio test.
    pub srm_p: Option<f64>,
    /// Units of the slowest deciding metric.
    pub units: u64,
    /// By `METRIC / ARM`.
    pub metrics: BTreeMap<String, LookMetric>,
}

/// What a look saw of a metric.
#[derive(Debug, Clone, Copy, Default, PartialEq, Serialize, Deserialize)]
pub struct LookMetric {
    /// Information fraction.
    pub t: f64,
    /// z against the value that the metric's own test rejects, positive is good; absent where it was
    /// hidden.
    pub z: Option<f64>,
    /// Bound.
    pub bound: Option<f64>,
    /// P-value that the bound asks for at this look.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub nominal: Option<f64>,
    /// Of a group-sequential design: level of the metric's own test spent so far, this look included.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub spent: Option<f64>,
    /// Of an always-valid design: one-sided p-value of the metric's own test, valid at all looks
    /// together, the smallest so far.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub p: Option<f64>,
}

impl LookMetric {
    /// Forgets all that tells of an effect.
    pub(super) fn hide(&mut self) {
        *self = Self {
            t: self.t,
            ..Self::default()
        };
    }
}

/// Why a list of looks does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LooksError {
    /// Of another experiment or epoch.
    #[error("these are the looks at `{found}`, not at `{wanted}`")]
    Other {
        /// What they belong to.
        found: String,
        /// What is analysed.
        wanted: String,
    },
    /// Made under another plan.
    #[error(
        "the plan changed after the first look (digest {found}, now {wanted}): looks under two plans \
         do not share one error budget. Restore the plan, or start a new epoch"
    )]
    Plan {
        /// Digest then.
        found: String,
        /// Digest now.
        wanted: String,
    },
    /// Data ends before that of an earlier look.
    #[error("the data ends at {now}, before that of the last look ({last}): look forward only")]
    Backwards {
        /// End of the data.
        now: String,
        /// End of the data at the last look.
        last: String,
    },
}

impl Looks {
    /// None yet.
    #[must_use]
    pub fn new(plan: &crate::Plan) -> Self {
        Self {
            experiment: plan.experiment.clone(),
            epoch: plan.epoch,
            plan: plan.digest.clone(),
            looks: Vec::new(),
        }
    }

    /// The looks before one with this cut-off. The same cut-off again is the same look.
    ///
    /// # Errors
    /// [`LooksError`]: another experiment, another plan, or a look back.
    pub fn before(&self, plan: &crate::Plan, cutoff_us: i64) -> Result<Self, LooksError> {
        let name = |experiment: &str, epoch: u32| format!("{experiment}, epoch {epoch}");
        if (self.experiment.as_str(), self.epoch) != (plan.experiment.as_str(), plan.epoch) {
            return Err(LooksError::Other {
                found: name(&self.experiment, self.epoch),
                wanted: name(&plan.experiment, plan.epoch),
            });
        }
        if self.plan != plan.digest {
            return Err(LooksError::Plan {
                found: self.plan.clone(),
                wanted: plan.digest.clone(),
            });
        }
        let mut before = self.clone();
        if before
            .looks
            .last()
            .is_some_and(|look| look.cutoff_us == cutoff_us)
        {
            before.looks.pop();
        }
        match before.looks.last() {
            Some(last) if last.cutoff_us > cutoff_us => Err(LooksError::Backwards {
                now: super::words::instant(cutoff_us),
                last: super::words::instant(last.cutoff_us),
            }),
            _ => Ok(before),
        }
    }
}

/// A design at one look.
pub(super) struct Monitor<'a> {
    design: &'a Design,
    levels: Levels,
    looks: &'a Looks,
    last: bool,
    /// Bounds by level and fractions: metrics that mature together share them.
    known: RefCell<BTreeMap<(u64, Vec<u64>), sequential::Look>>,
}

/// A metric of a treatment as the design sees it: everything but which way its effect points.
pub(super) struct Watched<'a> {
    /// `METRIC / ARM`.
    pub(super) key: &'a str,
    /// One-sided level of its own test.
    pub(super) level: f64,
    /// Complete units of all arms; of a metric measured every day, by the information that they have.
    pub(super) units: f64,
    /// Units of its smaller arm.
    pub(super) smallest_arm: u64,
    pub(super) effect: Effect,
    /// The effect that matters, or the margin.
    pub(super) matters: Option<f64>,
    /// Of [`Method::FixedPower`]: how precise it is.
    pub(super) progress: Option<Progress>,
}

/// What a metric may be judged by at this look.
pub(super) enum Verge {
    /// By these bounds.
    Judge(Bounds),
    /// Not yet; effects stay hidden, for this reason.
    Hidden(&'static str),
    /// There is nothing to judge yet.
    TooEarly(&'static str),
}

/// Units at which an always-valid sequence is narrowest when the plan names no size.
const TUNED_UNITS: u64 = 10_000;
/// With fewer units in an arm an asymptotic sequence means nothing.
const FEWEST_UNITS: u64 = 100;
/// Why effects stay hidden after a design that is read once was.
pub(super) const READ: &str = "this design is read once, and it was, at an earlier look: reading it again would be \
                               peeking. Give the same cut-off to see that reading";

impl<'a> Monitor<'a> {
    pub(super) fn new(design: &'a Design, levels: Levels, looks: &'a Looks, last: bool) -> Self {
        Self {
            design,
            levels,
            looks,
            last,
            known: RefCell::default(),
        }
    }

    /// Information fraction of so many complete units (all arms), if the design has an end. Units that
    /// are measured every day count by the information that they have so far.
    pub(super) fn information(&self, units: f64) -> Option<f64> {
        match self.design.method {
            Method::FixedPower => None,
            _ => self.design.max_units.map(|max| units / count(max)),
        }
    }

    /// How far [`Method::FixedPower`] is with a metric whose test has this one-sided level.
    pub(super) fn progress(
        &self,
        se: f64,
        matters: f64,
        level: f64,
    ) -> Result<Progress, MethodError> {
        let rule = Rule::Power {
            effect: matters,
            alpha: 2.0 * level,
            power: self.levels.power,
        };
        rule.look(se, self.earlier() as u64 + 1)
    }

    /// The levels of the tests.
    pub(super) fn levels(&self) -> &Levels {
        &self.levels
    }

    /// The bounds for a metric at this look.
    pub(super) fn bounds(&self, of: &Watched<'_>) -> Result<Verge, MethodError> {
        let levels = [
            self.levels.success,
            self.levels.guardrail,
            self.levels.deterioration,
        ];
        let single = |level: f64| critical(level, of.effect.df);
        let bounds = |[success, guardrail, deterioration]: [f64; 3]| {
            Verge::Judge(Bounds {
                success,
                guardrail,
                deterioration,
            })
        };
        match self.design.method {
            Method::Gst => {
                let Some(t) = self.information(of.units).filter(|t| *t > 0.0) else {
                    return Ok(Verge::TooEarly("no unit is complete yet"));
                };
                let mut z = [0.0; 3];
                for (bound, level) in z.iter_mut().zip(levels) {
                    let normal = self.group_sequential(of.key, level, t)?.z;
                    // Small arms: ask of Student's t what the plan asks of the normal distribution.
                    *bound = of.effect.df.map_or(normal, |_| single(normal_sf(normal)));
                }
                Ok(bounds(z))
            }
            Method::AlwaysValid | Method::Msprt => {
                if of.smallest_arm < FEWEST_UNITS {
                    return Ok(Verge::TooEarly(
                        "an always-valid interval needs 100 complete units in each arm",
                    ));
                }
                let mut z = [0.0; 3];
                for (bound, level) in z.iter_mut().zip(levels) {
                    *bound = match self.tau(of) {
                        Some(tau) => msprt_multiplier(of.effect.se, tau, 2.0 * level)?,
                        None => self.sequence(level)?.multiplier(whole(of.units)),
                    };
                }
                Ok(bounds(z))
            }
            Method::Fixed => {
                let over = self.information(of.units).is_none_or(|t| t >= 1.0 - 1e-9);
                if self.was_read(of.key) {
                    Ok(Verge::Hidden(READ))
                } else if over || self.last {
                    Ok(bounds(levels.map(single)))
                } else {
                    Ok(Verge::Hidden(
                        "a fixed design is looked at once, when all planned units are complete",
                    ))
                }
            }
            Method::Bonferroni => {
                let looks = f64::from(self.design.looks);
                Ok(bounds(levels.map(|level| single(level / looks))))
            }
            Method::FixedPower => match of.progress {
                // What has no size that matters is seen with the metrics that have one, and hidden with them.
                None => Ok(bounds(levels.map(single))),
                Some(_) if self.was_read(of.key) => Ok(Verge::Hidden(READ)),
                Some(progress) if progress.stop || self.last => Ok(bounds(levels.map(single))),
                Some(_) => Ok(Verge::Hidden(
                    "a fixed-power design shows effects once they are precise enough, at its second look at the earliest",
                )),
            },
        }
    }

    /// Whether an earlier look showed the effect on a metric.
    fn was_read(&self, key: &str) -> bool {
        let read = |look: &Look| {
            look.metrics
                .get(key)
                .is_some_and(|metric| metric.z.is_some())
        };
        self.looks.looks.iter().any(read)
    }

    /// Scale of the mixture of [`Method::Msprt`]: what matters. A metric that is only scanned has none, and
    /// is watched by a confidence sequence.
    fn tau(&self, of: &Watched<'_>) -> Option<f64> {
        of.matters.filter(|_| self.design.method == Method::Msprt)
    }

    fn sequence(&self, level: f64) -> Result<ConfidenceSequence, MethodError> {
        ConfidenceSequence::one_sided(level, self.design.max_units.unwrap_or(TUNED_UNITS))
    }

    /// What to remember of a metric that was judged. `z`: against the value that its own test rejects,
    /// positive is good; `towards`: the same with the sign that its own test rejects by.
    pub(super) fn remember(
        &self,
        of: &Watched<'_>,
        t: f64,
        [z, towards]: [f64; 2],
        bound: f64,
    ) -> Result<LookMetric, MethodError> {
        let at = |z: f64| match of.effect.df {
            Some(df) => t_sf(z, df),
            None => normal_sf(z),
        };
        let spent = match self.design.method {
            Method::Gst => Some(self.group_sequential(of.key, of.level, t)?.spent),
            _ => None,
        };
        let p = match self.design.method {
            Method::AlwaysValid | Method::Msprt => {
                let own = Effect {
                    delta: towards * of.effect.se,
                    se: of.effect.se,
                    df: None,
                };
                let now = match self.tau(of) {
                    // In one direction: half the two-sided one.
                    Some(tau) if towards > 0.0 => {
                        (0.5 * libm::exp(-msprt(&own, tau)?.ln_e)).min(1.0)
                    }
                    Some(_) => 1.0,
                    None => self.sequence(of.level)?.evidence(&own, whole(of.units)).p,
                };
                let before = self.looks.looks.iter();
                let before = before.filter_map(|look| look.metrics.get(of.key)?.p);
                Some(before.fold(now, f64::min))
            }
            _ => None,
        };
        Ok(LookMetric {
            t,
            z: Some(z),
            bound: Some(bound),
            nominal: Some(at(bound)),
            spent,
            p,
        })
    }

    fn group_sequential(
        &self,
        key: &str,
        level: f64,
        t: f64,
    ) -> Result<sequential::Look, MethodError> {
        let mut fractions = self.fractions(key);
        fractions.push(t);
        let known = (
            level.to_bits(),
            fractions.iter().map(|t| t.to_bits()).collect::<Vec<u64>>(),
        );
        if let Some(look) = self.known.borrow().get(&known) {
            return Ok(*look);
        }
        fractions.pop();
        let mut test = GroupSequential::planned(level, self.spending(), &fractions)?;
        let look = if self.last {
            test.final_look(t)?
        } else {
            test.look(t)?
        };
        self.known.borrow_mut().insert(known, look);
        Ok(look)
    }

    fn spending(&self) -> Spending {
        match self.design.spending {
            SpendingRule::Power(rho) => Spending::Power(rho),
            SpendingRule::Obf => Spending::OBrienFleming,
            SpendingRule::Pocock => Spending::Pocock,
        }
    }

    /// Estimate and 95 % interval of a group-sequential test that stops here, corrected for stopping when it
    /// looked good; `None` at the first look, and where an earlier one could have stopped it. `sign`: +1
    /// where more is better.
    pub(super) fn at_stop(
        &self,
        of: &Watched<'_>,
        sign: f64,
    ) -> Result<Option<(f64, Interval)>, MethodError> {
        let Some(t) = self
            .information(of.units)
            .filter(|t| *t > 0.0 && self.design.method == Method::Gst)
        else {
            return Ok(None);
        };
        let mut fractions = self.fractions(of.key);
        let crossed = |look: &Look| {
            let metric = look.metrics.get(of.key);
            metric.is_some_and(|m| m.z.zip(m.bound).is_some_and(|(z, bound)| z >= bound))
        };
        if fractions.is_empty() || self.looks.looks.iter().any(crossed) {
            return Ok(None);
        }
        fractions.push(t);
        let test = GroupSequential::planned(self.levels.success, self.spending(), &fractions)?;
        let good = Effect {
            delta: sign * of.effect.delta,
            ..of.effect
        };
        let stop = test.at_stop(&good, 0.95)?;
        let ends = [sign * stop.interval.low, sign * stop.interval.high];
        Ok(Some((
            sign * stop.median_unbiased,
            Interval {
                low: ends[0].min(ends[1]),
                high: ends[0].max(ends[1]),
            },
        )))
    }

    /// Information fractions at the looks before this one.
    fn fractions(&self, key: &str) -> Vec<f64> {
        self.looks
            .looks
            .iter()
            .filter_map(|look| look.metrics.get(key))
            .map(|metric| metric.t)
            .filter(|t| *t > 0.0)
            .collect()
    }

    /// Looks before this one.
    pub(super) fn earlier(&self) -> usize {
        self.looks.looks.len()
    }
}

#[expect(
    clippy::cast_possible_truncation,
    clippy::cast_sign_loss,
    reason = "a number of units"
)]
fn whole(units: f64) -> u64 {
    units.round().max(1.0) as u64
}
