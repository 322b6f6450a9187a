//! What operators do to the tokens of a client: its buckets are filled, or given more, and the store knows before it is
//! answered. Whoever saves, or hands over, ends first.

use std::num::NonZeroU32;

use tokio::sync::SemaphorePermit;
use tokio::time::timeout;

use super::{Buckets, LONGEST_SAVE};
use crate::admin::NotFilled;
use crate::client::Quota;
use crate::limit::{Charge, Payer};
use crate::store::Snapshot;

impl Buckets {
    /// Makes the buckets of these payers full, all at once, once the store has forgotten them, so that no crash brings
    /// an empty one back. `own` is the quota that a payer has of its own, see [`whose`](Buckets::whose).
    ///
    /// # Errors
    /// While another process has the buckets, or takes them over; when the store does not take it. The buckets are what
    /// they were then.
    pub(in crate::server) async fn reset(
        &self,
        payers: &[Payer],
        own: impl Fn(Payer) -> Option<Quota>,
    ) -> Result<(), NotFilled> {
        let _right = self.wait_for_right().await?;
        let forgotten = Snapshot::of(Vec::new(), payers.to_vec(), self.moment());
        self.store.save(forgotten).wait().await?;
        let mut due = self.due.lock();
        due.forget(payers.iter().copied());
        for (key, quota) in payers.iter().filter_map(|payer| self.whose(*payer, &own)) {
            self.limiter.reset(key, quota, self.now());
        }
        Ok(())
    }

    /// Adds tokens to the bucket of `payer`, above the capacity of `quota` if need be. Once that is answered, no crash
    /// takes them away.
    ///
    /// # Errors
    /// As [`reset`](Buckets::reset); then nothing is added.
    pub(in crate::server) async fn grant(
        &self,
        payer: Payer,
        quota: Quota,
        tokens: NonZeroU32,
    ) -> Result<(), NotFilled> {
        let _right = self.wait_for_right().await?;
        let (key, now) = (self.keys.key(payer), self.now());
        let saving = {
            let mut due = self.due.lock();
            self.limiter.grant(key, quota, tokens.get(), now);
            due.forget([payer]);
            let changed = vec![self.raised((payer, key, quota))];
            self.store.save(Snapshot::of(changed, Vec::new(), self.moment()))
        };
        saving.wait().await.map_err(|error| {
            self.limiter.debit(Charge { key, quota, cost: tokens }, self.now());
            NotFilled::Store(error)
        })
    }

    /// The right to save, once whoever saves, or hands over, has ended; none begins while it is held.
    async fn wait_for_right(&self) -> Result<SemaphorePermit<'_>, NotFilled> {
        let right = async { if self.is_handed_over() { None } else { self.right.acquire().await.ok() } };
        let right = timeout(LONGEST_SAVE, right).await.ok().flatten();
        right.filter(|_| !self.is_handed_over()).ok_or(NotFilled::HandedOver)
    }
}
