//! Variants as they are declared in TOML.

use std::collections::BTreeMap;
use std::ops::RangeInclusive;

use crate::expression::{Expression, ParseError};

/// What a server ranks with when no configuration declares variants.
pub const DEFAULT_TOML: &str = r#"[variant.plain]
score = "similarity"

[variant.balanced]
score = "similarity + 0.15 * popularity + 0.1 * freshness"
max_per_artist = 2
"#;

/// The variant of callers that name none, where it is declared.
pub const DEFAULT_VARIANT: &str = "plain";

/// A named ranking: `[variant.NAME]`.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// Label of the version to retrieve from. `None`: the one that the request asks for.
    pub label: Option<String>,
    /// Candidates that are retrieved and scored, [`Bounds::CANDIDATES`]; more when `k` is larger or
    /// caps use them up.
    pub candidates: usize,
    /// Candidate-list width of the search, [`Bounds::EF_SEARCH`]. `None`: what the engine chooses.
    pub ef_search: Option<usize>,
    /// How a candidate is scored; larger is better.
    pub score: Expression,
    /// At most so many items of one artist, [`Bounds::MAX_PER_ARTIST`]. `None`: no cap.
    pub max_per_artist: Option<u32>,
    /// Age in days at which freshness is one half, [`Bounds::FRESHNESS_HALF_LIFE_DAYS`].
    pub freshness_half_life_days: f64,
}

/// What the numbers of a variant may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds;

impl Bounds {
    /// Of `candidates`.
    pub const CANDIDATES: RangeInclusive<i64> = 1..=10_000;
    /// Of `ef_search`.
    pub const EF_SEARCH: RangeInclusive<i64> = 1..=10_000;
    /// Of `max_per_artist`.
    pub const MAX_PER_ARTIST: RangeInclusive<i64> = 1..=1_000;
    /// Of `freshness_half_life_days`.
    pub const FRESHNESS_HALF_LIFE_DAYS: RangeInclusive<f64> = 0.01..=36_500.0;
    /// Most variants.
    pub const VARIANTS: usize = 256;
    /// Longest name, in bytes.
    pub const NAME_BYTES: usize = 64;
}

/// The declared variants by name; at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Variants {
    by_name: BTreeMap<String, Variant>,
}

impl Variants {
    /// Reads a text that holds nothing but `[variant.NAME]` tables.
    ///
    /// # Errors
    /// [`VariantsError`] with variant, field and what is allowed, and the line.
    pub fn from_toml(text: &str) -> Result<Self, VariantsError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            variant: Variants,
        }

        let File { variant } = toml::from_str(text).map_err(|source| VariantsError::Parse {
            source: Box::new(source),
        })?;
        Ok(variant)
    }

    /// The variant of that name.
    #[must_use]
    pub fn get(&self, name: &str) -> Option<&Variant> {
        self.by_name.get(name)
    }

    /// [`DEFAULT_VARIANT`] where it is declared, else the first by name.
    #[must_use]
    pub fn default_variant(&self) -> Option<&Variant> {
        self.get(DEFAULT_VARIANT)
            .or_else(|| self.by_name.values().next())
    }

    /// All of them, by name.
    pub fn iter(&self) -> impl ExactSizeIterator<Item = &Variant> {
        self.by_name.values()
    }

    /// Their names, in order.
    #[must_use]
    pub fn names(&self) -> Vec<&str> {
        self.by_name.keys().map(String::as_str).collect()
    }

    /// One text for one meaning, to take a digest of.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut text = String::from("refrain-variants 1\n");
        for variant in self.iter() {
            let Variant {
                name,
                label,
                candidates,
                ef_search,
                score,
                max_per_artist,
                ..
            } = variant;
            let half_life = variant.freshness_half_life_days;
            text += &format!(
                "{name:?} {label:?} {candidates} {ef_search:?} {max_per_artist:?} {half_life:?} {score}\n"
            );
        }
        text
    }
}

/// Why declared variants are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VariantsError {
    /// Not TOML, an unknown field, or a value that is not allowed; the source says on which line.
    #[error("{source}")]
    Parse {
        /// What the reader of TOML says.
        source: Box<toml::de::Error>,
    },
    /// No variant at all.
    #[error("variant: none is declared, at least one is needed")]
    None,
    /// More than are allowed.
    #[error("variant: {count} are declared, at most {max} are allowed", max = Bounds::VARIANTS)]
    TooMany {
        /// How many.
        count: usize,
    },
    /// A name that could not be shown or assigned.
    #[error("variant.{name:?}: a name is 1 to {max} bytes without `|` and control characters", max = Bounds::NAME_BYTES)]
    Name {
        /// The name.
        name: String,
    },
    /// A number out of its bounds.
    #[error("variant.{variant}.{field}: {value} is not in {least} to {most}")]
    OutOfBounds {
        /// The variant.
        variant: String,
        /// The field.
        field: &'static str,
        /// Its value.
        value: String,
        /// The least allowed.
        least: String,
        /// The most allowed.
        most: String,
    },
    /// A scoring expression that does not parse.
    #[error("variant.{variant}.score: {source}")]
    Score {
        /// The variant.
        variant: String,
        /// What is wrong with it.
        source: ParseError,
    },
}

/// A variant as written, before its values are looked at.
#[derive(Debug, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    label: Option<String>,
    #[serde(default = "default_candidates")]
    candidates: i64,
    ef_search: Option<i64>,
    score: String,
    max_per_artist: Option<i64>,
    #[serde(default = "default_half_life")]
    freshness_half_life_days: f64,
}

fn default_candidates() -> i64 {
    500
}

fn default_half_life() -> f64 {
    180.0
}

impl<'de> serde::Deserialize<'de> for Variants {
    /// Checks while it reads, so that the reader adds the line of the table to what is wrong in it.
    fn deserialize<D: serde::Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        BTreeMap::<String, Declared>::deserialize(deserializer)?
            .try_into()
            .map_err(serde::de::Error::custom)
    }
}

impl TryFrom<BTreeMap<String, Declared>> for Variants {
    type Error = VariantsError;

    fn try_from(declared: BTreeMap<String, Declared>) -> Result<Self, VariantsError> {
        match declared.len() {
            0 => return Err(VariantsError::None),
            count if count > Bounds::VARIANTS => return Err(VariantsError::TooMany { count }),
            _ => {}
        }
        let by_name = declared
            .into_iter()
            .map(|(name, declared)| Ok((name.clone(), declared.check(name)?)))
            .collect::<Result<_, VariantsError>>()?;
        Ok(Self { by_name })
    }
}

impl Declared {
    fn check(self, name: String) -> Result<Variant, VariantsError> {
        if !(1..=Bounds::NAME_BYTES).contains(&name.len())
            || name.chars().any(|c| c == '|' || c.is_control())
        {
            return Err(VariantsError::Name { name });
        }
        let score = Expression::parse(&self.score).map_err(|source| VariantsError::Score {
            variant: name.clone(),
            source,
        })?;
        let candidates = bounded(&name, "candidates", self.candidates, Bounds::CANDIDATES)?;
        let ef_search = self
            .ef_search
            .map(|value| bounded(&name, "ef_search", value, Bounds::EF_SEARCH))
            .transpose()?;
        let max_per_artist = self
            .max_per_artist
            .map(|value| bounded(&name, "max_per_artist", value, Bounds::MAX_PER_ARTIST))
            .transpose()?;
        let half_life = self.freshness_half_life_days;
        let bounds = Bounds::FRESHNESS_HALF_LIFE_DAYS;
        if !bounds.contains(&half_life) {
            return Err(out_of_bounds(
                &name,
                "freshness_half_life_days",
                half_life,
                bounds,
            ));
        }
        Ok(Variant {
            name,
            label: self.label,
            candidates,
            ef_search,
            score,
            max_per_artist,
            freshness_half_life_days: half_life,
        })
    }
}

/// The value as the type that holds its bounds.
fn bounded<T: TryFrom<i64>>(
    variant: &str,
    field: &'static str,
    value: i64,
    bounds: RangeInclusive<i64>,
) -> Result<T, VariantsError> {
    match T::try_from(value) {
        Ok(fits) if bounds.contains(&value) => Ok(fits),
        _ => Err(out_of_bounds(variant, field, value, bounds)),
    }
}

fn out_of_bounds<T: ToString>(
    variant: &str,
    field: &'static str,
    value: T,
    bounds: RangeInclusive<T>,
) -> VariantsError {
    VariantsError::OutOfBounds {
        variant: variant.to_owned(),
        field,
        value: value.to_string(),
        least: bounds.start().to_string(),
        most: bounds.end().to_string(),
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_defaults_are_what_the_documentation_says() {
        let variants = Variants::from_toml(DEFAULT_TOML).expect("valid");
        assert_eq!(variants.names(), ["balanced", "plain"]);
        let plain = variants.default_variant().expect("declared");
        assert_eq!(
            (plain.name.as_str(), plain.score.to_string().as_str()),
            ("plain", "similarity")
        );
        assert_eq!(
            (plain.max_per_artist, plain.candidates, plain.ef_search),
            (None, 500, None)
        );
        let balanced = variants.get("balanced").expect("declared");
        assert_eq!(
            balanced.score.to_string(),
            "similarity + 0.15 * popularity + 0.1 * freshness"
        );
        assert_eq!(balanced.max_per_artist, Some(2));
    }

    #[test]
    fn all_fields_are_read() {
        let text = "[variant.v]\nlabel = 'canary'\ncandidates = 10000\nef_search = 1\n\
                    score = 'freshness'\nmax_per_artist = 1000\nfreshness_half_life_days = 7\n";
        let variants = Variants::from_toml(text).expect("valid");
        let expected = Variant {
            name: "v".to_owned(),
            label: Some("canary".to_owned()),
            candidates: 10_000,
            ef_search: Some(1),
            score: Expression::parse("freshness").expect("valid"),
            max_per_artist: Some(1_000),
            freshness_half_life_days: 7.0,
        };
        assert_eq!(variants.get("v"), Some(&expected));
        assert_eq!(variants.default_variant(), Some(&expected));
    }

    #[test]
    fn refusals_name_variant_field_and_bounds() {
        let cases = [
            (
                "candidates = 0",
                "variant.v.candidates: 0 is not in 1 to 10000",
            ),
            (
                "candidates = -1",
                "variant.v.candidates: -1 is not in 1 to 10000",
            ),
            (
                "ef_search = 100000",
                "variant.v.ef_search: 100000 is not in 1 to 10000",
            ),
            (
                "max_per_artist = 0",
                "variant.v.max_per_artist: 0 is not in 1 to 1000",
            ),
            (
                "freshness_half_life_days = nan",
                "variant.v.freshness_half_life_days: NaN is not in 0.01 to 36500",
            ),
            (
                "max_per_arist = 2",
                "unknown field `max_per_arist`, expected one of `label`",
            ),
            ("label = 3", "invalid type: integer `3`"),
            ("candidates = 99999999999999999999", "line 3"),
        ];
        for (line, expected) in cases {
            let text = format!("[variant.v]\nscore = 'similarity'\n{line}\n");
            let message = Variants::from_toml(&text).expect_err(line).to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
            assert!(message.contains("line "), "{message:?} has no line");
        }
        let score = |text: &str| {
            let text = format!("[variant.v]\nscore = '{text}'\n");
            Variants::from_toml(&text)
                .expect_err("not an expression")
                .to_string()
        };
        assert!(score("1 +").contains("variant.v.score: column 4: the expression ends"));
        assert!(score("novelty").contains("unknown name `novelty`; there are the features"));
        let message = Variants::from_toml("[variant]\n")
            .expect_err("none")
            .to_string();
        assert!(message.contains("none is declared"), "{message}");
        let message = Variants::from_toml("[variant.'a|b']\nscore = '1'")
            .expect_err("bad")
            .to_string();
        assert!(message.contains("without `|`"), "{message}");
    }

    #[test]
    fn the_canonical_text_follows_meaning_only() {
        let canonical = |text: &str| Variants::from_toml(text).expect("valid").canonical();
        let a = canonical("[variant.v]\nscore = '(similarity)'\ncandidates = 500\n");
        assert_eq!(
            a,
            canonical("# the same\n[variant.v]\nscore = 'similarity'")
        );
        assert_ne!(
            a,
            canonical("[variant.v]\nscore = 'similarity'\ncandidates = 501")
        );
    }

    proptest! {
        #[test]
        fn any_text_is_read_or_refused(text in "[\\[\\]a-z.=\"0-9\n ]{0,200}|.{0,200}") {
            let _ = Variants::from_toml(&text);
        }
    }
}
