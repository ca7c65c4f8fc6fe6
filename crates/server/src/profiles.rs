//! The profile store as asynchronous handlers see it: nothing here blocks the threads that answer.

use std::sync::Arc;
use std::time::{Duration, Instant};

use refrain_taste::{Profile, ProfileStore, Receipt, StoreError, Write};
use tokio::sync::oneshot;

use crate::limits::REVISION_WAIT;
use crate::metrics::Metrics;
use crate::refusal::{Refusal, Resource, Unavailable};

/// How a client is asked to come back while the store is busy or away.
const RETRY: Duration = Duration::from_millis(100);

/// First pause between looks for a revision; doubles.
const FIRST_LOOK: Duration = Duration::from_millis(1);

/// Reads and writes profiles.
#[derive(Clone)]
pub(crate) struct Profiles {
    store: Arc<dyn ProfileStore>,
    metrics: Arc<Metrics>,
}

impl Profiles {
    pub(crate) fn new(store: Arc<dyn ProfileStore>, metrics: Arc<Metrics>) -> Self {
        Self { store, metrics }
    }

    /// A listener's profile; empty with revision 0 for one never written.
    pub(crate) async fn read(&self, user: &str) -> Result<Arc<Profile>, Refusal> {
        // A hand-over to another thread costs more than most answers: only a miss is worth it.
        if let Some(profile) = self.store.cached(user) {
            return Ok(profile);
        }
        let store = Arc::clone(&self.store);
        let owned = user.to_owned();
        let read = tokio::task::spawn_blocking(move || store.profile(&owned)).await;
        let read = read.map_err(|error| Refusal::Internal {
            message: error.to_string(),
        })?;
        read.map_err(|error| self.refused(error))
    }

    /// A listener's profile of at least a revision: waits for it up to [`REVISION_WAIT`], and not
    /// beyond `deadline`.
    pub(crate) async fn read_at_least(
        &self,
        user: &str,
        revision: u64,
        deadline: Instant,
    ) -> Result<Arc<Profile>, Refusal> {
        let until = deadline.min(Instant::now() + REVISION_WAIT);
        let mut pause = FIRST_LOOK;
        loop {
            let profile = self.read(user).await?;
            if profile.revision >= revision {
                return Ok(profile);
            }
            let left = until.saturating_duration_since(Instant::now());
            if left.is_zero() {
                let message = format!(
                    "the profile is at revision {}, not yet at {revision}",
                    profile.revision
                );
                return Err(Refusal::unavailable(
                    Unavailable::RevisionNotReached,
                    message,
                    RETRY,
                ));
            }
            tokio::time::sleep(pause.min(left)).await;
            pause *= 2;
        }
    }

    /// Writes, and answers once it is durable.
    pub(crate) async fn write(&self, write: Write) -> Result<Receipt, Refusal> {
        let start = Instant::now();
        let (done, outcome) = oneshot::channel();
        // The caller may be gone by then; the write stays.
        self.store
            .submit(write, Box::new(move |result| drop(done.send(result))));
        let outcome = outcome.await.unwrap_or(Err(StoreError::Closed));
        self.metrics
            .profile_write
            .observe(start.elapsed().as_secs_f64());
        outcome.map_err(|error| self.refused(error))
    }

    fn refused(&self, error: StoreError) -> Refusal {
        let unavailable = |error: &StoreError| {
            self.metrics.profile_failures.inc();
            tracing::error!(error = %chain(error), "the profile store failed");
            Refusal::unavailable(Unavailable::ProfileStore, error.to_string(), RETRY)
        };
        match error {
            StoreError::Invalid(invalid) => Refusal::field(invalid.field, invalid.problem),
            StoreError::EventConflict { event_id, .. } => Refusal::AlreadyExists {
                kind: Resource::Event,
                name: event_id,
            },
            StoreError::RuleConflict { rule_id } => Refusal::AlreadyExists {
                kind: Resource::Rule,
                name: rule_id,
            },
            StoreError::NoSuchRule { rule_id } => Refusal::NotFound {
                kind: Resource::Rule,
                name: rule_id,
            },
            StoreError::TooManyRules { .. } => Refusal::Quota {
                subject: "exclusions".to_owned(),
                message: error.to_string(),
            },
            StoreError::Busy => {
                Refusal::unavailable(Unavailable::ProfileStore, error.to_string(), RETRY)
            }
            StoreError::Corrupt {
                ref path,
                table,
                ref key,
                ..
            } => {
                self.metrics.profile_failures.inc();
                tracing::error!(error = %chain(&error), "a stored profile is damaged");
                let place = vec![
                    ("file".to_owned(), path.display().to_string()),
                    ("table".to_owned(), table.to_owned()),
                    ("key".to_owned(), key.clone()),
                ];
                Refusal::DataLoss {
                    message: error.to_string(),
                    place,
                }
            }
            StoreError::Full { .. } | StoreError::Io { .. } | StoreError::Closed => {
                unavailable(&error)
            }
            // A kind of failure that this server does not know yet is the store's all the same.
            _ => unavailable(&error),
        }
    }
}

/// An error and its sources, for the log.
pub(crate) fn chain(error: &dyn std::error::Error) -> String {
    let mut text = error.to_string();
    let mut source = error.source();
    while let Some(cause) = source {
        text += ": ";
        text += &cause.to_string();
        source = cause.source();
    }
    text
}

impl std::fmt::Debug for Profiles {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Profiles").finish_non_exhaustive()
    }
}
