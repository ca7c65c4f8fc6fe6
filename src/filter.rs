//! The message `Filter` with lists that are one text each.
//!
//! A filter may name twenty thousand items. Generated code would allocate each name for itself, which takes longer than the
//! search that it restricts; so this message is written by hand. On the wire it is what `proto/` says.

use std::fmt;

use prost::DecodeError;
use prost::Message;
use prost::bytes::{Buf, BufMut, Bytes};
use prost::encoding::{
    DecodeContext, WireType, encode_key, encode_varint, encoded_len_varint, key_len, skip_field,
    string,
};

/// Which items may come back.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct Filter {
    /// These may not. At most 10,000.
    pub exclude_item_ids: Names,
    /// None by these artists. At most 1,000.
    pub exclude_artists: Names,
    /// Only these may, when any are given. At most 10,000.
    pub allow_item_ids: Names,
    /// Only items with at least one of these tags, when any are given. At most 64.
    pub any_tags: Names,
    /// No item with one of these tags. At most 64.
    pub not_tags: Names,
}

impl Filter {
    /// The lists with their field numbers.
    fn lists(&self) -> [(u32, &Names); 5] {
        [
            (1, &self.exclude_item_ids),
            (2, &self.exclude_artists),
            (3, &self.allow_item_ids),
            (4, &self.any_tags),
            (5, &self.not_tags),
        ]
    }
}

impl Message for Filter {
    fn encode_raw(&self, buf: &mut impl BufMut) {
        for (tag, names) in self.lists() {
            for name in names.iter() {
                encode_key(tag, WireType::LengthDelimited, buf);
                encode_varint(name.len() as u64, buf);
                buf.put_slice(name.as_bytes());
            }
        }
    }

    fn merge_field(
        &mut self,
        tag: u32,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        let (names, field) = match tag {
            1 => (&mut self.exclude_item_ids, "exclude_item_ids"),
            2 => (&mut self.exclude_artists, "exclude_artists"),
            3 => (&mut self.allow_item_ids, "allow_item_ids"),
            4 => (&mut self.any_tags, "any_tags"),
            5 => (&mut self.not_tags, "not_tags"),
            _ => return skip_field(wire_type, tag, buf, ctx),
        };
        names.merge(wire_type, buf, ctx).map_err(|mut error| {
            error.push("Filter", field);
            error
        })
    }

    fn encoded_len(&self) -> usize {
        let list = |(tag, names): (u32, &Names)| {
            let lengths = names
                .iter()
                .map(|name| encoded_len_varint(name.len() as u64));
            key_len(tag) * names.len() + names.text.len() + lengths.sum::<usize>()
        };
        self.lists().into_iter().map(list).sum()
    }

    fn clear(&mut self) {
        *self = Self::default();
    }
}

/// A list of strings, held as one text: two allocations, however many there are.
#[derive(Clone, Default, PartialEq, Eq)]
pub struct Names {
    text: String,
    /// Where each ends in the text.
    ends: Vec<usize>,
}

impl Names {
    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// One after another, as one text.
    #[must_use]
    pub fn text(&self) -> &str {
        &self.text
    }

    /// Where each ends in the text.
    #[must_use]
    pub fn ends(&self) -> &[usize] {
        &self.ends
    }

    /// The text, and where each ends in it.
    #[must_use]
    pub fn into_parts(self) -> (String, Vec<usize>) {
        (self.text, self.ends)
    }

    /// Adds one at the end.
    #[inline]
    pub fn push(&mut self, name: &str) {
        self.text.push_str(name);
        self.ends.push(self.text.len());
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        let mut start = 0;
        self.ends
            .iter()
            .map(move |&end| &self.text[std::mem::replace(&mut start, end)..end])
    }

    #[inline]
    fn merge(
        &mut self,
        wire_type: WireType,
        buf: &mut impl Buf,
        ctx: DecodeContext,
    ) -> Result<(), DecodeError> {
        if wire_type == WireType::LengthDelimited {
            let chunk = buf.chunk();
            if let Some((&len, rest)) = chunk.split_first()
                && len < 0x80
                && let Some(name) = rest.get(..usize::from(len))
                && let Ok(name) = std::str::from_utf8(name)
            {
                self.push(name);
                buf.advance(1 + usize::from(len));
                return Ok(());
            }
        }
        // Long, torn between two chunks, or wrong. The decoder of strings replaces what it is given, and keeps its room.
        thread_local! {
            static ONE: std::cell::RefCell<String> = const { std::cell::RefCell::new(String::new()) };
        }
        ONE.with_borrow_mut(|one| {
            string::merge(wire_type, one, buf, ctx)?;
            self.push(one);
            if one.capacity() > MOST_KEPT {
                *one = String::new();
            }
            Ok(())
        })
    }
}

/// Names are short; what a huge one took is given back.
const MOST_KEPT: usize = 4_096;

/// As a request carries it: see [`v1`](crate::v1).
impl From<Filter> for Vec<Bytes> {
    fn from(filter: Filter) -> Self {
        vec![filter.encode_to_vec().into()]
    }
}

impl fmt::Debug for Names {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_list().entries(self.iter()).finish()
    }
}

impl<S: AsRef<str>> FromIterator<S> for Names {
    fn from_iter<T: IntoIterator<Item = S>>(names: T) -> Self {
        let mut this = Self::default();
        this.extend(names);
        this
    }
}

impl<S: AsRef<str>> Extend<S> for Names {
    fn extend<T: IntoIterator<Item = S>>(&mut self, names: T) {
        for name in names {
            self.push(name.as_ref());
        }
    }
}

impl<S: AsRef<str>> From<&[S]> for Names {
    fn from(names: &[S]) -> Self {
        names.iter().collect()
    }
}

impl<S: AsRef<str>> From<Vec<S>> for Names {
    fn from(names: Vec<S>) -> Self {
        names.into_iter().collect()
    }
}

impl<S: AsRef<str>, const N: usize> From<[S; N]> for Names {
    fn from(names: [S; N]) -> Self {
        names.into_iter().collect()
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    /// The same message as generated code would have it.
    #[derive(Clone, PartialEq, Message)]
    struct Plain {
        #[prost(string, repeated, tag = "1")]
        exclude_item_ids: Vec<String>,
        #[prost(string, repeated, tag = "2")]
        exclude_artists: Vec<String>,
        #[prost(string, repeated, tag = "3")]
        allow_item_ids: Vec<String>,
        #[prost(string, repeated, tag = "4")]
        any_tags: Vec<String>,
        #[prost(string, repeated, tag = "5")]
        not_tags: Vec<String>,
    }

    fn plain(filter: &Filter) -> Plain {
        let list = |names: &Names| names.iter().map(str::to_owned).collect();
        Plain {
            exclude_item_ids: list(&filter.exclude_item_ids),
            exclude_artists: list(&filter.exclude_artists),
            allow_item_ids: list(&filter.allow_item_ids),
            any_tags: list(&filter.any_tags),
            not_tags: list(&filter.not_tags),
        }
    }

    #[test]
    fn the_fields_are_those_of_the_contract() {
        let set = prost_types::FileDescriptorSet::decode(crate::v1::FILE_DESCRIPTOR_SET).unwrap();
        let mut messages = set.file.iter().flat_map(|file| &file.message_type);
        let filter = messages.find(|message| message.name() == "Filter").unwrap();
        let fields: Vec<_> = filter
            .field
            .iter()
            .map(|field| (field.number(), field.name(), field.r#type(), field.label()))
            .collect();
        let (text, many) = (
            prost_types::field_descriptor_proto::Type::String,
            prost_types::field_descriptor_proto::Label::Repeated,
        );
        assert_eq!(
            fields,
            [
                (1, "exclude_item_ids", text, many),
                (2, "exclude_artists", text, many),
                (3, "allow_item_ids", text, many),
                (4, "any_tags", text, many),
                (5, "not_tags", text, many),
            ]
        );
    }

    fn names() -> impl Strategy<Value = Names> {
        prop::collection::vec(".{0,20}", 0..6).prop_map(Names::from)
    }

    proptest! {
        #[test]
        fn its_bytes_are_those_of_generated_code(
            exclude_item_ids in names(), exclude_artists in names(), allow_item_ids in names(),
            any_tags in names(), not_tags in names(), cut in any::<prop::sample::Index>(),
        ) {
            let filter = Filter { exclude_item_ids, exclude_artists, allow_item_ids, any_tags, not_tags };
            let bytes = filter.encode_to_vec();
            prop_assert_eq!(&bytes, &plain(&filter).encode_to_vec());
            prop_assert_eq!(&Filter::decode(&*bytes).unwrap(), &filter);
            let (head, tail) = bytes.split_at(cut.index(bytes.len() + 1));
            prop_assert_eq!(&Filter::decode(head.chain(tail)).unwrap(), &filter);
        }

        /// Fields in any order, unknown ones, wrong types, no UTF-8, cut short: read or refused alike.
        #[test]
        fn any_bytes_are_read_as_by_generated_code(
            parts in prop::collection::vec(
                (0_u8..8, 0_u8..6, prop::collection::vec(any::<u8>(), 0..4), ".{0,4}"), 0..6),
            cut in any::<prop::sample::Index>(),
            whole in any::<bool>(),
        ) {
            let mut bytes = Vec::new();
            for (tag, wire, junk, text) in parts {
                bytes.push(tag << 3 | wire);
                if junk.len() < 2 {
                    bytes.push(u8::try_from(text.len()).unwrap());
                    bytes.extend(text.as_bytes());
                } else {
                    bytes.extend(junk);
                }
            }
            if !whole && !bytes.is_empty() {
                bytes.truncate(cut.index(bytes.len()));
            }
            match (Filter::decode(&*bytes), Plain::decode(&*bytes)) {
                (Ok(ours), Ok(theirs)) => prop_assert_eq!(plain(&ours), theirs),
                (Err(ours), Err(theirs)) => prop_assert_eq!(
                    ours.to_string(),
                    theirs.to_string().replace("Plain", "Filter")
                ),
                (ours, theirs) => prop_assert!(false, "{ours:?} {theirs:?}"),
            }
        }
    }
}
