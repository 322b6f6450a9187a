//! The metrics, as Prometheus reads them.
//!
//! The problem: every request changes a dozen counters, and nobody looks at them more often than every few seconds.
//!
//! The rule: what is counted lives where it is counted, as plain atomics that are held and never looked up (a pool has
//! its [`Traffic`](crate::upstream::Traffic), a backend its counters, the proxy its [`Tally`]). They are gathered when
//! somebody asks for the text. No label comes from a request, so callers cannot make series: neither clients nor paths,
//! and statuses are numbers of three digits.
//!
//! Refused: the library's own families, which find their counter by its labels, under a lock, for every request.

mod family;
mod gather;
mod policies;
mod shared;
mod tally;

use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, Ordering};

use prometheus_client::collector::Collector;
use prometheus_client::encoding::DescriptorEncoder;
use prometheus_client::encoding::text::{encode_eof, encode_registry};
use prometheus_client::registry::Registry;

use super::series::CountedSoFar;
use super::{AccessLog, EventLog, ShowFleet, SpanQueue};
use crate::limit::Gauges;
use crate::tls::TlsListeners;
use crate::upstream::{DURATIONS, DurationExemplar, Pools, TrafficTotals};

pub use family::TextFormat;
use family::{Pen, with_exemplars};
pub use policies::{PolicyTally, PolicyVerdict};
pub use tally::{IntroductionFault, OpenConnection, SeatLimit, Tally, Verdict};

/// Where the metrics are gathered from.
pub struct MetricsParts {
    /// The pools.
    pub pools: Arc<Pools>,
    /// What the proxy counts beside them.
    pub tally: Arc<Tally>,
    /// The access log.
    pub access_log: AccessLog,
    /// The spans of traces.
    pub spans: Arc<SpanQueue>,
    /// The event log of the process; none when the process is not all of one server.
    pub events: Option<EventLog>,
    /// The buckets.
    pub limiter: Arc<dyn Gauges>,
    /// The TLS of the listeners that have it.
    pub tls: Arc<TlsListeners>,
    /// How often the store could not be written.
    pub persist_errors: Box<dyn Fn() -> u64 + Send + Sync>,
    /// The fleet.
    pub fleet: ShowFleet,
}

/// The metrics of one server. Any thread may ask at any time.
#[derive(Debug)]
pub struct Metrics {
    sources: Arc<Sources>,
}

/// The requests since the start.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub struct Totals {
    /// All that ended.
    pub requests: u64,
    /// Those that took a token.
    pub allowed: u64,
    /// Those that were refused for want of one.
    pub limited: u64,
    /// Those of blocked clients.
    pub blocked: u64,
    /// Those of unlimited clients.
    pub unlimited: u64,
}

struct Sources {
    parts: MetricsParts,
    reloads: AtomicU64,
    failed_reloads: AtomicU64,
}

/// What is gathered for whoever asks in this format: the library's way to metrics that are held elsewhere.
#[derive(Debug)]
struct MetricsPage {
    sources: Arc<Sources>,
    format: TextFormat,
    traffic: Arc<[PoolTraffic]>,
}

/// The requests of a pool, or of none.
#[derive(Debug)]
struct PoolTraffic {
    upstream: String,
    totals: TrafficTotals,
    exemplars: [Option<DurationExemplar>; DURATIONS.len() + 1],
}

impl Collector for MetricsPage {
    fn encode(&self, encoder: DescriptorEncoder) -> fmt::Result {
        self.sources.write(&mut Pen { encoder, format: self.format }, &self.traffic)
    }
}

impl fmt::Debug for Sources {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Sources").finish_non_exhaustive()
    }
}

impl Metrics {
    /// Metrics gathered from these parts.
    pub fn new(parts: MetricsParts) -> Self {
        let sources = Arc::new(Sources { parts, reloads: AtomicU64::new(0), failed_reloads: AtomicU64::new(0) });
        Metrics { sources }
    }

    /// All metrics. Costs some microseconds for each pool and backend.
    pub fn text(&self, format: TextFormat) -> String {
        let (mut text, mut registry) = (String::new(), Registry::default());
        let (sources, traffic) = (Arc::clone(&self.sources), Arc::<[_]>::from(self.sources.by_pool()));
        registry.register_collector(Box::new(MetricsPage { sources, format, traffic: Arc::clone(&traffic) }));
        let written = encode_registry(&mut text, &registry).and_then(|()| match format {
            TextFormat::Prometheus => Ok(()),
            TextFormat::OpenMetrics => encode_eof(&mut text),
        });
        written.expect("a String takes everything that is written to it");
        match format {
            TextFormat::Prometheus => text,
            TextFormat::OpenMetrics => with_exemplars(&text, traffic.iter().flat_map(|pool| pool.exemplars)),
        }
    }

    /// Counts a reload of the configuration, one that took place or one that was refused.
    pub fn count_reload(&self, succeeded: bool) {
        let count = if succeeded { &self.sources.reloads } else { &self.sources.failed_reloads };
        count.fetch_add(1, Ordering::Relaxed);
    }

    /// The requests since the start.
    pub fn totals(&self) -> Totals {
        let MetricsParts { pools, tally, .. } = &self.sources.parts;
        Totals {
            requests: pools.requests() + tally.unrouted().requests(),
            allowed: tally.verdicts(Verdict::Allowed),
            limited: tally.verdicts(Verdict::Limited),
            blocked: tally.verdicts(Verdict::Blocked),
            unlimited: tally.verdicts(Verdict::Unlimited),
        }
    }

    /// What was counted so far, for a series of samples.
    pub fn counted(&self) -> CountedSoFar {
        let MetricsParts { pools, tally, limiter, .. } = &self.sources.parts;
        let all = pools.all();
        let mut counted =
            CountedSoFar { connections: tally.connections(), buckets: limiter.buckets(), ..CountedSoFar::default() };
        for traffic in std::iter::once(tally.unrouted()).chain(all.iter().map(|pool| pool.traffic())) {
            let totals = traffic.totals();
            counted.statuses.extend(totals.statuses);
            for (sum, count) in counted.durations.iter_mut().zip(totals.durations) {
                *sum += count;
            }
        }
        for pool in all.iter() {
            let backends = pool.backends().into_iter();
            let stands =
                backends.map(|backend| (pool.name().to_owned(), backend.address().to_string(), backend.state()));
            counted.backends.extend(stands);
        }
        counted
    }

    /// The open connections from clients.
    pub fn connections(&self) -> usize {
        self.sources.parts.tally.connections()
    }
}

#[cfg(test)]
mod tests;
