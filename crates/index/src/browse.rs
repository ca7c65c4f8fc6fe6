//! Results page by page: the walk stops where a page is full, and goes on from there.

use std::{cmp::Reverse, collections::BinaryHeap};

use refrain_kernels::{
    Kernels, Lines, Metric,
    codes::{BLOCK, Scalar, Simd, Task},
};

use crate::{
    codes::CodeQuery,
    exact::Bound,
    filter::Filter,
    index::Index,
    pool::{Pool, Ranked},
    scratch::{self, Block, Visited},
    search::{Hit, SearchError},
    space::Space,
    walk::{self, Admit, Spent, count},
};

/// A search that can be continued: each page holds what comes next, and nothing twice.
///
/// Within a page and from page to page, scores fall, but for what the walk had not yet met when it
/// filled an earlier page; a wider `ef_search` makes that rarer. Everything allowed comes in the
/// end. Holds about one byte an item, and what the walk has met.
#[derive(Debug)]
pub struct Browse<'a> {
    index: &'a Index,
    filter: Filter<'a>,
    ef: usize,
    query: Lines<f32>,
    coded: CodeQuery,
    row: Lines<f32>,
    visited: Visited,
    block: Box<Block>,
    frontier: BinaryHeap<Reverse<Ranked>>,
    /// Met and allowed, by high bytes; places.
    met: BinaryHeap<Reverse<Ranked>>,
    /// Of those, what was scored by all bytes; ordinals.
    scored: BinaryHeap<Reverse<Ranked>>,
    window: Pool,
    started: bool,
}

impl Index {
    /// Begins a search that is read page by page. O(n) bytes are set up, nothing is searched yet.
    ///
    /// # Errors
    /// [`SearchError`] when the query does not fit.
    pub fn browse<'a>(
        &'a self,
        query: &[f32],
        ef_search: usize,
        filter: Filter<'a>,
    ) -> Result<Browse<'a>, SearchError> {
        self.refuse_bad(query)?;
        let space = self.space();
        let mut browse = Browse {
            index: self,
            filter,
            ef: ef_search.max(1),
            query: Lines::new(),
            coded: CodeQuery::default(),
            row: Lines::new(),
            visited: Visited::default(),
            block: Box::default(),
            frontier: BinaryHeap::new(),
            met: BinaryHeap::new(),
            scored: BinaryHeap::new(),
            window: Pool::default(),
            started: false,
        };
        space.unit(query, &mut browse.query);
        space.code_for_walk(&browse.query, &mut browse.row, &mut browse.coded);
        browse.visited.reset(self.len());
        Ok(browse)
    }
}

impl Browse<'_> {
    /// Puts the next `k` into `out`, best first; fewer only when no more are allowed.
    pub fn page(&mut self, k: usize, out: &mut Vec<Hit>) {
        out.clear();
        if k == 0 || self.index.is_empty() {
            return;
        }
        let space = self.index.space();
        self.refill(k);
        let mut seeds = vec![self.index.graph().entry];
        if !space.lengths.is_empty() {
            // Under inner product the longest come first, and are in most answers.
            let head = space.heads.at(self.ef, self.index.len());
            seeds.extend(0..count(head));
        }
        Kernels::active().run(Explore {
            browse: self,
            seeds: &seeds,
        });
        let bound = Bound::new(&space, &self.query, &self.coded);
        while out.len() < k {
            self.score_contenders(&space, bound);
            match self.scored.pop() {
                Some(Reverse(best)) => out.push(Hit {
                    ordinal: best.position(),
                    score: best.score(),
                }),
                None => return,
            }
        }
    }

    /// The window: the best of what was met and not yet returned, by the scores of a walk.
    fn refill(&mut self, k: usize) {
        // A walk leaves the query's own square out of l2.
        let square: f32 = match self.index.metric() {
            Metric::L2 => self.query.iter().map(|value| value * value).sum(),
            Metric::InnerProduct | Metric::Cosine => 0.0,
        };
        self.window.reset(self.ef.max(k));
        for Reverse(item) in &self.met {
            self.window.insert(Scalar, *item);
        }
        for Reverse(item) in &self.scored {
            let walked = Ranked::new(item.score() + square, item.position());
            self.window.insert(Scalar, walked);
        }
    }

    /// Scores by all bytes whatever may be better than the best that is.
    fn score_contenders(&mut self, space: &Space<'_>, bound: Bound) {
        let kernels = Kernels::active();
        let ordinals = self.index.ordinals();
        while let Some(Reverse(next)) = self.met.peek() {
            let hope = bound.best(next.score(), space.weighted_step(next.position()));
            let best = self.scored.peek().map(|Reverse(best)| best.score());
            if best.is_some_and(|best| best > hope) {
                return;
            }
            let place = next.position();
            self.met.pop();
            let ordinal = ordinals.get(place as usize).copied();
            if let Some(ordinal) = ordinal.filter(|ordinal| (*ordinal as usize) < ordinals.len()) {
                let score = space.exact(kernels, &self.query, place, &mut self.row);
                self.scored.push(Reverse(Ranked::new(score, ordinal)));
            }
        }
    }
}

/// Walks on until the window holds nothing that the frontier could better.
struct Explore<'a, 'b> {
    browse: &'a mut Browse<'b>,
    /// Places where the walk begins.
    seeds: &'a [u32],
}

impl Task for Explore<'_, '_> {
    type Output = ();

    #[inline(always)]
    fn run<S: Simd>(self, simd: S) {
        match self.browse.index.space().walked_rows().stride() / BLOCK {
            2 => self.go::<S, 2>(simd),
            4 => self.go::<S, 4>(simd),
            _ => self.go::<S, 0>(simd),
        }
    }
}

impl Explore<'_, '_> {
    #[inline(always)]
    fn go<S: Simd, const B: usize>(self, simd: S) {
        let seeds = self.seeds;
        let Browse {
            index,
            filter,
            coded,
            visited,
            block,
            frontier,
            met,
            window,
            started,
            ..
        } = self.browse;
        let scorer = index.space().walker::<B>(coded);
        let admit = Admit {
            filter,
            ordinals: index.ordinals(),
            cap: None,
        };
        let base = index.graph().base();
        let mut marks = visited.marks(index.len());
        let mut spent = Spent::default();
        let seeds = if std::mem::replace(started, true) {
            &[]
        } else {
            seeds
        };
        let mut seeds = seeds.chunks(scratch::BLOCK);
        loop {
            let fresh = match seeds.next() {
                Some(seeds) => marks.unseen(Scalar, seeds, &mut block.positions),
                // What is worse than the window waits for a later page.
                None => match frontier.peek() {
                    Some(Reverse(next)) if *next < window.bar() => {
                        let links = base.row(next.position());
                        frontier.pop();
                        marks.unseen(simd, links, &mut block.positions)
                    }
                    _ => return,
                },
            };
            walk::score(simd, &scorer, block, fresh, &mut spent);
            for slot in 0..fresh {
                let item = Ranked::new(block.scores[slot], block.positions[slot]);
                frontier.push(Reverse(item));
                if admit.allows(item.position()) {
                    met.push(Reverse(item));
                    window.insert(simd, item);
                }
            }
        }
    }
}

#[cfg(test)]
mod tests;
