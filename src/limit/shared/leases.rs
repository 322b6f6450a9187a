//! What this node may spend without asking, and what it has to ask.
//!
//! An entry is there for each bucket that is busy on this node, and goes when it has not been used for some seconds, once
//! what it held is given back: [`tend`](Leases::tend). Its state is what the node knows and no clock of its own: `lease`
//! tokens until `valid`, counted from before the question was sent, by a clock that nobody sets; the store counts a
//! tenth longer.
//!
//! One question of a bucket is under way at a time. Requests that come meanwhile wait for its answer, too: it may leave
//! them something, or say that there is nothing.
//!
//! A question without an answer may be carried out, or be so later. So each has a number and names the last that was
//! answered: the store first gives back what a later one took, and does nothing for one that comes after a later one.
//! What goes back is said once: the store forgets numbers when leases are over, and would take it twice.
//!
//! Long because all that locks a part of the table stands together, so that one sees that no lock is taken within another.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicU8, AtomicU64, Ordering};
use std::thread;
use std::time::Duration;

use arc_swap::{ArcSwap, Guard};
use crossbeam_utils::CachePadded;
use hashbrown::HashTable;
use parking_lot::Mutex;
use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::entry::{FORGOTTEN, Flight, LeaseEntry, Reserved, WaitingClaim};
use super::held_off::HeldOff;
use super::part::FleetPart;
use super::question::{Answered, BucketQuestion};
use super::queue::{AskQueue, Queued};
use super::tally::LeaseTally;
use crate::client::Quota;
use crate::limit::asking::{AnswersStore, AskingRoom, PendingAnswers, Prepaid, StoreVerdict};
use crate::limit::bucket::Nanos;
use crate::limit::key::Key;
use crate::limit::limiter::{Charge, Owed};
use crate::limit::reach::Reach;

/// In how many parts for each core they are kept, rounded up to a power of two, each under a lock of its own: as few as
/// make it rare that two requests meet, so that the locks stay in the cache.
const PARTS: usize = 8;
/// For how long a view is believed that says that there is nothing.
const BELIEVED: Nanos = 500_000_000;

/// How leases are held.
#[derive(Clone, Copy, Debug)]
pub struct LeaseSettings {
    /// How far ahead of its need a node holds tokens, at least.
    pub lease: Duration,
    /// The longest that a request waits.
    pub timeout: Duration,
    /// The most requests that wait at once.
    pub max_asks: usize,
}

/// The leases of one node.
#[derive(Debug)]
pub struct Leases {
    parts: Box<[CachePadded<Mutex<HashTable<LeaseEntry>>>]>,
    settings: LeaseSettings,
    reach: AtomicU8,
    part: ArcSwap<FleetPart>,
    /// Buckets with something to ask.
    queue: AskQueue,
    held_off: HeldOff,
    room: Arc<AskingRoom>,
    /// The number of the last question.
    number: AtomicU64,
    /// What was counted.
    pub counts: LeaseTally,
}

impl AnswersStore for Leases {
    fn take_back(&self, key: Key, cost: u32) {
        self.with(key, |entry| {
            // Of a request that waited in vain and was let in all the same.
            let owed = u64::from(cost).min(entry.owed);
            entry.owed -= owed;
            entry.back = entry.back.saturating_add(cost - owed as u32);
            self.enqueue(entry, false);
        });
    }
}

impl Leases {
    /// None yet. The store counts as away, and this node as alone.
    pub fn new(settings: LeaseSettings, part: FleetPart, away: Reach) -> Arc<Self> {
        let parts = (thread::available_parallelism().map_or(1, NonZeroUsize::get) * PARTS).next_power_of_two();
        let leases = Leases {
            parts: (0..parts).map(|_| CachePadded::default()).collect(),
            settings,
            reach: AtomicU8::new(0),
            part: ArcSwap::from_pointee(part),
            queue: AskQueue::default(),
            held_off: HeldOff::default(),
            room: AskingRoom::new(settings.max_asks, settings.timeout),
            number: AtomicU64::new(0),
            counts: LeaseTally::default(),
        };
        leases.set_reach(away);
        Arc::new(leases)
    }

    /// What is done with requests from now on.
    pub fn set_reach(&self, reach: Reach) {
        self.reach.store(reach as u8, Ordering::SeqCst);
    }

    /// What is done with requests.
    #[inline]
    pub fn reach(&self) -> Reach {
        match self.reach.load(Ordering::Relaxed) {
            0 => Reach::Joined,
            1 => Reach::Share,
            2 => Reach::Refuse,
            _ => Reach::Allow,
        }
    }

    /// Which part of the quotas is this node's from now on.
    pub fn set_part(&self, part: FleetPart) {
        self.part.store(Arc::new(part));
    }

    pub(in crate::limit) fn part(&self) -> Guard<Arc<FleetPart>> {
        self.part.load()
    }

    /// Tokens that are held.
    pub fn leased(&self, now: Nanos) -> u64 {
        let of = |part: &CachePadded<Mutex<HashTable<LeaseEntry>>>| -> u64 {
            part.lock().iter().map(|entry| u64::from(entry.held(now))).sum()
        };
        self.parts.iter().map(of).sum()
    }

    /// The entries there are.
    pub fn entries(&self) -> usize {
        self.parts.iter().map(|part| part.lock().len()).sum()
    }

    /// Where requests wait.
    pub(in crate::limit) fn room(&self) -> &Arc<AskingRoom> {
        &self.room
    }

    /// Waits until there is something to ask that somebody waits for.
    pub async fn woken(&self) {
        self.room.woken().await;
    }

    fn table(&self, key: Key) -> &Mutex<HashTable<LeaseEntry>> {
        self.table_of(key.hash())
    }

    fn table_of(&self, hash: u64) -> &Mutex<HashTable<LeaseEntry>> {
        &self.parts[(hash >> 40) as usize & (self.parts.len() - 1)]
    }

    fn with<T>(&self, key: Key, change: impl FnOnce(&mut LeaseEntry) -> T) -> Option<T> {
        self.table(key).lock().find_mut(key.hash(), |entry| entry.key == key).map(change)
    }

    fn with_made<T>(&self, key: Key, quota: Quota, now: Nanos, change: impl FnOnce(&mut LeaseEntry) -> T) -> T {
        let mut table = self.table(key).lock();
        let entry = table.entry(key.hash(), |entry| entry.key == key, |entry| entry.key.hash());
        let mut entry = entry.or_insert_with(|| LeaseEntry::new(key, quota, self.number.load(Ordering::Relaxed), now));
        entry.get_mut().quota = quota;
        change(entry.get_mut())
    }

    /// Has something asked about a bucket, at once when `urgent`.
    fn enqueue(&self, entry: &mut LeaseEntry, urgent: bool) {
        if entry.flight.is_some() {
            return;
        }
        if entry.queued != Queued::Next {
            entry.queued = Queued::Next;
            self.queue.push(entry.key);
        }
        if urgent {
            self.queue.hurry();
            self.room.wake();
        }
    }

    /// The same when the bucket is to be asked about again.
    fn enqueue_later(&self, entry: &mut LeaseEntry) {
        if entry.flight.is_none() && entry.queued == Queued::No {
            entry.queued = Queued::Later;
            self.queue.push_later(entry.key, entry.next);
        }
    }

    /// The same when there is time.
    fn enqueue_calm(&self, entry: &mut LeaseEntry) {
        if entry.flight.is_none() && entry.queued == Queued::No {
            entry.queued = Queued::Calm;
            self.queue.push_calm(entry.key);
        }
    }

    #[inline]
    pub(super) fn reserve(&self, key: Key, cost: u32, now: Nanos) -> Reserved {
        let mut table = self.table(key).lock();
        let Some(entry) = table.find_mut(key.hash(), |entry| entry.key == key) else { return Reserved::Unknown };
        if entry.lease >= cost && now < entry.valid {
            entry.lease -= cost;
            entry.use_up(cost, now);
            if entry.lease < entry.low {
                match now < entry.next {
                    true => self.enqueue_later(entry),
                    false if entry.low - entry.lease <= entry.slack => self.enqueue_calm(entry),
                    false => self.enqueue(entry, false),
                }
            }
            return Reserved::Taken;
        }
        if entry.is_put_off(cost, now) {
            entry.use_up(cost, now);
            self.enqueue_later(entry);
            return Reserved::Until(entry.next);
        }
        match now < entry.heard.saturating_add(BELIEVED) {
            true => Reserved::Believed,
            false => Reserved::Unknown,
        }
    }

    pub(super) fn put_back(&self, key: Key, cost: u32) {
        self.with(key, |entry| entry.lease = entry.lease.saturating_add(cost));
    }

    /// Notes what was given without having been asked for.
    pub(super) fn owe(&self, key: Key, quota: Quota, cost: u32, now: Nanos) {
        self.with_made(key, quota, now, |entry| {
            entry.owed = entry.owed.saturating_add(u64::from(cost));
            entry.use_up(cost, now);
            self.enqueue(entry, false);
        });
    }

    /// What is owed, also what was told and not yet answered. That may be told again by another process: then a caller
    /// has paid it twice, which is the lesser fault.
    pub(super) fn owed(&self) -> Vec<Owed> {
        let of = |entry: &mut LeaseEntry| entry.owed.saturating_add(entry.flight.map_or(0, |flight| flight.debit));
        self.each_owed(of)
    }

    /// Takes it out, what was told and not yet answered only in the `end`: what is asked next here undoes that question,
    /// if it was carried out.
    pub(super) fn take_owed(&self, end: bool) -> Vec<Owed> {
        self.each_owed(|entry| {
            let told = entry.flight.as_mut().filter(|_| end).map_or(0, |flight| std::mem::take(&mut flight.debit));
            std::mem::take(&mut entry.owed).saturating_add(told)
        })
    }

    fn each_owed(&self, of: impl Fn(&mut LeaseEntry) -> u64) -> Vec<Owed> {
        let mut all = Vec::new();
        for part in &self.parts {
            for entry in part.lock().iter_mut() {
                let tokens = of(entry);
                if tokens > 0 {
                    all.push(Owed { key: entry.key, quota: entry.quota, tokens });
                }
            }
        }
        all
    }

    /// Whether something of the bucket of these bits is owed.
    pub fn owes(&self, bits: u128) -> bool {
        let hash = bits as u64;
        let mut table = self.table_of(hash).lock();
        let entry = table.find_mut(hash, |entry| entry.key.bits() == bits);
        entry.is_some_and(|entry| entry.owed > 0 || entry.flight.is_some_and(|flight| flight.debit > 0))
    }

    /// Notes what another process gave: no request here.
    pub(super) fn owe_too(&self, Owed { key, quota, tokens }: Owed, now: Nanos) {
        self.with_made(key, quota, now, |entry| {
            entry.owed = entry.owed.saturating_add(tokens);
            self.enqueue(entry, false);
        });
    }

    /// Notes what a request cost that was let in before that was known.
    pub(super) fn settle(&self, key: Key, quota: Quota, cost: u32, now: Nanos) {
        self.with_made(key, quota, now, |entry| {
            let held = entry.held(now).min(cost);
            entry.lease -= held;
            entry.owed = entry.owed.saturating_add(u64::from(cost - held));
            entry.use_up(cost, now);
            self.enqueue(entry, false);
        });
    }

    /// A bucket is under this quota from now on.
    pub(super) fn edit(&self, key: Key, quota: Quota) {
        self.with(key, |entry| entry.quota = quota);
        self.disbelieve(key);
    }

    /// The view of a bucket counts no more: the next request asks. Whoever changes a bucket in the store calls it.
    pub(super) fn disbelieve(&self, key: Key) {
        self.with(key, |entry| {
            entry.hold_nothing();
            self.enqueue(entry, true);
        });
    }

    /// Tells the store what was spent of the bucket of these bits, and holds nothing of it for a moment, in which each
    /// request asks. Ends when the store knows all that was spent before.
    pub async fn tell(&self, bits: u128, now: Nanos) {
        self.held_off.put(bits, now);
        let mut last = None;
        while let Some(asked) = self.tell_once(bits, &mut last) {
            // Without an answer it is asked again.
            drop(asked.await);
        }
    }

    /// Waits for the next answer about a bucket, unless a question was answered that came after the `last` before this began.
    fn tell_once(&self, bits: u128, last: &mut Option<u64>) -> Option<oneshot::Receiver<StoreVerdict>> {
        let hash = bits as u64;
        let mut table = self.table_of(hash).lock();
        let entry = table.find_mut(hash, |entry| entry.key.bits() == bits)?;
        let last = *last.get_or_insert_with(|| self.number.load(Ordering::Relaxed));
        if entry.known > last {
            return None;
        }
        entry.hold_nothing();
        let (answer, asked) = oneshot::channel();
        entry.waiters.push(WaitingClaim { cost: 0, answer });
        self.enqueue(entry, true);
        Some(asked)
    }

    /// Puts a request's questions, unless too many wait already or the store is away: then it is told at once that
    /// nobody answers.
    pub(super) fn ask(self: &Arc<Self>, charges: impl Iterator<Item = Charge>, now: Nanos) -> PendingAnswers {
        let (place, has_room) = self.room.enter();
        let is_asked = has_room && self.reach() == Reach::Joined;
        if is_asked {
            self.counts.waits.fetch_add(1, Ordering::Relaxed);
        }
        let ask = |charge: Charge| {
            let (answer, question) = oneshot::channel();
            if is_asked {
                self.with_made(charge.key, charge.quota, now, |entry| {
                    entry.waiters.push(WaitingClaim { cost: charge.cost.get(), answer });
                    entry.use_up(charge.cost.get(), now);
                    self.enqueue(entry, true);
                });
            }
            (charge.key, question)
        };
        let questions: SmallVec<_> = charges.map(ask).collect();
        PendingAnswers::new(questions, place)
    }

    /// Takes out what is to be asked now, at most `most` questions. `quota` tells what a bucket has now of which that
    /// was known.
    pub(super) fn due(&self, most: usize, quota: impl Fn(Key, Quota) -> Quota, now: Nanos) -> Vec<BucketQuestion> {
        let nodes = self.part().nodes();
        let ask = |entry: &mut LeaseEntry| {
            entry.quota = quota(entry.key, entry.quota);
            self.question(entry, nodes, now)
        };
        let keys = self.queue.take(most, now).into_iter();
        keys.filter_map(|key| self.with(key, ask).flatten()).collect()
    }

    fn question(&self, entry: &mut LeaseEntry, nodes: u32, now: Nanos) -> Option<BucketQuestion> {
        if std::mem::take(&mut entry.queued) == Queued::No || entry.flight.is_some() {
            return None;
        }
        entry.waiters.retain(|waiter| !waiter.answer.is_closed());
        entry.reckon(self.settings.lease, nodes, now);
        entry.lease = entry.held(now);
        let unused = now.saturating_sub(entry.used_at) >= entry.keeps(nodes);
        if unused && entry.lease > 0 {
            self.counts.returned.fetch_add(1, Ordering::Relaxed);
            entry.back = entry.back.saturating_add(std::mem::take(&mut entry.lease));
        }
        let want = entry.waiters.iter().fold(0_u32, |want, waiter| want.saturating_add(waiter.cost));
        let ahead =
            if unused || self.held_off.has(entry.key, now) { 0 } else { entry.need.saturating_sub(entry.lease) };
        let (debit, back) = (std::mem::take(&mut entry.owed), std::mem::take(&mut entry.back));
        if want > 0 {
            self.counts.asked.fetch_add(1, Ordering::Relaxed);
        }
        let (number, divisor) = (self.number.fetch_add(1, Ordering::Relaxed) + 1, entry.divisor(nodes));
        let (valid, asked) = (entry.validity(), want.saturating_add(ahead));
        entry.flight = Some(Flight { sent: now, waiters: entry.waiters.len(), debit, number, valid, asked });
        let LeaseEntry { key, quota, known, lease: left, .. } = *entry;
        let valid = Duration::from_nanos(valid);
        Some(BucketQuestion { key, quota, left, want, ahead, divisor, debit, back, valid, number, known })
    }

    /// Takes in an answer; the quota of the bucket, and what of it is here.
    pub(super) fn told(&self, key: Key, answer: &Answered, now: Nanos) -> Option<(Quota, u64)> {
        self.with(key, |entry| {
            let flight = entry.flight?;
            entry.lease = entry.lease.saturating_add(answer.ahead);
            (entry.valid, entry.valid_for) = (flight.sent.saturating_add(flight.valid), flight.valid);
            (entry.heard, entry.known, entry.unsure, entry.granted) = (now, flight.number, false, answer.granted);
            entry.heard_of(answer, &flight, self.settings.lease, self.part().nodes());
            if answer.ahead > 0 {
                self.counts.ahead.fetch_add(1, Ordering::Relaxed);
            }
            let held = u64::from(entry.lease) + u64::from(answer.granted);
            if self.held_off.has(key, now) {
                entry.hold_nothing();
            }
            Some((entry.quota, held))
        })?
    }

    /// Tells the requests that waited, after the view was brought up to date: whether it has `enough` for what one
    /// costs.
    pub(super) fn answer(self: &Arc<Self>, key: Key, enough: impl Fn(u32) -> bool, now: Nanos) {
        let mut answers: Vec<(oneshot::Sender<StoreVerdict>, Option<u32>)> = Vec::new();
        self.with(key, |entry| {
            let Some(flight) = entry.flight.take() else { return };
            let asked = flight.waiters.min(entry.waiters.len());
            let mut left = std::mem::take(&mut entry.granted);
            let mut dry = false;
            for waiter in entry.waiters.drain(..asked) {
                // In their order: who wants much is not passed by for ever.
                dry |= waiter.cost > left;
                if !dry {
                    left -= waiter.cost;
                }
                answers.push((waiter.answer, (!dry).then_some(waiter.cost)));
            }
            entry.back = entry.back.saturating_add(left);
            // Who came meanwhile waits for the next answer, unless there is nothing to wait for.
            let later = std::mem::take(&mut entry.waiters);
            for waiter in later {
                if entry.held(now) >= waiter.cost {
                    entry.lease -= waiter.cost;
                    answers.push((waiter.answer, Some(waiter.cost)));
                } else if enough(waiter.cost) && !entry.is_put_off(waiter.cost, now) {
                    entry.waiters.push(waiter);
                } else {
                    answers.push((waiter.answer, None));
                }
            }
            if !entry.waiters.is_empty() || entry.owed > 0 || entry.back > 0 {
                self.enqueue(entry, !entry.waiters.is_empty());
            }
        });
        for (answer, cost) in answers {
            let verdict = cost.map_or(StoreVerdict::Empty, |cost| {
                StoreVerdict::Granted(Prepaid::new(Arc::clone(self) as _, key, cost))
            });
            // Whoever is gone gives it back by that.
            drop(answer.send(verdict));
        }
    }

    /// A question was not answered: it is asked again, but for what went back, and nobody waits any more.
    pub(super) fn unanswered(&self, key: Key) {
        self.counts.late.fetch_add(1, Ordering::Relaxed);
        let waiters = self.with(key, |entry| {
            let Some(flight) = entry.flight.take() else { return Vec::new() };
            entry.owed = entry.owed.saturating_add(flight.debit);
            (entry.heard, entry.unsure) = (0, true);
            self.enqueue(entry, false);
            std::mem::take(&mut entry.waiters)
        });
        drop(waiters);
    }

    /// Looks through all entries: has those asked about that are to be given back or held longer, and forgets those
    /// that nobody used for a while.
    pub fn tend(&self, now: Nanos) {
        let nodes = self.part().nodes();
        for part in &self.parts {
            part.lock().retain(|entry| {
                let without_use = now.saturating_sub(entry.used_at);
                let held = entry.held(now) > 0;
                let goes_back = held && (without_use >= entry.keeps(nodes) || entry.runs_out(now));
                if goes_back || entry.unsure || entry.owed > 0 || entry.back > 0 {
                    self.enqueue(entry, false);
                    return true;
                }
                without_use < FORGOTTEN || held || !entry.is_idle() || entry.queued != Queued::No
            });
        }
    }

    /// Has everything asked about: what is held is given back at the end.
    pub fn give_all_back(&self) {
        for part in &self.parts {
            for entry in part.lock().iter_mut() {
                (entry.used_at, entry.plenty) = (0, false);
                if entry.lease > 0 || entry.unsure || entry.owed > 0 || entry.back > 0 {
                    self.enqueue(entry, false);
                }
            }
        }
        self.queue.ripen();
    }
}
