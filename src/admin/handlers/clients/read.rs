//! One client, a page of them, a history.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use base64::prelude::{BASE64_URL_SAFE_NO_PAD, Engine};
use http::StatusCode;

use super::describe::ClientName;
use super::wire::{ClientView, EntryView, HistoryView, PageView};
use super::{export, path, standing};
use crate::admin::api::Api;
use crate::admin::api::error::ErrorBody;
use crate::admin::api::query::Query;
use crate::admin::api::ranking::{Achievement, RankPlace};
use crate::admin::api::{ApiError, Stopping, respond};
use crate::client::ClientId;
use crate::store::{PageQuery, Record, Refusal, StoreError};

/// The longest page.
const MAX_PAGE: usize = 1_000;
/// The page when nothing is said.
const PAGE: usize = 100;
/// The latest version that can be asked for: the largest number that JavaScript reads exactly.
const MAX_VERSION: usize = (1 << 53) - 1;
/// The longest text that is searched for, in characters.
const MAX_SEARCH: usize = 1_024;

/// Lists clients
///
/// In the order of their names, or of what they have done since this process started, the greatest first and equal ones
/// by their names; that order is some seconds old, a new client is in it at once. `format=ndjson` streams all of them instead, one a line, in the form that the bulk
/// apply takes.
#[utoipa::path(
    get,
    path = "/clients",
    operation_id = "list_clients",
    tag = "clients",
    params(
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
            description = "How many at most; 100 when it is left out"),
        ("cursor" = Option<String>, Query, pattern = "^[A-Za-z0-9_-]*$",
            description = "The `next_cursor` of the page before; empty, like none, for the first page"),
        ("q" = Option<String>, Query, max_length = 1024, pattern = r"^[^\x00]*$",
            description = "Only clients in whose name or note this occurs, ASCII letters in either case"),
        ("sort" = Option<String>, Query, pattern = "^(client_id|requests|limited|last_seen)$",
            description = "What goes first: `client_id`, the names in their order; or who has made most `requests`, was \
                refused most (`limited`), or was `last_seen`. Those three not with `q`"),
        ("format" = Option<String>, Query, pattern = "^(json|ndjson)$",
            description = "`json`, or `ndjson` for all of them as a stream, without the other parameters"),
    ),
    responses(
        (status = 200, description = "Some clients",
            content((PageView = "application/json"), (String = "application/x-ndjson")),
            headers(("Nodes-Missing" = Option<String>, description = "The nodes of the fleet whose figures are not in this"))),
        (status = 400, description = "The query cannot be decoded", body = ErrorBody),
        (status = 422, description = "A parameter is wrong", body = ErrorBody),
        (status = 503, description = "The store cannot be read", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn list(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let mut query = Query::of(request.uri(), &["limit", "cursor", "q", "sort", "format"])?;
    let limit = query.number("limit", 1..=MAX_PAGE, PAGE);
    let stream = query.choice("format", &["json", "ndjson"]) == 1;
    if stream {
        for name in ["limit", "cursor", "q", "sort"] {
            if query.has(name) {
                query.wrong(name, "is not allowed with format=ndjson, which streams all clients");
            }
        }
    }
    let search = query.text("q").unwrap_or_default().to_owned();
    if search.chars().count() > MAX_SEARCH {
        query.wrong("q", format!("must be at most {MAX_SEARCH} characters long"));
    }
    let by = SORTS[query.choice("sort", &["client_id", "requests", "limited", "last_seen"])];
    if by.is_some() && !search.is_empty() {
        query.wrong("sort", "must be client_id with q");
    }
    let after =
        query.text("cursor").filter(|cursor| !cursor.is_empty()).map(|cursor| from_cursor(cursor, by.is_some()));
    if after == Some(None) {
        query.wrong("cursor", "must be the next_cursor of another page");
    }
    query.finish()?;
    if stream {
        return export::stream(&api, Stopping::of(&request)).await;
    }
    let after = after.flatten();
    if let Some(by) = by {
        let place = after.and_then(|cursor| if let Cursor::Rank(place) = cursor { Some(place) } else { None });
        return ranked(&api, by, place, limit).await;
    }
    let after = after.and_then(|cursor| if let Cursor::Name(id) = cursor { Some(id) } else { None });
    let query = PageQuery { after, limit, search };
    let repository = Arc::clone(&api.parts.repository);
    let page = api.reads.run(move || repository.page(&query)).await?;
    let next_cursor = page.items.last().filter(|_| page.more).map(|last| to_cursor(&last.id));
    Ok(show_page(&api, &page.items, next_cursor, page.total).await)
}

/// Shows a client
///
/// With its live tokens and what it did since the process started.
#[utoipa::path(
    get,
    path = "/clients/{client_id}",
    operation_id = "get_client",
    tag = "clients",
    params(ClientName),
    responses(
        (status = 200, description = "The client", body = ClientView,
            headers(("ETag" = String, description = "Its version in quotes"),
                ("Nodes-Missing" = Option<String>, description = "The nodes of the fleet whose figures are not in this"))),
        (status = 400, description = "The path cannot be decoded", body = ErrorBody),
        (status = 404, description = "There is no such client", body = ErrorBody),
        (status = 422, description = "The name is none, or a parameter is unknown", body = ErrorBody),
        (status = 503, description = "The store cannot be read", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn get(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let id = path::id(raw)?;
    Query::of(request.uri(), &[])?.finish()?;
    let record = find(api, &id).await?;
    Ok(standing::show(api, StatusCode::OK, &record, |_| ()).await)
}

/// Shows a client's changes
///
/// All of them, the latest first, in pages; those of a deleted client too.
#[utoipa::path(
    get,
    path = "/clients/{client_id}/history",
    operation_id = "get_client_history",
    tag = "clients",
    params(
        ClientName,
        ("limit" = Option<u32>, Query, minimum = 1, maximum = 1000,
            description = "How many at most; 1000 when it is left out"),
        ("before" = Option<u64>, Query, minimum = 1, maximum = 9007199254740991_u64,
            description = "Only changes to versions below this, such as the `next_before` of the page before"),
    ),
    responses(
        (status = 200, description = "Some of its changes", body = HistoryView),
        (status = 400, description = "The path or the query cannot be decoded", body = ErrorBody),
        (status = 404, description = "There never was such a client", body = ErrorBody),
        (status = 422, description = "The name is none, or a parameter is wrong", body = ErrorBody),
        (status = 503, description = "The store cannot be read", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn history(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let id = path::id(raw)?;
    let mut query = Query::of(request.uri(), &["limit", "before"])?;
    let limit = query.number("limit", 1..=MAX_PAGE, MAX_PAGE);
    let version = query.number("before", 1..=MAX_VERSION, MAX_VERSION);
    let before = query.has("before").then_some(version as u64);
    query.finish()?;
    let repository = Arc::clone(&api.parts.repository);
    let view = api.reads.run(move || {
        // One more, to know whether there are more.
        let mut entries = repository.history(&id, before, limit + 1)?;
        let more = entries.len() > limit;
        entries.truncate(limit);
        if entries.is_empty() && (before.is_none() || repository.history(&id, None, 1)?.is_empty()) {
            return Err(ApiError::from(Refusal::Missing(id)));
        }
        Ok(HistoryView {
            next_before: entries.last().filter(|_| more).map(|last| last.version),
            items: entries.iter().map(|entry| EntryView::new(&id, entry)).collect(),
        })
    });
    Ok(respond::json(StatusCode::OK, &view.await?))
}

/// The client `id`.
///
/// # Errors
/// 404 when there is none, 503 when the store cannot be read.
pub(super) async fn find(api: &Arc<Api>, id: &ClientId) -> Result<Record, ApiError> {
    let (repository, wanted) = (Arc::clone(&api.parts.repository), id.clone());
    let record = api.reads.run(move || repository.get(&wanted)).await?;
    record.ok_or_else(|| Refusal::Missing(id.clone()).into())
}

/// What clients can be sorted by; none is their names.
const SORTS: [Option<Achievement>; 4] =
    [None, Some(Achievement::Requests), Some(Achievement::Limited), Some(Achievement::LastSeen)];

/// A page of clients in the order of what they have done.
async fn ranked(api: &Arc<Api>, by: Achievement, after: Option<RankPlace>, limit: usize) -> Result<Response, ApiError> {
    let list = api.rankings.get(by).await?;
    let (repository, directory) = (Arc::clone(&api.parts.repository), Arc::clone(&api.parts.directory));
    let total = directory.load().len() as u64;
    let page = api.reads.run(move || {
        let (page, more) = list.page(after.as_ref(), limit, &directory);
        let mut records = Vec::with_capacity(page.len());
        for (_, id) in &page {
            records.extend(repository.get(id)?);
        }
        let next_cursor = page.last().filter(|_| more).map(|(done, id)| rank_cursor(*done, id));
        Ok::<_, StoreError>((records, next_cursor))
    });
    let (records, next_cursor) = page.await?;
    Ok(show_page(api, &records, next_cursor, total).await)
}

/// The answer that shows a page.
async fn show_page(api: &Api, records: &[Record], next_cursor: Option<String>, total: u64) -> Response {
    let (items, missing) = standing::views(api, records).await;
    let mut response = respond::json(StatusCode::OK, &PageView { next_cursor, items, total });
    missing.tell(&mut response);
    response
}

/// Where a page ended.
#[derive(Clone, Debug, PartialEq)]
enum Cursor {
    /// Behind this name.
    Name(ClientId),
    /// Behind this place.
    Rank(RankPlace),
}

/// A cursor is the last name of a page, or its last place. It says so to nobody, so that another order stays possible.
fn to_cursor(id: &ClientId) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(id.as_str())
}

fn rank_cursor(done: u64, id: &ClientId) -> String {
    BASE64_URL_SAFE_NO_PAD.encode(format!("{done:x} {id}"))
}

fn from_cursor(cursor: &str, ranked: bool) -> Option<Cursor> {
    let text = String::from_utf8(BASE64_URL_SAFE_NO_PAD.decode(cursor).ok()?).ok()?;
    if !ranked {
        return ClientId::parse(&text).ok().map(Cursor::Name);
    }
    let (done, id) = text.split_once(' ')?;
    Some(Cursor::Rank((u64::from_str_radix(done, 16).ok()?, ClientId::parse(id).ok()?)))
}
