//! Where connections of one kind lead to.

use std::net::SocketAddr;

use crate::upstream::IdleClosing;

/// A backend of one pool as connections know it: where it is, and what is known of when it closes them. Two connections
/// can stand for each other when they lead to the same one; how a backend is spoken to belongs here.
#[derive(Debug)]
pub struct Site {
    address: SocketAddr,
    closing: IdleClosing,
}

impl Site {
    /// That of a backend at `address` of which nothing is known yet.
    pub fn new(address: SocketAddr) -> Self {
        Site { address, closing: IdleClosing::default() }
    }

    /// Where it is.
    pub fn address(&self) -> SocketAddr {
        self.address
    }

    /// What is known of when it closes idle connections.
    pub fn closing(&self) -> &IdleClosing {
        &self.closing
    }
}
