//! The limiter of one process: a bounded map of buckets under many locks.
//!
//! The problem: every request looks up a bucket and changes it, from every core at once; whoever sends requests chooses
//! the keys; and there may be more callers than memory.
//!
//! The rules:
//! - The map is cut into stripes, each with its own lock on its own cache line, so two requests rarely meet. Finding,
//!   crediting and taking are one step under one lock: of n threads that want the last token, one gets it.
//! - The hash is keyed at random when the process starts. Nobody outside can choose keys that fall on one stripe.
//! - A bucket that is full equals one that is not there, so the sweep drops full ones and no others. Nothing else is ever
//!   evicted: forgetting a bucket that is not full would forgive its debt, and whoever can make keys could have his own
//!   forgotten.
//! - At `max_buckets` a new anonymous caller shares one overflow bucket, with the default quota, and is counted. Callers who
//!   have a bucket keep it, and clients always get one: there are only as many as the operator has made. A flood of new
//!   addresses therefore slows other new addresses, and nobody else.
//! - Anonymous callers have one quota together, and the limiter holds it: [`set_default_quota`](Striped::set_default_quota)
//!   changes it for all of them. What a request brings along for such a caller does not count, since requests that began
//!   before a change still bring the old one, and a bucket put back and forth would be clamped each time.
//! - A client's bucket knows the quota it last saw. When the caller comes with another one, the time until then is credited under
//!   the old one; call [`edit`](Limiter::edit) at the moment of the change to have it exact to the nanosecond.
//!
//! Refused: one lock-free map of atomics (governor's way), as a bucket that is exact across edits needs more than 64 bits and
//! inserting, sweeping and bounding would need a lock anyway; an LRU, which hands an evicted debtor a full bucket;
//! a reader-writer lock, as every lookup writes.
//!
//! Cost: 40 to 50 bytes for each bucket; one lock, and beside its line one or two cache lines. Where every bucket has a quota
//! of its own, about 30 bytes more. See `benches/limiters.rs`.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use ahash::RandomState;
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::Key;
use crate::limit::limiter::Limiter;

mod default_quota;
mod entry;
mod quotas;
mod stripe;
mod table;
mod upkeep;

pub use upkeep::Saved;

use stripe::{Stripe, hash_of};

/// The fewest stripes by default, and the most there can be.
const STRIPES: (usize, usize) = (64, 1 << 16);
/// The most buckets in a stripe by default, on average: more get more stripes, as growing a stripe's table takes time.
const BUCKETS: usize = 1 << 13;

/// How a [`Striped`] is built.
#[derive(Clone, Copy, Debug)]
pub struct StripedSettings {
    /// The most buckets of anonymous callers, over all stripes. Clients' buckets come on top.
    pub max_buckets: NonZeroUsize,
    /// How many stripes, rounded up to a power of two and down to 65,536. By default four for each core, at least 64, and
    /// at least one for each 8,192 of `max_buckets`.
    pub stripes: Option<NonZeroUsize>,
    /// The quota of anonymous callers, and of the overflow bucket that they may share.
    pub default_quota: Quota,
}

/// The limiter of one process. See the [module](self).
#[derive(Debug)]
pub struct Striped {
    stripes: Box<[CachePadded<Mutex<Stripe>>]>,
    hasher: RandomState,
    max_buckets: usize,
    anonymous: CachePadded<AtomicUsize>,
    clients: CachePadded<AtomicUsize>,
    overflow: CachePadded<Mutex<(Bucket, Quota)>>,
    overflowed: CachePadded<AtomicU64>,
    /// The quota of anonymous callers; locked while it changes, which is stripe by stripe.
    default: Mutex<Quota>,
}

impl Striped {
    /// An empty map, at `now`.
    pub fn new(settings: StripedSettings, now: Nanos) -> Self {
        let max_buckets = settings.max_buckets.get();
        let stripes = settings.stripes.map_or_else(|| default_stripes(max_buckets), NonZeroUsize::get);
        let stripes = stripes.min(STRIPES.1).next_power_of_two();
        let stripe = || CachePadded::new(Mutex::new(Stripe::new(settings.default_quota)));
        Striped {
            stripes: std::iter::repeat_with(stripe).take(stripes).collect(),
            hasher: RandomState::new(),
            max_buckets,
            anonymous: CachePadded::default(),
            clients: CachePadded::default(),
            overflow: CachePadded::new(Mutex::new((Bucket::full(settings.default_quota, now), settings.default_quota))),
            overflowed: CachePadded::new(AtomicU64::new(0)),
            default: Mutex::new(settings.default_quota),
        }
    }

    /// The buckets there are.
    pub fn len(&self) -> usize {
        self.anonymous.load(Ordering::Relaxed) + self.clients.load(Ordering::Relaxed)
    }

    /// Whether there are none.
    pub fn is_empty(&self) -> bool {
        self.len() == 0
    }

    /// How many stripes there are; the argument of [`sweep`](Striped::sweep) and [`export`](Striped::export) is below this.
    pub fn stripes(&self) -> usize {
        self.stripes.len()
    }

    /// How many takes went to the overflow bucket since the start.
    pub fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }

    /// The hash of a key, and its stripe.
    #[inline]
    fn stripe(&self, key: Key) -> (u64, &Mutex<Stripe>) {
        let hash = hash_of(key, &self.hasher);
        (hash, &self.stripes[(hash >> 24) as usize & (self.stripes.len() - 1)])
    }

    /// Counts one more bucket, for `key`, if there is room for it. For a client there always is.
    fn admit(&self, key: Key) -> bool {
        if key.client_number().is_some() {
            self.clients.fetch_add(1, Ordering::Relaxed);
            return true;
        }
        // Read before it is written, so that a flood on a full map does not fight over the counter.
        if self.anonymous.load(Ordering::Relaxed) >= self.max_buckets {
            return false;
        }
        let room = self.anonymous.fetch_add(1, Ordering::Relaxed) < self.max_buckets;
        if !room {
            self.anonymous.fetch_sub(1, Ordering::Relaxed);
        }
        room
    }

    /// Counts one bucket less.
    fn forget(&self, key: Key) {
        let count = if key.client_number().is_some() { &self.clients } else { &self.anonymous };
        count.fetch_sub(1, Ordering::Relaxed);
    }

    /// The first take of a key that has no bucket. Apart from [`take`](Limiter::take), to keep that one short.
    #[cold]
    #[inline(never)]
    fn take_first(
        &self,
        mut stripe: MutexGuard<'_, Stripe>,
        hash: u64,
        key: Key,
        quota: Quota,
        now: Nanos,
    ) -> Decision {
        if !self.admit(key) {
            drop(stripe);
            return self.take_from_overflow(now);
        }
        let mut bucket = stripe.full(quota, now);
        bucket.take(quota, now);
        let outgrown = stripe.insert(hash, key, bucket, quota, &self.hasher);
        drop(stripe);
        drop(outgrown);
        Decision::Allowed(Standing::new(bucket, quota, now))
    }

    fn take_from_overflow(&self, now: Nanos) -> Decision {
        self.overflowed.fetch_add(1, Ordering::Relaxed);
        let mut overflow = self.overflow.lock();
        let (bucket, quota) = &mut *overflow;
        let allowed = bucket.take(*quota, now);
        let standing = Standing::new(*bucket, *quota, now).of_overflow();
        if allowed { Decision::Allowed(standing) } else { Decision::Refused(standing) }
    }
}

/// Four for each core, at least 64, and enough for `max_buckets`.
fn default_stripes(max_buckets: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (4 * cores).max(STRIPES.0).max(max_buckets / BUCKETS)
}

impl Limiter for Striped {
    #[inline]
    fn take(&self, key: Key, quota: Quota, now: Nanos) -> Decision {
        let (hash, stripe) = self.stripe(key);
        let mut stripe = stripe.lock();
        let quota = stripe.quota_of(key, quota);
        match stripe.take(hash, key, quota, now, &self.hasher) {
            Some(decision) => decision,
            None => self.take_first(stripe, hash, key, quota, now),
        }
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        let (hash, stripe) = self.stripe(key);
        let (bucket, quota) = {
            let stripe = stripe.lock();
            let quota = stripe.quota_of(key, quota);
            (stripe.peek(hash, key, quota, now), quota)
        };
        if bucket.is_none() && key.anonymous().is_some() && self.anonymous.load(Ordering::Relaxed) >= self.max_buckets {
            let (bucket, quota) = *self.overflow.lock();
            return Standing::new(bucket, quota, now).of_overflow();
        }
        Standing::new(bucket.unwrap_or_else(|| Bucket::full(quota, now)), quota, now)
    }

    fn edit(&self, key: Key, from: Quota, to: Quota, now: Nanos) {
        let (hash, stripe) = self.stripe(key);
        let mut stripe = stripe.lock();
        let absent = !stripe.edit(hash, key, to, now, &self.hasher);
        // What is not there was full. If that is less than full from now on, it must be kept.
        if absent && from.capacity() < to.capacity() && self.admit(key) {
            let bucket = stripe.full(from, now);
            let outgrown = stripe.insert(hash, key, bucket, to, &self.hasher);
            drop(stripe);
            drop(outgrown);
        }
    }

    fn reset(&self, key: Key, quota: Quota, now: Nanos) {
        let (hash, stripe) = self.stripe(key);
        let mut stripe = stripe.lock();
        let quota = stripe.quota_of(key, quota);
        stripe.refill(hash, key, quota, now, &self.hasher);
    }
}

#[cfg(test)]
mod stress;
#[cfg(test)]
mod tests;
