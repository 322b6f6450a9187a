//! The limiter of one process: a bounded map of buckets under many locks.
//!
//! The problem: every request looks up a bucket and changes it, from every core at once; whoever sends requests chooses
//! the keys; and there may be more callers than memory.
//!
//! The rules:
//! - The map is cut into stripes, each with its own lock on its own cache line, so two requests rarely meet. Finding,
//!   crediting and taking are one step under one lock: of n threads that want the last token, one gets it.
//! - A key's bits are as good as random to whoever has not the secret. Nobody outside can choose keys that fall on one
//!   stripe.
//! - A bucket that is full equals one that is not there, so the sweep drops full ones and no others. Nothing else is
//!   ever evicted: forgetting a bucket that is not full would forgive its debt, and whoever can make keys could have
//!   his own forgotten.
//! - At `max_buckets` a new anonymous caller shares one overflow bucket, with the default quota, and is counted.
//!   Callers who have a bucket keep it, and clients always get one: there are only as many as the operator has made. A
//!   flood of new addresses therefore slows other new addresses, and nobody else.
//! - Several charges at once lock the stripes of all of them, in their order, and are decided before any is made.
//! - Anonymous callers have one quota together, and the limiter holds it:
//!   [`set_default_quota`](crate::limit::Upkeep::set_default_quota) changes it for all of them. What a request brings
//!   along for such a caller does not count, since requests that began before a change still bring the old one, and a
//!   bucket put back and forth would be clamped each time.
//! - A client's bucket knows the quota it last saw. When the caller comes with another one, the time until then is
//!   credited under the old one; call [`edit`](crate::limit::Upkeep::edit) at the moment of the change to have it exact
//!   to the nanosecond.
//!
//! Refused: one lock-free map of atomics (governor's way), as a bucket that is exact across edits needs more than 64
//! bits and inserting, sweeping and bounding would need a lock anyway; an LRU, which hands an evicted debtor a full
//! bucket; a reader-writer lock, as every lookup writes.
//!
//! Cost: 50 to 62 bytes for each bucket; one lock, and beside its line one or two cache lines. Where every bucket has a
//! quota of its own, about 30 bytes more. See `benches/limiters.rs`.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};

use arrayvec::ArrayVec;
use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::Key;
use crate::limit::limiter::{Charge, Charges, Decisions, Gauges, Limiter, MOST_CHARGES};

mod default_quota;
mod entry;
mod quotas;
mod stripe;
mod table;
mod upkeep;

use stripe::Stripe;

/// The fewest stripes by default, and the most there can be.
const STRIPES: (usize, usize) = (64, 1 << 16);
/// The most buckets in a stripe by default, on average: more get more stripes, as growing a stripe's table takes time.
const BUCKETS: usize = 1 << 13;

/// How a [`Striped`] is built.
#[derive(Clone, Copy, Debug)]
pub struct StripedSettings {
    /// The most buckets of anonymous callers, over all stripes. Clients' buckets come on top.
    pub max_buckets: NonZeroUsize,
    /// How many stripes, rounded up to a power of two and down to 65,536. By default four for each core, at least 64,
    /// and at least one for each 8,192 of `max_buckets`.
    pub stripes: Option<NonZeroUsize>,
    /// The quota of anonymous callers, and of the overflow bucket that they may share.
    pub default_quota: Quota,
}

/// The limiter of one process. See the [module](self).
#[derive(Debug)]
pub struct Striped {
    stripes: Box<[CachePadded<Mutex<Stripe>>]>,
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
            max_buckets,
            anonymous: CachePadded::default(),
            clients: CachePadded::default(),
            overflow: CachePadded::new(Mutex::new((Bucket::full(settings.default_quota, now), settings.default_quota))),
            overflowed: CachePadded::new(AtomicU64::new(0)),
            default: Mutex::new(settings.default_quota),
        }
    }

    /// The stripe of a key.
    #[inline]
    fn stripe(&self, key: Key) -> &Mutex<Stripe> {
        &self.stripes[self.place(key)]
    }

    /// Which stripe it is. Its table uses the bits below these.
    #[inline]
    fn place(&self, key: Key) -> usize {
        (key.hash() >> 24) as usize & (self.stripes.len() - 1)
    }

    /// Counts one more bucket, for `key`, if there is room for it. For a client there always is.
    fn admit(&self, key: Key) -> bool {
        if key.is_client() {
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

    /// Whether a new bucket of `key` would find room.
    fn has_room(&self, key: Key) -> bool {
        key.is_client() || self.anonymous.load(Ordering::Relaxed) < self.max_buckets
    }

    /// Counts one bucket less.
    fn forget(&self, key: Key) {
        let count = if key.is_client() { &self.clients } else { &self.anonymous };
        count.fetch_sub(1, Ordering::Relaxed);
    }

    /// The first take of a key that has no bucket. Apart from [`take`](Limiter::take), to keep that one short.
    #[cold]
    #[inline(never)]
    fn take_first(&self, mut stripe: MutexGuard<'_, Stripe>, charge: Charge, now: Nanos) -> Decision {
        if !self.admit(charge.key) {
            drop(stripe);
            self.overflowed.fetch_add(1, Ordering::Relaxed);
            return take_from_overflow(&mut self.overflow.lock(), charge, now);
        }
        let mut bucket = stripe.full(charge.quota, now);
        let allowed = bucket.spend(Tokens::whole(charge.cost.get()), charge.quota, now);
        let outgrown = stripe.insert(charge.key, bucket, charge.quota);
        drop(stripe);
        drop(outgrown);
        Decision::new(allowed, Standing::new(bucket, charge.quota, now).for_cost(charge.cost.get()))
    }
}

/// A stripe that is locked, and which it is.
type Locked<'a> = (usize, MutexGuard<'a, Stripe>);

/// The stripe at `place`, which is one of these.
fn among<'a>(locked: &'a mut [Locked<'_>], place: usize) -> &'a mut Stripe {
    let found = locked.iter_mut().find(|(at, _)| *at == place);
    found.map(|(_, stripe)| &mut **stripe).expect("the stripes of all charges are locked")
}

fn take_from_overflow((bucket, quota): &mut (Bucket, Quota), charge: Charge, now: Nanos) -> Decision {
    let allowed = bucket.spend(Tokens::whole(charge.cost.get()), *quota, now);
    Decision::new(allowed, Standing::new(*bucket, *quota, now).for_cost(charge.cost.get()).of_overflow())
}

/// Four for each core, at least 64, and enough for `max_buckets`.
fn default_stripes(max_buckets: usize) -> usize {
    let cores = std::thread::available_parallelism().map_or(1, NonZeroUsize::get);
    (4 * cores).max(STRIPES.0).max(max_buckets / BUCKETS)
}

impl Limiter for Striped {
    #[inline]
    fn take(&self, charge: &Charge, now: Nanos) -> Decision {
        let mut stripe = self.stripe(charge.key).lock();
        let quota = stripe.quota_of(charge.key, charge.quota);
        match stripe.take(charge, quota, now) {
            Some(decision) => decision,
            None => self.take_first(stripe, Charge { quota, ..*charge }, now),
        }
    }

    fn take_all(&self, charges: &Charges, now: Nanos) -> Decisions {
        // Whoever locks several does so in their order, or two would wait for each other.
        let mut places: ArrayVec<usize, MOST_CHARGES> = charges.iter().map(|charge| self.place(charge.key)).collect();
        places.sort_unstable();
        let mut locked: ArrayVec<Locked<'_>, MOST_CHARGES> = ArrayVec::new();
        for place in places {
            if locked.last().is_none_or(|(last, _)| *last != place) {
                locked.push((place, self.stripes[place].lock()));
            }
        }
        let mut overflow = self.overflow.lock();
        let shared = *overflow;
        let mut made: ArrayVec<(Charge, Option<Bucket>), MOST_CHARGES> = ArrayVec::new();
        let mut decisions = Decisions::new();
        for &charge in charges {
            let stripe = among(&mut locked, self.place(charge.key));
            let charge = Charge { quota: stripe.quota_of(charge.key, charge.quota), ..charge };
            let before = stripe.peek(charge.key, charge.quota, now);
            if before.is_none() && !self.admit(charge.key) {
                decisions.push(take_from_overflow(&mut overflow, charge, now));
                continue;
            }
            if before.is_none() {
                let full = stripe.full(charge.quota, now);
                drop(stripe.insert(charge.key, full, charge.quota));
            }
            made.push((charge, before));
            decisions.extend(stripe.take(&charge, charge.quota, now));
        }
        let all = decisions.iter().all(Decision::is_allowed);
        let shares = decisions.iter().filter(|decision| decision.standing().is_overflow()).count();
        self.overflowed.fetch_add(shares as u64, Ordering::Relaxed);
        if !all {
            *overflow = shared;
            for (charge, before) in made.iter().rev() {
                let stripe = among(&mut locked, self.place(charge.key));
                match before {
                    Some(before) => stripe.put(charge, *before, now),
                    None => {
                        stripe.remove(charge.key);
                        self.forget(charge.key);
                    }
                }
            }
            drop(overflow);
            drop(locked);
            for (decision, charge) in decisions.iter_mut().zip(charges).filter(|(decision, _)| decision.is_allowed()) {
                let standing = self.peek(charge.key, charge.quota, now).for_cost(charge.cost.get());
                *decision = Decision::Allowed(standing);
            }
        }
        decisions
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        let stripe = self.stripe(key);
        let (bucket, quota) = {
            let stripe = stripe.lock();
            let quota = stripe.quota_of(key, quota);
            (stripe.peek(key, quota, now), quota)
        };
        if bucket.is_none() && !self.has_room(key) {
            let (bucket, quota) = *self.overflow.lock();
            return Standing::new(bucket, quota, now).of_overflow();
        }
        Standing::new(bucket.unwrap_or_else(|| Bucket::full(quota, now)), quota, now)
    }
}

impl Gauges for Striped {
    fn buckets(&self) -> usize {
        self.anonymous.load(Ordering::Relaxed) + self.clients.load(Ordering::Relaxed)
    }

    fn overflowed(&self) -> u64 {
        self.overflowed.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod stress;

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::Upkeep;

    #[test]
    fn stripes_are_a_power_of_two() {
        let stripes = |stripes| {
            let settings = StripedSettings {
                max_buckets: NonZeroUsize::MIN,
                stripes: NonZeroUsize::new(stripes),
                default_quota: Quota::new(1, 1.0).unwrap(),
            };
            Striped::new(settings, 0).parts()
        };
        assert_eq!((stripes(1), stripes(5), stripes(usize::MAX)), (1, 8, 1 << 16));
        let default = stripes(0);
        assert!(default >= 64 && default.is_power_of_two());
    }
}
