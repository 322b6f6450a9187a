//! The way of one request, and every answer of our own.
//!
//! A plain request, and one that asks for another protocol, goes directly (module `direct`); every other one through
//! Pingora's hooks (module `hooks`). Both ways take the same steps and share what decides in them.
//!
//! ```text
//! connection: header read and checked ─ malformed, too large, too slow ─────► reject
//!   │
//!   ▼ request_filter: admit = who, bucket, route, announced length ── no ────► reject
//!   │
//!   ▼ upstream_peer: lease a backend not yet tried ───── none left ──────────► reject 503
//!   │      ▲
//!   │      └── fail_to_connect: mark it tried, tell its health, next
//!   │      └── error_while_proxy: the connection died under an idempotent request: once more, elsewhere
//!   ▼ upstream_request_filter: X-Forwarded-*, X-Request-Id
//!   ▼ response_filter: rate headers on (what counts for one connection only, `backend_side` has taken away)
//!   ▼ logging: one line, always; the lease drops with the context
//! ```
//!
//! Retries: a request that could not connect has not been sent and may go on to another backend, whatever its method.
//! One that was sent may have been carried out. It is sent again only when it is idempotent (RFC 9110 section 9.2.2), its
//! connection died before a byte of an answer had come, and its body is still at hand; never after a timeout, since what
//! is slow would have more to do. Each attempt goes to a backend not tried yet; where there never was another, once more to
//! the same. `retries` bounds the attempts.

mod activity;
mod admit;
mod backend_side;
mod budget;
mod chunked;
mod connection;
mod context;
mod counts;
mod course;
mod direct;
mod explain;
mod failure;
mod half_closed;
mod head;
mod headers;
mod hooks;
mod http2;
mod identify;
mod keep_alive;
mod lines;
mod loan;
mod order;
mod outcome;
mod pace;
mod parts;
mod patience;
mod peer;
mod rate_headers;
mod refused;
mod reject;
mod request_body;
mod request_id;
mod rewrite;
mod seats;
mod settings;

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use http::HeaderMap;

use crate::client::Directory;
use crate::clock::Clock;
use crate::limit::Nanos;
use crate::telemetry::{AccessLog, Explanation, Tally};

pub use activity::{Activity, Busy, Tunnels};
pub use admit::{Admission, Asked, Destination, Gate, Limit, Target};
pub use connection::Downstream;
pub use context::Context;
pub use direct::Idle;
pub use identify::{Caller, Identity, KeySource, Recognised, Underscores, UnknownKey, Walk, identify};
pub use lines::Fields;
use outcome::Outcome;
pub use parts::{ProxyParts, RateRules, Rules};
pub use patience::Patience;
pub use reject::Rejection;
pub use request_id::RequestId;
pub use seats::{Room, Seats};
pub use settings::Limits;

/// The longest that a client may take no byte of its answer; nginx's `send_timeout`.
const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// What decides on requests, whichever way they go. A clone is another handle to the same proxy.
#[derive(Clone)]
pub struct Proxy {
    inner: Arc<ProxyParts>,
}

impl Proxy {
    /// A proxy of these parts.
    pub fn new(parts: ProxyParts) -> Self {
        Proxy { inner: Arc::new(parts) }
    }

    /// What the configuration says now.
    fn rules(&self) -> Guard<Arc<Rules>> {
        self.inner.rules.load()
    }

    fn limits(&self) -> Limits {
        self.rules().limits
    }

    fn access_log(&self) -> &AccessLog {
        &self.inner.access_log
    }

    fn tally(&self) -> &Arc<Tally> {
        &self.inner.tally
    }

    fn clock(&self) -> &dyn Clock {
        self.inner.clock.as_ref()
    }

    /// Decides on a request. The bucket is asked at the present moment, not at the one when the request began: a header
    /// that comes slowly must not buy tokens of the past.
    fn admit(&self, asked: Asked<'_, impl Fields>, ctx: &mut Context) -> Result<(), Rejection> {
        let rules = self.rules();
        ctx.rate_headers = rules.rate.is_some_and(|rate| rate.headers);
        ctx.underscores = rules.identity.underscores;
        self.gate(&rules, &self.inner.directory.load()).admit(asked, ctx.peer, self.nanos(), &mut ctx.admission)
    }

    /// Who would send a request with these headers over a connection from `peer`, how that is found out, and what the
    /// request would get at the present moment. Goes the way of a real request, but takes no token and counts nothing.
    pub fn explain(&self, peer: IpAddr, headers: &HeaderMap) -> Explanation {
        let rules = self.rules();
        let mut explained = self.gate(&rules, &self.inner.directory.load()).explain(headers, peer, self.nanos());
        explained
            .write_headers(rules.rate.is_some_and(|rate| rate.headers))
            .expect("all values are digits, quotes and letters");
        explained
    }

    fn gate<'g>(&'g self, rules: &'g Rules, directory: &'g Directory) -> Gate<'g> {
        Gate {
            identity: &rules.identity,
            directory,
            limiter: rules.rate.map(|rate| (self.inner.limiter.as_ref(), rate.default)),
            routes: &rules.routes,
            limits: &rules.limits,
        }
    }

    /// The limiter's time.
    fn nanos(&self) -> Nanos {
        self.inner.timeline.nanos(self.clock().now())
    }
}
