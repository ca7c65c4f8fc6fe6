//! Layers, buckets and assignment: pure, small and fast.
//!
//! A *unit* (a listener) asks on a *surface* (where recommendations are shown). The surface names a
//! *layer*, a set of experiments that exclude each other. The unit's hash falls into one of the
//! layer's buckets; an experiment that owns the bucket splits its units over *arms* by a second,
//! independent hash; each arm names a ranking *variant*. No state, no network, no allocation: the
//! same configuration gives the same unit the same variant in every process and language.
//!
//! ```
//! use refrain_experiments::{Config, Experiments};
//!
//! let config = Config::from_toml(refrain_experiments::DEFAULT_TOML)?;
//! let experiments = Experiments::new(&config, &["plain", "balanced"])?;
//! let assignment = experiments.assign("home", "u1");
//! assert_eq!(assignment.bucket, 729_445);
//! # Ok::<(), refrain_experiments::ConfigError>(())
//! ```
//!
//! # What an edit of the configuration moves
//! Each experiment owns a whole number of basis points of its layer, drawn without replacement in an
//! order that depends only on the names of layer and experiment and the layer's epoch. Experiments
//! draw one after the other, *in the order of the file*, each from what those above it left free.
//! Therefore, as long as names, layer epoch and order stay:
//! - two experiments of a layer never own the same unit;
//! - raising `allocation_bp` only adds units to an experiment, lowering it removes those that came
//!   last, and neither changes the arm of a unit that stays;
//! - nothing that happens to an experiment touches those above it in the file, so a new experiment
//!   goes at the end;
//! - raising one *may* take units from those below it in the same layer, which draw others instead.
//!   Ramp the last one, or expect that. Only a ledger, which remembers past draws, can promise more.

mod allocation;
mod assignment;
mod config;
mod hash;

pub use assignment::{Assignment, Experiments, GRID, Reason};
pub use config::{
    ArmConfig, Config, ConfigError, DEFAULT_SURFACE, DEFAULT_TOML, ExperimentConfig, LayerConfig,
    Limits, Ordered, SurfaceConfig,
};
pub use hash::{KeyPrefix, bucket, hash64, hash128};
