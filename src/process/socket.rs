//! Listening sockets, made by us so that one that cannot be had ends the start.
//!
//! Pingora binds inside its services, tries thirty times a second apart when the address is taken, and then panics in a
//! task while the process lives on without its listener. So every address is bound before any service starts, which
//! reserves it and tells at once when it is taken. Listening, which is what lets clients in, waits for the service.
//! Then the socket is kept in [`Sockets`]; Pingora gets duplicates.

use std::collections::BTreeMap;
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixListener;
use std::sync::Arc;

use parking_lot::Mutex;
use tokio::net::TcpSocket;

use super::address::ListenAddress;
use super::owner;
use super::unix::bind_path;

/// Connections that wait to be accepted; the kernel cuts it to `net.core.somaxconn`.
const BACKLOG: u32 = 65_535;
/// The same at a path, where they come from this machine.
const PATH_BACKLOG: i32 = 1024;

/// Why an address cannot be listened on.
#[derive(Debug, thiserror::Error)]
#[error("cannot listen on {address}: {cause}{hint}")]
pub struct BindError {
    address: ListenAddress,
    #[source]
    cause: io::Error,
    hint: String,
}

impl BindError {
    pub(crate) fn new(address: ListenAddress, cause: io::Error) -> Self {
        let tcp = address.tcp();
        let hint = match cause.kind() {
            io::ErrorKind::AddrInUse => match tcp.and_then(owner::of) {
                Some(owner) => format!("; {owner} listens there"),
                None if tcp.is_none() => "; another process listens there (`ss -lxp` names it)".to_owned(),
                None => "; another process listens there (`ss -ltnp` names it)".to_owned(),
            },
            io::ErrorKind::PermissionDenied if tcp.is_some() => {
                "; ports below 1024 need root or CAP_NET_BIND_SERVICE".to_owned()
            }
            io::ErrorKind::AddrNotAvailable => "; no interface of this machine has that address".to_owned(),
            _ => String::new(),
        };
        BindError { address, cause, hint }
    }
}

/// A socket that is bound and does not listen yet, or that a predecessor has handed over.
#[derive(Debug)]
pub(crate) struct Bound {
    address: ListenAddress,
    socket: Socket,
}

#[derive(Debug)]
enum Socket {
    New(TcpSocket),
    NewAtPath(OwnedFd),
    /// It listens, and clients may wait in its queue.
    Inherited(ListeningSocket),
}

/// A socket that listens.
#[derive(Debug)]
pub(crate) enum ListeningSocket {
    /// At an address of the network.
    Tcp(TcpListener),
    /// At a path.
    Unix(UnixListener),
}

impl ListeningSocket {
    /// The socket that listens at `address`, as another process has given it.
    ///
    /// # Errors
    /// When it is none, or listens elsewhere.
    pub(crate) fn given(socket: OwnedFd, address: &ListenAddress) -> io::Result<Self> {
        let (socket, is_it) = match address {
            ListenAddress::Tcp(wanted) => {
                let socket = TcpListener::from(socket);
                let is_it = socket.local_addr()? == *wanted;
                (ListeningSocket::Tcp(socket), is_it)
            }
            ListenAddress::Unix(wanted) => {
                let socket = UnixListener::from(socket);
                let is_it = socket.local_addr()?.as_pathname() == Some(wanted);
                (ListeningSocket::Unix(socket), is_it)
            }
        };
        if is_it { Ok(socket) } else { Err(io::ErrorKind::InvalidData.into()) }
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub(crate) fn try_clone(&self) -> io::Result<Self> {
        match self {
            ListeningSocket::Tcp(socket) => socket.try_clone().map(ListeningSocket::Tcp),
            ListeningSocket::Unix(socket) => socket.try_clone().map(ListeningSocket::Unix),
        }
    }
}

impl AsFd for ListeningSocket {
    fn as_fd(&self) -> BorrowedFd<'_> {
        match self {
            ListeningSocket::Tcp(socket) => socket.as_fd(),
            ListeningSocket::Unix(socket) => socket.as_fd(),
        }
    }
}

impl Bound {
    /// Binds `address`; port 0 takes a free one.
    pub(crate) fn new(address: impl Into<ListenAddress>) -> Result<Self, BindError> {
        let address = address.into();
        Self::bind(&address).map_err(|cause| BindError::new(address, cause))
    }

    /// Binds `address` unless somebody listens there, which is `None`. Who it is, is not looked for: among many
    /// connections that takes a while.
    pub(crate) fn if_free(address: impl Into<ListenAddress>) -> Result<Option<Self>, BindError> {
        let address = address.into();
        match Self::bind(&address) {
            Err(error) if error.kind() == io::ErrorKind::AddrInUse => Ok(None),
            bound => bound.map(Some).map_err(|cause| BindError::new(address, cause)),
        }
    }

    fn bind(address: &ListenAddress) -> io::Result<Self> {
        match address {
            ListenAddress::Tcp(address) => Self::bind_tcp(*address),
            ListenAddress::Unix(path) => {
                Ok(Bound { address: address.clone(), socket: Socket::NewAtPath(bind_path(path)?) })
            }
        }
    }

    fn bind_tcp(address: SocketAddr) -> io::Result<Self> {
        let socket = if address.is_ipv4() { TcpSocket::new_v4() } else { TcpSocket::new_v6() }?;
        socket.set_reuseaddr(true)?;
        socket.bind(address)?;
        // With SO_REUSEADDR two sockets may be bound to one address as long as neither listens. So another process'
        // listener is noticed here, another's bound socket in `listen`.
        Ok(Bound { address: socket.local_addr()?.into(), socket: Socket::New(socket) })
    }

    /// The socket that a predecessor has for `address`.
    pub(crate) fn inherited(address: ListenAddress, socket: ListeningSocket) -> Self {
        Bound { address, socket: Socket::Inherited(socket) }
    }

    /// Where it is bound.
    pub(crate) fn address(&self) -> &ListenAddress {
        &self.address
    }

    /// Lets clients in. Must be called inside a runtime.
    pub(crate) fn listen(self) -> Result<ListeningSocket, BindError> {
        let listener = match self.socket {
            Socket::New(socket) => {
                let listener = socket.listen(BACKLOG).and_then(tokio::net::TcpListener::into_std);
                listener.map(ListeningSocket::Tcp)
            }
            Socket::NewAtPath(socket) => {
                let listening = rustix::net::listen(&socket, PATH_BACKLOG).map_err(io::Error::from);
                listening.map(|()| ListeningSocket::Unix(UnixListener::from(socket)))
            }
            Socket::Inherited(listener) => Ok(listener),
        };
        listener.map_err(|cause| BindError::new(self.address, cause))
    }
}

/// The listening sockets of a server.
#[derive(Clone, Debug, Default)]
pub(crate) struct Sockets {
    open: Arc<Mutex<BTreeMap<ListenAddress, ListeningSocket>>>,
}

impl Sockets {
    /// Keeps the socket that listens on `address`.
    pub(crate) fn keep(&self, address: ListenAddress, socket: ListeningSocket) {
        self.open.lock().insert(address, socket);
    }

    /// The same socket once more.
    ///
    /// # Errors
    /// When there is none for `address`, or the process has too many open files.
    pub(crate) fn duplicate(&self, address: &ListenAddress) -> io::Result<ListeningSocket> {
        self.open.lock().get(address).ok_or(io::ErrorKind::NotConnected)?.try_clone()
    }

    /// All of them once more, by their addresses.
    ///
    /// # Errors
    /// When the process has too many open files.
    pub(crate) fn all(&self) -> io::Result<Vec<(ListenAddress, ListeningSocket)>> {
        self.open.lock().iter().map(|(address, socket)| Ok((address.clone(), socket.try_clone()?))).collect()
    }

    /// Closes the sockets for `addresses`, as far as this process goes.
    pub(crate) fn close(&self, addresses: &[ListenAddress]) {
        self.open.lock().retain(|address, _| !addresses.contains(address));
    }
}

/// Takes away what the socket at `address` leaves in the file system, once nobody is to listen there any more.
pub(crate) fn clear_away(address: &ListenAddress) {
    if let ListenAddress::Unix(path) = address {
        // It may be gone already, and a next start takes away what is left.
        let _ = std::fs::remove_file(path);
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
        assert_eq!(*Bound::if_free(address).unwrap().unwrap().address(), address.into());
        // Of the documentation's addresses, which nobody has.
        assert!(Bound::if_free("192.0.2.1:1".parse::<SocketAddr>().unwrap()).is_err());
    }

    #[tokio::test]
    async fn clients_get_in_only_after_listen() {
        let bound = Bound::new("127.0.0.1:0".parse::<SocketAddr>().unwrap()).unwrap();
        let address = bound.address().tcp().unwrap();
        assert!(std::net::TcpStream::connect(address).is_err());
        let listener = bound.listen().unwrap();
        assert!(std::net::TcpStream::connect(address).is_ok());
        drop(listener);
    }

    #[test]
    fn a_socket_lives_as_long_as_one_of_its_duplicates() {
        let listener = TcpListener::bind("127.0.0.1:0").unwrap();
        let (address, sockets) = (listener.local_addr().unwrap(), Sockets::default());
        let key = ListenAddress::from(address);
        assert!(sockets.duplicate(&key).is_err());
        sockets.keep(key.clone(), ListeningSocket::Tcp(listener));
        let duplicate = sockets.duplicate(&key).unwrap();
        sockets.close(std::slice::from_ref(&key));
        assert!(sockets.duplicate(&key).is_err());
        let _waiting = std::net::TcpStream::connect(address).unwrap();
        let ListeningSocket::Tcp(duplicate) = duplicate else { panic!("it is one of TCP") };
        duplicate.accept().unwrap();
    }

    #[tokio::test]
    async fn a_path_is_listened_at_and_given_to_another_process() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("a.sock");
        let address = ListenAddress::Unix(path.clone());
        let bound = Bound::new(address.clone()).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_err());
        let listening = bound.listen().unwrap();
        assert!(Bound::if_free(address.clone()).unwrap().is_none());
        let error = Bound::new(address.clone()).unwrap_err().to_string();
        assert!(error.contains("another process listens there"), "{error}");
        let given = |socket: &ListeningSocket, address: &ListenAddress| {
            ListeningSocket::given(socket.as_fd().try_clone_to_owned().unwrap(), address)
        };
        assert!(given(&listening, &ListenAddress::Unix(dir.path().join("b.sock"))).is_err());
        given(&listening, &address).unwrap();
        assert!(std::os::unix::net::UnixStream::connect(&path).is_ok());
        clear_away(&address);
        assert!(!path.exists());
    }
}
