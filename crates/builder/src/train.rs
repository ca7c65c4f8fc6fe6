//! The `train` job: from a log to a model and a report of how good it is.
//!
//! The log is cut to its k-core and split. Factors learned from the training part are judged on the
//! held-out part, beside the popularity baseline. Then, unless told not to, factors are learned once more
//! from all listens: the report speaks of the first, the model carries the second, and the report says so.

mod checkpoint;
mod cold;
mod fit;
mod k_core;

use crate::Dictionary;
use crate::evaluation::{
    EvaluateError, EvaluateOptions, Evaluation, HoldOut, Quality, Sorted, SplitCounts, SplitError,
    evaluate,
};
use crate::ingest::{Attributes, Items, Log, SortedLog};
use crate::model::{Model, ModelCounts, ModelInfo, Parent};
pub use checkpoint::discard as discard_checkpoints;
pub use cold::ColdReport;
use fit::{Fitted, Known, fit};
use k_core::{Core, k_core};
use refrain_als::Hyper;
use refrain_bundle::bundle::Calibration;
use serde::{Deserialize, Serialize};
use std::path::PathBuf;
use std::sync::Arc;

/// What to train and how to judge it.
#[derive(Debug, Clone)]
pub struct TrainOptions {
    /// Hyper-parameters of the factorisation.
    pub hyper: Hyper,
    /// Take `hyper.alpha` as the mean confidence ([`Hyper::scaled_to`]), so that the defaults suit
    /// play counts and single events alike.
    pub scale_confidence: bool,
    /// Whether and how to judge it on held-out listens.
    pub evaluation: EvaluationPlan,
    /// Judge a seeded sample of this many users if more have held-out listens.
    pub max_evaluated_users: usize,
    /// After evaluation, learn from all listens. If false, the model is the one that was judged, and
    /// never saw the held-out listens.
    pub refit_on_all: bool,
    /// k-core: users need this many distinct items …
    pub min_user_items: u32,
    /// … and items this many distinct users.
    pub min_item_users: u32,
    /// Threads; 0 means one a core. The result does not depend on it.
    pub threads: usize,
    /// The command line, for the record.
    pub command: String,
    /// What learns.
    pub trainer: Trainer,
    /// Start from this model's factors, and turn what is learned to lie near them. Must have the same
    /// rank.
    pub parent: Option<Arc<Parent>>,
    /// Keep what a killed training can go on from in this directory.
    pub checkpoints: Option<PathBuf>,
    /// Give items that nobody has heard a vector from their artist and tags.
    pub cold_items: bool,
}

/// What learns from a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
pub enum Trainer {
    /// Implicit alternating least squares.
    #[default]
    Als,
    /// Counting listeners: the honest baseline, served like any other model.
    Popularity,
}

/// Whether and how to judge a model.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum EvaluationPlan {
    /// Not at all: nothing is held out.
    Skip,
    /// By [`HoldOut::for_log`].
    Auto,
    /// By this protocol.
    By(HoldOut),
}

impl Default for TrainOptions {
    fn default() -> Self {
        Self {
            hyper: Hyper::default(),
            scale_confidence: true,
            evaluation: EvaluationPlan::Auto,
            max_evaluated_users: EvaluateOptions::default().max_users,
            refit_on_all: true,
            min_user_items: 1,
            min_item_users: 1,
            threads: 0,
            command: String::new(),
            trainer: Trainer::Als,
            parent: None,
            checkpoints: None,
            cold_items: false,
        }
    }
}

/// What is being done, for a progress bar.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub enum Stage {
    /// Learning from the training part.
    FitTrainingPart,
    /// Ranking the catalogue for users with held-out listens.
    Evaluate,
    /// Learning from all listens.
    FitAll,
}

/// Told what is being done and how far it is: `done` of `total` units, from several threads.
pub type StageProgress<'a> = &'a (dyn Fn(Stage, u64, u64) + Sync);

/// How good the model is on listens it has not seen, as printed and as stored in the model.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct TrainReport {
    /// The model; absent if nothing was judged.
    pub model: Option<Quality>,
    /// The popularity baseline, judged likewise.
    pub popularity: Option<Quality>,
    /// What was judged, in words.
    pub protocol: String,
    /// The same for programs; absent if nothing was held out.
    pub hold_out: Option<HoldOut>,
    /// Sizes.
    pub counts: ReportCounts,
    /// Whether the factors in the model were learned from all listens, after those that were judged.
    pub refit_on_all: bool,
    /// What learned.
    #[serde(default)]
    pub trainer: Trainer,
    /// Items of the parent that it started from, if it had one.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub warm_items: Option<usize>,
    /// How items that nobody has heard were given vectors.
    #[serde(default, skip_serializing_if = "Option::is_none")]
    pub cold: Option<ColdReport>,
}

/// Sizes in a [`TrainReport`].
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Serialize, Deserialize)]
pub struct ReportCounts {
    /// Users of the k-core.
    pub users: usize,
    /// Items of the k-core.
    pub items: usize,
    /// Listens (rows) of the k-core.
    pub listens: usize,
    /// Listens the k-core dropped.
    pub dropped_listens: usize,
    /// Users with held-out listens.
    pub users_eligible: usize,
    /// Users judged: all eligible ones, or a sample.
    pub users_evaluated: usize,
    /// The split, if there was one.
    pub split: Option<SplitCounts>,
}

/// Why a model cannot be trained.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum TrainJobError {
    /// The log is empty.
    #[error("the log has no listens")]
    NoListens,
    /// The k-core is empty.
    #[error(
        "no listens are left: no users with {min_user_items} items and items with \
         {min_item_users} users, among {listens} listens"
    )]
    EmptyCore {
        /// Distinct items asked of a user.
        min_user_items: u32,
        /// Distinct users asked of an item.
        min_item_users: u32,
        /// Listens in the log.
        listens: u64,
    },
    /// One user played one item more often than can be trained on.
    #[error("user {user:?} played item {item:?} {plays} times, more than 1e9")]
    TooManyPlays {
        /// Id of the user.
        user: String,
        /// Id of the item.
        item: String,
        /// The sum of the counts.
        plays: f64,
    },
    /// The log cannot be split.
    #[error(transparent)]
    Split(#[from] SplitError),
    /// Factors cannot be learned.
    #[error(transparent)]
    Fit(#[from] refrain_als::TrainError),
    /// Listens that were put into a file cannot be read again.
    #[error("cannot read listens from a temporary file: {0}")]
    Read(#[from] std::io::Error),
    /// The factors cannot be judged.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// A parent of another rank.
    #[error(
        "the parent has rank {parent}, and rank {rank} is asked for: start from nothing, or keep the rank"
    )]
    ParentRank {
        /// Rank of the parent.
        parent: usize,
        /// Rank asked for.
        rank: usize,
    },
    /// A checkpoint cannot be written; the message has the path.
    #[error("cannot keep a checkpoint: {0}")]
    Checkpoint(std::io::Error),
    /// Something cannot be written as JSON.
    #[error("the report cannot be written as json")]
    Json(#[from] serde_json::Error),
}

/// Trains a model on `log`; `items` adds attributes to what the log itself says about items.
///
/// Deterministic at any number of threads, and whatever the memory that the log was sorted in. If nobody has
/// enough listens to hold some out, the model is trained all the same and the report says so.
///
/// # Errors
/// An empty log or k-core, counts beyond 1e9, options out of range.
pub fn train(
    log: SortedLog,
    items: &Items,
    options: &TrainOptions,
    progress: StageProgress<'_>,
) -> Result<(Model, TrainReport), TrainJobError> {
    if log.is_empty() {
        return Err(TrainJobError::NoListens);
    }
    let threads = options.threads;
    let pool = rayon::ThreadPoolBuilder::new()
        .num_threads(threads)
        .build()
        .map_err(|source| refrain_als::TrainError::Threads { threads, source })?;
    let core = pool.install(|| k_core(&log, options.min_user_items, options.min_item_users))?;
    if core.listens == 0 {
        return Err(TrainJobError::EmptyCore {
            min_user_items: options.min_user_items,
            min_item_users: options.min_item_users,
            listens: log.len(),
        });
    }
    let parent = known(&log, &core, options)?;
    let start = parent.as_ref();
    let judged = core.with_sorted(&log, |listens| judge(listens, start, options, progress))?;
    let refit_on_all = options.refit_on_all || judged.is_none();
    let mut report = report(&log, &core, judged.as_ref(), refit_on_all);
    report.trainer = options.trainer;
    report.warm_items = parent.as_ref().map(Known::items_known);
    if report.warm_items.is_some() && report.hold_out.is_some() {
        report.protocol += "; started from a parent that may have learned from what is held out \
                            here, so these figures flatter: judge by listens that came later";
    }
    let calibration = judged
        .as_ref()
        .and_then(|judged| judged.calibration.clone());
    let (fitted, held_out) = match judged {
        Some(judged) if !refit_on_all => (judged.fitted, judged.held_out),
        _ => (None, Vec::new()),
    };
    let (fitted, names) = match fitted {
        Some(fitted) => (fitted, log.into_names()),
        None => {
            let all = pool.install(|| core.with_sorted(&log, |listens| listens.interactions()))?;
            // The listens have said all they have to say: what follows needs their room.
            let names = log.into_names();
            let fitted = fit(&all, start, options, Stage::FitAll, progress)?;
            (fitted, names)
        }
    };
    let mut model = assemble(names, items, options, core, fitted, held_out, &report)?;
    model.info.calibration = calibration;
    if options.cold_items {
        report.cold = add_cold_items(&mut model, items, options.hyper.seed);
        model.info.report = serde_json::to_value(&report)?;
    }
    Ok((model, report))
}

/// What the parent knows of this log; nothing in common is a start from nothing.
fn known<'a>(
    log: &SortedLog,
    core: &Core,
    options: &'a TrainOptions,
) -> Result<Option<Known<'a>>, TrainJobError> {
    let Some(parent) = options.parent.as_deref() else {
        return Ok(None);
    };
    let rank = options.hyper.rank;
    if parent.rank() != rank {
        let parent = parent.rank();
        return Err(TrainJobError::ParentRank { parent, rank });
    }
    let places = |ordinals: &[u32], ids: &Dictionary, known: &Dictionary| {
        let ids = ordinals.iter().map(|&at| ids.get(at).unwrap_or_default());
        ids.map(|id| known.ordinal(id)).collect()
    };
    let known = Known {
        parent,
        items: places(&core.items, log.items(), parent.items()),
        users: places(&core.users, log.users(), parent.users()),
        has_exclusions: log.has_exclusions(),
    };
    Ok((known.items_known() > 0).then_some(known))
}

/// Adds the described items that nobody has heard and that artist or tags say something of.
fn add_cold_items(model: &mut Model, items: &Items, seed: u64) -> Option<ColdReport> {
    let cold: Vec<(&str, &Attributes)> = items
        .iter()
        .filter(|(id, item)| {
            model.items.ordinal(id).is_none() && !(item.artist.is_empty() && item.tags.is_empty())
        })
        .collect();
    let known = cold::Known {
        attributes: &model.attributes,
        listeners: &model.item_listeners,
        factors: &model.item_factors,
        rank: model.info.rank,
    };
    let of: Vec<&Attributes> = cold.iter().map(|(_, item)| *item).collect();
    let (vectors, report) = cold::predict(&known, &of, seed)?;
    for ((id, item), vector) in cold.into_iter().zip(vectors.chunks_exact(model.info.rank)) {
        if model.items.insert(id).is_none() {
            // The dictionary is full: those that fit have their vectors.
            break;
        }
        model.item_factors.extend_from_slice(vector);
        model.item_listeners.push(0);
        model.item_plays.push(0.0);
        model.attributes.push(item.clone());
    }
    model.info.counts.items = model.items.len() as u64;
    Some(report)
}

/// Factors learned from a part of the log, and how they did on the rest.
struct Judged {
    hold_out: HoldOut,
    split: SplitCounts,
    evaluation: Evaluation,
    /// None if they are to be learned once more from all listens: two of them would take double the room.
    fitted: Option<Fitted>,
    held_out: Vec<(u32, u32)>,
    calibration: Option<Calibration>,
}

/// None if nothing is to be held out, or nobody has enough listens for it.
fn judge(
    listens: &Sorted<'_>,
    start: Option<&Known<'_>>,
    options: &TrainOptions,
    progress: StageProgress<'_>,
) -> Result<Option<Judged>, TrainJobError> {
    let hold_out = match options.evaluation {
        EvaluationPlan::Skip => return Ok(None),
        EvaluationPlan::Auto => HoldOut::for_log(listens.times_us.is_some(), options.hyper.seed),
        EvaluationPlan::By(hold_out) => hold_out,
    };
    let parts = listens.split(hold_out)?;
    if parts.held_out.is_empty() {
        return Ok(None);
    }
    let fitted = fit(
        &parts.train,
        start,
        options,
        Stage::FitTrainingPart,
        progress,
    )?;
    progress(Stage::Evaluate, 0, 1);
    let evaluate_options = EvaluateOptions {
        max_users: options.max_evaluated_users,
        seed: options.hyper.seed,
        threads: options.threads,
    };
    let evaluation = evaluate(
        &parts.train,
        &parts.held_out,
        &fitted.factors,
        &evaluate_options,
    )?;
    progress(Stage::Evaluate, 1, 1);
    // Popularity says how many listened, not how sure it is of a listener.
    let calibration = (options.trainer == Trainer::Als).then(|| {
        let event = format!("a listen among those held out ({hold_out})");
        crate::calibrate::fit(
            &parts.train,
            &parts.held_out,
            &fitted.factors,
            &event,
            options.max_evaluated_users,
            options.hyper.seed,
        )
    });
    let (split, held_out) = (parts.counts, parts.held_out);
    Ok(Some(Judged {
        calibration: calibration.flatten(),
        hold_out,
        split,
        evaluation,
        fitted: (!options.refit_on_all).then_some(fitted),
        held_out,
    }))
}

fn report(
    log: &SortedLog,
    core: &Core,
    judged: Option<&Judged>,
    refit_on_all: bool,
) -> TrainReport {
    let evaluation = judged.map(|judged| &judged.evaluation);
    let mut counts = ReportCounts {
        users: core.users.len(),
        items: core.items.len(),
        listens: core.listens,
        dropped_listens: usize::try_from(log.len()).map_or(0, |all| all - core.listens),
        split: judged.map(|judged| judged.split),
        ..ReportCounts::default()
    };
    if let Some(evaluation) = evaluation {
        counts.users_eligible = evaluation.users_eligible;
        counts.users_evaluated = evaluation.users;
    }
    let protocol = judged.map_or_else(
        || "nothing held out, nothing judged".to_owned(),
        |judged| {
            let sampled = if counts.users_evaluated < counts.users_eligible {
                format!(
                    "a sample of {} of {} users",
                    counts.users_evaluated, counts.users_eligible
                )
            } else {
                format!("all {} users with held-out listens", counts.users_eligible)
            };
            let served = if refit_on_all {
                "the factors judged here never saw them; those in the model were then learned from \
                 all listens"
            } else {
                "the factors in the model are the ones judged here and never saw them"
            };
            format!(
                "{}; every item of the training part ranked, those the user has there left out; \
                 {sampled}; {served}",
                judged.hold_out
            )
        },
    );
    TrainReport {
        model: evaluation.map(|evaluation| evaluation.model),
        popularity: evaluation.map(|evaluation| evaluation.popularity),
        protocol,
        hold_out: judged.map(|judged| judged.hold_out),
        counts,
        refit_on_all,
        trainer: Trainer::Als,
        warm_items: None,
        cold: None,
    }
}

/// Takes all that is no longer needed by value, to let go of it on the way.
fn assemble(
    log: Log,
    items: &Items,
    options: &TrainOptions,
    core: Core,
    fitted: Fitted,
    held_out: Vec<(u32, u32)>,
    report: &TrainReport,
) -> Result<Model, serde_json::Error> {
    let ids = |ordinals: &[u32], all: Dictionary| -> Dictionary {
        if ordinals.len() == all.len() {
            return all;
        }
        let kept = ordinals.iter().filter_map(|&ordinal| all.get(ordinal));
        kept.collect()
    };
    let item_ids = ids(&core.items, log.items);
    let users = ids(&core.users, log.users);
    let mut described = items.clone();
    described.merge(&log.described);
    let attributes = described.of(&item_ids);
    let info = ModelInfo {
        rank: fitted.factors.rank,
        hyper: serde_json::to_value(fitted.hyper)?,
        command: options.command.clone(),
        seed: options.hyper.seed,
        watermark_us: core.times_us.map(|(_, last)| last),
        exclusion_watermark_us: log.excluded_until_us,
        counts: ModelCounts {
            users: core.users.len() as u64,
            items: core.items.len() as u64,
            events: core.listens as u64,
            plays: core.item_plays.iter().sum(),
        },
        report: serde_json::to_value(report)?,
        calibration: None,
    };
    Ok(Model {
        info,
        items: item_ids,
        users,
        item_factors: fitted.factors.items,
        user_factors: fitted.factors.users,
        item_listeners: core.item_listeners,
        item_plays: core.item_plays,
        attributes,
        held_out,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::Room;
    use refrain_als::{FoldIn, FoldInScratch, gram};

    /// Users of four groups that listen within their group; times ascend unless left out.
    fn log(users: u32, with_times: bool) -> Log {
        let rows: Vec<(u32, u32)> = (0..users)
            .flat_map(|u| (0..12).map(move |n| (u, (u * 7 + n) % 20 * 4 + u % 4)))
            .collect();
        let names = |prefix: &str, n: u32| (0..n).map(|i| format!("{prefix}{i}")).collect();
        Log {
            users: names("u", users),
            items: names("i", 81),
            user: rows.iter().map(|row| row.0).collect(),
            item: rows.iter().map(|row| row.1).collect(),
            count: rows
                .iter()
                .map(|row| f32::from(u8::try_from(row.1 % 7 + 1).unwrap()))
                .collect(),
            // Everybody listens all the time: a moment divides every user's listens.
            time_us: with_times.then(|| {
                (0..rows.len() as i64)
                    .map(|row| row * 7919 % rows.len() as i64)
                    .collect()
            }),
            ..Log::default()
        }
    }

    fn options() -> TrainOptions {
        let hyper = Hyper {
            rank: 8,
            iterations: 4,
            ..Hyper::default()
        };
        TrainOptions {
            hyper,
            ..TrainOptions::default()
        }
    }

    fn run(log: &Log, options: &TrainOptions) -> Result<(Model, TrainReport), TrainJobError> {
        let log = SortedLog::of(log, &Room::default())?;
        train(log, &Items::default(), options, &|_, _, _| ())
    }

    #[test]
    fn the_model_knows_all_listens_and_reproduces_its_users() {
        let log = Log {
            excluded_until_us: Some(77),
            ..log(60, true)
        };
        let (model, report) = run(&log, &options()).unwrap();
        assert!(report.refit_on_all && model.held_out.is_empty());
        assert_eq!(report.hold_out, Some(HoldOut::Since { share: 0.2 }));
        assert_eq!(report.counts.listens, log.len());
        // The item that nobody heard is not in the model.
        assert_eq!((model.users.len(), model.items.len()), (60, 80));
        assert_eq!(model.info.watermark_us, log.watermark_us());
        assert_eq!(model.info.exclusion_watermark_us, Some(77));
        assert_eq!(model.info.counts.plays, log.plays());
        // The stored hyper-parameters fold every user in to their stored vector.
        let hyper: Hyper = serde_json::from_value(model.info.hyper.clone()).unwrap();
        let fold_in = FoldIn::new(8, 80, gram(&model.item_factors, 8, 1), &hyper).unwrap();
        let mut vector = Vec::new();
        for user in 0..60 {
            let mut evidence = std::collections::BTreeMap::new();
            for listen in log.listens().filter(|listen| listen.user == user) {
                let id = log.items.get(listen.item).unwrap();
                *evidence
                    .entry(model.items.ordinal(id).unwrap())
                    .or_insert(0.0) += listen.count;
            }
            let evidence: Vec<(u32, f32)> = evidence.into_iter().collect();
            fold_in
                .solve(
                    &model.item_factors,
                    &evidence,
                    &mut FoldInScratch::default(),
                    &mut vector,
                )
                .unwrap();
            let place = model.users.ordinal(log.users.get(user).unwrap()).unwrap() as usize;
            assert_eq!(vector, model.user_factors[place * 8..][..8]);
        }
    }

    #[test]
    fn without_refit_the_model_is_the_one_that_was_judged() {
        let log = log(60, false);
        let judged = TrainOptions {
            refit_on_all: false,
            ..options()
        };
        let (model, report) = run(&log, &judged).unwrap();
        assert!(!report.refit_on_all && !model.held_out.is_empty());
        assert_eq!(
            report.hold_out,
            Some(HoldOut::Random {
                share: 0.2,
                seed: 42
            })
        );
        let (refit, same_report) = run(&log, &options()).unwrap();
        assert_eq!(same_report.model, report.model);
        assert_ne!(refit.item_factors, model.item_factors);
        let stored: TrainReport = serde_json::from_value(model.info.report).unwrap();
        assert_eq!(stored, report);
    }

    /// What a parent's users owe to listens that are gone does not reach the items: a user whom the parent has wrong
    /// changes them only where no listens were taken away.
    #[test]
    fn what_was_taken_away_does_not_come_back_through_a_parent() {
        let log = log(60, false);
        let dir = tempfile::tempdir().unwrap();
        let parent = |wrong: bool| {
            let (mut model, _) = run(&log, &options()).unwrap();
            if wrong {
                let other: Vec<f32> = model.user_factors[8..16].iter().map(|v| 3.0 * v).collect();
                model.user_factors[..8].copy_from_slice(&other);
            }
            let saved = dir.path().join(format!("wrong-{wrong}"));
            model.save(&saved).unwrap();
            Some(Arc::new(Parent::load(&saved).unwrap()))
        };
        let (right, wrong) = (parent(false), parent(true));
        let apart = |has_exclusions: bool, judged: bool| -> f32 {
            let log = Log {
                has_exclusions,
                ..log.clone()
            };
            let items = |parent: &Option<Arc<Parent>>| {
                let mut options = options();
                options.parent = parent.clone();
                options.hyper.iterations = 1;
                options.refit_on_all = false;
                if !judged {
                    options.evaluation = EvaluationPlan::Skip;
                }
                run(&log, &options).unwrap().0.item_factors
            };
            let (a, b) = (items(&right), items(&wrong));
            let difference: f32 = a.iter().zip(&b).map(|(a, b)| (a - b) * (a - b)).sum();
            (difference / a.iter().map(|a| a * a).sum::<f32>()).sqrt()
        };
        let (kept, excluded, held_out) =
            (apart(false, false), apart(true, false), apart(false, true));
        assert!(kept > 0.01, "{kept}");
        assert!(
            excluded < 0.2 * kept && held_out < 0.2 * kept,
            "{kept} {excluded} {held_out}"
        );
    }

    #[test]
    fn the_same_model_at_any_thread_count() {
        let log = log(60, true);
        let one = run(
            &log,
            &TrainOptions {
                threads: 1,
                ..options()
            },
        )
        .unwrap();
        assert_eq!(
            one,
            run(
                &log,
                &TrainOptions {
                    threads: 3,
                    ..options()
                }
            )
            .unwrap()
        );
    }

    #[test]
    fn what_cannot_be_judged_is_trained_all_the_same() {
        let mut tiny = log(1, false);
        for column in [&mut tiny.user, &mut tiny.item] {
            column.truncate(2);
        }
        tiny.count.truncate(2);
        let judged = TrainOptions {
            refit_on_all: false,
            ..options()
        };
        let (model, report) = run(&tiny, &judged).unwrap();
        assert_eq!(
            (report.model, report.refit_on_all, model.items.len()),
            (None, true, 2)
        );
        let skip = TrainOptions {
            evaluation: EvaluationPlan::Skip,
            ..options()
        };
        assert_eq!(run(&log(60, true), &skip).unwrap().1.popularity, None);
    }

    #[test]
    fn errors_name_their_cause() {
        assert!(matches!(
            run(&Log::default(), &options()),
            Err(TrainJobError::NoListens)
        ));
        let core = TrainOptions {
            min_user_items: 100,
            ..options()
        };
        assert!(matches!(
            run(&log(20, true), &core),
            Err(TrainJobError::EmptyCore {
                min_user_items: 100,
                listens: 240,
                ..
            })
        ));
        let by_time = EvaluationPlan::By(HoldOut::Since { share: 0.1 });
        let by_time = TrainOptions {
            evaluation: by_time,
            ..options()
        };
        assert!(matches!(
            run(&log(20, false), &by_time),
            Err(TrainJobError::Split(SplitError::NoTimes))
        ));
        let mut many = log(20, true);
        many.count[13] = 2e9;
        let message = run(&many, &options()).unwrap_err().to_string();
        assert!(
            message.starts_with("user \"u1\" played item \"i"),
            "{message}"
        );
    }
}
