//! Lists of names that may be ten thousand long.

/// A list of names, one after another in one text. To tell two lists apart is to compare two texts, whatever the
/// number of names.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq)]
pub struct Names<'a> {
    text: &'a str,
    ends: &'a [usize],
}

impl<'a> Names<'a> {
    /// The names that end at `ends` in `text`, ascending, each beginning where the one before ends. One that would
    /// not be text is empty.
    #[must_use]
    pub fn new(text: &'a str, ends: &'a [usize]) -> Self {
        Self { text, ends }
    }

    /// How many there are.
    #[must_use]
    pub fn len(self) -> usize {
        self.ends.len()
    }

    /// Whether there are none.
    #[must_use]
    pub fn is_empty(self) -> bool {
        self.ends.is_empty()
    }

    /// All, in order.
    pub fn iter(self) -> impl Iterator<Item = &'a str> + Clone {
        let mut start = 0;
        self.ends.iter().map(move |&end| {
            let name = self.text.get(start..end).unwrap_or_default();
            start = end;
            name
        })
    }

    /// One after another.
    pub(crate) fn text(self) -> &'a str {
        self.text
    }

    /// Where each ends in the text.
    pub(crate) fn ends(self) -> &'a [usize] {
        self.ends
    }
}

/// [`Names`] of its own.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct NameList {
    text: String,
    ends: Vec<usize>,
}

impl NameList {
    /// The names.
    #[must_use]
    pub fn names(&self) -> Names<'_> {
        Names::new(&self.text, &self.ends)
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
            prop_assert_eq!(list.names().len(), names.len());
            prop_assert_eq!(list.names().is_empty(), names.is_empty());
            prop_assert!(list.names().iter().eq(names.iter().map(String::as_str)));
        }

        /// Whatever the ends are, nothing panics.
        #[test]
        fn ends_may_be_wrong(text in ".{0,9}", ends in prop::collection::vec(0_usize..20, 0..5)) {
            prop_assert_eq!(Names::new(&text, &ends).iter().count(), ends.len());
        }
    }
}
