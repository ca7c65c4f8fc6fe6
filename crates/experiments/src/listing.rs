//! What is in force, to be shown.

use crate::assignment::{Experiments, NOBODY};
use crate::config::Kind;

/// An experiment in force.
#[derive(Debug, Clone, PartialEq)]
pub struct Listed<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its layer.
    pub layer: &'a str,
    /// Its epoch.
    pub epoch: u32,
    /// Its kind.
    pub kind: Kind,
    /// Share of the layer that it holds, in basis points; of a shadow, the share that it is computed for.
    pub allocation_bp: u32,
    /// Whether it is paused.
    pub paused: bool,
    /// How many units go on while nobody new gets in; `None` where the intake is open.
    pub admitted: Option<usize>,
    /// Whether a condition decides who takes part.
    pub targeted: bool,
    /// Its arms: name, ranking variant (empty: whichever ranks without it), and the share of the
    /// experiment's units.
    pub arms: Vec<(&'a str, &'a str, f64)>,
}

/// A layer in force.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub struct ListedLayer<'a> {
    /// Its name.
    pub name: &'a str,
    /// Its epoch.
    pub epoch: u32,
    /// Basis points that no experiment holds.
    pub free_bp: u32,
}

impl Experiments {
    /// The experiments, in the order of the file.
    pub fn list(&self) -> impl Iterator<Item = Listed<'_>> {
        self.experiments.iter().map(|experiment| Listed {
            name: &experiment.name,
            layer: &experiment.layer,
            epoch: experiment.epoch,
            kind: experiment.kind,
            allocation_bp: experiment.allocation_bp,
            paused: experiment.paused,
            admitted: experiment.admitted.as_ref().map(|units| units.len()),
            targeted: experiment.targeting.is_some(),
            arms: experiment
                .arms
                .iter()
                .map(|arm| {
                    let variant = arm.variant.as_deref().unwrap_or_default();
                    (&*arm.name, variant, arm.probability)
                })
                .collect(),
        })
    }

    /// The layers, by name.
    pub fn layers(&self) -> impl Iterator<Item = ListedLayer<'_>> {
        self.layers.iter().map(|layer| {
            let free = layer.owners.iter().filter(|&&owner| owner == NOBODY);
            ListedLayer {
                name: &layer.name,
                epoch: layer.epoch,
                free_bp: u32::try_from(free.count()).unwrap_or(u32::MAX),
            }
        })
    }

    /// Whether units are assigned at all.
    #[must_use]
    pub fn is_enabled(&self) -> bool {
        self.enabled
    }
}
