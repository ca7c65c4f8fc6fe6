//! Which listeners of the log the tour is about.
//!
//! The lead has heard something in a context that can be excluded. Where the log has contexts it is
//! one of theirs; else a stranger's taste is planted under the context `demo:sleep`, and the tour says
//! so. The choice depends on the log alone.

use refrain::v1 as pb;
use refrain_builder::generate::SLEEP_CONTEXT;
use refrain_builder::ingest::Log;
use refrain_builder::model::Model;

use super::road::Road;
use crate::failure::Failure;
use crate::listens::{self, ByUser};

/// Listeners of the log.
#[derive(Debug)]
pub(super) struct Cast {
    pub(super) lead: Lead,
    /// A quiet, a middling and a busy listener.
    pub(super) audience: Vec<Extra>,
}

/// The listener whose exclusion is shown.
#[derive(Debug)]
pub(super) struct Lead {
    pub(super) id: String,
    /// What they heard outside the context.
    pub(super) kept: Vec<pb::Event>,
    /// What they heard in it.
    pub(super) excluded: Vec<pb::Event>,
    pub(super) context: String,
    /// Whose taste was planted; none where the log has the context.
    pub(super) planted_from: Option<String>,
}

/// A listener who only asks.
#[derive(Debug)]
pub(super) struct Extra {
    pub(super) id: String,
    pub(super) events: Vec<pb::Event>,
}

/// Context of planted events.
const PLANTED: &str = "demo:sleep";
/// Most events of anybody on the tour.
const MAX_EVENTS: usize = 2_000;
/// Fewest events of a lead, in the context and outside.
const FEW: usize = 5;
/// Items planted.
const MAX_PLANTED: usize = 20;
/// Strangers looked at.
const STRANGERS: usize = 2_000;

/// Chooses.
pub(super) fn choose(road: &Road) -> anyhow::Result<Cast> {
    let by_user = ByUser::new(&road.log);
    let stage = Stage {
        log: &road.log,
        by_user: &by_user,
        now: jiff::Timestamp::now(),
    };
    let lead = stage
        .sleeper(&road.sleepers)
        .or_else(|| stage.in_context())
        .or_else(|| stage.planted(&road.model))
        .ok_or_else(|| {
            Failure::new("the log has no listener to show an exclusion with")
                .next("the tour needs two listeners with different items; `refrain train` does not")
                .error()
        })?;
    let audience = stage.audience(&lead.id);
    Ok(Cast { lead, audience })
}

struct Stage<'a> {
    log: &'a Log,
    by_user: &'a ByUser,
    /// When it happened, in a log without times: one instant for the whole tour.
    now: jiff::Timestamp,
}

impl Stage<'_> {
    /// The most active listener of the generated log's sleep playlist.
    fn sleeper(&self, sleepers: &[String]) -> Option<Lead> {
        let context = self.log.contexts.ordinal(SLEEP_CONTEXT)?;
        sleepers.iter().find_map(|id| {
            let user = self.log.users.ordinal(id)?;
            let (inside, outside) = self.sides(user, context);
            (inside >= FEW && outside >= FEW && inside + outside <= MAX_EVENTS)
                .then(|| self.lead(user, context))
        })
    }

    /// The listener with most events in one context that holds a tenth to two thirds of theirs.
    fn in_context(&self) -> Option<Lead> {
        self.log.context.as_ref()?;
        let mut best: Option<(usize, u32, u32)> = None;
        for (user, _) in (0_u32..).zip(self.log.users.iter()) {
            let rows = self.by_user.rows(user);
            if rows.len() < 2 * FEW || rows.len() > MAX_EVENTS {
                continue;
            }
            let mut contexts: Vec<u32> = rows
                .iter()
                .filter_map(|&row| listens::listen(self.log, row).context)
                .collect();
            contexts.sort_unstable();
            for run in contexts.chunk_by(|a, b| a == b) {
                let (inside, outside) = (run.len(), rows.len() - run.len());
                let fits = inside >= FEW && inside * 10 >= rows.len() && outside * 2 >= inside;
                if fits && best.is_none_or(|(most, ..)| inside > most) {
                    best = run.first().map(|&context| (inside, user, context));
                }
            }
        }
        best.map(|(_, user, context)| self.lead(user, context))
    }

    /// A listener with a middling number of items, and under [`PLANTED`] the favourites of the
    /// listener least like them.
    fn planted(&self, model: &Model) -> Option<Lead> {
        const MIDDLING: usize = 40;
        let users = || (0_u32..).zip(self.log.users.iter()).map(|(user, _)| user);
        let lead = users()
            .filter(|&user| (FEW..=MAX_EVENTS).contains(&self.by_user.rows(user).len()))
            .min_by_key(|&user| (self.by_user.rows(user).len().abs_diff(MIDDLING), user))?;
        let taste = self.vector(model, lead)?;
        let heard: Vec<u32> = self.items(lead);
        let step = self.log.users.len().div_ceil(STRANGERS).max(1);
        let stranger = users()
            .step_by(step)
            .filter(|&user| user != lead && self.items(user).len() >= FEW)
            .filter(|&user| self.items(user).iter().any(|item| !heard.contains(item)))
            .filter_map(|user| Some((cosine(taste, self.vector(model, user)?), user)))
            .min_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)))?
            .1;

        let mut kept = self.events(self.by_user.rows(lead));
        let mut counts: Vec<u32> = kept.iter().map(|event| event.count.unwrap_or(1)).collect();
        counts.sort_unstable();
        let typical = counts.get(counts.len() / 2).copied();
        let mut favourites: Vec<u32> = self.by_user.rows(stranger).to_vec();
        favourites.retain(|&row| !heard.contains(&self.log.item[row as usize]));
        favourites.sort_by(|&a, &b| {
            let count = |row: u32| self.log.count[row as usize];
            count(b).total_cmp(&count(a)).then(a.cmp(&b))
        });
        let mut excluded: Vec<pb::Event> = Vec::new();
        for mut event in self.events(&favourites) {
            if excluded.len() < MAX_PLANTED
                && !excluded.iter().any(|known| known.item_id == event.item_id)
            {
                PLANTED.clone_into(&mut event.context);
                event.session_id.clear();
                event.count = typical;
                event.event_id = format!("demo-planted-{}", excluded.len());
                excluded.push(event);
            }
        }
        for event in &mut kept {
            event.context.clear();
        }
        Some(Lead {
            id: self.id(lead),
            kept,
            excluded,
            context: PLANTED.to_owned(),
            planted_from: Some(self.id(stranger)),
        })
    }

    /// Listeners at three places of the order by activity.
    fn audience(&self, lead: &str) -> Vec<Extra> {
        let mut users: Vec<u32> = (0_u32..)
            .zip(self.log.users.iter())
            .filter(|(user, id)| {
                *id != lead && (FEW..=MAX_EVENTS).contains(&self.by_user.rows(*user).len())
            })
            .map(|(user, _)| user)
            .collect();
        users.sort_by_key(|&user| (self.by_user.rows(user).len(), user));
        let mut chosen: Vec<u32> = [30, 60, 90]
            .iter()
            .filter_map(|percent| users.get(users.len() * percent / 100).copied())
            .collect();
        chosen.dedup();
        chosen
            .into_iter()
            .map(|user| Extra {
                id: self.id(user),
                events: self.events(self.by_user.rows(user)),
            })
            .collect()
    }

    fn lead(&self, user: u32, context: u32) -> Lead {
        let (excluded, kept): (Vec<u32>, Vec<u32>) = self
            .by_user
            .rows(user)
            .iter()
            .partition(|&&row| listens::listen(self.log, row).context == Some(context));
        Lead {
            id: self.id(user),
            kept: self.events(&kept),
            excluded: self.events(&excluded),
            context: self
                .log
                .contexts
                .get(context)
                .unwrap_or_default()
                .to_owned(),
            planted_from: None,
        }
    }

    /// Events inside and outside a context.
    fn sides(&self, user: u32, context: u32) -> (usize, usize) {
        let rows = self.by_user.rows(user);
        let inside = rows
            .iter()
            .filter(|&&row| listens::listen(self.log, row).context == Some(context))
            .count();
        (inside, rows.len() - inside)
    }

    /// Rows as events with ids of their own, so that a twin's are the same.
    fn events(&self, rows: &[u32]) -> Vec<pb::Event> {
        rows.iter()
            .map(|&row| pb::Event {
                event_id: format!("demo-{row}"),
                ..listens::event(self.log, row, self.now)
            })
            .collect()
    }

    fn items(&self, user: u32) -> Vec<u32> {
        self.by_user
            .rows(user)
            .iter()
            .map(|&row| self.log.item[row as usize])
            .collect()
    }

    fn id(&self, user: u32) -> String {
        self.log.users.get(user).unwrap_or_default().to_owned()
    }

    fn vector<'m>(&self, model: &'m Model, user: u32) -> Option<&'m [f32]> {
        let ordinal = model.users.ordinal(self.log.users.get(user)?)? as usize;
        let rank = model.info.rank;
        model.user_factors.get(ordinal * rank..(ordinal + 1) * rank)
    }
}

fn cosine(a: &[f32], b: &[f32]) -> f32 {
    let dot = |a: &[f32], b: &[f32]| a.iter().zip(b).map(|(x, y)| x * y).sum::<f32>();
    dot(a, b) / (dot(a, a) * dot(b, b)).sqrt().max(f32::MIN_POSITIVE)
}
