//! The event log: what happens seldom, in words, on standard error.
//!
//! Everything, Pingora's own records too, goes through `log` to this: a filter in env_logger's terms, then one that
//! sums up repeated warnings and errors, then a queue, from which a thread writes. Whoever logs never
//! waits for standard error. Messages quote what strangers send, so control characters in them are escaped: one record
//! is one line.
//!
//! The line is `2026-11-21T19:41:28.123Z WARN  tollgate::upstream::health: message`, in UTC.

use std::ffi::OsString;
use std::fmt::{self, Write as _};
use std::io::{self, Write};
use std::panic::PanicHookInfo;
use std::sync::Arc;
use std::sync::mpsc::channel;
use std::time::{Duration, Instant};

use env_filter::Filter;
use log::{Level, LevelFilter, Log, Metadata, Record, SetLoggerError};
use parking_lot::Mutex;

use super::drops::Drops;
use super::repeats::{Repeats, Summary};
use super::spool::{Spool, Stderr};
use super::timestamp::rfc3339;
use crate::clock::Clock;

/// What is written when nothing else is asked for.
const DEFAULT_FILTER: &str = "warn,rustls=error,tollgate=info";

/// The targets whose records are written one by one. `upstream` and `server` name them too, as they stand apart from
/// this module: the pools' changes of state, of which each matters and which their thresholds keep rare, and what came
/// of what an operator asked for, who looks for just that line.
const EVERY_LINE: [&str; 2] = ["tollgate::health", "tollgate::operator"];

/// What the event log says of itself.
const TARGET: &str = "tollgate::telemetry::events";
/// What panics are told under.
const PANIC: &str = "tollgate::panic";
/// How long the last words of a process may take.
const LAST_WORDS: Duration = Duration::from_secs(1);

/// The event log of this process; a clone is another handle.
///
/// Whoever has it calls [`start`](EventLog::start) when the process will not fork any more, and
/// [`flush_due`](EventLog::flush_due) about once a second. [`Log::flush`] waits until what was logged is written, a
/// second at most.
#[derive(Clone)]
pub struct EventLog {
    inner: Arc<Inner>,
}

struct Inner {
    filter: Filter,
    repeats: Mutex<Repeats>,
    drops: Mutex<Drops>,
    spool: Spool,
    clock: Arc<dyn Clock>,
}

/// Brings out what is left of the event log, and ends it, when it is dropped: a second at most. To be dropped before
/// the process says why it ends.
#[must_use = "the event log ends when this is dropped"]
pub struct EventLogGuard(EventLog);

impl EventLogGuard {
    /// The event log.
    pub fn log(&self) -> &EventLog {
        &self.0
    }
}

impl Drop for EventLogGuard {
    fn drop(&mut self) {
        self.0.stop();
    }
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
/// `warn,tollgate::upstream=debug`, `off`); an empty variable counts as none. The default is info and above for
/// tollgate and warnings and errors for everything else.
///
/// # Errors
/// When `TOLLGATE_LOG` makes no sense, which would silence everything; or when the process already has a logger: that
/// one stays in place, and nothing is changed. A second server in one process may ignore the latter.
pub fn init(clock: Arc<dyn Clock>) -> Result<EventLogGuard, EventsError> {
    let filter = filter(|name| std::env::var_os(name))?;
    let events = EventLog::new(&filter, Box::new(Stderr), clock);
    log::set_boxed_logger(Box::new(events.clone()))?;
    log::set_max_level(events.inner.filter.filter());
    let (panics, before) = (events.clone(), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if !panics.tell_panic(panic) {
            before(panic);
        }
    }));
    Ok(EventLogGuard(events))
}

/// Writes the last words of a process to standard error. Waits a second at most, as nobody may read there.
pub fn tell(words: &str) {
    let line = format!("{words}\n");
    let (told, heard) = channel();
    let write = move || {
        // Whoever closed it wants to hear nothing.
        drop(Stderr.write_all(line.as_bytes()));
        drop(told);
    };
    if std::thread::Builder::new().name("last-words".to_owned()).spawn(write).is_ok() {
        // Nothing is ever sent; it ends when the thread does.
        let _: Result<(), _> = heard.recv_timeout(LAST_WORDS);
    }
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

/// Whether `part` of a filter is a level, or a module with a level. A module alone must be one that exists: a mistyped
/// level looks like one, and would switch off everything else.
fn makes_sense(part: &str) -> bool {
    let is_level = |text: &str| text.parse::<LevelFilter>().is_ok();
    match part.split_once('=') {
        Some((module, level)) => !module.is_empty() && is_level(level),
        None => is_level(part) || part.starts_with("tollgate") || part.starts_with("pingora"),
    }
}

impl EventLog {
    fn new(filter: &str, out: Box<dyn Write + Send>, clock: Arc<dyn Clock>) -> Self {
        let filter = env_filter::Builder::new().parse(filter).build();
        let (repeats, drops) = Default::default();
        EventLog { inner: Arc::new(Inner { filter, repeats, drops, spool: Spool::new(out), clock }) }
    }

    /// Starts the thread that writes, unless it runs. Until then lines wait. Threads do not survive a fork.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub fn start(&self) -> io::Result<()> {
        self.inner.spool.start()
    }

    /// Lines lost so far, because nobody took them or a write failed.
    pub fn dropped(&self) -> u64 {
        self.inner.spool.dropped()
    }

    /// Writes the summaries that are due at `now`, and what there is to say of lines that were lost.
    pub fn flush_due(&self, now: Instant) {
        let due = self.inner.repeats.lock().due(now);
        self.write(due);
        let event = self.inner.drops.lock().observe(now, &self.inner.spool.counters());
        self.tell_of_drops(event);
    }

    /// Writes all summaries, due or not, and ends. Waits a second at most; what is logged afterwards is lost.
    fn stop(&self) {
        let rest = self.inner.repeats.lock().finish(self.inner.clock.now());
        self.write(rest);
        let event = self.inner.drops.lock().finish(&self.inner.spool.counters());
        self.tell_of_drops(event);
        self.inner.spool.stop();
    }

    fn write(&self, summaries: Vec<Summary>) {
        for Summary { level, target, message } in summaries {
            self.push(level, &target, &message);
        }
    }

    fn tell_of_drops(&self, event: Option<String>) {
        if let Some(event) = event
            && self.inner.filter.enabled(&Metadata::builder().level(Level::Warn).target(TARGET).build())
        {
            self.push(Level::Warn, TARGET, &format!("event log: {event}"));
        }
    }

    fn push(&self, level: Level, target: &str, message: &dyn fmt::Display) {
        let at = self.inner.clock.wall();
        // Made before the queue is locked: a message may log while it is.
        let line = format!("{} {level:<5} {target}: {}\n", rfc3339(at), OneLine(message));
        self.inner.spool.push(at, line.as_bytes());
    }

    /// Tells of a panic, whatever the filter says; whether there was somebody to write it.
    fn tell_panic(&self, panic: &PanicHookInfo<'_>) -> bool {
        if !self.inner.spool.is_running() {
            return false;
        }
        let thread = std::thread::current();
        let name = thread.name().unwrap_or("without a name");
        self.push(Level::Error, PANIC, &format!("thread {name} {}", panic.to_string().replacen('\n', " ", 1)));
        let backtrace = std::backtrace::Backtrace::capture();
        if backtrace.status() == std::backtrace::BacktraceStatus::Captured {
            backtrace.to_string().lines().for_each(|line| self.push(Level::Error, PANIC, &line));
        }
        true
    }
}

impl Log for EventLog {
    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        !shows_secrets(metadata) && self.inner.filter.enabled(metadata)
    }

    fn log(&self, record: &Record<'_>) {
        if shows_secrets(record.metadata()) || !self.inner.filter.matches(record) {
            return;
        }
        let (level, target) = (record.level(), record.target());
        if level > Level::Warn || EVERY_LINE.contains(&target) {
            return self.push(level, target, record.args());
        }
        // Formatted before the lock is taken: formatting may log.
        let message = record.args().to_string();
        let now = self.inner.clock.now();
        let verdict = self.inner.repeats.lock().admit(now, level, target, &message);
        self.write(verdict.due);
        if verdict.write {
            self.push(level, target, &message);
        }
    }

    /// Waits until what was logged is written, a second at most.
    fn flush(&self) {
        self.inner.spool.settle();
    }
}

/// Whether a record may hold headers or bodies, and so keys: Pingora writes them below info. They are not written
/// whatever the filter says.
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
mod tests;
