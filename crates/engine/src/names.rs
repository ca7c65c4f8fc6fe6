//! Lists of names that may be ten thousand long.

/// A list of names, one after another in one text: two allocations, however many there are.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameList {
    text: String,
    ends: Vec<usize>,
}

impl NameList {
    /// The names that end at `ends` in `text`, ascending, each beginning where the one before ends. One that would
    /// not be text is empty.
    #[must_use]
    pub fn new(text: String, ends: Vec<usize>) -> Self {
        Self { text, ends }
    }

    /// How many there are.
    #[must_use]
    pub fn len(&self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(&self) -> bool {
        self.ends.is_empty()
    }

    /// All, in order.
    pub fn iter(&self) -> impl Iterator<Item = &str> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let name = self.text.get(start..end).unwrap_or_default();
            start = end;
            name
        })
    }

    /// What they take of memory.
    pub(crate) fn bytes(&self) -> usize {
        self.text.capacity() + self.ends.capacity() * size_of::<usize>()
    }
}

impl<S: AsRef<str>> FromIterator<S> for NameList {
    fn from_iter<T: IntoIterator<Item = S>>(names: T) -> Self {
        let mut this = Self::default();
        for name in names {
            this.text.push_str(name.as_ref());
            this.ends.push(this.text.len());
        }
        this
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    proptest! {
        #[test]
        fn what_goes_in_comes_out(names in prop::collection::vec(".{0,4}", 0..9)) {
            let list: NameList = names.iter().collect();
            prop_assert_eq!(list.len(), names.len());
            prop_assert_eq!(list.is_empty(), names.is_empty());
            prop_assert!(list.iter().eq(names.iter().map(String::as_str)));
        }

        /// Whatever the ends are, nothing panics.
        #[test]
        fn ends_may_be_wrong(text in ".{0,9}", ends in prop::collection::vec(0_usize..20, 0..5)) {
            prop_assert_eq!(NameList::new(text, ends.clone()).iter().count(), ends.len());
        }
    }
}
