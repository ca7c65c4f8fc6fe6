//! A request's filter over item names, compiled to sets of ordinals.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::sync::Cache;
use quick_cache::{Equivalent, Weighter};
use refrain_index::{Filter, OrdinalSet};

use crate::delta::VersionItems;
use crate::names::Names;
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
    entries: Cache<Kept, Arc<Compiled>, Bytes>,
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
        let asked = Lists::of(filter);
        if asked.len() < FEW {
            return Arc::new(Compiled::new(filter, items));
        }
        if let Some(kept) = self.entries.get(&asked) {
            return kept;
        }
        let compiled = Arc::new(Compiled::new(filter, items));
        self.entries.insert(asked.keep(), Arc::clone(&compiled));
        compiled
    }
}

/// The lists of a filter, kept: the names of all as one text, and where each ends in that of its list.
#[derive(Debug, Clone)]
struct Kept {
    text: Box<str>,
    ends: Box<[usize]>,
    /// How many bytes and names each list has.
    lens: [(usize, usize); 5],
}

impl Kept {
    fn lists(&self) -> Lists<'_> {
        let (mut text, mut ends) = (&*self.text, &*self.ends);
        Lists(self.lens.map(|(bytes, names)| {
            let (own_text, other_text) = text.split_at(bytes);
            let (own_ends, other_ends) = ends.split_at(names);
            (text, ends) = (other_text, other_ends);
            Names::new(own_text, own_ends)
        }))
    }
}

impl PartialEq for Kept {
    fn eq(&self, other: &Self) -> bool {
        self.lists() == other.lists()
    }
}

impl Eq for Kept {}

impl Hash for Kept {
    fn hash<H: Hasher>(&self, state: &mut H) {
        self.lists().hash(state);
    }
}

/// The lists of a filter, as asked.
#[derive(PartialEq)]
struct Lists<'a>([Names<'a>; 5]);

impl<'a> Lists<'a> {
    fn of(filter: &ItemFilter<'a>) -> Self {
        Self([
            filter.exclude_items,
            filter.exclude_artists,
            filter.allow_items,
            filter.any_tags,
            filter.not_tags,
        ])
    }

    fn len(&self) -> usize {
        self.0.iter().map(|names| names.len()).sum()
    }

    fn keep(&self) -> Kept {
        Kept {
            text: self.0.map(Names::text).concat().into(),
            ends: self.0.map(Names::ends).concat().into(),
            lens: self.0.map(|names| (names.text().len(), names.len())),
        }
    }
}

impl Hash for Lists<'_> {
    /// Where in the text the names end is left to the comparison.
    fn hash<H: Hasher>(&self, state: &mut H) {
        for names in self.0 {
            names.len().hash(state);
            names.text().hash(state);
        }
    }
}

impl Equivalent<Kept> for Lists<'_> {
    fn equivalent(&self, kept: &Kept) -> bool {
        *self == kept.lists()
    }
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Kept, Arc<Compiled>> for Bytes {
    fn weight(&self, kept: &Kept, compiled: &Arc<Compiled>) -> u64 {
        let sets = compiled.exclude.bytes() + compiled.allow.as_ref().map_or(0, OrdinalSet::bytes);
        let names = kept.text.len() + size_of_val(&*kept.ends);
        (size_of::<Kept>() + size_of::<Compiled>() + names + sets) as u64
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

fn tag_numbers<'a>(items: VersionItems<'a>, names: Names<'a>) -> impl Iterator<Item = u32> + 'a {
    names.iter().filter_map(move |name| items.tag_ordinal(name))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::names::NameList;

    #[test]
    fn lists_are_told_apart_by_names_and_by_what_they_are_for() {
        let none: &[&str] = &[];
        let some: [[&[&str]; 5]; 9] = [
            [&["ab", "c"], none, none, none, none],
            [&["a", "bc"], none, none, none, none],
            [&["abc"], none, none, none, none],
            [&["abc", ""], none, none, none, none],
            [&["", "abc"], none, none, none, none],
            [&["ab"], &["c"], none, none, none],
            [none, &["ab", "c"], none, none, none],
            [none, none, &["ab", "c"], none, none],
            [none, none, none, &["ab"], &["c"]],
        ];
        let some = some.map(|lists| lists.map(|names| names.iter().collect::<NameList>()));
        let some = some
            .each_ref()
            .map(|lists| Lists(lists.each_ref().map(NameList::names)));
        let hash = |one: &dyn Fn(&mut rustc_hash::FxHasher)| {
            let mut state = rustc_hash::FxHasher::default();
            one(&mut state);
            state.finish()
        };
        for (at, asked) in some.iter().enumerate() {
            let kept = asked.keep();
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
