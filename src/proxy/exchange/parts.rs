//! What a proxy is made of.

use std::sync::Arc;

use arc_swap::ArcSwap;

use crate::client::{Directory, Recorder};
use crate::clock::{Clock, Timeline};
use crate::limit::{CallerTurns, KeyMaker, Limiter};
use crate::proxy::exchange::untaken::UntakenAnswers;
use crate::proxy::gate::rules::Rules;
use crate::telemetry::{AccessLog, LatestRefusals, Tally};
use crate::tls::Challenges;
use crate::upstream::Transport;

/// What a proxy is made of.
pub struct ProxyParts {
    /// What the configuration says of requests; swapped whole by a reload. A request goes by one of them from its start
    /// to its end.
    pub rules: Arc<ArcSwap<Rules>>,
    /// Who callers may be; swapped whole when clients change.
    pub directory: Arc<ArcSwap<Directory>>,
    /// Their buckets.
    pub limiter: Arc<dyn Limiter>,
    /// How many of their requests run.
    pub turns: Arc<CallerTurns>,
    /// What is recorded of clients.
    pub recorder: Arc<Recorder>,
    /// What makes the keys of buckets.
    pub keys: Arc<KeyMaker>,
    /// Where each request gets its line.
    pub access_log: AccessLog,
    /// Where the latest refusals are kept.
    pub decisions: Arc<LatestRefusals>,
    /// Where requests and connections are counted that no pool counts.
    pub tally: Arc<Tally>,
    /// How backends are reached.
    pub transport: Arc<Transport>,
    /// What of answers lies here because clients do not take it.
    pub untaken: UntakenAnswers,
    /// What certificate authorities ask.
    pub challenges: Arc<Challenges>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The limiter's time; the same one wherever the limiter is asked.
    pub timeline: Timeline,
}
