//! The buckets that callers share when there is no room for one each: one of anonymous callers, and one of each policy.
//!
//! They are under one lock, which is taken behind those of stripes and only by who finds no room.

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::Scope;
use crate::limit::limiter::Charge;

/// A bucket that callers share, and its quota.
#[derive(Clone, Copy, Debug)]
pub(super) struct OverflowBucket {
    pub(super) bucket: Bucket,
    pub(super) quota: Quota,
}

impl OverflowBucket {
    /// A full one.
    pub(super) fn full(quota: Quota, now: Nanos) -> Self {
        OverflowBucket { bucket: Bucket::full(quota, now), quota }
    }

    /// Puts it under another quota.
    pub(super) fn adapt(&mut self, quota: Quota, now: Nanos) {
        if self.quota != quota {
            *self = OverflowBucket { bucket: self.bucket.edit(self.quota, quota, now), quota };
        }
    }

    /// How it stands at `now`.
    pub(super) fn standing(&self, now: Nanos) -> Standing {
        Standing::new(self.bucket, self.quota, now).of_overflow()
    }

    /// Takes what `charge` costs, if it is there.
    pub(super) fn take(&mut self, charge: &Charge, now: Nanos) -> Decision {
        let allowed = self.bucket.spend(Tokens::whole(charge.cost.get()), self.quota, now);
        Decision::new(allowed, self.standing(now).for_cost(charge.cost.get()))
    }
}

/// All of them.
#[derive(Debug)]
pub(super) struct Overflow {
    /// Of anonymous callers.
    pub(super) callers: OverflowBucket,
    /// Of policies, by their places.
    pub(super) policies: Vec<OverflowBucket>,
}

impl Overflow {
    /// That of who is of this scope.
    pub(super) fn of(&mut self, scope: Scope) -> &mut OverflowBucket {
        let policy = scope.slot().and_then(|slot| self.policies.get_mut(slot.index()));
        policy.unwrap_or(&mut self.callers)
    }
}
