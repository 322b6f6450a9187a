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
//! - Several claims at once lock the stripes of all of them, in their order, and are decided before any is made.
//! - Policies have buckets here too, each policy within a bound of its own: module `policies`.
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

use crossbeam_utils::CachePadded;
use parking_lot::{Mutex, MutexGuard};

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::{Key, PolicyId, Scope};
use crate::limit::limiter::{Charge, Claim, Decisions, Gauges, Limiter, PolicyGauge};

mod change_policies;
mod default_quota;
mod divided;
mod entry;
mod overflow;
mod policies;
mod several;
mod stripe;
mod table;
mod terms;
mod upkeep;

use overflow::{Overflow, OverflowBucket};
use policies::{Places, PolicyHeld};
use stripe::Stripe;
use terms::BucketTerms;

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
    overflow: CachePadded<Mutex<Overflow>>,
    overflowed: CachePadded<AtomicU64>,
    /// Where policies are; locked while they change, which is stripe by stripe.
    places: Mutex<Places>,
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
        let overflow = Overflow { callers: OverflowBucket::full(settings.default_quota, now), policies: Vec::new() };
        Striped {
            stripes: std::iter::repeat_with(stripe).take(stripes).collect(),
            max_buckets,
            anonymous: CachePadded::default(),
            clients: CachePadded::default(),
            overflow: CachePadded::new(Mutex::new(overflow)),
            overflowed: CachePadded::new(AtomicU64::new(0)),
            places: Mutex::default(),
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

    /// Counts one more bucket, for `key` of this stripe, if there is room for it. For a client there always is.
    fn admit(&self, stripe: &Stripe, key: Key) -> bool {
        match key.scope() {
            Scope::Client => {
                self.clients.fetch_add(1, Ordering::Relaxed);
                true
            }
            Scope::Address => {
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
            scope => stripe.policy(scope).is_some_and(|policy| policy.counts.admit()),
        }
    }

    /// Whether a new bucket of `key`, of this stripe, would find room.
    fn has_room(&self, stripe: &Stripe, key: Key) -> bool {
        match key.scope() {
            Scope::Client => true,
            Scope::Address => self.anonymous.load(Ordering::Relaxed) < self.max_buckets,
            scope => stripe.policy(scope).is_some_and(|policy| policy.counts.has_room()),
        }
    }

    /// Counts one bucket less.
    fn uncount(&self, stripe: &Stripe, key: Key) {
        match key.scope() {
            Scope::Client | Scope::Address => self.forget(&[], key),
            scope => stripe.policy(scope).into_iter().for_each(PolicyHeld::forget),
        }
    }

    /// The same, of a key of one of these policies if it is of any.
    fn forget(&self, policies: &[PolicyHeld], key: Key) {
        match key.scope() {
            Scope::Client => drop(self.clients.fetch_sub(1, Ordering::Relaxed)),
            Scope::Address => drop(self.anonymous.fetch_sub(1, Ordering::Relaxed)),
            Scope::Policy(slot) | Scope::OwnInPolicy(slot) => {
                policies.get(slot.index()).into_iter().for_each(PolicyHeld::forget);
            }
        }
    }

    /// Counts a claim that goes to an overflow bucket.
    #[cold]
    fn overflows(&self, stripe: &Stripe, key: Key) {
        let count = stripe.policy(key.scope()).map_or(&*self.overflowed, |policy| &policy.counts.overflowed);
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The first take of a key that has no bucket. Apart from [`take`](Limiter::take), to keep that one short.
    #[cold]
    #[inline(never)]
    fn take_first(
        &self,
        mut stripe: MutexGuard<'_, Stripe>,
        charge: &Charge,
        terms: BucketTerms,
        now: Nanos,
    ) -> Decision {
        if !self.admit(&stripe, charge.key) {
            self.overflows(&stripe, charge.key);
            drop(stripe);
            return self.overflow.lock().of(charge.key.scope()).take(charge, now);
        }
        let mut bucket = stripe.full(terms.quota, now);
        let allowed = bucket.spend(Tokens::whole(charge.cost.get()), terms.quota, now);
        let outgrown = stripe.insert(charge.key, bucket, terms);
        drop(stripe);
        drop(outgrown);
        Decision::new(allowed, Standing::new(bucket, terms.quota, now).for_cost(charge.cost.get()))
    }

    /// Takes what `charge` costs of a bucket under `terms`, whether it is there or not.
    fn settle_under(
        &self,
        mut stripe: MutexGuard<'_, Stripe>,
        charge: &Charge,
        terms: BucketTerms,
        now: Nanos,
    ) -> Standing {
        let cost = charge.cost.get();
        let found = stripe.locate(charge.key, terms, now);
        let bucket = match found {
            Some((_, bucket)) => bucket,
            None if self.admit(&stripe, charge.key) => stripe.full(terms.quota, now),
            None => {
                drop(stripe);
                let mut overflow = self.overflow.lock();
                let shared = overflow.of(charge.key.scope());
                shared.bucket = shared.bucket.debited(cost, shared.quota, now);
                return shared.standing(now);
            }
        };
        let bucket = bucket.debited(cost, terms.quota, now);
        match found {
            Some((slot, _)) => stripe.write(slot, bucket),
            None => {
                let outgrown = stripe.insert(charge.key, bucket, terms);
                drop(stripe);
                drop(outgrown);
            }
        }
        Standing::new(bucket, terms.quota, now)
    }
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
        let terms = stripe.terms_of(charge.key, charge.quota);
        match stripe.take(charge, terms, now) {
            Some(decision) => decision,
            None => self.take_first(stripe, charge, terms, now),
        }
    }

    fn take_all(&self, claims: &[Claim], now: Nanos) -> Decisions {
        self.take_several(claims, now)
    }

    fn settle(&self, charge: &Charge, now: Nanos) -> Standing {
        let stripe = self.stripe(charge.key).lock();
        let terms = stripe.terms_of(charge.key, charge.quota);
        self.settle_under(stripe, charge, terms, now)
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        let (bucket, quota, room) = {
            let stripe = self.stripe(key).lock();
            let quota = stripe.terms_of(key, quota).quota;
            let bucket = stripe.peek(key, quota, now);
            (bucket, quota, bucket.is_some() || self.has_room(&stripe, key))
        };
        if !room {
            return self.overflow.lock().of(key.scope()).standing(now);
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

    fn in_policies(&self) -> usize {
        self.places.lock().buckets()
    }

    fn of_policy(&self, id: PolicyId) -> PolicyGauge {
        let places = self.places.lock();
        let Some(counts) = places.counts(id) else { return PolicyGauge::default() };
        let (buckets, overflowed) = (counts.buckets.load(Ordering::Relaxed), counts.overflowed.load(Ordering::Relaxed));
        PolicyGauge { buckets, overflowed }
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
