//! Choosing the items of the pool one place after the other: spread, sampled, or both.
//!
//! # Sampling exactly
//! Without spreading, all values are fixed: adding a Gumbel to each `value / temperature` and going
//! through the pool in that order, past what the caps do not let in, draws from Plackett–Luce over
//! what is left and fits, place by place. An item that is passed over never fits again, since caps
//! only fill up, and the others' Gumbels do not depend on it; so the probability of a place is
//! `exp(value / t)` over the sum of those that were still in the race for it. With spreading, values
//! change from place to place, and each place is drawn afresh by inverting its distribution.

use crate::caps::{Full, Room};
use crate::random::{gumbel, uniform};
use crate::rank::{Entry, Exploration, Mmr, Resemblance, Shape};

/// The best-scored candidates, best first.
pub(crate) struct Pool<'a> {
    pub(crate) entries: &'a [Entry],
    pub(crate) shape: &'a Shape,
}

/// What was chosen, and how probable it was.
#[derive(Debug, Default)]
pub(crate) struct Picks {
    randomised: bool,
    places: Vec<Pick>,
    keyed: Vec<(f64, usize)>,
    weights: Vec<f64>,
    /// Places for which an entry was in the race: those before this one.
    leaves: Vec<usize>,
    sums: Vec<LogSum>,
    resembles: Vec<f32>,
    cosines: Vec<f32>,
    relevance: Vec<f32>,
    filled: Vec<Full>,
}

/// How an item came to its place.
#[derive(Debug, Clone, Copy, PartialEq)]
pub(crate) struct Pick {
    pub(crate) propensity: f64,
    pub(crate) explored: bool,
    log_propensity: f64,
}

impl Picks {
    pub(crate) fn clear(&mut self) {
        self.randomised = false;
        self.places.clear();
    }

    pub(crate) fn at(&self, place: usize) -> Option<Pick> {
        self.places.get(place).copied()
    }

    pub(crate) fn log_probability(&self) -> Option<f64> {
        self.randomised
            .then(|| self.places.iter().map(|pick| pick.log_propensity).sum())
    }
}

impl Pool<'_> {
    /// Puts the positions of the chosen into `list`, as many as fit.
    pub(crate) fn pick(
        &self,
        resemblance: &mut dyn Resemblance,
        room: &mut Room,
        picks: &mut Picks,
        list: &mut Vec<usize>,
    ) {
        picks.randomised = self.shape.exploration.is_some();
        match (self.shape.mmr, self.shape.exploration) {
            (Some(mmr), exploration) => {
                self.spread(mmr, exploration, resemblance, room, picks, list);
            }
            (None, Some(exploration)) => self.sample(exploration, room, picks, list),
            (None, None) => {}
        }
    }

    fn sample(
        &self,
        exploration: Exploration,
        room: &mut Room,
        picks: &mut Picks,
        list: &mut Vec<usize>,
    ) {
        let (entries, k) = (self.entries, self.shape.k);
        let Picks {
            places,
            keyed,
            weights,
            leaves,
            sums,
            filled,
            ..
        } = picks;
        weights.clear();
        weights.extend(
            entries
                .iter()
                .map(|entry| f64::from(entry.score) / exploration.temperature),
        );
        keyed.clear();
        keyed.extend(
            weights
                .iter()
                .zip(entries)
                .enumerate()
                .map(|(at, (weight, entry))| {
                    (weight + gumbel(self.shape.seed, entry.ordinal.into()), at)
                }),
        );
        // Equal keys are all but impossible; the order by score decides them.
        keyed.sort_unstable_by(|(a, i), (b, j)| b.total_cmp(a).then(i.cmp(j)));
        filled.clear();
        for &(_, at) in keyed.iter() {
            if list.len() == k {
                break;
            }
            let Some(entry) = entries.get(at) else { break };
            if room.fits(entry.kin) {
                filled.push(room.take(entry.kin));
                list.push(at);
            }
        }

        // An entry is in the race until it is taken or its artist or scene is full.
        leaves.clear();
        leaves.resize(entries.len(), list.len());
        for (place, &at) in list.iter().enumerate() {
            if let Some(leaves) = leaves.get_mut(at) {
                *leaves = place + 1;
            }
        }
        for (place, full) in filled.iter().enumerate() {
            if *full == Full::default() {
                continue;
            }
            for (entry, leaves) in entries.iter().zip(leaves.iter_mut()) {
                if full.holds(entry.kin) {
                    *leaves = (*leaves).min(place + 1);
                }
            }
        }
        // Sums of the weights in the race, from the last place to the first: adding only.
        sums.clear();
        sums.resize(list.len() + 1, LogSum::EMPTY);
        for (&weight, &leaves) in weights.iter().zip(leaves.iter()) {
            if let Some(sum) = sums.get_mut(leaves) {
                sum.add(weight);
            }
        }
        let mut race = LogSum::EMPTY;
        for sum in sums.iter_mut().rev() {
            race = race.and(*sum);
            *sum = race;
        }
        let mut favourite = 0;
        places.extend(list.iter().enumerate().map(|(place, &at)| {
            while leaves.get(favourite).is_some_and(|&leaves| leaves <= place) {
                favourite += 1;
            }
            let weight = weights.get(at).copied().unwrap_or(f64::NEG_INFINITY);
            // What leaves after this place was in the race for it.
            let sum = sums.get(place + 1).map_or(weight, |sum| sum.ln());
            let log_propensity = (weight - sum).min(0.0);
            Pick {
                propensity: libm::exp(log_propensity),
                explored: at != favourite,
                log_propensity,
            }
        }));
    }

    fn spread(
        &self,
        mmr: Mmr,
        exploration: Option<Exploration>,
        resemblance: &mut dyn Resemblance,
        room: &mut Room,
        picks: &mut Picks,
        list: &mut Vec<usize>,
    ) {
        let entries = self.entries;
        let Picks {
            places,
            weights,
            leaves,
            resembles,
            cosines,
            relevance,
            ..
        } = picks;
        resemblance.prepare(&mut entries.iter().map(|entry| entry.ordinal));
        let best = entries.first().map_or(0.0, |entry| entry.score);
        let worst = entries.last().map_or(0.0, |entry| entry.score);
        // In double precision: the range of scores can exceed that of f32.
        let range = f64::from(best) - f64::from(worst);
        relevance.clear();
        relevance.extend(entries.iter().map(|entry| {
            let share = (f64::from(entry.score) - f64::from(worst)) / range;
            #[expect(clippy::cast_possible_truncation, reason = "0 to 1")]
            let share = share as f32;
            if range > 0.0 { share } else { 1.0 }
        }));
        resembles.clear();
        resembles.resize(entries.len(), 0.0);
        cosines.clear();
        cosines.resize(entries.len(), 0.0);
        // Here: 1 in the race, 0 out of it.
        leaves.clear();
        leaves.resize(entries.len(), 1);
        let value = |relevance: f32, resembles: f32| {
            mmr.lambda * relevance - (1.0 - mmr.lambda) * resembles
        };
        while list.len() < self.shape.k {
            let mut favourite: Option<(usize, f32)> = None;
            for (at, ((&relevance, &resembles), &open)) in relevance
                .iter()
                .zip(resembles.iter())
                .zip(leaves.iter())
                .enumerate()
            {
                let value = value(relevance, resembles);
                if open == 1 && favourite.is_none_or(|(_, best)| value > best) {
                    favourite = Some((at, value));
                }
            }
            let Some((favourite, best)) = favourite else {
                break;
            };
            let mut chosen = favourite;
            if let Some(exploration) = exploration {
                let place = list.len() as u64;
                weights.clear();
                let mut total = 0.0;
                for ((&relevance, &resembles), &open) in
                    relevance.iter().zip(resembles.iter()).zip(leaves.iter())
                {
                    if open == 1 {
                        let below = f64::from(value(relevance, resembles)) - f64::from(best);
                        total += libm::exp(below / exploration.temperature);
                    }
                    weights.push(total);
                }
                let drawn = uniform(self.shape.seed, place) * total;
                // The first whose share of the line reaches beyond the point drawn is in the race.
                let at = weights.partition_point(|&until| until <= drawn);
                chosen = if leaves.get(at) == Some(&1) {
                    at
                } else {
                    favourite
                };
                let before = chosen.checked_sub(1).and_then(|at| weights.get(at));
                let share = weights
                    .get(chosen)
                    .map_or(0.0, |until| until - before.unwrap_or(&0.0));
                let propensity = (share / total).min(1.0);
                places.push(Pick {
                    propensity,
                    explored: chosen != favourite,
                    log_propensity: libm::log(propensity),
                });
            }
            let Some(entry) = entries.get(chosen) else {
                break;
            };
            let full = room.take(entry.kin);
            list.push(chosen);
            for (entry, open) in entries.iter().zip(leaves.iter_mut()) {
                if full.holds(entry.kin) {
                    *open = 0;
                }
            }
            if let Some(open) = leaves.get_mut(chosen) {
                *open = 0;
            }
            if list.len() < self.shape.k {
                resemblance.cosines(chosen, cosines);
                for (most, &cosine) in resembles.iter_mut().zip(cosines.iter()) {
                    if cosine > *most {
                        *most = cosine;
                    }
                }
            }
        }
    }
}

/// A sum of exponentials, by the largest exponent: never overflows, never underflows to nothing.
#[derive(Debug, Clone, Copy)]
struct LogSum {
    most: f64,
    sum: f64,
}

impl LogSum {
    const EMPTY: Self = Self {
        most: f64::NEG_INFINITY,
        sum: 0.0,
    };

    fn add(&mut self, exponent: f64) {
        *self = self.and(Self {
            most: exponent,
            sum: 1.0,
        });
    }

    fn and(self, other: Self) -> Self {
        let (high, low) = if self.most >= other.most {
            (self, other)
        } else {
            (other, self)
        };
        if low.sum == 0.0 {
            return high;
        }
        Self {
            most: high.most,
            sum: high.sum + low.sum * libm::exp(low.most - high.most),
        }
    }

    fn ln(self) -> f64 {
        self.most + libm::log(self.sum)
    }
}
