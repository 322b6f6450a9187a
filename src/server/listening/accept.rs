//! From a listening socket to the thread that serves the connection.
//!
//! Where each thread has a runtime of its own, a new connection goes to the one of two, chosen at random, that has less
//! to do: nearly as even as if all were looked at, and without anything that all threads write to.

use std::io;
use std::net::SocketAddr;
use std::pin::pin;
use std::sync::Arc;
use std::time::Duration;

use futures_util::future::try_join_all;
use log::error;
use pingora_core::apps::ServerApp;
use pingora_core::protocols::Stream;
use rustix::io::Errno;
use rustix::net::sockopt::set_tcp_nodelay;
use tokio::net::{TcpListener, TcpStream};
use tokio::runtime::Handle;
use tokio::time::sleep;

use super::Listening;
use crate::proxy::ClientSocket;

/// How long nobody is accepted once there are no descriptors left.
const PAUSE: Duration = Duration::from_secs(1);

impl<A: ServerApp + Send + Sync + 'static> Listening<A> {
    /// Accepts until it is to accept no more, be that for a moment.
    ///
    /// # Errors
    /// When it can accept no more.
    pub(super) async fn accept(&self) -> Result<(), String> {
        try_join_all(self.addresses.iter().map(|address| self.accept_at(*address))).await.map(drop)
    }

    async fn accept_at(&self, address: SocketAddr) -> Result<(), String> {
        let listener = self.sockets.duplicate(address).and_then(|listener| {
            // What is accepted inherits it.
            set_tcp_nodelay(&listener, true)?;
            TcpListener::from_std(listener)
        });
        let listener = listener.map_err(|error| format!("cannot accept on {address}: {error}"))?;
        let mut closed = pin!(self.closed());
        loop {
            let accepted = tokio::select! {
                biased;
                () = &mut closed => return Ok(()),
                accepted = listener.accept() => accepted,
            };
            match accepted {
                Ok((stream, peer)) => {
                    // Who has to wait keeps those who come after it waiting in the kernel.
                    let seated = match &self.seats {
                        Some(seats) => seats.enter().await,
                        None => true,
                    };
                    if seated {
                        self.serve(ClientSocket::new(stream, peer, address));
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
            let Ok(listener) = self.sockets.duplicate(*address) else { continue };
            // So that it is closed right after the last one was accepted.
            self.sockets.close(&[*address]);
            while let Ok((stream, peer)) = listener.accept() {
                let stream = stream.set_nonblocking(true).and_then(|()| TcpStream::from_std(stream));
                let Ok(stream) = stream else { continue };
                if let Some(seats) = &self.seats {
                    seats.force();
                }
                self.serve(ClientSocket::new(stream, peer, *address));
            }
        }
    }

    /// Has a connection served.
    fn serve(&self, socket: ClientSocket) {
        let (app, told, open) = (Arc::clone(&self.app), self.tell.subscribe(), self.open.begin());
        self.runtime().spawn(async move {
            let mut next: Option<Stream> = Some(Box::new(socket));
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

/// Whether a socket on which accepting fails like this listens no more.
fn is_dead(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::INVAL | Errno::BADF | Errno::NOTSOCK))
}

/// Whether the process or the machine has no descriptors or memory left.
fn is_exhausted(error: &io::Error) -> bool {
    matches!(Errno::from_io_error(error), Some(Errno::MFILE | Errno::NFILE | Errno::NOBUFS | Errno::NOMEM))
}
