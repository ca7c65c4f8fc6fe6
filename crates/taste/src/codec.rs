//! Stored records as bytes: the only place that knows their layout.
//!
//! Little-endian, a version byte first, then fixed fields, then what varies. A text is its length as
//! `u16` and its UTF-8 bytes. Ids that are part of a record's key are not repeated in its value. The
//! last four bytes are the CRC-32C of the id in the key and all before: redb verifies its pages only
//! after a crash, and a flipped bit in an item's name would otherwise go unnoticed.
//!
//! | record | after the version byte (1) |
//! |---|---|
//! | user | revision `u64`, events `u32`, rules `u32`, dropped `u64` |
//! | event | kind `u8`, present `u8` (bit 0 played_ms, 1 context, 2 session), time_us `i64`, count `u32`, item text, then what is present: played_ms `i64`, context text, session text |
//! | rule | scope `u8`, effect `u8`, action `u8`, present `u8` (bit 0 expire, 1 window start, 2 window end), strength `f32`, create_time_us `i64`, note text, then: expire `i64`, window start `i64`, window end `i64`, or the scope's text |
//!
//! Decoding trusts nothing: any bytes give a record or an error, and nothing may follow a record.

use std::str::Utf8Error;

use crate::event::{Event, EventKind};
use crate::rule::{Action, Effect, Rule, Scope};

const VERSION: u8 = 1;

/// What a store keeps of a listener beside events and rules.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub(crate) struct UserRecord {
    pub(crate) revision: u64,
    pub(crate) events: u32,
    pub(crate) rules: u32,
    /// Events dropped so far because the profile was full.
    pub(crate) dropped: u64,
}

impl UserRecord {
    pub(crate) fn encode(&self, user: &str) -> Vec<u8> {
        let mut out = Writer::new();
        out.fixed(self.revision.to_le_bytes());
        out.fixed(self.events.to_le_bytes());
        out.fixed(self.rules.to_le_bytes());
        out.fixed(self.dropped.to_le_bytes());
        out.seal(user)
    }

    pub(crate) fn decode(user: &str, bytes: &[u8]) -> Result<Self, DecodeError> {
        let mut input = Reader::new(user, bytes)?;
        let record = Self {
            revision: u64::from_le_bytes(input.fixed()?),
            events: u32::from_le_bytes(input.fixed()?),
            rules: u32::from_le_bytes(input.fixed()?),
            dropped: u64::from_le_bytes(input.fixed()?),
        };
        input.end(record)
    }
}

pub(crate) fn encode_event(event: &Event) -> Vec<u8> {
    let mut out = Writer::new();
    out.byte(match event.kind {
        EventKind::Play => 1,
        EventKind::Complete => 2,
        EventKind::Skip => 3,
        EventKind::Like => 4,
        EventKind::Unlike => 5,
        EventKind::Save => 6,
        EventKind::Hide => 7,
    });
    out.present([
        event.played_ms.is_some(),
        event.context.is_some(),
        event.session.is_some(),
    ]);
    out.fixed(event.time_us.to_le_bytes());
    out.fixed(event.count.to_le_bytes());
    out.text(&event.item);
    if let Some(played_ms) = event.played_ms {
        out.fixed(played_ms.to_le_bytes());
    }
    for text in [&event.context, &event.session].into_iter().flatten() {
        out.text(text);
    }
    out.seal(&event.event_id)
}

pub(crate) fn decode_event(event_id: &str, bytes: &[u8]) -> Result<Event, DecodeError> {
    let mut input = Reader::new(event_id, bytes)?;
    let kind = match input.byte()? {
        1 => EventKind::Play,
        2 => EventKind::Complete,
        3 => EventKind::Skip,
        4 => EventKind::Like,
        5 => EventKind::Unlike,
        6 => EventKind::Save,
        7 => EventKind::Hide,
        value => return Err(input.unknown("kind", value)),
    };
    let [played, context, session] = input.present()?;
    let event = Event {
        event_id: event_id.to_owned(),
        kind,
        time_us: i64::from_le_bytes(input.fixed()?),
        count: u32::from_le_bytes(input.fixed()?),
        item: input.text()?,
        played_ms: played
            .then(|| input.fixed().map(i64::from_le_bytes))
            .transpose()?,
        context: context.then(|| input.text()).transpose()?,
        session: session.then(|| input.text()).transpose()?,
    };
    input.end(event)
}

pub(crate) fn encode_rule(rule: &Rule) -> Vec<u8> {
    let mut out = Writer::new();
    let (scope, text, [start_us, end_us]) = match &rule.scope {
        Scope::Item(text) => (1, Some(text), [None, None]),
        Scope::Context(text) => (2, Some(text), [None, None]),
        Scope::Session(text) => (3, Some(text), [None, None]),
        Scope::Artist(text) => (4, Some(text), [None, None]),
        Scope::Tag(text) => (5, Some(text), [None, None]),
        Scope::Window { start_us, end_us } => (6, None, [*start_us, *end_us]),
    };
    out.byte(scope);
    out.byte(match rule.effect {
        Effect::Learn => 1,
        Effect::Serve => 2,
        Effect::Both => 3,
    });
    out.byte(match rule.action {
        Action::Exclude => 1,
        Action::Include => 2,
    });
    out.present([
        rule.expire_time_us.is_some(),
        start_us.is_some(),
        end_us.is_some(),
    ]);
    out.fixed(rule.strength.to_le_bytes());
    out.fixed(rule.create_time_us.to_le_bytes());
    out.text(&rule.note);
    for time_us in [rule.expire_time_us, start_us, end_us]
        .into_iter()
        .flatten()
    {
        out.fixed(time_us.to_le_bytes());
    }
    if let Some(text) = text {
        out.text(text);
    }
    out.seal(&rule.rule_id)
}

pub(crate) fn decode_rule(rule_id: &str, bytes: &[u8]) -> Result<Rule, DecodeError> {
    let mut input = Reader::new(rule_id, bytes)?;
    let scope = input.byte()?;
    let effect = match input.byte()? {
        1 => Effect::Learn,
        2 => Effect::Serve,
        3 => Effect::Both,
        value => return Err(input.unknown("effect", value)),
    };
    let action = match input.byte()? {
        1 => Action::Exclude,
        2 => Action::Include,
        value => return Err(input.unknown("action", value)),
    };
    let present = input.present()?;
    if scope != 6 && (present[1] || present[2]) {
        return Err(DecodeError::StrayWindow { scope });
    }
    let strength = f32::from_le_bytes(input.fixed()?);
    let create_time_us = i64::from_le_bytes(input.fixed()?);
    let note = input.text()?;
    let mut times = [None; 3];
    for (time_us, present) in times.iter_mut().zip(present) {
        *time_us = present
            .then(|| input.fixed().map(i64::from_le_bytes))
            .transpose()?;
    }
    let [expire_time_us, start_us, end_us] = times;
    let scope = match scope {
        1 => Scope::Item(input.text()?),
        2 => Scope::Context(input.text()?),
        3 => Scope::Session(input.text()?),
        4 => Scope::Artist(input.text()?),
        5 => Scope::Tag(input.text()?),
        6 => Scope::Window { start_us, end_us },
        value => return Err(input.unknown("scope", value)),
    };
    let rule_id = rule_id.to_owned();
    let rule = Rule {
        rule_id,
        scope,
        strength,
        effect,
        action,
        create_time_us,
        expire_time_us,
        note,
    };
    input.end(rule)
}

/// Bytes that are no record.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[non_exhaustive]
pub(crate) enum DecodeError {
    #[error("it ends at byte {len}, inside a field")]
    Truncated { len: usize },
    #[error("{extra} bytes follow it")]
    Trailing { extra: usize },
    #[error("its checksum does not match")]
    Checksum,
    #[error("its version is {version}, this program knows up to {VERSION}")]
    Version { version: u8 },
    #[error("{field} {value} at byte {offset} has no meaning")]
    Unknown {
        field: &'static str,
        value: u8,
        offset: usize,
    },
    #[error("scope {scope} has the bounds of a window")]
    StrayWindow { scope: u8 },
    #[error("the text at byte {offset} is not UTF-8")]
    Text { offset: usize, source: Utf8Error },
}

fn checksum(id: &str, bytes: &[u8]) -> u32 {
    crc32c::crc32c_append(crc32c::crc32c(id.as_bytes()), bytes)
}

struct Writer {
    bytes: Vec<u8>,
}

impl Writer {
    fn new() -> Self {
        let mut bytes = Vec::with_capacity(64);
        bytes.push(VERSION);
        Self { bytes }
    }

    fn seal(mut self, id: &str) -> Vec<u8> {
        let sum = checksum(id, &self.bytes);
        self.fixed(sum.to_le_bytes());
        self.bytes
    }

    fn byte(&mut self, value: u8) {
        self.bytes.push(value);
    }

    fn present(&mut self, fields: [bool; 3]) {
        self.byte(
            fields
                .iter()
                .rev()
                .fold(0, |bits, &field| bits << 1 | u8::from(field)),
        );
    }

    fn fixed<const N: usize>(&mut self, value: [u8; N]) {
        self.bytes.extend_from_slice(&value);
    }

    /// Texts were validated to some hundred bytes; one too long for its length field is cut at the
    /// last character that fits, so that a record always decodes.
    fn text(&mut self, text: &str) {
        let text = &text[..text.floor_char_boundary(usize::from(u16::MAX))];
        let len = u16::try_from(text.len()).unwrap_or(u16::MAX);
        self.fixed(len.to_le_bytes());
        self.bytes.extend_from_slice(text.as_bytes());
    }
}

struct Reader<'a> {
    bytes: &'a [u8],
    at: usize,
}

impl<'a> Reader<'a> {
    fn new(id: &str, record: &'a [u8]) -> Result<Self, DecodeError> {
        let (bytes, sum) = record
            .split_last_chunk()
            .ok_or(DecodeError::Truncated { len: record.len() })?;
        if checksum(id, bytes) != u32::from_le_bytes(*sum) {
            return Err(DecodeError::Checksum);
        }
        let mut input = Self { bytes, at: 0 };
        match input.byte()? {
            VERSION => Ok(input),
            version => Err(DecodeError::Version { version }),
        }
    }

    fn take(&mut self, len: usize) -> Result<&'a [u8], DecodeError> {
        let rest = self.bytes.get(self.at..).unwrap_or_default();
        let taken = rest.get(..len).ok_or(DecodeError::Truncated {
            len: self.bytes.len(),
        })?;
        self.at += len;
        Ok(taken)
    }

    fn fixed<const N: usize>(&mut self) -> Result<[u8; N], DecodeError> {
        let mut value = [0; N];
        value.copy_from_slice(self.take(N)?);
        Ok(value)
    }

    fn byte(&mut self) -> Result<u8, DecodeError> {
        self.fixed::<1>().map(|[value]| value)
    }

    fn present(&mut self) -> Result<[bool; 3], DecodeError> {
        match self.byte()? {
            bits @ 0..8 => Ok([0, 1, 2].map(|field| bits >> field & 1 == 1)),
            bits => Err(self.unknown("present", bits)),
        }
    }

    fn text(&mut self) -> Result<String, DecodeError> {
        let len = u16::from_le_bytes(self.fixed()?);
        let offset = self.at;
        let bytes = self.take(usize::from(len))?;
        match str::from_utf8(bytes) {
            Ok(text) => Ok(text.to_owned()),
            Err(source) => Err(DecodeError::Text { offset, source }),
        }
    }

    /// For a byte just read.
    fn unknown(&self, field: &'static str, value: u8) -> DecodeError {
        DecodeError::Unknown {
            field,
            value,
            offset: self.at.saturating_sub(1),
        }
    }

    fn end<T>(self, record: T) -> Result<T, DecodeError> {
        match self.bytes.len() - self.at {
            0 => Ok(record),
            extra => Err(DecodeError::Trailing { extra }),
        }
    }
}

#[cfg(test)]
mod tests {
    use proptest::collection::vec;
    use proptest::option;
    use proptest::prelude::*;

    use super::*;

    fn text() -> impl Strategy<Value = String> {
        vec(any::<char>(), 0..40).prop_map(String::from_iter)
    }

    fn event() -> impl Strategy<Value = Event> {
        let kind = proptest::sample::select(&EventKind::ALL);
        let texts = (text(), text(), option::of(text()), option::of(text()));
        (
            texts,
            any::<i64>(),
            kind,
            any::<Option<i64>>(),
            any::<u32>(),
        )
            .prop_map(
                |((event_id, item, context, session), time_us, kind, played_ms, count)| Event {
                    event_id,
                    item,
                    time_us,
                    kind,
                    played_ms,
                    context,
                    session,
                    count,
                },
            )
    }

    fn rule() -> impl Strategy<Value = Rule> {
        let scope = prop_oneof![
            text().prop_map(Scope::Item),
            text().prop_map(Scope::Context),
            text().prop_map(Scope::Session),
            text().prop_map(Scope::Artist),
            text().prop_map(Scope::Tag),
            any::<(Option<i64>, Option<i64>)>()
                .prop_map(|(start_us, end_us)| Scope::Window { start_us, end_us }),
        ];
        let effect = proptest::sample::select(&[Effect::Learn, Effect::Serve, Effect::Both]);
        let action = proptest::sample::select(&[Action::Exclude, Action::Include]);
        let times = any::<(i64, Option<i64>)>();
        ((text(), text()), scope, -1.0..2.0f32, effect, action, times).prop_map(
            |((rule_id, note), scope, strength, effect, action, times)| Rule {
                rule_id,
                scope,
                strength,
                effect,
                action,
                create_time_us: times.0,
                expire_time_us: times.1,
                note,
            },
        )
    }

    proptest! {
        #![proptest_config(ProptestConfig { cases: 2_000, ..ProptestConfig::default() })]

        #[test]
        fn records_come_back(event in event(), rule in rule(), counts in any::<(u64, u32, u32, u64)>()) {
            prop_assert_eq!(decode_event(&event.event_id, &encode_event(&event)), Ok(event));
            prop_assert_eq!(decode_rule(&rule.rule_id, &encode_rule(&rule)), Ok(rule));
            let (revision, events, rules, dropped) = counts;
            let user = UserRecord { revision, events, rules, dropped };
            prop_assert_eq!(UserRecord::decode("u", &user.encode("u")), Ok(user));
        }

        /// Any bytes are refused or are exactly what the record they decode to encodes to.
        #[test]
        fn no_two_encodings_mean_one_record(
            event in event(),
            rule in rule(),
            at in any::<proptest::sample::Index>(),
            to in any::<u8>(),
            cut in any::<bool>(),
            noise in vec(any::<u8>(), 0..80),
        ) {
            // The checksum is made right again, so that the fields are what is tested.
            let damage = |mut bytes: Vec<u8>| {
                bytes.truncate(bytes.len() - 4);
                let at = at.index(bytes.len());
                bytes[at] = to;
                if cut {
                    bytes.truncate(at);
                }
                sealed(&bytes)
            };
            for bytes in [damage(encode_event(&event)), noise.clone(), sealed(&noise)] {
                if let Ok(event) = decode_event("id", &bytes) {
                    prop_assert_eq!(encode_event(&event), bytes);
                }
            }
            for bytes in [damage(encode_rule(&rule)), noise.clone(), sealed(&noise)] {
                if let Ok(rule) = decode_rule("id", &bytes) {
                    prop_assert_eq!(encode_rule(&rule), bytes);
                }
            }
        }

        #[test]
        fn a_flipped_bit_or_another_key_is_found(
            event in event(),
            at in any::<proptest::sample::Index>(),
            bit in 0..8u8,
        ) {
            let mut bytes = encode_event(&event);
            let other = format!("{}x", event.event_id);
            prop_assert_eq!(decode_event(&other, &bytes), Err(DecodeError::Checksum));
            let at = at.index(bytes.len());
            bytes[at] ^= 1 << bit;
            prop_assert_eq!(decode_event(&event.event_id, &bytes), Err(DecodeError::Checksum));
        }
    }

    fn sealed(fields: &[u8]) -> Vec<u8> {
        [fields, &checksum("id", fields).to_le_bytes()].concat()
    }

    #[test]
    fn errors_name_the_place() {
        let event = Event {
            event_id: "id".to_owned(),
            item: "item".to_owned(),
            time_us: 7,
            kind: EventKind::Like,
            played_ms: None,
            context: None,
            session: None,
            count: 1,
        };
        let bytes = encode_event(&event);
        let fields = &bytes[..bytes.len() - 4];
        let error = |fields: &[u8]| decode_event("id", &sealed(fields)).unwrap_err().to_string();
        let after = |at: usize, to: u8| {
            let mut fields = fields.to_vec();
            fields[at] = to;
            error(&fields)
        };
        assert_eq!(after(0, 9), "its version is 9, this program knows up to 1");
        assert_eq!(after(1, 8), "kind 8 at byte 1 has no meaning");
        assert_eq!(after(2, 8), "present 8 at byte 2 has no meaning");
        assert_eq!(after(17, 0xff), "the text at byte 17 is not UTF-8");
        assert_eq!(error(&fields[..9]), "it ends at byte 9, inside a field");
        assert_eq!(error(&[fields, &[0]].concat()), "1 bytes follow it");
        assert_eq!(
            decode_event("id", &bytes[..3]),
            Err(DecodeError::Truncated { len: 3 })
        );
    }
}
