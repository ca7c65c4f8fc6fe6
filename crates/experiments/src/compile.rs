//! From a configuration to what assigns: every check, once.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::fmt::Write as _;
use std::sync::Arc;

use sha2::{Digest as _, Sha256};

use crate::assignment::{
    Arm, Experiment, Experiments, Forced, GRID, Holdout, Layer, NOBODY, Surface,
};
use crate::config::{
    ArmConfig, Assigner, Config, DEFAULT_SURFACE, ExperimentConfig, Kind, ParamConfig, ParamValue,
    SurfaceConfig,
};
use crate::error::{ConfigError, Limits};
use crate::hash::KeyPrefix;
use crate::intake::UnitSet;
use crate::journal::{digest_of, hex};
use crate::ledger::{BASIS_POINTS, Ledger, shuffled};
use crate::targeting::Targeting;

impl Experiments {
    /// Checks and compiles a configuration in which experiments draw their units in the order of the
    /// file. `known_variants` are the names of the ranking variants that arms and surfaces may refer
    /// to. O(layers + experiments), at most 10,000 hashes each.
    ///
    /// # Errors
    /// The first thing that is wrong, with its place in the file.
    pub fn new(config: &Config, known_variants: &[&str]) -> Result<Self, ConfigError> {
        Compiler::new(config, known_variants, None)?.run()
    }

    /// The same with a ledger, which says what each experiment holds. Experiments that it does not
    /// know hold nothing yet.
    ///
    /// # Errors
    /// As [`new`](Self::new), or the configuration changed what may only change with a new epoch.
    pub fn with_ledger(
        config: &Config,
        known_variants: &[&str],
        ledger: &Ledger,
    ) -> Result<Self, ConfigError> {
        Compiler::new(config, known_variants, Some(ledger))?.run()
    }
}

/// Digest of what may not change within an epoch: names, weights and variants of the arms.
#[must_use]
pub fn arms_digest(config: &ExperimentConfig) -> String {
    digest_of(&canonical_arms(&config.arms))
}

struct Compiler<'a> {
    config: &'a Config,
    variants: &'a [&'a str],
    ledger: Option<&'a Ledger>,
    index_of: BTreeMap<&'a str, usize>,
}

impl<'a> Compiler<'a> {
    fn new(
        config: &'a Config,
        variants: &'a [&'a str],
        ledger: Option<&'a Ledger>,
    ) -> Result<Self, ConfigError> {
        check_counts(config)?;
        let names = config.layer.keys().map(String::as_str);
        Ok(Self {
            config,
            variants,
            ledger,
            index_of: names.zip(0..).collect(),
        })
    }

    fn run(&self) -> Result<Experiments, ConfigError> {
        let mut layers = self.layers()?;
        let (surfaces, fallback) = self.surfaces()?;
        let experiments = self.experiments(&mut layers)?;
        let digest: [u8; 32] = Sha256::digest(self.canonical().as_bytes()).into();
        Ok(Experiments {
            enabled: self.config.assignment.enabled,
            surfaces,
            fallback,
            layers,
            forced: self.forced(&experiments)?,
            experiments,
            holdouts: self.holdouts()?,
            digest_hex: hex(&digest),
            digest,
        })
    }

    fn layers(&self) -> Result<Vec<Layer>, ConfigError> {
        let mut owner_of_param: BTreeMap<&str, &str> = BTreeMap::new();
        let mut layers = Vec::with_capacity(self.config.layer.len());
        for (name, layer) in &self.config.layer {
            check_name(format!("layer.{name}"), name)?;
            if ![BASIS_POINTS, GRID].contains(&layer.buckets) {
                return Err(ConfigError::Buckets {
                    layer: name.clone(),
                    buckets: layer.buckets,
                });
            }
            for (param, declared) in &layer.params {
                let place = format!("layer.{name}.params.{param}");
                check_name(place.clone(), param)?;
                if let Some(other) = owner_of_param.insert(param, name) {
                    let problem = format!(
                        "layer `{other}` has this parameter too: a unit is in both, and they could set it differently"
                    );
                    return Err(ConfigError::Value { place, problem });
                }
                check_param(&format!("{place}.default"), declared, &declared.default)?;
            }
            if self.ledger.is_none() {
                check_allocations(name, self.config)?;
            }
            layers.push(Layer {
                name: name.clone(),
                epoch: layer.epoch,
                key: KeyPrefix::new(format!("L:{name}:{}|", layer.epoch).as_bytes()),
                owners: vec![NOBODY; BASIS_POINTS as usize].into(),
                shadows: Vec::new(),
                params: layer.params.clone(),
            });
        }
        Ok(layers)
    }

    fn surfaces(&self) -> Result<(BTreeMap<String, Surface>, Surface), ConfigError> {
        let mut surfaces = BTreeMap::new();
        for (name, surface) in &self.config.surface {
            check_name(format!("surface.{name}"), name)?;
            let (layer, further) = self.layers_of(name, surface)?;
            self.variant(|| format!("surface.{name}.variant"), &surface.variant)?;
            if let Some(held) = &surface.holdout_variant {
                self.variant(|| format!("surface.{name}.holdout_variant"), held)?;
            }
            let surface = Surface {
                layer,
                further,
                variant: surface.variant.clone(),
                holdout_variant: surface.holdout_variant.clone(),
            };
            surfaces.insert(name.clone(), surface);
        }
        let fallback = surfaces.get(DEFAULT_SURFACE).cloned();
        let fallback = fallback.ok_or(ConfigError::NoDefaultSurface)?;
        Ok((surfaces, fallback))
    }

    /// The first layer of a surface, and the others.
    fn layers_of(
        &self,
        name: &str,
        surface: &SurfaceConfig,
    ) -> Result<(usize, Vec<usize>), ConfigError> {
        let place = format!("surface.{name}.layer");
        let mut layers = Vec::with_capacity(surface.layer.0.len());
        for layer in &surface.layer.0 {
            let at = self.layer(place.clone(), layer)?;
            if layers.contains(&at) {
                let problem = format!("layer `{layer}` stands there twice");
                return Err(ConfigError::Value { place, problem });
            }
            layers.push(at);
        }
        let Some((&first, further)) = layers.split_first() else {
            let problem = "names no layer".to_owned();
            return Err(ConfigError::Value { place, problem });
        };
        Ok((first, further.to_vec()))
    }

    /// A surface on which a layer is not the first, so that its arms may not name variants.
    fn further_on(&self, layer: &str) -> Option<&str> {
        let mut surfaces = self.config.surface.iter();
        let found = surfaces.find(|(_, surface)| {
            let mut further = surface.layer.0.iter().skip(1);
            further.any(|other| other == layer)
        });
        found.map(|(name, _)| name.as_str())
    }

    /// Whether an arm names a variant where it must, and none where it must not.
    fn arm_variant(
        &self,
        experiment: &str,
        at: usize,
        config: &ExperimentConfig,
        arm: &ArmConfig,
    ) -> Result<(), ConfigError> {
        let place = format!("experiment.{experiment}.arm[{at}].variant");
        let wrong = |problem: String| {
            let place = place.clone();
            Err(ConfigError::Value { place, problem })
        };
        match &arm.variant {
            Some(variant) => {
                if config.kind != Kind::Shadow
                    && let Some(surface) = self.further_on(&config.layer)
                {
                    return wrong(format!(
                        "layer `{}` is not the first of surface `{surface}`, and two layers could name a variant \
                         each: leave it out and set `params`",
                        config.layer
                    ));
                }
                self.variant(|| place.clone(), variant)
            }
            None if matches!(config.kind, Kind::Shadow | Kind::Interleave) => wrong(format!(
                "is missing: an arm of kind {} is a variant",
                config.kind
            )),
            None => Ok(()),
        }
    }

    fn experiments(&self, layers: &mut [Layer]) -> Result<Vec<Experiment>, ConfigError> {
        let mut experiments = Vec::with_capacity(self.config.experiment.0.len());
        for (owner, (name, config)) in (0_u16..).zip(&self.config.experiment.0) {
            check_name(format!("experiment.{name}"), name)?;
            let layer = self.layer(format!("experiment.{name}.layer"), &config.layer)?;
            let mut experiment = self.experiment(name, config)?;
            if let Some(layer) = layers.get_mut(layer) {
                if config.kind == Kind::Shadow {
                    layer.shadows.push(owner);
                } else {
                    experiment.allocation_bp = self.hold(owner, name, config, layer)?;
                }
            }
            experiments.push(experiment);
        }
        Ok(experiments)
    }

    fn experiment(&self, name: &str, config: &ExperimentConfig) -> Result<Experiment, ConfigError> {
        if config.allocation_bp > BASIS_POINTS {
            return Err(ConfigError::AllocationRange {
                experiment: name.to_owned(),
                allocation_bp: config.allocation_bp,
            });
        }
        if config.kind == Kind::Rollout {
            check_rollout(name, config)?;
        }
        let refused = |field: &str, problem: String| {
            let place = format!("experiment.{name}.{field}");
            Err(ConfigError::Value { place, problem })
        };
        if config.kind == Kind::Interleave
            && let Some(surface) = self.further_on(&config.layer)
        {
            return refused(
                "layer",
                format!(
                    "layer `{}` is not the first of surface `{surface}`: a list is drafted by the variants of the first",
                    config.layer
                ),
            );
        }
        let external = config.assigner == Assigner::External;
        if external && matches!(config.kind, Kind::Interleave | Kind::Shadow) {
            return refused(
                "assigner",
                format!(
                    "\"external\" is for ab and rollout: of kind {} no unit has an arm",
                    config.kind
                ),
            );
        }
        if config.admitted.is_some() && config.kind == Kind::Shadow {
            return refused(
                "admitted",
                "is for kinds that have units: a shadow takes none".to_owned(),
            );
        }
        let arms = self.arms(name, config)?;
        #[expect(clippy::cast_possible_truncation, reason = "a share of 1, for the log")]
        let weights = arms.iter().map(|arm| arm.probability as f32).collect();
        Ok(Experiment {
            name: name.to_owned(),
            layer: config.layer.clone(),
            kind: config.kind,
            epoch: config.epoch,
            key: KeyPrefix::new(format!("E:{name}:{}|", config.epoch).as_bytes()),
            arms,
            weights,
            allocation_bp: config.allocation_bp,
            targeting: self.targeting(name, config)?,
            paused: config.paused,
            admitted: admitted(name, config)?,
            external,
        })
    }

    fn arms(&self, name: &str, config: &ExperimentConfig) -> Result<Vec<Arm>, ConfigError> {
        let ends = arm_ends(name, config)?;
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
            self.arm_variant(name, i, config, arm)?;
            if end <= start {
                return Err(ConfigError::ArmTooSmall {
                    place: place("weight"),
                    weight: arm.weight,
                });
            }
            let declared = self.config.layer.get(&config.layer);
            for (param, value) in &arm.params {
                let place = place(&format!("params.{param}"));
                match declared.and_then(|layer| layer.params.get(param)) {
                    Some(declared) => check_param(&place, declared, value)?,
                    None => {
                        let problem = format!(
                            "layer `{}` declares no parameter `{param}`; add it under [layer.{}.params]",
                            config.layer, config.layer
                        );
                        return Err(ConfigError::Value { place, problem });
                    }
                }
            }
            arms.push(Arm {
                name: arm.name.clone(),
                variant: arm.variant.clone(),
                values: None,
                end,
                // Of the grid, not of the weights: what is logged is what happens.
                probability: f64::from(end - start) / f64::from(GRID),
                params: arm.params.clone(),
            });
            start = end;
        }
        Ok(arms)
    }

    fn targeting(
        &self,
        name: &str,
        config: &ExperimentConfig,
    ) -> Result<Option<Targeting>, ConfigError> {
        let Some(text) = &config.targeting else {
            return Ok(None);
        };
        let kind_of = |attribute: &str| match self.config.attribute.get(attribute) {
            None => Err(format!(
                "attribute `{attribute}` is not declared; declared: {}",
                listed(self.config.attribute.keys().map(String::as_str))
            )),
            Some(declared) if declared.post_treatment => Err(format!(
                "attribute `{attribute}` is `post_treatment`: an arm can change it, so it cannot choose who is in"
            )),
            Some(declared) => Ok(declared.kind),
        };
        let place = format!("experiment.{name}.targeting");
        Targeting::new(text, &kind_of)
            .map(Some)
            .map_err(|problem| ConfigError::Value { place, problem })
    }

    /// Gives the experiment its basis points of the layer; says how many.
    fn hold(
        &self,
        owner: u16,
        name: &str,
        config: &ExperimentConfig,
        layer: &mut Layer,
    ) -> Result<u32, ConfigError> {
        let Some(ledger) = self.ledger else {
            let seed = format!("{}:{}:{name}", layer.name, layer.epoch);
            let mut left = config.allocation_bp;
            for basis_point in shuffled(&seed) {
                if left == 0 {
                    break;
                }
                if let Some(free) = layer.owners.get_mut(usize::from(basis_point))
                    && *free == NOBODY
                {
                    *free = owner;
                    left -= 1;
                }
            }
            return Ok(config.allocation_bp - left);
        };
        let Some((holding, place)) = ledger.holding(name).zip(ledger.place(name)) else {
            return Ok(0);
        };
        let (held_layer, layer_epoch) = place;
        if held_layer != layer.name {
            let place = format!("experiment.{name}.layer");
            let problem = format!(
                "the journal has it in layer `{held_layer}`; stop it there before it moves to `{}`",
                layer.name
            );
            return Err(ConfigError::Value { place, problem });
        }
        for (place, journal, file) in [
            (
                format!("layer.{}.epoch", layer.name),
                layer_epoch,
                layer.epoch,
            ),
            (
                format!("experiment.{name}.epoch"),
                holding.epoch,
                config.epoch,
            ),
        ] {
            if journal != file {
                return Err(ConfigError::Epoch {
                    place,
                    journal,
                    file,
                });
            }
        }
        if holding.arms_digest != arms_digest(config) {
            return Err(ConfigError::ArmsChanged {
                experiment: name.to_owned(),
                epoch: holding.epoch,
            });
        }
        for &basis_point in &holding.drawn {
            if let Some(owned) = layer.owners.get_mut(usize::from(basis_point)) {
                *owned = owner;
            }
        }
        Ok(holding.share_bp())
    }

    fn forced(
        &self,
        experiments: &[Experiment],
    ) -> Result<HashMap<String, Vec<Forced>>, ConfigError> {
        let mut forced: HashMap<String, Vec<Forced>> = HashMap::new();
        for (at, (name, config)) in self.config.experiment.0.iter().enumerate() {
            for (i, force) in config.force.iter().enumerate() {
                let place = |field: &str| format!("experiment.{name}.force[{i}].{field}");
                let layer = self.layer(String::new(), &config.layer)?;
                let arms = experiments
                    .get(at)
                    .map_or(&[][..], |compiled| &compiled.arms);
                let arm = arms.iter().position(|arm| arm.name == force.arm);
                let Some(arm) = arm else {
                    let known = listed(arms.iter().map(|arm| arm.name.as_str()));
                    let problem = format!("there is no arm `{}`; there are {known}", force.arm);
                    return Err(ConfigError::Value {
                        place: place("arm"),
                        problem,
                    });
                };
                let of_unit = forced.entry(force.unit.clone()).or_default();
                if of_unit.iter().any(|other| other.layer == layer) {
                    let problem = format!("`{}` is forced twice in one layer", force.unit);
                    return Err(ConfigError::Value {
                        place: place("unit"),
                        problem,
                    });
                }
                of_unit.push(Forced {
                    layer,
                    experiment: at,
                    arm,
                });
            }
        }
        Ok(forced)
    }

    fn holdouts(&self) -> Result<Vec<Holdout>, ConfigError> {
        let mut holdouts = Vec::new();
        for (name, holdout) in &self.config.holdout {
            check_name(format!("holdout.{name}"), name)?;
            if holdout.share_bp > BASIS_POINTS / 2 {
                let place = format!("holdout.{name}.share_bp");
                let problem = format!(
                    "{} is not 0 to 5000: a slice of equal size must be left to compare with",
                    holdout.share_bp
                );
                return Err(ConfigError::Value { place, problem });
            }
            holdouts.push(Holdout {
                name: name.clone(),
                epoch: holdout.epoch,
                key: KeyPrefix::new(format!("H:{name}:{}|", holdout.epoch).as_bytes()),
                end: holdout.share_bp * (GRID / BASIS_POINTS),
            });
        }
        Ok(holdouts)
    }

    fn layer(&self, place: String, layer: &str) -> Result<usize, ConfigError> {
        let found = self.index_of.get(layer).copied();
        found.ok_or_else(|| ConfigError::UnknownLayer {
            place,
            layer: layer.to_owned(),
            known: listed(self.index_of.keys().copied()),
        })
    }

    fn variant(&self, place: impl FnOnce() -> String, variant: &str) -> Result<(), ConfigError> {
        if self.variants.contains(&variant) {
            return Ok(());
        }
        Err(ConfigError::UnknownVariant {
            place: place(),
            variant: variant.to_owned(),
            known: listed(self.variants.iter().copied()),
        })
    }

    /// One text for one meaning: what the digest is taken of. Lengths stand before names, so that no
    /// two configurations share a text.
    fn canonical(&self) -> String {
        let config = self.config;
        let mut text = format!("refrain-experiments 2 {}\n", config.assignment.enabled);
        // To a string: cannot fail.
        for (holdout, c) in &config.holdout {
            let _ = writeln!(
                text,
                "holdout {} {} {}",
                sized(holdout),
                c.epoch,
                c.share_bp
            );
        }
        for (layer, c) in &config.layer {
            let _ = writeln!(text, "layer {} {} {}", sized(layer), c.epoch, c.buckets);
            for (param, c) in &c.params {
                let _ = writeln!(text, "param {} {:?}", sized(param), c.default);
            }
        }
        for (surface, c) in &config.surface {
            let held = sized(c.holdout_variant.as_deref().unwrap_or_default());
            let layers: Vec<_> = c.layer.0.iter().map(|layer| sized(layer)).collect();
            let (layers, variant) = (layers.join(" "), sized(&c.variant));
            let _ = writeln!(text, "surface {} {layers} {variant} {held}", sized(surface));
        }
        for (name, c) in &config.experiment.0 {
            let share = match self.ledger.and_then(|ledger| ledger.holding(name)) {
                Some(holding) => format!("{:?}", holding.drawn),
                None => c.allocation_bp.to_string(),
            };
            let targeting = sized(c.targeting.as_deref().unwrap_or_default());
            let _ = writeln!(
                text,
                "experiment {} {} {} {} {share} {} {targeting}",
                sized(name),
                c.kind,
                sized(&c.layer),
                c.epoch,
                c.paused
            );
            // A line of its own, so that configurations without it keep their digest.
            if c.assigner == Assigner::External {
                text += "assigner external\n";
            }
            if let Some(units) = c
                .admitted
                .as_ref()
                .and_then(|admitted| admitted.units.as_ref())
            {
                let _ = writeln!(text, "admitted {}", hex(&units.digest()));
            }
            text += &canonical_arms(&c.arms);
            for force in &c.force {
                let _ = writeln!(text, "force {} {}", sized(&force.unit), sized(&force.arm));
            }
        }
        text
    }
}

/// The units of a closed intake.
fn admitted(name: &str, config: &ExperimentConfig) -> Result<Option<Arc<UnitSet>>, ConfigError> {
    let Some(admitted) = &config.admitted else {
        return Ok(None);
    };
    match &admitted.units {
        Some(units) => Ok(Some(Arc::clone(units))),
        None => Err(ConfigError::Value {
            place: format!("experiment.{name}.admitted"),
            problem: format!("`{}` was not read", admitted.file),
        }),
    }
}

fn canonical_arms(arms: &[ArmConfig]) -> String {
    let mut text = String::new();
    for arm in arms {
        let weight = arm.weight.to_bits();
        let variant = sized(arm.variant.as_deref().unwrap_or_default());
        let name = sized(&arm.name);
        let _ = writeln!(text, "arm {name} {weight:016x} {variant} {:?}", arm.params);
    }
    text
}

fn sized(name: &str) -> String {
    format!("{}:{name}", name.len())
}

/// Where the arms of an experiment end on the grid; the last ends at its end.
fn arm_ends(experiment: &str, config: &ExperimentConfig) -> Result<Vec<u32>, ConfigError> {
    let (fits, needs) = match config.kind {
        Kind::Shadow => (!config.arms.is_empty(), "at least 1"),
        Kind::Interleave => (config.arms.len() == 2, "exactly 2"),
        Kind::Rollout => (
            config.arms.len() == 2,
            "exactly 2, control before treatment",
        ),
        Kind::Ab => (config.arms.len() >= 2, "at least 2"),
    };
    if !fits {
        return Err(ConfigError::Arms {
            experiment: experiment.to_owned(),
            kind: config.kind,
            count: config.arms.len(),
            needs,
        });
    }
    let mut total = 0.0;
    for (i, arm) in config.arms.iter().enumerate() {
        total += arm.weight;
        // The sum can overflow although no weight does.
        if !(arm.weight.is_finite() && arm.weight > 0.0 && f64::is_finite(total)) {
            return Err(ConfigError::Weight {
                place: format!("experiment.{experiment}.arm[{i}].weight"),
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
    let mut ends: Vec<u32> = config.arms.iter().map(cut).collect();
    if let Some(last) = ends.last_mut() {
        *last = GRID;
    }
    Ok(ends)
}

fn check_rollout(name: &str, config: &ExperimentConfig) -> Result<(), ConfigError> {
    let wrong = |field: &str, problem: &str| {
        let place = format!("experiment.{name}.rollout{field}");
        let problem = problem.to_owned();
        Err(ConfigError::Value { place, problem })
    };
    let Some(rollout) = &config.rollout else {
        return wrong(
            "",
            "is missing: at least `on_inconclusive = \"hold\"` or \"advance\"",
        );
    };
    let steps = &rollout.steps_bp;
    let rising = steps.windows(2).all(|pair| pair[0] < pair[1]);
    if steps.is_empty() || !rising || steps[0] == 0 || steps.last() > Some(&BASIS_POINTS) {
        return wrong(".steps_bp", "are not 1 to 10000 basis points, rising");
    }
    for (field, text) in [
        (".min_hold", &rollout.min_hold),
        (".look_every", &rollout.look_every),
    ] {
        if crate::config::seconds(text).is_none() {
            return wrong(
                field,
                "is not a whole number and s, m, h or d, such as \"6h\"",
            );
        }
    }
    if !(rollout.alpha > 0.0 && rollout.alpha < 0.5) {
        return wrong(".alpha", "is not between 0 and 0.5");
    }
    if rollout.max_requests < 2 * rollout.min_requests.max(1) {
        return wrong(".max_requests", "is less than both arms' `min_requests`");
    }
    Ok(())
}

fn check_param(place: &str, declared: &ParamConfig, value: &ParamValue) -> Result<(), ConfigError> {
    let wrong = |problem: String| {
        let place = place.to_owned();
        Err(ConfigError::Value { place, problem })
    };
    let number = match (&declared.default, value) {
        (ParamValue::Bool(_), ParamValue::Bool(_)) | (ParamValue::Text(_), ParamValue::Text(_)) => {
            return Ok(());
        }
        (ParamValue::Integer(_), ParamValue::Integer(n))
        | (ParamValue::Number(_), ParamValue::Integer(n)) => {
            #[expect(clippy::cast_precision_loss, reason = "compared with bounds")]
            let number = *n as f64;
            number
        }
        (ParamValue::Number(_), ParamValue::Number(number)) => *number,
        _ => {
            return wrong(format!(
                "{value:?} is not of the type of its default, {:?}",
                declared.default
            ));
        }
    };
    let low = declared.min.unwrap_or(f64::NEG_INFINITY);
    let high = declared.max.unwrap_or(f64::INFINITY);
    if number.is_finite() && (low..=high).contains(&number) {
        return Ok(());
    }
    wrong(format!("{number} is not {low} to {high}"))
}

fn check_counts(config: &Config) -> Result<(), ConfigError> {
    let of_experiments = config.experiment.0.iter().flat_map(|(name, experiment)| {
        let place = |field: &str| format!("experiment.{name}.{field}");
        [
            (place("arm"), experiment.arms.len(), Limits::ARMS),
            (place("force"), experiment.force.len(), Limits::FORCED),
            (place("metric"), experiment.metrics.len(), Limits::METRICS),
        ]
    });
    let of_layers = config.layer.iter().map(|(name, layer)| {
        let place = format!("layer.{name}.params");
        (place, layer.params.len(), Limits::PARAMS)
    });
    let tables = [
        ("layer", config.layer.len(), Limits::LAYERS),
        ("surface", config.surface.len(), Limits::SURFACES),
        ("holdout", config.holdout.len(), Limits::HOLDOUTS),
        ("attribute", config.attribute.len(), Limits::ATTRIBUTES),
        ("experiment", config.experiment.0.len(), Limits::EXPERIMENTS),
    ];
    match tables
        .into_iter()
        .map(|(place, count, max)| (place.to_owned(), count, max))
        .chain(of_experiments)
        .chain(of_layers)
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
    let of_layer = |e: &ExperimentConfig| e.layer == layer && e.kind != Kind::Shadow;
    for (name, experiment) in config.experiment.0.iter().filter(|(_, e)| of_layer(e)) {
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

fn listed<'a>(names: impl Iterator<Item = &'a str>) -> String {
    let quoted: Vec<_> = names.map(|name| format!("`{name}`")).collect();
    if quoted.is_empty() {
        "none".to_owned()
    } else {
        quoted.join(", ")
    }
}
