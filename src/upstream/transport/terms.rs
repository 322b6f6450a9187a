//! How long a connection to a backend may wait for its next request.

use std::time::{Duration, Instant};

/// Parts of an answer that come within this time were written at once.
const AT_ONCE: Duration = Duration::from_millis(50);

/// The terms on which one connection waits.
#[derive(Clone, Copy, Debug)]
pub(super) struct Terms {
    /// When its backend may have become idle, at the earliest.
    pub(super) since: Instant,
    /// When it is closed.
    pub(super) until: Instant,
    /// Whether the backend became idle just then, so that its age when it closes is its age for the backend, too.
    pub(super) is_exact: bool,
}

impl Terms {
    /// The terms of a connection over which an answer began at one moment and ended at another. The backend may have
    /// `said` how long it may be idle; it may be for `longest` in any case. `None` when it may not wait at all.
    ///
    /// From when on the backend takes it for idle is not known when the answer came in parts: it may have been written
    /// long before all of it was passed on to a slow client. At the earliest that was when it began.
    pub(super) fn of((began, ended): (Instant, Instant), said: Option<Duration>, longest: Duration) -> Option<Self> {
        let until = said.map_or(ended + longest, |said| (ended + longest).min(began + said));
        let is_exact = ended.saturating_duration_since(began) < AT_ONCE;
        (until > ended).then_some(Terms { since: began, until, is_exact })
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    #[test]
    fn a_connection_waits_no_longer_than_its_backend_says_and_the_configuration() {
        let (start, ms) = (ManualClock::new().now(), Duration::from_millis);
        for (took, said, longest, until, is_exact) in [
            (0, None, 50_000, Some(50_000), true),
            (0, Some(4_500), 50_000, Some(4_500), true),
            (0, Some(60_000), 50_000, Some(50_000), true),
            (0, Some(0), 50_000, None, true),
            (0, None, 0, None, true),
            (20, None, 50_000, Some(50_020), true),
            (3_000, None, 50_000, Some(53_000), false),
            (3_000, Some(4_500), 50_000, Some(4_500), false),
            (5_000, Some(4_500), 50_000, None, false),
        ] {
            let terms = Terms::of((start, start + ms(took)), said.map(ms), ms(longest));
            assert_eq!(terms.map(|terms| terms.until - start), until.map(ms), "{took} {said:?} {longest}");
            if let Some(terms) = terms {
                assert_eq!((terms.since, terms.is_exact), (start, is_exact), "{took} {said:?} {longest}");
            }
        }
    }
}
