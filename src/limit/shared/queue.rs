//! What is to be asked, and when.
//!
//! A trip to the store costs a node as much as ten questions in it. So what nobody waits for goes with the next trip that
//! somebody waits for, or every [`SLOT`], and what is put off to some time goes with all that is put off to the same slot.
//! What has time goes with any other, or every [`CALM`].

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::limit::bucket::Nanos;
use crate::limit::key::Key;

/// What nobody waits for goes together so often.
pub(super) const SLOT: Nanos = 20_000_000;
/// How long what has time waits for another question to go with.
pub(super) const CALM: Nanos = 3 * SLOT;

/// Whether an entry's bucket is going to be asked about.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub(super) enum Queued {
    /// It is not.
    #[default]
    No,
    /// At some time.
    Later,
    /// With the next trip, which need not be soon.
    Calm,
    /// With the next trip.
    Next,
}

/// Buckets with something to ask.
#[derive(Debug, Default)]
pub(super) struct AskQueue(Mutex<QueuedKeys>);

#[derive(Debug, Default)]
struct QueuedKeys {
    next: Vec<Key>,
    calm: Vec<Key>,
    later: BTreeMap<Nanos, Vec<Key>>,
    /// Whether somebody waits for something of it.
    urgent: bool,
    /// The slot in which all was taken out.
    slot: Nanos,
}

impl AskQueue {
    /// Puts a bucket in, for the next trip.
    pub(super) fn push(&self, key: Key) {
        self.0.lock().next.push(key);
    }

    /// Puts a bucket in, for a trip that somebody else makes before long.
    pub(super) fn push_calm(&self, key: Key) {
        self.0.lock().calm.push(key);
    }

    /// Puts a bucket in, for the trip of the slot that begins `at`.
    pub(super) fn push_later(&self, key: Key, at: Nanos) {
        self.0.lock().later.entry(at).or_default().push(key);
    }

    /// Somebody waits for what is in it.
    pub(super) fn hurry(&self) {
        self.0.lock().urgent = true;
    }

    /// Nothing of it is put off any more.
    pub(super) fn ripen(&self) {
        let mut queue = self.0.lock();
        let (later, calm) = (std::mem::take(&mut queue.later), std::mem::take(&mut queue.calm));
        queue.next.extend(later.into_values().flatten().chain(calm));
        queue.urgent = true;
    }

    /// Takes out what goes now, at most `most`.
    pub(super) fn take(&self, most: usize, now: Nanos) -> Vec<Key> {
        let mut queue = self.0.lock();
        let slot = now / SLOT;
        if !queue.urgent && slot == queue.slot {
            return Vec::new();
        }
        while let Some(ripe) = queue.later.first_entry().filter(|ripe| *ripe.key() <= now) {
            let ripe = ripe.remove();
            queue.next.extend(ripe);
        }
        if !queue.next.is_empty() || slot.is_multiple_of(CALM / SLOT) {
            let calm = std::mem::take(&mut queue.calm);
            queue.next.extend(calm);
        }
        let count = queue.next.len().min(most);
        let taken = queue.next.drain(..count).collect();
        queue.urgent = !queue.next.is_empty();
        queue.slot = slot;
        taken
    }
}

/// The slot that begins at an instant or after it.
pub(super) fn slot_from(at: Nanos) -> Nanos {
    at.div_ceil(SLOT).saturating_mul(SLOT)
}
