//! How Pingora is to connect to a backend.

use std::sync::Arc;
use std::time::Duration;

use pingora_core::upstreams::peer::HttpPeer;

use crate::proxy::pingora::backend_side::Dial;

/// The peer that is reached by `dial`.
pub(in crate::proxy) fn reached_by(dial: Dial) -> HttpPeer {
    let (mut peer, timeouts) = (HttpPeer::new(dial.site.address(), false, String::new()), dial.timeouts);
    peer.options.connection_timeout = Some(timeouts.connect);
    peer.options.total_connection_timeout = Some(timeouts.connect);
    peer.options.read_timeout = Some(timeouts.read);
    peer.options.write_timeout = Some(timeouts.write);
    // What Pingora lets go of is kept elsewhere, or not at all.
    peer.options.idle_timeout = Some(Duration::ZERO);
    peer.options.custom_l4 = Some(Arc::new(dial));
    peer
}
