//! A request's filter over item names, compiled to sets of ordinals.

use std::hash::{Hash, Hasher};
use std::mem;
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use refrain_index::{Filter, OrdinalSet};

use crate::delta::VersionItems;
use crate::request::ItemFilter;

/// What the request itself rules out. What the version and the listener rule out stands beside it.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) exclude: OrdinalSet,
    pub(crate) allow: Option<OrdinalSet>,
}

impl Compiled {
    /// O(names + items of the artists and tags named).
    pub(crate) fn new(filter: &ItemFilter<'_>, items: VersionItems<'_>) -> Self {
        let mut exclude = OrdinalSet::from_ordinals(&items.ordinals(filter.exclude_items));
        for artist in filter
            .exclude_artists
            .iter()
            .filter_map(move |name| items.artist_ordinal(name))
        {
            exclude.extend(items.items_of_artist(artist));
        }
        for tag in tag_numbers(items, filter.not_tags) {
            exclude.extend(items.items_with_tag(tag));
        }

        let named = (!filter.allow_items.is_empty())
            .then(|| OrdinalSet::from_ordinals(&items.ordinals(filter.allow_items)));
        let allow = match named {
            None if filter.any_tags.is_empty() => None,
            None => {
                let tagged = tag_numbers(items, filter.any_tags);
                Some(tagged.flat_map(|tag| items.items_with_tag(tag)).collect())
            }
            Some(named) if filter.any_tags.is_empty() => Some(named),
            // The list is the shorter one by far: look at the tags of its items.
            Some(named) => {
                let wanted: Vec<u32> = tag_numbers(items, filter.any_tags).collect();
                let tagged = |&ordinal: &u32| items.tags(ordinal).any(|tag| wanted.contains(&tag));
                Some(named.iter().filter(tagged).collect())
            }
        };
        Self { exclude, allow }
    }
}

/// Compiled filters of recent requests: a caller who names thousands of items tends to name them again, for the next page
/// or the next surface, and looking them up takes longer than the search. Belongs to one version and delta.
#[derive(Debug)]
pub(crate) struct CompiledFilters {
    entries: Cache<Lists, Arc<Compiled>, Bytes>,
}

/// Fewer names than that are looked up sooner than remembered.
const FEW: usize = 128;
/// What a version keeps at most: some 300 filters of 10,000 names.
const MOST_BYTES: u64 = 64 << 20;

impl Default for CompiledFilters {
    fn default() -> Self {
        Self {
            entries: Cache::with_weighter(512, MOST_BYTES, Bytes),
        }
    }
}

impl CompiledFilters {
    /// What [`Compiled::new`] gives. Hit or miss, no two lists are taken for each other: an entry has its names.
    pub(crate) fn get(&self, filter: &ItemFilter<'_>, items: VersionItems<'_>) -> Arc<Compiled> {
        let lists = lists(filter);
        if lists.iter().map(|names| names.len()).sum::<usize>() < FEW {
            return Arc::new(Compiled::new(filter, items));
        }
        let asked = Asked(lists);
        if let Some(kept) = self.entries.get(&asked) {
            return kept;
        }
        let compiled = Arc::new(Compiled::new(filter, items));
        self.entries.insert(asked.to_lists(), Arc::clone(&compiled));
        compiled
    }
}

fn lists<'a>(filter: &ItemFilter<'a>) -> [&'a [&'a str]; 5] {
    [
        filter.exclude_items,
        filter.exclude_artists,
        filter.allow_items,
        filter.any_tags,
        filter.not_tags,
    ]
}

/// The lists of a filter: how many names each has, all names as one text, and where each ends in it.
#[derive(Debug, Clone, PartialEq, Eq)]
struct Lists {
    lens: [usize; 5],
    text: Box<str>,
    ends: Box<[usize]>,
}

impl Lists {
    fn names(&self) -> impl Iterator<Item = &str> {
        let mut start = 0;
        let name = move |&end: &usize| &self.text[mem::replace(&mut start, end)..end];
        self.ends.iter().map(name)
    }
}

/// Looks [`Lists`] up without making them. Hashes as they do.
struct Asked<'a>([&'a [&'a str]; 5]);

impl<'a> Asked<'a> {
    fn lens(&self) -> [usize; 5] {
        self.0.map(<[&str]>::len)
    }

    fn names(&self) -> impl Iterator<Item = &'a str> {
        self.0.into_iter().flatten().copied()
    }

    fn to_lists(&self) -> Lists {
        let mut end = 0;
        let ends = self.names().map(|name| {
            end += name.len();
            end
        });
        Lists {
            lens: self.lens(),
            ends: ends.collect(),
            text: self.names().collect(),
        }
    }
}

fn feed<'a>(lens: [usize; 5], names: impl Iterator<Item = &'a str>, state: &mut impl Hasher) {
    lens.hash(state);
    for name in names {
        state.write(name.as_bytes());
    }
}

impl Hash for Lists {
    fn hash<H: Hasher>(&self, state: &mut H) {
        feed(self.lens, self.names(), state);
    }
}

impl Hash for Asked<'_> {
    fn hash<H: Hasher>(&self, state: &mut H) {
        feed(self.lens(), self.names(), state);
    }
}

impl Equivalent<Lists> for Asked<'_> {
    fn equivalent(&self, kept: &Lists) -> bool {
        self.lens() == kept.lens && self.names().eq(kept.names())
    }
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Lists, Arc<Compiled>> for Bytes {
    fn weight(&self, lists: &Lists, compiled: &Arc<Compiled>) -> u64 {
        let sets = compiled.exclude.bytes() + compiled.allow.as_ref().map_or(0, OrdinalSet::bytes);
        let names = lists.text.len() + size_of_val(&*lists.ends);
        (size_of::<Lists>() + size_of::<Compiled>() + names + sets) as u64
    }
}

/// All that an answer has to keep to, and the last word on each item of it.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Allowed<'a> {
    exclude: &'a [&'a OrdinalSet],
    allow: Option<&'a OrdinalSet>,
}

impl<'a> Allowed<'a> {
    pub(crate) fn new(exclude: &'a [&'a OrdinalSet], allow: Option<&'a OrdinalSet>) -> Self {
        Self { exclude, allow }
    }

    pub(crate) fn filter(&self) -> Filter<'a> {
        Filter {
            exclude: self.exclude,
            allow: self.allow,
        }
    }

    pub(crate) fn contains(&self, ordinal: u32) -> bool {
        self.filter().allows(ordinal)
    }
}

fn tag_numbers<'a>(
    items: VersionItems<'a>,
    names: &'a [&'a str],
) -> impl Iterator<Item = u32> + 'a {
    names.iter().filter_map(move |name| items.tag_ordinal(name))
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn lists_are_told_apart_by_names_and_by_what_they_are_for() {
        let none: &[&str] = &[];
        let some = [
            [&["ab", "c"], none, none, none, none],
            [&["a", "bc"], none, none, none, none],
            [&["abc"], none, none, none, none],
            [&["abc", ""], none, none, none, none],
            [&["ab"], &["c"], none, none, none],
            [none, &["ab", "c"], none, none, none],
            [none, none, &["ab", "c"], none, none],
            [none, none, none, &["ab"], &["c"]],
        ]
        .map(Asked);
        let hash = |one: &dyn Fn(&mut rustc_hash::FxHasher)| {
            let mut state = rustc_hash::FxHasher::default();
            one(&mut state);
            state.finish()
        };
        for (at, asked) in some.iter().enumerate() {
            let kept = asked.to_lists();
            assert_eq!(
                hash(&|state| asked.hash(state)),
                hash(&|state| kept.hash(state))
            );
            for (other, asked) in some.iter().enumerate() {
                assert_eq!(asked.equivalent(&kept), at == other, "{at} {other}");
            }
        }
    }
}
