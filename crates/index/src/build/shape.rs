//! Links that answers lacked, under inner product.
//!
//! Every link was chosen among what is near an item. Under inner product those who ask are not like the items, and what
//! is in an answer may be linked from nothing better in it: a narrow walk then ends before it is met. So, once the graph
//! is linked, it is asked; and where an answer has such a gap, one of the better items in it gets the link that closes
//! it, in a free slot or in place of a link that closed fewer. Links between the answers to one query are the idea of
//! RoarGraph (Chen et al., VLDB 2024), whose graph consists of them; here they are entered where they are missing.
//!
//! Asked by the users, where there are any, and by the items: on factors of a real log (40,981 × 64) and on generated
//! ones (100,000 × 64) links for the items alone are worth as much to users as links for users alone. Under cosine and
//! l2 there is nothing to gain (less than 0.003 of recall on three sets): who asks is alike to what is found.

use std::{cmp::Reverse, collections::HashMap};

use rayon::prelude::*;

use super::{Coded, Draft, levels::hash, probe::Probe};
use crate::{codes::CodeQuery, heads::Heads, layout::EMPTY, scratch::Scratch, walk::count};

/// Items for each that asks; half of those are users, where there are any.
pub(super) const SHARE: usize = 4;

/// Of the longest vectors, how many the walks that ask begin with.
const SEEDS: usize = 128;

/// Width of those walks.
const EF: usize = 32;

/// How much of an answer is to be free of gaps.
const DEPTH: usize = 24;

/// Gaps that a link must close to be entered: one may be of that query alone.
const LEAST_CLOSED: usize = 2;

/// Links that an item gets at most.
const MOST_LINKS: usize = 4;

/// Rounds in which links are entered. In each an item gets one; who finds no room asks again elsewhere.
const ROUNDS: usize = 8;

/// The part of a row that may give way to links for answers.
const YIELDING: usize = 4;

/// Links to an item beyond which one of them may give way: the less it is linked, the likelier it hangs on each.
const WELL_LINKED: u32 = 8;

/// Who asks.
pub(super) struct Queries<'a> {
    /// Vectors of users, `dim` each.
    pub(super) users: &'a [f32],
    /// Places of items.
    pub(super) items: Vec<u32>,
}

impl<'a> Queries<'a> {
    /// Of `users`, vectors of `dim`, the first, and of all items, half as many of those that are not of `linked`: where
    /// an index starts from another, they have links for answers already, but for what was in these and moved away.
    pub(super) fn draw(
        (users, dim): (&'a [f32], usize),
        linked: &[u32],
        places: &[u32],
        seed: u64,
    ) -> Self {
        let new = if users.is_empty() { SHARE } else { 2 * SHARE };
        let mut share = vec![2 * new; places.len()];
        for ordinal in linked {
            share[*ordinal as usize] = new;
        }
        let asks =
            |ordinal: &u32| hash(!seed, *ordinal) < u64::MAX / share[*ordinal as usize] as u64;
        let items = (0..count(places.len())).filter(asks);
        let items: Vec<u32> = items.map(|ordinal| places[ordinal as usize]).collect();
        let users = &users[..users.len().min(items.len() * dim)];
        Self { users, items }
    }
}

/// Enters links that close gaps in the answers to `queries`; returns how many. Items lie in their order: the longest
/// first. O(queries · (a walk of [`EF`] + [`DEPTH`] · m)); holds some 0.4 KB a query.
pub(super) fn shape(draft: &mut Draft, coded: &Coded, queries: &Queries<'_>) -> usize {
    let answers = Answers::find(draft, coded, queries);
    // What any search scores need not be linked.
    let head = Heads::new(&coded.lengths, draft.n).at(1, draft.n);
    let (uses, mut unlinked) = answers.survey(draft, head);
    let mut rows = Rows::new(draft, &uses);
    for _ in 0..ROUNDS {
        let asked = unlinked.par_iter().enumerate();
        let wishes = asked.map_init(Vec::new, |votes, (by, item)| {
            item.wish(by, &answers, &rows.bars, votes)
        });
        let mut wishes: Vec<Wish> = wishes.flatten().collect();
        if wishes.is_empty() {
            break;
        }
        wishes.par_sort_unstable();
        for wish in wishes {
            if rows.enter(wish) {
                unlinked[wish.by].closed(wish.source, &answers);
            }
        }
    }
    rows.entered
}

/// The best [`DEPTH`] places for each query, best first; where there are fewer, [`EMPTY`] follows.
struct Answers(Vec<[u32; DEPTH]>);

impl Answers {
    fn find(draft: &Draft, coded: &Coded, queries: &Queries<'_>) -> Self {
        let longest: Vec<u32> = (0..count(draft.n.min(SEEDS))).collect();
        let memory = || (Scratch::new(), CodeQuery::default());
        let ask = |scratch: &mut Scratch, query: &CodeQuery| {
            let probe = Probe {
                draft,
                coded,
                query,
                seeds: &longest,
                ef: EF,
                scratch,
            };
            probe.walk();
            let mut answer = [EMPTY; DEPTH];
            let found = scratch.pool.items().iter();
            for (slot, found) in answer.iter_mut().zip(found) {
                *slot = found.position();
            }
            answer
        };
        let users = queries.users.par_chunks_exact(coded.dim);
        let users = users.map_init(memory, |(scratch, query), user| {
            let mut row = std::mem::take(&mut scratch.row);
            coded.space().code_for_walk(user, &mut row, query);
            scratch.row = row;
            ask(scratch, query)
        });
        let items = queries.items.par_iter();
        let items = items.map_init(memory, |(scratch, query), item| {
            coded.query(*item, query);
            ask(scratch, query)
        });
        Self(users.chain(items).collect())
    }

    /// What of the answer to a query is better than an item in it.
    fn better(&self, query: u32, item: u32) -> &[u32] {
        let answer = &self.0[query as usize];
        let rank = answer.iter().position(|found| *found == item);
        &answer[..rank.unwrap_or(0)]
    }

    /// How often each link led to something from something better, and what nothing better leads to.
    fn survey(&self, draft: &Draft, head: usize) -> (Uses, Vec<Unlinked>) {
        let base = draft.graph().base();
        let (mut uses, mut gaps) = (Vec::new(), Vec::new());
        let found = self.0.par_iter().enumerate().map(|(query, answer)| {
            let query = count(query);
            let (mut used, mut gaps) = (Vec::new(), Vec::new());
            for (rank, item) in answer.iter().enumerate().skip(1) {
                if (*item as usize) < head || *item == EMPTY {
                    continue;
                }
                let mut better = answer[..rank].iter();
                match better.find(|place| base.row(**place).contains(item)) {
                    Some(from) => used.push((*from, *item)),
                    None => gaps.push((*item, query)),
                }
            }
            (used, gaps)
        });
        for (used, missing) in found.collect::<Vec<_>>() {
            uses.extend(used);
            gaps.extend(missing);
        }
        uses.par_sort_unstable();
        gaps.par_sort_unstable();
        let unlinked = gaps.chunk_by(|a, b| a.0 == b.0).map(|gaps| Unlinked {
            item: gaps[0].0,
            gaps: gaps.iter().map(|(_, query)| *query).collect(),
            links: 0,
        });
        (Uses(uses), unlinked.collect())
    }
}

/// The links that answers used, as `(from, to)`, once for each use, in order.
struct Uses(Vec<(u32, u32)>);

impl Uses {
    fn of(&self, from: u32, to: u32) -> usize {
        let link = (from, to);
        let start = self.0.partition_point(|used| *used < link);
        self.0[start..].partition_point(|used| *used == link)
    }
}

/// An item that is in answers in which nothing better leads to it.
struct Unlinked {
    item: u32,
    /// The queries of those answers.
    gaps: Vec<u32>,
    /// Links that it got.
    links: usize,
}

/// The link that closes most gaps of an item. In the order in which they are entered: by source, the most wanted first.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Wish {
    source: u32,
    closes: Reverse<usize>,
    target: u32,
    /// Which of the unlinked it is of.
    by: usize,
}

impl Unlinked {
    /// `bars` says of each place how many gaps a link from it must close more than.
    fn wish(
        &self,
        by: usize,
        answers: &Answers,
        bars: &[usize],
        votes: &mut Vec<u32>,
    ) -> Option<Wish> {
        if self.links == MOST_LINKS || self.gaps.len() < LEAST_CLOSED {
            return None;
        }
        votes.clear();
        for query in &self.gaps {
            votes.extend(answers.better(*query, self.item));
        }
        votes.sort_unstable();
        let sources = votes.chunk_by(|a, b| a == b);
        let enough =
            |votes: &&[u32]| votes.len() >= LEAST_CLOSED && votes.len() > bars[votes[0] as usize];
        let best = sources
            .filter(enough)
            .max_by_key(|votes| (votes.len(), Reverse(votes[0])))?;
        Some(Wish {
            source: best[0],
            closes: Reverse(best.len()),
            target: self.item,
            by,
        })
    }

    /// Something leads to it from now on.
    fn closed(&mut self, from: u32, answers: &Answers) {
        self.links += 1;
        let item = self.item;
        self.gaps
            .retain(|query| !answers.better(*query, item).contains(&from));
    }
}

/// The rows of the base layer as links are entered.
struct Rows<'a> {
    draft: &'a mut Draft,
    uses: &'a Uses,
    /// Of each place, how many links lead to it.
    inward: Vec<u32>,
    /// Of each place, how many gaps a link from it must close more than to find room.
    bars: Vec<usize>,
    yielding: HashMap<u32, Yielding>,
    entered: usize,
}

/// What of a row gives way.
struct Yielding {
    /// Slots with the uses of the link in them, the least used last.
    slots: Vec<(usize, Reverse<usize>)>,
    /// How many more may.
    left: usize,
}

impl<'a> Rows<'a> {
    fn new(draft: &'a mut Draft, uses: &'a Uses) -> Self {
        let mut inward = vec![0; draft.n];
        for link in draft.links.iter().filter(|link| **link != EMPTY) {
            inward[*link as usize] += 1;
        }
        Self {
            bars: vec![0; draft.n],
            draft,
            uses,
            inward,
            yielding: HashMap::new(),
            entered: 0,
        }
    }

    /// Enters the link if there is room for it.
    fn enter(&mut self, wish: Wish) -> bool {
        let Wish {
            source,
            closes: Reverse(closes),
            target,
            ..
        } = wish;
        let (uses, inward) = (self.uses, &mut self.inward);
        let row = self.draft.row_mut(0, source);
        // Before anything is entered: what was not there could not be used.
        let yielding = self.yielding.entry(source).or_insert_with(|| {
            let links = row.iter().enumerate();
            let given = links.filter(|(_, link)| **link != EMPTY);
            let mut slots: Vec<_> = given
                .map(|(slot, link)| (uses.of(source, *link), Reverse(slot)))
                .collect();
            slots.sort_unstable_by_key(|slot| Reverse(*slot));
            let left = row.len() / YIELDING;
            Yielding { slots, left }
        });
        let free = row.iter().position(|link| *link == EMPTY);
        let Some(slot) = free.or_else(|| yielding.give_way(row, closes, inward)) else {
            self.bars[source as usize] = yielding.bar();
            return false;
        };
        row[slot] = target;
        inward[target as usize] += 1;
        self.entered += 1;
        true
    }
}

impl Yielding {
    /// The slot of the least used link, if that is used less than `closes`.
    fn give_way(&mut self, row: &[u32], closes: usize, inward: &mut [u32]) -> Option<usize> {
        while self.left > 0 {
            let (_, Reverse(slot)) = *self.slots.last().filter(|(uses, _)| *uses < closes)?;
            self.slots.pop();
            let linked = &mut inward[row[slot] as usize];
            if *linked > WELL_LINKED {
                *linked -= 1;
                self.left -= 1;
                return Some(slot);
            }
        }
        None
    }

    /// What a link must be used more than for one to give way to it.
    fn bar(&self) -> usize {
        match self.slots.last() {
            Some((uses, _)) if self.left > 0 => *uses,
            _ => usize::MAX,
        }
    }
}
