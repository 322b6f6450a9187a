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
//!   bucket can have a token again. The view is never less than the truth but for what others gave back or an operator
//!   added, which is heard of when it is believed no more.
//! - What the store gives for a request that waits is that request's alone: a [`Prepaid`] token, given back if it is
//!   not spent.
//!
//! While the store is away each node enforces its part: 1/n of every quota, n as the nodes were last seen. A bucket too
//! small to divide belongs to one node, which a hash of both names (rendezvous hashing). What is given meanwhile, and
//! what a request is given that waited in vain, is owed and told to the store as soon as it answers, into debt if need
//! be. Or everybody is refused, or nobody, as the operator wants it.
//!
//! All of it is pure: who asks is [`due`](Leases::due), and what is answered is [`told`](SharedLimiter::told).
//!
//! A bucket that callers share for want of room is each node's own. So is what a client is only tried with.
//!
//! Refused: a lease within the entry of a [`Striped`], which would make every bucket larger where only the busy ones
//! have a lease; asking for every request; counting in windows, which gives twice the limit at their seam.
//!
//! Source: D. G. Thaler and C. V. Ravishankar, "Using name-based mappings to increase hit rates", 1998, for the hash.

use std::sync::Arc;

use crate::client::Quota;
use crate::limit::asking::{PendingAnswers, Prepaid, StoreAnswers, StoreVerdict};
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::{Key, PolicyId, PolicySlot};
use crate::limit::limiter::{
    Charge, Claim, Decisions, Gauges, KeptBucket, Limiter, PolicyGauge, PolicyTerms, Upkeep, are_allowed,
};
use crate::limit::striped::Striped;

pub mod leases;
mod part;

use leases::{Answered, Leases, Reserved};
pub use part::{FleetPart, Reach};

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
    pub fn unanswered(&self, key: Key, now: Nanos) {
        self.leases.unanswered(key, now);
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
            found => self.without_lease(charge, found == Reserved::Believed, now),
        }
    }

    /// The same where there is no lease.
    #[cold]
    fn without_lease(&self, charge: &Charge, believed: bool, now: Nanos) -> Decision {
        let standing = self.view.peek(charge.key, charge.quota, now).for_cost(charge.cost.get());
        match standing {
            standing if standing.is_overflow() => self.view.take(charge, now),
            standing if believed && !standing.is_enough() => Decision::Refused(standing),
            standing => Decision::Undecided(standing),
        }
    }

    /// Several claims while the store answers, for a request that has `asked` or not.
    ///
    /// Long because what is held for each claim is given back where the others are not made.
    fn take_several(&self, claims: &[Claim], asked: Option<&mut StoreAnswers>, now: Nanos) -> Decisions {
        let last = asked.as_ref().is_some_and(|asked| asked.last);
        let mut asked = asked;
        let mut prepaid = Vec::new();
        let mut held = vec![ClaimBacking::Nothing; claims.len()];
        let mut open = false;
        for (claim, held) in claims.iter().zip(&mut held) {
            let (key, cost) = (claim.charge.key, claim.charge.cost.get());
            if claim.trial {
                *held = ClaimBacking::Owed;
                continue;
            }
            *held = match asked.as_mut().and_then(|asked| asked.take(key)) {
                Some(StoreVerdict::Granted(granted)) => {
                    prepaid.push(granted);
                    ClaimBacking::Prepaid
                }
                _ => match self.leases.reserve(key, cost, now) {
                    Reserved::Taken => ClaimBacking::Lease,
                    found => match self.without_lease_of(claim, found == Reserved::Believed, now) {
                        true if last => ClaimBacking::Late,
                        true => {
                            open = true;
                            ClaimBacking::Open
                        }
                        false => ClaimBacking::Nothing,
                    },
                },
            };
        }
        if open {
            self.put_all_back(claims, &held);
            let peek = |claim: &Claim| {
                let Charge { key, quota, cost } = claim.charge;
                self.view.peek(key, quota, now).for_cost(cost.get())
            };
            let decided = claims.iter().zip(&held).map(|(claim, held)| match (held, peek(claim)) {
                (ClaimBacking::Open, standing) => Decision::Undecided(standing),
                (_, standing) => Decision::new(standing.is_enough(), standing),
            });
            let decided = decided.collect();
            // What was given for it stays its own while it asks for the rest.
            if let Some(asked) = asked {
                prepaid.into_iter().for_each(|granted| asked.keep(granted));
            }
            return decided;
        }
        let part = self.leases.part();
        let late = held.contains(&ClaimBacking::Late);
        let decisions = match late {
            false => self.view.take_all(claims, now),
            // Its part of the quota is what this node may give without the store.
            true => claims.iter().map(|claim| self.take_part(&claim.charge, &part, now)).collect(),
        };
        let goes = are_allowed(claims, &decisions);
        for ((claim, held), decision) in claims.iter().zip(&held).zip(&decisions) {
            let (key, cost) = (claim.charge.key, claim.charge.cost.get());
            let made = goes && claim.is_made(decision);
            match held {
                ClaimBacking::Lease if !made => self.leases.put_back(key, cost),
                ClaimBacking::Nothing | ClaimBacking::Late | ClaimBacking::Owed
                    if made && !decision.standing().is_overflow() =>
                {
                    self.leases.owe(key, decision.standing().quota(), cost, now);
                }
                _ => {}
            }
        }
        if goes {
            let made = |key| claims.iter().any(|claim| claim.charge.key == key && !claim.later);
            prepaid.into_iter().filter(|granted| made(granted.key())).for_each(Prepaid::spend);
        }
        decisions
    }

    /// Whether a claim for which there is no lease is to be asked about.
    fn without_lease_of(&self, claim: &Claim, believed: bool, now: Nanos) -> bool {
        let Charge { key, quota, cost } = claim.charge;
        let standing = self.view.peek(key, quota, now).for_cost(cost.get());
        !standing.is_overflow() && (!believed || standing.is_enough())
    }

    fn put_all_back(&self, claims: &[Claim], held: &[ClaimBacking]) {
        for (claim, _) in claims.iter().zip(held).filter(|(_, held)| **held == ClaimBacking::Lease) {
            self.leases.put_back(claim.charge.key, claim.charge.cost.get());
        }
    }

    /// Takes from this node's part of a quota.
    fn take_part(&self, charge: &Charge, part: &FleetPart, now: Nanos) -> Decision {
        self.view.take_divided(charge, part.nodes(), part.is_owner(charge.key.bits()), now)
    }

    /// Claims while the store is away.
    #[cold]
    fn take_away(&self, claims: &[Claim], reach: Reach, now: Nanos) -> Decisions {
        let undivided = |claim: &Claim| {
            let Charge { key, quota, cost } = claim.charge;
            self.view.peek(key, quota, now).for_cost(cost.get())
        };
        match reach {
            Reach::Refuse => claims.iter().map(|claim| Decision::Undecided(undivided(claim))).collect(),
            Reach::Allow => {
                let decide = |claim: &Claim| match self.view.take(&claim.charge, now) {
                    Decision::Allowed(standing) if !standing.is_overflow() => {
                        // What is not there is not owed either: nobody is to pay for the outage when it is over.
                        self.leases.owe(claim.charge.key, standing.quota(), claim.charge.cost.get(), now);
                        Decision::Allowed(standing)
                    }
                    Decision::Allowed(standing) | Decision::Refused(standing) | Decision::Undecided(standing) => {
                        Decision::Allowed(standing)
                    }
                };
                claims.iter().map(decide).collect()
            }
            Reach::Joined | Reach::Share => {
                let part = self.leases.part();
                let weighed = claims.iter().map(|claim| {
                    let enough = self.view.affords_divided(
                        &claim.charge,
                        (part.nodes(), part.is_owner(claim.charge.key.bits())),
                        now,
                    );
                    enough || claim.trial
                });
                let goes = weighed.filter(|enough| !enough).count() == 0;
                let decide = |claim: &Claim| {
                    let of = (part.nodes(), part.is_owner(claim.charge.key.bits()));
                    if !goes || claim.later {
                        let standing = undivided(claim);
                        let enough = self.view.affords_divided(&claim.charge, of, now);
                        return Decision::new(enough, standing);
                    }
                    let decision = self.view.take_divided(&claim.charge, of.0, of.1, now);
                    if decision.is_allowed() && !decision.standing().is_overflow() {
                        let quota = undivided(claim).quota();
                        self.leases.owe(claim.charge.key, quota, claim.charge.cost.get(), now);
                    }
                    decision
                };
                claims.iter().map(decide).collect()
            }
        }
    }
}

/// What a claim was found to have.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum ClaimBacking {
    /// Tokens of the lease.
    Lease,
    /// Tokens that were given for it.
    Prepaid,
    /// Nothing, as the view says that there is nothing.
    Nothing,
    /// Nothing, and the store is to be asked.
    Open,
    /// Nothing, and it was asked in vain.
    Late,
    /// It is on trial, and goes by the view.
    Owed,
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
        (self.leases.reach() == Reach::Joined).then(|| {
            let quota = |charge: &Charge| self.view.peek(charge.key, charge.quota, now).quota();
            self.leases.ask(charges.iter().map(|charge| Charge { quota: quota(charge), ..*charge }), now)
        })
    }

    fn rehearse(&self, charge: &Charge, now: Nanos) -> Decision {
        self.view.take(charge, now)
    }

    fn settle(&self, charge: &Charge, now: Nanos) -> Standing {
        let standing = self.view.settle(charge, now);
        if !standing.is_overflow() {
            self.leases.settle(charge.key, standing.quota(), charge.cost.get(), now);
        }
        standing
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        self.view.peek(key, quota, now)
    }
}

impl Upkeep for SharedLimiter {
    fn parts(&self) -> usize {
        self.view.parts()
    }

    fn sweep(&self, part: usize, now: Nanos, dropped: &mut dyn FnMut(Key)) -> usize {
        self.view.sweep(part, now, dropped)
    }

    fn export(&self, part: usize, saved: &mut dyn FnMut(KeptBucket)) {
        self.view.export(part, saved);
    }

    fn mark_all(&self) {
        self.view.mark_all();
    }

    fn restore(&self, saved: KeptBucket, quota: Quota, now: Nanos) -> bool {
        self.view.restore(saved, quota, now)
    }

    fn debit(&self, charge: Charge, now: Nanos) {
        self.view.debit(charge, now);
    }

    fn edit(&self, key: Key, from: Quota, to: Quota, now: Nanos) {
        self.view.edit(key, from, to, now);
        self.leases.disbelieve(key);
    }

    fn grant(&self, key: Key, quota: Quota, tokens: u32, now: Nanos) {
        self.view.grant(key, quota, tokens, now);
        self.leases.disbelieve(key);
    }

    fn reset(&self, key: Key, quota: Quota, now: Nanos) {
        self.view.reset(key, quota, now);
        self.leases.disbelieve(key);
    }

    fn set_default_quota(&self, quota: Quota, now: Nanos) {
        self.view.set_default_quota(quota, now);
    }

    fn set_policies(&self, policies: &[PolicyTerms], now: Nanos) -> Vec<PolicySlot> {
        self.view.set_policies(policies, now)
    }

    fn policy(&self, id: PolicyId) -> Option<(PolicySlot, Quota)> {
        self.view.policy(id)
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
