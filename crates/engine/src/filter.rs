//! A request's filter over item names, compiled to sets of ordinals.

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
