//! Precedence: which rule decides. Rules are indexed by the value of their scope, so that an event
//! asks at most once per kind of scope, however many rules there are.

use std::collections::{BinaryHeap, HashMap};

use foldhash::fast::RandomState;

use super::Catalogue;
use crate::event::Event;
use crate::rule::{Rule, Scope};

/// Seniority of a rule: larger is newer.
pub(super) type Age = usize;

/// Hashed with a seed of this process: texts come from callers, who must not be able to make them
/// collide, and short ones cost a fraction of what they do with the hasher of the standard library.
pub(super) type ByText<'a, V> = HashMap<&'a str, V, RandomState>;

/// The winning rule for every scope value that some rule names.
pub(super) struct Rulings<'a> {
    /// Positions in the profile, oldest rule first: what an [`Age`] points into.
    by_age: Vec<usize>,
    pub(super) items: ByText<'a, Age>,
    pub(super) contexts: ByText<'a, Age>,
    pub(super) sessions: ByText<'a, Age>,
    pub(super) artists: ByText<'a, Age>,
    pub(super) tags: ByText<'a, Age>,
    pub(super) windows: Windows,
}

impl<'a> Rulings<'a> {
    /// Indexes the rules that `counts` admits. O(R log R); O(R) for scopes other than windows when
    /// the rules are in canonical order.
    pub(super) fn new(rules: &'a [Rule], counts: impl Fn(&Rule) -> bool) -> Self {
        let mut by_age: Vec<usize> = (0..rules.len()).filter(|&at| counts(&rules[at])).collect();
        by_age.sort_by(|&a, &b| rules[a].age_key().cmp(&rules[b].age_key()));

        // Room for all of a kind at once: growing a table hashes everything in it again.
        let mut counts = [0; 6];
        for &at in &by_age {
            counts[usize::from(rules[at].scope.specificity())] += 1;
        }
        let [windows, tags, artists, sessions, contexts, items] = counts;
        let room = |count| ByText::with_capacity_and_hasher(count, RandomState::default());
        let mut rulings = Self {
            by_age: Vec::new(),
            items: room(items),
            contexts: room(contexts),
            sessions: room(sessions),
            artists: room(artists),
            tags: room(tags),
            windows: Windows::default(),
        };
        let mut spans = Vec::with_capacity(windows);
        // Oldest first, so that among rules of one value the newest stays.
        for (age, &at) in by_age.iter().enumerate() {
            let (values, value) = match &rules[at].scope {
                Scope::Item(item) => (&mut rulings.items, item),
                Scope::Context(context) => (&mut rulings.contexts, context),
                Scope::Session(session) => (&mut rulings.sessions, session),
                Scope::Artist(artist) => (&mut rulings.artists, artist),
                Scope::Tag(tag) => (&mut rulings.tags, tag),
                Scope::Window { start_us, end_us } => {
                    spans.push(Span {
                        start_us: *start_us,
                        end_us: *end_us,
                        age,
                    });
                    continue;
                }
            };
            values.insert(value, age);
        }
        rulings.windows = Windows::new(spans);
        rulings.by_age = by_age;
        rulings
    }

    /// Position in the profile of the rule of an age.
    pub(super) fn rule(&self, age: Age) -> usize {
        self.by_age[age]
    }

    pub(super) fn is_empty(&self) -> bool {
        self.by_age.is_empty()
    }

    /// Position in the profile of the rule that decides on an event: most specific scope, then
    /// newest.
    pub(super) fn of_event(
        &self,
        event: &Event,
        ordinal: Option<u32>,
        catalogue: &dyn Catalogue,
    ) -> Option<usize> {
        if self.is_empty() {
            return None;
        }
        newest(&self.items, Some(&event.item))
            .or_else(|| newest(&self.contexts, event.context.as_deref()))
            .or_else(|| newest(&self.sessions, event.session.as_deref()))
            .or_else(|| self.of_attributes(ordinal?, catalogue))
            .or_else(|| self.windows.at(event.time_us))
            .map(|age| self.rule(age))
    }

    pub(super) fn of_attributes(&self, ordinal: u32, catalogue: &dyn Catalogue) -> Option<Age> {
        if !self.artists.is_empty() {
            let age = newest(&self.artists, catalogue.artist_of(ordinal));
            if age.is_some() {
                return age;
            }
        }
        let mut age = None;
        if !self.tags.is_empty() {
            catalogue.for_each_tag(ordinal, &mut |tag| {
                age = age.max(newest(&self.tags, Some(tag)))
            });
        }
        age
    }
}

/// Age of the newest rule for a value.
pub(super) fn newest(ages: &ByText<'_, Age>, value: Option<&str>) -> Option<Age> {
    if ages.is_empty() {
        return None;
    }
    ages.get(value?).copied()
}

/// One window rule.
struct Span {
    start_us: Option<i64>,
    end_us: Option<i64>,
    age: Age,
}

/// Time cut where any window starts or ends, with the newest window over each piece.
#[derive(Default)]
pub(super) struct Windows {
    /// Where each piece starts, ascending; the last is without end.
    starts: Vec<i64>,
    /// The newest window over each piece.
    newest: Vec<Option<Age>>,
}

impl Windows {
    /// Cuts time by a sweep. O(W log W) for W windows, at most 2 W + 1 pieces.
    fn new(mut spans: Vec<Span>) -> Self {
        if spans.is_empty() {
            return Self::default();
        }
        // An absent start sorts first, as it should.
        spans.sort_unstable_by_key(|span| span.start_us);
        let first = std::iter::once(i64::MIN);
        let bounds = spans
            .iter()
            .flat_map(|span| [span.start_us, span.end_us])
            .flatten();
        let mut starts: Vec<i64> = first.chain(bounds).collect();
        starts.sort_unstable();
        starts.dedup();

        let mut begun: BinaryHeap<(Age, Option<i64>)> = BinaryHeap::new();
        let mut ahead = spans.into_iter().peekable();
        let newest = starts
            .iter()
            .map(|&start_us| {
                let here = |span: &Span| span.start_us.is_none_or(|from_us| from_us <= start_us);
                while let Some(span) = ahead.next_if(here) {
                    begun.push((span.age, span.end_us));
                }
                // An older window may have ended too: it is dropped when it comes to the top.
                while begun
                    .peek()
                    .is_some_and(|&(_, end)| end.is_some_and(|end| end <= start_us))
                {
                    begun.pop();
                }
                begun.peek().map(|&(age, _)| age)
            })
            .collect();
        Self { starts, newest }
    }

    /// Age of the newest window over an instant. O(log W).
    pub(super) fn at(&self, time_us: i64) -> Option<Age> {
        let after = self.starts.partition_point(|&start_us| start_us <= time_us);
        self.newest[..after].last().copied().flatten()
    }

    pub(super) fn is_empty(&self) -> bool {
        self.starts.is_empty()
    }
}
