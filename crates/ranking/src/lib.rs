//! Ranking variants: features, scoring expressions, diversity, exploration, as data.
//!
//! Retrieval brings candidates; a [`Variant`] says how many, how they are scored, and how [`rank`]
//! makes a list of them: spread by marginal relevance, sampled with known probabilities, capped by
//! artist and scene. [`draft`] interleaves two lists, [`overlap`] and [`rank_biased_overlap`] compare
//! them. Variants are declared in TOML, bounded, and checked when they are read, so an
//! owner of an experiment changes a ranking without a release and cannot break the server with it.
//!
//! ```
//! let variants = refrain_ranking::Variants::from_toml(refrain_ranking::DEFAULT_TOML)?;
//! let balanced = variants.get("balanced").expect("declared");
//! assert_eq!(balanced.caps.artist, Some(2));
//! # Ok::<(), refrain_ranking::VariantsError>(())
//! ```

mod agreement;
mod caps;
mod draft;
mod expression;
mod feature;
mod model;
mod parameter;
mod pick;
mod random;
mod rank;
mod variant;

pub use agreement::{PERSISTENCE, overlap, rank_biased_overlap};
pub use caps::Caps;
pub use draft::{Drafted, Team, draft};
pub use expression::{Expression, ParseError, Problem};
pub use feature::{Column, Feature, freshness, novelty, popularity};
pub use model::{Loaded, Model, Reranker};
pub use parameter::{Kind, MAX_INTERESTS, PARAMETERS, Parameter, Setting};
pub use rank::{
    Candidate, Exploration, Mmr, NoResemblance, Outcome, RankScratch, Ranked, Resemblance, Shape,
    complete, rank,
};
pub use variant::{
    Bounds, DEFAULT_TOML, DEFAULT_VARIANT, ParameterTables, Variant, VariantProblem, VariantTables,
    Variants, VariantsError, Width,
};
