//! How long a connection must have been silent to be closed once no new requests are wanted.
//!
//! A request may be under way on one that has just been answered, or just been opened. Closed too soon, a client that
//! sends one request after the other loses one. A process that is to stop has little time, and its listeners are closed
//! anyway. One that hands over has some seconds in which it watches its successor, so a slow client may have them.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::Duration;

/// The silence that is waited for. Shared by all connections of a server; the server says how long it is.
#[derive(Debug)]
pub struct Patience {
    millis: AtomicU64,
}

impl Patience {
    /// At a stop: longer than the way there and back between most places, and short enough for an idle server to be
    /// gone within a second.
    pub const STOP: Duration = Duration::from_millis(400);
    /// At a hand-over: within the five seconds that the process stays anyway.
    pub const HAND_OVER: Duration = Duration::from_secs(4);

    /// How long it is now.
    pub fn get(&self) -> Duration {
        Duration::from_millis(self.millis.load(Ordering::Relaxed))
    }

    /// From now on it is `silence`, in whole milliseconds.
    pub fn set(&self, silence: Duration) {
        self.millis.store(u64::try_from(silence.as_millis()).unwrap_or(u64::MAX), Ordering::Relaxed);
    }
}

impl Default for Patience {
    fn default() -> Self {
        let patience = Patience { millis: AtomicU64::new(0) };
        patience.set(Patience::STOP);
        patience
    }
}
