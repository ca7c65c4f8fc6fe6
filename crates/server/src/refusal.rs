//! Why a request is not answered, and the one place where that becomes a gRPC status.
//!
//! | condition | code | details |
//! |---|---|---|
//! | bad field, wrong dimension, NaN, too many ids | `INVALID_ARGUMENT` | `BadRequest` with field paths |
//! | unknown item, label, version, variant, rule | `NOT_FOUND` | `ResourceInfo` |
//! | model mismatch, version not resident | `FAILED_PRECONDITION` | `PreconditionFailure`, `ErrorInfo` |
//! | label moved meanwhile | `ABORTED` | `ErrorInfo` |
//! | same id, other content | `ALREADY_EXISTS` | `ResourceInfo` |
//! | the listener's profile is full | `RESOURCE_EXHAUSTED` | `QuotaFailure` |
//! | overloaded, draining, nothing mapped yet, store down, revision not reached | `UNAVAILABLE` | `RetryInfo`, `ErrorInfo` |
//! | nothing produced in time | `DEADLINE_EXCEEDED` | `ErrorInfo` |
//! | a file does not match its checksum | `DATA_LOSS` | `ErrorInfo` with the place |
//! | a bug | `INTERNAL` | `ErrorInfo` |
//!
//! `UNAVAILABLE` means "another replica may answer": stock clients retry it. A quota is never that.

use std::collections::HashMap;
use std::fmt;
use std::time::Duration;

use tonic::{Code, Status};
use tonic_types::{ErrorDetails, FieldViolation, StatusExt as _};

/// `ErrorInfo.domain` of every error.
pub(crate) const DOMAIN: &str = "refrain";

/// A request that is not answered.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) enum Refusal {
    /// The request itself is wrong, whatever the state of the server.
    Invalid(Vec<Violation>),
    /// What it names is not there.
    NotFound { kind: Resource, name: String },
    /// It is there with other content.
    AlreadyExists { kind: Resource, name: String },
    /// The state of the server does not allow it.
    Precondition {
        reason: Precondition,
        subject: String,
        message: String,
    },
    /// Somebody else was faster.
    Aborted { message: String },
    /// The subject has used up what it may have.
    Quota { subject: String, message: String },
    /// Another replica, or this one a little later, may answer.
    Unavailable {
        reason: Unavailable,
        message: String,
        retry_after: Duration,
    },
    /// The deadline passed before there was anything to say.
    DeadlineExceeded,
    /// Stored bytes are not what was written.
    DataLoss {
        message: String,
        place: Vec<(String, String)>,
    },
    /// A bug: the request was fine and the server failed.
    Internal { message: String },
}

/// One wrong field.
#[derive(Debug, Clone, PartialEq, Eq)]
pub(crate) struct Violation {
    /// Path from the request, for example `seeds.positive[2].weight`.
    pub(crate) field: String,
    /// What is wrong with it.
    pub(crate) description: String,
}

/// What a `ResourceInfo` is about.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Resource {
    Item,
    Label,
    Version,
    Variant,
    Layer,
    Rule,
    Event,
    Profile,
}

/// `ErrorInfo.reason` of a failed precondition.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Precondition {
    ModelVersionMismatch,
    VersionNotResident,
    NoPreviousVersion,
    NoLog,
}

/// `ErrorInfo.reason` of an unavailability.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(crate) enum Unavailable {
    Overloaded,
    NoVersion,
    ProfileStore,
    RevisionNotReached,
    VersionStore,
    OutcomeLog,
}

impl Refusal {
    /// One wrong field.
    pub(crate) fn field(field: impl fmt::Display, description: impl fmt::Display) -> Self {
        Self::Invalid(vec![Violation {
            field: field.to_string(),
            description: description.to_string(),
        }])
    }

    /// Something that a client may try again after `retry_after`.
    pub(crate) fn unavailable(
        reason: Unavailable,
        message: impl Into<String>,
        retry_after: Duration,
    ) -> Self {
        Self::Unavailable {
            reason,
            message: message.into(),
            retry_after,
        }
    }

    /// The same refusal where the request was a field of another: `page_size` is `request.page_size`.
    pub(crate) fn within(mut self, field: &str) -> Self {
        if let Self::Invalid(violations) = &mut self {
            for violation in violations {
                violation.field.insert(0, '.');
                violation.field.insert_str(0, field);
            }
        }
        self
    }

    /// Whether the profile store cannot be read.
    pub(crate) fn is_store_away(&self) -> bool {
        matches!(
            self,
            Self::Unavailable {
                reason: Unavailable::ProfileStore,
                ..
            }
        )
    }

    /// Whether the server is at fault, and not the caller.
    pub(crate) fn is_failure(&self) -> bool {
        matches!(
            self.code(),
            Code::Unavailable | Code::DeadlineExceeded | Code::DataLoss | Code::Internal
        )
    }

    fn code(&self) -> Code {
        match self {
            Self::Invalid(_) => Code::InvalidArgument,
            Self::NotFound { .. } => Code::NotFound,
            Self::AlreadyExists { .. } => Code::AlreadyExists,
            Self::Precondition { .. } => Code::FailedPrecondition,
            Self::Aborted { .. } => Code::Aborted,
            Self::Quota { .. } => Code::ResourceExhausted,
            Self::Unavailable { .. } => Code::Unavailable,
            Self::DeadlineExceeded => Code::DeadlineExceeded,
            Self::DataLoss { .. } => Code::DataLoss,
            Self::Internal { .. } => Code::Internal,
        }
    }

    fn message(&self) -> String {
        match self {
            Self::Invalid(violations) => match &violations[..] {
                [] => "invalid request".to_owned(),
                [one] => format!("{}: {}", one.field, one.description),
                [first, rest @ ..] => {
                    format!(
                        "{}: {} (and {} more)",
                        first.field,
                        first.description,
                        rest.len()
                    )
                }
            },
            Self::NotFound { kind, name } => format!("there is no {kind} {name:?}"),
            Self::AlreadyExists { kind, name } => {
                format!("{kind} {name:?} exists with other content")
            }
            Self::Precondition { message, .. }
            | Self::Aborted { message }
            | Self::Quota { message, .. }
            | Self::Unavailable { message, .. }
            | Self::DataLoss { message, .. }
            | Self::Internal { message } => message.clone(),
            Self::DeadlineExceeded => "the deadline passed before there was an answer".to_owned(),
        }
    }

    fn details(&self) -> ErrorDetails {
        let mut details = ErrorDetails::new();
        let reason = match self {
            Self::Invalid(violations) => {
                let violations: Vec<FieldViolation> = violations
                    .iter()
                    .map(|v| FieldViolation::new(v.field.as_str(), v.description.as_str()))
                    .collect();
                details.set_bad_request(violations);
                "INVALID_FIELD"
            }
            Self::NotFound { kind, name } => {
                details.set_resource_info(kind.to_string(), name.as_str(), "", "not found");
                "NOT_FOUND"
            }
            Self::AlreadyExists { kind, name } => {
                details.set_resource_info(kind.to_string(), name.as_str(), "", "other content");
                "ALREADY_EXISTS"
            }
            Self::Precondition {
                reason,
                subject,
                message,
            } => {
                details.add_precondition_failure_violation(
                    reason.as_str(),
                    subject.as_str(),
                    message.as_str(),
                );
                reason.as_str()
            }
            Self::Aborted { .. } => "ETAG_MISMATCH",
            Self::Quota { subject, message } => {
                details.add_quota_failure_violation(subject.as_str(), message.as_str());
                "PROFILE_FULL"
            }
            Self::Unavailable {
                reason,
                retry_after,
                ..
            } => {
                details.set_retry_info(Some(*retry_after));
                reason.as_str()
            }
            Self::DeadlineExceeded => "DEADLINE_EXCEEDED",
            Self::DataLoss { .. } => "CORRUPT",
            Self::Internal { .. } => "INTERNAL",
        };
        let metadata: HashMap<String, String> = match self {
            Self::DataLoss { place, .. } => place.iter().cloned().collect(),
            _ => HashMap::new(),
        };
        details.set_error_info(reason, DOMAIN, metadata);
        details
    }
}

impl From<Refusal> for Status {
    fn from(refusal: Refusal) -> Self {
        Self::with_error_details(refusal.code(), refusal.message(), refusal.details())
    }
}

impl fmt::Display for Refusal {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(&self.message())
    }
}

impl fmt::Display for Resource {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(match self {
            Self::Item => "item",
            Self::Label => "label",
            Self::Version => "version",
            Self::Variant => "variant",
            Self::Layer => "layer",
            Self::Rule => "exclusion",
            Self::Event => "event",
            Self::Profile => "profile",
        })
    }
}

impl Precondition {
    fn as_str(self) -> &'static str {
        match self {
            Self::ModelVersionMismatch => "MODEL_VERSION_MISMATCH",
            Self::VersionNotResident => "VERSION_NOT_RESIDENT",
            Self::NoPreviousVersion => "NO_PREVIOUS_VERSION",
            Self::NoLog => "NO_LOG",
        }
    }
}

impl Unavailable {
    fn as_str(self) -> &'static str {
        match self {
            Self::Overloaded => "OVERLOADED",
            Self::NoVersion => "NO_VERSION",
            Self::ProfileStore => "PROFILE_STORE_UNAVAILABLE",
            Self::RevisionNotReached => "REVISION_NOT_REACHED",
            Self::VersionStore => "VERSION_STORE_UNAVAILABLE",
            Self::OutcomeLog => "OUTCOME_LOG_UNAVAILABLE",
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn status(refusal: Refusal) -> (Status, ErrorDetails) {
        let status = Status::from(refusal);
        let details = status.get_error_details();
        (status, details)
    }

    #[test]
    fn a_bad_field_is_named() {
        let refusal = Refusal::Invalid(vec![
            Violation {
                field: "page_size".into(),
                description: "is 0".into(),
            },
            Violation {
                field: "seeds.positive[1].weight".into(),
                description: "is NaN".into(),
            },
        ]);
        let (status, details) = status(refusal);
        assert_eq!(status.code(), Code::InvalidArgument);
        assert_eq!(status.message(), "page_size: is 0 (and 1 more)");
        let fields: Vec<&str> = details
            .bad_request()
            .expect("BadRequest")
            .field_violations
            .iter()
            .map(|v| v.field.as_str())
            .collect();
        assert_eq!(fields, ["page_size", "seeds.positive[1].weight"]);
    }

    #[test]
    fn what_may_be_retried_says_when() {
        let (status, details) = status(Refusal::unavailable(
            Unavailable::Overloaded,
            "512 requests in flight",
            Duration::from_millis(50),
        ));
        assert_eq!(status.code(), Code::Unavailable);
        let retry = details.retry_info().expect("RetryInfo");
        assert_eq!(retry.retry_delay, Some(Duration::from_millis(50)));
        assert_eq!(
            details.error_info().expect("ErrorInfo").reason,
            "OVERLOADED"
        );
    }

    #[test]
    fn a_missing_resource_is_named() {
        let (status, details) = status(Refusal::NotFound {
            kind: Resource::Label,
            name: "canary".into(),
        });
        assert_eq!(status.code(), Code::NotFound);
        assert_eq!(status.message(), "there is no label \"canary\"");
        let resource = details.resource_info().expect("ResourceInfo");
        assert_eq!(
            (
                resource.resource_type.as_str(),
                resource.resource_name.as_str()
            ),
            ("label", "canary")
        );
    }

    #[test]
    fn a_failed_precondition_says_which() {
        let (status, details) = status(Refusal::Precondition {
            reason: Precondition::ModelVersionMismatch,
            subject: "v1".into(),
            message: "the vector is of v1, v2 answers".into(),
        });
        assert_eq!(status.code(), Code::FailedPrecondition);
        let violation = &details
            .precondition_failure()
            .expect("PreconditionFailure")
            .violations[0];
        assert_eq!(
            (violation.r#type.as_str(), violation.subject.as_str()),
            ("MODEL_VERSION_MISMATCH", "v1")
        );
        assert_eq!(details.error_info().expect("ErrorInfo").domain, "refrain");
    }

    #[test]
    fn lost_data_says_where() {
        let (status, details) = status(Refusal::DataLoss {
            message: "checksum mismatch".into(),
            place: vec![
                ("file".into(), "index.rfs".into()),
                ("offset".into(), "4096".into()),
            ],
        });
        assert_eq!(status.code(), Code::DataLoss);
        let info = details.error_info().expect("ErrorInfo");
        assert_eq!(info.metadata["file"], "index.rfs");
        assert_eq!(info.metadata["offset"], "4096");
    }
}
