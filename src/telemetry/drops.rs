//! When to tell people that access lines are being lost.
//!
//! The counters change thousands of times a second when a disk is full; people want to read once that it began, once
//! that it is over, and a reminder now and then. This is the pure core: it is shown the counters about once a second
//! and says what to tell. The writer's thread cannot do it, because a stuck pipe holds it, and request threads must
//! not, because the event log may be stuck as well.

use std::time::{Duration, Instant};

/// Lines must be written for so long without a loss before the trouble counts as over, so that a target on the edge is
/// not reported once a second.
const QUIET: Duration = Duration::from_secs(3);
/// The least time between two events while the trouble lasts.
const REMINDER: Duration = Duration::from_secs(60);
/// The reason when no write failed.
const STUCK: &str = "the reader is stuck or too slow";

/// The counters, and why the latest write failed, if it did.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Counters {
    pub(super) written: u64,
    pub(super) dropped: u64,
    pub(super) failure: Option<String>,
    /// Whether no line waits, which nobody could say of a target that is stuck.
    pub(super) idle: bool,
}

/// Watches the counters.
#[derive(Debug, Default)]
pub(super) struct Drops {
    /// Losses that have been seen.
    seen: u64,
    trouble: Option<Trouble>,
}

#[derive(Debug)]
struct Trouble {
    /// Losses before it began.
    before: u64,
    /// When the latest loss was seen, and how much was written by then.
    latest: (Instant, u64),
    /// When it was last told, and the losses by then.
    told: (Instant, u64),
}

impl Drops {
    /// What to tell, seeing these counters at `now`.
    pub(super) fn observe(&mut self, now: Instant, counters: &Counters) -> Option<String> {
        let (written, dropped) = (counters.written, counters.dropped);
        let grown = dropped > self.seen;
        let before = std::mem::replace(&mut self.seen, dropped);
        let reason = counters.failure.as_deref().unwrap_or(STUCK);
        let Some(trouble) = &mut self.trouble else {
            if grown {
                self.trouble = Some(Trouble { before, latest: (now, written), told: (now, dropped) });
            }
            return grown.then(|| format!("writing failed: {reason}; lines are dropped"));
        };
        if grown {
            trouble.latest = (now, written);
        }
        let lost = dropped - trouble.before;
        let quiet = now.saturating_duration_since(trouble.latest.0) >= QUIET;
        if quiet && (counters.idle || written > trouble.latest.1) && counters.failure.is_none() {
            self.trouble = None;
            return Some(format!("writes again, {} dropped", lines(lost)));
        }
        let remind = dropped > trouble.told.1 && now.saturating_duration_since(trouble.told.0) >= REMINDER;
        if !remind {
            return None;
        }
        trouble.told = (now, dropped);
        Some(format!("writing still fails: {reason}; {} dropped so far", lines(lost)))
    }

    /// What to tell when nothing more will be written.
    pub(super) fn finish(&mut self, counters: &Counters) -> Option<String> {
        let before = self.trouble.take().map_or(self.seen, |trouble| trouble.before);
        self.seen = counters.dropped;
        let lost = counters.dropped.saturating_sub(before);
        (lost > 0).then(|| format!("closed, {} dropped", lines(lost)))
    }
}

fn lines(count: u64) -> String {
    if count == 1 { "1 line was".to_owned() } else { format!("{count} lines were") }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    struct Watch {
        clock: ManualClock,
        drops: Drops,
        counters: Counters,
    }

    impl Watch {
        fn new() -> Self {
            Watch { clock: ManualClock::new(), drops: Drops::default(), counters: Counters::default() }
        }

        /// A second in which so many lines were written and so many lost.
        fn second(&mut self, written: u64, dropped: u64) -> Option<String> {
            self.clock.advance(Duration::from_secs(1));
            self.counters.written += written;
            self.counters.dropped += dropped;
            self.drops.observe(self.clock.now(), &self.counters)
        }
    }

    #[test]
    fn a_full_disk_is_told_once_and_its_end_once() {
        let mut watch = Watch::new();
        assert_eq!(watch.second(100, 0), None);
        watch.counters.failure = Some("no space".into());
        assert_eq!(watch.second(0, 5).as_deref(), Some("writing failed: no space; lines are dropped"));
        assert!((0..30).all(|_| watch.second(0, 5).is_none()));
        watch.counters.failure = None;
        let told: Vec<_> = (0..10).filter_map(|_| watch.second(7, 0)).collect();
        assert_eq!(told, ["writes again, 155 lines were dropped"]);
        assert_eq!(
            watch.second(0, 1).as_deref(),
            Some("writing failed: the reader is stuck or too slow; lines are dropped")
        );
        assert_eq!(watch.drops.finish(&watch.counters).as_deref(), Some("closed, 1 line was dropped"));
        assert_eq!(watch.drops.finish(&watch.counters), None);
    }

    #[test]
    fn while_it_lasts_there_is_a_reminder_a_minute() {
        let mut watch = Watch::new();
        let told: Vec<_> = (0..=120).filter_map(|_| watch.second(0, 1)).collect();
        assert_eq!(told.len(), 3, "{told:?}");
        assert_eq!(told[1], "writing still fails: the reader is stuck or too slow; 61 lines were dropped so far");
        // Nothing more is lost, but nothing is written either: not over, and nothing to remind of.
        assert!((0..300).all(|_| watch.second(0, 0).is_none()));
    }

    #[test]
    fn a_target_on_the_edge_is_one_trouble() {
        let mut watch = Watch::new();
        let told: Vec<_> = (0..50).filter_map(|second| watch.second(10, second % 2)).collect();
        assert_eq!(told.len(), 1, "{told:?}");
    }

    #[test]
    fn losses_nobody_was_told_of_are_told_at_the_end() {
        let mut watch = Watch::new();
        watch.counters.dropped = 2;
        assert_eq!(watch.drops.finish(&watch.counters).as_deref(), Some("closed, 2 lines were dropped"));
    }
}
