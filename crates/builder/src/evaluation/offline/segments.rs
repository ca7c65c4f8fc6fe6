//! Parts of the listeners and of what they heard, judged apart: an average hides whom it fails.

use std::collections::BTreeMap;

use refrain_engine::Version;
use serde::{Deserialize, Serialize};

use super::cases::{Case, Cases};
use super::{OfflineOptions, compare, present};
use crate::evaluation::bootstrap::Paired;
use crate::evaluation::metrics::{Scores, mean};

/// Different items heard by listeners of each class.
const HISTORY: [(&str, std::ops::Range<usize>); 4] = [
    ("users: cold (fewer than 5 items heard)", 0..5),
    ("users: light (5 to 19)", 5..20),
    ("users: regular (20 to 99)", 20..100),
    ("users: heavy (100 and more)", 100..usize::MAX),
];

/// Niche items: the least popular that together have this share of all (listener, item) pairs.
const NICHE: f64 = 0.2;
/// Head: the most popular that together have this share.
const HEAD: f64 = 0.5;
/// New items: first heard within this last share of the history's time.
const NEW: f64 = 0.1;

/// Scenes judged apart, at most.
const MOST_SCENES: usize = 12;

/// How a version did on a part.
#[derive(Debug, Clone, PartialEq, Serialize, Deserialize)]
pub struct Segment {
    /// What it is, in words.
    pub name: String,
    /// Listeners with something to judge by.
    pub users: usize,
    /// The version, on that part of the truth.
    pub model: Scores,
    /// Popularity likewise.
    pub popularity: Scores,
    /// The version against the champion.
    pub against_champion: BTreeMap<String, Paired>,
}

/// Which listeners and which of the truth count.
#[derive(Debug, Clone, Copy)]
pub(super) enum Share<'a> {
    All,
    /// Listeners with so many different items heard.
    History(&'a std::ops::Range<usize>),
    /// Items with a flag, by joint ordinal.
    Items(&'a [bool]),
}

impl Share<'_> {
    pub(super) fn has_case(&self, case: &Case) -> bool {
        match self {
            Self::History(sizes) => sizes.contains(&case.heard.len()),
            _ => true,
        }
    }

    pub(super) fn has_item(&self, item: u32) -> bool {
        match self {
            Self::Items(flags) => flags.get(item as usize).copied().unwrap_or_default(),
            _ => true,
        }
    }
}

/// The parts that the listens allow.
pub(super) struct Plan {
    items: Vec<(String, Vec<bool>)>,
}

impl Plan {
    /// Items by popularity and age, and by the scenes of the version judged, where it has any.
    pub(super) fn new(cases: &Cases<'_>, version: &Version) -> Self {
        let listeners = cases.listeners();
        let total: u64 = listeners.iter().map(|&count| u64::from(count)).sum();
        let mut order: Vec<usize> = (0..listeners.len()).collect();
        order.sort_by_key(|&item| (std::cmp::Reverse(listeners[item]), item));
        let (mut head, mut niche) = (vec![false; listeners.len()], vec![false; listeners.len()]);
        let mut sum = 0u64;
        for item in order {
            let share = sum as f64 / total.max(1) as f64;
            head[item] = share < HEAD;
            niche[item] = share >= 1.0 - NICHE;
            sum += u64::from(listeners[item]);
        }
        let mut items = vec![
            ("items: head (half of all listening)".to_owned(), head),
            (
                "items: niche (the last fifth of listening)".to_owned(),
                niche,
            ),
        ];
        if let Some(new) = new_items(&cases.first_heard_us) {
            items.push((
                "items: new (first heard in the last tenth of the time)".to_owned(),
                new,
            ));
        }
        items.extend(scenes(version, listeners.len()));
        Self { items }
    }

    pub(super) fn judge(
        &self,
        cases: &Cases<'_>,
        ours: &[Vec<u32>],
        popular: &[Vec<u32>],
        theirs: Option<&[Vec<u32>]>,
        options: &OfflineOptions,
    ) -> Vec<Segment> {
        let users = HISTORY
            .iter()
            .map(|(name, sizes)| (*name, Share::History(sizes)));
        let items = self
            .items
            .iter()
            .map(|(name, flags)| (name.as_str(), Share::Items(flags)));
        users
            .chain(items)
            .filter_map(|(name, share)| {
                let model = present(&cases.scores(ours, share));
                if model.is_empty() {
                    return None;
                }
                let popularity = present(&cases.scores(popular, share));
                Some(Segment {
                    name: name.to_owned(),
                    users: model.len(),
                    model: mean(&model),
                    popularity: mean(&popularity),
                    against_champion: theirs
                        .map(|theirs| compare(cases, ours, theirs, share, options))
                        .unwrap_or_default(),
                })
            })
            .collect()
    }
}

/// The largest scenes of the first level, with the items of each, those of deltas included, by joint
/// ordinal.
fn scenes(version: &Version, items: usize) -> Vec<(String, Vec<bool>)> {
    let Some(scenes) = version.bundle().scenes() else {
        return Vec::new();
    };
    let mut tops: BTreeMap<&str, Vec<u32>> = BTreeMap::new();
    for item in 0..version.items().len() {
        let path = version.scene(item).and_then(|scene| scenes.path(scene));
        if let Some(top) = path.and_then(|path| path.split('.').next()) {
            tops.entry(top).or_default().push(item);
        }
    }
    let mut tops: Vec<(&str, Vec<u32>)> = tops.into_iter().collect();
    tops.sort_by_key(|(_, items)| std::cmp::Reverse(items.len()));
    tops.truncate(MOST_SCENES);
    tops.into_iter()
        .map(|(top, of)| {
            let number = (0..scenes.len()).find(|&at| scenes.path(at) == Some(top));
            let label = number.map_or("", |number| scenes.label(number));
            let name = match label {
                "" => format!("items: scene {top}"),
                label => format!("items: scene {top} ({label})"),
            };
            let mut flags = vec![false; items];
            for item in of {
                flags[item as usize] = true;
            }
            (name, flags)
        })
        .collect()
}

/// Items first heard late; none without times.
fn new_items(first_heard_us: &[Option<i64>]) -> Option<Vec<bool>> {
    let times = || first_heard_us.iter().copied().flatten();
    let (first, last) = (times().min()?, times().max()?);
    let since = last as f64 - (last as f64 - first as f64) * NEW;
    Some(
        first_heard_us
            .iter()
            .map(|time| time.is_some_and(|time| time as f64 > since))
            .collect(),
    )
}
