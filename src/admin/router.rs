//! Which path and method is which handler.

use std::sync::Arc;

use axum::Router;
use axum::extract::Request;
use axum::middleware::from_fn_with_state;
use axum::routing::{get, patch, post};

use super::api::ranking::Rankings;
use super::api::{AdminParts, Api, ApiError, guard, wrong_method};
use super::handlers::{clients, decisions, explain, fleet, live, page, reload, series, status, top, upstreams};
use super::openapi;

/// The API as a service, and the orders of clients that it keeps.
pub(super) fn router(parts: AdminParts) -> (Router, Arc<Rankings>) {
    let api = Arc::new(Api::new(parts, openapi::document().into()));
    let rankings = Arc::clone(&api.rankings);
    let router = Router::new()
        .merge(clients::routes())
        .route("/explain", post(explain::explain))
        .route("/decisions", get(decisions::list))
        .route("/live", get(live::live))
        .route("/series", get(series::series))
        .route("/top", get(top::top))
        .route("/upstreams", get(upstreams::list))
        .route("/upstreams/{name}/backends/{address}", patch(upstreams::change))
        .route("/status", get(status::status))
        .route("/fleet", get(fleet::fleet))
        .route("/config/reload", post(reload::reload))
        .route("/healthz", get(status::healthz))
        .route("/readyz", get(status::readyz))
        .route("/metrics", get(status::metrics))
        .route("/openapi.json", get(openapi::describe))
        .route("/", get(page::index))
        .route("/ui/{*file}", get(page::file))
        .method_not_allowed_fallback(wrong_method)
        .fallback(unknown_path)
        .layer(from_fn_with_state(Arc::clone(&api), guard))
        .with_state(api);
    (router, rankings)
}

async fn unknown_path(request: Request) -> ApiError {
    ApiError::not_found(format!("There is nothing at {}; /openapi.json lists what there is", request.uri().path()))
}
