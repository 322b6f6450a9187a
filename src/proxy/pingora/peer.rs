//! How Pingora is to connect to a backend.

use std::net::SocketAddr;
use std::sync::Arc;
use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;

use crate::proxy::pingora::backend_side::Dial;

/// The peer that is reached by `dial`.
pub(in crate::proxy) fn reached_by(dial: Dial) -> HttpPeer {
    // Where it is and how long connecting may take is known to the dial; Pingora's own timer would hide what took long.
    let address = dial.site.address().tcp().unwrap_or(SocketAddr::from(([0, 0, 0, 0], 0)));
    let (mut peer, timeouts) = (HttpPeer::new(address, false, String::new()), dial.timeouts);
    peer.options.read_timeout = Some(timeouts.read);
    peer.options.write_timeout = Some(timeouts.write);
    // What Pingora lets go of is kept elsewhere, or not at all.
    peer.options.idle_timeout = Some(Duration::ZERO);
    peer.options.custom_l4 = Some(Arc::new(dial));
    peer
}
