//! Which experiment of a layer owns which basis point, and how that may change.
//!
//! Buckets are drawn at random from the free ones, in an order that a seed fixes: handing out the
//! first free ones would give a whole ended experiment's units to the next, with what they learned.
//! What an experiment holds changes only by its own ramp: growing adds the next free ones of a new
//! draw, shrinking gives back those drawn last, and nobody else is touched.

use std::collections::BTreeMap;

use jiff::Timestamp;

use crate::hash::{KeyPrefix, bucket};

/// Basis points of a layer. Ownership is kept at this grain whatever the layer's bucket count.
pub const BASIS_POINTS: u32 = 10_000;

/// Who owns what in every layer: the state after the entries of a journal.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Ledger {
    layers: BTreeMap<String, LayerLedger>,
    /// Layer of each experiment that was ever allocated and not stopped.
    holders: BTreeMap<String, String>,
}

#[derive(Debug, Clone, PartialEq)]
struct LayerLedger {
    epoch: u32,
    holdings: BTreeMap<String, Holding>,
    /// Basis points that were given back and must rest until then.
    cooling: BTreeMap<u16, Timestamp>,
}

/// What an experiment holds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Holding {
    /// Epoch of the experiment.
    pub epoch: u32,
    /// Digest of its arms in that epoch.
    pub arms_digest: String,
    /// Its basis points in the order in which they were drawn.
    pub drawn: Vec<u16>,
    /// When the share last changed.
    pub since: Timestamp,
    /// Stepped back by the server: does not advance by itself until a person ramps it.
    pub held: bool,
    /// How often it was stepped back in this epoch.
    pub step_backs: u32,
}

impl Holding {
    /// Its share, in basis points.
    #[must_use]
    pub fn share_bp(&self) -> u32 {
        u32::try_from(self.drawn.len()).unwrap_or(BASIS_POINTS)
    }
}

/// Why a change does not fit.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum LedgerError {
    /// The layer has not that much left.
    #[error(
        "layer `{layer}` has {free_bp} basis points free, {wanted_bp} are wanted: {budget}; \
         stop or ramp down another experiment, or ask for at most {free_bp}"
    )]
    NotEnough {
        /// The layer.
        layer: String,
        /// What is wanted.
        wanted_bp: u32,
        /// What is free.
        free_bp: u32,
        /// Who holds the rest.
        budget: String,
    },
    /// The experiment holds something already.
    #[error(
        "experiment `{experiment}` is already allocated in layer `{layer}`; ramp it, or stop it first"
    )]
    AlreadyAllocated {
        /// The experiment.
        experiment: String,
        /// Where.
        layer: String,
    },
    /// The experiment holds nothing.
    #[error("experiment `{experiment}` is not allocated; allocate it first")]
    NotAllocated {
        /// The experiment.
        experiment: String,
    },
    /// A layer's epoch changes while experiments hold units of it.
    #[error(
        "layer `{layer}` is at epoch {epoch} and held by {holders}: a new epoch shuffles all units, \
         stop those first"
    )]
    LayerInUse {
        /// The layer.
        layer: String,
        /// Its epoch.
        epoch: u32,
        /// Who holds units.
        holders: String,
    },
    /// An epoch that does not go forward.
    #[error("experiment `{experiment}` is at epoch {epoch}; a new epoch must be greater")]
    EpochNotNew {
        /// The experiment.
        experiment: String,
        /// Its epoch.
        epoch: u32,
    },
    /// More than the whole layer.
    #[error("{bp} basis points are more than the whole layer (10000)")]
    Range {
        /// What is wanted.
        bp: u32,
    },
}

impl Ledger {
    /// Gives an experiment its first share. The same seed, ledger and time give the same buckets.
    ///
    /// # Errors
    /// It does not fit; nothing has changed then.
    #[expect(
        clippy::too_many_arguments,
        reason = "one argument a fact of the entry"
    )]
    pub fn allocate(
        &mut self,
        layer: &str,
        layer_epoch: u32,
        experiment: &str,
        epoch: u32,
        arms_digest: &str,
        bp: u32,
        seed: &str,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        if let Some(layer) = self.holders.get(experiment) {
            return Err(LedgerError::AlreadyAllocated {
                experiment: experiment.to_owned(),
                layer: layer.clone(),
            });
        }
        let mut state = match self.layers.get(layer) {
            Some(state) if state.epoch == layer_epoch => state.clone(),
            Some(state) if !state.holdings.is_empty() => {
                return Err(LedgerError::LayerInUse {
                    layer: layer.to_owned(),
                    epoch: state.epoch,
                    holders: names(state.holdings.keys()),
                });
            }
            // A new epoch deals all units anew, so nobody needs to rest.
            _ => LayerLedger {
                epoch: layer_epoch,
                holdings: BTreeMap::new(),
                cooling: BTreeMap::new(),
            },
        };
        let drawn = state.draw(layer, bp, seed, now)?;
        let holding = Holding {
            epoch,
            arms_digest: arms_digest.to_owned(),
            drawn,
            since: now,
            held: false,
            step_backs: 0,
        };
        state.holdings.insert(experiment.to_owned(), holding);
        self.layers.insert(layer.to_owned(), state);
        self.holders.insert(experiment.to_owned(), layer.to_owned());
        Ok(())
    }

    /// Changes an experiment's share. `held` is what a step back by the server leaves behind.
    ///
    /// # Errors
    /// It does not fit, or the experiment holds nothing; nothing has changed then.
    pub fn ramp(
        &mut self,
        experiment: &str,
        to_bp: u32,
        seed: &str,
        now: Timestamp,
        held: bool,
    ) -> Result<(), LedgerError> {
        let (layer, state) = self.layer_of(experiment)?;
        let has = state.holdings.get(experiment).map_or(0, Holding::share_bp);
        let more = match to_bp.checked_sub(has) {
            Some(more) if more > 0 => state.draw(&layer, more, seed, now)?,
            _ => Vec::new(),
        };
        if let Some(holding) = state.holdings.get_mut(experiment) {
            holding.drawn.truncate(to_bp as usize);
            holding.drawn.extend(more);
            holding.since = now;
            holding.held = held;
            holding.step_backs += u32::from(held);
        }
        Ok(())
    }

    /// Deals the experiment's units to its arms anew; it keeps its buckets.
    ///
    /// # Errors
    /// The experiment holds nothing, or the epoch is not greater.
    pub fn new_epoch(
        &mut self,
        experiment: &str,
        epoch: u32,
        arms_digest: &str,
        now: Timestamp,
    ) -> Result<(), LedgerError> {
        let (_, state) = self.layer_of(experiment)?;
        if let Some(holding) = state.holdings.get_mut(experiment) {
            if epoch <= holding.epoch {
                return Err(LedgerError::EpochNotNew {
                    experiment: experiment.to_owned(),
                    epoch: holding.epoch,
                });
            }
            holding.epoch = epoch;
            arms_digest.clone_into(&mut holding.arms_digest);
            holding.since = now;
            holding.held = false;
            holding.step_backs = 0;
        }
        Ok(())
    }

    /// Takes all that an experiment holds; its buckets rest until `cooldown_until`.
    ///
    /// # Errors
    /// The experiment holds nothing.
    pub fn stop(
        &mut self,
        experiment: &str,
        cooldown_until: Option<Timestamp>,
    ) -> Result<(), LedgerError> {
        let (_, state) = self.layer_of(experiment)?;
        if let Some(holding) = state.holdings.remove(experiment)
            && let Some(until) = cooldown_until
        {
            state
                .cooling
                .extend(holding.drawn.iter().map(|&bp| (bp, until)));
        }
        self.holders.remove(experiment);
        Ok(())
    }

    /// What an experiment holds, if it is allocated.
    #[must_use]
    pub fn holding(&self, experiment: &str) -> Option<&Holding> {
        let layer = self.holders.get(experiment)?;
        self.layers.get(layer)?.holdings.get(experiment)
    }

    /// Layer and epoch in which an experiment is allocated.
    #[must_use]
    pub fn place(&self, experiment: &str) -> Option<(&str, u32)> {
        let layer = self.holders.get(experiment)?;
        Some((layer, self.layers.get(layer)?.epoch))
    }

    /// Experiments that hold something, by name.
    pub fn experiments(&self) -> impl Iterator<Item = &str> {
        self.holders.keys().map(String::as_str)
    }

    /// What is free in a layer at a time, in basis points; a layer that was never used is all free.
    #[must_use]
    pub fn free_bp(&self, layer: &str, now: Timestamp) -> u32 {
        self.layers
            .get(layer)
            .map_or(BASIS_POINTS, |state| count(state.free(now).into_iter()))
    }

    /// What rests in a layer at a time, in basis points.
    #[must_use]
    pub fn cooling_bp(&self, layer: &str, now: Timestamp) -> u32 {
        self.layers.get(layer).map_or(0, |state| {
            count(state.cooling.values().map(|&until| until > now))
        })
    }

    fn layer_of(&mut self, experiment: &str) -> Result<(String, &mut LayerLedger), LedgerError> {
        let missing = || LedgerError::NotAllocated {
            experiment: experiment.to_owned(),
        };
        let layer = self.holders.get(experiment).ok_or_else(missing)?;
        let state = self.layers.get_mut(layer).ok_or_else(missing)?;
        Ok((layer.clone(), state))
    }
}

impl LayerLedger {
    fn free(&self, now: Timestamp) -> Vec<bool> {
        let mut free = vec![true; BASIS_POINTS as usize];
        let held = self.holdings.values().flat_map(|holding| &holding.drawn);
        let cooling = self.cooling.iter().filter(|&(_, &until)| until > now);
        for &bp in held.chain(cooling.map(|(bp, _)| bp)) {
            if let Some(free) = free.get_mut(usize::from(bp)) {
                *free = false;
            }
        }
        free
    }

    fn draw(
        &self,
        layer: &str,
        bp: u32,
        seed: &str,
        now: Timestamp,
    ) -> Result<Vec<u16>, LedgerError> {
        if bp > BASIS_POINTS {
            return Err(LedgerError::Range { bp });
        }
        let free = self.free(now);
        let free_bp = count(free.iter().copied());
        if bp > free_bp {
            return Err(LedgerError::NotEnough {
                layer: layer.to_owned(),
                wanted_bp: bp,
                free_bp,
                budget: self.budget(now),
            });
        }
        Ok(shuffled(seed)
            .filter(|&bp| free.get(usize::from(bp)).copied().unwrap_or(false))
            .take(bp as usize)
            .collect())
    }

    /// Who holds how much, in words.
    fn budget(&self, now: Timestamp) -> String {
        let mut parts: Vec<String> = self
            .holdings
            .iter()
            .map(|(name, holding)| format!("{name} holds {}", holding.share_bp()))
            .collect();
        let cooling = count(self.cooling.values().map(|&until| until > now));
        if cooling > 0 {
            parts.push(format!("{cooling} cool down"));
        }
        parts.join(", ")
    }
}

fn count(flags: impl Iterator<Item = bool>) -> u32 {
    u32::try_from(flags.filter(|&flag| flag).count()).unwrap_or(BASIS_POINTS)
}

fn names<'a>(names: impl Iterator<Item = &'a String>) -> String {
    let quoted: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    quoted.join(", ")
}

/// All basis points in the order drawn by `seed`: Fisher-Yates from the front, the randomness of
/// step `i` being the hash of `D:<seed>|<i>`, so that any language that has the hash has the order.
pub(crate) fn shuffled(seed: &str) -> impl Iterator<Item = u16> {
    let key = KeyPrefix::new(format!("D:{seed}|").as_bytes());
    let mut order: Vec<u16> = (0_u16..).take(BASIS_POINTS as usize).collect();
    (0..BASIS_POINTS).map(move |i| {
        let pick = i + bucket(key.hash64(i.to_string().as_bytes()), BASIS_POINTS - i);
        order.swap(i as usize, pick as usize);
        order[i as usize]
    })
}

#[cfg(test)]
mod tests {
    use std::collections::BTreeSet;

    use proptest::prelude::*;

    use super::*;

    fn at(day: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + day * 86_400).expect("in range")
    }

    fn allocate(ledger: &mut Ledger, name: &str, bp: u32, seed: &str) -> Result<(), LedgerError> {
        ledger.allocate("ranking", 1, name, 1, "arms", bp, seed, at(0))
    }

    #[test]
    fn the_order_is_a_permutation_that_depends_on_the_seed() {
        let order: Vec<u16> = shuffled("ranking:1:a").collect();
        let mut sorted = order.clone();
        sorted.sort_unstable();
        assert!(sorted.iter().copied().map(u32::from).eq(0..BASIS_POINTS));
        assert!(!shuffled("ranking:1:b").eq(order.iter().copied()));
        assert!(shuffled("ranking:1:a").eq(order));
    }

    /// "Feature A needs 30 %, B takes 15 %": the next one gets what is left and no more.
    #[test]
    fn the_budget_refuses_what_does_not_fit() {
        let mut ledger = Ledger::default();
        allocate(&mut ledger, "a", 3_000, "1").expect("fits");
        allocate(&mut ledger, "b", 1_500, "2").expect("fits");
        let before = ledger.clone();
        let error = allocate(&mut ledger, "c", 5_600, "3").expect_err("too much");
        assert_eq!(
            error.to_string(),
            "layer `ranking` has 5500 basis points free, 5600 are wanted: a holds 3000, b holds 1500; \
             stop or ramp down another experiment, or ask for at most 5500"
        );
        assert_eq!(ledger, before);
        allocate(&mut ledger, "c", 5_500, "3").expect("fits");
        assert_eq!(ledger.free_bp("ranking", at(0)), 0);
        for name in ["a", "b"] {
            assert_eq!(ledger.holding(name), before.holding(name));
        }
        assert!(matches!(
            ledger.ramp("a", 3_001, "4", at(0), false),
            Err(LedgerError::NotEnough { free_bp: 0, .. })
        ));
    }

    #[test]
    fn what_cools_down_is_not_given_away() {
        let mut ledger = Ledger::default();
        allocate(&mut ledger, "a", 6_000, "1").expect("fits");
        ledger.stop("a", Some(at(7))).expect("was allocated");
        assert_eq!(ledger.cooling_bp("ranking", at(1)), 6_000);
        let error = allocate(&mut ledger, "b", 5_000, "2").expect_err("a's units rest");
        assert!(error.to_string().contains("6000 cool down"), "{error}");
        ledger
            .allocate("ranking", 1, "b", 1, "arms", 5_000, "2", at(7))
            .expect("rested");
        // A new epoch is for empty layers only.
        let error = ledger.allocate("ranking", 2, "c", 1, "arms", 1, "3", at(8));
        assert!(matches!(error, Err(LedgerError::LayerInUse { .. })));
        ledger.stop("b", None).expect("was allocated");
        ledger
            .allocate("ranking", 2, "c", 1, "arms", 10_000, "3", at(8))
            .expect("empty");
    }

    #[test]
    fn an_ended_experiment_does_not_hand_its_units_to_the_next() {
        let mut ledger = Ledger::default();
        allocate(&mut ledger, "a", 1_000, "1").expect("fits");
        let a: BTreeSet<u16> = ledger
            .holding("a")
            .expect("holds")
            .drawn
            .iter()
            .copied()
            .collect();
        ledger.stop("a", None).expect("was allocated");
        allocate(&mut ledger, "b", 1_000, "2").expect("fits");
        let again = ledger
            .holding("b")
            .expect("holds")
            .drawn
            .iter()
            .filter(|bp| a.contains(bp));
        // A tenth by chance; five standard deviations are 45.
        let again = again.count();
        assert!((55..=145).contains(&again), "{again}");
    }

    #[derive(Debug, Clone)]
    enum Step {
        Allocate(usize, u32),
        Ramp(usize, u32),
        Stop(usize, bool),
        Epoch(usize),
    }

    fn step() -> impl Strategy<Value = Step> {
        prop_oneof![
            (0_usize..5, 0_u32..4_000).prop_map(|(who, bp)| Step::Allocate(who, bp)),
            (0_usize..5, 0_u32..6_000).prop_map(|(who, bp)| Step::Ramp(who, bp)),
            (0_usize..5, any::<bool>()).prop_map(|(who, cool)| Step::Stop(who, cool)),
            (0_usize..5).prop_map(Step::Epoch),
        ]
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(32))]

        /// Whatever happens in a layer: nobody owns a bucket twice, a ramp only adds or takes away
        /// from its own experiment, a refusal changes nothing, and the sum is never above 100 %.
        #[test]
        fn random_histories_stay_exclusive_and_monotone(steps in prop::collection::vec(step(), 1..25)) {
            let mut ledger = Ledger::default();
            for (day, step) in (0_i64..).zip(steps) {
                let before = ledger.clone();
                let (who, outcome) = match &step {
                    Step::Allocate(who, bp) => {
                        let name = format!("e{who}");
                        (*who, ledger.allocate("l", 1, &name, 1, "", *bp, &day.to_string(), at(day)))
                    }
                    Step::Ramp(who, bp) =>
                        (*who, ledger.ramp(&format!("e{who}"), *bp, &day.to_string(), at(day), false)),
                    Step::Stop(who, cool) =>
                        (*who, ledger.stop(&format!("e{who}"), cool.then(|| at(day + 3)))),
                    Step::Epoch(who) => {
                        let name = format!("e{who}");
                        let next = ledger.holding(&name).map_or(1, |holding| holding.epoch + 1);
                        (*who, ledger.new_epoch(&name, next, "", at(day)))
                    }
                };
                if outcome.is_err() {
                    prop_assert_eq!(&ledger, &before);
                }
                let mut owned = BTreeSet::new();
                for other in 0..5 {
                    let name = format!("e{other}");
                    if let Some(holding) = ledger.holding(&name) {
                        for bp in &holding.drawn {
                            prop_assert!(owned.insert(*bp), "{bp} has two owners");
                        }
                    }
                    if other != who {
                        prop_assert_eq!(ledger.holding(&name), before.holding(&name));
                    }
                }
                let held = u32::try_from(owned.len()).expect("at most 10000");
                prop_assert_eq!(
                    held + ledger.free_bp("l", at(day)) + ledger.cooling_bp("l", at(day)),
                    BASIS_POINTS
                );
                if let (Step::Ramp(..), Ok(())) = (&step, &outcome) {
                    let name = format!("e{who}");
                    let (was, is) = (&before.holding(&name).expect("held").drawn, &ledger.holding(&name).expect("held").drawn);
                    let kept = was.len().min(is.len());
                    prop_assert_eq!(&was[..kept], &is[..kept]);
                }
            }
        }
    }
}
