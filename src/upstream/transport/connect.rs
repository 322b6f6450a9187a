//! Making a connection to a backend, and in which words that fails.
//!
//! A plain one over TCP is made here and costs no allocation. What takes more than that (a Unix socket, a header, a
//! handshake) is boxed: a request's memory is that of the largest state that it can be in.

use std::io::{self, ErrorKind};
use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};
use pingora_timeout::timeout;
use tokio::io::AsyncWriteExt;
use tokio::net::{TcpStream, UnixStream};
use tokio::time::{Instant, sleep};
use tokio_util::either::Either;

use super::handshake::handshake;
use super::proxy_header::ClientEnds;
use super::site::Site;
use super::stream::BackendStream;
use crate::upstream::{ConnectAddress, UnixPath};

/// How soon a Unix socket is tried again that takes no more connections for now. Over TCP the kernel waits by itself.
const AGAIN: Duration = Duration::from_millis(5);

/// Connects to `site`. A backend that is to be told learns `whose` connection it is, or that it is nobody's.
///
/// # Errors
/// When it takes longer than `limit` or fails; the type says how, as Pingora's connector does.
pub(in crate::upstream) async fn connect(
    site: &Site,
    whose: Option<&ClientEnds>,
    limit: Duration,
) -> Result<BackendStream> {
    match site.address() {
        ConnectAddress::Tcp(address) if site.is_bare() => {
            within(limit, tcp(*address), connect_error).await.map(BackendStream::from)
        }
        _ => Box::pin(furnished(site, whose, limit)).await,
    }
}

/// The same for one that takes more than TCP.
async fn furnished(site: &Site, whose: Option<&ClientEnds>, limit: Duration) -> Result<BackendStream> {
    let began = Instant::now();
    let mut wire = match site.address() {
        ConnectAddress::Tcp(address) => Either::Left(within(limit, tcp(*address), connect_error).await?),
        ConnectAddress::Unix(path) => Either::Right(within(limit, unix(path), unix_error).await?),
    };
    if let Some(version) = site.proxy_protocol() {
        let header = version.header(whose);
        match timeout(limit.saturating_sub(began.elapsed()), wire.write_all(&header)).await {
            Ok(Ok(())) => {}
            Ok(Err(error)) => {
                let kind = ErrorType::Custom("it closed the connection before it was told whose it is");
                return Err(Error::because(kind, "telling whose connection it is", error).into_up());
            }
            Err(_) => {
                return Err(Error::explain(ErrorType::ConnectTimedout, "telling whose connection it is").into_up());
            }
        }
    }
    let Some(tls) = site.tls() else { return Ok(BackendStream::Plain(wire)) };
    match timeout(limit.saturating_sub(began.elapsed()), handshake(wire, tls, site)).await {
        Ok(done) => done,
        Err(_) => Err(Error::explain(ErrorType::TLSHandshakeTimedout, "a TLS handshake").into_up()),
    }
}

async fn within<T>(
    limit: Duration,
    connecting: impl Future<Output = io::Result<T>>,
    kind: fn(&io::Error) -> ErrorType,
) -> Result<T> {
    match timeout(limit, connecting).await {
        Ok(connected) => connected.map_err(|error| Error::because(kind(&error), "connecting", error).into_up()),
        Err(_) => Err(Error::explain(ErrorType::ConnectTimedout, "connecting").into_up()),
    }
}

async fn tcp(address: std::net::SocketAddr) -> io::Result<TcpStream> {
    let connection = TcpStream::connect(address).await?;
    connection.set_nodelay(true)?;
    Ok(connection)
}

async fn unix(path: &UnixPath) -> io::Result<UnixStream> {
    loop {
        match UnixStream::connect(path.path()).await {
            // Its queue is full.
            Err(error) if error.kind() == ErrorKind::WouldBlock => sleep(AGAIN).await,
            connected => return connected,
        }
    }
}

/// What a Unix socket adds: a file that may be missing, or not for us. Both are the backend's doing; over TCP, what is
/// not permitted is so by a firewall of this machine.
fn unix_error(error: &io::Error) -> ErrorType {
    match error.kind() {
        ErrorKind::NotFound => ErrorType::Custom("there is no such socket"),
        ErrorKind::PermissionDenied => ErrorType::Custom("the socket may not be used: permission denied"),
        _ => connect_error(error),
    }
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
