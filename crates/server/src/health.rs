//! Whether this server is worth asking: `grpc.health.v1`, `/readyz`, and the draining of both.
//!
//! | entry | SERVING |
//! |---|---|
//! | the empty one, `RecommendationService`, `ExperimentService` | while a verified version answers for the first label |
//! | a label's name, for example `stable` | while a verified version answers for it |
//! | `TasteProfileService`, `IndexService` | always |
//!
//! All of them say NOT_SERVING from the moment the server begins to drain.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};

use refrain::v1::experiment_service_server::SERVICE_NAME as EXPERIMENT;
use refrain::v1::index_service_server::SERVICE_NAME as INDEX;
use refrain::v1::recommendation_service_server::SERVICE_NAME as RECOMMENDATION;
use refrain::v1::taste_profile_service_server::SERVICE_NAME as TASTE_PROFILE;
use tonic_health::ServingStatus;
use tonic_health::server::HealthReporter;

use crate::versions::{Mapped, Versions};

/// Whether the server should be sent requests.
#[derive(Debug)]
pub(crate) struct Readiness<V> {
    versions: Arc<Versions<V>>,
    draining: AtomicBool,
}

impl<V: Mapped> Readiness<V> {
    pub(crate) fn new(versions: Arc<Versions<V>>) -> Self {
        Self {
            versions,
            draining: AtomicBool::new(false),
        }
    }

    /// Why it should not; `None` when it should.
    pub(crate) fn complaint(&self) -> Option<String> {
        if self.draining() {
            return Some("draining".to_owned());
        }
        let table = self.versions.table();
        match table.labels.first() {
            Some(label) if label.serving.is_some() => None,
            Some(label) => Some(label.complaint()),
            None => Some("no label is watched".to_owned()),
        }
    }

    /// Whether the server has begun to drain.
    pub(crate) fn draining(&self) -> bool {
        self.draining.load(Ordering::Acquire)
    }

    /// Begins to drain: there is no way back.
    pub(crate) fn drain(&self) {
        self.draining.store(true, Ordering::Release);
    }

    /// Tells the health service what is true now.
    pub(crate) async fn report(&self, reporter: &HealthReporter) {
        let draining = self.draining();
        for (entry, serves) in self.entries() {
            let status = if serves && !draining {
                ServingStatus::Serving
            } else {
                ServingStatus::NotServing
            };
            reporter.set_service_status(&entry, status).await;
        }
    }

    /// Every entry, and whether it would serve if the server did not drain.
    pub(crate) fn entries(&self) -> Vec<(String, bool)> {
        let table = self.versions.table();
        let serves = table
            .labels
            .first()
            .is_some_and(|label| label.serving.is_some());
        let services = [
            ("", serves),
            (RECOMMENDATION, serves),
            (EXPERIMENT, serves),
            (TASTE_PROFILE, true),
            (INDEX, true),
        ];
        let labels = table
            .labels
            .iter()
            .map(|label| (label.name.clone(), label.serving.is_some()));
        services
            .into_iter()
            .map(|(name, serves)| (name.to_owned(), serves))
            .chain(labels)
            .collect()
    }

    /// Keeps the health service true until the versions are gone.
    pub(crate) async fn keep_reporting(&self, reporter: &HealthReporter) {
        let mut changes = self.versions.changes();
        loop {
            self.report(reporter).await;
            if changes.changed().await.is_err() {
                return;
            }
        }
    }
}
