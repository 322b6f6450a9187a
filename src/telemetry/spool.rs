//! Event lines on their way to standard error: a queue, and a thread that writes.
//!
//! The problem: standard error may be a pipe that nobody reads. Whoever writes there waits for ever, and with it
//! everybody who waits for what it has locked.
//!
//! The rule: whoever has something to say puts the line into a bounded queue, in order, and goes on. A line that finds
//! no room is dropped and counted. One thread writes, at once, as an event is looked for when it happens. Lines that
//! come before there is the thread, while the process starts, wait in the queue. At the end the thread gets a second
//! for the rest, and is left behind when it is stuck.
//!
//! Refused: standard error that does not block, as that would change it for every process that shares it; the thread of
//! the access log, which standard output may hold.

use std::io::{self, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, SystemTime};

use parking_lot::{Condvar, Mutex};
use rustix::event::{PollFd, PollFlags, poll};
use rustix::stdio::stderr;

use super::drops::Counters;
use super::queue::{LineQueue, QueueReader};
use super::sink::LineSink;
use crate::upstream::Sharded;

/// How much text may wait: some ten thousand lines.
pub(super) const SPOOL_BYTES: usize = 1 << 20;
/// How much goes out in one write, which a pipe takes whole or not at all.
const BATCH: usize = 4096;
/// How long anybody waits for the thread.
const PATIENCE: Duration = Duration::from_secs(1);

/// The near end, for any thread.
pub(super) struct Spool {
    queue: Arc<LineQueue>,
    progress: Arc<SpoolProgress>,
    /// Until it runs.
    writer: Mutex<Option<SpoolWriter>>,
}

/// How far the thread is.
#[derive(Default)]
struct SpoolProgress {
    /// Lines written in full.
    written: AtomicU64,
    /// Why the latest write failed, if it did.
    failure: Mutex<Option<String>>,
    /// How often it was asked to write all there is.
    asked: AtomicU64,
    /// How many times of these it has.
    done: Mutex<u64>,
    changed: Condvar,
    /// It is to write what waits, and end.
    stop: AtomicBool,
}

/// The far end.
struct SpoolWriter {
    lines: QueueReader,
    queue: Arc<LineQueue>,
    progress: Arc<SpoolProgress>,
    sink: LineSink,
}

impl Spool {
    /// Lines that `out` will get, which is not buffered.
    pub(super) fn new(out: Box<dyn Write + Send>) -> Self {
        // One batch, so that lines stay in their order whatever the clock does. There are few.
        let queue = LineQueue::over(Sharded::of(1), SPOOL_BYTES);
        let progress = Arc::new(SpoolProgress::default());
        let writer = SpoolWriter {
            lines: QueueReader::new(&queue),
            queue: Arc::clone(&queue),
            progress: Arc::clone(&progress),
            sink: LineSink::new(out),
        };
        Spool { queue, progress, writer: Mutex::new(Some(writer)) }
    }

    /// Queues a line, which was made at `at` and ends in the only line end that it holds. Never waits for a write.
    pub(super) fn push(&self, at: SystemTime, line: &[u8]) {
        self.queue.push(0, at, |_, out| out.extend_from_slice(line));
    }

    /// Starts the thread, unless it runs.
    ///
    /// # Errors
    /// When the system gives no thread.
    pub(super) fn start(&self) -> io::Result<()> {
        let Some(writer) = self.writer.lock().take() else { return Ok(()) };
        std::thread::Builder::new().name("event-log".to_owned()).spawn(move || writer.run()).map(drop)
    }

    /// Whether lines that are queued now get any further.
    pub(super) fn is_running(&self) -> bool {
        self.writer.lock().is_none() && !self.progress.stop.load(Ordering::SeqCst)
    }

    /// Waits until what was queued before is written, a second at most.
    pub(super) fn settle(&self) {
        if self.is_running() {
            self.wait_for(self.progress.asked.fetch_add(1, Ordering::SeqCst) + 1);
        }
    }

    /// Has everything written, and ends the thread. Waits a second at most; one that is stuck is left behind. Lines
    /// that come later are dropped.
    pub(super) fn stop(&self) {
        // Without the thread they would wait for ever; and without a thread there is nothing to be done.
        drop(self.start());
        self.progress.stop.store(true, Ordering::SeqCst);
        self.wait_for(u64::MAX);
    }

    fn wait_for(&self, turn: u64) {
        self.queue.ring();
        let mut done = self.progress.done.lock();
        self.progress.changed.wait_while_for(&mut done, |done| *done < turn, PATIENCE);
    }

    /// Lines lost so far, because there was no room or a write failed.
    pub(super) fn dropped(&self) -> u64 {
        self.queue.dropped()
    }

    pub(super) fn counters(&self) -> Counters {
        Counters {
            written: self.progress.written.load(Ordering::Acquire),
            dropped: self.dropped(),
            failure: self.progress.failure.lock().clone(),
            idle: self.queue.is_idle(),
        }
    }
}

impl Drop for Spool {
    fn drop(&mut self) {
        self.stop();
    }
}

impl SpoolWriter {
    /// Writes until it is to stop, and then what waits.
    fn run(mut self) {
        let mut stop = false;
        while !stop {
            self.lines.wait();
            // Before it looks at what there is: who asks has queued before.
            let asked = self.progress.asked.load(Ordering::SeqCst);
            stop = self.progress.stop.load(Ordering::SeqCst);
            self.write();
            *self.progress.done.lock() = if stop { u64::MAX } else { asked };
            self.progress.changed.notify_all();
        }
        self.queue.lose(self.sink.give_up());
    }

    fn write(&mut self) {
        let SpoolWriter { lines, queue, progress, sink } = self;
        lines.take(|_, line| {
            if sink.size() + line.len() > BATCH {
                flush(sink, queue, progress);
            }
            sink.push(line);
        });
        flush(sink, queue, progress);
    }
}

fn flush(sink: &mut LineSink, queue: &LineQueue, progress: &SpoolProgress) {
    if sink.size() == 0 {
        return;
    }
    let flushed = sink.flush();
    // The reason before the counters, so that whoever sees them grow finds it.
    *progress.failure.lock() = flushed.failure.map(|error| error.to_string());
    progress.written.fetch_add(flushed.written, Ordering::Release);
    queue.lose(flushed.dropped);
}

/// Standard error as it is at each write: a daemon's is replaced. Past the lock of [`std::io::stderr`], which whoever
/// is stuck would hold.
pub(super) struct Stderr;

impl Write for Stderr {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        loop {
            match rustix::io::write(stderr(), bytes) {
                // Somebody who shares it wants it so.
                Err(rustix::io::Errno::AGAIN) => _ = poll(&mut [PollFd::new(&stderr(), PollFlags::OUT)], None),
                written => return Ok(written?),
            }
        }
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::io::Read;

    use super::*;
    use crate::clock::{Clock, SystemClock};

    fn push(spool: &Spool, line: &str) {
        spool.push(SystemTime::UNIX_EPOCH, line.as_bytes());
    }

    #[test]
    fn lines_wait_for_the_thread_and_come_in_their_order_however_the_clock_goes() {
        let (mut reader, writer) = io::pipe().unwrap();
        let spool = Spool::new(Box::new(writer));
        for number in 0..1000_u64 {
            let at = SystemTime::UNIX_EPOCH + Duration::from_secs(1000 - number);
            spool.push(at, format!("{number}\n").as_bytes());
        }
        spool.settle();
        assert_eq!(spool.counters().written, 0);
        spool.start().unwrap();
        spool.start().unwrap();
        spool.settle();
        assert_eq!(spool.counters(), Counters { written: 1000, idle: true, ..Counters::default() });
        push(&spool, "last\n");
        drop(spool);
        let mut text = String::new();
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, (0..1000).map(|number| format!("{number}\n")).collect::<String>() + "last\n");
    }

    #[test]
    fn without_a_thread_the_end_brings_them_out() {
        let (mut reader, writer) = io::pipe().unwrap();
        let spool = Spool::new(Box::new(writer));
        push(&spool, "only\n");
        spool.stop();
        push(&spool, "late\n");
        let mut text = String::new();
        drop(spool);
        reader.read_to_string(&mut text).unwrap();
        assert_eq!(text, "only\n");
    }

    #[test]
    fn a_pipe_that_nobody_reads_holds_nobody_and_memory_is_bounded() {
        let (mut reader, writer) = io::pipe().unwrap();
        let spool = Spool::new(Box::new(writer));
        spool.start().unwrap();
        let line = format!("{}\n", "x".repeat(999));
        let begin = SystemClock.now();
        (0..3000).for_each(|_| push(&spool, &line));
        spool.settle();
        spool.stop();
        assert!(SystemClock.now() - begin < Duration::from_secs(10));
        let lost = spool.dropped();
        assert!((1000..2500).contains(&lost), "{lost} of 3 MB are dropped, and one is kept");
        // Read at last, it goes on where it was, and the lines are whole.
        let mut some = vec![0; 100_000];
        reader.read_exact(&mut some).unwrap();
        assert!(some.chunks(1000).all(|chunk| chunk == line.as_bytes()));
    }

    #[test]
    fn what_cannot_be_written_is_counted() {
        let (reader, writer) = io::pipe().unwrap();
        drop(reader);
        let spool = Spool::new(Box::new(writer));
        spool.start().unwrap();
        push(&spool, "one\n");
        push(&spool, "two\n");
        spool.settle();
        let counters = spool.counters();
        assert_eq!((counters.written, counters.dropped), (0, 2));
        assert!(counters.failure.unwrap().contains("Broken pipe"));
    }
}
