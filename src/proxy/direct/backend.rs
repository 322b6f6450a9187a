//! One connection to a backend while it has a request.

use std::future::poll_fn;
use std::io::{self, ErrorKind, IoSlice};
use std::net::SocketAddr;
use std::pin::pin;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use pingora_core::{Error, ErrorType, Result};
use pingora_timeout::timeout;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::TcpStream;

use super::client::Client;

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

impl Backend {
    /// Sends a request.
    ///
    /// # Errors
    /// When a part of it takes longer than `limit` or it fails.
    pub(super) async fn send(&mut self, head: &[u8], body: &[u8], limit: Duration) -> Result<()> {
        let (mut head, mut body) = (head, body);
        while !(head.is_empty() && body.is_empty()) {
            let sending = async {
                if body.is_empty() {
                    // Cheaper than a vector with an empty part.
                    return self.connection.write(head).await;
                }
                self.connection.write_vectored(&[IoSlice::new(head), IoSlice::new(body)]).await
            };
            let sent = match timeout(limit, sending).await {
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
    pub(super) async fn read(&mut self, client: &mut impl Client, limit: Duration) -> Result<usize> {
        let mut read = pin!(self.connection.read_buf(&mut self.buffer));
        let read = poll_fn(|cx| match read.as_mut().poll(cx) {
            Poll::Ready(read) => Poll::Ready(
                read.map_err(|error| Error::because(ErrorType::ReadError, "reading an answer", error).into_up()),
            ),
            Poll::Pending => client.poll_gone(cx).map(Err),
        });
        match timeout(limit, read).await {
            Ok(read) => read,
            Err(_) => Err(Error::explain(ErrorType::ReadTimedout, "reading an answer").into_up()),
        }
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
