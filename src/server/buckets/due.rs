//! What the store has not got yet of the buckets.
//!
//! It is kept in the order of events: the sweep says that a bucket is gone, the export what it became, and the last one
//! counts. Events go to the store some thousand at a time, so that a client write comes in between. What the store
//! could not take stays due and is tried again, before whatever came since. There are at most a few events due for each
//! bucket that there is.

use std::collections::{HashSet, VecDeque};

use crate::limit::Payer;
use crate::store::{Moment, Saved};

/// How many buckets go to the store at once; it writes them in about 10 ms.
pub(super) const PIECE: usize = 4096;

/// What the store has not got yet.
#[derive(Debug, Default)]
pub(super) struct Due {
    /// What happened to which bucket, in the order of events.
    events: Vec<Event>,
    /// Older than `events`, in pieces; the first one may be with the store now.
    pieces: VecDeque<Vec<Event>>,
    /// The moment that the store has.
    saved: Option<Moment>,
    /// What was told to a successor and is to be forgotten by the store all the same if it fails.
    handed_over: Vec<Payer>,
}

/// What happened to a bucket.
#[derive(Clone, Copy, Debug)]
enum Event {
    /// It became this.
    Changed(Saved),
    /// It is full, or nobody's any more.
    Dropped(Payer),
}

impl Event {
    fn payer(&self) -> Payer {
        match self {
            Event::Changed(saved) => saved.payer,
            Event::Dropped(payer) => *payer,
        }
    }
}

impl Due {
    /// These buckets became that.
    pub(super) fn changed(&mut self, buckets: impl IntoIterator<Item = Saved>) {
        self.events.extend(buckets.into_iter().map(Event::Changed));
    }

    /// These buckets are full, or nobody's any more.
    pub(super) fn dropped(&mut self, buckets: impl IntoIterator<Item = Payer>) {
        self.events.extend(buckets.into_iter().map(Event::Dropped));
    }

    /// Keeps the last event of each bucket, in the order of payers. The store keeps buckets in that order, and writes
    /// them twenty times as fast as in any other.
    fn settle(&mut self) {
        self.events.reverse();
        self.events.sort_by_key(Event::payer);
        self.events.dedup_by_key(|event| event.payer());
    }

    /// Keeps the events few while the store takes none, with `live` buckets in use. That an anonymous caller's bucket
    /// is full again need not be kept: what was saved of it before is full by then, too.
    pub(super) fn bound(&mut self, live: usize) {
        if self.events.len() > 2 * live + PIECE {
            self.settle();
            if self.events.len() > live + PIECE {
                let kept =
                    |event: &Event| matches!(event, Event::Changed(_)) || event.payer().client_number().is_some();
                self.events.retain(kept);
            }
        }
    }

    /// The piece that goes to the store next, if any is due: what changed, and what is to be forgotten. It stays due
    /// until [`done`](Due::done).
    pub(super) fn next(&mut self) -> Option<(Vec<Saved>, Vec<Payer>)> {
        if self.pieces.is_empty() {
            self.settle();
            self.pieces = std::mem::take(&mut self.events).chunks(PIECE).map(<[Event]>::to_vec).collect();
        }
        self.pieces.front().map(|piece| sorted_out(piece.iter().copied()))
    }

    /// Nothing of these buckets is due any more: the store is told by somebody else what became of them.
    pub(super) fn forget(&mut self, payers: impl IntoIterator<Item = Payer>) {
        let payers: HashSet<_> = payers.into_iter().collect();
        self.events.retain(|event| !payers.contains(&event.payer()));
        // Also of the piece that the store may be taking: it is sent again when that fails.
        self.pieces.iter_mut().for_each(|piece| piece.retain(|event| !payers.contains(&event.payer())));
    }

    /// The store has the piece, as of `at`.
    pub(super) fn done(&mut self, at: Moment) {
        self.pieces.pop_front();
        self.saved = Some(at);
    }

    /// The moment that the store has; none before the first piece.
    pub(super) fn saved(&self) -> Option<Moment> {
        self.saved
    }

    /// Gives everything to a successor, each payer once: what changed, and what is to be forgotten. None of it is due
    /// after that, unless it is [taken back](Due::take_back).
    pub(super) fn hand_over(&mut self) -> (Vec<Saved>, Vec<Payer>) {
        let newer = std::mem::take(&mut self.events);
        self.events = std::mem::take(&mut self.pieces).into_iter().flatten().chain(newer).collect();
        self.settle();
        let (changed, dropped) = sorted_out(std::mem::take(&mut self.events));
        self.handed_over.extend(&dropped);
        (changed, dropped)
    }

    /// What a successor was told to forget is due here again. What changed is not: the limiter knows it all.
    pub(super) fn take_back(&mut self) {
        let forgotten = std::mem::take(&mut self.handed_over).into_iter().map(Event::Dropped);
        // They are older than whatever came since.
        self.events = forgotten.chain(std::mem::take(&mut self.events)).collect();
    }

    /// How many events wait.
    #[cfg(test)]
    pub(super) fn len(&self) -> usize {
        self.events.len() + self.pieces.iter().map(Vec::len).sum::<usize>()
    }
}

/// Buckets that changed, and those that are gone.
fn sorted_out(events: impl IntoIterator<Item = Event>) -> (Vec<Saved>, Vec<Payer>) {
    let (mut changed, mut dropped) = (Vec::new(), Vec::new());
    for event in events {
        match event {
            Event::Changed(saved) => changed.push(saved),
            Event::Dropped(payer) => dropped.push(payer),
        }
    }
    (changed, dropped)
}
