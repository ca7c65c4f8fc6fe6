//! Linking items batch by batch.
//!
//! A batch is linked in two phases, each parallel and free of locks. First every item of it looks
//! for its neighbours: by a walk of the graph as it was *before* the batch, and exactly among the
//! items that come before it in the batch. Then links are entered, those back grouped by target,
//! so that each row has one writer. What comes out is a function of the order alone, whatever the
//! threads.

use std::sync::{Mutex, PoisonError};

use rayon::prelude::*;
use refrain_kernels::{
    Kernels, Metric,
    codes::{BLOCK, Simd, Task},
};

use super::{
    BuildError, BuildParams, Checkpoints, Coded, Draft, Progress, levels, prune::PruneScratch,
};
use crate::{
    codes::CodeQuery,
    layout::{EMPTY, Layer},
    pool::Ranked,
    scratch::Scratch,
    space::Scores as _,
    walk::{self, Spent},
};

/// Items linked at a time: enough to keep many threads busy, few enough for the scores within a
/// batch to be a small part of the work.
pub(super) const BATCH: usize = 512;

/// Which part of a row that overflows is left free when it is pruned, so that the next links back
/// are entered as they come. Pruned to the full degree, a row of a popular item would be pruned
/// again for every batch.
const HEADROOM: usize = 8;

/// How much larger than it is a norm may count, at most, in the order of linking. Twice as much
/// gains 0.007 of recall@10 at `ef_search` 50 on generated factors (100,000 × 64) and loses 0.004
/// on Gowalla's.
const BLUR: f32 = 1.0;

/// Links the items of `order`, to each other and to what is linked already.
pub(super) fn insert(
    draft: &mut Draft,
    coded: &Coded,
    order: &[u32],
    start: Start,
    params: &BuildParams,
    (progress, checkpoints): (&dyn Progress, &dyn Checkpoints),
) -> Result<(), BuildError> {
    let workers = Workers::new(params.threads);
    let ef = params.beam(draft.n).max(params.m);
    let among = start.base.is_some() && coded.metric == Metric::InnerProduct;
    let among = among.then_some(params.seed);
    let done = draft.go_on(checkpoints, order.len());
    let mut inserted = 0;
    let Start { mut top, mut base } = start;
    for batch in order.chunks(BATCH) {
        let look = Look {
            ef,
            start: Start { top, base },
            among,
        };
        if inserted >= done {
            let chosen = choose(draft, coded, look, batch, &workers);
            let back = enter(draft, &chosen);
            link_back(draft, coded, &back, &workers);
        }
        let positions = batch.iter().map(|item| draft.nav_position[*item as usize]);
        top = top
            .into_iter()
            .chain(positions.filter(|position| *position != EMPTY))
            .min();
        base = base.or(batch.first().copied());
        inserted += batch.len();
        progress.advance(inserted as u64, order.len() as u64);
        if inserted > done {
            draft.keep(checkpoints, inserted)?;
        }
    }
    Ok(())
}

/// The items in the order they are linked in.
///
/// Under inner product by rising norm, blurred: each norm counts as up to [`BLUR`] larger than it
/// is. Items of large norm are in most answers and in most items' lists of candidates. Linked
/// late, they choose among all that is there, and their rows are not yet flooded by links back
/// from smaller ones; linked early, they fill every later row and crowd out all else. Blurring
/// lets an item begin with a few neighbours larger than itself, without which the graph of a
/// catalogue of like norms leads only downwards. The blur is relative to the norm, not to its
/// rank: ranks bring the few giants of a heavy tail in among the small.
pub(super) fn order(items: Vec<u32>, seed: u64, coded: &Coded) -> Vec<u32> {
    if coded.metric != Metric::InnerProduct {
        return items;
    }
    let turns = items.into_iter().map(|item| turn(item, seed, coded));
    let mut order: Vec<Ranked> = turns.collect();
    order.sort_unstable();
    order.into_iter().map(Ranked::position).collect()
}

/// When an item is linked, under inner product: smaller ones of the order come first.
#[inline(always)]
fn turn(item: u32, seed: u64, coded: &Coded) -> Ranked {
    let draw = u16::try_from(levels::hash(!seed, item) >> 48).unwrap_or(0);
    let factor = 1.0 + BLUR * f32::from(draw) / 65_536.0;
    Ranked::new(coded.inverse_norms[item as usize] / factor, item)
}

/// Where walks of a graph under construction begin.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Start {
    /// Position of the highest item in it, if any is above the base.
    pub(super) top: Option<u32>,
    /// An item in it, if any.
    pub(super) base: Option<u32>,
}

/// How neighbours are looked for.
#[derive(Clone, Copy, Debug)]
struct Look {
    /// Width of the beam.
    ef: usize,
    start: Start,
    /// The seed of the order, where items whose turn comes later are in the graph already.
    ///
    /// An item then gets the links that it would have if it had come in its turn: to those before it,
    /// looked for in its direction, and, half as many, to those after it that would have chosen it. With
    /// links to the best alone, which are the largest, hardly one links back: on Gowalla's factors as many as
    /// there were new ones had to be repaired in every cycle of `examples/upkeep.rs`, at the
    /// expense of the largest items' rows, and recall@10 at `ef_search` 64 fell by 0.026 in 100 cycles.
    /// Like this it stays where a full build is (0.998 and 0.997).
    among: Option<u64>,
}

/// The links chosen for one item on one layer, as positions of that layer.
struct Chosen {
    layer: usize,
    position: u32,
    links: Vec<u32>,
}

/// A link from a new node to be returned by its target.
#[derive(Clone, Copy, PartialEq, Eq, PartialOrd, Ord)]
struct Back {
    layer: usize,
    target: u32,
    source: u32,
}

/// First phase: the neighbours of every item of the batch, on each of its layers.
fn choose(
    draft: &Draft,
    coded: &Coded,
    look: Look,
    batch: &[u32],
    workers: &Workers,
) -> Vec<Chosen> {
    let each = (0..batch.len()).into_par_iter().with_max_len(8).map(|at| {
        workers.with(|worker| {
            Kernels::active().run(Neighbours {
                draft,
                coded,
                look,
                item: batch[at],
                before: &batch[..at],
                worker,
            })
        })
    });
    each.collect::<Vec<_>>().into_iter().flatten().collect()
}

/// Enters the links of the batch; returns what their targets are to link back, by target.
fn enter(draft: &mut Draft, chosen: &[Chosen]) -> Vec<Back> {
    let mut back = Vec::with_capacity(chosen.iter().map(|chosen| chosen.links.len()).sum());
    for Chosen {
        layer,
        position,
        links,
    } in chosen
    {
        let (layer, source) = (*layer, *position);
        draft.row_mut(layer, source)[..links.len()].copy_from_slice(links);
        back.extend(links.iter().map(|&target| Back {
            layer,
            target,
            source,
        }));
    }
    back.par_sort_unstable();
    back
}

/// Second phase: every target takes up its links back, or the best of them and its own.
fn link_back(draft: &mut Draft, coded: &Coded, back: &[Back], workers: &Workers) {
    let (places, mut rows) = draft.rows_by_turn();
    let groups = back.chunk_by(|a, b| (a.layer, a.target) == (b.layer, b.target));
    let mut row_of = |group: &[Back]| rows.next(group[0].layer, group[0].target);
    let groups: Vec<(&[Back], &mut [u32])> = groups.map(|group| (group, row_of(group))).collect();
    groups.into_par_iter().for_each(|(group, row)| {
        workers.with(|worker| take_up(places, coded, group, row, worker));
    });
}

/// Enters links back into the row of their target, or the best of them and its own.
fn take_up(
    places: Places<'_>,
    coded: &Coded,
    group: &[Back],
    row: &mut [u32],
    worker: &mut Worker,
) {
    let known = row.iter().position(|link| *link == EMPTY);
    let known = known.unwrap_or(row.len());
    let mut links = std::mem::take(&mut worker.links);
    links.clear();
    links.extend_from_slice(&row[..known]);
    let sources = group.iter().map(|back| back.source);
    links.extend(sources.filter(|source| !row[..known].contains(source)));
    if links.len() <= row.len() {
        row[known..links.len()].copy_from_slice(&links[known..]);
    } else {
        let at = (group[0].layer, group[0].target);
        let room = row.len() - row.len() / HEADROOM;
        let kept = best(places, coded, at, &links, room, worker);
        row[..kept.len()].copy_from_slice(kept);
        row[kept.len()..].fill(EMPTY);
    }
    worker.links = links;
}

/// Looks for the neighbours of a new item on each of its layers, from the top.
struct Neighbours<'a> {
    draft: &'a Draft,
    coded: &'a Coded,
    look: Look,
    item: u32,
    before: &'a [u32],
    worker: &'a mut Worker,
}

impl Task for Neighbours<'_> {
    type Output = Vec<Chosen>;

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> Vec<Chosen> {
        match self.coded.walk_stride() / BLOCK {
            2 => self.go::<S, 2>(simd),
            4 => self.go::<S, 4>(simd),
            _ => self.go::<S, 0>(simd),
        }
    }
}

impl Neighbours<'_> {
    #[inline(always)]
    fn go<S: Simd, const B: usize>(self, simd: S) -> Vec<Chosen> {
        let Self {
            draft,
            coded,
            look,
            item,
            before,
            worker,
        } = self;
        let Look { ef, start, among } = look;
        let Worker {
            search,
            prune,
            candidates,
            kept,
            ends,
            later,
            scores,
            query,
            ..
        } = worker;
        coded.query(item, query);
        let scorer = coded.space().walker::<B>(query);
        let own = draft.nav_position[item as usize];
        let own_layers = draft.layers_of(own);
        let top_layers = start.top.map_or(0, |top| draft.layers_of(top));
        let mut spent = Spent::default();
        let mut position = start.top;
        for number in (own_layers + 1..=top_layers).rev() {
            let layer = draft.layer(number);
            let from = position.unwrap_or(0);
            let block = &mut search.block;
            position = Some(walk::greedy(simd, &layer, &scorer, from, block, &mut spent));
        }
        let mut chosen = Vec::with_capacity(own_layers + 1);
        for number in (0..=own_layers).rev() {
            let layer = draft.layer(number);
            let at = draft.position(number, item);
            let Scratch {
                pool,
                visited,
                block,
                ..
            } = &mut *search;
            pool.reset(ef);
            visited.reset(layer.len);
            visited.insert(at);
            // Exactly, among those before it in the batch.
            ends.clear();
            let mates = before.iter().filter(|mate| {
                let position = draft.position(number, **mate);
                (position as usize) < layer.len && visited.insert(position)
            });
            ends.extend(mates);
            scores.resize(ends.len().max(scores.len()), 0.0);
            for end in &*ends {
                scorer.prefetch(*end);
            }
            scorer.score(simd, ends, scores);
            candidates.clear();
            candidates.extend(
                ends.iter()
                    .zip(&*scores)
                    .map(|(mate, score)| Ranked::new(*score, draft.position(number, *mate))),
            );
            pool.fill(candidates);
            let seed = match number {
                0 => position.map_or(start.base, |position| {
                    Some(draft.nav_items[position as usize])
                }),
                _ if number <= top_layers => position,
                _ => None,
            };
            let beam = walk::Beam {
                layer: &layer,
                scorer: &scorer,
                seeds: seed.as_slice(),
                deadline: None,
                pool,
                marks: visited.marks(layer.len),
                block,
                spent: &mut spent,
            };
            beam.run(simd);
            candidates.clear();
            candidates.extend(
                pool.items()
                    .iter()
                    .map(|found| found.at(layer.item(found.position()))),
            );
            if number > 0 && number <= top_layers {
                // The best of the batch has no links yet: go down from the best that has.
                let linked = pool.items().iter().map(|found| found.position());
                let mut linked = linked.filter(|at| layer.row(*at)[0] != EMPTY);
                position = linked.next().or(position);
            }
            let mut links: Vec<u32> = Vec::with_capacity(draft.m);
            let mut link = |kept: &[u32]| {
                links.extend(kept.iter().map(|end| draft.position(number, *end)));
            };
            let mut room = draft.m;
            if let Some(seed) = among {
                let own_turn = turn(item, seed, coded);
                let earlier = |other: &Ranked| turn(other.position(), seed, coded) < own_turn;
                if candidates.iter().filter(|other| earlier(other)).count() < ef / 2 {
                    // By the bare product a walk leads to the largest: the others by direction.
                    let directed = scorer.weighted(&coded.inverse_norms);
                    ends.clear();
                    ends.extend(
                        pool.items()
                            .iter()
                            .take(SEEDS)
                            .map(|found| found.position()),
                    );
                    pool.reset(ef);
                    visited.reset(layer.len);
                    visited.insert(at);
                    let beam = walk::Beam {
                        layer: &layer,
                        scorer: &directed,
                        seeds: ends,
                        deadline: None,
                        pool,
                        marks: visited.marks(layer.len),
                        block,
                        spent: &mut spent,
                    };
                    beam.run(simd);
                    let found = pool
                        .items()
                        .iter()
                        .map(|found| layer.item(found.position()));
                    ends.clear();
                    ends.extend(found);
                    ends.retain(|end| !candidates.iter().any(|known| known.position() == *end));
                    scores.resize(ends.len().max(scores.len()), 0.0);
                    scorer.score(simd, ends, scores);
                    let found = ends.iter().zip(&*scores);
                    candidates.extend(found.map(|(end, score)| Ranked::new(*score, *end)));
                    candidates.sort_unstable();
                }
                later.clear();
                later.extend(candidates.iter().filter(|other| !earlier(other)));
                candidates.retain(earlier);
                coded.select::<S, B>(simd, item, later, draft.m / 2, prune, kept);
                link(kept);
                room = room.min(layer.degree - kept.len());
            }
            coded.select::<S, B>(simd, item, candidates, room, prune, kept);
            link(kept);
            chosen.push(Chosen {
                layer: number,
                position: at,
                links,
            });
        }
        chosen
    }
}

/// The links that a node of a layer, given by its position, keeps of more than there is room for.
pub(super) fn best<'a>(
    places: Places<'a>,
    coded: &'a Coded,
    (number, position): (usize, u32),
    links: &'a [u32],
    room: usize,
    worker: &'a mut Worker,
) -> &'a [u32] {
    Kernels::active().run(Best {
        places,
        coded,
        number,
        position,
        links,
        room,
        worker,
    })
}

struct Best<'a> {
    places: Places<'a>,
    coded: &'a Coded,
    number: usize,
    position: u32,
    links: &'a [u32],
    room: usize,
    worker: &'a mut Worker,
}

impl<'a> Task for Best<'a> {
    type Output = &'a [u32];

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) -> &'a [u32] {
        match self.coded.walk_stride() / BLOCK {
            2 => self.go::<S, 2>(simd),
            4 => self.go::<S, 4>(simd),
            _ => self.go::<S, 0>(simd),
        }
    }
}

impl<'a> Best<'a> {
    #[inline(always)]
    fn go<S: Simd, const B: usize>(self, simd: S) -> &'a [u32] {
        let Self {
            places,
            coded,
            number,
            position,
            links,
            room,
            worker,
        } = self;
        let Worker {
            prune,
            candidates,
            kept,
            ends,
            scores,
            query,
            ..
        } = worker;
        ends.clear();
        ends.extend(links.iter().map(|link| places.item(number, *link)));
        let item = places.item(number, position);
        coded.query(item, query);
        let scorer = coded.space().walker::<B>(query);
        ends.iter().for_each(|end| scorer.prefetch(*end));
        scores.resize(ends.len().max(scores.len()), 0.0);
        scorer.score(simd, ends, scores);
        candidates.clear();
        candidates.extend(
            ends.iter()
                .zip(&*scores)
                .map(|(end, score)| Ranked::new(*score, *end)),
        );
        candidates.sort_unstable();
        coded.select::<S, B>(simd, item, candidates, room, prune, kept);
        for end in &mut *kept {
            *end = places.position(number, *end);
        }
        kept
    }
}

/// The memory of one thread.
#[derive(Debug, Default)]
pub(super) struct Worker {
    search: Scratch,
    prune: PruneScratch,
    candidates: Vec<Ranked>,
    kept: Vec<u32>,
    ends: Vec<u32>,
    later: Vec<Ranked>,
    links: Vec<u32>,
    scores: Vec<f32>,
    query: CodeQuery,
}

/// Items that a second walk starts from.
const SEEDS: usize = 8;

/// One worker a thread of the pool, so that its memory is used again.
pub(super) struct Workers(Vec<Mutex<Worker>>);

impl Workers {
    pub(super) fn new(threads: usize) -> Self {
        Self((0..threads).map(|_| Mutex::default()).collect())
    }

    /// Never waits: each thread of the pool has its own.
    pub(super) fn with<T>(&self, work: impl FnOnce(&mut Worker) -> T) -> T {
        let own = rayon::current_thread_index().unwrap_or(0) % self.0.len();
        // Everything in a worker is reset before use: what a panic left does no harm.
        work(&mut self.0[own].lock().unwrap_or_else(PoisonError::into_inner))
    }
}

impl Draft {
    /// Layer `number`, 0 being the base.
    pub(super) fn layer(&self, number: usize) -> Layer<'_> {
        if number == 0 {
            self.graph().base()
        } else {
            self.graph().above(number)
        }
    }

    /// Where an item is on a layer; [`EMPTY`] or past the layer's end if it is not there.
    fn position(&self, number: usize, item: u32) -> u32 {
        self.places().position(number, item)
    }

    /// Which items are where.
    pub(super) fn places(&self) -> Places<'_> {
        Places {
            nav_items: &self.nav_items,
            nav_position: &self.nav_position,
        }
    }

    /// The same, and all rows, to be written to.
    fn rows_by_turn(&mut self) -> (Places<'_>, RowsByTurn<'_>) {
        let places = Places {
            nav_items: &self.nav_items,
            nav_position: &self.nav_position,
        };
        let rows = RowsByTurn {
            base: Rest::new(&mut self.links, 2 * self.m),
            above: Rest::new(&mut self.nav_links, self.m),
            counts: &self.counts,
        };
        (places, rows)
    }

    /// Layers above the base that an upper-layer position is on.
    pub(super) fn layers_of(&self, position: u32) -> usize {
        self.counts
            .iter()
            .take_while(|count| position < **count)
            .count()
    }
}

/// Which items are where on the layers.
#[derive(Clone, Copy, Debug)]
pub(super) struct Places<'a> {
    nav_items: &'a [u32],
    nav_position: &'a [u32],
}

impl Places<'_> {
    /// The item at a position of a layer.
    fn item(self, number: usize, position: u32) -> u32 {
        match number {
            0 => position,
            _ => self.nav_items[position as usize],
        }
    }

    /// Where an item is on a layer; [`EMPTY`] or past the layer's end if it is not there.
    fn position(self, number: usize, item: u32) -> u32 {
        match number {
            0 => item,
            _ => self.nav_position[item as usize],
        }
    }
}

/// Rows of all layers, given out in the order of layers and positions, each once: so that threads may write to them.
struct RowsByTurn<'a> {
    base: Rest<'a>,
    above: Rest<'a>,
    counts: &'a [u32],
}

impl<'a> RowsByTurn<'a> {
    /// The row of a position of a layer, which comes after all that were asked for.
    fn next(&mut self, layer: usize, position: u32) -> &'a mut [u32] {
        let Some(above) = layer.checked_sub(1) else {
            return self.base.row(position as usize);
        };
        let before: usize = self.counts[..above]
            .iter()
            .map(|count| *count as usize)
            .sum();
        self.above.row(before + position as usize)
    }
}

/// The rows that are left.
struct Rest<'a> {
    rows: &'a mut [u32],
    /// Number of the first one that is left.
    first: usize,
    degree: usize,
}

impl<'a> Rest<'a> {
    fn new(rows: &'a mut [u32], degree: usize) -> Self {
        Self {
            rows,
            first: 0,
            degree,
        }
    }

    fn row(&mut self, number: usize) -> &'a mut [u32] {
        let rows = std::mem::take(&mut self.rows);
        let (_, rows) = rows.split_at_mut((number - self.first) * self.degree);
        let (row, rest) = rows.split_at_mut(self.degree);
        (self.rows, self.first) = (rest, number + 1);
        row
    }
}
