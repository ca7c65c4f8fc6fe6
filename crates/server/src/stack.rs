//! What surrounds every handler, outermost first:
//!
//! 1. *observe* tells the method from the path and counts the request, its code and its time;
//! 2. *rescue* turns a panic into INTERNAL for that request alone, and gives details to a status that
//!    tonic made without;
//! 3. *deadline* reads `grpc-timeout`, refuses what is too long, and answers DEADLINE_EXCEEDED when
//!    time is up;
//! 4. *shed* refuses with UNAVAILABLE and RetryInfo what is more than the server can have in flight
//!    (tonic's own answers RESOURCE_EXHAUSTED, which clients must not retry elsewhere).
//!
//! Health and reflection pass the last two: see [`Method::is_bounded`].

use std::collections::HashMap;
use std::convert::Infallible;
use std::future::Future;
use std::panic::AssertUnwindSafe;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::task::{Context, Poll};
use std::time::{Duration, Instant};

use http::HeaderMap;
use tonic::body::Body;
use tonic::{Code, Status};
use tonic_types::{ErrorDetails, StatusExt as _};
use tower::{Layer, Service, ServiceBuilder};

use crate::limits::Limits;
use crate::log::Pending;
use crate::method::Method;
use crate::metrics::{Metrics, code_name};
use crate::refusal::{DOMAIN, Refusal, Unavailable};

/// A request on its way to a handler.
pub(crate) type Request = http::Request<Body>;
/// An answer on its way back.
pub(crate) type Response = http::Response<Body>;
/// How a shed client is asked to come back.
const SHED_RETRY: Duration = Duration::from_millis(50);

/// What the layers share.
#[derive(Debug)]
pub(crate) struct Shared {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) limits: Limits,
    in_flight: AtomicUsize,
}

impl Shared {
    pub(crate) fn new(metrics: Arc<Metrics>, limits: Limits) -> Self {
        Self {
            metrics,
            limits,
            in_flight: AtomicUsize::new(0),
        }
    }

    /// Bounded requests that are being answered.
    pub(crate) fn in_flight(&self) -> usize {
        self.in_flight.load(Ordering::Acquire)
    }
}

/// What is known of a request before its handler runs; an extension of the request.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Call {
    pub(crate) method: Method,
    /// When the answer is due.
    pub(crate) deadline: Instant,
}

/// The layers around `service`.
pub(crate) fn stack<S>(
    shared: Arc<Shared>,
    service: S,
) -> impl Service<
    Request,
    Response = Response,
    Error = Infallible,
    Future = impl Future<Output = Result<Response, Infallible>> + Send,
> + Clone
+ Send
where
    S: Service<Request, Response = Response, Error = Infallible> + Clone + Send,
    S::Future: Unpin + Send,
{
    ServiceBuilder::new()
        .layer(ObserveLayer(Arc::clone(&shared)))
        .layer(RescueLayer(Arc::clone(&shared)))
        .layer(DeadlineLayer(Arc::clone(&shared)))
        .layer(ShedLayer(shared))
        .service(service)
}

/// Declares a layer that wraps a service together with what is shared.
macro_rules! layer {
    ($layer:ident, $service:ident) => {
        #[derive(Debug, Clone)]
        struct $layer(Arc<Shared>);

        #[derive(Debug, Clone)]
        struct $service<S> {
            inner: S,
            shared: Arc<Shared>,
        }

        impl<S> Layer<S> for $layer {
            type Service = $service<S>;

            fn layer(&self, inner: S) -> $service<S> {
                $service {
                    inner,
                    shared: Arc::clone(&self.0),
                }
            }
        }
    };
}

layer!(ObserveLayer, Observe);
layer!(RescueLayer, Rescue);
layer!(DeadlineLayer, Deadline);
layer!(ShedLayer, Shed);

impl<S> Service<Request> for Observe<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Observed<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let method = Method::of_path(request.uri().path());
        let start = Instant::now();
        // The deadline layer puts the real one in its place.
        request.extensions_mut().insert(Call {
            method,
            deadline: start,
        });
        self.shared.metrics.in_flight.inc();
        let flight = Flight {
            shared: Arc::clone(&self.shared),
            method,
            start,
            code: Code::Cancelled,
        };
        Observed {
            inner: self.inner.call(request),
            flight,
        }
    }
}

/// Counts a request when it is dropped: an answer that nobody waited for is CANCELLED.
struct Flight {
    shared: Arc<Shared>,
    method: Method,
    start: Instant,
    code: Code,
}

impl Drop for Flight {
    fn drop(&mut self) {
        let took = self.start.elapsed();
        self.shared.metrics.in_flight.dec();
        self.shared.metrics.answered(self.method, self.code, took);
        tracing::debug!(method = self.method.name(), code = ?self.code, took_us = took.as_micros(), "answered");
    }
}

struct Observed<F> {
    inner: F,
    flight: Flight,
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for Observed<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let poll = Pin::new(&mut self.inner).poll(cx);
        let Poll::Ready(Ok(mut response)) = poll else {
            return poll;
        };
        self.flight.code = code_of(response.headers());
        let pending = response.extensions_mut().remove::<Pending>();
        if let Some(pending) = pending.filter(|_| self.flight.code == Code::Ok) {
            let took = u32::try_from(self.flight.start.elapsed().as_micros()).unwrap_or(u32::MAX);
            response = response.map(|body| {
                Body::new(Exposing {
                    body,
                    pending: Some((pending, took)),
                })
            });
        }
        Poll::Ready(Ok(response))
    }
}

/// The body of an answer that is an exposure once it has been handed to the transport. A client that
/// goes away before that was not exposed.
struct Exposing {
    body: Body,
    /// What is recorded then, and how long the answer took.
    pending: Option<(Pending, u32)>,
}

impl http_body::Body for Exposing {
    type Data = <Body as http_body::Body>::Data;
    type Error = Status;

    fn poll_frame(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
    ) -> Poll<Option<Result<http_body::Frame<Self::Data>, Status>>> {
        let poll = Pin::new(&mut self.body).poll_frame(cx);
        // Trailers, or the end, come after the message.
        let ends = match &poll {
            Poll::Ready(None) => true,
            Poll::Ready(Some(Ok(frame))) => frame.is_trailers(),
            _ => false,
        };
        if ends && let Some((pending, took)) = self.pending.take() {
            pending.sent(took);
        }
        poll
    }

    fn is_end_stream(&self) -> bool {
        self.body.is_end_stream()
    }

    fn size_hint(&self) -> http_body::SizeHint {
        self.body.size_hint()
    }
}

/// The code of an answer. A refusal has it in the headers; of an answer with a body it comes in the
/// trailers, after the messages: that is OK unless a message could not be encoded.
fn code_of(headers: &HeaderMap) -> Code {
    headers
        .get("grpc-status")
        .map_or(Code::Ok, |value| Code::from_bytes(value.as_bytes()))
}

impl<S> Service<Request> for Rescue<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Rescued<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let method = call_of(&request).map_or(Method::Unknown, |call| call.method);
        let inner = catch(|| self.inner.call(request)).ok();
        Rescued {
            inner,
            shared: Arc::clone(&self.shared),
            method,
        }
    }
}

struct Rescued<F> {
    /// None when the call itself panicked.
    inner: Option<F>,
    shared: Arc<Shared>,
    method: Method,
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for Rescued<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        let outcome = match &mut self.inner {
            Some(inner) => catch(|| Pin::new(inner).poll(cx)),
            None => Err(Panicked),
        };
        let outcome = outcome.map(|poll| poll.map_ok(|answer| detailed(answer, self.method)));
        outcome.unwrap_or_else(|Panicked| {
            self.shared.metrics.panics.inc();
            tracing::error!(
                method = self.method.name(),
                "a handler panicked, its request gets INTERNAL"
            );
            let message = format!(
                "{} failed because of a bug in the server",
                self.method.name()
            );
            Poll::Ready(Ok(refuse(Refusal::Internal { message })))
        })
    }
}

/// Adds what the error table promises to a status that came from below the handlers: a message that is
/// too long or does not decode is the caller's mistake, whatever code the transport has for it.
fn detailed(response: Response, method: Method) -> Response {
    let headers = response.headers();
    if !headers.contains_key(Status::GRPC_STATUS) || headers.contains_key("grpc-status-details-bin")
    {
        return response;
    }
    let Some(status) = Status::from_header_map(headers) else {
        return response;
    };
    let status = match status.code() {
        Code::OutOfRange | Code::Internal if method.is_bounded() => {
            Refusal::field("request", status.message()).into()
        }
        code => {
            let details = ErrorDetails::with_error_info(code_name(code), DOMAIN, HashMap::new());
            Status::with_error_details(code, status.message(), details)
        }
    };
    status.into_http()
}

/// A panic, already told by the panic hook.
struct Panicked;

/// Runs `run`, which is not used again after a panic.
fn catch<T>(run: impl FnOnce() -> T) -> Result<T, Panicked> {
    std::panic::catch_unwind(AssertUnwindSafe(run)).map_err(|_| Panicked)
}

impl<S> Service<Request> for Deadline<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Due<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, mut request: Request) -> Self::Future {
        let timeout = timeout(request.headers(), &self.shared.limits);
        let Some(call) = request.extensions_mut().get_mut::<Call>() else {
            let message = "a request came past the observe layer".to_owned();
            return Due::Refused(Some(refuse(Refusal::Internal { message })));
        };
        if !call.method.is_bounded() {
            return Due::Unbounded(self.inner.call(request));
        }
        let timeout = match timeout {
            Ok(timeout) => timeout,
            Err(refusal) => return Due::Refused(Some(refuse(refusal))),
        };
        let deadline = call.deadline + timeout;
        call.deadline = deadline;
        Due::Bounded {
            inner: self.inner.call(request),
            deadline,
            sleep: None,
        }
    }
}

enum Due<F> {
    Refused(Option<Response>),
    Unbounded(F),
    Bounded {
        inner: F,
        deadline: Instant,
        /// Made at the first wait: most handlers are done when first polled and need no timer.
        sleep: Option<Pin<Box<tokio::time::Sleep>>>,
    },
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for Due<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Refused(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
            Self::Unbounded(inner) => Pin::new(inner).poll(cx),
            Self::Bounded {
                inner,
                deadline,
                sleep,
            } => {
                // A request that waited in a queue until its time was up gets no work done for it.
                if sleep.is_none() && *deadline <= Instant::now() {
                    return Poll::Ready(Ok(refuse(Refusal::DeadlineExceeded)));
                }
                if let Poll::Ready(answer) = Pin::new(inner).poll(cx) {
                    return Poll::Ready(answer);
                }
                let sleep = sleep
                    .get_or_insert_with(|| Box::pin(tokio::time::sleep_until((*deadline).into())));
                sleep
                    .as_mut()
                    .poll(cx)
                    .map(|()| Ok(refuse(Refusal::DeadlineExceeded)))
            }
        }
    }
}

/// The time that a request has, from its `grpc-timeout` header.
fn timeout(headers: &HeaderMap, limits: &Limits) -> Result<Duration, Refusal> {
    const FIELD: &str = "grpc-timeout";
    let Some(value) = headers.get(FIELD) else {
        return Ok(Duration::from_millis(limits.default_deadline_ms));
    };
    let timeout =
        value.to_str().ok().and_then(parse_timeout).ok_or_else(|| {
            Refusal::field(FIELD, "is not 1 to 8 digits and one of H, M, S, m, u, n")
        })?;
    let longest = Duration::from_millis(limits.max_deadline_ms);
    if timeout > longest {
        let description = format_args!("is {timeout:?}, at most {longest:?} is allowed");
        return Err(Refusal::field(FIELD, description));
    }
    Ok(timeout)
}

/// `TimeoutValue TimeoutUnit` of "gRPC over HTTP2".
fn parse_timeout(text: &str) -> Option<Duration> {
    let unit = text.chars().next_back()?;
    let digits = text.strip_suffix(unit)?;
    if !(1..=8).contains(&digits.len()) || !digits.bytes().all(|byte| byte.is_ascii_digit()) {
        return None;
    }
    let value: u64 = digits.parse().ok()?;
    Some(match unit {
        'H' => Duration::from_secs(value * 3_600),
        'M' => Duration::from_secs(value * 60),
        'S' => Duration::from_secs(value),
        'm' => Duration::from_millis(value),
        'u' => Duration::from_micros(value),
        'n' => Duration::from_nanos(value),
        _ => return None,
    })
}

impl<S> Service<Request> for Shed<S>
where
    S: Service<Request, Response = Response, Error = Infallible>,
    S::Future: Unpin,
{
    type Response = Response;
    type Error = Infallible;
    type Future = Admitted<S::Future>;

    fn poll_ready(&mut self, cx: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        self.inner.poll_ready(cx)
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let bounded = call_of(&request).is_none_or(|call| call.method.is_bounded());
        if !bounded {
            return Admitted::Running {
                inner: self.inner.call(request),
                _permit: None,
            };
        }
        match Permit::take(&self.shared) {
            Some(permit) => Admitted::Running {
                inner: self.inner.call(request),
                _permit: Some(permit),
            },
            None => {
                self.shared.metrics.shed.inc();
                let most = self.shared.limits.max_in_flight;
                Admitted::Refused(Some(refuse(Refusal::unavailable(
                    Unavailable::Overloaded,
                    format!("this replica already has {most} requests in flight"),
                    SHED_RETRY,
                ))))
            }
        }
    }
}

/// A place among the requests in flight, given back when dropped.
struct Permit(Arc<Shared>);

impl Permit {
    fn take(shared: &Arc<Shared>) -> Option<Self> {
        // Optimistic: two that race for the last place may both be refused, none is let in too many.
        let before = shared.in_flight.fetch_add(1, Ordering::AcqRel);
        let permit = Self(Arc::clone(shared));
        (before < shared.limits.max_in_flight).then_some(permit)
    }
}

impl Drop for Permit {
    fn drop(&mut self) {
        self.0.in_flight.fetch_sub(1, Ordering::AcqRel);
    }
}

enum Admitted<F> {
    Refused(Option<Response>),
    Running { inner: F, _permit: Option<Permit> },
}

impl<F: Future<Output = Result<Response, Infallible>> + Unpin> Future for Admitted<F> {
    type Output = F::Output;

    fn poll(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<Self::Output> {
        match &mut *self {
            Self::Refused(response) => match response.take() {
                Some(response) => Poll::Ready(Ok(response)),
                None => Poll::Pending,
            },
            Self::Running { inner, .. } => Pin::new(inner).poll(cx),
        }
    }
}

fn call_of(request: &Request) -> Option<Call> {
    request.extensions().get::<Call>().copied()
}

fn refuse(refusal: Refusal) -> Response {
    Status::from(refusal).into_http()
}

#[cfg(test)]
mod tests {
    use std::future::{pending, poll_fn};

    use tower::{ServiceExt as _, service_fn};

    use super::*;

    const SIMILAR: &str = "/refrain.v1.RecommendationService/Similar";

    fn shared(limits: Limits) -> Arc<Shared> {
        Arc::new(Shared::new(Arc::new(Metrics::new("scalar")), limits))
    }

    fn request(path: &str, timeout: Option<&str>) -> Request {
        let mut builder = http::Request::builder().uri(path);
        if let Some(timeout) = timeout {
            builder = builder.header("grpc-timeout", timeout);
        }
        builder.body(Body::empty()).expect("a request")
    }

    /// Sends one request through the layers to a handler.
    async fn code<F>(
        shared: &Arc<Shared>,
        request: Request,
        handler: impl Fn(Request) -> F + Clone + Send,
    ) -> Code
    where
        F: Future<Output = Result<Response, Infallible>> + Send + 'static,
    {
        let service = service_fn(move |request| Box::pin(handler(request)));
        let response = stack(Arc::clone(shared), service)
            .oneshot(request)
            .await
            .expect("infallible");
        code_of(response.headers())
    }

    async fn ok(_: Request) -> Result<Response, Infallible> {
        Ok(Response::new(Body::empty()))
    }

    #[tokio::test]
    async fn a_panic_is_internal_for_its_request_alone() {
        let shared = shared(Limits::default());
        let panics = |request: Request| async move {
            assert!(request.headers().contains_key("no-such-header"), "a bug");
            ok(request).await
        };
        assert_eq!(
            code(&shared, request(SIMILAR, None), panics).await,
            Code::Internal
        );
        assert_eq!(code(&shared, request(SIMILAR, None), ok).await, Code::Ok);
        assert_eq!(shared.metrics.panics.get(), 1);
        assert_eq!(shared.in_flight(), 0, "the place is given back");
        assert_eq!(shared.metrics.in_flight.get(), 0);
    }

    #[tokio::test]
    async fn deadlines_are_bounded_and_kept() {
        let shared = shared(Limits::default());
        let never = |_: Request| pending();
        assert_eq!(
            code(&shared, request(SIMILAR, Some("5m")), never).await,
            Code::DeadlineExceeded
        );
        assert_eq!(
            code(&shared, request(SIMILAR, Some("0n")), ok).await,
            Code::DeadlineExceeded
        );
        assert_eq!(
            code(&shared, request(SIMILAR, Some("30S")), ok).await,
            Code::Ok
        );
        for bad in ["31S", "1H", "", "S", "5", "123456789m", "-1S", "1x", "1é"] {
            let answer = code(&shared, request(SIMILAR, Some(bad)), ok).await;
            assert_eq!(answer, Code::InvalidArgument, "{bad}");
        }
    }

    #[tokio::test]
    async fn a_handler_knows_when_its_answer_is_due() {
        let shared = shared(Limits::default());
        let left = |request: Request| async move {
            let call = call_of(&request).expect("a call");
            assert_eq!(call.method, Method::Similar);
            let left = call.deadline.saturating_duration_since(Instant::now());
            assert!(
                left <= Duration::from_secs(10) && left > Duration::from_secs(5),
                "{left:?}"
            );
            ok(request).await
        };
        assert_eq!(
            code(&shared, request(SIMILAR, Some("10S")), left).await,
            Code::Ok
        );
    }

    #[tokio::test]
    async fn what_is_too_much_is_unavailable() {
        let shared = shared(Limits {
            max_in_flight: 1,
            ..Limits::default()
        });
        let held = stack(
            Arc::clone(&shared),
            service_fn(|_: Request| Box::pin(pending::<Result<Response, Infallible>>())),
        );
        let mut first = Box::pin(held.oneshot(request(SIMILAR, None)));
        poll_fn(|cx| {
            assert!(first.as_mut().poll(cx).is_pending());
            Poll::Ready(())
        })
        .await;
        assert_eq!(
            code(&shared, request(SIMILAR, None), ok).await,
            Code::Unavailable
        );
        assert_eq!(shared.metrics.shed.get(), 1);
        let health = request("/grpc.health.v1.Health/Check", None);
        assert_eq!(
            code(&shared, health, ok).await,
            Code::Ok,
            "health answers an overloaded server"
        );
        let watch = request("/grpc.health.v1.Health/Watch", Some("1H"));
        assert_eq!(
            code(&shared, watch, ok).await,
            Code::Ok,
            "who watches health may do so for hours"
        );
        drop(first);
        assert_eq!(code(&shared, request(SIMILAR, None), ok).await, Code::Ok);
    }

    #[test]
    fn timeouts_are_read_as_the_protocol_has_them() {
        for (text, timeout) in [
            ("2H", Duration::from_secs(7_200)),
            ("3M", Duration::from_secs(180)),
            ("99999999S", Duration::from_secs(99_999_999)),
            ("15m", Duration::from_millis(15)),
            ("20u", Duration::from_micros(20)),
            ("7n", Duration::from_nanos(7)),
        ] {
            assert_eq!(parse_timeout(text), Some(timeout), "{text}");
        }
    }
}
