//! What a quota would have done to a client's requests, as far as they were recorded.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use axum::extract::Request;
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::describe::ClientName;
use super::quotas::{capacity, rate};
use super::wire::QuotaView;
use super::{path, read, standing};
use crate::admin::api::error::ErrorBody;
use crate::admin::api::json::Value;
use crate::admin::api::query::Query;
use crate::admin::api::respond::{self, MissingNodes};
use crate::admin::api::{Api, ApiError, BodyFields, body};
use crate::client::{Client, ClientId, Mode, Quota, RECORDED_SECONDS};
use crate::limit::replay;

/// What is said of a window that is none.
const WINDOW: &str = "must be a duration from 1s to 1h, such as 15m";
/// How requests are taken to have come.
const MODEL: &str = "a second's requests count as if all came at its start, and the bucket is full at the first";

/// A quota for a client, by what was recorded.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Recommendation)]
pub(in crate::admin) struct RecommendView {
    /// How far back it looks.
    #[schema(example = "1h")]
    window: String,
    /// The requests in it.
    #[schema(example = 4800)]
    requests: u64,
    /// The most of one second.
    #[schema(example = 40)]
    peak_per_sec: u32,
    /// The rate of the busiest minute, and the least capacity that refuses none of them at that rate.
    recommended: QuotaView,
    /// How many of them that would refuse.
    #[schema(example = 0)]
    would_limit: u64,
    /// How many of them the quota that is in force refuses by the same model.
    #[schema(example = 13)]
    in_force_limited: u64,
    /// How the requests are taken to have come.
    model: &'static str,
}

/// What a quota would have done.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Simulation)]
pub(in crate::admin) struct SimulateView {
    /// How far back it looks.
    #[schema(example = "1h")]
    window: String,
    /// The requests in it.
    #[schema(example = 4800)]
    requests: u64,
    /// How many of them it would have refused.
    #[schema(example = 7)]
    would_limit: u64,
    /// How the requests are taken to have come.
    model: &'static str,
}

/// The body of `POST /clients/{client_id}/simulate`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(in crate::admin) struct SimulateInput {
    /// The most tokens that can be saved up.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 100)]
    capacity: u32,
    /// The tokens that come back each second.
    #[schema(minimum = 0.000_001, maximum = 1_000_000_000, example = 10)]
    rate_per_sec: f64,
    /// How far back to look, from `1s` to `1h`; an hour when it is left out.
    #[schema(example = "15m")]
    window: Option<String>,
}

/// Recommends a quota for a client
///
/// By its recorded requests: the rate of the busiest minute, and the least capacity that refuses none of them. Recorded
/// are the requests a second of the busiest clients, for an hour, by each process; in a fleet those of all nodes are
/// added up, but for those in the header `Nodes-Missing`.
#[utoipa::path(
    get,
    path = "/clients/{client_id}/recommend",
    operation_id = "recommend_client_quota",
    tag = "clients",
    params(
        ClientName,
        ("window" = Option<String>, Query, pattern = "^[0-9a-z ]+$", example = "1h",
            description = "How far back to look, from `1s` to `1h`; an hour when it is left out"),
    ),
    responses(
        (status = 200, description = "A quota, and what it would have done", body = RecommendView,
            headers(("Nodes-Missing" = Option<String>, description = "The nodes of the fleet whose figures are not in this"))),
        (status = 400, description = "The path or the query cannot be decoded", body = ErrorBody),
        (status = 404, description = "There is no such client, or nothing is recorded of it", body = ErrorBody),
        (status = 422, description = "The name is none, or a parameter is wrong", body = ErrorBody),
        (status = 503, description = "The store cannot be read", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn recommend(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let id = path::id(raw)?;
    let mut query = Query::of(request.uri(), &["window"])?;
    let text = query.text("window").unwrap_or("1h").to_owned();
    let window = window(&text);
    if window.is_none() {
        query.wrong("window", WINDOW);
    }
    query.finish()?;
    let RecordedRequests { seconds: recorded, in_force, missing } =
        recorded(api, &id, window.unwrap_or(RECORDED_SECONDS), &text).await?;
    let recommended = replay::recommended(&recorded).ok_or_else(|| nothing(&id, &text))?;
    let view = RecommendView {
        window: text,
        requests: replay::requests(&recorded),
        peak_per_sec: replay::peak(&recorded),
        recommended: QuotaView::new(recommended),
        would_limit: replay::refused(&recorded, recommended),
        in_force_limited: in_force.map_or(0, |quota| replay::refused(&recorded, quota)),
        model: MODEL,
    };
    let mut response = respond::json(StatusCode::OK, &view);
    missing.tell(&mut response);
    Ok(response)
}

/// Tells what a quota would have done to a client's requests
///
/// By those that were recorded, as for a recommendation. Changes nothing.
#[utoipa::path(
    post,
    path = "/clients/{client_id}/simulate",
    operation_id = "simulate_client_quota",
    tag = "clients",
    params(ClientName),
    request_body = SimulateInput,
    responses(
        (status = 200, description = "What it would have done", body = SimulateView,
            headers(("Nodes-Missing" = Option<String>, description = "The nodes of the fleet whose figures are not in this"))),
        (status = 400, description = "The body is not JSON, or the path cannot be decoded", body = ErrorBody),
        (status = 404, description = "There is no such client, or nothing is recorded of it", body = ErrorBody),
        (status = 422, description = "A field is wrong; all wrong fields are named", body = ErrorBody),
        (status = 503, description = "The store cannot be read", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn simulate(api: &Arc<Api>, raw: &str, request: Request) -> Result<Response, ApiError> {
    let id = path::id(raw)?;
    Query::of(request.uri(), &[])?.finish()?;
    let mut fields = BodyFields::new(body::read_json(request).await?, "", &["capacity", "rate_per_sec", "window"]);
    let (capacity, rate) = (fields.require("capacity", capacity), fields.require("rate_per_sec", rate));
    let wanted = fields.read("window", |value| match value {
        Value::String(text) => window(&text).map(|seconds| (text, seconds)).ok_or_else(|| WINDOW.to_owned()),
        _ => Err(WINDOW.to_owned()),
    });
    fields.finish()?;
    let quota = capacity.zip(rate).and_then(|(capacity, rate)| Quota::from_parts(capacity, rate).ok());
    let quota = quota.ok_or_else(|| ApiError::field("body", "must have a capacity and a rate_per_sec"))?;
    let (text, seconds) = wanted.unwrap_or_else(|| ("1h".to_owned(), RECORDED_SECONDS));
    let RecordedRequests { seconds: recorded, missing, .. } = recorded(api, &id, seconds, &text).await?;
    let view = SimulateView {
        window: text,
        requests: replay::requests(&recorded),
        would_limit: replay::refused(&recorded, quota),
        model: MODEL,
    };
    let mut response = respond::json(StatusCode::OK, &view);
    missing.tell(&mut response);
    Ok(response)
}

/// What is recorded of a client.
struct RecordedRequests {
    /// The requests of each second, the earliest first; some.
    seconds: Vec<(u64, u32)>,
    /// Its quota when it is held to one.
    in_force: Option<Quota>,
    missing: MissingNodes,
}

/// What is recorded of a client in the last `seconds`.
async fn recorded(api: &Arc<Api>, id: &ClientId, seconds: u64, window: &str) -> Result<RecordedRequests, ApiError> {
    let client = known(api, id).await?;
    let (recorded, missing) = standing::recorded(api, &client, first(api, seconds)).await;
    if recorded.is_empty() {
        return Err(nothing(id, window));
    }
    Ok(RecordedRequests { seconds: recorded, in_force: (client.mode == Mode::Limit).then_some(client.quota), missing })
}

/// What this node has recorded of a client in the last `seconds`, by the wall clock: each second with its requests.
///
/// # Errors
/// 404 when there is no such client, 503 when the store cannot be read.
pub(in crate::admin) async fn latest(api: &Arc<Api>, id: &ClientId, seconds: u64) -> Result<Vec<(u64, u32)>, ApiError> {
    let parts = &api.parts;
    let recorded = standing::recorded_here(api, &known(api, id).await?, first(api, seconds));
    let wall = |second: u64| {
        let at = parts.timeline.wall(second * 1_000_000_000, parts.clock.as_ref());
        at.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs()
    };
    Ok(recorded.into_iter().map(|(second, requests)| (wall(second), requests)).collect())
}

/// The client as the proxy has it.
async fn known(api: &Arc<Api>, id: &ClientId) -> Result<Client, ApiError> {
    Ok(read::find(api, id).await?.client(&api.parts.keys, &api.parts.plans.load()))
}

/// The first of the last `seconds`, by the limiter's clock.
fn first(api: &Api, seconds: u64) -> u64 {
    let now = api.parts.timeline.nanos(api.parts.clock.now()) / 1_000_000_000;
    (now + 1).saturating_sub(seconds)
}

fn nothing(id: &ClientId, window: &str) -> ApiError {
    ApiError::not_found(format!("Nothing is recorded of client {id} in the last {window}"))
}

/// The seconds of a window.
fn window(text: &str) -> Option<u64> {
    let window: Duration = humantime::parse_duration(text).ok()?;
    Some(window.as_secs()).filter(|seconds| (1..=RECORDED_SECONDS).contains(seconds))
}
