//! The turns of one node among many, which count together.
//!
//! The problem: who may run so many requests at once may do so over all nodes, and a question takes longer than most
//! requests may wait for each time. The rule: a node holds turns in the store, for two seconds and renewed while
//! they are used, and runs its requests out of them.
//!
//! - A request that finds one idle begins at once. Another asks, waits a moment as it does for its
//!   [buckets](crate::limit::SharedLimiter), and is refused where the store says that as many are held as may.
//! - What a request leaves stays idle here only as far as the bound leaves plenty, so that a small one is asked about
//!   each time and a large one hardly ever; the rest goes back at once, and so does what is idle for 100 ms.
//! - What a node says that it holds is no less than what runs there, and no change but the whole, with a number: a
//!   question that is repeated or comes late changes nothing. A node that vanished holds nothing after 2.2 s, by the
//!   store's time.
//!
//! While the store is away each node runs its part, 1/n of the bound; a bound too small to divide belongs to one node.
//! So is judged who waited in vain. It is told as soon as the store answers, and more than the bound may be held then:
//! nobody begins until there are few enough.
//!
//! Refused: counting up and down in the store, which a lost answer or a killed node leaves wrong for good; turns of a
//! request each, which cost a field and a round trip for each and as many renewals.

use std::collections::HashMap;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use crossbeam_utils::CachePadded;
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::entry::TurnEntry;
use crate::limit::asking::{AnswersStore, PendingAnswers, Prepaid, StoreAnswers, StoreVerdict};
use crate::limit::bucket::Nanos;
use crate::limit::key::Key;
use crate::limit::reach::Reach;
use crate::limit::shared::leases::Leases;

pub use super::entry::{NoTurn, TurnQuestion, TurnsTold, VALID};

/// In how many parts they are kept, each under a lock of its own.
const PARTS: usize = 64;

/// The turns that this node holds. See the [module](self).
#[derive(Debug)]
pub struct SharedTurns {
    parts: Box<[CachePadded<Mutex<TurnsPart>>]>,
    /// Where the fleet is, and who waits.
    leases: Arc<Leases>,
    /// Of the next question.
    number: AtomicU64,
    /// The part that is asked about first.
    first: AtomicUsize,
    /// Whether any part may have something to ask.
    has_questions: AtomicBool,
}

#[derive(Debug, Default)]
struct TurnsPart {
    entries: HashMap<Key, TurnEntry, RandomState>,
    /// Those with something to ask.
    queue: Vec<Key>,
}

impl TurnsPart {
    /// That of `key`, of whose requests `most` may run.
    fn entry(&mut self, key: Key, most: NonZeroU32) -> &mut TurnEntry {
        let entry = self.entries.entry(key).or_default();
        entry.most = most.get();
        entry
    }
}

impl AnswersStore for SharedTurns {
    fn take_back(&self, key: Key, _one: u32) {
        self.end(key);
    }
}

impl SharedTurns {
    /// None yet, beside the `leases` of the node.
    pub fn new(leases: Arc<Leases>) -> Arc<Self> {
        let parts = (0..PARTS).map(|_| CachePadded::default()).collect();
        let (number, first, has_questions) = (AtomicU64::new(1), AtomicUsize::new(0), AtomicBool::new(false));
        Arc::new(SharedTurns { parts, leases, number, first, has_questions })
    }

    fn part(&self, key: Key) -> &Mutex<TurnsPart> {
        &self.parts[(key.hash() >> 48) as usize % PARTS]
    }

    /// Has something asked about the turns of `key`, which are in `part`.
    fn enqueue(&self, part: &mut TurnsPart, key: Key) {
        if let Some(entry) = part.entries.get_mut(&key)
            && !entry.queued
            && !entry.is_asked()
        {
            entry.queued = true;
            part.queue.push(key);
            self.has_questions.store(true, Ordering::Relaxed);
        }
    }

    /// Begins a request of whoever has `key`, of whose requests `most` may run, by what it has `asked` where it has.
    ///
    /// # Errors
    /// Why it may not. What nobody here knows is then what it has to ask.
    pub(super) fn judge(
        &self,
        (key, most): (Key, NonZeroU32),
        asked: &mut Option<Box<StoreAnswers>>,
        now: Nanos,
    ) -> Result<(), NoTurn> {
        if let Some(known) = asked {
            match known.turn.take() {
                Some(StoreVerdict::Granted(granted)) if granted.key() == key => {
                    granted.spend();
                    return Ok(());
                }
                Some(StoreVerdict::Empty) => return Err(NoTurn::Full),
                _ if known.last => return self.take_in_vain(key, most, now),
                _ => {}
            }
        }
        let taken = self.take(key, most, now);
        if taken == Err(NoTurn::Unknown) {
            asked.get_or_insert_default().wanted = Some((key, most));
        }
        taken
    }

    fn take(&self, key: Key, most: NonZeroU32, now: Nanos) -> Result<(), NoTurn> {
        let reach = self.leases.reach();
        let mut part = self.part(key).lock();
        match reach {
            Reach::Joined => match part.entries.get_mut(&key) {
                Some(entry) => {
                    entry.most = most.get();
                    entry.begin(now)
                }
                None => Err(NoTurn::Unknown),
            },
            Reach::Share => {
                let share = self.share(key, most);
                part.entry(key, most).begin_of_share(share, now)
            }
            Reach::Refuse => Err(NoTurn::Unknown),
            Reach::Allow => part.entry(key, most).begin_of_share(u32::MAX, now),
        }
    }

    /// The same for a request that waits no longer.
    #[cold]
    fn take_in_vain(&self, key: Key, most: NonZeroU32, now: Nanos) -> Result<(), NoTurn> {
        if self.leases.reach() != Reach::Joined {
            return self.take(key, most, now);
        }
        let share = self.share(key, most);
        let mut part = self.part(key).lock();
        let begun = part.entry(key, most).begin_in_vain(share, now);
        self.enqueue(&mut part, key);
        begun
    }

    /// How many may run on this node, as far as it knows.
    pub(super) fn most_here(&self, key: Key, most: NonZeroU32) -> Result<u32, NoTurn> {
        match self.leases.reach() {
            Reach::Joined => Ok(most.get()),
            Reach::Share => Ok(self.share(key, most)),
            Reach::Refuse => Err(NoTurn::Unknown),
            Reach::Allow => Ok(u32::MAX),
        }
    }

    /// This node's part of a bound.
    fn share(&self, key: Key, most: NonZeroU32) -> u32 {
        let part = self.leases.part();
        match most.get() / part.nodes() {
            0 if part.is_owner(key.bits()) => most.get(),
            share => share,
        }
    }

    /// Asks for a turn, unless nobody can be asked; where too many wait already, it is told at once that nobody answers.
    pub(super) fn ask(self: &Arc<Self>, key: Key, most: NonZeroU32) -> Option<PendingAnswers> {
        let reach = self.leases.reach();
        if reach == Reach::Refuse {
            return None;
        }
        let (answer, question) = oneshot::channel();
        let (place, has_room) = self.leases.room().enter();
        if has_room && reach == Reach::Joined {
            self.leases.counts.waits.fetch_add(1, Ordering::Relaxed);
            let mut part = self.part(key).lock();
            part.entry(key, most).waiters.push(answer);
            self.enqueue(&mut part, key);
            self.leases.room().wake();
        }
        Some(PendingAnswers::of_turn(question, place))
    }

    /// A request of whoever has `key` has ended.
    pub(super) fn end(&self, key: Key) {
        let nodes = self.leases.part().nodes();
        let mut part = self.part(key).lock();
        let Some(entry) = part.entries.get_mut(&key) else { return };
        entry.end();
        if entry.has_spare(nodes) {
            self.enqueue(&mut part, key);
        } else if !entry.queued && entry.is_over(0) {
            part.entries.remove(&key);
        }
    }

    /// How many run here.
    pub(super) fn running(&self, key: Key) -> u32 {
        self.part(key).lock().entries.get(&key).map_or(0, |entry| entry.running)
    }

    /// Those of whom something is known.
    pub fn entries(&self) -> usize {
        self.parts.iter().map(|part| part.lock().entries.len()).sum()
    }

    /// Takes out what is to be asked now, at most `most` questions.
    pub fn due(&self, most: usize, now: Nanos) -> Vec<TurnQuestion> {
        // What is put in meanwhile is found below, or says so again.
        if !self.has_questions.swap(false, Ordering::Relaxed) {
            return Vec::new();
        }
        let (nodes, first) = (self.leases.part().nodes(), self.first.fetch_add(1, Ordering::Relaxed));
        let mut questions = Vec::new();
        for part in (0..PARTS).map(|at| &self.parts[(first.wrapping_add(at)) % PARTS]) {
            let mut part = part.lock();
            let TurnsPart { entries, queue } = &mut *part;
            let count = queue.len().min(most - questions.len());
            questions.extend(queue.drain(..count).filter_map(|key| {
                let number = self.number.fetch_add(1, Ordering::Relaxed);
                entries.get_mut(&key)?.question(key, nodes, number, now)
            }));
            if !queue.is_empty() {
                self.has_questions.store(true, Ordering::Relaxed);
            }
        }
        questions
    }

    /// Takes in an answer.
    pub fn told(self: &Arc<Self>, key: Key, told: TurnsTold, now: Nanos) {
        let nodes = self.leases.part().nodes();
        let (begun, refused) = {
            let mut part = self.part(key).lock();
            let Some(entry) = part.entries.get_mut(&key) else { return };
            let heard = entry.told(told, now);
            let (waits, spare, over) = (!entry.waiters.is_empty(), entry.has_spare(nodes), entry.is_over(now));
            if waits || spare {
                self.enqueue(&mut part, key);
            } else if over {
                part.entries.remove(&key);
            }
            if waits {
                self.leases.room().wake();
            }
            heard
        };
        for waiter in begun {
            // Whoever is gone gives it back by that.
            drop(waiter.send(StoreVerdict::Granted(Prepaid::new(Arc::clone(self) as _, key, 1))));
        }
        for waiter in refused {
            drop(waiter.send(StoreVerdict::Empty));
        }
    }

    /// A question was not answered: nobody waits any more, and it is asked again.
    pub fn unanswered(&self, key: Key) {
        self.leases.counts.late.fetch_add(1, Ordering::Relaxed);
        let waiters = {
            let mut part = self.part(key).lock();
            let waiters = part.entries.get_mut(&key).map(TurnEntry::unanswered);
            self.enqueue(&mut part, key);
            waiters
        };
        drop(waiters);
    }

    /// Looks through all: has those asked about that are to be renewed or given back.
    pub fn tend(&self, now: Nanos) {
        for part in &self.parts {
            let mut part = part.lock();
            let TurnsPart { entries, queue } = &mut *part;
            let known = entries.len();
            entries.retain(|key, entry| {
                if entry.is_due(now) && !entry.queued && !entry.is_asked() {
                    entry.queued = true;
                    queue.push(*key);
                }
                !entry.is_over(now)
            });
            if entries.len() < known {
                queue.retain(|key| entries.contains_key(key));
            }
            if !queue.is_empty() {
                self.has_questions.store(true, Ordering::Relaxed);
            }
        }
    }

    /// Has given back what is idle, at the end.
    pub fn give_all_back(&self) {
        for part in &self.parts {
            let mut part = part.lock();
            let TurnsPart { entries, queue } = &mut *part;
            for (key, entry) in entries.iter_mut() {
                entry.retire();
                if !entry.queued && !entry.is_asked() {
                    entry.queued = true;
                    queue.push(*key);
                    self.has_questions.store(true, Ordering::Relaxed);
                }
            }
        }
    }
}
