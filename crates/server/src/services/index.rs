//! `IndexService`: versions in the store, and the labels that point at them.

use std::sync::Arc;
use std::time::Duration;

use refrain::v1;
use refrain::v1::index_service_server::IndexService;
use refrain_bundle::manifest::is_version_id;
use refrain_bundle::{Label, StoreError};
use refrain_kernels::Kernels;
use tonic::{Request, Response, Status};

use super::{Handler, State, offload};
use crate::limits::{DEFAULT_LIST_SIZE, MAX_LIST_SIZE};
use crate::refusal::{Precondition, Refusal, Resource, Unavailable};
use crate::validate::{Check, timestamp};
use crate::versions;
use crate::wire;

/// The label that `Rollback` means when it names none.
const DEFAULT_LABEL: &str = "stable";

/// How a client is asked to come back while the store is away.
const RETRY: Duration = Duration::from_secs(1);

#[tonic::async_trait]
impl IndexService for Handler {
    async fn list_versions(
        &self,
        request: Request<v1::ListVersionsRequest>,
    ) -> Result<Response<v1::ListVersionsResponse>, Status> {
        let request = request.into_inner();
        let mut check = Check::default();
        let size = check.size(
            "page_size",
            request.page_size,
            DEFAULT_LIST_SIZE,
            MAX_LIST_SIZE,
        );
        let before = request.page_token;
        if !before.is_empty() && !is_version_id(&before) {
            check.complain("page_token", "is not a token of this method");
        }
        check.finish()?;
        let state = Arc::clone(&self.0);
        let list = move || list_versions(&state, size as usize, &before);
        Ok(Response::new(offload(list).await?))
    }

    async fn get_serving(
        &self,
        _: Request<v1::GetServingRequest>,
    ) -> Result<Response<v1::GetServingResponse>, Status> {
        let table = self.0.versions.table();
        Ok(Response::new(v1::GetServingResponse {
            serving: table.labels.iter().map(serving).collect(),
            server_version: env!("CARGO_PKG_VERSION").to_owned(),
            limits: Some(self.0.limits.to_wire()),
            simd: Kernels::active().level().to_string(),
        }))
    }

    async fn set_label(
        &self,
        request: Request<v1::SetLabelRequest>,
    ) -> Result<Response<v1::SetLabelResponse>, Status> {
        let actor = actor(&request);
        let v1::SetLabelRequest {
            label,
            version,
            etag,
        } = request.into_inner();
        let mut check = Check::default();
        check.id("label", &label);
        check.id("version", &version);
        check.finish()?;
        let moved = self
            .move_label(move |state| state.store.set_label(&label, &version, some(&etag), &actor))
            .await?;
        Ok(Response::new(v1::SetLabelResponse {
            label: Some(wire::label(&moved)),
        }))
    }

    async fn rollback(
        &self,
        request: Request<v1::RollbackRequest>,
    ) -> Result<Response<v1::RollbackResponse>, Status> {
        let actor = actor(&request);
        let v1::RollbackRequest { mut label, etag } = request.into_inner();
        if label.is_empty() {
            DEFAULT_LABEL.clone_into(&mut label);
        }
        let moved = self
            .move_label(move |state| state.store.rollback(&label, some(&etag), &actor))
            .await?;
        Ok(Response::new(v1::RollbackResponse {
            label: Some(wire::label(&moved)),
        }))
    }
}

impl Handler {
    /// Moves a label in the store and has the watcher look at once.
    async fn move_label(
        &self,
        change: impl FnOnce(&State) -> Result<Label, StoreError> + Send + 'static,
    ) -> Result<Label, Refusal> {
        let state = Arc::clone(&self.0);
        let moved = offload(move || change(&state).map_err(Refusal::from)).await;
        // Also after an error: the label may have moved before its record was refused.
        self.0.versions.wake();
        moved
    }
}

/// One page of versions, newest first: those older than `before`, which may be empty.
fn list_versions(
    state: &State,
    size: usize,
    before: &str,
) -> Result<v1::ListVersionsResponse, Refusal> {
    let labels = state.store.labels()?;
    let all = state.store.versions()?;
    let older: Vec<_> = all
        .iter()
        .rev()
        .filter(|info| before.is_empty() || info.manifest.version.as_str() < before)
        .collect();
    let page = older.get(..size).unwrap_or(&older);
    let more = page.len() < older.len();
    Ok(v1::ListVersionsResponse {
        versions: page
            .iter()
            .map(|info| wire::version(info, &labels))
            .collect(),
        next_page_token: page
            .last()
            .filter(|_| more)
            .map(|info| info.manifest.version.clone())
            .unwrap_or_default(),
    })
}

fn serving<V: versions::Mapped>(label: &versions::Label<V>) -> v1::Serving {
    let now = label.serving.as_ref();
    let mut resident: Vec<String> = Vec::new();
    for version in now
        .map(|serving| &serving.version)
        .into_iter()
        .chain(&label.previous)
    {
        if !resident.iter().any(|known| known == version.id()) {
            resident.push(version.id().to_owned());
        }
    }
    v1::Serving {
        label: label.name.clone(),
        version: now.map_or_else(String::new, |serving| serving.version.id().to_owned()),
        wanted: label.wanted.clone(),
        refusal: label.refusal.clone().unwrap_or_default(),
        since: now.map(|serving| timestamp(serving.since_us)),
        items: now.map_or(0, |serving| serving.version.items()),
        resident,
        delta: now.map_or(0, |serving| serving.version.delta()),
        delta_refusal: label.delta_refusal.clone().unwrap_or_default(),
    }
}

/// Who moved a label, for the audit log of the store.
fn actor<T>(request: &Request<T>) -> String {
    request
        .remote_addr()
        .map_or_else(|| "grpc".to_owned(), |address| format!("grpc {address}"))
}

fn some(text: &str) -> Option<&str> {
    (!text.is_empty()).then_some(text)
}

impl From<StoreError> for Refusal {
    fn from(error: StoreError) -> Self {
        let message = error.to_string();
        match error {
            StoreError::NoVersion { version, .. } => Self::NotFound {
                kind: Resource::Version,
                name: version,
            },
            StoreError::NoLabel { label, .. } => Self::NotFound {
                kind: Resource::Label,
                name: label,
            },
            StoreError::BadLabel { .. } => Self::field("label", message),
            StoreError::NoPrevious { label, .. } => Self::Precondition {
                reason: Precondition::NoPreviousVersion,
                subject: label,
                message,
            },
            StoreError::Conflict { .. } => Self::Aborted { message },
            StoreError::Corrupt(corruption) => Self::DataLoss {
                message,
                place: vec![
                    ("file".to_owned(), corruption.file.display().to_string()),
                    ("section".to_owned(), corruption.section.clone()),
                    ("offset".to_owned(), corruption.offset.to_string()),
                ],
            },
            StoreError::LabelFile { file, .. } => Self::DataLoss {
                message,
                place: vec![("file".to_owned(), file.display().to_string())],
            },
            StoreError::Manifest(_) => Self::DataLoss {
                message,
                place: Vec::new(),
            },
            StoreError::Io(_) | StoreError::NoStore { .. } | StoreError::Objects(_) => {
                Self::unavailable(Unavailable::VersionStore, message, RETRY)
            }
            StoreError::NotRecorded { .. }
            | StoreError::Scheme { .. }
            | StoreError::BadUrl { .. } => Self::Internal { message },
            _ => Self::Internal { message },
        }
    }
}
