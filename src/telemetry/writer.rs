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

use super::access_log::{Message, QUEUE_LINES, Queue, Shared};
use super::drops::{Counters, Drops};
use super::outlet::Outlet;
use super::output::Target;

/// How long lines gather before they are written. A thread that is woken for each line costs a request more than the line
/// does: two switches between threads. Far from filling the queue, and a delay that nobody who reads a log sees.
const GATHER: Duration = Duration::from_millis(5);
/// How long stopping waits for the last lines.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// The access log's writer, not yet running.
pub struct AccessLogWriter {
    target: Target,
    lines: Receiver<Message>,
    queue: Queue,
}

impl AccessLogWriter {
    pub(super) fn new(target: Target, lines: Receiver<Message>, queue: Queue) -> Self {
        AccessLogWriter { target, lines, queue }
    }

    /// Starts the thread. Call it when the process will not fork any more, since threads do not survive a fork.
    ///
    /// # Errors
    /// When the system gives no thread, or standard output is not open.
    pub fn start(self) -> io::Result<AccessLogGuard> {
        let AccessLogWriter { target, lines, queue } = self;
        let outlet = Outlet::new(0, target.start()?);
        let shared = Arc::clone(&queue.shared);
        *shared.name.lock() = outlet.name.clone();
        let mut worker = Worker { lines, shared, outlets: VecDeque::from([outlet]), known: 0 };
        let (alive, ended) = sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            worker.run();
            drop(worker);
            drop(alive);
        })?;
        Ok(AccessLogGuard { running: Some(Running { queue, thread, ended, drops: Drops::default() }) })
    }
}

/// Keeps the writer running; dropping it stops the writer as [`stop`](AccessLogGuard::stop) does.
#[must_use = "the writer stops when this is dropped"]
pub struct AccessLogGuard {
    running: Option<Running>,
}

struct Running {
    queue: Queue,
    thread: JoinHandle<()>,
    /// Closed when the thread has ended.
    ended: Receiver<()>,
    drops: Drops,
}

impl AccessLogGuard {
    /// Tells the event log when lines began to be lost, that they still are (once a minute), and when that is over. To
    /// be called about once a second; never waits for the writer.
    pub fn tick(&mut self, now: Instant) {
        if let Some(event) = self.event(now) {
            log::warn!("{event}");
        }
    }

    fn event(&mut self, now: Instant) -> Option<String> {
        let running = self.running.as_mut()?;
        let shared = &*running.queue.shared;
        if shared.switching.load(Ordering::SeqCst) {
            // An idle log would keep the old file open until the next line.
            running.queue.wake();
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
        let shared = Arc::clone(&running.queue.shared);
        shared.stop.store(true, Ordering::SeqCst);
        running.queue.wake();
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

fn counters(shared: &Shared) -> Counters {
    Counters {
        written: shared.written.load(Ordering::Acquire),
        dropped: shared.dropped.load(Ordering::Acquire),
        failure: shared.failure.lock().clone(),
    }
}

/// The thread.
struct Worker {
    lines: Receiver<Message>,
    shared: Arc<Shared>,
    /// By generation; there is always one. All but the last get what is left for them.
    outlets: VecDeque<Outlet>,
    /// The latest generation whose outlet is known to be here.
    known: u64,
}

impl Worker {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let Ok(message) = self.lines.recv() else {
                break;
            };
            self.take(message);
            if !self.shared.stop.load(Ordering::SeqCst) {
                std::thread::park_timeout(GATHER);
            }
            self.take_waiting(QUEUE_LINES);
            if self.shared.switching.load(Ordering::SeqCst) {
                self.settle();
            }
        }
        // As much as can have waited when the flag was set; whoever still records may not keep the thread alive.
        self.take_waiting(QUEUE_LINES);
        self.outlets.drain(..).for_each(|outlet| outlet.close(&self.shared));
    }

    /// Writes what waits, at most `limit` lines.
    fn take_waiting(&mut self, limit: usize) {
        for _ in 0..limit {
            match self.lines.try_recv() {
                Ok(message) => self.take(message),
                Err(_) => break,
            }
        }
        self.outlets.iter_mut().for_each(|outlet| outlet.flush(&self.shared));
    }

    fn take(&mut self, message: Message) {
        let Message { generation, line } = message;
        self.shared.queued_bytes.fetch_sub(line.capacity(), Ordering::Relaxed);
        // What was recorded before the request goes to the old file, what was recorded after it to the new one.
        let asked = line.is_empty() && self.shared.reopen.swap(false, Ordering::SeqCst);
        let at_once = self.shared.reopen_at_once.load(Ordering::SeqCst)
            && self.shared.reopen_at_once.swap(false, Ordering::SeqCst);
        if asked || at_once {
            // Whoever asked may mean a file that is to be written to from now on.
            self.adopt();
            if let Some(outlet) = self.outlets.back_mut() {
                outlet.reopen(&self.shared);
            }
        }
        if generation > self.known {
            self.adopt();
            self.known = generation;
        }
        if let Some(outlet) = self.outlets.iter_mut().rev().find(|outlet| outlet.from <= generation) {
            outlet.push(&line, &self.shared);
        }
    }

    /// Takes over the outlets that wait.
    fn adopt(&mut self) {
        let waiting = std::mem::take(&mut self.shared.switches.lock().waiting);
        for (from, output) in waiting {
            // Two outlets may be one file by two names: what was recorded earlier is there first.
            self.outlets.iter_mut().for_each(|outlet| outlet.flush(&self.shared));
            let outlet = Outlet::new(from, output);
            *self.shared.name.lock() = outlet.name.clone();
            self.outlets.push_back(outlet);
        }
    }

    /// Closes the outlets that get no more lines.
    fn settle(&mut self) {
        self.adopt();
        let oldest = self.shared.switches.lock().oldest();
        let ends = self.outlets.iter().skip(1).map(|next| next.from);
        let over = ends.take_while(|end| *end <= oldest).count();
        if over > 0 {
            // Whatever is left for them is in the queue by now.
            self.take_waiting(QUEUE_LINES);
            self.outlets.drain(..over).for_each(|outlet| outlet.close(&self.shared));
        }
        let mut switches = self.shared.switches.lock();
        if self.outlets.len() == 1 && switches.waiting.is_empty() && switches.oldest() == u64::MAX {
            self.shared.switching.store(false, Ordering::SeqCst);
        }
    }
}

#[cfg(test)]
pub(super) mod tests;
