//! What the proxy counts that belongs to no pool.

use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use crossbeam_utils::CachePadded;

use super::policies::{PolicyTallies, PolicyTally};
use crate::telemetry::talkers::{self, Talk, Talker, Talkers, TalkersBy, ThreadTalk};
use crate::upstream::{Sharded, Traffic};

/// What the limiter made of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Verdict {
    /// It took a token.
    Allowed,
    /// There was no token.
    Limited,
    /// Its client is blocked.
    Blocked,
    /// Its client is not limited.
    Unlimited,
}

impl Verdict {
    /// All of them.
    pub const ALL: [Verdict; 4] = [Verdict::Allowed, Verdict::Limited, Verdict::Blocked, Verdict::Unlimited];

    /// As the metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            Verdict::Allowed => "allowed",
            Verdict::Limited => "limited",
            Verdict::Blocked => "blocked",
            Verdict::Unlimited => "unlimited",
        }
    }
}

/// Which bound on connections there was no seat within.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum SeatLimit {
    /// That on all of them.
    All,
    /// That on those of one address.
    Address,
}

impl SeatLimit {
    /// All of them.
    pub const ALL: [SeatLimit; 2] = [SeatLimit::All, SeatLimit::Address];

    /// The key that says how many there may be.
    pub fn key(self) -> &'static str {
        match self {
            SeatLimit::All => "limits.max_connections",
            SeatLimit::Address => "limits.max_connections_per_address",
        }
    }

    /// As the metrics name it.
    pub fn name(self) -> &'static str {
        self.key().trim_start_matches("limits.")
    }
}

/// Why a connection was closed on whose listener a header of the PROXY protocol is expected.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum IntroductionFault {
    /// It comes from nobody who may send one.
    Untrusted,
    /// It began with something else.
    Missing,
    /// It sent another version than the one that is expected.
    Version,
    /// It sent one that makes no sense, or ended within it.
    Malformed,
    /// It did not send a whole one in time.
    Timeout,
}

impl IntroductionFault {
    /// All of them.
    pub const ALL: [IntroductionFault; 5] = [
        IntroductionFault::Untrusted,
        IntroductionFault::Missing,
        IntroductionFault::Version,
        IntroductionFault::Malformed,
        IntroductionFault::Timeout,
    ];

    /// As the metrics name it.
    pub fn name(self) -> &'static str {
        match self {
            IntroductionFault::Untrusted => "untrusted",
            IntroductionFault::Missing => "missing",
            IntroductionFault::Version => "version",
            IntroductionFault::Malformed => "malformed",
            IntroductionFault::Timeout => "timeout",
        }
    }

    /// What it is, in words.
    pub fn reason(self) -> &'static str {
        match self {
            IntroductionFault::Untrusted => "they come from none of identity.trusted_proxies",
            IntroductionFault::Missing => "they do not begin with a header of the PROXY protocol",
            IntroductionFault::Version => "their header is of the version that is not expected",
            IntroductionFault::Malformed => "their header is malformed",
            IntroductionFault::Timeout => "their header does not come within limits.header_timeout",
        }
    }
}

/// How many kinds of requests there are: those of [`Verdict::ALL`], and those on which the limiter was not asked.
const KINDS: usize = 5;

/// What one thread has counted of verdicts.
#[derive(Debug, Default)]
struct Decided {
    counts: [AtomicU64; KINDS],
    /// What the counts were when the present second began.
    marks: [AtomicU64; KINDS],
    heard: ThreadTalk,
}

/// What the proxy counts that belongs to no pool. One for all listeners of a server.
#[derive(Debug, Default)]
pub struct Tally {
    /// In the order of [`Verdict::ALL`], and those without one.
    verdicts: Sharded<Decided>,
    talkers: Talkers,
    unrouted: Traffic,
    /// Written once for a connection, not for a request.
    connections: CachePadded<AtomicUsize>,
    /// In the order of [`SeatLimit::ALL`].
    refused: [AtomicU64; 2],
    made_room: [AtomicU64; 2],
    malformed_targets: AtomicU64,
    /// In the order of [`IntroductionFault::ALL`].
    strangers: [AtomicU64; 5],
    policies: PolicyTallies,
    /// Those that a candidate would have refused, and those that it would have let in.
    tried: [AtomicU64; 2],
    too_many_at_once: AtomicU64,
}

impl Tally {
    /// Counts a request on which the limiter decided, or was not asked. Some are told of who `caller` is.
    #[inline]
    pub fn decided(&self, verdict: Option<Verdict>, caller: impl FnOnce() -> Option<Talker>) {
        let (mine, kind) = (self.verdicts.mine(), verdict.map_or(KINDS - 1, |verdict| verdict as usize));
        let count = mine.counts[kind].fetch_add(1, Ordering::Relaxed);
        if let Some(weight) = talkers::weight(count, mine.marks[kind].load(Ordering::Relaxed))
            && let Some(caller) = caller()
        {
            mine.heard.add(caller, weight, verdict == Some(Verdict::Limited));
        }
    }

    /// How many requests got this verdict.
    pub fn verdicts(&self, verdict: Verdict) -> u64 {
        self.verdicts.iter().map(|decided| decided.counts[verdict as usize].load(Ordering::Relaxed)).sum()
    }

    /// Puts together whose requests they were, up to the second `now`. To be called once a second.
    pub fn collect_talkers(&self, now: u64) {
        for decided in self.verdicts.iter() {
            for (mark, count) in decided.marks.iter().zip(&decided.counts) {
                mark.store(count.load(Ordering::Relaxed), Ordering::Relaxed);
            }
        }
        self.talkers.collect(self.verdicts.iter().map(|decided| &decided.heard), now);
    }

    /// Who has asked most of late, at most `limit`; and over how many seconds up to `now` that is counted.
    pub fn top_talkers(&self, by: TalkersBy, limit: usize, now: SystemTime) -> (Vec<Talk>, u64) {
        let now = now.duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default().as_secs();
        let (talks, since) = self.talkers.top(by, limit);
        (talks, since.map_or(0, |since| now.saturating_sub(since) + 1))
    }

    /// Counts of the policies with these names, from now on; what is counted of each, in their order. One that stays
    /// goes on counting.
    pub fn set_policies<'n>(&self, names: impl Iterator<Item = &'n str>) -> Vec<Arc<PolicyTally>> {
        self.policies.set(names)
    }

    /// What is counted of each policy.
    pub fn policies(&self) -> Vec<Arc<PolicyTally>> {
        self.policies.all()
    }

    /// The requests that were answered without a pool: refused before they were routed, or not even requests. Whoever
    /// ends one records it here.
    pub fn unrouted(&self) -> &Traffic {
        &self.unrouted
    }

    /// Counts a request in HTTP/2 that was reset before anybody saw it, as its target is no URI.
    pub fn malformed_target(&self) {
        self.malformed_targets.fetch_add(1, Ordering::Relaxed);
    }

    /// How many there were.
    pub fn malformed_targets(&self) -> u64 {
        self.malformed_targets.load(Ordering::Relaxed)
    }

    /// Counts a connection from a client until the guard is dropped.
    pub fn connection(self: &Arc<Self>) -> OpenConnection {
        self.connections.fetch_add(1, Ordering::Relaxed);
        OpenConnection(Arc::clone(self))
    }

    /// Counts a connection for which there was no seat within `limit`.
    pub fn refused(&self, limit: SeatLimit) {
        self.refused[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many these are.
    pub fn refusals(&self, limit: SeatLimit) -> u64 {
        self.refused[limit as usize].load(Ordering::Relaxed)
    }

    /// Counts a silent connection that was closed for a new one, within `limit`.
    pub fn made_room(&self, limit: SeatLimit) {
        self.made_room[limit as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many these are.
    pub fn closed(&self, limit: SeatLimit) -> u64 {
        self.made_room[limit as usize].load(Ordering::Relaxed)
    }

    /// Counts a connection that was closed for want of a header of the PROXY protocol.
    pub fn not_introduced(&self, fault: IntroductionFault) {
        self.strangers[fault as usize].fetch_add(1, Ordering::Relaxed);
    }

    /// How many these are.
    pub fn strangers(&self, fault: IntroductionFault) -> u64 {
        self.strangers[fault as usize].load(Ordering::Relaxed)
    }

    /// Counts a request of a client that is tried with another quota, which would let it in or not.
    pub fn tried(&self, goes: bool) {
        self.tried[usize::from(goes)].fetch_add(1, Ordering::Relaxed);
    }

    /// How many these are.
    pub fn trials(&self, goes: bool) -> u64 {
        self.tried[usize::from(goes)].load(Ordering::Relaxed)
    }

    /// Counts a request that was refused since too many of its caller's ran.
    pub fn too_many_at_once(&self) {
        self.too_many_at_once.fetch_add(1, Ordering::Relaxed);
    }

    /// How many these are.
    pub fn refused_at_once(&self) -> u64 {
        self.too_many_at_once.load(Ordering::Relaxed)
    }

    /// The open connections from clients.
    pub fn connections(&self) -> usize {
        self.connections.load(Ordering::Relaxed)
    }
}

/// One connection's part in the count.
#[derive(Debug)]
#[must_use = "the connection counts as closed when this is dropped"]
pub struct OpenConnection(Arc<Tally>);

impl Drop for OpenConnection {
    fn drop(&mut self) {
        self.0.connections.fetch_sub(1, Ordering::Relaxed);
    }
}
