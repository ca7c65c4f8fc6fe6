//! The order items lie in: what is walked together lies together.

use rayon::prelude::*;
use refrain_kernels::Metric;

use super::{Coded, Draft, Pages};
use crate::{
    layout::{EMPTY, RUN},
    pool::Ranked,
    walk::count,
};

/// Rows moved by one task.
const CHUNK: usize = 1024;

/// The present places, in their new order: the longest first under inner product, else breadth
/// first from the entry (everything is reachable, so that is an order of all).
pub(super) fn order(draft: &Draft, coded: &Coded) -> Vec<u32> {
    if coded.metric == Metric::InnerProduct {
        let ranked = |(inverse, item): (&f32, u32)| Ranked::new(-inverse, item);
        let mut order: Vec<Ranked> = coded.inverse_norms.iter().zip(0..).map(ranked).collect();
        order.par_sort_unstable();
        return order.into_iter().map(Ranked::position).collect();
    }
    let base = draft.graph().base();
    let mut seen = vec![false; draft.n];
    let mut order = Vec::with_capacity(draft.n);
    if draft.n > 0 {
        seen[draft.entry as usize] = true;
        order.push(draft.entry);
    }
    let mut next = 0;
    while let Some(&place) = order.get(next) {
        next += 1;
        base.ask_ahead(&order, next);
        for &link in base.row(place).iter().filter(|link| **link != EMPTY) {
            if !std::mem::replace(&mut seen[link as usize], true) {
                order.push(link);
            }
        }
    }
    order
}

/// Moves everything to its new place. Until now places were ordinals: returned are place to
/// ordinal, and ordinal to place.
///
/// # Errors
/// When the system has not the memory for a second copy of a section.
pub(super) fn apply(
    order: Vec<u32>,
    draft: &mut Draft,
    coded: &mut Coded,
) -> std::io::Result<(Vec<u32>, Vec<u32>)> {
    let mut places = vec![EMPTY; order.len()];
    for (place, ordinal) in (0..count(order.len())).zip(&order) {
        places[*ordinal as usize] = place;
    }
    let renamed = |link: u32| places.get(link as usize).copied().unwrap_or(EMPTY);
    let degree = 2 * draft.m;
    draft.links = moved(&order, &draft.links, degree)?;
    let rows = draft.links.par_chunks_mut(degree * CHUNK);
    rows.for_each(|rows| rows.iter_mut().for_each(|link| *link = renamed(*link)));
    draft
        .nav_items
        .iter_mut()
        .for_each(|item| *item = renamed(*item));
    draft.entry = if order.is_empty() {
        0
    } else {
        renamed(draft.entry)
    };
    coded.codes = moved(&order, &coded.codes, coded.stride)?;
    coded.remainders = moved(&order, &coded.remainders, coded.dim)?;
    coded.scales = picked(&order, &coded.scales);
    if let Some(sketch) = &mut coded.sketch {
        sketch.codes = moved(&order, &sketch.codes, sketch.stride)?;
        sketch.scales = picked(&order, &sketch.scales);
    }
    if !coded.squares.is_empty() {
        coded.squares = picked(&order, &coded.squares);
    }
    if !coded.inverse_norms.is_empty() {
        coded.inverse_norms = picked(&order, &coded.inverse_norms);
        let longest = coded.inverse_norms.iter().step_by(RUN);
        coded.lengths = longest
            .map(|inverse| (inverse.recip() * 1.000_001).min(f32::MAX))
            .collect();
    }
    Ok((order, places))
}

fn moved<T: bytemuck::Pod + Send + Sync>(
    order: &[u32],
    rows: &[T],
    width: usize,
) -> std::io::Result<Pages<T>> {
    let mut out = Pages::filled(rows.len(), T::zeroed())?;
    let parts = out.par_chunks_mut(width * CHUNK);
    parts.zip(order.par_chunks(CHUNK)).for_each(|(out, order)| {
        for (to, from) in out.chunks_exact_mut(width).zip(order) {
            to.copy_from_slice(&rows[*from as usize * width..][..width]);
        }
    });
    Ok(out)
}

fn picked<T: Copy>(order: &[u32], values: &[T]) -> Vec<T> {
    order.iter().map(|from| values[*from as usize]).collect()
}
