//! Exclusions: listens that listeners took out of their taste profiles do not train either.
//!
//! The algebra is the one that serves ([`refrain_taste::decide`]), so that what a rule covers, which
//! rule wins and how much it takes are the same offline as online.

use std::collections::BTreeMap;
use std::path::{Path, PathBuf};

use refrain_taste::{
    Action, Catalogue, Effect, Event, EventKind, Profile, Rule, Scope, Weights, decide,
};
use rustc_hash::FxHashMap;

use super::error::IngestError;
use super::fields;
use super::items::Items;
use super::log::{Listen, Log};
use super::options::{Field, ReadOptions};
use super::report::ReadReport;
use super::table::{self, ProgressFn, Refused, Sink};
use super::value::{self, MAX_ID_BYTES, Problem, Value};
use crate::Dictionary;

/// LEARN rules of users, by user id.
#[derive(Debug, Clone, Default, PartialEq)]
pub struct Exclusions {
    rules: BTreeMap<String, Vec<Rule>>,
    watermark_us: Option<i64>,
}

/// What exclusions did to a log.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct ExclusionReport {
    /// Rules applied.
    pub rules: u64,
    /// Users of rules that the log does not know.
    pub unknown_users: u64,
    /// Listens taken out entirely.
    pub listens_excluded: u64,
    /// Listens that count less.
    pub listens_weakened: u64,
}

impl ExclusionReport {
    /// Before any listen was looked at.
    pub(super) fn of(exclusions: &Exclusions, users: &Dictionary) -> Self {
        let unknown = |user: &&String| users.ordinal(user).is_none();
        Self {
            rules: exclusions.len() as u64,
            unknown_users: exclusions.rules.keys().filter(unknown).count() as u64,
            ..Self::default()
        }
    }

    /// What is left of a count of which the rules let this share pass; counts what happened.
    pub(super) fn weigh(&mut self, count: f32, share: f64) -> f32 {
        #[expect(clippy::cast_possible_truncation, reason = "counts are rounded to f32")]
        let scaled = (f64::from(count) * share) as f32;
        self.listens_excluded += u64::from(scaled == 0.0);
        self.listens_weakened += u64::from(scaled != 0.0 && share < 1.0);
        scaled
    }
}

/// The shares of a user's listens that their rules let pass. `names` are those of the listens.
pub(super) fn decide_rows(
    names: &Log,
    catalogue: &LogCatalogue<'_>,
    rules: &[Rule],
    listens: &[Listen],
) -> Vec<f64> {
    if rules.is_empty() {
        return vec![1.0; listens.len()];
    }
    let events = listens
        .iter()
        .enumerate()
        .map(|(at, listen)| names.event(at, listen))
        .collect();
    // `Profile::new` would sort the events; decisions come in the order of these.
    let profile = Profile {
        revision: 0,
        events,
        rules: rules.to_vec(),
    };
    // Rules from a file do not expire: any instant will do.
    let decisions = decide(&profile, 0, catalogue, &Weights::default());
    decisions.iter().map(|decision| decision.kept).collect()
}

/// Reads rules, one a row: user, scope (`item`, `context`, `session`, `artist`, `tag` or `window`),
/// value, and where they are given a strength from above 0 to 1 (1 by default), an action (`exclude` by
/// default, or `include`), when it was made (by default in the order of the rows) and the watermark. A
/// window's value is `START/END`, either of which may be empty. `refrain profile rules` writes such a file.
///
/// # Errors
/// [`IngestError`], as for listens.
pub fn read_exclusions(
    paths: &[PathBuf],
    options: &ReadOptions,
    progress: ProgressFn<'_>,
) -> Result<(Exclusions, ReadReport), IngestError> {
    let mut sink = RuleRows::default();
    let report = table::read(paths, fields::EXCLUSIONS, options, progress, &mut sink)?;
    Ok((sink.exclusions, report))
}

impl Exclusions {
    /// How many rules there are.
    pub fn len(&self) -> usize {
        self.rules.values().map(Vec::len).sum()
    }

    /// Up to when the rules are complete, in microseconds of Unix time, where the files say so: the earliest
    /// that any row names.
    pub fn watermark_us(&self) -> Option<i64> {
        self.watermark_us
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.rules.is_empty()
    }

    /// The rules of a user.
    pub fn of(&self, user: &str) -> &[Rule] {
        self.rules.get(user).map(Vec::as_slice).unwrap_or_default()
    }
}

impl Log {
    fn event(&self, at: usize, listen: &Listen) -> Event {
        let name = |ordinal: Option<u32>, names: &Dictionary| {
            ordinal
                .and_then(|ordinal| names.get(ordinal))
                .map(str::to_owned)
        };
        Event {
            // A listen without a time is in no bounded window.
            time_us: listen.time_us.unwrap_or(i64::MIN),
            event_id: at.to_string(),
            item: name(Some(listen.item), &self.items).unwrap_or_default(),
            kind: EventKind::Play,
            played_ms: None,
            context: name(listen.context, &self.contexts),
            session: name(listen.session, &self.sessions),
            count: 1,
        }
    }
}

/// What a log and its item attributes tell the algebra.
pub(super) struct LogCatalogue<'a> {
    ids: &'a Dictionary,
    items: &'a Items,
    of_artist: FxHashMap<&'a str, Vec<u32>>,
    with_tag: FxHashMap<&'a str, Vec<u32>>,
}

impl<'a> LogCatalogue<'a> {
    pub(super) fn new(ids: &'a Dictionary, items: &'a Items) -> Self {
        let mut catalogue = Self {
            ids,
            items,
            of_artist: FxHashMap::default(),
            with_tag: FxHashMap::default(),
        };
        for (ordinal, id) in (0u32..).zip(ids.iter()) {
            let Some(item) = items.get(id) else { continue };
            if !item.artist.is_empty() {
                catalogue
                    .of_artist
                    .entry(&item.artist)
                    .or_default()
                    .push(ordinal);
            }
            for tag in &item.tags {
                catalogue.with_tag.entry(tag).or_default().push(ordinal);
            }
        }
        catalogue
    }
}

impl Catalogue for LogCatalogue<'_> {
    fn items(&self) -> u32 {
        u32::try_from(self.ids.len()).unwrap_or(u32::MAX)
    }

    fn ordinal(&self, item: &str) -> Option<u32> {
        self.ids.ordinal(item)
    }

    fn artist_of(&self, ordinal: u32) -> Option<&str> {
        let item = self.items.get(self.ids.get(ordinal)?)?;
        Some(item.artist.as_str()).filter(|artist| !artist.is_empty())
    }

    fn for_each_tag(&self, ordinal: u32, f: &mut dyn FnMut(&str)) {
        let item = self.ids.get(ordinal).and_then(|id| self.items.get(id));
        item.into_iter()
            .flat_map(|item| &item.tags)
            .for_each(|tag| f(tag));
    }

    fn for_each_of_artist(&self, artist: &str, f: &mut dyn FnMut(u32)) {
        self.of_artist
            .get(artist)
            .into_iter()
            .flatten()
            .for_each(|&ordinal| f(ordinal));
    }

    fn for_each_with_tag(&self, tag: &str, f: &mut dyn FnMut(u32)) {
        self.with_tag
            .get(tag)
            .into_iter()
            .flatten()
            .for_each(|&ordinal| f(ordinal));
    }
}

#[derive(Default)]
struct RuleRows {
    exclusions: Exclusions,
    /// Rules read so far: their age, as the newer of two like rules wins.
    read: i64,
}

impl Sink for RuleRows {
    fn begin(&mut self, _: &Path, _: &[bool]) -> Result<(), IngestError> {
        Ok(())
    }

    fn row(&mut self, values: &[Value<'_>]) -> Result<(), Refused> {
        // In the order of `fields::EXCLUSIONS`.
        let &[user, scope, covered, strength, action, created, watermark] = values else {
            let expected = fields::EXCLUSIONS.len();
            return Err(Problem::Width {
                found: values.len(),
                expected,
            }
            .into());
        };
        let user = id(Field::User, user)?;
        let kind = id(Field::Scope, scope)?;
        let covered = id(Field::Value, covered)?;
        let scope = match kind.to_ascii_lowercase().as_str() {
            "item" => Scope::Item(covered.to_owned()),
            "context" => Scope::Context(covered.to_owned()),
            "session" => Scope::Session(covered.to_owned()),
            "artist" => Scope::Artist(covered.to_owned()),
            "tag" => Scope::Tag(covered.to_owned()),
            "window" => window(covered)?,
            _ => {
                return Err(Refused::Bad(Problem::NotOneOf {
                    field: Field::Scope,
                    value: value::excerpt(kind.as_bytes()),
                    allowed: "item, context, session, artist, tag, window",
                }));
            }
        };
        let strength = match strength {
            Value::Missing => 1.0,
            Value::Text(bytes) if bytes.trim_ascii().is_empty() => 1.0,
            given => value::number(Field::Strength, given, 1.0)?,
        };
        #[expect(clippy::cast_possible_truncation, reason = "0 to 1, rounded to f32")]
        let strength = strength as f32;
        let action = match text_or(Field::Action, action, "exclude")?
            .to_ascii_lowercase()
            .as_str()
        {
            "exclude" => Action::Exclude,
            "include" => Action::Include,
            other => {
                return Err(Refused::Bad(Problem::NotOneOf {
                    field: Field::Action,
                    value: value::excerpt(other.as_bytes()),
                    allowed: "exclude, include",
                }));
            }
        };
        // Rows that do not say come in their order, after all times that anybody could mean.
        let created = time_or(Field::Created, created)?.unwrap_or(i64::MAX / 2 + self.read);
        if let Some(watermark_us) = time_or(Field::Watermark, watermark)? {
            let earliest = self.exclusions.watermark_us.unwrap_or(watermark_us);
            self.exclusions.watermark_us = Some(earliest.min(watermark_us));
        }
        self.exclusions
            .rules
            .entry(user.to_owned())
            .or_default()
            .push(Rule {
                // Of one instant the later row wins: the greater id does, so it has all its digits.
                rule_id: format!("{:020}", self.read),
                scope,
                strength,
                effect: Effect::Learn,
                action,
                create_time_us: created,
                expire_time_us: None,
                note: String::new(),
            });
        self.read += 1;
        Ok(())
    }
}

fn id(field: Field, value: Value<'_>) -> Result<&str, Problem> {
    match value {
        Value::Text(bytes) => value::text(field, bytes, MAX_ID_BYTES),
        _ => Err(Problem::Empty(field)),
    }
}

fn text_or<'v>(field: Field, given: Value<'v>, default: &'v str) -> Result<&'v str, Problem> {
    match given {
        Value::Missing => Ok(default),
        Value::Text(bytes) if bytes.trim_ascii().is_empty() => Ok(default),
        given => id(field, given),
    }
}

fn time_or(field: Field, given: Value<'_>) -> Result<Option<i64>, Problem> {
    match given {
        Value::Missing => Ok(None),
        Value::Text(bytes) if bytes.trim_ascii().is_empty() => Ok(None),
        given => value::time_us(field, given).map(Some),
    }
}

fn window(text: &str) -> Result<Scope, Problem> {
    let wrong = || Problem::NotOneOf {
        field: Field::Value,
        value: value::excerpt(text.as_bytes()),
        allowed: "START/END with START before END, for instance 2026-01-05/2026-02-01",
    };
    let (start, end) = text.split_once('/').ok_or_else(wrong)?;
    let bound = |text: &str| match text.trim() {
        "" => Ok(None),
        time => value::time_us(Field::Value, Value::Text(time.as_bytes())).map(Some),
    };
    let (start_us, end_us) = (bound(start)?, bound(end)?);
    if let (Some(start_us), Some(end_us)) = (start_us, end_us)
        && start_us >= end_us
    {
        return Err(wrong());
    }
    Ok(Scope::Window { start_us, end_us })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::ingest::{Room, SortedLog, read_items, read_sorted};

    const LISTENS: &str = "user,track,ts,playlist,session\n\
        a,x,100,sleep,s1\na,y,200,sleep,s1\na,x,300,day,s2\nb,x,100,sleep,s3\n";

    fn read(listens: &str, rules: &str) -> Result<(SortedLog, ExclusionReport), IngestError> {
        let dir = tempfile::tempdir().unwrap();
        let write = |name: &str, text: &str| {
            let path = dir.path().join(name);
            fs_err::write(&path, text).unwrap();
            [path]
        };
        let options = ReadOptions::default();
        let room = Room {
            bytes: 1 << 20,
            dir: dir.path().to_owned(),
        };
        let listens = write("listens", listens);
        let mut log = read_sorted(&listens, &options, true, room.clone(), &|_, _| {})?;
        let items = "id,artist,tags\nx,Ann,calm|rain\ny,Bob,calm\n";
        let (items, _) = read_items(&write("items", items), &options, &|_, _| {})?;
        let (exclusions, _) = read_exclusions(&write("rules", rules), &options, &|_, _| {})?;
        let report = log.exclude(&exclusions, &items, &room).unwrap();
        Ok((log, report))
    }

    /// What is left, ascending by user and item.
    fn left(log: &SortedLog) -> Vec<Listen> {
        log.listens().unwrap().map(Result::unwrap).collect()
    }

    /// `user item count` of what is left.
    #[track_caller]
    fn check(rule: &str, expected: &[&str]) {
        let (log, _) = read(LISTENS, &format!("user,scope,value,strength\n{rule}\n")).unwrap();
        let left: Vec<String> = left(&log)
            .into_iter()
            .map(|listen| {
                let (user, item) = (log.users().get(listen.user), log.items().get(listen.item));
                format!("{} {} {}", user.unwrap(), item.unwrap(), listen.count)
            })
            .collect();
        assert_eq!(left, expected, "{rule}");
    }

    #[test]
    fn every_scope_takes_out_what_it_covers_of_one_user() {
        check("a,context,sleep,", &["a x 1", "b x 1"]);
        check("a,item,x,1", &["a y 1", "b x 1"]);
        check("a,session,s2,1", &["a x 1", "a y 1", "b x 1"]);
        check("a,artist,Ann,1", &["a y 1", "b x 1"]);
        check("a,tag,rain,1", &["a y 1", "b x 1"]);
        check("a,window,150/250,1", &["a x 1", "a x 1", "b x 1"]);
        check("a,window,/250,1", &["a x 1", "b x 1"]);
        check(
            "a,context,sleep,0.25",
            &["a x 0.75", "a x 1", "a y 0.75", "b x 1"],
        );
        check("c,context,sleep,1", &["a x 1", "a x 1", "a y 1", "b x 1"]);
    }

    #[test]
    fn an_excluded_log_trains_as_one_that_never_had_the_listens() {
        let rules = "user,scope,value\na,context,sleep\nc,item,x\n";
        let (log, report) = read(LISTENS, rules).unwrap();
        assert_eq!((report.rules, report.unknown_users), (2, 1));
        assert_eq!((report.listens_excluded, report.listens_weakened), (2, 0));
        let never = "user,track,ts,playlist,session\na,x,300,day,s2\nb,x,100,sleep,s3\n";
        let (never, _) = read(never, rules).unwrap();
        let told = |log: &SortedLog| -> Vec<_> {
            let of = |listen: Listen| {
                let ids = (log.users().get(listen.user), log.items().get(listen.item));
                (format!("{ids:?}"), listen.count, listen.time_us)
            };
            left(log).into_iter().map(of).collect()
        };
        assert_eq!(told(&log), told(&never));
    }

    #[test]
    fn carve_outs_and_the_newest_rule_win_as_they_do_online() {
        let rules = "user,scope,value,strength,action,created,watermark\n\
            a,context,sleep,1,exclude,2026-01-01T00:00:00Z,2026-02-01T00:00:00Z\n\
            a,item,x,1,include,2026-01-02T00:00:00Z,2026-02-01T00:00:00Z\n\
            b,item,x,1,exclude,2026-01-02T00:00:00Z,2026-02-02T00:00:00Z\n\
            b,item,x,0.5,exclude,2026-01-01T00:00:00Z,\n";
        let (log, report) = read(LISTENS, rules).unwrap();
        assert_eq!((report.listens_excluded, report.listens_weakened), (2, 0));
        let mut items: Vec<_> = left(&log).iter().map(|listen| listen.item).collect();
        items.dedup();
        assert_eq!(items, [log.items().ordinal("x").unwrap()]);
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("rules.csv");
        fs_err::write(&path, rules).unwrap();
        let (exclusions, _) =
            read_exclusions(&[path], &ReadOptions::default(), &|_, _| {}).unwrap();
        let first = "2026-02-01T00:00:00Z".parse::<jiff::Timestamp>().unwrap();
        assert_eq!(exclusions.watermark_us(), Some(first.as_microsecond()));
        assert!(log.has_exclusions());
        assert_eq!(
            log.into_names().excluded_until_us,
            exclusions.watermark_us()
        );
        let elsewhere = "user,scope,value,strength\nsomebody else,item,x,1\n";
        assert!(!read(LISTENS, elsewhere).unwrap().0.has_exclusions());
        let undated = "user,scope,value,strength\na,item,x,1\na,item,x,0.5\n";
        let (_, report) = read(LISTENS, undated).unwrap();
        assert_eq!(report.listens_weakened, 2, "the later row");
    }

    #[test]
    fn bad_rules_name_their_line() {
        let message = |rule: &str| {
            let rules = format!("user,scope,value,strength\na,item,x,1\n{rule}\n");
            read(LISTENS, &rules).err().unwrap().to_string()
        };
        for (rule, part) in [
            ("a,mood,x,1", "the scope 'mood' is not one of item, context"),
            ("a,item,x,1.5", "the strength 1.5 is larger than 1"),
            ("a,window,9/3,1", "START before END"),
            ("a,window,soon,1", "START/END"),
            ("a,item,,1", "the value is empty"),
        ] {
            let message = message(rule);
            assert!(
                message.contains(part) && message.contains(":3:"),
                "{message}"
            );
        }
    }
}
