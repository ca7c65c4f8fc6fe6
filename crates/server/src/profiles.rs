//! The profile store as asynchronous handlers see it: nothing here blocks the threads that answer.

use std::future::Future;
use std::ops::ControlFlow;
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
        self.read_since(user, 0).await
    }

    /// A listener's profile, of `revision` or later if there is one yet.
    async fn read_since(&self, user: &str, revision: u64) -> Result<Arc<Profile>, Refusal> {
        // A hand-over to another thread costs more than most answers: only a miss is worth it.
        if let Some(profile) = self.store.cached(user)
            && profile.revision >= revision
        {
            return Ok(profile);
        }
        let owned = user.to_owned();
        self.blocking(move |store| store.profile_since(&owned, revision))
            .await
    }

    /// What was last read of a listener, however long ago: for when the store is away.
    pub(crate) fn last_known(&self, user: &str) -> Option<Arc<Profile>> {
        self.store.last_known(user)
    }

    /// How many records of a listener the store has of the profile that was erased at a revision.
    pub(crate) async fn residue(&self, user: &str, erased: u64) -> Result<u64, Refusal> {
        let user = user.to_owned();
        self.blocking(move |store| store.residue(&user, erased))
            .await
    }

    /// Visits every listener on a thread of its own.
    pub(crate) async fn for_each(
        &self,
        mut visit: impl FnMut(&str, &Profile) -> ControlFlow<()> + Send + 'static,
    ) -> Result<(), Refusal> {
        self.blocking(move |store| store.for_each(&mut visit)).await
    }

    async fn blocking<T: Send + 'static>(
        &self,
        work: impl FnOnce(&dyn ProfileStore) -> Result<T, StoreError> + Send + 'static,
    ) -> Result<T, Refusal> {
        let store = Arc::clone(&self.store);
        let done = tokio::task::spawn_blocking(move || work(&*store)).await;
        let done = done.map_err(|error| Refusal::Internal {
            message: error.to_string(),
        })?;
        done.map_err(|error| self.refused(error))
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
            let profile = self.read_since(user, revision).await?;
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
        self.submit(write).await
    }

    /// Hands a write over now; the future is done once it is durable. Writes to one listener take effect
    /// in the order of the calls.
    pub(crate) fn submit(
        &self,
        write: Write,
    ) -> impl Future<Output = Result<Receipt, Refusal>> + Send + use<> {
        let start = Instant::now();
        let (done, outcome) = oneshot::channel();
        // The caller may be gone by then; the write stays.
        self.store
            .submit(write, Box::new(move |result| drop(done.send(result))));
        let profiles = self.clone();
        async move {
            let outcome = outcome.await.unwrap_or(Err(StoreError::Closed));
            profiles
                .metrics
                .profile_write
                .observe(start.elapsed().as_secs_f64());
            outcome.map_err(|error| profiles.refused(error))
        }
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
