//! What is known of one bucket that is busy on this node.
//!
//! How much is asked ahead: what a bucket's requests here need in the time of a lease, ten times as much while at least
//! half of the bucket is there, and never more than its capacity over twice the nodes, so that idle leases take little
//! from others. While there is plenty an eighth of the bucket, over all nodes, is held for ten seconds' need and for ten
//! seconds without use, so that who asks seldom is asked for seldom. Nothing is held for who is not expected before it
//! would go back. The rate is that of the requests since the last questions, halved and added as TCP smooths its round
//! trips. A bucket that is too small for any of this is asked about each time.
//!
//! What nodes hold keeps its room in the bucket, and so does what they spent until they tell it: meanwhile a full bucket
//! earns nothing. So while there is plenty C/32, over all nodes, is spent before it is told; and C/128 where the bucket
//! would be drained if the other nodes were asked as much as this one. Where not half of what it earns would be used, half
//! as much again may be spent until there is another question to go with. Whoever drains a bucket C at a rate R, while it
//! earns ρ, is given C·R/(R−ρ) in all, and of that at most ρ·C/21R, below 1.2 %, is lost; beside it what was untold when
//! that began, C/21 at most.
//!
//! A bucket that was found empty, and earns at least `BATCH` tokens in the time of a lease, is asked about only when half
//! of that or more has passed, for all that it earned meanwhile: until then who finds nothing here is refused. Asked for one by one, as
//! they are earned, tokens would cost more than a question for each request. The times are scattered, so that nodes come
//! before one another in turns; and there is room for what is earned meanwhile: a quarter of the bucket at the most.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::client::Quota;
use crate::limit::asking::StoreVerdict;
use crate::limit::bucket::Nanos;
use crate::limit::key::Key;

use super::question::Answered;
use super::queue::{CALM, Queued, SLOT, slot_from};

/// How much longer is asked ahead while there is plenty.
const PLENTY: u64 = 10;
/// For how long a lease may be spent, in nanoseconds; while there is plenty ten times as long.
const VALID: Nanos = 2_000_000_000;
/// After how long without use it is given back; while there is plenty a small one ten times as late.
pub(super) const UNUSED: Nanos = 1_000_000_000;
/// How long is known at least how often a bucket is used.
pub(super) const FORGOTTEN: Nanos = 3 * UNUSED;
/// The part of a bucket, over all nodes, that may be held for long.
const LONG_PART: u32 = 8;
/// The part of a bucket, over all nodes, that may be spent untold while there is plenty; and while it is drained.
const UNTOLD_PARTS: [u32; 2] = [32, 128];
/// The part of a bucket that may be earned before it is asked about again.
const EARNED_PART: u64 = 4;
/// How many tokens are waited for where they are earned in half the time of a lease or more.
const WORTH: u32 = 16;
/// The fewest tokens that are worth a wait: what is earned since the last question is let in by nobody, and is not to
/// be much of a bucket that earns little.
const BATCH: u32 = 10;

/// What was found of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    /// It was there, and is taken.
    Taken,
    /// It was not, and there is nothing to be had before that instant.
    Until(Nanos),
    /// It was not, and the view was heard of lately.
    Believed,
    /// Nothing is known.
    Unknown,
}

/// A request that waits.
#[derive(Debug)]
pub(super) struct WaitingClaim {
    pub(super) cost: u32,
    pub(super) answer: oneshot::Sender<StoreVerdict>,
}

/// What a question under way has of the entry.
#[derive(Clone, Copy, Debug, Default)]
pub(super) struct Flight {
    pub(super) sent: Nanos,
    pub(super) waiters: usize,
    pub(super) debit: u64,
    pub(super) number: u64,
    /// For how long what it brings may be spent.
    pub(super) valid: Nanos,
    /// How many tokens it asks for.
    pub(super) asked: u32,
}

/// What is known of a bucket. All that a request looks at which finds a lease stands first, in one cache line: by the
/// time that a caller comes again, others have driven its entry out of the cache.
#[derive(Debug)]
#[repr(C, align(64))]
pub(super) struct LeaseEntry {
    pub(super) key: Key,
    pub(super) lease: u32,
    /// When less is held than that the bucket is asked about.
    pub(super) low: u32,
    pub(super) valid: Nanos,
    /// When a bucket that was found empty is asked about again; 0 where that does not matter.
    pub(super) next: Nanos,
    pub(super) used_at: Nanos,
    /// Tokens that were wanted since `since`.
    pub(super) used: u32,
    pub(super) queued: Queued,
    /// When the store was last heard of; 0 when its word counts no more.
    pub(super) heard: Nanos,
    /// How many tokens it earns until `next`.
    pub(super) batch: u32,
    pub(super) quota: Quota,
    /// How long `valid` was at first.
    pub(super) valid_for: Nanos,
    /// What is asked ahead for.
    pub(super) need: u32,
    pub(super) since: Nanos,
    /// What was wanted a second, smoothed.
    pub(super) rate: f32,
    pub(super) owed: u64,
    pub(super) back: u32,
    pub(super) flight: Option<Flight>,
    pub(super) waiters: Vec<WaitingClaim>,
    /// For the waiters of a question: what was granted and is not given out yet.
    pub(super) granted: u32,
    /// Whether half of the bucket was there.
    pub(super) plenty: bool,
    /// So much below `low` it has time to ask.
    pub(super) slack: u32,
    /// The number of the last question that was answered, or asked of any before there was an entry.
    pub(super) known: u64,
    /// Whether one since was not, and may have been carried out.
    pub(super) unsure: bool,
}

// The line that is looked at.
const _: () = assert!(std::mem::offset_of!(LeaseEntry, heard) <= 64);

impl LeaseEntry {
    pub(super) fn new(key: Key, quota: Quota, known: u64, now: Nanos) -> Self {
        LeaseEntry {
            key,
            quota,
            lease: 0,
            valid: 0,
            valid_for: 0,
            heard: 0,
            need: 0,
            low: 0,
            used: 0,
            since: now,
            rate: 0.0,
            used_at: now,
            owed: 0,
            back: 0,
            queued: Queued::No,
            flight: None,
            waiters: Vec::new(),
            granted: 0,
            plenty: false,
            slack: 0,
            next: 0,
            batch: 0,
            known,
            unsure: false,
        }
    }

    pub(super) fn held(&self, now: Nanos) -> u32 {
        if now < self.valid { self.lease } else { 0 }
    }

    pub(super) fn use_up(&mut self, cost: u32, now: Nanos) {
        self.used = self.used.saturating_add(cost);
        self.used_at = now;
    }

    /// Gives back what it holds, and knows nothing.
    pub(super) fn hold_nothing(&mut self) {
        (self.heard, self.next, self.batch) = (0, 0, 0);
        self.back = self.back.saturating_add(std::mem::take(&mut self.lease));
    }

    pub(super) fn is_idle(&self) -> bool {
        let asks = self.flight.is_some() || self.unsure || !self.waiters.is_empty();
        !asks && self.owed == 0 && self.back == 0 && self.granted == 0
    }

    /// How long it is kept without use.
    pub(super) fn keeps(&self, nodes: u32) -> Nanos {
        if self.plenty && self.lease <= self.long_part(nodes) { UNUSED * PLENTY } else { UNUSED }
    }

    fn long_part(&self, nodes: u32) -> u32 {
        self.part_of(LONG_PART, nodes)
    }

    /// This node's of a part of the capacity.
    fn part_of(&self, part: u32, nodes: u32) -> u32 {
        self.quota.capacity().get() / nodes.saturating_mul(part).max(1)
    }

    /// Whether what it holds may soon not be spent any more.
    pub(super) fn runs_out(&self, now: Nanos) -> bool {
        now.saturating_add(self.valid_for / 2) >= self.valid
    }

    /// Whether who finds nothing is to come again later.
    pub(super) fn is_put_off(&self, cost: u32, now: Nanos) -> bool {
        now < self.next && cost <= self.batch
    }

    /// For how long what is asked for now may be spent.
    pub(super) fn validity(&self) -> Nanos {
        if self.plenty { VALID * PLENTY } else { VALID }
    }

    /// At most one part in so many of what is there is held: all that was earned, where that is asked for at once.
    pub(super) fn divisor(&self, nodes: u32) -> u32 {
        if self.batch > 0 { 1 } else { nodes.saturating_mul(2) }
    }

    /// Reckons what its requests need in the time of a lease.
    pub(super) fn reckon(&mut self, lease: Duration, nodes: u32, now: Nanos) {
        let window = now.saturating_sub(self.since);
        if window > 0 {
            let seen = self.used as f32 / (window as f32 / 1e9);
            let share = (window as f32 / lease.as_nanos() as f32).min(1.0) / 2.0;
            self.rate += (seen - self.rate) * share;
            (self.used, self.since) = (0, now);
        }
        let ahead = lease.as_secs_f32() * if self.plenty { PLENTY as f32 } else { 1.0 };
        let capacity = self.quota.capacity().get();
        let most =
            if self.batch > 0 { capacity / EARNED_PART as u32 } else { capacity / nodes.saturating_mul(2).max(1) };
        let is_expected = self.rate * (UNUSED as f32 / 1e9) >= 1.0;
        self.need = if is_expected { ((self.rate * ahead).ceil() as u32).min(most) } else { 0 };
        if self.plenty {
            let long = (self.rate * ahead * PLENTY as f32) as u32;
            self.need = self.need.max(if long < 2 { 0 } else { long.min(self.long_part(nodes)) });
        }
    }

    /// Notes how much there is after a question.
    pub(super) fn heard_of(&mut self, answer: &Answered, flight: &Flight, lease: Duration, nodes: u32) {
        let tokens = answer.tokens;
        let (capacity, rate) = (u64::from(self.quota.capacity().get()), self.quota.rate().nanos_per_sec());
        self.plenty = tokens >= (capacity / 2) as i64;
        self.low = self.need.div_ceil(2);
        self.slack = 0;
        if self.plenty {
            // Of what is earned, this is used.
            let used = self.rate * nodes as f32 / (rate as f32 / 1e9);
            let untold = self.part_of(UNTOLD_PARTS[usize::from(used > 1.0)], nodes).max(1);
            self.low = self.low.max(self.lease.saturating_sub(untold));
            let meanwhile = (self.rate * (CALM as f32 / 1e9)).ceil() as u32;
            if used <= 0.5 && meanwhile <= (untold / 2).min(self.need / 4) {
                self.slack = meanwhile;
            }
        }
        (self.next, self.batch) = (0, 0);
        // What was asked for and not given is not there.
        if tokens > i64::from(flight.asked) - i64::from(answer.granted) - i64::from(answer.ahead) {
            return;
        }
        let fills = u128::from(capacity) * 1_000_000_000_000_000_000 / u128::from(rate.max(1));
        let worth = u128::from(WORTH) * 1_000_000_000_000_000_000 / u128::from(rate.max(1));
        let most = worth.clamp(lease.as_nanos() / 2, lease.as_nanos());
        let pause = (fills / u128::from(EARNED_PART)).min(most) as Nanos;
        let earned = (u128::from(rate) * u128::from(pause) / 1_000_000_000_000_000_000) as u32;
        if pause >= SLOT && earned >= BATCH {
            // Between three quarters and five.
            let scattered = (flight.number.wrapping_mul(0x9e37_79b9_7f4a_7c15) >> 56) * (pause / 2) / 256;
            (self.next, self.batch) = (slot_from(flight.sent + pause - pause / 4 + scattered), earned);
        }
    }
}
