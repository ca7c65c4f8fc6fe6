//! Limits of a configuration, why one is refused, and on which line.

use toml::de::{DeTable, DeValue};

use crate::config::{DEFAULT_SURFACE, Kind};

/// How much a configuration may hold.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Limits;

impl Limits {
    /// Most layers.
    pub const LAYERS: usize = 64;
    /// Most surfaces.
    pub const SURFACES: usize = 1024;
    /// Most experiments.
    pub const EXPERIMENTS: usize = 1024;
    /// Most arms of an experiment.
    pub const ARMS: usize = 32;
    /// Most holdouts.
    pub const HOLDOUTS: usize = 8;
    /// Most attributes.
    pub const ATTRIBUTES: usize = 64;
    /// Most parameters of a layer.
    pub const PARAMS: usize = 64;
    /// Most forced units of an experiment.
    pub const FORCED: usize = 10_000;
    /// Most metrics of an experiment.
    pub const METRICS: usize = 64;
    /// Most units of a closed intake.
    pub const ADMITTED: usize = 50_000_000;
    /// Longest unit of a closed intake, in bytes.
    pub const UNIT_BYTES: usize = 128;
    /// Longest name, in bytes.
    pub const NAME_BYTES: usize = 64;
}

/// Why a configuration is refused. `place` is the path of the field in the file.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ConfigError {
    /// Not TOML, or not of this shape; the source says on which line.
    #[error("{source}")]
    Parse {
        /// What the reader of TOML says.
        source: Box<toml::de::Error>,
    },
    /// A name that could not be part of a hash key.
    #[error("{place}: name {name:?} is not 1 to {max} bytes without `|` and control characters", max = Limits::NAME_BYTES)]
    Name {
        /// Which name.
        place: String,
        /// The name.
        name: String,
    },
    /// More of something than is allowed.
    #[error("{place}: {count} are too many, at most {max} are allowed")]
    TooMany {
        /// Of what.
        place: String,
        /// How many there are.
        count: usize,
        /// How many may be.
        max: usize,
    },
    /// A bucket count other than the two that there are.
    #[error("layer.{layer}.buckets: {buckets} is neither 10000 nor 1000000")]
    Buckets {
        /// The layer.
        layer: String,
        /// Its buckets.
        buckets: u32,
    },
    /// A reference to a layer that is not declared.
    #[error("{place}: layer `{layer}` is not declared; declared: {known}")]
    UnknownLayer {
        /// Where it is referred to.
        place: String,
        /// The layer.
        layer: String,
        /// Those that are.
        known: String,
    },
    /// A reference to a ranking variant that is not declared.
    #[error("{place}: variant `{variant}` is not declared; declared: {known}")]
    UnknownVariant {
        /// Where it is referred to.
        place: String,
        /// The variant.
        variant: String,
        /// Those that are.
        known: String,
    },
    /// No surface answers for undeclared ones.
    #[error("surface.{surface} is missing: it answers for surfaces that are not declared", surface = DEFAULT_SURFACE)]
    NoDefaultSurface,
    /// An allocation above the whole layer.
    #[error(
        "experiment.{experiment}.allocation_bp: {allocation_bp} is more than 10000 basis points"
    )]
    AllocationRange {
        /// The experiment.
        experiment: String,
        /// Its allocation.
        allocation_bp: u32,
    },
    /// The experiments of a layer want more than the layer has.
    #[error("layer.{layer}: allocations add up to {total_bp} of 10000 basis points ({sum}); {over} too many", over = total_bp - 10_000)]
    OverAllocated {
        /// The layer.
        layer: String,
        /// What they want.
        total_bp: u64,
        /// Each experiment with its share.
        sum: String,
    },
    /// An experiment without a comparison.
    #[error("experiment.{experiment}.arm: {count} given, {kind} needs {needs}")]
    Arms {
        /// The experiment.
        experiment: String,
        /// Its kind.
        kind: Kind,
        /// How many it has.
        count: usize,
        /// How many it needs.
        needs: &'static str,
    },
    /// A value that is not allowed where it stands.
    #[error("{place}: {problem}")]
    Value {
        /// Where.
        place: String,
        /// What is wrong, and what is allowed.
        problem: String,
    },
    /// Arms or weights changed within an epoch.
    #[error(
        "experiment.{experiment}.arm: arms or weights are not those of epoch {epoch} in the journal: units \
         would change their arm unseen; raise `epoch`, then `refrain experiment allocate`"
    )]
    ArmsChanged {
        /// The experiment.
        experiment: String,
        /// The epoch.
        epoch: u32,
    },
    /// The file and the journal differ in an epoch.
    #[error(
        "{place}: the journal has epoch {journal}, the file {file}; `refrain experiment allocate` records a new one"
    )]
    Epoch {
        /// Which epoch.
        place: String,
        /// The journal's.
        journal: u32,
        /// The file's.
        file: u32,
    },
    /// Two arms of one name.
    #[error("{place}: there is another arm `{arm}`")]
    DuplicateArm {
        /// The second of them.
        place: String,
        /// The name.
        arm: String,
    },
    /// A weight that is no share.
    #[error("{place}: weight {weight} is not a finite number greater than 0")]
    Weight {
        /// Which weight.
        place: String,
        /// The weight.
        weight: f64,
    },
    /// An arm so small beside the others that no unit would get it.
    #[error(
        "{place}: weight {weight} is less than a millionth of the experiment, no unit would get this arm"
    )]
    ArmTooSmall {
        /// Which weight.
        place: String,
        /// The weight.
        weight: f64,
    },
}

impl ConfigError {
    /// Path of the field that is wrong, if it is one: `experiment.e.arm[1].variant`.
    #[must_use]
    pub fn place(&self) -> Option<String> {
        match self {
            Self::Parse { .. } => None,
            Self::NoDefaultSurface => Some("surface".to_owned()),
            Self::OverAllocated { layer, .. } => Some(format!("layer.{layer}")),
            other => {
                let text = other.to_string();
                text.find(": ").map(|end| text[..end].to_owned())
            }
        }
    }
}

/// The line of a file, from 1, on which the thing at `place` stands, or else what it would stand in.
/// Paths are as in errors: keys joined by dots, entries of lists in brackets.
#[must_use]
pub fn line_of(text: &str, place: &str) -> Option<usize> {
    let table = DeTable::parse(text).ok()?;
    let mut at = None;
    let mut rest = place;
    let mut table: &DeTable<'_> = table.get_ref();
    'down: loop {
        // Names may hold dots themselves: the longest key that fits is meant.
        let (key, value) = table
            .iter()
            .filter(|(key, _)| starts_with_key(rest, key.get_ref()))
            .max_by_key(|(key, _)| key.get_ref().len())?;
        at = Some(key.span().start).or(at);
        rest = &rest[key.get_ref().len()..];
        let mut value = value;
        while let Some(inner) = rest.strip_prefix('[') {
            let Some((index, behind)) = inner.split_once(']') else {
                break 'down;
            };
            let entry = match (value.get_ref(), index.parse::<usize>()) {
                (DeValue::Array(array), Ok(index)) => array.get(index),
                _ => None,
            };
            let Some(entry) = entry else { break 'down };
            at = Some(entry.span().start);
            (value, rest) = (entry, behind);
        }
        rest = rest.strip_prefix('.').unwrap_or_default();
        match value.get_ref() {
            DeValue::Table(inner) if !rest.is_empty() => {
                let fits = inner
                    .iter()
                    .any(|(key, _)| starts_with_key(rest, key.get_ref()));
                if !fits {
                    break;
                }
                table = inner;
            }
            _ => break,
        }
    }
    at.map(|at| text[..at.min(text.len())].matches('\n').count() + 1)
}

fn starts_with_key(place: &str, key: &str) -> bool {
    place
        .strip_prefix(key)
        .is_some_and(|rest| rest.is_empty() || rest.starts_with(['.', '[']))
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const TEXT: &str = "# a comment\n[layer.ranking]\nepoch = 1\n\n[experiment.'a.b']\nlayer = 'x'\n\
        [[experiment.'a.b'.arm]]\nname = 'c'\n[[experiment.'a.b'.arm]]\nname = 't'\nweight = 2\n";

    #[test]
    fn places_have_lines() {
        for (place, line) in [
            ("layer.ranking", 2),
            ("layer.ranking.epoch", 3),
            ("experiment.a.b.layer", 6),
            ("experiment.a.b.arm[1].weight", 11),
            ("experiment.a.b.arm[1].variant", 9),
            ("experiment.a.b.kind", 5),
        ] {
            assert_eq!(line_of(TEXT, place), Some(line), "{place}");
        }
        assert_eq!(line_of(TEXT, "surface"), None);
    }

    proptest! {
        #[test]
        fn any_place_in_any_text_is_looked_for(text in "[a-z\\[\\].=\n0-9']{0,60}", place in "[a-z.\\[\\]0-9é]{0,30}") {
            let _ = line_of(&text, &place);
            let _ = line_of(TEXT, &place);
        }
    }
}
