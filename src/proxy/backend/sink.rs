//! What takes a request on its way to a backend.

use std::io::{self, IoSlice};
use std::pin::Pin;
use std::task::{Context, Poll};

use tokio::io::AsyncWrite;

use crate::proxy::wire::trailers::Trailers;

/// What takes a request: a connection, to which everything is bytes, or a stream, which knows where a body ends.
pub(in crate::proxy) trait RequestSink: Send {
    /// Takes some of `parts`, none of which is empty; how many bytes. Nothing follows them if they are the `last`.
    fn poll_parts(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>], last: bool) -> Poll<io::Result<usize>>;

    /// Ends a body behind which there are trailers, where they are no bytes.
    ///
    /// # Errors
    /// When nobody takes them.
    fn finish(&mut self, trailers: &Trailers) -> io::Result<()>;

    /// Takes what has come of its answer, where it would cost more than its bytes while nobody does.
    fn look_ahead(&mut self, _cx: &mut Context<'_>) {}
}

/// What takes nothing, while there is no backend yet.
pub(in crate::proxy) struct NobodyYet;

impl RequestSink for NobodyYet {
    fn poll_parts(&mut self, _cx: &mut Context<'_>, _parts: &[IoSlice<'_>], _last: bool) -> Poll<io::Result<usize>> {
        Poll::Pending
    }

    fn finish(&mut self, _trailers: &Trailers) -> io::Result<()> {
        Ok(())
    }
}

impl<S: AsyncWrite + Send + Unpin> RequestSink for S {
    fn poll_parts(&mut self, cx: &mut Context<'_>, parts: &[IoSlice<'_>], _last: bool) -> Poll<io::Result<usize>> {
        match parts {
            // Cheaper than a vector.
            [one] => Pin::new(self).poll_write(cx, one),
            parts => Pin::new(self).poll_write_vectored(cx, parts),
        }
    }

    fn finish(&mut self, _trailers: &Trailers) -> io::Result<()> {
        Ok(())
    }
}
