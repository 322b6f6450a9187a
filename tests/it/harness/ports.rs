//! Free ports.
//!
//! They lie below the range from which the kernel takes the ports of outgoing connections. A port from that range may
//! be taken again the moment it is let go, and a connection to a dead one may even meet itself; both would make the
//! tests that kill a backend and bring it back on its port fail once in a while.

use std::net::{Ipv4Addr, SocketAddr, TcpListener};
use std::sync::atomic::{AtomicU32, Ordering};

const FIRST: u32 = 10_000;
const COUNT: u32 = 22_000;

/// An address on 127.0.0.1 on which nobody listens, handed out once.
pub(crate) fn free_address() -> SocketAddr {
    static NEXT: AtomicU32 = AtomicU32::new(0);
    // Several test processes may run at a time: each starts somewhere else.
    let start = std::process::id().wrapping_mul(2_654_435_761) % COUNT;
    (0..COUNT)
        .map(|_| FIRST + (start + NEXT.fetch_add(1, Ordering::Relaxed)) % COUNT)
        .map(|port| SocketAddr::from((Ipv4Addr::LOCALHOST, port as u16)))
        .find(|address| TcpListener::bind((Ipv4Addr::UNSPECIFIED, address.port())).is_ok())
        .expect("some of 22,000 ports is free")
}
