//! What operators see of a pool, and what they may change until the next start, as plain data.

use std::fmt;
use std::time::{Duration, SystemTime};

use super::health::{CheckOutcome, HealthStatus};
use super::{ConnectAddress, Ejection, Protocol};

/// The largest weight that a backend may have.
pub const MAX_WEIGHT: u32 = 65_535;

/// What an operator wants of a backend.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum AdminState {
    /// It takes requests, as long as its health checks say that it can.
    Up,
    /// It takes no new requests, retries included, and finishes those that it has. It goes on being checked.
    Drain,
}

/// How a backend stands.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum BackendState {
    /// Not checked yet: it gets no requests.
    Unknown,
    /// It gets requests.
    Up,
    /// It is not well: it gets no requests.
    Down,
    /// It answers badly: it gets no requests for a while, unless too few others are well.
    Ejected,
    /// An operator wants it to get no requests, however well it is.
    Drain,
}

impl BackendState {
    /// The state of a backend of this health.
    pub(super) fn of(health: HealthStatus, draining: bool, ejected: bool) -> Self {
        match (draining, health) {
            (true, _) => BackendState::Drain,
            (false, HealthStatus::Unknown) => BackendState::Unknown,
            (false, HealthStatus::Up) if ejected => BackendState::Ejected,
            (false, HealthStatus::Up) => BackendState::Up,
            (false, HealthStatus::Down) => BackendState::Down,
        }
    }

    /// As the admin API names it.
    pub fn name(self) -> &'static str {
        match self {
            BackendState::Unknown => "unknown",
            BackendState::Up => "up",
            BackendState::Down => "down",
            BackendState::Ejected => "ejected",
            BackendState::Drain => "drain",
        }
    }
}

impl fmt::Display for BackendState {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.name())
    }
}

/// The latest check of a backend.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct LastCheck {
    /// When it began.
    pub at: SystemTime,
    /// How long it took.
    pub took: Duration,
    /// What came of it.
    pub outcome: CheckOutcome,
}

impl LastCheck {
    /// Whether the backend is well; none when this machine could not check it.
    pub fn passed(&self) -> Option<bool> {
        match self.outcome {
            CheckOutcome::Passed => Some(true),
            CheckOutcome::Failed(_) => Some(false),
            CheckOutcome::NotDone(_) => None,
        }
    }

    /// What was wrong, in words, when something was.
    pub fn error(&self) -> Option<&str> {
        match &self.outcome {
            CheckOutcome::Passed => None,
            CheckOutcome::Failed(reason) | CheckOutcome::NotDone(reason) => Some(reason),
        }
    }
}

/// A pool at one moment.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PoolOverview {
    /// Its name.
    pub name: String,
    /// The name of the rule that chooses a backend for each request.
    pub balance: &'static str,
    /// What is spoken to its backends.
    pub protocol: Protocol,
    /// Whether they are spoken to over TLS.
    pub tls: bool,
    /// Its backends, in the order in which it came to know them.
    pub backends: Vec<BackendOverview>,
    /// The configured names that have no address, as `name:port`.
    pub unresolved: Vec<String>,
    /// The requests that ended, since the start.
    pub requests: u64,
    /// The further attempts, on another backend or another connection, since the start.
    pub retries: u64,
    /// Whether ejected backends get requests, as too few others are well.
    pub panic: bool,
}

/// A backend at one moment. Totals count from when its pool came to know it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendOverview {
    /// What the configuration calls it: `address:port`, `unix:/path`, or `name:port`, which several backends may share.
    pub configured: String,
    /// Where it is.
    pub address: ConnectAddress,
    /// Its weight now.
    pub weight: u32,
    /// How it stands.
    pub state: BackendState,
    /// What is known of its health, also while it drains.
    pub health: HealthStatus,
    /// The requests that it holds.
    pub in_flight: usize,
    /// The requests that it was given.
    pub requests: u64,
    /// Those that it failed: no connection, or one that broke or was too slow. An answer is no failure, whatever its
    /// status.
    pub failures: u64,
    /// The requests that had failed before, elsewhere or over another connection.
    pub retries: u64,
    /// How often it was ejected for what it answered.
    pub ejections: u64,
    /// Until when it is ejected, and why.
    pub ejected: Option<Ejection>,
    /// How often it went up.
    pub went_up: u64,
    /// How often it went down.
    pub went_down: u64,
    /// Its latest check; none before the first, and for pools without checks.
    pub last_check: Option<LastCheck>,
    /// The age at which it closes an idle connection, once that was learned.
    pub idle_closes_after: Option<Duration>,
}

/// Why a backend was not changed.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum SetBackendError {
    /// The pool has none there.
    #[error("upstream {pool} has no backend {address}")]
    NoSuchBackend {
        /// The pool's name.
        pool: String,
        /// The address that was asked for.
        address: ConnectAddress,
    },
    /// The weight is out of range.
    #[error("the weight must be a whole number from 1 to {MAX_WEIGHT}, not {0}")]
    Weight(u32),
}
