//! The sparse matrix of who listened to what, and how much.

/// Largest strength accepted. Far above any honest play count, and small enough that its products with
/// factors stay finite in single precision.
pub const MAX_STRENGTH: f32 = 1e9;

/// Interactions in compressed rows: for each user the items with a strength, ascending by item.
#[derive(Debug, Clone, PartialEq)]
pub struct Interactions {
    columns: u32,
    /// `offsets[row]..offsets[row + 1]` bounds a row; one more than there are rows.
    offsets: Vec<usize>,
    indices: Vec<u32>,
    strengths: Vec<f32>,
}

/// Why triplets are not interactions. `position` counts from 0 in the triplets as given.
#[derive(Debug, Clone, Copy, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum InteractionsError {
    /// A user beyond the stated number of users.
    #[error("triplet {position}: user {user} is out of range, there are {users} users")]
    User {
        /// Which triplet.
        position: usize,
        /// Its user.
        user: u32,
        /// Number of users.
        users: u32,
    },
    /// An item beyond the stated number of items.
    #[error("triplet {position}: item {item} is out of range, there are {items} items")]
    Item {
        /// Which triplet.
        position: usize,
        /// Its item.
        item: u32,
        /// Number of items.
        items: u32,
    },
    /// A strength that is not a positive number up to [`MAX_STRENGTH`].
    #[error("triplet {position}: strength {strength} is not above 0 and at most 1e9")]
    Strength {
        /// Which triplet.
        position: usize,
        /// Its strength.
        strength: f32,
    },
    /// The strengths of one pair add up to more than [`MAX_STRENGTH`].
    #[error("the strengths of user {user} and item {item} add up to {sum}, more than 1e9")]
    Sum {
        /// The user.
        user: u32,
        /// The item.
        item: u32,
        /// The sum of its strengths.
        sum: f64,
    },
}

impl Interactions {
    /// Compresses `(user, item, strength)` triplets given in any order. The strengths of equal pairs are
    /// added in ascending order, so the result does not depend on the order of the triplets.
    ///
    /// `O(n log m)` time for `n` triplets, `m` of one user.
    ///
    /// # Errors
    /// A triplet out of range, or a strength that is not finite, not positive or too large.
    pub fn from_triplets(
        users: u32,
        items: u32,
        triplets: Vec<(u32, u32, f32)>,
    ) -> Result<Self, InteractionsError> {
        let mut offsets = vec![0; users as usize + 1];
        for (position, &(user, item, strength)) in triplets.iter().enumerate() {
            if user >= users {
                return Err(InteractionsError::User {
                    position,
                    user,
                    users,
                });
            }
            if item >= items {
                return Err(InteractionsError::Item {
                    position,
                    item,
                    items,
                });
            }
            if !(strength > 0.0 && strength <= MAX_STRENGTH) {
                return Err(InteractionsError::Strength { position, strength });
            }
            offsets[user as usize + 1] += 1;
        }
        accumulate(&mut offsets);
        let mut next = offsets.clone();
        let mut entries = vec![(0, 0.0); triplets.len()];
        for (user, item, strength) in triplets {
            let slot = &mut next[user as usize];
            entries[*slot] = (item, strength);
            *slot += 1;
        }
        merge_rows(items, &mut offsets, &mut entries)
    }

    /// Number of users, including those without interactions.
    #[must_use]
    #[expect(clippy::cast_possible_truncation, reason = "built from a u32")]
    pub fn users(&self) -> u32 {
        (self.offsets.len() - 1) as u32
    }

    /// Number of items, including those without interactions.
    #[must_use]
    pub fn items(&self) -> u32 {
        self.columns
    }

    /// Number of user–item pairs with an interaction.
    #[must_use]
    pub fn len(&self) -> usize {
        self.indices.len()
    }

    /// Whether there is no interaction at all.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.indices.is_empty()
    }

    /// The items of a user, ascending, and their strengths; both empty for an unknown user.
    #[must_use]
    pub fn user(&self, user: u32) -> (&[u32], &[f32]) {
        let user = user as usize;
        match (self.offsets.get(user), self.offsets.get(user + 1)) {
            (Some(&start), Some(&end)) => (&self.indices[start..end], &self.strengths[start..end]),
            _ => (&[], &[]),
        }
    }

    /// The same interactions by item: `transposed().user(i)` are the users of item `i`. `O(n)`.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let mut offsets = vec![0; self.columns as usize + 1];
        for &item in &self.indices {
            offsets[item as usize + 1] += 1;
        }
        accumulate(&mut offsets);
        let mut next = offsets.clone();
        let mut indices = vec![0; self.len()];
        let mut strengths = vec![0.0; self.len()];
        for user in 0..self.users() {
            let (items, values) = self.user(user);
            for (&item, &strength) in items.iter().zip(values) {
                let slot = &mut next[item as usize];
                indices[*slot] = user;
                strengths[*slot] = strength;
                *slot += 1;
            }
        }
        Self {
            columns: self.users(),
            offsets,
            indices,
            strengths,
        }
    }

    /// The same pairs with every strength replaced by `f(strength)`.
    pub(crate) fn map_strengths(&self, f: impl Fn(f32) -> f32) -> Self {
        let strengths = self.strengths.iter().map(|&s| f(s)).collect();
        Self {
            columns: self.columns,
            offsets: self.offsets.clone(),
            indices: self.indices.clone(),
            strengths,
        }
    }
}

/// Counts to offsets.
fn accumulate(offsets: &mut [usize]) {
    let mut sum = 0;
    for offset in offsets {
        sum += *offset;
        *offset = sum;
    }
}

/// Sorts every row, adds up equal items, and closes the gaps this leaves.
fn merge_rows(
    columns: u32,
    offsets: &mut [usize],
    entries: &mut [(u32, f32)],
) -> Result<Interactions, InteractionsError> {
    let mut indices = Vec::with_capacity(entries.len());
    let mut strengths = Vec::with_capacity(entries.len());
    let mut start = 0;
    for row in 0..offsets.len() - 1 {
        let end = offsets[row + 1];
        let entries = &mut entries[start..end];
        entries.sort_unstable_by(|a, b| a.0.cmp(&b.0).then(a.1.total_cmp(&b.1)));
        for pair in entries.chunk_by(|a, b| a.0 == b.0) {
            let item = pair[0].0;
            let sum: f64 = pair.iter().map(|&(_, strength)| f64::from(strength)).sum();
            if sum > f64::from(MAX_STRENGTH) {
                let user = u32::try_from(row).unwrap_or(u32::MAX);
                return Err(InteractionsError::Sum { user, item, sum });
            }
            indices.push(item);
            #[expect(
                clippy::cast_possible_truncation,
                reason = "rounding to f32 is the point"
            )]
            strengths.push(sum as f32);
        }
        start = end;
        offsets[row + 1] = indices.len();
    }
    Ok(Interactions {
        columns,
        offsets: offsets.to_vec(),
        indices,
        strengths,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    #[test]
    fn refuses_bad_triplets_by_position() {
        let err = |triplets| Interactions::from_triplets(2, 3, triplets).unwrap_err();
        assert_eq!(
            err(vec![(0, 0, 1.0), (2, 0, 1.0)]),
            InteractionsError::User {
                position: 1,
                user: 2,
                users: 2
            }
        );
        assert_eq!(
            err(vec![(0, 3, 1.0)]),
            InteractionsError::Item {
                position: 0,
                item: 3,
                items: 3
            }
        );
        for strength in [0.0, -1.0, f32::NAN, f32::INFINITY, 1.1e9] {
            assert!(matches!(
                err(vec![(0, 0, strength)]),
                InteractionsError::Strength { position: 0, .. }
            ));
        }
        assert!(matches!(
            err(vec![(1, 2, 9e8), (1, 2, 9e8)]),
            InteractionsError::Sum {
                user: 1,
                item: 2,
                ..
            }
        ));
    }

    #[test]
    fn an_unknown_user_has_no_items() {
        let data = Interactions::from_triplets(1, 1, vec![(0, 0, 1.0)]).unwrap();
        assert_eq!(data.user(1), (&[][..], &[][..]));
        assert_eq!(data.user(u32::MAX), (&[][..], &[][..]));
    }

    proptest! {
        #[test]
        fn equals_a_sorted_map_whatever_the_order(
            triplets in prop::collection::vec((0u32..7, 0u32..5, 1u8..4), 0..60),
            seed in any::<u64>(),
        ) {
            let mut naive = std::collections::BTreeMap::new();
            for &(user, item, strength) in &triplets {
                *naive.entry((user, item)).or_insert(0.0) += f32::from(strength);
            }
            let mut shuffled: Vec<_> =
                triplets.iter().map(|&(u, i, s)| (u, i, f32::from(s))).collect();
            let turn = usize::try_from(seed % 61).unwrap();
            if !shuffled.is_empty() {
                let turn = turn % shuffled.len();
                shuffled.rotate_left(turn);
            }
            let data = Interactions::from_triplets(7, 5, shuffled).unwrap();
            let read: Vec<_> = (0..7)
                .flat_map(|user| {
                    let (items, strengths) = data.user(user);
                    items.iter().zip(strengths).map(move |(&i, &s)| ((user, i), s))
                })
                .collect();
            prop_assert_eq!(read, naive.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(data.transposed().transposed(), data);
        }
    }
}
