//! Making everything reachable.

use super::{Coded, Draft, probe::Probe};
use crate::{codes::CodeQuery, layout::EMPTY, scratch::Scratch, walk::count};

/// Beam that looks for somewhere to attach an unreached item.
const EF: usize = 64;

/// Attaches every item that no path from the entry leads to; returns how many there were.
///
/// An unreached item gets a link from the nearest reached one with a slot to spare: a free one, or
/// the last that is no edge of the tree by which the others were reached, so that nothing reached
/// is ever lost.
pub(super) fn connect(draft: &mut Draft, coded: &Coded) -> usize {
    if draft.n == 0 {
        return 0;
    }
    let mut parents = vec![EMPTY; draft.n];
    let mut queue = Vec::new();
    let entry = draft.entry;
    parents[entry as usize] = entry;
    spread(draft, entry, &mut parents, &mut queue);
    let mut repaired = 0;
    let mut scratch = Scratch::new();
    let mut query = CodeQuery::default();
    for item in 0..count(draft.n) {
        if parents[item as usize] != EMPTY {
            continue;
        }
        coded.query(item, &mut query);
        let probe = Probe {
            draft,
            coded,
            query: &query,
            seeds: &[entry],
            ef: EF,
            scratch: &mut scratch,
        };
        probe.walk();
        let near = scratch.pool.items().iter().map(|found| found.position());
        let reached = (0..count(draft.n)).filter(|other| parents[*other as usize] != EMPTY);
        let host = near
            .chain(reached)
            .find_map(|host| Some((host, spare(draft, host, &parents)?)));
        // Every item has a slot or more, and the tree has fewer edges than items: one is spare.
        let Some((host, slot)) = host else { continue };
        draft.row_mut(0, host)[slot] = item;
        parents[item as usize] = host;
        repaired += 1;
        spread(draft, item, &mut parents, &mut queue);
    }
    repaired
}

/// A slot of the row that may be overwritten.
fn spare(draft: &Draft, host: u32, parents: &[u32]) -> Option<usize> {
    let row = draft.graph().base().row(host);
    row.iter()
        .position(|link| *link == EMPTY)
        .or_else(|| row.iter().rposition(|link| parents[*link as usize] != host))
}

/// Breadth first from an item that was just reached.
fn spread(draft: &Draft, from: u32, parents: &mut [u32], queue: &mut Vec<u32>) {
    let base = draft.graph().base();
    queue.clear();
    queue.push(from);
    let mut next = 0;
    while let Some(&node) = queue.get(next) {
        next += 1;
        base.ask_ahead(queue, next);
        for &link in base.row(node).iter().filter(|link| **link != EMPTY) {
            if parents[link as usize] == EMPTY {
                parents[link as usize] = node;
                queue.push(link);
            }
        }
    }
}
