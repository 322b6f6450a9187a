//! How Pingora is to connect to a backend.

use std::net::SocketAddr;
use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;

use crate::upstream::Timeouts;

/// The peer at `backend`, over a connection that may be idle for `longest`; with `fresh`, over a connection that nobody else has used or will use.
pub(super) fn to(backend: SocketAddr, timeouts: &Timeouts, longest: Duration, fresh: bool) -> HttpPeer {
    let mut peer = HttpPeer::new(backend, false, String::new());
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(timeouts.read);
    peer.options.write_timeout = Some(timeouts.write);
    peer.options.idle_timeout = Some(longest);
    if fresh {
        // Kept connections are shared within a group. Nobody else is in this one.
        peer.group_key = fastrand::u64(1..);
        peer.options.idle_timeout = Some(Duration::ZERO);
    }
    peer
}
