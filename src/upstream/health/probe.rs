//! One check of one backend, over Pingora's health checks.

use std::ops::RangeInclusive;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONNECTION, HOST, USER_AGENT};
use pingora_core::connectors::http::Connector;
use pingora_core::upstreams::peer::HttpPeer;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_load_balancing::Backend as Target;
use pingora_load_balancing::health_check::{HealthCheck, TcpHealthCheck};
use tokio::time::timeout;

use super::CheckOutcome;
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
            Check::Http { path, expect } => Box::new(HttpCheck::new(&pool.name, path, expect.clone(), limit)),
        };
        Some(Probe { check, limit })
    }

    /// Checks `backend` once.
    ///
    /// It fails when it is not done, the answer's body included, within the timeout.
    pub async fn run(&self, backend: &Backend) -> CheckOutcome {
        match timeout(self.limit, self.check.check(&target(backend))).await {
            Ok(Ok(())) => CheckOutcome::Passed,
            Ok(Err(error)) if is_backends_fault(&error) => CheckOutcome::Failed(reason(&error)),
            Ok(Err(error)) => CheckOutcome::NotDone(reason(&error)),
            Err(_) => CheckOutcome::Failed(format!("no answer within {}", humantime::format_duration(self.limit))),
        }
    }
}

fn target(backend: &Backend) -> Target {
    Target { addr: backend.address().into(), weight: 1, ext: pingora_load_balancing::Extensions::new() }
}

/// The most interim answers that may come before the one that counts.
const MAX_INTERIM: usize = 64;

/// Asks for a path and looks at the status of the final answer. Pingora's own check looks at the first header there is,
/// which may be that of an interim answer.
struct HttpCheck {
    connector: Connector,
    peer: HttpPeer,
    request: RequestHeader,
    expect: RangeInclusive<u16>,
}

impl HttpCheck {
    fn new(host: &str, path: &str, expect: RangeInclusive<u16>, limit: Duration) -> Self {
        let mut peer = HttpPeer::new("0.0.0.0:1", false, String::new());
        peer.options.connection_timeout = Some(limit);
        peer.options.read_timeout = Some(limit);
        peer.options.write_timeout = Some(limit);
        let path_taken = "the configuration takes only paths of visible ASCII";
        let mut request = RequestHeader::build("GET", path.as_bytes(), Some(3)).expect(path_taken);
        let agent = concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (health check)");
        for (name, value) in [(HOST, host), (USER_AGENT, agent), (CONNECTION, "close")] {
            request.insert_header(name, value).expect("the configuration takes only names that can be a value");
        }
        HttpCheck { connector: Connector::new(None), peer, request, expect }
    }

    /// What is wrong with the final `status`, if anything is.
    fn judge(&self, status: u16) -> Result<()> {
        if self.expect.contains(&status) {
            return Ok(());
        }
        let (low, high) = (self.expect.start(), self.expect.end());
        let expected = if low == high { low.to_string() } else { format!("{low}-{high}") };
        Error::e_explain(ErrorType::HTTPStatus(status), format!("answered status {status}, expected {expected}"))
    }
}

#[async_trait]
impl HealthCheck for HttpCheck {
    async fn check(&self, target: &Target) -> Result<()> {
        let mut peer = self.peer.clone();
        peer._address = target.addr.clone();
        let (mut session, _) = self.connector.get_http_session(&peer).await?;
        session.set_write_timeout(peer.options.write_timeout);
        session.set_read_timeout(peer.options.read_timeout);
        session.write_request_header(Box::new(self.request.clone())).await?;
        session.finish_request_body().await?;
        for _ in 0..=MAX_INTERIM {
            session.read_response_header().await?;
            let status = session.response_header().map_or(0, |answer| answer.status.as_u16());
            if matches!(status, 100 | 102..200) {
                continue;
            }
            self.judge(status)?;
            while session.read_response_body().await?.is_some() {}
            return Ok(());
        }
        let why = format!("answered with more than {MAX_INTERIM} interim answers");
        Error::e_explain(ErrorType::HTTPStatus(0), why)
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}
