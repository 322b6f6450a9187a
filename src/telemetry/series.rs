//! What the last minutes were like, second by second, for the page: kept by the server, so that a page that is opened
//! at 3 a.m. shows the quarter of an hour before.
//!
//! Nothing is counted twice: once a second the counters of the metrics are read, and what they have gained is a sample.
//! Latencies come from the buckets of the histogram, so they are as exact as those: within a bucket requests are taken
//! to be spread evenly.
//!
//! Of backends the moments are kept when their states changed, as far as a look each second sees them. All of it is
//! bounded: [`KEPT`] samples of some 80 bytes, [`MOST_BACKENDS`] backends with [`MOST_CHANGES`] changes each.
//!
//! Refused: a ring for each backend and each client, which nobody bounds; keeping it in the page, where a reload of the
//! page loses it and two operators see different things.

use std::collections::{HashMap, VecDeque};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::watch;

use crate::upstream::{BackendState, DURATIONS};

/// How many samples are kept: fifteen minutes of them, and the one before.
pub const KEPT: usize = 15 * 60 + 1;
/// Of how many backends changes are kept.
const MOST_BACKENDS: usize = 1_024;
/// How many changes of one backend are kept.
pub const MOST_CHANGES: usize = 64;

/// How many kinds of answers are told apart.
const CLASSES: usize = AnswerClass::ALL.len();

/// What became of a request.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum AnswerClass {
    /// It got an answer below 300.
    Done,
    /// One of 300 to 399.
    Redirected,
    /// One of 400 to 499 that is not 429.
    Refused,
    /// 429.
    Limited,
    /// One of 500 or more.
    Failed,
    /// None.
    Unanswered,
}

impl AnswerClass {
    /// All of them.
    const ALL: [AnswerClass; 6] = [
        AnswerClass::Done,
        AnswerClass::Redirected,
        AnswerClass::Refused,
        AnswerClass::Limited,
        AnswerClass::Failed,
        AnswerClass::Unanswered,
    ];

    /// The one of a status; 0 is no answer.
    fn of(status: u16) -> Self {
        match status {
            0 => AnswerClass::Unanswered,
            1..300 => AnswerClass::Done,
            300..400 => AnswerClass::Redirected,
            429 => AnswerClass::Limited,
            400..500 => AnswerClass::Refused,
            _ => AnswerClass::Failed,
        }
    }
}

/// Latencies of the requests that ended in one second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Latency {
    /// Half of them took at most so long.
    pub p50: Duration,
    /// 95 of 100.
    pub p95: Duration,
    /// 99 of 100.
    pub p99: Duration,
}

/// One second.
#[derive(Clone, Copy, Debug, Default, PartialEq)]
pub struct Sample {
    /// Which one ended with it, since the Unix epoch.
    pub at: u64,
    /// The requests that ended in it: those with an answer below 300, of 300 to 399, of 400 to 499 but for 429, those
    /// with 429, with 500 or more, and those without an answer.
    pub answers: [u64; CLASSES],
    /// How long they took; none when there were none.
    pub latency: Option<Latency>,
    /// The open connections from clients.
    pub connections: usize,
    /// The requests in flight.
    pub in_flight: usize,
    /// The buckets in use.
    pub buckets: usize,
}

/// What was counted up to a moment, and how it stands then.
#[derive(Clone, Debug, Default)]
pub struct CountedSoFar {
    /// The requests by status, in whatever order, a status as often as it comes.
    pub statuses: Vec<(u16, u64)>,
    /// The requests by duration: one for each of [`DURATIONS`], and one for what is above.
    pub durations: [u64; DURATIONS.len() + 1],
    /// The open connections from clients.
    pub connections: usize,
    /// The buckets in use.
    pub buckets: usize,
    /// The backends: their pools, their addresses, and how they stand.
    pub backends: Vec<(String, String, BackendState)>,
}

/// How a backend stood of late.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct BackendStates {
    /// Its pool.
    pub upstream: String,
    /// Where it is.
    pub address: String,
    /// From which second on it was in which state, the earliest first.
    pub states: Vec<(u64, BackendState)>,
}

/// The samples of the last minutes. Any thread may ask at any time.
#[derive(Debug)]
pub struct Series {
    kept: Mutex<KeptSamples>,
    latest: watch::Sender<Option<Sample>>,
}

#[derive(Debug, Default)]
struct KeptSamples {
    samples: VecDeque<Sample>,
    answers: [u64; CLASSES],
    durations: [u64; DURATIONS.len() + 1],
    /// Whether anything was counted yet.
    begun: bool,
    /// The last second of the process before, if it handed on any.
    inherited: u64,
    backends: HashMap<(String, String), VecDeque<(u64, BackendState)>>,
}

impl Default for Series {
    fn default() -> Self {
        Series { kept: Mutex::default(), latest: watch::Sender::new(None) }
    }
}

impl Series {
    /// Takes the sample of the second that ended at `at`, since the Unix epoch. To be called once a second.
    pub fn take(&self, at: u64, counted: CountedSoFar, in_flight: usize) {
        let CountedSoFar { statuses, durations, connections, buckets, backends } = counted;
        let mut answers = [0; CLASSES];
        for (status, count) in statuses {
            answers[AnswerClass::of(status) as usize] += count;
        }
        let mut kept = self.kept.lock();
        kept.follow(at, backends);
        // Pools go with a reload, and what they have counted with them.
        let gained = |now: u64, before: u64| now.saturating_sub(before);
        let sample = Sample {
            at,
            answers: std::array::from_fn(|class| gained(answers[class], kept.answers[class])),
            latency: latency(&std::array::from_fn(|bucket| gained(durations[bucket], kept.durations[bucket]))),
            connections,
            in_flight,
            buckets,
        };
        (kept.answers, kept.durations) = (answers, durations);
        // The first look says where the counters begin.
        if std::mem::replace(&mut kept.begun, true) {
            if kept.samples.len() == KEPT {
                kept.samples.pop_front();
            }
            kept.samples.push_back(sample);
            drop(kept);
            self.latest.send_replace(Some(sample));
        }
    }

    /// The samples after the second `after`, the earliest first.
    pub fn since(&self, after: u64) -> Vec<Sample> {
        self.kept.lock().samples.iter().filter(|sample| sample.at > after).copied().collect()
    }

    /// How backends stood, the pools and addresses in their order.
    pub fn backends(&self) -> Vec<BackendStates> {
        let kept = self.kept.lock();
        let backends = kept.backends.iter().map(|((upstream, address), states)| BackendStates {
            upstream: upstream.clone(),
            address: address.clone(),
            states: states.iter().copied().collect(),
        });
        let mut backends: Vec<_> = backends.collect();
        backends.sort_by(|a, b| (&a.upstream, &a.address).cmp(&(&b.upstream, &b.address)));
        backends
    }

    /// Puts the samples of the process before in front of those from here: up to their last one, that one served.
    pub fn inherit(&self, before: Vec<Sample>) {
        let mut kept = self.kept.lock();
        let last = before.last().map_or(0, |sample| sample.at);
        kept.inherited = last;
        let own = std::mem::take(&mut kept.samples);
        kept.samples = before.into_iter().chain(own.into_iter().filter(|sample| sample.at > last)).collect();
        let more = kept.samples.len().saturating_sub(KEPT);
        kept.samples.drain(..more);
    }

    /// Puts how backends stood in the process before in front of how they stand here. After [`inherit`](Series::inherit).
    pub fn inherit_backends(&self, before: Vec<BackendStates>) {
        let mut kept = self.kept.lock();
        let begin = kept.inherited.saturating_add(1);
        for BackendStates { upstream, address, states } in before {
            let (begun, place) = (kept.begun, (upstream, address));
            // Once looked at here, one that is not there is gone.
            let Some(own) = kept.backends.remove(&place).or_else(|| (!begun).then(VecDeque::new)) else { continue };
            let mut states = VecDeque::from(states);
            for (at, state) in own {
                // Until then that one served, however they stood here.
                let at = at.max(begin);
                if states.back().is_some_and(|(since, _)| *since >= at) {
                    states.pop_back();
                }
                if states.back().is_none_or(|(_, known)| *known != state) {
                    states.push_back((at, state));
                }
            }
            let more = states.len().saturating_sub(MOST_CHANGES);
            states.drain(..more);
            kept.backends.insert(place, states);
        }
    }

    /// Tells of each sample from now on.
    pub fn follow(&self) -> watch::Receiver<Option<Sample>> {
        self.latest.subscribe()
    }
}

impl KeptSamples {
    /// Notes what has changed among backends at the second `at`.
    fn follow(&mut self, at: u64, backends: Vec<(String, String, BackendState)>) {
        let mut before = std::mem::take(&mut self.backends);
        for (upstream, address, state) in backends.into_iter().take(MOST_BACKENDS) {
            let place = (upstream, address);
            let mut states = before.remove(&place).unwrap_or_default();
            if states.back().is_none_or(|(_, known)| *known != state) {
                states.push_back((at, state));
            }
            // Of what is older than the samples, only the last one still says something.
            let begin = at.saturating_sub(KEPT as u64);
            while states.len() > MOST_CHANGES || states.get(1).is_some_and(|(since, _)| *since <= begin) {
                states.pop_front();
            }
            self.backends.insert(place, states);
        }
    }
}

/// The latencies of requests that fell into these buckets.
fn latency(buckets: &[u64; DURATIONS.len() + 1]) -> Option<Latency> {
    let all: u64 = buckets.iter().sum();
    let quantile = |part: f64| {
        let wanted = part * all as f64;
        let mut below = 0.0;
        let mut from = Duration::ZERO;
        for (count, end) in buckets.iter().zip(DURATIONS) {
            let count = *count as f64;
            if count > 0.0 && below + count >= wanted {
                return from + (end - from).mul_f64(((wanted - below) / count).clamp(0.0, 1.0));
            }
            below += count;
            from = end;
        }
        // Of what is above all buckets no more is known.
        from
    };
    (all > 0).then(|| Latency { p50: quantile(0.5), p95: quantile(0.95), p99: quantile(0.99) })
}

#[cfg(test)]
mod tests {
    use super::*;

    fn counted(statuses: &[(u16, u64)]) -> CountedSoFar {
        let mut durations = [0; DURATIONS.len() + 1];
        durations[0] = statuses.iter().map(|(_, count)| count).sum();
        CountedSoFar { statuses: statuses.to_vec(), durations, connections: 3, buckets: 4, backends: Vec::new() }
    }

    #[test]
    fn a_sample_is_what_the_counters_have_gained() {
        let series = Series::default();
        let mut followed = series.follow();
        series.take(100, counted(&[(200, 5), (429, 1)]), 1);
        assert_eq!(series.since(0), []);
        series.take(101, counted(&[(200, 7), (204, 1), (301, 1), (404, 2), (429, 4), (503, 1), (0, 1)]), 9);
        let [sample] = series.since(0)[..] else { panic!("{:?}", series.since(0)) };
        assert_eq!((sample.at, sample.answers, sample.in_flight), (101, [3, 1, 2, 3, 1, 1], 9));
        assert_eq!((sample.connections, sample.buckets), (3, 4));
        assert_eq!(*followed.borrow_and_update(), Some(sample));
        // A pool went with what it has counted.
        series.take(102, counted(&[(200, 1)]), 0);
        let latest = series.since(101);
        assert_eq!((latest.len(), latest[0].answers, latest[0].latency), (1, [0; 6], None));
    }

    #[test]
    fn only_so_many_are_kept() {
        let series = Series::default();
        (0..2_000).for_each(|second| series.take(second, counted(&[(200, second)]), 0));
        let all = series.since(0);
        assert_eq!((all.len(), all[0].at, all[KEPT - 1].at), (KEPT, 2_000 - KEPT as u64, 1_999));
        assert!(all.iter().all(|sample| sample.answers[0] == 1));
    }

    #[test]
    fn what_the_process_before_has_seen_goes_before() {
        let backend = |at: u64, state| {
            let backends = vec![("app".to_owned(), "127.0.0.1:1".to_owned(), state)];
            (at, CountedSoFar { backends, ..counted(&[(200, at)]) })
        };
        let take = |series: &Series, (at, counted)| series.take(at, counted, 0);
        let (before, after) = (Series::default(), Series::default());
        (0..=1_000).for_each(|at| take(&before, backend(at, BackendState::Up)));
        take(&after, backend(998, BackendState::Unknown));
        take(&after, backend(999, BackendState::Unknown));
        take(&after, backend(1_001, BackendState::Down));
        after.inherit(before.since(0));
        after.inherit_backends(before.backends());
        let all = after.since(0);
        assert_eq!((all.len(), all[0].at, all[KEPT - 2], all[KEPT - 1].at), (KEPT, 101, before.since(999)[0], 1_001));
        let [BackendStates { states, .. }] = &after.backends()[..] else { panic!() };
        assert_eq!(states[..], [(0, BackendState::Up), (1_001, BackendState::Down)]);
        let none = Series::default();
        take(&none, (0, counted(&[])));
        none.inherit_backends(before.backends());
        assert_eq!(none.backends(), [], "it is no backend any more");
    }

    #[test]
    fn latencies_lie_within_their_buckets() {
        let mut buckets = [0; DURATIONS.len() + 1];
        assert_eq!(latency(&buckets), None);
        (buckets[0], buckets[3]) = (98, 2);
        let Latency { p50, p95, p99 } = latency(&buckets).unwrap();
        let half = DURATIONS[0].mul_f64(50.0 / 98.0);
        assert!(p50.abs_diff(half) < Duration::from_nanos(10) && p95 < DURATIONS[0], "{p50:?} {p95:?}");
        assert_eq!(p99, DURATIONS[2] + (DURATIONS[3] - DURATIONS[2]) / 2);
        let mut above = [0; DURATIONS.len() + 1];
        above[DURATIONS.len()] = 1;
        assert_eq!(latency(&above).unwrap().p50, DURATIONS[DURATIONS.len() - 1]);
    }

    #[test]
    fn of_backends_the_changes_are_kept() {
        let series = Series::default();
        let look = |at: u64, state: Option<BackendState>| {
            let backends = state.map(|state| ("app".to_owned(), "127.0.0.1:1".to_owned(), state));
            series.take(at, CountedSoFar { backends: backends.into_iter().collect(), ..CountedSoFar::default() }, 0);
        };
        look(10, Some(BackendState::Unknown));
        look(11, Some(BackendState::Up));
        look(12, Some(BackendState::Up));
        look(13, Some(BackendState::Down));
        let [BackendStates { states, .. }] = &series.backends()[..] else { panic!() };
        assert_eq!(states[..], [(10, BackendState::Unknown), (11, BackendState::Up), (13, BackendState::Down)]);
        look(12 + KEPT as u64, Some(BackendState::Down));
        assert_eq!(series.backends()[0].states, [(11, BackendState::Up), (13, BackendState::Down)]);
        (5_000..6_000).for_each(|at| look(at, Some([BackendState::Up, BackendState::Down][at as usize % 2])));
        assert_eq!(series.backends()[0].states.len(), MOST_CHANGES);
        look(7_000, None);
        assert_eq!(series.backends(), []);
    }
}
