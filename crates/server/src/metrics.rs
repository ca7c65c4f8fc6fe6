//! What the server counts, for Prometheus. Names carry their unit; handles are resolved once, so that
//! a request pays atomics and no lookup by label.

use std::fmt;
use std::time::Duration;

use prometheus_client::collector::Collector;
use prometheus_client::encoding::text::encode;
use prometheus_client::encoding::{DescriptorEncoder, EncodeLabelSet, EncodeMetric};
use prometheus_client::metrics::counter::Counter;
use prometheus_client::metrics::family::Family;
use prometheus_client::metrics::gauge::{ConstGauge, Gauge};
use prometheus_client::metrics::histogram::Histogram;
use prometheus_client::metrics::info::Info;
use prometheus_client::registry::{Registry, Unit};
use refrain::v1::DegradedReason;
use tonic::Code;

use crate::method::Method;
use crate::shadow::ShadowMetrics;

/// 50 µs to 3.3 s, a factor of two apart: the interesting answers take a millisecond or less.
const LATENCY_BUCKETS: [f64; 17] = [
    0.000_05, 0.000_1, 0.000_2, 0.000_4, 0.000_8, 0.001_6, 0.003_2, 0.006_4, 0.012_8, 0.025_6,
    0.051_2, 0.102_4, 0.204_8, 0.409_6, 0.819_2, 1.638_4, 3.276_8,
];

/// 10 ms to 82 s: opening, verifying and warming a version.
const LOAD_BUCKETS: [f64; 14] = [
    0.01, 0.02, 0.04, 0.08, 0.16, 0.32, 0.64, 1.28, 2.56, 5.12, 10.24, 20.48, 40.96, 81.92,
];

/// Hops and distances of one search: powers of four from 16 to a million.
const WORK_BUCKETS: [f64; 9] = [
    16.0,
    64.0,
    256.0,
    1_024.0,
    4_096.0,
    16_384.0,
    65_536.0,
    262_144.0,
    1_048_576.0,
];

/// All that the server counts.
pub(crate) struct Metrics {
    registry: Registry,
    requests: Family<RequestLabels, Counter>,
    by_method: Vec<MethodHandles>,
    degraded: Vec<Counter>,
    /// Requests that are being answered.
    pub(crate) in_flight: Gauge,
    /// Requests refused because too many were in flight.
    pub(crate) shed: Counter,
    /// Panics that became INTERNAL.
    pub(crate) panics: Counter,
    /// Nodes expanded by one search.
    pub(crate) search_hops: Histogram,
    /// Distances computed by one search.
    pub(crate) search_distances: Histogram,
    /// From the submission of a profile write to its acknowledgement.
    pub(crate) profile_write: Histogram,
    /// Profile writes and reads that the store could not do.
    pub(crate) profile_failures: Counter,
    /// 1 while the configuration on disk is in force, 0 while it is refused.
    pub(crate) policy_current: Gauge,
    /// Configurations that came into force while the server ran.
    pub(crate) policy_reloads: Counter,
    /// Looks at rollouts.
    pub(crate) rollout_looks: Counter,
    /// Rollouts that a look brought back.
    pub(crate) rollout_step_backs: Counter,
    /// The logs of exposures and outcomes.
    pub(crate) log: LogMetrics,
    /// Versions.
    pub(crate) index: IndexMetrics,
    /// The dark.
    pub(crate) shadow: ShadowMetrics,
}

/// What is counted of the logs.
#[derive(Clone, Debug)]
pub(crate) struct LogMetrics {
    /// Rows on disk.
    pub(crate) written: Counter,
    /// Rows that the queue or the disk had no room for.
    pub(crate) dropped: Counter,
    /// Rows that earlier writers were asked for and which are not in their files.
    pub(crate) lost: Counter,
    /// Finished files that were copied to the object store.
    pub(crate) uploaded: Counter,
    /// Rounds of copying that ended with an error.
    pub(crate) upload_failures: Counter,
}

/// What is counted of versions and labels.
pub(crate) struct IndexMetrics {
    info: Family<InfoLabels, Gauge>,
    items: Family<LabelLabels, Gauge>,
    swaps: Family<LabelLabels, Counter>,
    refusals: Family<LabelLabels, Counter>,
    delta: Family<LabelLabels, Gauge>,
    delta_refusals: Family<LabelLabels, Counter>,
    poll_failures: Counter,
    /// Bytes of the files of all mapped versions.
    pub(crate) mapped_bytes: Gauge,
    /// From the decision to load a version until it is ready.
    pub(crate) load: Histogram,
}

/// Handles of one method.
struct MethodHandles {
    ok: Counter,
    duration: Histogram,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct RequestLabels {
    method: &'static str,
    code: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct MethodLabels {
    method: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct ReasonLabels {
    reason: &'static str,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct LabelLabels {
    label: String,
}

#[derive(Clone, Debug, PartialEq, Eq, Hash, EncodeLabelSet)]
struct InfoLabels {
    label: String,
    version: String,
}

impl Metrics {
    /// Registers everything. `simd` is the instruction set of the kernels.
    pub(crate) fn new(simd: &str) -> Self {
        let mut registry = Registry::with_prefix("refrain");
        registry.register(
            "build",
            "Version of the server and instruction set of its kernels",
            Info::new(vec![
                ("version", env!("CARGO_PKG_VERSION").to_owned()),
                ("simd", simd.to_owned()),
            ]),
        );
        let requests = Family::<RequestLabels, Counter>::default();
        registry.register(
            "requests",
            "Requests by method and gRPC code",
            requests.clone(),
        );
        let durations = Family::<MethodLabels, Histogram>::new_with_constructor(|| {
            Histogram::new(LATENCY_BUCKETS)
        });
        registry.register_with_unit(
            "request_duration",
            "From the head of a request until its answer is ready to be sent",
            Unit::Seconds,
            durations.clone(),
        );
        let by_method = Method::ALL
            .into_iter()
            .map(|method| {
                let method = method.name();
                MethodHandles {
                    ok: requests
                        .get_or_create(&RequestLabels {
                            method,
                            code: code_name(Code::Ok),
                        })
                        .clone(),
                    duration: durations.get_or_create(&MethodLabels { method }).clone(),
                }
            })
            .collect();
        let degraded = Family::<ReasonLabels, Counter>::default();
        registry.register(
            "degraded",
            "Answers that are less than they could be, by reason",
            degraded.clone(),
        );
        let degraded = DEGRADED
            .into_iter()
            .map(|(_, reason)| degraded.get_or_create(&ReasonLabels { reason }).clone())
            .collect();
        registry.register_collector(Box::new(ProcessMemory));

        Self {
            in_flight: registered(
                &mut registry,
                "requests_in_flight",
                "Requests being answered",
            ),
            shed: registered(
                &mut registry,
                "requests_shed",
                "Requests refused because too many were in flight",
            ),
            panics: registered(
                &mut registry,
                "request_panics",
                "Panics in a handler; each became INTERNAL for its request alone",
            ),
            search_hops: histogram(
                &mut registry,
                "search_hops",
                "Nodes expanded by one search",
                None,
                &WORK_BUCKETS,
            ),
            search_distances: histogram(
                &mut registry,
                "search_distances",
                "Distances computed by one search",
                None,
                &WORK_BUCKETS,
            ),
            profile_write: histogram(
                &mut registry,
                "profile_write_duration",
                "From the submission of a profile write until it is durable",
                Some(Unit::Seconds),
                &LATENCY_BUCKETS,
            ),
            profile_failures: registered(
                &mut registry,
                "profile_store_failures",
                "Reads and writes that the profile store could not do",
            ),
            shadow: ShadowMetrics::new(&mut registry, &LATENCY_BUCKETS),
            policy_current: registered(
                &mut registry,
                "policy_current",
                "1 while the variants and experiments on disk are in force, 0 while they are refused",
            ),
            policy_reloads: registered(
                &mut registry,
                "policy_reloads",
                "Configurations of variants and experiments that came into force while running",
            ),
            rollout_looks: registered(
                &mut registry,
                "rollout_looks",
                "Looks at the guardrails of rollouts",
            ),
            rollout_step_backs: registered(
                &mut registry,
                "rollout_step_backs",
                "Rollouts that were stepped back because a guardrail broke",
            ),
            log: LogMetrics {
                written: registered(
                    &mut registry,
                    "log_rows_written",
                    "Rows of exposures and outcomes that are on disk",
                ),
                dropped: registered(
                    &mut registry,
                    "log_rows_dropped",
                    "Rows of exposures and outcomes for which queue or disk had no room",
                ),
                lost: registered(
                    &mut registry,
                    "log_rows_lost",
                    "Rows that a crashed or closed writer was asked for and did not write",
                ),
                uploaded: registered(
                    &mut registry,
                    "log_files_uploaded",
                    "Finished files of the logs that were copied to the object store",
                ),
                upload_failures: registered(
                    &mut registry,
                    "log_upload_failures",
                    "Rounds of copying files of the logs that ended with an error",
                ),
            },
            index: IndexMetrics {
                info: registered(
                    &mut registry,
                    "index_info",
                    "1 for the version that answers for a label",
                ),
                items: registered(
                    &mut registry,
                    "index_items",
                    "Items of the version that answers for a label",
                ),
                swaps: registered(
                    &mut registry,
                    "index_swaps",
                    "Versions that began to answer for a label",
                ),
                refusals: registered(
                    &mut registry,
                    "index_refusals",
                    "Versions that a label pointed at and that were refused",
                ),
                delta: registered(
                    &mut registry,
                    "index_delta",
                    "Number of the last delta applied to the version that answers for a label",
                ),
                delta_refusals: registered(
                    &mut registry,
                    "index_delta_refusals",
                    "Deltas of the version that answers for a label that were refused",
                ),
                poll_failures: registered(
                    &mut registry,
                    "store_poll_failures",
                    "Looks at the version store that failed",
                ),
                mapped_bytes: {
                    let gauge = Gauge::default();
                    registry.register_with_unit(
                        "index_mapped",
                        "Size of the files of all mapped versions",
                        Unit::Bytes,
                        gauge.clone(),
                    );
                    gauge
                },
                load: histogram(
                    &mut registry,
                    "index_load_duration",
                    "Opening, verifying and warming one version",
                    Some(Unit::Seconds),
                    &LOAD_BUCKETS,
                ),
            },
            requests,
            by_method,
            degraded,
            registry,
        }
    }

    /// Counts an answered request.
    pub(crate) fn answered(&self, method: Method, code: Code, took: Duration) {
        let Some(handles) = self.by_method.get(method as usize) else {
            return;
        };
        handles.duration.observe(took.as_secs_f64());
        if code == Code::Ok {
            handles.ok.inc();
        } else {
            let labels = RequestLabels {
                method: method.name(),
                code: code_name(code),
            };
            self.requests.get_or_create(&labels).inc();
        }
    }

    /// Counts a reason for which an answer was less than it could be.
    pub(crate) fn degraded(&self, reason: DegradedReason) {
        let index = DEGRADED.iter().position(|(known, _)| *known == reason);
        if let Some(counter) = index.and_then(|index| self.degraded.get(index)) {
            counter.inc();
        }
    }

    /// All of it in the OpenMetrics text format.
    pub(crate) fn encode(&self) -> Result<String, fmt::Error> {
        let mut text = String::with_capacity(16 << 10);
        encode(&mut text, &self.registry)?;
        Ok(text)
    }
}

impl IndexMetrics {
    /// A version begins to answer for a label.
    pub(crate) fn swapped(
        &self,
        label: &str,
        from: Option<&str>,
        to: &str,
        delta: u64,
        items: u64,
    ) {
        let labels = LabelLabels {
            label: label.to_owned(),
        };
        self.swaps.get_or_create(&labels).inc();
        self.freshened(label, delta, items);
        let info = |version: &str| InfoLabels {
            label: label.to_owned(),
            version: version.to_owned(),
        };
        if let Some(from) = from {
            self.info.remove(&info(from));
        }
        self.info.get_or_create(&info(to)).set(1);
    }

    /// Deltas were applied to the version that answers for a label.
    pub(crate) fn freshened(&self, label: &str, delta: u64, items: u64) {
        let labels = LabelLabels {
            label: label.to_owned(),
        };
        let number = |value| i64::try_from(value).unwrap_or(i64::MAX);
        self.delta.get_or_create(&labels).set(number(delta));
        self.items.get_or_create(&labels).set(number(items));
    }

    /// A delta was refused.
    pub(crate) fn delta_refused(&self, label: &str) {
        self.delta_refusals
            .get_or_create(&LabelLabels {
                label: label.to_owned(),
            })
            .inc();
    }

    /// A version was refused.
    pub(crate) fn refused(&self, label: &str) {
        self.refusals
            .get_or_create(&LabelLabels {
                label: label.to_owned(),
            })
            .inc();
    }

    /// The store could not be looked at.
    pub(crate) fn poll_failed(&self) {
        self.poll_failures.inc();
    }
}

/// Every reason, with its name in the label `reason`.
const DEGRADED: [(DegradedReason, &str); 6] = [
    (DegradedReason::EfReduced, "ef_reduced"),
    (DegradedReason::TimeBudget, "time_budget"),
    (DegradedReason::ProfileUnavailable, "profile_unavailable"),
    (DegradedReason::FallbackUsed, "fallback_used"),
    (DegradedReason::FewerThanAsked, "fewer_than_asked"),
    (DegradedReason::FeatureMissing, "feature_missing"),
];

fn registered<M>(registry: &mut Registry, name: &str, help: &str) -> M
where
    M: prometheus_client::registry::Metric + Clone + Default,
{
    let metric = M::default();
    registry.register(name, help, metric.clone());
    metric
}

fn histogram(
    registry: &mut Registry,
    name: &str,
    help: &str,
    unit: Option<Unit>,
    buckets: &[f64],
) -> Histogram {
    let histogram = Histogram::new(buckets.iter().copied());
    match unit {
        Some(unit) => registry.register_with_unit(name, help, unit, histogram.clone()),
        None => registry.register(name, help, histogram.clone()),
    }
    histogram
}

/// The code as gRPC spells it.
pub(crate) fn code_name(code: Code) -> &'static str {
    match code {
        Code::Ok => "OK",
        Code::Cancelled => "CANCELLED",
        Code::Unknown => "UNKNOWN",
        Code::InvalidArgument => "INVALID_ARGUMENT",
        Code::DeadlineExceeded => "DEADLINE_EXCEEDED",
        Code::NotFound => "NOT_FOUND",
        Code::AlreadyExists => "ALREADY_EXISTS",
        Code::PermissionDenied => "PERMISSION_DENIED",
        Code::ResourceExhausted => "RESOURCE_EXHAUSTED",
        Code::FailedPrecondition => "FAILED_PRECONDITION",
        Code::Aborted => "ABORTED",
        Code::OutOfRange => "OUT_OF_RANGE",
        Code::Unimplemented => "UNIMPLEMENTED",
        Code::Internal => "INTERNAL",
        Code::Unavailable => "UNAVAILABLE",
        Code::DataLoss => "DATA_LOSS",
        Code::Unauthenticated => "UNAUTHENTICATED",
    }
}

/// Resident memory of the process, read when it is asked for.
#[derive(Debug)]
struct ProcessMemory;

impl Collector for ProcessMemory {
    fn encode(&self, mut encoder: DescriptorEncoder<'_>) -> fmt::Result {
        let Some(bytes) = crate::memory::process_resident() else {
            return Ok(());
        };
        let gauge = ConstGauge::new(i64::try_from(bytes).unwrap_or(i64::MAX));
        let metric = encoder.encode_descriptor(
            "process_resident_memory",
            "Resident memory of the process, mapped pages included",
            Some(&Unit::Bytes),
            gauge.metric_type(),
        )?;
        gauge.encode(metric)
    }
}

impl fmt::Debug for Metrics {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Metrics").finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn requests_are_told_by_method_and_code() {
        let metrics = Metrics::new("scalar");
        metrics.answered(Method::Similar, Code::Ok, Duration::from_micros(300));
        metrics.answered(Method::Similar, Code::NotFound, Duration::from_micros(100));
        metrics.degraded(DegradedReason::FallbackUsed);
        let text = metrics.encode().expect("encodes");
        for line in [
            r#"refrain_requests_total{method="Similar",code="OK"} 1"#,
            r#"refrain_requests_total{method="Similar",code="NOT_FOUND"} 1"#,
            r#"refrain_request_duration_seconds_count{method="Similar"} 2"#,
            r#"refrain_degraded_total{reason="fallback_used"} 1"#,
            r#"refrain_build_info{version="0.1.0",simd="scalar"} 1"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line:?} in\n{text}"
            );
        }
    }

    #[test]
    fn one_version_answers_for_a_label() {
        let metrics = Metrics::new("scalar");
        metrics.index.swapped("stable", None, "v1", 3, 10);
        metrics.index.swapped("stable", Some("v1"), "v2", 0, 12);
        metrics.index.freshened("stable", 2, 14);
        metrics.index.refused("stable");
        let text = metrics.encode().expect("encodes");
        assert!(!text.contains(r#"version="v1""#), "{text}");
        for line in [
            r#"refrain_index_info{label="stable",version="v2"} 1"#,
            r#"refrain_index_items{label="stable"} 14"#,
            r#"refrain_index_delta{label="stable"} 2"#,
            r#"refrain_index_swaps_total{label="stable"} 2"#,
            r#"refrain_index_refusals_total{label="stable"} 1"#,
        ] {
            assert!(
                text.lines().any(|found| found == line),
                "no {line:?} in\n{text}"
            );
        }
    }
}
