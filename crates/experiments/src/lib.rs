//! Layers, buckets and assignment: pure, small and fast.
//!
//! A *unit* (a listener) asks on a *surface* (where recommendations are shown). The surface names a
//! *layer*, a set of experiments that exclude each other, or several that do not know of each other. The unit's hash falls into one of the
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
//! # Who owns which bucket
//! Each experiment owns a whole number of basis points of its layer. With a [`Journal`], which
//! remembers every draw, what an experiment holds changes by its own ramp alone: growing adds, shrinking
//! takes away what was drawn last, and no other experiment's units move.
//!
//! Without one, experiments draw one after the other, *in the order of the file*, each from what
//! those above it left free, in an order that depends only on the names of layer and experiment and
//! the layer's epoch. Then growing the *last* experiment of a layer moves nobody else; growing
//! another may take units from those below it, which draw others instead.
//!
//! # Modules
//! `config` is the file, `error` what is wrong with it and on which line, `compile` checks it and makes
//! [`Experiments`]; `ledger` and `journal` say who holds what, `intake` who is inside where nobody new gets in; `preflight` what an experiment must
//! declare before it starts; `looks`, `units` and `rollout` stop one that does harm; [`schema`] and [`record`]
//! are the logs that the server writes and the analysis reads.

mod assignment;
mod compile;
mod config;
mod error;
mod hash;
mod intake;
mod journal;
mod ledger;
mod listing;
mod looks;
mod preflight;
pub mod record;
mod rollout;
pub mod schema;
mod targeting;
mod units;

pub use assignment::{
    Assignment, Experiments, GRID, HoldoutGroup, INTERLEAVED, Memberships, Reason, Shadow,
};
pub use compile::arms_digest;
pub use config::{
    ArmConfig, Assigner, AssignmentConfig, AttributeConfig, Config, DEFAULT_SURFACE, DEFAULT_TOML,
    DesignConfig, Direction, ExperimentConfig, ForceConfig, HoldoutConfig, Kind, LayerConfig,
    LayerNames, MetricConfig, OnBreach, OnInconclusive, Ordered, ParamConfig, ParamValue, Role,
    RolloutConfig, SurfaceConfig, Unit, seconds,
};
pub use error::{ConfigError, Limits, line_of};
pub use hash::{KeyPrefix, bucket, hash64, hash128};
pub use intake::{Admitted, UnitSet};
pub use journal::{Action, Entry, Journal, JournalError, Tip, digest_of};
pub use ledger::{BASIS_POINTS, Holding, Ledger, LedgerError};
pub use listing::{Listed, ListedLayer};
pub use looks::{Looks, Spending, quantile, upper_tail};
pub use preflight::{
    Finding, LIVE_METRICS, Traffic, events, latency_quantile, preflight, preflight_all, traffic,
};
pub use rollout::{
    CELLS, GROUPS, GroupCounts, Monitor, Reading, RolloutCounts, RolloutState, Standing, Verdict,
    cell_of, group_of,
};
pub use targeting::{AttributeType, Attributes, Targeting};
pub use units::{SampleRatio, Units};
