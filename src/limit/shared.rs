//! The limiter of one node among many, which spend one budget for each caller.
//!
//! The problem: a caller's tokens are kept in a store that all nodes ask, and a question takes longer than a request
//! may wait for each time. The rule: a node asks ahead, and spends what it was given from memory.
//!
//! - For each bucket this node holds its *view*, an ordinary bucket in a [`Striped`]: what the store said last, less
//!   what was taken here, refilled as every bucket is. Headers tell it, it is saved and read back, and while the store
//!   is away it is what there is.
//! - Beside it a [lease](leases): tokens that are this node's to spend, for a while. A request that finds one takes it
//!   and waits for nobody.
//! - A request that finds none is [undecided](Decision::Undecided): it asks, waits a moment, and is judged again. Not
//!   where the view, heard of within half a second, says that there is nothing: then it is refused from memory, until the
//!   bucket can have a token again, or is asked about again with others. The view is never less than the truth but for what others gave back or an operator
//!   added, which is heard of when it is believed no more.
//! - What the store gives for a request that waits is that request's alone: a [`Prepaid`] token, given back if it is
//!   not spent.
//!
//! While the store is away each node enforces its part: 1/n of every quota, n as the nodes were last seen. A bucket too
//! small to divide belongs to one node, which a hash of both names (rendezvous hashing). What a caller is told is of that
//! part, and the limit that of all. What is given meanwhile, and
//! what a request is given that waited in vain, is owed and told to the store as soon as it answers, into debt if need
//! be. Or everybody is refused, or nobody, as the operator wants it. What is owed outlives the process: whoever keeps the
//! views keeps it, too ([`owed`](crate::limit::Upkeep::owed)).
//!
//! All of it is pure: who asks is [`due`](SharedLimiter::due), and what is answered is [`told`](SharedLimiter::told).
//!
//! A bucket that callers share for want of room is each node's own. So is what a client is only tried with.
//!
//! Refused: a lease within the entry of a [`Striped`], which would make every bucket larger where only the busy ones
//! have a lease; asking for every request; counting in windows, which gives twice the limit at their seam.
//!
//! Source: D. G. Thaler and C. V. Ravishankar, "Using name-based mappings to increase hit rates", 1998, for the hash.

use std::sync::Arc;

use smallvec::SmallVec;

use crate::client::Quota;
use crate::limit::asking::{PendingAnswers, Prepaid, StoreAnswers, StoreVerdict};
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::{Key, PolicyId};
use crate::limit::limiter::{
    Charge, Claim, Decisions, Gauges, KeptBucket, Limiter, PolicyGauge, USUAL_CLAIMS, Upkeep, are_allowed,
};
use crate::limit::reach::Reach;
use crate::limit::striped::Striped;

mod entry;
mod foresee;
mod held_off;
pub mod leases;
mod part;
mod question;
mod queue;
mod tally;
#[cfg(test)]
mod tests;
mod upkeep;

use entry::Reserved;
use leases::Leases;
pub use part::FleetPart;
pub use question::{Answered, BucketQuestion};
pub use tally::LeaseTally;

/// The limiter of one node among many. See the [module](self).
pub struct SharedLimiter {
    view: Striped,
    leases: Arc<Leases>,
}

impl SharedLimiter {
    /// Over the views that `view` holds.
    pub fn new(view: Striped, leases: Arc<Leases>) -> Self {
        SharedLimiter { view, leases }
    }

    /// Takes out what is to be asked now, at most `most` questions, each under the quota that its bucket has now.
    pub fn due(&self, most: usize, now: Nanos) -> Vec<BucketQuestion> {
        let of = |key, known| Some(self.view.peek(key, known, now)).filter(|seen| !seen.is_overflow());
        self.leases.due(most, |key, known| of(key, known).map_or(known, |seen| seen.quota()), now)
    }

    /// Takes in what the store said of a bucket.
    pub fn told(&self, key: Key, answer: &Answered, now: Nanos) {
        let Some((quota, held)) = self.leases.told(key, answer, now) else { return };
        let whole = answer.tokens + i64::try_from(held).unwrap_or(i64::MAX);
        let at = now.saturating_sub(answer.age);
        let tokens = u32::try_from(whole.max(0)).unwrap_or(u32::MAX);
        let owed = u32::try_from((-whole).max(0)).unwrap_or(u32::MAX);
        let bucket = Bucket::resume(Tokens::whole(tokens), at);
        let bucket = if owed > 0 { bucket.debited(owed, quota, now) } else { bucket };
        self.view.restore(KeptBucket { key, bucket, quota }, quota, now);
        self.leases.answer(key, |cost| self.view.peek(key, quota, now).for_cost(cost).is_enough(), now);
    }

    /// The store did not answer a question about a bucket, or not in time.
    pub fn unanswered(&self, key: Key) {
        self.leases.unanswered(key);
    }

    /// One claim while the store answers.
    fn take_joined(&self, charge: &Charge, now: Nanos) -> Decision {
        match self.leases.reserve(charge.key, charge.cost.get(), now) {
            Reserved::Taken => {
                let decision = self.view.take(charge, now);
                if !decision.is_allowed() {
                    self.leases.put_back(charge.key, charge.cost.get());
                }
                decision
            }
            found => self.without_lease(charge, found, now),
        }
    }

    /// The same where there is no lease.
    #[cold]
    fn without_lease(&self, charge: &Charge, found: Reserved, now: Nanos) -> Decision {
        let standing = self.seen(charge, now);
        match found {
            _ if standing.is_overflow() => self.view.take(charge, now),
            Reserved::Until(then) => Decision::Refused(standing.until(then)),
            Reserved::Believed if !standing.is_enough() => Decision::Refused(standing),
            _ => Decision::Undecided(standing),
        }
    }

    /// How the bucket that a charge is to be made to stands in the view.
    fn seen(&self, charge: &Charge, now: Nanos) -> Standing {
        self.view.peek(charge.key, charge.quota, now).for_cost(charge.cost.get())
    }

    /// Several claims while the store answers, for a request that has `asked` or not.
    fn take_several(&self, claims: &[Claim], mut asked: Option<&mut StoreAnswers>, now: Nanos) -> Decisions {
        let backing = claims.iter().map(|claim| self.back(claim, asked.as_deref_mut(), now));
        let backing: SmallVec<[ClaimBacking; USUAL_CLAIMS]> = backing.collect();
        let put_off = backing.iter().any(|backing| matches!(backing, ClaimBacking::PutOff(_)));
        if !put_off && !backing.iter().any(|backing| matches!(backing, ClaimBacking::Open)) {
            return self.take_backed(claims, backing, now);
        }
        let last = !put_off && asked.as_ref().is_some_and(|asked| asked.last);
        let decide = |(claim, backing): (&Claim, ClaimBacking)| {
            let standing = self.seen(&claim.charge, now);
            match backing {
                ClaimBacking::PutOff(then) => return Decision::Refused(standing.until(then)),
                // Nobody is asked for a request that is refused, and what was given for it goes back.
                ClaimBacking::Open | ClaimBacking::Prepaid(_) if put_off => {}
                ClaimBacking::Open => return Decision::Undecided(standing),
                ClaimBacking::Lease => self.leases.put_back(claim.charge.key, claim.charge.cost.get()),
                // What was given for it stays its own while it asks for the rest.
                ClaimBacking::Prepaid(prepaid) => {
                    if let Some(asked) = &mut asked {
                        asked.keep(prepaid);
                    }
                }
                ClaimBacking::View => {}
            }
            Decision::new(standing.is_enough(), standing)
        };
        let decisions = claims.iter().zip(backing).map(decide).collect();
        // What this node may give without the store is its part of the quotas.
        if last { self.take_part(claims, now) } else { decisions }
    }

    /// What there is for a claim.
    fn back(&self, claim: &Claim, asked: Option<&mut StoreAnswers>, now: Nanos) -> ClaimBacking {
        let (key, cost) = (claim.charge.key, claim.charge.cost.get());
        if claim.trial {
            return ClaimBacking::View;
        }
        if let Some(StoreVerdict::Granted(prepaid)) = asked.and_then(|asked| asked.take(key)) {
            return ClaimBacking::Prepaid(prepaid);
        }
        let found = self.leases.reserve(key, cost, now);
        if found == Reserved::Taken {
            return ClaimBacking::Lease;
        }
        let standing = self.seen(&claim.charge, now);
        match found {
            _ if standing.is_overflow() => ClaimBacking::View,
            Reserved::Until(then) => ClaimBacking::PutOff(then),
            Reserved::Believed if !standing.is_enough() => ClaimBacking::PutOff(now),
            _ => ClaimBacking::Open,
        }
    }

    /// Claims of which none is open.
    fn take_backed(&self, claims: &[Claim], backing: SmallVec<[ClaimBacking; USUAL_CLAIMS]>, now: Nanos) -> Decisions {
        let decisions = self.view.take_all(claims, now);
        let goes = are_allowed(claims, &decisions);
        for ((claim, backing), decision) in claims.iter().zip(backing).zip(&decisions) {
            let made = goes && claim.is_made(decision);
            match backing {
                ClaimBacking::Lease if !made => self.leases.put_back(claim.charge.key, claim.charge.cost.get()),
                ClaimBacking::Prepaid(prepaid) if made => prepaid.spend(),
                ClaimBacking::View if made => self.owe(claim, decision, now),
                _ => {}
            }
        }
        decisions
    }

    /// Notes that a claim was made without the store, to a bucket; not to one that callers share.
    fn owe(&self, claim: &Claim, decision: &Decision, now: Nanos) {
        if !decision.standing().is_overflow() {
            // The quota of all nodes, which the store is told.
            self.leases.owe(claim.charge.key, decision.standing().quota(), claim.charge.cost.get(), now);
        }
    }

    /// Claims while the store is away.
    #[cold]
    fn take_away(&self, claims: &[Claim], reach: Reach, now: Nanos) -> Decisions {
        match reach {
            Reach::Refuse => claims.iter().map(|claim| Decision::Undecided(self.seen(&claim.charge, now))).collect(),
            Reach::Allow => claims.iter().map(|claim| self.let_in(claim, now)).collect(),
            Reach::Joined | Reach::Share => self.take_part(claims, now),
        }
    }

    /// Makes a claim where there is enough, and lets its request in all the same.
    fn let_in(&self, claim: &Claim, now: Nanos) -> Decision {
        if claim.later {
            return Decision::Allowed(self.seen(&claim.charge, now));
        }
        let decision = self.view.take(&claim.charge, now);
        if decision.is_allowed() {
            // What is not there is not owed: nobody is to pay for the outage when it is over.
            self.owe(claim, &decision, now);
        }
        Decision::Allowed(*decision.standing())
    }

    /// Makes claims to this node's part of the quotas, all or none.
    #[cold]
    fn take_part(&self, claims: &[Claim], now: Nanos) -> Decisions {
        let foreseen = self.foresee_part(claims, now);
        if !are_allowed(claims, &foreseen) {
            return foreseen;
        }
        let make = |(claim, foreseen): (&Claim, Decision)| {
            if claim.later {
                return foreseen;
            }
            let decision = self.view.take_divided(&claim.charge, self.part_of(claim.charge.key), now);
            if decision.is_allowed() {
                self.owe(claim, &decision, now);
            }
            decision
        };
        claims.iter().zip(foreseen).map(make).collect()
    }
}

/// What there is for a claim.
enum ClaimBacking {
    /// Tokens of the lease, which are taken.
    Lease,
    /// Tokens that were given for it.
    Prepaid(Prepaid),
    /// Nothing; it goes by the view, which says that there is nothing, or whose bucket is no other node's.
    View,
    /// Nothing, and there is none before that instant. The view is left as it is: in that of a bucket that this node gives
    /// its part of until it knows that the store is away, only the part is earned.
    PutOff(Nanos),
    /// Nothing, and the store is to be asked about the bucket.
    Open,
}

impl Limiter for SharedLimiter {
    #[inline]
    fn take(&self, charge: &Charge, now: Nanos) -> Decision {
        match self.leases.reach() {
            Reach::Joined => self.take_joined(charge, now),
            reach => self.take_away(&[(*charge).into()], reach, now)[0],
        }
    }

    fn take_all(&self, claims: &[Claim], now: Nanos) -> Decisions {
        match self.leases.reach() {
            Reach::Joined => self.take_several(claims, None, now),
            reach => self.take_away(claims, reach, now),
        }
    }

    fn judge(&self, claims: &[Claim], asked: &mut StoreAnswers, now: Nanos) -> Decisions {
        match self.leases.reach() {
            Reach::Joined => self.take_several(claims, Some(asked), now),
            reach => self.take_away(claims, reach, now),
        }
    }

    fn ask(&self, charges: &[Charge], now: Nanos) -> Option<PendingAnswers> {
        // The store may have gone since the request was found undecided: then its answer is at once that nobody answers.
        (self.leases.reach() != Reach::Refuse).then(|| {
            let charges = charges.iter().map(|charge| Charge { quota: self.seen(charge, now).quota(), ..*charge });
            self.leases.ask(charges, now)
        })
    }

    fn rehearse(&self, charge: &Charge, now: Nanos) -> Decision {
        self.view.take(charge, now)
    }

    fn settle(&self, charge: &Charge, now: Nanos) -> Standing {
        let standing = match self.leases.reach() {
            Reach::Share => self.view.settle_divided(charge, self.part_of(charge.key), now),
            _ => self.view.settle(charge, now),
        };
        if !standing.is_overflow() {
            self.leases.settle(charge.key, standing.quota(), charge.cost.get(), now);
        }
        standing
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        self.view.peek(key, quota, now)
    }

    fn foresee(&self, claims: &[Claim], now: Nanos) -> Decisions {
        self.foreseen(claims, now)
    }

    fn reach(&self) -> (Reach, u32) {
        (self.leases.reach(), self.leases.part().nodes())
    }
}

impl Gauges for SharedLimiter {
    fn buckets(&self) -> usize {
        self.view.buckets()
    }

    fn overflowed(&self) -> u64 {
        self.view.overflowed()
    }

    fn in_policies(&self) -> usize {
        self.view.in_policies()
    }

    fn of_policy(&self, id: PolicyId) -> PolicyGauge {
        self.view.of_policy(id)
    }
}
