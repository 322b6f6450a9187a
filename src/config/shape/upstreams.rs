//! The pools and their backends.

use std::num::NonZeroU32;

use schemars::JsonSchema;
use serde::Deserialize;

use crate::config::value::{
    BackendPeer, BackendWeight, CertificateName, CheckPath, CheckType, Choice, CookieName, Expect, Flag, Fraction,
    GrpcService, HashedBy, OrNone, OrNull, Pause, PemPath, Period, PoolName, RetryCauses, Threshold, Whole,
};
use crate::config::written::{List, Section, Written};
use crate::upstream::{Balance, Protocol, ProxyProtocol};

/// One pool of backends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "backends"]))]
pub(in crate::config) struct UpstreamKeys {
    /// Its name, unique among the upstreams.
    pub(in crate::config) name: Written<PoolName>,
    #[schemars(description = Balance::described(), extend("default" = Balance::default().name()))]
    pub(in crate::config) balance: Written<Choice<Balance>>,
    /// What requests are told apart by; only with `balance: hash`, which needs it.
    #[schemars(extend("default" = null))]
    pub(in crate::config) hash: Written<OrNone<Section<HashKeys>>>,
    /// Over which time the weight of a backend that comes back, or is new, grows from a tenth to the whole.
    #[schemars(extend("default" = "0s"))]
    pub(in crate::config) slow_start: Written<Pause>,
    /// Whether a client comes back to the backend that served it, by a cookie that only tollgate can make; null lets
    /// each request go by `balance`.
    #[schemars(extend("default" = null))]
    pub(in crate::config) sticky: Written<OrNone<Section<StickyKeys>>>,
    /// What is spoken to its backends. `h2` is agreed on over TLS and known beforehand without; `auto` is what a
    /// backend prefers over TLS, HTTP/2 before HTTP/1.1. Requests to pools of both go past Pingora's loop, whatever
    /// `direct` says.
    #[schemars(extend("default" = "http/1.1"))]
    pub(in crate::config) protocol: Written<Choice<Protocol>>,
    /// TLS to its backends; null is none.
    #[schemars(extend("default" = null))]
    pub(in crate::config) tls: Written<OrNone<Section<BackendTlsKeys>>>,
    /// In which version of the PROXY protocol its backends are told, before all else, whose connections are. A
    /// connection serves one client then. Null does not tell them.
    #[schemars(extend("default" = null))]
    pub(in crate::config) proxy_protocol: Written<OrNone<Choice<ProxyProtocol>>>,
    /// The backends.
    pub(in crate::config) backends: Written<List<Section<BackendKeys>>>,
    /// How their health is found out.
    pub(in crate::config) health_check: Written<Section<HealthCheckKeys>>,
    /// Further attempts after the first, each on a backend not yet tried; where there is no other, once more on the
    /// same.
    #[schemars(extend("default" = 2))]
    pub(in crate::config) retries: Written<Whole<u32, 0, 16>>,
    /// What a further attempt is made for: `connect`, a backend that cannot be reached; `broken`, a connection that
    /// died before a byte of the answer had come; `timeout`, an answer that did not begin within `read_timeout`; and
    /// the statuses 500, 502, 503 and 504. All but `connect` only for idempotent requests whose body is still at hand.
    /// An answer with such a status is passed on where no other backend is left.
    #[schemars(extend("default" = ["connect", "broken", "timeout"]))]
    pub(in crate::config) retry_on: Written<RetryCauses>,
    /// How many further attempts the requests of a pool may have together; null bounds only those of each request.
    pub(in crate::config) retry_budget: Written<OrNone<Section<RetryBudgetKeys>>>,
    /// How many requests each backend may hold at once; null is any number.
    #[schemars(extend("default" = null))]
    pub(in crate::config) max_in_flight: Written<OrNull<Whole<usize, 1, 1_000_000>>>,
    /// How requests wait while all backends hold as many as they may.
    pub(in crate::config) queue: Written<Section<QueueKeys>>,
    /// When backends that answer badly are left out for a while; null is never. `{}` is by the defaults.
    #[schemars(extend("default" = null))]
    pub(in crate::config) outlier: Written<OrNone<Section<OutlierKeys>>>,
    /// To establish a connection. Below a second, one that meets a full accept queue is given up before it is tried
    /// again.
    #[schemars(extend("default" = "3s"))]
    pub(in crate::config) connect_timeout: Written<Period>,
    /// For each read from a backend; the wait for the first byte of its answer is one.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) read_timeout: Written<Period>,
    /// For each write to a backend.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) write_timeout: Written<Period>,
    /// The longest an idle connection is kept for reuse. Less where the backend says or shows that it closes sooner.
    #[schemars(extend("default" = "50s"))]
    pub(in crate::config) idle_timeout: Written<Period>,
    /// The longest silence, in both directions, of a WebSocket or another upgraded connection.
    #[schemars(extend("default" = "1h"))]
    pub(in crate::config) tunnel_timeout: Written<Period>,
}

/// How many further attempts the requests of a pool may have together.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct RetryBudgetKeys {
    /// For each request of the last ten seconds.
    #[schemars(extend("default" = 0.2))]
    pub(in crate::config) ratio: Written<Fraction>,
    /// A second, besides.
    #[schemars(extend("default" = 10))]
    pub(in crate::config) min_per_sec: Written<Whole<u32, 0, 1_000_000>>,
}

/// How requests wait while all backends hold as many as they may.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct QueueKeys {
    /// How many wait at most; the others are answered 503.
    #[schemars(extend("default" = 0))]
    pub(in crate::config) size: Written<Whole<usize, 0, 1_000_000>>,
    /// For how long.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) timeout: Written<Period>,
}

/// When backends that answer badly are left out for a while.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct OutlierKeys {
    /// After so many errors in a row: answers of 500 and above, and answers that broke off or did not come in time.
    #[schemars(extend("default" = 5))]
    pub(in crate::config) errors: Written<Whole<NonZeroU32, 1, 1000>>,
    /// Within which time they must have come.
    #[schemars(extend("default" = "10s"))]
    pub(in crate::config) window: Written<Period>,
    /// For how long the first time; longer each time that follows soon, up to ten times this.
    #[schemars(extend("default" = "30s"))]
    pub(in crate::config) eject: Written<Period>,
    /// The share of the backends that may be left out at once, rounded down. The last one that is ready never is.
    #[schemars(extend("default" = 0.5))]
    pub(in crate::config) max_ejected: Written<Fraction>,
}

/// What requests are told apart by.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["by"]))]
pub(in crate::config) struct HashKeys {
    /// The client (the caller's address where nobody knows it), the caller's address, the path without its query, or
    /// what a header or a cookie says. A request that has none of it gets a backend by chance.
    pub(in crate::config) by: Written<HashedBy>,
}

/// A cookie by which clients come back to their backend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cookie"]))]
pub(in crate::config) struct StickyKeys {
    /// Its name.
    pub(in crate::config) cookie: Written<CookieName>,
}

/// TLS to backends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct BackendTlsKeys {
    /// The name that backends are asked for and that their certificates must have. Default: the host name of each, or
    /// its IP address.
    #[schemars(extend("default" = null))]
    pub(in crate::config) server_name: Written<OrNone<CertificateName>>,
    /// Whether their certificates are checked. Without that, anybody in between can read and change everything.
    #[schemars(extend("default" = true))]
    pub(in crate::config) verify: Written<Flag>,
    /// A PEM file with the authorities that their certificates are to be signed by, or with the certificates
    /// themselves. Default: the authorities of the system.
    #[schemars(extend("default" = null))]
    pub(in crate::config) ca: Written<OrNone<PemPath>>,
    /// A PEM file: the certificate for backends that ask for one, followed by those that lead to a root.
    #[schemars(extend("default" = null))]
    pub(in crate::config) cert: Written<OrNone<PemPath>>,
    /// A PEM file: the certificate's private key, not encrypted.
    #[schemars(extend("default" = null))]
    pub(in crate::config) key: Written<OrNone<PemPath>>,
}

/// One backend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(in crate::config) struct BackendKeys {
    /// An IP address or a host name, and a port, or `unix:` and the path of a socket. Each address that a name resolves
    /// to is a backend of its own.
    pub(in crate::config) address: Written<BackendPeer>,
    /// Its share of the requests relative to the others.
    #[schemars(extend("default" = 1))]
    pub(in crate::config) weight: Written<BackendWeight>,
}

/// How the health of backends is found out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(in crate::config) struct HealthCheckKeys {
    /// What a check does: opens a connection, asks for a path, asks by `grpc.health.v1`, or nothing.
    #[schemars(extend("default" = "tcp"))]
    pub(in crate::config) r#type: Written<Choice<CheckType>>,
    /// The time from one check of a backend to its next, give or take a tenth.
    #[schemars(extend("default" = "5s"))]
    pub(in crate::config) interval: Written<Period>,
    /// The longest a check may take in all: connecting, asking, and reading the whole answer.
    #[schemars(extend("default" = "1s"))]
    pub(in crate::config) timeout: Written<Period>,
    /// Checks in a row that must pass before a backend that is down is up again.
    #[schemars(extend("default" = 1))]
    pub(in crate::config) healthy_threshold: Written<Threshold>,
    /// Checks in a row that must fail before a backend that is up is down.
    #[schemars(extend("default" = 2))]
    pub(in crate::config) unhealthy_threshold: Written<Threshold>,
    /// The path (and query) to ask for. Only with `type: http`, where the default is `/`.
    pub(in crate::config) path: Written<CheckPath>,
    /// The status, or range of statuses, that counts as healthy. Only with `type: http`, where the default is
    /// `200-399`.
    pub(in crate::config) expect: Written<Expect>,
    /// The service that is asked for. Only with `type: grpc`, where the default is empty, the whole server.
    pub(in crate::config) service: Written<GrpcService>,
}
