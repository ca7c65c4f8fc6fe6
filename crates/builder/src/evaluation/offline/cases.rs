//! Whom to judge by: profiles and what was heard later, in ordinals that two versions share.

use std::io;

use refrain_engine::Version;
use refrain_taste::Profile;

use super::segments::Share;
use super::{
    Listening, OfflineCounts, OfflineError, OfflineOptions, Scores, draw, hash, judge_share,
};
use crate::Dictionary;
use crate::evaluation::LIST_LENGTH;
use crate::ingest::for_each_user;

/// One listener.
pub(super) struct Case {
    /// Ordinal in the history.
    user: u32,
    /// Joint ordinals of what they heard before, ascending.
    pub(super) heard: Vec<u32>,
    /// Joint ordinals of what they heard later and not before, ascending.
    pub(super) truth: Vec<u32>,
}

/// The listeners, and what their listens say of the items.
///
/// Joint ordinals are those of the version judged; items that only the champion or the logs know follow.
pub(super) struct Cases<'a> {
    pub(super) listening: Listening<'a>,
    pub(super) cases: Vec<Case>,
    pub(super) counts: OfflineCounts,
    version: &'a str,
    of_champion: Vec<u32>,
    /// Listeners in the history of each joint item.
    listeners: Vec<u32>,
    /// When each joint item was first heard, where the history has times.
    pub(super) first_heard_us: Vec<Option<i64>>,
}

impl<'a> Cases<'a> {
    pub(super) fn new(
        version: &'a Version,
        champion: Option<&Version>,
        listening: Listening<'a>,
        options: &OfflineOptions,
    ) -> Result<Self, OfflineError> {
        let Listening { history, later, .. } = listening;
        let mut joint = Dictionary::new();
        let mut insert = |id: &str| joint.insert(id).ok_or(OfflineError::TooManyItems);
        for ordinal in 0..version.items().len() {
            insert(version.items().id(ordinal).unwrap_or_default())?;
        }
        let of_champion: Vec<u32> = champion
            .into_iter()
            .flat_map(|champion| {
                let items = champion.items();
                (0..items.len()).filter_map(move |at| items.id(at))
            })
            .map(&mut insert)
            .collect::<Result<_, _>>()?;
        let known = u32::try_from(joint.len()).map_err(|_| OfflineError::TooManyItems)?;
        let mut insert = |id: &str| joint.insert(id).ok_or(OfflineError::TooManyItems);
        let of_history: Vec<u32> = history
            .log()
            .items()
            .iter()
            .map(&mut insert)
            .collect::<Result<_, _>>()?;
        let of_later: Vec<u32> = later
            .items()
            .iter()
            .map(&mut insert)
            .collect::<Result<_, _>>()?;

        let mut first_heard_us = vec![None; joint.len()];
        let mut listeners = vec![0u32; joint.len()];
        let mut last = None;
        for listen in history.log().listens()? {
            let listen = listen?;
            let item = of_history[listen.item as usize] as usize;
            let pair = Some((listen.user, listen.item));
            listeners[item] += u32::from(pair != last);
            last = pair;
            let first: &mut Option<i64> = &mut first_heard_us[item];
            *first = match (*first, listen.time_us) {
                (Some(a), Some(b)) => Some(a.min(b)),
                (a, b) => a.or(b),
            };
        }
        let heard = |user: u32| -> io::Result<Vec<u32>> {
            let listens = history.of(user)?;
            let items = listens
                .iter()
                .map(|listen| of_history[listen.item as usize]);
            let mut heard: Vec<u32> = items.collect();
            heard.sort_unstable();
            heard.dedup();
            Ok(heard)
        };

        let mut counts = OfflineCounts::default();
        let mut users = 0;
        let mut cases = Vec::new();
        for_each_user(later.listens()?, &mut Vec::new(), |user, listens| {
            users += 1;
            let id = later.users().get(user).unwrap_or_default();
            let Some(user) = history.log().users().ordinal(id) else {
                counts.users_unknown += 1;
                return Ok(());
            };
            let heard = heard(user)?;
            let items = listens.iter().map(|listen| of_later[listen.item as usize]);
            let mut truth: Vec<u32> = items.collect();
            truth.sort_unstable();
            truth.dedup();
            truth.retain(|item| heard.binary_search(item).is_err());
            let all = truth.len();
            truth.retain(|&item| item < known);
            counts.pairs_unknown += all - truth.len();
            counts.pairs += truth.len();
            if truth.is_empty() {
                counts.users_without_truth += 1;
                return Ok(());
            }
            // What they heard is known of those who are judged: most may not be.
            cases.push(Case {
                user,
                heard: Vec::new(),
                truth,
            });
            Ok::<(), io::Error>(())
        })?;
        counts.users_eligible = cases.len();
        if cases.is_empty() {
            return Err(OfflineError::Nobody {
                users,
                unknown: counts.users_unknown,
            });
        }
        let most = options.max_users.max(1);
        if cases.len() > most {
            cases.sort_by_cached_key(|case| (hash(options.seed, case.user, 0), case.user));
            cases.truncate(most);
        }
        cases.sort_unstable_by_key(|case| case.user);
        counts.users = cases.len();
        for case in &mut cases {
            case.heard = heard(case.user)?;
        }
        Ok(Self {
            listening,
            cases,
            counts,
            version: version.id(),
            of_champion,
            listeners,
            first_heard_us,
        })
    }

    /// The joint ordinal of a version's item.
    pub(super) fn joint(&self, version: &Version, item: u32) -> u32 {
        if version.id() == self.version {
            return item;
        }
        self.of_champion
            .get(item as usize)
            .copied()
            .unwrap_or(u32::MAX)
    }

    /// Listeners in the history of each joint item.
    pub(super) fn listeners(&self) -> Vec<u32> {
        self.listeners.clone()
    }

    /// All that was heard later.
    pub(super) fn truths(&self) -> impl Iterator<Item = &u32> {
        self.cases.iter().flat_map(|case| &case.truth)
    }

    /// The profile of a case, as the server would have it.
    pub(super) fn profile(&self, case: &Case) -> io::Result<Profile> {
        let history = self.listening.history;
        let user = history.log().users().get(case.user).unwrap_or_default();
        let rules = self.listening.exclusions.of(user).to_vec();
        Ok(Profile::new(1, history.events(case.user)?, rules))
    }

    /// What each list is worth by the truth that a share leaves; none where it leaves nothing.
    pub(super) fn scores(&self, lists: &[Vec<u32>], share: Share<'_>) -> Vec<Option<Scores>> {
        self.cases
            .iter()
            .zip(lists)
            .map(|(case, list)| {
                share
                    .has_case(case)
                    .then(|| judge_share(list, &case.truth, share))
                    .flatten()
            })
            .collect()
    }

    /// The most popular items of the version that a listener has not heard.
    pub(super) fn popular(&self, version: &Version) -> Vec<Vec<u32>> {
        let mut order: Vec<u32> = (0..version.items().len())
            .filter(|&item| !version.items().blocked(item))
            .collect();
        order.sort_by_key(|&item| (std::cmp::Reverse(self.listeners[item as usize]), item));
        let list = |case: &Case| {
            order
                .iter()
                .copied()
                .filter(|item| case.heard.binary_search(item).is_err())
                .take(LIST_LENGTH)
                .collect()
        };
        self.cases.iter().map(list).collect()
    }

    /// Items of the version by lot, none that the listener has heard and none twice.
    pub(super) fn chance(&self, version: &Version, seed: u64) -> Vec<Vec<u32>> {
        let n = version.items().len();
        let list = |case: &Case| {
            let mut list: Vec<u32> = Vec::with_capacity(LIST_LENGTH);
            for at in 0..u32::try_from(8 * LIST_LENGTH).unwrap_or(u32::MAX) {
                let item = u32::try_from(draw(seed, case.user, at, n as usize)).unwrap_or_default();
                if list.len() < LIST_LENGTH
                    && !list.contains(&item)
                    && case.heard.binary_search(&item).is_err()
                {
                    list.push(item);
                }
            }
            list
        };
        self.cases.iter().map(list).collect()
    }
}
