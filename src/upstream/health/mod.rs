//! The health of backends: the rule ([`HealthRecord`]), the check ([`Probe`]), and the loop that runs the checks ([`watch`]).
//!
//! Pingora's own checks are used through its `HealthCheck` trait, its loop is not: Pingora counts backends as healthy
//! before the first check, checks all of them in one burst, has no limit on the whole check, and cannot be told of
//! failures that requests met.

mod monitor;
mod probe;
mod record;

pub use monitor::watch;
pub use probe::Probe;
pub use record::{
    CONNECT_FAILURES, CheckOutcome, ConnectFailure, HealthRecord, HealthStatus, REST, Thresholds, Transition,
};
