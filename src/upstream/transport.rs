//! How this process reaches backends: for requests and for checks, by whichever way they go.
//!
//! The problem: what a connection to a backend is, how long it may take to come about, in which words it fails, when it
//! is kept and for how long was said in several places, and checks had connections of another kind than the requests
//! whose fate they foretell.
//!
//! The rule: there is one [connection](BackendStream), one way to make it, and one place that keeps those
//! that wait for their next request, with one cap on them. They are kept by [`Site`]: a backend of one pool at one
//! address, and how it is spoken to there. A check makes its own connection in the same way, and keeps none: what a
//! new connection meets is what it is to find out.
//!
//! Of which kind a connection is, says its [`Manner`], which belongs to a pool's settings and to each [`Site`] of it: a
//! reload that changes it makes other sites, so nothing that was made before is used after. [`BackendStream`] is an
//! enum of the kinds, and `connect` makes them. A trait was refused: a plain request would pay for a call through it.

mod connect;
mod handshake;
mod idle;
mod link;
mod manner;
mod proxy_header;
mod shared;
mod sips;
mod site;
mod stream;
mod terms;

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::time::{Duration, Instant};

use pingora_core::Result;

use super::IdleClosing;
pub(super) use connect::connect;
use idle::IdleConnections;
pub use link::{Link, Reached, StreamSeat};
pub use manner::{Manner, Protocol};
pub use proxy_header::{ClientEnds, ProxyProtocol};
use shared::SharedConnections;
pub(super) use shared::begin;
#[cfg(any(fuzzing, test))]
pub use shared::streamed;
pub use sips::Sips;
pub use site::Site;
pub use stream::{BackendStream, TlsWire, Wire};
use terms::Terms;

/// Connections to backends, new ones and those that wait. Any thread may use it at any time.
#[derive(Debug)]
pub struct Transport {
    idle: IdleConnections,
    shared: SharedConnections,
}

/// What a request wants of the connection that it gets.
#[derive(Clone, Debug)]
pub struct Wanted {
    /// Whether it must be a new one.
    pub fresh: bool,
    /// Whether the request can be sent again when a kept connection dies under it.
    pub sent_again: bool,
    /// How long making a new one may take.
    pub limit: Duration,
    /// How long one that many requests share may have none.
    pub idle: Duration,
    /// Whose connection the backend is told that it is, where it is told.
    pub whose: Option<Box<ClientEnds>>,
}

impl Transport {
    /// Keeps at most `in_all` idle connections, of which each of so many `threads` has its share. When they are
    /// `shared`, a thread that has none takes those of the others; that is of use where all of them are driven by one
    /// runtime.
    pub fn new(in_all: usize, threads: NonZeroUsize, shared: bool) -> Self {
        Transport {
            idle: IdleConnections::new(in_all, threads, shared),
            shared: SharedConnections::new(threads, shared),
        }
    }

    /// A connection to `site` as it is `wanted`: one that waits at `now`, or a new one.
    ///
    /// # Errors
    /// When a new one cannot be made, as `connect` says.
    pub async fn reach(&self, site: &Arc<Site>, now: Instant, wanted: Wanted) -> Result<Reached> {
        if site.protocol() != Protocol::Http1
            && let Some(reached) = Box::pin(self.shared.reach(site, now, (wanted.limit, wanted.idle))).await?
        {
            return Ok(reached);
        }
        if !wanted.fresh
            && let Some((stream, idled)) = self.idle.take(site, now, wanted.sent_again, wanted.whose.as_deref())
        {
            return Ok(Reached { link: Link::Alone(stream), idled: Some(idled) });
        }
        let stream = connect(site, wanted.whose.as_deref(), wanted.limit).await?;
        if stream.negotiated() == Some(Protocol::Http2) {
            // It has learned it since it was last asked.
            return Box::pin(self.shared.take_up(site, stream, wanted.idle)).await;
        }
        Ok(Reached { link: Link::Alone(stream), idled: None })
    }

    /// Keeps `stream` to `site`, which is told to be `whose`, and over which an answer began at one moment and ended at
    /// another, for the next request: as long as the backend `said` that it does, and `longest` in any case. It is
    /// closed at once when that is not at all, or when there are enough.
    pub fn keep(
        &self,
        (site, whose): (&Arc<Site>, Option<Box<ClientEnds>>),
        stream: BackendStream,
        times: (Instant, Instant),
        said: Option<Duration>,
        longest: Duration,
    ) {
        // What has not left yet is of a request that was answered before it was read.
        if let Some(terms) = Terms::of(times, said.map(IdleClosing::said), longest).filter(|_| stream.is_flushed()) {
            self.idle.put((site, whose), stream, terms);
        }
    }

    /// Closes those that wait and whose time is over at `now`, and those that their backend has closed.
    pub fn sweep(&self, now: Instant) {
        self.idle.sweep(now);
        self.shared.sweep(now);
    }

    /// Waits until one of those that were there at the last [sweep](Self::sweep) has been closed by its backend, or may
    /// have been.
    pub async fn rung(&self) {
        self.idle.rung().await;
    }
}
