//! Another quota for anonymous callers, while requests run.
//!
//! The problem: their buckets adapt to a quota when their callers come, but whoever does not come for an hour would
//! have that hour credited under the old quota. And for a moment there are requests with either quota, which would put
//! a bucket back and forth and clamp it each time.
//!
//! The rule: the quota is the limiter's own, kept in each stripe beside the buckets it is for. It changes stripe by
//! stripe, with the stripe locked and all its buckets edited in one go, so a request meets the old quota everywhere in
//! a stripe or the new one. A bucket is credited under the old quota until `now` wherever its stripe comes in the row;
//! only one that gave a token meanwhile, until that.
//!
//! A caller without a bucket was full and is full. So where the capacity rises, whoever has a bucket keeps his tokens
//! and earns the difference, and whoever has none has it at once. Over a change and any time t, a caller therefore gets
//! at most C₁ + C₂ + ρ·t, with the larger ρ. To keep it to one capacity would take a bucket for each address there is.
//!
//! Refused: editing some slots at a time as the sweep does, since an entry that moves meanwhile would be missed.
//! Locking a stripe for all its entries takes about as long as its table takes to grow.

use crate::client::Quota;
use crate::limit::bucket::Nanos;
use crate::limit::striped::Striped;

impl Striped {
    /// Does it, and locks one stripe at a time.
    pub(super) fn change_default(&self, quota: Quota, now: Nanos) {
        let mut default = self.default.lock();
        if *default == quota {
            return;
        }
        for stripe in &self.stripes {
            stripe.lock().set_default(quota, now);
        }
        self.overflow.lock().callers.adapt(quota, now);
        *default = quota;
    }
}

#[cfg(test)]
mod tests;
