//! Starting from the graph of a parent: who hardly moved keeps its links.
//!
//! Items of the parent that are still there and near where they were ("kept") take their rows with
//! them, less the links to items that are gone or elsewhere. A row that lost many is filled again
//! from the rows of those it lost (as deletion in Singh et al., *FreshDiskANN*, 2021, algorithm 4);
//! one that lost nearly all is linked anew, like the items that are new or moved.

use std::io;

use rayon::prelude::*;
use refrain_kernels::Lines;

use super::{
    Begun, BuildParams, Coded, Draft, Parent,
    coded::prepare,
    copies::Copies,
    insert::{self, Start, Workers},
    levels,
};
use crate::{
    index::Index,
    layout::{EMPTY, Graph, Layer, RowSet},
    walk::count,
};

/// How far an item may be from where it was and keep its links, relative to how far its neighbours
/// are (root mean square).
///
/// A log of 12 million listens, 5 % of it new (290,870 × 64): of those it knew, 11,300 moved further than half of
/// that, 4,300 than all and 2,600 than twice; the graph took 2.2, 1.8 and 1.5 s, recall@10 at `ef_search` 64 was 0.9996
/// each time (0.9983 linked anew, in 5.4 s). Linking anew what is near does harm, if anything: it comes last among
/// items that are no smaller, and takes the places of others in their rows.
const NEAR: f32 = 1.0;

/// Neighbours that this is judged by, the first of its row.
const JUDGES: usize = 8;

/// Links of a lost neighbour that may take its place, the first of its row.
const BEYOND: usize = 20;

/// The graph of `parent` as far as it holds for the new items, and what is to be linked.
///
/// # Errors
/// When the system has not the memory.
pub(super) fn begin(
    parent: &Parent<'_>,
    vectors: &[f32],
    coded: &Coded,
    copies: &Copies,
    params: &BuildParams,
) -> io::Result<Begun> {
    let n = parent.origin.len();
    let mut old = Old::new(parent);
    let nav = levels::given(n, copies, |item| match old.place_of[item as usize] {
        EMPTY => levels::level(params, item),
        place => old.level(place),
    });
    let mut draft = Draft::new(n, params, coded, copies, nav)?;
    let moved: Vec<bool> = vectors
        .par_chunks_exact(coded.dim)
        .zip(&old.place_of)
        .map_init(Judge::default, |judge, (vector, place)| {
            *place == EMPTY || judge.is_far(parent.index, vector, *place)
        })
        .collect();
    let kept = |item: u32| !moved[item as usize] && !copies.contains(item);
    old.forget(|item| !kept(item));
    let workers = Workers::new(params.threads);
    for number in 0..=draft.layers.min(old.graph.layers) {
        old.take_rows(&mut draft, number);
        old.fill_rows(&mut draft, coded, number, &workers);
    }
    // What is left with hardly a link leads nowhere, and nothing may lead to it.
    let base = draft.graph().base();
    let least = params.m / 2;
    let thin = |item: u32| base.row(item)[least] == EMPTY;
    let (anew, linked): (Vec<u32>, Vec<u32>) = (0..count(n))
        .filter(|item| !copies.contains(*item))
        .partition(|item| !kept(*item) || thin(*item));
    let entry = Some(draft.entry).filter(|entry| linked.binary_search(entry).is_ok());
    let top = draft.nav_items.iter().zip(0..);
    let mut top = top.filter(|(item, _)| linked.binary_search(item).is_ok());
    let start = Start {
        top: top.next().map(|(_, position)| position),
        base: entry.or(linked.first().copied()),
    };
    for item in &anew {
        draft.row_mut(0, *item).fill(EMPTY);
        let position = draft.nav_position[*item as usize];
        for number in 1..=draft.layers_of(position) {
            draft.row_mut(number, position).fill(EMPTY);
        }
    }
    Ok(Begun {
        draft,
        order: anew,
        start,
    })
}

/// The parent, by its places.
struct Old<'a> {
    graph: Graph<'a>,
    /// Of each new item its place in the parent, or [`EMPTY`].
    place_of: Vec<u32>,
    /// Of each place of the parent the new item, or [`EMPTY`]; once some are [forgotten](Self::forget), only one that
    /// keeps its links.
    item_at: Vec<u32>,
    /// Of each place of the parent its position above the base, or [`EMPTY`].
    position_of: Vec<u32>,
}

impl<'a> Old<'a> {
    fn new(parent: &Parent<'a>) -> Self {
        let (index, graph) = (parent.index, parent.index.graph());
        let mut item_at = vec![EMPTY; graph.n];
        let places = parent.origin.iter().zip(0..).map(|(origin, item)| {
            let place = origin.and_then(|ordinal| index.place(ordinal));
            let taken = place.filter(|place| item_at[*place as usize] == EMPTY);
            taken.inspect(|place| item_at[*place as usize] = item)
        });
        let place_of = places.map(|place| place.unwrap_or(EMPTY)).collect();
        let mut position_of = vec![EMPTY; graph.n];
        for (place, position) in graph.nav_items.iter().zip(0..) {
            // A damaged parent may hold any place.
            if let Some(of) = position_of.get_mut(*place as usize) {
                *of = position;
            }
        }
        Self {
            graph,
            place_of,
            item_at,
            position_of,
        }
    }

    /// From here on only items that keep their links are at a place.
    fn forget(&mut self, gone: impl Fn(u32) -> bool) {
        for item in &mut self.item_at {
            if *item != EMPTY && gone(*item) {
                *item = EMPTY;
            }
        }
    }

    /// Whether an item keeps its links.
    fn keeps(&self, item: u32) -> bool {
        let place = self.place_of[item as usize];
        place != EMPTY && self.item_at[place as usize] != EMPTY
    }

    /// The top layer of a place.
    fn level(&self, place: u32) -> usize {
        let position = self.position_of[place as usize];
        let on = self.graph.counts.iter();
        on.take_while(|count| position < **count).count()
    }

    fn layer(&self, number: usize) -> Layer<'a> {
        match number {
            0 => self.graph.base(),
            _ => self.graph.above(number),
        }
    }

    /// The row of a new item in the parent, as places; nothing where it was not on the layer.
    fn row(&self, number: usize, place: u32) -> impl Iterator<Item = u32> + 'a {
        let layer = self.layer(number);
        let position = match number {
            0 => place,
            _ => self.position_of[place as usize],
        };
        let row = ((position as usize) < layer.len).then(|| layer.row(position));
        let links = row.unwrap_or_default().iter();
        let places = links
            .take_while(move |link| (**link as usize) < layer.len)
            .map(move |link| layer.item(*link));
        let n = self.graph.n;
        places.filter(move |place| (*place as usize) < n)
    }

    /// The kept item at a place.
    fn kept(&self, place: u32) -> Option<u32> {
        let item = self.item_at[place as usize];
        (item != EMPTY).then_some(item)
    }

    /// Items of a layer of the draft, with their positions there.
    fn items(draft: &Draft, number: usize) -> Vec<(u32, u32)> {
        match number {
            0 => (0..count(draft.n)).map(|item| (item, item)).collect(),
            _ => {
                let of = draft.nav_items.iter().copied().zip(0..);
                of.take(draft.counts[number - 1] as usize).collect()
            }
        }
    }

    /// Enters what is left of the rows of kept items.
    fn take_rows(&self, draft: &mut Draft, number: usize) {
        if number == 0 {
            let degree = 2 * draft.m;
            let rows = draft.links.par_chunks_exact_mut(degree).zip(&self.place_of);
            rows.zip(0..count(draft.n)).for_each(|((row, _), item)| {
                if self.keeps(item) {
                    self.take_row(0, item, |other| other, row);
                }
            });
            return;
        }
        let (items, positions) = (Self::items(draft, number), draft.nav_position.clone());
        for (item, position) in items.into_iter().filter(|(item, _)| self.keeps(*item)) {
            // In a damaged parent, an item may be linked on a layer that it is not on.
            let on = draft.counts[number - 1];
            let position_of = |other: u32| match positions[other as usize] {
                position if position < on => position,
                _ => EMPTY,
            };
            let row = draft.row_mut(number, position);
            self.take_row(number, item, position_of, row);
        }
    }

    /// Enters what is left of the row of one.
    fn take_row(
        &self,
        number: usize,
        item: u32,
        position_of: impl Fn(u32) -> u32,
        row: &mut [u32],
    ) {
        let links = self.row(number, self.place_of[item as usize]);
        let left = links.filter_map(|place| self.kept(place));
        let (mut len, mut taken) = (0, RowSet::default());
        for other in left.filter(|other| *other != item) {
            let position = position_of(other);
            // No parent that is whole has a link twice.
            if position != EMPTY && taken.insert(position, &row[..len]) {
                row[len] = position;
                len += 1;
            }
        }
    }

    /// Fills the rows that lost links.
    fn fill_rows(&self, draft: &mut Draft, coded: &Coded, number: usize, workers: &Workers) {
        let frozen: &Draft = draft;
        let layer = frozen.layer(number);
        let rows = Self::items(frozen, number).into_par_iter();
        let rows = rows.filter_map(|(item, position)| {
            if !self.keeps(item) {
                return None;
            }
            let left = layer.row(position);
            let left = left.split(|link| *link == EMPTY).next().unwrap_or_default();
            let place = self.place_of[item as usize];
            let before = self.row(number, place).count();
            if left.len() == before {
                return None;
            }
            let mut row = left.to_vec();
            for gone in self.row(number, place) {
                if self.kept(gone).is_some() {
                    continue;
                }
                let beyond = self.row(number, gone).take(BEYOND);
                let beyond = beyond.filter_map(|at| self.kept(at));
                let beyond = beyond.map(|item| match number {
                    0 => item,
                    _ => frozen.nav_position[item as usize],
                });
                let on = |at: &u32| (*at as usize) < layer.len;
                row.extend(beyond.filter(|at| on(at) && *at != position));
            }
            row.sort_unstable();
            row.dedup();
            let at = (number, position);
            let links = workers.with(|worker| {
                insert::best(frozen.places(), coded, at, &row, before, worker).to_vec()
            });
            Some((position, links))
        });
        let rows: Vec<(u32, Vec<u32>)> = rows.collect();
        for (position, links) in rows {
            let row = draft.row_mut(number, position);
            row.fill(EMPTY);
            row[..links.len()].copy_from_slice(&links);
        }
    }
}

/// Tells who moved.
#[derive(Default)]
struct Judge {
    now: Vec<f32>,
    then: Lines<f32>,
    near: Lines<f32>,
}

impl Judge {
    /// Whether a vector is far from the item at a place of the parent, compared with that item's
    /// neighbours.
    fn is_far(&mut self, parent: &Index, vector: &[f32], place: u32) -> bool {
        let space = parent.space();
        prepare(space.metric, vector, space.centre, &mut self.now);
        space.decode(place, &mut self.then);
        let moved = between(&self.now, &self.then);
        let links = parent.graph().base().row(place).iter().take(JUDGES);
        let (mut sum, mut judges) = (0.0, 0.0);
        for link in links.take_while(|link| (**link as usize) < parent.len()) {
            space.decode(*link, &mut self.near);
            sum += between(&self.then, &self.near);
            judges += 1.0;
            // Nearly all hardly moved: what the others are away can only add to this.
            if moved * JUDGES as f32 <= NEAR * NEAR * sum {
                return false;
            }
        }
        moved * judges > NEAR * NEAR * sum
    }
}

/// The squared distance, in eight lanes: one would wait for itself.
fn between(a: &[f32], b: &[f32]) -> f32 {
    let (a, a_rest) = a.as_chunks::<8>();
    let (b, b_rest) = b.as_chunks::<8>();
    let mut lanes = [0.0_f32; 8];
    for (a, b) in a.iter().zip(b) {
        for ((lane, a), b) in lanes.iter_mut().zip(a).zip(b) {
            *lane += (a - b).powi(2);
        }
    }
    let rest = a_rest.iter().zip(b_rest).map(|(a, b)| (a - b).powi(2));
    lanes.into_iter().chain(rest).sum()
}
