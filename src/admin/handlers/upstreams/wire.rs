//! How pools and backends go over the wire.

use serde::Serialize;
use utoipa::ToSchema;
use utoipa::openapi::schema::{Object, ObjectBuilder, Type};

use crate::admin::api::respond;
use crate::telemetry;
use crate::upstream::{BackendOverview, Balance, Ejection, LastCheck, PoolOverview};

/// The pools.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Upstreams)]
pub(in crate::admin) struct UpstreamsBody {
    /// In the order of the configuration.
    pub(super) items: Vec<PoolBody>,
}

/// One pool. Counts are since the server started.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Upstream)]
pub(in crate::admin) struct PoolBody {
    /// Its name.
    #[schema(example = "app")]
    name: String,
    #[schema(schema_with = balance_schema)]
    balance: &'static str,
    /// What is spoken to its backends: `http/1.1`, `h2`, or `auto` for what each of them prefers.
    #[schema(pattern = "^(http/1.1|h2|auto)$", example = "http/1.1")]
    protocol: &'static str,
    /// Whether they are spoken to over TLS.
    #[schema(example = false)]
    tls: bool,
    /// The requests that ended.
    requests: u64,
    /// The further attempts of requests whose first one failed.
    retries: u64,
    /// Whether ejected backends get requests, as less than half of all are well.
    #[schema(example = false)]
    panic: bool,
    /// Its backends. A name that resolves to several addresses is as many.
    backends: Vec<BackendBody>,
    /// The configured names that have no address now, as `name:port`.
    unresolved: Vec<String>,
}

fn balance_schema() -> Object {
    let names: Vec<_> = Balance::names().collect();
    let text = ObjectBuilder::new().schema_type(Type::String).description(Some(Balance::described()));
    text.pattern(Some(format!("^({})$", names.join("|")))).examples([names[0]]).build()
}

/// One backend. Counts are since its pool came to know it.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Backend)]
pub(in crate::admin) struct BackendBody {
    /// Its address and port, or `unix:` and the path of its socket.
    #[schema(example = "127.0.0.1:9001")]
    address: String,
    /// What the configuration calls it: its address, or `name:port`, which several may share.
    #[schema(example = "127.0.0.1:9001")]
    configured: String,
    /// Its share of the requests relative to the others.
    #[schema(minimum = 1, maximum = 65535, example = 1)]
    weight: u32,
    /// `up`: it gets requests. `down`: it is not well and gets none. `drain`: an operator wants it to get none.
    /// `unknown`: it has not been checked yet and gets none. `ejected`: it answers badly and gets none for a while,
    /// unless there is `panic`.
    #[schema(pattern = "^(up|down|drain|unknown|ejected)$", example = "up")]
    state: &'static str,
    /// `up`, `down` or `unknown`: what is known of its health, also while it drains.
    #[schema(pattern = "^(up|down|unknown)$", example = "up")]
    health: String,
    /// The requests that it holds now.
    in_flight: usize,
    /// The requests that it was given.
    requests: u64,
    /// Those that it failed: no connection, or one that broke or was too slow. An answer is no failure, whatever its
    /// status.
    failures: u64,
    /// Those that had failed before, at another backend or over another connection.
    retries: u64,
    /// How often it was ejected for what it answered.
    ejections: u64,
    /// Until when it is ejected, and why; null while it is not.
    #[schema(required)]
    ejected: Option<EjectionBody>,
    /// How often it went up.
    went_up: u64,
    /// How often it went down.
    went_down: u64,
    /// Its latest check; null before the first, and in pools without checks.
    #[schema(required)]
    last_check: Option<CheckBody>,
    /// After how many milliseconds it closes an idle connection, as far as was learned; null as long as it is not
    /// known.
    #[schema(required, example = 5000)]
    idle_closes_after_ms: Option<u64>,
}

/// An ejection.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = Ejection)]
pub(in crate::admin) struct EjectionBody {
    /// When it ends.
    #[schema(format = DateTime)]
    until: String,
    /// What the backend did.
    #[schema(example = "5 errors in a row, the last: it answered 500")]
    reason: String,
}

/// A health check.
#[derive(Debug, Serialize, ToSchema)]
#[schema(as = HealthCheck)]
pub(in crate::admin) struct CheckBody {
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
pub(in crate::admin) struct ChangeBody {
    /// `drain`: no new requests, those that it has are finished. `up`: requests again, if its health checks say that it
    /// is well.
    #[schema(pattern = "^(drain|up)$", nullable = false)]
    state: Option<String>,
    /// Its share of the requests relative to the others.
    #[schema(minimum = 1, maximum = 65535, nullable = false)]
    weight: Option<u32>,
}

impl PoolBody {
    /// `pool` as it is told.
    pub(super) fn new(pool: PoolOverview) -> Self {
        PoolBody {
            name: pool.name,
            balance: pool.balance,
            protocol: pool.protocol.name(),
            tls: pool.tls,
            requests: pool.requests,
            retries: pool.retries,
            panic: pool.panic,
            backends: pool.backends.into_iter().map(BackendBody::new).collect(),
            unresolved: pool.unresolved,
        }
    }
}

impl BackendBody {
    /// `backend` as it is told.
    pub(super) fn new(backend: BackendOverview) -> Self {
        BackendBody {
            address: backend.address.to_string(),
            configured: backend.configured,
            weight: backend.weight,
            state: backend.state.name(),
            health: backend.health.to_string(),
            in_flight: backend.in_flight,
            requests: backend.requests,
            failures: backend.failures,
            retries: backend.retries,
            ejections: backend.ejections,
            ejected: backend.ejected.map(EjectionBody::new),
            went_up: backend.went_up,
            went_down: backend.went_down,
            last_check: backend.last_check.as_ref().map(CheckBody::new),
            idle_closes_after_ms: backend.idle_closes_after.map(|age| age.as_millis().try_into().unwrap_or(u64::MAX)),
        }
    }
}

impl EjectionBody {
    fn new(ejection: Ejection) -> Self {
        EjectionBody { until: telemetry::rfc3339(ejection.until).to_string(), reason: ejection.reason }
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
