//! A stream that has become a tunnel (RFC 8441): bytes in both directions.

use std::io;
use std::pin::Pin;
use std::task::{Context, Poll, ready};

use bytes::Bytes;
use h2::SendStream;
use tokio::io::{AsyncRead, AsyncWrite, ReadBuf};

use crate::proxy::downstream::http2::upload::Upload;

/// What is given to the stream at once, in bytes.
const PIECE: usize = 32 << 10;

/// Both ends of it that are here.
pub(in crate::proxy) struct StreamEnds {
    upload: Upload,
    writer: SendStream<Bytes>,
    /// What was read and not taken yet.
    read: Bytes,
}

impl StreamEnds {
    /// What comes by `upload`, and goes by `writer`.
    pub(in crate::proxy) fn new(upload: Upload, writer: SendStream<Bytes>) -> Self {
        StreamEnds { upload, writer, read: Bytes::new() }
    }
}

impl AsyncRead for StreamEnds {
    fn poll_read(self: Pin<&mut Self>, cx: &mut Context<'_>, buf: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let ends = self.get_mut();
        if ends.read.is_empty() {
            match ready!(ends.upload.poll_next(cx)) {
                Some(data) => ends.read = data.map_err(io::Error::other)?,
                None => return Poll::Ready(Ok(())),
            }
        }
        let part = ends.read.len().min(buf.remaining());
        buf.put_slice(&ends.read.split_to(part));
        Poll::Ready(Ok(()))
    }
}

impl AsyncWrite for StreamEnds {
    fn poll_write(self: Pin<&mut Self>, cx: &mut Context<'_>, bytes: &[u8]) -> Poll<io::Result<usize>> {
        let writer = &mut self.get_mut().writer;
        let wanted = bytes.len().min(PIECE);
        writer.reserve_capacity(wanted);
        let mut room = writer.capacity();
        if room == 0 {
            match ready!(writer.poll_capacity(cx)) {
                Some(more) => room = more.map_err(io::Error::other)?,
                None => return Poll::Ready(Err(io::ErrorKind::BrokenPipe.into())),
            }
        }
        let part = room.min(wanted);
        let sent = writer.send_data(Bytes::copy_from_slice(&bytes[..part]), false);
        Poll::Ready(sent.map(|()| part).map_err(io::Error::other))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Ok(()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(self.get_mut().writer.send_data(Bytes::new(), true).map_err(io::Error::other))
    }
}
