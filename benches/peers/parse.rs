//! What `/proc`, wrk and h2load say, as numbers. Pure.

use serde::{Deserialize, Serialize};

/// What is wanted of `/proc/PID/stat`.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct Stat {
    /// The process.
    pub(crate) pid: u32,
    /// Its process group.
    pub(crate) group: u32,
    /// Its processor time, user and system, in ticks.
    pub(crate) ticks: u64,
}

/// Reads `/proc/PID/stat`. The name in it may hold blanks and brackets.
pub(crate) fn stat(text: &str) -> Option<Stat> {
    let (pid, _) = text.split_once(" (")?;
    let (_, rest) = text.rsplit_once(") ")?;
    // The first of these is field 3, the state.
    let fields: Vec<_> = rest.split_ascii_whitespace().collect();
    let ticks = |field: usize| fields.get(field - 3)?.parse::<u64>().ok();
    Some(Stat { pid: pid.parse().ok()?, group: fields.get(2)?.parse().ok()?, ticks: ticks(14)? + ticks(15)? })
}

/// The value of `name` in lines of `name: value`, as in `/proc/PID/status`.
pub(crate) fn field<'a>(text: &'a str, name: &str) -> Option<&'a str> {
    text.lines()
        .filter_map(|line| line.split_once(':'))
        .find(|(key, _)| key.trim() == name)
        .map(|(_, value)| value.trim())
}

/// The numbers of a list such as `0-2,5`; nothing when it is none or empty.
pub(crate) fn cores(list: &str) -> Option<Vec<usize>> {
    let mut cores = Vec::new();
    for part in list.trim().split(',') {
        let (first, last) = part.split_once('-').unwrap_or((part, part));
        cores.extend(first.parse::<usize>().ok()?..=last.parse::<usize>().ok()?);
    }
    (!cores.is_empty()).then_some(cores)
}

/// The version in what a program says of itself: `nginx/1.22.1`, `HAProxy version 2.6.12-1 2026/10/17`, `wrk
/// debian/4.1.0-3 [epoll]`.
pub(crate) fn version(text: &str) -> Option<&str> {
    let words = text.split([' ', '/']).filter(|word| word.contains('.'));
    words.map(str::trim).find(|word| word.starts_with(|first: char| first.is_ascii_digit()))
}

/// The first two numbers of a version.
pub(crate) fn release(version: &str) -> Option<(u32, u32)> {
    let mut parts = version.split('.');
    Some((parts.next()?.parse().ok()?, parts.next()?.parse().ok()?))
}

/// What a load found.
#[derive(Clone, Debug, Default, PartialEq, Serialize, Deserialize)]
pub(crate) struct Measured {
    /// Requests that got an answer, whatever its status.
    pub(crate) requests: u64,
    /// How long it took, in seconds.
    pub(crate) seconds: f64,
    /// Answers with a status of 400 and above.
    pub(crate) refused: u64,
    /// Requests without an answer: connections that failed or broke, and requests that took longer than 2 s.
    pub(crate) failed: u64,
    /// The time that half of the requests needed at most, in µs.
    pub(crate) p50: f64,
    /// The same for 99 % of them.
    pub(crate) p99: f64,
    /// The same for 99.9 %.
    pub(crate) p999: f64,
}

impl Measured {
    /// Answers a second.
    pub(crate) fn rate(&self) -> f64 {
        self.requests as f64 / self.seconds.max(1e-9)
    }
}

/// What marks the line that our own scripts for wrk write, and our own loads.
pub(crate) const MARK: &str = "MEASURED ";

/// Finds the line of [`MARK`] in what a load printed.
pub(crate) fn measured(output: &str) -> Option<Measured> {
    let line = output.lines().find_map(|line| line.strip_prefix(MARK))?;
    serde_json::from_str(line).ok()
}

/// What h2load printed, and its log of requests: a line each, with the start in µs, the status and the time in µs.
pub(crate) fn h2load(output: &str, log: &str) -> Option<Measured> {
    let finished = output.lines().find_map(|line| line.strip_prefix("finished in "))?;
    let seconds = duration(finished.split_once(',')?.0)?;
    let requests = output.lines().find_map(|line| line.strip_prefix("requests: "))?;
    let count = |name: &str| -> Option<u64> {
        let part = requests.split(", ").find(|part| part.split_once(' ').is_some_and(|(_, key)| key == name))?;
        part.split_once(' ')?.0.parse().ok()
    };
    let failed = count("errored")? + count("timeout")?;
    let (mut times, mut refused) = (Vec::new(), 0);
    for line in log.lines() {
        let mut words = line.split_ascii_whitespace();
        let (_, status, time) = (words.next()?, words.next()?.parse::<i32>().ok()?, words.next()?.parse::<f64>().ok()?);
        refused += u64::from(status >= 400);
        times.push(time);
    }
    Some(Measured::of(times, seconds, refused, failed))
}

/// How many bytes of bodies came, as h2load printed it.
pub(crate) fn h2load_data(output: &str) -> Option<u64> {
    let traffic = output.lines().find_map(|line| line.strip_prefix("traffic: "))?;
    let data = traffic.split(", ").find(|part| part.ends_with(" data"))?;
    data.split_once('(')?.1.split_once(')')?.0.parse().ok()
}

impl Measured {
    /// From the time of each request, in µs and any order.
    pub(crate) fn of(mut times: Vec<f64>, seconds: f64, refused: u64, failed: u64) -> Self {
        times.sort_by(f64::total_cmp);
        Measured {
            requests: times.len() as u64,
            seconds,
            refused,
            failed,
            p50: percentile(&times, 0.5),
            p99: percentile(&times, 0.99),
            p999: percentile(&times, 0.999),
        }
    }
}

/// The smallest value that `share` of the values do not exceed; 0 when there are none.
pub(crate) fn percentile(sorted: &[f64], share: f64) -> f64 {
    let rank = (share * sorted.len() as f64).ceil() as usize;
    sorted.get(rank.saturating_sub(1)).copied().unwrap_or(0.0)
}

/// Seconds of a time such as `1.01s`, `432.24ms`, `72us` or `1:02.5`, as h2load writes them.
pub(crate) fn duration(text: &str) -> Option<f64> {
    let text = text.trim();
    let scaled = |unit: &str, scale: f64| Some(text.strip_suffix(unit)?.parse::<f64>().ok()? * scale);
    scaled("us", 1e-6).or_else(|| scaled("ms", 1e-3)).or_else(|| scaled("s", 1.0))
}
