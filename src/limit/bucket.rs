//! One token bucket, exact.
//!
//! The problem: a bucket holds at most C tokens, gains ρ a second, and gives one to each request. Over any time t it
//! must give at most C + ρ·t, and to a caller who always asks not one less than that allows. It must not matter how
//! often it is looked at: rounding at each look, the usual fault, either loses credit (3 tokens a second, credited each
//! nanosecond in whole microtokens, never refills) or makes some.
//!
//! The rule: tokens are counted in units of 10⁻¹⁸ ([`Tokens`]), rates in nanotokens per second. Then one nanosecond
//! earns exactly `rate` units, whatever the rate, and nothing is ever rounded. The state is "so many tokens at that
//! instant", and every reading is `min(C, tokens + rate·(now − at))`, one multiplication. Crediting a bucket (writing
//! that reading back) changes no later reading, as both `+` and `min` are exact. So nobody has to credit buckets in the
//! background. A refusal writes nothing at all.
//!
//! A clock that repeats or steps back (`now < at`) reads as `at`: nothing is credited, and nothing is lost once the
//! clock has come back to `at`.
//!
//! Every take that the definition allows is allowed: a caller who always asks gets at least ⌊C + ρ·t⌋ − 1. One case is
//! narrower, and must be: with C = 1 there is no room for the part of a token that has come by the next whole
//! nanosecond, so such a caller gets one in every ⌈1/ρ⌉ nanoseconds. One more would be more than C + ρ·t in some
//! window.
//!
//! A debt ([`debited`](Bucket::debited)) needs no sign: a bucket that owes is one without a token whose instant lies
//! in the future, at the end of the debt. Until then it reads as empty, which is the rule above.
//!
//! A grant ([`granted`](Bucket::granted)) adds tokens once, above the capacity if need be. What is above stays there
//! until it is taken, which is before anything else; nothing is earned meanwhile. So over any time t at most C + ρ·t
//! and what was granted is given. An edit clamps what is below the capacity and keeps what is above.
//!
//! A quota edit first credits at the old rate, then keeps the tokens, clamped to the new capacity. What is owed is kept
//! in tokens, too, not in time: whoever raises a debtor's rate shortens its debt.
//!
//! Refused: GCRA's single instant ("theoretical arrival time") in nanoseconds, half the size, but it rounds the period
//! of every rate that does not divide 10⁹ and cannot be exact across an edit; "full at `s`, `n` taken since", which is
//! exact until the first edit, for the same reason; floating point, which drifts; units of 2⁻⁶⁴ tokens, which are exact
//! for no decimal rate.
//!
//! Bounds: capacity ≤ 10⁹ tokens = 10²⁷ units, 90 bits; credit ≤ 10¹⁸ · 2⁶⁴ < 2¹²⁴. So `u128` never overflows.
//! Cost of a take: two multiplications and a compare, no division; a few nanoseconds.
//!
//! Source: J. Turner, "New directions in communications (or which way to the information age?)", 1986, for the bucket;
//! ITU-T I.371 for its equivalence with GCRA.

use crate::client::Quota;

/// Nanoseconds since the epoch that the caller has chosen.
pub type Nanos = u64;

/// The units in one token.
const TOKEN: u128 = 1_000_000_000_000_000_000;

/// An amount of tokens, exact to 10⁻¹⁸.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq, PartialOrd, Ord)]
pub struct Tokens(u128);

impl Tokens {
    /// One token.
    pub const ONE: Tokens = Tokens(TOKEN);

    /// The most that a bucket holds, with what was granted: a fifth more than the largest capacity, in 90 bits.
    pub const MOST: Tokens = Tokens(1_200_000_000 * TOKEN);

    /// A whole number of tokens.
    pub fn whole(tokens: u32) -> Self {
        Tokens(u128::from(tokens) * TOKEN)
    }

    /// What [`parts`](Tokens::parts) gave; for reading a saved amount. Whatever the numbers, it is an amount: a
    /// fraction of a token or more carries over.
    pub fn from_parts(whole: u32, fraction: u64) -> Self {
        Tokens(u128::from(whole) * TOKEN + u128::from(fraction))
    }

    /// The whole tokens, and the rest in units of 10⁻¹⁸ (below 10¹⁸, so it fits a signed 64-bit column).
    pub fn parts(self) -> (u32, u64) {
        let whole = u32::try_from(self.0 / TOKEN).unwrap_or(u32::MAX);
        (whole, u64::try_from(self.0 % TOKEN).unwrap_or(u64::MAX))
    }

    /// The whole tokens in it: as many requests can follow at once.
    pub fn floor(self) -> u32 {
        self.parts().0
    }

    /// For people: the nearest `f64`, give or take one place.
    pub fn to_f64(self) -> f64 {
        let (whole, fraction) = self.parts();
        f64::from(whole) + fraction as f64 / TOKEN as f64
    }

    /// In units of 10⁻¹⁸ tokens.
    pub(super) const fn units(self) -> u128 {
        self.0
    }

    /// From units of 10⁻¹⁸ tokens.
    pub(super) fn from_units(units: u128) -> Self {
        Tokens(units)
    }
}

/// A token bucket: so many tokens at an instant. It does not hold its quota; whoever holds it passes the same one each
/// time, and calls [`edit`](Bucket::edit) when it changes.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Bucket {
    tokens: Tokens,
    at: Nanos,
}

impl Bucket {
    /// A full bucket.
    pub fn full(quota: Quota, now: Nanos) -> Self {
        Bucket { tokens: Tokens::whole(quota.capacity().get()), at: now }
    }

    /// The bucket that held `tokens` at `at`; for reading a saved one. What is more than its capacity was granted.
    pub fn resume(tokens: Tokens, at: Nanos) -> Self {
        Bucket { tokens, at }
    }

    /// The tokens it held when it was last written.
    pub fn tokens(self) -> Tokens {
        self.tokens
    }

    /// When it was last written.
    pub fn at(self) -> Nanos {
        self.at
    }

    /// Takes one token, or nothing: whether it did. A refusal leaves the bucket as it was.
    #[inline]
    pub fn take(&mut self, quota: Quota, now: Nanos) -> bool {
        self.spend(Tokens::ONE, quota, now)
    }

    /// Takes `cost`, or nothing: whether it did. A refusal leaves the bucket as it was.
    #[inline]
    pub fn spend(&mut self, cost: Tokens, quota: Quota, now: Nanos) -> bool {
        let held = self.held(quota, now);
        let allowed = held >= cost;
        if allowed {
            *self = Bucket { tokens: Tokens(held.0 - cost.0), at: self.at.max(now) };
        }
        allowed
    }

    /// Takes `tokens` whether they are there or not, for takes that somebody else has allowed. What is missing is a
    /// debt: the bucket is as empty as can be, and earns nothing for itself until it has earned that.
    #[must_use]
    pub fn debited(self, tokens: u32, quota: Quota, now: Nanos) -> Self {
        let (held, at) = (self.held(quota, now), self.at.max(now));
        let taken = Tokens::whole(tokens);
        if held >= taken {
            return Bucket { tokens: Tokens(held.0 - taken.0), at };
        }
        Bucket::owing(taken.0 - held.0, quota, at)
    }

    /// One that owes so many units at `now`.
    fn owing(missing: u128, quota: Quota, now: Nanos) -> Self {
        let rate = u128::from(quota.rate().nanos_per_sec());
        // Paid back within the last nanosecond; the rest of what that earns stays, so that nothing is rounded.
        let nanos = missing.div_ceil(rate);
        let paid = now.saturating_add(u64::try_from(nanos).unwrap_or(u64::MAX));
        Bucket { tokens: Tokens(nanos * rate - missing), at: paid }
    }

    /// The same bucket as saved by another process, whose clock may have been ahead: one that holds a token counts as
    /// written at `now` at the latest.
    ///
    /// One that holds none may be in [debt](Bucket::debited) and keeps its instant, however late: costs that are told
    /// afterwards run up debts longer than the bucket takes to fill, and no restart forgives one. Whoever reads it back
    /// has moved that instant into its own time by how far ahead it was at the save, less the time since, so a clock
    /// that was set back meanwhile makes no debt longer.
    #[must_use]
    pub fn resumed(self, now: Nanos) -> Self {
        if self.tokens < Tokens::ONE { self } else { Bucket { at: self.at.min(now), ..self } }
    }

    /// Adds tokens, above the capacity if need be, but not above [`MOST`](Tokens::MOST).
    #[must_use]
    pub fn granted(self, tokens: u32, quota: Quota, now: Nanos) -> Self {
        let held = self.held(quota, now).0 + Tokens::whole(tokens).0;
        Bucket { tokens: Tokens(held.min(Tokens::MOST.0)), at: self.at.max(now) }
    }

    /// The tokens in it at `now`. Looking changes nothing.
    #[inline]
    pub fn held(self, quota: Quota, now: Nanos) -> Tokens {
        let earned = u128::from(quota.rate().nanos_per_sec()) * u128::from(now.saturating_sub(self.at));
        // What was granted is above the capacity, and stays.
        let most = Tokens::whole(quota.capacity().get()).0.max(self.tokens.0);
        Tokens((self.tokens.0 + earned).min(most))
    }

    /// The same bucket, written at `now`: every later reading is the same.
    #[must_use]
    pub fn credited(self, quota: Quota, now: Nanos) -> Self {
        Bucket { tokens: self.held(quota, now), at: self.at.max(now) }
    }

    /// Whether it is full at `now`, and so equal to a new one.
    pub fn is_full(self, quota: Quota, now: Nanos) -> bool {
        self.held(quota, now) == Tokens::whole(quota.capacity().get())
    }

    /// The same bucket under another quota from `now` on: it keeps its tokens, clamped to the new capacity but for what
    /// was above the old one. One that owes goes on owing as much, which the new rate pays back sooner or later.
    #[must_use]
    pub fn edit(self, from: Quota, to: Quota, now: Nanos) -> Self {
        let rate = u128::from(from.rate().nanos_per_sec());
        if self.at > now && self.tokens.0 < rate {
            return Bucket::owing(rate * u128::from(self.at - now) - self.tokens.0, to, now);
        }
        let kept = self.credited(from, now);
        let above = kept.tokens.0.saturating_sub(Tokens::whole(from.capacity().get()).0);
        let below = (kept.tokens.0 - above).min(Tokens::whole(to.capacity().get()).0);
        Bucket { tokens: Tokens((below + above).min(Tokens::MOST.0)), at: kept.at }
    }

    /// The first instant from `now` on at which a take is allowed, if nobody else takes: refused at every instant
    /// before, allowed then. The end of time (`u64::MAX`) when it is later than that.
    pub fn next_token_at(self, quota: Quota, now: Nanos) -> Nanos {
        self.affords_at(Tokens::ONE, quota, now)
    }

    /// The same for `cost`, which is more than there ever is when it is over the capacity: then the end of time.
    pub fn affords_at(self, cost: Tokens, quota: Quota, now: Nanos) -> Nanos {
        if cost > Tokens::whole(quota.capacity().get()).max(self.tokens) {
            return Nanos::MAX;
        }
        let rate = quota.rate().nanos_per_sec();
        let nanos = match cost.0.saturating_sub(self.tokens.0) {
            0 => return now,
            // Up to 18 tokens, for which a short division does.
            missing => match u64::try_from(missing) {
                Ok(missing) => missing.div_ceil(rate),
                Err(_) => u64::try_from(missing.div_ceil(u128::from(rate))).unwrap_or(u64::MAX),
            },
        };
        self.at.saturating_add(nanos).max(now)
    }
}

#[cfg(test)]
mod properties;

#[cfg(test)]
mod tests {
    use super::*;

    const SECOND: Nanos = 1_000_000_000;

    fn quota(capacity: u64, rate: f64) -> Quota {
        Quota::new(capacity, rate).unwrap()
    }

    #[test]
    fn a_burst_then_the_rate() {
        let quota = quota(3, 10.0);
        let mut bucket = Bucket::full(quota, 5);
        assert_eq!((0..5).filter(|_| bucket.take(quota, 5)).count(), 3);
        assert_eq!(bucket.next_token_at(quota, 5), 5 + SECOND / 10);
        assert!(!bucket.take(quota, 4 + SECOND / 10));
        assert!(bucket.take(quota, 5 + SECOND / 10));
        assert!(!bucket.take(quota, 5 + SECOND / 10));
    }

    #[test]
    fn a_third_of_a_second_is_rounded_once_not_each_time() {
        let quota = quota(2, 3.0);
        let mut bucket = Bucket::full(quota, 0);
        assert!(bucket.take(quota, 0) && bucket.take(quota, 0));
        // 1/3 s is 333,333,333.3 ns: the first token is there a third of a nanosecond late, the third one in time.
        for due in [333_333_334, 666_666_667, SECOND] {
            assert_eq!(bucket.next_token_at(quota, due - 1), due);
            assert!(!bucket.take(quota, due - 1));
            assert!(bucket.take(quota, due));
        }
    }

    #[test]
    fn looking_a_million_times_changes_nothing() {
        let quota = quota(1, 0.7);
        let mut drained = Bucket::full(quota, 0);
        assert!(drained.take(quota, 0));
        let due = drained.next_token_at(quota, 0);
        let mut looked_at = drained;
        for now in (0..1_000_000).map(|look| look * due / 1_000_000) {
            looked_at = looked_at.credited(quota, now);
        }
        assert_eq!(looked_at.next_token_at(quota, 0), due);
        assert_eq!(looked_at.held(quota, due - 1), drained.held(quota, due - 1));
        assert!(!looked_at.take(quota, due - 1) && looked_at.take(quota, due));
    }

    #[test]
    fn a_clock_that_steps_back_credits_and_loses_nothing() {
        let quota = quota(2, 1.0);
        let mut bucket = Bucket::full(quota, 10 * SECOND);
        assert!(bucket.take(quota, 10 * SECOND) && bucket.take(quota, 0));
        assert!(!bucket.take(quota, 0) && !bucket.take(quota, 10 * SECOND));
        assert_eq!(bucket.next_token_at(quota, 0), 11 * SECOND);
        assert!(bucket.take(quota, 11 * SECOND));
    }

    #[test]
    fn an_edit_keeps_what_was_spent() {
        let (small, large) = (quota(10, 1.0), quota(100, 2.0));
        let mut bucket = Bucket::full(small, 0);
        assert!((0..4).all(|_| bucket.take(small, 0)));
        let raised = bucket.edit(small, large, SECOND);
        assert_eq!(raised.held(large, SECOND), Tokens::whole(7));
        assert_eq!(raised.held(large, 2 * SECOND), Tokens::whole(9));
        assert_eq!(Bucket::full(large, 0).edit(large, small, 0), Bucket::full(small, 0));
    }

    #[test]
    fn what_is_granted_is_spent_first_and_outlasts_an_edit() {
        let (small, large) = (quota(3, 1.0), quota(5, 1.0));
        let mut bucket = Bucket::full(small, 0).granted(4, small, 0);
        assert_eq!(bucket.held(small, 0), Tokens::whole(7));
        assert_eq!((bucket.held(small, 9 * SECOND), bucket.is_full(small, 9 * SECOND)), (Tokens::whole(7), false));
        assert_eq!(bucket.edit(small, large, 0).held(large, 0), Tokens::whole(7), "three, and four above");
        assert_eq!(bucket.edit(small, quota(1, 1.0), 0).held(quota(1, 1.0), 0), Tokens::whole(5));
        assert_eq!(bucket.affords_at(Tokens::whole(6), small, 0), 0);
        assert_eq!((0..9).filter(|_| bucket.take(small, SECOND)).count(), 7);
        assert_eq!(bucket.held(small, 9 * SECOND), Tokens::whole(3));
        let most = Bucket::full(quota(1_000_000_000, 1.0), 0).granted(1_000_000_000, quota(1_000_000_000, 1.0), 0);
        assert_eq!(most.tokens(), Tokens::MOST);
    }

    #[test]
    fn a_debt_is_paid_back_before_anything_else() {
        let quota = quota(5, 3.0);
        let full = Bucket::full(quota, SECOND);
        assert_eq!(full.debited(2, quota, SECOND).held(quota, SECOND), Tokens::whole(3));
        let mut owing = full.debited(4, quota, SECOND).debited(4, quota, SECOND);
        // Three are owed, which takes a second, and then a third of one for the next token.
        assert_eq!(owing.held(quota, 2 * SECOND), Tokens::default());
        assert_eq!(owing.next_token_at(quota, SECOND), 2 * SECOND + 333_333_334);
        assert!(!owing.take(quota, 2 * SECOND + 333_333_333) && owing.take(quota, 2 * SECOND + 333_333_334));
        assert_eq!(full.debited(0, quota, SECOND), full);
        let endless = full.debited(u32::MAX, Quota::new(1, 1e-6).unwrap(), SECOND);
        assert!(endless.at() > 4_000_000_000 * SECOND && endless.tokens() < Tokens::ONE);
    }

    #[test]
    fn an_edit_keeps_what_is_owed_and_not_for_how_long() {
        let (slow, odd, fast) = (quota(5, 1.0), quota(5, 0.7), quota(50, 10.0));
        let owing = Bucket::full(slow, 0).debited(105, slow, 0);
        assert_eq!(owing.edit(slow, fast, 0).next_token_at(fast, 0), 10 * SECOND + SECOND / 10);
        // A half is paid back at the old rate.
        assert_eq!(owing.edit(slow, fast, 50 * SECOND).next_token_at(fast, 0), 55 * SECOND + SECOND / 10);
        assert_eq!(owing.edit(slow, quota(5, 0.1), 0).next_token_at(quota(5, 0.1), 0), 1_010 * SECOND);
        let there_and_back = owing.edit(slow, odd, SECOND).edit(odd, slow, SECOND);
        assert_eq!((there_and_back, owing.edit(slow, slow, 7)), (owing, owing), "nothing is rounded");
        assert_eq!(owing.edit(slow, fast, 101 * SECOND).held(fast, 101 * SECOND), Tokens::ONE, "it owes no more");
        let endless = Bucket::resume(Tokens::default(), u64::MAX).edit(fast, quota(1, 1e-6), 0);
        assert_eq!(endless.at(), u64::MAX);
    }

    #[test]
    fn only_a_debt_is_believed_from_the_future() {
        let saved = |tokens: u32, at| Bucket::resume(Tokens::whole(tokens), at).resumed(10 * SECOND).at();
        assert_eq!((saved(2, 9 * SECOND), saved(2, 11 * SECOND)), (9 * SECOND, 10 * SECOND));
        assert_eq!((saved(0, 11 * SECOND), saved(0, 99 * SECOND)), (11 * SECOND, 99 * SECOND), "however long it is");
        assert_eq!(saved(0, 9 * SECOND), 9 * SECOND);
    }

    #[test]
    fn a_cost_is_taken_whole_or_not_at_all() {
        let (quota, cost) = (quota(50, 2.0), Tokens::whole(20));
        let mut bucket = Bucket::full(quota, 0);
        assert!(bucket.spend(cost, quota, 0) && bucket.spend(cost, quota, 0));
        assert!(!bucket.spend(cost, quota, 0) && !bucket.spend(cost, quota, 5 * SECOND - 1));
        assert_eq!((bucket.held(quota, 0), bucket.affords_at(cost, quota, 0)), (Tokens::whole(10), 5 * SECOND));
        assert!(bucket.spend(cost, quota, 5 * SECOND));
        assert_eq!(bucket.affords_at(cost, quota, 5 * SECOND), 15 * SECOND);
        assert_eq!(bucket.affords_at(Tokens::whole(51), quota, 0), Nanos::MAX, "there is never as much");
        assert!(!bucket.spend(Tokens::whole(51), quota, 1_000 * SECOND));
    }

    #[test]
    fn the_ends_of_the_scale_hold() {
        let slow = quota(1_000_000_000, 1e-6);
        let empty = Bucket::resume(Tokens::default(), 0);
        assert_eq!(empty.next_token_at(slow, 0), 1_000_000 * SECOND);
        assert!(!empty.is_full(slow, u64::MAX));
        let fast = quota(1_000_000_000, 1e9);
        assert_eq!(empty.next_token_at(fast, 0), 1);
        assert!(empty.is_full(fast, u64::MAX) && !empty.is_full(fast, SECOND - 1) && empty.is_full(fast, SECOND));
        assert_eq!(Tokens::from_parts(u32::MAX, u64::MAX).min(Tokens::ONE), Tokens::ONE);
    }
}
