//! Several claims in one step, all or none of them.
//!
//! The stripes of all claims are locked, each once and in the order of their places, so that of two requests that want
//! the same ones neither waits for the other while that waits for it. Then every claim is weighed: the bucket it would
//! leave is reckoned and nothing is written. Only when no claim hinders the others are the buckets written. So a
//! request that is refused writes nothing, has nothing to put back, and makes no bucket.
//!
//! Nearly always there are two claims, a caller's own and one of a policy, of buckets that are there, in two stripes.
//! Those go a shorter way to the same end, without lists.
//!
//! Each stripe is looked up once for a claim: where a bucket lies is remembered from the weighing to the writing, which
//! is why new buckets, that may move others, are added last.

use parking_lot::MutexGuard;
use smallvec::SmallVec;

use super::overflow::{Overflow, OverflowBucket};
use super::stripe::Stripe;
use super::terms::BucketTerms;
use super::{Bucket, Claim, Decision, Decisions, Nanos, Standing, Striped, Tokens};
use crate::limit::limiter::USUAL_CLAIMS;

/// A stripe that is locked, and which it is.
type Locked<'a> = (usize, MutexGuard<'a, Stripe>);

/// The stripe at `place`, which is one of these.
#[inline]
fn among<'l, 'a>(locked: &'l mut [Locked<'a>], place: usize) -> &'l mut MutexGuard<'a, Stripe> {
    let found = locked.iter_mut().find(|(at, _)| *at == place);
    found.map(|(_, stripe)| stripe).expect("the stripes of all claims are locked")
}

/// A claim that was weighed.
struct Weighed {
    /// The place of its stripe.
    place: usize,
    lies: Lies,
    terms: BucketTerms,
    before: Bucket,
    /// The bucket without what it costs; the same when that is not there.
    after: Bucket,
    allowed: bool,
}

/// Where a bucket lies.
#[derive(Clone, Copy, PartialEq)]
enum Lies {
    /// In this slot of its stripe.
    At(usize),
    /// Nowhere yet; there is room for it, which is counted.
    Nowhere,
    /// It is the one that callers share.
    Shared,
}

impl Weighed {
    fn decision(&self, claim: &Claim, made: bool, now: Nanos) -> Decision {
        let bucket = if made { self.after } else { self.before };
        let standing = Standing::new(bucket, self.terms.quota, now).for_cost(claim.charge.cost.get());
        let shared = self.lies == Lies::Shared;
        Decision::new(self.allowed, if shared { standing.of_overflow() } else { standing })
    }
}

impl Striped {
    /// Does it.
    pub(super) fn take_several(&self, claims: &[Claim], now: Nanos) -> Decisions {
        let two = <&[Claim; 2]>::try_from(claims).ok().and_then(|two| self.take_two(two, now));
        two.map_or_else(|| self.take_any(claims, now), Decisions::from_iter)
    }

    /// Does it for two of buckets that are there, in two stripes; `None` when they are not, and then nothing is taken.
    #[inline]
    fn take_two(&self, claims: &[Claim; 2], now: Nanos) -> Option<[Decision; 2]> {
        let places = claims.each_ref().map(|claim| self.place(claim.charge.key));
        if places[0] == places[1] {
            return None;
        }
        // Looked at before either is locked, so that their memory comes at one time and not one after the other.
        std::hint::black_box(places.map(|place| self.stripes[place].is_locked()));
        let lock = |place: usize| self.stripes[place].lock();
        let mut stripes = if places[0] < places[1] {
            places.map(lock)
        } else {
            let [second, first] = [places[1], places[0]].map(lock);
            [first, second]
        };
        let mut weigh = |at: usize| {
            let Claim { charge, .. } = claims[at];
            let terms = stripes[at].terms_of(charge.key, charge.quota);
            let (slot, before) = stripes[at].locate(charge.key, terms, now)?;
            let mut after = before;
            let allowed = after.spend(Tokens::whole(charge.cost.get()), terms.quota, now);
            Some(Weighed { place: places[at], lies: Lies::At(slot), terms, before, after, allowed })
        };
        let all = [weigh(0)?, weigh(1)?];
        let goes = claims.iter().zip(&all).all(|(claim, weighed)| weighed.allowed || claim.trial);
        let made = |at: usize| goes && all[at].allowed && !claims[at].later;
        for (at, stripe) in stripes.iter_mut().enumerate() {
            if let (true, Lies::At(slot)) = (made(at), all[at].lies) {
                stripe.write(slot, all[at].after);
            }
        }
        drop(stripes);
        Some([0, 1].map(|at| all[at].decision(&claims[at], made(at), now)))
    }

    /// Does it for any.
    fn take_any(&self, claims: &[Claim], now: Nanos) -> Decisions {
        let mut locked = self.lock(claims);
        let mut overflow: Option<MutexGuard<'_, Overflow>> = None;
        let mut goes = true;
        let mut all: SmallVec<[Weighed; USUAL_CLAIMS]> = SmallVec::with_capacity(claims.len());
        for claim in claims {
            let key = claim.charge.key;
            let place = self.place(key);
            let stripe = among(&mut locked, place);
            let mut terms = stripe.terms_of(key, claim.charge.quota);
            let (lies, before) = match stripe.locate(key, terms, now) {
                Some((slot, bucket)) => (Lies::At(slot), bucket),
                None if self.admit(stripe, key) => (Lies::Nowhere, stripe.full(terms.quota, now)),
                None => {
                    self.overflows(stripe, key);
                    let OverflowBucket { bucket, quota } =
                        *overflow.get_or_insert_with(|| self.overflow.lock()).of(key.scope());
                    terms.quota = quota;
                    (Lies::Shared, bucket)
                }
            };
            let mut after = before;
            let allowed = after.spend(Tokens::whole(claim.charge.cost.get()), terms.quota, now);
            goes &= allowed || claim.trial;
            all.push(Weighed { place, lies, terms, before, after, allowed });
        }
        let made = |claim: &Claim, weighed: &Weighed| goes && weighed.allowed && !claim.later;
        for (claim, weighed) in claims.iter().zip(&all).filter(|(claim, weighed)| made(claim, weighed)) {
            match weighed.lies {
                Lies::At(slot) => among(&mut locked, weighed.place).write(slot, weighed.after),
                Lies::Nowhere => {}
                Lies::Shared => {
                    let shared = overflow.as_mut().map(|overflow| overflow.of(claim.charge.key.scope()));
                    shared.into_iter().for_each(|shared| shared.bucket = weighed.after);
                }
            }
        }
        drop(overflow);
        for (claim, weighed) in claims.iter().zip(&all).filter(|(_, weighed)| weighed.lies == Lies::Nowhere) {
            let stripe = among(&mut locked, weighed.place);
            match made(claim, weighed) {
                true => drop(stripe.insert(claim.charge.key, weighed.after, weighed.terms)),
                false => self.uncount(stripe, claim.charge.key),
            }
        }
        drop(locked);
        let decided = claims.iter().zip(&all);
        decided.map(|(claim, weighed)| weighed.decision(claim, made(claim, weighed), now)).collect()
    }

    /// Locks the stripes of all claims.
    fn lock(&self, claims: &[Claim]) -> SmallVec<[Locked<'_>; USUAL_CLAIMS]> {
        let mut places: SmallVec<[usize; USUAL_CLAIMS]> =
            claims.iter().map(|claim| self.place(claim.charge.key)).collect();
        places.sort_unstable();
        places.dedup();
        places.into_iter().map(|place| (place, self.stripes[place].lock())).collect()
    }
}
