//! Listening sockets, made by us so that one that cannot be had ends the start.
//!
//! Pingora binds inside its services, tries thirty times a second apart when the address is taken, and then panics in a
//! task while the process lives on without its listener. So every address is bound before any service starts, which
//! reserves it and tells at once when it is taken. Listening, which is what lets clients in, waits for the service.
//! Then the socket is kept in [`Sockets`]; Pingora gets duplicates.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpSocket;

use super::owner;

/// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 65_535;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}{hint}")]
pub struct BindError {
    address: SocketAddr,
    #[source]
    cause: io::Error,
    hint: String,
}

impl BindError {
    pub(crate) fn new(address: SocketAddr, cause: io::Error) -> Self {
        let hint = match cause.kind() {
            io::ErrorKind::AddrInUse => match owner::of(address) {
                Some(owner) => format!("; {owner} listens there"),
                None => "; another process listens there (`ss -ltnp` names it)".to_owned(),
            },
            io::ErrorKind::PermissionDenied => "; ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned(),
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address".to_owned(),
            _ => String::new(),
        };
        BindError { address, cause, hint }
    }
}

/// A socket that is bound and does not listen yet, or that a predecessor has handed over.
#[derive(Debug)]
pub(crate) struct Bound {
    address: SocketAddr,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    New(TcpSocket),
    /// It listens, and clients may wait in its queue.
    Inherited(TcpListener),
}

impl Bound {
    /// Binds `address`; port 0 takes a free one.
    pub(crate) fn new(address: SocketAddr) -> Result<Self, BindError> {
        Self::bind(address).map_err(|cause| BindError::new(address, cause))
    }

    /// Binds `address` unless somebody listens there, which is `None`. Who it is, is not looked for: among many
    /// connections that takes a while.
    pub(crate) fn if_free(address: SocketAddr) -> Result<Option<Self>, BindError> {
        match Self::bind(address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            bound => bound.map(Some).map_err(|cause| BindError::new(address, cause)),
        }
    }

    fn bind(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        // With SO_REUSEADDR two sockets may be bound to one address as long as neither listens. So another process'
        // listener is noticed here, another's bound socket in `listen`.
        Ok(Bound { address: socket.local_addr()?, socket: Socket::New(socket) })
    }

    /// The socket that a predecessor has for `address`.
    pub(crate) fn inherited(address: SocketAddr, socket: TcpListener) -> Self {
        Bound { address, socket: Socket::Inherited(socket) }
    }

    /// Where it is bound.
    pub(crate) fn address(&self) -> SocketAddr {
        self.address
    }

    /// Lets clients in. Must be called inside a runtime.
    pub(crate) fn listen(self) -> Result<TcpListener, BindError> {
        let listener = match self.socket {
            Socket::New(socket) => socket.listen(BACKLOG).and_then(tokio::net::TcpListener::into_std),
            Socket::Inherited(listener) => Ok(listener),
        };
        listener.map_err(|cause| BindError::new(self.address, cause))
    }
}

/// The listening sockets of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets {
    open: Arc<Mutex<BTreeMap<SocketAddr, TcpListener>>>,
}

impl Sockets {
    /// Keeps the socket that listens on `address`.
    pub(crate) fn keep(&self, address: SocketAddr, socket: TcpListener) {
        self.open.lock().insert(address, socket);
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// When there is none for `address`, or the process has too many open files.
    pub(crate) fn duplicate(&self, address: SocketAddr) -> io::Result<TcpListener> {
        self.open.lock().get(&address).ok_or(io::ErrorKind::NotConnected)?.try_clone()
    }

    /// All of them once more, by their addresses.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub(crate) fn all(&self) -> io::Result<Vec<(SocketAddr, TcpListener)>> {
        self.open.lock().iter().map(|(address, socket)| Ok((*address, socket.try_clone()?))).collect()
    }

    /// Closes the sockets for `addresses`, as far as this process goes.
    pub(crate) fn close(&self, addresses: &[SocketAddr]) {
        self.open.lock().retain(|address, _| !addresses.contains(address));
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
        assert!(error.ends_with(&format!("(pid {}) listens there", std::process::id())), "{error}");
    }

    #[test]
    fn an_address_is_bound_if_it_is_free() {
        let taken = std::net::TcpListener::bind("127.0.0.1:0").unwrap();
        let address = taken.local_addr().unwrap();
        assert!(Bound::if_free(address).unwrap().is_none());
        drop(taken);
        assert_eq!(Bound::if_free(address).unwrap().unwrap().address(), address);
        // Of the documentation's addresses, which nobody has.
        assert!(Bound::if_free("192.0.2.1:1".parse().unwrap()).is_err());
    }

    #[tokio::test]
    async fn clients_get_in_only_after_listen() {
        let bound = Bound::new("127.0.0.1:0".parse().unwrap()).unwrap();
        let address = bound.address();
        assert!(std::net::TcpStream::connect(address).is_err());
        let listener = bound.listen().unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
        drop(listener);
    }

    #[test]
    fn a_socket_lives_as_long_as_one_of_its_duplicates() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, sockets) = (listener.local_addr().unwrap(), Sockets::default());
        assert!(sockets.duplicate(address).is_err());
        sockets.keep(address, listener);
        let duplicate = sockets.duplicate(address).unwrap();
        sockets.close(&[address]);
        assert!(sockets.duplicate(address).is_err());
        let _waiting = std::net::TcpStream::connect(address).unwrap();
        duplicate.accept().unwrap();
    }
}
