//! The access log's far end: the thread that writes.
//!
//! What waits in the queue goes out in one write, a few milliseconds after the first line of it: an idle log shows each
//! line as it happens, a busy one takes few system calls, and few switches to this thread.
//!
//! A write may fail or block for ever. Failed lines are dropped and counted, the next ones are tried again. A blocked
//! write blocks this thread alone; the queue fills and requests drop their lines. Stopping waits a second for it, then
//! leaves it behind. Standard output is not made non-blocking instead, because that would change it for every process
//! that shares it.

use std::collections::VecDeque;
use std::io;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::drops::{Counters, Drops};
use super::ends::{LogEnds, NextOutput};
use super::outlet::Outlet;
use super::output::LogTarget;
use super::queue::QueueReader;

/// How long lines gather before they are written. A thread that is woken for each line costs a request more than the
/// line does: two switches between threads. Far from filling the queue, and a delay that nobody who reads a log sees.
const GATHER: Duration = Duration::from_millis(5);
/// How long stopping waits for the last lines.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// The access log's writer, not yet running.
pub struct AccessLogWriter {
    target: LogTarget,
    lines: QueueReader,
    shared: Arc<LogEnds>,
}

impl AccessLogWriter {
    pub(super) fn new(target: LogTarget, shared: Arc<LogEnds>) -> Self {
        AccessLogWriter { target, lines: QueueReader::new(&shared.queue), shared }
    }

    /// Starts the thread. Call it when the process will not fork any more, since threads do not survive a fork.
    ///
    /// # Errors
    /// When the system gives no thread, or standard output is not open.
    pub fn start(self) -> io::Result<AccessLogGuard> {
        let AccessLogWriter { target, mut lines, shared } = self;
        let outlet = Outlet::new(0, target.start()?);
        *shared.name.lock() = outlet.name.clone();
        let mut outlets = Outlets { shared: Arc::clone(&shared), list: VecDeque::from([outlet]), known: 0 };
        let (alive, ended) = sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            outlets.run(&mut lines);
            drop((outlets, lines));
            drop(alive);
        })?;
        Ok(AccessLogGuard { running: Some(Running { shared, thread, ended, drops: Drops::default() }) })
    }
}

/// Keeps the writer running; dropping it stops the writer as [`stop`](AccessLogGuard::stop) does.
#[must_use = "the writer stops when this is dropped"]
pub struct AccessLogGuard {
    running: Option<Running>,
}

struct Running {
    shared: Arc<LogEnds>,
    thread: JoinHandle<()>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    drops: Drops,
}

impl AccessLogGuard {
    /// What to tell the event log: when lines began to be lost, that they still are (once a minute), and when that is
    /// over. To be called about once a second; never waits for the writer.
    pub fn tick(&mut self, now: Instant) -> Option<String> {
        let running = self.running.as_mut()?;
        let shared = &*running.shared;
        if shared.switching.load(Ordering::SeqCst) {
            // An idle log would keep the old file open until the next line.
            shared.queue.ring();
        }
        let event = running.drops.observe(now, &counters(shared))?;
        Some(format!("access log {}: {event}", shared.name.lock()))
    }

    /// Lets the writer write what is queued, and ends it. Waits a second at most: a writer that is stuck is left behind
    /// with its lines. Lines recorded afterwards are dropped.
    pub fn stop(self) {
        drop(self);
    }
}

impl Drop for AccessLogGuard {
    fn drop(&mut self) {
        let Some(mut running) = self.running.take() else {
            return;
        };
        let shared = Arc::clone(&running.shared);
        shared.stop.store(true, Ordering::SeqCst);
        shared.queue.ring();
        let name = shared.name.lock().clone();
        if running.ended.recv_timeout(STOP_WAIT) == Err(RecvTimeoutError::Timeout) {
            log::warn!("access log {name}: did not take the last lines within a second, they are lost");
        } else if running.thread.join().is_err() {
            log::error!("access log {name}: its writer had failed");
        }
        if let Some(event) = running.drops.finish(&counters(&shared)) {
            log::warn!("access log {name}: {event}");
        }
    }
}

fn counters(shared: &LogEnds) -> Counters {
    Counters {
        written: shared.written.load(Ordering::Acquire),
        dropped: shared.queue.dropped(),
        failure: shared.failure.lock().clone(),
        idle: shared.queue.is_idle(),
    }
}

/// What the thread writes to.
struct Outlets {
    shared: Arc<LogEnds>,
    /// By generation; there is always one. All but the last get what is left for them.
    list: VecDeque<Outlet>,
    /// The latest generation whose outlet is known to be here.
    known: u64,
}

impl Outlets {
    /// Writes until it is to stop, and then what waits.
    fn run(&mut self, lines: &mut QueueReader) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            lines.wait();
            if !self.shared.stop.load(Ordering::SeqCst) {
                std::thread::park_timeout(GATHER);
            }
            self.write(lines);
            if self.shared.switching.load(Ordering::SeqCst) {
                self.settle(lines);
            }
        }
        // Once only: whoever still records may not keep the thread alive.
        self.write(lines);
        self.close(self.list.len());
    }

    /// Writes what waits.
    fn write(&mut self, lines: &mut QueueReader) {
        lines.take(|generation, line| {
            if generation > self.known {
                self.adopt();
                self.known = generation;
            }
            if let Some(outlet) = self.list.iter_mut().rev().find(|outlet| outlet.from <= generation) {
                outlet.push(line, &self.shared);
            }
        });
        self.list.iter_mut().for_each(|outlet| outlet.flush(&self.shared));
    }

    /// Takes over the outlets that wait.
    fn adopt(&mut self) {
        let waiting = std::mem::take(&mut self.shared.switches.lock().waiting);
        for (from, next) in waiting {
            // Two outlets may be one file by two names: what was recorded earlier is there first.
            self.list.iter_mut().for_each(|outlet| outlet.flush(&self.shared));
            let outlet = match next {
                NextOutput::Output(output) => Some(Outlet::new(from, output)),
                NextOutput::Reopened => self.list.back().and_then(|outlet| outlet.reopened(from)),
            };
            if let Some(outlet) = outlet {
                *self.shared.name.lock() = outlet.name.clone();
                self.list.push_back(outlet);
            }
        }
    }

    /// Closes the `oldest` outlets.
    fn close(&mut self, oldest: usize) {
        self.list.drain(..oldest).for_each(|outlet| outlet.close(&self.shared));
        if !self.list.iter().any(|outlet| outlet.failing) {
            // Of whatever is written to from now on nothing bad is known.
            *self.shared.failure.lock() = None;
        }
    }

    /// Closes the outlets that get no more lines.
    fn settle(&mut self, lines: &mut QueueReader) {
        self.adopt();
        let oldest = self.shared.switches.lock().oldest();
        let ends = self.list.iter().skip(1).map(|next| next.from);
        let over = ends.take_while(|end| *end <= oldest).count();
        if over > 0 {
            // Whatever is left for them is in the queue by now.
            self.write(lines);
            self.close(over);
        }
        let mut switches = self.shared.switches.lock();
        if self.list.len() == 1 && switches.waiting.is_empty() && switches.oldest() == u64::MAX {
            self.shared.switching.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
