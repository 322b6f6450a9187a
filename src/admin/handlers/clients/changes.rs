//! What changed last, of all clients.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::wire::EntryView;
use crate::admin::api::error::ErrorBody;
use crate::admin::api::query::Query;
use crate::admin::api::{Api, ApiError, respond};
use crate::client::ClientId;
use crate::store::HistoryEntry;

/// The most changes of one answer, and how many it has when nobody says.
const LIMIT: usize = 1_000;
const DEFAULT_LIMIT: usize = 20;

/// The latest changes of clients.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Changes)]
pub(in crate::admin) struct ChangesView {
    /// Them, the latest first.
    items: Vec<NamedEntryView>,
}

/// A change and whose it is.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = NamedHistoryEntry)]
pub(in crate::admin) struct NamedEntryView {
    /// The client's name.
    #[schema(example = "user1")]
    client_id: String,
    #[serde(flatten)]
    entry: EntryView,
}

impl NamedEntryView {
    /// `entry` of the history of the client `id`.
    fn new(id: &ClientId, entry: &HistoryEntry) -> Self {
        NamedEntryView { client_id: id.to_string(), entry: EntryView::new(id, entry) }
    }
}

/// Shows the latest changes of clients
///
/// Of all clients, deleted ones too, the latest first.
#[utoipa::path(
    get,
    path = "/changes",
    operation_id = "list_changes",
    tag = "clients",
    params(("limit" = Option<u32>, Query, minimum = 1, maximum = 1000, description = "At most so many. Default 20")),
    responses(
        (status = 200, description = "The latest changes", body = ChangesView),
        (status = 400, description = "The query cannot be decoded", body = ErrorBody),
        (status = 422, description = "A parameter is wrong", body = ErrorBody),
        (status = 503, description = "The store cannot be read", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn list(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let mut query = Query::of(request.uri(), &["limit"])?;
    let limit = query.number("limit", 1..=LIMIT, DEFAULT_LIMIT);
    query.finish()?;
    let repository = Arc::clone(&api.parts.repository);
    let latest = api.reads.run(move || repository.latest_changes(limit)).await?;
    let items = latest.iter().map(|(id, entry)| NamedEntryView::new(id, entry)).collect();
    Ok(respond::json(StatusCode::OK, &ChangesView { items }))
}
