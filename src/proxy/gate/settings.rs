//! The limits that guard the proxy against its clients, and what holds for the connections of one listener.

use std::num::{NonZeroU16, NonZeroU64, NonZeroUsize};
use std::time::Duration;

/// Limits on what one client may send and how long it may take.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Limits {
    /// The largest request body that is passed on, in bytes. Default 10 MiB.
    pub max_body: u64,
    /// From the first byte of a request to the end of its header, however the bytes trickle. Default 10 s.
    pub header_timeout: Duration,
    /// How long a connection may stay idle between requests. Default 60 s.
    pub keepalive_timeout: Duration,
    /// Whether a client that ends its side after a request is taken for gone. Default: no, it gets its answer.
    pub abort_on_half_close: bool,
    /// The most connections at once. Default `None`: as many as the limit of open files allows for.
    pub max_connections: Option<NonZeroUsize>,
    /// The most of them from one address, or from one prefix of IPv6. Default `None`: as many as there are.
    pub max_connections_per_address: Option<NonZeroUsize>,
    /// The longest silence in a request's body. Default 60 s.
    pub body_timeout: Duration,
    /// The fewest bytes a second that a request's body may come at, over all of it and from its tenth second on.
    /// Default 100; `None` is no bound.
    pub min_body_rate: Option<NonZeroU64>,
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_body: 10 << 20,
            header_timeout: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(60),
            abort_on_half_close: false,
            max_connections: None,
            max_connections_per_address: None,
            body_timeout: Duration::from_secs(60),
            min_body_rate: NonZeroU64::new(100),
        }
    }
}

/// What holds for the connections of one listener. A reload counts for those that come after it.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct ListenerRules {
    /// Which header of the PROXY protocol each connection begins with. Default `None`: with none.
    pub proxy_protocol: Option<HeaderVersions>,
    /// Whether clients may speak HTTP/2 without TLS. Default: no.
    pub h2c: bool,
    /// The port of HTTPS to which every request is sent. Default `None`: requests are served.
    pub redirect_to_https: Option<NonZeroU16>,
}

/// Which versions of the header a listener expects.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum HeaderVersions {
    /// The line of text.
    V1,
    /// The binary one.
    V2,
    /// Either.
    Any,
}
