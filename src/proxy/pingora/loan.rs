//! A connection lent to Pingora for one request.
//!
//! Pingora closes a connection by dropping it, in places that none of its hooks sees. Three things need more than that:
//! an answer that must not be overtaken by a reset (the rest of the request has to be read before closing), an answer
//! of our own after which the connection is still good, and requests that a client sent ahead (pipelining). So Pingora
//! gets a
//! [`Loan`]: it reads no further than the request's own body, and hands the connection back when it is dropped.
//!
//! Long because Pingora asks a dozen traits of what it reads from.

use std::collections::VecDeque;
use std::io;
use std::pin::Pin;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::task::{Context, Poll, ready};
use std::time::Duration;

use async_trait::async_trait;
use bytes::BytesMut;
use parking_lot::Mutex;
use pingora_core::protocols::raw_connect::ProxyDigest;
use pingora_core::protocols::tls::SslDigest;
use pingora_core::protocols::{
    ALPN, GetProxyDigest, GetSocketDigest, GetTimingDigest, Peek, Shutdown, SocketDigest, Ssl, Stream, TimingDigest,
    UniqueID, UniqueIDType,
};
use pingora_core::server::ShutdownWatch;
use pingora_proxy::Session;
use tokio::io::{AsyncRead, AsyncWrite, AsyncWriteExt, ReadBuf};

use crate::proxy::downstream::arrival::is_stopping;
use crate::proxy::downstream::half_closed;
use crate::proxy::downstream::half_closed::HalfClosed;
use crate::proxy::downstream::pace::Waited;
use crate::proxy::exchange::context::Context as ExchangeContext;
use crate::proxy::wire::order::in_order;
use crate::proxy::wire::request_body::Body;
use crate::proxy::wire::rewrite::Rewriter;

/// How many bytes of requests sent ahead are read while one is being answered.
const AHEAD: usize = 4 << 10;

/// A connection on loan.
#[derive(Debug)]
pub(in crate::proxy) struct Loan {
    /// `None` only while being dropped.
    stream: Option<Stream>,
    body: Body,
    ahead: BytesMut,
    /// The lines of the request, as they came.
    lines: Vec<u8>,
    /// Until its request is begun.
    context: Mutex<Option<Box<ExchangeContext>>>,
    /// The header of an answer, on its way.
    head: Rewriter,
    /// For the body.
    waited: Waited,
    shutdown: Arc<ShutdownWatch>,
    end: HalfClose,
    state: Arc<LoanState>,
}

/// What it means when the client ends its side behind its request.
#[derive(Debug)]
pub(in crate::proxy) enum HalfClose {
    /// It is gone.
    Gone,
    /// It gets its answer.
    Waits,
    /// It has done so, and gets its answer.
    Waiting(HalfClosed),
}

/// What becomes of the connection after its loan.
#[derive(Debug, Default)]
struct LoanState {
    reusable: AtomicBool,
    malformed: AtomicBool,
    /// Whether the rest of the request was waited for in vain.
    exhausted: AtomicBool,
    /// Whether the connection speaks another protocol from now on.
    upgraded: AtomicBool,
    /// Bytes that the connection has taken.
    written: AtomicU64,
    /// Whether some of them may not have left this process yet.
    unflushed: AtomicBool,
    /// The lines of each answer as the backend sent them, until its header is written.
    answers: Mutex<VecDeque<Vec<u8>>>,
    returned: Mutex<Option<Returned>>,
}

/// Where the lender waits for the connection.
#[derive(Debug)]
pub(in crate::proxy) struct Lender(Arc<LoanState>);

/// A connection that came back.
#[derive(Debug)]
pub(in crate::proxy) struct Returned {
    /// The connection.
    pub(in crate::proxy) stream: Stream,
    /// What was read of the requests that come next.
    pub(in crate::proxy) ahead: BytesMut,
    /// Whether an answer of our own left it usable.
    pub(in crate::proxy) reusable: bool,
    /// Whether the rest of the request was waited for in vain, so that nobody waits again.
    pub(in crate::proxy) exhausted: bool,
    /// Whether the request was read to its very end, as we see it. Only then does the next one start here.
    pub(in crate::proxy) complete: bool,
}

impl Loan {
    /// Lends `stream` for a request of which `body` is still to come; `ahead` was read behind it. `end` says what it
    /// means when the client ends its side. How long the body is `waited` for is counted. `shutdown` turns true when
    /// the server stops.
    pub(in crate::proxy) fn new(
        (stream, end): (Stream, HalfClose),
        body: Body,
        ahead: BytesMut,
        waited: Waited,
        shutdown: Arc<ShutdownWatch>,
    ) -> (Self, Lender) {
        let state = Arc::new(LoanState::default());
        let (lines, context, head, of_loan) = (Vec::new(), Mutex::default(), Rewriter::default(), Arc::clone(&state));
        let loan =
            Loan { stream: Some(stream), body, ahead, lines, context, head, waited, shutdown, end, state: of_loan };
        (loan, Lender(state))
    }

    /// The same, for a request whose lines came so, and that was let in with this context.
    pub(in crate::proxy) fn with_request(mut self, lines: Vec<u8>, ctx: Box<ExchangeContext>) -> Self {
        self.lines = lines;
        *self.context.get_mut() = Some(ctx);
        self
    }

    /// The context of its request, if that was let in before. Asked once.
    pub(in crate::proxy) fn take_context(&self) -> Option<Box<ExchangeContext>> {
        self.context.lock().take()
    }

    /// The loan under `session`, when it is one.
    pub(in crate::proxy) fn of(session: &Session) -> Option<&Loan> {
        session.as_downstream().stream()?.as_any().downcast_ref()
    }

    /// How long the request's body was waited for.
    pub(in crate::proxy) fn waited(&self) -> Duration {
        self.waited.so_far()
    }

    /// The lines of the request, as they came.
    pub(in crate::proxy) fn lines(&self) -> &[u8] {
        &self.lines
    }

    /// Notes how the lines of one more answer came, the header of which is to be written.
    pub(in crate::proxy) fn add_answer(&self, lines: Vec<u8>) {
        self.state.answers.lock().push_back(lines);
    }

    /// Whether no request is to follow this one: the server stops, or the client has nothing more to say.
    pub(in crate::proxy) fn is_last(&self) -> bool {
        is_stopping(&self.shutdown) || (matches!(self.end, HalfClose::Waiting(_)) && self.ahead.is_empty())
    }

    /// Notes that the answer is whole, and that the client was told that the connection stays.
    pub(in crate::proxy) fn set_reusable(&self) {
        self.state.reusable.store(true, Ordering::Relaxed);
    }

    /// Notes that the rest of the request was waited for in vain.
    pub(in crate::proxy) fn set_exhausted(&self) {
        self.state.exhausted.store(true, Ordering::Relaxed);
    }

    /// Notes that the connection speaks another protocol from now on: whatever comes is passed on.
    pub(in crate::proxy) fn set_upgraded(&self) {
        self.state.upgraded.store(true, Ordering::Relaxed);
    }

    /// Whether the request's body turned out not to be one.
    pub(in crate::proxy) fn is_malformed(&self) -> bool {
        self.state.malformed.load(Ordering::Relaxed)
    }

    /// Counts what a write came to.
    fn count(&self, written: Poll<io::Result<usize>>) -> Poll<io::Result<usize>> {
        if let Poll::Ready(Ok(bytes)) = &written {
            self.state.written.fetch_add(*bytes as u64, Ordering::Relaxed);
        }
        // What it does not take lies before it.
        self.state.unflushed.store(true, Ordering::Relaxed);
        written
    }

    /// Takes what Pingora writes of an answer's header, when it writes one; how much of `bytes` that is.
    fn head(&mut self, bytes: &[u8]) -> Option<usize> {
        if self.is_upgraded() {
            return None;
        }
        let mut answers = self.state.answers.lock();
        let came = answers.front()?;
        let (part, whole) = self.head.take(bytes, |head| in_order(head, came, &[], &[]));
        if whole {
            answers.pop_front();
        }
        Some(part)
    }

    /// Sends the header, as far as it is there.
    fn poll_unsent(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let before = self.head.unsent();
        if before == 0 {
            return Poll::Ready(Ok(()));
        }
        let stream = self.stream.as_mut().expect("it is taken only by drop");
        let sent = self.head.poll_send(cx, Pin::new(stream));
        let _ = self.count(Poll::Ready(Ok(before - self.head.unsent())));
        sent
    }

    fn is_upgraded(&self) -> bool {
        self.state.upgraded.load(Ordering::Relaxed)
    }

    fn stream(&self) -> &Stream {
        self.stream.as_ref().expect("it is taken only by drop")
    }

    fn stream_mut(&mut self) -> &mut Stream {
        self.stream.as_mut().expect("it is taken only by drop")
    }

    fn pinned(&mut self) -> Pin<&mut Stream> {
        Pin::new(self.stream_mut())
    }

    /// The request is complete: what comes now belongs to the next one. Only the end of the connection is passed on,
    /// and not before the client is gone where its own end does not say so.
    fn poll_end(&mut self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        while !matches!(self.end, HalfClose::Waiting(_)) && self.ahead.len() < AHEAD {
            let mut bytes = [0; AHEAD];
            let mut buffer = ReadBuf::new(&mut bytes);
            let read = ready!(Pin::new(self.stream_mut()).poll_read(cx, &mut buffer));
            if half_closed::is_end(&read, buffer.filled().len()) && matches!(self.end, HalfClose::Waits) {
                self.end = HalfClose::Waiting(HalfClosed::new());
            } else if read.is_err() || buffer.filled().is_empty() {
                return Poll::Ready(read);
            }
            self.ahead.extend_from_slice(buffer.filled());
        }
        let Loan { stream: Some(stream), end: HalfClose::Waiting(watch), .. } = self else { return Poll::Pending };
        watch.poll_reset(cx, stream).map(|()| Err(io::ErrorKind::ConnectionReset.into()))
    }
}

impl Lender {
    /// How many bytes the connection has taken since it was lent.
    pub(in crate::proxy) fn written(&self) -> u64 {
        self.0.written.load(Ordering::Relaxed)
    }

    /// Whether all of them have left this process.
    pub(in crate::proxy) fn is_flushed(&self) -> bool {
        !self.0.unflushed.load(Ordering::Relaxed)
    }

    /// The connection, once the loan has been dropped.
    pub(in crate::proxy) fn take_back(self) -> Option<Returned> {
        self.0.returned.lock().take()
    }
}

impl Drop for Loan {
    fn drop(&mut self) {
        if let Some(stream) = self.stream.take() {
            *self.state.returned.lock() = Some(Returned {
                stream,
                ahead: std::mem::take(&mut self.ahead),
                reusable: self.state.reusable.load(Ordering::Relaxed),
                exhausted: self.state.exhausted.load(Ordering::Relaxed),
                complete: self.body.is_done() && !self.is_malformed() && !self.is_upgraded(),
            });
        }
    }
}

impl AsyncRead for Loan {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let loan = self.get_mut();
        if loan.is_upgraded() {
            let part = loan.ahead.len().min(buf.remaining());
            buf.put_slice(&loan.ahead.split_to(part));
            return if part > 0 { Poll::Ready(Ok(())) } else { Pin::new(loan.stream_mut()).poll_read(cx, buf) };
        }
        if loan.state.unflushed.load(Ordering::Relaxed) {
            // Pingora waits, and keeps what is written of a body of known length until it is whole. Where it fails, the
            // next write fails, too.
            let _ = Pin::new(&mut *loan).poll_flush(cx);
        }
        if loan.body.is_done() {
            return loan.poll_end(cx);
        }
        let before = buf.filled().len();
        let read = Pin::new(loan.stream_mut()).poll_read(cx, buf);
        ready!(loan.waited.note(read))?;
        let Ok(part) = loan.body.follow(&buf.filled()[before..]) else {
            loan.state.malformed.store(true, Ordering::Relaxed);
            return Poll::Ready(Err(io::ErrorKind::InvalidData.into()));
        };
        // What comes behind the body belongs to the next request.
        loan.ahead.extend_from_slice(&buf.filled()[before + part..]);
        buf.set_filled(before + part);
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for Loan {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        let loan = self.get_mut();
        if let Some(part) = loan.head(buf) {
            // What fails here, fails again at the next write.
            let _ = loan.poll_unsent(cx);
            return Poll::Ready(Ok(part));
        }
        ready!(loan.poll_unsent(cx))?;
        let written = Pin::new(loan.stream_mut()).poll_write(cx, buf);
        loan.count(written)
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let loan = self.get_mut();
        ready!(loan.poll_unsent(cx))?;
        let flushed = Pin::new(loan.stream_mut()).poll_flush(cx);
        if let Poll::Ready(Ok(())) = flushed {
            loan.state.unflushed.store(false, Ordering::Relaxed);
        }
        flushed
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        let loan = self.get_mut();
        ready!(loan.poll_unsent(cx))?;
        loan.pinned().poll_shutdown(cx)
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[io::IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        let loan = self.get_mut();
        if !loan.is_upgraded() && !loan.state.answers.lock().is_empty() {
            let first = bufs.iter().find(|buf| !buf.is_empty());
            return first.map_or(Poll::Ready(Ok(0)), |first| Pin::new(loan).poll_write(cx, first));
        }
        ready!(loan.poll_unsent(cx))?;
        let written = Pin::new(loan.stream_mut()).poll_write_vectored(cx, bufs);
        loan.count(written)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream().is_write_vectored()
    }
}

#[async_trait]
impl Shutdown for Loan {
    async fn shutdown(&mut self) {
        // Not by the stream's own way, which over TLS warns of each client that is gone already.
        let _ = AsyncWriteExt::shutdown(self.stream_mut()).await;
    }
}

impl UniqueID for Loan {
    fn id(&self) -> UniqueIDType {
        self.stream().id()
    }
}

impl Ssl for Loan {
    fn get_ssl_digest(&self) -> Option<Arc<SslDigest>> {
        self.stream().get_ssl_digest()
    }

    fn selected_alpn_proto(&self) -> Option<ALPN> {
        self.stream().selected_alpn_proto()
    }
}

impl GetTimingDigest for Loan {
    fn get_timing_digest(&self) -> Vec<Option<TimingDigest>> {
        self.stream().get_timing_digest()
    }

    fn get_read_pending_time(&self) -> Duration {
        self.stream().get_read_pending_time()
    }

    fn get_write_pending_time(&self) -> Duration {
        self.stream().get_write_pending_time()
    }
}

impl GetProxyDigest for Loan {
    fn get_proxy_digest(&self) -> Option<Arc<ProxyDigest>> {
        self.stream().get_proxy_digest()
    }
}

impl GetSocketDigest for Loan {
    fn get_socket_digest(&self) -> Option<Arc<SocketDigest>> {
        self.stream().get_socket_digest()
    }
}

impl Peek for Loan {}

#[cfg(test)]
mod tests;
