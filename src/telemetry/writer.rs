//! The access log's far end: the thread that writes.
//!
//! What waits in the queue goes out in one write, and at once: an idle log shows each line as it happens, a busy one
//! takes few system calls.
//!
//! A write may fail or block for ever. Failed lines are dropped and counted, the next ones are tried again. A blocked
//! write blocks this thread alone; the queue fills and requests drop their lines. Stopping waits a second for it, then
//! leaves it behind. Standard output is not made non-blocking instead, because that would change it for every process
//! that shares it.

use std::io;
use std::path::PathBuf;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{Receiver, RecvTimeoutError, sync_channel};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use super::access_log::{QUEUE_LINES, Queue, Shared};
use super::drops::{Counters, Drops};
use super::output::{Output, Target};
use super::sink::LineSink;

/// How many lines are taken between two looks at whether to stop.
const ROUND: usize = 1024;
/// How long stopping waits for the last lines.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// The access log's writer, not yet running.
pub struct AccessLogWriter {
    /// `None` when the access log is off.
    parts: Option<(Target, Receiver<Vec<u8>>, Queue)>,
}

impl AccessLogWriter {
    pub(super) fn off() -> Self {
        AccessLogWriter { parts: None }
    }

    pub(super) fn new(target: Target, lines: Receiver<Vec<u8>>, queue: Queue) -> Self {
        AccessLogWriter { parts: Some((target, lines, queue)) }
    }

    /// Starts the thread. Call it when the process will not fork any more, since threads do not survive a fork.
    ///
    /// # Errors
    /// When the system gives no thread, or standard output is not open.
    pub fn start(self) -> io::Result<AccessLogGuard> {
        let Some((target, lines, queue)) = self.parts else {
            return Ok(AccessLogGuard { running: None });
        };
        let Output { out, path, batch } = target.start()?;
        let name = path.as_ref().map_or_else(|| "on standard output".to_owned(), |path| path.display().to_string());
        let shared = Arc::clone(&queue.shared);
        let mut worker =
            Worker { lines, shared, sink: LineSink::new(out), batch, path, name: name.clone(), failing: false };
        let (alive, ended) = sync_channel::<()>(0);
        let thread = std::thread::Builder::new().name("access-log".to_owned()).spawn(move || {
            worker.run();
            drop(worker);
            drop(alive);
        })?;
        Ok(AccessLogGuard { running: Some(Running { queue, thread, ended, name, drops: Drops::default() }) })
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
    name: String,
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
        let event = running.drops.observe(now, &counters(&running.queue.shared))?;
        Some(format!("access log {}: {event}", running.name))
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
        if running.ended.recv_timeout(STOP_WAIT) == Err(RecvTimeoutError::Timeout) {
            log::warn!("access log {}: did not take the last lines within a second, they are lost", running.name);
        } else if running.thread.join().is_err() {
            log::error!("access log {}: its writer had failed", running.name);
        }
        if let Some(event) = running.drops.finish(&counters(&shared)) {
            log::warn!("access log {}: {event}", running.name);
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
    lines: Receiver<Vec<u8>>,
    shared: Arc<Shared>,
    sink: LineSink,
    batch: usize,
    path: Option<PathBuf>,
    name: String,
    failing: bool,
}

impl Worker {
    fn run(&mut self) {
        while !self.shared.stop.load(Ordering::SeqCst) {
            let Ok(line) = self.lines.recv() else {
                break;
            };
            self.take(line);
            self.take_waiting(ROUND);
        }
        // As much as can have waited when the flag was set; whoever still records may not keep the thread alive.
        self.take_waiting(QUEUE_LINES);
        let given_up = self.sink.give_up();
        self.shared.dropped.fetch_add(given_up, Ordering::Relaxed);
    }

    /// Writes what waits, at most `limit` lines.
    fn take_waiting(&mut self, limit: usize) {
        for _ in 0..limit {
            match self.lines.try_recv() {
                Ok(line) => self.take(line),
                Err(_) => break,
            }
        }
        self.flush();
    }

    fn take(&mut self, line: Vec<u8>) {
        self.shared.queued_bytes.fetch_sub(line.capacity(), Ordering::Relaxed);
        // Looked at before each line, so that a line recorded after the request goes to the new file.
        if self.shared.reopen.load(Ordering::SeqCst) && self.shared.reopen.swap(false, Ordering::SeqCst) {
            self.reopen();
        }
        if self.sink.size() + line.len() > self.batch {
            self.flush();
        }
        self.sink.push(&line);
    }

    fn flush(&mut self) {
        if self.sink.size() == 0 {
            return;
        }
        let flushed = self.sink.flush();
        // The reason before the counters, so that whoever sees them grow finds it.
        if self.failing || flushed.failure.is_some() {
            self.failing = flushed.failure.is_some();
            *self.shared.failure.lock() = flushed.failure.map(|error| error.to_string());
        }
        self.shared.written.fetch_add(flushed.written, Ordering::Release);
        self.shared.dropped.fetch_add(flushed.dropped, Ordering::Release);
    }

    fn reopen(&mut self) {
        // What was recorded before belongs to the old file, the rest of a torn line above all.
        self.flush();
        match self.path.as_deref().map(Output::file) {
            None => {}
            Some(Ok(output)) => {
                self.batch = output.batch;
                let lost = self.sink.replace(output.out);
                self.shared.dropped.fetch_add(lost, Ordering::Relaxed);
                log::info!("access log {}: reopened", self.name);
            }
            Some(Err(error)) => {
                log::warn!("access log {}: reopening failed, the old file is kept: {error}", self.name);
            }
        }
    }
}

#[cfg(test)]
mod tests;
