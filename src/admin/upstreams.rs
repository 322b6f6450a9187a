//! Pools and their backends: how they stand, and what an operator may change until the next start.

use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use axum::extract::{Request, State};
use axum::response::Response;
use http::StatusCode;
use log::info;
use serde::Serialize;
use utoipa::ToSchema;

use super::access::Actor;
use super::error::ErrorBody;
use super::json::{Fields, Value};
use super::query::Query;
use super::router::Api;
use super::{ApiError, body, percent, respond};
use crate::telemetry;
use crate::upstream::{AdminState, BackendOverview, LastCheck, MAX_WEIGHT, Pool, PoolOverview, SetBackendError};

/// How many names a message lists.
const LISTED: usize = 20;

/// The pools.
#[derive(Debug, Serialize, ToSchema)]
pub(super) struct Upstreams {
    /// In the order of the configuration.
    items: Vec<PoolBody>,
}

/// One pool. Counts are since the server started.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Upstream)]
struct PoolBody {
    /// Its name.
    #[schema(example = "app")]
    name: String,
    /// The rule that chooses a backend: `round_robin`, `random` or `least_connections`.
    #[schema(pattern = "^(round_robin|random|least_connections)$", example = "round_robin")]
    balance: &'static str,
    /// The requests that ended.
    requests: u64,
    /// The further attempts of requests whose first one failed.
    retries: u64,
    /// Its backends. A name that resolves to several addresses is as many.
    backends: Vec<BackendBody>,
    /// The configured names that have no address now, as `name:port`.
    unresolved: Vec<String>,
}

/// One backend. Counts are since its pool came to know it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backend)]
pub(super) struct BackendBody {
    /// Its address and port.
    #[schema(example = "127.0.0.1:9001")]
    address: String,
    /// What the configuration calls it: its address, or `name:port`, which several may share.
    #[schema(example = "127.0.0.1:9001")]
    configured: String,
    /// Its share of the requests relative to the others.
    #[schema(minimum = 1, maximum = 65535, example = 1)]
    weight: u32,
    /// `up`: it gets requests. `down`: it is not well and gets none. `drain`: an operator wants it to get none. `unknown`: it has not
    /// been checked yet and gets none.
    #[schema(pattern = "^(up|down|drain|unknown)$", example = "up")]
    state: &'static str,
    /// `up`, `down` or `unknown`: what is known of its health, also while it drains.
    #[schema(pattern = "^(up|down|unknown)$", example = "up")]
    health: String,
    /// The requests that it holds now.
    in_flight: usize,
    /// The requests that it was given.
    requests: u64,
    /// Those that it failed: no connection, or one that broke or was too slow. An answer is no failure, whatever its status.
    failures: u64,
    /// How often it went up.
    went_up: u64,
    /// How often it went down.
    went_down: u64,
    /// Its latest check; null before the first, and in pools without checks.
    #[schema(required)]
    last_check: Option<CheckBody>,
}

/// A health check.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthCheck)]
struct CheckBody {
    /// When it began.
    #[schema(format = DateTime)]
    at: String,
    /// How long it took, in milliseconds.
    #[serde(serialize_with = "respond::number")]
    duration_ms: f64,
    /// Whether it passed; null when this machine could not do it, which says nothing about the backend.
    #[schema(required)]
    passed: Option<bool>,
    /// What was wrong; null when nothing was.
    #[schema(required)]
    error: Option<String>,
}

/// What is to become of a backend; at least one of the two.
#[derive(ToSchema)]
#[serde(deny_unknown_fields)]
#[schema(as = BackendChange, min_properties = 1, example = json!({"state": "drain"}))]
#[expect(dead_code, reason = "the shape of the body, for the API's description; it is read field by field")]
pub(super) struct ChangeBody {
    /// `drain`: no new requests, those that it has are finished. `up`: requests again, if its health checks say that it is well.
    #[schema(pattern = "^(drain|up)$", nullable = false)]
    state: Option<String>,
    /// Its share of the requests relative to the others.
    #[schema(minimum = 1, maximum = 65535, nullable = false)]
    weight: Option<u32>,
}

impl PoolBody {
    fn new(pool: PoolOverview) -> Self {
        PoolBody {
            name: pool.name,
            balance: pool.balance.name(),
            requests: pool.requests,
            retries: pool.retries,
            backends: pool.backends.into_iter().map(BackendBody::new).collect(),
            unresolved: pool.unresolved,
        }
    }
}

impl BackendBody {
    fn new(backend: BackendOverview) -> Self {
        BackendBody {
            address: backend.address.to_string(),
            configured: backend.configured,
            weight: backend.weight,
            state: backend.state.name(),
            health: backend.health.to_string(),
            in_flight: backend.in_flight,
            requests: backend.requests,
            failures: backend.failures,
            went_up: backend.went_up,
            went_down: backend.went_down,
            last_check: backend.last_check.as_ref().map(CheckBody::new),
        }
    }
}

impl CheckBody {
    fn new(check: &LastCheck) -> Self {
        CheckBody {
            at: telemetry::rfc3339(check.at).to_string(),
            duration_ms: check.took.as_micros() as f64 / 1_000.0,
            passed: check.passed(),
            error: check.error().map(str::to_owned),
        }
    }
}

/// Lists upstreams
///
/// Every pool with its backends: their state, how busy they are, and what their last check found.
#[utoipa::path(
    get,
    path = "/upstreams",
    operation_id = "list_upstreams",
    tag = "upstreams",
    responses(
        (status = 200, description = "The pools", body = Upstreams),
        (status = 422, description = "A query parameter was given; there are none", body = ErrorBody),
    ),
)]
pub(super) async fn list(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    let items = api.parts.pools.iter().map(|pool| PoolBody::new(pool.overview())).collect();
    Ok(respond::json(StatusCode::OK, &Upstreams { items }))
}

/// Drains a backend, or changes its weight
///
/// Holds until the next start, when the configuration counts again.
#[utoipa::path(
    patch,
    path = "/upstreams/{name}/backends/{address}",
    operation_id = "change_backend",
    tag = "upstreams",
    params(
        ("name" = String, Path, description = "The pool's name", example = "app", min_length = 1),
        ("address" = String, Path, description = "The backend's `address:port`, or the `name:port` of the configuration",
            example = "127.0.0.1:9001", min_length = 1),
    ),
    request_body(content = ChangeBody),
    responses(
        (status = 200, description = "How the backend stands now", body = BackendBody),
        (status = 400, description = "The path cannot be decoded, or the body is not JSON", body = ErrorBody),
        (status = 404, description = "There is no such pool or backend", body = ErrorBody),
        (status = 409, description = "The name stands for several backends; `message` lists their addresses",
            body = ErrorBody),
        (status = 422, description = "A field is wrong", body = ErrorBody),
    ),
)]
pub(super) async fn change(State(api): State<Arc<Api>>, request: Request) -> Result<Response, ApiError> {
    Query::of(request.uri(), &[])?.finish()?;
    let (name, address) = target(request.uri().path())?;
    let by = Actor::of(&request);
    let pool = find_pool(&api.parts.pools, &name)?;
    let overview = pool.overview();
    let address = find_backend(&overview, &address)?;
    let (state, weight) = read_change(body::read_json(request).await?)?;
    let backend = pool.set_backend(address, state, weight).map_err(|error| match error {
        SetBackendError::NoSuchBackend { .. } => no_backend(&overview, &address.to_string()),
        SetBackendError::Weight(_) => ApiError::field("weight", weight_rule()),
    })?;
    info!("admin: {by} set backend {address} of upstream {name}: state {}, weight {}", backend.state, backend.weight);
    Ok(respond::json(StatusCode::OK, &BackendBody::new(backend)))
}

/// The pool's name and the backend's address in a path.
fn target(path: &str) -> Result<(String, String), ApiError> {
    let decoded = |segment: Option<&str>| {
        let segment = segment.unwrap_or_default();
        percent::decode(segment).map_err(|wrong| ApiError::bad_request(format!("The path segment {segment} {wrong}")))
    };
    // "", "upstreams", the name, "backends", the address
    let mut segments = path.split('/').skip(2);
    let name = decoded(segments.next())?;
    Ok((name, decoded(segments.nth(1))?))
}

fn find_pool<'a>(pools: &'a [Arc<Pool>], name: &str) -> Result<&'a Arc<Pool>, ApiError> {
    pools.iter().find(|pool| pool.name() == name).ok_or_else(|| {
        let names = listed(pools.iter().map(|pool| pool.name().to_owned()));
        ApiError::not_found(format!("There is no upstream {name}; there are {names}"))
    })
}

/// Which backend is meant: by its own address, or by a configured name that has just one address.
fn find_backend(pool: &PoolOverview, given: &str) -> Result<SocketAddr, ApiError> {
    let exact = given.parse::<SocketAddr>().ok();
    let addresses = pool.backends.iter().map(|backend| backend.address);
    if let Some(address) = addresses.into_iter().find(|address| Some(*address) == exact) {
        return Ok(address);
    }
    let named = pool.backends.iter().filter(|backend| backend.configured.eq_ignore_ascii_case(given));
    let named: Vec<_> = named.map(|backend| backend.address).collect();
    match named.as_slice() {
        [] => Err(no_backend(pool, given)),
        [one] => Ok(*one),
        several => {
            let addresses = listed(several.iter().map(ToString::to_string));
            let message = format!("{given} stands for several backends now; name one by its address: {addresses}");
            Err(ApiError::new(StatusCode::CONFLICT, message))
        }
    }
}

fn no_backend(pool: &PoolOverview, given: &str) -> ApiError {
    let name = &pool.name;
    if pool.unresolved.iter().any(|unresolved| unresolved.eq_ignore_ascii_case(given)) {
        return ApiError::not_found(format!(
            "Backend {given} of upstream {name} has no address now: it does not resolve"
        ));
    }
    let known = pool.backends.iter().map(|backend| backend.address.to_string()).chain(pool.unresolved.iter().cloned());
    ApiError::not_found(format!("Upstream {name} has no backend {given}; it has {}", listed(known)))
}

fn listed(names: impl Iterator<Item = String>) -> String {
    let mut names: Vec<_> = names.collect();
    let more = names.len().saturating_sub(LISTED);
    names.truncate(LISTED);
    match (names.is_empty(), more) {
        (true, _) => "none".to_owned(),
        (false, 0) => names.join(", "),
        (false, more) => format!("{} and {more} more", names.join(", ")),
    }
}

/// What is to become of a backend.
fn read_change(body: Value) -> Result<(Option<AdminState>, Option<NonZeroU32>), ApiError> {
    let mut fields = Fields::new(body, "", &["state", "weight"]);
    let state = fields.read("state", |value| match value {
        Value::String(state) if state == "drain" => Ok(AdminState::Drain),
        Value::String(state) if state == "up" => Ok(AdminState::Up),
        _ => Err("must be \"drain\" or \"up\"".to_owned()),
    });
    let weight = fields.read("weight", |value| match value {
        Value::Number(number) => number.as_u64().and_then(to_weight).ok_or_else(weight_rule),
        _ => Err(weight_rule()),
    });
    fields.finish()?;
    if state.is_none() && weight.is_none() {
        return Err(ApiError::field("body", "must have state (\"drain\" or \"up\"), weight, or both"));
    }
    Ok((state, weight))
}

fn to_weight(number: u64) -> Option<NonZeroU32> {
    u32::try_from(number).ok().filter(|weight| *weight <= MAX_WEIGHT).and_then(NonZeroU32::new)
}

fn weight_rule() -> String {
    format!("must be a whole number from 1 to {MAX_WEIGHT}")
}

#[cfg(test)]
mod tests {
    use std::time::{Duration, SystemTime};

    use serde_json::json;

    use super::*;
    use crate::admin::json::parse;
    use crate::upstream::health::{Outcome, Status};
    use crate::upstream::{Balance, State as BackendState};

    fn backend(address: &str, configured: &str) -> BackendOverview {
        BackendOverview {
            configured: configured.to_owned(),
            address: address.parse().unwrap(),
            weight: 3,
            state: BackendState::Drain,
            health: Status::Down,
            in_flight: 1,
            requests: 20,
            failures: 2,
            went_up: 1,
            went_down: 2,
            last_check: Some(LastCheck {
                at: SystemTime::UNIX_EPOCH + Duration::from_millis(1_795_290_088_123),
                took: Duration::from_micros(1_500),
                outcome: Outcome::Failed("connection refused".to_owned()),
            }),
        }
    }

    fn pool() -> PoolOverview {
        PoolOverview {
            name: "app".to_owned(),
            balance: Balance::LeastConnections,
            backends: vec![
                backend("127.0.0.1:9001", "127.0.0.1:9001"),
                backend("[::1]:80", "one.example:80"),
                backend("10.0.0.1:80", "two.example:80"),
                backend("10.0.0.2:80", "two.example:80"),
            ],
            unresolved: vec!["gone.example:80".to_owned()],
            requests: 40,
            retries: 4,
        }
    }

    #[test]
    fn a_pool_is_told_in_full() {
        let pool = PoolOverview { backends: vec![backend("[::1]:80", "one.example:80")], ..pool() };
        let told = serde_json::to_value(PoolBody::new(pool)).unwrap();
        let expected = json!({
            "name": "app", "balance": "least_connections", "requests": 40, "retries": 4,
            "unresolved": ["gone.example:80"],
            "backends": [{
                "address": "[::1]:80", "configured": "one.example:80", "weight": 3, "state": "drain", "health": "down",
                "in_flight": 1, "requests": 20, "failures": 2, "went_up": 1, "went_down": 2,
                "last_check": {
                    "at": "2026-11-21T19:41:28.123Z", "duration_ms": 1.5, "passed": false, "error": "connection refused",
                },
            }],
        });
        assert_eq!(told, expected);
    }

    #[test]
    fn a_backend_is_found_by_its_address_or_its_only_name() {
        let find = |given: &str| find_backend(&pool(), given).map(|address| address.to_string());
        for (given, address) in [
            ("127.0.0.1:9001", "127.0.0.1:9001"),
            ("[::1]:80", "[::1]:80"),
            ("[0:0::1]:80", "[::1]:80"),
            ("One.example:80", "[::1]:80"),
            ("10.0.0.2:80", "10.0.0.2:80"),
        ] {
            assert_eq!(find(given), Ok(address.to_owned()));
        }
        for (given, status, message) in [
            (
                "two.example:80",
                409,
                "two.example:80 stands for several backends now; name one by its address: 10.0.0.1:80, 10.0.0.2:80",
            ),
            ("gone.example:80", 404, "Backend gone.example:80 of upstream app has no address now: it does not resolve"),
            (
                "127.0.0.1:9",
                404,
                "Upstream app has no backend 127.0.0.1:9; it has 127.0.0.1:9001, [::1]:80, 10.0.0.1:80, 10.0.0.2:80, gone.example:80",
            ),
        ] {
            let error = find(given).unwrap_err();
            assert_eq!((error.status.as_u16(), error.message.as_str()), (status, message));
        }
    }

    #[test]
    fn the_path_names_pool_and_backend() {
        let read = |path: &str| target(path).map_err(|error| error.message);
        let parts = |name: &str, address: &str| Ok((name.to_owned(), address.to_owned()));
        assert_eq!(read("/upstreams/app/backends/[::1]:80"), parts("app", "[::1]:80"));
        assert_eq!(read("/upstreams/a%2Fb/backends/%5B%3A%3A1%5D%3A80"), parts("a/b", "[::1]:80"));
        let wrong = "The path segment a%zz has a % that two hexadecimal digits do not follow";
        assert_eq!(read("/upstreams/a%zz/backends/x"), Err(wrong.to_owned()));
    }

    #[test]
    fn a_change_has_a_state_or_a_weight_or_both() {
        let read = |text: &str| read_change(parse(text.as_bytes()).unwrap()).map_err(|error| error.message);
        let weight = NonZeroU32::new(65_535);
        assert_eq!(read(r#"{"state":"drain","weight":65535}"#), Ok((Some(AdminState::Drain), weight)));
        assert_eq!(read(r#"{"state":"up"}"#), Ok((Some(AdminState::Up), None)));
        assert_eq!(read(r#"{"weight":65535}"#), Ok((None, weight)));
        for (text, message) in [
            ("{}", "body: must have state (\"drain\" or \"up\"), weight, or both"),
            ("[]", "body: must be a JSON object"),
            (r#"{"state":"down"}"#, "state: must be \"drain\" or \"up\""),
            (r#"{"state":null}"#, "state: must be \"drain\" or \"up\""),
            (r#"{"weight":0}"#, "weight: must be a whole number from 1 to 65535"),
            (r#"{"weight":65536}"#, "weight: must be a whole number from 1 to 65535"),
            (r#"{"weight":4294967297}"#, "weight: must be a whole number from 1 to 65535"),
            (r#"{"weight":2.0}"#, "weight: must be a whole number from 1 to 65535"),
            (r#"{"weight":"2"}"#, "weight: must be a whole number from 1 to 65535"),
            (r#"{"wieght":2}"#, "wieght: is unknown; did you mean weight?"),
            (r#"{"state":1,"weight":-1}"#, "state: must be \"drain\" or \"up\" (and 1 more)"),
        ] {
            assert_eq!(read(text), Err(message.to_owned()), "{text}");
        }
    }
}
