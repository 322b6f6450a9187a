//! What is known of one bucket that is busy on this node.
//!
//! How much is asked ahead: what a bucket's requests here need in the time of a lease, ten times as much while at least
//! half of the bucket is there, and never more than its capacity over twice the nodes, so that idle leases take little
//! from others. The rate is that of the requests since the last questions, halved and added as TCP smooths its round
//! trips. A bucket that is too small for any of this is asked about each time.

use std::time::Duration;

use tokio::sync::oneshot;

use crate::client::Quota;
use crate::limit::asking::StoreVerdict;
use crate::limit::bucket::Nanos;
use crate::limit::key::Key;

/// How much longer is asked ahead while there is plenty.
const PLENTY: u64 = 10;

/// What was found of a lease.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) enum Reserved {
    /// It was there, and is taken.
    Taken,
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
}

#[derive(Debug)]
pub(super) struct LeaseEntry {
    pub(super) key: Key,
    pub(super) quota: Quota,
    pub(super) lease: u32,
    pub(super) valid: Nanos,
    /// When the store was last heard of; 0 when its word counts no more.
    pub(super) heard: Nanos,
    /// What is asked ahead for.
    pub(super) need: u32,
    /// Tokens that were wanted since `since`.
    pub(super) used: u32,
    pub(super) since: Nanos,
    /// The same a second, smoothed.
    pub(super) rate: f32,
    pub(super) used_at: Nanos,
    pub(super) owed: u64,
    pub(super) back: u32,
    pub(super) queued: bool,
    pub(super) flight: Option<Flight>,
    pub(super) waiters: Vec<WaitingClaim>,
    /// For the waiters of a question: what was granted and is not given out yet.
    pub(super) granted: u32,
    /// Whether half of the bucket was there.
    pub(super) plenty: bool,
    /// The number of the last question that was answered, or asked of any before there was an entry.
    pub(super) known: u64,
    /// Whether one since was not, and may have been carried out.
    pub(super) unsure: bool,
}

impl LeaseEntry {
    pub(super) fn new(key: Key, quota: Quota, known: u64, now: Nanos) -> Self {
        LeaseEntry {
            key,
            quota,
            lease: 0,
            valid: 0,
            heard: 0,
            need: 0,
            used: 0,
            since: now,
            rate: 0.0,
            used_at: now,
            owed: 0,
            back: 0,
            queued: false,
            flight: None,
            waiters: Vec::new(),
            granted: 0,
            plenty: false,
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

    pub(super) fn is_idle(&self) -> bool {
        let asks = self.flight.is_some() || self.unsure || !self.waiters.is_empty();
        !asks && self.owed == 0 && self.back == 0 && self.granted == 0
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
        let most = self.quota.capacity().get() / nodes.saturating_mul(2).max(1);
        self.need = ((self.rate * ahead).ceil() as u32).min(most);
    }
}
