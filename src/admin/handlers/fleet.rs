//! The fleet: how this node stands to it, who belongs to it, and how its store is.

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
use crate::telemetry::{FleetNode, FleetStore, FleetView, rfc3339};

/// The fleet, as this node sees it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Fleet)]
pub(in crate::admin) struct FleetBody {
    /// `joined`; `alone` where no fleet is configured; `unreachable` while the store is away, or this node stands apart
    /// from a fleet that has other clients.
    #[schema(pattern = "^(joined|alone|unreachable)$", example = "joined")]
    state: &'static str,
    /// Since when; null when alone.
    #[schema(format = DateTime, required)]
    since: Option<String>,
    /// Why the store is unreachable, what it refuses although it is not, or that another node has this one's name, in words;
    /// null when all is well.
    #[schema(required)]
    reason: Option<String>,
    /// This node's name; null when alone.
    #[schema(required, example = "edge-1")]
    node: Option<String>,
    /// All nodes, as the store last said; empty when alone.
    nodes: Vec<FleetNodeBody>,
    /// The store.
    store: FleetStoreBody,
}

/// A node of the fleet.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetNode)]
pub(in crate::admin) struct FleetNodeBody {
    /// Its name.
    #[schema(example = "edge-1")]
    node: String,
    /// Its version of tollgate.
    #[schema(example = "0.1.0")]
    version: String,
    /// When it said last that it is there, by the store's clock.
    #[schema(format = DateTime)]
    seen: String,
    /// The tokens that it holds, of all buckets together.
    leased: u64,
}

/// The fleet's store.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetStore)]
pub(in crate::admin) struct FleetStoreBody {
    /// Where it is, without a password; null when alone.
    #[schema(required, example = "redis://10.0.0.5:6379")]
    address: Option<String>,
    /// The primary that is spoken to; null without Sentinel, and while there is none.
    #[schema(required, example = json!(null))]
    primary: Option<String>,
    /// What the last ping took, in milliseconds; null while there was none.
    #[serde(serialize_with = "respond::optional_number")]
    #[schema(required)]
    latency_ms: Option<f64>,
    /// Calls without an answer, or with an error for one, and tries to connect in vain, since the start.
    errors: u64,
    /// Keys that it threw away for want of memory, each a bucket that may have been forgiven its debt; null while not
    /// known.
    #[schema(required)]
    evicted_keys: Option<u64>,
    /// What it does when its memory is full; only `noeviction` is exact. Null while not known.
    #[schema(required, example = "noeviction")]
    maxmemory_policy: Option<String>,
}

/// How this node stands to its fleet, in short.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = FleetStanding)]
pub(in crate::admin) struct FleetStandingBody {
    /// `joined`, `alone` or `unreachable`.
    #[schema(pattern = "^(joined|alone|unreachable)$", example = "alone")]
    state: &'static str,
    /// Since when; null when alone.
    #[schema(format = DateTime, required)]
    since: Option<String>,
}

impl From<&FleetView> for FleetStandingBody {
    fn from(view: &FleetView) -> Self {
        FleetStandingBody { state: view.state.name(), since: view.since.map(|since| rfc3339(since).to_string()) }
    }
}

impl From<FleetView> for FleetBody {
    fn from(view: FleetView) -> Self {
        let FleetStandingBody { state, since } = (&view).into();
        let node = |FleetNode { node, version, seen, leased }| {
            let seen = rfc3339(seen).to_string();
            FleetNodeBody { node, version, seen, leased }
        };
        let FleetStore { address, primary, latency, errors, evicted_keys, maxmemory_policy, .. } = view.store;
        let latency_ms = latency.map(|latency| latency.as_secs_f64() * 1e3);
        FleetBody {
            state,
            since,
            reason: view.reason,
            node: view.node,
            nodes: view.nodes.into_iter().map(node).collect(),
            store: FleetStoreBody { address, primary, latency_ms, errors, evicted_keys, maxmemory_policy },
        }
    }
}

/// Shows the fleet
///
/// As this node sees it. A node without a fleet is `alone`, with the same fields.
#[utoipa::path(
    get,
    path = "/fleet",
    operation_id = "get_fleet",
    tag = "server",
    responses(
        (status = 200, description = "The fleet", body = FleetBody),
        (status = 422, description = "A query parameter was given; there are none", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn fleet(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    Ok(respond::json(StatusCode::OK, &FleetBody::from((api.parts.fleet)())))
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;
    use crate::telemetry::FleetState;

    #[test]
    fn the_fleet_is_told_in_full_and_a_node_alone_has_the_same_fields() {
        let at = |seconds| SystemTime::UNIX_EPOCH + Duration::from_secs(seconds);
        let nodes = vec![FleetNode { node: "a".into(), version: "1.2.3".into(), seen: at(1), leased: 7 }];
        let store = FleetStore {
            address: Some("redis://a:6379".to_owned()),
            primary: Some("b:6379".to_owned()),
            latency: Some(Duration::from_micros(250)),
            errors: 3,
            evicted_keys: Some(0),
            maxmemory_policy: Some("noeviction".to_owned()),
            ..FleetStore::default()
        };
        let view = FleetView {
            state: FleetState::Joined,
            since: Some(at(0)),
            node: Some("a".into()),
            nodes,
            store,
            ..FleetView::default()
        };
        let expected = json!({
            "state": "joined", "since": "1970-01-01T00:00:00.000Z", "reason": null, "node": "a",
            "nodes": [{"node": "a", "version": "1.2.3", "seen": "1970-01-01T00:00:01.000Z", "leased": 7}],
            "store": {"address": "redis://a:6379", "primary": "b:6379", "latency_ms": 0.25, "errors": 3, "evicted_keys": 0,
                "maxmemory_policy": "noeviction"},
        });
        assert_eq!(serde_json::to_value(FleetBody::from(view)).unwrap(), expected);
        let expected = json!({
            "state": "alone", "since": null, "reason": null, "node": null, "nodes": [],
            "store": {"address": null, "primary": null, "latency_ms": null, "errors": 0, "evicted_keys": null,
                "maxmemory_policy": null},
        });
        assert_eq!(serde_json::to_value(FleetBody::from(FleetView::default())).unwrap(), expected);
    }
}
