//! What is asked for, and what may be asked.
//!
//! Errors name the field as the wire does (`seeds.positive[3].weight`), since whoever reads them
//! wrote a request, whichever way it came.

use std::sync::Arc;

use refrain_als::FoldInError;
use refrain_index::{Deadline, SearchError};
use refrain_taste::Profile;

use crate::names::NameList;
use crate::solve::SolvedTaste;
use crate::version::Version;

/// Asks for recommendations.
#[derive(Debug, Clone, Copy)]
pub struct Request<'a> {
    /// Whom or what they are for.
    pub subject: Subject<'a>,
    /// How many items, 1 to [`Limits::K`].
    pub k: usize,
    /// Which items may come back; `None`: all.
    pub filter: Option<&'a Arc<ItemFilter>>,
    /// Whether what the listener has heard, or gave as a seed, may come back.
    pub seen: Seen,
    /// At most so many items of one artist; `Some(0)`: no cap, `None`: what the variant says.
    pub max_per_artist: Option<u32>,
    /// Candidate-list width, 1 to [`Limits::EF_SEARCH`]. `None`: what the variant says, else the
    /// version.
    pub ef_search: Option<usize>,
    /// Recall@10 to aim at instead, 0.5 to 1 ([`Version::ef_search_for`]).
    pub recall: Option<f64>,
    /// Exact search instead of the graph.
    pub exact: bool,
    /// When to stop searching and answer with what there is.
    pub deadline: Option<Deadline>,
    /// What to answer when there is nothing to search with.
    pub fallback: Fallback,
    /// The instant of the request, in microseconds of Unix time: decides which rules are in force and
    /// how fresh items are.
    pub now_us: i64,
    /// What to do with seeds that the version does not know.
    pub missing_seeds: MissingSeeds,
    /// Decides what is drawn where a variant explores, and the coins of an interleaved list: the same
    /// seed draws the same list.
    pub seed: u64,
    /// Whether the answer says what ranking knew of every candidate.
    pub trace: bool,
}

impl<'a> Request<'a> {
    /// A request with the defaults of the wire: heard items excluded, no filter, popularity as
    /// fallback, unknown seeds skipped.
    #[must_use]
    pub fn new(subject: Subject<'a>, k: usize, now_us: i64) -> Self {
        Self {
            subject,
            k,
            filter: None,
            seen: Seen::default(),
            max_per_artist: None,
            ef_search: None,
            recall: None,
            exact: false,
            deadline: None,
            fallback: Fallback::default(),
            now_us,
            missing_seeds: MissingSeeds::default(),
            seed: 0,
            trace: false,
        }
    }

    pub(crate) fn check(&self, version: &Version) -> Result<(), RequestError> {
        in_range("page_size", self.k, Limits::K)?;
        check_width(self.ef_search, self.recall)?;
        check_filter(self.filter)?;
        match self.subject {
            // Checked where it was made; what is checked here is that it was made for this version.
            Subject::Solved(solved)
                if (solved.version(), solved.delta()) != (version.id(), version.delta()) =>
            {
                let name = |version: &str, delta| format!("{version}, delta {delta}");
                let expected = name(version.id(), version.delta());
                let actual = name(solved.version(), solved.delta());
                Err(RequestError::OtherVersion { expected, actual })
            }
            Subject::Solved(_) | Subject::Profile { .. } => Ok(()),
            Subject::Vector(values) => check_vector("vector", values, version),
            Subject::Seeds { positive, negative } => check_seeds(positive, negative, version),
        }
    }
}

/// Whom or what recommendations are for.
#[derive(Debug, Clone, Copy)]
pub enum Subject<'a> {
    /// A listener's profile, folded in for this request.
    Profile {
        /// Their events and rules.
        profile: &'a Profile,
    },
    /// A listener's profile, folded in before by this version.
    Solved(&'a SolvedTaste),
    /// Near to the weighted mean of some, far from that of others; 1 to [`Limits::SEEDS`] together.
    Seeds {
        /// To be near to.
        positive: &'a [Seed<'a>],
        /// To be far from.
        negative: &'a [Seed<'a>],
    },
    /// Near to a vector of the version's dimension.
    Vector(&'a [f32]),
}

/// One seed.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Seed<'a> {
    /// An item.
    Item {
        /// Its id.
        id: &'a str,
        /// Finite, greater than 0.
        weight: f32,
    },
    /// A vector.
    Vector {
        /// As many as the version has dimensions, finite.
        values: &'a [f32],
        /// Finite, greater than 0.
        weight: f32,
    },
}

/// Which items may come back. The default lets everything through. Names that the version does not
/// know match nothing. One that is asked again, being the same and not only equal, need not be looked up again
/// by a version.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub struct ItemFilter {
    /// These may not.
    pub exclude_items: NameList,
    /// None by these artists.
    pub exclude_artists: NameList,
    /// Only these may, when any are given.
    pub allow_items: NameList,
    /// Only items with at least one of these tags, when any are given.
    pub any_tags: NameList,
    /// No item with one of these tags.
    pub not_tags: NameList,
}

impl ItemFilter {
    fn check(&self) -> Result<(), RequestError> {
        for (path, names, max) in [
            (
                "filter.exclude_item_ids",
                &self.exclude_items,
                Limits::FILTER_ITEMS,
            ),
            (
                "filter.exclude_artists",
                &self.exclude_artists,
                Limits::FILTER_ARTISTS,
            ),
            (
                "filter.allow_item_ids",
                &self.allow_items,
                Limits::FILTER_ITEMS,
            ),
            ("filter.any_tags", &self.any_tags, Limits::FILTER_TAGS),
            ("filter.not_tags", &self.not_tags, Limits::FILTER_TAGS),
        ] {
            if names.len() > max {
                return Err(field(
                    path,
                    Problem::TooMany {
                        count: names.len(),
                        max,
                    },
                ));
            }
        }
        Ok(())
    }

    /// How many names it has.
    pub(crate) fn len(&self) -> usize {
        self.lists().iter().map(|names| names.len()).sum()
    }

    /// What it takes of memory, in bytes.
    #[must_use]
    pub fn bytes(&self) -> usize {
        size_of::<Self>()
            + self
                .lists()
                .iter()
                .map(|names| names.bytes())
                .sum::<usize>()
    }

    fn lists(&self) -> [&NameList; 5] {
        [
            &self.exclude_items,
            &self.exclude_artists,
            &self.allow_items,
            &self.any_tags,
            &self.not_tags,
        ]
    }
}

fn check_filter(filter: Option<&Arc<ItemFilter>>) -> Result<(), RequestError> {
    filter.map_or(Ok(()), |filter| filter.check())
}

/// Whether what is known to the listener may come back.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Seen {
    /// It does not.
    #[default]
    Exclude,
    /// It may.
    Allow,
}

/// What to answer when there is nothing to search with.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum Fallback {
    /// The most popular allowed items.
    #[default]
    Popular,
    /// Nothing.
    None,
}

/// What to do with seeds that the version does not know.
#[derive(Debug, Clone, Copy, Default, PartialEq, Eq, Hash)]
pub enum MissingSeeds {
    /// Skip and name them.
    #[default]
    Skip,
    /// Refuse the request.
    Fail,
}

/// Asks for neighbours.
#[derive(Debug, Clone, Copy)]
pub struct Similar<'a> {
    /// What to be near to.
    pub to: SimilarTo<'a>,
    /// How many items, 1 to [`Limits::K`].
    pub k: usize,
    /// Which items may come back; `None`: all.
    pub filter: Option<&'a Arc<ItemFilter>>,
    /// Candidate-list width, 1 to [`Limits::EF_SEARCH`]. `None`: what the version says.
    pub ef_search: Option<usize>,
    /// Recall@10 to aim at instead, 0.5 to 1 ([`Version::ef_search_for`]).
    pub recall: Option<f64>,
    /// Exact search instead of the graph.
    pub exact: bool,
    /// When to stop searching and answer with what there is.
    pub deadline: Option<Deadline>,
}

impl<'a> Similar<'a> {
    /// A request without filter.
    #[must_use]
    pub fn new(to: SimilarTo<'a>, k: usize) -> Self {
        Self {
            to,
            k,
            filter: None,
            ef_search: None,
            recall: None,
            exact: false,
            deadline: None,
        }
    }

    pub(crate) fn check(&self, version: &Version) -> Result<(), RequestError> {
        in_range("page_size", self.k, Limits::K)?;
        check_width(self.ef_search, self.recall)?;
        check_filter(self.filter)?;
        match self.to {
            SimilarTo::Item(_) => Ok(()),
            SimilarTo::Vector(values) => check_vector("vector", values, version),
        }
    }
}

/// What to be near to.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum SimilarTo<'a> {
    /// An item, which does not come back itself.
    Item(&'a str),
    /// A vector of the version's dimension.
    Vector(&'a [f32]),
}

/// How much a request may ask for.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits;

impl Limits {
    /// Most items of an answer.
    pub const K: usize = 1_000;
    /// Widest candidate list.
    pub const EF_SEARCH: usize = 10_000;
    /// Most seeds, positive and negative together.
    pub const SEEDS: usize = 256;
    /// Most item ids in a list of a filter.
    pub const FILTER_ITEMS: usize = 10_000;
    /// Most artists in a filter.
    pub const FILTER_ARTISTS: usize = 1_000;
    /// Most tags in a list of a filter.
    pub const FILTER_TAGS: usize = 64;
}

/// Why a request is refused.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum RequestError {
    /// A field that is not what it may be.
    #[error("{path}: {problem}")]
    Field {
        /// Which field.
        path: String,
        /// What is wrong with it.
        problem: Problem,
    },
    /// An item that the version does not know, where it has to.
    #[error("{path}: item {id:?} is not in this version")]
    UnknownItem {
        /// Which field.
        path: String,
        /// The item.
        id: String,
    },
    /// A taste that another version folded in.
    #[error(
        "the taste was folded in by version {actual}, version {expected} cannot search with it"
    )]
    OtherVersion {
        /// The version that was asked.
        expected: String,
        /// The version that the taste belongs to.
        actual: String,
    },
    /// The profile cannot be folded in: the version's factors or evidence are damaged.
    #[error("the profile cannot be folded in: {0}")]
    FoldIn(#[from] FoldInError),
    /// The index refused the query.
    #[error("the index refused the query: {0}")]
    Search(#[from] SearchError),
}

/// What is wrong with a field.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum Problem {
    /// A number out of its range.
    #[error("{value} is not in 1 to {max}")]
    OutOfRange {
        /// The number.
        value: usize,
        /// The largest allowed.
        max: usize,
    },
    /// A recall out of its range.
    #[error("{0} is not in 0.5 to 1")]
    NoRecall(f64),
    /// Two fields of which one is allowed.
    #[error("not together with {0}")]
    Beside(&'static str),
    /// A vector that does not fit the version.
    #[error("{actual} values, the version has {expected} dimensions")]
    WrongDimension {
        /// Dimensions of the version.
        expected: usize,
        /// Values given.
        actual: usize,
    },
    /// Not-a-number or infinite.
    #[error("the number is not finite")]
    NotFinite,
    /// A weight that does not weigh.
    #[error("weight {weight} is not a finite number greater than 0")]
    Weight {
        /// The weight.
        weight: f32,
    },
    /// A list that is too long.
    #[error("{count} entries, at most {max} are allowed")]
    TooMany {
        /// Its length.
        count: usize,
        /// The longest allowed.
        max: usize,
    },
    /// A list that must not be empty.
    #[error("at least one is needed")]
    Empty,
}

fn check_seeds(
    positive: &[Seed<'_>],
    negative: &[Seed<'_>],
    version: &Version,
) -> Result<(), RequestError> {
    let (count, max) = (positive.len() + negative.len(), Limits::SEEDS);
    if count == 0 {
        return Err(field("seeds", Problem::Empty));
    }
    if count > max {
        return Err(field("seeds", Problem::TooMany { count, max }));
    }
    for (side, seeds) in [("positive", positive), ("negative", negative)] {
        for (i, seed) in seeds.iter().enumerate() {
            let (Seed::Item { weight, .. } | Seed::Vector { weight, .. }) = *seed;
            if !(weight.is_finite() && weight > 0.0) {
                let path = format!("seeds.{side}[{i}].weight");
                return Err(field(path, Problem::Weight { weight }));
            }
            if let Seed::Vector { values, .. } = seed {
                check_vector(&format!("seeds.{side}[{i}].vector"), values, version)?;
            }
        }
    }
    Ok(())
}

fn check_vector(path: &str, values: &[f32], version: &Version) -> Result<(), RequestError> {
    let (expected, actual) = (version.index().dim(), values.len());
    if expected != actual {
        let path = format!("{path}.values");
        return Err(field(path, Problem::WrongDimension { expected, actual }));
    }
    match values.iter().position(|value| !value.is_finite()) {
        None => Ok(()),
        Some(i) => Err(field(format!("{path}.values[{i}]"), Problem::NotFinite)),
    }
}

fn check_width(ef_search: Option<usize>, recall: Option<f64>) -> Result<(), RequestError> {
    if let Some(ef_search) = ef_search {
        in_range("search.ef_search", ef_search, Limits::EF_SEARCH)?;
    }
    match recall {
        Some(_) if ef_search.is_some() => Err(field("search.recall", Problem::Beside("ef_search"))),
        Some(recall) if !(0.5..=1.0).contains(&recall) => {
            Err(field("search.recall", Problem::NoRecall(recall)))
        }
        _ => Ok(()),
    }
}

fn in_range(path: &str, value: usize, max: usize) -> Result<(), RequestError> {
    if (1..=max).contains(&value) {
        return Ok(());
    }
    Err(field(path, Problem::OutOfRange { value, max }))
}

fn field(path: impl Into<String>, problem: Problem) -> RequestError {
    RequestError::Field {
        path: path.into(),
        problem,
    }
}
