//! Which ranking variant a listener gets: variants and experiments, checked against each other.

use refrain_experiments::{
    Assignment, Attributes, Config, ConfigError, DEFAULT_TOML as DEFAULT_EXPERIMENTS, Experiments,
    Ledger, digest_of,
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
        let experiments = Experiments::new(experiments, &variants.names())?;
        Ok(Self::join(variants, experiments))
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
        let experiments = Experiments::with_ledger(experiments, &variants.names(), ledger)?;
        Ok(Self::join(variants, experiments))
    }

    fn join(variants: Variants, experiments: Experiments) -> Self {
        let joint = format!("{}\n{}", experiments.digest(), variants.canonical());
        Self {
            digest: digest_of(&joint),
            variants,
            experiments,
        }
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
