//! What the configuration says of requests.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use crate::client::Quota;
use crate::limit::Telling;
use crate::proxy::gate::admit::Destination;
use crate::proxy::gate::identify::Identity;
use crate::proxy::gate::policies::Policies;
use crate::proxy::gate::rejection::Rejection;
use crate::proxy::gate::settings::{Limits, ListenerRules};
use crate::proxy::gate::site::SiteAnswers;
use crate::route::RouteTable;
use crate::telemetry::Tracing;

/// What the configuration says of requests.
#[derive(Debug)]
pub struct Rules {
    /// How callers are told apart.
    pub identity: Identity,
    /// How they are limited; `None` when nobody is.
    pub rate: Option<RateRules>,
    /// What requests pay beside; most often nothing.
    pub policies: Option<Arc<Policies>>,
    /// Where requests go.
    pub routes: RouteTable<Destination>,
    /// What clients may send, and how long they may take.
    pub limits: Limits,
    /// What holds for the connections of some listeners, by the address that they listen on.
    pub listeners: HashMap<SocketAddr, ListenerRules>,
    /// Whether callers may ask how they stand.
    pub self_service: bool,
    /// What the site says in place of our answers, by status.
    pub answers: Option<SiteAnswers>,
    /// Whether requests that need nothing of Pingora's request loop go past it.
    pub direct: bool,
    /// What is done about traces; `None` when there are none.
    pub tracing: Option<Tracing>,
}

/// What the proxy has to know beside the buckets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct RateRules {
    /// The quota of callers whom nobody knows.
    pub default: Quota,
    /// Whether answers say how the bucket stands.
    pub headers: bool,
    /// How many requests of one caller may run at once; `None` is no bound.
    pub max_concurrent: Option<NonZeroU32>,
    /// How they say it.
    pub telling: Telling,
    /// After how many refusals in a row a connection of HTTP/1.1 is closed.
    pub close_after: Option<NonZeroU32>,
}

impl Rules {
    /// `rejection`, as the client is told of it: to come back no later than `rate_limit.max_retry_after` says.
    pub(in crate::proxy) fn as_told(&self, rejection: Rejection) -> Rejection {
        match (rejection, self.rate) {
            (Rejection::RateLimited(seconds), Some(rate)) => Rejection::RateLimited(rate.telling.at_most(seconds)),
            (rejection, _) => rejection,
        }
    }
}
