//! Plain requests, served without Pingora's request loop.
//!
//! The problem: for each request Pingora's loop builds two header maps, a peer, a session, two queues and some ten boxed
//! futures, and starts a task that watches the connection afterwards. That is most of what a small request costs, and
//! nothing of it is needed for one that is there as a whole and asks for nothing but an answer.
//!
//! The rule: such a request goes directly. Its lines are looked at where they are, what the backend gets is written into
//! one buffer, what the client gets into another. It is a request of HTTP/1.1 with a target in origin form, whose body,
//! if it has one, has arrived together with its header, and that asks for no other protocol and no interim answer
//! ([`request::is_plain`]). Every other one goes by Pingora: bodies that are still coming, chunked ones,
//! `Expect`, `Upgrade`, HTTP/1.0, absolute targets. So does everything over HTTP/2.
//!
//! Both ways ask the same functions whether a request is let in, which backend gets it, what a failure means, and
//! whether it may be sent once more, and end in the same line of the log and the same counters. They keep their
//! connections to backends apart.
//!
//! An answer is passed on as it comes. Its header and what of its body came with it leave in one write.

mod answer;
mod backend;
mod body;
mod exchange;
mod idle;
mod request;

use std::net::IpAddr;

use bytes::BytesMut;
use pingora_core::protocols::Stream;
use pingora_core::server::ShutdownWatch;

use super::admit::Target;
use super::connection::Downstream;
use super::head::Head;
use super::lines::{Lines, LinesOf};
use super::loan::{Arrival, Body};
use super::{Context, Outcome};
use backend::Watched;
use exchange::{Exchange, Progress};
pub use idle::Idle;

/// The largest body that goes directly, in bytes; it is kept until the answer begins, to be sent once more if need be.
pub(super) const MAX_BODY: u64 = 64 << 10;

/// What a connection may keep of a buffer while it is silent.
const SMALL: usize = 4 << 10;

/// What one connection needs for its requests, kept so that it is made once.
#[derive(Debug, Default)]
pub(super) struct Desk {
    /// What the backend gets.
    request: Vec<u8>,
    /// What the client gets.
    answer: Vec<u8>,
    lines: Lines,
}

impl Desk {
    /// Lets go of what a large exchange has left behind, before a silence that may be long.
    pub(super) fn tidy(&mut self) {
        for buffer in [&mut self.request, &mut self.answer] {
            if buffer.capacity() > SMALL {
                *buffer = Vec::new();
            }
        }
    }
}

/// A request that is there as a whole.
pub(super) struct Whole<'r> {
    /// Its header and its body.
    pub(super) bytes: &'r [u8],
    /// What its header says.
    pub(super) head: &'r Head,
    /// Its lines.
    pub(super) lines: &'r Lines,
    /// When it came.
    pub(super) since: Arrival,
}

/// Where a request comes from.
#[derive(Clone, Copy, Debug)]
pub(super) struct Origin {
    /// The address at the other end of the connection.
    pub(super) peer: IpAddr,
    /// Whether it is TLS.
    pub(super) secure: bool,
}

impl<'r> Whole<'r> {
    fn lines(&self) -> LinesOf<'r> {
        self.lines.of(self.bytes)
    }

    fn method(&self) -> &'r [u8] {
        self.head.method.of_bytes(self.bytes)
    }

    fn body(&self) -> &'r [u8] {
        &self.bytes[self.head.end..]
    }

    fn target(&self) -> Target<'r> {
        let lines = self.lines();
        let host = lines.iter().find(|(name, _)| name.eq_ignore_ascii_case(b"host")).map(|(_, host)| host);
        let path = self.head.target.of_bytes(self.bytes).split(|byte| *byte == b'?').next();
        let text = |bytes: Option<&'r [u8]>| bytes.and_then(|bytes| str::from_utf8(bytes).ok()).unwrap_or_default();
        Target { method: text(Some(self.method())), host: text(host), path: text(path) }
    }
}

/// Whether a request with this header goes directly, once all of it is there.
pub(super) fn takes(head: &Head, bytes: &[u8], lines: &Lines) -> bool {
    head.version == 1
        && matches!(head.body, Body::Length(0..=MAX_BODY))
        && head.target.of_bytes(bytes).starts_with(b"/")
        && request::is_plain(lines.of(bytes))
}

impl Downstream {
    /// Serves a request that [`takes`] said can go directly. What the client sends behind it goes to `ahead`. False when
    /// the connection is to be closed afterwards.
    pub(super) async fn serve_directly(
        &self,
        client: &mut Stream,
        ahead: &mut BytesMut,
        request: &Whole<'_>,
        origin: Origin,
        (desk, shutdown): (&mut Desk, &ShutdownWatch),
    ) -> bool {
        let mut ctx = Context::new(request.since.at, request.since.wall);
        ctx.peer = origin.peer;
        let mut exchange = Exchange {
            proxy: &self.app,
            idle: &self.idle,
            watched: Watched { client, ahead },
            desk,
            request,
            progress: Progress::default(),
            shutdown,
            keeps: !request::is_last(request.lines()),
        };
        let failure = exchange.run(&mut ctx, origin).await.err();
        let Exchange { progress, keeps, .. } = exchange;
        let outcome = Outcome {
            status: progress.status,
            bytes_in: request.body().len() as u64,
            bytes_out: progress.bytes_out,
            error: failure.as_deref(),
        };
        self.app.ended(request.target(), &ctx, outcome);
        keeps
    }
}
