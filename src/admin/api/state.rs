//! What every handler is given, and what comes before all of them.

use std::sync::{Arc, Weak};

use axum::extract::{Request, State};
use axum::middleware::Next;
use axum::response::{IntoResponse, Response};
use bytes::Bytes;
use http::StatusCode;
use parking_lot::Mutex;

use super::access::Entrance;
use super::ranking::Rankings;
use super::reads::Reads;
use super::ui::UiFiles;
use super::{AdminParts, ApiError};
use crate::store::BatchProgress;

/// What every handler is given.
pub(in crate::admin) struct Api {
    /// What the API is made of.
    pub(in crate::admin) parts: AdminParts,
    entrance: Entrance,
    /// Where blocking reads run.
    pub(in crate::admin) reads: Reads,
    /// How far the latest bulk apply is; nothing when it is done.
    pub(in crate::admin) importing: Mutex<Weak<BatchProgress>>,
    /// Clients in the order of what they have done.
    pub(in crate::admin) rankings: Arc<Rankings>,
    /// The files of the page.
    pub(in crate::admin) page: UiFiles,
    /// What describes the API.
    pub(in crate::admin) description: Bytes,
}

impl Api {
    /// What handlers are given over `parts`.
    pub(in crate::admin) fn new(parts: AdminParts, description: Bytes) -> Self {
        let entrance = Entrance::new(Arc::clone(&parts.access));
        let rankings = Arc::new(Rankings::new(Arc::clone(&parts.directory), Arc::clone(&parts.clock)));
        let importing = Mutex::default();
        Api { parts, entrance, reads: Reads::default(), importing, rankings, page: UiFiles::default(), description }
    }
}

/// Lets a request through to `next`, or answers 401 or 403.
pub(in crate::admin) async fn guard(State(api): State<Arc<Api>>, mut request: Request, next: Next) -> Response {
    match api.entrance.admit(&request) {
        Ok(actor) => {
            request.extensions_mut().insert(actor);
            next.run(request).await
        }
        Err(error) => error.into_response(),
    }
}

/// 405 for the method of `request`; whoever answers it adds `Allow`.
pub(in crate::admin) async fn wrong_method(request: Request) -> ApiError {
    let message =
        format!("{} is not allowed at {}; the Allow header says what is", request.method(), request.uri().path());
    ApiError::new(StatusCode::METHOD_NOT_ALLOWED, message)
}
