//! A service that listens: accepting while the server is ready, and only then.
//!
//! The problem: Pingora's listening service accepts from its start to its end. A hand-over needs more: to stop
//! accepting while the sockets stay open, and to accept again when nobody has taken over. The rule: the sockets are the
//! server's ([`Sockets`]), and each time that it is ready it accepts from duplicates of them. A duplicate is the same
//! socket to the kernel, whose queue of waiting connections outlives each of them. Runtimes, services and their order
//! stay Pingora's.
//!
//! Refused: running Pingora's listening service over the duplicates. The task that it starts for each connection has
//! room for a TLS handshake, which ours do later, and a buffer for writing, which ours do not use: of the 18 KiB that
//! an idle connection held 12 were those. And it goes on trying to accept on a socket that can no longer, without a
//! word to anybody.
//!
//! A stop takes in what waits in the queue, since those clients believe to be connected. Then the sockets close.

mod accept;

use std::sync::Arc;
use std::time::Duration;

use async_trait::async_trait;
use pingora_core::apps::ServerApp;
use pingora_core::server::{ListenFds, ShutdownWatch};
use pingora_core::services::{ServiceReadyNotifier, ServiceWithDependents};
use tokio::sync::watch;

use super::lifecycle::{Lifecycle, State};
use crate::process::{Bound, ListenAddress, Sockets};
use crate::proxy::{Activity, Seats};

/// Listens on sockets that are bound already. The server fails when it cannot, or when it ends before it should.
pub(super) struct Listening<A> {
    name: String,
    app: Arc<A>,
    /// Counts its connections.
    open: Arc<Activity>,
    threads: usize,
    bound: Vec<Bound>,
    addresses: Vec<ListenAddress>,
    sockets: Sockets,
    lifecycle: Lifecycle,
    /// True while it is not to accept.
    closed: ShutdownWatch,
    /// Tells connections that they are to end. Only once nobody is let in any more: a client that is told before
    /// connects anew, and may do so in the very moment in which its connection has nobody left to accept it.
    tell: watch::Sender<bool>,
    announce: Option<Box<dyn FnOnce() + Send + Sync>>,
    waits: bool,
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
        (sockets, lifecycle): (&Sockets, &Lifecycle),
    ) -> Self {
        Listening {
            name: name.to_owned(),
            app: Arc::new(app),
            open: Arc::clone(open),
            threads,
            addresses: bound.iter().map(|bound| bound.address().clone()).collect(),
            bound,
            sockets: sockets.clone(),
            lifecycle: lifecycle.clone(),
            closed: lifecycle.stopping(),
            tell: watch::Sender::new(false),
            announce: None,
            waits: false,
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
            let address = bound.address().clone();
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
}

#[async_trait]
impl<A: ServerApp + Send + Sync + 'static> ServiceWithDependents for Listening<A> {
    async fn start_service(
        &mut self,
        _fds: Option<ListenFds>,
        _shutdown: ShutdownWatch,
        _listeners_per_fd: usize,
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
            if let Err(reason) = self.accept().await {
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
        self.app.cleanup().await;
    }

    fn name(&self) -> &str {
        &self.name
    }

    fn threads(&self) -> Option<usize> {
        Some(self.threads)
    }

    fn on_startup_delay(&self, _time_waited: Duration) {}

    fn listen_addresses(&self) -> Option<Vec<String>> {
        Some(self.addresses.iter().map(ListenAddress::to_string).collect())
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
