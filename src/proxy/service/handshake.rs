//! From a connection that was just accepted to one that requests can be read from: on a TLS listener, by a handshake.
//!
//! Pingora's listeners do the handshake before anybody else sees the connection, for up to a minute, and a stop does
//! not wait for it. Here the whole of it, from the moment the connection stands, may last `limits.header_timeout`, so a
//! client that says nothing, or drips its hello, is cut as one that drips a header is. From its first byte on it is
//! work that a stop waits for.
//!
//! Where there is no TLS, and `h2c` allows for it, a client may speak HTTP/2 by prior knowledge (RFC 9113 section 3.3):
//! it says so by its first bytes, which no request of HTTP/1 has. An offer to go on in it (`Upgrade: h2c`) is not
//! taken.
//!
//! A client that speaks plain HTTP to a TLS listener gets a 400 in plain HTTP, which it can read, and not an alert of a
//! protocol that it does not speak. Handshakes that fail are told at debug level: the ports of the internet are scanned
//! all day.

use std::time::{Duration, Instant};

use bytes::BytesMut;
use log::debug;
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::{ALPN, Ssl, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_timeout::timeout;

use crate::proxy::downstream::activity::Busy;
use crate::proxy::downstream::head_reading::read_head;
use crate::proxy::downstream::seats::Seat;
use crate::proxy::downstream::socket::ClientSocket;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::service::downstream::{Downstream, GONE, HeadRefusal};
use crate::proxy::service::introduce::Listened;
use crate::proxy::wire::lines::Lines;
use crate::tls::Terminator;

/// The first byte of every TLS handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;

/// How a client begins that speaks HTTP/2 (RFC 9113 section 3.4).
const PREFACE: &[u8; 24] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

/// A connection that requests can be read from.
pub(in crate::proxy) enum Opened {
    /// In HTTP/1.
    Http1(Stream),
    /// In HTTP/2, with the promise to wait for its first request.
    Http2(Stream, Busy),
}

impl Downstream {
    /// Does the handshake if the listener has TLS, and finds out which protocol is spoken where there may be two
    /// without it; `None` when nothing came of it.
    pub(in crate::proxy) async fn open(
        &self,
        socket: Box<ClientSocket>,
        (seat, since): (&Seat, Instant),
        h2c: bool,
        stopping: &mut ShutdownWatch,
    ) -> Option<Opened> {
        let Some(terminator) = self.tls.at(socket.listener()) else {
            if !h2c {
                return Some(Opened::Http1(socket));
            }
            return tokio::select! {
                biased;
                opened = Box::pin(self.by_preface(socket, since, stopping)) => opened,
                () = seat.told() => None,
            };
        };
        tokio::select! {
            biased;
            opened = Box::pin(self.secure(socket.gathering(), terminator, since, stopping)) => opened,
            () = seat.told() => None,
        }
    }

    /// Tells by its first bytes in which protocol a client speaks. What HTTP/1 has said is passed on as soon as it
    /// cannot be the preface of HTTP/2 any more, which is by its third byte for any method that there is.
    async fn by_preface(
        &self,
        mut socket: Box<ClientSocket>,
        since: Instant,
        stopping: &mut ShutdownWatch,
    ) -> Option<Opened> {
        loop {
            let ahead = socket.ahead();
            let same = ahead.iter().zip(PREFACE).take_while(|(byte, other)| byte == other).count();
            if same == PREFACE.len() {
                return Some(Opened::Http2(socket, self.activity.begin()));
            }
            if same < ahead.len() {
                return Some(Opened::Http1(socket));
            }
            if self.more(&mut socket, since, stopping).await != Listened::More {
                // What may be a request of HTTP/1, such as a lone `P`, ends as one does.
                return (1..3).contains(&same).then(|| Opened::Http1(socket));
            }
        }
    }

    async fn secure(
        &self,
        mut socket: ClientSocket,
        terminator: &Terminator,
        since: Instant,
        stopping: &mut ShutdownWatch,
    ) -> Option<Opened> {
        if socket.ahead().is_empty() && self.more(&mut socket, since, stopping).await != Listened::More {
            return None;
        }
        let busy = self.activity.begin();
        let limit = self.app.limits().header_timeout;
        let (left, peer) = (self.left(limit, since), socket.peer());
        if socket.ahead().first() != Some(&HANDSHAKE) {
            self.refuse_plain(Box::new(socket), left, busy).await;
            return None;
        }
        let acceptor = Acceptor::from_server_config(terminator.config());
        match timeout(left, acceptor.tls_handshake(socket)).await {
            Ok(Ok(stream)) if stream.selected_alpn_proto() == Some(ALPN::H2) => {
                Some(Opened::Http2(Box::new(stream), busy))
            }
            Ok(Ok(stream)) => Some(Opened::Http1(Box::new(stream))),
            Ok(Err(error)) => {
                debug!("TLS handshake with {peer} failed: {error}");
                None
            }
            Err(_) => {
                debug!("TLS handshake with {peer} took longer than {limit:?}");
                None
            }
        }
    }

    /// Answers a client that does not speak TLS.
    async fn refuse_plain(&self, mut stream: Stream, left: Duration, busy: Busy) {
        let (since, mut buffer) = (self.app.arrival(), BytesMut::new());
        // Read to its end, so that the answer is not overtaken by a reset; for the rest of it see `close`.
        match timeout(left, read_head(&mut stream, &mut buffer, &mut Lines::default())).await {
            Ok(Ok(None)) | Err(_) => self.record_lost(&stream, &buffer, GONE, since),
            Ok(Ok(Some(_)) | Err(_)) => {
                let rejection = Rejection::BadRequest("plain HTTP on a listener of HTTPS");
                self.refuse(stream, &buffer, HeadRefusal { rejection, since, _busy: busy }).await;
            }
        }
    }
}
