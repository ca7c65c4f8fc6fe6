//! Which ranking variant a listener gets: variants and experiments, checked against each other.

use std::collections::BTreeMap;

use refrain_experiments::{
    Assignment, Attributes, Config, ConfigError, DEFAULT_TOML as DEFAULT_EXPERIMENTS, Experiments,
    Ledger, ParamConfig, ParamValue, digest_of,
};
use refrain_ranking::{DEFAULT_TOML as DEFAULT_VARIANTS, Variant, Variants, VariantsError};

/// The ranking and experiment configuration in force. Immutable: a reload makes another one.
#[derive(Debug, Clone)]
pub struct Policy {
    variants: Variants,
    experiments: Experiments,
    digest: String,
}

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
        set_parameters(&mut variants, config, &mut experiments)?;
        let joint = format!("{}\n{}", experiments.digest(), variants.canonical());
        Ok(Self {
            digest: digest_of(&joint),
            variants,
            experiments,
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

    /// What `unit` gets on `surface`, or the variant that the request names. Allocates nothing.
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
            return self.follow(self.experiments.assign_with(surface, unit, attributes));
        };
        let variant = self.named(name)?;
        let assignment = self.experiments.force(surface, unit, &variant.name);
        Ok(Choice {
            assignment,
            variant,
        })
    }

    /// What a request gets that is not for a listener (seeds, a vector, events that the caller keeps):
    /// the default variant of the surface, in no experiment, since there is no unit to assign.
    ///
    /// # Errors
    /// None: surfaces refer to declared variants, which [`new`](Self::new) checks.
    pub fn unassigned(&self, surface: &str) -> Result<Choice<'_>, UnknownVariant> {
        self.follow(self.experiments.unassigned(surface))
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

    fn follow<'a>(&'a self, assignment: Assignment<'a>) -> Result<Choice<'a>, UnknownVariant> {
        Ok(Choice {
            assignment,
            variant: self.named(assignment.variant)?,
        })
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
) -> Result<(), ConfigError> {
    for (layer, declared) in &config.layer {
        for (name, param) in &declared.params {
            check_default(variants, name, param).map_err(|problem| ConfigError::Value {
                place: format!("layer.{layer}.params.{name}.default"),
                problem,
            })?;
        }
    }
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
            if !values.is_empty() {
                let derived = variants.derive(&arm.variant, &values).map_err(wrong)?;
                experiments.set_variant(experiment, &arm.name, &derived);
            }
        }
    }
    Ok(())
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
#[derive(Debug, Clone, Copy, PartialEq)]
pub struct Choice<'a> {
    /// How it came about.
    pub assignment: Assignment<'a>,
    /// The variant.
    pub variant: &'a Variant,
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
        let mut scores = std::collections::BTreeSet::new();
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
                "experiment.e.arm[0].params.alpha: the score of variant `plain` does not name it",
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
