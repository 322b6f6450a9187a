//! What a connection says before its first request, or its handshake, and what is waited for until then.
//!
//! On a listener with `proxy_protocol` each connection has to say whom it is from ([`introduction`]). What was read
//! beyond that stays to be read, so nothing is read byte by byte. Who may not say it, or says it wrong, is closed and
//! counted without an answer: whatever it speaks, it is no client's. Until it is introduced a connection sits as the
//! load balancer's, and then as the client's, so that `limits.max_connections_per_address` counts the clients.
//!
//! One that ends without a word is no fault: load balancers look like this whether a port is open. All of it, and the
//! handshake behind it, may last `limits.header_timeout`.

use std::time::Instant;

use log::{debug, warn};
use pingora_core::server::ShutdownWatch;
use tokio::time::timeout;

use crate::proxy::downstream::arrival::stopped;
use crate::proxy::downstream::introduction;
use crate::proxy::downstream::seats::Seat;
use crate::proxy::downstream::socket::ClientSocket;
use crate::proxy::gate::settings::HeaderVersions;
use crate::proxy::service::downstream::Downstream;
use crate::telemetry::IntroductionFault;

/// What waiting for more of a connection came to.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Listened {
    /// There is more.
    More,
    /// It has ended, or has to.
    End,
    /// Nothing came in time.
    Late,
}

impl Downstream {
    /// Has a connection that came `since` then say whom it is from; the seat that it has after that, none when it is to
    /// be closed.
    pub(in crate::proxy) async fn introduce(
        &self,
        socket: &mut ClientSocket,
        expected: HeaderVersions,
        (seat, since): (Seat, Instant),
        stopping: &mut ShutdownWatch,
    ) -> Option<Seat> {
        let heard = tokio::select! {
            biased;
            heard = self.hear(socket, expected, since, stopping) => heard,
            () = seat.told() => return None,
        };
        match heard {
            Ok(true) => self.seats.sit_as(seat, socket.peer()),
            Ok(false) => None,
            Err(fault) => {
                self.app.tally().not_introduced(fault);
                let (peer, listener) = (socket.peer(), socket.listener());
                debug!("listener {listener}: {peer} was closed: {}", fault.reason());
                warn!("listener {listener}: proxy_protocol: connections were closed: {}", fault.reason());
                None
            }
        }
    }

    /// Reads the header; false when the connection ends, or has to, and nobody is to blame.
    async fn hear(
        &self,
        socket: &mut ClientSocket,
        expected: HeaderVersions,
        since: Instant,
        stopping: &mut ShutdownWatch,
    ) -> Result<bool, IntroductionFault> {
        if !self.app.rules().identity.trusted_proxies.contains(socket.peer()) {
            return Err(IntroductionFault::Untrusted);
        }
        loop {
            if let Some(introduction) = introduction::read(socket.ahead(), expected)? {
                socket.introduced(introduction.length, introduction.source);
                return Ok(true);
            }
            match self.more(socket, since, stopping).await {
                Listened::More => {}
                Listened::End if socket.ahead().is_empty() => return Ok(false),
                Listened::End => return Err(IntroductionFault::Malformed),
                Listened::Late => return Err(IntroductionFault::Timeout),
            }
        }
    }

    /// Waits for more of a connection that came `since` then and has not said anything whole yet.
    pub(in crate::proxy) async fn more(
        &self,
        socket: &mut ClientSocket,
        since: Instant,
        stopping: &mut ShutdownWatch,
    ) -> Listened {
        let limit = self.app.limits().header_timeout;
        let read = tokio::select! {
            biased;
            read = timeout(self.left(limit, since), socket.more()) => read,
            () = stopped(stopping) => match timeout(self.left(self.patience.get(), since), socket.more()).await {
                Err(_) => return Listened::End,
                read => read,
            },
        };
        match read {
            Ok(Ok(true)) => Listened::More,
            Ok(_) => Listened::End,
            Err(_) => Listened::Late,
        }
    }
}
