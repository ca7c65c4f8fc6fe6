//! The sparse matrix of who listened to what, and how much.

use std::ops::Range;

use rustc_hash::FxHashMap;

/// Largest strength accepted. Far above any honest play count, and small enough that its products with
/// factors stay finite in single precision.
pub const MAX_STRENGTH: f32 = 1e9;

/// Interactions in compressed rows: for each user the items with a strength, ascending by item.
///
/// Play counts take few values, so a pair has the number of its strength in a list: no byte where all are
/// alike, one byte of up to 256, two of up to 65,536, and four for the strength itself beyond that. With
/// the item, a pair takes 4 to 8 bytes.
#[derive(Debug, Clone, PartialEq)]
pub struct Interactions {
    columns: u32,
    /// `offsets[row]..offsets[row + 1]` bounds a row; one more than there are rows.
    offsets: Vec<usize>,
    indices: Vec<u32>,
    codes: Codes,
    /// The strengths that there are, in the order of their first pairs; empty where they are plain.
    palette: Vec<f32>,
}

/// Which strength each pair has.
#[derive(Debug, Clone, PartialEq)]
enum Codes {
    /// All have the first of the palette.
    Alike,
    Bytes(Vec<u8>),
    Shorts(Vec<u16>),
    /// No palette.
    Plain(Vec<f32>),
}

/// The strengths of a row.
#[derive(Debug, Clone, Copy)]
pub struct Strengths<'a> {
    codes: CodeSlice<'a>,
    palette: &'a [f32],
}

#[derive(Debug, Clone, Copy)]
enum CodeSlice<'a> {
    Alike(usize),
    Bytes(&'a [u8]),
    Shorts(&'a [u16]),
    Plain(&'a [f32]),
}

impl<'a> Strengths<'a> {
    const NONE: Self = Self {
        codes: CodeSlice::Alike(0),
        palette: &[],
    };

    /// One strength an item of the row, in its order.
    pub fn iter(self) -> impl ExactSizeIterator<Item = f32> + Clone + 'a {
        let len = match self.codes {
            CodeSlice::Alike(len) => len,
            CodeSlice::Bytes(codes) => codes.len(),
            CodeSlice::Shorts(codes) => codes.len(),
            CodeSlice::Plain(values) => values.len(),
        };
        (0..len).map(move |at| match self.codes {
            CodeSlice::Alike(_) => self.palette[0],
            CodeSlice::Bytes(codes) => self.palette[usize::from(codes[at])],
            CodeSlice::Shorts(codes) => self.palette[usize::from(codes[at])],
            CodeSlice::Plain(values) => values[at],
        })
    }
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
    /// `O(n log n)` time for `n` triplets, which are sorted where they are.
    ///
    /// # Errors
    /// A triplet out of range, or a strength that is not finite, not positive or too large.
    pub fn from_triplets(
        users: u32,
        items: u32,
        mut triplets: Vec<(u32, u32, f32)>,
    ) -> Result<Self, InteractionsError> {
        for (position, &(user, item, strength)) in triplets.iter().enumerate() {
            in_range(position, (user, users), (item, items))?;
            if !is_strength(strength) {
                return Err(InteractionsError::Strength { position, strength });
            }
        }
        triplets.sort_unstable_by_key(|&(user, item, _)| (user, item));
        let pairs = || triplets.chunk_by(|a, b| (a.0, a.1) == (b.0, b.1));
        let mut rows = Rows::new(users, items, pairs().count());
        let mut strengths = Vec::new();
        for pair in pairs() {
            strengths.clear();
            strengths.extend(pair.iter().map(|&(_, _, strength)| strength));
            rows.push(pair[0].0, pair[0].1, &mut strengths)?;
        }
        Ok(rows.finish())
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

    /// Bytes of the pairs: items and which strengths they have.
    pub(crate) fn pair_bytes(&self) -> usize {
        let code = match self.codes {
            Codes::Alike => 0,
            Codes::Bytes(_) => 1,
            Codes::Shorts(_) => 2,
            Codes::Plain(_) => 4,
        };
        self.len() * (4 + code)
    }

    /// The items of a user, ascending, and their strengths; both empty for an unknown user.
    #[must_use]
    pub fn user(&self, user: u32) -> (&[u32], Strengths<'_>) {
        let user = user as usize;
        let (Some(&start), Some(&end)) = (self.offsets.get(user), self.offsets.get(user + 1))
        else {
            return (&[], Strengths::NONE);
        };
        let codes = match &self.codes {
            Codes::Alike => CodeSlice::Alike(end - start),
            Codes::Bytes(codes) => CodeSlice::Bytes(&codes[start..end]),
            Codes::Shorts(codes) => CodeSlice::Shorts(&codes[start..end]),
            Codes::Plain(values) => CodeSlice::Plain(&values[start..end]),
        };
        let palette = &self.palette;
        (&self.indices[start..end], Strengths { codes, palette })
    }

    /// The same interactions by item: `transposed().user(i)` are the users of item `i`. In the current pool,
    /// whose every thread reads all and takes what is of a part of the items. `O(n)` each, and no more memory
    /// than the result.
    #[must_use]
    pub fn transposed(&self) -> Self {
        let mut offsets = vec![0; self.columns as usize + 1];
        for &item in &self.indices {
            offsets[item as usize + 1] += 1;
        }
        let mut sum = 0;
        for offset in &mut offsets {
            sum += *offset;
            *offset = sum;
        }
        let mut indices = vec![0; self.len()];
        let codes = match &self.codes {
            Codes::Alike => {
                self.turn(&offsets, &mut indices, None::<(&[u8], &mut [u8])>);
                Codes::Alike
            }
            Codes::Bytes(codes) => Codes::Bytes(self.turned(&offsets, &mut indices, codes)),
            Codes::Shorts(codes) => Codes::Shorts(self.turned(&offsets, &mut indices, codes)),
            Codes::Plain(codes) => Codes::Plain(self.turned(&offsets, &mut indices, codes)),
        };
        Self {
            columns: self.users(),
            offsets,
            indices,
            codes,
            palette: self.palette.clone(),
        }
    }

    fn turned<T>(&self, offsets: &[usize], indices: &mut [u32], codes: &[T]) -> Vec<T>
    where
        T: Copy + Default + Send + Sync,
    {
        let mut turned = vec![T::default(); codes.len()];
        self.turn(offsets, indices, Some((codes, &mut turned)));
        turned
    }

    /// Fills in the users, and of `codes` the second by the first, in the order of the items, of which `offsets`
    /// bounds the rows.
    fn turn<T>(&self, offsets: &[usize], indices: &mut [u32], codes: Option<(&[T], &mut [T])>)
    where
        T: Copy + Send + Sync,
    {
        let (from_codes, mut codes) = codes.unzip();
        let (mut indices, parts) = (Some(indices), rayon::current_num_threads());
        rayon::scope(|scope| {
            let mut first = 0;
            for part in 1..=parts {
                // As many pairs each, about.
                let end = self.len() / parts * part;
                let last = match part == parts {
                    true => self.columns as usize,
                    false => offsets.partition_point(|&start| start <= end) - 1,
                };
                let range = first..last.max(first);
                let len = offsets[range.end] - offsets[range.start];
                let users = cut(&mut indices, len);
                let codes = from_codes.zip(codes.is_some().then(|| cut(&mut codes, len)));
                scope.spawn({
                    let range = range.clone();
                    move |_| self.turn_part(range, offsets, users, codes)
                });
                first = range.end;
            }
        });
    }

    /// Of the items in `range`.
    fn turn_part<T: Copy>(
        &self,
        range: Range<usize>,
        offsets: &[usize],
        users: &mut [u32],
        mut codes: Option<(&[T], &mut [T])>,
    ) {
        let start = offsets[range.start];
        let mut next: Vec<usize> = offsets[range.clone()].iter().map(|at| at - start).collect();
        for (user, row) in (0..).zip(self.offsets.windows(2)) {
            let items = &self.indices[row[0]..row[1]];
            let mine = items.partition_point(|&item| (item as usize) < range.start);
            for (&item, from) in items[mine..].iter().zip(row[0] + mine..) {
                let Some(next) = next.get_mut(item as usize - range.start) else {
                    break;
                };
                users[*next] = user;
                if let Some((from_codes, codes)) = &mut codes {
                    codes[*next] = from_codes[from];
                }
                *next += 1;
            }
        }
    }
}

/// Takes the first `len` of what is left of a slice.
fn cut<'a, T>(left: &mut Option<&'a mut [T]>, len: usize) -> &'a mut [T] {
    let (taken, rest) = left.take().unwrap_or_default().split_at_mut(len);
    *left = Some(rest);
    taken
}

/// Whether a pair is within the matrix: each ordinal with how many there are.
fn in_range(
    position: usize,
    (user, users): (u32, u32),
    (item, items): (u32, u32),
) -> Result<(), InteractionsError> {
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
    Ok(())
}

fn is_strength(strength: f32) -> bool {
    strength > 0.0 && strength <= MAX_STRENGTH
}

/// [`Interactions`] in the making, from pairs in ascending order.
#[derive(Debug)]
pub struct Rows {
    users: u32,
    pairs: usize,
    made: Interactions,
    /// Number of each strength in the palette, by its bits.
    numbers: FxHashMap<u32, u16>,
    /// The last strength and its number: most are like the one before.
    last: Option<(f32, u16)>,
}

impl Rows {
    /// Room for so many pairs; more are taken, too.
    #[must_use]
    pub fn new(users: u32, items: u32, pairs: usize) -> Self {
        let mut offsets = Vec::with_capacity(users as usize + 1);
        offsets.push(0);
        Self {
            users,
            pairs,
            made: Interactions {
                columns: items,
                offsets,
                indices: Vec::with_capacity(pairs),
                codes: Codes::Alike,
                palette: Vec::new(),
            },
            numbers: FxHashMap::default(),
            last: None,
        }
    }

    /// Adds a pair that comes after all before, by user and then item; the strength is the sum of
    /// `strengths`, which are put in order first.
    ///
    /// # Errors
    /// A pair out of range, or a strength or sum that is not positive or too large. `position` counts the
    /// pairs then.
    pub fn push(
        &mut self,
        user: u32,
        item: u32,
        strengths: &mut [f32],
    ) -> Result<(), InteractionsError> {
        let position = self.made.len();
        let (users, items) = (self.users, self.made.columns);
        in_range(position, (user, users), (item, items))?;
        strengths.sort_unstable_by(f32::total_cmp);
        let bad = strengths.iter().find(|&&strength| !is_strength(strength));
        if let Some(&strength) = bad {
            return Err(InteractionsError::Strength { position, strength });
        }
        let sum: f64 = strengths.iter().map(|&strength| f64::from(strength)).sum();
        if sum > f64::from(MAX_STRENGTH) {
            return Err(InteractionsError::Sum { user, item, sum });
        }
        self.end_rows_before(user);
        self.made.indices.push(item);
        #[expect(
            clippy::cast_possible_truncation,
            reason = "rounding to f32 is the point"
        )]
        self.code(sum as f32);
        Ok(())
    }

    /// Adds pairs that were made apart, all of users that come after all before: as if each were pushed here.
    pub fn append(&mut self, later: Self) {
        let later = later.finish();
        for user in 0..later.users() {
            let (items, strengths) = later.user(user);
            if items.is_empty() {
                continue;
            }
            self.end_rows_before(user);
            for (&item, strength) in items.iter().zip(strengths.iter()) {
                self.made.indices.push(item);
                self.code(strength);
            }
        }
    }

    /// The interactions; users without a pair have empty rows.
    #[must_use]
    pub fn finish(mut self) -> Interactions {
        self.end_rows_before(self.users);
        self.made
    }

    fn end_rows_before(&mut self, user: u32) {
        let pairs = self.made.len();
        let offsets = &mut self.made.offsets;
        // The last row ends where its last pair is: it is moved on until a pair of another comes.
        let rows = user as usize + 1;
        if offsets.len() < rows {
            offsets.resize(rows, pairs);
        }
    }

    /// Adds the number of the strength of a pair, and widens the numbers where it does not fit.
    fn code(&mut self, strength: f32) {
        let made = &mut self.made;
        if let Codes::Plain(values) = &mut made.codes {
            values.push(strength);
            return;
        }
        let number = match self.last {
            Some((last, number)) if last == strength => Some(number),
            _ => self.numbers.get(&strength.to_bits()).copied(),
        };
        let number = number.or_else(|| {
            let number = u16::try_from(made.palette.len()).ok()?;
            self.numbers.insert(strength.to_bits(), number);
            made.palette.push(strength);
            Some(number)
        });
        let Some(number) = number else {
            // One strength too many for numbers.
            let palette = std::mem::take(&mut made.palette);
            let mut values = Vec::with_capacity(self.pairs.max(made.indices.len()));
            if let Codes::Shorts(codes) = &made.codes {
                values.extend(codes.iter().map(|&code| palette[usize::from(code)]));
            }
            values.push(strength);
            made.codes = Codes::Plain(values);
            self.numbers = FxHashMap::default();
            return;
        };
        self.last = Some((strength, number));
        let before = made.indices.len() - 1;
        let room = self.pairs.max(made.indices.len());
        match (&mut made.codes, u8::try_from(number)) {
            (Codes::Alike, Ok(0)) | (Codes::Plain(_), _) => {}
            (Codes::Alike, _) => {
                // The second strength.
                let mut codes = Vec::with_capacity(room);
                codes.resize(before, 0);
                codes.push(1);
                made.codes = Codes::Bytes(codes);
            }
            (Codes::Bytes(codes), Ok(byte)) => codes.push(byte),
            (Codes::Bytes(codes), Err(_)) => {
                let mut wide = Vec::with_capacity(room);
                wide.extend(codes.iter().map(|&code| u16::from(code)));
                wide.push(number);
                made.codes = Codes::Shorts(wide);
            }
            (Codes::Shorts(codes), _) => codes.push(number),
        }
    }
}

/// What the strengths of interactions mean to hyper-parameters. A strength of the palette is looked at once.
#[derive(Debug)]
pub(crate) struct Meaning {
    hyper: crate::Hyper,
    palette: Vec<f32>,
}

impl Meaning {
    pub(crate) fn new(data: &Interactions, hyper: &crate::Hyper) -> Self {
        let confidence = |&strength: &f32| hyper.confidence(strength);
        Self {
            hyper: *hyper,
            palette: data.palette.iter().map(confidence).collect(),
        }
    }

    /// The confidences of `pairs`: of the interactions that this was made for, or of the same transposed.
    pub(crate) fn of<'a>(&'a self, pairs: &'a Interactions) -> Confidences<'a> {
        Confidences {
            pairs,
            meaning: self,
        }
    }
}

/// Interactions by their confidences.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Confidences<'a> {
    pub(crate) pairs: &'a Interactions,
    meaning: &'a Meaning,
}

impl<'a> Confidences<'a> {
    /// Others and confidences of a row.
    pub(crate) fn row(self, row: u32) -> (&'a [u32], impl Iterator<Item = f32> + 'a) {
        let (others, strengths) = self.pairs.user(row);
        let meaning = self.meaning;
        let confidences = Strengths {
            palette: &meaning.palette,
            ..strengths
        };
        let plain = matches!(strengths.codes, CodeSlice::Plain(_));
        let confidences = confidences.iter().map(move |value| match plain {
            true => meaning.hyper.confidence(value),
            false => value,
        });
        (others, confidences)
    }
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
        for user in [1, u32::MAX] {
            let (items, strengths) = data.user(user);
            assert_eq!((items.len(), strengths.iter().len()), (0, 0));
        }
    }

    fn read_of(data: &Interactions, row: u32) -> Vec<(u32, f32)> {
        let (others, strengths) = data.user(row);
        others.iter().copied().zip(strengths.iter()).collect()
    }

    /// Strengths of every number of values there is a way to keep.
    #[test]
    fn strengths_come_back_whatever_room_they_take() {
        for (values, bytes) in [(1, 4), (2, 5), (256, 5), (257, 6), (65_536, 6), (65_537, 8)] {
            let strength = |at: u32| 0.5 + (at % values) as f32;
            let triplets = (0..70_000).map(|at| (at / 700, at % 700, strength(at)));
            let data = Interactions::from_triplets(101, 700, triplets.collect()).unwrap();
            assert_eq!(data.pair_bytes(), 70_000 * bytes);
            let back = data.transposed().transposed();
            assert_eq!(back, data);
            for user in 0..100 {
                let (items, strengths) = back.user(user);
                assert!(items.iter().copied().eq(0..700));
                assert!(
                    strengths
                        .iter()
                        .eq((0..700).map(|item| strength(user * 700 + item)))
                );
            }
            assert!(back.user(100).0.is_empty());
            let hyper = crate::Hyper::default();
            let meaning = Meaning::new(&data, &hyper);
            let confidences = meaning.of(&data).row(7).1;
            let expected = (0..700).map(|item| hyper.confidence(strength(4_900 + item)));
            assert!(confidences.eq(expected));
        }
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
                    items.iter().zip(strengths.iter()).map(move |(&i, s)| ((user, i), s))
                })
                .collect();
            prop_assert_eq!(read, naive.into_iter().collect::<Vec<_>>());
            prop_assert_eq!(&data.transposed().transposed(), &data);
            // Items whose rows are empty, long or cut elsewhere, whatever the number of threads.
            for threads in 1..5 {
                let pool = rayon::ThreadPoolBuilder::new().num_threads(threads).build().unwrap();
                let turned = pool.install(|| data.transposed());
                for item in 0..5 {
                    let users: Vec<(u32, f32)> = read_of(&turned, item);
                    let naive = (0..7).filter_map(|user| {
                        let at = data.user(user).0.iter().position(|&other| other == item)?;
                        Some((user, data.user(user).1.iter().nth(at)?))
                    });
                    prop_assert_eq!(users, naive.collect::<Vec<_>>());
                }
            }
        }

        /// Rows that are made apart are those that are made together, to the numbers of their strengths.
        #[test]
        fn parts_become_one(
            pairs in prop::collection::btree_map((0u32..9, 0u32..9), 0u32..400, 0..60),
            cuts in prop::collection::vec(0u32..10, 0..4),
        ) {
            let push = |rows: &mut Rows, users: Range<u32>| {
                for (&(user, item), &strength) in pairs.range((users.start, 0)..(users.end, 0)) {
                    rows.push(user, item, &mut [0.5 + strength as f32]).unwrap();
                }
            };
            let mut together = Rows::new(9, 9, 0);
            push(&mut together, 0..9);
            let mut cuts = cuts;
            cuts.sort_unstable();
            cuts.push(9);
            let (mut parts, mut start) = (Rows::new(9, 9, pairs.len()), 0);
            for end in cuts {
                let mut part = Rows::new(9, 9, 0);
                push(&mut part, start..end.min(9));
                parts.append(part);
                start = end.min(9);
            }
            prop_assert_eq!(parts.finish(), together.finish());
        }
    }
}
