//! From a listening socket to the thread that serves the connection.
//!
//! Where each thread has a runtime of its own, a new connection goes to the one of two, chosen at random, that has less
//! to do: nearly as even as if all were looked at, and without anything that all threads write to.

use std::io;
use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{FutureExt, try_join_all};
use log::error;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use pingora_core::protocols::l4::stream::Stream as L4Stream;
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use tokio::net::{TcpListener, TcpStream, UnixListener, UnixStream};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::Listening;
use crate::process::{ListenAddress, ListeningSocket};
use crate::proxy::ClientSocket;

/// How long nobody is accepted once there are no descriptors left.
const PAUSE: Duration = Duration::from_secs(1);

impl<A: ServerApp + Send + Sync + 'static> Listening<A> {
    /// Accepts until it is to accept no more, be that for a moment.
    ///
    /// # Errors
    /// When it can accept no more.
    pub(super) async fn accept(&self) -> Result<(), String> {
        // Of one moment all hear, or none: who missed it would go on alone, and the others would wait for it.
        let closed = self.closed().shared();
        try_join_all(self.addresses.iter().map(|address| self.accept_at(address, closed.clone()))).await.map(drop)
    }

    async fn accept_at(
        &self,
        address: &ListenAddress,
        mut closed: impl Future<Output = ()> + Unpin,
    ) -> Result<(), String> {
        let listener = self.sockets.duplicate(address).and_then(Acceptor::new);
        let listener = listener.map_err(|error| format!("cannot accept on {address}: {error}"))?;
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut closed => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok(connection) => {
                    // Who has to wait keeps those who come after it waiting in the kernel.
                    let seated = match &self.seats {
                        Some(seats) => seats.enter().await,
                        None => true,
                    };
                    if seated {
                        self.serve(connection.opened(address));
                    }
                }
                Err(error) if is_dead(&error) => return Err(format!("the listener on {address} died")),
                Err(error) => {
                    error!("cannot accept on {address}: {error}");
                    if is_exhausted(&error) {
                        sleep(PAUSE).await;
                    }
                }
            }
        }
    }

    /// Waits until it is to accept no more.
    async fn closed(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.closed.clone().wait_for(|closed| *closed).await;
    }

    /// Takes in those who wait to be accepted.
    pub(super) fn take_in_the_rest(&self) {
        for address in &self.addresses {
            let Ok(listener) = self.sockets.duplicate(address) else { continue };
            // So that it is closed right after the last one was accepted.
            self.sockets.close(std::slice::from_ref(address));
            while let Ok(accepted) = Accepted::waiting_at(&listener) {
                let Ok(accepted) = accepted else { continue };
                if let Some(seats) = &self.seats {
                    seats.force();
                }
                self.serve(accepted.opened(address));
            }
        }
    }

    /// Has a connection served.
    fn serve(&self, stream: Stream) {
        let (app, told, open) = (Arc::clone(&self.app), self.tell.subscribe(), self.open.begin());
        self.runtime().spawn(async move {
            let mut next = Some(stream);
            while let Some(stream) = next {
                next = app.process_new(stream, &told).await;
            }
            drop(open);
        });
    }

    /// Where the next connection is served.
    fn runtime(&self) -> Handle {
        if self.threads == 1 {
            return Handle::current();
        }
        let (one, other) = (pingora_runtime::current_handle(), pingora_runtime::current_handle());
        if other.metrics().num_alive_tasks() < one.metrics().num_alive_tasks() { other } else { one }
    }
}

/// What accepts at one place.
enum Acceptor {
    Tcp(TcpListener),
    Unix(UnixListener),
}

impl Acceptor {
    fn new(socket: ListeningSocket) -> io::Result<Self> {
        Ok(match socket {
            ListeningSocket::Tcp(socket) => {
                // What is accepted inherits it.
                set_tcp_nodelay(&socket, true)?;
                Acceptor::Tcp(TcpListener::from_std(socket)?)
            }
            ListeningSocket::Unix(socket) => Acceptor::Unix(UnixListener::from_std(socket)?),
        })
    }

    async fn accept(&self) -> io::Result<Accepted> {
        match self {
            Acceptor::Tcp(listener) => listener.accept().await.map(|(stream, peer)| Accepted::Tcp(stream, peer)),
            Acceptor::Unix(listener) => listener.accept().await.map(|(stream, _)| Accepted::Unix(stream)),
        }
    }
}

/// A connection that was accepted.
enum Accepted {
    Tcp(TcpStream, SocketAddr),
    Unix(UnixStream),
}

impl Accepted {
    /// One that waits at `socket`, and whether it could be taken; an error when none waits.
    fn waiting_at(socket: &ListeningSocket) -> io::Result<io::Result<Self>> {
        Ok(match socket {
            ListeningSocket::Tcp(socket) => {
                let (stream, peer) = socket.accept()?;
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                stream.map(|stream| Accepted::Tcp(stream, peer))
            }
            ListeningSocket::Unix(socket) => {
                let (stream, _) = socket.accept()?;
                let stream = stream.set_nonblocking(true).and_then(|()| UnixStream::from_std(stream));
                stream.map(Accepted::Unix)
            }
        })
    }

    /// The connection as it is served; it came in at `address`.
    fn opened(self, address: &ListenAddress) -> Stream {
        match (self, address.tcp()) {
            (Accepted::Tcp(stream, peer), Some(address)) => Box::new(ClientSocket::new(stream, peer, address)),
            (Accepted::Tcp(stream, _), None) => Box::new(L4Stream::from(stream)),
            (Accepted::Unix(stream), _) => Box::new(L4Stream::from(stream)),
        }
    }
}

/// Whether a socket on which accepting fails like this listens no more.
fn is_dead(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::BADF | Errno::NOTSOCK))
}

/// Whether the process or the machine has no descriptors or memory left.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
