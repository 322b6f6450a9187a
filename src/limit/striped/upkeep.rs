//! What a background service does with the map: drop what is full, save what has changed, read back what was saved.
//!
//! One call is for one stripe, and lets its lock go after every 512 slots; `docs/benchmarks.md` says how long that takes.
//! Nothing here credits a bucket or changes what it would answer, so it may run as often or as rarely as anybody likes.
//!
//! What was saved is a bucket as it was last written, with the quota it was written under. Its instant is in the limiter's
//! time: save it as it is when the epoch is the same after a restart (the Unix epoch), else move it. The time between
//! counts as refill.
//!
//! Whoever keeps what was saved follows both calls in their order: `export` says what to write, `sweep` what to forget.
//!
//! A bucket that moves while its stripe is walked over (a new caller made the table grow) may be missed by that walk. The
//! next one finds it, still to be dropped or saved. With nobody taking, a walk misses none.

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos};
use crate::limit::key::Key;
use crate::limit::striped::Striped;
use crate::limit::striped::stripe::Stripe;

/// The slots that are walked over with the lock held.
const STEP: usize = 512;

/// A bucket as it is saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Saved {
    /// Whose it is.
    pub key: Key,
    /// Its tokens, and when it held them.
    pub bucket: Bucket,
    /// The quota it was last under.
    pub quota: Quota,
}

impl Striped {
    /// Drops the full buckets of one stripe and tells `dropped` whose they were; how many. Whoever saves buckets forgets
    /// those.
    ///
    /// `dropped` is called with the stripe locked: collect, and call nothing of the limiter.
    ///
    /// # Panics
    /// When `stripe` is not below [`stripes`](Striped::stripes).
    pub fn sweep(&self, stripe: usize, now: Nanos, mut dropped: impl FnMut(Key)) -> usize {
        let mut count = 0;
        self.walk(stripe, |stripe, slots| {
            stripe.sweep(slots, now, &self.hasher, |key| {
                // Counted first, so that the count is right even if `dropped` panics.
                self.forget(key);
                count += 1;
                dropped(key);
            });
        });
        let unused = self.stripes[stripe].lock().shrink(&self.hasher);
        drop(unused);
        count
    }

    /// Gives `saved` every bucket of one stripe that was changed since the last call for it. What it gives is not given
    /// again until it changes: whoever fails to save it keeps it and tries again.
    ///
    /// `saved` is called with the stripe locked: collect, and call nothing of the limiter.
    ///
    /// # Panics
    /// When `stripe` is not below [`stripes`](Striped::stripes).
    pub fn export(&self, stripe: usize, mut saved: impl FnMut(Saved)) {
        self.walk(stripe, |stripe, slots| {
            stripe.export(slots, |key, bucket, quota| saved(Saved { key, bucket, quota }));
        });
    }

    /// Lets every bucket count as changed, so that the next [`export`](Striped::export) of each stripe gives all of
    /// them.
    pub fn mark_all(&self) {
        for stripe in 0..self.stripes() {
            self.walk(stripe, Stripe::mark);
        }
    }

    /// Takes `tokens` from the bucket of `key` whether they are there or not: another process has let that many
    /// requests in. What is missing is owed, and the bucket earns it before anything else. A bucket that is not there
    /// was full under `quota`; one that finds no room stays away, as the overflow bucket is each process' own.
    pub fn debit(&self, key: Key, tokens: u32, quota: Quota, now: Nanos) {
        let (hash, stripe) = self.stripe(key);
        let mut stripe = stripe.lock();
        if !stripe.debit(hash, key, tokens, now) && self.admit(key) {
            let bucket = stripe.full(quota, now).debited(tokens, quota, now);
            let outgrown = stripe.insert(hash, key, bucket, quota, &self.hasher);
            drop(stripe);
            drop(outgrown);
        }
    }

    /// Calls `step` for all slots of a stripe, some at a time, and lets the lock go in between.
    fn walk(&self, stripe: usize, mut step: impl FnMut(&mut Stripe, (usize, usize))) {
        let mut from = 0;
        loop {
            let mut stripe = self.stripes[stripe].lock();
            if from >= stripe.slots() {
                break;
            }
            step(&mut stripe, (from, from + STEP));
            from += STEP;
        }
    }

    /// Reads a saved bucket back, in place of the one its key may have; whether there was room for it.
    ///
    /// It is put under `quota`, what the key's owner has now; an anonymous caller's under the default one. A bucket
    /// from the future (the clock was set back meanwhile) counts as written at `now`, so that nobody waits for the
    /// clock to come back, unless it [owes](Bucket::debited).
    pub fn restore(&self, saved: Saved, quota: Quota, now: Nanos) -> bool {
        let written = saved.bucket.resumed(saved.quota, now);
        let (hash, stripe) = self.stripe(saved.key);
        let mut stripe = stripe.lock();
        let quota = stripe.quota_of(saved.key, quota);
        let bucket = written.edit(saved.quota, quota, now);
        let replaced = stripe.remove(hash, saved.key, &self.hasher);
        if bucket.is_full(quota, now) {
            if replaced {
                self.forget(saved.key);
            }
            return true;
        }
        let room = replaced || self.admit(saved.key);
        let outgrown = room.then(|| stripe.insert(hash, saved.key, bucket, quota, &self.hasher));
        drop(stripe);
        drop(outgrown);
        room
    }
}
