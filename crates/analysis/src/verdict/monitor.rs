//! How many standard errors are enough at this look, given those before it.

use std::cell::RefCell;
use std::collections::BTreeMap;

use serde::{Deserialize, Serialize};

use crate::methods::MethodError;
use crate::methods::always_valid::ConfidenceSequence;
use crate::methods::decision::{Bounds, Levels};
use crate::methods::effect::{Effect, critical};
use crate::methods::moments::count;
use crate::methods::sequential::{GroupSequential, Spending};
use crate::methods::special::{normal_sf, normal_upper_quantile};
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
    known: RefCell<BTreeMap<(u64, Vec<u64>), f64>>,
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

    /// Information fraction under [`Method::FixedPower`]: planned variance over what there is.
    pub(super) fn precision(&self, effect: &Effect, matters: f64, level: f64) -> f64 {
        let needed = normal_upper_quantile(level) + normal_upper_quantile(1.0 - self.levels.power);
        (matters / effect.se / needed).powi(2)
    }

    /// The level of a role's own test.
    pub(super) fn levels(&self) -> &Levels {
        &self.levels
    }

    /// The bounds for a metric at this look. `smallest_arm`: units of its smaller arm.
    pub(super) fn bounds(
        &self,
        key: &str,
        units: f64,
        smallest_arm: u64,
        effect: &Effect,
        matters: Option<f64>,
    ) -> Result<Verge, MethodError> {
        let levels = [
            self.levels.success,
            self.levels.guardrail,
            self.levels.deterioration,
        ];
        let single = |level: f64| critical(level, effect.df);
        let bounds = |[success, guardrail, deterioration]: [f64; 3]| {
            Verge::Judge(Bounds {
                success,
                guardrail,
                deterioration,
            })
        };
        match self.design.method {
            Method::Gst => {
                let Some(t) = self.information(units).filter(|t| *t > 0.0) else {
                    return Ok(Verge::TooEarly("no unit is complete yet"));
                };
                let mut z = [0.0; 3];
                for (bound, level) in z.iter_mut().zip(levels) {
                    let normal = self.group_sequential(key, level, t)?;
                    // Small arms: ask of Student's t what the plan asks of the normal distribution.
                    *bound = effect.df.map_or(normal, |_| single(normal_sf(normal)));
                }
                Ok(bounds(z))
            }
            Method::AlwaysValid => {
                if smallest_arm < FEWEST_UNITS {
                    return Ok(Verge::TooEarly(
                        "an always-valid interval needs 100 complete units in each arm",
                    ));
                }
                let tuned = self.design.max_units.unwrap_or(TUNED_UNITS);
                let mut z = [0.0; 3];
                for (bound, level) in z.iter_mut().zip(levels) {
                    *bound = ConfidenceSequence::one_sided(level, tuned)?.multiplier(whole(units));
                }
                Ok(bounds(z))
            }
            Method::Fixed => {
                let over = self.information(units).is_none_or(|t| t >= 1.0 - 1e-9);
                if over || self.last {
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
            Method::FixedPower => {
                let Some(matters) = matters else {
                    return Ok(bounds(levels.map(single)));
                };
                let ready = self.precision(effect, matters, self.levels.success) >= 1.0;
                if (ready && !self.looks.looks.is_empty()) || self.last {
                    Ok(bounds(levels.map(single)))
                } else {
                    Ok(Verge::Hidden(
                        "a fixed-power design shows effects once they are precise enough, at its second look at the earliest",
                    ))
                }
            }
        }
    }

    fn group_sequential(&self, key: &str, level: f64, t: f64) -> Result<f64, MethodError> {
        let mut fractions = self.fractions(key);
        fractions.push(t);
        let known = (
            level.to_bits(),
            fractions.iter().map(|t| t.to_bits()).collect::<Vec<u64>>(),
        );
        if let Some(bound) = self.known.borrow().get(&known) {
            return Ok(*bound);
        }
        fractions.pop();
        let mut test = GroupSequential::planned(level, self.spending(), &fractions)?;
        let look = if self.last {
            test.final_look(t)?
        } else {
            test.look(t)?
        };
        self.known.borrow_mut().insert(known, look.z);
        Ok(look.z)
    }

    fn spending(&self) -> Spending {
        match self.design.spending {
            SpendingRule::Power(rho) => Spending::Power(rho),
            SpendingRule::Obf => Spending::OBrienFleming,
            SpendingRule::Pocock => Spending::Pocock,
        }
    }

    /// The estimate of a group-sequential test that stops here, corrected for stopping when it looked
    /// good; `None` at the first look, and where an earlier one could have stopped it. `sign`: +1 where more is better.
    pub(super) fn median_unbiased(
        &self,
        key: &str,
        units: f64,
        effect: &Effect,
        sign: f64,
    ) -> Result<Option<f64>, MethodError> {
        let Some(t) = self
            .information(units)
            .filter(|t| *t > 0.0 && self.design.method == Method::Gst)
        else {
            return Ok(None);
        };
        let mut fractions = self.fractions(key);
        let crossed = |look: &Look| {
            let metric = look.metrics.get(key);
            metric.is_some_and(|m| m.z.zip(m.bound).is_some_and(|(z, bound)| z >= bound))
        };
        if fractions.is_empty() || self.looks.looks.iter().any(crossed) {
            return Ok(None);
        }
        fractions.push(t);
        let test = GroupSequential::planned(self.levels.success, self.spending(), &fractions)?;
        let good = Effect {
            delta: sign * effect.delta,
            ..*effect
        };
        let stop = test.at_stop(&good, 0.95)?;
        Ok(Some(sign * stop.median_unbiased))
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
