//! `FeedbackService`: outcomes are durable when they are answered, and count once.

use std::collections::{HashSet, VecDeque};
use std::sync::{Mutex, PoisonError};
use std::time::Duration;

use refrain::v1;
use refrain::v1::feedback_service_server::FeedbackService;
use refrain_experiments::hash128;
use refrain_experiments::record::Outcome;
use tonic::{Request, Response, Status};

use super::Handler;
use crate::limits::MAX_LABEL_BYTES;
use crate::refusal::{Precondition, Refusal, Unavailable};
use crate::validate::Check;

/// Most outcomes of one report.
const MAX_OUTCOMES: usize = 1_000;
/// Outcomes that are remembered to tell a repetition; older ones are told apart when they are read.
const REMEMBERED: usize = 1 << 18;
/// How a client is asked to come back when the log cannot be written.
const RETRY: Duration = Duration::from_secs(1);

#[tonic::async_trait]
impl FeedbackService for Handler {
    async fn report_outcomes(
        &self,
        request: Request<v1::ReportOutcomesRequest>,
    ) -> Result<Response<v1::ReportOutcomesResponse>, Status> {
        let Some(logs) = &self.0.logs else {
            return Err(Refusal::Precondition {
                reason: Precondition::NoLog,
                subject: "exposures.path".to_owned(),
                message: "this server keeps no log; set [exposures] path".to_owned(),
            }
            .into());
        };
        let outcomes = request.into_inner().outcomes;
        let now_us = crate::clock::now_us();
        let mut check = Check::default();
        if outcomes.is_empty() {
            check.complain("outcomes", "is empty");
        }
        let mut rows = Vec::new();
        if check.at_most("outcomes", outcomes.len(), MAX_OUTCOMES) {
            let checked = outcomes.into_iter().enumerate();
            rows = checked
                .map(|(at, outcome)| row(&mut check, at, outcome, now_us))
                .collect();
        }
        check.finish()?;

        let asked = rows.len();
        let mut within = HashSet::new();
        rows.retain(|row: &Outcome| {
            !self.0.reported.knows(row.outcome_id) && within.insert(row.outcome_id)
        });
        let accepted = rows.len();
        if accepted > 0 {
            let ids: Vec<u128> = rows.iter().map(|row| row.outcome_id).collect();
            let unavailable =
                |message: &str| Refusal::unavailable(Unavailable::OutcomeLog, message, RETRY);
            let wait = logs.outcomes.commit(rows);
            let wait = wait.ok_or_else(|| unavailable("the log of outcomes has too much to do"))?;
            match wait.await {
                // Remembered only now: what was not written may be reported again.
                Ok(Ok(())) => self.0.reported.remember(&ids),
                Ok(Err(error)) => {
                    tracing::warn!(error, "outcomes were refused");
                    return Err(unavailable("the log of outcomes cannot be written").into());
                }
                Err(_) => return Err(unavailable("the log of outcomes is closed").into()),
            }
        }
        let count = |n: usize| u32::try_from(n).unwrap_or(u32::MAX);
        Ok(Response::new(v1::ReportOutcomesResponse {
            accepted: count(accepted),
            duplicates: count(asked - accepted),
        }))
    }
}

fn row(check: &mut Check, at: usize, outcome: v1::Outcome, now_us: i64) -> Outcome {
    let place = |field: &str| format!("outcomes[{at}].{field}");
    check.optional_id(place("outcome_id"), &outcome.outcome_id);
    check.id(place("unit_id"), &outcome.unit_id);
    check.optional_id(place("request_id"), &outcome.request_id);
    check.optional_id(place("item_id"), &outcome.item_id);
    check.text(place("event"), &outcome.event, MAX_LABEL_BYTES);
    if outcome.event.is_empty() {
        check.complain(place("event"), "is empty");
    }
    check.text(place("source"), &outcome.source, MAX_LABEL_BYTES);
    if !outcome.value.is_finite() {
        check.complain(place("value"), "is not finite");
    }
    let exposure_id = match outcome.exposure_id.as_str() {
        "" => None,
        text => {
            let digits = text.len() == 32 && text.bytes().all(|b| b.is_ascii_hexdigit());
            let id = u128::from_str_radix(text, 16).ok().filter(|_| digits);
            if id.is_none() {
                check.complain(place("exposure_id"), "is not 32 hexadecimal digits");
            }
            id
        }
    };
    let time = outcome.event_time.as_ref();
    let given_us = time.map(|time| check.time(place("event_time"), time));
    let some = |text: String| (!text.is_empty()).then_some(text);
    let own = match outcome.outcome_id.as_str() {
        // Lengths stand before texts, so that no two contents read alike.
        "" => format!(
            "c{}:{}{:x}{}:{}{given_us:?}",
            outcome.request_id.len(),
            outcome.request_id,
            outcome.value.to_bits(),
            outcome.source.len(),
            outcome.source
        ),
        id => format!("i{}:{id}", id.len()),
    };
    let key = format!(
        "O:{own}|{}:{}{}:{}{}:{}{}",
        outcome.unit_id.len(),
        outcome.unit_id,
        outcome.event.len(),
        outcome.event,
        outcome.item_id.len(),
        outcome.item_id,
        outcome.exposure_id
    );
    Outcome {
        outcome_id: hash128(key.as_bytes()),
        ts_us: given_us.unwrap_or(now_us),
        unit_id: outcome.unit_id,
        request_id: some(outcome.request_id),
        exposure_id,
        event: outcome.event,
        item: some(outcome.item_id),
        value: outcome.value,
        source: some(outcome.source),
        seq: 0,
    }
}

/// The latest outcomes that were written.
#[derive(Debug, Default)]
pub(crate) struct Reported(Mutex<(HashSet<u128>, VecDeque<u128>)>);

impl Reported {
    fn knows(&self, id: u128) -> bool {
        let known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        known.0.contains(&id)
    }

    fn remember(&self, ids: &[u128]) {
        let mut known = self.0.lock().unwrap_or_else(PoisonError::into_inner);
        for &id in ids {
            if known.0.insert(id) {
                known.1.push_back(id);
            }
        }
        while known.1.len() > REMEMBERED {
            if let Some(oldest) = known.1.pop_front() {
                known.0.remove(&oldest);
            }
        }
    }
}
