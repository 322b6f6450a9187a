//! What metrics cost, by their pieces: the difference between two proxies is below what a machine can tell from
//! nothing.
//!
//! A request is counted whether anybody asks or not: that is measured by itself, in a loop, on counters that one core
//! writes. Who asks costs a request nothing, but the process a little: that is measured on a proxy that does nothing
//! else.

use std::hint::black_box;
use std::time::Duration;

use tollgate::clock::{Clock, SystemClock};
use tollgate::telemetry::{Tally, Verdict};

use super::stop::Fallible;
use super::tollgate::Tollgate;
use super::{ask_for_metrics, median, sorted};

/// How many requests are counted in one measurement of seven.
const COUNTED: u64 = 2_000_000;
/// How often metrics are asked for.
const SCRAPES: u32 = 2_000;

/// Nanoseconds for what a request adds to the counters.
pub(super) fn counting() -> f64 {
    let tally = Tally::default();
    let clock = SystemClock;
    let measure = |_| {
        let began = clock.now();
        for number in 0..COUNTED {
            // From a few hundred microseconds to some milliseconds, as requests take.
            let took = Duration::from_micros(200 + number % 4096);
            tally.decided(black_box(Verdict::Allowed));
            tally.unrouted().record(black_box(200), took);
        }
        clock.now().duration_since(began).as_secs_f64() * 1e9 / COUNTED as f64
    };
    median(&sorted((0..7).map(measure)))
}

/// Microseconds of CPU that `proxy`, which has nothing else to do, takes to tell its metrics.
pub(super) fn scrape(proxy: &Tollgate) -> Fallible<f64> {
    let before = proxy.process.cpu()?;
    for _ in 0..SCRAPES {
        ask_for_metrics(proxy);
    }
    Ok(proxy.process.cpu()?.saturating_sub(before).as_secs_f64() * 1e6 / f64::from(SCRAPES))
}
