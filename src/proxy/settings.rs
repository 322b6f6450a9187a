//! The limits that guard the proxy against its clients.

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
}

impl Default for Limits {
    fn default() -> Self {
        Limits {
            max_body: 10 << 20,
            header_timeout: Duration::from_secs(10),
            keepalive_timeout: Duration::from_secs(60),
            abort_on_half_close: false,
        }
    }
}
