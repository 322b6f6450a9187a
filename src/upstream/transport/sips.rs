//! A connection in HTTP/2 that is read in sips.
//!
//! The problem: h2 reads and decodes for as long as something comes, which a backend that floods sees to, or a client
//! that has much to say. Meanwhile nobody else on the thread goes on, neither other requests nor the one that would
//! take what comes, or end the flood; and small frames, header sections first of all, take many times their bytes once
//! decoded.
//!
//! The rule: after each [`SIP`] the others have their turn.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

/// What is read at once, in bytes: two of the largest frames.
const SIP: usize = 32 << 10;

/// A connection that is read so.
#[derive(Debug)]
pub struct Sips<S> {
    stream: S,
    read: usize,
}

impl<S> Sips<S> {
    /// Over `stream`.
    pub fn of(stream: S) -> Self {
        Sips { stream, read: 0 }
    }
}

impl<S: AsyncRead + Unpin> AsyncRead for Sips<S> {
    fn poll_read(mut self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        if self.read >= SIP {
            self.read = 0;
            cx.waker().wake_by_ref();
            return Poll::Pending;
        }
        let before = buf.filled().len();
        let read = Pin::new(&mut self.stream).poll_read(cx, buf);
        self.read += buf.filled().len() - before;
        if read.is_pending() {
            self.read = 0;
        }
        read
    }
}

impl<S: AsyncWrite + Unpin> AsyncWrite for Sips<S> {
    fn poll_write(mut self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write(cx, bytes)
    }

    fn poll_write_vectored(
        mut self: Pin<&mut Self>,
        cx: &mut Context<'_>,
        parts: &[IoSlice<'_>],
    ) -> Poll<io::Result<usize>> {
        Pin::new(&mut self.stream).poll_write_vectored(cx, parts)
    }

    fn is_write_vectored(&self) -> bool {
        self.stream.is_write_vectored()
    }

    fn poll_flush(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_flush(cx)
    }

    fn poll_shutdown(mut self: Pin<&mut Self>, cx: &mut Context<'_>) -> Poll<io::Result<()>> {
        Pin::new(&mut self.stream).poll_shutdown(cx)
    }
}
