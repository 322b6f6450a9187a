//! Which warnings and errors are written, and what is said about the others.
//!
//! A backend that dies under load fails thousands of requests in the same way within a second. Two rules keep the event
//! log readable and its disk free:
//!
//! 1. Of records with the same level, target and message the first is written. Further ones are only counted, for
//!    [`WINDOW`] from the first; then one line says how many there were, and the next one is a first again.
//! 2. Messages that differ (each with another client's port, say) are not repeats, so each target has an allowance of
//!    [`BURST`] lines, refilled by [`REFILL_PER_SEC`] a second. What goes beyond is left out, and one line says how
//!    much. The allowance is large enough for a pool of two hundred backends to go down at once with a line for each.
//!
//! Levels below warn are not touched: nobody gets them without asking. Memory: only written messages are remembered,
//! for one window and at most [`MAX_MESSAGES`] of them, so a caller who makes messages differ fills neither disk nor
//! memory. Targets are module names; their number is bounded by the program.
//!
//! An allowance for the whole log was refused: a flood from one module would hide a word from another. So was comparing
//! messages with their numbers masked, because "backend 10.0.0.1 is down" and "backend 10.0.0.2 is down" are two
//! events.

use std::collections::hash_map::{Entry, RandomState};
use std::collections::{BTreeMap, HashMap, VecDeque};
use std::hash::BuildHasher;
use std::time::{Duration, Instant};

use log::Level;

/// How long repeats are counted before they are told.
const WINDOW: Duration = Duration::from_secs(10);
/// Lines that one target may write in a burst.
const BURST: u32 = 256;
/// Lines a second that one target may write in the long run.
const REFILL_PER_SEC: u32 = 5;
/// Messages remembered at most. Beyond it they are written without being counted, within their target's allowance.
const MAX_MESSAGES: usize = 1024;
/// Characters of a message that are remembered for its summary.
const MAX_CHARS: usize = 500;

/// A line to write about records that were not written.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(super) struct Summary {
    pub(super) level: Level,
    pub(super) target: String,
    pub(super) message: String,
}

/// What to do with a record.
#[derive(Debug, PartialEq, Eq)]
pub(super) struct Repeated {
    /// Lines to write first.
    pub(super) due: Vec<Summary>,
    /// Whether the record itself is written.
    pub(super) write: bool,
}

/// The memory of what was written lately. It is handed the time, which must not step back.
#[derive(Debug, Default)]
pub(super) struct Repeats {
    /// Keyed at random, so that nobody can make two messages meet; by chance they do once in 2⁶⁴.
    hasher: RandomState,
    messages: HashMap<u64, SeenMessage>,
    /// When each of `messages` was first written, and its key, oldest first; all windows are equally long.
    order: VecDeque<(Instant, u64)>,
    targets: BTreeMap<String, Allowance>,
}

#[derive(Debug)]
struct SeenMessage {
    first: Instant,
    repeats: u64,
    level: Level,
    target: String,
    /// Cut off after [`MAX_CHARS`].
    text: String,
}

impl SeenMessage {
    /// The line about the repeats up to `now`, if there were any.
    fn summary(self, now: Instant) -> Option<Summary> {
        let times = if self.repeats == 1 { "time" } else { "times" };
        let message =
            format!("{} (repeated {} {times} in {})", self.text, self.repeats, WindowLength(now - self.first));
        (self.repeats > 0).then_some(Summary { level: self.level, target: self.target, message })
    }
}

/// What a target may still write.
#[derive(Debug)]
struct Allowance {
    lines: u32,
    refilled: Instant,
    left_out: Option<LeftOut>,
}

#[derive(Debug)]
struct LeftOut {
    first: Instant,
    count: u64,
    /// The gravest level among them.
    level: Level,
}

impl Allowance {
    fn refill(&mut self, now: Instant) {
        let seconds = now.saturating_duration_since(self.refilled).as_secs();
        self.refilled += Duration::from_secs(seconds);
        let lines = u64::from(self.lines) + seconds.saturating_mul(u64::from(REFILL_PER_SEC));
        self.lines = u32::try_from(lines).map_or(BURST, |lines| lines.min(BURST));
    }

    fn take(&mut self, now: Instant, level: Level) -> bool {
        self.refill(now);
        if let Some(lines) = self.lines.checked_sub(1) {
            self.lines = lines;
            return true;
        }
        let left_out = self.left_out.get_or_insert(LeftOut { first: now, count: 0, level });
        left_out.count += 1;
        left_out.level = left_out.level.min(level);
        false
    }
}

impl Repeats {
    /// Decides about a record.
    pub(super) fn admit(&mut self, now: Instant, level: Level, target: &str, message: &str) -> Repeated {
        if level > Level::Warn {
            return Repeated { due: Vec::new(), write: true };
        }
        let due = self.due(now);
        let full = self.messages.len() >= MAX_MESSAGES;
        let entry = self.messages.entry(self.hasher.hash_one((level, target, message)));
        let vacant = match entry {
            Entry::Occupied(mut seen) => {
                seen.get_mut().repeats += 1;
                return Repeated { due, write: false };
            }
            Entry::Vacant(vacant) => vacant,
        };
        let write = match self.targets.get_mut(target) {
            Some(allowance) => allowance.take(now, level),
            None => {
                let allowance = Allowance { lines: BURST - 1, refilled: now, left_out: None };
                self.targets.insert(target.to_owned(), allowance);
                true
            }
        };
        if write && !full {
            self.order.push_back((now, *vacant.key()));
            let text = message.chars().take(MAX_CHARS).collect();
            vacant.insert(SeenMessage { first: now, repeats: 0, level, target: target.to_owned(), text });
        }
        Repeated { due, write }
    }

    /// The lines about windows that are over.
    pub(super) fn due(&mut self, now: Instant) -> Vec<Summary> {
        self.end_windows(now, |first| now.saturating_duration_since(first) >= WINDOW)
    }

    /// The lines about all windows, for when there will be no further record.
    pub(super) fn finish(&mut self, now: Instant) -> Vec<Summary> {
        self.end_windows(now, |_| true)
    }

    fn end_windows(&mut self, now: Instant, over: impl Fn(Instant) -> bool) -> Vec<Summary> {
        let mut lines = Vec::new();
        while let Some((_, key)) = self.order.front().copied().filter(|(first, _)| over(*first)) {
            self.order.pop_front();
            lines.extend(self.messages.remove(&key).and_then(|message| message.summary(now)));
        }
        self.targets.retain(|target, allowance| {
            if let Some(left_out) = allowance.left_out.take_if(|left_out| over(left_out.first)) {
                let (count, span) = (left_out.count, WindowLength(now - left_out.first));
                let message = format!("{count} further warnings and errors were left out in {span}");
                lines.push(Summary { level: left_out.level, target: target.clone(), message });
            }
            allowance.refill(now);
            allowance.left_out.is_some() || allowance.lines < BURST
        });
        lines
    }
}

/// A window's length. A window that was ended late was not longer for that, and one ended early is rounded up.
struct WindowLength(Duration);

impl std::fmt::Display for WindowLength {
    fn fmt(&self, f: &mut std::fmt::Formatter<'_>) -> std::fmt::Result {
        write!(f, "{} s", self.0.min(WINDOW).as_millis().div_ceil(1000).max(1))
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{Clock, ManualClock};

    /// Records what is written, as `LEVEL target: message`.
    #[derive(Default)]
    struct Log {
        clock: ManualClock,
        repeats: Repeats,
        written: Vec<String>,
    }

    impl Log {
        fn log(&mut self, level: Level, target: &str, message: &str) {
            let verdict = self.repeats.admit(self.clock.now(), level, target, message);
            self.write(verdict.due);
            if verdict.write {
                self.written.push(format!("{level} {target}: {message}"));
            }
        }

        fn write(&mut self, lines: Vec<Summary>) {
            self.written.extend(lines.iter().map(|line| format!("{} {}: {}", line.level, line.target, line.message)));
        }

        /// So many seconds with a tick after each.
        fn pass(&mut self, seconds: u64) {
            for _ in 0..seconds {
                self.clock.advance(Duration::from_secs(1));
                let due = self.repeats.due(self.clock.now());
                self.write(due);
            }
        }

        fn finish(&mut self) {
            let rest = self.repeats.finish(self.clock.now());
            self.write(rest);
        }

        fn take(&mut self) -> Vec<String> {
            std::mem::take(&mut self.written)
        }
    }

    #[test]
    fn repeats_are_counted_and_told_after_the_window() {
        let mut log = Log::default();
        for _ in 0..1000 {
            log.log(Level::Error, "app", "no answer");
        }
        log.log(Level::Warn, "app", "no answer");
        log.log(Level::Error, "other", "no answer");
        assert_eq!(log.take(), ["ERROR app: no answer", "WARN app: no answer", "ERROR other: no answer"]);
        log.pass(9);
        log.log(Level::Error, "app", "no answer");
        assert_eq!(log.take(), [""; 0]);
        log.pass(1);
        assert_eq!(log.take(), ["ERROR app: no answer (repeated 1000 times in 10 s)"]);
        log.pass(60);
        assert_eq!(log.take(), [""; 0]);
        log.log(Level::Error, "app", "no answer");
        assert_eq!(log.take(), ["ERROR app: no answer"]);
    }

    #[test]
    fn without_ticks_the_next_record_brings_the_summary() {
        let mut log = Log::default();
        log.log(Level::Warn, "app", "slow");
        log.log(Level::Warn, "app", "slow");
        log.clock.advance(Duration::from_secs(30));
        log.log(Level::Warn, "app", "slow");
        assert_eq!(log.take(), ["WARN app: slow", "WARN app: slow (repeated 1 time in 10 s)", "WARN app: slow"]);
    }

    #[test]
    fn finishing_tells_what_is_pending() {
        let mut log = Log::default();
        log.log(Level::Warn, "app", "slow");
        log.log(Level::Warn, "app", "once");
        log.log(Level::Warn, "app", "slow");
        log.clock.advance(Duration::from_millis(3500));
        log.finish();
        log.finish();
        assert_eq!(log.take(), ["WARN app: slow", "WARN app: once", "WARN app: slow (repeated 1 time in 4 s)"]);
    }

    #[test]
    fn lower_levels_pass() {
        let mut log = Log::default();
        for level in [Level::Info, Level::Debug, Level::Trace] {
            for _ in 0..1000 {
                log.log(level, "app", "hello");
            }
        }
        log.finish();
        assert_eq!(log.take().len(), 3000);
    }

    #[test]
    fn messages_that_differ_are_held_to_the_allowance_of_their_target() {
        let mut log = Log::default();
        for port in 0..10_000 {
            log.log(if port == 9999 { Level::Error } else { Level::Warn }, "app", &format!("client {port} is gone"));
        }
        log.log(Level::Warn, "health", "a backend is down");
        let written = log.take();
        assert_eq!(written.len(), 257);
        assert_eq!(written[256], "WARN health: a backend is down");
        log.pass(20);
        assert_eq!(log.take(), ["ERROR app: 9744 further warnings and errors were left out in 10 s"]);
        // Twenty seconds later there are a hundred lines more.
        for port in 0..10_000 {
            log.log(Level::Warn, "app", &format!("client {port} is gone"));
        }
        assert_eq!(log.take().len(), 100);
        log.finish();
        assert_eq!(log.take(), ["WARN app: 9900 further warnings and errors were left out in 1 s"]);
    }

    #[test]
    fn memory_is_bounded_and_given_back() {
        let mut log = Log::default();
        let long = "ä".repeat(MAX_CHARS + 1);
        for number in 0..100 {
            for target in 0..20 {
                log.log(Level::Warn, &format!("target {target}"), &format!("{number} {long}"));
            }
        }
        assert_eq!(log.repeats.messages.len(), MAX_MESSAGES);
        assert_eq!(log.repeats.order.len(), MAX_MESSAGES);
        assert!(log.repeats.messages.values().all(|message| message.text.chars().count() == MAX_CHARS));
        log.pass(60);
        assert!(log.repeats.messages.is_empty() && log.repeats.order.is_empty() && log.repeats.targets.is_empty());
    }

    #[test]
    fn nothing_is_lost_count_of() {
        let mut log = Log::default();
        for number in 0..5000_u32 {
            log.log(Level::Warn, "app", &format!("message {}", number.wrapping_mul(2_654_435_761) % 700));
            if number % 50 == 0 {
                log.pass(1);
            }
        }
        log.finish();
        let number_before = |line: &str, word: &str| -> Option<u64> {
            line.split(word).next().filter(|start| *start != line)?.rsplit(' ').next()?.parse().ok()
        };
        let told = log.written.iter().map(|line| {
            let repeated = number_before(line, " times in").or_else(|| number_before(line, " time in"));
            repeated.or_else(|| number_before(line, " further warnings")).unwrap_or(1)
        });
        assert_eq!(told.sum::<u64>(), 5000);
    }
}
