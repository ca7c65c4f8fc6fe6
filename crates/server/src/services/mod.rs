//! The gRPC services, and the way from a path to one of them.

mod dark;
mod experiment;
mod explain;
mod export;
mod exposure;
mod feedback;
mod index;
mod preview;
mod recommendation;
mod stream;
mod taste_profile;

use std::convert::Infallible;
use std::future::Future;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};
use std::task::{Context, Poll};

use arc_swap::ArcSwap;
use refrain::v1::FILE_DESCRIPTOR_SET;
use refrain::v1::experiment_service_server::ExperimentServiceServer;
use refrain::v1::feedback_service_server::FeedbackServiceServer;
use refrain::v1::index_service_server::IndexServiceServer;
use refrain::v1::recommendation_service_server::RecommendationServiceServer;
use refrain::v1::taste_profile_service_server::TasteProfileServiceServer;
use refrain_bundle::Store;
use refrain_engine::{Policy, TasteCache, Version};
use tokio::sync::{Semaphore, watch};
use tonic::Status;
use tonic::server::NamedService;
use tonic_health::pb::health_server::{Health, HealthServer};
use tonic_reflection::server::v1::{ServerReflection, ServerReflectionServer};
use tonic_reflection::server::{Builder as ReflectionBuilder, Error as ReflectionError};
use tower::Service;

use crate::filters::Filters;
use crate::limits::Limits;
use crate::log::Logs;
use crate::metrics::Metrics;
use crate::profiles::Profiles;
use crate::refusal::Refusal;
use crate::rollout::Live;
use crate::shadow::{Shadow, ShadowConfig};
use crate::stack::{Call, Request, Response};
use crate::versions::Versions;

pub(crate) use feedback::Reported;

/// What the handlers work with.
#[derive(Debug)]
pub(crate) struct State {
    pub(crate) versions: Arc<Versions<Version>>,
    pub(crate) store: Arc<Store>,
    pub(crate) profiles: Profiles,
    pub(crate) tastes: Arc<TasteCache>,
    /// Swapped as a whole when the configuration changes; a request takes it once.
    pub(crate) policy: Arc<ArcSwap<Policy>>,
    pub(crate) limits: Limits,
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) names: Names,
    pub(crate) filters: Filters,
    /// Says when the server stops, so that streams end.
    pub(crate) stop: watch::Sender<bool>,
    /// Places for the requests of bulk streams: they take turns with one another, not with others.
    pub(crate) bulk: Arc<Semaphore>,
    /// The pool that computes in the dark, and what it is asked for.
    pub(crate) shadow: Arc<Shadow>,
    pub(crate) dark: ShadowConfig,
    /// Where exposures and outcomes go; `None`: nowhere.
    pub(crate) logs: Option<Arc<Logs>>,
    pub(crate) reported: Reported,
    /// What the requests of rollouts came to.
    pub(crate) live: Arc<Live>,
}

/// Makes names that no other process and no other call made: for requests and rules that bring none.
#[derive(Debug)]
pub(crate) struct Names {
    process: u64,
    next: AtomicU64,
}

impl Names {
    pub(crate) fn new() -> Self {
        use std::hash::BuildHasher as _;
        // Keyed at random for this process; time and process id besides, should the keys ever repeat.
        let moment = (crate::clock::now_us(), std::process::id());
        let process = std::collections::hash_map::RandomState::new().hash_one(moment);
        Self {
            process,
            next: AtomicU64::new(0),
        }
    }

    pub(crate) fn next(&self) -> String {
        format!(
            "{:016x}-{:x}",
            self.process,
            self.next.fetch_add(1, Ordering::Relaxed)
        )
    }
}

/// One handler of the contract; the state is shared by all of them.
#[derive(Debug, Clone)]
pub(crate) struct Handler(Arc<State>);

/// Runs work that takes longer than a thread that answers requests should be held.
async fn offload<T: Send + 'static>(
    work: impl FnOnce() -> Result<T, Refusal> + Send + 'static,
) -> Result<T, Refusal> {
    match tokio::task::spawn_blocking(work).await {
        Ok(done) => done,
        // Goes on as a panic of the handler, which the stack around it turns into INTERNAL.
        Err(error) if error.is_panic() => std::panic::resume_unwind(error.into_panic()),
        Err(error) => Err(Refusal::Internal {
            message: error.to_string(),
        }),
    }
}

/// What the stack knows of the request.
fn call_of<T>(request: &tonic::Request<T>) -> Result<Call, Refusal> {
    request
        .extensions()
        .get::<Call>()
        .copied()
        .ok_or_else(|| Refusal::Internal {
            message: "a request came past the stack".to_owned(),
        })
}

/// All services, told apart by path. Cloned for every request, so one pointer.
pub(crate) struct Routes<H: Health, R: ServerReflection> {
    services: Arc<Services<H, R>>,
}

struct Services<H: Health, R: ServerReflection> {
    recommendation: RecommendationServiceServer<Handler>,
    taste_profile: TasteProfileServiceServer<Handler>,
    experiment: ExperimentServiceServer<Handler>,
    feedback: FeedbackServiceServer<Handler>,
    index: IndexServiceServer<Handler>,
    health: HealthServer<H>,
    reflection: ServerReflectionServer<R>,
    reflection_v1alpha: ReflectionV1Alpha,
}

/// Python's reflection client, among others, still speaks it.
type ReflectionV1Alpha = tower::util::BoxCloneSyncService<Request, Response, Infallible>;

/// The services on `state`.
pub(crate) fn routes<H: Health>(
    state: State,
    health: HealthServer<H>,
) -> Result<Routes<H, impl ServerReflection>, ReflectionError> {
    let most = state.limits.max_message_bytes;
    let handler = Handler(Arc::new(state));
    let reflection = || {
        ReflectionBuilder::configure()
            .register_encoded_file_descriptor_set(FILE_DESCRIPTOR_SET)
            .register_encoded_file_descriptor_set(tonic_health::pb::FILE_DESCRIPTOR_SET)
    };
    Ok(Routes {
        services: Arc::new(Services {
            recommendation: RecommendationServiceServer::new(handler.clone())
                .max_decoding_message_size(most)
                .max_encoding_message_size(most),
            taste_profile: TasteProfileServiceServer::new(handler.clone())
                .max_decoding_message_size(most)
                .max_encoding_message_size(most),
            experiment: ExperimentServiceServer::new(handler.clone())
                .max_decoding_message_size(most)
                .max_encoding_message_size(most),
            feedback: FeedbackServiceServer::new(handler.clone())
                .max_decoding_message_size(most)
                .max_encoding_message_size(most),
            index: IndexServiceServer::new(handler)
                .max_decoding_message_size(most)
                .max_encoding_message_size(most),
            health,
            reflection: reflection().build_v1()?,
            reflection_v1alpha: ReflectionV1Alpha::new(reflection().build_v1alpha()?),
        }),
    })
}

impl<H: Health, R: ServerReflection> Service<Request> for Routes<H, R> {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn poll_ready(&mut self, _: &mut Context<'_>) -> Poll<Result<(), Infallible>> {
        Poll::Ready(Ok(()))
    }

    fn call(&mut self, request: Request) -> Self::Future {
        let services = &self.services;
        let path = request.uri().path();
        let service = path
            .strip_prefix('/')
            .and_then(|path| path.split_once('/'))
            .map(|(name, _)| name);
        match service {
            Some(RECOMMENDATION) => services.recommendation.clone().call(request),
            Some(TASTE_PROFILE) => services.taste_profile.clone().call(request),
            Some(EXPERIMENT) => services.experiment.clone().call(request),
            Some(FEEDBACK) => services.feedback.clone().call(request),
            Some(INDEX) => services.index.clone().call(request),
            Some(HEALTH) => services.health.clone().call(request),
            Some(REFLECTION) => services.reflection.clone().call(request),
            Some(REFLECTION_V1ALPHA) => Box::pin(services.reflection_v1alpha.clone().call(request)),
            _ => {
                let message = format!("there is no method {path}");
                Box::pin(std::future::ready(Ok(
                    Status::unimplemented(message).into_http()
                )))
            }
        }
    }
}

const RECOMMENDATION: &str = RecommendationServiceServer::<Handler>::NAME;
const TASTE_PROFILE: &str = TasteProfileServiceServer::<Handler>::NAME;
const EXPERIMENT: &str = ExperimentServiceServer::<Handler>::NAME;
const FEEDBACK: &str = FeedbackServiceServer::<Handler>::NAME;
const INDEX: &str = IndexServiceServer::<Handler>::NAME;
const HEALTH: &str = "grpc.health.v1.Health";
const REFLECTION: &str = "grpc.reflection.v1.ServerReflection";
const REFLECTION_V1ALPHA: &str = "grpc.reflection.v1alpha.ServerReflection";

impl<H: Health, R: ServerReflection> Clone for Routes<H, R> {
    fn clone(&self) -> Self {
        Self {
            services: Arc::clone(&self.services),
        }
    }
}
