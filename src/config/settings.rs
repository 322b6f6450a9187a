//! The checked configuration: what the server is built from.

use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Duration;

use crate::proxy::Limits;
use crate::route::Route;
use crate::telemetry::AccessLogSettings;
use crate::upstream::PoolSettings;

/// A configuration in which nothing is wrong: every address parses, every name is unique, every route leads somewhere.
#[derive(Clone, Debug, PartialEq)]
pub struct Config {
    /// Pingora's own keys.
    pub pingora: PingoraSettings,
    /// The addresses to listen on, at least one, no two the same.
    pub listeners: Vec<SocketAddr>,
    /// The pools, at least one.
    pub upstreams: Vec<PoolSettings>,
    /// The routes; one that catches everything stands here when the file names none.
    pub routes: Vec<Route>,
    /// The limits on clients.
    pub limits: Limits,
    /// The access log.
    pub access_log: AccessLogSettings,
}

/// The keys of Pingora's `ServerConf` that this version takes.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PingoraSettings {
    /// Threads of the proxy service. Default: the number of cores.
    pub threads: NonZeroUsize,
    /// Whether a thread may take over another's tasks. Default: yes.
    pub work_stealing: bool,
    /// Tasks that accept connections, for each listener. Default 1.
    pub listener_tasks_per_fd: NonZeroUsize,
    /// Idle connections to backends that are kept for reuse, in all. Default 1,024.
    pub upstream_keepalive_pool_size: usize,
    /// The longest a stop waits for requests in flight. Default 20 s.
    pub grace_period: Duration,
}
