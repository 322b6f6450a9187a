//! The shape of the file. Its documentation comments and defaults are what the JSON Schema tells an editor.

use std::num::{NonZeroU64, NonZeroUsize};

use schemars::JsonSchema;
use serde::Deserialize;

use super::account::{GroupName, UserName};
use super::address::{AdminAddress, Listen, Target};
use super::choice::{CheckType, Choice};
use super::file::{DatabasePath, Directory, EventsPath, LogPath, PemPath, StatePath, TokenPath};
use super::key::{Key, List, Section};
use super::leaf::{
    CheckPath, Connections, Expect, Flag, Header, Name, Network, PerSec, RouteHost, RoutePath, Size, Span, Threshold,
    Tick, Weight, Whole,
};
use super::optional::{OrAuto, OrNull};
use crate::proxy::{Underscores, UnknownKey};
use crate::telemetry::AccessLogFormat;
use crate::upstream::Balance;

/// The configuration file of tollgate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "tollgate", extend("required" = ["listeners", "upstreams"]))]
pub(super) struct File {
    /// Pingora's own keys.
    pub(super) pingora: Key<Section<Pingora>>,
    /// The addresses to listen on.
    pub(super) listeners: Key<List<Section<Listener>>>,
    /// The admin API.
    pub(super) admin: Key<Section<Admin>>,
    /// Whether requests that need nothing of Pingora's request loop go past it, which costs less. With false every request
    /// goes by the loop.
    #[schemars(extend("default" = true))]
    pub(super) direct: Key<Flag>,
    /// The SQLite file that keeps clients and buckets, made when it is missing; null keeps them in memory only.
    #[schemars(extend("default" = "data/tollgate.db"))]
    pub(super) database: Key<DatabasePath>,
    /// What is kept of the changes of clients.
    pub(super) history: Key<Section<History>>,
    /// The pools of backends.
    pub(super) upstreams: Key<List<Section<Upstream>>>,
    /// Which requests go to which pool. The longest path wins, whatever the order. Can be left out with one upstream.
    pub(super) routes: Key<List<Section<Route>>>,
    /// How callers are told apart.
    pub(super) identity: Key<Section<Identity>>,
    /// The token buckets.
    pub(super) rate_limit: Key<Section<RateLimit>>,
    /// The limits on clients.
    pub(super) limits: Key<Section<Limits>>,
    /// The access log.
    pub(super) access_log: Key<Section<AccessLog>>,
}

/// Pingora's own keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Pingora {
    /// The version of Pingora's file format; there is only one.
    #[schemars(extend("default" = 1))]
    pub(super) version: Key<Whole<u64, 1, 1>>,
    /// Threads of the proxy. Default: the number of cores.
    pub(super) threads: Key<Whole<NonZeroUsize, 1, 1024>>,
    /// Whether a thread may take over another's tasks. Without it each connection stays with one thread.
    #[schemars(extend("default" = false))]
    pub(super) work_stealing: Key<Flag>,
    /// Tasks that accept connections, for each listener.
    #[schemars(extend("default" = 1))]
    pub(super) listener_tasks_per_fd: Key<Whole<NonZeroUsize, 1, 1024>>,
    /// Idle connections to backends that are kept for reuse, in all; each thread keeps its share.
    #[schemars(extend("default" = 1024))]
    pub(super) upstream_keepalive_pool_size: Key<Whole<usize, 0, 1_000_000>>,
    /// The longest a stop waits for requests in flight, in seconds. An idle server stops at once.
    #[schemars(extend("default" = 20))]
    pub(super) grace_period_seconds: Key<Whole<u64, 0, 86_400>>,
    /// Whether it runs in the background, as with `--daemon`.
    #[schemars(extend("default" = false))]
    pub(super) daemon: Key<Flag>,
    /// The file that holds the process id, locked for as long as the process lives. Its directory is made when missing.
    #[schemars(extend("default" = "/run/tollgate/tollgate.pid"))]
    pub(super) pid_file: Key<StatePath>,
    /// The socket over which a running process hands over to its successor.
    #[schemars(extend("default" = "/run/tollgate/upgrade.sock"))]
    pub(super) upgrade_sock: Key<StatePath>,
    /// The user to become once the addresses are bound. Default: the one who starts it.
    pub(super) user: Key<UserName>,
    /// The group to become. Default: the user's.
    pub(super) group: Key<GroupName>,
    /// The directory to work in. Default: where it was started; as a daemon `/`. Relative paths count from where it was
    /// started in any case.
    pub(super) working_directory: Key<Directory>,
    /// Where a daemon's events and standard output go; null is nowhere.
    #[schemars(extend("default" = null))]
    pub(super) error_log: Key<EventsPath>,
}

/// One address to listen on.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(super) struct Listener {
    /// An IP address and a port.
    pub(super) address: Key<Listen>,
    /// The certificate and its key, for HTTPS with HTTP/2 and HTTP/1.1. Default: plain HTTP/1.1.
    pub(super) tls: Key<Section<Tls>>,
}

/// A certificate and its key.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["cert", "key"]))]
pub(super) struct Tls {
    /// A PEM file: the certificate, followed by those that lead to a root.
    pub(super) cert: Key<PemPath>,
    /// A PEM file: the certificate's private key, not encrypted.
    pub(super) key: Key<PemPath>,
}

/// The admin API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Admin {
    /// An IP address and a port; null is off. Whoever can reach an address that is not loopback needs a token.
    #[schemars(extend("default" = "127.0.0.1:9901"))]
    pub(super) address: Key<AdminAddress>,
    /// A file with one token a line, `TOKEN` or `NAME TOKEN`. The variable `TOLLGATE_ADMIN_TOKEN` counts before it.
    #[schemars(extend("default" = null))]
    pub(super) token_file: Key<TokenPath>,
}

/// What is kept of the changes of clients. What a client is now is always kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct History {
    /// How many changes of each client.
    #[schemars(extend("default" = 1000))]
    pub(super) keep: Key<Whole<NonZeroU64, 1, 1_000_000>>,
    /// For how many days.
    #[schemars(extend("default" = 400))]
    pub(super) days: Key<Whole<u64, 1, 36_500>>,
}

/// One pool of backends.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "backends"]))]
pub(super) struct Upstream {
    /// Its name, unique among the upstreams.
    pub(super) name: Key<Name>,
    /// The rule that chooses a backend for each request.
    #[schemars(extend("default" = "round_robin"))]
    pub(super) balance: Key<Choice<Balance>>,
    /// The backends.
    pub(super) backends: Key<List<Section<Backend>>>,
    /// How their health is found out.
    pub(super) health_check: Key<Section<HealthCheck>>,
    /// Further attempts after the first, each on a backend not yet tried; where there is no other, once more on the same.
    #[schemars(extend("default" = 2))]
    pub(super) retries: Key<Whole<u32, 0, 16>>,
    /// To establish a connection. Below a second, one that meets a full accept queue is given up before it is tried again.
    #[schemars(extend("default" = "3s"))]
    pub(super) connect_timeout: Key<Span>,
    /// For each read from a backend; the wait for the first byte of its answer is one.
    #[schemars(extend("default" = "30s"))]
    pub(super) read_timeout: Key<Span>,
    /// For each write to a backend.
    #[schemars(extend("default" = "30s"))]
    pub(super) write_timeout: Key<Span>,
    /// The longest an idle connection is kept for reuse. Less where the backend says or shows that it closes sooner.
    #[schemars(extend("default" = "50s"))]
    pub(super) idle_timeout: Key<Span>,
    /// The longest silence, in both directions, of a WebSocket or another upgraded connection.
    #[schemars(extend("default" = "1h"))]
    pub(super) tunnel_timeout: Key<Span>,
}

/// One backend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["address"]))]
pub(super) struct Backend {
    /// An IP address or a host name, and a port. Each address that a name resolves to is a backend of its own.
    pub(super) address: Key<Target>,
    /// Its share of the requests relative to the others.
    #[schemars(extend("default" = 1))]
    pub(super) weight: Key<Weight>,
}

/// How the health of backends is found out.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HealthCheck {
    /// What a check does: opens a connection, asks for a path, or nothing.
    #[schemars(extend("default" = "tcp"))]
    pub(super) r#type: Key<Choice<CheckType>>,
    /// The time from one check of a backend to its next, give or take a tenth.
    #[schemars(extend("default" = "5s"))]
    pub(super) interval: Key<Span>,
    /// The longest a check may take in all: connecting, asking, and reading the whole answer.
    #[schemars(extend("default" = "1s"))]
    pub(super) timeout: Key<Span>,
    /// Checks in a row that must pass before a backend that is down is up again.
    #[schemars(extend("default" = 1))]
    pub(super) healthy_threshold: Key<Threshold>,
    /// Checks in a row that must fail before a backend that is up is down.
    #[schemars(extend("default" = 2))]
    pub(super) unhealthy_threshold: Key<Threshold>,
    /// The path (and query) to ask for. Only with `type: http`, where the default is `/`.
    pub(super) path: Key<CheckPath>,
    /// The status, or range of statuses, that counts as healthy. Only with `type: http`, where the default is
    /// `200-399`.
    pub(super) expect: Key<Expect>,
}

/// Which requests go to which upstream; needs a host or a path.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["upstream"], "anyOf" = [{"required": ["host"]}, {"required": ["path"]}]))]
pub(super) struct Route {
    /// A host name, or `*.` and a name for all names below it. Default: every host.
    pub(super) host: Key<RouteHost>,
    /// A path; it stands for all paths below it too. Default: every path.
    pub(super) path: Key<RoutePath>,
    /// The name of an upstream.
    pub(super) upstream: Key<Name>,
    /// The largest request body that is passed on. Default: `limits.max_body`.
    pub(super) max_body: Key<Size>,
    /// For each read from a backend; the wait for the first byte of its answer is one. Default: the upstream's.
    pub(super) read_timeout: Key<Span>,
}

/// How callers are told apart.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Identity {
    /// The header that holds an API key. `Authorization: Bearer KEY` is read too.
    #[schemars(extend("default" = "x-api-key"))]
    pub(super) api_key_header: Key<Header>,
    /// What becomes of a caller whose key no client has: it goes by its address, or gets 401.
    #[schemars(extend("default" = "by_address"))]
    pub(super) unknown_api_key: Key<Choice<UnknownKey>>,
    /// The proxies whose `X-Forwarded-For` is believed: addresses or networks.
    #[schemars(extend("default" = []))]
    pub(super) trusted_proxies: Key<List<Network, 0>>,
    /// Anonymous IPv6 callers share a bucket for each prefix of so many bits.
    #[schemars(extend("default" = 64))]
    pub(super) ipv6_prefix: Key<Whole<u8, 1, 64>>,
    /// What becomes of headers with `_` in their name, which CGI and WSGI cannot tell from those with `-`: no backend gets
    /// them, or they are passed on. What this file names is read all the same.
    #[schemars(extend("default" = "drop"))]
    pub(super) underscores: Key<Choice<Underscores>>,
}

/// The token buckets.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateLimit {
    /// Whether anybody is limited.
    #[schemars(extend("default" = true))]
    pub(super) enabled: Key<Flag>,
    /// The quota of callers that no client matches.
    #[schemars(extend("default" = {"capacity": 100, "rate_per_sec": 10}))]
    pub(super) default: Key<Section<Quota>>,
    /// The most buckets there are at once; callers beyond it share one.
    #[schemars(extend("default" = 1_000_000))]
    pub(super) max_buckets: Key<Whole<NonZeroUsize, 1, 100_000_000>>,
    /// How often full buckets are dropped. Decisions are exact in between.
    #[schemars(extend("default" = "1s"))]
    pub(super) refill_interval: Key<Tick>,
    /// How often buckets that are not full are saved; a crash loses at most what happened since.
    #[schemars(extend("default" = "1s"))]
    pub(super) persist_interval: Key<Tick>,
    /// Whether answers carry `RateLimit` headers.
    #[schemars(extend("default" = true))]
    pub(super) headers: Key<Flag>,
}

/// What a caller may spend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["capacity", "rate_per_sec"]))]
pub(super) struct Quota {
    /// The most requests at once, after a rest.
    pub(super) capacity: Key<Whole<u64, 1, 1_000_000_000>>,
    /// Requests a second in the long run.
    pub(super) rate_per_sec: Key<PerSec>,
}

/// The limits on clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct Limits {
    /// The largest request body that is passed on.
    #[schemars(extend("default" = "10MiB"))]
    pub(super) max_body: Key<Size>,
    /// From the first byte of a request to the end of its header.
    #[schemars(extend("default" = "10s"))]
    pub(super) header_timeout: Key<Span>,
    /// How long a connection may stay idle between requests.
    #[schemars(extend("default" = "60s"))]
    pub(super) keepalive_timeout: Key<Span>,
    /// Whether a client that ends its side after a request is taken for gone. Else it gets its answer.
    #[schemars(extend("default" = false))]
    pub(super) abort_on_half_close: Key<Flag>,
    /// The most connections of clients at once; `auto` is as many as the limit of open files allows for.
    #[schemars(extend("default" = "auto"))]
    pub(super) max_connections: Key<OrAuto<Connections>>,
    /// The most of them from one address, or one prefix of IPv6; trusted proxies may have more. Null is no bound.
    #[schemars(extend("default" = null))]
    pub(super) max_connections_per_address: Key<OrNull<Connections>>,
    /// The longest silence in a request's body.
    #[schemars(extend("default" = "60s"))]
    pub(super) body_timeout: Key<Span>,
    /// The fewest bytes a second that a request's body may come at, over all of it and from its tenth second on, until the
    /// answer begins; not for gRPC and upgraded connections. Null is no bound.
    #[schemars(extend("default" = 100))]
    pub(super) min_body_rate: Key<OrNull<Whole<NonZeroU64, 1, 1_000_000_000>>>,
}

/// The access log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AccessLog {
    /// The file that lines are appended to; `-` is standard output, null is off.
    #[schemars(extend("default" = "-"))]
    pub(super) path: Key<LogPath>,
    /// The form of a line.
    #[schemars(extend("default" = "json"))]
    pub(super) format: Key<Choice<AccessLogFormat>>,
}
