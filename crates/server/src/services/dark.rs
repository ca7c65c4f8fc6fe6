//! What is computed in the dark beside an answer: `[shadow] variant`, and the shadow experiments that
//! take the listener.

use std::sync::Arc;
use std::time::Duration;

use refrain_engine::{Deadline, Policy, Version};
use refrain_experiments::record::ShadowRecord;
use refrain_experiments::{bucket, hash64};

use super::State;
use super::recommendation::{Question, Ranker};
use crate::shadow::{Comparison, Job, NoList};

/// What was answered, as far as the dark is compared with it.
pub(super) struct Served<'a> {
    /// Best first, by ordinal.
    pub(super) items: Vec<u32>,
    pub(super) took: Duration,
    pub(super) exposure_id: &'a str,
    pub(super) variant: &'a str,
}

/// The shadow experiment that asks for a list.
struct Asker {
    experiment: String,
    epoch: u32,
    arm: String,
}

impl State {
    /// Leaves word that the question is to be answered in the dark as well, where it is. The answer
    /// has been made by then, and knows nothing of it.
    pub(super) fn shadow(
        self: &Arc<Self>,
        policy: &Arc<Policy>,
        question: &Arc<Question>,
        version: &Arc<Version>,
        served: &Served<'_>,
    ) {
        if let Some(name) = &self.dark.variant {
            let lot = bucket(hash64(format!("S:{}", question.seed()).as_bytes()), 10_000);
            if lot < self.dark.share_bp {
                self.shadow_one(policy, question, version, served, name, None);
            }
        }
        let Some(unit) = question.unit() else { return };
        let attributes = &question.request.context;
        let asked = policy
            .experiments()
            .shadows(question.surface(), unit, attributes);
        for shadow in asked {
            let asker = Asker {
                experiment: shadow.experiment.to_owned(),
                epoch: shadow.epoch,
                arm: shadow.arm.to_owned(),
            };
            self.shadow_one(
                policy,
                question,
                version,
                served,
                shadow.variant,
                Some(asker),
            );
        }
    }

    fn shadow_one(
        self: &Arc<Self>,
        policy: &Arc<Policy>,
        question: &Arc<Question>,
        version: &Arc<Version>,
        served: &Served<'_>,
        variant: &str,
        asker: Option<Asker>,
    ) {
        let Some(variant) = policy.variants().get(variant).cloned() else {
            return;
        };
        let row = asker.map(|asker| ShadowRecord {
            exposure_id: u128::from_str_radix(served.exposure_id, 16).unwrap_or(0),
            unit_id: question.unit().unwrap_or_default().to_owned(),
            request_id: Some(question.request.request_id.clone()).filter(|id| !id.is_empty()),
            surface: question.surface().to_owned(),
            experiment: asker.experiment,
            exp_epoch: asker.epoch,
            config_digest: super::exposure::bytes_of(policy.digest()),
            arm: asker.arm,
            ranking_variant: variant.name.clone(),
            served_variant: served.variant.to_owned(),
            index_version: version.id().to_owned(),
            k: u32::try_from(served.items.len()).unwrap_or(u32::MAX),
            served_latency_us: micros(served.took),
            ..ShadowRecord::default()
        });
        let log = self.logs.as_ref().map(|logs| Arc::clone(&logs.shadow));
        let log = log.zip(row);
        if let Err(dropped) = self.shadow.is_open() {
            if let Some((log, row)) = log {
                log.record(without_list(row, &dropped));
            }
            return;
        }
        let (state, question) = (Arc::clone(self), Arc::clone(question));
        let (answering, telling) = (Arc::clone(version), Arc::clone(version));
        let name = variant.name.clone();
        self.shadow.offer(Job {
            served: served.items.clone(),
            served_took: served.took,
            answer: Box::new(move |until| {
                let ranker = Ranker::One(&variant);
                let until = Deadline::giving_way(until);
                let answer = state.compute(&question, &answering, ranker, until, false);
                let answer = answer.map_err(|refusal| refusal.to_string())?;
                Ok(answer.items.iter().map(|item| item.ordinal).collect())
            }),
            done: Box::new(move |found| {
                match found {
                    Ok(comparison) => tracing::debug!(
                        variant = name,
                        overlap = comparison.overlap,
                        rank_biased_overlap = comparison.rank_biased_overlap,
                        served_us = comparison.served_took.as_micros(),
                        dark_us = comparison.dark_took.as_micros(),
                        "compared in the dark"
                    ),
                    Err(problem) => {
                        tracing::debug!(variant = name, %problem, "no list in the dark");
                    }
                }
                if let Some((log, row)) = log {
                    log.record(match found {
                        Ok(comparison) => compared(row, comparison, &telling),
                        Err(problem) => without_list(row, problem),
                    });
                }
            }),
        });
    }
}

/// The row of a comparison.
fn compared(row: ShadowRecord, comparison: &Comparison, version: &Version) -> ShadowRecord {
    let mut ids = String::new();
    for &ordinal in &comparison.dark {
        ids.push_str(version.items().id(ordinal).unwrap_or_default());
        // No id holds one.
        ids.push('\n');
    }
    ShadowRecord {
        ts_us: crate::clock::now_us(),
        overlap: Some(comparison.overlap),
        rbo: Some(comparison.rank_biased_overlap),
        latency_us: Some(micros(comparison.dark_took)),
        ids_hash: Some(hash64(ids.as_bytes())),
        ..row
    }
}

/// The row of a list that there is not, so that those that there are can be told to be some of all.
fn without_list(row: ShadowRecord, problem: &NoList) -> ShadowRecord {
    ShadowRecord {
        ts_us: crate::clock::now_us(),
        latency_us: match problem {
            NoList::Dropped(_) => None,
            NoList::Failed { took, .. } => Some(micros(*took)),
        },
        error: Some(problem.to_string()),
        ..row
    }
}

fn micros(took: Duration) -> u32 {
    u32::try_from(took.as_micros()).unwrap_or(u32::MAX)
}
