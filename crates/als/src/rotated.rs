//! Rows of a side in the basis of its Gram matrix, computed once where several solutions use them.

use rayon::prelude::*;

/// Rows computed at a time by a thread.
const BLOCK: usize = 32;

/// Marks a row that is not there.
const NONE: u32 = u32::MAX;

/// Some rows of a side.
#[derive(Debug)]
pub(crate) struct Rotated {
    rank: usize,
    /// Place of every row of the side, or [`NONE`].
    places: Vec<u32>,
    rows: Vec<f32>,
}

impl Rotated {
    /// Of the rows that are used at least twice the most used, as many as fit `bytes` together with the list
    /// of places; `compute` makes a row, in the current pool.
    pub(crate) fn of_most_used(
        uses: &[u32],
        rank: usize,
        bytes: usize,
        compute: impl Fn(u32, &mut [f32]) + Sync,
    ) -> Self {
        let room = bytes.saturating_sub(size_of_val(uses)) / (rank * size_of::<f32>());
        let mut chosen: Vec<u32> = (0..)
            .zip(uses)
            .filter(|&(_, &uses)| uses > 1)
            .map(|(row, _)| row)
            .collect();
        if room < chosen.len() {
            let order = |&row: &u32| (std::cmp::Reverse(uses[row as usize]), row);
            chosen.select_nth_unstable_by_key(room, order);
            chosen.truncate(room);
        }
        let mut places = vec![NONE; uses.len()];
        for (place, &row) in (0..).zip(&chosen) {
            places[row as usize] = place;
        }
        let mut rows = vec![0.0; chosen.len() * rank];
        rows.par_chunks_mut(rank)
            .zip(&chosen)
            .with_min_len(BLOCK)
            .for_each(|(out, &row)| compute(row, out));
        Self { rank, places, rows }
    }

    /// A row, if it is there.
    pub(crate) fn get(&self, row: u32) -> Option<&[f32]> {
        let place = *self.places.get(row as usize)?;
        let start = (place != NONE).then(|| place as usize * self.rank)?;
        self.rows.get(start..start + self.rank)
    }

    /// All rows of a side.
    #[cfg(test)]
    pub(crate) fn all(rows: u32, rank: usize, compute: impl Fn(u32, &mut [f32]) + Sync) -> Self {
        Self::of_most_used(&vec![2; rows as usize], rank, usize::MAX, compute)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_most_used_are_kept_and_no_more_than_fit() {
        let uses = [5, 1, 9, 2, 7, 0, 2];
        let two = |row: u32, out: &mut [f32]| out.fill(row as f32);
        let kept = |rows: usize| {
            let rotated = Rotated::of_most_used(&uses, 2, 7 * 4 + rows * 8, two);
            assert!(rotated.rows.len() <= rows * 2);
            (0..8)
                .filter(|&row| {
                    let found = rotated.get(row);
                    assert!(found.is_none_or(|values| values == [row as f32; 2]));
                    found.is_some()
                })
                .collect::<Vec<u32>>()
        };
        assert!(kept(0).is_empty());
        assert_eq!(kept(2), [2, 4]);
        assert_eq!(kept(4), [0, 2, 3, 4]);
        assert_eq!(kept(100), [0, 2, 3, 4, 6]);
    }
}
