//! Spans on their way from the threads that serve requests to the one that sends them.
//!
//! The problem: who takes spans may be slow or away, and no request may wait for that, nor memory grow.
//!
//! The rule: a bounded queue and one thread, which sends what has gathered in half a second. A span that finds no room,
//! or that nobody takes, is dropped and counted. The thread begins with the first span, as seen once a second by the
//! service that has the logs written: a process may fork before its services start, and one without traces has none.
//! A stop lets it send what waits, for a second; then it is left behind.
//!
//! Refused: the batch processor of OpenTelemetry's SDK. It tells nobody how many spans it has dropped, begins its thread
//! where it is made, before the fork, and its shutdown waits for whatever is under way.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, SyncSender, sync_channel};
use std::time::Duration;

use parking_lot::Mutex;

use super::spans::RequestSpan;

/// The most requests that wait.
const WAITING: usize = 2_048;
/// How long a stop waits for the last spans.
const STOP_WAIT: Duration = Duration::from_secs(1);

/// What waits.
#[derive(Debug)]
pub(super) enum QueuedSpan {
    /// A request, to be sent there.
    Request(Arc<str>, Box<RequestSpan>),
    /// Nothing: the thread is to see that it is to stop.
    Stop,
}

/// Where spans are put.
#[derive(Debug)]
pub struct SpanQueue {
    sender: SyncSender<QueuedSpan>,
    /// Until the thread has it.
    receiver: Mutex<Option<Receiver<QueuedSpan>>>,
    /// Closed when the thread has ended.
    ended: Mutex<Option<Receiver<()>>>,
    used: AtomicBool,
    stopping: AtomicBool,
    exported: AtomicU64,
    dropped: AtomicU64,
}

impl Default for SpanQueue {
    fn default() -> Self {
        let (sender, receiver) = sync_channel(WAITING);
        SpanQueue {
            sender,
            receiver: Mutex::new(Some(receiver)),
            ended: Mutex::default(),
            used: AtomicBool::new(false),
            stopping: AtomicBool::new(false),
            exported: AtomicU64::new(0),
            dropped: AtomicU64::new(0),
        }
    }
}

impl SpanQueue {
    /// Has the spans of a request sent to this address, or counts them as dropped. Never waits.
    pub fn put(&self, to: Arc<str>, span: Box<RequestSpan>) {
        let count = span.count();
        self.used.store(true, Ordering::Relaxed);
        if self.sender.try_send(QueuedSpan::Request(to, span)).is_err() {
            self.count_dropped(count);
        }
    }

    /// The spans that were taken.
    pub fn exported(&self) -> u64 {
        self.exported.load(Ordering::Relaxed)
    }

    /// The spans that were dropped.
    pub fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Relaxed)
    }

    /// Counts spans that were taken.
    pub fn count_exported(&self, spans: u64) {
        self.exported.fetch_add(spans, Ordering::Relaxed);
    }

    pub(super) fn count_dropped(&self, spans: u64) {
        self.dropped.fetch_add(spans, Ordering::Relaxed);
    }

    /// Whether the thread is to end.
    pub fn is_stopping(&self) -> bool {
        self.stopping.load(Ordering::SeqCst)
    }

    /// Starts the thread, which sends by `send_all`, once there was a span.
    pub(super) fn start(self: &Arc<Self>, send_all: fn(&Receiver<QueuedSpan>, &SpanQueue)) {
        if !self.used.load(Ordering::Relaxed) {
            return;
        }
        let Some(receiver) = self.receiver.lock().take() else { return };
        let (alive, ended) = sync_channel::<()>(0);
        let queue = Arc::clone(self);
        let thread = std::thread::Builder::new().name("traces".to_owned()).spawn(move || {
            send_all(&receiver, &queue);
            drop(alive);
        });
        match thread {
            Ok(_) => *self.ended.lock() = Some(ended),
            Err(error) => log::warn!("traces: there is no thread that sends them: {error}"),
        }
    }

    /// Has what waits sent, and ends the thread. Waits a second at most.
    pub(super) fn end(&self) {
        self.stopping.store(true, Ordering::SeqCst);
        // Where there is no room the thread is awake, and sees it after what it does.
        let _ = self.sender.try_send(QueuedSpan::Stop);
        let Some(ended) = self.ended.lock().take() else { return };
        if ended.recv_timeout(STOP_WAIT) == Err(RecvTimeoutError::Timeout) {
            log::warn!("traces: the last spans were not taken within a second, they are lost");
        }
    }
}
