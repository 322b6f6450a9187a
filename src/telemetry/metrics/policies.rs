//! What is counted of policies.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use parking_lot::Mutex;

use crate::limit::PolicyId;
use crate::upstream::Sharded;

/// What a policy made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum PolicyVerdict {
    /// It was paid, or is to be when the answer says how much.
    Allowed,
    /// There was not enough; on trial, it would have been refused.
    Limited,
}

impl PolicyVerdict {
    /// All of them.
    pub const ALL: [PolicyVerdict; 2] = [PolicyVerdict::Allowed, PolicyVerdict::Limited];

    /// As the metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            PolicyVerdict::Allowed => "allowed",
            PolicyVerdict::Limited => "limited",
        }
    }
}

/// What is counted of one policy.
#[derive(Debug)]
pub struct PolicyTally {
    /// Its name.
    pub name: String,
    /// The same as a limiter knows it.
    pub id: PolicyId,
    /// In the order of [`PolicyVerdict::ALL`].
    verdicts: Sharded<[AtomicU64; 2]>,
    senseless_costs: AtomicU64,
}

impl PolicyTally {
    fn new(name: &str) -> Self {
        let (verdicts, senseless_costs) = (Sharded::default(), AtomicU64::new(0));
        PolicyTally { name: name.to_owned(), id: PolicyId::of(name), verdicts, senseless_costs }
    }

    /// Counts a request.
    pub fn count(&self, verdict: PolicyVerdict) {
        self.verdicts.mine()[verdict as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many requests got this verdict.
    pub fn verdicts(&self, verdict: PolicyVerdict) -> u64 {
        self.verdicts.iter().map(|counts| counts[verdict as usize].load(Ordering::Relaxed)).sum()
    }

    /// Counts an answer whose cost makes no sense.
    pub fn cost_made_no_sense(&self) {
        self.senseless_costs.fetch_add(1, Ordering::Relaxed);
    }

    /// How many these are.
    pub fn senseless_costs(&self) -> u64 {
        self.senseless_costs.load(Ordering::Relaxed)
    }
}

/// What is counted of all policies.
#[derive(Debug, Default)]
pub(super) struct PolicyTallies(Mutex<Vec<Arc<PolicyTally>>>);

impl PolicyTallies {
    /// Those of the policies with these names, from now on; one that stays goes on counting.
    pub(super) fn set<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<Arc<PolicyTally>> {
        let mut all = self.0.lock();
        let old = std::mem::take(&mut *all);
        let of = |name| {
            let there = old.iter().find(|tally| tally.name == name).cloned();
            there.unwrap_or_else(|| Arc::new(PolicyTally::new(name)))
        };
        *all = names.map(of).collect();
        all.clone()
    }

    pub(super) fn all(&self) -> Vec<Arc<PolicyTally>> {
        self.0.lock().clone()
    }
}
