//! What would another policy have earned? From the answers of an experiment whose items were drawn at
//! random, with the probabilities that the log has, and a table of those of the policy in question.
//!
//! The target is a Parquet table with one row an exposure and drawn item: `exposure_id`, `item`,
//! `probability` (of the item at its place, *given the items above it*, under the policy in question);
//! optionally `predicted` (a model's prediction of the item's reward at its place) and
//! `predicted_target` (the same averaged over what the policy would choose there), which make the direct
//! and the doubly robust estimates possible; and `logged_at_place` and `probability_at_place` (of the item at
//! its place *whatever is above it*, under the logging policy and the one in question), which the
//! item-position estimate weighs by. An exposure that is named must have all its drawn items
//! named. See [`crate::methods::off_policy`] for the estimators and when not to believe them.

use std::path::Path;

use arrow_array::Array as _;
use rayon::prelude::*;
use rustc_hash::{FxHashMap, FxHashSet};

use super::{BELONGS, Belongs, Place, groups, word};
use crate::log::columns::{Columns, bytes_at};
use crate::log::files::{Kind as Column, LogFile, Needed};
use crate::log::group::batches;
use crate::log::items::{ITEMS, Items};
use crate::log::symbols::{id_hash, unit_hash};
use crate::log::{LogError, LogFiles, ReadOptions};
use crate::methods::MethodError;
use crate::methods::moments::length;
use crate::methods::off_policy::{
    Method, Row, Slate, SlateMethod, diagnose, shrinkage, slate_value_by_user, value,
};
use crate::plan::{Metric, MetricType, Plan, Source};
use crate::verdict::document::{OffPolicyMetric, OffPolicyResult, OffPolicyValue};

const CONFIDENCE: f64 = 0.95;

const TARGET: &[Needed] = &[
    Needed::required("exposure_id", Column::Bytes),
    Needed::required("item", Column::Text),
    Needed::required("probability", Column::Number),
    Needed::optional("predicted", Column::Number),
    Needed::optional("predicted_target", Column::Number),
    Needed::optional(PLACES[0], Column::Number),
    Needed::optional(PLACES[1], Column::Number),
];

/// Probability of the item at its place whatever is above it, under the logging policy and the one in
/// question.
const PLACES: [&str; 2] = ["logged_at_place", "probability_at_place"];

/// What the target says of an item at its place.
#[derive(Clone, Copy)]
struct Target {
    probability: f64,
    predicted: [f64; 2],
    /// As [`PLACES`].
    at_place: [f64; 2],
}

/// The target policy.
struct Policy {
    items: FxHashMap<(u64, u64), Target>,
    exposures: FxHashSet<u64>,
    predicts: bool,
    places: bool,
}

/// A drawn answer: its items, their probabilities, what came of it by metric.
struct Answer {
    exposure: u64,
    unit: u64,
    items: Vec<u64>,
    logged: Vec<f64>,
    target: Vec<Target>,
}

/// Estimates the value of the policy in `target` by every metric that is an event, from the answers of
/// `plan`'s experiment in the log at `root`.
///
/// # Errors
/// [`LogError`], with file, row group and row: a table that cannot be read, probabilities outside their
/// ranges, an item that is named twice or not at all.
pub fn estimate(
    root: &Path,
    target: &Path,
    plan: &Plan,
    options: &ReadOptions,
) -> Result<OffPolicyResult, LogError> {
    let policy = Policy::read(target)?;
    let files = LogFiles::open(root, &[])?;
    let pool = crate::log::scan::pool(options.threads)?;
    let drawn: Vec<Vec<Option<Answer>>> = pool.install(|| {
        groups(&files.exposures)
            .par_iter()
            .with_max_len(1)
            .map(|&(file, group)| answers(plan, options, &policy, file, group))
            .collect::<Result<_, _>>()
    })?;
    let mut slates = 0;
    let mut answers: Vec<Answer> = Vec::new();
    let mut at: FxHashMap<u64, usize> = FxHashMap::default();
    let mut seen: FxHashSet<u64> = FxHashSet::default();
    for answer in drawn.into_iter().flatten() {
        let Some(answer) = answer else {
            slates += 1;
            continue;
        };
        // A retry is the same answer.
        if seen.insert(answer.exposure) {
            slates += 1;
            at.insert(answer.exposure, answers.len());
            answers.push(answer);
        }
    }
    let metrics: Vec<(&Metric, &str)> = plan
        .metrics
        .iter()
        .filter(|metric| matches!(metric.kind, MetricType::Mean | MetricType::Proportion))
        .filter_map(|metric| match &metric.source {
            Source::Event(event) => Some((metric, event.as_str())),
            Source::Exposure(_) => None,
        })
        .collect();
    let events: Vec<&str> = metrics.iter().map(|(_, event)| *event).collect();
    let found: Vec<Vec<Reward>> = pool.install(|| {
        groups(&files.outcomes)
            .par_iter()
            .with_max_len(1)
            .map(|&(file, group)| rewards(options, &events, &at, file, group))
            .collect::<Result<_, _>>()
    })?;
    let mut rewards: Vec<Vec<f64>> = answers
        .iter()
        .map(|answer| vec![0.0; metrics.len() * (answer.items.len() + 1)])
        .collect();
    let mut once: FxHashSet<(u64, usize)> = FxHashSet::default();
    for reward in found.into_iter().flatten() {
        if reward.outcome != 0 && !once.insert((reward.outcome, reward.metric)) {
            continue;
        }
        let answer = &answers[reward.answer];
        // The last place is for what names none of the drawn items.
        let place = reward
            .item
            .and_then(|item| answer.items.iter().position(|known| *known == item))
            .unwrap_or(answer.items.len());
        rewards[reward.answer][reward.metric * (answer.items.len() + 1) + place] += reward.value;
    }
    Ok(OffPolicyResult {
        target: target
            .file_name()
            .unwrap_or_default()
            .to_string_lossy()
            .into_owned(),
        slates,
        sampled: answers.len() as u64,
        metrics: metrics
            .iter()
            .enumerate()
            .map(|(number, (metric, _))| {
                let mine: Vec<&[f64]> = answers
                    .iter()
                    .zip(&rewards)
                    .map(|(answer, rewards)| {
                        let width = answer.items.len() + 1;
                        &rewards[number * width..(number + 1) * width]
                    })
                    .collect();
                judge(metric, &answers, &mine, &policy)
            })
            .collect(),
    })
}

/// All estimates by one metric.
fn judge(
    metric: &Metric,
    answers: &[Answer],
    rewards: &[&[f64]],
    policy: &Policy,
) -> OffPolicyMetric {
    let of = |rewards: &[f64]| {
        let sum: f64 = rewards.iter().sum();
        if metric.kind == MetricType::Proportion {
            f64::from(u8::from(sum != 0.0))
        } else {
            metric.cap.map_or(sum, |cap| sum.min(cap))
        }
    };
    let rows: Vec<Row> = answers
        .iter()
        .zip(rewards)
        .map(|(answer, rewards)| Row {
            logged: answer.logged.iter().product(),
            target: answer.target.iter().map(|t| t.probability).product(),
            reward: of(rewards),
            predicted: answer.target.iter().map(|t| t.predicted[0]).sum(),
            predicted_target: answer.target.iter().map(|t| t.predicted[1]).sum(),
            user: answer.unit,
        })
        .collect();
    let mut result = OffPolicyMetric {
        metric: metric.name.clone(),
        logged: (!rows.is_empty())
            .then(|| rows.iter().map(|row| row.reward).sum::<f64>() / length(rows.len())),
        diagnostics: diagnose(&rows).ok(),
        values: Vec::new(),
        refused: None,
    };
    // Ionides (2008): cut at √n, weights cost no more bias than they save in variance.
    let most = length(rows.len()).sqrt();
    let mut methods = vec![
        ("IPS", Method::Ips),
        ("clipped IPS", Method::Clipped(most)),
        ("SNIPS", Method::Snips),
    ];
    if policy.predicts {
        methods.extend([
            ("DM", Method::Direct),
            ("DR", Method::DoublyRobust),
            ("SNDR", Method::SelfNormalisedDoublyRobust),
            ("switch DR", Method::Switch(most)),
        ]);
        if let Ok(lambda) = shrinkage(&rows) {
            methods.push(("shrunk DR", Method::Shrunk(lambda)));
        }
    }
    for (estimator, method) in methods {
        match value(&rows, method, CONFIDENCE) {
            Ok(found) => result.values.push(OffPolicyValue {
                estimator,
                value: found.value.delta,
                se: found.value.se,
                interval: found.interval,
            }),
            Err(error) => {
                result.refused = Some(refusal(&rows, &error));
                return result;
            }
        }
    }
    // What an item earns does not depend on those below it, or on its place and itself alone: steadier for
    // lists.
    if answers.iter().any(|answer| answer.items.len() > 1)
        && metric.kind == MetricType::Mean
        && metric.cap.is_none()
        && rewards.iter().all(|r| r.last() == Some(&0.0))
    {
        let slates: Vec<Slate> = answers
            .iter()
            .zip(rewards)
            .map(|(answer, rewards)| Slate {
                rewards: rewards[..answer.items.len()].to_vec(),
                logged: answer.logged.clone(),
                target: answer.target.iter().map(|t| t.probability).collect(),
                logged_marginal: answer.target.iter().map(|t| t.at_place[0]).collect(),
                target_marginal: answer.target.iter().map(|t| t.at_place[1]).collect(),
            })
            .collect();
        let users: Vec<u64> = answers.iter().map(|answer| answer.unit).collect();
        let mut methods = vec![("cascade", SlateMethod::Cascade)];
        if policy.places {
            methods.push(("item-position", SlateMethod::Independent));
        }
        for (estimator, method) in methods {
            if let Ok((effect, interval)) = slate_value_by_user(&slates, &users, method, CONFIDENCE)
            {
                result.values.push(OffPolicyValue {
                    estimator,
                    value: effect.delta,
                    se: effect.se,
                    interval,
                });
            }
        }
    }
    result
}

fn refusal(rows: &[Row], error: &MethodError) -> String {
    if rows.is_empty() {
        return "no answer that the target names has items with probabilities: the log was not \
                randomised, and nothing can be said about another policy"
            .to_owned();
    }
    error.to_string()
}

impl Policy {
    fn read(path: &Path) -> Result<Self, LogError> {
        let file = LogFile::open(path.to_owned(), TARGET, &[])?;
        let mut policy = Self {
            items: FxHashMap::default(),
            exposures: FxHashSet::default(),
            predicts: file.has_column("predicted") && file.has_column("predicted_target"),
            places: PLACES.iter().all(|name| file.has_column(name)),
        };
        for group in 0..file.row_groups() {
            let wanted = |name: &str| TARGET.iter().any(|needed| needed.name == name);
            batches(&file, group, wanted, None, &mut |batch, row| {
                let place = Place {
                    file: &file,
                    group,
                    row,
                };
                let columns = Columns(batch);
                let exposures = place.column(Ok(columns.bytes("exposure_id")), "exposure_id")?;
                let items = place.column(columns.text("item"), "item")?;
                let chances = place.column(columns.numbers("probability"), "probability")?;
                let predictions = if policy.predicts {
                    Some([
                        place.column(columns.numbers("predicted"), "predicted")?,
                        place.column(columns.numbers("predicted_target"), "predicted_target")?,
                    ])
                } else {
                    None
                };
                let places = if policy.places {
                    Some([
                        place.column(columns.numbers(PLACES[0]), PLACES[0])?,
                        place.column(columns.numbers(PLACES[1]), PLACES[1])?,
                    ])
                } else {
                    None
                };
                for row in 0..batch.num_rows() {
                    let exposure = bytes_at(&exposures, row)
                        .ok_or_else(|| place.value(row, "exposure_id", "is null".to_owned()))?;
                    if items.is_null(row) {
                        return Err(place.value(row, "item", "is null".to_owned()));
                    }
                    let probability = chances.value(row);
                    if chances.is_null(row) || !(0.0..=1.0).contains(&probability) {
                        let problem = format!("is {probability}, not a number from 0 to 1");
                        return Err(place.value(row, "probability", problem));
                    }
                    let mut predicted = [0.0_f64; 2];
                    for (into, column) in predicted.iter_mut().zip(predictions.iter().flatten()) {
                        *into = column.value(row);
                        if column.is_null(row) || !into.is_finite() {
                            let problem = "is not a finite number".to_owned();
                            return Err(place.value(row, "predicted", problem));
                        }
                    }
                    let mut at_place = [1.0_f64; 2];
                    for (at, column) in places.iter().flatten().enumerate() {
                        let chance = column.value(row);
                        let logged = at == 0;
                        if column.is_null(row)
                            || !(0.0..=1.0).contains(&chance)
                            || (logged && chance == 0.0)
                        {
                            let above = if logged {
                                "above 0 and at most"
                            } else {
                                "from 0 to"
                            };
                            let problem = format!("is {chance}, not a number {above} 1");
                            return Err(place.value(row, PLACES[at], problem));
                        }
                        at_place[at] = chance;
                    }
                    let (exposure, item) =
                        (id_hash(exposure), id_hash(items.value(row).as_bytes()));
                    policy.exposures.insert(exposure);
                    let target = Target {
                        probability,
                        predicted,
                        at_place,
                    };
                    if policy.items.insert((exposure, item), target).is_some() {
                        let problem =
                            format!("`{}` of its exposure is there twice", items.value(row));
                        return Err(place.value(row, "item", problem));
                    }
                }
                Ok(())
            })?;
        }
        Ok(policy)
    }
}

/// The answers of a row group that the target names: `None` for one whose items were not drawn.
fn answers(
    plan: &Plan,
    options: &ReadOptions,
    policy: &Policy,
    file: &LogFile,
    group: usize,
) -> Result<Vec<Option<Answer>>, LogError> {
    let mut found = Vec::new();
    let wanted = |name: &str| {
        BELONGS.contains(&name) || matches!(name, "ts" | "exposure_id" | "unit_id" | ITEMS)
    };
    batches(file, group, wanted, None, &mut |batch, row| {
        let place = Place { file, group, row };
        let belongs = Belongs::new(plan, &place, batch)?;
        let columns = Columns(batch);
        let ids = place.column(Ok(columns.bytes("exposure_id")), "exposure_id")?;
        let times = place.column(columns.times("ts"), "ts")?;
        let units = place.column(columns.text("unit_id"), "unit_id")?;
        let items = place.column(Items::of(batch), ITEMS)?;
        for row in 0..batch.num_rows() {
            let Some(exposure) = bytes_at(&ids, row).map(id_hash) else {
                continue;
            };
            if !policy.exposures.contains(&exposure)
                || belongs.arm(row).is_none()
                || options.until_us.is_some_and(|us| times.value(row) >= us)
            {
                continue;
            }
            let mut answer = Answer {
                exposure,
                unit: unit_hash(units.value(row))[0],
                items: Vec::new(),
                logged: Vec::new(),
                target: Vec::new(),
            };
            for shown in items.row(row) {
                let (Some(item), Some(logged)) = (shown.item, shown.propensity) else {
                    continue;
                };
                if !(logged > 0.0 && logged <= 1.0) {
                    let problem = format!("has the propensity {logged}, not above 0 and at most 1");
                    return Err(place.value(row, ITEMS, problem));
                }
                let hash = id_hash(item.as_bytes());
                let target = policy.items.get(&(exposure, hash)).ok_or_else(|| {
                    let problem =
                        format!("has the drawn item `{item}`, which the target does not name");
                    place.value(row, ITEMS, problem)
                })?;
                answer.items.push(hash);
                answer.logged.push(logged);
                answer.target.push(*target);
            }
            found.push((!answer.items.is_empty()).then_some(answer));
        }
        Ok(())
    })?;
    Ok(found)
}

/// An outcome that names one of the answers.
struct Reward {
    answer: usize,
    metric: usize,
    item: Option<u64>,
    value: f64,
    outcome: u64,
}

fn rewards(
    options: &ReadOptions,
    events: &[&str],
    answers: &FxHashMap<u64, usize>,
    file: &LogFile,
    group: usize,
) -> Result<Vec<Reward>, LogError> {
    let mut found = Vec::new();
    let wanted = |name: &str| {
        matches!(
            name,
            "ts" | "event" | "value" | "exposure_id" | "item" | "outcome_id"
        )
    };
    batches(file, group, wanted, None, &mut |batch, row| {
        let place = Place { file, group, row };
        let columns = Columns(batch);
        let names = place.column(columns.words("event"), "event")?;
        let times = place.column(columns.times("ts"), "ts")?;
        let values = place.column(columns.numbers("value"), "value")?;
        let exposures = place.column(Ok(columns.bytes("exposure_id")), "exposure_id")?;
        let items = columns.text("item");
        let items = place.column(items.map(Some), "item")?;
        let ids = columns.bytes("outcome_id");
        for row in 0..batch.num_rows() {
            let Some(&answer) = bytes_at(&exposures, row)
                .map(id_hash)
                .and_then(|exposure| answers.get(&exposure))
            else {
                continue;
            };
            if options.until_us.is_some_and(|us| times.value(row) >= us) {
                continue;
            }
            let name = word(&names, row).unwrap_or_default();
            let value = values.value(row);
            for (metric, _) in events
                .iter()
                .enumerate()
                .filter(|(_, event)| **event == name)
            {
                if values.is_null(row) || !value.is_finite() {
                    if options.drop_bad_values {
                        continue;
                    }
                    return Err(place.value(row, "value", format!("is {value}")));
                }
                found.push(Reward {
                    answer,
                    metric,
                    item: items
                        .as_ref()
                        .filter(|items| items.is_valid(row))
                        .map(|items| id_hash(items.value(row).as_bytes())),
                    value,
                    outcome: ids
                        .as_ref()
                        .and_then(|ids| bytes_at(ids, row))
                        .map_or(0, id_hash),
                });
            }
        }
        Ok(())
    })?;
    Ok(found)
}
