//! Exact search: every allowed item is scored.

use std::time::Instant;

use crate::{
    filter::Filter,
    pool::Ranked,
    scratch::Scratch,
    walk::{End, Scorer, Spent, count},
};

/// Items scored at a time: few enough for their scores to stay in the first-level cache.
const BLOCK: usize = 256;

/// Scores all allowed items; `scratch.results` (reset by the caller to `k`) ends with the best.
/// O(n · dim), or O(|allow| · dim) when few are allowed.
pub(crate) fn scan(
    scorer: &Scorer<'_>,
    filter: &Filter<'_>,
    deadline: Option<Instant>,
    scratch: &mut Scratch,
    spent: &mut Spent,
) -> End {
    let n = scorer.vectors.len() / scorer.query.len();
    match filter.allow {
        // A gathered row costs about two that are read in order.
        Some(allow) if allow.len() < n / 2 => {
            let mut ids = allow
                .iter()
                .filter(|id| (*id as usize) < n && !filter.excludes(*id));
            loop {
                scratch.block.positions.clear();
                scratch.block.positions.extend(ids.by_ref().take(BLOCK));
                if scratch.block.positions.is_empty() {
                    return End::Converged;
                }
                if past(deadline) {
                    return End::Deadline;
                }
                gathered(scorer, scratch, spent);
            }
        }
        _ => {
            for first in (0..n).step_by(BLOCK) {
                if past(deadline) {
                    return End::Deadline;
                }
                consecutive(scorer, filter, first, BLOCK.min(n - first), scratch, spent);
            }
            End::Converged
        }
    }
}

fn gathered(scorer: &Scorer<'_>, scratch: &mut Scratch, spent: &mut Spent) {
    let Scratch { results, block, .. } = scratch;
    let ids = &block.positions;
    block.scores.clear();
    block.scores.resize(ids.len(), 0.0);
    let dim = scorer.query.len();
    let Scorer {
        kernels,
        metric,
        query,
        vectors,
    } = *scorer;
    kernels.score_ids(metric, query, vectors, dim, ids, &mut block.scores);
    spent.distance_comps += count(ids.len());
    for (id, score) in ids.iter().zip(&block.scores) {
        results.insert(Ranked::new(*score, *id));
    }
}

fn consecutive(
    scorer: &Scorer<'_>,
    filter: &Filter<'_>,
    first: usize,
    len: usize,
    scratch: &mut Scratch,
    spent: &mut Spent,
) {
    let Scratch { results, block, .. } = scratch;
    block.scores.clear();
    block.scores.resize(len, 0.0);
    let dim = scorer.query.len();
    let Scorer {
        kernels,
        metric,
        query,
        vectors,
    } = *scorer;
    let rows = &vectors[first * dim..(first + len) * dim];
    kernels.score_rows(metric, query, rows, dim, &mut block.scores);
    spent.distance_comps += count(len);
    let open = filter.is_open();
    let mut bar = results.bar();
    for (id, score) in (count(first)..).zip(&block.scores) {
        let item = Ranked::new(*score, id);
        if item < bar && (open || filter.allows(id)) {
            results.insert(item);
            bar = results.bar();
        }
    }
}

fn past(deadline: Option<Instant>) -> bool {
    deadline.is_some_and(|at| Instant::now() >= at)
}
