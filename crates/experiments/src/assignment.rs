//! The configuration compiled, and a unit's way through it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write as _;

use crate::allocation::{BASIS_POINTS, Ledger};
use crate::config::{ArmConfig, Config, ConfigError, DEFAULT_SURFACE, ExperimentConfig, Limits};
use crate::hash::{KeyPrefix, bucket, hash128};

/// Points of the grid on which arms are cut, and buckets in an [`Assignment`].
pub const GRID: u32 = 1_000_000;

/// A checked configuration, ready to assign. Immutable; share it by reference.
#[derive(Debug, Clone)]
pub struct Experiments {
    surfaces: BTreeMap<String, Surface>,
    fallback: Surface,
    layers: Vec<Layer>,
    experiments: Vec<Experiment>,
    digest: String,
}

impl Experiments {
    /// Checks and compiles a configuration. `known_variants` are the names of the ranking variants
    /// that arms and surfaces may refer to. O(layers + experiments), at most 10,000 hashes
    /// each.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place in the file.
    pub fn new(config: &Config, known_variants: &[&str]) -> Result<Self, ConfigError> {
        check_counts(config)?;
        let variants = Known {
            what: known_variants,
        };
        let mut layers = Vec::with_capacity(config.layer.len());
        let mut index_of = BTreeMap::new();
        for (name, layer) in &config.layer {
            check_name(format!("layer.{name}"), name)?;
            if ![BASIS_POINTS, GRID].contains(&layer.buckets) {
                let buckets = layer.buckets;
                return Err(ConfigError::Buckets {
                    layer: name.clone(),
                    buckets,
                });
            }
            check_allocations(name, config)?;
            index_of.insert(name.as_str(), layers.len());
            layers.push(Layer {
                name: name.clone(),
                epoch: layer.epoch,
                key: KeyPrefix::new(format!("L:{name}:{}|", layer.epoch).as_bytes()),
                ledger: Ledger::new(),
            });
        }
        let layer_index = |place: String, layer: &str| {
            index_of
                .get(layer)
                .copied()
                .ok_or_else(|| ConfigError::UnknownLayer {
                    place,
                    layer: layer.to_owned(),
                    known: listed(index_of.keys().copied()),
                })
        };

        let mut surfaces = BTreeMap::new();
        for (name, surface) in &config.surface {
            check_name(format!("surface.{name}"), name)?;
            let layer = layer_index(format!("surface.{name}.layer"), &surface.layer)?;
            variants.check(|| format!("surface.{name}.variant"), &surface.variant)?;
            surfaces.insert(
                name.clone(),
                Surface {
                    layer,
                    variant: surface.variant.clone(),
                },
            );
        }
        let fallback = surfaces
            .get(DEFAULT_SURFACE)
            .cloned()
            .ok_or(ConfigError::NoDefaultSurface)?;

        let mut experiments = Vec::with_capacity(config.experiment.0.len());
        for (owner, (name, experiment)) in (0_u16..).zip(&config.experiment.0) {
            check_name(format!("experiment.{name}"), name)?;
            if experiment.kind != "ab" {
                let kind = experiment.kind.clone();
                return Err(ConfigError::Kind {
                    experiment: name.clone(),
                    kind,
                });
            }
            let layer = layer_index(format!("experiment.{name}.layer"), &experiment.layer)?;
            experiments.push(Experiment::new(name, experiment, &variants)?);
            if let Some(layer) = layers.get_mut(layer) {
                let seed = format!("{}:{}:{name}", layer.name, layer.epoch);
                layer.ledger.draw(owner, experiment.allocation_bp, &seed);
            }
        }
        let digest = format!("{:032x}", hash128(canonical(config).as_bytes()));
        Ok(Self {
            surfaces,
            fallback,
            layers,
            experiments,
            digest,
        })
    }

    /// What `unit` gets on `surface`: a pure function of the configuration and the two. A surface
    /// that is not declared is answered as [`DEFAULT_SURFACE`]. Allocates nothing.
    #[must_use]
    pub fn assign<'a>(&'a self, surface: &str, unit: &str) -> Assignment<'a> {
        let surface = self.surface(surface);
        let default = self.default_of(surface, Some(unit));
        let owner = self
            .layers
            .get(surface.layer)
            .and_then(|layer| layer.ledger.owner(default.bucket / (GRID / BASIS_POINTS)));
        let Some(experiment) = owner.and_then(|owner| self.experiments.get(usize::from(owner)))
        else {
            return default;
        };
        let grid = bucket(experiment.key.hash64(unit.as_bytes()), GRID);
        let Some(arm) = experiment.arms.iter().find(|arm| grid < arm.end) else {
            return default;
        };
        Assignment {
            experiment: Some(&experiment.name),
            experiment_epoch: experiment.epoch,
            arm: Some(&arm.name),
            grid,
            variant: &arm.variant,
            reason: Reason::Split,
            probability: arm.probability,
            ..default
        }
    }

    /// What `unit` gets when the request itself names the variant: no experiment counts it.
    #[must_use]
    pub fn force<'a>(&'a self, surface: &str, unit: &str, variant: &'a str) -> Assignment<'a> {
        let default = self.default_of(self.surface(surface), Some(unit));
        Assignment {
            variant,
            reason: Reason::Forced,
            ..default
        }
    }

    /// What a request gets that has no unit: the default variant of the surface, in no experiment.
    #[must_use]
    pub fn unassigned<'a>(&'a self, surface: &str) -> Assignment<'a> {
        self.default_of(self.surface(surface), None)
    }

    /// Digest of all that decides an assignment, 32 hexadecimal digits. Comments, order of fields
    /// and words for people do not change it.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest
    }

    fn surface(&self, name: &str) -> &Surface {
        self.surfaces.get(name).unwrap_or(&self.fallback)
    }

    fn default_of<'a>(&'a self, surface: &'a Surface, unit: Option<&str>) -> Assignment<'a> {
        let layer = self.layers.get(surface.layer);
        let hash = layer
            .zip(unit)
            .map(|(layer, unit)| layer.key.hash64(unit.as_bytes()));
        Assignment {
            layer: layer.map_or("", |layer| &layer.name),
            layer_epoch: layer.map_or(0, |layer| layer.epoch),
            bucket: hash.map_or(0, |hash| bucket(hash, GRID)),
            experiment: None,
            experiment_epoch: 0,
            arm: None,
            grid: 0,
            variant: &surface.variant,
            reason: Reason::Default,
            probability: 1.0,
        }
    }
}

/// What a unit got, and everything that explains it.
#[derive(Debug, Clone, Copy, PartialEq)]
#[non_exhaustive]
pub struct Assignment<'a> {
    /// The layer.
    pub layer: &'a str,
    /// Its epoch.
    pub layer_epoch: u32,
    /// Bucket of the unit in the layer, `0..1_000_000`; divided by 100 it is the basis point. 0
    /// without unit.
    pub bucket: u32,
    /// The experiment that owns the bucket.
    pub experiment: Option<&'a str>,
    /// Its epoch; 0 without experiment.
    pub experiment_epoch: u32,
    /// The arm.
    pub arm: Option<&'a str>,
    /// Point of the unit on the experiment's grid, `0..1_000_000`; 0 without experiment.
    pub grid: u32,
    /// The ranking variant that follows.
    pub variant: &'a str,
    /// Why.
    pub reason: Reason,
    /// Probability with which a unit of the experiment gets this arm; 1 where nothing is random.
    pub probability: f64,
}

/// Why a unit got its variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// An experiment's hash decided.
    Split,
    /// No experiment owns the unit's bucket: the default variant of the surface.
    Default,
    /// The request named the variant.
    Forced,
}

#[derive(Debug, Clone)]
struct Surface {
    layer: usize,
    variant: String,
}

#[derive(Debug, Clone)]
struct Layer {
    name: String,
    epoch: u32,
    key: KeyPrefix,
    ledger: Ledger,
}

#[derive(Debug, Clone)]
struct Experiment {
    name: String,
    epoch: u32,
    key: KeyPrefix,
    arms: Vec<Arm>,
}

#[derive(Debug, Clone)]
struct Arm {
    name: String,
    variant: String,
    /// First grid point after the arm.
    end: u32,
    probability: f64,
}

impl Experiment {
    fn new(
        name: &str,
        config: &ExperimentConfig,
        variants: &Known<'_>,
    ) -> Result<Self, ConfigError> {
        let ArmCuts { ends } = ArmCuts::new(name, &config.arms)?;
        let mut names = BTreeSet::new();
        let mut arms = Vec::with_capacity(config.arms.len());
        let mut start = 0;
        for (i, (arm, end)) in config.arms.iter().zip(ends).enumerate() {
            let place = |field: &str| format!("experiment.{name}.arm[{i}].{field}");
            check_name(place("name"), &arm.name)?;
            if !names.insert(arm.name.as_str()) {
                return Err(ConfigError::DuplicateArm {
                    place: place("name"),
                    arm: arm.name.clone(),
                });
            }
            variants.check(|| place("variant"), &arm.variant)?;
            if end <= start {
                return Err(ConfigError::ArmTooSmall {
                    place: place("weight"),
                    weight: arm.weight,
                });
            }
            arms.push(Arm {
                name: arm.name.clone(),
                variant: arm.variant.clone(),
                end,
                // Of the grid, not of the weights: what is logged is what happens.
                probability: f64::from(end - start) / f64::from(GRID),
            });
            start = end;
        }
        let key = KeyPrefix::new(format!("E:{name}:{}|", config.epoch).as_bytes());
        Ok(Self {
            name: name.to_owned(),
            epoch: config.epoch,
            key,
            arms,
        })
    }
}

/// Where the arms of an experiment end on the grid; the last ends at its end.
struct ArmCuts {
    ends: Vec<u32>,
}

impl ArmCuts {
    fn new(experiment: &str, arms: &[ArmConfig]) -> Result<Self, ConfigError> {
        if arms.len() < 2 {
            let experiment = experiment.to_owned();
            return Err(ConfigError::TooFewArms {
                experiment,
                count: arms.len(),
            });
        }
        let mut total = 0.0;
        for (i, arm) in arms.iter().enumerate() {
            total += arm.weight;
            // The sum can overflow although no weight does.
            if !(arm.weight.is_finite() && arm.weight > 0.0 && f64::is_finite(total)) {
                let place = format!("experiment.{experiment}.arm[{i}].weight");
                return Err(ConfigError::Weight {
                    place,
                    weight: arm.weight,
                });
            }
        }
        let mut sum = 0.0;
        let cut = |arm: &ArmConfig| {
            sum += arm.weight;
            #[expect(
                clippy::cast_possible_truncation,
                clippy::cast_sign_loss,
                reason = "a share of the grid, and casts saturate"
            )]
            let end = (sum / total * f64::from(GRID)).round() as u32;
            end.min(GRID)
        };
        let mut ends: Vec<u32> = arms.iter().map(cut).collect();
        if let Some(last) = ends.last_mut() {
            *last = GRID;
        }
        Ok(Self { ends })
    }
}

struct Known<'a> {
    what: &'a [&'a str],
}

impl Known<'_> {
    fn check(&self, place: impl FnOnce() -> String, variant: &str) -> Result<(), ConfigError> {
        if self.what.contains(&variant) {
            return Ok(());
        }
        Err(ConfigError::UnknownVariant {
            place: place(),
            variant: variant.to_owned(),
            known: listed(self.what.iter().copied()),
        })
    }
}

fn check_counts(config: &Config) -> Result<(), ConfigError> {
    let arms = config.experiment.0.iter().map(|(name, experiment)| {
        (
            format!("experiment.{name}.arm"),
            experiment.arms.len(),
            Limits::ARMS,
        )
    });
    let tables = [
        ("layer".to_owned(), config.layer.len(), Limits::LAYERS),
        ("surface".to_owned(), config.surface.len(), Limits::SURFACES),
        (
            "experiment".to_owned(),
            config.experiment.0.len(),
            Limits::EXPERIMENTS,
        ),
    ];
    match tables
        .into_iter()
        .chain(arms)
        .find(|(_, count, max)| count > max)
    {
        Some((place, count, max)) => Err(ConfigError::TooMany { place, count, max }),
        None => Ok(()),
    }
}

/// Refuses what would make two keys equal: `|` ends the names in a hash key.
fn check_name(place: String, name: &str) -> Result<(), ConfigError> {
    let fine = (1..=Limits::NAME_BYTES).contains(&name.len())
        && !name.chars().any(|c| c == '|' || c.is_control());
    if fine {
        Ok(())
    } else {
        Err(ConfigError::Name {
            place,
            name: name.to_owned(),
        })
    }
}

fn check_allocations(layer: &str, config: &Config) -> Result<(), ConfigError> {
    let mut total_bp = 0;
    let mut sum = String::new();
    for (name, experiment) in config.experiment.0.iter().filter(|(_, e)| e.layer == layer) {
        let allocation_bp = experiment.allocation_bp;
        if allocation_bp > BASIS_POINTS {
            return Err(ConfigError::AllocationRange {
                experiment: name.clone(),
                allocation_bp,
            });
        }
        total_bp += u64::from(allocation_bp);
        let plus = if sum.is_empty() { "" } else { " + " };
        let _ = write!(sum, "{plus}{name} {allocation_bp}"); // to a string: cannot fail
    }
    if total_bp > u64::from(BASIS_POINTS) {
        return Err(ConfigError::OverAllocated {
            layer: layer.to_owned(),
            total_bp,
            sum,
        });
    }
    Ok(())
}

/// One text for one meaning: what the digest is taken of. Lengths stand before names, so that no
/// two configurations share a text.
fn canonical(config: &Config) -> String {
    let mut text = String::from("refrain-experiments 1\n");
    let name = |name: &str| format!("{}:{name}", name.len());
    for (layer, c) in &config.layer {
        text += &format!("layer {} {} {}\n", name(layer), c.epoch, c.buckets);
    }
    for (surface, c) in &config.surface {
        text += &format!(
            "surface {} {} {}\n",
            name(surface),
            name(&c.layer),
            name(&c.variant)
        );
    }
    for (experiment, c) in &config.experiment.0 {
        let (layer, epoch, share) = (name(&c.layer), c.epoch, c.allocation_bp);
        text += &format!(
            "experiment {} {} {layer} {epoch} {share}\n",
            name(experiment),
            c.kind
        );
        for arm in &c.arms {
            let weight = arm.weight.to_bits();
            text += &format!(
                "arm {} {weight:016x} {}\n",
                name(&arm.name),
                name(&arm.variant)
            );
        }
    }
    text
}

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() {
        "none".to_owned()
    } else {
        quoted.join(", ")
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::config::DEFAULT_TOML;

    const VARIANTS: &[&str] = &["plain", "balanced"];

    #[test]
    fn the_default_splits_everybody_in_halves() {
        let experiments = compile(DEFAULT_TOML);
        let mut balanced = 0;
        for i in 0..10_000 {
            let a = experiments.assign("home", &format!("u{i}"));
            assert_eq!((a.reason, a.probability), (Reason::Split, 0.5));
            assert_eq!(a.arm == Some("balanced"), a.grid >= 500_000);
            assert_eq!(a.variant == "balanced", a.grid >= 500_000);
            balanced += u32::from(a.variant == "balanced");
        }
        // Five standard deviations of a fair coin.
        assert!((4_750..=5_250).contains(&balanced), "{balanced}");
    }

    #[test]
    fn assignment_has_the_published_buckets_and_grid() {
        let experiments = compile(&one_experiment("rank-blend", 10_000, &[0.5, 0.5]));
        for (unit, bucket, grid) in [
            ("u1", 729_445, 26_555),
            ("u2", 202_655, 704_815),
            ("élodie", 453_305, 6_216),
        ] {
            let a = experiments.assign("default", unit);
            assert_eq!((a.layer, a.layer_epoch), ("ranking", 1));
            assert_eq!((a.experiment, a.experiment_epoch), (Some("rank-blend"), 1));
            assert_eq!((a.bucket, a.grid), (bucket, grid), "{unit}");
        }
    }

    #[test]
    fn outside_the_allocation_the_surface_decides() {
        let experiments = compile(&one_experiment("e", 0, &[1.0, 1.0]));
        let a = experiments.assign("anywhere", "u1");
        assert_eq!(
            (a.variant, a.reason, a.probability),
            ("plain", Reason::Default, 1.0)
        );
        assert_eq!((a.experiment, a.arm, a.grid), (None, None, 0));
        assert_eq!(a.bucket, 729_445);
        let forced = experiments.force("anywhere", "u1", "balanced");
        assert_eq!(
            (forced.variant, forced.reason),
            ("balanced", Reason::Forced)
        );
        assert_eq!(forced.bucket, 729_445);
        let everybody = compile(&one_experiment("e", 10_000, &[1.0, 1.0]));
        let unassigned = everybody.unassigned("anywhere");
        assert_eq!(
            (unassigned.variant, unassigned.reason),
            ("plain", Reason::Default)
        );
        assert_eq!((unassigned.experiment, unassigned.bucket), (None, 0));
    }

    #[test]
    fn weights_become_shares_of_the_grid() {
        let experiments = compile(&one_experiment("e", 10_000, &[1.0, 2.0, 5.0]));
        let arms = &experiments.experiments[0].arms;
        let ends: Vec<_> = arms.iter().map(|arm| arm.end).collect();
        assert_eq!(ends, [125_000, 375_000, 1_000_000]);
        let shares: Vec<_> = arms.iter().map(|arm| arm.probability).collect();
        assert_eq!(shares, [0.125, 0.25, 0.625]);
    }

    #[test]
    fn finer_buckets_move_nobody() {
        let text = one_experiment("e", 3_000, &[0.5, 0.5]);
        let coarse = compile(&text);
        let fine = compile(&text.replace(
            "epoch = 1\n[surface",
            "epoch = 1\nbuckets = 1000000\n[surface",
        ));
        assert_ne!(coarse.digest(), fine.digest());
        for i in 0..2_000 {
            let unit = format!("u{i}");
            assert_eq!(coarse.assign("", &unit), fine.assign("", &unit));
        }
    }

    #[test]
    fn the_digest_follows_meaning_only() {
        let text = one_experiment("e", 3_000, &[0.5, 0.5]);
        let digest = compile(&text).digest().to_owned();
        assert_eq!(digest.len(), 32);
        assert_eq!(compile(&format!("# a comment\n{text}")).digest(), digest);
        assert_ne!(compile(&text.replace("3000", "3001")).digest(), digest);
        assert_ne!(
            compile(&text.replace("weight = 0.5", "weight = 0.6")).digest(),
            digest
        );
    }

    #[test]
    fn refusals_say_where_and_what_is_allowed() {
        let good = one_experiment("e", 5_000, &[0.5, 0.5]);
        let second = one_experiment("f", 6_000, &[0.5, 0.5]);
        let second = &second[second.find("[experiment").expect("has one")..];
        let cases = [
            (
                format!("{good}{second}"),
                "layer.ranking: allocations add up to 11000 of 10000 basis points (e 5000 + f 6000); 1000 too many",
            ),
            (
                good.replace("5000", "10001"),
                "experiment.e.allocation_bp: 10001",
            ),
            (
                good.replace("'ab'", "'shadow'"),
                "`shadow` is not supported; supported: `ab`",
            ),
            (
                good.replace("variant = 'balanced'", "variant = 'bold'"),
                "experiment.e.arm[1].variant: variant `bold` is not declared; declared: `plain`, `balanced`",
            ),
            (
                good.replace("weight = 0.5", "weight = -1.0"),
                "experiment.e.arm[0].weight: weight -1",
            ),
            (
                good.replace("weight = 0.5", "weight = nan"),
                "experiment.e.arm[0].weight: weight NaN",
            ),
            (
                good.replace("weight = 0.5", "weight = 1e308"),
                "experiment.e.arm[1].weight",
            ),
            (
                good.replacen("weight = 0.5", "weight = 1e-9", 1),
                "experiment.e.arm[0].weight: weight 0.000000001 is less than a millionth",
            ),
            (
                good.replace("name = 'a1'", "name = 'a0'"),
                "another arm `a0`",
            ),
            (
                good.replace("name = 'a1'", "name = 'a|1'"),
                "experiment.e.arm[1].name",
            ),
            (
                good.replace("[surface.default]", "[surface.home]"),
                "surface.default is missing",
            ),
            (
                good.replace("epoch = 1\n[surface", "epoch = 1\nbuckets = 12\n[surface"),
                "layer.ranking.buckets: 12",
            ),
            (
                good.replace("layer = 'ranking'", "layer = 'rank'"),
                "surface.default.layer: layer `rank` is not declared; declared: `ranking`",
            ),
            (
                one_experiment("e", 5_000, &[1.0]),
                "experiment.e.arm: 1 given",
            ),
            (
                one_experiment("e", 5_000, &[1.0; 33]),
                "experiment.e.arm: 33 are too many",
            ),
        ];
        for (text, expected) in cases {
            let config = Config::from_toml(&text).expect("well-formed");
            let message = Experiments::new(&config, VARIANTS)
                .expect_err(expected)
                .to_string();
            assert!(message.contains(expected), "{message:?} lacks {expected:?}");
        }
    }

    proptest! {
        #![proptest_config(ProptestConfig::with_cases(16))]

        /// Ramping the last experiment up adds units and changes nothing for anyone else.
        #[test]
        fn ramping_only_adds(from in 0_u32..4_000, more in 0_u32..4_000) {
            let config = |bp| {
                let second = one_experiment("f", bp, &[0.3, 0.7]);
                let second = &second[second.find("[experiment").expect("has one")..];
                compile(&format!("{}{second}", one_experiment("e", 2_000, &[0.5, 0.5])))
            };
            let (before, after) = (config(from), config(from + more));
            for i in 0..500 {
                let unit = format!("u{i}");
                let (was, is) = (before.assign("", &unit), after.assign("", &unit));
                prop_assert!(was == is || (was.experiment.is_none() && is.experiment == Some("f")));
            }
        }

        #[test]
        fn any_unit_is_assigned(surface in ".{0,40}", unit in ".{0,200}") {
            let a = compile(DEFAULT_TOML);
            let a = a.assign(&surface, &unit);
            prop_assert!(a.bucket < GRID && a.grid < GRID && VARIANTS.contains(&a.variant));
        }
    }

    fn compile(text: &str) -> Experiments {
        let config = Config::from_toml(text).expect("well-formed");
        Experiments::new(&config, VARIANTS).expect("valid")
    }

    /// One layer, one surface, and one experiment whose arms alternate between the two variants.
    fn one_experiment(name: &str, allocation_bp: u32, weights: &[f64]) -> String {
        let mut text = format!(
            "[layer.ranking]\nepoch = 1\n[surface.default]\nlayer = 'ranking'\nvariant = 'plain'\n\
             [experiment.{name}]\nkind = 'ab'\nlayer = 'ranking'\nepoch = 1\n\
             allocation_bp = {allocation_bp}\n"
        );
        for (i, weight) in weights.iter().enumerate() {
            let variant = VARIANTS[i % 2];
            text += &format!(
                "[[experiment.{name}.arm]]\nname = 'a{i}'\nweight = {weight:?}\nvariant = '{variant}'\n"
            );
        }
        text
    }
}
