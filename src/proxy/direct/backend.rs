//! One connection to a backend while it has a request.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::{Pin, pin};
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::protocols::Stream;
use pingora_core::{Error, ErrorType, Result};
use pingora_timeout::timeout;
use tokio::io::{AsyncRead, AsyncReadExt, AsyncWriteExt, ReadBuf};
use tokio::net::TcpStream;

/// How many bytes of requests sent ahead are read while one is being answered.
const AHEAD: usize = 4 << 10;
/// How many of them are read at once.
const AHEAD_CHUNK: usize = 512;

/// A connection, and what was read of the answer and not used yet.
#[derive(Debug)]
pub(super) struct Backend {
    pub(super) connection: TcpStream,
    pub(super) buffer: BytesMut,
}

/// Connects to the backend at `address`.
///
/// # Errors
/// When it takes longer than `limit` or fails; the type says how, as Pingora's connector does.
pub(super) async fn connect(address: SocketAddr, limit: Duration) -> Result<TcpStream> {
    let failed = |error: io::Error| Error::because(connect_error(&error), "connecting", error).into_up();
    let connection = match timeout(limit, TcpStream::connect(address)).await {
        Ok(connected) => connected.map_err(failed)?,
        Err(_) => return Err(Error::explain(ErrorType::ConnectTimedout, "connecting").into_up()),
    };
    connection.set_nodelay(true).map_err(failed)?;
    Ok(connection)
}

fn connect_error(error: &io::Error) -> ErrorType {
    match error.kind() {
        ErrorKind::ConnectionRefused => ErrorType::ConnectRefused,
        ErrorKind::TimedOut => ErrorType::ConnectTimedout,
        ErrorKind::AddrNotAvailable => ErrorType::BindError,
        ErrorKind::NetworkUnreachable | ErrorKind::HostUnreachable => ErrorType::ConnectNoRoute,
        ErrorKind::PermissionDenied | ErrorKind::AddrInUse => ErrorType::InternalError,
        _ if is_exhausted(error) => ErrorType::SocketError,
        _ => ErrorType::ConnectError,
    }
}

/// Whether this process or machine has no descriptor or memory left for a socket.
fn is_exhausted(error: &io::Error) -> bool {
    use rustix::io::Errno;
    let lacks = [Errno::MFILE, Errno::NFILE, Errno::NOBUFS, Errno::NOMEM];
    error.raw_os_error().is_some_and(|code| lacks.iter().any(|errno| errno.raw_os_error() == code))
}

/// The client's side, while a backend is waited for.
pub(super) struct Watched<'c> {
    /// The client's connection.
    pub(super) client: &'c mut Stream,
    /// What came over it behind the request.
    pub(super) ahead: &'c mut BytesMut,
}

impl Backend {
    /// Sends a request.
    ///
    /// # Errors
    /// When a part of it takes longer than `limit` or it fails.
    pub(super) async fn send(&mut self, head: &[u8], body: &[u8], limit: Duration) -> Result<()> {
        let (mut head, mut body) = (head, body);
        while !(head.is_empty() && body.is_empty()) {
            let parts = [IoSlice::new(head), IoSlice::new(body)];
            let sent = match timeout(limit, self.connection.write_vectored(&parts)).await {
                Ok(Ok(0)) => Err(Error::explain(ErrorType::WriteError, "sending a request")),
                Ok(Ok(sent)) => Ok(sent),
                Ok(Err(error)) => Err(Error::because(ErrorType::WriteError, "sending a request", error)),
                Err(_) => Err(Error::explain(ErrorType::WriteTimedout, "sending a request")),
            };
            let sent = sent.map_err(|error| error.into_up())?;
            let of_head = sent.min(head.len());
            (head, body) = (&head[of_head..], &body[sent - of_head..]);
        }
        Ok(())
    }

    /// Reads on, at least a byte and at most what the buffer has room for; 0 at the end of the connection.
    ///
    /// # Errors
    /// When nothing comes within `limit`, when it fails, or when the client goes meanwhile.
    pub(super) async fn read(&mut self, watched: &mut Watched<'_>, limit: Duration) -> Result<usize> {
        let mut read = pin!(self.connection.read_buf(&mut self.buffer));
        let read = poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(read) => Poll::Ready(
                read.map_err(|error| Error::because(ErrorType::ReadError, "reading an answer", error).into_up()),
            ),
            Poll::Pending => watched.poll_gone(cx).map(Err),
        });
        match timeout(limit, read).await {
            Ok(read) => read,
            Err(_) => Err(Error::explain(ErrorType::ReadTimedout, "reading an answer").into_up()),
        }
    }
}

impl Watched<'_> {
    /// Waits until the client goes. What it sends meanwhile is the start of its next request, and as long as some of
    /// that is there it cannot be seen whether it has gone.
    fn poll_gone(&mut self, cx: &mut std::task::Context<'_>) -> Poll<Box<Error>> {
        while self.ahead.len() < AHEAD {
            let mut bytes = [0; AHEAD_CHUNK];
            let mut bytes = ReadBuf::new(&mut bytes);
            match Pin::new(&mut *self.client).poll_read(cx, &mut bytes) {
                Poll::Pending => return Poll::Pending,
                Poll::Ready(Ok(())) if !bytes.filled().is_empty() => self.ahead.extend_from_slice(bytes.filled()),
                Poll::Ready(Ok(())) => {
                    return Poll::Ready(Error::explain(ErrorType::ConnectionClosed, "the client went").into_down());
                }
                Poll::Ready(Err(error)) => {
                    return Poll::Ready(Error::because(ErrorType::ReadError, "the client went", error).into_down());
                }
            }
        }
        Poll::Pending
    }

    /// Sends `bytes` to the client.
    ///
    /// # Errors
    /// When a part of it takes longer than `limit` or it fails.
    pub(super) async fn send(&mut self, bytes: &[u8], limit: Duration) -> Result<()> {
        let mut left = bytes;
        while !left.is_empty() {
            let sent = match timeout(limit, self.client.write(left)).await {
                Ok(Ok(0)) => Err(Error::explain(ErrorType::WriteError, "sending an answer")),
                Ok(Ok(sent)) => Ok(sent),
                Ok(Err(error)) => Err(Error::because(ErrorType::WriteError, "sending an answer", error)),
                Err(_) => Err(Error::explain(ErrorType::WriteTimedout, "sending an answer")),
            };
            left = &left[sent.map_err(|error| error.into_down())?..];
        }
        Ok(())
    }

    /// Makes sure that what was sent leaves this process.
    ///
    /// # Errors
    /// When it takes longer than `limit` or fails.
    pub(super) async fn flush(&mut self, limit: Duration) -> Result<()> {
        let failed = match timeout(limit, self.client.flush()).await {
            Ok(Ok(())) => return Ok(()),
            Ok(Err(error)) => Error::because(ErrorType::WriteError, "sending an answer", error),
            Err(_) => Error::explain(ErrorType::WriteTimedout, "sending an answer"),
        };
        Err(failed.into_down())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_this_machine_lacks_is_told_from_what_the_backend_does() {
        for (code, expected) in [
            (111, ErrorType::ConnectRefused),
            (110, ErrorType::ConnectTimedout),
            (101, ErrorType::ConnectNoRoute),
            (113, ErrorType::ConnectNoRoute),
            (99, ErrorType::BindError),
            (13, ErrorType::InternalError),
            (24, ErrorType::SocketError),
            (104, ErrorType::ConnectError),
        ] {
            assert_eq!(connect_error(&io::Error::from_raw_os_error(code)), expected, "{code}");
        }
    }
}
