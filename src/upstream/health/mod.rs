//! The health of backends: the rule ([`HealthRecord`]), the check ([`Probe`]), and the loop that runs the checks
//! ([`watch`]).
//!
//! Checks are those of Pingora's `HealthCheck` trait, its loop is not used: it counts backends as healthy
//! before the first check, checks all of them in one burst, has no limit on the whole check, and cannot be told of
//! failures that requests met.

mod ask;
mod monitor;
mod probe;
mod record;

pub use monitor::watch;
pub use probe::Probe;
pub use record::{
    CONNECT_FAILURES, CheckOutcome, ConnectFailure, HealthRecord, HealthStatus, REST, Thresholds, Transition,
};
