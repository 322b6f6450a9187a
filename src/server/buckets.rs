//! Tending the buckets: full ones are dropped, and those that are not full are saved, so that nobody gets tokens back
//! by waiting for a restart.
//!
//! The sweep says that a bucket is gone, the export what it became. Both run under one lock, which no request takes, so
//! that what is due to be saved (module `due`) is in the order of events. What the store could not take is tried again
//! at the next tick. Nobody else writes buckets: a reset ([`Buckets::reset`]) and what a change of a client makes of
//! its bucket ([`Buckets::keep`]) go by here, and take what is older and still due of that bucket out of the way, so
//! that neither comes undone by a save that began before it. The bucket of a client that is deleted is filled, and so
//! forgotten after the next sweep.
//!
//! Saved is every `persist_interval` and at a clean stop. A crash loses what was taken since the last save: a client
//! gains at most what it took in that time. When a million buckets change each second, a save takes longer than the
//! interval, and the next one starts when it is done.
//!
//! A successor takes the buckets over from memory, not from the store ([`handover`](super::handover)): first all of
//! them while the proxy goes on, and then, when it accepts no more, those that changed meanwhile. From then on only
//! one of the two may save, and that right is handed over with them; it comes back when the successor fails. What is
//! saved is in the time of the process that saves it, so two who save would take each other's buckets for older than
//! they are.
//!
//! What this node owes the store of a fleet is saved beside them: module `owed`.
//!
//! At start every saved bucket is read back with the time that passed as refill. While a process runs, the monotonic
//! clock counts; between two, that of the machine since its start, which nobody sets. When the machine was started anew
//! meanwhile, the wall clock does: one that stepped back credits nothing; one far ahead fills a bucket at most. What is
//! read back counts as changed and is saved anew, since its instant is now in this process' time.

use std::num::NonZeroUsize;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use async_trait::async_trait;
use log::{info, warn};
use parking_lot::Mutex;
use pingora_core::server::ShutdownWatch;
use pingora_core::services::background::BackgroundService;
use tokio::sync::Semaphore;

use super::sparingly::Sparingly;
use super::ticker;
use crate::client::Quota;
use crate::clock::{Clock, Timeline};
use crate::limit::{Bucket, KeptBucket, Key, KeyMaker, Nanos, Payer, RateLimit, WholeLimiter};
use crate::store::{BucketStore, Moment, Reply, Saved, Snapshot, StoreError, WriteError};
use due::Due;
use owed_book::OwedBook;

mod due;
mod fill;
mod owed;
mod owed_book;

/// How long a hand-over waits for a piece that is being saved.
const LONGEST_SAVE: Duration = Duration::from_secs(5);
/// How far the wall clock may move against the limiter's time before that is noted.
const DRIFT: Duration = Duration::from_secs(1);

/// A bucket whose quota was raised: who pays, where it is, and what it is under now.
pub(super) type Raised = (Payer, Key, Quota);

/// Tends the buckets of one limiter.
pub(super) struct Buckets {
    limiter: Arc<dyn WholeLimiter>,
    store: Arc<dyn BucketStore>,
    /// What makes keys of payers, and reads them back.
    keys: Arc<KeyMaker>,
    sweep_every: Duration,
    save_every: Duration,
    max_buckets: NonZeroUsize,
    clock: Arc<dyn Clock>,
    timeline: Timeline,
    due: Mutex<Due>,
    owed: Mutex<OwedBook>,
    /// The right to save, a single one. Whoever saves holds it; a hand-over takes it for good.
    right: Semaphore,
    /// Whether another process has the right.
    handed_over: AtomicBool,
}

/// Buckets for a successor, each payer once.
#[derive(Debug)]
pub(super) struct HandedOver {
    /// When this was.
    pub(super) at: Moment,
    /// Those that are not full.
    pub(super) changed: Vec<Saved>,
    /// Those that the store may still have, and that are full.
    pub(super) dropped: Vec<Payer>,
}

impl Buckets {
    /// Tends the buckets of `limiter` and keeps them in `store`.
    pub(super) fn new(
        limiter: Arc<dyn WholeLimiter>,
        store: Arc<dyn BucketStore>,
        settings: &RateLimit,
        clock: Arc<dyn Clock>,
        timeline: Timeline,
    ) -> Self {
        let RateLimit { refill_interval, persist_interval, max_buckets, .. } = *settings;
        let (sweep_every, save_every, due) = (refill_interval, persist_interval, Mutex::default());
        let (right, handed_over) = (Semaphore::new(1), AtomicBool::new(false));
        let keys = Arc::new(KeyMaker::new(store.secret()));
        Buckets {
            limiter,
            store,
            keys,
            sweep_every,
            save_every,
            max_buckets,
            clock,
            timeline,
            due,
            owed: Mutex::default(),
            right,
            handed_over,
        }
    }

    /// What makes the keys of its buckets.
    pub(super) fn keys(&self) -> &Arc<KeyMaker> {
        &self.keys
    }

    /// The key of `payer`, and the quota that its bucket is under now: that of its `own`, or in a policy that of the
    /// policy. None when nobody is known, or no such policy.
    pub(super) fn whose(&self, payer: Payer, own: impl Fn(Payer) -> Option<Quota>) -> Option<(Key, Quota)> {
        let own = own(payer);
        match payer.policy() {
            None => Some((self.keys.key(payer), own?)),
            Some(policy) => {
                let (slot, quota) = self.limiter.policy(policy)?;
                Some((self.keys.key_within(payer, slot, own.is_some()), own.unwrap_or(quota)))
            }
        }
    }

    /// The same for a successor: it may not save before [`receive_right`](Buckets::receive_right).
    pub(super) fn of_successor(self) -> Self {
        self.handed_over.store(true, Ordering::SeqCst);
        Buckets { right: Semaphore::new(0), ..self }
    }

    /// Has the store keep these buckets as they are now, before its turn comes; unless another process has them. Waits
    /// for nothing: what the store does not take is due when it changes the next time.
    pub(super) fn keep(&self, buckets: &[Raised]) {
        if buckets.is_empty() || self.is_handed_over() {
            return;
        }
        // Looked at only now, when nothing newer of them can become due and be forgotten here.
        let mut due = self.due.lock();
        due.forget(buckets.iter().map(|(payer, ..)| *payer));
        let changed = buckets.iter().map(|bucket| self.raised(*bucket)).collect();
        drop(self.store.save(Snapshot::of(changed, Vec::new(), self.moment())));
    }

    /// A bucket as it is now, to be saved.
    fn raised(&self, (payer, key, quota): Raised) -> Saved {
        Saved { payer, bucket: self.limiter.peek(key, quota, self.now()).bucket(), quota }
    }

    fn is_handed_over(&self) -> bool {
        self.handed_over.load(Ordering::SeqCst)
    }

    /// Saves from now on; for a successor that is about to serve.
    pub(super) fn receive_right(&self) {
        self.handed_over.store(false, Ordering::SeqCst);
        self.right.add_permits(1);
    }

    /// Saves no more, since the predecessor does; for a successor that fails.
    pub(super) fn give_up_right(&self) {
        self.handed_over.store(true, Ordering::SeqCst);
    }

    fn now(&self) -> Nanos {
        self.timeline.nanos(self.clock.now())
    }

    fn moment(&self) -> Moment {
        Moment::present(self.clock.as_ref(), &self.timeline)
    }

    /// Drops the full buckets.
    fn sweep(&self) {
        let mut due = self.due.lock();
        for part in 0..self.limiter.parts() {
            let mut dropped = Vec::new();
            self.limiter.sweep(part, self.now(), &mut |key| dropped.push(key));
            due.dropped(dropped.into_iter().filter_map(|key| self.keys.payer(key)));
        }
        due.bound(self.limiter.buckets() + self.limiter.in_policies());
    }

    /// Makes due what has changed.
    fn export(&self) {
        let mut due = self.due.lock();
        let mut changed = Vec::new();
        for part in 0..self.limiter.parts() {
            // Into a small list first: the part is locked meanwhile, and making room in the long one takes its time.
            self.limiter.export(part, &mut |saved| changed.push(saved));
            due.changed(changed.drain(..).filter_map(|kept| self.saved(kept)));
        }
        // While the store takes nothing, the same buckets change again and again.
        due.bound(self.limiter.buckets() + self.limiter.in_policies());
    }

    /// A bucket of the limiter as it is saved.
    fn saved(&self, KeptBucket { key, bucket, quota }: KeptBucket) -> Option<Saved> {
        Some(Saved { payer: self.keys.payer(key)?, bucket, quota })
    }

    /// Gives the store the next piece, if any is due; the moment that it is of. What is given later is newer.
    fn send(&self) -> Option<(Moment, Reply<()>)> {
        let mut due = self.due.lock();
        let at = self.moment();
        let (changed, dropped) = due.next()?;
        Some((at, self.store.save(Snapshot::of(changed, dropped, at))))
    }

    /// Saves what has changed. While that takes longer than the interval, what changes meanwhile comes in between.
    async fn save(&self) {
        // The store says itself what is wrong with it.
        if self.save_owed().await.is_err() {
            return;
        }
        self.export();
        let mut exported = self.clock.now();
        // Between two pieces the right may be handed over.
        while let Ok(_right) = self.right.try_acquire()
            && !self.is_handed_over()
            && let Some((at, reply)) = self.send().or_else(|| self.send_drift())
        {
            if reply.wait().await.is_err() {
                return;
            }
            self.due.lock().done(at);
            let now = self.clock.now();
            if now.saturating_duration_since(exported) >= self.save_every {
                self.export();
                exported = now;
            }
        }
    }

    /// Gives the store nothing but the present moment, when the wall clock was set since the last one.
    fn send_drift(&self) -> Option<(Moment, Reply<()>)> {
        let (at, saved) = (self.moment(), self.due.lock().saved()?);
        let between = |later: Nanos, earlier: Nanos| i128::from(later) - i128::from(earlier);
        let drift = between(at.wall, saved.wall) - between(at.timeline, saved.timeline);
        let moved = drift.unsigned_abs() > DRIFT.as_nanos();
        moved.then(|| (at, self.store.save(Snapshot::of(Vec::new(), Vec::new(), at))))
    }

    /// Saves everything at the end, when nobody takes tokens any more. Blocks the thread.
    ///
    /// # Errors
    /// When the store cannot take it.
    pub(super) fn save_at_stop(&self) -> Result<(), WriteError> {
        self.save_owed_at_stop()?;
        self.export();
        while let Some((at, reply)) = self.send() {
            reply.wait_blocking()?;
            self.due.lock().done(at);
        }
        // The moment, from which on the wall clock counts.
        self.store.save(Snapshot::of(Vec::new(), Vec::new(), self.moment())).wait_blocking()
    }

    /// Takes the right to save, and gives all buckets. None when a save takes too long, and nothing has changed then.
    /// Blocks the thread.
    pub(super) fn begin_hand_over(&self) -> Option<HandedOver> {
        let end = self.clock.now() + LONGEST_SAVE;
        let right = loop {
            match self.right.try_acquire() {
                Ok(right) => break right,
                Err(_) if self.clock.now() < end => std::thread::park_timeout(Duration::from_millis(1)),
                Err(_) => return None,
            }
        };
        right.forget();
        self.handed_over.store(true, Ordering::SeqCst);
        self.limiter.mark_all();
        Some(self.hand_over_the_rest())
    }

    /// Gives what has changed since the last call of this or of [`begin_hand_over`](Buckets::begin_hand_over).
    pub(super) fn hand_over_the_rest(&self) -> HandedOver {
        self.export();
        let at = self.moment();
        let (changed, dropped) = self.due.lock().hand_over();
        HandedOver { at, changed, dropped }
    }

    /// Takes the right to save back, if it was handed over: everything is due.
    pub(super) fn take_back(&self) {
        if self.is_handed_over() {
            self.due.lock().take_back();
            self.take_owed_back();
            self.limiter.mark_all();
            self.handed_over.store(false, Ordering::SeqCst);
            self.right.add_permits(1);
        }
    }

    /// Takes over what a predecessor gives. `quota` is what the bucket's owner has now, none when nobody is known;
    /// then it keeps the quota that it was under.
    pub(super) fn take_over(&self, from: &HandedOver, own: impl Fn(Payer) -> Option<Quota>) {
        let now = self.moment();
        let mut due = self.due.lock();
        for saved in &from.changed {
            let whose = self.whose(saved.payer, &own);
            // In no policy that was, nobody can come any more.
            let plain = || saved.payer.policy().is_none().then(|| (self.keys.key(saved.payer), saved.quota));
            match whose.or_else(plain) {
                Some(whose) => self.put(saved, whose, from.at, now, &mut due),
                None => due.dropped([saved.payer]),
            }
        }
        for payer in &from.dropped {
            // Full, so that the next sweep drops what came of it earlier.
            if let Some((key, quota)) = self.whose(*payer, &own) {
                self.limiter.reset(key, quota, now.timeline);
            }
            due.dropped([*payer]);
        }
    }

    /// Reads back a bucket that another process had, whose time was `then` when it is `now` here.
    fn put(&self, saved: &Saved, (key, quota): (Key, Quota), then: Moment, now: Moment, due: &mut Due) {
        // Forgotten by the store, unless it is due as changed at the next export.
        due.dropped([saved.payer]);
        let at = then.carry(saved.bucket.at(), now);
        let bucket = Bucket::resume(saved.bucket.tokens(), at);
        let kept = KeptBucket { key, bucket, quota: saved.quota };
        self.limiter.restore(kept, quota, now.timeline);
    }

    /// Reads back what an earlier process saved: `quota` is what the bucket's owner has now, none when there is no such
    /// client any more. Returns how many buckets are not full.
    ///
    /// # Errors
    /// When the store cannot be read.
    pub(super) fn restore(&self, own: impl Fn(Payer) -> Option<Quota>) -> Result<usize, StoreError> {
        self.restore_owed(&own)?;
        let mut all = Vec::new();
        let Some(then) = self.store.load(&mut |saved| all.push(saved))? else { return Ok(0) };
        let now = self.moment();
        let mut due = self.due.lock();
        for saved in all {
            match self.whose(saved.payer, &own) {
                Some(whose) => self.put(&saved, whose, then, now, &mut due),
                None => due.dropped([saved.payer]),
            }
        }
        Ok(self.limiter.buckets() + self.limiter.in_policies())
    }
}

#[async_trait]
impl BackgroundService for Buckets {
    async fn start(&self, shutdown: ShutdownWatch) {
        let mut overflow = Sparingly::default();
        let sweeps = ticker::run("buckets", self.sweep_every, shutdown.clone(), || {
            self.sweep();
            if let Some(callers) = overflow.observe(self.limiter.overflowed(), self.clock.now()) {
                let max = self.max_buckets;
                warn!("rate limit: all {max} buckets were in use; requests that shared the overflow bucket: {callers}");
            }
            std::future::ready(())
        });
        let saves = ticker::run("saving the buckets", self.save_every, shutdown, || self.save());
        tokio::join!(sweeps, saves);
    }
}

/// Saves the buckets when nobody takes tokens any more, and says how that went.
pub(super) fn save_at_stop(buckets: &Buckets) {
    if buckets.is_handed_over() {
        return info!("the buckets are another process' to save");
    }
    match buckets.save_at_stop() {
        Ok(()) => info!("buckets saved"),
        Err(error) => warn!("the buckets could not be saved: {error}"),
    }
}

#[cfg(test)]
mod owed_tests;
#[cfg(test)]
mod tests;
