//! The gRPC server: services, version manager, metrics, admin listener.
//!
//! [`App::start`] makes a running server of a [`Config`]; [`App::run_until`] stops it without dropping
//! a request. What a request passes, from the outside in:
//!
//! 1. `stack`: observe, rescue from panics, deadline, shed;
//! 2. `services`: one module for each service of the contract; `wire` and `validate` between its
//!    messages and the types below; `refusal` turns every error into a status with details;
//! 3. the engine, on the version that `versions` has in place at that moment.
//!
//! Handlers run on the threads that answer: a search takes well under a millisecond. What blocks or
//! takes longer (profile reads that miss the cache, the version store, exact search, comparisons)
//! runs on blocking threads.
//!
//! # Invariants
//! - A request takes its version once; an answer never mixes two.
//! - Only this crate, the contract and the command line know protobuf and tonic.
//! - Every status that is not OK carries `google.rpc` details; a panic is INTERNAL for its request alone.

mod admin;
mod app;
mod clock;
mod config;
mod evaluation;
mod filters;
mod gather;
mod health;
mod journal_file;
mod limits;
mod log;
mod logging;
mod memory;
mod method;
mod metrics;
mod ofrep;
mod profiles;
mod refusal;
mod reload;
mod rollout;
mod services;
mod shadow;
mod source;
mod stack;
mod validate;
mod versions;
mod wire;

pub use app::{App, ServeError, Shutdown, StartError, runtime, terminated};
pub use config::{
    CONFIG_SCHEMA, Config, ConfigError, DEFAULT_TOML, LogConfig, LogFormat, Problem,
    ProfilesConfig, ServerConfig, StoreConfig,
};
pub use journal_file::{JournalFile, JournalFileError, Signature};
pub use limits::Limits;
pub use log::{LogConfig as ExposuresConfig, seen_events, seen_units};
pub use logging::init_tracing;
pub use shadow::ShadowConfig;
