//! Ranking variants: features, scoring expressions, caps, as data.
//!
//! Retrieval brings candidates; a [`Variant`] says how many, how they are scored and how the list is
//! spread over artists. Variants are declared in TOML, bounded, and checked when they are read, so an
//! owner of an experiment changes a ranking without a release and cannot break the server with it.
//!
//! ```
//! let variants = refrain_ranking::Variants::from_toml(refrain_ranking::DEFAULT_TOML)?;
//! let balanced = variants.get("balanced").expect("declared");
//! assert_eq!(balanced.max_per_artist, Some(2));
//! # Ok::<(), refrain_ranking::VariantsError>(())
//! ```

mod expression;
mod feature;
mod rank;
mod variant;

pub use expression::{Expression, ParseError, Problem};
pub use feature::{Feature, freshness, popularity};
pub use rank::{Candidate, RankScratch, Ranked, rank};
pub use variant::{Bounds, DEFAULT_TOML, DEFAULT_VARIANT, Variant, Variants, VariantsError};
