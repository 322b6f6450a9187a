//! Making a connection to a backend, and in which words that fails.

use std::io::{self, ErrorKind};
use std::time::Duration;

use pingora_core::{Error, ErrorType, Result};
use pingora_timeout::timeout;
use tokio::net::TcpStream;

use super::site::Site;

/// A connection to a backend. All of them are plain TCP; one of another kind makes an enum of it.
pub type BackendStream = TcpStream;

/// Connects to `site`.
///
/// # Errors
/// When it takes longer than `limit` or fails; the type says how, as Pingora's connector does.
pub(in crate::upstream) async fn connect(site: &Site, limit: Duration) -> Result<BackendStream> {
    let failed = |error: io::Error| Error::because(connect_error(&error), "connecting", error).into_up();
    let connection = match timeout(limit, TcpStream::connect(site.address())).await {
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
