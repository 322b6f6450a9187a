//! What is shown, as the admin API tells it.

use std::collections::HashMap;
use std::time::Instant;

use http::Method;
use serde_json::Value;

use crate::cli::api::{AnswerPatience, ApiClient, EMPTY, plain};
use crate::cli::failure::Failure;
use crate::clock::{Clock, SystemClock};

/// The names of answers, as `/series` has them.
pub(super) const OUTCOMES: [&str; 6] = ["2xx", "3xx", "4xx", "429", "5xx", "none"];
/// The names of latencies there.
pub(super) const LATENCIES: [&str; 3] = ["p50", "p95", "p99"];

/// What happens now.
#[derive(Clone, Debug, Default)]
pub(super) struct Figures {
    /// The version of tollgate and its state.
    pub(super) process: String,
    /// The requests of the last second by what they were answered.
    pub(super) answers: [u64; 6],
    /// How many milliseconds they took; none without any.
    pub(super) latencies: [Option<f64>; 3],
    /// Open connections, requests in flight, buckets in use.
    pub(super) now: [u64; 3],
    /// All backends, pool by pool.
    pub(super) backends: Vec<BackendFigures>,
    /// Over how many seconds callers are counted.
    pub(super) seconds: u64,
    /// Who asks most, and who is refused most.
    pub(super) callers: [Vec<CallerFigures>; 2],
}

/// A backend.
#[derive(Clone, Debug, Default)]
pub(super) struct BackendFigures {
    pub(super) pool: String,
    pub(super) address: String,
    pub(super) state: String,
    pub(super) in_flight: u64,
    /// Requests a second; none until it was looked at twice.
    pub(super) rate: Option<f64>,
    pub(super) failures: u64,
}

/// A caller.
#[derive(Clone, Debug, Default)]
pub(super) struct CallerFigures {
    pub(super) name: String,
    pub(super) requests: u64,
    pub(super) limited: u64,
}

/// Figures, or why there are none.
pub(super) type FoundFigures = Result<Figures, String>;

/// The requests of each backend, by pool and address.
type CountsOfBackends = HashMap<(String, String), u64>;

/// Asks for figures, again and again.
pub(super) struct FiguresReader {
    api: ApiClient,
    /// When it was asked last, and how many requests each backend had had by then.
    before: Option<(Instant, CountsOfBackends)>,
}

impl FiguresReader {
    pub(super) fn new(api: ApiClient) -> Self {
        FiguresReader { api, before: None }
    }

    fn get(&self, path: &str) -> Result<Value, Failure> {
        Ok(self.api.json(AnswerPatience::Probe, Method::GET, path, EMPTY)?.1)
    }

    /// What happens now.
    ///
    /// # Errors
    /// As the API says, or why it does not answer.
    pub(super) fn read(&mut self) -> Result<Figures, Failure> {
        let status = self.get("/status")?;
        let series = self.get("/series?minutes=1")?;
        let last = |column: &Value| column.as_array().and_then(|all| all.last()).cloned().unwrap_or_default();
        let whole = |column: &Value| last(column).as_u64().unwrap_or_default();
        let pools = self.get("/upstreams")?;
        let now = SystemClock.now();
        let by = [self.get("/top?by=requests&limit=100")?, self.get("/top?by=limited&limit=100")?];
        let part = |name: &str| plain(status[name].as_str().unwrap_or_default());
        Ok(Figures {
            process: format!("tollgate {} {}", part("version"), part("state")),
            answers: OUTCOMES.map(|name| whole(&series["answers"][name])),
            latencies: LATENCIES.map(|name| last(&series["latency_ms"][name]).as_f64()),
            now: ["connections", "in_flight", "buckets"].map(|name| whole(&series[name])),
            backends: self.backends(&pools, now),
            seconds: by[0]["seconds"].as_u64().unwrap_or_default(),
            callers: by.map(|top| callers(&top)),
        })
    }

    fn backends(&mut self, pools: &Value, now: Instant) -> Vec<BackendFigures> {
        let (mut rows, mut counts) = (Vec::new(), CountsOfBackends::new());
        for pool in items(pools) {
            for backend in pool["backends"].as_array().into_iter().flatten() {
                let (name, address) = (text(&pool["name"]), text(&backend["address"]));
                let whole = |name: &str| backend[name].as_u64().unwrap_or_default();
                let (requests, key) = (whole("requests"), (name.clone(), address.clone()));
                let rate = self.before.as_ref().and_then(|(then, before)| {
                    let seconds = now.saturating_duration_since(*then).as_secs_f64();
                    // After a restart it counts from 0 again.
                    let more = requests.checked_sub(*before.get(&key)?)?;
                    (seconds > 0.0).then(|| more as f64 / seconds)
                });
                counts.insert(key, requests);
                let (state, in_flight, failures) = (text(&backend["state"]), whole("in_flight"), whole("failures"));
                rows.push(BackendFigures { pool: name, address, state, in_flight, rate, failures });
            }
        }
        self.before = Some((now, counts));
        rows
    }
}

fn callers(top: &Value) -> Vec<CallerFigures> {
    let caller = |item: &Value| CallerFigures {
        name: text(if item["client_id"].is_null() { &item["address"] } else { &item["client_id"] }),
        requests: item["requests"].as_u64().unwrap_or_default(),
        limited: item["limited"].as_u64().unwrap_or_default(),
    };
    items(top).map(caller).collect()
}

fn items(value: &Value) -> impl Iterator<Item = &Value> {
    value["items"].as_array().into_iter().flatten()
}

/// What a text says, without what would move the cursor.
fn text(value: &Value) -> String {
    plain(value.as_str().unwrap_or_default())
}
