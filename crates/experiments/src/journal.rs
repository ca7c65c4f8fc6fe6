//! The append-only record of everything that was done to experiments, and the ledger that follows
//! from it.
//!
//! One JSON object a line. Each carries the digest of the line before it, and ends with its own: the
//! SHA-256 of the object without that last field. So no line can be changed, taken out or put in
//! between without breaking the chain, and the ledger is the replay of the lines.

use jiff::Timestamp;
use serde::{Deserialize, Serialize};
use sha2::{Digest as _, Sha256};

use crate::ledger::{Ledger, LedgerError};

/// Longest line, in bytes.
const MAX_LINE: usize = 64 << 10;
/// Digest that the first line follows.
const GENESIS: &str = "0000000000000000000000000000000000000000000000000000000000000000";

/// One line, without its digest.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[non_exhaustive]
pub struct Entry {
    /// Position, from 1.
    pub seq: u64,
    /// When it was done; never before the entry above it.
    #[serde(with = "instant")]
    pub time: Timestamp,
    /// Who did it.
    pub by: String,
    /// Why.
    pub reason: String,
    /// Digest of the configuration that was in force for it.
    pub config_digest: String,
    /// What was done.
    #[serde(flatten)]
    pub action: Action,
    /// Digest of the line above; 64 zeros for the first.
    pub prev: String,
}

/// What can be done to an experiment.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
#[serde(tag = "action", rename_all = "snake_case")]
#[non_exhaustive]
pub enum Action {
    /// It gets its first share.
    Allocate {
        /// The experiment.
        experiment: String,
        /// Its epoch.
        epoch: u32,
        /// Digest of its arms.
        arms_digest: String,
        /// Its layer.
        layer: String,
        /// The layer's epoch.
        layer_epoch: u32,
        /// The share, in basis points.
        bp: u32,
        /// Seed of the draw.
        seed: String,
        /// What was agreed to go without, such as `underpowered`.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        waived: Vec<String>,
    },
    /// Its share changes.
    Ramp {
        /// The experiment.
        experiment: String,
        /// Share before.
        from_bp: u32,
        /// Share after.
        to_bp: u32,
        /// Seed of the draw, when it grows.
        seed: String,
    },
    /// The server takes units away because a guardrail broke.
    StepBack {
        /// The experiment.
        experiment: String,
        /// Share before.
        from_bp: u32,
        /// Share after.
        to_bp: u32,
        /// The guardrail.
        guardrail: String,
        /// Version that served then.
        version: String,
    },
    /// Arms or weights changed: its units are dealt anew.
    Epoch {
        /// The experiment.
        experiment: String,
        /// The new epoch.
        epoch: u32,
        /// Digest of the new arms.
        arms_digest: String,
        /// What was agreed to go without.
        #[serde(default, skip_serializing_if = "Vec::is_empty")]
        waived: Vec<String>,
    },
    /// It ends; its buckets rest.
    Stop {
        /// The experiment.
        experiment: String,
        /// Until when they rest.
        #[serde(
            default,
            skip_serializing_if = "Option::is_none",
            with = "instant::optional"
        )]
        cooldown_until: Option<Timestamp>,
    },
}

impl Action {
    /// The experiment that it concerns.
    #[must_use]
    pub fn experiment(&self) -> &str {
        match self {
            Self::Allocate { experiment, .. }
            | Self::Ramp { experiment, .. }
            | Self::StepBack { experiment, .. }
            | Self::Epoch { experiment, .. }
            | Self::Stop { experiment, .. } => experiment,
        }
    }

    fn apply(&self, ledger: &mut Ledger, now: Timestamp) -> Result<(), LedgerError> {
        match self {
            Self::Allocate {
                experiment,
                epoch,
                arms_digest,
                layer,
                layer_epoch,
                bp,
                seed,
                ..
            } => ledger.allocate(
                layer,
                *layer_epoch,
                experiment,
                *epoch,
                arms_digest,
                *bp,
                seed,
                now,
            ),
            Self::Ramp {
                experiment,
                to_bp,
                seed,
                ..
            } => ledger.ramp(experiment, *to_bp, seed, now, false),
            Self::StepBack {
                experiment, to_bp, ..
            } => ledger.ramp(experiment, *to_bp, "", now, true),
            Self::Epoch {
                experiment,
                epoch,
                arms_digest,
                ..
            } => ledger.new_epoch(experiment, *epoch, arms_digest, now),
            Self::Stop {
                experiment,
                cooldown_until,
            } => ledger.stop(experiment, *cooldown_until),
        }
    }
}

/// A verified journal.
#[derive(Debug, Clone, PartialEq)]
pub struct Journal {
    entries: Vec<Entry>,
    digest: String,
    ledger: Ledger,
    whole_bytes: usize,
}

impl Default for Journal {
    fn default() -> Self {
        Self {
            entries: Vec::new(),
            digest: GENESIS.to_owned(),
            ledger: Ledger::default(),
            whole_bytes: 0,
        }
    }
}

/// How far a journal was read: all that a later reading needs to know whether it goes on from there.
/// The chain alone does not show that its end is missing, or that another chain stands in its place.
#[derive(Debug, Clone, PartialEq, Eq)]
pub struct Tip {
    lines: usize,
    digest: String,
}

impl Tip {
    /// Lines that were read.
    #[must_use]
    pub fn lines(&self) -> usize {
        self.lines
    }
}

/// What is wrong with a journal. Lines count from 1.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub enum JournalError {
    /// Not a line of a journal.
    #[error("line {line}: {problem}")]
    Malformed {
        /// The line.
        line: usize,
        /// What is wrong with it.
        problem: String,
    },
    /// The digest is not that of the line.
    #[error("line {line} was changed after it was written: its digest does not match")]
    Digest {
        /// The line.
        line: usize,
    },
    /// The line does not follow the one above it.
    #[error(
        "line {line} does not follow the line above it: a line was changed, removed or inserted"
    )]
    Chain {
        /// The line.
        line: usize,
    },
    /// Lines at the end are gone that were there when it was read before.
    #[error(
        "line {} is gone: it has {lines} lines and had {known} when it was read before", lines + 1
    )]
    Shorter {
        /// How many there are.
        lines: usize,
        /// How many there were.
        known: usize,
    },
    /// It is another journal than the one that was read before.
    #[error("line {line} is not the one that was read before: it, or one above it, was replaced")]
    Replaced {
        /// The last line that was read before.
        line: usize,
    },
    /// What the line says cannot have been done.
    #[error("line {line}: {source}")]
    Ledger {
        /// The line.
        line: usize,
        /// Why not.
        source: LedgerError,
    },
}

impl Journal {
    /// Reads and verifies a journal: O(lines). An unfinished last line (no end of line: its writer
    /// died) was never acknowledged and is left out; [`whole_bytes`](Self::whole_bytes) says where
    /// it begins.
    ///
    /// # Errors
    /// The first line that is not what was written, or cannot have been done.
    pub fn parse(text: &str) -> Result<Self, JournalError> {
        let mut journal = Self::default();
        let whole = text.rfind('\n').map_or(0, |end| end + 1);
        for (at, line) in text[..whole].lines().enumerate() {
            journal.read(at + 1, line)?;
        }
        journal.whole_bytes = whole;
        Ok(journal)
    }

    fn read(&mut self, line: usize, text: &str) -> Result<(), JournalError> {
        let malformed = |problem: String| JournalError::Malformed { line, problem };
        if text.len() > MAX_LINE {
            return Err(malformed(format!("longer than {MAX_LINE} bytes")));
        }
        let (body, digest) = text
            .strip_suffix("\"}")
            .and_then(|text| text.rsplit_once(",\"digest\":\""))
            .ok_or_else(|| malformed("does not end with a digest".to_owned()))?;
        let body = format!("{body}}}");
        if digest_of(&body) != digest {
            return Err(JournalError::Digest { line });
        }
        let entry: Entry =
            serde_json::from_str(&body).map_err(|error| malformed(error.to_string()))?;
        let follows = entry.prev == self.digest
            && entry.seq == line as u64
            && self
                .entries
                .last()
                .is_none_or(|last| last.time <= entry.time);
        if !follows {
            return Err(JournalError::Chain { line });
        }
        entry
            .action
            .apply(&mut self.ledger, entry.time)
            .map_err(|source| JournalError::Ledger { line, source })?;
        digest.clone_into(&mut self.digest);
        self.entries.push(entry);
        Ok(())
    }

    /// Does something, and gives the line to append, with its end. A clock that went back counts as
    /// standing still.
    ///
    /// # Errors
    /// It cannot be done; nothing has changed then.
    pub fn append(
        &mut self,
        action: Action,
        time: Timestamp,
        by: &str,
        reason: &str,
        config_digest: &str,
    ) -> Result<String, LedgerError> {
        let time = self.entries.last().map_or(time, |last| last.time.max(time));
        let mut ledger = self.ledger.clone();
        action.apply(&mut ledger, time)?;
        let entry = Entry {
            seq: self.entries.len() as u64 + 1,
            time,
            by: by.to_owned(),
            reason: reason.to_owned(),
            config_digest: config_digest.to_owned(),
            action,
            prev: self.digest.clone(),
        };
        let body = serde_json::to_string(&entry).unwrap_or_default();
        let digest = digest_of(&body);
        let open = body.strip_suffix('}').unwrap_or(&body);
        let line = format!("{open},\"digest\":\"{digest}\"}}\n");
        self.ledger = ledger;
        self.digest = digest;
        self.entries.push(entry);
        self.whole_bytes += line.len();
        Ok(line)
    }

    /// A seed for the next draw: it follows from all that went before.
    #[must_use]
    pub fn next_seed(&self, experiment: &str) -> String {
        let seed = digest_of(&format!("{}|{experiment}", self.digest));
        seed.get(..16).unwrap_or_default().to_owned()
    }

    /// The entries, oldest first.
    #[must_use]
    pub fn entries(&self) -> &[Entry] {
        &self.entries
    }

    /// Digest of the last line: it stands for the whole journal.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// How far it goes.
    #[must_use]
    pub fn tip(&self) -> Tip {
        Tip {
            lines: self.entries.len(),
            digest: self.digest.clone(),
        }
    }

    /// Checks that it goes on from where another reading ended. O(1).
    ///
    /// # Errors
    /// Lines are gone, or others stand in their place.
    pub fn extends(&self, tip: &Tip) -> Result<(), JournalError> {
        let lines = self.entries.len();
        if lines < tip.lines {
            return Err(JournalError::Shorter {
                lines,
                known: tip.lines,
            });
        }
        // Each line carries the digest of the one before it.
        let next = self.entries.get(tip.lines);
        if next.map_or(&self.digest, |next| &next.prev) == &tip.digest {
            Ok(())
        } else {
            Err(JournalError::Replaced { line: tip.lines })
        }
    }

    /// Who owns what after the last entry.
    #[must_use]
    pub fn ledger(&self) -> &Ledger {
        &self.ledger
    }

    /// Bytes of the text that are whole lines; what is behind them was never acknowledged.
    #[must_use]
    pub fn whole_bytes(&self) -> usize {
        self.whole_bytes
    }
}

/// Instants as RFC 3339.
mod instant {
    use jiff::Timestamp;
    use serde::{Deserialize as _, Deserializer, Serializer, de::Error as _};

    pub(super) fn serialize<S: Serializer>(time: &Timestamp, to: S) -> Result<S::Ok, S::Error> {
        to.collect_str(time)
    }

    pub(super) fn deserialize<'de, D: Deserializer<'de>>(from: D) -> Result<Timestamp, D::Error> {
        String::deserialize(from)?.parse().map_err(D::Error::custom)
    }

    pub(super) mod optional {
        use super::{Deserializer, Serializer, Timestamp};

        #[expect(clippy::ref_option, reason = "the form that serde calls")]
        pub(in super::super) fn serialize<S: Serializer>(
            time: &Option<Timestamp>,
            to: S,
        ) -> Result<S::Ok, S::Error> {
            match time {
                Some(time) => super::serialize(time, to),
                None => to.serialize_none(),
            }
        }

        pub(in super::super) fn deserialize<'de, D: Deserializer<'de>>(
            from: D,
        ) -> Result<Option<Timestamp>, D::Error> {
            super::deserialize(from).map(Some)
        }
    }
}

/// SHA-256 of a text, 64 hexadecimal digits.
#[must_use]
pub fn digest_of(text: &str) -> String {
    hex(&Sha256::digest(text.as_bytes()))
}

pub(crate) fn hex(bytes: &[u8]) -> String {
    use std::fmt::Write as _;
    bytes.iter().fold(String::new(), |mut hex, byte| {
        let _ = write!(hex, "{byte:02x}"); // to a string: cannot fail
        hex
    })
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn at(second: i64) -> Timestamp {
        Timestamp::from_second(1_700_000_000 + second).expect("in range")
    }

    fn sample() -> (Journal, String) {
        let mut journal = Journal::default();
        let mut text = String::new();
        let actions = [
            Action::Allocate {
                experiment: "a".into(),
                epoch: 1,
                arms_digest: "x".into(),
                layer: "ranking".into(),
                layer_epoch: 1,
                bp: 3_000,
                seed: "s".into(),
                waived: Vec::new(),
            },
            Action::Ramp {
                experiment: "a".into(),
                from_bp: 3_000,
                to_bp: 5_000,
                seed: "t".into(),
            },
            Action::StepBack {
                experiment: "a".into(),
                from_bp: 5_000,
                to_bp: 100,
                guardrail: "error_rate {\"}".into(),
                version: "v".into(),
            },
            Action::Stop {
                experiment: "a".into(),
                cooldown_until: Some(at(900)),
            },
        ];
        for (second, action) in (0..).zip(actions) {
            let line = journal.append(action, at(second), "anna", "a \"reason\"\n}}", "d");
            text += &line.expect("can be done");
        }
        (journal, text)
    }

    #[test]
    fn what_was_written_is_read() {
        let (journal, text) = sample();
        assert_eq!(Journal::parse(&text).expect("verifies"), journal);
        assert_eq!(journal.ledger().cooling_bp("ranking", at(0)), 100);
        let torn = format!("{text}{{\"seq\":5");
        let read = Journal::parse(&torn).expect("verifies");
        assert_eq!(read, journal);
        assert_eq!(read.whole_bytes(), text.len());
    }

    #[test]
    fn refusals_name_the_line() {
        let (_, text) = sample();
        let lines: Vec<&str> = text.lines().collect();
        let without = |gone: usize| -> String {
            let kept = lines.iter().enumerate().filter(|&(at, _)| at != gone);
            kept.map(|(_, line)| format!("{line}\n")).collect()
        };
        assert_eq!(
            Journal::parse(&without(1)),
            Err(JournalError::Chain { line: 2 })
        );
        assert_eq!(
            Journal::parse(&without(0)),
            Err(JournalError::Chain { line: 1 })
        );
        let edited = text.replacen("5000", "6000", 1);
        assert_eq!(
            Journal::parse(&edited),
            Err(JournalError::Digest { line: 2 })
        );
        let error = Journal::parse("nonsense\n").expect_err("is none");
        assert_eq!(error.to_string(), "line 1: does not end with a digest");
    }

    #[test]
    fn a_chain_goes_on_from_where_it_was_read() {
        let (journal, text) = sample();
        let cut = |lines: usize| -> Journal {
            let kept: String = text.split_inclusive('\n').take(lines).collect();
            Journal::parse(&kept)
                .expect("verifies: the chain does not show that its end is missing")
        };
        for lines in 0..=4 {
            assert_eq!(journal.extends(&cut(lines).tip()), Ok(()));
        }
        assert_eq!(
            cut(1).extends(&journal.tip()),
            Err(JournalError::Shorter { lines: 1, known: 4 })
        );
        let mut other = Journal::default();
        for (second, entry) in (0..).zip(journal.entries()) {
            let line = other.append(entry.action.clone(), at(second), "ben", "", "d");
            line.expect("can be done");
        }
        assert_eq!(
            other.extends(&cut(2).tip()),
            Err(JournalError::Replaced { line: 2 })
        );
        assert_eq!(
            other.extends(&journal.tip()),
            Err(JournalError::Replaced { line: 4 })
        );
    }

    #[test]
    fn what_cannot_be_done_is_not_written() {
        let (mut journal, _) = sample();
        let before = journal.clone();
        let ramp = Action::Ramp {
            experiment: "a".into(),
            from_bp: 0,
            to_bp: 1,
            seed: String::new(),
        };
        assert!(journal.append(ramp, at(9), "anna", "", "").is_err());
        assert_eq!(journal, before);
    }

    proptest! {
        /// Any change of any byte is found.
        #[test]
        fn an_edit_breaks_the_chain(at: prop::sample::Index, to in 32_u8..127) {
            let (journal, text) = sample();
            let mut bytes = text.into_bytes();
            let at = at.index(bytes.len());
            prop_assume!(bytes[at] != to);
            bytes[at] = to;
            let edited = String::from_utf8(bytes).expect("ASCII");
            // The last end of line gone leaves an unfinished line, which is left out.
            match Journal::parse(&edited) {
                Err(_) => {}
                Ok(read) => prop_assert!(read != journal && at + 1 == edited.len()),
            }
        }

        #[test]
        fn any_text_is_read_or_refused(text in ".{0,300}") {
            let _ = Journal::parse(&text);
        }
    }
}
