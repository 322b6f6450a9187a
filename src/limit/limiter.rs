//! The seam: what a limiter is asked, and by whom.
//!
//! | trait | who asks |
//! |---|---|
//! | [`Limiter`] | the proxy, for each request; the admin API, which looks |
//! | [`Upkeep`] | whoever keeps the buckets: sweeps, saves, reads back, hands over, changes quotas |
//! | [`Gauges`] | the metrics and the status |
//!
//! [`Striped`](crate::limit::Striped) is the limiter of one process, [`SharedLimiter`](crate::limit::SharedLimiter) that
//! of one node among many, and the only place that names them is the one that builds a server. A limiter answers from
//! memory: no call is asynchronous and none can fail. What it cannot decide a request has asked about
//! ([`Limiter::ask`]), waits for, and has judged again.

use std::num::{NonZeroU32, NonZeroUsize};

use smallvec::SmallVec;

use crate::client::Quota;
use crate::limit::asking::{PendingAnswers, StoreAnswers};
use crate::limit::bucket::{Bucket, Nanos};
use crate::limit::decision::{Decision, Standing};
use crate::limit::key::{Key, PolicyId, PolicySlot};
use crate::limit::reach::Reach;

/// The most claims of a request for which nothing is allocated: its caller's own and those of five policies.
pub const USUAL_CLAIMS: usize = 6;

/// What a request claims, all or none of it.
pub type Claims = SmallVec<[Claim; USUAL_CLAIMS]>;

/// What was decided of each claim, in their order.
pub type Decisions = SmallVec<[Decision; USUAL_CLAIMS]>;

/// What a request is to cost somebody.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Charge {
    /// Whose bucket pays.
    pub key: Key,
    /// What the key's owner has now.
    pub quota: Quota,
    /// How many tokens.
    pub cost: NonZeroU32,
}

impl Charge {
    /// Of one token.
    #[inline]
    pub fn one(key: Key, quota: Quota) -> Self {
        Charge { key, quota, cost: NonZeroU32::MIN }
    }
}

/// A charge among others, and how it counts.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Claim {
    /// The charge.
    pub charge: Charge,
    /// Whether it is made [later](Limiter::settle), when more is known: what it costs must be there, and is not taken.
    pub later: bool,
    /// Whether it is on trial: it is made when there is enough and the others are made, and hinders none of them.
    pub trial: bool,
}

impl From<Charge> for Claim {
    fn from(charge: Charge) -> Self {
        Claim { charge, later: false, trial: false }
    }
}

impl Claim {
    /// Whether it is made, once it was decided like this, of all the claims of a request.
    pub fn is_made(&self, decision: &Decision) -> bool {
        decision.is_allowed() && !self.later
    }
}

/// Whether the request of these claims, which were decided like this, may go on.
pub fn are_allowed(claims: &[Claim], decisions: &[Decision]) -> bool {
    claims.iter().zip(decisions).all(|(claim, decision)| claim.trial || decision.is_allowed())
}

/// What a limiter holds of a policy.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct PolicyTerms {
    /// Which policy.
    pub id: PolicyId,
    /// The quota of all who have none of their own in it.
    pub quota: Quota,
    /// The most buckets it has; payers beyond it share one.
    pub max_buckets: NonZeroUsize,
}

/// What can be read off a limiter about a policy.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct PolicyGauge {
    /// The buckets there are.
    pub buckets: usize,
    /// How many claims went to its overflow bucket since the start.
    pub overflowed: u64,
}

/// Gives every key its own token bucket.
///
/// Contract: for each key that has a bucket (a limiter may let anonymous callers share one when it is full) and any
/// time t, at most C + ρ·t tokens are given, whatever the threads that ask. A quota is what the key's owner has now; a
/// bucket that last saw another one adapts as in [`edit`](Upkeep::edit). `now` is the time since one epoch for all
/// calls; it may repeat and step back, which credits nothing.
///
/// A limiter holds the quotas of anonymous callers and of policies itself. That of a charge does not count for who has
/// [none of its own](crate::limit::Scope::has_own_quota), and the standing says which one did.
pub trait Limiter: Send + Sync {
    /// Makes a charge, or refuses it.
    fn take(&self, charge: &Charge, now: Nanos) -> Decision;

    /// Makes what is claimed in one step, or nothing of it: nothing is taken unless all are allowed that are not on
    /// trial, and nobody else takes in between. No two claims are of one bucket.
    fn take_all(&self, claims: &[Claim], now: Nanos) -> Decisions;

    /// Decides as [`take_all`](Limiter::take_all) does on a request that has asked; when it waits no longer, by what is
    /// known.
    fn judge(&self, claims: &[Claim], _asked: &mut StoreAnswers, now: Nanos) -> Decisions {
        self.take_all(claims, now)
    }

    /// Asks about what was [undecided](Decision::Undecided); `None` when nobody can be asked.
    fn ask(&self, _charges: &[Charge], _now: Nanos) -> Option<PendingAnswers> {
        None
    }

    /// Makes a charge that no node but this one is to know of.
    fn rehearse(&self, charge: &Charge, now: Nanos) -> Decision {
        self.take(charge, now)
    }

    /// Takes what `charge` costs whether it is there or not, for a request that was let in by a claim for later; how
    /// the bucket stands then. What is missing is owed, and the bucket earns it before anything else.
    fn settle(&self, charge: &Charge, now: Nanos) -> Standing;

    /// How the bucket of `key` stands. Takes nothing and makes no bucket.
    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing;

    /// What would be decided of a request that waits for nobody: as [`take_all`](Limiter::take_all) by what is known,
    /// but nothing is taken, and the buckets stand as they do before.
    fn foresee(&self, claims: &[Claim], now: Nanos) -> Decisions {
        let seen = |Claim { charge, .. }: &Claim| {
            let standing = self.peek(charge.key, charge.quota, now).for_cost(charge.cost.get());
            Decision::new(standing.is_enough(), standing)
        };
        claims.iter().map(seen).collect()
    }

    /// By whom requests are judged now, and among how many nodes quotas are divided when each gives its part.
    fn reach(&self) -> (Reach, u32) {
        (Reach::Joined, 1)
    }
}

/// A bucket as it is to be saved.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct KeptBucket {
    /// Whose it is.
    pub key: Key,
    /// Its tokens, and when it held them.
    pub bucket: Bucket,
    /// The quota it was last under.
    pub quota: Quota,
}

/// Tokens of a bucket that were given here, and that who keeps it for all nodes is still to be told of.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Owed {
    /// Whose bucket it is.
    pub key: Key,
    /// The quota it is under.
    pub quota: Quota,
    /// How many, not 0.
    pub tokens: u64,
}

/// Looks after the buckets, beside requests. Nothing here credits a bucket or changes what it would answer, unless it
/// says so.
///
/// What was saved is a bucket as it was last written, with the quota it was written under. Its instant is in the
/// limiter's time: save it as it is when the epoch is the same after a restart (the Unix epoch), else move it. The time
/// between counts as refill.
///
/// Whoever keeps what was saved follows both calls in their order: `export` says what to write, `sweep` what to forget.
/// Both give what they have with a part of the limiter locked: collect, and call nothing of it.
pub trait Upkeep: Send + Sync {
    /// In how many parts it is swept and exported; at least one.
    fn parts(&self) -> usize;

    /// Drops the full buckets of one part and tells `dropped` whose they were; how many. Whoever saves buckets forgets
    /// those. Nothing else is ever dropped: that would forgive a debt.
    ///
    /// # Panics
    /// When `part` is not below [`parts`](Upkeep::parts).
    fn sweep(&self, part: usize, now: Nanos, dropped: &mut dyn FnMut(Key)) -> usize;

    /// Gives `saved` every bucket of one part that was changed since the last call for it. What it gives is not given
    /// again until it changes: whoever fails to save it keeps it and tries again.
    ///
    /// # Panics
    /// When `part` is not below [`parts`](Upkeep::parts).
    fn export(&self, part: usize, saved: &mut dyn FnMut(KeptBucket));

    /// Lets every bucket count as changed, so that the next [`export`](Upkeep::export) of each part gives all of them.
    fn mark_all(&self);

    /// Reads a saved bucket back, in place of the one its key may have; whether there was room for it.
    ///
    /// It is put under `quota`, what the key's owner has now; an anonymous caller's under the default one. A bucket
    /// from the future (the clock was set back meanwhile) counts as written at `now`, so that nobody waits for the
    /// clock to come back, unless it [owes](Bucket::debited).
    fn restore(&self, saved: KeptBucket, quota: Quota, now: Nanos) -> bool;

    /// Takes what `charge` costs whether it is there or not: another process has let that request in. What is missing
    /// is owed, and the bucket earns it before anything else. A bucket that is not there was full under the quota; one
    /// that finds no room stays away, as what callers share is each process' own.
    fn debit(&self, charge: Charge, now: Nanos);

    /// Puts the bucket of `key` under the quota `to`, from now on: it keeps its tokens, clamped to the new capacity. A
    /// bucket that is not there was full under `from`.
    fn edit(&self, key: Key, from: Quota, to: Quota, now: Nanos);

    /// Adds tokens to the bucket of `key`, under `quota`, above its capacity if need be: see
    /// [`granted`](Bucket::granted). Where there is no room for a bucket of its own nothing is added; a client has one.
    fn grant(&self, key: Key, quota: Quota, tokens: u32, now: Nanos);

    /// Makes the bucket of `key` full, under `quota`.
    fn reset(&self, key: Key, quota: Quota, now: Nanos);

    /// Puts anonymous callers under another quota from `now` on, whichever one their requests bring along: each bucket
    /// keeps its tokens, clamped to the new capacity, as with [`edit`](Upkeep::edit). So does the overflow bucket.
    ///
    /// The buckets that changed are exported again. Those that are full under the new quota go with the next sweep. Of
    /// two calls at once, one waits for the other.
    fn set_default_quota(&self, quota: Quota, now: Nanos);

    /// Has these policies from now on, and no others; their places, in their order. One that stays keeps its place and
    /// its buckets, each of them as with [`edit`](Upkeep::edit) when the quota is another. The buckets of one that goes
    /// are full, and go with the next sweep. Of two calls at once, one waits for the other.
    fn set_policies(&self, policies: &[PolicyTerms], now: Nanos) -> Vec<PolicySlot>;

    /// The place of a policy, and its quota; none when there is no such policy.
    fn policy(&self, id: PolicyId) -> Option<(PolicySlot, Quota)>;

    /// What is still to be told, and what was told and not yet answered; nothing where each bucket is this process' own.
    fn owed(&self) -> Vec<Owed> {
        Vec::new()
    }

    /// Takes out what another process is to tell: all of it in the `end`, before that only while nobody can be told here.
    fn take_owed(&self, _end: bool) -> Vec<Owed> {
        Vec::new()
    }

    /// What another process gave is to be told here.
    fn owe_too(&self, _owed: Owed, _now: Nanos) {}
}

/// What can be read off a limiter.
pub trait Gauges: Send + Sync {
    /// The buckets there are, but for those of policies.
    fn buckets(&self) -> usize;

    /// How many takes went to the overflow bucket since the start.
    fn overflowed(&self) -> u64;

    /// The buckets of all policies.
    fn in_policies(&self) -> usize;

    /// The same of a policy, which has buckets and an overflow bucket of its own.
    fn of_policy(&self, id: PolicyId) -> PolicyGauge;
}

/// All of a limiter, for whoever builds a server around one.
pub trait WholeLimiter: Limiter + Upkeep + Gauges {}

impl<L: Limiter + Upkeep + Gauges> WholeLimiter for L {}
