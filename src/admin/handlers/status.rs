//! What the server is doing, and whether it serves.
//!
//! Three questions that look alike and are not: `/healthz` asks whether the process lives (restart it if not),
//! `/readyz` whether it should get traffic (send none while it starts or drains), `/status` what it has done so far,
//! for people.

use std::sync::Arc;

use axum::body::Body;
use axum::extract::{Request, State};
use axum::response::Response;
use http::header::VARY;
use http::{HeaderValue, StatusCode};
use serde::Serialize;
use utoipa::ToSchema;

use super::fleet::FleetStandingBody;
use crate::admin::api::Api;
use crate::admin::api::accept::metrics_format;
use crate::admin::api::access::Actor;
use crate::admin::api::error::ErrorBody;
use crate::admin::api::parts::{Readiness, ServerStatus};
use crate::admin::api::query::Query;
use crate::admin::api::{ApiError, respond};
use crate::store::BatchProgress;
use crate::telemetry::FleetView;

/// What the server is doing. Counts are since it started.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Status)]
pub(in crate::admin) struct StatusBody {
    /// The version of tollgate.
    #[schema(example = "0.1.0")]
    version: &'static str,
    /// `starting`, `ready`, `handing_over` (another process takes over), `draining` or `stopped` (about to exit).
    #[schema(pattern = "^(starting|ready|handing_over|draining|stopped)$", example = "ready")]
    state: &'static str,
    /// Whole seconds since it started.
    uptime_seconds: u64,
    /// Where it listens for requests.
    #[schema(example = json!(["0.0.0.0:8080"]))]
    listeners: Vec<String>,
    /// Where this API listens.
    #[schema(example = "127.0.0.1:9901")]
    admin: String,
    /// The clients there are.
    clients: usize,
    /// The buckets in use.
    buckets: usize,
    /// The requests that were answered.
    requests: u64,
    /// Those that took a token.
    allowed: u64,
    /// Those that were refused for want of one.
    limited: u64,
    /// Those of blocked clients.
    blocked: u64,
    /// Those of unlimited clients.
    unlimited: u64,
    /// The requests that are being served now.
    in_flight: usize,
    /// The open connections from clients.
    connections: usize,
    /// How many there may be: beyond it the one that has been silent longest is closed, or the new one.
    max_connections: usize,
    /// What keeps the store from being written; null when nothing does. While something does, limits go on in memory,
    /// and writes over this API get 503.
    #[schema(required)]
    store_error: Option<String>,
    /// How far the bulk apply is that is under way; null when none is.
    #[schema(required)]
    importing: Option<ImportBody>,
    /// How this node stands to its fleet.
    fleet: FleetStandingBody,
    /// Whose token the call came with.
    caller: CallerBody,
}

/// How far a bulk apply is, once it was sent.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Import)]
pub(in crate::admin) struct ImportBody {
    /// How many clients that comes to.
    done: u64,
    /// Of how many.
    all: u64,
}

/// Who calls.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Caller)]
pub(in crate::admin) struct CallerBody {
    /// The name that the history gives to its changes: that of the token's line, `admin` without one, `loopback` or
    /// `socket` where no token is asked for.
    #[schema(example = "ops")]
    name: String,
    /// Whether it may only read, explain and simulate.
    viewer: bool,
}

impl StatusBody {
    fn new(status: ServerStatus, importing: Option<&BatchProgress>, fleet: &FleetView, caller: Actor) -> Self {
        StatusBody {
            version: env!("CARGO_PKG_VERSION"),
            state: status.state,
            uptime_seconds: status.uptime.as_secs(),
            listeners: status.listeners.iter().map(ToString::to_string).collect(),
            admin: status.admin,
            clients: status.clients,
            buckets: status.buckets,
            requests: status.requests,
            allowed: status.allowed,
            limited: status.limited,
            blocked: status.blocked,
            unlimited: status.unlimited,
            in_flight: status.in_flight,
            connections: status.connections,
            max_connections: status.max_connections,
            store_error: status.store_error,
            importing: importing.map(BatchProgress::clients).map(|(done, all)| ImportBody { done, all }),
            fleet: fleet.into(),
            caller: CallerBody { name: caller.name, viewer: caller.viewer },
        }
    }
}

/// Whether it is well.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Health)]
pub(in crate::admin) struct HealthBody {
    /// `ok` or `ready`.
    #[schema(example = "ok")]
    status: &'static str,
}

/// Shows what the server is doing
#[utoipa::path(
    get,
    path = "/status",
    operation_id = "get_status",
    tag = "server",
    responses(
        (status = 200, description = "What the server is doing", body = StatusBody),
        (status = 422, description = "A query parameter was given; there are none", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn status(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    let caller = Actor::sent(&request);
    let importing = api.importing.lock().upgrade();
    let body = StatusBody::new((api.parts.status)(), importing.as_deref(), &(api.parts.fleet)(), caller);
    Ok(respond::json(StatusCode::OK, &body))
}

/// Shows the metrics
///
/// In the OpenMetrics format, version 1.0.0, where `Accept` prefers it, otherwise in Prometheus' text format, version
/// 0.0.4.
#[utoipa::path(
    get,
    path = "/metrics",
    operation_id = "get_metrics",
    tag = "server",
    responses((
        status = 200,
        description = "The metrics",
        content((String = "text/plain"), (String = "application/openmetrics-text")),
    )),
)]
pub(in crate::admin) async fn metrics(State(api): State<Arc<Api>>, request: Request) -> Response {
    let format = metrics_format(request.headers());
    let body = Body::from((api.parts.metrics)(format));
    let mut response = respond::with_type(StatusCode::OK, format.content_type(), body);
    response.headers_mut().insert(VARY, HeaderValue::from_static("Accept"));
    response
}

/// Tells whether the process lives
///
/// 200 for as long as it answers at all, while it starts and drains too. Wants no token.
#[utoipa::path(
    get,
    path = "/healthz",
    operation_id = "get_healthz",
    tag = "server",
    security(()),
    responses((status = 200, description = "It lives", body = HealthBody)),
)]
pub(in crate::admin) async fn healthz() -> Response {
    respond::json(StatusCode::OK, &HealthBody { status: "ok" })
}

/// Tells whether the server should get traffic
///
/// While another process takes over it should: whoever connects is served. Wants no token.
#[utoipa::path(
    get,
    path = "/readyz",
    operation_id = "get_readyz",
    tag = "server",
    security(()),
    responses(
        (status = 200, description = "It serves", body = HealthBody),
        (status = 503, description = "It does not listen yet, or finishes what it has begun; `message` says which",
            body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn readyz(State(api): State<Arc<Api>>) -> Result<Response, ApiError> {
    ready((api.parts.readiness)()).map(|body| respond::json(StatusCode::OK, &body))
}

fn ready(readiness: Readiness) -> Result<HealthBody, ApiError> {
    match readiness {
        Readiness::Ready => Ok(HealthBody { status: "ready" }),
        Readiness::Starting => Err(ApiError::unavailable("Not yet listening")),
        Readiness::Draining => Err(ApiError::unavailable("Draining")),
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use serde_json::json;

    use super::*;

    #[test]
    fn the_status_is_told_in_full() {
        let status = ServerStatus {
            state: "ready",
            uptime: Duration::from_millis(90_500),
            listeners: vec!["127.0.0.1:8080".parse().unwrap(), "[::1]:8080".parse().unwrap()],
            admin: "127.0.0.1:9901".to_owned(),
            clients: 1,
            buckets: 2,
            requests: 10,
            allowed: 3,
            limited: 4,
            blocked: 5,
            unlimited: 6,
            in_flight: 7,
            connections: 8,
            max_connections: 9,
            store_error: Some("data/tollgate.db: disk full".to_owned()),
        };
        let expected = json!({
            "version": env!("CARGO_PKG_VERSION"), "state": "ready", "uptime_seconds": 90,
            "listeners": ["127.0.0.1:8080", "[::1]:8080"], "admin": "127.0.0.1:9901", "clients": 1, "buckets": 2,
            "requests": 10, "allowed": 3, "limited": 4, "blocked": 5, "unlimited": 6, "in_flight": 7, "connections": 8, "max_connections": 9,
            "store_error": "data/tollgate.db: disk full", "importing": {"done": 2, "all": 4}, "fleet": {"state": "alone", "since": null}, "caller": {"name": "eve", "viewer": true},
        });
        let (caller, importing) = (Actor { name: "eve".to_owned(), viewer: true }, BatchProgress::default());
        importing.expect(4, 8);
        importing.count(5);
        let body = StatusBody::new(status, Some(&importing), &FleetView::default(), caller);
        assert_eq!(serde_json::to_value(body).unwrap(), expected);
    }

    #[test]
    fn only_a_server_that_serves_is_ready() {
        assert_eq!(ready(Readiness::Ready).unwrap().status, "ready");
        for (state, message) in [(Readiness::Starting, "Not yet listening"), (Readiness::Draining, "Draining")] {
            let error = ready(state).unwrap_err();
            assert_eq!((error.status.as_u16(), error.message.as_str()), (503, message));
        }
    }
}
