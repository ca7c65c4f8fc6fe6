//! Variants as they are declared in TOML.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt;
use std::ops::RangeInclusive;

use serde::de::{Deserialize, Deserializer, Visitor};
use toml::Spanned;

use crate::caps::Caps;
use crate::expression::{Expression, ParseError};
use crate::feature::Feature;
use crate::model::{Loaded, Reranker};
use crate::parameter::{Declared as DeclaredParameter, Parameter, bounds};
use crate::rank::{Exploration, Mmr};

/// What a server ranks with when no configuration declares variants.
pub const DEFAULT_TOML: &str = r#"[variant.plain]
score = "similarity"

[variant.balanced]
score = "similarity + 0.15 * popularity + 0.1 * freshness"
max_per_artist = 2
"#;

/// The variant of callers that name none, where it is declared.
pub const DEFAULT_VARIANT: &str = "plain";

/// A named ranking: `[variant.NAME]`. Every number is within its bounds of
/// [`PARAMETERS`](crate::PARAMETERS).
#[derive(Debug, Clone, PartialEq)]
#[non_exhaustive]
pub struct Variant {
    /// Its name.
    pub name: String,
    /// A word for people.
    pub description: String,
    /// Labels of the version to retrieve from: the first that serves. Empty: what the request asks
    /// for.
    pub labels: Vec<String>,
    /// Candidates that are retrieved and scored; more when `k` is larger or caps use them up.
    pub candidates: usize,
    /// Most interests of a listener that candidates are retrieved for, each with a vector of its own; 1: the
    /// profile as a whole.
    pub interests: usize,
    /// The power of an item's length that its similarity is divided by: takes popularity out of inner products, from
    /// 0 (nothing) to 1 (all that is in the length). Versions by cosine or l2 have none in theirs.
    pub debias: f64,
    /// How wide the search is. `None`: what the version was calibrated for.
    pub width: Option<Width>,
    /// How a candidate is scored; larger is better. Parameters are written out.
    pub score: Expression,
    /// The parameters that the score or a setting names, at their values.
    pub parameters: BTreeMap<String, f64>,
    /// The model whose value the score names.
    pub model: Option<Reranker>,
    /// How many items of one artist and of one scene.
    pub caps: Caps,
    /// Spread over what resembles each other.
    pub mmr: Option<Mmr>,
    /// Sample instead of taking the best.
    pub exploration: Option<Exploration>,
    /// Ids of the items that answer when there is nothing to search with, in this order, before the
    /// popular ones.
    pub pinned: Vec<String>,
    /// Age in days at which freshness is one half.
    pub freshness_half_life_days: f64,
}

impl Variant {
    /// Whether the score or the model needs a feature.
    #[must_use]
    pub fn needs(&self, feature: Feature) -> bool {
        let asked = self.model.as_ref().map_or(&[][..], |model| &model.features);
        self.score.features().contains(&feature) || asked.contains(&feature)
    }
}

/// How wide a search is.
#[derive(Debug, Clone, Copy, PartialEq)]
pub enum Width {
    /// So many candidates in the list of the search.
    Ef(usize),
    /// As wide as the version's calibration says that this recall@10 needs, 0.5 to 1.
    Recall(f64),
}

/// What the counts of a file of variants may be.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Bounds;

impl Bounds {
    /// Most variants.
    pub const VARIANTS: usize = 256;
    /// Most declared parameters.
    pub const PARAMETERS: usize = 256;
    /// Longest name, in bytes.
    pub const NAME_BYTES: usize = 64;
    /// Longest id of a pinned item, in bytes.
    pub const ID_BYTES: usize = 128;
}

/// `[variant.*]` as read, before it is checked by [`Variants::new`].
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(transparent)]
pub struct VariantTables(BTreeMap<Spanned<String>, Declared>);

/// `[parameter.*]` as read, before it is checked by [`Variants::new`].
#[derive(Debug, Clone, Default, PartialEq, serde::Deserialize)]
#[serde(transparent)]
pub struct ParameterTables(BTreeMap<Spanned<String>, DeclaredParameter>);

/// The declared variants by name; at least one.
#[derive(Debug, Clone, PartialEq)]
pub struct Variants {
    by_name: BTreeMap<String, Variant>,
    parameters: BTreeMap<String, Parameter>,
    /// The same as they were written, with the names of parameters.
    written: BTreeMap<String, Declared>,
}

impl Variants {
    /// Reads a text that holds nothing but `[variant.NAME]` and `[parameter.NAME]` tables.
    ///
    /// # Errors
    /// [`VariantsError`] with the line, variant, field and what is allowed.
    pub fn from_toml(text: &str) -> Result<Self, VariantsError> {
        #[derive(serde::Deserialize)]
        #[serde(deny_unknown_fields)]
        struct File {
            variant: VariantTables,
            #[serde(default)]
            parameter: ParameterTables,
        }

        let File { variant, parameter } =
            toml::from_str(text).map_err(|source| VariantsError::Parse {
                source: Box::new(source),
            })?;
        Self::new(variant, &parameter, text)
    }

    /// Checks tables that are part of a larger file, whose text finds the lines of what is wrong.
    ///
    /// # Errors
    /// [`VariantsError`] with the line, variant, field and what is allowed.
    pub fn new(
        variants: VariantTables,
        parameters: &ParameterTables,
        text: &str,
    ) -> Result<Self, VariantsError> {
        let line = |at: usize| {
            let before = text.get(..at).unwrap_or(text);
            before.bytes().filter(|&byte| byte == b'\n').count() + 1
        };
        let refuse = |(at, problem): (usize, VariantProblem)| VariantsError::Refused {
            line: line(at),
            problem,
        };
        for (what, count, max) in [
            ("variant", variants.0.len(), Bounds::VARIANTS),
            ("parameter", parameters.0.len(), Bounds::PARAMETERS),
        ] {
            if count > max {
                return Err(refuse((0, VariantProblem::TooMany { what, count, max })));
            }
        }
        let parameters: BTreeMap<String, Parameter> = parameters
            .0
            .iter()
            .map(|(name, declared)| {
                let problem = |problem| VariantProblem::Parameter {
                    name: name.get_ref().clone(),
                    problem,
                };
                let parameter = declared
                    .check(name.get_ref())
                    .map_err(|text| refuse((name.span().start, problem(text))))?;
                Ok((name.get_ref().clone(), parameter))
            })
            .collect::<Result<_, VariantsError>>()?;
        let mut written = BTreeMap::new();
        let by_name = variants
            .0
            .into_iter()
            .map(|(name, declared)| {
                let at = name.span().start;
                let name = name.into_inner();
                check_name(&name).map_err(|problem| refuse((at, problem)))?;
                written.insert(name.clone(), declared.clone());
                let mut variant = declared.check(&name, &parameters).map_err(refuse)?;
                if let Some(model) = &mut variant.model {
                    model.line = line(model.line);
                }
                Ok((name, variant))
            })
            .collect::<Result<BTreeMap<_, _>, VariantsError>>()?;
        if by_name.is_empty() {
            return Err(refuse((0, VariantProblem::None)));
        }
        Ok(Self {
            by_name,
            parameters,
            written,
        })
    }

    /// Adds the variant that `base`, itself declared or derived, is with some of its parameters at other values, and says its name:
    /// that of `base` and the values, such as `balanced|popularity_weight=0.3`. No declared name has a
    /// `|` in it. O(length of what is written).
    ///
    /// # Errors
    /// The parameter that it cannot be derived with, and why: it is not declared, `base` does not name it, or
    /// the value is not allowed, by its own bounds or by those of a setting that it is.
    pub fn derive(
        &mut self,
        base: &str,
        values: &BTreeMap<&str, f64>,
    ) -> Result<String, (String, String)> {
        let mut name = base.to_owned();
        for (parameter, value) in values {
            name += &format!("|{parameter}={value}");
        }
        if self.by_name.contains_key(&name) {
            return Ok(name);
        }
        let no = |parameter: &str, problem: String| Err((parameter.to_owned(), problem));
        let (Some(variant), Some(written)) = (self.by_name.get(base), self.written.get(base))
        else {
            return no("", format!("variant `{base}` is not declared"));
        };
        let mut written = written.clone();
        let mut derived = variant.clone();
        for (&parameter, &value) in values {
            let Some(declared) = self.parameters.get(parameter) else {
                return no(parameter, "is not declared".to_owned());
            };
            if !variant.parameters.contains_key(parameter) {
                let score = written.score.get_ref();
                return no(
                    parameter,
                    format!(
                        "neither the score of variant `{base}` nor a setting names it: {score}"
                    ),
                );
            }
            if let Some(complaint) = declared.complaint(value) {
                return no(parameter, complaint);
            }
            let value = Spanned::new(0..0, value);
            written.params.insert(parameter.to_owned(), value);
            // One value at a time, so that it is the one to name when a setting does not allow it.
            match written.clone().check(base, &self.parameters) {
                Ok(checked) => derived = checked,
                Err((_, problem)) => return no(parameter, problem.to_string()),
            }
        }
        let derived = Variant {
            name: name.clone(),
            model: variant.model.clone(),
            ..derived
        };
        self.written.insert(name.clone(), written);
        self.by_name.insert(name.clone(), derived);
        Ok(name)
    }

    /// Reads the models that variants name: `load` gets the file and the number of inputs.
    ///
    /// # Errors
    /// What `load` says of the first one that it cannot read, with line and variant.
    pub fn load_models(
        &mut self,
        load: &mut dyn FnMut(&str, usize) -> Result<Loaded, String>,
    ) -> Result<(), VariantsError> {
        for variant in self.by_name.values_mut() {
            let Some(model) = &mut variant.model else {
                continue;
            };
            let loaded = load(&model.file, model.features.len());
            model.loaded = Some(loaded.map_err(|problem| VariantsError::Refused {
                line: model.line,
                problem: VariantProblem::Field {
                    variant: variant.name.clone(),
                    field: "model".to_owned(),
                    problem,
                },
            })?);
        }
        Ok(())
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

    /// The declared parameter of that name.
    #[must_use]
    pub fn parameter(&self, name: &str) -> Option<&Parameter> {
        self.parameters.get(name)
    }

    /// The declared parameters, by name.
    pub fn parameters(&self) -> impl ExactSizeIterator<Item = &Parameter> {
        self.parameters.values()
    }

    /// One text for one meaning, to take a digest of.
    #[must_use]
    pub fn canonical(&self) -> String {
        let mut text = String::from("refrain-variants 2\n");
        for variant in self.iter() {
            let Variant {
                name,
                description: _,
                labels,
                candidates,
                interests,
                debias,
                width,
                score,
                parameters: _,
                model,
                caps,
                mmr,
                exploration,
                pinned,
                freshness_half_life_days,
            } = variant;
            text += &format!(
                "{name:?} {labels:?} {candidates} {width:?} {caps:?} {mmr:?} {exploration:?} \
                 {pinned:?} {freshness_half_life_days:?} {score}\n"
            );
            // A line of its own, so that configurations without it keep their digest.
            if *interests > 1 {
                text += &format!("{name:?} interests {interests}\n");
            }
            if *debias > 0.0 {
                text += &format!("{name:?} debias {debias:?}\n");
            }
            if let Some(model) = model {
                let (digest, features) = (model.digest(), &model.features);
                text += &format!("{name:?} model {digest} {features:?}\n");
            }
        }
        text
    }
}

/// Why declared variants are refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum VariantsError {
    /// Not TOML, an unknown field, or a value of another type; the source says on which line.
    #[error("{source}")]
    Parse {
        /// What the reader of TOML says.
        source: Box<toml::de::Error>,
    },
    /// A value that is not allowed.
    #[error("line {line}: {problem}")]
    Refused {
        /// Where, from 1.
        line: usize,
        /// What is wrong.
        problem: VariantProblem,
    },
}

/// What is wrong with a variant or a parameter.
#[derive(Debug, Clone, PartialEq, thiserror::Error)]
#[non_exhaustive]
pub enum VariantProblem {
    /// No variant at all.
    #[error("variant: none is declared, at least one is needed")]
    None,
    /// More than are allowed.
    #[error("{what}: {count} are declared, at most {max} are allowed")]
    TooMany {
        /// Of what.
        what: &'static str,
        /// How many.
        count: usize,
        /// The most allowed.
        max: usize,
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
        least: f64,
        /// The most allowed.
        most: f64,
    },
    /// A field that does not go with another, or with what is declared.
    #[error("variant.{variant}.{field}: {problem}")]
    Field {
        /// The variant.
        variant: String,
        /// The field.
        field: String,
        /// What is wrong.
        problem: String,
    },
    /// A scoring expression that does not parse.
    #[error("variant.{variant}.score: {source}")]
    Score {
        /// The variant.
        variant: String,
        /// What is wrong with it.
        source: ParseError,
    },
    /// A parameter that is declared wrongly.
    #[error("parameter.{name}: {problem}")]
    Parameter {
        /// Its name.
        name: String,
        /// What is wrong.
        problem: String,
    },
}

/// A variant as written, before its values are looked at.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct Declared {
    #[serde(default)]
    description: Option<Spanned<String>>,
    label: Option<Spanned<String>>,
    labels: Option<Spanned<Vec<String>>>,
    candidates: Option<Spanned<Quantity>>,
    interests: Option<Spanned<Quantity>>,
    debias: Option<Spanned<Quantity>>,
    ef_search: Option<Spanned<Quantity>>,
    recall: Option<Spanned<Quantity>>,
    score: Spanned<String>,
    #[serde(default)]
    params: BTreeMap<String, Spanned<f64>>,
    model: Option<Spanned<String>>,
    model_features: Option<Spanned<Vec<String>>>,
    max_per_artist: Option<Spanned<Quantity>>,
    max_per_scene: Option<Spanned<Quantity>>,
    mmr_lambda: Option<Spanned<Quantity>>,
    mmr_pool: Option<Spanned<Quantity>>,
    exploration: Option<DeclaredExploration>,
    #[serde(default)]
    pinned: Option<Spanned<Vec<String>>>,
    freshness_half_life_days: Option<Spanned<Quantity>>,
}

/// `[variant.NAME.exploration]`.
#[derive(Debug, Clone, PartialEq, serde::Deserialize)]
#[serde(deny_unknown_fields)]
struct DeclaredExploration {
    temperature: Spanned<Quantity>,
    pool: Option<Spanned<Quantity>>,
}

/// A number, or the name of the parameter that it is.
#[derive(Debug, Clone, PartialEq)]
enum Quantity {
    Number(f64),
    Parameter(String),
}

impl<'de> Deserialize<'de> for Quantity {
    fn deserialize<D: Deserializer<'de>>(deserializer: D) -> Result<Self, D::Error> {
        struct Either;

        impl Visitor<'_> for Either {
            type Value = Quantity;

            fn expecting(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
                f.write_str("a number, or the name of a parameter")
            }

            #[expect(clippy::cast_precision_loss, reason = "held against bounds below 2^53")]
            fn visit_i64<E>(self, number: i64) -> Result<Quantity, E> {
                Ok(Quantity::Number(number as f64))
            }

            fn visit_f64<E>(self, number: f64) -> Result<Quantity, E> {
                Ok(Quantity::Number(number))
            }

            fn visit_str<E>(self, name: &str) -> Result<Quantity, E> {
                Ok(Quantity::Parameter(name.to_owned()))
            }
        }

        deserializer.deserialize_any(Either)
    }
}

/// Candidates without a word about them.
const CANDIDATES: usize = 500;
/// Half life of freshness without a word about it, in days.
const HALF_LIFE_DAYS: f64 = 180.0;
/// Candidates that are spread or sampled from without a word about it.
const POOL: usize = 200;

type Refusal = (usize, VariantProblem);

impl Declared {
    /// The parameters that settings are.
    fn named(&self) -> impl Iterator<Item = &str> {
        let exploration = self.exploration.as_ref();
        let settings = [
            self.candidates.as_ref(),
            self.interests.as_ref(),
            self.debias.as_ref(),
            self.ef_search.as_ref(),
            self.recall.as_ref(),
            self.max_per_artist.as_ref(),
            self.max_per_scene.as_ref(),
            self.mmr_lambda.as_ref(),
            self.mmr_pool.as_ref(),
            exploration.map(|exploration| &exploration.temperature),
            exploration.and_then(|exploration| exploration.pool.as_ref()),
            self.freshness_half_life_days.as_ref(),
        ];
        settings
            .into_iter()
            .flatten()
            .filter_map(|setting| match setting.get_ref() {
                Quantity::Parameter(name) => Some(name.as_str()),
                Quantity::Number(_) => None,
            })
    }

    fn check(
        self,
        name: &str,
        parameters: &BTreeMap<String, Parameter>,
    ) -> Result<Variant, Refusal> {
        let field = Fields {
            variant: name,
            parameters,
            given: &self.params,
        };
        let (score, parameters) = field.score(&self.score, self.named().collect())?;
        let named = score.features().contains(&Feature::Model);
        let model = field.model(self.model, self.model_features)?;
        match (&model, named) {
            (None, true) => {
                let problem =
                    "names `model`, and the variant has none: set model and model_features";
                return Err(field.wrong("score", &self.score, problem));
            }
            (Some(model), false) => {
                let at = Spanned::new(model.line..model.line, ());
                return Err(field.wrong("model", &at, "the score does not name `model`"));
            }
            _ => {}
        }
        let width = match (&self.ef_search, &self.recall) {
            (Some(ef), None) => Some(Width::Ef(
                field.count("ef_search", Some(ef))?.unwrap_or_default(),
            )),
            (None, Some(recall)) => Some(Width::Recall(field.number("recall", recall)?)),
            (None, None) => None,
            (Some(_), Some(recall)) => {
                return Err(field.wrong("recall", recall, "not together with ef_search"));
            }
        };
        let labels = match (self.label, self.labels) {
            (Some(label), None) => {
                let at = label.span();
                Spanned::new(at, vec![label.into_inner()])
            }
            (None, Some(labels)) => {
                field.length("labels", labels.get_ref().len(), &labels)?;
                labels
            }
            (None, None) => Spanned::new(0..0, Vec::new()),
            (Some(_), Some(labels)) => {
                return Err(field.wrong("labels", &labels, "not together with label"));
            }
        };
        if let Some(label) = labels.get_ref().iter().find(|label| !is_label(label)) {
            let problem =
                format!("{label:?} is not 1 to 64 of a-z, 0-9, '_', '-', starting with a letter");
            return Err(field.wrong("labels", &labels, &problem));
        }
        let mmr_pool = field.count("mmr_pool", self.mmr_pool.as_ref())?;
        let mmr = match (&self.mmr_lambda, &self.mmr_pool) {
            (Some(lambda), _) => {
                #[expect(clippy::cast_possible_truncation, reason = "0 to 1")]
                let lambda = field.number("mmr_lambda", lambda)? as f32;
                let pool = mmr_pool.unwrap_or(POOL);
                Some(Mmr { lambda, pool })
            }
            (None, Some(pool)) => {
                return Err(field.wrong("mmr_pool", pool, "says nothing without mmr_lambda"));
            }
            (None, None) => None,
        };
        let exploration = match &self.exploration {
            None => None,
            Some(declared) => Some(Exploration {
                temperature: field.number("exploration.temperature", &declared.temperature)?,
                pool: field
                    .count("exploration.pool", declared.pool.as_ref())?
                    .unwrap_or(POOL),
            }),
        };
        let pinned = match self.pinned {
            None => Vec::new(),
            Some(pinned) => {
                field.length("pinned", pinned.get_ref().len(), &pinned)?;
                let too_long = |id: &&String| !(1..=Bounds::ID_BYTES).contains(&id.len());
                if let Some(id) = pinned.get_ref().iter().find(too_long) {
                    let problem = format!("an id is 1 to 128 bytes, {id:?} is not");
                    return Err(field.wrong("pinned", &pinned, &problem));
                }
                pinned.into_inner()
            }
        };
        let description = match self.description {
            None => String::new(),
            Some(description) => {
                field.length("description", description.get_ref().len(), &description)?;
                description.into_inner()
            }
        };
        let cap = |name, value: Option<&Spanned<Quantity>>| {
            let cap = field.count(name, value)?;
            Ok(cap.map(|cap| u32::try_from(cap).unwrap_or(u32::MAX)))
        };
        let half_life = self.freshness_half_life_days.as_ref();
        Ok(Variant {
            name: name.to_owned(),
            description,
            labels: labels.into_inner(),
            candidates: field
                .count("candidates", self.candidates.as_ref())?
                .unwrap_or(CANDIDATES),
            interests: field
                .count("interests", self.interests.as_ref())?
                .unwrap_or(1),
            debias: match &self.debias {
                None => 0.0,
                Some(power) => field.number("debias", power)?,
            },
            width,
            score,
            parameters,
            model,
            caps: Caps {
                artist: cap("max_per_artist", self.max_per_artist.as_ref())?,
                scene: cap("max_per_scene", self.max_per_scene.as_ref())?,
            },
            mmr,
            exploration,
            pinned,
            freshness_half_life_days: match half_life {
                None => HALF_LIFE_DAYS,
                Some(days) => field.number("freshness_half_life_days", days)?,
            },
        })
    }
}

/// Checks the fields of one variant.
struct Fields<'a> {
    variant: &'a str,
    /// All that are declared.
    parameters: &'a BTreeMap<String, Parameter>,
    /// Values that the variant gives them.
    given: &'a BTreeMap<String, Spanned<f64>>,
}

impl Fields<'_> {
    /// The score with the values of parameters, and the parameters that it or one of the `settings` names.
    fn score(
        &self,
        text: &Spanned<String>,
        settings: BTreeSet<&str>,
    ) -> Result<(Expression, BTreeMap<String, f64>), Refusal> {
        let names = text
            .get_ref()
            .split(|c: char| !(c.is_ascii_alphanumeric() || c == '_' || c == '.'));
        let names: BTreeSet<&str> = names.chain(settings).collect();
        for (name, value) in self.given {
            let field = format!("params.{name}");
            let parameter = self.parameter(&field, value, name)?;
            if !names.contains(name.as_str()) {
                let problem = "neither the score nor a setting names it";
                return Err(self.wrong(&field, value, problem));
            }
            if let Some(complaint) = parameter.complaint(*value.get_ref()) {
                return Err(self.wrong(&field, value, &complaint));
            }
        }
        let values = self
            .parameters
            .iter()
            .map(|(name, parameter)| (name.as_str(), single(self.value(parameter))))
            .collect();
        let score = Expression::parse_with(text.get_ref(), &values).map_err(|source| {
            let variant = self.variant.to_owned();
            (text.span().start, VariantProblem::Score { variant, source })
        })?;
        let named = self
            .parameters
            .iter()
            .filter(|(name, _)| names.contains(name.as_str()))
            .map(|(name, parameter)| (name.clone(), self.value(parameter)))
            .collect();
        Ok((score, named))
    }

    /// A declared parameter, which a field names.
    fn parameter<T>(
        &self,
        field: &str,
        at: &Spanned<T>,
        name: &str,
    ) -> Result<&Parameter, Refusal> {
        self.parameters.get(name).ok_or_else(|| {
            let declared: Vec<_> = self.parameters.keys().map(String::as_str).collect();
            let declared = declared.join(", ");
            let problem = format!("parameter `{name}` is not declared; declared: {declared}");
            self.wrong(field, at, &problem)
        })
    }

    /// What a parameter is in this variant.
    fn value(&self, parameter: &Parameter) -> f64 {
        let given = self.given.get(&parameter.name);
        given.map_or(parameter.default, |value| *value.get_ref())
    }

    /// The model as it is declared; its line is a place in the text.
    fn model(
        &self,
        file: Option<Spanned<String>>,
        features: Option<Spanned<Vec<String>>>,
    ) -> Result<Option<Reranker>, Refusal> {
        let (file, features) = match (file, features) {
            (None, None) => return Ok(None),
            (Some(file), Some(features)) => (file, features),
            (Some(file), None) => {
                return Err(self.wrong("model", &file, "needs model_features"));
            }
            (None, Some(features)) => {
                return Err(self.wrong("model_features", &features, "says nothing without model"));
            }
        };
        self.length("model", file.get_ref().len(), &file)?;
        self.length("model_features", features.get_ref().len(), &features)?;
        let feature = |name: &String| match name.parse() {
            Ok(Feature::Model) | Err(()) => {
                let known = Feature::ALL.into_iter();
                let known = known.filter(|&feature| feature != Feature::Model);
                let known: Vec<_> = known.map(Feature::as_str).collect();
                let problem = format!("{name:?} is none of {}", known.join(", "));
                Err(self.wrong("model_features", &features, &problem))
            }
            Ok(feature) => Ok(feature),
        };
        Ok(Some(Reranker {
            features: features
                .get_ref()
                .iter()
                .map(feature)
                .collect::<Result<_, _>>()?,
            line: file.span().start,
            file: file.into_inner(),
            loaded: None,
        }))
    }

    fn count(
        &self,
        name: &'static str,
        value: Option<&Spanned<Quantity>>,
    ) -> Result<Option<usize>, Refusal> {
        let Some(value) = value else {
            return Ok(None);
        };
        let number = self.number(name, value)?;
        if number.fract() != 0.0 {
            return Err(self.wrong(name, value, &format!("{number} is no whole number")));
        }
        #[expect(
            clippy::cast_possible_truncation,
            clippy::cast_sign_loss,
            reason = "whole, and within bounds"
        )]
        let count = number as usize;
        Ok(Some(count))
    }

    fn number(&self, name: &'static str, value: &Spanned<Quantity>) -> Result<f64, Refusal> {
        let number = match value.get_ref() {
            Quantity::Number(number) => *number,
            Quantity::Parameter(parameter) => self.value(self.parameter(name, value, parameter)?),
        };
        if within(name).contains(&number) {
            return Ok(number);
        }
        Err(self.out_of_bounds(name, value.span().start, number.to_string()))
    }

    fn length<T>(
        &self,
        name: &'static str,
        length: usize,
        value: &Spanned<T>,
    ) -> Result<(), Refusal> {
        if within(name).contains(&(length as f64)) {
            return Ok(());
        }
        let length = format!("length {length}");
        Err(self.out_of_bounds(name, value.span().start, length))
    }

    fn out_of_bounds(&self, field: &'static str, at: usize, value: String) -> Refusal {
        let (least, most) = bounds(field);
        let variant = self.variant.to_owned();
        let problem = VariantProblem::OutOfBounds {
            variant,
            field,
            value,
            least,
            most,
        };
        (at, problem)
    }

    fn wrong<T>(&self, field: &str, value: &Spanned<T>, problem: &str) -> Refusal {
        let problem = VariantProblem::Field {
            variant: self.variant.to_owned(),
            field: field.to_owned(),
            problem: problem.to_owned(),
        };
        (value.span().start, problem)
    }
}

fn check_name(name: &str) -> Result<(), VariantProblem> {
    let fine = (1..=Bounds::NAME_BYTES).contains(&name.len())
        && !name.chars().any(|c| c == '|' || c.is_control());
    fine.then_some(()).ok_or_else(|| VariantProblem::Name {
        name: name.to_owned(),
    })
}

#[expect(
    clippy::cast_possible_truncation,
    reason = "scores are computed in single precision"
)]
fn single(value: f64) -> f32 {
    value as f32
}

fn within(name: &str) -> RangeInclusive<f64> {
    let (least, most) = bounds(name);
    least..=most
}

/// As the store has it: a letter, then letters, digits, `_` and `-`; 64 at most.
fn is_label(label: &str) -> bool {
    (1..=64).contains(&label.len())
        && label.starts_with(|first: char| first.is_ascii_lowercase())
        && label
            .bytes()
            .all(|b| b.is_ascii_lowercase() || b.is_ascii_digit() || b == b'_' || b == b'-')
}

#[cfg(test)]
mod tests;
