//! Who asks most, and who is refused most.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use crate::admin::api::error::ErrorBody;
use crate::admin::api::query::Query;
use crate::admin::api::respond::{self, MissingNodes};
use crate::admin::api::{Api, ApiError};
use crate::telemetry::{Talk, Talker, TalkersBy};

/// The most callers of one answer, and how many it has when nobody says.
const LIMIT: usize = 100;
const DEFAULT_LIMIT: usize = 20;

/// Who asks most of late.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TopTalkers)]
pub(in crate::admin) struct TopBody {
    /// Over how many seconds they are counted: those since the server started, five minutes at most.
    #[schema(example = 287)]
    seconds: u64,
    /// Them, the greatest first.
    items: Vec<TalkBody>,
}

/// A caller.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = TopTalker)]
pub(in crate::admin) struct TalkBody {
    /// The client's name; null when the caller is none.
    #[schema(required, example = "user1")]
    client_id: Option<String>,
    /// The address of a caller who is no client; for IPv6 the network that shares a bucket.
    #[schema(required, example = json!(null))]
    address: Option<String>,
    /// Its requests, about.
    #[schema(example = 4800)]
    requests: u64,
    /// Those that were refused for want of a token, about.
    #[schema(example = 13)]
    limited: u64,
    /// By how many the number that is sorted by may be too large.
    #[schema(example = 0)]
    error: u64,
}

impl TalkBody {
    fn new(talk: Talk) -> Self {
        let (client_id, address) = match talk.talker {
            Talker::Client(id) => (Some(id.to_string()), None),
            Talker::Address(network) if network.prefix_len() == network.max_prefix_len() => {
                (None, Some(network.addr().to_string()))
            }
            Talker::Address(network) => (None, Some(network.to_string())),
        };
        TalkBody { client_id, address, requests: talk.requests, limited: talk.limited, error: talk.error }
    }
}

/// Shows who asks most
///
/// Clients, and addresses of callers who are none, in the last five minutes; in a fleet on all nodes together, but for
/// those in the header `Nodes-Missing`. The numbers are estimates: of many requests some are drawn, and only the greatest
/// callers of each node are kept.
#[utoipa::path(
    get,
    path = "/top",
    operation_id = "list_top_talkers",
    tag = "traffic",
    params(
        ("by" = Option<String>, Query, pattern = "^(requests|limited)$",
            description = "`requests`, or `limited` for who is refused most"),
        ("limit" = Option<u32>, Query, description = "At most so many. Default 20", minimum = 1, maximum = 100),
    ),
    responses(
        (status = 200, description = "Who asks most", body = TopBody,
            headers(("Nodes-Missing" = Option<String>, description = "The nodes of the fleet whose figures are not in this"))),
        (status = 400, description = "The query cannot be decoded", body = ErrorBody),
        (status = 422, description = "A parameter is wrong", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn top(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let mut query = Query::of(request.uri(), &["by", "limit"])?;
    let by = [TalkersBy::Requests, TalkersBy::Limited][query.choice("by", &["requests", "limited"])];
    let limit = query.number("limit", 1..=LIMIT, DEFAULT_LIMIT);
    query.finish()?;
    let (mut talks, mut seconds) = api.parts.tally.top_talkers(by, usize::MAX, api.parts.clock.wall());
    let mut missing = MissingNodes::default();
    if let Some(fleet) = &api.parts.fleet_figures {
        let (others, longest, nodes) = (fleet.talkers)(by).await;
        talks.extend(others);
        (seconds, missing) = (seconds.max(longest), MissingNodes(nodes));
    }
    let items = by.together(talks, limit).into_iter().map(TalkBody::new).collect();
    let mut response = respond::json(StatusCode::OK, &TopBody { seconds, items });
    missing.tell(&mut response);
    Ok(response)
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;
    use crate::admin::fixture::Fixture;
    use crate::client::ClientId;
    use crate::clock::Clock;
    use crate::telemetry::Verdict;

    #[tokio::test]
    async fn clients_and_addresses_are_told_apart() {
        let fixture = Fixture::new();
        let empty = fixture.call("GET", "/top", "").await.json();
        assert_eq!(empty, json!({"seconds": 0, "items": []}));
        let client = || Some(Talker::Client(ClientId::parse("user1").unwrap()));
        let address = |network: &str| Some(Talker::Address(network.parse().unwrap()));
        for _ in 0..3 {
            fixture.tally.decided(Some(Verdict::Allowed), client);
            fixture.tally.decided(Some(Verdict::Limited), || address("203.0.113.7/32"));
        }
        fixture.tally.decided(None, || address("2001:db8::/64"));
        fixture.tally.decided(Some(Verdict::Unlimited), client);
        let now = fixture.clock.wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
        fixture.tally.collect_talkers(now);
        let user = json!({"client_id": "user1", "address": null, "requests": 4, "limited": 0, "error": 0});
        let v4 = json!({"client_id": null, "address": "203.0.113.7", "requests": 3, "limited": 3, "error": 0});
        let v6 = json!({"client_id": null, "address": "2001:db8::/64", "requests": 1, "limited": 0, "error": 0});
        let top = fixture.call("GET", "/top?by=requests", "").await.json();
        assert_eq!(top, json!({"seconds": 1, "items": [user, v4, v6]}));
        assert_eq!(fixture.call("GET", "/top?by=limited&limit=1", "").await.json()["items"], json!([v4]));
        assert_eq!(fixture.call("GET", "/top?by=name&limit=0", "").await.errors().len(), 2);
    }
}
