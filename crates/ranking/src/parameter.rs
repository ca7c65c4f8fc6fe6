//! What a variant may set: every parameter with type, unit, bounds and default.
//!
//! Two kinds: those of every variant, in [`PARAMETERS`], and those that an owner declares in
//! `[parameter.NAME]` for scoring expressions, in [`Parameter`].

use std::fmt;

use crate::feature::Feature;

/// A parameter that every variant has.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Setting {
    /// Key in `[variant.NAME]`.
    pub name: &'static str,
    /// What its values are.
    pub kind: Kind,
    /// What they count.
    pub unit: &'static str,
    /// Least and largest value; for texts and lists, length.
    pub bounds: (f64, f64),
    /// What holds where a variant does not say.
    pub default: &'static str,
    /// What it does.
    pub help: &'static str,
}

/// Type of a parameter.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash, serde::Deserialize)]
#[serde(rename_all = "lowercase")]
#[non_exhaustive]
pub enum Kind {
    /// A whole number.
    Integer,
    /// A finite number.
    Number,
    /// Text.
    Text,
    /// Texts.
    List,
}

impl fmt::Display for Kind {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Integer => "integer",
            Self::Number => "number",
            Self::Text => "text",
            Self::List => "list",
        })
    }
}

const fn setting(
    name: &'static str,
    kind: Kind,
    unit: &'static str,
    bounds: (f64, f64),
    default: &'static str,
    help: &'static str,
) -> Setting {
    Setting {
        name,
        kind,
        unit,
        bounds,
        default,
        help,
    }
}

/// Most interests of a listener that a variant may retrieve for.
pub const MAX_INTERESTS: usize = 8;

/// The parameters of every variant. Outside of the bounds a variant does not load.
#[rustfmt::skip]
pub const PARAMETERS: &[Setting] = &[
    setting("score", Kind::Text, "bytes", (1.0, 1024.0), "required", "how a candidate is scored; larger is better"),
    setting("model", Kind::Text, "bytes", (1.0, 1024.0), "none", "file of a model, whose value the score names `model`; needs model_features"),
    setting("model_features", Kind::List, "features", (1.0, 64.0), "none", "what the model is asked about, in the order of its inputs"),
    setting("candidates", Kind::Integer, "items", (1.0, 10_000.0), "500", "candidates that are retrieved and scored"),
    setting("interests", Kind::Integer, "vectors", (1.0, MAX_INTERESTS as f64), "1", "most interests of a listener that are retrieved for, each with a vector of its own"),
    setting("debias", Kind::Number, "power", (0.0, 1.0), "0", "how much of popularity is taken out of similarities: each is divided by the item's length to this power"),
    setting("ef_search", Kind::Integer, "items", (1.0, 10_000.0), "the version's", "width of the search; not with recall"),
    setting("recall", Kind::Number, "share", (0.5, 1.0), "none", "recall@10 that the search aims at, by the version's calibration; not with ef_search"),
    setting("label", Kind::Text, "bytes", (1.0, 64.0), "the request's", "label of the version to retrieve from; or labels"),
    setting("labels", Kind::List, "labels", (1.0, 16.0), "the request's", "the first of these labels that serves"),
    setting("freshness_half_life_days", Kind::Number, "days", (0.01, 36_500.0), "180", "age at which freshness is one half"),
    setting("max_per_artist", Kind::Integer, "items", (1.0, 1_000.0), "none", "most items of one artist"),
    setting("max_per_scene", Kind::Integer, "items", (1.0, 1_000.0), "none", "most items of one scene"),
    setting("mmr_lambda", Kind::Number, "share", (0.0, 1.0), "none", "weight of relevance against resemblance; 1: by score alone"),
    setting("mmr_pool", Kind::Integer, "items", (1.0, 1_000.0), "200", "best-scored candidates that are spread; needs mmr_lambda"),
    setting("exploration.temperature", Kind::Number, "score", (1e-6, 1e6), "none", "how evenly places are drawn (of marginal relevance under MMR)"),
    setting("exploration.pool", Kind::Integer, "items", (1.0, 1_000.0), "200", "best-scored candidates that are drawn from"),
    setting("pinned", Kind::List, "items", (0.0, 100.0), "[]", "items of the fallback, in this order, before the popular ones"),
    setting("description", Kind::Text, "bytes", (0.0, 1024.0), "\"\"", "a word for people"),
];

/// The setting of that name.
pub(crate) fn bounds(name: &str) -> (f64, f64) {
    PARAMETERS
        .iter()
        .find(|setting| setting.name == name)
        .map_or((0.0, 0.0), |setting| setting.bounds)
}

/// `[parameter.NAME]`: a number that scoring expressions may name, which variants set within its
/// bounds.
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Parameter {
    /// Its name.
    pub name: String,
    /// [`Kind::Integer`] or [`Kind::Number`].
    pub kind: Kind,
    /// What it counts; a word for people.
    pub unit: String,
    /// Least value.
    pub min: f64,
    /// Largest value.
    pub max: f64,
    /// Where a variant does not set it.
    pub default: f64,
    /// What it is for; a word for people.
    pub help: String,
}

/// As it is written.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
pub(crate) struct Declared {
    #[serde(rename = "type")]
    kind: Kind,
    unit: String,
    min: f64,
    max: f64,
    default: f64,
    #[serde(default)]
    help: String,
}

impl Declared {
    pub(crate) fn check(&self, name: &str) -> Result<Parameter, String> {
        let identifier = name.starts_with(|c: char| c.is_ascii_lowercase())
            && name
                .chars()
                .all(|c| c.is_ascii_lowercase() || c.is_ascii_digit() || c == '_');
        if !identifier || name.len() > 64 {
            return Err("a name is 1 to 64 of a-z, 0-9 and `_`, starting with a letter".to_owned());
        }
        if name.parse::<Feature>().is_ok() || ["min", "max"].contains(&name) {
            return Err("the name belongs to a feature or function".to_owned());
        }
        if !matches!(self.kind, Kind::Integer | Kind::Number) {
            return Err(format!(
                "type: `{}` is neither `number` nor `integer`",
                self.kind
            ));
        }
        if !(self.min.is_finite() && self.max.is_finite() && self.min <= self.max) {
            return Err(format!(
                "min {} and max {} are no range of finite numbers",
                self.min, self.max
            ));
        }
        let parameter = Parameter {
            name: name.to_owned(),
            kind: self.kind,
            unit: self.unit.clone(),
            min: self.min,
            max: self.max,
            default: self.default,
            help: self.help.clone(),
        };
        match parameter.complaint(self.default) {
            Some(complaint) => Err(format!("default: {complaint}")),
            None => Ok(parameter),
        }
    }
}

impl Parameter {
    /// What is wrong with a value.
    pub(crate) fn complaint(&self, value: f64) -> Option<String> {
        let Self { min, max, unit, .. } = self;
        if !(*min..=*max).contains(&value) {
            return Some(format!("{value} is not in {min} to {max} ({unit})"));
        }
        (self.kind == Kind::Integer && value.fract() != 0.0)
            .then(|| format!("{value} is no whole number"))
    }
}
