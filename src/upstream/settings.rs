//! What a pool is built from. Checked by `config` before it gets here, so nothing in it can be wrong.

use std::fmt;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use http::HeaderName;

use super::selector::Balance;
use super::{Manner, OutlierRules, QueueRules, RetryBudget, RetryOn, UnixPath};

/// One pool of backends.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolSettings {
    /// Its name, unique among the pools.
    pub name: String,
    /// The rule that chooses a backend for each request.
    pub balance: Balance,
    /// What requests are told apart by, for a rule that goes by it. Default `None`: by their client.
    pub hash: Option<HashBy>,
    /// The cookie by which clients stay with their backend. Default `None`: they do not.
    pub sticky: Option<Arc<str>>,
    /// Over which time the weight of a backend that comes back grows from a tenth to the whole. Default 0: at once.
    pub slow_start: Duration,
    /// The backends, in the order of the file; at least one.
    pub backends: Vec<BackendSettings>,
    /// How their health is found out.
    pub health: HealthSettings,
    /// Further attempts after the first, each on a backend not yet tried; where there is no other, once more on the
    /// same. Default 2.
    pub retries: u32,
    /// What a further attempt is made for. Default: whatever no backend has answered.
    pub retry_on: RetryOn,
    /// How many further attempts all requests may have together; any number if there is none. Default: a fifth of the
    /// requests, and ten a second besides.
    pub retry_budget: Option<RetryBudget>,
    /// How many requests a backend may hold at once. Default `None`: any number.
    pub max_in_flight: Option<usize>,
    /// How requests wait for one that has room.
    pub queue: QueueRules,
    /// When backends that answer badly are left out. Default `None`: never.
    pub outlier: Option<OutlierRules>,
    /// How a connection to a backend is held.
    pub timeouts: Timeouts,
    /// How its backends are spoken to. Default: in HTTP/1.1, without TLS.
    pub manner: Arc<Manner>,
}

impl Default for PoolSettings {
    /// A pool without a name and without backends, which is to be given both.
    fn default() -> Self {
        PoolSettings {
            name: String::new(),
            balance: Balance::default(),
            hash: None,
            sticky: None,
            slow_start: Duration::ZERO,
            backends: Vec::new(),
            health: HealthSettings::default(),
            retries: 2,
            retry_on: RetryOn::default(),
            retry_budget: Some(RetryBudget::default()),
            max_in_flight: None,
            queue: QueueRules::default(),
            outlier: None,
            timeouts: Timeouts::default(),
            manner: Arc::default(),
        }
    }
}

/// What requests are told apart by.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum HashBy {
    /// Their client, or the address of a caller whom nobody knows.
    Client,
    /// The address that counts as their caller's.
    Address,
    /// Their path, without its query.
    Path,
    /// What the first header of this name says.
    Header(HeaderName),
    /// What the first cookie of this name says.
    Cookie(String),
}

/// The time limits of an exchange with a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Timeouts {
    /// To establish a connection. Default 3 s: a SYN that met a full accept queue is repeated after one second.
    pub connect: Duration,
    /// For each read; the wait for the first byte of the answer is one read. Default 30 s.
    pub read: Duration,
    /// For each write. Default 30 s.
    pub write: Duration,
    /// The longest an idle connection is kept for reuse. Default 50 s; less where the backend says or shows that it
    /// closes sooner.
    pub idle: Duration,
    /// The longest silence in both directions of a connection that speaks another protocol by now. Default 1 h.
    pub tunnel: Duration,
}

impl Default for Timeouts {
    fn default() -> Self {
        Timeouts {
            connect: Duration::from_secs(3),
            read: Duration::from_secs(30),
            write: Duration::from_secs(30),
            idle: Duration::from_secs(50),
            tunnel: Duration::from_secs(60 * 60),
        }
    }
}

/// One backend as the file names it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendSettings {
    /// Where it is.
    pub address: BackendAddress,
    /// Its share of the requests relative to the others, 1 to 65,535. Default 1.
    pub weight: NonZeroU32,
}

/// Where a backend is: an address, or a name that is resolved again and again.
#[derive(Clone, Debug, PartialEq, Eq, Hash)]
pub enum BackendAddress {
    /// An IP address and port.
    Socket(SocketAddr),
    /// A host name and port. Each address that it resolves to is a backend of its own.
    Name {
        /// The host name.
        host: String,
        /// The port.
        port: u16,
    },
    /// A Unix socket.
    Unix(UnixPath),
}

impl BackendAddress {
    /// The name that is looked up, if it is one.
    pub fn host(&self) -> Option<&str> {
        match self {
            BackendAddress::Name { host, .. } => Some(host),
            BackendAddress::Socket(_) | BackendAddress::Unix(_) => None,
        }
    }
}

impl fmt::Display for BackendAddress {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        match self {
            BackendAddress::Socket(address) => address.fmt(f),
            BackendAddress::Name { host, port } => write!(f, "{host}:{port}"),
            BackendAddress::Unix(path) => path.fmt(f),
        }
    }
}

/// How the health of a pool's backends is found out.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct HealthSettings {
    /// What a check does.
    pub check: Check,
    /// The time from one check of a backend to its next, give or take a tenth. Default 5 s.
    pub interval: Duration,
    /// The longest a check may take in all: connecting, asking, and reading the whole answer. Default 1 s.
    pub timeout: Duration,
    /// Checks in a row that must pass before a backend that is down is up again. Default 1.
    pub healthy_threshold: NonZeroU32,
    /// Checks in a row that must fail before a backend that is up is down. Default 2.
    pub unhealthy_threshold: NonZeroU32,
}

impl Default for HealthSettings {
    fn default() -> Self {
        HealthSettings {
            check: Check::Tcp,
            interval: Duration::from_secs(5),
            timeout: Duration::from_secs(1),
            healthy_threshold: NonZeroU32::MIN,
            unhealthy_threshold: NonZeroU32::MIN.saturating_add(1),
        }
    }
}

/// What a health check does.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub enum Check {
    /// Nothing: a backend is up unless requests fail to connect to it.
    None,
    /// Opens a TCP connection.
    #[default]
    Tcp,
    /// Sends `GET path` and looks at the status.
    Http {
        /// The path (and query) to ask for.
        path: String,
        /// The statuses that count as healthy.
        expect: RangeInclusive<u16>,
    },
    /// Asks by `grpc.health.v1` whether a service serves.
    Grpc {
        /// Its name; empty is the whole server.
        service: String,
    },
}
