//! How many requests ended with which status, and how long they took.
//!
//! Counted once for each request, by whichever thread ends it, and read when somebody asks for the metrics. So the
//! counters are a table with a place for each status, found by its number: no map, no lock, no label that is looked up.
//!
//! Of the requests whose trace is written down each bucket of durations names the last one. Only these take a lock, and
//! where another has it they are not named.

use std::sync::atomic::{AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::sharded::Sharded;

/// The upper ends of the buckets of durations, themselves included; a last bucket takes what is above all of them. From
/// what a backend beside us answers to what a client gives up on.
pub const DURATIONS: [Duration; 15] = [
    Duration::from_micros(500),
    Duration::from_micros(1_000),
    Duration::from_micros(2_500),
    Duration::from_millis(5),
    Duration::from_millis(10),
    Duration::from_millis(25),
    Duration::from_millis(50),
    Duration::from_millis(100),
    Duration::from_millis(250),
    Duration::from_millis(500),
    Duration::from_secs(1),
    Duration::from_millis(2_500),
    Duration::from_secs(5),
    Duration::from_secs(10),
    Duration::from_secs(30),
];

/// How many buckets there are.
const BUCKETS: usize = DURATIONS.len() + 1;

/// The statuses that an answer can have: those of three digits. Backends answer some that no RFC knows.
const STATUSES: std::ops::RangeInclusive<u16> = 100..=999;

/// Requests by status and by duration. Any thread may record at any time; 7 KiB for each core, up to 16 of them.
#[derive(Debug, Default)]
pub struct Traffic {
    shards: Sharded<Shard>,
    exemplars: [Mutex<Option<DurationExemplar>>; BUCKETS],
}

/// A request that stands for others that took about as long.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct DurationExemplar {
    /// The number that its trace has.
    pub trace: u128,
    /// How long it took.
    pub duration: Duration,
    /// When it ended.
    pub end: SystemTime,
}

#[derive(Debug)]
struct Shard {
    /// First the requests without an answer, then each status.
    statuses: [AtomicU64; 901],
    durations: [AtomicU64; BUCKETS],
    /// The sum of the durations. In nanoseconds, a hundred thousand WebSockets would overflow it in two days.
    micros: AtomicU64,
}

impl Default for Shard {
    fn default() -> Self {
        Shard {
            statuses: [const { AtomicU64::new(0) }; 901],
            durations: [const { AtomicU64::new(0) }; BUCKETS],
            micros: AtomicU64::new(0),
        }
    }
}

/// What a [`Traffic`] has counted.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct TrafficTotals {
    /// The requests by status, those that occurred, in order; 0 stands for no answer.
    pub statuses: Vec<(u16, u64)>,
    /// The requests by duration, one number for each of [`DURATIONS`] and one for what is above.
    pub durations: [u64; BUCKETS],
    /// The sum of their durations, to the microsecond.
    pub time: Duration,
}

impl Traffic {
    /// Counts a request that ended with `status`, 0 when it got no answer, after `duration`.
    pub fn record(&self, status: u16, duration: Duration) {
        let shard = self.shards.mine();
        let place = if STATUSES.contains(&status) { usize::from(status - STATUSES.start()) + 1 } else { 0 };
        let micros = u64::try_from(duration.as_nanos().saturating_add(500) / 1_000).unwrap_or(u64::MAX);
        shard.statuses[place].fetch_add(1, Ordering::Relaxed);
        shard.durations[bucket(duration)].fetch_add(1, Ordering::Relaxed);
        shard.micros.fetch_add(micros, Ordering::Relaxed);
    }

    /// Names a request in its bucket, in place of the one before; or not, while another is being named there. Never waits.
    pub fn name_exemplar(&self, exemplar: DurationExemplar) {
        if let Some(mut place) = self.exemplars[bucket(exemplar.duration)].try_lock() {
            *place = Some(exemplar);
        }
    }

    /// The request that is named in each bucket.
    pub fn exemplars(&self) -> [Option<DurationExemplar>; BUCKETS] {
        self.exemplars.each_ref().map(|place| *place.lock())
    }

    /// How many requests there were.
    pub fn requests(&self) -> u64 {
        let shards = self.shards.iter();
        shards.flat_map(|shard| &shard.durations).map(|count| count.load(Ordering::Relaxed)).sum()
    }

    /// All that was counted. A request that ends meanwhile may be in one part of it and not yet in another.
    pub fn totals(&self) -> TrafficTotals {
        let mut statuses = [0_u64; 901];
        let mut totals = TrafficTotals::default();
        let mut micros = 0_u64;
        for shard in self.shards.iter() {
            add(&mut statuses, &shard.statuses);
            add(&mut totals.durations, &shard.durations);
            micros = micros.wrapping_add(shard.micros.load(Ordering::Relaxed));
        }
        let named = std::iter::once(0).chain(STATUSES).zip(statuses);
        totals.statuses = named.filter(|(_, count)| *count > 0).collect();
        totals.time = Duration::from_micros(micros);
        totals
    }
}

fn bucket(duration: Duration) -> usize {
    DURATIONS.iter().position(|end| duration <= *end).unwrap_or(DURATIONS.len())
}

fn add(sums: &mut [u64], counters: &[AtomicU64]) {
    for (sum, counter) in sums.iter_mut().zip(counters) {
        *sum += counter.load(Ordering::Relaxed);
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn each_status_has_its_place_and_the_rest_is_no_answer() {
        let traffic = Traffic::default();
        for status in [200, 100, 999, 599, 200, 0, 99, 1000, u16::MAX] {
            traffic.record(status, Duration::ZERO);
        }
        assert_eq!(traffic.totals().statuses, [(0, 4), (100, 1), (200, 2), (599, 1), (999, 1)]);
        assert_eq!(traffic.requests(), 9);
    }

    #[test]
    fn a_bucket_holds_its_upper_end_and_nothing_above() {
        let traffic = Traffic::default();
        let nanosecond = Duration::from_nanos(1);
        for end in DURATIONS {
            traffic.record(200, end);
            traffic.record(200, end + nanosecond);
        }
        let mut expected = [2; BUCKETS];
        (expected[0], expected[DURATIONS.len()]) = (1, 1);
        assert_eq!(traffic.totals().durations, expected);
    }

    #[test]
    fn each_bucket_names_the_last_request_that_is_told_of() {
        let traffic = Traffic::default();
        let request = |trace, duration| DurationExemplar { trace, duration, end: SystemTime::UNIX_EPOCH };
        let (soon, late, last) = (DURATIONS[0], DURATIONS[14] + Duration::from_nanos(1), DURATIONS[14]);
        for (trace, duration) in [(1, soon), (2, late), (3, Duration::ZERO), (4, last)] {
            traffic.name_exemplar(request(trace, duration));
        }
        let mut expected = [None; BUCKETS];
        (expected[0], expected[14]) = (Some(request(3, Duration::ZERO)), Some(request(4, last)));
        expected[15] = Some(request(2, late));
        assert_eq!(traffic.exemplars(), expected);
        let held = traffic.exemplars[0].lock();
        traffic.name_exemplar(request(5, soon));
        drop(held);
        assert_eq!(traffic.exemplars(), expected, "nobody waits for the place");
        assert_eq!(traffic.requests(), 0);
    }

    #[test]
    fn the_sum_is_exact_to_the_microsecond_and_rounds_evenly() {
        let traffic = Traffic::default();
        (0..1000).for_each(|nanos| traffic.record(200, Duration::from_nanos(nanos)));
        assert_eq!(traffic.totals().time, Duration::from_micros(500));
        traffic.record(200, Duration::from_secs(86_400));
        assert_eq!(traffic.totals().time, Duration::from_secs(86_400) + Duration::from_micros(500));
    }

    #[test]
    fn nothing_is_lost_among_threads() {
        let traffic = Traffic::default();
        std::thread::scope(|scope| {
            for status in 200..216 {
                let traffic = &traffic;
                scope.spawn(move || (0..500).for_each(|_| traffic.record(status, Duration::from_millis(2))));
            }
        });
        let totals = traffic.totals();
        assert_eq!(totals.statuses, (200..216).map(|status| (status, 500)).collect::<Vec<_>>());
        assert_eq!((totals.durations[2], traffic.requests(), totals.time), (8000, 8000, Duration::from_secs(16)));
    }
}
