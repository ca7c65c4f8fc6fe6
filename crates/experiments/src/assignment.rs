//! A unit's way through the configuration, and where it ends.
//!
//! kill switch → forced → holdout → bucket of the layer → pause → intake → targeting → arm. The first step that
//! decides is the reason that is logged. A surface with several layers asks each of them.

use std::collections::{BTreeMap, HashMap};
use std::sync::Arc;

use crate::config::{Kind, ParamConfig, ParamValue};
use crate::hash::{KeyPrefix, bucket};
use crate::intake::UnitSet;
use crate::ledger::BASIS_POINTS;
use crate::targeting::{Attributes, Targeting};

/// Points of the grid on which arms are cut, and buckets in an [`Assignment`].
pub const GRID: u32 = 1_000_000;

/// Arm of a unit whose list is drafted by two arms.
pub const INTERLEAVED: &str = "interleaved";

/// A checked configuration, ready to assign. Immutable; share it by reference.
#[derive(Debug, Clone)]
pub struct Experiments {
    pub(crate) enabled: bool,
    pub(crate) surfaces: BTreeMap<String, Surface>,
    pub(crate) fallback: Surface,
    pub(crate) layers: Vec<Layer>,
    pub(crate) experiments: Vec<Experiment>,
    pub(crate) holdouts: Vec<Holdout>,
    /// Units that get an arm whatever the hash says.
    pub(crate) forced: HashMap<String, Vec<Forced>>,
    pub(crate) digest: [u8; 32],
    pub(crate) digest_hex: String,
}

impl Experiments {
    /// What `unit` gets on `surface`: a pure function of the configuration and the two. A surface
    /// that is not declared is answered as [`DEFAULT_SURFACE`](crate::DEFAULT_SURFACE). Allocates
    /// nothing.
    #[must_use]
    pub fn assign<'a>(&'a self, surface: &str, unit: &str) -> Assignment<'a> {
        self.assign_with(surface, unit, &())
    }

    /// [`assign`](Self::assign) with what the request says of itself, for targeting.
    #[must_use]
    pub fn assign_with<'a>(
        &'a self,
        surface: &str,
        unit: &str,
        attributes: &dyn Attributes,
    ) -> Assignment<'a> {
        let surface = self.surface(surface);
        self.decide(surface.layer, Some(surface), unit, attributes)
    }

    /// What `unit` gets in the layers of `surface` beyond the first: their arms name no variant, they set
    /// parameters of the one that [`assign_with`](Self::assign_with) says.
    pub fn assign_further<'a>(
        &'a self,
        surface: &str,
        unit: &str,
        attributes: &dyn Attributes,
    ) -> Vec<Assignment<'a>> {
        let surface = self.surface(surface);
        let further = surface.further.iter();
        further
            .map(|&layer| self.decide(layer, Some(surface), unit, attributes))
            .collect()
    }

    /// The arms of an experiment that callers deal, or `None` where there is no such.
    #[must_use]
    pub fn external_arms(&self, experiment: &str) -> Option<Vec<&str>> {
        let mut all = self.experiments.iter();
        let found = all.find(|other| other.name == experiment && other.external)?;
        Some(found.arms.iter().map(|arm| arm.name.as_str()).collect())
    }

    /// What `unit` gets in a layer, by its name, apart from any surface.
    #[must_use]
    pub fn assign_in_layer<'a>(
        &'a self,
        layer: &str,
        unit: &str,
        attributes: &dyn Attributes,
    ) -> Option<Assignment<'a>> {
        let layer = self.layers.iter().position(|other| other.name == layer)?;
        Some(self.decide(layer, None, unit, attributes))
    }

    fn decide<'a>(
        &'a self,
        layer_at: usize,
        surface: Option<&'a Surface>,
        unit: &str,
        attributes: &dyn Attributes,
    ) -> Assignment<'a> {
        let mut default = self.default_of(layer_at, surface, Some(unit));
        if !self.enabled {
            default.reason = Reason::Paused;
            return default;
        }
        if !self.forced.is_empty()
            && let Some(forced) = self.forced.get(unit)
            && let Some(forced) = forced.iter().find(|forced| forced.layer == layer_at)
            && let Some(experiment) = self.experiments.get(forced.experiment)
            && let Some(arm) = experiment.arms.get(forced.arm)
        {
            return Assignment {
                reason: Reason::Forced,
                ..experiment.give(arm, 0, default)
            };
        }
        default.holdouts = self.holdouts_of(unit);
        default.holdout = default.holdouts.group();
        if default.holdout == Some(HoldoutGroup::Held) {
            default.reason = Reason::Holdout;
            if let Some(variant) = surface.and_then(|surface| surface.holdout_variant.as_ref()) {
                default.variant = variant;
            }
            return default;
        }
        let owner = self.layers.get(layer_at).and_then(|layer| {
            let basis_point = default.bucket / (GRID / BASIS_POINTS);
            layer.owners.get(basis_point as usize).copied()
        });
        let Some(experiment) = owner
            .filter(|&owner| owner != NOBODY)
            .and_then(|owner| self.experiments.get(usize::from(owner)))
        else {
            return default;
        };
        default.passed_over = Some(&experiment.name);
        if experiment.paused || !experiment.admits(unit) {
            default.reason = Reason::Paused;
            return default;
        }
        if !experiment.takes(attributes) {
            default.reason = Reason::Targeting;
            return default;
        }
        if experiment.external {
            let given = attributes.arm_of(&experiment.name);
            let arm = given.and_then(|name| experiment.arms.iter().find(|arm| arm.name == name));
            return match arm {
                Some(arm) => Assignment {
                    reason: Reason::External,
                    ..experiment.give(arm, 0, default)
                },
                None => default,
            };
        }
        let grid = experiment.grid(unit);
        match experiment.arms.iter().find(|arm| grid < arm.end) {
            Some(arm) => experiment.give(arm, grid, default),
            None => default,
        }
    }

    /// Gives the units of an arm another variant than the arm names: whoever knows what variants are
    /// puts the arm's parameters into it. Not part of the digest, which has the arm's own words.
    pub fn set_variant(&mut self, experiment: &str, arm: &str, variant: &str) {
        for arm in self.arms_mut(experiment, arm) {
            arm.variant = Some(variant.to_owned());
        }
    }

    /// Says which values the units of an arm that names no variant put into the one that ranks; see
    /// [`Assignment::values`].
    pub fn set_values(&mut self, experiment: &str, arm: &str, values: u32) {
        for arm in self.arms_mut(experiment, arm) {
            arm.values = Some(values);
        }
    }

    fn arms_mut(&mut self, experiment: &str, arm: &str) -> impl Iterator<Item = &mut Arm> {
        let experiments = self.experiments.iter_mut();
        let of_name = experiments.filter(move |other| other.name == experiment);
        let arms = of_name.flat_map(|experiment| &mut experiment.arms);
        arms.filter(move |other| other.name == arm)
    }

    /// What is to be computed in the dark beside the unit's answer on `surface`: the arms of shadow
    /// experiments that take it. Held-out units are left alone here too.
    pub fn shadows<'a>(
        &'a self,
        surface: &str,
        unit: &'a str,
        attributes: &'a dyn Attributes,
    ) -> impl Iterator<Item = Shadow<'a>> + 'a {
        let surface = self.surface(surface);
        let layers = std::iter::once(&surface.layer).chain(&surface.further);
        let shadows = layers.filter_map(|&at| self.layers.get(at));
        let mut shadows = shadows.flat_map(|layer| &layer.shadows).peekable();
        let open = shadows.peek().is_some()
            && self.enabled
            && self.holdout_of(unit) != Some(HoldoutGroup::Held);
        shadows
            .filter(move |_| open)
            .filter_map(|&at| self.experiments.get(usize::from(at)))
            .filter(move |experiment| {
                !experiment.paused
                    && experiment.grid(unit)
                        < experiment.allocation_bp.saturating_mul(GRID / BASIS_POINTS)
                    && experiment.takes(attributes)
            })
            .flat_map(|experiment| {
                experiment.arms.iter().map(|arm| Shadow {
                    experiment: &experiment.name,
                    epoch: experiment.epoch,
                    arm: &arm.name,
                    // A shadow names one, which is checked at load.
                    variant: arm.variant.as_deref().unwrap_or_default(),
                })
            })
    }

    /// What `unit` gets when the request itself names the variant: no experiment counts it.
    #[must_use]
    pub fn force<'a>(&'a self, surface: &str, unit: &str, variant: &'a str) -> Assignment<'a> {
        let surface = self.surface(surface);
        Assignment {
            variant,
            reason: Reason::Forced,
            ..self.default_of(surface.layer, Some(surface), Some(unit))
        }
    }

    /// What a request gets that has no unit: the default variant of the surface, in no experiment.
    #[must_use]
    pub fn unassigned<'a>(&'a self, surface: &str) -> Assignment<'a> {
        let surface = self.surface(surface);
        self.default_of(surface.layer, Some(surface), None)
    }

    /// Whether a unit is held out, or in the slice of equal size that it is compared with.
    #[must_use]
    pub fn holdout_of(&self, unit: &str) -> Option<HoldoutGroup> {
        self.holdouts_of(unit).group()
    }

    /// Where a unit stands in each holdout: they draw independently of each other.
    #[must_use]
    pub fn holdouts_of(&self, unit: &str) -> Memberships<'_> {
        let mut found = Memberships {
            holdouts: &self.holdouts,
            ..Memberships::default()
        };
        for (at, holdout) in self.holdouts.iter().enumerate() {
            let bucket = bucket(holdout.key.hash64(unit.as_bytes()), GRID);
            found.held |= u8::from(bucket < holdout.end) << at;
            found.slice |= u8::from((holdout.end..2 * holdout.end).contains(&bucket)) << at;
        }
        found
    }

    /// Value of a layer's parameter for a unit, and how it came about.
    #[must_use]
    pub fn param<'a>(
        &'a self,
        layer: &str,
        param: &str,
        unit: &str,
        attributes: &dyn Attributes,
    ) -> Option<(&'a ParamValue, Assignment<'a>)> {
        let declared = self.layers.iter().find(|other| other.name == layer)?;
        let default = &declared.params.get(param)?.default;
        let assignment = self.assign_in_layer(layer, unit, attributes)?;
        let arm = assignment
            .experiment
            .and_then(|name| self.experiments.iter().find(|other| other.name == name))
            .and_then(|experiment| {
                let mut arms = experiment.arms.iter();
                arms.find(|arm| Some(arm.name.as_str()) == assignment.arm)
            });
        let value = arm.and_then(|arm| arm.params.get(param)).unwrap_or(default);
        Some((value, assignment))
    }

    /// Every layer with the parameters that it declares, by name.
    pub fn params(&self) -> impl Iterator<Item = (&str, &str)> {
        self.layers.iter().flat_map(|layer| {
            let params = layer.params.keys();
            params.map(|param| (layer.name.as_str(), param.as_str()))
        })
    }

    /// The experiments of a kind, in the order of the file: name, epoch, share in basis points.
    pub fn of_kind(&self, kind: Kind) -> impl Iterator<Item = (&str, u32, u32)> {
        self.experiments
            .iter()
            .filter(move |experiment| experiment.kind == kind)
            .map(|experiment| {
                let share = experiment.allocation_bp;
                (experiment.name.as_str(), experiment.epoch, share)
            })
    }

    /// Digest of all that decides an assignment, 64 hexadecimal digits. Comments, order of fields
    /// and words for people do not change it.
    #[must_use]
    pub fn digest(&self) -> &str {
        &self.digest_hex
    }

    /// The same, as bytes.
    #[must_use]
    pub fn digest_bytes(&self) -> [u8; 32] {
        self.digest
    }

    fn surface(&self, name: &str) -> &Surface {
        self.surfaces.get(name).unwrap_or(&self.fallback)
    }

    fn default_of<'a>(
        &'a self,
        layer: usize,
        surface: Option<&'a Surface>,
        unit: Option<&str>,
    ) -> Assignment<'a> {
        let layer = self.layers.get(layer);
        let hash = layer
            .zip(unit)
            .map(|(layer, unit)| layer.key.hash64(unit.as_bytes()));
        Assignment {
            layer: layer.map_or("", |layer| &layer.name),
            layer_epoch: layer.map_or(0, |layer| layer.epoch),
            bucket: hash.map_or(0, |hash| bucket(hash, GRID)),
            experiment: None,
            experiment_epoch: 0,
            kind: None,
            arm: None,
            grid: 0,
            variant: surface.map_or("", |surface| &surface.variant),
            contenders: None,
            values: None,
            reason: Reason::Default,
            probability: 1.0,
            allocation_bp: 0,
            weights: &[],
            holdout: None,
            holdouts: Memberships::default(),
            passed_over: None,
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
    /// The experiment that decided.
    pub experiment: Option<&'a str>,
    /// Its epoch; 0 without experiment.
    pub experiment_epoch: u32,
    /// Its kind.
    pub kind: Option<Kind>,
    /// The arm; [`INTERLEAVED`] where two draft one list.
    pub arm: Option<&'a str>,
    /// Point of the unit on the experiment's grid, `0..1_000_000`; 0 without experiment.
    pub grid: u32,
    /// The ranking variant that follows; of an interleaved list, the first contender.
    pub variant: &'a str,
    /// The ranking variants of teams 0 and 1, where they draft one list.
    pub contenders: Option<[&'a str; 2]>,
    /// The number of the parameter values that the arm puts into the variant, whichever it is; what they
    /// are knows who set them with [`Experiments::set_values`].
    pub values: Option<u32>,
    /// Why.
    pub reason: Reason,
    /// Probability with which a unit of the experiment gets this arm; 1 where nothing is random.
    pub probability: f64,
    /// Share of the layer that the experiment has, in basis points.
    pub allocation_bp: u32,
    /// Weights of all its arms, as shares of 1.
    pub weights: &'a [f32],
    /// Whether the unit is held out, or in the slice that is compared with those.
    pub holdout: Option<HoldoutGroup>,
    /// The same, holdout by holdout.
    pub holdouts: Memberships<'a>,
    /// The experiment that owns the unit's bucket but did not decide: it is paused, its intake is closed,
    /// or its targeting leaves the unit out.
    pub passed_over: Option<&'a str>,
}

/// A variant to be computed in the dark.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
#[non_exhaustive]
pub struct Shadow<'a> {
    /// The experiment.
    pub experiment: &'a str,
    /// Its epoch.
    pub epoch: u32,
    /// The arm.
    pub arm: &'a str,
    /// Its ranking variant.
    pub variant: &'a str,
}

/// Why a unit got its variant.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
#[non_exhaustive]
pub enum Reason {
    /// An experiment's hash decided.
    Split,
    /// No experiment owns the unit's bucket: the default variant of the surface.
    Default,
    /// The request, or a list in the experiment, named the variant.
    Forced,
    /// The unit is held out of all experiments.
    Holdout,
    /// The experiment's condition does not hold for the request.
    Targeting,
    /// The experiment, or all of them, are paused; or its intake is closed and the unit was not inside.
    Paused,
    /// The caller said which arm another system gave the unit.
    External,
}

impl Reason {
    /// As it is logged.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Split => "SPLIT",
            Self::Default => "DEFAULT",
            Self::Forced => "FORCED",
            Self::Holdout => "HOLDOUT",
            Self::Targeting => "TARGETING",
            Self::Paused => "PAUSED",
            Self::External => "EXTERNAL",
        }
    }
}

/// Which side of the holdout comparison a unit is on.
#[derive(Debug, Clone, Copy, PartialEq, Eq, Hash)]
pub enum HoldoutGroup {
    /// In no experiment.
    Held,
    /// A random slice of the rest, as large.
    Slice,
}

impl HoldoutGroup {
    /// As it is logged.
    #[must_use]
    pub fn as_str(self) -> &'static str {
        match self {
            Self::Held => "held",
            Self::Slice => "slice",
        }
    }
}

/// Where a unit stands in each holdout.
#[derive(Debug, Clone, Copy, Default, PartialEq)]
pub struct Memberships<'a> {
    holdouts: &'a [Holdout],
    /// Bit `n`: held out by holdout `n`. There are at most eight ([`Limits::HOLDOUTS`](crate::Limits)).
    held: u8,
    /// Bit `n`: in the slice that holdout `n` is compared with.
    slice: u8,
}

impl Memberships<'_> {
    /// Held out by any of them; else in a slice of any.
    #[must_use]
    pub fn group(self) -> Option<HoldoutGroup> {
        match (self.held, self.slice) {
            (0, 0) => None,
            (0, _) => Some(HoldoutGroup::Slice),
            _ => Some(HoldoutGroup::Held),
        }
    }
}

/// As it is logged: `NAME|EPOCH|held` or `NAME|EPOCH|slice`, several parted by `||`; nothing for a unit in
/// none. No name has a `|` in it.
impl std::fmt::Display for Memberships<'_> {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        let mut parting = "";
        for (at, holdout) in self.holdouts.iter().enumerate() {
            for (bits, group) in [
                (self.held, HoldoutGroup::Held),
                (self.slice, HoldoutGroup::Slice),
            ] {
                if bits >> at & 1 == 1 {
                    let (name, epoch) = (&holdout.name, holdout.epoch);
                    write!(f, "{parting}{name}|{epoch}|{}", group.as_str())?;
                    parting = "||";
                }
            }
        }
        Ok(())
    }
}

/// Owner of a basis point that nobody owns.
pub(crate) const NOBODY: u16 = u16::MAX;

#[derive(Debug, Clone)]
pub(crate) struct Surface {
    /// The first layer, whose arms name variants.
    pub(crate) layer: usize,
    /// The others, whose arms set parameters.
    pub(crate) further: Vec<usize>,
    pub(crate) variant: String,
    pub(crate) holdout_variant: Option<String>,
}

#[derive(Debug, Clone)]
pub(crate) struct Layer {
    pub(crate) name: String,
    pub(crate) epoch: u32,
    pub(crate) key: KeyPrefix,
    /// Owner of each basis point: an index into the experiments.
    pub(crate) owners: Box<[u16]>,
    /// Shadow experiments of the layer.
    pub(crate) shadows: Vec<u16>,
    pub(crate) params: BTreeMap<String, ParamConfig>,
}

#[derive(Debug, Clone, PartialEq)]
pub(crate) struct Holdout {
    pub(crate) name: String,
    pub(crate) epoch: u32,
    pub(crate) key: KeyPrefix,
    /// First grid point that is not held out.
    pub(crate) end: u32,
}

#[derive(Debug, Clone, Copy)]
pub(crate) struct Forced {
    pub(crate) layer: usize,
    pub(crate) experiment: usize,
    pub(crate) arm: usize,
}

#[derive(Debug, Clone)]
pub(crate) struct Experiment {
    pub(crate) name: String,
    pub(crate) layer: String,
    pub(crate) kind: Kind,
    pub(crate) epoch: u32,
    pub(crate) key: KeyPrefix,
    pub(crate) arms: Vec<Arm>,
    pub(crate) weights: Vec<f32>,
    pub(crate) allocation_bp: u32,
    pub(crate) targeting: Option<Targeting>,
    pub(crate) paused: bool,
    /// Those who are in, where nobody new gets in.
    pub(crate) admitted: Option<Arc<UnitSet>>,
    /// Whether callers say which arm a unit is in.
    pub(crate) external: bool,
}

#[derive(Debug, Clone)]
pub(crate) struct Arm {
    pub(crate) name: String,
    /// `None`: the one that its units would get anyway.
    pub(crate) variant: Option<String>,
    /// Number of the values that it puts into a variant that it does not name.
    pub(crate) values: Option<u32>,
    /// First grid point after the arm.
    pub(crate) end: u32,
    pub(crate) probability: f64,
    pub(crate) params: BTreeMap<String, ParamValue>,
}

impl Experiment {
    fn grid(&self, unit: &str) -> u32 {
        bucket(self.key.hash64(unit.as_bytes()), GRID)
    }

    fn admits(&self, unit: &str) -> bool {
        let admitted = self.admitted.as_ref();
        admitted.is_none_or(|units| units.contains(unit))
    }

    fn takes(&self, attributes: &dyn Attributes) -> bool {
        let targeting = self.targeting.as_ref();
        targeting.is_none_or(|targeting| targeting.holds(attributes))
    }

    fn give<'a>(&'a self, arm: &'a Arm, grid: u32, default: Assignment<'a>) -> Assignment<'a> {
        let given = Assignment {
            experiment: Some(&self.name),
            experiment_epoch: self.epoch,
            kind: Some(self.kind),
            arm: Some(&arm.name),
            grid,
            variant: arm.variant.as_deref().unwrap_or(default.variant),
            values: arm.values,
            reason: Reason::Split,
            probability: arm.probability,
            allocation_bp: self.allocation_bp,
            weights: &self.weights,
            passed_over: None,
            ..default
        };
        let contenders = match (self.kind, &self.arms[..]) {
            (Kind::Interleave, [first, second]) => {
                first.variant.as_deref().zip(second.variant.as_deref())
            }
            _ => None,
        };
        match contenders {
            Some((first, second)) => Assignment {
                arm: Some(INTERLEAVED),
                variant: first,
                contenders: Some([first, second]),
                probability: 1.0,
                ..given
            },
            None => given,
        }
    }
}

#[cfg(test)]
mod tests;
