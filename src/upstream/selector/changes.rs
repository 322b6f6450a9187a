//! What backends tell the selectors that choose among them, so that a selector looks at those that changed and at no
//! others.
//!
//! The problem: a backend's health, its drain and its requests in flight change on any thread, without the selector,
//! and the same backend may be in the selectors of a pool and of its successor. A selector that looks at all of its
//! backends for each choice is exact, but a thousand of them cost more than the rest of the request.
//!
//! The rule: each selector has a list of changes, and each backend marks its place in the lists of all selectors that
//! have it, after it has changed. A selector takes the [marks](super::marks), under its own lock, and looks at those
//! backends again.
//!
//! Refused: a queue, which can be full; a lock in the backend that every request would take; telling the selector of
//! the new value, as two tellers could overtake each other.

use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use crossbeam_utils::CachePadded;

use super::marks::Marks;

/// The changes that one selector has yet to look at. Every part of it may be used from any thread.
#[derive(Debug)]
pub(in crate::upstream) struct Changes {
    /// How many of its backends are ready.
    ready: AtomicUsize,
    /// How often one of them became ready or ceased to be, or got another weight.
    version: CachePadded<AtomicU64>,
    /// Those that have changed.
    marks: Marks,
}

impl Changes {
    /// For so many backends, each of which has yet to be looked at. None of them counts as ready before it says so.
    pub(in crate::upstream) fn new(backends: usize) -> Self {
        let marks = Marks::new(backends);
        let changes = Changes { ready: AtomicUsize::new(0), version: CachePadded::default(), marks };
        (0..backends).for_each(|place| changes.mark(place));
        changes
    }

    /// Says that the backend at `place` has changed. To be called after the change.
    pub(in crate::upstream) fn mark(&self, place: usize) {
        self.marks.mark(place);
    }

    /// Says that the backend at `place` has become ready, or has ceased to be. To be called after the change.
    pub(in crate::upstream) fn turned(&self, place: usize, ready: bool) {
        if ready {
            self.ready.fetch_add(1, Ordering::Relaxed);
        } else {
            self.ready.fetch_sub(1, Ordering::Relaxed);
        }
        self.version.fetch_add(1, Ordering::Release);
        self.mark(place);
    }

    /// Says that the backend at `place` has another weight. To be called after the change.
    pub(super) fn weighed(&self, place: usize) {
        self.version.fetch_add(1, Ordering::Release);
        self.mark(place);
    }

    /// How many backends are ready.
    pub(super) fn ready(&self) -> usize {
        self.ready.load(Ordering::Relaxed)
    }

    /// Another number after each backend that became ready or ceased to be, or has another weight. What was read of
    /// them after this number was is as new as the number.
    pub(super) fn version(&self) -> u64 {
        self.version.load(Ordering::Acquire)
    }

    /// Takes all marks; `look` is called with the place of each. By one thread at a time.
    pub(super) fn take(&self, look: impl FnMut(usize)) {
        self.marks.take(look);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn all_have_yet_to_be_looked_at() {
        let (changes, mut places) = (Changes::new(300), Vec::new());
        changes.take(|place| places.push(place));
        assert_eq!(places, (0..300).collect::<Vec<_>>());
    }

    #[test]
    fn who_is_ready_is_counted_and_each_turn_is_another_version() {
        let changes = Changes::new(2);
        let before = changes.version();
        changes.turned(0, true);
        changes.turned(1, true);
        changes.turned(0, false);
        assert_eq!((changes.ready(), changes.version()), (1, before + 3));
    }

    #[test]
    fn no_mark_is_lost_between_threads() {
        const PLACES: usize = 300;
        let changes = Changes::new(PLACES);
        let values: Vec<AtomicU64> = (0..PLACES).map(|_| AtomicU64::new(0)).collect();
        let mut seen = vec![0; PLACES];
        let mut look = || changes.take(|place| seen[place] = values[place].load(Ordering::Relaxed));
        std::thread::scope(|scope| {
            let markers: Vec<_> = (0..3)
                .map(|first| {
                    let (changes, values) = (&changes, &values);
                    scope.spawn(move || {
                        for place in (0..200_000).map(|step: usize| (step * 7 + first) % PLACES) {
                            values[place].fetch_add(1, Ordering::Relaxed);
                            changes.mark(place);
                        }
                    })
                })
                .collect();
            while markers.iter().any(|marker| !marker.is_finished()) {
                look();
            }
        });
        look();
        assert_eq!(seen, values.into_iter().map(AtomicU64::into_inner).collect::<Vec<_>>());
    }
}
