//! The limiter as it is defined: one lock and one map. The others are held to it, and tests elsewhere use it.

use std::collections::BTreeMap;

use parking_lot::Mutex;

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos, Tokens};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::{Key, PolicyId, PolicySlot, Scope};
use crate::limit::limiter::{
    Charge, Claim, Decisions, Gauges, KeptBucket, Limiter, PolicyGauge, PolicyTerms, Upkeep, are_allowed,
};

/// See the [module](self).
pub(crate) struct Exact {
    max_buckets: usize,
    state: Mutex<State>,
}

#[derive(Clone)]
struct State {
    /// By the kind of the scope and the bits: those of a policy are of one bucket with either scope.
    buckets: BTreeMap<(u32, u128), Kept>,
    /// Of anonymous callers.
    default: Quota,
    overflow: (Bucket, Quota),
    overflowed: u64,
    swept: Nanos,
    policies: Vec<PolicyState>,
}

#[derive(Clone)]
struct PolicyState {
    terms: PolicyTerms,
    gone: bool,
    overflow: Bucket,
    overflowed: u64,
}

#[derive(Clone, Copy)]
struct Kept {
    scope: Scope,
    bucket: Bucket,
    quota: Quota,
    changed: bool,
}

impl Kept {
    fn adapt(&mut self, scope: Scope, quota: Quota, now: Nanos) {
        self.scope = scope;
        if self.quota != quota {
            *self = Kept { scope, bucket: self.bucket.edit(self.quota, quota, now), quota, changed: true };
        }
    }
}

fn place(key: Key) -> (u32, u128) {
    (key.scope().kind(), key.bits())
}

impl State {
    fn quota_of(&self, key: Key, given: Quota) -> Quota {
        match key.scope() {
            Scope::Client | Scope::OwnInPolicy(_) => given,
            Scope::Address => self.default,
            Scope::Policy(slot) => self.policies[slot.index()].terms.quota,
        }
    }

    /// How many buckets there are of this scope's policy, or of anonymous callers.
    fn count(&self, scope: Scope) -> usize {
        let alike = |kept: &&Kept| kept.scope.slot() == scope.slot() && kept.scope != Scope::Client;
        self.buckets.values().filter(alike).count()
    }

    fn has_room(&self, key: Key, max_buckets: usize) -> bool {
        let most = key.scope().slot().map_or(max_buckets, |slot| self.policies[slot.index()].terms.max_buckets.get());
        key.is_client() || self.buckets.contains_key(&place(key)) || self.count(key.scope()) < most
    }

    fn full(&self, quota: Quota, now: Nanos) -> Bucket {
        Bucket::full(quota, now.max(self.swept))
    }

    /// The bucket of a key, a full one if it has none yet; `None` where there is no room for it.
    fn kept(&mut self, key: Key, (quota, max_buckets): (Quota, usize), now: Nanos) -> Option<&mut Kept> {
        if !self.has_room(key, max_buckets) {
            return None;
        }
        let quota = self.quota_of(key, quota);
        let new = Kept { scope: key.scope(), bucket: self.full(quota, now), quota, changed: true };
        Some(self.buckets.entry(place(key)).or_insert(new))
    }

    fn shared(&mut self, scope: Scope) -> (&mut Bucket, Quota, &mut u64) {
        match scope.slot() {
            Some(slot) => {
                let policy = &mut self.policies[slot.index()];
                (&mut policy.overflow, policy.terms.quota, &mut policy.overflowed)
            }
            None => (&mut self.overflow.0, self.overflow.1, &mut self.overflowed),
        }
    }

    /// The bucket of `key` under its quota, and whether it is shared; one that is not there is made.
    fn bucket(&mut self, key: Key, quota: Quota, now: Nanos, max_buckets: usize) -> (&mut Bucket, Quota, bool) {
        let quota = self.quota_of(key, quota);
        if !self.has_room(key, max_buckets) {
            let (bucket, quota, overflowed) = self.shared(key.scope());
            *overflowed += 1;
            return (bucket, quota, true);
        }
        let bucket = self.full(quota, now);
        let new = Kept { scope: key.scope(), bucket, quota, changed: true };
        let kept = self.buckets.entry(place(key)).or_insert(new);
        kept.adapt(key.scope(), quota, now);
        (&mut kept.bucket, quota, false)
    }

    fn take(&mut self, Charge { key, quota, cost }: Charge, now: Nanos, max_buckets: usize) -> Decision {
        let (bucket, quota, shared) = self.bucket(key, quota, now, max_buckets);
        let allowed = bucket.spend(Tokens::whole(cost.get()), quota, now);
        let standing = Standing::new(*bucket, quota, now).for_cost(cost.get());
        if let Some(kept) = self.buckets.get_mut(&place(key)).filter(|_| allowed) {
            kept.changed = true;
        }
        Decision::new(allowed, if shared { standing.of_overflow() } else { standing })
    }

    /// The state without what the claims have changed but for the quotas they have seen, and what is counted.
    fn undo(&mut self, before: State, claims: &[Claim], now: Nanos) {
        let counted: Vec<_> = self.policies.iter().map(|policy| policy.overflowed).collect();
        let overflowed = self.overflowed;
        *self = State { overflowed, ..before };
        self.policies.iter_mut().zip(counted).for_each(|(policy, count)| policy.overflowed = count);
        for Claim { charge: Charge { key, quota, .. }, .. } in claims {
            let quota = self.quota_of(*key, *quota);
            if let Some(kept) = self.buckets.get_mut(&place(*key)) {
                kept.adapt(key.scope(), quota, now);
            }
        }
    }
}

impl Exact {
    /// An empty one, at `now`.
    pub(crate) fn new(max_buckets: usize, default: Quota, now: Nanos) -> Self {
        let (overflow, buckets, policies) = ((Bucket::full(default, now), default), BTreeMap::new(), Vec::new());
        let state = State { buckets, default, overflow, overflowed: 0, swept: 0, policies };
        Exact { max_buckets, state: Mutex::new(state) }
    }
}

impl Limiter for Exact {
    fn take(&self, charge: &Charge, now: Nanos) -> Decision {
        self.state.lock().take(*charge, now, self.max_buckets)
    }

    fn take_all(&self, claims: &[Claim], now: Nanos) -> Decisions {
        let mut state = self.state.lock();
        let before = state.clone();
        // First what each says, one by one and undone; then those that are made.
        let mut decisions = Decisions::new();
        for claim in claims {
            decisions.push(state.take(claim.charge, now, self.max_buckets));
        }
        let go = are_allowed(claims, &decisions);
        state.undo(before, claims, now);
        let counted = state.clone();
        for (claim, decision) in claims.iter().zip(&mut decisions) {
            let cost = claim.charge.cost.get();
            if go && claim.is_made(decision) {
                *decision = state.take(claim.charge, now, self.max_buckets);
            } else {
                let standing = *decision.standing();
                let quota = state.quota_of(claim.charge.key, claim.charge.quota);
                let bucket = match state.buckets.get(&place(claim.charge.key)) {
                    Some(kept) => kept.bucket,
                    None if standing.is_overflow() => *state.shared(claim.charge.key.scope()).0,
                    None => state.full(quota, now),
                };
                let without = Standing::new(bucket, standing.quota(), now).for_cost(cost);
                let without = if standing.is_overflow() { without.of_overflow() } else { without };
                *decision = Decision::new(decision.is_allowed(), without);
            }
        }
        state.overflowed = counted.overflowed;
        state.policies.iter_mut().zip(counted.policies).for_each(|(policy, old)| policy.overflowed = old.overflowed);
        decisions
    }

    fn settle(&self, charge: &Charge, now: Nanos) -> Standing {
        let mut state = self.state.lock();
        let counted = state.clone();
        let (bucket, quota, shared) = state.bucket(charge.key, charge.quota, now, self.max_buckets);
        *bucket = bucket.debited(charge.cost.get(), quota, now);
        let standing = Standing::new(*bucket, quota, now);
        state.overflowed = counted.overflowed;
        state.policies.iter_mut().zip(counted.policies).for_each(|(policy, old)| policy.overflowed = old.overflowed);
        if let Some(kept) = state.buckets.get_mut(&place(charge.key)) {
            kept.changed = true;
        }
        if shared { standing.of_overflow() } else { standing }
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        let mut state = self.state.lock();
        let quota = state.quota_of(key, quota);
        if !state.has_room(key, self.max_buckets) {
            let (bucket, quota, _) = state.shared(key.scope());
            return Standing::new(*bucket, quota, now).of_overflow();
        }
        let mut kept = state.buckets.get(&place(key)).copied();
        kept.iter_mut().for_each(|kept| kept.adapt(key.scope(), quota, now));
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
        full.map(|((_, bits), kept)| dropped(Key::new(kept.scope, bits))).count()
    }

    fn export(&self, _: usize, saved: &mut dyn FnMut(KeptBucket)) {
        for ((_, bits), kept) in &mut self.state.lock().buckets {
            if std::mem::take(&mut kept.changed) {
                saved(KeptBucket { key: Key::new(kept.scope, *bits), bucket: kept.bucket, quota: kept.quota });
            }
        }
    }

    fn mark_all(&self) {
        self.state.lock().buckets.values_mut().for_each(|kept| kept.changed = true);
    }

    fn restore(&self, saved: KeptBucket, quota: Quota, now: Nanos) -> bool {
        let mut state = self.state.lock();
        let quota = state.quota_of(saved.key, quota);
        let bucket = saved.bucket.resumed(now).edit(saved.quota, quota, now);
        let room = state.has_room(saved.key, self.max_buckets);
        if bucket.is_full(quota, now) {
            state.buckets.remove(&place(saved.key));
            return true;
        }
        if room {
            state.buckets.insert(place(saved.key), Kept { scope: saved.key.scope(), bucket, quota, changed: true });
        }
        room
    }

    fn debit(&self, Charge { key, quota, cost }: Charge, now: Nanos) {
        let mut state = self.state.lock();
        if let Some(kept) = state.kept(key, (quota, self.max_buckets), now) {
            *kept = Kept { bucket: kept.bucket.debited(cost.get(), kept.quota, now), changed: true, ..*kept };
        }
    }

    fn edit(&self, key: Key, from: Quota, to: Quota, now: Nanos) {
        let mut state = self.state.lock();
        let to = state.quota_of(key, to);
        let bucket = state.full(from, now);
        if let Some(kept) = state.buckets.get_mut(&place(key)) {
            kept.adapt(key.scope(), to, now);
        } else if from.capacity() < to.capacity() && state.has_room(key, self.max_buckets) {
            state.buckets.insert(place(key), Kept { scope: key.scope(), bucket, quota: to, changed: true });
        }
    }

    fn grant(&self, key: Key, quota: Quota, tokens: u32, now: Nanos) {
        let mut state = self.state.lock();
        let quota = state.quota_of(key, quota);
        if let Some(kept) = state.kept(key, (quota, self.max_buckets), now) {
            kept.adapt(key.scope(), quota, now);
            *kept = Kept { bucket: kept.bucket.granted(tokens, quota, now), changed: true, ..*kept };
        }
    }

    fn reset(&self, key: Key, quota: Quota, now: Nanos) {
        let mut state = self.state.lock();
        let quota = state.quota_of(key, quota);
        if let Some(kept) = state.buckets.get_mut(&place(key)) {
            let bucket = Bucket::full(quota, now);
            *kept = Kept { scope: key.scope(), bucket, quota, changed: true };
        }
    }

    fn set_default_quota(&self, quota: Quota, now: Nanos) {
        let mut state = self.state.lock();
        if state.default != quota {
            state.overflow = (state.overflow.0.edit(state.default, quota, now), quota);
            state.default = quota;
            let anonymous = state.buckets.values_mut().filter(|kept| kept.scope == Scope::Address);
            anonymous.for_each(|kept| kept.adapt(Scope::Address, quota, now));
        }
    }

    fn set_policies(&self, policies: &[PolicyTerms], now: Nanos) -> Vec<PolicySlot> {
        let mut state = self.state.lock();
        let old = std::mem::take(&mut state.policies);
        let count = |at: usize| state.buckets.values().filter(|kept| kept.scope.slot() == slot(at)).count();
        let mut next = old.clone();
        next.iter_mut().for_each(|policy| policy.gone |= policies.iter().all(|terms| terms.id != policy.terms.id));
        let mut slots = Vec::new();
        for &terms in policies {
            let mut new = PolicyState { terms, gone: false, overflow: Bucket::full(terms.quota, now), overflowed: 0 };
            let there = next.iter().position(|policy| policy.terms.id == terms.id && !policy.gone);
            if let Some(there) = there.map(|at| &next[at]) {
                let (old, kept) = (there.terms.quota, there.overflow);
                new.overflow = if old == terms.quota { kept } else { kept.edit(old, terms.quota, now) };
            }
            let own = || next.iter().position(|policy| policy.terms.id == terms.id);
            let at = there.or_else(own).or_else(|| (0..next.len()).find(|at| next[*at].gone && count(*at) == 0));
            if let Some(back) = at.map(|at| &next[at]).filter(|policy| policy.terms.id == terms.id) {
                new.overflowed = back.overflowed;
            }
            let at = at.unwrap_or(next.len());
            if at == next.len() {
                next.push(new)
            } else {
                next[at] = new
            }
            slots.extend(slot(at));
        }
        for kept in state.buckets.values_mut() {
            let Some(policy) = kept.scope.slot().and_then(|slot| next.get(slot.index())) else { continue };
            if policy.gone {
                kept.bucket = Bucket::full(kept.quota, now);
                kept.changed = true;
            } else if !kept.scope.has_own_quota() {
                kept.adapt(kept.scope, policy.terms.quota, now);
            }
        }
        state.policies = next;
        slots
    }

    fn policy(&self, id: PolicyId) -> Option<(PolicySlot, Quota)> {
        let state = self.state.lock();
        let at = state.policies.iter().position(|policy| policy.terms.id == id && !policy.gone)?;
        Some((slot(at)?, state.policies[at].terms.quota))
    }
}

fn slot(at: usize) -> Option<PolicySlot> {
    u16::try_from(at).ok().map(PolicySlot)
}

impl Gauges for Exact {
    fn buckets(&self) -> usize {
        self.state.lock().buckets.values().filter(|kept| kept.scope.slot().is_none()).count()
    }

    fn overflowed(&self) -> u64 {
        self.state.lock().overflowed
    }

    fn in_policies(&self) -> usize {
        self.state.lock().buckets.values().filter(|kept| kept.scope.slot().is_some()).count()
    }

    fn of_policy(&self, id: PolicyId) -> PolicyGauge {
        let Some((slot, _)) = self.policy(id) else { return PolicyGauge::default() };
        let state = self.state.lock();
        let policy = &state.policies[slot.index()];
        PolicyGauge { buckets: state.count(Scope::Policy(slot)), overflowed: policy.overflowed }
    }
}
