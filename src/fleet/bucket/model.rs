//! What the bucket's scripts do, in Rust: exact, and handed `now`. Tests hold both side by side, and simulations have a
//! fleet's buckets without a store.

use std::collections::BTreeMap;

use super::{BucketAnswer, BucketAsk};
use crate::client::Quota;
use crate::limit::Tokens;

/// In one token: what a rate of one nanotoken a second earns in a microsecond.
const UNIT: i128 = 1_000_000_000_000_000;
/// A clock that steps back by more is another clock.
const STEP: u64 = 1_000_000;
/// How long its quota is firm after an operator changed it.
const FIRM: u64 = 1_000_000;

/// A shared bucket, or none where the store has none.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct ModelBucket(Option<ModelState>);

#[derive(Clone, Debug, PartialEq, Eq)]
struct ModelState {
    tokens: i64,
    rest: i64,
    at: u64,
    quota: Quota,
    firm: u64,
    holders: BTreeMap<String, ModelHolder>,
}

/// What a node holds, and what its last question took.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
struct ModelHolder {
    amount: u32,
    till: u64,
    number: u64,
    ahead: u32,
    /// What comes back when the answer was lost, in tokens and parts of one.
    taken: (i64, i64),
}

impl ModelBucket {
    /// What `bucket.lua` does.
    pub fn ask(&mut self, now: u64, ask: &BucketAsk<'_>) -> BucketAnswer {
        let (mut state, was_missing) = self.credited(now, ask.quota);
        let had = state.holders.remove(ask.holder);
        let out = state.out();
        let others = u32::try_from(out).unwrap_or(u32::MAX);
        if had.as_ref().is_some_and(|had| ask.number > 0 && ask.number <= had.number) {
            return BucketAnswer { is_late: true, ..BucketAnswer::default() };
        }
        let valid = u64::try_from(ask.valid.as_millis()).unwrap_or(u64::MAX).clamp(1, 1_000_000_000);
        let mut mine =
            ModelHolder { amount: ask.left, till: now + valid * 1100, number: ask.number, ..ModelHolder::default() };
        state.holders.insert(ask.holder.to_owned(), mine.clone());
        let mut room = had.as_ref().map_or(0, |had| had.amount.saturating_sub(ask.left));
        if let Some(had) = had.as_ref().filter(|had| had.number > ask.known) {
            let rest = i128::from(state.rest) + i128::from(had.taken.1);
            state.rest = i64::try_from(rest % UNIT).unwrap_or(0);
            let held = had.ahead.min(room);
            room -= held;
            state.add(i64::from(had.ahead) + had.taken.0 + i64::from(rest >= UNIT), held);
        }
        let debit = i64::try_from(ask.debit.min(1 << 50)).unwrap_or(i64::MAX);
        state.tokens -= debit;
        if ask.back > 0 && had.is_some() {
            state.add(ask.back.into(), ask.back.min(room));
        }
        let granted = u32::try_from(state.tokens.max(0)).unwrap_or(u32::MAX).min(ask.want);
        state.tokens -= i64::from(granted);
        let part = state.tokens.max(0) / i64::from(ask.divisor.max(1));
        let ahead = u32::try_from(part).unwrap_or(u32::MAX).min(ask.ahead);
        state.tokens -= i64::from(ahead);
        mine.amount = ask.left.saturating_add(ahead);
        (mine.ahead, mine.taken) = (ahead, (i64::from(granted) + debit, 0));
        if mine.amount == 0 && mine.number == 0 {
            state.holders.remove(ask.holder);
        } else {
            state.holders.insert(ask.holder.to_owned(), mine);
        }
        let rate = i64::try_from(state.quota.rate().nanos_per_sec()).unwrap_or(i64::MAX);
        let age_us = u64::try_from(state.rest / rate).unwrap_or(0);
        let tokens = self.keep(now, state);
        BucketAnswer { granted, ahead, tokens, age_us, others, was_missing, is_late: false }
    }

    /// What `reset.lua` does.
    pub fn reset(&mut self, now: u64, quota: Quota) -> i64 {
        let (mut state, _) = self.credited(now, quota);
        state.turn(quota);
        (state.rest, state.at, state.firm) = (0, now, now + FIRM);
        state.tokens = i64::from(quota.capacity().get()) - state.out();
        self.keep(now, state)
    }

    /// What `grant.lua` does.
    pub fn grant(&mut self, now: u64, quota: Quota, tokens: u32) -> i64 {
        let (mut state, _) = self.credited(now, quota);
        state.turn(quota);
        state.tokens += i64::from(tokens);
        state.firm = now + FIRM;
        self.keep(now, state)
    }

    /// Tokens in the store and with nodes whose leases have not ended.
    pub fn held(&self) -> Option<i64> {
        self.0.as_ref().map(|state| state.tokens + state.out())
    }

    /// Tokens that this node was said to hold when it last asked.
    pub fn held_by(&self, holder: &str) -> u32 {
        self.0.as_ref().and_then(|state| state.holders.get(holder)).map_or(0, |held| held.amount)
    }

    /// The bucket at `now` under `quota`, and whether there was none.
    fn credited(&mut self, now: u64, quota: Quota) -> (ModelState, bool) {
        let missing = self.0.is_none();
        let (tokens, holders) = (quota.capacity().get().into(), BTreeMap::new());
        let full = ModelState { tokens, rest: 0, at: now, quota, firm: 0, holders };
        let mut state = self.0.clone().unwrap_or(full);
        state.holders.retain(|_, holder| holder.till >= now);
        if let Some(micros) = now.checked_sub(state.at) {
            let earned = i128::from(micros) * i128::from(state.quota.rate().nanos_per_sec()) + i128::from(state.rest);
            state.at = now;
            state.rest = i64::try_from(earned % UNIT).unwrap_or(0);
            state.add(i64::try_from(earned / UNIT).unwrap_or(i64::MAX / 2), 0);
        } else if state.at - now > STEP {
            state.at = now;
        }
        if !state.is_firm(now) {
            state.turn(quota);
        }
        (state, missing)
    }

    /// Keeps it, unless it is full and nobody holds anything: the tokens in it.
    fn keep(&mut self, now: u64, mut state: ModelState) -> i64 {
        let told = state.tokens;
        state.tokens = state.tokens.clamp(-4_000_000_000_000_000, Tokens::MOST.floor().into());
        state.fit();
        let full = state.tokens == i64::from(state.quota.capacity().get()) && state.holders.is_empty();
        self.0 = if full && !state.is_firm(now) { None } else { Some(state) };
        told
    }
}

impl ModelState {
    fn out(&self) -> i64 {
        self.holders.values().map(|holder| i64::from(holder.amount)).sum()
    }

    fn is_firm(&self, now: u64) -> bool {
        now < self.firm && self.firm <= now + FIRM
    }

    /// Another quota from now on.
    fn turn(&mut self, quota: Quota) {
        if self.quota == quota {
            return;
        }
        let above = (self.tokens + self.out() - i64::from(self.quota.capacity().get())).max(0);
        let (below, most) = (self.tokens - above, i64::from(quota.capacity().get()) - self.out());
        if below >= most {
            self.rest = 0;
        }
        self.tokens = below.min(most) + above;
        self.quota = quota;
        self.fit();
    }

    /// No more of what was taken comes back than there is room for.
    fn fit(&mut self) {
        let unit = i64::try_from(UNIT).unwrap_or(i64::MAX);
        let mut room = (i64::from(self.quota.capacity().get()) - self.out() - self.tokens, 0);
        if self.rest > 0 {
            room = (room.0 - 1, unit - self.rest);
        }
        for holder in self.holders.values_mut() {
            holder.taken = if room.0 < 0 { (0, 0) } else { holder.taken.min(room) };
            room = (room.0 - holder.taken.0, room.1 - holder.taken.1);
            if room.1 < 0 {
                room = (room.0 - 1, room.1 + unit);
            }
        }
    }

    /// Adds what there is room for beside what is held; what is above stays, and so do those of the tokens that have had
    /// their room.
    fn add(&mut self, tokens: i64, roomed: u32) {
        let most = i64::from(self.quota.capacity().get()) - self.out();
        if self.tokens.saturating_add(tokens) >= most {
            (self.tokens, self.rest) = ((self.tokens + i64::from(roomed)).max(most), 0);
        } else {
            self.tokens += tokens;
        }
        self.fit();
    }
}
