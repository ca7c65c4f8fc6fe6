//! The way to a running server: its address, deadlines, and its errors in words.

use std::future::Future;
use std::time::Duration;

use refrain::v1::{self as pb};
use tonic::transport::{Channel, Endpoint};
use tonic::{Code, Request, Response, Status};
use tonic_types::StatusExt as _;

use crate::failure::Failure;
use crate::parse;

/// Flags of every command that talks to a server.
#[derive(Debug, Clone, clap::Args)]
#[command(next_help_heading = "Server")]
pub(crate) struct Connection {
    /// Address of the server
    #[arg(
        long,
        env = "REFRAIN_ADDR",
        default_value = "http://127.0.0.1:7700",
        value_name = "URL",
        global = true
    )]
    pub(crate) addr: String,
    /// Longest that one request may take
    #[arg(
        long,
        default_value = "10s",
        value_parser = parse::duration,
        value_name = "TIME",
        global = true
    )]
    pub(crate) timeout: Duration,
}

/// Which version answers.
#[derive(Debug, Clone, clap::Args)]
pub(crate) struct Selector {
    /// Label whose version answers [default: stable]
    #[arg(long, value_name = "LABEL", conflicts_with = "index_version")]
    pub(crate) label: Option<String>,
    /// Exact version that answers
    #[arg(long, value_name = "VERSION")]
    pub(crate) index_version: Option<String>,
}

impl Selector {
    /// The selector on the wire.
    pub(crate) fn to_wire(&self) -> Option<pb::IndexSelector> {
        use pb::index_selector::Target;
        let target = match (&self.label, &self.index_version) {
            (_, Some(version)) => Target::Version(version.clone()),
            (Some(label), None) => Target::Label(label.clone()),
            (None, None) => return None,
        };
        Some(pb::IndexSelector {
            target: Some(target),
        })
    }
}

/// A connected channel with a deadline for each request.
#[derive(Debug, Clone)]
pub(crate) struct Client {
    /// The channel; generated clients are made from clones of it.
    pub(crate) channel: Channel,
    addr: String,
    timeout: Duration,
}

impl Connection {
    /// Runs `work` with a connected client on a runtime of its own.
    pub(crate) fn run<T, F>(&self, work: impl FnOnce(Client) -> F) -> anyhow::Result<T>
    where
        F: Future<Output = anyhow::Result<T>>,
    {
        let runtime = tokio::runtime::Builder::new_current_thread()
            .enable_all()
            .build()?;
        runtime.block_on(async { work(Client::connect(&self.addr, self.timeout).await?).await })
    }
}

impl Client {
    /// Connects to `addr`, `http://HOST:PORT` or `HOST:PORT`.
    pub(crate) async fn connect(addr: &str, timeout: Duration) -> anyhow::Result<Self> {
        let url = match addr.split_once("://") {
            None => format!("http://{addr}"),
            Some(("http", _)) => addr.to_owned(),
            Some((scheme, _)) => {
                return Err(Failure::usage(format!(
                    "address {addr}: scheme {scheme} is not known"
                ))
                .next("give http://HOST:PORT; put a proxy in front for TLS")
                .error());
            }
        };
        let bad = |error: &dyn std::fmt::Display| {
            Failure::usage(format!("address {addr}: {error}"))
                .next("give http://HOST:PORT")
                .error()
        };
        let endpoint = Endpoint::from_shared(url).map_err(|error| bad(&error))?;
        if endpoint.uri().host().is_none() {
            return Err(bad(&"it names no host"));
        }
        let channel = endpoint
            .connect_timeout(timeout.min(Duration::from_secs(5)))
            .connect()
            .await
            .map_err(|error| anyhow::Error::new(error).context(unreachable(addr)))?;
        Ok(Self {
            channel,
            addr: addr.to_owned(),
            timeout,
        })
    }

    /// A request with the deadline of this client.
    pub(crate) fn request<T>(&self, message: T) -> Request<T> {
        let mut request = Request::new(message);
        request.set_timeout(self.timeout);
        request
    }

    /// The answer, or the server's error in words: `what` is what was asked for.
    pub(crate) fn answer<T>(
        &self,
        what: &str,
        answer: Result<Response<T>, Status>,
    ) -> anyhow::Result<T> {
        answer
            .map(Response::into_inner)
            .map_err(|status| self.refusal(what, &status))
    }

    /// The server's error in words.
    pub(crate) fn refusal(&self, what: &str, status: &Status) -> anyhow::Error {
        let details = status.get_error_details();
        let mut message = format!("{what}: {}", code_name(status.code()));
        if !status.message().is_empty() {
            message.push_str(": ");
            message.push_str(status.message());
        }
        for violation in details
            .bad_request()
            .map_or(&[][..], |bad| &bad.field_violations)
        {
            if !status.message().contains(&violation.description) {
                message.push_str(&format!("; {}: {}", violation.field, violation.description));
            } else if !status.message().contains(&violation.field) {
                message.push_str(&format!("; field {}", violation.field));
            }
        }
        let failure = match (
            status.code(),
            details.retry_info().and_then(|info| info.retry_delay),
        ) {
            (Code::Unavailable, Some(delay)) => {
                Failure::new(message).next(format!("try again in {} ms", delay.as_millis()))
            }
            (Code::Unavailable, None) => return unreachable(&self.addr).because(message),
            (Code::DeadlineExceeded | Code::Cancelled, _) => {
                Failure::new(message).next("give it longer with --timeout")
            }
            (Code::Unimplemented, _) => {
                Failure::new(message).next("is this server older than the client?")
            }
            (Code::Aborted, _) => {
                Failure::new(message).next("somebody else was faster: look again, then repeat")
            }
            _ => Failure::new(message),
        };
        failure.error()
    }
}

fn unreachable(addr: &str) -> Failure {
    Failure::new(format!("no server answers at {addr}")).next(
        "start one with `refrain serve --store URL` or `refrain demo`, or name another with --addr",
    )
}

/// The name that gRPC gives a code.
fn code_name(code: Code) -> &'static str {
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
