//! The `train` job: from a log to a model and a report of how good it is.
//!
//! The log is cut to its k-core and split. Factors learned from the training part are judged on the
//! held-out part, beside the popularity baseline. Then, unless told not to, factors are learned once more
//! from all listens: the report speaks of the first, the model carries the second, and the report says so.

mod k_core;

use crate::Dictionary;
use crate::evaluation::{
    EvaluateError, EvaluateOptions, Evaluation, HoldOut, Listens, Quality, SplitCounts, SplitError,
    evaluate, split,
};
use crate::ingest::{Items, Log};
use crate::model::{Model, ModelCounts, ModelInfo};
use k_core::{Core, k_core};
use refrain_als::{Factors, Hyper, Interactions, InteractionsError};
use serde::{Deserialize, Serialize};

/// What to train and how to judge it.
#[derive(Debug, Clone, PartialEq)]
pub struct TrainOptions {
    /// Hyper-parameters of the factorisation.
    pub hyper: Hyper,
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
            evaluation: EvaluationPlan::Auto,
            max_evaluated_users: EvaluateOptions::default().max_users,
            refit_on_all: true,
            min_user_items: 1,
            min_item_users: 1,
            threads: 0,
            command: String::new(),
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
        listens: usize,
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
    /// The factors cannot be judged.
    #[error(transparent)]
    Evaluate(#[from] EvaluateError),
    /// Something cannot be written as JSON.
    #[error("the report cannot be written as json")]
    Json(#[from] serde_json::Error),
}

/// Trains a model on `log`; `items` adds attributes to what the log itself says about items.
///
/// Deterministic at any number of threads. If nobody has enough listens to hold some out, the model is
/// trained all the same and the report says so.
///
/// # Errors
/// An empty log or k-core, counts beyond 1e9, options out of range.
pub fn train(
    log: &Log,
    items: &Items,
    options: &TrainOptions,
    progress: StageProgress<'_>,
) -> Result<(Model, TrainReport), TrainJobError> {
    if log.is_empty() {
        return Err(TrainJobError::NoListens);
    }
    let core = k_core(log, options.min_user_items, options.min_item_users);
    if core.listens.user.is_empty() {
        return Err(TrainJobError::EmptyCore {
            min_user_items: options.min_user_items,
            min_item_users: options.min_item_users,
            listens: log.len(),
        });
    }
    let all = core
        .listens
        .interactions()
        .map_err(|error| name_plays(error, log, &core))?;
    let judged = judge(&core.listens, options, progress)?;
    let refit_on_all = options.refit_on_all || judged.is_none();
    let report = report(log, &core, judged.as_ref(), refit_on_all);
    let (factors, held_out) = match judged {
        Some(judged) if !refit_on_all => (judged.factors, judged.held_out),
        _ => (fit(&all, options, Stage::FitAll, progress)?, Vec::new()),
    };
    let model = assemble(log, items, options, &core, &all, factors, held_out, &report)?;
    Ok((model, report))
}

/// Factors learned from a part of the log, and how they did on the rest.
struct Judged {
    hold_out: HoldOut,
    split: SplitCounts,
    evaluation: Evaluation,
    factors: Factors,
    held_out: Vec<(u32, u32)>,
}

/// None if nothing is to be held out, or nobody has enough listens for it.
fn judge(
    listens: &Listens,
    options: &TrainOptions,
    progress: StageProgress<'_>,
) -> Result<Option<Judged>, TrainJobError> {
    let hold_out = match options.evaluation {
        EvaluationPlan::Skip => return Ok(None),
        EvaluationPlan::Auto => HoldOut::for_log(listens.time_us.is_some(), options.hyper.seed),
        EvaluationPlan::By(hold_out) => hold_out,
    };
    let parts = split(listens, hold_out)?;
    if parts.held_out.is_empty() {
        return Ok(None);
    }
    let factors = fit(&parts.train, options, Stage::FitTrainingPart, progress)?;
    progress(Stage::Evaluate, 0, 1);
    let evaluate_options = EvaluateOptions {
        max_users: options.max_evaluated_users,
        seed: options.hyper.seed,
        threads: options.threads,
    };
    let evaluation = evaluate(&parts.train, &parts.held_out, &factors, &evaluate_options)?;
    progress(Stage::Evaluate, 1, 1);
    let (split, held_out) = (parts.counts, parts.held_out);
    Ok(Some(Judged {
        hold_out,
        split,
        evaluation,
        factors,
        held_out,
    }))
}

fn fit(
    data: &Interactions,
    options: &TrainOptions,
    stage: Stage,
    progress: StageProgress<'_>,
) -> Result<Factors, refrain_als::TrainError> {
    struct AtStage<'a>(Stage, StageProgress<'a>);
    impl refrain_als::Progress for AtStage<'_> {
        fn advance(&self, done: u64, total: u64) {
            self.1(self.0, done, total);
        }
    }
    refrain_als::train(
        data,
        &options.hyper,
        options.threads,
        &AtStage(stage, progress),
    )
}

fn report(log: &Log, core: &Core, judged: Option<&Judged>, refit_on_all: bool) -> TrainReport {
    let evaluation = judged.map(|judged| &judged.evaluation);
    let mut counts = ReportCounts {
        users: core.users.len(),
        items: core.items.len(),
        listens: core.listens.user.len(),
        dropped_listens: log.len() - core.listens.user.len(),
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
    }
}

#[expect(
    clippy::too_many_arguments,
    reason = "the parts of a model, each from another step"
)]
fn assemble(
    log: &Log,
    items: &Items,
    options: &TrainOptions,
    core: &Core,
    all: &Interactions,
    factors: Factors,
    held_out: Vec<(u32, u32)>,
    report: &TrainReport,
) -> Result<Model, serde_json::Error> {
    let listens = &core.listens;
    let mut item_plays = vec![0.0; core.items.len()];
    for (&item, &count) in listens.item.iter().zip(&listens.count) {
        item_plays[item as usize] += f64::from(count);
    }
    let ids = |ordinals: &[u32], dictionary: &Dictionary| -> Dictionary {
        ordinals
            .iter()
            .filter_map(|&ordinal| dictionary.get(ordinal))
            .collect()
    };
    let item_ids = ids(&core.items, &log.items);
    let mut described = items.clone();
    described.merge(&log.described);
    let attributes = item_ids
        .iter()
        .map(|id| described.get(id).cloned().unwrap_or_default())
        .collect();
    let info = ModelInfo {
        rank: factors.rank,
        hyper: serde_json::to_value(options.hyper)?,
        command: options.command.clone(),
        seed: options.hyper.seed,
        watermark_us: listens
            .time_us
            .as_ref()
            .and_then(|times| times.iter().copied().max()),
        counts: ModelCounts {
            users: core.users.len() as u64,
            items: core.items.len() as u64,
            events: listens.user.len() as u64,
            plays: item_plays.iter().sum(),
        },
        report: serde_json::to_value(report)?,
    };
    Ok(Model {
        info,
        items: item_ids,
        users: ids(&core.users, &log.users),
        item_factors: factors.items,
        user_factors: factors.users,
        item_listeners: crate::evaluation::listeners(all),
        item_plays,
        attributes,
        held_out,
    })
}

/// Puts ids in place of ordinals.
fn name_plays(error: InteractionsError, log: &Log, core: &Core) -> TrainJobError {
    let id = |dictionary: &Dictionary, kept: &[u32], place: u32| {
        let ordinal = kept.get(place as usize).copied();
        ordinal
            .and_then(|ordinal| dictionary.get(ordinal))
            .unwrap_or_default()
            .to_owned()
    };
    let (user, item, plays) = match error {
        InteractionsError::Sum { user, item, sum } => (user, item, sum),
        InteractionsError::Strength { position, strength } => {
            let listens = &core.listens;
            (
                listens.user[position],
                listens.item[position],
                f64::from(strength),
            )
        }
        other => return TrainJobError::Split(other.into()),
    };
    TrainJobError::TooManyPlays {
        user: id(&log.users, &core.users, user),
        item: id(&log.items, &core.items, item),
        plays,
    }
}
