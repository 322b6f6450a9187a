//! The limiter as it is defined: one lock and one map. The others are held to it, and tests elsewhere use it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::Key;
use crate::limit::limiter::{Charge, Charges, Decisions, Gauges, KeptBucket, Limiter, Upkeep};

/// See the [module](self).
pub(crate) struct Exact {
    max_buckets: usize,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    buckets: BTreeMap<Key, Kept>,
    /// Of anonymous callers.
    default: Quota,
    overflow: Bucket,
    overflowed: u64,
    swept: Nanos,
}

#[derive(Clone, Copy)]
struct Kept {
    bucket: Bucket,
    quota: Quota,
    changed: bool,
}

impl Kept {
    fn adapt(&mut self, quota: Quota, now: Nanos) {
        if self.quota != quota {
            *self = Kept { bucket: self.bucket.edit(self.quota, quota, now), quota, changed: true };
        }
    }
}

impl State {
    fn quota_of(&self, key: Key, given: Quota) -> Quota {
        if key.is_client() { given } else { self.default }
    }

    fn has_room(&self, key: Key, max_buckets: usize) -> bool {
        let anonymous = || self.buckets.keys().filter(|key| !key.is_client()).count();
        key.is_client() || self.buckets.contains_key(&key) || anonymous() < max_buckets
    }

    fn full(&self, quota: Quota, now: Nanos) -> Bucket {
        Bucket::full(quota, now.max(self.swept))
    }

    fn take(&mut self, Charge { key, quota, cost }: Charge, now: Nanos, max_buckets: usize) -> Decision {
        let (quota, tokens) = (self.quota_of(key, quota), Tokens::whole(cost.get()));
        if !self.has_room(key, max_buckets) {
            self.overflowed += 1;
            let allowed = self.overflow.spend(tokens, self.default, now);
            let standing = Standing::new(self.overflow, self.default, now).for_cost(cost.get()).of_overflow();
            return Decision::new(allowed, standing);
        }
        let bucket = self.full(quota, now);
        let kept = self.buckets.entry(key).or_insert(Kept { bucket, quota, changed: true });
        kept.adapt(quota, now);
        let allowed = kept.bucket.spend(tokens, quota, now);
        kept.changed |= allowed;
        Decision::new(allowed, Standing::new(kept.bucket, quota, now).for_cost(cost.get()))
    }
}

impl Exact {
    /// An empty one, at `now`.
    pub(crate) fn new(max_buckets: usize, default: Quota, now: Nanos) -> Self {
        let overflow = Bucket::full(default, now);
        let state = State { buckets: BTreeMap::new(), default, overflow, overflowed: 0, swept: 0 };
        Exact { max_buckets, state: Mutex::new(state) }
    }
}

impl Limiter for Exact {
    fn take(&self, charge: &Charge, now: Nanos) -> Decision {
        self.state.lock().take(*charge, now, self.max_buckets)
    }

    fn take_all(&self, charges: &Charges, now: Nanos) -> Decisions {
        let mut state = self.state.lock();
        let before = state.clone();
        let mut decisions: Decisions =
            charges.iter().map(|charge| state.take(*charge, now, self.max_buckets)).collect();
        if !decisions.iter().all(Decision::is_allowed) {
            let overflowed = state.overflowed;
            *state = State { overflowed, ..before };
            // Each has seen its quota all the same.
            for Charge { key, quota, .. } in charges {
                let quota = state.quota_of(*key, *quota);
                if let Some(kept) = state.buckets.get_mut(key) {
                    kept.adapt(quota, now);
                }
            }
            drop(state);
            for (decision, charge) in decisions.iter_mut().zip(charges).filter(|(decision, _)| decision.is_allowed()) {
                let standing = self.peek(charge.key, charge.quota, now).for_cost(charge.cost.get());
                *decision = Decision::Allowed(standing);
            }
        }
        decisions
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        let state = self.state.lock();
        let quota = state.quota_of(key, quota);
        if !state.has_room(key, self.max_buckets) {
            return Standing::new(state.overflow, state.default, now).of_overflow();
        }
        let mut kept = state.buckets.get(&key).copied();
        kept.iter_mut().for_each(|kept| kept.adapt(quota, now));
        Standing::new(kept.map_or_else(|| Bucket::full(quota, now), |kept| kept.bucket), quota, now)
    }
}

impl Upkeep for Exact {
    fn parts(&self) -> usize {
        1
    }

    fn sweep(&self, _: usize, now: Nanos, dropped: &mut dyn FnMut(Key)) -> usize {
        let mut state = self.state.lock();
        state.swept = now.max(state.swept);
        let full = state.buckets.extract_if(.., |_, kept| kept.bucket.is_full(kept.quota, now));
        full.map(|(key, _)| dropped(key)).count()
    }

    fn export(&self, _: usize, saved: &mut dyn FnMut(KeptBucket)) {
        for (key, kept) in &mut self.state.lock().buckets {
            if std::mem::take(&mut kept.changed) {
                saved(KeptBucket { key: *key, bucket: kept.bucket, quota: kept.quota });
            }
        }
    }

    fn mark_all(&self) {
        self.state.lock().buckets.values_mut().for_each(|kept| kept.changed = true);
    }

    fn restore(&self, saved: KeptBucket, quota: Quota, now: Nanos) -> bool {
        let mut state = self.state.lock();
        let quota = state.quota_of(saved.key, quota);
        let bucket = saved.bucket.resumed(saved.quota, now).edit(saved.quota, quota, now);
        let room = state.has_room(saved.key, self.max_buckets);
        if bucket.is_full(quota, now) {
            state.buckets.remove(&saved.key);
            return true;
        }
        if room {
            state.buckets.insert(saved.key, Kept { bucket, quota, changed: true });
        }
        room
    }

    fn debit(&self, Charge { key, quota, cost }: Charge, now: Nanos) {
        let mut state = self.state.lock();
        if state.has_room(key, self.max_buckets) {
            let bucket = state.full(quota, now);
            let kept = state.buckets.entry(key).or_insert(Kept { bucket, quota, changed: true });
            *kept = Kept { bucket: kept.bucket.debited(cost.get(), kept.quota, now), changed: true, ..*kept };
        }
    }

    fn edit(&self, key: Key, from: Quota, to: Quota, now: Nanos) {
        let mut state = self.state.lock();
        let bucket = state.full(from, now);
        if let Some(kept) = state.buckets.get_mut(&key) {
            kept.adapt(to, now);
        } else if from.capacity() < to.capacity() && state.has_room(key, self.max_buckets) {
            state.buckets.insert(key, Kept { bucket, quota: to, changed: true });
        }
    }

    fn reset(&self, key: Key, quota: Quota, now: Nanos) {
        let mut state = self.state.lock();
        let quota = state.quota_of(key, quota);
        if let Some(kept) = state.buckets.get_mut(&key) {
            *kept = Kept { bucket: Bucket::full(quota, kept.bucket.at().max(now)), quota, changed: true };
        }
    }

    fn set_default_quota(&self, quota: Quota, now: Nanos) {
        let mut state = self.state.lock();
        if state.default != quota {
            state.overflow = state.overflow.edit(state.default, quota, now);
            state.default = quota;
            let anonymous = state.buckets.iter_mut().filter(|(key, _)| !key.is_client());
            anonymous.for_each(|(_, kept)| kept.adapt(quota, now));
        }
    }
}

impl Gauges for Exact {
    fn buckets(&self) -> usize {
        self.state.lock().buckets.len()
    }

    fn overflowed(&self) -> u64 {
        self.state.lock().overflowed
    }
}
