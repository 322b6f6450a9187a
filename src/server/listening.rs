//! A service that listens: accepting while the server is ready, and only then.
//!
//! The problem: Pingora's listening service accepts from its start to its end. A hand-over needs more: to stop accepting
//! while the sockets stay open, and to accept again when nobody has taken over. The rule: the sockets are the server's
//! ([`Sockets`]), and each time that it is ready Pingora's service runs over duplicates of them, before the same
//! application. A duplicate is the same socket to the kernel, whose queue of waiting connections outlives each of them.
//!
//! A stop takes in what waits in the queue, since those clients believe to be connected. Then the sockets close.
//!
//! Pingora goes on trying to accept on a socket that can no longer, without a word to anybody. So each socket is looked
//! at twice a second, and one that has stopped listening stops the server.

use std::fmt;
use std::io;
use std::net::{SocketAddr, TcpStream};
use std::os::fd::{AsRawFd, IntoRawFd};
use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_core::listeners::{ConnectionFilter, ListenerConfig};
use pingora_core::protocols::l4::stream::{L4BufferSettings, Stream as L4Stream};
use pingora_core::protocols::{GetSocketDigest, SocketDigest, Stream};
use pingora_core::server::{Fds, ListenFds, ShutdownWatch};
use pingora_core::services::listening::Service as ListeningService;
use pingora_core::services::{Service, ServiceReadyNotifier, ServiceWithDependents};
use tokio::sync::watch;
use tokio::time::interval;

use super::lifecycle::{Lifecycle, State};
use crate::process::{Bound, Sockets};
use crate::proxy::{Activity, Seats};

/// The read buffer of a connection that has one, in bytes: about a record of TLS.
const READ_BUFFER: usize = 16 << 10;
/// How often it is made sure that the sockets still listen.
const LOOK: Duration = Duration::from_millis(500);

/// Listens on sockets that are bound already. The server fails when it cannot, or when it ends before it should.
pub(super) struct Listening<A> {
    name: String,
    app: Arc<Counted<A>>,
    threads: usize,
    bound: Vec<Bound>,
    addresses: Vec<SocketAddr>,
    sockets: Sockets,
    lifecycle: Lifecycle,
    /// True while it is not to accept.
    closed: ShutdownWatch,
    /// Tells connections that they are to end. Only once nobody is let in any more: a client that is told before connects
    /// anew, and may do so in the very moment in which its connection has nobody left to accept it.
    tell: watch::Sender<bool>,
    announce: Option<Box<dyn FnOnce() + Send + Sync>>,
    waits: bool,
    /// Where connections have a buffer in front of them.
    buffered: Vec<SocketAddr>,
    /// Where its connections sit, if there is a bound on them.
    seats: Option<Arc<Seats>>,
}

impl<A> Listening<A> {
    /// Serves what comes to `bound` with `app`, and counts the connections in `open`. Once they listen the sockets are
    /// kept in `sockets`.
    pub(super) fn new(
        name: &str,
        app: A,
        bound: Vec<Bound>,
        (threads, open): (usize, &Arc<Activity>),
        sockets: &Sockets,
        lifecycle: &Lifecycle,
    ) -> Self {
        Listening {
            name: name.to_owned(),
            app: Arc::new(Counted { app: Arc::new(app), open: Arc::clone(open) }),
            threads,
            addresses: bound.iter().map(Bound::address).collect(),
            bound,
            sockets: sockets.clone(),
            lifecycle: lifecycle.clone(),
            closed: lifecycle.stopping(),
            tell: watch::Sender::new(false),
            announce: None,
            waits: false,
            buffered: Vec::new(),
            seats: None,
        }
    }

    /// Calls `announce` once clients get in.
    pub(super) fn announced(self, announce: impl FnOnce() + Send + Sync + 'static) -> Self {
        Listening { announce: Some(Box::new(announce)), ..self }
    }

    /// Accepts only once the server is ready: until then the predecessor does, on the same sockets.
    pub(super) fn after_a_hand_over(self, waits: bool) -> Self {
        Listening { waits, ..self }
    }

    /// Puts a read buffer in front of the connections to these addresses, which TLS reads in small pieces. The others need
    /// none, and what is idle should hold no memory.
    pub(super) fn buffered(self, buffered: impl IntoIterator<Item = SocketAddr>) -> Self {
        Listening { buffered: buffered.into_iter().collect(), ..self }
    }

    /// Lets in only those for whom there is a seat; the application has them sit down.
    pub(super) fn seated(self, seats: Arc<Seats>) -> Self {
        Listening { seats: Some(seats), ..self }
    }

    /// Goes on while the server drains, and ends with it.
    pub(super) fn until_drained(self) -> Self {
        Listening { closed: self.lifecycle.closing(), ..self }
    }

    /// Lets clients in.
    fn open(&mut self) -> Result<(), String> {
        for bound in self.bound.drain(..) {
            let address = bound.address();
            self.sockets.keep(address, bound.listen().map_err(|error| error.to_string())?);
        }
        Ok(())
    }

    /// Waits until the server is ready; false when it will not be.
    async fn wanted(&self) -> bool {
        let mut states = self.lifecycle.states();
        let next = states.wait_for(|state| *state != State::Starting).await;
        next.is_ok_and(|state| *state == State::Ready)
    }

    /// Waits until it is known whose the sockets are; true when they are this server's again, be it to stop.
    async fn taken_back(&self) -> bool {
        let mut states = self.lifecycle.states();
        let ready =
            states.wait_for(|state| *state != State::HandingOver).await.is_ok_and(|state| *state == State::Ready);
        // A server that drains after it was ready again has opened the admin API again; one that has left has not.
        ready || !*self.lifecycle.closing().borrow()
    }

    /// Waits until one of the sockets listens no more, and says which.
    async fn first_dead(&self) -> String {
        let mut looks = interval(LOOK);
        loop {
            looks.tick().await;
            if let Some(address) = self.addresses.iter().find(|address| !self.sockets.listens(**address)) {
                return format!("the listener on {address} died");
            }
        }
    }
}

impl<A: ServerApp + Send + Sync + 'static> Listening<A> {
    /// Accepts until it is to accept no more, be that for a moment.
    ///
    /// # Errors
    /// When it can accept no more.
    async fn accept(&self, listeners_per_fd: usize) -> Result<(), String> {
        let mut service = ListeningService::new(self.name.clone(), Phase(Arc::clone(&self.app), self.tell.subscribe()));
        if let Some(seats) = &self.seats {
            service.set_connection_filter(Arc::new(Door(Arc::clone(seats))));
        }
        let mut fds = Fds::new();
        for address in &self.addresses {
            let duplicate = self.sockets.duplicate(*address);
            let duplicate = duplicate.map_err(|error| format!("cannot accept on {address}: {error}"))?;
            fds.add(address.to_string(), duplicate.into_raw_fd());
            let buffer = if self.buffered.contains(address) { READ_BUFFER } else { 0 };
            let listener = ListenerConfig::tcp(address.to_string());
            service.add_listener(listener.l4_buffer(L4BufferSettings::default().read(buffer)));
        }
        let fds: ListenFds = Arc::new(Mutex::new(fds));
        // Not `closed` itself: some of Pingora's tasks would miss that it was closed for a moment, and others not.
        let (end, ending) = watch::channel(false);
        let service = Service::start_service(&mut service, Some(fds), ending, listeners_per_fd);
        tokio::pin!(service);
        let outcome = tokio::select! {
            () = &mut service => Err(format!("the {} service ended", self.name)),
            dead = self.first_dead() => Err(dead),
            () = self.closed() => Ok(()),
        };
        end.send_replace(true);
        if outcome.is_ok() {
            service.await;
        }
        outcome
    }

    /// Waits until it is to accept no more.
    async fn closed(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.closed.clone().wait_for(|closed| *closed).await;
    }

    /// Takes in those who wait to be accepted.
    fn take_in_the_rest(&self) {
        for address in &self.addresses {
            let Ok(listener) = self.sockets.duplicate(*address) else { continue };
            // So that it is closed right after the last one was accepted.
            self.sockets.close(&[*address]);
            while let Ok((stream, peer)) = listener.accept() {
                let Ok(stream) = connection(stream, peer) else { continue };
                if let Some(seats) = &self.seats {
                    seats.force();
                }
                let (app, told) = (Arc::clone(&self.app), self.tell.subscribe());
                let open = app.open.begin();
                tokio::spawn(async move {
                    app.app.process_new(stream, &told).await;
                    drop(open);
                });
            }
        }
    }
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServiceWithDependents for Listening<A> {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        listeners_per_fd: usize,
        ready: ServiceReadyNotifier,
    ) {
        let _end = EndsTheServer { lifecycle: self.lifecycle.clone(), name: self.name.clone() };
        self.lifecycle.attended().await;
        if let Err(reason) = self.open() {
            return self.lifecycle.fail(reason);
        }
        ready.notify_ready();
        if let Some(announce) = self.announce.take() {
            announce();
        }
        if self.waits && !self.wanted().await {
            return self.sockets.close(&self.addresses);
        }
        loop {
            if let Err(reason) = self.accept(listeners_per_fd).await {
                self.lifecycle.fail(reason);
                break;
            }
            // Looked at once: it may change meanwhile.
            match self.lifecycle.state() {
                // It was closed for a moment only.
                State::Ready => {}
                State::HandingOver => {
                    // Whoever connects anew is served, by the successor or by this process.
                    self.tell.send_replace(true);
                    if !self.taken_back().await {
                        break;
                    }
                    self.tell.send_replace(false);
                }
                State::Starting | State::Draining | State::Stopped => {
                    self.take_in_the_rest();
                    break;
                }
            }
        }
        self.sockets.close(&self.addresses);
        self.tell.send_replace(true);
        self.app.app.cleanup().await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }

    fn on_startup_delay(&self, _time_waited: Duration) {}

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.addresses.iter().map(SocketAddr::to_string).collect())
    }
}

/// A connection, as Pingora's own listener would hand it over.
fn connection(stream: TcpStream, peer: SocketAddr) -> io::Result<Stream> {
    stream.set_nonblocking(true)?;
    stream.set_nodelay(true)?;
    let stream = tokio::net::TcpStream::from_std(stream)?;
    let digest = SocketDigest::from_raw_fd(stream.as_raw_fd());
    // It was made just now, so nobody else has set it.
    let _ = digest.peer_addr.set(Some(peer.into()));
    let mut stream = L4Stream::from(stream);
    stream.set_socket_digest(digest);
    Ok(Box::new(stream))
}

/// Where connections are let in, right after they were accepted.
struct Door(Arc<Seats>);

impl fmt::Debug for Door {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Door").finish_non_exhaustive()
    }
}

#[async_trait]
impl ConnectionFilter for Door {
    /// Who has to wait keeps those who come after it waiting in the kernel.
    async fn should_accept(&self, _peer: Option<&SocketAddr>) -> bool {
        self.0.enter().await
    }
}

/// An application whose connections are counted.
struct Counted<A> {
    app: Arc<A>,
    open: Arc<Activity>,
}

/// The application for one time of accepting, with what tells its connections to end. It outlives it.
struct Phase<A>(Arc<Counted<A>>, ShutdownWatch);

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServerApp for Phase<A> {
    async fn process_new(self: &Arc<Self>, stream: Stream, _end: &ShutdownWatch) -> Option<Stream> {
        let _open = self.0.open.begin();
        self.0.app.process_new(stream, &self.1).await
    }
}

/// A listening service that ends, by a panic too, takes the server with it, unless the server is stopping anyway.
struct EndsTheServer {
    lifecycle: Lifecycle,
    name: String,
}

impl Drop for EndsTheServer {
    fn drop(&mut self) {
        if !matches!(self.lifecycle.state(), State::Draining | State::Stopped) {
            self.lifecycle.fail(format!("the {} service ended", self.name));
        }
    }
}

#[cfg(test)]
mod tests;
