//! What a node would decide, with or without the store, where nothing is taken.

use smallvec::SmallVec;

use super::SharedLimiter;
use crate::limit::bucket::Nanos;
use crate::limit::decision::{Decision, Standing};
use crate::limit::limiter::{Claim, Decisions, Limiter, USUAL_CLAIMS};
use crate::limit::reach::Reach;

impl SharedLimiter {
    /// What would be decided of claims.
    pub(super) fn foreseen(&self, claims: &[Claim], now: Nanos) -> Decisions {
        let seen = |claim: &Claim| self.seen(&claim.charge, now);
        match self.leases.reach() {
            Reach::Joined => self.view.foresee(claims, now),
            Reach::Share => self.foresee_part(claims, now),
            Reach::Refuse => claims.iter().map(|claim| Decision::Undecided(seen(claim))).collect(),
            Reach::Allow => claims.iter().map(|claim| Decision::Allowed(seen(claim))).collect(),
        }
    }

    /// The same of claims to its part of the quotas.
    fn foresee_part(&self, claims: &[Claim], now: Nanos) -> Decisions {
        let part = |claim: &Claim| self.view.peek_divided(&claim.charge, self.part_of(claim), now);
        let parts: SmallVec<[Option<Standing>; USUAL_CLAIMS]> = claims.iter().map(part).collect();
        let enough = |part: &Option<Standing>| part.is_some_and(|part| part.is_enough());
        let goes = claims.iter().zip(&parts).all(|(claim, part)| claim.trial || enough(part));
        let decide = |(claim, part): (&Claim, &Option<Standing>)| match part {
            Some(part) if goes && !claim.later => Decision::new(enough(&Some(*part)), *part),
            _ => Decision::new(enough(part), self.seen(&claim.charge, now)),
        };
        claims.iter().zip(&parts).map(decide).collect()
    }
}
