//! What a proxy is made of.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::client::{Directory, Quota};
use crate::clock::{Clock, Timeline};
use crate::limit::Limiter;
use crate::proxy::backend::idle::Idle;
use crate::proxy::gate::admit::Destination;
use crate::proxy::gate::identify::Identity;
use crate::proxy::gate::settings::Limits;
use crate::route::RouteTable;
use crate::telemetry::{AccessLog, Decisions, Tally};

/// What a proxy is made of.
pub struct ProxyParts {
    /// What the configuration says of requests; swapped whole by a reload. A request goes by one of them from its start
    /// to its end.
    pub rules: Arc<ArcSwap<Rules>>,
    /// Who callers may be; swapped whole when clients change.
    pub directory: Arc<ArcSwap<Directory>>,
    /// Their buckets.
    pub limiter: Arc<dyn Limiter>,
    /// Where each request gets its line.
    pub access_log: AccessLog,
    /// Where the latest refusals are kept.
    pub decisions: Arc<Decisions>,
    /// Where requests and connections are counted that no pool counts.
    pub tally: Arc<Tally>,
    /// Where connections to backends wait for their next request.
    pub idle: Arc<Idle>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The limiter's time; the same one wherever the limiter is asked.
    pub timeline: Timeline,
}

/// What the configuration says of requests.
#[derive(Debug)]
pub struct Rules {
    /// How callers are told apart.
    pub identity: Identity,
    /// How they are limited; `None` when nobody is.
    pub rate: Option<RateRules>,
    /// Where requests go.
    pub routes: RouteTable<Destination>,
    /// What clients may send, and how long they may take.
    pub limits: Limits,
    /// Whether requests that need nothing of Pingora's request loop go past it.
    pub direct: bool,
}

/// What the proxy has to know beside the buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRules {
    /// The quota of callers whom nobody knows.
    pub default: Quota,
    /// Whether answers say how the bucket stands.
    pub headers: bool,
}
