//! The answer to a request, as data.
//!
//! A limiter says yes or no and how the bucket then stands; what goes into `Retry-After` and the rate headers is
//! computed from that, only when somebody wants to know. A refusal is an ordinary answer, not an error.
//!
//! Whole seconds are always rounded so that they are true: up, and at least 1 where the header means "wait". A client
//! that waits them is let in, unless others who share its bucket were there first.
//!
//! Where a process gives a part of a bucket, as a node of a fleet whose store is away does, what is left and when to come
//! back are of that part, and what the caller may spend in all stays what it is told: it is the same over all nodes, and
//! after the outage. Of a bucket that another node gives meanwhile nothing is left here, at any time. Who asks for it is
//! told to come back after a second: by then another node may be asked, or the store be there again. Refused: when the
//! bucket would have a token, which is not when this node gives one, and may be hours.
//!
//! Source: RFC 9110 §10.2.3 for `Retry-After`; draft-ietf-httpapi-ratelimit-headers-11 for `RateLimit`.

use std::num::NonZeroU16;

use crate::client::Quota;
use crate::limit::bucket::{Bucket, Nanos, Tokens};

const NANOS_PER_SEC: u64 = 1_000_000_000;

/// The largest integer of a structured field (RFC 8941 section 3.3.1: at most 15 digits); a reader drops a whole header
/// for a larger one. As seconds, 31 million years.
const MOST_SECONDS: u64 = 999_999_999_999_999;

/// How long to wait for a bucket of which this process gives nothing: the same as where nobody is let in for want of a
/// store.
const ELSEWHERE: Nanos = NANOS_PER_SEC;

/// Whether a charge may be made, and how its bucket stands after that.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Decision {
    /// It took what it costs. Of several at once: there was enough, and it was taken if there was for all of them.
    Allowed(Standing),
    /// There was not enough; nothing was taken.
    Refused(Standing),
    /// Somebody is to be [asked](crate::limit::Limiter::ask) first, or could not be: nothing was taken. What is known
    /// meanwhile.
    Undecided(Standing),
}

impl Decision {
    /// `standing`, after a charge that was allowed or not.
    #[inline]
    pub(super) fn new(allowed: bool, standing: Standing) -> Self {
        if allowed { Decision::Allowed(standing) } else { Decision::Refused(standing) }
    }

    /// The same of another standing.
    pub(super) fn map(self, change: impl FnOnce(Standing) -> Standing) -> Self {
        match self {
            Decision::Allowed(standing) => Decision::Allowed(change(standing)),
            Decision::Refused(standing) => Decision::Refused(change(standing)),
            Decision::Undecided(standing) => Decision::Undecided(change(standing)),
        }
    }

    /// Whether the request may go on.
    pub fn is_allowed(&self) -> bool {
        matches!(self, Decision::Allowed(_))
    }

    /// Whether somebody is to be asked first.
    pub fn is_undecided(&self) -> bool {
        matches!(self, Decision::Undecided(_))
    }

    /// How the bucket stands.
    pub fn standing(&self) -> &Standing {
        match self {
            Decision::Allowed(standing) | Decision::Refused(standing) | Decision::Undecided(standing) => standing,
        }
    }
}

/// How a bucket stands at an instant.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Standing {
    bucket: Bucket,
    quota: Quota,
    now: Nanos,
    cost: u32,
    of: StandingOf,
}

/// What a standing is of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum StandingOf {
    /// A bucket.
    Whole,
    /// The bucket that callers share when there is no room for one each.
    Overflow,
    /// One of so many parts of a bucket.
    Part(NonZeroU16),
    /// A bucket of which this process gives nothing.
    Elsewhere,
}

// A cache line.
const _: () = assert!(size_of::<Standing>() == 64);

impl Standing {
    /// How `bucket`, which is under `quota`, stands at `now` for who wants a token.
    #[inline]
    pub fn new(bucket: Bucket, quota: Quota, now: Nanos) -> Self {
        Standing { bucket, quota, now, cost: 1, of: StandingOf::Whole }
    }

    /// The same for who wants as many.
    #[inline]
    #[must_use]
    pub fn for_cost(self, cost: u32) -> Self {
        Standing { cost, ..self }
    }

    /// The same, of the bucket that callers share when there is no room for one each.
    #[must_use]
    pub fn of_overflow(self) -> Self {
        Standing { of: StandingOf::Overflow, ..self }
    }

    /// The same, of one of so many parts of a bucket under the quota `whole`; as it is where it is no part of it.
    #[must_use]
    pub(super) fn of_part(self, whole: Quota, parts: NonZeroU16) -> Self {
        match self.of {
            StandingOf::Whole if self.quota != whole => Standing { quota: whole, of: StandingOf::Part(parts), ..self },
            _ => self,
        }
    }

    /// How a bucket under `quota` stands at `now` of which this process gives nothing.
    pub(super) fn elsewhere(quota: Quota, now: Nanos) -> Self {
        let nothing = Bucket::resume(Tokens::default(), now);
        Standing { of: StandingOf::Elsewhere, ..Standing::new(nothing, quota, now) }
    }

    /// The same for who finds enough `then` at the earliest.
    #[must_use]
    pub(super) fn until(mut self, then: Nanos) -> Self {
        if self.retry_at() < then {
            let earns = Bucket::resume(Tokens::default(), 0).affords_at(Tokens::whole(self.cost), self.given(), 0);
            self.bucket = Bucket::resume(Tokens::default(), then.saturating_sub(earns));
        }
        self
    }

    /// How the bucket stands after one take more, if there is a token for it.
    #[must_use]
    pub fn after_take(mut self) -> Self {
        self.bucket.spend(Tokens::whole(self.cost), self.given(), self.now);
        self
    }

    /// The bucket, with what it owes.
    pub fn bucket(&self) -> Bucket {
        self.bucket
    }

    /// The quota that was applied; where it was a part, all of it.
    pub fn quota(&self) -> Quota {
        self.quota
    }

    /// What this process gives of it.
    #[inline]
    fn given(&self) -> Quota {
        match self.of {
            StandingOf::Part(parts) => self.quota.divided(parts).unwrap_or(self.quota),
            _ => self.quota,
        }
    }

    /// Whether this is the bucket that callers share when there is no room for one each.
    pub fn is_overflow(&self) -> bool {
        self.of == StandingOf::Overflow
    }

    /// Whether it is of a bucket of which this process gives nothing, whatever it has.
    pub fn is_elsewhere(&self) -> bool {
        self.of == StandingOf::Elsewhere
    }

    /// The tokens left, with their fraction.
    pub fn tokens(&self) -> Tokens {
        self.bucket.held(self.given(), self.now)
    }

    /// The whole tokens left: ⌊T⌋.
    pub fn remaining(&self) -> u32 {
        self.tokens().floor()
    }

    /// Whether there is enough now.
    pub fn is_enough(&self) -> bool {
        self.tokens() >= Tokens::whole(self.cost)
    }

    /// How many more requests of the same cost there is enough for.
    pub fn affordable(&self) -> u32 {
        self.remaining() / self.cost.max(1)
    }

    /// The instant when there is enough: refused at every instant before, allowed then. Now, if there is; the end of
    /// time, if there never is. Of what this process gives nothing of, a second from now.
    pub fn retry_at(&self) -> Nanos {
        match self.is_elsewhere() {
            true => self.now.saturating_add(ELSEWHERE),
            false => self.bucket.affords_at(Tokens::whole(self.cost), self.given(), self.now),
        }
    }

    /// For `Retry-After`: whole seconds until [`retry_at`](Standing::retry_at), at least 1.
    pub fn retry_after(&self) -> u64 {
        (self.retry_at() - self.now).div_ceil(NANOS_PER_SEC).max(1)
    }

    /// For `RateLimit-Policy`'s `w`: the seconds in which the rate earns the capacity, max(1, ⌈C/ρ⌉), in 15 digits at
    /// most.
    pub fn window(&self) -> u64 {
        seconds_to_earn(self.quota, self.quota.capacity().get())
    }

    /// For `RateLimit`'s `t`: max(1, ⌈r/ρ⌉) for r > 0 whole tokens left, in 15 digits at most, else as `Retry-After`.
    pub fn reset(&self) -> u64 {
        self.remaining_and_reset().1
    }

    /// [`remaining`](Standing::remaining) and [`reset`](Standing::reset), reckoned together.
    pub fn remaining_and_reset(&self) -> (u32, u64) {
        match self.remaining() {
            0 => (0, self.retry_after()),
            remaining => (remaining, seconds_to_earn(self.given(), remaining)),
        }
    }

    /// For `X-RateLimit-Reset`: whole seconds until the bucket is full, 0 if it is. Of what this process gives nothing
    /// of, as `Retry-After`.
    pub fn full_after(&self) -> u64 {
        if self.is_elsewhere() {
            return self.retry_after();
        }
        let given = self.given();
        let capacity = Tokens::whole(given.capacity().get()).units();
        let behind = u128::from(self.bucket.at().saturating_sub(self.now));
        let rate = u128::from(given.rate().nanos_per_sec());
        // None of a bucket to which tokens were granted.
        let missing = capacity.saturating_sub(self.tokens().units());
        let nanos = if missing == 0 { 0 } else { behind + missing.div_ceil(rate) };
        u64::try_from(nanos.div_ceil(u128::from(NANOS_PER_SEC))).unwrap_or(u64::MAX)
    }
}

/// The whole seconds in which the rate of `quota` earns `tokens`, at least 1 and at most [`MOST_SECONDS`].
fn seconds_to_earn(quota: Quota, tokens: u32) -> u64 {
    // At most 2³² · 10⁹ < 2⁶⁴.
    (u64::from(tokens) * NANOS_PER_SEC).div_ceil(quota.rate().nanos_per_sec()).clamp(1, MOST_SECONDS)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    const SECOND: Nanos = NANOS_PER_SEC;

    fn standing(capacity: u64, rate: f64, tokens: (u32, u64), now: Nanos) -> Standing {
        Standing::new(
            Bucket::resume(Tokens::from_parts(tokens.0, tokens.1), 100 * SECOND),
            Quota::new(capacity, rate).unwrap(),
            now,
        )
    }

    /// r, t, w, Retry-After, seconds until full.
    fn numbers(standing: Standing) -> (u32, u64, u64, u64, u64) {
        (standing.remaining(), standing.reset(), standing.window(), standing.retry_after(), standing.full_after())
    }

    #[test]
    fn the_numbers_of_the_headers() {
        const HALF: u64 = 500_000_000_000_000_000;
        let now = 100 * SECOND;
        assert_eq!(numbers(standing(100, 10.0, (99, 0), now)), (99, 10, 10, 1, 1));
        assert_eq!(numbers(standing(100, 10.0, (0, HALF), now)), (0, 1, 10, 1, 10));
        assert_eq!(numbers(standing(100, 10.0, (100, 0), now)), (100, 10, 10, 1, 0));
        assert_eq!(numbers(standing(5, 0.1, (0, HALF), now)), (0, 5, 50, 5, 45));
        assert_eq!(numbers(standing(5, 0.1, (0, HALF), now + 1)), (0, 5, 50, 5, 45));
        assert_eq!(numbers(standing(5, 0.1, (0, HALF), now + SECOND)), (0, 4, 50, 4, 44));
        assert_eq!(numbers(standing(1_000_000_000, 1e-6, (0, 0), now)).4, 1_000_000_000_000_000);
        assert_eq!(numbers(standing(1, 1e9, (0, 0), now)), (0, 1, 1, 1, 1));
        // More than a structured field can hold.
        let most = 999_999_999_999_999;
        let slowest = standing(1_000_000_000, 1e-6, (1_000_000_000, 0), now);
        assert_eq!(numbers(slowest), (1_000_000_000, most, most, 1, 0));
        assert_eq!(numbers(standing(1_000_000_000, 1e-6, (0, 0), now)).3, 1_000_000);
        assert_eq!(numbers(standing(999_999_999, 1e-6, (0, 0), now)).2, 999_999_999_000_000);
        // A clock that has stepped back two seconds: that wait comes first.
        assert_eq!(numbers(standing(5, 0.1, (0, HALF), now - 2 * SECOND)), (0, 7, 50, 7, 47));
    }

    #[test]
    fn what_a_part_has_left_and_the_whole_limit() {
        let (now, whole) = (100 * SECOND, Quota::new(30, 3.0).unwrap());
        let three = NonZeroU16::new(3).unwrap();
        let part =
            |tokens| Standing::new(Bucket::resume(Tokens::whole(tokens), now), whole.divided(three).unwrap(), now);
        let told = |standing: Standing| (standing.quota(), numbers(standing.of_part(whole, three)));
        assert_eq!(told(part(7).of_part(whole, three)), (whole, (7, 7, 10, 1, 3)));
        assert_eq!(told(part(0).for_cost(10).of_part(whole, three)), (whole, (0, 10, 10, 10, 10)));
        // One that its node gives all of, and one that another node does.
        let own = Standing::new(Bucket::resume(Tokens::default(), now), whole, now).for_cost(10);
        assert_eq!(told(own), (whole, (0, 4, 10, 4, 10)));
        let elsewhere = Standing::elsewhere(Quota::new(1, 1e-6).unwrap(), now);
        assert_eq!((elsewhere.is_enough(), numbers(elsewhere)), (false, (0, 1, 1_000_000, 1, 1)));
    }

    proptest! {
        /// Whoever waits the whole seconds of `Retry-After` is let in, and one second less is not enough (if it is >
        /// 1).
        #[test]
        fn retry_after_is_true(
            rate in 1e-6..1e4_f64,
            fraction in 0..1_000_000_000_000_000_000_u64,
            now in 90 * SECOND..110 * SECOND,
        ) {
            let standing = standing(5, rate, (0, fraction), now);
            let bucket = standing.bucket;
            let wait = standing.retry_after();
            prop_assert!(bucket.held(standing.quota, now + wait * SECOND) >= Tokens::ONE);
            prop_assert!(wait == 1 || bucket.held(standing.quota, now + (wait - 1) * SECOND) < Tokens::ONE);
        }

        #[test]
        fn full_after_is_true(rate in 1e-3..1e6_f64, whole in 0..=5_u32, now in 90 * SECOND..110 * SECOND) {
            let standing = standing(5, rate, (whole, 0), now);
            let wait = standing.full_after();
            prop_assert!(standing.bucket.is_full(standing.quota, now + wait * SECOND));
            prop_assert!(wait == 0 || !standing.bucket.is_full(standing.quota, now + (wait - 1) * SECOND));
        }
    }
}
