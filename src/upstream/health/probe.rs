//! One check of one backend: a `HealthCheck` of Pingora's, over a connection such as requests have.
//!
//! Pingora's own checks make theirs with a connector of their own, which meets other errors and loads the system's
//! certificates for each pool. And they look at the first header there is, which may be that of an interim answer.

use std::io::ErrorKind;
use std::ops::RangeInclusive;
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use http::header::{CONNECTION, HOST, USER_AGENT};
use pingora_core::protocols::http::v1::client::HttpSession;
use pingora_core::protocols::l4::stream::Stream;
use pingora_core::protocols::l4::virt::VirtualSocketStream;
use pingora_core::{Error, ErrorType, Result};
use pingora_http::RequestHeader;
use pingora_load_balancing::health_check::HealthCheck;
use pingora_load_balancing::{Backend as Target, Extensions};
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::time::timeout;

use super::{CheckOutcome, ask};
use crate::upstream::reason::{is_backends_fault, reason};
use crate::upstream::transport::connect;
use crate::upstream::{Backend, BackendStream, Check, PoolSettings, Protocol, Site};

/// Checks the backends of one pool. Dropping a running check closes its connection.
pub struct Probe {
    check: Box<dyn HealthCheck + Send + Sync>,
    limit: Duration,
}

impl Probe {
    /// The check that the settings of `pool` ask for, or `None` when they ask for none. HTTP checks name the pool as
    /// their `Host`, as Envoy's do.
    pub fn new(pool: &PoolSettings) -> Option<Self> {
        let limit = pool.health.timeout;
        let check: Box<dyn HealthCheck + Send + Sync> = match &pool.health.check {
            Check::None => return None,
            Check::Tcp => Box::new(TcpCheck { limit }),
            Check::Http { path, expect } => Box::new(HttpCheck::new(&pool.name, path, expect.clone(), limit)),
            Check::Grpc { service } => Box::new(GrpcCheck { host: pool.name.clone(), service: service.clone(), limit }),
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

/// The backend for a check, with where connections to it lead.
fn target(backend: &Backend) -> Target {
    let mut ext = Extensions::new();
    ext.insert(Arc::clone(backend.site()));
    Target { addr: backend.address().to_pingora(), weight: 1, ext }
}

/// Makes a connection to `target` as a request would.
async fn reach(target: &Target, limit: Duration) -> Result<BackendStream> {
    let site = target.ext.get::<Arc<Site>>().ok_or_else(|| Error::new_str("the backend of a check has no site"))?;
    connect(site, None, limit).await
}

/// Says goodbye over TLS, and hears what there is to say. A server of TLS 1.3 says what it has against a client
/// certificate when the handshake is over for us; one that has nothing to say is well.
async fn part(connection: &mut BackendStream, limit: Duration) -> Result<()> {
    let failed = |error| Err(Error::because(ErrorType::ReadError, "saying goodbye", error).into_up());
    // Where it fails, reading says why.
    let _ = connection.shutdown().await;
    match timeout(limit, connection.read(&mut [0])).await {
        Ok(Err(error)) if error.kind() == ErrorKind::InvalidData => failed(error),
        _ => Ok(()),
    }
}

/// Connects; over TLS, that is a handshake.
struct TcpCheck {
    limit: Duration,
}

#[async_trait]
impl HealthCheck for TcpCheck {
    async fn check(&self, target: &Target) -> Result<()> {
        match reach(target, self.limit).await? {
            BackendStream::Plain(_) => Ok(()),
            mut connection => part(&mut connection, self.limit / 4).await,
        }
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

/// Whether HTTP/2 is spoken over `stream`, which leads to `target`.
fn speaks_http2(target: &Target, stream: &BackendStream) -> bool {
    let known = target.ext.get::<Arc<Site>>().is_some_and(|site| site.protocol() == Protocol::Http2);
    known || stream.negotiated() == Some(Protocol::Http2)
}

/// Asks by gRPC's own protocol for checks.
struct GrpcCheck {
    host: String,
    service: String,
    limit: Duration,
}

#[async_trait]
impl HealthCheck for GrpcCheck {
    async fn check(&self, target: &Target) -> Result<()> {
        ask::serves(reach(target, self.limit).await?, (&self.host, &self.service)).await
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

/// The most interim answers that may come before the one that counts.
const MAX_INTERIM: usize = 64;

/// Asks for a path and looks at the status of the final answer.
struct HttpCheck {
    host: String,
    path: String,
    request: RequestHeader,
    expect: RangeInclusive<u16>,
    limit: Duration,
}

impl HttpCheck {
    fn new(host: &str, path: &str, expect: RangeInclusive<u16>, limit: Duration) -> Self {
        let path_taken = "the configuration takes only paths of visible ASCII";
        let mut request = RequestHeader::build("GET", path.as_bytes(), Some(3)).expect(path_taken);
        for (name, value) in [(HOST, host), (USER_AGENT, ask::AGENT), (CONNECTION, "close")] {
            request.insert_header(name, value).expect("the configuration takes only names that can be a value");
        }
        HttpCheck { host: host.to_owned(), path: path.to_owned(), request, expect, limit }
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
        let stream = reach(target, self.limit).await?;
        if speaks_http2(target, &stream) {
            return self.judge(ask::status(stream, (&self.host, &self.path)).await?);
        }
        let connection = VirtualSocketStream::new(Box::new(stream));
        let mut session = HttpSession::new(Box::new(Stream::from(connection)));
        (session.read_timeout, session.write_timeout) = (Some(self.limit), Some(self.limit));
        session.write_request_header(Box::new(self.request.clone())).await?;
        session.finish_body().await?;
        for _ in 0..=MAX_INTERIM {
            session.read_response().await?;
            let status = session.get_status().map_or(0, |status| status.as_u16());
            if matches!(status, 100 | 102..200) {
                continue;
            }
            self.judge(status)?;
            while session.read_body_ref().await?.is_some() {}
            return Ok(());
        }
        let why = format!("answered with more than {MAX_INTERIM} interim answers");
        Error::e_explain(ErrorType::HTTPStatus(0), why)
    }

    fn health_threshold(&self, _success: bool) -> usize {
        1
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use tokio::net::TcpListener;

    use super::*;
    use crate::upstream::{BackendAddress, BackendId, BackendSettings, Balance, HealthSettings, Timeouts};

    /// What a check of a backend that gives this answer and closes comes to, and what it was asked.
    async fn outcome(answer: &'static [u8]) -> (CheckOutcome, String) {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = listener.local_addr().unwrap();
        let answering = tokio::spawn(async move {
            let (mut connection, mut asked) = (listener.accept().await.unwrap().0, Vec::new());
            while !asked.ends_with(b"\r\n\r\n") {
                assert_ne!(connection.read_buf(&mut asked).await.unwrap(), 0);
            }
            connection.write_all(answer).await.unwrap();
            String::from_utf8(asked).unwrap().to_lowercase()
        });
        let check = Check::Http { path: "/up".into(), expect: 200..=299 };
        let probe = Probe::new(&PoolSettings {
            name: "app".into(),
            balance: Balance::default(),
            backends: vec![BackendSettings { address: BackendAddress::Socket(address), weight: NonZeroU32::MIN }],
            health: HealthSettings { check, timeout: Duration::from_secs(20), ..HealthSettings::default() },
            retries: 0,
            timeouts: Timeouts::default(),
            ..PoolSettings::default()
        });
        let outcome =
            probe.unwrap().run(&Backend::new(BackendId(0), Site::new(address.into(), Arc::default(), None))).await;
        (outcome, answering.await.unwrap())
    }

    #[tokio::test]
    async fn the_final_status_counts_and_what_is_wrong_is_said() {
        let agent = concat!("tollgate/", env!("CARGO_PKG_VERSION"), " (health check)");
        let request = format!("get /up http/1.1\r\nhost: app\r\nuser-agent: {agent}\r\nconnection: close\r\n\r\n");
        let failed = |why: &str| CheckOutcome::Failed(why.to_owned());
        for (answer, expected) in [
            (
                &b"HTTP/1.1 103 Early Hints\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 2\r\n\r\nok"[..],
                CheckOutcome::Passed,
            ),
            (b"HTTP/1.0 204 No Content\r\n\r\n", CheckOutcome::Passed),
            (b"HTTP/1.1 503 Busy\r\nContent-Length: 0\r\n\r\n", failed("answered status 503, expected 200-299")),
            (b"SSH-2.0-OpenSSH_9.2\r\n", failed("it answered something that is not HTTP")),
            (b"\x15\x03\x01\0\x02\x02\x46", failed("it answered in TLS to a plain request")),
            (b"", failed("connection closed before the answer was complete")),
        ] {
            assert_eq!(outcome(answer).await, (expected, request.clone()), "{}", answer.escape_ascii());
        }
    }
}
