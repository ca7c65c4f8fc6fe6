//! The admin listener: plain HTTP for the people and programs that watch the server.
//!
//! | path | says |
//! |---|---|
//! | `/metrics` | everything counted, in the OpenMetrics text format |
//! | `/healthz` | 200 as long as the process can answer |
//! | `/ofrep/v1/…` | what a listener is assigned, to OpenFeature clients ([`ofrep`](crate::ofrep)) |
//! | `/readyz` | 200 while a verified version answers and the server does not drain; else 503 with the reason |

use std::future::Future;
use std::io;
use std::sync::Arc;

use arc_swap::ArcSwap;
use axum::Router;
use axum::extract::State;
use axum::http::{StatusCode, header};
use axum::response::IntoResponse;
use axum::routing::get;
use refrain_engine::{Policy, Version};
use tokio::net::TcpListener;

use crate::health::Readiness;
use crate::metrics::Metrics;
use crate::ofrep;

/// What the pages read.
#[derive(Clone, Debug)]
pub(crate) struct Admin {
    pub(crate) metrics: Arc<Metrics>,
    pub(crate) readiness: Arc<Readiness<Version>>,
    pub(crate) policy: Arc<ArcSwap<Policy>>,
}

/// Serves until `until` resolves.
pub(crate) async fn serve(
    listener: TcpListener,
    admin: Admin,
    until: impl Future<Output = ()> + Send + 'static,
) -> io::Result<()> {
    let flags = ofrep::router(Arc::clone(&admin.policy));
    let router = Router::new()
        .route("/metrics", get(metrics))
        .route("/healthz", get(|| async { "ok\n" }))
        .route("/readyz", get(ready))
        .with_state(admin)
        .merge(flags);
    axum::serve(listener, router)
        .with_graceful_shutdown(until)
        .await
}

async fn metrics(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.metrics.encode() {
        Ok(text) => {
            let kind = "application/openmetrics-text; version=1.0.0; charset=utf-8";
            ([(header::CONTENT_TYPE, kind)], text).into_response()
        }
        Err(error) => (StatusCode::INTERNAL_SERVER_ERROR, format!("{error}\n")).into_response(),
    }
}

async fn ready(State(admin): State<Admin>) -> impl IntoResponse {
    match admin.readiness.complaint() {
        None => (StatusCode::OK, "ready\n".to_owned()),
        Some(complaint) => (StatusCode::SERVICE_UNAVAILABLE, format!("{complaint}\n")),
    }
}
