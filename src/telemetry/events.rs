//! The event log: what happens seldom, in words, on standard error.
//!
//! Everything, Pingora's own records too, goes through `log` to env_logger, which filters and writes; between the two
//! stands a filter that sums up repeated warnings and errors. Messages quote what strangers send, so control
//! characters in them are escaped: one record is one line.
//!
//! The line is `2026-11-21T19:41:28.123Z WARN  tollgate::upstream::health: message`, in UTC.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::Write as _;
use std::sync::Arc;
use std::time::Instant;

use log::{LevelFilter, Log, Metadata, Record, SetLoggerError};
use parking_lot::Mutex;

use super::repeats::{Repeats, Summary};
use super::timestamp::rfc3339;
use crate::clock::Clock;

/// What is written when nothing else is asked for.
const DEFAULT_FILTER: &str = "warn,rustls=error,tollgate=info";

/// The targets whose records are written one by one. `upstream` and `server` name them too, as they stand apart from this
/// module: the pools' changes of state, of which each matters and which their thresholds keep rare, and what came of
/// what an operator asked for, who looks for just that line.
const EVERY_LINE: [&str; 2] = ["tollgate::health", "tollgate::operator"];

/// The event log of this process.
///
/// A process has one, so whoever sets it up owns the handle and calls [`flush_due`](EventLog::flush_due) about once a
/// second and [`flush`](Log::flush) before it exits.
#[derive(Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

struct Inner {
    logger: env_logger::Logger,
    repeats: Mutex<Repeats>,
    clock: Arc<dyn Clock>,
}

/// Why there is no event log.
#[derive(Debug, thiserror::Error)]
pub enum EventsError {
    /// `TOLLGATE_LOG` makes no sense.
    #[error(
        "TOLLGATE_LOG must be a level (off, error, warn, info, debug or trace), module=level, or several of them with \
         commas, such as warn,tollgate=debug; not {0:?}"
    )]
    Filter(String),
    /// The process has a logger already.
    #[error(transparent)]
    Taken(#[from] SetLoggerError),
}

/// Sets up the event log of this process on standard error.
///
/// What is written is said by `TOLLGATE_LOG`, else `RUST_LOG`, in env_logger's terms (`debug`,
/// `warn,tollgate::upstream=debug`, `off`); an empty variable counts as none. The default is info and above for tollgate
/// and warnings and errors for everything else.
///
/// # Errors
/// When `TOLLGATE_LOG` makes no sense, which would silence everything; or when the process already has a logger: that one
/// stays in place, and nothing is changed. A second server in one process may ignore the latter.
pub fn init(clock: Arc<dyn Clock>) -> Result<EventLog, EventsError> {
    let filter = filter(|name| std::env::var_os(name))?;
    let events = EventLog::new(&filter, env_logger::Target::Stderr, clock);
    log::set_boxed_logger(Box::new(events.clone()))?;
    log::set_max_level(events.inner.logger.filter());
    Ok(events)
}

fn filter(variable: impl Fn(&str) -> Option<OsString>) -> Result<String, EventsError> {
    let set = |name| variable(name).map(OsString::into_string).filter(|value| !is_blank(value));
    match set("TOLLGATE_LOG").transpose().map_err(|other| EventsError::Filter(other.to_string_lossy().into_owned()))? {
        Some(ours) if ours.split(',').all(|part| makes_sense(part.trim())) => Ok(ours),
        Some(ours) => Err(EventsError::Filter(ours)),
        // Other programs read this one too, so what it says may not be meant for us.
        None => Ok(set("RUST_LOG").and_then(Result::ok).unwrap_or_else(|| DEFAULT_FILTER.to_owned())),
    }
}

fn is_blank(value: &Result<String, OsString>) -> bool {
    value.as_ref().is_ok_and(|text| text.trim().is_empty())
}

/// Whether `part` of a filter is a level, or a module with a level. A module alone must be one that exists: a mistyped level
/// looks like one, and would switch off everything else.
fn makes_sense(part: &str) -> bool {
    let is_level = |text: &str| text.parse::<LevelFilter>().is_ok();
    match part.split_once('=') {
        Some((module, level)) => !module.is_empty() && is_level(level),
        None => is_level(part) || part.starts_with("tollgate") || part.starts_with("pingora"),
    }
}

impl EventLog {
    fn new(filter: &str, target: env_logger::Target, clock: Arc<dyn Clock>) -> Self {
        let wall = Arc::clone(&clock);
        let logger = env_logger::Builder::new()
            .parse_filters(filter)
            .target(target)
            .format(move |out, record| {
                let message = OneLine(record.args());
                writeln!(out, "{} {:<5} {}: {message}", rfc3339(wall.wall()), record.level(), record.target())
            })
            .build();
        EventLog { inner: Arc::new(Inner { logger, repeats: Mutex::default(), clock }) }
    }

    /// Writes the summaries that are due at `now`.
    pub fn flush_due(&self, now: Instant) {
        let due = self.inner.repeats.lock().due(now);
        self.write(due);
    }

    fn write(&self, summaries: Vec<Summary>) {
        for Summary { level, target, message } in summaries {
            let args = format_args!("{message}");
            self.inner.logger.log(&Record::builder().level(level).target(&target).args(args).build());
        }
    }
}

impl Log for EventLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !shows_secrets(metadata) && self.inner.logger.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if shows_secrets(record.metadata()) || !self.inner.logger.matches(record) {
            return;
        }
        if record.level() <= log::Level::Warn && !EVERY_LINE.contains(&record.target()) {
            // Formatted before the lock is taken: formatting may log.
            let message = record.args().to_string();
            let now = self.inner.clock.now();
            let verdict = self.inner.repeats.lock().admit(now, record.level(), record.target(), &message);
            self.write(verdict.due);
            if !verdict.write {
                return;
            }
        }
        self.inner.logger.log(record);
    }

    /// Writes all summaries, due or not.
    fn flush(&self) {
        let rest = self.inner.repeats.lock().finish(self.inner.clock.now());
        self.write(rest);
        self.inner.logger.flush();
    }
}

/// Whether a record may hold headers or bodies, and so keys: Pingora writes them below info. They are not written whatever
/// the filter says.
fn shows_secrets(metadata: &Metadata<'_>) -> bool {
    metadata.target().starts_with("pingora") && metadata.level() > log::Level::Info
}

/// Shows text with its control characters escaped.
struct OneLine<T>(T);

impl<T: fmt::Display> fmt::Display for OneLine<T> {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(Escaping(f), "{}", self.0)
    }
}

struct Escaping<'a, 'b>(&'a mut fmt::Formatter<'b>);

impl fmt::Write for Escaping<'_, '_> {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        let special = |c: char| c.is_control() || matches!(c, '\u{2028}' | '\u{2029}');
        for part in text.split_inclusive(special) {
            match part.char_indices().next_back().filter(|(_, last)| special(*last)) {
                Some((at, last)) => write!(self.0, "{}{}", &part[..at], last.escape_default())?,
                None => self.0.write_str(part)?,
            }
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io;
    use std::os::unix::ffi::OsStringExt;
    use std::time::Duration;

    use log::Level;

    use super::*;
    use crate::clock::{ManualClock, SystemClock};

    #[derive(Clone, Default)]
    struct Output(Arc<Mutex<Vec<u8>>>);

    impl io::Write for Output {
        fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
            self.0.lock().write(bytes)
        }

        fn flush(&mut self) -> io::Result<()> {
            Ok(())
        }
    }

    struct Bench {
        clock: Arc<ManualClock>,
        output: Output,
        events: EventLog,
    }

    impl Bench {
        fn new(filter: &str) -> Self {
            let (clock, output) = (Arc::new(ManualClock::new()), Output::default());
            let target = env_logger::Target::Pipe(Box::new(output.clone()));
            Bench { events: EventLog::new(filter, target, clock.clone()), clock, output }
        }

        fn log(&self, level: Level, target: &str, message: &str) {
            let args = format_args!("{message}");
            self.events.log(&Record::builder().level(level).target(target).args(args).build());
        }

        /// The lines written since, without their timestamps.
        fn lines(&self) -> Vec<String> {
            let text = String::from_utf8(std::mem::take(&mut *self.output.0.lock())).unwrap();
            text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
        }
    }

    #[test]
    fn a_line_has_time_level_target_and_message() {
        let bench = Bench::new("info");
        bench.log(Level::Warn, "tollgate::upstream::health", "backend is down");
        let text = String::from_utf8(bench.output.0.lock().clone()).unwrap();
        let time = rfc3339(bench.clock.wall());
        assert_eq!(text, format!("{time} WARN  tollgate::upstream::health: backend is down\n"));
    }

    #[test]
    fn a_line_cannot_be_forged() {
        let bench = Bench::new("info");
        bench.log(Level::Info, "app", "path /\r\n2026 ERROR app: \u{1b}[31mä\u{85}\u{2028}x");
        assert_eq!(bench.lines(), ["INFO  app: path /\\r\\n2026 ERROR app: \\u{1b}[31mä\\u{85}\\u{2028}x"]);
    }

    #[test]
    fn the_default_shows_our_info_and_the_warnings_of_others() {
        let bench = Bench::new(&filter(|_| None).unwrap());
        for target in ["tollgate::server", "pingora_core"] {
            for level in [Level::Warn, Level::Info, Level::Debug] {
                bench.log(level, target, "x");
            }
        }
        assert_eq!(bench.lines(), ["WARN  tollgate::server: x", "INFO  tollgate::server: x", "WARN  pingora_core: x"]);
    }

    #[test]
    fn our_variable_wins_over_rusts_and_an_empty_one_is_none() {
        let filter_of =
            |ours: &str, rusts: &str| filter(|name| Some(if name == "TOLLGATE_LOG" { ours } else { rusts }.into()));
        assert_eq!(filter_of("debug", "trace").unwrap(), "debug");
        assert_eq!(filter_of(" ", "trace").unwrap(), "trace");
        assert_eq!(filter_of("", "").unwrap(), DEFAULT_FILTER);
        for good in ["off", "INFO", "warn,tollgate=debug", "tollgate::proxy", "pingora_core=trace, error"] {
            assert_eq!(filter_of(good, "").unwrap(), good);
        }
        for wrong in ["verbose", "tollgate=loud", "debug;info", "=info", "info,,warn"] {
            let error = filter_of(wrong, "").unwrap_err().to_string();
            assert!(error.contains(&format!("not {wrong:?}")), "{error}");
        }
        // What is no text is wrong in ours, and in the one of others not ours to judge.
        let no_text = |of: &str| filter(|name| (name == of).then(|| OsString::from_vec(b"debug\xff".to_vec())));
        assert!(no_text("TOLLGATE_LOG").unwrap_err().to_string().starts_with("TOLLGATE_LOG must be a level"));
        assert_eq!(no_text("RUST_LOG").unwrap(), DEFAULT_FILTER);
    }

    #[test]
    fn repeats_are_summed_up_with_ticks_and_at_the_end() {
        let bench = Bench::new("info");
        for _ in 0..100 {
            bench.log(Level::Error, "app", "no answer");
            bench.log(Level::Info, "app", "hello");
        }
        assert_eq!(bench.lines().len(), 101);
        bench.clock.advance(Duration::from_secs(9));
        bench.events.flush_due(bench.clock.now());
        assert_eq!(bench.lines(), [""; 0]);
        bench.clock.advance(Duration::from_secs(1));
        bench.events.flush_due(bench.clock.now());
        assert_eq!(bench.lines(), ["ERROR app: no answer (repeated 99 times in 10 s)"]);
        bench.log(Level::Warn, "app", "slow");
        bench.log(Level::Warn, "app", "slow");
        bench.events.flush();
        assert_eq!(bench.lines(), ["WARN  app: slow", "WARN  app: slow (repeated 1 time in 1 s)"]);
    }

    #[test]
    fn what_may_hold_a_key_is_never_written() {
        let bench = Bench::new("trace,pingora_proxy=trace");
        bench.log(Level::Debug, "pingora_proxy::proxy_h1", "Sending header x-api-key: secret");
        bench.log(Level::Trace, "pingora_core::protocols::http::v1", "secret");
        assert_eq!(bench.lines(), [""; 0]);
        bench.log(Level::Debug, "tollgate::proxy", "fine");
        assert_eq!(bench.lines(), ["DEBUG tollgate::proxy: fine"]);
    }

    #[test]
    fn every_change_of_state_and_every_answer_to_an_operator_is_a_line_of_its_own() {
        let bench = Bench::new("info");
        for target in EVERY_LINE {
            (0..3).for_each(|_| bench.log(Level::Warn, target, "up -> down"));
        }
        let [health, operator] = EVERY_LINE.map(|target| [format!("WARN  {target}: up -> down"), "".into()]);
        assert_eq!(
            bench.lines(),
            [&health[..1], &health[..1], &health[..1], &operator[..1], &operator[..1], &operator[..1]].concat()
        );
    }

    #[test]
    fn what_is_filtered_out_is_not_counted() {
        let bench = Bench::new("off");
        bench.log(Level::Error, "app", "x");
        bench.log(Level::Error, "app", "x");
        bench.events.flush();
        assert_eq!(bench.lines(), [""; 0]);
    }

    #[test]
    fn a_second_setup_is_refused_and_changes_nothing() {
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        let _maybe_first = init(Arc::clone(&clock));
        let level = log::max_level();
        assert!(init(clock).is_err());
        assert_eq!(log::max_level(), level);
    }
}
