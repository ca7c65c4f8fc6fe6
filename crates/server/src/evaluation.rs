//! Evaluations of flags as OpenTelemetry names them, so that a trace says which arm answered: the
//! attributes `feature_flag.*` of the semantic conventions on an event `feature_flag.evaluation`.
//!
//! Events are of level DEBUG, since `feature_flag.context.id` is the listener: `[log] filter =
//! "info,feature_flag=debug"` turns on these alone.

use refrain_experiments::{Assignment, Reason};

/// The provider's name, in every event.
const PROVIDER: &str = "refrain";

/// An assignment was followed, or a flag read: the key is `LAYER.FLAG`, as in OFREP.
pub(crate) fn evaluated(flag: &str, unit: &str, assignment: &Assignment<'_>, digest: &str) {
    tracing::event!(
        target: "feature_flag",
        tracing::Level::DEBUG,
        {
        feature_flag.key = %format_args!("{}.{flag}", assignment.layer),
        feature_flag.result.variant = assignment.arm.unwrap_or("default"),
        feature_flag.result.reason = reason(assignment).to_ascii_lowercase().as_str(),
        feature_flag.context.id = unit,
        feature_flag.provider.name = PROVIDER,
        feature_flag.set.id = assignment.experiment.unwrap_or_default(),
        feature_flag.version = digest
        },
        "feature_flag.evaluation"
    );
}

/// A reason as OpenFeature names it.
pub(crate) fn reason(assignment: &Assignment<'_>) -> &'static str {
    match assignment.reason {
        Reason::Split => "SPLIT",
        Reason::Forced | Reason::External => "TARGETING_MATCH",
        Reason::Paused => "DISABLED",
        Reason::Default | Reason::Holdout | Reason::Targeting => "STATIC",
        _ => "UNKNOWN",
    }
}
