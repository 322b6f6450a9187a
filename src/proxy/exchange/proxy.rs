//! What decides on requests, whichever way they go.

use std::net::IpAddr;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::Guard;
use http::HeaderMap;

use crate::client::Directory;
use crate::clock::Clock;
use crate::limit::Nanos;
use crate::proxy::exchange::context::Context;
use crate::proxy::exchange::parts::ProxyParts;
use crate::proxy::gate::admit::{Asked, Gate};
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::rules::Rules;
use crate::proxy::gate::settings::Limits;
use crate::proxy::wire::lines::Fields;
use crate::telemetry::{AccessLog, Explanation, Tally};
use crate::upstream::Transport;

/// The longest that a client may take no byte of its answer; nginx's `send_timeout`.
pub(in crate::proxy) const CLIENT_TIMEOUT: Duration = Duration::from_secs(60);

/// What decides on requests, whichever way they go. A clone is another handle to the same proxy.
#[derive(Clone)]
pub struct Proxy {
    pub(in crate::proxy) inner: Arc<ProxyParts>,
}

impl Proxy {
    /// A proxy of these parts.
    pub fn new(parts: ProxyParts) -> Self {
        Proxy { inner: Arc::new(parts) }
    }

    /// What the configuration says now.
    pub(in crate::proxy) fn rules(&self) -> Guard<Arc<Rules>> {
        self.inner.rules.load()
    }

    pub(in crate::proxy) fn limits(&self) -> Limits {
        self.rules().limits
    }

    pub(in crate::proxy) fn access_log(&self) -> &AccessLog {
        &self.inner.access_log
    }

    pub(in crate::proxy) fn tally(&self) -> &Arc<Tally> {
        &self.inner.tally
    }

    pub(in crate::proxy) fn transport(&self) -> &Transport {
        &self.inner.transport
    }

    pub(in crate::proxy) fn clock(&self) -> &dyn Clock {
        self.inner.clock.as_ref()
    }

    /// Decides on a request. The bucket is asked at the present moment, not at the one when the request began: a header
    /// that comes slowly must not buy tokens of the past.
    pub(in crate::proxy) fn admit(&self, asked: Asked<'_, impl Fields>, ctx: &mut Context) -> Result<(), Rejection> {
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
        explained.write_headers(rules.rate.is_some_and(|rate| rate.headers));
        explained
    }

    pub(in crate::proxy) fn gate<'g>(&'g self, rules: &'g Rules, directory: &'g Directory) -> Gate<'g> {
        Gate {
            identity: &rules.identity,
            directory,
            limiter: rules.rate.map(|rate| (self.inner.limiter.as_ref(), rate.default)),
            keys: &self.inner.keys,
            routes: &rules.routes,
            limits: &rules.limits,
        }
    }

    /// The limiter's time.
    pub(in crate::proxy) fn nanos(&self) -> Nanos {
        self.inner.timeline.nanos(self.clock().now())
    }
}
