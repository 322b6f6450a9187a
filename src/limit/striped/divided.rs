//! Parts of buckets: what one of many nodes gives while none knows what the others give.
//!
//! Each gives one of as many equal parts of a bucket as there are nodes. Were a part enough that is less than a request
//! costs, each node would give as much as the cost for it. So a bucket that has less for each is given by one node alone,
//! its owner, and by no other. The bucket lies where it always does, under the quota of the part.

use std::num::{NonZeroU16, NonZeroU32};

use super::terms::BucketTerms;
use super::{Charge, Decision, Limiter, Nanos, Quota, Standing, Striped};

impl Striped {
    /// Takes from one of `nodes` parts of a bucket; from all of it where it is too small to divide for what is taken, and
    /// this node is its `owner`.
    pub(in crate::limit) fn take_divided(&self, charge: &Charge, of: (NonZeroU16, bool), now: Nanos) -> Decision {
        let mut stripe = self.stripe(charge.key).lock();
        let whole = stripe.terms_of(charge.key, charge.quota);
        let Some(quota) = divided(whole.quota, of, charge.cost) else {
            return Decision::Refused(Standing::elsewhere(whole.quota, now).for_cost(charge.cost.get()));
        };
        let terms = BucketTerms { quota, ..whole };
        let charge = Charge { cost: charge.cost.min(quota.capacity()), ..*charge };
        let decision = match stripe.take(&charge, terms, now) {
            Some(decision) => decision,
            None => self.take_first(stripe, &charge, terms, now),
        };
        decision.map(|standing| standing.of_part(whole.quota, of.0))
    }

    /// How that part stands.
    pub(in crate::limit) fn peek_divided(&self, charge: &Charge, of: (NonZeroU16, bool), now: Nanos) -> Standing {
        let mut stripe = self.stripe(charge.key).lock();
        let whole = stripe.terms_of(charge.key, charge.quota);
        let Some(quota) = divided(whole.quota, of, charge.cost) else {
            return Standing::elsewhere(whole.quota, now).for_cost(charge.cost.get());
        };
        let bucket = match stripe.locate(charge.key, BucketTerms { quota, ..whole }, now) {
            Some((_, bucket)) => bucket,
            None if self.has_room(&stripe, charge.key) => stripe.full(quota, now),
            None => {
                drop(stripe);
                return self.peek(charge.key, charge.quota, now).for_cost(charge.cost.get());
            }
        };
        let standing = Standing::new(bucket, quota, now).for_cost(charge.cost.min(quota.capacity()).get());
        standing.of_part(whole.quota, of.0)
    }

    /// Takes from that part whether it is there or not. What is not this node's to give was given before.
    pub(in crate::limit) fn settle_divided(&self, charge: &Charge, of: (NonZeroU16, bool), now: Nanos) -> Standing {
        let stripe = self.stripe(charge.key).lock();
        let whole = stripe.terms_of(charge.key, charge.quota);
        // It was let in for any token at all.
        let quota = divided(whole.quota, of, NonZeroU32::MIN).unwrap_or(whole.quota);
        self.settle_under(stripe, charge, BucketTerms { quota, ..whole }, now).of_part(whole.quota, of.0)
    }
}

/// One of `nodes` parts of a quota; all of it, or none, where there is less than the `cost` for each.
fn divided(quota: Quota, (nodes, owner): (NonZeroU16, bool), cost: NonZeroU32) -> Option<Quota> {
    let part = quota.divided(nodes).filter(|part| part.capacity() >= cost.min(quota.capacity()));
    part.or_else(|| owner.then_some(quota))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::limit::{Key, StripedSettings};

    #[test]
    fn what_costs_more_than_a_part_is_its_owners_to_give() {
        let (quota, three) = (Quota::new(9, 3.0).unwrap(), NonZeroU16::new(3).unwrap());
        let settings =
            StripedSettings { max_buckets: std::num::NonZeroUsize::MIN, stripes: None, default_quota: quota };
        let given = |cost, owner| {
            let (limiter, cost) = (Striped::new(settings, 0), NonZeroU32::new(cost).unwrap());
            let charge = Charge { key: Key::client(1), quota, cost };
            let take = |_: &i32| {
                let enough = limiter.peek_divided(&charge, (three, owner), 0).is_enough();
                let decision = limiter.take_divided(&charge, (three, owner), 0);
                assert_eq!((decision.is_allowed(), decision.standing().quota()), (enough, quota));
                enough
            };
            (0..9).filter(take).count()
        };
        assert_eq!((given(1, false), given(3, false), given(1, true)), (3, 1, 3));
        // A bucket of nine is enough for two of four, and for one of more than there can be.
        assert_eq!((given(4, false), given(4, true), given(10, false), given(10, true)), (0, 2, 0, 1));
    }
}
