//! A running server: started from a configuration, stopped by a signal.
//!
//! # Starting
//! The configuration is checked, both ports are bound, the profile store is opened and every label's
//! version is loaded, in this order; the first thing that fails is the [`StartError`], and nothing is
//! left running. A label that the store does not have is no failure: the server starts, says
//! NOT_SERVING and UNAVAILABLE, and takes up the label's first version when it is published. A store
//! that is not there, or a version that is refused, is one: whoever starts the server sees it at once.
//!
//! # Stopping
//! [`App::run_until`] says NOT_SERVING and answers on for the drain grace, so that whoever balances the
//! load can look elsewhere; then it closes the port, lets requests in flight finish within the drain
//! timeout, and closes the profile store, which makes durable what it has taken.

use std::future::Future;
use std::io;
use std::net::SocketAddr;
use std::path::PathBuf;
use std::sync::Arc;
use std::thread::JoinHandle;
use std::time::Duration;

use arc_swap::ArcSwap;
use refrain_bundle::store::Objects;
use refrain_bundle::{Store, StoreError};
use refrain_engine::{OpenMode, Policy, TasteCache, Version};
use refrain_kernels::Kernels;
use refrain_objects::{Cloud, Options};
use refrain_taste::{OpenPostgresError, OpenStoreError, PostgresStore, ProfileStore, RedbStore};
use tokio::net::TcpListener;
use tokio::sync::{Semaphore, watch};
use tokio::task::JoinHandle as Task;
use tokio_stream::StreamExt as _;
use tonic::transport::server::TcpIncoming;
use tonic::transport::{Error as TransportError, Server};
use tonic_health::server::HealthReporter;

use crate::admin::{self, Admin};
use crate::config::{Config, Open, Problem};
use crate::filters::Filters;
use crate::gather::Gathered;
use crate::health::Readiness;
use crate::limits::Limits;
use crate::log::Logs;
use crate::metrics::Metrics;
use crate::profiles::Profiles;
use crate::reload::Reloader;
use crate::rollout::{Keeper, Live};
use crate::services::{Names, Reported, State, routes};
use crate::shadow::Shadow;
use crate::source::BundleSource;
use crate::stack::{Shared, stack};
use crate::versions::{Versions, Watcher};

/// Flow-control windows of HTTP/2: a whole message of the default limit in flight on a connection.
const STREAM_WINDOW: u32 = 1 << 20;
const CONNECTION_WINDOW: u32 = 4 << 20;
/// Most bytes of a frame of HTTP/2: whatever the window lets through comes in one.
const MAX_FRAME: u32 = STREAM_WINDOW;
/// Most bytes of the headers of a request.
const MAX_HEADER_BYTES: u32 = 16 << 10;
/// A peer that has been silent for so long is asked whether it is there.
const KEEPALIVE: Duration = Duration::from_secs(30);
const KEEPALIVE_TIMEOUT: Duration = Duration::from_secs(10);
/// Between looks at whether the last request has finished.
const DRAIN_LOOK: Duration = Duration::from_millis(5);

/// A running server.
#[derive(Debug)]
pub struct App {
    listen: SocketAddr,
    admin: Option<SocketAddr>,
    versions: Arc<Versions<Version>>,
    readiness: Arc<Readiness<Version>>,
    reporter: HealthReporter,
    shared: Arc<Shared>,
    drain_grace: Duration,
    drain_timeout: Duration,
    stop: watch::Sender<bool>,
    grpc: Task<Result<(), TransportError>>,
    http: Option<Task<io::Result<()>>>,
    health: Task<()>,
    watcher: JoinHandle<()>,
    profiles: Arc<dyn ProfileStore>,
    shadow: Arc<Shadow>,
    logs: Option<Arc<Logs>>,
    reload: Task<()>,
}

/// Stops a server from elsewhere.
#[derive(Debug, Clone)]
pub struct Shutdown(watch::Sender<bool>);

impl Shutdown {
    /// Has [`App::run_until`] drain as after its signal, but at once, without the grace.
    pub fn begin(&self) {
        self.0.send_replace(true);
    }
}

impl App {
    /// Starts a server. It answers when this returns.
    ///
    /// # Errors
    /// [`StartError`]: what failed, where, and what to do about it.
    pub async fn start(config: Config) -> Result<Self, StartError> {
        let policy = Arc::new(ArcSwap::from_pointee(config.check()?));
        let url = config.store.url.clone().ok_or(Problem::NoStore)?;
        let (listener, listen) = bind("server.listen", config.server.listen).await?;
        let admin = match config.server.admin_listen {
            Some(address) => Some(bind("server.admin_listen", address).await?),
            None => None,
        };
        let metrics = Arc::new(Metrics::new(Kernels::active().level().as_str()));
        let tastes = TasteCache::new(config.profiles.taste_cache_bytes, config.profiles.weights);
        let tastes = Arc::new(tastes);
        let (store, profiles, watcher, versions) = {
            let (config, metrics, url) = (config.clone(), Arc::clone(&metrics), url.clone());
            let (tastes, policy) = (Arc::clone(&tastes), Arc::clone(&policy));
            let opened =
                tokio::task::spawn_blocking(move || open(&config, &url, &metrics, &tastes, policy))
                    .await;
            opened.map_err(|error| StartError::Runtime {
                source: io::Error::other(error),
            })??
        };
        let logs = match config.exposures.path.clone() {
            Some(path) => {
                let (config, metrics) = (config.exposures.clone(), metrics.log.clone());
                let objects = config.upload.as_deref().map(upload_to).transpose()?;
                let opened = tokio::task::spawn_blocking(move || {
                    Logs::open(&config, &path, objects, &metrics)
                })
                .await;
                let opened = opened.map_err(|error| StartError::Runtime {
                    source: io::Error::other(error),
                })?;
                Some(Arc::new(
                    opened.map_err(|source| StartError::Log { source })?,
                ))
            }
            None => None,
        };
        let watcher = std::thread::Builder::new()
            .name("versions".to_owned())
            .spawn(move || watcher.run())
            .map_err(|source| StartError::Runtime { source })?;

        let shadow = Shadow::start(&config.shadow, Arc::clone(&metrics))
            .map(Arc::new)
            .map_err(|source| StartError::Runtime { source })?;
        let readiness = Arc::new(Readiness::new(Arc::clone(&versions)));
        let reporter = HealthReporter::new();
        let health_service =
            tonic_health::server::HealthService::from_health_reporter(reporter.clone());
        let stop = watch::Sender::new(false);
        let live = Arc::new(Live::default());
        let state = State {
            versions: Arc::clone(&versions),
            store,
            profiles: Profiles::new(Arc::clone(&profiles), Arc::clone(&metrics)),
            tastes,
            policy: Arc::clone(&policy),
            limits: config.limits.clone(),
            metrics: Arc::clone(&metrics),
            names: Names::new(),
            filters: Filters::default(),
            stop: stop.clone(),
            bulk: Arc::new(Semaphore::new(bulk_places())),
            shadow: Arc::clone(&shadow),
            dark: config.shadow.clone(),
            logs: logs.clone(),
            reported: Reported::default(),
            live: Arc::clone(&live),
        };
        let health_server = tonic_health::pb::health_server::HealthServer::new(health_service);
        let routes = routes(state, health_server).map_err(|source| StartError::Runtime {
            source: io::Error::other(source),
        })?;
        let shared = Arc::new(Shared::new(Arc::clone(&metrics), config.limits.clone()));

        // Said before the first request can ask.
        readiness.report(&reporter).await;
        let incoming = TcpIncoming::from(listener).with_nodelay(Some(true));
        let incoming = incoming.map(|accepted| accepted.map(Gathered::new));
        let grpc = tokio::spawn(transport(&config.limits).serve_with_incoming_shutdown(
            stack(Arc::clone(&shared), routes),
            incoming,
            stopped(&stop),
        ));
        let reloader = Reloader::new(
            config.clone(),
            Arc::clone(&policy),
            &metrics,
            Arc::clone(&versions),
            Keeper::new(live, Arc::clone(&metrics)),
        );
        let reload = tokio::spawn(reloader.run());
        let (admin, http) = match admin {
            Some((listener, address)) => {
                let pages = Admin {
                    metrics,
                    readiness: Arc::clone(&readiness),
                    policy: Arc::clone(&policy),
                };
                let http = tokio::spawn(admin::serve(listener, pages, stopped(&stop)));
                (Some(address), Some(http))
            }
            None => (None, None),
        };
        let health = {
            let (readiness, reporter) = (Arc::clone(&readiness), reporter.clone());
            tokio::spawn(async move { readiness.keep_reporting(&reporter).await })
        };
        tracing::info!(%listen, ?admin, store = url, version = env!("CARGO_PKG_VERSION"), "listening");
        Ok(Self {
            listen,
            admin,
            versions,
            readiness,
            reporter,
            shared,
            drain_grace: config.server.drain_grace(),
            drain_timeout: config.server.drain_timeout(),
            stop,
            grpc,
            http,
            health,
            watcher,
            profiles,
            shadow,
            logs,
            reload,
        })
    }

    /// Where the gRPC services listen.
    #[must_use]
    pub fn listen(&self) -> SocketAddr {
        self.listen
    }

    /// Where the admin pages listen.
    #[must_use]
    pub fn admin(&self) -> Option<SocketAddr> {
        self.admin
    }

    /// The version that answers for the first label.
    #[must_use]
    pub fn version(&self) -> Option<String> {
        let table = self.versions.table();
        let serving = table.labels.first()?.serving.as_ref()?;
        Some(serving.version.id().to_owned())
    }

    /// Stops the server from elsewhere.
    #[must_use]
    pub fn shutdown(&self) -> Shutdown {
        Shutdown(self.stop.clone())
    }

    /// Answers until `signal` resolves or [`Shutdown::begin`] is called, then drains and stops.
    ///
    /// # Errors
    /// [`ServeError::Listener`] when a listener failed, before or after the signal;
    /// [`ServeError::DrainTimeout`] when requests had to be cut off.
    pub async fn run_until(mut self, signal: impl Future<Output = ()>) -> Result<(), ServeError> {
        let mut failed = None;
        let mut grace = Duration::ZERO;
        tokio::select! {
            () = signal => grace = self.drain_grace,
            () = stopped(&self.stop) => {}
            ended = &mut self.grpc => failed = Some(ended),
        }
        tracing::info!("draining");
        self.shadow.close();
        self.readiness.drain();
        self.readiness.report(&self.reporter).await;
        self.health.abort();
        self.reload.abort();
        tokio::time::sleep(grace).await;
        self.stop.send_replace(true);
        let drained = match failed {
            Some(ended) => listener(ended),
            None => self.drain().await,
        };
        if let Some(http) = self.http.take() {
            // It has no requests worth waiting for.
            http.abort();
        }
        self.versions.stop();
        let (watcher, profiles, logs) = (self.watcher, self.profiles, self.logs);
        let closed = tokio::task::spawn_blocking(move || {
            drop(profiles);
            if let Some(logs) = logs {
                logs.close();
            }
            watcher.join().is_ok()
        });
        if !closed.await.unwrap_or(false) {
            tracing::error!("the thread that watches the labels has panicked");
        }
        tracing::info!("stopped");
        drained
    }

    /// Waits until every request has been answered and every connection is closed.
    async fn drain(&mut self) -> Result<(), ServeError> {
        let finish = async {
            while self.shared.in_flight() > 0 {
                tokio::time::sleep(DRAIN_LOOK).await;
            }
            // Watchers of health hold a stream open for ever; without its entries it ends, and with
            // it the last connection.
            for (entry, _) in self.readiness.entries() {
                self.reporter.clear_service_status(&entry).await;
            }
            (&mut self.grpc).await
        };
        match tokio::time::timeout(self.drain_timeout, finish).await {
            Ok(ended) => listener(ended),
            Err(_) => {
                self.grpc.abort();
                let in_flight = self.shared.in_flight();
                if in_flight == 0 {
                    // What is left are connections whose peers do not close them.
                    return Ok(());
                }
                Err(ServeError::DrainTimeout {
                    timeout: self.drain_timeout,
                    in_flight,
                })
            }
        }
    }
}

/// Why a server did not start.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum StartError {
    /// A setting that is not allowed.
    #[error("configuration: {0}")]
    Config(#[from] Problem),
    /// A port that cannot be listened on.
    #[error("{setting}: cannot listen on {address}: {source}{}", hint(source))]
    Bind {
        /// Which setting.
        setting: &'static str,
        /// Its address.
        address: SocketAddr,
        /// What the system said.
        source: io::Error,
    },
    /// The version store cannot be used.
    #[error("store.url {url:?}: {source}; publish a version there first, or name another store")]
    Store {
        /// The store.
        url: String,
        /// What is wrong with it.
        source: StoreError,
    },
    /// A label points at a version that must not serve.
    #[error(
        "label {label:?} points at version {version:?}, which is refused: {reason}; \
         roll the label back or publish the version again"
    )]
    Version {
        /// The label.
        label: String,
        /// Its version.
        version: String,
        /// Why.
        reason: String,
    },
    /// The object store of the logs cannot be used.
    #[error("exposures.upload {url:?}: {source}")]
    Upload {
        /// The store.
        url: String,
        /// What is wrong with it.
        source: StoreError,
    },
    /// The profile store cannot be opened.
    #[error("profiles.path: {}", crate::profiles::chain(source))]
    Profiles {
        /// What is wrong with it.
        source: OpenStoreError,
    },
    /// The shared profile store cannot be opened.
    #[error("profiles.url: {}", crate::profiles::chain(source))]
    SharedProfiles {
        /// What is wrong with it.
        source: OpenPostgresError,
    },
    /// The directory of the profile store cannot be made.
    #[error("profiles.path: {source}")]
    ProfilesDirectory {
        /// What the system said; it names the directory.
        source: io::Error,
    },
    /// The logs of exposures and outcomes cannot be opened; the source names the file.
    #[error("exposures.path: {source}")]
    Log {
        /// What the system said.
        source: io::Error,
    },
    /// No thread or task could be started.
    #[error("cannot start: {source}")]
    Runtime {
        /// What the system said.
        source: io::Error,
    },
}

/// Why a server stopped other than by its signal.
#[derive(Debug, thiserror::Error)]
#[non_exhaustive]
pub enum ServeError {
    /// The gRPC listener failed.
    #[error("the listener failed: {source}")]
    Listener {
        /// What it said.
        source: Box<dyn std::error::Error + Send + Sync>,
    },
    /// Requests were still in flight when the drain timeout ended.
    #[error("{in_flight} requests were cut off after draining for {timeout:?}")]
    DrainTimeout {
        /// The timeout.
        timeout: Duration,
        /// Requests that were left.
        in_flight: usize,
    },
}

/// Waits for SIGTERM or SIGINT. Both are caught from the call on, not from the first poll.
///
/// # Errors
/// The system refuses to tell of signals.
pub fn terminated() -> io::Result<impl Future<Output = ()>> {
    use tokio::signal::unix::{SignalKind, signal};
    let mut terminate = signal(SignalKind::terminate())?;
    let mut interrupt = signal(SignalKind::interrupt())?;
    Ok(async move {
        tokio::select! {
            _ = terminate.recv() => {}
            _ = interrupt.recv() => {}
        }
    })
}

/// The runtime that a configuration asks for.
///
/// # Errors
/// The system refuses threads.
pub fn runtime(config: &Config) -> io::Result<tokio::runtime::Runtime> {
    let mut builder = tokio::runtime::Builder::new_multi_thread();
    if config.server.threads > 0 {
        builder.worker_threads(config.server.threads);
    }
    builder.thread_name("answer").enable_all().build()
}

/// The object store that finished files of the logs are copied to. Talks to no one yet.
fn upload_to(url: &str) -> Result<Arc<dyn Objects>, StartError> {
    let opened = Options::from_env().and_then(|options| Cloud::open(url, &options));
    let opened = opened.map_err(|source| StartError::Upload {
        url: url.to_owned(),
        source,
    })?;
    Ok(Arc::new(opened))
}

/// Opens both stores and loads what the labels point at. Blocks.
#[expect(
    clippy::type_complexity,
    reason = "the parts of one thing, taken apart at once"
)]
fn open(
    config: &Config,
    url: &str,
    metrics: &Arc<Metrics>,
    tastes: &Arc<TasteCache>,
    policy: Arc<ArcSwap<Policy>>,
) -> Result<
    (
        Arc<Store>,
        Arc<dyn ProfileStore>,
        Watcher<BundleSource>,
        Arc<Versions<Version>>,
    ),
    StartError,
> {
    let refused = |source| StartError::Store {
        url: url.to_owned(),
        source,
    };
    let store =
        Arc::new(refrain_objects::open_store(url, config.store.cache.as_deref()).map_err(refused)?);
    for label in &config.server.labels {
        store.label(label).map_err(refused)?;
    }
    let profiles = open_profiles(config, tastes)?;
    let source = BundleSource {
        store: Arc::clone(&store),
        max_mapped_bytes: config.server.max_mapped_bytes,
        mode: match config.store.open {
            Open::Map => OpenMode::Map,
            Open::Populate => OpenMode::Populate,
            Open::Copy => OpenMode::Copy,
        },
        policy,
    };
    let interval = config.server.poll_interval();
    let (mut watcher, versions) =
        Watcher::new(source, &config.server.labels, interval, Arc::clone(metrics));
    watcher.look();
    for label in &versions.table().labels {
        if let Some(reason) = &label.refusal {
            return Err(StartError::Version {
                label: label.name.clone(),
                version: label.wanted.clone(),
                reason: reason.clone(),
            });
        }
    }
    Ok((store, profiles, watcher, versions))
}

fn open_profiles(
    config: &Config,
    tastes: &Arc<TasteCache>,
) -> Result<Arc<dyn ProfileStore>, StartError> {
    if let Some(url) = &config.profiles.url {
        let store = PostgresStore::open(url, &config.profiles.postgres_options())
            .map_err(|source| StartError::SharedProfiles { source })?;
        let tastes = Arc::clone(tastes);
        store.on_erasure(move |user| tastes.forget(user));
        return Ok(Arc::new(store));
    }
    let path: &PathBuf = &config.profiles.path;
    if let Some(parent) = path
        .parent()
        .filter(|parent| !parent.as_os_str().is_empty())
    {
        fs_err::create_dir_all(parent)
            .map_err(|source| StartError::ProfilesDirectory { source })?;
    }
    let store = RedbStore::open(path, &config.profiles.store_options())
        .map_err(|source| StartError::Profiles { source })?;
    Ok(Arc::new(store))
}

async fn bind(
    setting: &'static str,
    address: SocketAddr,
) -> Result<(TcpListener, SocketAddr), StartError> {
    let refused = |source| StartError::Bind {
        setting,
        address,
        source,
    };
    let listener = TcpListener::bind(address).await.map_err(refused)?;
    let bound = listener.local_addr().map_err(refused)?;
    Ok((listener, bound))
}

fn hint(error: &io::Error) -> &'static str {
    match error.kind() {
        io::ErrorKind::AddrInUse => "; another program has the port, stop it or choose another",
        io::ErrorKind::AddrNotAvailable => "; this machine has no such address",
        io::ErrorKind::PermissionDenied => "; ports below 1024 need a privilege",
        _ => "",
    }
}

fn transport(limits: &Limits) -> Server {
    Server::builder()
        .max_frame_size(MAX_FRAME)
        .initial_stream_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_concurrent_streams(limits.max_streams_per_connection)
        .http2_max_header_list_size(MAX_HEADER_BYTES)
        .http2_keepalive_interval(Some(KEEPALIVE))
        .http2_keepalive_timeout(Some(KEEPALIVE_TIMEOUT))
}

/// Requests of bulk streams that are answered at a time: all processors but one, so that a stream never
/// takes the last one from whoever waits for a single answer.
fn bulk_places() -> usize {
    let processors = std::thread::available_parallelism().map_or(2, usize::from);
    (processors - 1).max(1)
}

fn stopped(stop: &watch::Sender<bool>) -> impl Future<Output = ()> + Send + use<> {
    let mut stop = stop.subscribe();
    async move {
        // The sender is gone only with the server.
        let _ = stop.wait_for(|&stop| stop).await;
    }
}

fn listener(
    ended: Result<Result<(), TransportError>, tokio::task::JoinError>,
) -> Result<(), ServeError> {
    match ended {
        Ok(Ok(())) => Ok(()),
        Ok(Err(error)) => Err(ServeError::Listener {
            source: Box::new(error),
        }),
        Err(error) => Err(ServeError::Listener {
            source: Box::new(error),
        }),
    }
}
