//! The sample backend: answers every request with what it saw of it.
//!
//! `GET /health` is 200. The query shapes the answer: `?status=503` its status, `?delay_ms=250` how long it takes,
//! `?bytes=100000` its length.

use std::collections::BTreeMap;
use std::net::{IpAddr, SocketAddr};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use bytes::Bytes;
use http::StatusCode;
use http::header::{CONTENT_LENGTH, CONTENT_TYPE};
use pingora_core::apps::{HttpPersistentSettings, HttpServerApp, ReusedHttpStream};
use pingora_core::protocols::http::ServerSession;
use pingora_core::server::ShutdownWatch;
use pingora_http::ResponseHeader;
use serde::Serialize;

use super::asks::Stop;
use super::conductor::Conductor;
use super::core::ServerActivity;
use super::error::ServerError;
use super::lifecycle::Lifecycle;
use super::listening::Listening;
use super::logs::Logs;
use super::pingora::pingora_server;
use crate::config::PingoraSettings;
use crate::process::{BindError, Bound, Sockets};
use crate::proxy::Activity;
use crate::telemetry::AccessLog;

/// The longest answer that can be asked for, in bytes.
const MAX_BYTES: usize = 1 << 30;
/// The longest delay that can be asked for.
const MAX_DELAY: Duration = Duration::from_secs(600);
/// What a long answer is written in.
const PIECE: usize = 64 << 10;

/// A sample backend whose address is bound.
pub struct Echo {
    name: String,
    socket: Bound,
}

impl Echo {
    /// Binds `address`; port 0 takes a free one.
    ///
    /// # Errors
    /// When the address cannot be had.
    pub fn bind(address: SocketAddr, name: impl Into<String>) -> Result<Self, BindError> {
        Ok(Echo { name: name.into(), socket: Bound::new(address)? })
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.socket.address().tcp().expect("it was bound to one")
    }

    /// Runs it alone until `stop`. Blocks the thread.
    ///
    /// # Errors
    /// When it stops although nobody asked it to.
    pub fn run(self, stop: Stop, settings: &PingoraSettings) -> Result<(), ServerError> {
        let lifecycle = Lifecycle::new();
        let traffic = ServerActivity::default();
        let mut pingora = pingora_server(settings);
        pingora.add_service(self.into_service(&traffic.requests, (&Sockets::default(), &lifecycle)));
        let conductor = Conductor {
            lifecycle: lifecycle.clone(),
            stop,
            traffic,
            tunnels: Arc::default(),
            pools: None,
            logs: Logs { access_log: AccessLog::off(), process: None },
            reloader: None,
            grace_period: settings.grace_period,
            predecessor: None,
            underway: Arc::default(),
        };
        conductor.run(pingora);
        lifecycle.failure().map_or(Ok(()), |reason| Err(ServerError::Failed(reason)))
    }

    pub(super) fn into_service(self, activity: &Arc<Activity>, life: (&Sockets, &Lifecycle)) -> Listening<EchoApp> {
        let name = format!("echo {}", self.name);
        let app = EchoApp { name: self.name, activity: Arc::clone(activity) };
        Listening::new(&name, app, vec![self.socket], (1, &Arc::default()), life)
    }
}

pub(super) struct EchoApp {
    name: String,
    activity: Arc<Activity>,
}

#[async_trait]
impl HttpServerApp for EchoApp {
    async fn process_new_http(
        self: &Arc<Self>,
        mut session: ServerSession,
        shutdown: &ShutdownWatch,
    ) -> Option<ReusedHttpStream> {
        let mut stopping = shutdown.clone();
        tokio::select! {
            biased;
            read = session.read_request() => if !matches!(read, Ok(true)) { return None },
            _ = stopping.wait_for(|stopping| *stopping) => return None,
        }
        let _busy = self.activity.begin();
        while session.read_request_body().await.ok()?.is_some() {}
        let shape = Shape::of(session.req_header().uri.query().unwrap_or_default());
        tokio::time::sleep(shape.delay).await;
        self.answer(&mut session, &shape).await.ok()?;
        if *shutdown.borrow() {
            session.set_keepalive(None);
        }
        let settings = HttpPersistentSettings::for_session(&session);
        let stream = session.finish().await.ok()??;
        Some(ReusedHttpStream::from_reusable_stream(stream, settings))
    }
}

impl EchoApp {
    async fn answer(&self, session: &mut ServerSession, shape: &Shape) -> pingora_core::Result<()> {
        let json = serde_json::to_string(&self.describe(session)).expect("strings and addresses always serialise");
        let length = shape.bytes.unwrap_or(json.len());
        let mut header = ResponseHeader::build(shape.status, Some(4))?;
        header.insert_header("X-Backend", &self.name)?;
        if shape.has_body() {
            let kind = if shape.bytes.is_some() { "application/octet-stream" } else { "application/json" };
            header.insert_header(CONTENT_TYPE, kind)?;
            header.insert_header(CONTENT_LENGTH, length)?;
        }
        session.write_response_header(Box::new(header)).await?;
        if session.req_header().method == http::Method::HEAD || !shape.has_body() {
            return Ok(());
        }
        if shape.bytes.is_none() {
            return session.write_response_body(Bytes::from(json), true).await;
        }
        let piece = Bytes::from(vec![b'x'; length.min(PIECE)]);
        let mut left = length;
        while left > 0 {
            let part = piece.slice(..left.min(PIECE));
            left -= part.len();
            session.write_response_body(part, left == 0).await?;
        }
        Ok(())
    }

    fn describe<'a>(&'a self, session: &'a ServerSession) -> Seen<'a> {
        let head = session.req_header();
        let mut headers = BTreeMap::<&str, String>::new();
        for (name, value) in &head.headers {
            let value = String::from_utf8_lossy(value.as_bytes());
            headers.entry(name.as_str()).and_modify(|all| *all = format!("{all}, {value}")).or_insert(value.into());
        }
        let client = session.client_addr().and_then(|address| Some(address.as_inet()?.ip()));
        Seen { backend: &self.name, method: head.method.as_str(), path: head.uri.path(), headers, client }
    }
}

/// What the backend saw of a request.
#[derive(Debug, Serialize)]
struct Seen<'a> {
    backend: &'a str,
    method: &'a str,
    path: &'a str,
    headers: BTreeMap<&'a str, String>,
    /// Who connected: the proxy.
    client: Option<IpAddr>,
}

/// What the query asks of the answer.
#[derive(Debug, PartialEq, Eq)]
struct Shape {
    status: StatusCode,
    delay: Duration,
    bytes: Option<usize>,
}

impl Shape {
    /// Values that make no sense are passed over, since a sample backend must answer whatever it is asked.
    fn of(query: &str) -> Self {
        let value = |name: &str| query.split('&').find_map(|pair| pair.strip_prefix(name)?.strip_prefix('='));
        let status = value("status").and_then(|text| text.parse().ok()).filter(|status| (200..600).contains(status));
        let delay = value("delay_ms").and_then(|text| text.parse().ok()).map(Duration::from_millis);
        Shape {
            status: status.and_then(|status: u16| StatusCode::from_u16(status).ok()).unwrap_or(StatusCode::OK),
            delay: delay.unwrap_or_default().min(MAX_DELAY),
            bytes: value("bytes").and_then(|text| text.parse().ok()).map(|bytes: usize| bytes.min(MAX_BYTES)),
        }
    }

    fn has_body(&self) -> bool {
        !matches!(self.status, StatusCode::NO_CONTENT | StatusCode::NOT_MODIFIED)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_query_shapes_the_answer() {
        let shape = Shape::of("status=503&delay_ms=250&bytes=100000");
        let delay = Duration::from_millis(250);
        assert_eq!(shape, Shape { status: StatusCode::SERVICE_UNAVAILABLE, delay, bytes: Some(100_000) });
        let plain = Shape { status: StatusCode::OK, delay: Duration::ZERO, bytes: None };
        for query in ["", "status=abc", "status=99", "xstatus=503", "bytes=-1", "&&=&"] {
            assert_eq!(Shape::of(query), plain, "{query}");
        }
    }
}
