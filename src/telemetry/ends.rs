//! What both ends of the access log know: where lines go now, what waits, and what the writer has yet to do.

use std::collections::VecDeque;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};

use arc_swap::ArcSwap;
use parking_lot::Mutex;

use super::output::Output;
use super::queue::LineQueue;
use super::{AccessLogSettings, AccessRecord};

/// What both ends know.
#[derive(Debug)]
pub(super) struct LogEnds {
    /// Whether lines are recorded at all. Looked at first, so that a log that is off costs no more than that.
    pub(super) on: AtomicBool,
    /// Whether they tell what is looked for among the lines of a request's header.
    pub(super) of_header: AtomicBool,
    /// Where a line that is recorded now goes, and in which form.
    pub(super) destination: ArcSwap<LogDestination>,
    /// What waits to be written.
    pub(super) queue: Arc<LineQueue>,
    /// What the writer has yet to do about other destinations.
    pub(super) switches: Mutex<Switches>,
    /// There is something in `switches`, or an outlet to be closed.
    pub(super) switching: AtomicBool,
    /// What the writer writes to, for people.
    pub(super) name: Mutex<String>,
    /// Lines written in full.
    pub(super) written: AtomicU64,
    /// Why the latest write failed, if it did.
    pub(super) failure: Mutex<Option<String>>,
    /// The writer is to write what waits, and end.
    pub(super) stop: AtomicBool,
}

/// Where lines go, and in which form.
#[derive(Debug)]
pub(super) struct LogDestination {
    /// One more than that of the one before.
    pub(super) generation: u64,
    /// With an absolute path.
    pub(super) settings: AccessLogSettings,
}

/// What is written to from some generation on.
#[derive(Debug)]
pub(super) enum NextOutput {
    /// Something else than before.
    Output(Output),
    /// The same path, opened again.
    Reopened,
}

/// What the writer has yet to do.
#[derive(Debug, Default)]
pub(super) struct Switches {
    /// What is written to from some generation on.
    pub(super) waiting: VecDeque<(u64, NextOutput)>,
    /// Destinations of before. Whoever holds one beside this may still queue a line for it.
    retired: Vec<Arc<LogDestination>>,
}

impl Switches {
    /// The oldest generation that may still get lines; [`u64::MAX`] when the present one is the only one.
    pub(super) fn oldest(&mut self) -> u64 {
        // Exclusive access also makes visible what was queued before the others let go.
        self.retired.retain_mut(|destination| Arc::get_mut(destination).is_none());
        self.retired.iter().map(|destination| destination.generation).min().unwrap_or(u64::MAX)
    }
}

impl LogEnds {
    pub(super) fn new(settings: AccessLogSettings) -> Self {
        LogEnds {
            on: AtomicBool::new(settings.target.is_some()),
            of_header: AtomicBool::new(settings.tells_of_header()),
            destination: ArcSwap::from_pointee(LogDestination { generation: 0, settings }),
            queue: LineQueue::new(),
            switches: Mutex::default(),
            switching: AtomicBool::default(),
            name: Mutex::default(),
            written: AtomicU64::default(),
            failure: Mutex::default(),
            stop: AtomicBool::default(),
        }
    }

    /// Queues the line for a request that was recorded while `destination` was the present one, unless it is one of
    /// those that get none.
    pub(super) fn push_for(&self, destination: &LogDestination, record: &AccessRecord<'_>) {
        let LogDestination { generation, settings } = destination;
        if settings.keeps_next() {
            self.queue.push(*generation, record.end(), |seconds, out| record.write(settings, seconds, out));
        }
    }

    /// Has the file opened again for what is recorded from now on.
    pub(super) fn reopen(&self) {
        let mut switches = self.switches.lock();
        // It is opened when the writer gets there, so once is enough while the writer is stuck.
        if !matches!(switches.waiting.back(), Some((_, NextOutput::Reopened))) {
            let settings = self.destination.load().settings.clone();
            self.switch(&mut switches, settings, Some(NextOutput::Reopened));
        }
    }

    pub(super) fn switch(&self, switches: &mut Switches, settings: AccessLogSettings, next: Option<NextOutput>) {
        let (generation, on) = (self.destination.load().generation + 1, settings.target.is_some());
        let of_header = settings.tells_of_header();
        // Those that nobody holds any more need not wait for the writer.
        switches.oldest();
        // Before any line of that generation.
        switches.waiting.extend(next.map(|next| (generation, next)));
        switches.retired.push(self.destination.swap(Arc::new(LogDestination { generation, settings })));
        self.on.store(on, Ordering::Relaxed);
        self.of_header.store(of_header, Ordering::Relaxed);
        self.switching.store(true, Ordering::SeqCst);
        self.queue.ring();
    }
}
