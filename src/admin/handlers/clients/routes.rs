//! Which call on clients is which.
//!
//! A client's name may have slashes in it, so what follows `/clients/` is taken apart here and not by the router.

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::ALLOW;
use http::{HeaderValue, Method};

use super::path::{self, PathTarget};
use super::{bulk, changes, key_calls, read, recorded, tokens, write};
use crate::admin::api::{Api, ApiError, wrong_method};

/// The routes.
pub(in crate::admin) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/clients", get(read::list).post(write::create).put(bulk::apply))
        .route("/changes", get(changes::list))
        .route("/clients/{*rest}", any(one))
}

/// A call on one client.
async fn one(State(api): State<Arc<Api>>, request: Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let (raw, target) = path::split(path.strip_prefix("/clients/").unwrap_or_default());
    let answer = match (target, method) {
        (PathTarget::Client, Method::GET | Method::HEAD) => read::get(&api, raw, request).await,
        (PathTarget::Client, Method::PUT) => write::replace(&api, raw, request).await,
        (PathTarget::Client, Method::PATCH) => write::merge(&api, raw, request).await,
        (PathTarget::Client, Method::DELETE) => write::delete(&api, raw, request).await,
        (PathTarget::Grant, Method::POST) => tokens::grant(&api, raw, request).await,
        (PathTarget::Promote, Method::POST) => write::promote(&api, raw, request).await,
        (PathTarget::Recommend, Method::GET | Method::HEAD) => recorded::recommend(&api, raw, request).await,
        (PathTarget::Simulate, Method::POST) => recorded::simulate(&api, raw, request).await,
        (PathTarget::Keys, Method::POST) => key_calls::make_key(&api, raw, request).await,
        (PathTarget::Key(key), Method::DELETE) => key_calls::delete_key(&api, (raw, key), request).await,
        (PathTarget::Reset, Method::POST) => tokens::reset(&api, raw, request).await,
        (PathTarget::History, Method::GET | Method::HEAD) => read::history(&api, raw, request).await,
        (PathTarget::Rollback, Method::POST) => write::rollback(&api, raw, request).await,
        (target, _) => {
            let mut response = wrong_method(request).await.into_response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods(target)));
            return response;
        }
    };
    answer.unwrap_or_else(ApiError::into_response)
}

/// The methods that it takes.
fn methods(target: PathTarget<'_>) -> &'static str {
    match target {
        PathTarget::Client => "GET, HEAD, PUT, PATCH, DELETE",
        PathTarget::History | PathTarget::Recommend => "GET, HEAD",
        PathTarget::Key(_) => "DELETE",
        PathTarget::Keys
        | PathTarget::Grant
        | PathTarget::Promote
        | PathTarget::Simulate
        | PathTarget::Reset
        | PathTarget::Rollback => "POST",
    }
}
