//! From a connection that was just accepted to one that requests can be read from: on a TLS listener, by a handshake.
//!
//! Pingora's listeners do the handshake before anybody else sees the connection, for up to a minute, and a stop does
//! not wait for it. Here the whole of it, from the moment the connection stands, may last `limits.header_timeout`, so a
//! client that says nothing, or drips its hello, is cut as one that drips a header is. From its first byte on it is
//! work that a stop waits for.
//!
//! A client that speaks plain HTTP to a TLS listener gets a 400 in plain HTTP, which it can read, and not an alert of a
//! protocol that it does not speak. Handshakes that fail are told at debug level: the ports of the internet are scanned
//! all day.

use std::time::Duration;

use bytes::BytesMut;
use log::debug;
use pingora_core::listeners::tls::Acceptor;
use pingora_core::protocols::{ALPN, Ssl, Stream};
use pingora_core::server::ShutdownWatch;
use pingora_timeout::timeout;

use crate::proxy::downstream::activity::Busy;
use crate::proxy::downstream::arrival::stopped;
use crate::proxy::downstream::head_reading::read_head;
use crate::proxy::downstream::seats::Seat;
use crate::proxy::downstream::socket::ClientSocket;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::service::downstream::{Downstream, HeadRefusal};
use crate::proxy::wire::lines::Lines;
use crate::tls::Terminator;

/// The first byte of every TLS handshake (RFC 8446 section 5.1).
const HANDSHAKE: u8 = 0x16;

/// A connection that requests can be read from.
pub(in crate::proxy) enum Opened {
    /// In HTTP/1.
    Http1(Stream),
    /// In HTTP/2, with the promise to wait for its first request.
    Http2(Stream, Busy),
}

impl Downstream {
    /// Does the handshake if the listener has TLS; `None` when nothing came of it.
    pub(in crate::proxy) async fn open(
        &self,
        socket: Box<ClientSocket>,
        seat: &Seat,
        stopping: &mut ShutdownWatch,
    ) -> Option<Opened> {
        let Some(terminator) = self.tls.at(socket.listener()) else { return Some(Opened::Http1(socket)) };
        tokio::select! {
            biased;
            opened = Box::pin(self.secure(socket.gathering(), terminator, stopping)) => opened,
            () = seat.told() => None,
        }
    }

    async fn secure(
        &self,
        mut socket: ClientSocket,
        terminator: &Terminator,
        stopping: &mut ShutdownWatch,
    ) -> Option<Opened> {
        let (opened, limit) = (self.app.clock().now(), self.app.limits().header_timeout);
        let first = tokio::select! {
            biased;
            first = timeout(limit, socket.first()) => first,
            () = stopped(stopping) => {
                let passed = self.app.clock().now().saturating_duration_since(opened);
                timeout(self.patience.get().saturating_sub(passed), socket.first()).await
            }
        };
        let Ok(Ok(Some(first))) = first else { return None };
        let busy = self.activity.begin();
        let left = limit.saturating_sub(self.app.clock().now().saturating_duration_since(opened));
        let peer = socket.peer();
        if first != HANDSHAKE {
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
            Ok(Ok(None)) | Err(_) => {}
            Ok(Ok(Some(_)) | Err(_)) => {
                let rejection = Rejection::BadRequest("plain HTTP on a listener of HTTPS");
                self.refuse(stream, &buffer, HeadRefusal { rejection, since, _busy: busy }).await;
            }
        }
    }
}
