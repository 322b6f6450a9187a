//! What a pool asks of a request that wants a backend.

use std::time::Instant;

use super::StickyToken;

/// A request that wants a backend. It is asked only for what its pool chooses by, so a request to a pool that takes
/// turns pays for none of it.
pub trait Requester {
    /// The time.
    fn now(&self) -> Instant;

    /// What tells it from others where that decides, in bytes that are the same whenever that is; empty when it has
    /// nothing of the kind.
    fn key(&self) -> impl AsRef<[u8]>;

    /// The backend that it is to stay with, as its client was told.
    fn stuck(&self) -> Option<StickyToken>;
}

/// A request of which nothing is known, at a moment that is not asked for.
#[cfg(test)]
#[derive(Clone, Copy, Debug)]
pub(crate) struct Anybody;

#[cfg(test)]
impl Requester for Anybody {
    fn now(&self) -> Instant {
        use crate::clock::Clock;
        crate::clock::SystemClock.now()
    }

    fn key(&self) -> impl AsRef<[u8]> {
        b""
    }

    fn stuck(&self) -> Option<StickyToken> {
        None
    }
}
