//! The latest refusals.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::api::Api;
use crate::admin::api::error::ErrorBody;
use crate::admin::api::query::Query;
use crate::admin::api::{ApiError, respond};
use crate::client::ClientId;
use crate::telemetry::{self, Refused};

/// The most refusals of one answer, and how many it has when nobody says.
const LIMIT: usize = 1_000;
const DEFAULT_LIMIT: usize = 100;

/// The latest refusals, newest first.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct DecisionsPage {
    /// Them.
    items: Vec<DecisionView>,
}

/// One request that was not let in.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Decision)]
pub(in crate::admin) struct DecisionView {
    /// Its id, as its answer had it in `X-Request-Id`.
    request_id: String,
    /// When it arrived.
    #[schema(format = DateTime)]
    at: String,
    /// The client's name; null when the caller is none.
    #[schema(required)]
    client_id: Option<String>,
    /// The caller's address.
    client_ip: String,
    /// How the caller was recognised: `api_key`, `address` or `anonymous`.
    identity: &'static str,
    /// Why it was refused: `limited` (429), `blocked` (403), `unknown_api_key` (401), or `unavailable` (503) while the fleet's
    /// store is away and nobody is let in who has a limit.
    decision: &'static str,
    /// The bucket that refused it: the name of a policy, or `default` for the caller's own; null when none has.
    #[schema(example = "writes", required)]
    limited_by: Option<String>,
    /// Its method.
    method: String,
    /// The host that it asked for.
    host: String,
    /// Its path, without the query.
    path: String,
    /// The status of its answer.
    status: u16,
    /// The tokens that were in the caller's bucket, rounded down to 3 decimals; null when it has none.
    #[serde(serialize_with = "respond::optional_number")]
    #[schema(required)]
    tokens: Option<f64>,
    /// After how many seconds a retry would have succeeded; null when waiting does not help.
    #[schema(required)]
    retry_after: Option<u64>,
}

impl DecisionView {
    fn new(refused: &Refused) -> Self {
        DecisionView {
            request_id: refused.request_id.clone(),
            at: telemetry::rfc3339(refused.at).to_string(),
            client_id: refused.client_id.as_ref().map(ToString::to_string),
            client_ip: refused.client_ip.to_string(),
            identity: refused.identity,
            decision: refused.decision,
            limited_by: refused.limited_by.clone(),
            method: refused.method.clone(),
            host: refused.host.clone(),
            path: refused.path.clone(),
            status: refused.status,
            tokens: refused.tokens.map(|tokens| (tokens * 1_000.0).floor() / 1_000.0),
            retry_after: refused.retry_after,
        }
    }
}

/// Lists the latest refusals
///
/// Of the latest 1,000 requests that were not let in, the newest first: look up the `X-Request-Id` that a caller
/// reports.
#[utoipa::path(
    get,
    path = "/decisions",
    operation_id = "list_decisions",
    tag = "traffic",
    params(
        ("client_id" = Option<String>, Query, description = "Only those of this client", example = "user1",
            min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._:@/-]+$"),
        ("limit" = Option<u32>, Query, description = "At most so many. Default 100", minimum = 1, maximum = 1000),
    ),
    responses(
        (status = 200, description = "The latest refusals", body = DecisionsPage),
        (status = 400, description = "The query cannot be decoded", body = ErrorBody),
        (status = 422, description = "A parameter is wrong", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn list(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let (client, limit) = which(request.uri())?;
    let latest = api.parts.decisions.latest(client.as_ref(), limit);
    let page = DecisionsPage { items: latest.iter().map(|refused| DecisionView::new(refused)).collect() };
    Ok(respond::json(StatusCode::OK, &page))
}

/// Whose refusals, and how many.
fn which(uri: &http::Uri) -> Result<(Option<ClientId>, usize), ApiError> {
    let mut query = Query::of(uri, &["client_id", "limit"])?;
    let client = query.text("client_id").map(ClientId::parse).transpose();
    let client = client.unwrap_or_else(|wrong| {
        query.wrong("client_id", wrong.to_string());
        None
    });
    let limit = query.number("limit", 1..=LIMIT, DEFAULT_LIMIT);
    query.finish()?;
    Ok((client, limit))
}

#[cfg(test)]
mod tests {
    use std::net::IpAddr;
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;

    #[test]
    fn a_refusal_is_told_in_full() {
        let refused = Refused {
            at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_290_088_123),
            request_id: "r1".to_owned(),
            client_id: Some(ClientId::parse("user1").unwrap()),
            client_ip: IpAddr::from([203, 0, 113, 7]),
            identity: "api_key",
            decision: "limited",
            limited_by: Some("default".to_owned()),
            method: "GET".to_owned(),
            host: "api.example.com".to_owned(),
            path: "/v1".to_owned(),
            status: 429,
            tokens: Some(0.999_9),
            retry_after: Some(1),
        };
        let told = serde_json::to_value(DecisionView::new(&refused)).unwrap();
        let expected = json!({
            "request_id": "r1", "at": "2026-11-21T19:41:28.123Z", "client_id": "user1", "client_ip": "203.0.113.7",
            "identity": "api_key", "decision": "limited", "limited_by": "default", "method": "GET", "host": "api.example.com", "path": "/v1",
            "status": 429, "tokens": 0.999, "retry_after": 1,
        });
        assert_eq!(told, expected);
        let unknown = Refused { client_id: None, tokens: None, retry_after: None, ..refused };
        let told = serde_json::to_value(DecisionView::new(&unknown)).unwrap();
        assert_eq!([&told["client_id"], &told["tokens"], &told["retry_after"]], [&json!(null); 3]);
    }

    #[test]
    fn the_query_says_whose_and_how_many() {
        let which = |uri: &str| which(&uri.parse().unwrap()).map_err(|error| error.message);
        let id = |name| Some(ClientId::parse(name).unwrap());
        assert_eq!(which("/decisions"), Ok((None, 100)));
        assert_eq!(which("/decisions?client_id=203.0.113.0%2F24&limit=1000"), Ok((id("203.0.113.0/24"), 1000)));
        for (wrong, message) in [
            ("limit=0", "limit: must be a whole number from 1 to 1000"),
            ("client_id=", "client_id: must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ / -"),
            ("client=a", "client: is unknown here; the query parameters are client_id, limit"),
        ] {
            assert_eq!(which(&format!("/decisions?{wrong}")), Err(message.to_owned()));
        }
    }
}
