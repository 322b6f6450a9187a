//! The admin API's server: one connection after the other.
//!
//! The problem: the API shares a process with the proxy, and must stay usable while somebody is slow or hostile towards
//! it. The rule: so many connections and no more, each bounded in every direction (its head, its body, its answers),
//! and none of it on the proxy's threads.
//!
//! It is a Pingora application, so that its socket is handed over in an upgrade as the proxy's are. HTTP itself is
//! hyper's: axum stands on it. Refused: Pingora's own HTTP server with a hand-made router, which would make us keep
//! routing, `HEAD`, `Allow` and body streaming ourselves; a listener of our own beside Pingora's, which an upgrade
//! would close.
//!
//! What remains hyper's: a head that it cannot read, or that is larger than the bounds below, never gets to the router.
//! Its answer is a bare 400, 414 or 431 without a body, and the connection ends.

use std::convert::Infallible;
use std::future::poll_fn;
use std::pin::Pin;
use std::sync::Arc;
use std::time::{Duration, Instant};

use async_trait::async_trait;
use axum::Router;
use axum::response::Response;
use http::HeaderValue;
use http::header::CONNECTION;
use hyper::body::Incoming;
use hyper::server::conn::http1;
use hyper::service::Service;
use hyper_util::rt::{TokioIo, TokioTimer};
use hyper_util::service::TowerToHyperService;
use log::debug;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;
use rustls::ServerConfig;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWrite, AsyncWriteExt};
use tokio::sync::Semaphore;
use tokio::time::{sleep, timeout};
use tokio_io_timeout::TimeoutStream;
use tokio_rustls::TlsAcceptor;
use tokio_rustls::server::TlsStream;

use super::api::ranking::Rankings;
use super::api::{AdminParts, OverTls, Stopping};
use super::router;
use crate::clock::Clock;

/// How many connections are served at once.
const MAX_CONNECTIONS: usize = 256;
/// How many more are told so at once; the rest is closed without a word.
const MAX_TURNED_AWAY: usize = 64;
/// How long a request's head may take, and how long a connection may lie idle.
const HEADER_TIMEOUT: Duration = Duration::from_secs(10);
/// For how long after an answer its last bytes may still be under way.
const RECENT: Duration = Duration::from_millis(400);
/// How long an answer may find no room in the socket.
const WRITE_TIMEOUT: Duration = Duration::from_secs(30);
/// How long an answer goes on once the API closes: whoever reads on gets a million lines in it, and no stop waits
/// longer.
const LAST: Duration = Duration::from_secs(5);
/// How long a closed connection is read on, so that the last answer is not lost by a reset.
const LINGER: Duration = Duration::from_secs(1);
/// The longest head, in bytes.
const MAX_HEAD: usize = 64 << 10;
/// The most header lines of a head; as the proxy has it.
const MAX_HEADERS: usize = 256;

/// What those are told that are too many.
const TOO_MANY: &[u8] = b"HTTP/1.1 503 Service Unavailable\r\nContent-Type: application/json\r\nContent-Length: 45\r\n\
    Retry-After: 1\r\nConnection: close\r\n\r\n{\"code\":503,\"message\":\"Too many connections\"}";

/// Tells what the next handshake is done with.
pub type HandshakeConfig = Box<dyn Fn() -> Arc<ServerConfig> + Send + Sync>;

/// The admin API, to be listened with.
pub struct Admin {
    pub(super) router: Router,
    rankings: Arc<Rankings>,
    /// What handshakes are done with; none is plain HTTP.
    secure: Option<HandshakeConfig>,
    served: Semaphore,
    turned_away: Semaphore,
    clock: Arc<dyn Clock>,
    /// How long a connection must have been silent to be closed once the API closes.
    patience: Arc<dyn Fn() -> Duration + Send + Sync>,
}

impl Admin {
    /// The API over `parts`; over TLS where `secure` says how.
    pub fn new(parts: AdminParts, secure: Option<HandshakeConfig>) -> Self {
        let (clock, patience) = (Arc::clone(&parts.clock), Arc::clone(&parts.patience));
        let (router, rankings) = router::router(parts);
        Admin {
            router,
            rankings,
            secure,
            clock,
            patience,
            served: Semaphore::new(MAX_CONNECTIONS),
            turned_away: Semaphore::new(MAX_TURNED_AWAY),
        }
    }

    /// What it does while nobody asks, for as long as it is there.
    pub fn upkeep(&self) -> impl Future<Output = ()> + Send + use<> {
        self.rankings.upkeep()
    }

    /// Does the handshake, for as long as a head may take; nothing when nothing came of it, or the API closes.
    async fn handshake(
        &self,
        config: &ServerConfig,
        stream: Stream,
        shutdown: &ShutdownWatch,
    ) -> Option<TlsStream<Stream>> {
        // HTTP/2 is not spoken here, whatever else is.
        let mut config = ServerConfig::clone(config);
        config.alpn_protocols = vec![b"http/1.1".to_vec()];
        let acceptor = TlsAcceptor::from(Arc::new(config));
        let mut stopping = shutdown.clone();
        let opened = tokio::select! {
            opened = timeout(HEADER_TIMEOUT, acceptor.accept(stream)) => opened,
            _ = stopping.wait_for(|stopping| *stopping) => return None,
        };
        match opened {
            Ok(Ok(stream)) => Some(stream),
            Ok(Err(error)) => {
                debug!("admin API: a TLS handshake failed: {error}");
                None
            }
            Err(_) => None,
        }
    }

    async fn serve<S>(&self, stream: S, shutdown: &ShutdownWatch)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        match self.served.try_acquire() {
            Ok(_permit) => self.serve_admitted(stream, shutdown).await,
            Err(_) => self.turn_away(stream).await,
        }
    }

    async fn serve_admitted<S>(&self, stream: S, shutdown: &ShutdownWatch)
    where
        S: AsyncRead + AsyncWrite + Unpin + Send + 'static,
    {
        let mut stream = TimeoutStream::new(stream);
        stream.set_write_timeout(Some(WRITE_TIMEOUT));
        let stream = TokioIo::new(Box::pin(stream));
        let heard = Arc::new(Mutex::new(Heard { at: self.clock.now(), asked: false }));
        let service = Boxed {
            router: TowerToHyperService::new(self.router.clone()),
            closing: shutdown.clone(),
            secure: self.secure.is_some(),
            heard: Arc::clone(&heard),
            clock: Arc::clone(&self.clock),
        };
        let mut connection = http1::Builder::new()
            .timer(TokioTimer::new())
            .header_read_timeout(HEADER_TIMEOUT)
            .half_close(true)
            .max_buf_size(MAX_HEAD)
            .max_headers(MAX_HEADERS)
            .serve_connection(stream, service);
        let mut stopping = shutdown.clone();
        let stopped = async {
            let _ = stopping.wait_for(|stopping| *stopping).await;
            let since = self.clock.now();
            sleep((self.patience)().saturating_sub(self.silent(&heard))).await;
            since
        };
        let finished = tokio::select! {
            finished = poll_fn(|context| connection.poll_without_shutdown(context)) => finished,
            since = stopped => {
                // An idle connection ends at once, a busy one after its answer.
                Pin::new(&mut connection).graceful_shutdown();
                tokio::select! {
                    finished = poll_fn(|context| connection.poll_without_shutdown(context)) => finished,
                    () = self.untaken(&heard, since) => return,
                }
            }
        };
        // After an error of the connection itself there is nobody to wait for; a head that took too long is one.
        let stream = connection.into_parts().io.into_inner();
        // Nor is there anything to wait for on one that was silent: no answer is under way.
        if finished.is_ok() && self.silent(&heard) < RECENT {
            linger(stream).await;
        }
    }

    /// How long ago a request was last answered.
    fn silent(&self, heard: &Mutex<Heard>) -> Duration {
        self.clock.now().saturating_duration_since(heard.lock().at)
    }

    /// Until an answer has gone on for [`LAST`] since the API closes. A handler that works is waited for. A body cannot
    /// tell itself: it is asked for its next piece only once the caller has taken the one before.
    async fn untaken(&self, heard: &Mutex<Heard>, closed: Instant) {
        loop {
            let Heard { at, asked } = *heard.lock();
            let gone_on = self.clock.now().saturating_duration_since(at.max(closed));
            match LAST.saturating_sub(gone_on) {
                Duration::ZERO if !asked => return,
                left => sleep(left.max(Duration::from_millis(100))).await,
            }
        }
    }

    async fn turn_away(&self, mut stream: impl AsyncRead + AsyncWrite + Unpin) {
        let Ok(_permit) = self.turned_away.try_acquire() else { return };
        if let Ok(Ok(())) = timeout(LINGER, stream.write_all(TOO_MANY)).await {
            linger(stream).await;
        }
    }
}

#[async_trait]
impl ServerApp for Admin {
    async fn process_new(self: &Arc<Self>, stream: Stream, shutdown: &ShutdownWatch) -> Option<Stream> {
        match &self.secure {
            None => self.serve(stream, shutdown).await,
            Some(config) => {
                // Nobody can be told before the handshake that there are too many.
                let _permit = self.served.try_acquire().ok()?;
                let stream = self.handshake(&config(), stream, shutdown).await?;
                self.serve_admitted(stream, shutdown).await;
            }
        }
        None
    }
}

/// Closes our side, then reads for a moment what the other one still sends: closing with unread bytes resets the
/// connection, which may take the answer with it.
async fn linger(mut stream: impl AsyncRead + AsyncWrite + Unpin) {
    let close = async {
        stream.shutdown().await?;
        let mut unread = vec![0; 16 << 10];
        while stream.read(&mut unread).await? > 0 {}
        std::io::Result::Ok(())
    };
    // However it ends, the connection is over.
    let _ = timeout(LINGER, close).await;
}

/// What a connection's requests have come to.
#[derive(Clone, Copy)]
struct Heard {
    /// When one was last answered.
    at: Instant,
    /// Whether one waits for its answer.
    asked: bool,
}

/// A service whose futures are boxed, as hyper wants them to give the connection back. Once the API closes, each answer
/// is the last one of its connection.
struct Boxed {
    router: TowerToHyperService<Router>,
    closing: ShutdownWatch,
    /// Whether its connection is TLS.
    secure: bool,
    heard: Arc<Mutex<Heard>>,
    clock: Arc<dyn Clock>,
}

impl Service<http::Request<Incoming>> for Boxed {
    type Response = Response;
    type Error = Infallible;
    type Future = Pin<Box<dyn Future<Output = Result<Response, Infallible>> + Send>>;

    fn call(&self, mut request: http::Request<Incoming>) -> Self::Future {
        request.extensions_mut().insert(Stopping(self.closing.clone()));
        if self.secure {
            request.extensions_mut().insert(OverTls);
        }
        self.heard.lock().asked = true;
        let answer = self.router.call(request);
        let (closing, heard, clock) = (self.closing.clone(), Arc::clone(&self.heard), Arc::clone(&self.clock));
        Box::pin(async move {
            let mut answer = answer.await?;
            *heard.lock() = Heard { at: clock.now(), asked: false };
            if *closing.borrow() {
                answer.headers_mut().insert(CONNECTION, HeaderValue::from_static("close"));
            }
            Ok(answer)
        })
    }
}

#[cfg(test)]
mod tests;
