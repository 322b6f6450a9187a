//! What is known of the turns of one caller whose requests run on this node.

use tokio::sync::oneshot;

use crate::limit::asking::StoreVerdict;
use crate::limit::bucket::Nanos;
use crate::limit::key::Key;

/// For how long what is held may be used, in nanoseconds; the store keeps it from others a tenth longer.
pub const VALID: Nanos = 2_000_000_000;
/// After how long without use what is idle goes back.
const UNUSED: Nanos = 100_000_000;
/// For how long it is believed that there is no turn: what ends elsewhere is told as late.
const FRESH: Nanos = 10_000_000;
/// The same for a request that has waited in vain.
const BELIEVED: Nanos = 500_000_000;

/// Why there is no turn.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum NoTurn {
    /// As many run as may.
    Full,
    /// Nobody here knows.
    Unknown,
}

/// What is to be asked about the turns of a caller.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnQuestion {
    /// Whose.
    pub key: Key,
    /// The requests that run here, whether there is room for them or not.
    pub running: u32,
    /// With them, those that may begin here from memory.
    pub keeps: u32,
    /// Further ones, which wait.
    pub wants: u32,
    /// How many may run over all nodes.
    pub most: u32,
    /// Later ones have larger numbers.
    pub number: u64,
}

/// What the store said.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct TurnsTold {
    /// What this node holds.
    pub held: u32,
    /// What other nodes hold.
    pub others: u32,
}

/// A question under way.
#[derive(Clone, Copy, Debug)]
struct TurnFlight {
    sent: Nanos,
    /// What it asked to hold.
    asked: u32,
}

/// A request that waits: whoever is to hear whether it has a turn.
pub(super) type WaitingTurn = oneshot::Sender<StoreVerdict>;

#[derive(Debug, Default)]
pub(super) struct TurnEntry {
    pub(super) running: u32,
    pub(super) most: u32,
    held: u32,
    others: u32,
    valid: Nanos,
    /// When the store said that there is no turn; 0 when that counts no more.
    full_at: Nanos,
    used_at: Nanos,
    /// Whether the store may have heard other than is known here.
    unsure: bool,
    pub(super) queued: bool,
    flight: Option<TurnFlight>,
    pub(super) waiters: Vec<WaitingTurn>,
}

impl TurnEntry {
    /// Begins a request from memory.
    pub(super) fn begin(&mut self, now: Nanos) -> Result<(), NoTurn> {
        if self.running >= self.most {
            return Err(NoTurn::Full);
        }
        if self.idle() == 0 || now >= self.valid {
            return Err(self.belief(FRESH, now));
        }
        self.count_in(now);
        Ok(())
    }

    /// Begins one that has waited in vain, of which `share` may run here.
    pub(super) fn begin_in_vain(&mut self, share: u32, now: Nanos) -> Result<(), NoTurn> {
        match self.begin(now) {
            Err(NoTurn::Unknown) if self.belief(BELIEVED, now) == NoTurn::Unknown => self.begin_of_share(share, now),
            begun => begun.map_err(|_| NoTurn::Full),
        }
    }

    /// Begins one if fewer than `share` run here.
    pub(super) fn begin_of_share(&mut self, share: u32, now: Nanos) -> Result<(), NoTurn> {
        if self.running >= share {
            return Err(NoTurn::Full);
        }
        self.count_in(now);
        Ok(())
    }

    fn belief(&self, long: Nanos, now: Nanos) -> NoTurn {
        if now < self.full_at.saturating_add(long) { NoTurn::Full } else { NoTurn::Unknown }
    }

    fn count_in(&mut self, now: Nanos) {
        self.running += 1;
        self.used_at = now;
    }

    /// One of them has ended.
    pub(super) fn end(&mut self) {
        self.running = self.running.saturating_sub(1);
        self.full_at = 0;
    }

    fn idle(&self) -> u32 {
        self.held.saturating_sub(self.running)
    }

    /// What may be idle here: of what nobody holds, a part that leaves the nodes together at most half.
    fn plenty(&self, nodes: u32) -> u32 {
        let left = self.most.saturating_sub(self.held.max(self.running)).saturating_sub(self.others);
        left / nodes.saturating_mul(2).max(1)
    }

    /// What is to be asked; what is given back by it is used no more.
    pub(super) fn question(&mut self, key: Key, nodes: u32, number: u64, now: Nanos) -> Option<TurnQuestion> {
        self.queued = false;
        if self.flight.is_some() {
            return None;
        }
        self.waiters.retain(|waiter| !waiter.is_closed());
        if now >= self.valid {
            self.held = 0;
        }
        let waiting = u32::try_from(self.waiters.len()).unwrap_or(u32::MAX);
        let unused = now.saturating_sub(self.used_at) >= UNUSED;
        let idle = self.idle().min(waiting.max(if unused { 0 } else { self.plenty(nodes) }));
        self.held = self.held.min(self.running.saturating_add(idle));
        let (keeps, wants) = (self.held.max(self.running), waiting.saturating_sub(idle));
        self.flight = Some(TurnFlight { sent: now, asked: keeps.saturating_add(wants) });
        Some(TurnQuestion { key, running: self.running, keeps, wants, most: self.most, number })
    }

    /// Takes in an answer. Who waited is told by what is returned: first those that have their turn now, and then those
    /// for whom there is none.
    pub(super) fn told(&mut self, told: TurnsTold, now: Nanos) -> (Vec<WaitingTurn>, Vec<WaitingTurn>) {
        let Some(flight) = self.flight.take() else { return (Vec::new(), Vec::new()) };
        (self.held, self.others, self.valid) = (told.held, told.others, flight.sent.saturating_add(VALID));
        self.unsure = false;
        let full = told.held < flight.asked;
        self.full_at = if full { now } else { 0 };
        self.waiters.retain(|waiter| !waiter.is_closed());
        let room = usize::try_from(self.idle()).unwrap_or(usize::MAX).min(self.waiters.len());
        // In their order.
        let begun: Vec<_> = self.waiters.drain(..room).collect();
        begun.iter().for_each(|_| self.count_in(now));
        let refused = if full { std::mem::take(&mut self.waiters) } else { Vec::new() };
        (begun, refused)
    }

    /// The question under way was not answered; who waited for it.
    pub(super) fn unanswered(&mut self) -> Vec<WaitingTurn> {
        self.flight = None;
        (self.unsure, self.full_at) = (true, 0);
        std::mem::take(&mut self.waiters)
    }

    /// Whether more is idle than this node of so many should hold.
    pub(super) fn has_spare(&self, nodes: u32) -> bool {
        self.idle() > self.plenty(nodes)
    }

    /// Whether the store is to hear of it, who waits or not: what is held runs out, or lies idle, or may be known there
    /// otherwise.
    pub(super) fn is_due(&self, now: Nanos) -> bool {
        let runs_out = now.saturating_add(VALID / 2) >= self.valid;
        self.running > 0 && runs_out || self.idle() > 0 || self.unsure
    }

    /// Whether it is of no use any more.
    pub(super) fn is_over(&self, now: Nanos) -> bool {
        let known_there = now < self.valid && (self.held > 0 || self.unsure);
        self.running == 0 && self.waiters.is_empty() && self.flight.is_none() && !known_there
    }

    /// What is idle is not to be used any more.
    pub(super) fn retire(&mut self) {
        self.used_at = 0;
    }

    pub(super) fn is_asked(&self) -> bool {
        self.flight.is_some()
    }
}
