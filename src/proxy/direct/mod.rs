//! Plain requests, served without Pingora's request loop.
//!
//! The problem: for each request Pingora's loop builds two header maps, a peer, a session, two queues and some ten boxed
//! futures, and starts a task that watches the connection afterwards. That is most of what a small request costs, and
//! nothing of it is needed for one that is there as a whole and asks for nothing but an answer.
//!
//! The rule: such a request goes directly. Its lines are looked at where they are, what the backend gets is written into
//! one buffer, what the client gets into another. It is a request of HTTP/1.1 for a path, or one of HTTP/2, whose body,
//! if it has one, has arrived together with its header ([`arrived`]), and that asks for no interim answer
//! ([`request::is_plain`]). Every other one goes by Pingora: bodies that are still coming, those with trailers, `Expect`,
//! HTTP/1.0.
//!
//! Both ways ask the same functions whether a request is let in, which backend gets it, what a failure means, and
//! whether it may be sent once more, read an answer by the same rules, and end in the same line of the log and the same
//! counters. They share the connections to backends.
//!
//! An answer is passed on as it comes. Its header and what of its body came with it leave in one write.
//!
//! A request that asks for another protocol ([`upgrade`]) goes the same way, up to a 101. Then both connections are a
//! [`tunnel`], which counts as one request until it ends. Pingora's loop serves none: it may cut what a backend sends
//! right behind its 101 (Pingora issue 946), has one timeout for a read and for a silence, and ends both directions
//! with the first.

mod answer;
mod arrived;
mod backend;
mod body;
mod client;
mod exchange;
mod http1;
mod http2;
mod idle;
mod request;
mod terms;
mod tunnel;
mod upgrade;

use std::net::IpAddr;

use bytes::{Bytes, BytesMut};
use h2::server::SendResponse;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;

use super::connection::Downstream;
use super::head::Head;
use super::lines::Lines;
use super::loan::Arrival;
use super::request_body::Body;
use super::{Context, Proxy};
pub(super) use answer::{Answer, parse};
pub(super) use arrived::{GRACE, data_of, read_what_is_there};
pub(super) use backend::connect;
pub(super) use body::{AnswerBody, LAST_CHUNK};
pub(super) use exchange::FIRST_READ;
use exchange::{Exchange, Sheet};
use http1::Connection;
pub(super) use http1::Whole;
use http2::Gets;
pub(super) use http2::{StreamRequest, announced, takes_stream};
pub use idle::Idle;
pub(super) use terms::Terms;

/// The largest body that goes directly, in bytes; it is kept until the answer begins, to be sent once more if need be.
pub(super) const MAX_BODY: u64 = 64 << 10;

/// What a connection may keep of a buffer while it is silent.
const SMALL: usize = 4 << 10;

/// What one connection needs for its requests, kept so that it is made once.
#[derive(Debug, Default)]
pub(super) struct Desk {
    sheet: Sheet,
    /// What the client gets.
    out: Vec<u8>,
}

impl Desk {
    /// Lets go of what a large exchange has left behind, before a silence that may be long.
    pub(super) fn tidy(&mut self) {
        for buffer in [&mut self.sheet.request, &mut self.out] {
            if buffer.capacity() > SMALL {
                *buffer = Vec::new();
            }
        }
    }
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The address at the other end of the connection.
    pub(super) peer: IpAddr,
    /// Whether it is TLS.
    pub(super) secure: bool,
}

/// What a request that goes directly asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Asks {
    /// An answer.
    Answer,
    /// Another protocol, if it may, and else an answer.
    Upgrade,
}

/// What a request with this header asks for, if it goes directly once all of it is there.
pub(super) fn takes(head: &Head, bytes: &[u8], lines: &Lines) -> Option<Asks> {
    let whole = head.version == 1
        && matches!(head.body, Body::Length(0..=MAX_BODY) | Body::Chunked(_))
        && head.target.of_bytes(bytes).starts_with(b"/");
    let lines = lines.of(bytes);
    match whole {
        true if request::is_plain(lines.iter()) => Some(Asks::Answer),
        true if upgrade::takes(lines) => Some(Asks::Upgrade),
        _ => None,
    }
}

impl Downstream {
    /// Serves a request that [`takes`] said can go directly, which came at `since`. What the client sends behind it goes
    /// to `ahead`. False when the connection is to be closed afterwards.
    pub(super) async fn serve_directly(
        &self,
        (stream, ahead): (&mut Stream, &mut BytesMut),
        request: &Whole<'_>,
        (since, origin): (Arrival, Origin),
        desk: &mut Desk,
        shutdown: &ShutdownWatch,
    ) -> bool {
        let (keeps, tunnels, limits) = (!request.is_last(), &self.tunnels, || self.app.limits());
        let (out, limits, half_closed) = (&mut desk.out, &limits, None);
        let client = Connection { stream, ahead, out, shutdown, tunnels, keeps, limits, half_closed };
        let exchange = Exchange::new((&self.app, &self.idle), request, client, &mut desk.sheet);
        exchange.run(Context::new(since.at, since.wall), origin).await.keeps
    }

    /// Serves a request that [`takes_stream`] said can go directly, which came at `since`, and answers it by `respond`.
    /// Its body is there.
    pub(super) async fn serve_stream_directly(
        app: &Proxy,
        idle: &Idle,
        request: &StreamRequest,
        respond: SendResponse<Bytes>,
        (since, origin): (Arrival, Origin),
    ) {
        let mut sheet = Sheet::default();
        let exchange = Exchange::new((app, idle), request, Gets::new(respond), &mut sheet);
        exchange.run(Context::new(since.at, since.wall), origin).await;
    }
}
