//! Which path and method is which handler.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, patch, post};
use bytes::Bytes;
use http::StatusCode;

use super::access::{Entrance, guard};
use super::reads::Reads;
use super::{AdminParts, ApiError, clients, decisions, explain, openapi, reload, status, upstreams};

/// What every handler is given.
pub(super) struct Api {
    /// What the API is made of.
    pub(super) parts: AdminParts,
    /// Who gets in.
    pub(super) entrance: Entrance,
    /// Where blocking reads run.
    pub(super) reads: Reads,
    /// What describes the API.
    pub(super) description: Bytes,
}

/// The API as a service.
pub(super) fn router(parts: AdminParts) -> Router {
    let entrance = Entrance::new(Arc::clone(&parts.access));
    let api = Arc::new(Api { parts, entrance, reads: Reads::default(), description: openapi::document().into() });
    Router::new()
        .merge(clients::routes())
        .route("/explain", post(explain::explain))
        .route("/decisions", get(decisions::list))
        .route("/upstreams", get(upstreams::list))
        .route("/upstreams/{name}/backends/{address}", patch(upstreams::change))
        .route("/status", get(status::status))
        .route("/config/reload", post(reload::reload))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(openapi::describe))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_path)
        .layer(from_fn_with_state(Arc::clone(&api), guard))
        .with_state(api)
}

async fn unknown_path(request: Request) -> ApiError {
    ApiError::not_found(format!("There is nothing at {}; /openapi.json lists what there is", request.uri().path()))
}

/// 405 for the method of `request`; whoever answers it adds `Allow`.
pub(super) async fn wrong_method(request: Request) -> ApiError {
    let message =
        format!("{} is not allowed at {}; the Allow header says what is", request.method(), request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
