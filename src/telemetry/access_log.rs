//! The access log's near end: what request threads hold.
//!
//! A request hands over its record and goes on; it never waits for a disk, a pipe or a reader. The record is written out
//! to one line on the request's thread, where its borrowed fields are, and the line is put into a bounded queue. When the
//! queue is full the line is dropped and counted. An unbounded queue was refused because it turns a stuck pipe into a
//! process without memory, and a shared buffer under a lock because the writer's copy would hold up requests.

use std::io;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::sync::mpsc::{Receiver, SyncSender, sync_channel};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::output::Target;
use super::switch::{Destination, Switches};
use super::writer::AccessLogWriter;
use super::{AccessLogSettings, AccessRecord};

/// How many lines wait at most: a third of a second at 50,000 requests a second.
pub(super) const QUEUE_LINES: usize = 16_384;
/// How much memory waiting lines may take, give or take a line for each thread. Usual lines reach the other bound first;
/// this one is for callers who send paths as long as they may.
const QUEUE_BYTES: usize = 32 << 20;
/// A usual line, with room to spare.
const LINE_BYTES: usize = 512;

/// A handle on the access log, cheap to clone, for the threads that serve requests.
///
/// Lines recorded before the writer is started wait in the queue; lines recorded after it has stopped are dropped.
#[derive(Clone, Debug)]
pub struct AccessLog {
    /// `None` when the access log is off for good.
    pub(super) queue: Option<Queue>,
}

/// The queue's near end.
#[derive(Clone, Debug)]
pub(super) struct Queue {
    lines: SyncSender<Message>,
    pub(super) shared: Arc<Shared>,
}

/// What waits in the queue.
#[derive(Debug)]
pub(super) struct Message {
    /// That of the [`Destination`] for which the line was made.
    pub(super) generation: u64,
    /// A line with its line end; an empty one only wakes the writer.
    pub(super) line: Vec<u8>,
}

/// What both ends know.
#[derive(Debug)]
pub(super) struct Shared {
    /// Whether lines are recorded at all. Looked at first, so that a log that is off costs no more than that.
    pub(super) on: AtomicBool,
    /// Where a line that is recorded now goes, and in which form.
    pub(super) destination: ArcSwap<Destination>,
    /// What the writer has yet to do about other destinations.
    pub(super) switches: Mutex<Switches>,
    /// There is something in `switches`, or an outlet to be closed.
    pub(super) switching: AtomicBool,
    /// What the writer writes to, for people.
    pub(super) name: Mutex<String>,
    /// Memory held by waiting lines.
    pub(super) queued_bytes: AtomicUsize,
    /// Lines written in full.
    pub(super) written: AtomicU64,
    /// Lines lost.
    pub(super) dropped: AtomicU64,
    /// Why the latest write failed, if it did.
    pub(super) failure: Mutex<Option<String>>,
    /// The file is to be opened again.
    pub(super) reopen: AtomicBool,
    /// The same when the queue had no room for the mark that says after which line.
    pub(super) reopen_at_once: AtomicBool,
    /// The writer is to write what waits, and end.
    pub(super) stop: AtomicBool,
}

impl AccessLog {
    /// The access log and its writer, which is to be started once the process has forked, if it does.
    ///
    /// # Errors
    /// When the file cannot be opened; the message names it.
    pub fn new(settings: &AccessLogSettings) -> io::Result<(AccessLog, AccessLogWriter)> {
        let settings = settings.absolute();
        Ok(Self::over(Target::open(settings.target.as_ref())?, settings))
    }

    pub(super) fn over(target: Target, settings: AccessLogSettings) -> (AccessLog, AccessLogWriter) {
        let (lines, waiting): (_, Receiver<Message>) = sync_channel(QUEUE_LINES);
        let queue = Queue { lines, shared: Arc::new(Shared::new(settings)) };
        (AccessLog { queue: Some(queue.clone()) }, AccessLogWriter::new(target, waiting, queue))
    }

    /// An access log that is off and stays so, without a queue.
    pub fn off() -> AccessLog {
        AccessLog { queue: None }
    }

    /// Whether anything that is recorded now is written. One relaxed load.
    pub fn is_on(&self) -> bool {
        self.queue.as_ref().is_some_and(|queue| queue.shared.on.load(Ordering::Relaxed))
    }

    /// Queues the line for one request. Never waits: a line that finds no room is dropped and counted.
    ///
    /// Costs one allocation and the formatting; nothing but one relaxed load when the access log is off.
    pub fn record(&self, record: &AccessRecord<'_>) {
        if let Some(queue) = self.queue.as_ref().filter(|_| self.is_on()) {
            queue.push(record);
        }
    }

    /// Lines lost so far, because the queue was full or a write failed.
    pub fn dropped(&self) -> u64 {
        self.queue.as_ref().map_or(0, |queue| queue.shared.dropped.load(Ordering::Relaxed))
    }

    /// Asks for the file to be opened again, since it was moved away. Returns at once; whatever this thread records
    /// afterwards goes to the new file, or to the old one if the path cannot be opened. Standard output stays as it is.
    pub fn reopen(&self) {
        if let Some(queue) = &self.queue {
            queue.shared.reopen.store(true, Ordering::SeqCst);
            if !queue.wake() {
                queue.shared.reopen_at_once.store(true, Ordering::SeqCst);
            }
        }
    }
}

impl Shared {
    fn new(settings: AccessLogSettings) -> Self {
        Shared {
            on: AtomicBool::new(settings.target.is_some()),
            destination: ArcSwap::from_pointee(Destination { generation: 0, settings }),
            switches: Mutex::default(),
            switching: AtomicBool::default(),
            name: Mutex::default(),
            queued_bytes: AtomicUsize::default(),
            written: AtomicU64::default(),
            dropped: AtomicU64::default(),
            failure: Mutex::default(),
            reopen: AtomicBool::default(),
            reopen_at_once: AtomicBool::default(),
            stop: AtomicBool::default(),
        }
    }
}

impl Queue {
    fn push(&self, record: &AccessRecord<'_>) {
        // Held until the line is in the queue: that nobody holds it tells the writer that no more lines come for it.
        self.push_for(&self.shared.destination.load(), record);
    }

    /// Queues the line for a request that was recorded while `destination` was the present one.
    pub(super) fn push_for(&self, destination: &Destination, record: &AccessRecord<'_>) {
        let shared = &*self.shared;
        if shared.queued_bytes.load(Ordering::Relaxed) >= QUEUE_BYTES {
            shared.dropped.fetch_add(1, Ordering::Relaxed);
            return;
        }
        if destination.settings.target.is_none() {
            return;
        }
        let mut line = Vec::with_capacity(LINE_BYTES);
        record.write(destination.settings.format, &mut line);
        let size = line.capacity();
        shared.queued_bytes.fetch_add(size, Ordering::Relaxed);
        if self.lines.try_send(Message { generation: destination.generation, line }).is_err() {
            shared.queued_bytes.fetch_sub(size, Ordering::Relaxed);
            shared.dropped.fetch_add(1, Ordering::Relaxed);
        }
    }

    /// Makes the writer look at its flags once it is through with what waits now. A full queue needs no waking; whether
    /// it was not full.
    pub(super) fn wake(&self) -> bool {
        // An empty line holds no memory and is never written.
        self.lines.try_send(Message { generation: 0, line: Vec::new() }).is_ok()
    }
}

#[cfg(test)]
mod tests {
    use super::super::record::tests::SAMPLE;
    use super::super::{AccessLogFormat, AccessLogTarget};
    use super::*;

    fn over(target: Target, format: AccessLogFormat) -> (AccessLog, AccessLogWriter) {
        AccessLog::over(target, AccessLogSettings { target: Some(AccessLogTarget::Stdout), format })
    }

    #[test]
    fn switched_off_it_does_nothing() {
        let settings = AccessLogSettings { target: None, format: AccessLogFormat::Json };
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
        let (log, _writer) = over(Target::of(io::sink()), AccessLogFormat::Text);
        let path = [b'a'; 100_000];
        for _ in 0..1000 {
            log.record(&AccessRecord { path: &path, ..SAMPLE });
        }
        let queued = log.queue.as_ref().unwrap().shared.queued_bytes.load(Ordering::Relaxed);
        assert!((QUEUE_BYTES..QUEUE_BYTES + 1_000_000).contains(&queued), "{queued}");
        assert!(log.dropped() > 500, "{}", log.dropped());
    }

    #[test]
    fn without_a_writer_lines_are_dropped() {
        let (log, writer) = over(Target::of(io::sink()), AccessLogFormat::Json);
        drop(writer);
        log.record(&SAMPLE);
        assert_eq!(log.dropped(), 1);
    }
}
