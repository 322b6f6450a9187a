//! The checked configuration: what the server is built from.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::path::{Path, PathBuf};
use std::time::Duration;

use super::problem::Problem;
use crate::admin::Access;
use crate::client::Plans;
use crate::fleet::FleetSettings;
use crate::limit::RateLimit;
use crate::process::{ListenAddress, ProcessSettings};
use crate::proxy::{Identity, Limits, ListenerRules, PolicySettings, SiteAnswers};
use crate::route::Route;
use crate::store::HistoryRules;
use crate::telemetry::{AccessLogSettings, TracingSettings};
use crate::tls::ListenerTls;
use crate::upstream::PoolSettings;

/// A configuration in which nothing is wrong: every address parses, every name is unique, every route leads somewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Pingora's own keys.
    pub pingora: PingoraSettings,
    /// The listeners, at least one, no two at the same address.
    pub listeners: Vec<ListenerSettings>,
    /// The admin API; none when it is off.
    pub admin: Option<AdminSettings>,
    /// Whether requests that need nothing of Pingora's request loop go past it. Default: yes.
    pub direct: bool,
    /// The SQLite file that keeps clients and buckets, relative to the working directory; none keeps them in memory
    /// only.
    pub database: Option<PathBuf>,
    /// The nodes that share their clients and their budgets; none where this one is alone. Never without `database`.
    pub fleet: Option<FleetSettings>,
    /// What is kept of the changes of clients.
    pub history: HistoryRules,
    /// How callers are told apart.
    pub identity: Identity,
    /// Quotas that clients have by name.
    pub plans: Plans,
    /// What the site says in place of tollgate's own answers.
    pub answers: Option<SiteAnswers>,
    /// The token buckets.
    pub rate_limit: RateLimit,
    /// What requests pay beside, no two of one name. Default: nothing.
    pub policies: Vec<PolicySettings>,
    /// The pools, at least one.
    pub upstreams: Vec<PoolSettings>,
    /// The routes; one that catches everything stands here when the file names none.
    pub routes: Vec<Route>,
    /// The limits on clients.
    pub limits: Limits,
    /// The access log.
    pub access_log: AccessLogSettings,
    /// What is done about traces; none where there are none.
    pub tracing: Option<TracingSettings>,
    /// What is allowed and yet not wise, one sentence each.
    pub warnings: Vec<String>,
    /// Certificates that are not valid now. They are served all the same, and are errors for whoever only checks.
    pub lapsed: Vec<Problem>,
}

impl Config {
    /// Logs what is not wise about it, and which certificates are not valid.
    pub fn warn(&self) {
        self.warnings.iter().for_each(|warning| log::warn!("{warning}"));
        self.lapsed.iter().for_each(|lapse| log::warn!("{lapse}; it is served all the same"));
    }
}

/// One listener.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ListenerSettings {
    /// Where it listens.
    pub address: SocketAddr,
    /// The certificates and keys of HTTPS, as they were when the configuration was loaded; none is plain HTTP.
    pub tls: Option<ListenerTls>,
    /// What holds for its connections.
    pub rules: ListenerRules,
}

impl From<SocketAddr> for ListenerSettings {
    /// A plain one.
    fn from(address: SocketAddr) -> Self {
        ListenerSettings { address, tls: None, rules: ListenerRules::default() }
    }
}

/// The admin API.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AdminSettings {
    /// Where it listens; none of the listeners' addresses. Default 127.0.0.1:9901.
    pub address: ListenAddress,
    /// Who gets in. [`Access::Loopback`] only with a loopback address, [`Access::Anyone`] only with a path.
    pub access: Access,
    /// The certificate and key of HTTPS, never with a path; none is plain HTTP.
    pub tls: Option<ListenerTls>,
}

/// The keys of Pingora's `ServerConf` that this version takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingoraSettings {
    /// Threads of the proxy service. Default: the number of cores.
    pub threads: NonZeroUsize,
    /// Whether a thread may take over another's tasks. Default: no, each connection stays with one thread. That costs a
    /// tenth less CPU a request and serves all of them more evenly; with it, few connections that have much to do are
    /// spread better. A process in which another server has run needs it: Pingora keeps the runtimes of threads that do
    /// not steal in a static, by the number of the thread, and a number is used again.
    pub work_stealing: bool,
    /// Tasks that accept connections, for each listener. Default 1.
    pub listener_tasks_per_fd: NonZeroUsize,
    /// Idle connections to backends that are kept for reuse, in all; each thread keeps its share. Default 1,024.
    pub upstream_keepalive_pool_size: usize,
    /// The longest a stop waits for requests in flight. Default 20 s.
    pub grace_period: Duration,
    /// How the process runs, and where its files are.
    pub process: ProcessSettings,
}

impl Default for PingoraSettings {
    fn default() -> Self {
        PingoraSettings {
            threads: std::thread::available_parallelism().unwrap_or(NonZeroUsize::MIN),
            work_stealing: false,
            listener_tasks_per_fd: NonZeroUsize::MIN,
            upstream_keepalive_pool_size: 1024,
            grace_period: Duration::from_secs(20),
            process: ProcessSettings::default(),
        }
    }
}

impl Config {
    /// One line that says that `file` is valid and what is in it.
    pub fn summary(&self, file: &Path) -> String {
        let count = |number: usize, what: &str| format!("{number} {what}{}", if number == 1 { "" } else { "s" });
        let backends = self.upstreams.iter().map(|pool| pool.backends.len()).sum();
        let parts = [
            count(self.listeners.len(), "listener"),
            count(self.upstreams.len(), "upstream"),
            count(backends, "backend"),
            count(self.routes.len(), "route"),
        ];
        format!("{} is valid: {}", file.display(), parts.join(", "))
    }
}
