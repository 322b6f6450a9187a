//! Everything about clients: making, changing, finding and deleting them, one at a time or all at once.
//!
//! | file | holds |
//! |---|---|
//! | `path` | which client a path is about |
//! | `fields` | what a body says of a client |
//! | `describe` | the same for the description of the API |
//! | `wire` | what answers say of one |
//! | `read` | one, a page of them, a history |
//! | `write` | the changes of one |
//! | `bulk` | the changes of many |
//! | `export` | all of them, streamed |
//! | `secret` | API keys that are made here |

pub(super) mod bulk;
mod describe;
mod export;
mod fields;
mod path;
pub(super) mod read;
mod secret;
mod wire;
pub(super) mod write;

use std::sync::Arc;

use axum::Router;
use axum::extract::{Request, State};
use axum::response::{IntoResponse, Response};
use axum::routing::{any, get};
use http::header::{ALLOW, ETAG};
use http::{HeaderValue, Method, StatusCode};

use self::path::Target;
use self::wire::ClientView;
use super::condition::etag;
use super::router::{Api, wrong_method};
use super::{ApiError, respond};
use crate::store::Record;

/// The routes.
pub(super) fn routes() -> Router<Arc<Api>> {
    Router::new()
        .route("/clients", get(read::list).post(write::create).put(bulk::apply))
        .route("/clients/{*rest}", any(one))
}

/// A call on one client.
async fn one(State(api): State<Arc<Api>>, request: Request) -> Response {
    let method = request.method().clone();
    let path = request.uri().path().to_owned();
    let (raw, target) = path::split(path.strip_prefix("/clients/").unwrap_or_default());
    let answer = match (target, method) {
        (Target::Client, Method::GET | Method::HEAD) => read::get(&api, raw, request).await,
        (Target::Client, Method::PUT) => write::replace(&api, raw, request).await,
        (Target::Client, Method::PATCH) => write::merge(&api, raw, request).await,
        (Target::Client, Method::DELETE) => write::delete(&api, raw, request).await,
        (Target::Reset, Method::POST) => write::reset(&api, raw, request).await,
        (Target::History, Method::GET | Method::HEAD) => read::history(&api, raw, request).await,
        (Target::Rollback, Method::POST) => write::rollback(&api, raw, request).await,
        (target, _) => {
            let mut response = wrong_method(request).await.into_response();
            response.headers_mut().insert(ALLOW, HeaderValue::from_static(methods(target)));
            return response;
        }
    };
    answer.unwrap_or_else(ApiError::into_response)
}

/// The methods that it takes.
fn methods(target: Target) -> &'static str {
    match target {
        Target::Client => "GET, HEAD, PUT, PATCH, DELETE",
        Target::History => "GET, HEAD",
        Target::Reset | Target::Rollback => "POST",
    }
}

/// An answer that shows a client, with its entity tag.
fn show(status: StatusCode, view: &ClientView, record: &Record) -> Response {
    let mut response = respond::json(status, view);
    response.headers_mut().insert(ETAG, etag(record.version));
    response
}

#[cfg(test)]
mod tests;
