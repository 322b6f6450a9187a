//! What a node would decide, with or without the store, where nothing is taken; and which part is its own.

use std::num::NonZeroU16;

use super::SharedLimiter;
use crate::limit::bucket::Nanos;
use crate::limit::decision::Decision;
use crate::limit::key::Key;
use crate::limit::limiter::{Claim, Decisions, Limiter};
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
    pub(super) fn foresee_part(&self, claims: &[Claim], now: Nanos) -> Decisions {
        let foresee = |Claim { charge, .. }: &Claim| {
            let part = self.view.peek_divided(charge, self.part_of(charge.key), now);
            Decision::new(part.is_enough(), part)
        };
        claims.iter().map(foresee).collect()
    }

    /// Among how many nodes a bucket is divided, and whether it is this node's where it cannot be.
    pub(super) fn part_of(&self, key: Key) -> (NonZeroU16, bool) {
        let part = self.leases.part();
        let nodes = u16::try_from(part.nodes()).ok().and_then(NonZeroU16::new);
        (nodes.unwrap_or(NonZeroU16::MAX), part.is_owner(key.bits()))
    }
}

#[cfg(test)]
mod tests {
    use std::num::{NonZeroU32, NonZeroUsize};
    use std::time::Duration;

    use super::*;
    use crate::client::Quota;
    use crate::limit::shared::FleetPart;
    use crate::limit::shared::leases::{LeaseSettings, Leases};
    use crate::limit::{Charge, Striped, StripedSettings};

    const SECOND: Nanos = 1_000_000_000;

    /// A node of three whose store is away.
    fn away() -> SharedLimiter {
        let quota = Quota::new(1, 1.0).unwrap();
        let settings = StripedSettings { max_buckets: NonZeroUsize::MIN, stripes: None, default_quota: quota };
        let lease =
            LeaseSettings { lease: Duration::from_millis(100), timeout: Duration::from_millis(25), max_asks: 16 };
        let part = FleetPart::new("a", ["a", "b", "c"].into_iter());
        SharedLimiter::new(Striped::new(settings, SECOND), Leases::new(lease, part, Reach::Share))
    }

    /// Whether a bucket is the node's where it cannot be divided.
    fn is_owner(limiter: &SharedLimiter, bucket: &u128) -> bool {
        limiter.part_of(Key::client(*bucket)).1
    }

    #[test]
    fn the_time_that_is_told_is_that_of_the_part() {
        let limiter = away();
        for (at, (capacity, rate, cost)) in [(3, 0.6, 1), (30, 3.0, 10), (30, 3.0, 4), (31, 7.0, 1)].iter().enumerate()
        {
            let quota = Quota::new(*capacity, *rate).unwrap();
            let charge = Charge { key: Key::client(at as u128), quota, cost: NonZeroU32::new(*cost).unwrap() };
            let told = loop {
                let (foreseen, decision) =
                    (limiter.foresee(&[charge.into()], SECOND)[0], limiter.take(&charge, SECOND));
                assert_eq!((foreseen.is_allowed(), decision.standing().quota()), (decision.is_allowed(), quota));
                if !decision.is_allowed() {
                    assert_eq!(foreseen, decision);
                    break *decision.standing();
                }
            };
            assert!(!told.is_enough() && told.retry_after() > (f64::from(*cost) / rate) as u64, "{told:?}");
            let is_allowed = |at| limiter.take(&charge, at).is_allowed();
            assert_eq!([is_allowed(told.retry_at() - 1), is_allowed(told.retry_at())], [false, true], "{told:?}");
        }
    }

    #[test]
    fn nothing_is_left_of_what_is_another_nodes() {
        let limiter = away();
        for owned in [true, false] {
            let bucket = (0..99).find(|bucket| is_owner(&limiter, bucket) == owned).unwrap();
            let charge = Charge::one(Key::client(bucket), Quota::new(2, 0.1).unwrap());
            let decisions = [(); 3].map(|()| limiter.take(&charge, SECOND));
            assert_eq!(decisions.map(|decision| decision.is_allowed()), [owned, owned, false]);
            let told = decisions[2].standing();
            let expected = if owned { (0, 10, 10, 20) } else { (0, 1, 1, 1) };
            assert_eq!((told.remaining(), told.reset(), told.retry_after(), told.full_after()), expected);
            assert_eq!((told.is_elsewhere(), limiter.take(&charge, 99 * SECOND).is_allowed()), (!owned, owned));
        }
    }

    #[test]
    fn what_is_paid_later_is_paid_from_the_part() {
        let limiter = away();
        let charge = Charge::one(Key::client(1), Quota::new(30, 3.0).unwrap());
        let later = Claim { later: true, ..charge.into() };
        let ten = Charge { cost: NonZeroU32::new(10).unwrap(), ..charge };
        assert!(limiter.take_all(&[later], SECOND)[0].is_allowed());
        let standing = limiter.settle(&ten, SECOND);
        assert_eq!((standing.remaining(), standing.retry_after(), standing.full_after()), (0, 1, 10));
        // It earned one of three.
        let decisions = limiter.take_all(&[later], 2 * SECOND);
        assert_eq!((decisions[0].is_allowed(), decisions[0].standing().remaining()), (true, 1));
    }
}
