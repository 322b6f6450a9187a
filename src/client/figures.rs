//! What a client has done, as several processes tell it together.

use std::collections::BTreeMap;
use std::time::SystemTime;

use super::Usage;

/// What a client has done.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct UsageFigures {
    /// The requests that its limit let through.
    pub allowed: u64,
    /// The requests that its limit refused.
    pub limited: u64,
    /// The requests that its candidate would have refused.
    pub candidate_limited: u64,
    /// When the last request came.
    pub last_seen: Option<SystemTime>,
}

impl UsageFigures {
    /// What one process counts; `wall` says when a moment was, in nanoseconds since the Unix epoch.
    pub fn of(usage: &Usage, wall: impl Fn(u64) -> SystemTime) -> Self {
        UsageFigures {
            allowed: usage.allowed(),
            limited: usage.limited(),
            candidate_limited: usage.candidate_limited(),
            last_seen: usage.last_seen().map(wall),
        }
    }

    /// Adds what another process counts.
    pub fn add(&mut self, other: &UsageFigures) {
        self.allowed = self.allowed.saturating_add(other.allowed);
        self.limited = self.limited.saturating_add(other.limited);
        self.candidate_limited = self.candidate_limited.saturating_add(other.candidate_limited);
        self.last_seen = self.last_seen.max(other.last_seen);
    }
}

/// The requests of each second that several processes recorded, each the earliest first: all of them, so too.
pub fn together(recordings: impl IntoIterator<Item = Vec<(u64, u32)>>) -> Vec<(u64, u32)> {
    let mut seconds = BTreeMap::<u64, u32>::new();
    for (second, requests) in recordings.into_iter().flatten() {
        let sum = seconds.entry(second).or_default();
        *sum = sum.saturating_add(requests);
    }
    seconds.into_iter().collect()
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use super::*;

    #[test]
    fn counts_add_up_and_the_latest_stays() {
        let at = |seconds| Some(SystemTime::UNIX_EPOCH + Duration::from_secs(seconds));
        let figures = |allowed, limited, candidate_limited, last_seen| UsageFigures {
            allowed,
            limited,
            candidate_limited,
            last_seen,
        };
        let mut sum = UsageFigures::default();
        sum.add(&figures(1, 2, 3, None));
        assert_eq!(sum, figures(1, 2, 3, None));
        sum.add(&figures(10, 20, 30, at(7)));
        sum.add(&figures(100, 200, u64::MAX, at(5)));
        assert_eq!(sum, figures(111, 222, u64::MAX, at(7)));
    }

    #[test]
    fn seconds_add_up_in_their_order() {
        assert_eq!(together([]), []);
        let recordings = [vec![(5, 1), (9, u32::MAX)], vec![], vec![(3, 4), (5, 2), (9, 1)]];
        assert_eq!(together(recordings), [(3, 4), (5, 3), (9, u32::MAX)]);
    }
}
