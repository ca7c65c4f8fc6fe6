//! Which ranking variant a listener gets: variants and experiments, checked against each other.

use std::collections::{BTreeMap, BTreeSet, HashMap};

use refrain_experiments::{
    Assignment, Attributes, Config, ConfigError, DEFAULT_TOML as DEFAULT_EXPERIMENTS, Experiments,
    Kind, Ledger, ParamConfig, ParamValue, SurfaceConfig, digest_of,
};
use refrain_ranking::{DEFAULT_TOML as DEFAULT_VARIANTS, Variant, Variants, VariantsError};

use crate::version::Version;

/// The ranking and experiment configuration in force. Immutable: a reload makes another one.
#[derive(Debug, Clone)]
pub struct Policy {
    variants: Variants,
    experiments: Experiments,
    /// What a variant becomes with the values of an arm that names none, by both.
    steps: Steps,
    digest: String,
}

/// By variant, then by [`Assignment::values`].
type Steps = HashMap<String, HashMap<u32, String>>;

/// Most variants that the arms of several layers may make of those that are declared.
const MOST_DERIVED: usize = 4_096;

impl Policy {
    /// Checks that experiments refer to declared variants and puts both together.
    ///
    /// # Errors
    /// The first thing that is wrong with the experiments.
    pub fn new(variants: Variants, experiments: &Config) -> Result<Self, PolicyError> {
        let compiled = Experiments::new(experiments, &variants.names())?;
        Self::join(variants, experiments, compiled)
    }

    /// The same with the ledger that says what each experiment holds.
    ///
    /// # Errors
    /// The first thing that is wrong with the experiments, or does not agree with the ledger.
    pub fn with_ledger(
        variants: Variants,
        experiments: &Config,
        ledger: &Ledger,
    ) -> Result<Self, PolicyError> {
        let compiled = Experiments::with_ledger(experiments, &variants.names(), ledger)?;
        Self::join(variants, experiments, compiled)
    }

    fn join(
        mut variants: Variants,
        config: &Config,
        mut experiments: Experiments,
    ) -> Result<Self, PolicyError> {
        let steps = set_parameters(&mut variants, config, &mut experiments)?;
        let joint = format!("{}\n{}", experiments.digest(), variants.canonical());
        Ok(Self {
            digest: digest_of(&joint),
            variants,
            experiments,
            steps,
        })
    }

    /// What is in force without a configuration: variants `plain` and `balanced`, half of the
    /// listeners each.
    ///
    /// # Errors
    /// None: the built-in texts are valid, which a test holds.
    pub fn built_in() -> Result<Self, PolicyError> {
        Self::new(
            Variants::from_toml(DEFAULT_VARIANTS)?,
            &Config::from_toml(DEFAULT_EXPERIMENTS)?,
        )
    }

    /// What `unit` gets on `surface`, or the variant that the request names. Allocates nothing where the
    /// surface has one layer.
    ///
    /// # Errors
    /// [`UnknownVariant`] when the request names one that is not declared.
    pub fn choose<'a>(
        &'a self,
        surface: &str,
        unit: &str,
        named: Option<&str>,
    ) -> Result<Choice<'a>, UnknownVariant> {
        self.choose_with(surface, unit, named, &())
    }

    /// [`choose`](Self::choose) with what the request says of itself, for targeting.
    ///
    /// # Errors
    /// [`UnknownVariant`] when the request names one that is not declared.
    pub fn choose_with<'a>(
        &'a self,
        surface: &str,
        unit: &str,
        named: Option<&str>,
        attributes: &dyn Attributes,
    ) -> Result<Choice<'a>, UnknownVariant> {
        let Some(name) = named else {
            let first = self.experiments.assign_with(surface, unit, attributes);
            let further = self.experiments.assign_further(surface, unit, attributes);
            return self.follow(first, further);
        };
        let variant = self.named(name)?;
        let assignment = self.experiments.force(surface, unit, &variant.name);
        Ok(Choice {
            assignment,
            further: Vec::new(),
            variant,
            contender: None,
        })
    }

    /// What a request gets that is not for a listener (seeds, a vector, events that the caller keeps):
    /// the default variant of the surface, in no experiment, since there is no unit to assign.
    ///
    /// # Errors
    /// None: surfaces refer to declared variants, which [`new`](Self::new) checks.
    pub fn unassigned(&self, surface: &str) -> Result<Choice<'_>, UnknownVariant> {
        self.follow(self.experiments.unassigned(surface), Vec::new())
    }

    /// Makes, ahead of the first request, what searches of `version` under any variant need.
    pub fn prepare(&self, version: &Version) {
        for variant in self.variants.iter() {
            version.prepare(variant);
        }
    }

    /// The declared variants.
    #[must_use]
    pub fn variants(&self) -> &Variants {
        &self.variants
    }

    /// The compiled experiments.
    #[must_use]
    pub fn experiments(&self) -> &Experiments {
        &self.experiments
    }

    /// Digest of all that decides ranking and assignment: SHA-256, 64 hexadecimal digits.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    /// The variant of the first layer with the values of all arms.
    fn follow<'a>(
        &'a self,
        mut assignment: Assignment<'a>,
        mut further: Vec<Assignment<'a>>,
    ) -> Result<Choice<'a>, UnknownVariant> {
        let ranks = |name: &'a str| {
            let all = std::iter::once(&assignment).chain(&further);
            let values = all.filter_map(|assignment| assignment.values);
            let name = values.fold(name, |name, values| self.step(name, values));
            self.named(name)
        };
        let variant = ranks(assignment.variant)?;
        let contender = match assignment.contenders {
            Some([_, second]) => Some(ranks(second)?),
            None => None,
        };
        assignment.variant = &variant.name;
        if let Some(second) = contender {
            assignment.contenders = Some([&variant.name, &second.name]);
        }
        for other in &mut further {
            other.variant = &variant.name;
        }
        Ok(Choice {
            assignment,
            further,
            variant,
            contender,
        })
    }

    fn step<'a>(&'a self, variant: &'a str, values: u32) -> &'a str {
        let found = self.steps.get(variant).and_then(|of| of.get(&values));
        found.map_or(variant, String::as_str)
    }

    fn named(&self, name: &str) -> Result<&Variant, UnknownVariant> {
        self.variants.get(name).ok_or_else(|| UnknownVariant {
            name: name.to_owned(),
        })
    }
}

/// Puts the parameters of arms into their variants. A parameter of a layer that is also one of scores
/// (`[parameter.NAME]`) ranks: the arm gets the variant that its own is with the arm's values. Other
/// parameters of layers are for callers alone.
fn set_parameters(
    variants: &mut Variants,
    config: &Config,
    experiments: &mut Experiments,
) -> Result<Steps, ConfigError> {
    for (layer, declared) in &config.layer {
        for (name, param) in &declared.params {
            check_default(variants, name, param).map_err(|problem| ConfigError::Value {
                place: format!("layer.{layer}.params.{name}.default"),
                problem,
            })?;
        }
    }
    let mut layers = Layers::default();
    for (experiment, declared) in &config.experiment.0 {
        for (at, arm) in declared.arms.iter().enumerate() {
            let ranks = |name: &str| variants.parameter(name).is_some();
            let set = arm.params.iter().filter(|(name, _)| ranks(name));
            let wrong = |(name, problem): (String, String)| ConfigError::Value {
                place: format!("experiment.{experiment}.arm[{at}].params.{name}"),
                problem,
            };
            let values: BTreeMap<&str, f64> = set
                .map(|(name, value)| match number(value) {
                    Some(value) => Ok((name.as_str(), value)),
                    None => Err(wrong((name.clone(), not_a_number(value)))),
                })
                .collect::<Result<_, _>>()?;
            let Some(variant) = &arm.variant else {
                if !values.is_empty() {
                    let values = layers.add(&declared.layer, (experiment, at), values);
                    experiments.set_values(experiment, &arm.name, values);
                }
                continue;
            };
            let derived = if values.is_empty() {
                variant.clone()
            } else {
                let derived = variants.derive(variant, &values).map_err(wrong)?;
                experiments.set_variant(experiment, &arm.name, &derived);
                derived
            };
            if declared.kind != Kind::Shadow {
                let named = layers.named.entry(&declared.layer).or_default();
                named.insert(derived);
            }
        }
    }
    let mut steps = Steps::new();
    for (name, surface) in &config.surface {
        layers.combine((name, surface), variants, &mut steps)?;
    }
    Ok(steps)
}

/// What the arms of layers do to the variant that ranks.
#[derive(Default)]
struct Layers<'a> {
    /// Values of arms that name no variant, each with its arm and its number, by layer.
    values: HashMap<&'a str, Vec<Values<'a>>>,
    /// Variants that arms name, with their values in them, by layer.
    named: HashMap<&'a str, BTreeSet<String>>,
    count: u32,
}

struct Values<'a> {
    number: u32,
    /// Experiment, and position of the arm in it.
    arm: (&'a str, usize),
    values: BTreeMap<&'a str, f64>,
}

impl<'a> Layers<'a> {
    fn add(
        &mut self,
        layer: &'a str,
        arm: (&'a str, usize),
        values: BTreeMap<&'a str, f64>,
    ) -> u32 {
        let number = self.count;
        self.count += 1;
        let of_layer = self.values.entry(layer).or_default();
        of_layer.push(Values {
            number,
            arm,
            values,
        });
        number
    }

    /// Makes every variant that the arms of a surface's layers can come to together.
    fn combine(
        &self,
        (name, surface): (&str, &SurfaceConfig),
        variants: &mut Variants,
        steps: &mut Steps,
    ) -> Result<(), ConfigError> {
        let mut reached = BTreeSet::from([surface.variant.clone()]);
        for (at, layer) in surface.layer.0.iter().enumerate() {
            let mut more = BTreeSet::new();
            for values in self.values.get(layer.as_str()).into_iter().flatten() {
                for base in &reached {
                    let derived =
                        variants
                            .derive(base, &values.values)
                            .map_err(|(parameter, problem)| {
                                let (experiment, arm) = values.arm;
                                ConfigError::Value {
                                    place: format!(
                                        "experiment.{experiment}.arm[{arm}].params.{parameter}"
                                    ),
                                    problem: format!("{problem} (on surface `{name}`)"),
                                }
                            })?;
                    let of_base = steps.entry(base.clone()).or_default();
                    of_base.insert(values.number, derived.clone());
                    more.insert(derived);
                    if variants.iter().len() > MOST_DERIVED {
                        return Err(ConfigError::Value {
                            place: format!("surface.{name}.layer"),
                            problem: format!(
                                "the arms of these layers come to more than {MOST_DERIVED} variants together: \
                                 give surfaces fewer layers, or layers fewer arms"
                            ),
                        });
                    }
                }
            }
            reached.append(&mut more);
            if at == 0
                && let Some(named) = self.named.get(layer.as_str())
            {
                reached.extend(named.iter().cloned());
            }
        }
        Ok(())
    }
}

/// Callers are told the layer's default of a parameter that ranks, so that is what must rank.
fn check_default(variants: &Variants, name: &str, param: &ParamConfig) -> Result<(), String> {
    let Some(parameter) = variants.parameter(name) else {
        return Ok(());
    };
    match number(&param.default) {
        None => Err(not_a_number(&param.default)),
        Some(default) if default.to_bits() != parameter.default.to_bits() => Err(format!(
            "is {default}, and {} in [parameter.{name}]: scores and callers would differ",
            parameter.default
        )),
        Some(_) => Ok(()),
    }
}

fn number(value: &ParamValue) -> Option<f64> {
    match value {
        ParamValue::Number(number) => Some(*number),
        #[expect(
            clippy::cast_precision_loss,
            reason = "bounds are checked, and are numbers too"
        )]
        ParamValue::Integer(number) => Some(*number as f64),
        ParamValue::Bool(_) | ParamValue::Text(_) => None,
    }
}

fn not_a_number(value: &ParamValue) -> String {
    format!("{value:?} is no number, which a parameter of a score is")
}

/// A variant, and why it.
#[derive(Debug, Clone, PartialEq)]
pub struct Choice<'a> {
    /// How it came about: the assignment in the first layer of the surface.
    pub assignment: Assignment<'a>,
    /// The assignments in its other layers.
    pub further: Vec<Assignment<'a>>,
    /// The variant, with the parameters of all arms.
    pub variant: &'a Variant,
    /// The one that drafts the list together with it, of kind `interleave`.
    pub contender: Option<&'a Variant>,
}

impl<'a> Choice<'a> {
    /// The assignments of all layers, the first layer's first.
    pub fn assignments(&self) -> impl Iterator<Item = &Assignment<'a>> {
        std::iter::once(&self.assignment).chain(&self.further)
    }
}

/// A request names a variant that is not declared.
#[derive(Debug, Clone, PartialEq, Eq, thiserror::Error)]
#[error("variant {name:?} is not declared")]
pub struct UnknownVariant {
    /// Its name.
    pub name: String,
}

/// A configuration is refused.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum PolicyError {
    /// Its variants.
    #[error(transparent)]
    Variants(#[from] VariantsError),
    /// Its layers, surfaces or experiments.
    #[error(transparent)]
    Experiments(#[from] ConfigError),
}

#[cfg(test)]
mod tests {
    use refrain_experiments::Reason;

    use super::*;

    #[test]
    fn the_built_in_policy_is_valid() {
        let policy = Policy::built_in().expect("valid");
        assert_eq!(policy.digest().len(), 64);
        let choice = policy.choose("home", "u1", None).expect("declared");
        assert_eq!(choice.assignment.variant, choice.variant.name);
        assert_eq!(choice.assignment.reason, Reason::Split);
    }

    const VARIANTS: &str = "[parameter.alpha]\ntype = 'number'\nunit = 'score'\nmin = 0\nmax = 0.5\n\
        default = 0.1\n[variant.plain]\nscore = 'similarity'\n\
        [variant.blend]\nscore = 'similarity + alpha * popularity'\n";
    const EXPERIMENTS: &str = "[layer.l]\nepoch = 1\n[layer.l.params.alpha]\ndefault = 0.1\n\
        [layer.l.params.title]\ndefault = 'x'\n[surface.default]\nlayer = 'l'\nvariant = 'plain'\n\
        [experiment.e]\nkind = 'ab'\nlayer = 'l'\nepoch = 1\nallocation_bp = 10000\n\
        [[experiment.e.arm]]\nname = 'low'\nvariant = 'blend'\nparams = { alpha = 0.2 }\n\
        [[experiment.e.arm]]\nname = 'high'\nvariant = 'blend'\nparams = { alpha = 0.4, title = 'y' }\n";

    fn policy(experiments: &str) -> Result<Policy, PolicyError> {
        let experiments = Config::from_toml(experiments).expect("well-formed");
        Policy::new(Variants::from_toml(VARIANTS)?, &experiments)
    }

    #[test]
    fn the_parameters_of_an_arm_rank() {
        let policy = policy(EXPERIMENTS).expect("valid");
        let mut scores = BTreeSet::new();
        for unit in 0..50 {
            let unit = format!("u{unit}");
            let choice = policy.choose("", &unit, None).expect("declared");
            scores.insert((choice.assignment.arm, choice.variant.score.to_string()));
            assert_eq!(choice.assignment.variant, choice.variant.name);
        }
        let expected = [("high", "0.4"), ("low", "0.2")]
            .map(|(arm, alpha)| (Some(arm), format!("similarity + {alpha} * popularity")));
        assert!(scores.into_iter().eq(expected));
        // Under its name anybody can ask for it, and it is part of what is in force.
        let named = policy.choose("", "u1", Some("blend|alpha=0.4"));
        assert_eq!(named.expect("derived").assignment.reason, Reason::Forced);
        let other = self::policy(&EXPERIMENTS.replace("0.4", "0.3")).expect("valid");
        assert_ne!(policy.digest(), other.digest());
    }

    /// Also where two arms draft one list, or one is computed in the dark.
    #[test]
    fn the_parameters_of_an_arm_rank_in_every_kind() {
        let names = ["blend|alpha=0.2", "blend|alpha=0.4"];
        let drafted = policy(&EXPERIMENTS.replace("'ab'", "'interleave'")).expect("valid");
        let choice = drafted.choose("", "u1", None).expect("declared");
        assert_eq!(choice.assignment.contenders, Some(names));
        let dark = policy(&EXPERIMENTS.replace("'ab'", "'shadow'")).expect("valid");
        let shadows = dark.experiments().shadows("", "u1", &());
        assert!(shadows.map(|shadow| shadow.variant).eq(names));
        assert!(names.iter().all(|name| dark.variants().get(name).is_some()));
    }

    const LAYERS: &str = "[layer.first]\nepoch = 1\n[layer.second]\nepoch = 1\n\
        [layer.second.params.alpha]\ndefault = 0.1\n[layer.third]\nepoch = 1\n\
        [layer.third.params.beta]\ndefault = 0.0\n[surface.default]\n\
        layer = ['first', 'second', 'third']\nvariant = 'blend'\n\
        [experiment.base]\nkind = 'ab'\nlayer = 'first'\nepoch = 1\nallocation_bp = 5000\n\
        arm = [{ name = 'old', variant = 'blend' }, { name = 'new', variant = 'other' }]\n\
        [experiment.popular]\nkind = 'ab'\nlayer = 'second'\nepoch = 1\nallocation_bp = 5000\n\
        arm = [{ name = 'low' }, { name = 'high', params = { alpha = 0.4 } }]\n\
        [experiment.fresh]\nkind = 'rollout'\nlayer = 'third'\nepoch = 1\nallocation_bp = 5000\n\
        rollout = { on_inconclusive = 'hold' }\n\
        arm = [{ name = 'low' }, { name = 'high', params = { beta = 0.5 } }]\n";
    const BLENDS: &str = "[parameter.alpha]\ntype = 'number'\nunit = 'score'\nmin = 0\nmax = 0.5\n\
        default = 0.1\n[parameter.beta]\ntype = 'number'\nunit = 'score'\nmin = 0\nmax = 1\n\
        default = 0.0\n[variant.blend]\nscore = 'similarity + alpha * popularity + beta * freshness'\n\
        [variant.other]\nscore = 'alpha * popularity - similarity + beta * freshness'\n";

    fn layered(experiments: &str) -> Result<Policy, PolicyError> {
        let experiments = Config::from_toml(experiments).expect("well-formed");
        Policy::new(Variants::from_toml(BLENDS)?, &experiments)
    }

    /// A listener is in one experiment of each layer, independently, and their parameters meet in one
    /// variant.
    #[test]
    fn the_layers_of_a_surface_meet_in_one_variant() {
        let policy = layered(LAYERS).expect("valid");
        let mut seen = BTreeSet::new();
        for unit in 0..2_000 {
            let unit = format!("u{unit}");
            let choice = policy.choose("", &unit, None).expect("declared");
            let arms: Vec<_> = choice.assignments().map(|a| a.arm.unwrap_or("")).collect();
            let [base, alpha, beta] = arms[..] else {
                panic!("{arms:?}");
            };
            let mut name = if base == "new" { "other" } else { "blend" }.to_owned();
            name += if alpha == "high" { "|alpha=0.4" } else { "" };
            name += if beta == "high" { "|beta=0.5" } else { "" };
            assert_eq!(choice.variant.name, name);
            assert!(choice.assignments().all(|a| a.variant == name));
            let popular = if alpha == "high" { 0.4 } else { 0.1 };
            assert!(
                choice
                    .variant
                    .score
                    .to_string()
                    .contains(&format!("{popular} * popularity")),
                "{}",
                choice.variant.score
            );
            // Each as without the others.
            for (layer, assignment) in ["first", "second", "third"]
                .iter()
                .zip(choice.assignments())
            {
                let alone = policy.experiments().assign_in_layer(layer, &unit, &());
                let alone = alone.expect("declared");
                assert_eq!(
                    (alone.arm, alone.bucket),
                    (assignment.arm, assignment.bucket)
                );
            }
            seen.insert(arms.join("/"));
        }
        assert_eq!(seen.len(), 27, "{seen:?}");
    }

    #[test]
    fn two_drafting_arms_both_get_the_values_of_other_layers() {
        let text = LAYERS
            .replacen("'ab'", "'interleave'", 1)
            .replace("5000", "10000");
        let policy = layered(&text).expect("valid");
        let both = (0..100).filter(|unit| {
            let choice = policy
                .choose("", &format!("u{unit}"), None)
                .expect("declared");
            let [alpha, beta] = [0, 1].map(|at| choice.further[at].arm == Some("high"));
            let second = choice.contender.expect("two draft");
            assert_eq!(choice.variant.name.contains("alpha=0.4"), alpha);
            assert_eq!(second.name.contains("alpha=0.4"), alpha);
            assert_eq!(second.name.contains("beta=0.5"), beta);
            assert!(choice.variant.name.starts_with("blend") && second.name.starts_with("other"));
            alpha && beta
        });
        assert!(both.count() > 5);
    }

    #[test]
    fn held_out_and_forced_listeners_are_in_no_layer() {
        let text = format!("[holdout.q]\nepoch = 1\nshare_bp = 5000\n{LAYERS}");
        let policy = layered(&text).expect("valid");
        let mut held = 0;
        for unit in 0..200 {
            let unit = format!("u{unit}");
            let choice = policy.choose("", &unit, None).expect("declared");
            if choice.assignment.reason == Reason::Holdout {
                held += 1;
                assert!(choice.assignments().all(|a| a.experiment.is_none()));
                assert_eq!(choice.variant.name, "blend");
            }
            let named = policy.choose("", &unit, Some("other")).expect("declared");
            assert_eq!(
                (named.variant.name.as_str(), named.further.len()),
                ("other", 0)
            );
        }
        assert!((70..130).contains(&held), "{held}");
    }

    #[test]
    fn layers_that_cannot_meet_are_refused_with_their_place() {
        let many: String = (0..30)
            .map(|n| format!(", {{ name = 'x{n}', params = {{ alpha = 0.{n:03} }} }}"))
            .collect();
        let more: String = (0..30)
            .map(|n| format!(", {{ name = 'y{n}', params = {{ beta = 0.{n:03} }} }}"))
            .collect();
        let wide = LAYERS
            .replace("'rollout'", "'ab'")
            .replace("{ alpha = 0.4 } }", &format!("{{ alpha = 0.4 }} }}{many}"))
            .replace("{ beta = 0.5 } }", &format!("{{ beta = 0.5 }} }}{more}"));
        for (text, complaint) in [
            (
                LAYERS.replace(
                    "{ name = 'low' }, { name = 'high', params = { alpha",
                    "{ name = 'low', variant = 'blend' }, { name = 'high', params = { alpha",
                ),
                "experiment.popular.arm[0].variant: layer `second` is not the first of surface `default`",
            ),
            (
                LAYERS.replace("'first', 'second'", "'first', 'first'"),
                "surface.default.layer: layer `first` stands there twice",
            ),
            (
                LAYERS.replace("['first', 'second', 'third']", "[]"),
                "surface.default.layer: names no layer",
            ),
            (
                LAYERS.replace("third.params.beta", "third.params.alpha"),
                "layer.third.params.alpha: layer `second` has this parameter too",
            ),
            (
                LAYERS.replace("variant = 'other'", "variant = 'plain'"),
                "experiment.base.arm[1].variant: variant `plain` is not declared",
            ),
        ] {
            let error = layered(&text).expect_err(complaint).to_string();
            assert!(error.starts_with(complaint), "{error}");
        }
        // A base that an arm's parameter would do nothing to.
        let plain = BLENDS.replace("alpha * popularity - similarity", "similarity");
        let config = Config::from_toml(LAYERS).expect("well-formed");
        let error = Policy::new(Variants::from_toml(&plain).expect("valid"), &config);
        let error = error.expect_err("does nothing").to_string();
        let complaint = "experiment.popular.arm[1].params.alpha: neither the score of variant `other` nor a setting names it";
        assert!(error.starts_with(complaint), "{error}");
        layered(&wide).expect("2 x 32 x 32 are allowed");
        let wider = wide.replace(
            "'first', 'second', 'third'",
            "'first', 'second', 'third', 'fourth'",
        ) + "[layer.fourth]\nepoch = 1\n[layer.fourth.params.gamma]\ndefault = 0.0\n\
               [experiment.more]\nkind = 'ab'\nlayer = 'fourth'\nepoch = 1\nallocation_bp = 1\n\
               arm = [{ name = 'a', params = { gamma = 0.1 } }, { name = 'b', params = { gamma = 0.2 } }]\n";
        let gamma = BLENDS.replace("beta * freshness", "beta * freshness + gamma * novelty")
            + "[parameter.gamma]\ntype = 'number'\nunit = 'score'\nmin = 0\nmax = 1\ndefault = 0.0\n";
        let config = Config::from_toml(&wider).expect("well-formed");
        let error = Policy::new(Variants::from_toml(&gamma).expect("valid"), &config);
        let error = error.expect_err("too many").to_string();
        assert!(
            error.starts_with(
                "surface.default.layer: the arms of these layers come to more than 4096"
            ),
            "{error}"
        );
    }

    #[test]
    fn a_parameter_that_cannot_rank_is_refused_with_its_place() {
        for (was, is, complaint) in [
            (
                "0.4, title",
                "0.6, title",
                "experiment.e.arm[1].params.alpha: 0.6 is not in 0 to 0.5 (score)",
            ),
            (
                "variant = 'blend'\nparams = { alpha = 0.2",
                "variant = 'plain'\nparams = { alpha = 0.2",
                "experiment.e.arm[0].params.alpha: neither the score of variant `plain` nor a setting names it",
            ),
            (
                "params.alpha]\ndefault = 0.1",
                "params.alpha]\ndefault = 0.3",
                "layer.l.params.alpha.default: is 0.3, and 0.1 in [parameter.alpha]",
            ),
            (
                "params.alpha]\ndefault = 0.1",
                "params.alpha]\ndefault = true",
                "experiment.e.arm[0].params.alpha: Number(0.2) is not of the type of its default",
            ),
        ] {
            let text = EXPERIMENTS.replacen(was, is, 1);
            let error = policy(&text).expect_err(complaint).to_string();
            assert!(error.starts_with(complaint), "{error}");
        }
    }

    #[test]
    fn a_named_variant_is_forced() {
        let policy = Policy::built_in().expect("valid");
        for name in ["plain", "balanced"] {
            let choice = policy.choose("home", "u1", Some(name)).expect("declared");
            assert_eq!(
                (choice.variant.name.as_str(), choice.assignment.variant),
                (name, name)
            );
            assert_eq!(choice.assignment.reason, Reason::Forced);
        }
        let choice = policy.unassigned("home").expect("declared");
        assert_eq!(
            (choice.variant.name.as_str(), choice.assignment.experiment),
            ("plain", None)
        );
        let error = policy
            .choose("home", "u1", Some("bold"))
            .expect_err("not declared");
        assert_eq!(error.to_string(), "variant \"bold\" is not declared");
    }
}
