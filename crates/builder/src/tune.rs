//! The `tune` job: hyper-parameters searched on validation listens only.
//!
//! The search follows the lessons of Rendle et al., "Revisiting the performance of iALS on item
//! recommendation benchmarks" (2021, §4): what matters are the weight of what was not observed and the
//! regularisation, each over orders of magnitude, with the exponent of its frequency scaling.
//!
//! The first half of the trials covers the space evenly (a Halton sequence, started at the seed), at the
//! first rank. The second half looks around the best so far, in a box that shrinks, at the last rank.
//! Each trial trains once and is judged after a few, then more iterations; a trial that is clearly behind
//! or has begun to fall is cut short. Regularisation is drawn as the ridge that a typical row gets, not
//! as `λ`, whose meaning changes with the exponent.
//!
//! Deterministic for a seed, at any number of threads.

use refrain_als::{Confidence, Hyper, Interactions, TrainError, Trainer};
use serde::{Deserialize, Serialize};

use crate::evaluation::{EvaluateError, EvaluateOptions, Evaluation, Quality, evaluate};

/// What a search maximises, on the validation listens.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Goal {
    /// NDCG@20.
    Ndcg,
    /// Recall@20.
    Recall,
}

impl Goal {
    /// The value of the goal.
    #[must_use]
    pub fn of(self, quality: &Quality) -> f64 {
        match self {
            Self::Ndcg => quality.ndcg_at_20,
            Self::Recall => quality.recall_at_20,
        }
    }
}

/// How to search.
#[derive(Debug, Clone, PartialEq)]
pub struct TuneOptions {
    /// What to maximise.
    pub goal: Goal,
    /// Trials altogether, at least 1.
    pub trials: usize,
    /// Rank of the trials that cover the space, and of those that look around the best.
    pub ranks: (usize, usize),
    /// Iterations that a trial may take.
    pub max_iterations: usize,
    /// Shapes of the confidence to try; ignored when all strengths are alike.
    pub confidences: Vec<Confidence>,
    /// Seed of the search, of the factors, and of the sample of users.
    pub seed: u64,
    /// Judge a sample of this many users when there are more.
    pub max_users: usize,
    /// Threads; 0 means one a core.
    pub threads: usize,
}

impl Default for TuneOptions {
    fn default() -> Self {
        Self {
            goal: Goal::Ndcg,
            trials: 30,
            ranks: (64, 64),
            max_iterations: 16,
            confidences: vec![Confidence::Log, Confidence::Linear],
            seed: 42,
            max_users: 10_000,
            threads: 0,
        }
    }
}

/// One setting, and how it did on the validation listens.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Trial {
    /// The setting, with the best of the iterations tried. `alpha` is the mean confidence.
    pub hyper: Hyper,
    /// How it did with those.
    pub quality: Quality,
    /// Iterations and the goal after them, in the order judged.
    pub path: Vec<(usize, f64)>,
}

/// What a search found.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TuneReport {
    /// What was maximised.
    pub goal: Goal,
    /// Seed of search, factors and sample.
    pub seed: u64,
    /// Users judged in each trial, of those eligible.
    pub users: usize,
    /// Users with validation listens.
    pub users_eligible: usize,
    /// The best setting. `alpha` is the mean confidence, to be scaled to the log that it is used on.
    pub best: Hyper,
    /// What it reached on the validation listens: an optimistic figure, for it was chosen by it.
    pub best_quality: Quality,
    /// Popularity on the same listens.
    pub popularity: Quality,
    /// All trials, in their order.
    pub trials: Vec<Trial>,
}

/// Why a search failed.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TuneError {
    /// No trial at all.
    #[error("a search takes at least one trial")]
    NoTrials,
    /// Factors cannot be learned.
    #[error(transparent)]
    Train(#[from] TrainError),
    /// Factors cannot be judged.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
}

/// Ranges of the search: weight of what was not observed, ridge of a typical row, exponent.
const WEIGHT: (f64, f64) = (5e-4, 0.5);
const RIDGE: (f64, f64) = (0.3, 60.0);
const EXPONENT: (f64, f64) = (0.0, 1.0);

/// Below this share of the best goal at the same number of iterations, a trial is given up.
const HOPELESS: f64 = 0.9;

/// A point of the search, every coordinate from 0 to 1.
type Point = [f64; 3];

/// Searches for the hyper-parameters that do best on `valid`: (user, item) pairs, sorted and distinct, of
/// users and items of `train`, which the factors are learned from. `progress` hears of finished trials.
///
/// # Errors
/// [`TuneError`]. A setting whose systems cannot be solved is a trial that reached nothing.
pub fn tune(
    train: &Interactions,
    valid: &[(u32, u32)],
    options: &TuneOptions,
    progress: &mut dyn FnMut(usize, usize, Option<&Trial>),
) -> Result<TuneReport, TuneError> {
    if options.trials == 0 {
        return Err(TuneError::NoTrials);
    }
    let mut search = Search {
        train,
        valid,
        options,
        typical: typical_row(train),
        best_at: Vec::new(),
        evaluation: None,
    };
    let even = options.trials.div_ceil(2);
    let shapes = search.shapes();
    let mut trials: Vec<Trial> = Vec::with_capacity(options.trials);
    let mut best: Option<(usize, Point)> = None;
    for at in 0..options.trials {
        progress(at, options.trials, trials.last());
        let (point, shape, rank) = match best {
            Some((trial, centre)) if at >= even => {
                let local = at - even;
                let left = 1.0 - local as f64 / (options.trials - even) as f64;
                let width = 0.06 + 0.24 * left;
                let point = around(centre, halton(at, options.seed), width);
                (point, trials[trial].hyper.confidence, options.ranks.1)
            }
            _ => (
                halton(at, options.seed),
                shapes[at % shapes.len()],
                options.ranks.0,
            ),
        };
        // What was found at another rank is tried as it is before its surroundings are.
        let point = match best {
            Some((_, centre)) if at == even && options.ranks.0 != options.ranks.1 => centre,
            _ => point,
        };
        if at == even && options.ranks.0 != options.ranks.1 {
            search.best_at.clear();
        }
        let trial = search.trial(point, shape, rank)?;
        let goal = |trial: &Trial| options.goal.of(&trial.quality);
        let better = best.is_none_or(|(index, _)| {
            // A first trial at the last rank sets the mark there.
            (at == even && rank != trials[index].hyper.rank) || goal(&trial) > goal(&trials[index])
        });
        trials.push(trial);
        if better {
            best = Some((at, point));
        }
    }
    progress(options.trials, options.trials, trials.last());
    let best = &trials[best.map_or(0, |(at, _)| at)];
    let evaluation = search.evaluation.ok_or(EvaluateError::Nobody)?;
    Ok(TuneReport {
        goal: options.goal,
        seed: options.seed,
        users: evaluation.users,
        users_eligible: evaluation.users_eligible,
        best: best.hyper,
        best_quality: best.quality,
        popularity: evaluation.popularity,
        trials,
    })
}

struct Search<'a> {
    train: &'a Interactions,
    valid: &'a [(u32, u32)],
    options: &'a TuneOptions,
    /// Observations of a typical row, and of how many others.
    typical: (f64, f64),
    /// The best goal so far after so many iterations.
    best_at: Vec<(usize, f64)>,
    /// The last evaluation, for what does not depend on the trial.
    evaluation: Option<Evaluation>,
}

impl Search<'_> {
    /// The shapes of confidence that make a difference.
    fn shapes(&self) -> Vec<Confidence> {
        let mut strengths = (0..self.train.users()).flat_map(|user| self.train.user(user).1.iter());
        let first = strengths.next();
        let alike = strengths.all(|strength| Some(strength) == first);
        match self.options.confidences.first() {
            None => vec![Confidence::Log],
            Some(&only) if alike => vec![only],
            Some(_) => self.options.confidences.clone(),
        }
    }

    fn trial(
        &mut self,
        point: Point,
        confidence: Confidence,
        rank: usize,
    ) -> Result<Trial, TuneError> {
        let options = self.options;
        let hyper = self.hyper(point, confidence, rank);
        let mut trial = Trial {
            hyper,
            quality: Quality::default(),
            path: Vec::new(),
        };
        let scaled = hyper.scaled_to(self.train);
        let mut trainer = Trainer::new(self.train, &scaled, options.threads)?;
        for iterations in stops(options.max_iterations) {
            while trainer.iteration() < iterations {
                match trainer.step(&()) {
                    Err(TrainError::Unsolvable { .. }) => return Ok(trial),
                    other => other?,
                }
            }
            let factors = match trainer.finished() {
                Err(TrainError::Unsolvable { .. }) => return Ok(trial),
                other => other?,
            };
            let evaluation = evaluate(
                self.train,
                self.valid,
                &factors,
                &EvaluateOptions {
                    max_users: options.max_users,
                    seed: options.seed,
                    threads: options.threads,
                },
            )?;
            let goal = options.goal.of(&evaluation.model);
            let before = trial.path.last().map_or(f64::MIN, |last| last.1);
            trial.path.push((iterations, goal));
            if goal > options.goal.of(&trial.quality) {
                trial.quality = evaluation.model;
                trial.hyper.iterations = iterations;
            }
            self.evaluation = Some(evaluation);
            if goal < before || self.is_hopeless(iterations, goal) {
                break;
            }
        }
        Ok(trial)
    }

    /// Whether others were much better after as many iterations; remembers the best.
    fn is_hopeless(&mut self, iterations: usize, goal: f64) -> bool {
        match self.best_at.iter_mut().find(|(at, _)| *at == iterations) {
            Some((_, best)) => {
                let hopeless = goal < HOPELESS * *best;
                *best = best.max(goal);
                hopeless
            }
            None => {
                self.best_at.push((iterations, goal));
                false
            }
        }
    }

    #[expect(
        clippy::cast_possible_truncation,
        reason = "rounding to f32 is the point"
    )]
    fn hyper(
        &self,
        [weight, ridge, exponent]: Point,
        confidence: Confidence,
        rank: usize,
    ) -> Hyper {
        let log = |(low, high): (f64, f64), at: f64| low * (high / low).powf(at);
        let weight = log(WEIGHT, weight);
        let exponent = EXPONENT.0 + (EXPONENT.1 - EXPONENT.0) * exponent;
        let (observed, others) = self.typical;
        let frequency = observed + weight * others;
        // Three digits: what people write down is what is meant.
        let short = |value: f64| {
            let scale = 10f64.powi(2 - value.abs().log10().floor() as i32);
            ((value * scale).round() / scale) as f32
        };
        Hyper {
            rank,
            iterations: self.options.max_iterations,
            alpha: 1.0,
            confidence,
            unobserved_weight: short(weight),
            regularization: short(log(RIDGE, ridge) / frequency.powf(exponent)),
            frequency_exponent: (exponent * 100.0).round() as f32 / 100.0,
            seed: self.options.seed,
        }
    }
}

/// Iterations after which a trial is judged.
fn stops(max: usize) -> impl Iterator<Item = usize> {
    [2, 4, 6, 9, 12, 16, 24, 32, 48, 64]
        .into_iter()
        .filter(move |&stop| stop < max)
        .chain([max])
}

/// Geometric means over both sides of how many observations a row has, and how many others there are.
fn typical_row(train: &Interactions) -> (f64, f64) {
    let (users, items) = (
        f64::from(train.users().max(1)),
        f64::from(train.items().max(1)),
    );
    let pairs = train.len().max(1) as f64;
    (pairs / (users * items).sqrt(), (users * items).sqrt())
}

/// Point `at` of a Halton sequence in bases 2, 3 and 5, turned by the seed (Cranley and Patterson).
fn halton(at: usize, seed: u64) -> Point {
    let mut point = [0.0; 3];
    for ((axis, value), base) in (0u32..).zip(&mut point).zip([2usize, 3, 5]) {
        let (mut left, mut scale) = (at + 1, 1.0);
        while left > 0 {
            scale /= base as f64;
            *value += (left % base) as f64 * scale;
            left /= base;
        }
        let turn = crate::evaluation::hash(seed, axis, 0) >> 11;
        *value = (*value + turn as f64 / (1u64 << 53) as f64).fract();
    }
    point
}

/// The point of the unit cube moved into a box of that half-width around a centre.
fn around(centre: Point, unit: Point, width: f64) -> Point {
    let mut point = centre;
    for (value, unit) in point.iter_mut().zip(unit) {
        *value = (*value + (2.0 * unit - 1.0) * width).clamp(0.0, 1.0);
    }
    point
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::evaluation::{HoldOut, split};
    use crate::ingest::{Log, sorted};

    /// Users of five groups that keep to the items of their group, with some noise.
    fn log() -> Log {
        let names = |n: u32| (0..n).map(|at| at.to_string()).collect();
        let mut log = Log {
            users: names(60),
            items: names(100),
            ..Log::default()
        };
        for user in 0..60u32 {
            for at in 0..12u32 {
                let within = crate::evaluation::hash(5, user, at) % 20;
                let item = if at % 6 == 5 {
                    crate::evaluation::hash(6, user, at) % 100
                } else {
                    u64::from(user % 5) * 20 + within
                };
                log.user.push(user);
                log.item.push(u32::try_from(item).unwrap());
                log.count.push(1.0 + (at % 3) as f32);
            }
        }
        log
    }

    fn search(options: &TuneOptions) -> TuneReport {
        let hold_out = HoldOut::Random {
            share: 0.2,
            seed: 1,
        };
        let parts = split(&sorted(&log()), hold_out).unwrap();
        tune(&parts.train, &parts.held_out, options, &mut |_, _, _| {}).unwrap()
    }

    #[test]
    fn finds_the_best_of_its_trials_whatever_the_threads() {
        let options = TuneOptions {
            trials: 8,
            ranks: (4, 6),
            max_iterations: 6,
            threads: 1,
            ..TuneOptions::default()
        };
        let report = search(&options);
        assert_eq!(
            report,
            search(&TuneOptions {
                threads: 3,
                ..options.clone()
            })
        );
        assert_ne!(
            report.trials,
            search(&TuneOptions { seed: 7, ..options }).trials
        );
        assert_eq!(report.trials.len(), 8);
        let ranks: Vec<_> = report.trials.iter().map(|trial| trial.hyper.rank).collect();
        assert_eq!(ranks, [4, 4, 4, 4, 6, 6, 6, 6]);
        let last = &report.trials[4..];
        let goal = |trial: &Trial| trial.quality.ndcg_at_20;
        let most = last.iter().map(goal).fold(0.0, f64::max);
        assert_eq!(report.best_quality.ndcg_at_20, most);
        assert_eq!(report.best.rank, 6);
        assert!(report.best_quality.ndcg_at_20 > 1.5 * report.popularity.ndcg_at_20);
        for trial in &report.trials {
            trial.hyper.validate().unwrap();
            assert!(
                trial
                    .path
                    .iter()
                    .any(|stop| stop.0 == trial.hyper.iterations)
            );
        }
        let shapes: Vec<_> = report
            .trials
            .iter()
            .map(|trial| trial.hyper.confidence)
            .collect();
        assert!(shapes.contains(&Confidence::Log) && shapes.contains(&Confidence::Linear));
    }

    #[test]
    fn the_sequence_covers_the_cube_evenly() {
        let points: Vec<Point> = (0..64).map(|at| halton(at, 3)).collect();
        for axis in 0..3 {
            let mut values: Vec<f64> = points.iter().map(|point| point[axis]).collect();
            values.sort_by(f64::total_cmp);
            let gap = values
                .windows(2)
                .map(|pair| pair[1] - pair[0])
                .fold(0.0, f64::max);
            assert!(gap < 0.06, "axis {axis}: {gap}");
            assert!(values.iter().all(|value| (0.0..1.0).contains(value)));
        }
        assert_eq!(
            around([0.0, 0.5, 1.0], [0.0, 0.5, 1.0], 0.2),
            [0.0, 0.5, 1.0]
        );
    }
}
