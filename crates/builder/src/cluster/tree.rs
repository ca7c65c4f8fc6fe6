//! A shallow decision tree that tells the parts of a scene apart.

/// Rows that a tree is grown on, at most.
pub(super) const SAMPLE: usize = 20_000;
/// Rows that a branch keeps at least.
const LEAST: usize = 5;
/// Levels of a tree beyond those that so many parts need.
const SPARE_LEVELS: usize = 3;

/// A tree over features; node 0 is its root.
#[derive(Debug, Clone, PartialEq)]
pub(super) struct Tree {
    pub(super) nodes: Vec<Node>,
}

#[derive(Debug, Clone, Copy, PartialEq)]
pub(super) enum Node {
    /// The part of most rows that come here.
    Leaf(u32),
    /// On to `below` when the feature is at most the threshold, else to `above`.
    Split {
        feature: usize,
        threshold: f32,
        below: usize,
        above: usize,
    },
}

impl Tree {
    /// Grows a classification tree by the Gini impurity (Breiman, Friedman, Olshen and Stone,
    /// "Classification and regression trees", 1984, §4): at every node the feature and threshold that
    /// lower it most, down to pure nodes or as many levels as `parts` parts need and a few more. Equal
    /// gains go to the first feature. Both branches of one part become one leaf.
    ///
    /// `rows` is row-major `of.len() * features`, `of` the part of each. `O(levels features n log n)`.
    pub(super) fn grow(rows: &[f32], features: usize, of: &[u32], parts: usize) -> Self {
        let mut tree = Self { nodes: Vec::new() };
        let levels = parts.next_power_of_two().ilog2() as usize + SPARE_LEVELS;
        let all: Vec<u32> = (0u32..).take(of.len()).collect();
        let data = Data {
            rows,
            features,
            of,
            parts,
        };
        tree.node(&data, all, levels);
        tree
    }

    /// Adds the node of some rows, and those below it; returns its number.
    fn node(&mut self, data: &Data<'_>, rows: Vec<u32>, levels: usize) -> usize {
        let at = self.nodes.len();
        self.nodes.push(Node::Leaf(data.majority(&rows)));
        let Some((feature, threshold)) = data.best_split(&rows).filter(|_| levels > 0) else {
            return at;
        };
        let (low, high): (Vec<u32>, Vec<u32>) = rows
            .into_iter()
            .partition(|&row| data.value(row, feature) <= threshold);
        let below = self.node(data, low, levels - 1);
        let above = self.node(data, high, levels - 1);
        match (self.nodes[below], self.nodes[above]) {
            (Node::Leaf(one), Node::Leaf(other)) if one == other => self.nodes.truncate(at + 1),
            _ => {
                self.nodes[at] = Node::Split {
                    feature,
                    threshold,
                    below,
                    above,
                }
            }
        }
        at
    }

    /// The part of a row of features.
    #[cfg(test)]
    fn part(&self, row: &[f32]) -> u32 {
        let mut at = 0;
        loop {
            match self.nodes[at] {
                Node::Leaf(part) => return part,
                Node::Split {
                    feature,
                    threshold,
                    below,
                    above,
                } => {
                    at = if row[feature] <= threshold {
                        below
                    } else {
                        above
                    }
                }
            }
        }
    }

    /// Levels of splits.
    pub(super) fn levels(&self) -> usize {
        fn below(tree: &Tree, at: usize) -> usize {
            match tree.nodes[at] {
                Node::Leaf(_) => 0,
                Node::Split {
                    below: b, above, ..
                } => 1 + below(tree, b).max(below(tree, above)),
            }
        }
        below(self, 0)
    }
}

struct Data<'a> {
    rows: &'a [f32],
    features: usize,
    of: &'a [u32],
    parts: usize,
}

impl Data<'_> {
    fn value(&self, row: u32, feature: usize) -> f32 {
        self.rows[row as usize * self.features + feature]
    }

    fn counts(&self, rows: &[u32]) -> Vec<u64> {
        let mut counts = vec![0; self.parts];
        for &row in rows {
            counts[self.of[row as usize] as usize] += 1;
        }
        counts
    }

    /// The most frequent part, the first of equally frequent ones.
    fn majority(&self, rows: &[u32]) -> u32 {
        let counts = self.counts(rows);
        let best = (0..counts.len()).rev().max_by_key(|&part| counts[part]);
        best.and_then(|part| u32::try_from(part).ok()).unwrap_or(0)
    }

    /// The split that leaves the most pairs of one part together: with `n` rows, `Σ counts² / n` on both
    /// sides, which is `n` less the Gini impurity times `n`. None where no split is better than none.
    fn best_split(&self, rows: &[u32]) -> Option<(usize, f32)> {
        let all = self.counts(rows);
        let purity = |counts: &[u64]| {
            let (squares, n) = counts.iter().fold((0u128, 0u64), |(squares, n), &count| {
                (squares + u128::from(count) * u128::from(count), n + count)
            });
            squares as f64 / n.max(1) as f64
        };
        if rows.len() < 2 * LEAST || all.iter().filter(|&&count| count > 0).count() < 2 {
            return None;
        }
        let mut best = (purity(&all) * (1.0 + 1e-12), None);
        let mut order = Vec::with_capacity(rows.len());
        for feature in 0..self.features {
            order.clear();
            order.extend(rows.iter().map(|&row| (self.value(row, feature), row)));
            order.sort_unstable_by(|a, b| a.0.total_cmp(&b.0).then(a.1.cmp(&b.1)));
            let (mut low, mut high) = (vec![0u64; self.parts], all.clone());
            for (at, pair) in order.windows(2).enumerate() {
                let part = self.of[pair[0].1 as usize] as usize;
                low[part] += 1;
                high[part] -= 1;
                let enough = at + 1 >= LEAST && order.len() - at > LEAST;
                if !enough || pair[0].0 >= pair[1].0 {
                    continue;
                }
                let together = purity(&low) + purity(&high);
                if together > best.0 {
                    // Halfway, unless rounding makes that the upper value.
                    let half = pair[0].0 + (pair[1].0 - pair[0].0) / 2.0;
                    let threshold = if half < pair[1].0 { half } else { pair[0].0 };
                    best = (together, Some((feature, threshold)));
                }
            }
        }
        best.1
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn learns_a_checkerboard_of_two_features() {
        let mut rows = Vec::new();
        let mut of = Vec::new();
        for at in 0..400u16 {
            let (x, y) = (f32::from(at % 20), f32::from(at / 20));
            rows.extend([0.0, x, y]);
            of.push(u32::from(x < 7.0) + 2 * u32::from(y < 12.0));
        }
        let tree = Tree::grow(&rows, 3, &of, 4);
        for (row, &part) in rows.chunks_exact(3).zip(&of) {
            assert_eq!(tree.part(row), part);
        }
        assert_eq!((tree.nodes.len(), tree.levels()), (7, 2));
    }

    #[test]
    fn what_cannot_be_told_apart_is_one_leaf() {
        let tree = Tree::grow(
            &[1.0; 40],
            1,
            &(0..40).map(|at| at % 3).collect::<Vec<_>>(),
            3,
        );
        assert_eq!(tree.nodes, [Node::Leaf(0)]);
        assert_eq!(Tree::grow(&[], 1, &[], 2).nodes, [Node::Leaf(0)]);
        // Pure, and too few to split.
        assert_eq!(
            Tree::grow(&[1.0, 2.0], 1, &[1, 1], 2).nodes,
            [Node::Leaf(1)]
        );
        assert_eq!(Tree::grow(&[1.0, 2.0], 1, &[0, 1], 2).levels(), 0);
    }
}
