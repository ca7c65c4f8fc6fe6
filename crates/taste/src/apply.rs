//! What one write does to the records of a listener, whichever store keeps them.
//!
//! A store says how its records are read and changed ([`Records`]); this module says what a write means:
//! what is a retry and what a conflict, what a full profile gives up, how revisions grow.

use std::collections::{HashMap, HashSet};

use crate::codec::UserRecord;
use crate::event::{Event, EventKind};
use crate::rule::{Rule, Scope};
use crate::store::{Erased, MAX_RULES_PER_USER, Receipt, StoreError, Write};

/// The records of a store within one transaction.
pub(crate) trait Records {
    /// Why a record cannot be read or changed.
    type Error: From<StoreError>;

    /// The user record; the default one, of revision 0, where there is none.
    fn user(&mut self, user: &str) -> Result<UserRecord, Self::Error>;
    fn put_user(&mut self, user: &str, record: &UserRecord) -> Result<(), Self::Error>;
    /// Those of the events that are stored, by id.
    fn events_of(
        &mut self,
        user: &str,
        events: &[Event],
    ) -> Result<HashMap<String, Event>, Self::Error>;
    fn all_events(&mut self, user: &str, expected: u32) -> Result<Vec<Event>, Self::Error>;
    /// Stores `fresh` and removes `gone`; an event may be in both.
    fn change_events(
        &mut self,
        user: &str,
        fresh: &[&Event],
        gone: &[String],
    ) -> Result<(), Self::Error>;
    fn rule(&mut self, user: &str, rule_id: &str) -> Result<Option<Rule>, Self::Error>;
    fn all_rules(&mut self, user: &str, expected: u32) -> Result<Vec<Rule>, Self::Error>;
    fn put_rule(&mut self, user: &str, rule: &Rule) -> Result<(), Self::Error>;
    /// Whether there was one.
    fn remove_rule(&mut self, user: &str, rule_id: &str) -> Result<bool, Self::Error>;
    /// Removes every record of the listener, readable or not.
    fn remove_all(&mut self, user: &str) -> Result<(), Self::Error>;
    /// The largest revision that an erased profile had.
    fn floor(&mut self) -> Result<u64, Self::Error>;
    fn raise_floor(&mut self, to: u64) -> Result<(), Self::Error>;
}

/// Applies a validated write. Everything that can refuse it is checked before the first change, so
/// after a refusal the transaction can go on; after a failure of the storage it cannot.
pub(crate) fn apply<R: Records>(
    records: &mut R,
    write: &Write,
    max_events: u32,
) -> Result<Receipt, R::Error> {
    match write {
        Write::Append { user, events } => append(records, user, events, max_events),
        Write::CreateRule { user, rule } => create_rule(records, user, rule),
        Write::DeleteRule {
            user,
            rule_id,
            allow_missing,
        } => delete_rule(records, user, rule_id, *allow_missing),
        Write::Erase { user } => erase(records, user),
    }
}

/// Adds events, of which any number may be there already.
pub(crate) fn append<R: Records>(
    records: &mut R,
    user: &str,
    events: &[Event],
    max_events: u32,
) -> Result<Receipt, R::Error> {
    let mut record = records.user(user)?;
    let stored = records.events_of(user, events)?;
    let mut fresh: HashMap<&str, &Event> = HashMap::with_capacity(events.len());
    let mut duplicates = 0;
    for (position, event) in events.iter().enumerate() {
        let id = event.event_id.as_str();
        match fresh.get(id).copied().or_else(|| stored.get(id)) {
            None => drop(fresh.insert(id, event)),
            Some(known) if known == event => duplicates += 1,
            Some(_) => {
                let event_id = id.to_owned();
                return Err(StoreError::EventConflict { event_id, position }.into());
            }
        }
    }
    if fresh.is_empty() {
        return Ok(Receipt {
            revision: record.revision,
            duplicates,
            ..Receipt::default()
        });
    }
    let appended = u32::try_from(fresh.len()).unwrap_or(u32::MAX);
    let total = record.events.saturating_add(appended);
    // In one order whatever the hash: stores write them so, and page layouts repeat.
    let mut fresh: Vec<&Event> = fresh.into_values().collect();
    fresh.sort_unstable_by(|a, b| a.event_id.cmp(&b.event_id));
    let gone = match total > max_events {
        true => {
            let mut all = records.all_events(user, record.events)?;
            all.extend(fresh.iter().map(|&event| event.clone()));
            let rules = records.all_rules(user, record.rules)?;
            first_to_go(all, &rules, total - kept_when_full(max_events))
        }
        false => Vec::new(),
    };
    records.change_events(user, &fresh, &gone)?;
    let dropped = u32::try_from(gone.len()).unwrap_or(u32::MAX);
    record.events = total - dropped;
    record.dropped += u64::from(dropped);
    let revision = advance(records, user, record)?;
    Ok(Receipt {
        revision,
        appended,
        duplicates,
        dropped,
        ..Receipt::default()
    })
}

fn create_rule<R: Records>(records: &mut R, user: &str, rule: &Rule) -> Result<Receipt, R::Error> {
    let mut record = records.user(user)?;
    if let Some(stored) = records.rule(user, &rule.rule_id)? {
        if !stored.same_content(rule) {
            let rule_id = rule.rule_id.clone();
            return Err(StoreError::RuleConflict { rule_id }.into());
        }
        return Ok(Receipt {
            revision: record.revision,
            rule: Some(stored),
            ..Receipt::default()
        });
    }
    if record.rules >= MAX_RULES_PER_USER {
        let limit = MAX_RULES_PER_USER;
        return Err(StoreError::TooManyRules { limit }.into());
    }
    records.put_rule(user, rule)?;
    record.rules += 1;
    let revision = advance(records, user, record)?;
    Ok(Receipt {
        revision,
        rule: Some(rule.clone()),
        ..Receipt::default()
    })
}

fn delete_rule<R: Records>(
    records: &mut R,
    user: &str,
    rule_id: &str,
    allow_missing: bool,
) -> Result<Receipt, R::Error> {
    let mut record = records.user(user)?;
    let revision = match (records.remove_rule(user, rule_id)?, allow_missing) {
        (true, _) => {
            record.rules = record.rules.saturating_sub(1);
            advance(records, user, record)?
        }
        (false, true) => record.revision,
        (false, false) => {
            let rule_id = rule_id.to_owned();
            return Err(StoreError::NoSuchRule { rule_id }.into());
        }
    };
    Ok(Receipt {
        revision,
        ..Receipt::default()
    })
}

/// Removes all there is of a listener. What remains is one number of the whole store, so that a profile
/// begun anew never has a revision that the erased one had: nothing that was kept for that one is taken
/// for it, and who has seen a revision never reads a smaller one.
fn erase<R: Records>(records: &mut R, user: &str) -> Result<Receipt, R::Error> {
    let record = records.user(user)?;
    if record.revision > 0 {
        records.remove_all(user)?;
        let floor = records.floor()?;
        records.raise_floor(floor.max(record.revision))?;
    }
    Ok(Receipt {
        erased: Some(Erased {
            revision: record.revision,
            events: record.events,
            rules: record.rules,
        }),
        ..Receipt::default()
    })
}

/// Stores a changed listener under the next revision.
fn advance<R: Records>(
    records: &mut R,
    user: &str,
    mut record: UserRecord,
) -> Result<u64, R::Error> {
    if record.revision == 0 {
        record.revision = records.floor()?;
    }
    record.revision += 1;
    records.put_user(user, &record)?;
    Ok(record.revision)
}

/// How many events a profile keeps when it has to drop some.
fn kept_when_full(max_events: u32) -> u32 {
    max_events - max_events / 16
}

/// Ids of the `count` events that a full profile gives up first.
fn first_to_go(mut all: Vec<Event>, rules: &[Rule], count: u32) -> Vec<String> {
    let witnesses = Witnesses::of(rules);
    // At one time an unlike goes after the like it may cancel, so that no like comes back.
    all.sort_unstable_by(|a, b| {
        let key = |event: &Event| {
            (
                witnesses.has(event),
                event.kind.is_explicit(),
                event.time_us,
                event.kind == EventKind::Unlike,
            )
        };
        key(a)
            .cmp(&key(b))
            .then_with(|| a.event_id.cmp(&b.event_id))
    });
    all.truncate(count as usize);
    all.into_iter().map(|event| event.event_id).collect()
}

/// Events by which rules of effect SERVE know what they forbid: without its event, an item heard in a
/// context, session or window that must not be shown could be shown again.
#[derive(Default)]
pub(crate) struct Witnesses<'a> {
    contexts: HashSet<&'a str>,
    sessions: HashSet<&'a str>,
    windows: Vec<(Option<i64>, Option<i64>)>,
}

impl<'a> Witnesses<'a> {
    pub(crate) fn of(rules: &'a [Rule]) -> Self {
        let mut witnesses = Self::default();
        for rule in rules.iter().filter(|rule| rule.effect.serves()) {
            match &rule.scope {
                Scope::Context(context) => drop(witnesses.contexts.insert(context)),
                Scope::Session(session) => drop(witnesses.sessions.insert(session)),
                Scope::Window { start_us, end_us } => witnesses.windows.push((*start_us, *end_us)),
                Scope::Item(_) | Scope::Artist(_) | Scope::Tag(_) => {}
            }
        }
        witnesses
    }

    pub(crate) fn has(&self, event: &Event) -> bool {
        let named = |names: &HashSet<&str>, name: &Option<String>| {
            name.as_deref().is_some_and(|name| names.contains(name))
        };
        named(&self.contexts, &event.context)
            || named(&self.sessions, &event.session)
            || self.windows.iter().any(|&(start_us, end_us)| {
                start_us.is_none_or(|start| start <= event.time_us)
                    && end_us.is_none_or(|end| event.time_us < end)
            })
    }
}
