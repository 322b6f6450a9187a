//! What the last minutes were like, second by second: the server's, and those of one client.

use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use serde::Serialize;
use utoipa::ToSchema;

use super::clients;
use crate::admin::api::error::ErrorBody;
use crate::admin::api::query::Query;
use crate::admin::api::{Api, ApiError, respond};
use crate::client::ClientId;
use crate::telemetry::{BackendStates, Latency, Sample};

/// The most minutes that are kept.
const MINUTES: usize = 15;

/// One second.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Sample)]
pub(in crate::admin) struct SampleBody {
    /// Which second ended then, since the Unix epoch.
    #[schema(example = 1_795_290_088_u64)]
    at: u64,
    answers: AnswersBody<u64>,
    latency_ms: LatencyBody<Option<f64>>,
    /// The open connections from clients.
    connections: usize,
    /// The requests in flight.
    in_flight: usize,
    /// The buckets in use.
    buckets: usize,
}

/// The requests that ended, by what they were answered.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Answers)]
pub(in crate::admin) struct AnswersBody<T> {
    /// Below 300.
    #[serde(rename = "2xx")]
    done: T,
    /// 300 to 399.
    #[serde(rename = "3xx")]
    redirected: T,
    /// 400 to 499 but for 429.
    #[serde(rename = "4xx")]
    refused: T,
    /// 429.
    #[serde(rename = "429")]
    limited: T,
    /// 500 or more.
    #[serde(rename = "5xx")]
    failed: T,
    /// Not at all.
    none: T,
}

/// Within how many milliseconds how many of the requests ended, by the buckets of the histogram; null where none did.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Latency)]
pub(in crate::admin) struct LatencyBody<T> {
    /// Half of them.
    p50: T,
    /// 95 of 100.
    p95: T,
    /// 99 of 100.
    p99: T,
}

/// The last minutes of the server, an array for each column.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Series)]
pub(in crate::admin) struct SeriesBody {
    /// The seconds, since the Unix epoch, the earliest first. One in which the server was too busy to count is missing,
    /// and its requests are in the next.
    at: Vec<u64>,
    /// The requests that ended in each of them.
    answers: AnswersBody<Vec<u64>>,
    /// How long these took, in milliseconds.
    latency_ms: LatencyBody<Vec<Option<f64>>>,
    /// The open connections from clients.
    connections: Vec<usize>,
    /// The requests in flight.
    in_flight: Vec<usize>,
    /// The buckets in use.
    buckets: Vec<usize>,
    /// How backends stood: those of the first 1,024 that there are now.
    backends: Vec<BackendStatesBody>,
}

/// How a backend stood.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = BackendStates)]
pub(in crate::admin) struct BackendStatesBody {
    /// Its pool.
    #[schema(example = "app")]
    upstream: String,
    /// Where it is.
    #[schema(example = "127.0.0.1:9001")]
    address: String,
    /// Its latest states, the earliest first: the one that it had as the time began, and each that it changed to.
    states: Vec<StateSince>,
}

/// A state and when it began.
#[derive(Debug, Serialize, ToSchema)]
pub(in crate::admin) struct StateSince {
    /// In which second, since the Unix epoch.
    at: u64,
    /// `up`, `down`, `drain`, `unknown` or `ejected`.
    #[schema(pattern = "^(up|down|drain|unknown|ejected)$", example = "up")]
    state: &'static str,
}

/// The last minutes of a client.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = ClientSeries)]
pub(in crate::admin) struct ClientSeriesBody {
    /// The seconds in which it made requests, since the Unix epoch, the earliest first; empty where none are recorded.
    at: Vec<u64>,
    /// Its requests in each of them on which its limit decided.
    requests: Vec<u32>,
}

/// What is answered: of the server, or of one client.
#[derive(ToSchema)]
#[schema(as = AnySeries)]
#[serde(untagged)]
#[expect(dead_code, reason = "describes the answer")]
pub(in crate::admin) enum AnySeries {
    /// Of the server.
    #[schema(title = "Server")]
    Server(Box<SeriesBody>),
    /// Of one client.
    #[schema(title = "Client")]
    Client(ClientSeriesBody),
}

impl SampleBody {
    /// `sample` as it is told.
    pub(super) fn new(sample: &Sample) -> Self {
        let [done, redirected, refused, limited, failed, none] = sample.answers;
        SampleBody {
            at: sample.at,
            answers: AnswersBody { done, redirected, refused, limited, failed, none },
            latency_ms: LatencyBody {
                p50: millis(sample, |latency| latency.p50),
                p95: millis(sample, |latency| latency.p95),
                p99: millis(sample, |latency| latency.p99),
            },
            connections: sample.connections,
            in_flight: sample.in_flight,
            buckets: sample.buckets,
        }
    }
}

impl SeriesBody {
    fn new(samples: &[Sample], backends: Vec<BackendStates>) -> Self {
        let answers = |class: usize| samples.iter().map(|sample| sample.answers[class]).collect();
        let latency = |of: fn(&Latency) -> std::time::Duration| samples.iter().map(|one| millis(one, of)).collect();
        SeriesBody {
            at: samples.iter().map(|sample| sample.at).collect(),
            answers: AnswersBody {
                done: answers(0),
                redirected: answers(1),
                refused: answers(2),
                limited: answers(3),
                failed: answers(4),
                none: answers(5),
            },
            latency_ms: LatencyBody {
                p50: latency(|latency| latency.p50),
                p95: latency(|latency| latency.p95),
                p99: latency(|latency| latency.p99),
            },
            connections: samples.iter().map(|sample| sample.connections).collect(),
            in_flight: samples.iter().map(|sample| sample.in_flight).collect(),
            buckets: samples.iter().map(|sample| sample.buckets).collect(),
            backends: backends.into_iter().map(BackendStatesBody::new).collect(),
        }
    }
}

impl BackendStatesBody {
    fn new(backend: BackendStates) -> Self {
        let states = backend.states.into_iter().map(|(at, state)| StateSince { at, state: state.name() });
        BackendStatesBody { upstream: backend.upstream, address: backend.address, states: states.collect() }
    }
}

/// A latency of a sample in milliseconds, to the microsecond.
fn millis(sample: &Sample, of: fn(&Latency) -> std::time::Duration) -> Option<f64> {
    sample.latency.as_ref().map(|latency| of(latency).as_micros() as f64 / 1_000.0)
}

/// Shows what the last minutes were like
///
/// Second by second, kept by this process since it started, for a quarter of an hour. With `client_id` the requests of
/// one client, as far as they are recorded.
#[utoipa::path(
    get,
    path = "/series",
    operation_id = "get_series",
    tag = "traffic",
    params(
        ("minutes" = Option<u32>, Query, minimum = 1, maximum = 15, description = "How far back. Default 15"),
        ("client_id" = Option<String>, Query, description = "The requests of this client instead", example = "user1",
            min_length = 1, max_length = 128, pattern = "^[A-Za-z0-9._:@/-]+$"),
    ),
    responses(
        (status = 200, description = "The seconds", body = AnySeries),
        (status = 400, description = "The query cannot be decoded", body = ErrorBody),
        (status = 404, description = "There is no such client", body = ErrorBody),
        (status = 422, description = "A parameter is wrong", body = ErrorBody),
    ),
)]
pub(in crate::admin) async fn series(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    let mut query = Query::of(request.uri(), &["minutes", "client_id"])?;
    let seconds = 60 * query.number("minutes", 1..=MINUTES, MINUTES) as u64;
    let client = query.text("client_id").map(ClientId::parse).transpose();
    let client = client.unwrap_or_else(|wrong| {
        query.wrong("client_id", wrong.to_string());
        None
    });
    query.finish()?;
    let Some(client) = client else {
        let now = api.parts.clock.wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap_or_default();
        let samples = api.parts.series.since(now.as_secs().saturating_sub(seconds));
        return Ok(respond::json(StatusCode::OK, &SeriesBody::new(&samples, api.parts.series.backends())));
    };
    let recorded = clients::recorded::latest(&api, &client, seconds).await?;
    let (at, requests) = recorded.into_iter().unzip();
    Ok(respond::json(StatusCode::OK, &ClientSeriesBody { at, requests }))
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use crate::admin::fixture::Fixture;
    use crate::client::KeyDigest;
    use crate::clock::Clock;
    use crate::telemetry::CountedSoFar;
    use crate::upstream::{BackendState, DURATIONS};

    #[tokio::test]
    async fn the_last_minutes_are_columns() {
        let fixture = Fixture::new();
        let now = fixture.clock.wall().duration_since(std::time::SystemTime::UNIX_EPOCH).unwrap().as_secs();
        let backend = || vec![("app".to_owned(), "127.0.0.1:1".to_owned(), BackendState::Up)];
        for (second, requests) in [(now - 100, 0), (now - 99, 4), (now - 1, 9)] {
            let mut durations = [0; DURATIONS.len() + 1];
            durations[0] = requests;
            let counted = CountedSoFar {
                statuses: vec![(429, requests)],
                durations,
                backends: backend(),
                ..CountedSoFar::default()
            };
            fixture.series.take(second, counted, 2);
        }
        let all = fixture.call("GET", "/series", "").await.json();
        assert_eq!((&all["at"], &all["answers"]["429"]), (&json!([now - 99, now - 1]), &json!([4, 5])));
        assert_eq!((&all["latency_ms"]["p50"], &all["in_flight"]), (&json!([0.25, 0.25]), &json!([2, 2])));
        let states =
            json!([{"upstream": "app", "address": "127.0.0.1:1", "states": [{"at": now - 100, "state": "up"}]}]);
        assert_eq!(all["backends"], states);
        assert_eq!(fixture.call("GET", "/series?minutes=1", "").await.json()["at"], json!([now - 1]));
        assert_eq!(fixture.call("GET", "/series?minutes=16", "").await.status, 422);
    }

    #[tokio::test]
    async fn a_clients_requests_are_told_as_recorded() {
        let fixture = Fixture::new();
        assert_eq!(fixture.call("GET", "/series?client_id=user1", "").await.status, 404);
        let made = fixture.call("POST", "/clients", r#"{"client_id":"user1","capacity":5,"rate_per_sec":1}"#).await;
        assert_eq!(made.status, 201, "{made:?}");
        assert_eq!(fixture.call("GET", "/series?client_id=user1", "").await.json(), json!({"at": [], "requests": []}));
        let nanos = fixture.timeline.nanos(fixture.clock.now());
        let usage = fixture
            .directory
            .load()
            .by_key(&KeyDigest::of(b"user1"), std::time::SystemTime::UNIX_EPOCH)
            .unwrap()
            .usage
            .clone();
        fixture.recorder.turn(&usage, nanos);
        usage.count_allowed(nanos);
        let told = fixture.call("GET", "/series?client_id=user1&minutes=1", "").await.json();
        assert_eq!(told, json!({"at": [nanos / 1_000_000_000], "requests": [1]}));
    }
}
