//! What is told of the fleet: by `/fleet` and `/status` for people, by the metrics for machines.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

/// Shows the fleet as this node sees it now. Asked seldom; must not wait.
pub type ShowFleet = Arc<dyn Fn() -> FleetView + Send + Sync>;

/// How a node stands to its fleet.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum FleetState {
    /// It has none.
    #[default]
    Alone,
    /// It shares with the others.
    Joined,
    /// The store is away, or this node stands apart.
    Unreachable,
}

impl FleetState {
    /// As the API and logs have it.
    pub fn name(self) -> &'static str {
        match self {
            FleetState::Alone => "alone",
            FleetState::Joined => "joined",
            FleetState::Unreachable => "unreachable",
        }
    }
}

/// The fleet as this node sees it. The default is a node without one.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetView {
    /// How this node stands to it.
    pub state: FleetState,
    /// Since when; none where there is no fleet.
    pub since: Option<SystemTime>,
    /// Why the store is away, or what it refuses, in words.
    pub reason: Option<String>,
    /// This node's name.
    pub node: Option<String>,
    /// The nodes that there are, this one among them; none where there is no fleet.
    pub nodes: Vec<FleetNode>,
    /// The store.
    pub store: FleetStore,
    /// Leases since the start, by kind: `asked` (waited for), `ahead`, `returned`, `late` (came after its request was
    /// judged without it).
    pub leases: LeaseCounts,
    /// Requests that waited for the store.
    pub waits: u64,
}

/// A node of the fleet, as the store saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct FleetNode {
    /// Its name.
    pub node: String,
    /// Its version of tollgate.
    pub version: String,
    /// When it said last that it is there, by the store's clock.
    pub seen: SystemTime,
    /// The tokens that it holds.
    pub leased: u64,
}

/// The store of the fleet.
#[derive(Clone, Debug, Default, PartialEq)]
pub struct FleetStore {
    /// Where it is, without a password.
    pub address: Option<String>,
    /// The primary that is spoken to, where sentinels name it.
    pub primary: Option<String>,
    /// What the last question that asked for nothing took.
    pub latency: Option<Duration>,
    /// Calls without an answer, or with an error for one, and tries to connect in vain.
    pub errors: u64,
    /// Keys that it threw away for want of memory; none while not known.
    pub evicted_keys: Option<u64>,
    /// What it does when its memory is full; none while not known.
    pub maxmemory_policy: Option<String>,
    /// Round trips that took at most so many seconds, but longer than the one before; infinity is the last one's.
    pub seconds: Vec<(f64, u64)>,
    /// What they took in all.
    pub seconds_sum: f64,
}

/// Leases since the start, by kind.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct LeaseCounts {
    /// Those that a request waited for.
    pub asked: u64,
    /// Those that were taken before anybody needed them.
    pub ahead: u64,
    /// Those that were given back, in whole or in part.
    pub returned: u64,
    /// Those that came after their request had been judged without them.
    pub late: u64,
}

impl LeaseCounts {
    /// Each kind with its count.
    pub(super) fn each(self) -> [(&'static str, u64); 4] {
        [("asked", self.asked), ("ahead", self.ahead), ("returned", self.returned), ("late", self.late)]
    }
}
