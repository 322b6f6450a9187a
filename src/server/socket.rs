//! Listening sockets, made by us so that one that cannot be had ends the start.
//!
//! Pingora binds inside its services, tries thirty times a second apart when the address is taken, and then panics in a
//! task while the process lives on without its listener. So every address is bound before any service starts, which
//! reserves it and tells at once when it is taken. Listening, which is what lets clients in, waits for the service. The
//! socket reaches Pingora through its own table of descriptors, the one that upgrades use.

use std::io;
use std::net::SocketAddr;
use std::os::fd::{IntoRawFd, RawFd};

use tokio::net::TcpSocket;

/// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 65_535;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}{hint}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    cause: io::Error,
    hint: &'static str,
}

impl BindError {
    pub(super) fn new(address: SocketAddr, cause: io::Error) -> Self {
        let hint = match cause.kind() {
            io::ErrorKind::AddrInUse => "; another process listens there (`ss -ltnp` names it)",
            io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE",
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address",
            _ => "",
        };
        BindError { address, cause, hint }
    }
}

/// A socket that is bound and does not listen yet.
#[derive(Debug)]
pub(super) struct Bound {
    address: SocketAddr,
    socket: TcpSocket,
}

impl Bound {
    /// Binds `address`; port 0 takes a free one.
    pub(super) fn new(address: SocketAddr) -> Result<Self, BindError> {
        let bind = || {
            let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
            socket.set_reuseaddr(true)?;
            socket.bind(address)?;
            // With SO_REUSEADDR two sockets may be bound to one address as long as neither listens. So another process'
            // listener is noticed here, another's bound socket in `listen`.
            Ok((socket.local_addr()?, socket))
        };
        let (address, socket) = bind().map_err(|cause| BindError::new(address, cause))?;
        Ok(Bound { address, socket })
    }

    /// Where it is bound.
    pub(super) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in. Must be called inside a runtime.
    pub(super) fn listen(self) -> Result<RawFd, BindError> {
        let listener = self.socket.listen(BACKLOG).and_then(tokio::net::TcpListener::into_std);
        Ok(listener.map_err(|cause| BindError::new(self.address, cause))?.into_raw_fd())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn an_address_that_is_taken_is_an_error_that_names_it() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        let error = Bound::new(address).unwrap_err().to_string();
        assert!(error.starts_with(&format!("cannot listen on {address}: ")), "{error}");
        assert!(error.contains("another process listens there"), "{error}");
    }

    #[tokio::test]
    async fn clients_get_in_only_after_listen() {
        let bound = Bound::new("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.address();
        assert!(std::net::TcpStream::connect(address).is_err());
        bound.listen().unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
    }
}
