//! How slowly a request's body may come.
//!
//! A client that sends a byte a second is never silent for long, and holds a connection, a backend and its thread for
//! as long as it likes. So the whole body has to come at `limits.min_body_rate`, once ten seconds of it were waited
//! for; who sent much at first may pause longer. Apache's `RequestReadTimeout body=10,MinRate=` is the same bound.
//!
//! Only the time counts in which the body was waited for. While a slow backend takes it, nobody reads it, and that is
//! not the client's doing.

use std::num::NonZeroU64;
use std::sync::Arc;
use std::task::Poll;
use std::time::{Duration, Instant};

use crate::clock::Clock;

/// How long a body may take at least, however little it brings.
pub(in crate::proxy) const GRACE: Duration = Duration::from_secs(10);

/// How long may be waited for a body in all of which `received` bytes have come and which has to bring `rate` a second.
pub(in crate::proxy) fn allowance(rate: NonZeroU64, received: u64) -> Duration {
    Duration::from_secs_f64(received as f64 / rate.get() as f64).max(GRACE)
}

/// Counts the time for which something is waited.
pub(in crate::proxy) struct Waited {
    clock: Arc<dyn Clock>,
    before: Duration,
    since: Option<Instant>,
}

impl std::fmt::Debug for Waited {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        f.debug_struct("Waited").field("before", &self.before).field("since", &self.since).finish_non_exhaustive()
    }
}

impl Waited {
    /// Nothing so far, by `clock`.
    pub(in crate::proxy) fn new(clock: Arc<dyn Clock>) -> Self {
        Waited { clock, before: Duration::ZERO, since: None }
    }

    /// Takes note of what a poll for it came to.
    pub(in crate::proxy) fn note<T>(&mut self, polled: Poll<T>) -> Poll<T> {
        match (&polled, self.since) {
            (Poll::Pending, None) => self.since = Some(self.clock.now()),
            (Poll::Ready(_), Some(since)) => {
                self.before += self.clock.now().saturating_duration_since(since);
                self.since = None;
            }
            _ => {}
        }
        polled
    }

    /// How long it was, without the wait that may be going on.
    pub(in crate::proxy) fn so_far(&self) -> Duration {
        self.before
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;

    #[test]
    fn ten_seconds_are_given_and_then_what_the_bytes_are_worth() {
        let allowed = |rate, received| allowance(NonZeroU64::new(rate).unwrap(), received).as_secs_f64();
        assert_eq!(allowed(100, 0), 10.0);
        assert_eq!(allowed(100, 1000), 10.0);
        assert_eq!(allowed(100, 1001), 10.01);
        assert_eq!(allowed(100, 6000), 60.0);
        assert_eq!(allowed(1_000_000_000, 1), 10.0);
        assert!(allowed(1, 1 << 40) > 1e12);
    }

    #[test]
    fn only_the_time_of_waiting_counts() {
        let clock = Arc::new(ManualClock::new());
        let mut waited = Waited::new(Arc::clone(&clock) as _);
        let mut step = |seconds, polled: Poll<()>| {
            clock.advance(Duration::from_secs(seconds));
            let _ = waited.note(polled);
            waited.so_far().as_secs()
        };
        assert_eq!(step(3, Poll::Pending), 0, "nobody had asked for it");
        assert_eq!(step(2, Poll::Pending), 0);
        assert_eq!(step(2, Poll::Ready(())), 4);
        assert_eq!(step(9, Poll::Ready(())), 4, "a backend took its time");
        assert_eq!(step(1, Poll::Pending), 4);
        assert_eq!(step(1, Poll::Ready(())), 5);
    }
}
