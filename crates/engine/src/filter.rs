//! A request's filter over item names, compiled to sets of ordinals.

use std::hash::{Hash, Hasher};
use std::sync::Arc;

use quick_cache::Weighter;
use quick_cache::sync::Cache;
use refrain_index::{Filter, OrdinalSet};

use crate::delta::VersionItems;
use crate::names::NameList;
use crate::request::ItemFilter;

/// What the request itself rules out. What the version and the listener rule out stands beside it.
#[derive(Debug, Default)]
pub(crate) struct Compiled {
    pub(crate) exclude: OrdinalSet,
    pub(crate) allow: Option<OrdinalSet>,
}

impl Compiled {
    /// O(names + items of the artists and tags named).
    pub(crate) fn new(filter: &ItemFilter, items: VersionItems<'_>) -> Self {
        let mut exclude = OrdinalSet::from_ordinals(&items.ordinals(&filter.exclude_items));
        for artist in filter
            .exclude_artists
            .iter()
            .filter_map(move |name| items.artist_ordinal(name))
        {
            exclude.extend(items.items_of_artist(artist));
        }
        for tag in tag_numbers(items, &filter.not_tags) {
            exclude.extend(items.items_with_tag(tag));
        }

        let named = (!filter.allow_items.is_empty())
            .then(|| OrdinalSet::from_ordinals(&items.ordinals(&filter.allow_items)));
        let allow = match named {
            None if filter.any_tags.is_empty() => None,
            None => {
                let tagged = tag_numbers(items, &filter.any_tags);
                Some(tagged.flat_map(|tag| items.items_with_tag(tag)).collect())
            }
            Some(named) if filter.any_tags.is_empty() => Some(named),
            // The list is the shorter one by far: look at the tags of its items.
            Some(named) => {
                let wanted: Vec<u32> = tag_numbers(items, &filter.any_tags).collect();
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
    entries: Cache<Same, Arc<Compiled>, Bytes>,
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
    /// What [`Compiled::new`] gives.
    pub(crate) fn get(&self, filter: &Arc<ItemFilter>, items: VersionItems<'_>) -> Arc<Compiled> {
        if filter.len() < FEW {
            return Arc::new(Compiled::new(filter, items));
        }
        let asked = Same(Arc::clone(filter));
        if let Some(kept) = self.entries.get(&asked) {
            return kept;
        }
        let compiled = Arc::new(Compiled::new(filter, items));
        self.entries.insert(asked, Arc::clone(&compiled));
        compiled
    }
}

/// Equal only to itself. What is kept cannot be freed, so no other filter comes to lie at its address.
#[derive(Debug, Clone)]
struct Same(Arc<ItemFilter>);

impl PartialEq for Same {
    fn eq(&self, other: &Self) -> bool {
        Arc::ptr_eq(&self.0, &other.0)
    }
}

impl Eq for Same {}

impl Hash for Same {
    fn hash<H: Hasher>(&self, state: &mut H) {
        Arc::as_ptr(&self.0).hash(state);
    }
}

#[derive(Debug, Clone)]
struct Bytes;

impl Weighter<Same, Arc<Compiled>> for Bytes {
    fn weight(&self, filter: &Same, compiled: &Arc<Compiled>) -> u64 {
        let sets = compiled.exclude.bytes() + compiled.allow.as_ref().map_or(0, OrdinalSet::bytes);
        (size_of::<Compiled>() + filter.0.bytes() + sets) as u64
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

fn tag_numbers<'a>(items: VersionItems<'a>, names: &'a NameList) -> impl Iterator<Item = u32> + 'a {
    names.iter().filter_map(move |name| items.tag_ordinal(name))
}
