//! Factors of a parent, looked up for the rows of the model that starts from it.

use rayon::prelude::*;

/// Rows written at a time by a thread.
const BLOCK: usize = 1024;

/// One side of a parent, in the order of the rows of the new model: nothing of it is copied before it is needed.
#[derive(Debug, Clone, Copy)]
pub struct ParentRows<'a> {
    places: &'a [Option<u32>],
    factors: &'a [f32],
}

/// Both sides of a parent.
#[derive(Debug, Clone, Copy)]
pub struct ParentFactors<'a> {
    /// Of the new one's users.
    pub users: ParentRows<'a>,
    /// Of its items.
    pub items: ParentRows<'a>,
}

impl<'a> ParentRows<'a> {
    /// For each row of the new model its place among `factors` (row-major), or none if it is new. A place past the
    /// last row is taken as none.
    #[must_use]
    pub fn new(places: &'a [Option<u32>], factors: &'a [f32]) -> Self {
        Self { places, factors }
    }

    /// Rows of the new model.
    #[must_use]
    pub fn len(&self) -> usize {
        self.places.len()
    }

    /// Whether it has none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.places.is_empty()
    }

    /// What is known, row by row, of `rank` values each.
    pub fn iter(self, rank: usize) -> impl Iterator<Item = Option<&'a [f32]>> {
        let row = move |place: u32| self.factors.get(place as usize * rank..)?.get(..rank);
        self.places.iter().map(move |place| row((*place)?))
    }

    /// Writes what is known of the rows from `first` on over zeros, as many as there are in `rows`.
    pub(crate) fn write(self, first: usize, rows: &mut [f32], rank: usize) {
        let places = self.places.get(first..).unwrap_or_default();
        let known = Self { places, ..self }.iter(rank);
        for (row, known) in rows.chunks_exact_mut(rank).zip(known) {
            if let Some(known) = known {
                row.copy_from_slice(known);
            }
        }
    }

    /// All rows, zeros for those that are new; in the current pool, whose threads are the first to touch them.
    pub(crate) fn in_pool(self, rank: usize) -> Vec<f32> {
        let mut rows = vec![0.0; self.len() * rank];
        let blocks = rows.par_chunks_mut(BLOCK * rank).enumerate();
        blocks.for_each(|(block, rows)| self.write(block * BLOCK, rows, rank));
        rows
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn rows_come_in_the_new_order_and_new_ones_are_zero() {
        let factors = [1.0, 2.0, 3.0, 4.0];
        let places = [Some(1), None, Some(0), Some(2)];
        let rows = ParentRows::new(&places, &factors);
        assert_eq!(rows.in_pool(2), [3.0, 4.0, 0.0, 0.0, 1.0, 2.0, 0.0, 0.0]);
        let mut two = [0.0; 4];
        rows.write(1, &mut two, 2);
        assert_eq!(two, [0.0, 0.0, 1.0, 2.0]);
        let many: Vec<Option<u32>> = (0..3000).map(|row| Some(row % 2)).collect();
        let all = ParentRows::new(&many, &factors).in_pool(2);
        assert!(all.chunks_exact(4).all(|rows| rows == factors));
    }
}
