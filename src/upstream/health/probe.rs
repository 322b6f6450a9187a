//! One check of one backend, over Pingora's health checks.

use std::ops::RangeInclusive;
use std::time::Duration;

use http::header::{CONNECTION, USER_AGENT};
use pingora_core::{Error, ErrorType};
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::health_check::{HealthCheck, HttpHealthCheck, TcpHealthCheck};
use tokio::time::timeout;

use crate::upstream::reason::{is_backends_fault, reason};
use crate::upstream::{Backend, Check, PoolSettings};

/// Checks the backends of one pool. Dropping a running check closes its connection.
///
/// One for the whole pool, because making Pingora's connector takes milliseconds: it loads the system's certificates.
pub struct Probe {
    check: Box<dyn HealthCheck + Send + Sync>,
    limit: Duration,
}

impl Probe {
    /// The check that the settings of `pool` ask for, or `None` when they ask for none. HTTP checks name the pool as their
    /// `Host`, as Envoy's do.
    pub fn new(pool: &PoolSettings) -> Option<Self> {
        let limit = pool.health.timeout;
        let check: Box<dyn HealthCheck + Send + Sync> = match &pool.health.check {
            Check::None => return None,
            Check::Tcp => {
                let mut check = TcpHealthCheck::new();
                check.peer_template.options.connection_timeout = Some(limit);
                check
            }
            Check::Http { path, expect } => Box::new(http_check(&pool.name, path, expect.clone(), limit)),
        };
        Some(Probe { check, limit })
    }

    /// Checks `backend` once.
    ///
    /// It fails when it is not done, the answer's body included, within the timeout.
    pub async fn run(&self, backend: &Backend) -> Outcome {
        match timeout(self.limit, self.check.check(&target(backend))).await {
            Ok(Ok(())) => Outcome::Passed,
            Ok(Err(error)) if is_backends_fault(&error) => Outcome::Failed(reason(&error)),
            Ok(Err(error)) => Outcome::NotDone(reason(&error)),
            Err(_) => Outcome::Failed(format!("no answer within {}", humantime::format_duration(self.limit))),
        }
    }
}

/// What came of a check; reasons are in words.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum Outcome {
    /// The backend is well.
    Passed,
    /// The backend is not well.
    Failed(String),
    /// This machine could not check it, which says nothing about the backend.
    NotDone(String),
}

fn target(backend: &Backend) -> Target {
    Target { addr: backend.address().into(), weight: 1, ext: pingora_load_balancing::Extensions::new() }
}

fn http_check(host: &str, path: &str, expect: RangeInclusive<u16>, limit: Duration) -> HttpHealthCheck {
    let mut check = HttpHealthCheck::new(host, false);
    check.peer_template.options.connection_timeout = Some(limit);
    check.peer_template.options.read_timeout = Some(limit);
    check.peer_template.options.write_timeout = Some(limit);
    check.req.set_raw_path(path.as_bytes()).expect("the configuration takes only paths of visible ASCII");
    let headers =
        [(USER_AGENT, concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (health check)")), (CONNECTION, "close")];
    for (name, value) in headers {
        check.req.insert_header(name, value).expect("both are valid header values");
    }
    check.validator = Some(Box::new(move |answer| {
        let status = answer.status.as_u16();
        if expect.contains(&status) {
            return Ok(());
        }
        let (low, high) = (expect.start(), expect.end());
        let expected = if low == high { low.to_string() } else { format!("{low}-{high}") };
        Error::e_explain(ErrorType::HTTPStatus(status), format!("answered status {status}, expected {expected}"))
    }));
    check
}
