//! The filters of requests, each read once.
//!
//! One may name ten thousand items, and a caller who names so many tends to name them again: for the next page, or the
//! next surface. Reading them takes longer than the search that they restrict, so a filter that comes again is known
//! by its bytes, and everything that was made of it is at hand.

use std::borrow::Cow;
use std::sync::Arc;

use prost::Message as _;
use prost::bytes::Bytes;
use quick_cache::Weighter;
use quick_cache::sync::Cache;
use refrain::v1;
use refrain_engine::{ItemFilter, NameList};
use refrain_taste::MAX_ID_BYTES;

use crate::validate::Check;

/// A filter of fewer bytes is read sooner than found.
const FEW_BYTES: usize = 1 << 10;
/// What is kept at most: some 250 filters of 10,000 names.
const MOST_BYTES: u64 = 64 << 20;

/// Filters that came lately.
#[derive(Debug)]
pub(crate) struct Filters {
    known: Cache<Box<[u8]>, Arc<ItemFilter>, Weight>,
}

impl Default for Filters {
    fn default() -> Self {
        Self {
            known: Cache::with_weighter(512, MOST_BYTES, Weight),
        }
    }
}

impl Filters {
    /// The filter that a request has in so many parts, usually one; `None` where there is none, or after a complaint.
    pub(crate) fn read(&self, check: &mut Check, parts: &[Bytes]) -> Option<Arc<ItemFilter>> {
        let encoded = match parts {
            [] => return None,
            [whole] => Cow::Borrowed(&**whole),
            parts => Cow::Owned(parts.concat()),
        };
        if encoded.len() < FEW_BYTES {
            return read(check, &encoded);
        }
        if let Some(known) = self.known.get(&*encoded) {
            return Some(known);
        }
        let filter = read(check, &encoded)?;
        self.known.insert((*encoded).into(), Arc::clone(&filter));
        Some(filter)
    }
}

fn read(check: &mut Check, encoded: &[u8]) -> Option<Arc<ItemFilter>> {
    let filter = v1::Filter::decode(encoded)
        .map_err(|error| check.complain("filter", error))
        .ok()?;
    let mut ids = Check::default();
    check_ids(&mut ids, &filter);
    if !ids.is_clean() {
        check.append(ids);
        return None;
    }
    // Kept for a while: no room but what is used.
    let list = |names: v1::Names| {
        let (mut text, mut ends) = names.into_parts();
        text.shrink_to_fit();
        ends.shrink_to_fit();
        NameList::new(text, ends)
    };
    Some(Arc::new(ItemFilter {
        exclude_items: list(filter.exclude_item_ids),
        exclude_artists: list(filter.exclude_artists),
        allow_items: list(filter.allow_item_ids),
        any_tags: list(filter.any_tags),
        not_tags: list(filter.not_tags),
    }))
}

fn check_ids(check: &mut Check, filter: &v1::Filter) {
    for (name, ids) in [
        ("exclude_item_ids", &filter.exclude_item_ids),
        ("exclude_artists", &filter.exclude_artists),
        ("allow_item_ids", &filter.allow_item_ids),
        ("any_tags", &filter.any_tags),
        ("not_tags", &filter.not_tags),
    ] {
        // There may be ten thousand, and usually all are well: only then is each looked at.
        if ids.iter().all(|id| (1..=MAX_ID_BYTES).contains(&id.len())) {
            continue;
        }
        for (at, id) in ids.iter().enumerate() {
            check.id(format_args!("filter.{name}[{at}]"), id);
        }
    }
}

#[derive(Debug, Clone)]
struct Weight;

impl Weighter<Box<[u8]>, Arc<ItemFilter>> for Weight {
    fn weight(&self, encoded: &Box<[u8]>, filter: &Arc<ItemFilter>) -> u64 {
        (encoded.len() + filter.bytes()) as u64
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn without(ids: impl IntoIterator<Item = impl ToString>) -> v1::Filter {
        v1::Filter {
            exclude_item_ids: ids.into_iter().map(|id| id.to_string()).collect(),
            ..v1::Filter::default()
        }
    }

    fn read(filters: &Filters, parts: &[Bytes]) -> Result<Option<Arc<ItemFilter>>, String> {
        let mut check = Check::default();
        let filter = filters.read(&mut check, parts);
        match check.finish() {
            Ok(()) => Ok(filter),
            Err(refusal) => Err(format!("{refusal:?}")),
        }
    }

    #[test]
    fn what_comes_again_is_the_same_and_what_differs_is_not() {
        let filters = Filters::default();
        let many = |first: u32| [without(first..first + 1_000).encode_to_vec().into()];
        let (one, other) = (read(&filters, &many(1_000)), read(&filters, &many(1_001)));
        let (one, other) = (one.unwrap().unwrap(), other.unwrap().unwrap());
        assert_ne!(one, other);
        assert_eq!(one.exclude_items.iter().next(), Some("1000"));
        assert_eq!(other.exclude_items.iter().last(), Some("2000"));
        let again = read(&filters, &many(1_000)).unwrap().unwrap();
        assert!(Arc::ptr_eq(&one, &again));
        assert_eq!(read(&filters, &[]), Ok(None));
        // Few are read whenever they come.
        let few = || read(&filters, &[without(0..3).encode_to_vec().into()]);
        let (one, again) = (few().unwrap().unwrap(), few().unwrap().unwrap());
        assert_eq!(one, again);
        assert!(!Arc::ptr_eq(&one, &again));
    }

    /// As protobuf has it: a message that comes twice is one of both.
    #[test]
    fn parts_are_one_filter() {
        for many in [2, 1_000] {
            let filters = Filters::default();
            let parts = [0..many, many..2 * many].map(|ids| without(ids).encode_to_vec().into());
            let joined = read(&filters, &parts).unwrap().unwrap();
            let whole = without(0..2 * many).encode_to_vec().into();
            assert_eq!(joined, read(&filters, &[whole]).unwrap().unwrap());
        }
    }

    #[test]
    fn what_is_wrong_is_named_each_time() {
        let filters = Filters::default();
        let of = |at: usize, id: &str| {
            let mut ids: Vec<String> = (0..1_000).map(|id| id.to_string()).collect();
            id.clone_into(&mut ids[at]);
            without(ids).encode_to_vec()
        };
        let mut cut = of(0, "0");
        cut.truncate(cut.len() - 1);
        let mut no_text = of(0, "0");
        no_text[2] = 0xff;
        for (encoded, named) in [
            (of(7, ""), "filter.exclude_item_ids[7]"),
            (of(999, &"x".repeat(129)), "filter.exclude_item_ids[999]"),
            (cut, "\"filter\""),
            (no_text, "exclude_item_ids: invalid string value"),
        ] {
            for _ in 0..2 {
                let refused = read(&filters, &[encoded.clone().into()]).unwrap_err();
                assert!(refused.contains(named), "{refused}");
            }
        }
    }
}
