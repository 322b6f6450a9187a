//! The access log's near end: what request threads hold.
//!
//! A request hands over its record and goes on; it never waits for a disk, a pipe or a reader. The record is written
//! out to one line on the request's thread, where its borrowed fields are, straight into the [queue](super::queue),
//! which is bounded. When the queue is full the line is dropped and counted. An unbounded queue was refused because it
//! turns a stuck pipe into a process without memory.

use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;

use super::ends::LogEnds;
use super::output::LogTarget;
use super::writer::AccessLogWriter;
use super::{AccessLogSettings, AccessRecord};

/// A handle on the access log, cheap to clone, for the threads that serve requests.
///
/// Lines recorded before the writer is started wait in the queue; lines recorded after it has stopped are dropped.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// `None` when the access log is off for good.
    pub(super) shared: Option<Arc<LogEnds>>,
}

impl AccessLog {
    /// The access log and its writer, which is to be started once the process has forked, if it does.
    ///
    /// # Errors
    /// When the file cannot be opened; the message names it.
    pub fn new(settings: &AccessLogSettings) -> io::Result<(AccessLog, AccessLogWriter)> {
        let settings = settings.absolute();
        Ok(Self::over(LogTarget::open(settings.target.as_ref())?, settings))
    }

    pub(super) fn over(target: LogTarget, settings: AccessLogSettings) -> (AccessLog, AccessLogWriter) {
        let shared = Arc::new(LogEnds::new(settings));
        (AccessLog { shared: Some(Arc::clone(&shared)) }, AccessLogWriter::new(target, shared))
    }

    /// An access log that is off and stays so, without a queue.
    pub fn off() -> AccessLog {
        AccessLog { shared: None }
    }

    /// Whether anything that is recorded now is written. One relaxed load.
    pub fn is_on(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.on.load(Ordering::Relaxed))
    }

    /// Whether what is recorded now is to say what a request's header says of where it comes from. One relaxed load.
    pub fn tells_of_header(&self) -> bool {
        self.shared.as_ref().is_some_and(|shared| shared.of_header.load(Ordering::Relaxed))
    }

    /// Queues the line for one request. Never waits for a write: a line that finds no room is dropped and counted.
    ///
    /// Costs the formatting and a lock that is seldom held; nothing but one relaxed load when the access log is off.
    pub fn record(&self, record: &AccessRecord<'_>) {
        if let Some(shared) = self.shared.as_ref().filter(|_| self.is_on()) {
            // Held until the line is in the queue: that nobody holds it tells the writer that no more lines come for
            // it.
            shared.push_for(&shared.destination.load(), record);
        }
    }

    /// Lines lost so far, because the queue was full or a write failed.
    pub fn dropped(&self) -> u64 {
        self.shared.as_ref().map_or(0, |shared| shared.queue.dropped())
    }

    /// Asks for the file to be opened again, since it was moved away. Returns at once; what was recorded before goes to
    /// the old file, what is recorded afterwards to the new one, or to the old one if the path cannot be opened.
    /// Standard output is taken as it is then.
    pub fn reopen(&self) {
        if let Some(shared) = &self.shared {
            shared.reopen();
        }
    }
}

#[cfg(test)]
mod tests {
    use super::super::AccessLogFormat;
    use super::super::queue::{QUEUE_BYTES, QueueReader};
    use super::super::record::tests::SAMPLE;
    use super::*;

    fn over(target: LogTarget, format: AccessLogFormat) -> (AccessLog, AccessLogWriter) {
        AccessLog::over(target, AccessLogSettings { format, ..AccessLogSettings::default() })
    }

    #[test]
    fn switched_off_it_does_nothing() {
        let settings = AccessLogSettings { target: None, ..AccessLogSettings::default() };
        let (log, writer) = AccessLog::new(&settings).unwrap();
        log.record(&SAMPLE);
        log.reopen();
        writer.start().unwrap().stop();
        log.record(&SAMPLE);
        assert_eq!(log.dropped(), 0);
        let none = AccessLog::off();
        none.record(&SAMPLE);
        none.reopen();
        assert_eq!(none.dropped(), 0);
    }

    #[test]
    fn long_lines_are_bounded_in_memory() {
        let (log, _writer) = over(LogTarget::of(io::sink()), AccessLogFormat::Text);
        let path = [b'a'; 100_000];
        for _ in 0..1000 {
            log.record(&AccessRecord { path: &path, ..SAMPLE });
        }
        let waiting = log.shared.as_ref().unwrap().queue.granted();
        assert!((QUEUE_BYTES..QUEUE_BYTES + 1_000_000).contains(&waiting), "{waiting}");
        assert!(log.dropped() > 500, "{}", log.dropped());
    }

    #[test]
    fn a_share_gets_lines_and_the_rest_is_not_dropped() {
        for (sample, least, most) in [(0.0, 0, 0), (0.25, 2_300, 2_700), (1.0, 10_000, 10_000)] {
            let settings = AccessLogSettings { sample, ..AccessLogSettings::default() };
            let (log, _writer) = AccessLog::over(LogTarget::of(io::sink()), settings);
            fastrand::seed(17);
            (0..10_000).for_each(|_| log.record(&SAMPLE));
            let mut lines = 0;
            QueueReader::new(&log.shared.as_ref().unwrap().queue).take(|_, _| lines += 1);
            // For a quarter, the bounds are 4.6 standard deviations away.
            assert!((least..=most).contains(&lines), "{lines} of {sample}");
            assert_eq!(log.dropped(), 0);
        }
    }

    #[test]
    fn without_a_writer_lines_are_dropped() {
        let (log, writer) = over(LogTarget::of(io::sink()), AccessLogFormat::Json);
        drop(writer);
        log.record(&SAMPLE);
        assert_eq!(log.dropped(), 1);
    }
}
