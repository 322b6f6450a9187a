//! A connection to a backend, of whichever kind.
//!
//! The plain kind costs what a `TcpStream` costs, and a look at which kind it is. What is particular to TLS: what is
//! written may wait in here until the socket takes it, so whoever reads on sends it first; something may come over a
//! connection on which nobody speaks (tickets), so whether it is silent is asked of TLS and not of the socket; and an
//! end without a goodbye is an end, as for nginx, HAProxy and Envoy, which many servers count on.

use std::io::{self, ErrorKind, IoSlice};
use std::os::fd::{AsFd, BorrowedFd};
use std::pin::Pin;
use std::task::{Context, Poll, Waker, ready};

use pingora_core::protocols::l4::virt::{VirtualSockOpt, VirtualSocket};
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};
use tokio::net::{TcpStream, UnixStream};
use tokio_rustls::client::TlsStream;
use tokio_util::either::Either;

use super::manner::Protocol;

/// How much of what a backend says first is remembered until its handshake is done.
const FIRST: usize = 16;

/// A connection to a backend.
#[derive(Debug)]
pub enum BackendStream {
    /// As it comes.
    Plain(Wire),
    /// In TLS.
    Tls(Box<TlsStream<TlsWire>>),
}

/// What carries bytes: TCP, or a Unix socket.
pub type Wire = Either<TcpStream, UnixStream>;

/// What carries TLS, and what came over it first: only that tells what it is that is no TLS.
#[derive(Debug)]
pub struct TlsWire {
    wire: Wire,
    first: [u8; FIRST],
    seen: usize,
}

impl BackendStream {
    /// What was agreed on by ALPN; none where that was not spoken, or came to nothing.
    pub fn negotiated(&self) -> Option<Protocol> {
        match self {
            BackendStream::Plain(_) => None,
            BackendStream::Tls(tls) => match tls.get_ref().1.alpn_protocol()? {
                b"h2" => Some(Protocol::Http2),
                b"http/1.1" => Some(Protocol::Http1),
                _ => None,
            },
        }
    }

    /// Whether it is open and nothing has come over it that nobody took. Without a system call where the runtime was
    /// told of nothing.
    pub(super) fn is_silent(&mut self) -> bool {
        match self {
            BackendStream::Plain(Either::Left(tcp)) => is_blocked(tcp.try_read(&mut [0])),
            BackendStream::Plain(Either::Right(unix)) => is_blocked(unix.try_read(&mut [0])),
            BackendStream::Tls(tls) => {
                let (mut byte, cx) = ([0], &mut Context::from_waker(Waker::noop()));
                Pin::new(tls).poll_read(cx, &mut ReadBuf::new(&mut byte)).is_pending()
            }
        }
    }

    /// Whether all that was written has left this process.
    pub(super) fn is_flushed(&self) -> bool {
        match self {
            BackendStream::Plain(_) => true,
            BackendStream::Tls(tls) => !tls.get_ref().1.wants_write(),
        }
    }

    /// Waits until there is something to read, or may be.
    pub fn poll_read_ready(&self, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.wire() {
            Either::Left(tcp) => tcp.poll_read_ready(cx),
            Either::Right(unix) => unix.poll_read_ready(cx),
        }
    }

    /// The TCP connection that carries it, if one does.
    pub fn tcp(&self) -> Option<&TcpStream> {
        match self.wire() {
            Either::Left(tcp) => Some(tcp),
            Either::Right(_) => None,
        }
    }

    /// Has it end by a reset when it is dropped, where its kind has such a thing.
    pub fn reset_at_end(&self) {
        if let Some(tcp) = self.tcp() {
            // Where it fails, it ends as others do.
            let _ = tcp.set_zero_linger();
        }
    }

    fn wire(&self) -> &Wire {
        match self {
            BackendStream::Plain(wire) => wire,
            BackendStream::Tls(tls) => &tls.get_ref().0.wire,
        }
    }
}

impl TlsWire {
    /// Over `wire`, of which nothing was read yet.
    pub(super) fn new(wire: Wire) -> Self {
        TlsWire { wire, first: [0; FIRST], seen: 0 }
    }

    /// What came first.
    pub(super) fn first(&self) -> &[u8] {
        &self.first[..self.seen]
    }
}

impl From<TcpStream> for BackendStream {
    fn from(tcp: TcpStream) -> Self {
        BackendStream::Plain(Either::Left(tcp))
    }
}

fn is_blocked(read: io::Result<usize>) -> bool {
    read.is_err_and(|error| error.kind() == ErrorKind::WouldBlock)
}

impl AsFd for BackendStream {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self.wire() {
            Either::Left(tcp) => tcp.as_fd(),
            Either::Right(unix) => unix.as_fd(),
        }
    }
}

impl AsyncRead for BackendStream {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            BackendStream::Plain(wire) => Pin::new(wire).poll_read(cx, buf),
            BackendStream::Tls(tls) => {
                if tls.get_ref().1.wants_write() {
                    // Where it fails, what was said before that is still to be read.
                    let _ = Pin::new(&mut *tls).poll_flush(cx);
                }
                match ready!(Pin::new(tls).poll_read(cx, buf)) {
                    Err(error) if error.kind() == ErrorKind::UnexpectedEof => Poll::Ready(Ok(())),
                    read => Poll::Ready(read),
                }
            }
        }
    }
}

impl AsyncWrite for BackendStream {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            BackendStream::Plain(wire) => Pin::new(wire).poll_write(cx, buf),
            BackendStream::Tls(tls) => Pin::new(tls).poll_write(cx, buf),
        }
    }

    fn poll_write_vectored(
        self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        match self.get_mut() {
            BackendStream::Plain(wire) => Pin::new(wire).poll_write_vectored(cx, bufs),
            BackendStream::Tls(tls) => Pin::new(tls).poll_write_vectored(cx, bufs),
        }
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            BackendStream::Plain(wire) => Pin::new(wire).poll_flush(cx),
            BackendStream::Tls(tls) => Pin::new(tls).poll_flush(cx),
        }
    }

    fn poll_shutdown(self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        match self.get_mut() {
            BackendStream::Plain(wire) => Pin::new(wire).poll_shutdown(cx),
            BackendStream::Tls(tls) => Pin::new(tls).poll_shutdown(cx),
        }
    }
}

impl VirtualSocket for BackendStream {
    fn set_socket_option(&self, _: VirtualSockOpt) -> io::Result<()> {
        // It has what it needs.
        Ok(())
    }
}

impl AsyncRead for TlsWire {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let TlsWire { wire, first, seen } = self.get_mut();
        let before = buf.filled().len();
        ready!(Pin::new(wire).poll_read(cx, buf))?;
        if *seen < FIRST {
            let read = &buf.filled()[before..];
            let part = read.len().min(FIRST - *seen);
            first[*seen..*seen + part].copy_from_slice(&read[..part]);
            *seen += part;
        }
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for TlsWire {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write(cx, buf)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        bufs: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.wire).poll_write_vectored(cx, bufs)
    }

    fn is_write_vectored(&self) -> bool {
        true
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.wire).poll_shutdown(cx)
    }
}
