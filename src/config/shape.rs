//! The shape of the file. Its documentation comments and defaults are what the JSON Schema tells an editor.

use std::num::{NonZeroU32, NonZeroU64, NonZeroUsize};

use schemars::JsonSchema;
use serde::Deserialize;

use super::value::{
    AdminAddress, AnyText, BackendWeight, Choice, Connections, DatabasePath, DirectoryPath, EventsPath, Flag, Fraction,
    GroupName, Header, HeaderField, HeaderPiece, HeaderText, LineField, LogPath, Network, OrAuto, OrNone, OrNull,
    Pattern, PerSec, Period, PoolName, RouteHost, RoutePath, Size, StatePath, Tick, TokenPath, UserName, Whole,
    WholeSeconds,
};
use super::written::{List, Map, Section, Statuses, Written};
use crate::limit::ResetHeader;
use crate::proxy::{Underscores, UnknownKey};
use crate::telemetry::AccessLogFormat;
pub(super) use upstreams::{
    BackendTlsKeys, HashKeys, HealthCheckKeys, OutlierKeys, QueueKeys, RetryBudgetKeys, StickyKeys, UpstreamKeys,
};

mod upstreams;

mod fleet;
mod listeners;
mod policies;
mod tracing;

pub(super) use fleet::{FleetKeys, StoreTlsKeys};
pub(super) use listeners::{AcmeKeys, ListenerKeys, PairKeys, TlsKeys};
pub(super) use policies::{MatchKeys, PolicyKeys};
pub(super) use tracing::TracingKeys;

/// The configuration file of tollgate.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(title = "tollgate", extend("required" = ["listeners", "upstreams"]))]
pub(super) struct FileShape {
    /// Pingora's own keys.
    pub(super) pingora: Written<Section<PingoraKeys>>,
    /// The addresses to listen on.
    pub(super) listeners: Written<List<Section<ListenerKeys>>>,
    /// The admin API.
    pub(super) admin: Written<Section<AdminKeys>>,
    /// Whether requests that need nothing of Pingora's request loop go past it, which costs less. With false every
    /// request goes by the loop.
    #[schemars(extend("default" = true))]
    pub(super) direct: Written<Flag>,
    /// The SQLite file that keeps clients and buckets, made when it is missing; null keeps them in memory only.
    #[schemars(extend("default" = "data/tollgate.db"))]
    pub(super) database: Written<DatabasePath>,
    /// Many nodes that hold their clients to one budget, over Valkey or Redis; null is this node alone. Needs `database`.
    #[schemars(extend("default" = null))]
    pub(super) fleet: Written<OrNone<Section<FleetKeys>>>,
    /// What is kept of the changes of clients.
    pub(super) history: Written<Section<HistoryKeys>>,
    /// The pools of backends.
    pub(super) upstreams: Written<List<Section<UpstreamKeys>>>,
    /// Which requests go to which pool. The longest path wins, whatever the order. Can be left out with one upstream.
    pub(super) routes: Written<List<Section<RouteKeys>, 0>>,
    /// How callers are told apart.
    pub(super) identity: Written<Section<IdentityKeys>>,
    /// Quotas with a name: a client of a plan may spend what the plan has now.
    #[schemars(extend("default" = []))]
    pub(super) plans: Written<List<Section<PlanKeys>, 0>>,
    /// What is said in place of tollgate's own answers, by their status. Null is nothing.
    #[schemars(extend("default" = null))]
    pub(super) answers: Written<OrNone<Statuses<Section<AnswerKeys>>>>,
    /// The token buckets.
    pub(super) rate_limit: Written<Section<RateLimitKeys>>,
    /// The limits on clients.
    pub(super) limits: Written<Section<LimitKeys>>,
    /// The access log.
    pub(super) access_log: Written<OrNone<Section<AccessLogKeys>>>,
    /// Traces, by W3C's Trace Context. Null is none: what clients say of them is passed on as it is.
    #[schemars(extend("default" = null))]
    pub(super) tracing: Written<OrNone<Section<TracingKeys>>>,
}

/// Pingora's own keys.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct PingoraKeys {
    /// The version of Pingora's file format; there is only one.
    #[schemars(extend("default" = 1))]
    pub(super) version: Written<Whole<u64, 1, 1>>,
    /// Threads of the proxy. Default: the number of cores.
    pub(super) threads: Written<Whole<NonZeroUsize, 1, 1024>>,
    /// Whether a thread may take over another's tasks. Without it each connection stays with one thread.
    #[schemars(extend("default" = false))]
    pub(super) work_stealing: Written<Flag>,
    /// Tasks that accept connections, for each listener.
    #[schemars(extend("default" = 1))]
    pub(super) listener_tasks_per_fd: Written<Whole<NonZeroUsize, 1, 1024>>,
    /// Idle connections to backends that are kept for reuse, in all; each thread keeps its share.
    #[schemars(extend("default" = 1024))]
    pub(super) upstream_keepalive_pool_size: Written<Whole<usize, 0, 1_000_000>>,
    /// The longest a stop waits for requests in flight, in seconds. An idle server stops at once.
    #[schemars(extend("default" = 20))]
    pub(super) grace_period_seconds: Written<Whole<u64, 0, 86_400>>,
    /// Whether it runs in the background, as with `--daemon`.
    #[schemars(extend("default" = false))]
    pub(super) daemon: Written<Flag>,
    /// The file that holds the process id, locked for as long as the process lives. Its directory is made when missing.
    #[schemars(extend("default" = "/run/tollgate/tollgate.pid"))]
    pub(super) pid_file: Written<StatePath>,
    /// The socket over which a running process hands over to its successor.
    #[schemars(extend("default" = "/run/tollgate/upgrade.sock"))]
    pub(super) upgrade_sock: Written<StatePath>,
    /// The user to become once the addresses are bound. Default: the one who starts it.
    pub(super) user: Written<UserName>,
    /// The group to become. Default: the user's.
    pub(super) group: Written<GroupName>,
    /// The directory to work in. Default: where it was started; as a daemon `/`. Relative paths count from where it was
    /// started in any case.
    pub(super) working_directory: Written<DirectoryPath>,
    /// Where a daemon's events and standard output go; null is nowhere.
    #[schemars(extend("default" = null))]
    pub(super) error_log: Written<EventsPath>,
}

/// The admin API.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AdminKeys {
    /// An IP address and a port, or `unix:` and the path of a socket, which owner and group may use without a token;
    /// null is off. Whoever can reach an address that is not loopback needs a token.
    #[schemars(extend("default" = "127.0.0.1:9901"))]
    pub(super) address: Written<AdminAddress>,
    /// The certificate and its key, for HTTPS; null is plain HTTP.
    #[schemars(extend("default" = null))]
    pub(super) tls: Written<OrNone<Section<PairKeys>>>,
    /// A file with one token a line, `TOKEN`, `NAME TOKEN` or `viewer NAME TOKEN`, whose holder may only look. The variable `TOLLGATE_ADMIN_TOKEN` counts before it.
    #[schemars(extend("default" = null))]
    pub(super) token_file: Written<TokenPath>,
}

/// What is kept of the changes of clients. What a client is now is always kept.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HistoryKeys {
    /// How many changes of each client.
    #[schemars(extend("default" = 1000))]
    pub(super) keep: Written<Whole<NonZeroU64, 1, 1_000_000>>,
    /// For how many days.
    #[schemars(extend("default" = 400))]
    pub(super) days: Written<Whole<u64, 1, 36_500>>,
}

/// Which requests go to which upstream; needs a host or a path.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend(
    "oneOf" = [{"required": ["upstream"]}, {"required": ["upstreams"]}],
    "anyOf" = [{"required": ["host"]}, {"required": ["path"]}],
))]
pub(super) struct RouteKeys {
    /// A host name, or `*.` and a name for all names below it. Default: every host.
    pub(super) host: Written<RouteHost>,
    /// A path; it stands for all paths below it too. Default: every path.
    pub(super) path: Written<RoutePath>,
    /// The name of an upstream.
    pub(super) upstream: Written<PoolName>,
    /// In place of `upstream`, several of them, each with its share of the requests.
    pub(super) upstreams: Written<List<Section<ShareKeys>>>,
    /// The largest request body that is passed on. Default: `limits.max_body`.
    pub(super) max_body: Written<Size>,
    /// For each read from a backend; the wait for the first byte of its answer is one. Default: the upstream's.
    pub(super) read_timeout: Written<Period>,
    /// What backends do not get of the path: its first segments. `path`, if any, is this or below it.
    pub(super) strip_prefix: Written<RoutePath>,
    /// Whether requests pay into their caller's bucket. With false they do not, and their answers have no rate headers.
    #[schemars(extend("default" = true))]
    pub(super) limit: Written<Flag>,
    /// What is changed of the headers of requests, after all that tollgate itself says in them.
    pub(super) request_headers: Written<Section<HeaderRuleKeys>>,
    /// What is changed of the headers of backends' answers.
    pub(super) response_headers: Written<Section<HeaderRuleKeys>>,
}

/// One of several upstreams of a route.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name"]))]
pub(super) struct ShareKeys {
    /// The name of an upstream.
    pub(super) name: Written<PoolName>,
    /// Its share of the requests relative to the others.
    #[schemars(extend("default" = 1))]
    pub(super) weight: Written<BackendWeight>,
}

/// What is changed of headers: lines are removed first, then edited, then set.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct HeaderRuleKeys {
    /// Headers in place of all of their name. `{client_id}`, `{client_ip}` and `{request_id}` stand for what they say;
    /// where a caller is no client, a header with `{client_id}` is not sent.
    #[schemars(extend("default" = {}))]
    pub(super) set: Written<Map<HeaderText>>,
    /// Names of headers that are not sent.
    #[schemars(extend("default" = []))]
    pub(super) remove: Written<List<HeaderField, 0>>,
    /// Changes of what headers say.
    #[schemars(extend("default" = []))]
    pub(super) edit: Written<List<Section<HeaderEditKeys>, 0>>,
}

/// A change of what a header says.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "from", "to"]))]
pub(super) struct HeaderEditKeys {
    /// The name of the header.
    pub(super) name: Written<HeaderField>,
    /// A regular expression, as Rust's crate `regex` has them; every match is replaced.
    pub(super) from: Written<Pattern>,
    /// What stands in place of a match; `$1` is the first group.
    pub(super) to: Written<HeaderPiece>,
}

/// How callers are told apart.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct IdentityKeys {
    /// The header that holds an API key. `Authorization: Bearer KEY` is read too.
    #[schemars(extend("default" = "x-api-key"))]
    pub(super) api_key_header: Written<Header>,
    /// What becomes of a caller whose key no client has: it goes by its address, or gets 401.
    #[schemars(extend("default" = "by_address"))]
    pub(super) unknown_api_key: Written<Choice<UnknownKey>>,
    /// The proxies whose `X-Forwarded-For` is believed: addresses or networks.
    #[schemars(extend("default" = []))]
    pub(super) trusted_proxies: Written<List<Network, 0>>,
    /// Anonymous IPv6 callers share a bucket for each prefix of so many bits.
    #[schemars(extend("default" = 64))]
    pub(super) ipv6_prefix: Written<Whole<u8, 1, 64>>,
    /// What becomes of headers with `_` in their name, which CGI and WSGI cannot tell from those with `-`: no backend
    /// gets them, or they are passed on. What this file names is read all the same.
    #[schemars(extend("default" = "drop"))]
    pub(super) underscores: Written<Choice<Underscores>>,
    /// Whether backends get the API key that a client is known by. With false its header is taken away, and backends
    /// get `X-Client-Id` instead, with the client's name.
    #[schemars(extend("default" = true))]
    pub(super) forward_api_key: Written<Flag>,
    /// Whether clients are known by the certificates that they show to a listener with `client_ca`, as
    /// `cert:SHA256-FINGERPRINT` or `cert-san:NAME`, where an API key stands.
    #[schemars(extend("default" = false))]
    pub(super) client_certificates: Written<Flag>,
}

/// What is said in place of one of tollgate's own answers.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AnswerKeys {
    /// The type of the body.
    #[schemars(extend("default" = "application/json"))]
    pub(super) content_type: Written<HeaderText>,
    /// Further headers, such as `Access-Control-Allow-Origin`.
    #[schemars(extend("default" = {}))]
    pub(super) headers: Written<Map<HeaderText>>,
    /// The body. `{code}`, `{message}`, `{retry_after}` and `{request_id}` stand for what they say, escaped where the
    /// type is JSON, HTML or XML; `{retry_after}` is null in JSON and empty elsewhere where there is none. Without it
    /// the body is tollgate's own.
    pub(super) body: Written<AnyText>,
}

/// The token buckets.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RateLimitKeys {
    /// Whether anybody is limited.
    #[schemars(extend("default" = true))]
    pub(super) enabled: Written<Flag>,
    /// The quota of callers that no client matches.
    #[schemars(extend("default" = {"capacity": 100, "rate_per_sec": 10}))]
    pub(super) default: Written<Section<QuotaKeys>>,
    /// The most buckets there are at once; callers beyond it share one.
    #[schemars(extend("default" = 1_000_000))]
    pub(super) max_buckets: Written<Whole<NonZeroUsize, 1, 100_000_000>>,
    /// How often full buckets are dropped. Decisions are exact in between.
    #[schemars(extend("default" = "1s"))]
    pub(super) refill_interval: Written<Tick>,
    /// How often buckets that are not full are saved; a crash loses at most what happened since.
    #[schemars(extend("default" = "1s"))]
    pub(super) persist_interval: Written<Tick>,
    /// Whether answers carry `RateLimit` headers.
    #[schemars(extend("default" = true))]
    pub(super) headers: Written<Flag>,
    /// More buckets that requests must pay into, beside their caller's own; all or none is taken.
    #[schemars(extend("default" = []))]
    pub(super) policies: Written<List<Section<PolicyKeys>, 0>>,
    /// The most requests of one caller at once; further ones get 429. A client may have a bound of its own. Null is no
    /// bound.
    #[schemars(extend("default" = null))]
    pub(super) max_concurrent: Written<OrNull<Whole<NonZeroU32, 1, 1_000_000>>>,
    /// What is recorded for recommendations.
    pub(super) record: Written<Section<RecordKeys>>,
    /// What `X-RateLimit-Reset` says: `epoch` is a moment in seconds since 1970, `seconds` how long until then, `off`
    /// leaves the line out. On a 429 it is the moment of `Retry-After`, else when the bucket is full.
    #[schemars(extend("default" = "epoch"))]
    pub(super) reset_header: Written<Choice<ResetHeader>>,
    /// The most that `Retry-After` and the `t` of `RateLimit` say. Null is no bound: they are true then.
    #[schemars(extend("default" = null))]
    pub(super) max_retry_after: Written<OrNull<WholeSeconds>>,
    /// After how many refusals in a row a connection of HTTP/1.1 gets `Connection: close` and is closed. Null is never.
    #[schemars(extend("default" = null))]
    pub(super) close_after: Written<OrNull<Whole<NonZeroU32, 1, 1_000_000_000>>>,
    /// Whether `GET /.well-known/ratelimit` on a listener tells the caller how it stands, and takes nothing. With false
    /// it is a request like any other.
    #[schemars(extend("default" = false))]
    pub(super) self_service: Written<Flag>,
}

/// What is recorded for recommendations: the requests of each second, for an hour.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct RecordKeys {
    /// Of how many clients at most, the busiest; 16 KiB for each at most. With 0 nothing is recorded.
    #[schemars(extend("default" = 10_000))]
    pub(super) clients: Written<Whole<usize, 0, 1_000_000>>,
}

/// What a caller may spend.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["capacity", "rate_per_sec"]))]
pub(super) struct QuotaKeys {
    /// The most requests at once, after a rest.
    pub(super) capacity: Written<Whole<u64, 1, 1_000_000_000>>,
    /// Requests a second in the long run.
    pub(super) rate_per_sec: Written<PerSec>,
}

/// A quota with a name.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
#[schemars(extend("required" = ["name", "capacity", "rate_per_sec"]))]
pub(super) struct PlanKeys {
    /// The name that clients have it by. When it is taken out of the file, each of them has
    /// the quota that was kept when it got the plan.
    pub(super) name: Written<PoolName>,
    /// The most requests of a client at once, after a rest.
    pub(super) capacity: Written<Whole<u64, 1, 1_000_000_000>>,
    /// Requests of a client a second in the long run.
    pub(super) rate_per_sec: Written<PerSec>,
}

/// The limits on clients.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct LimitKeys {
    /// The largest request body that is passed on.
    #[schemars(extend("default" = "10MiB"))]
    pub(super) max_body: Written<Size>,
    /// From the first byte of a request to the end of its header.
    #[schemars(extend("default" = "10s"))]
    pub(super) header_timeout: Written<Period>,
    /// How long a connection may stay idle between requests.
    #[schemars(extend("default" = "60s"))]
    pub(super) keepalive_timeout: Written<Period>,
    /// Whether a client that ends its side after a request is taken for gone. Else it gets its answer.
    #[schemars(extend("default" = false))]
    pub(super) abort_on_half_close: Written<Flag>,
    /// The most connections of clients at once; `auto` is as many as the limit of open files allows for.
    #[schemars(extend("default" = "auto"))]
    pub(super) max_connections: Written<OrAuto<Connections>>,
    /// The most of them from one address, or one prefix of IPv6; trusted proxies may have more. Null is no bound.
    #[schemars(extend("default" = null))]
    pub(super) max_connections_per_address: Written<OrNull<Connections>>,
    /// The longest silence in a request's body.
    #[schemars(extend("default" = "60s"))]
    pub(super) body_timeout: Written<Period>,
    /// The fewest bytes a second that a request's body may come at, over all of it and from its tenth second on, until
    /// the answer begins; not for gRPC and upgraded connections. Null is no bound.
    #[schemars(extend("default" = 100))]
    pub(super) min_body_rate: Written<OrNull<Whole<NonZeroU64, 1, 1_000_000_000>>>,
}

/// The access log.
#[derive(Debug, Default, Deserialize, JsonSchema)]
#[serde(default, deny_unknown_fields)]
pub(super) struct AccessLogKeys {
    /// The file that lines are appended to; `-` is standard output, null is off.
    #[schemars(extend("default" = "-"))]
    pub(super) path: Written<LogPath>,
    /// The form of a line.
    #[schemars(extend("default" = "json"))]
    pub(super) format: Written<Choice<AccessLogFormat>>,
    /// The share of requests that get a line, whatever they came to.
    #[schemars(extend("default" = 1.0))]
    pub(super) sample: Written<Fraction>,
    /// What a line in JSON holds, in this order: names of fields, or a field with another name, such as
    /// `{status: code}`. Null is what all lines have.
    #[schemars(extend("default" = null))]
    pub(super) fields: Written<OrNone<List<LineField>>>,
}
