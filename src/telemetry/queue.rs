//! Log lines on their way from the threads that make them to the one that writes: access lines above all.
//!
//! The problem: in one queue for all threads each line is an allocation that another thread frees, and the queue's ends
//! travel from core to core with every request. Together that cost a request more than its line did.
//!
//! The rule: each thread puts its lines into a batch of its own, or one that few share. The writer takes whole batches
//! and leaves empty ones, which is an exchange of pointers under the batch's lock, and merges what it took by when
//! requests ended: lines are in that order as far as they were taken together. It is woken by the first line of a
//! batch, not by every one.
//!
//! What waits or is being written is bounded, for all threads together: a batch is granted a piece of the bound
//! whenever its last one is used up, so that the bound itself is seldom touched. A line that finds no room is refused.
//!
//! Refused: one buffer for all threads under a lock, which a thread that is put to sleep inside would hold for all
//! others; the same bound for each thread, which one busy thread would reach with most of the memory unused.

use std::ops::Range;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::{Condvar, Mutex};

use super::timestamp::SecondText;
use crate::upstream::Sharded;

/// How much text may wait or be written, give or take [`GRANT`] and a line for each thread: a second of usual lines at
/// 50,000 requests a second. Buffers double as they grow, so that the memory for it is at most twice that.
pub(super) const QUEUE_BYTES: usize = 16 << 20;
/// How much of that a batch is granted at a time.
const GRANT: usize = 32 << 10;
/// A buffer that has grown larger than this is not kept for the next lines.
const KEPT_BYTES: usize = 128 << 10;

/// Both ends.
#[derive(Debug)]
pub(super) struct LineQueue {
    batches: Sharded<Mutex<LineBatch>>,
    /// How much text may wait or be written, give or take [`GRANT`] and a line for each batch.
    most: usize,
    /// What batches were granted and the writer has not given back.
    granted: AtomicUsize,
    /// Nobody takes lines any more.
    closed: AtomicBool,
    /// Lines that were refused, or given up later.
    dropped: AtomicU64,
    bell: Bell,
}

/// Lines of one thread, or of a few.
#[derive(Debug, Default)]
pub(super) struct LineBatch {
    /// One after the other.
    text: Vec<u8>,
    /// In the order in which they were put there.
    lines: Vec<QueuedLine>,
    granted: usize,
    seconds: SecondText,
}

/// A line of a batch.
#[derive(Debug)]
struct QueuedLine {
    /// When its request ended.
    at: SystemTime,
    generation: u64,
    /// Where it is in the text.
    place: Range<usize>,
}

impl LineQueue {
    /// For lines of all threads, each of which has a batch.
    pub(super) fn new() -> Arc<Self> {
        Self::over(Sharded::new(), QUEUE_BYTES)
    }

    pub(super) fn over(batches: Sharded<Mutex<LineBatch>>, most: usize) -> Arc<Self> {
        Arc::new(LineQueue {
            batches,
            most,
            granted: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            bell: Bell::default(),
        })
    }

    /// Puts the line that `write` appends into the queue, for a request that ended at `at`. Where there is no room,
    /// nothing is written and the line counts as dropped. Waits for an exchange of pointers at most, and for a thread
    /// that has the same batch; never for what the writer does.
    pub(super) fn push(&self, generation: u64, at: SystemTime, write: impl FnOnce(&mut SecondText, &mut Vec<u8>)) {
        self.put(self.batches.mine(), generation, at, write);
    }

    fn put(
        &self,
        batch: &Mutex<LineBatch>,
        generation: u64,
        at: SystemTime,
        write: impl FnOnce(&mut SecondText, &mut Vec<u8>),
    ) {
        let mut batch = batch.lock();
        // Asked while the batch is locked: whoever closes looks at it afterwards.
        if self.closed.load(Ordering::Relaxed) || !self.has_room(&mut batch) {
            return self.lose(1);
        }
        let LineBatch { text, lines, seconds, .. } = &mut *batch;
        let (start, first) = (text.len(), lines.is_empty());
        write(seconds, text);
        lines.push(QueuedLine { at, generation, place: start..text.len() });
        if first {
            // With the batch locked: whoever adds to a batch that is not empty finds that it was rung for.
            self.bell.ring();
        }
    }

    fn has_room(&self, batch: &mut LineBatch) -> bool {
        while batch.text.len() >= batch.granted {
            if self.granted.load(Ordering::Relaxed) >= self.most {
                return false;
            }
            self.granted.fetch_add(GRANT, Ordering::Relaxed);
            batch.granted += GRANT;
        }
        true
    }

    /// Wakes the writer without a line.
    pub(super) fn ring(&self) {
        self.bell.ring();
    }

    /// Counts lines that were given up.
    pub(super) fn lose(&self, lines: u64) {
        self.dropped.fetch_add(lines, Ordering::Release);
    }

    /// Lines that were refused or given up so far.
    pub(super) fn dropped(&self) -> u64 {
        self.dropped.load(Ordering::Acquire)
    }

    /// Whether no line waits or is being written.
    pub(super) fn is_idle(&self) -> bool {
        self.granted.load(Ordering::Relaxed) == 0
    }

    /// Memory that lines take, as far as it was granted to them.
    #[cfg(test)]
    pub(super) fn granted(&self) -> usize {
        self.granted.load(Ordering::Relaxed)
    }
}

/// The end that takes lines out. Once it is dropped the queue takes none.
#[derive(Debug)]
pub(super) struct QueueReader {
    queue: Arc<LineQueue>,
    /// For each batch the one that was taken last.
    taken: Vec<TakenBatch>,
}

/// A batch that was taken.
#[derive(Debug, Default)]
struct TakenBatch {
    batch: LineBatch,
    /// How many of its lines were handed out.
    read: usize,
}

impl QueueReader {
    pub(super) fn new(queue: &Arc<LineQueue>) -> Self {
        let taken = queue.batches.iter().map(|_| TakenBatch::default()).collect();
        QueueReader { queue: Arc::clone(queue), taken }
    }

    /// Waits until there may be a line, or somebody rang.
    pub(super) fn wait(&self) {
        self.queue.bell.wait();
    }

    /// Takes the lines there are, and hands each with its generation to `write`, in the order in which their requests
    /// ended; those of one batch in the order in which they were put there. A line that comes meanwhile may be left for
    /// the next time, though one that is taken ended later.
    pub(super) fn take(&mut self, mut write: impl FnMut(u64, &[u8])) {
        for (batch, taken) in self.queue.batches.iter().zip(&mut self.taken) {
            std::mem::swap(&mut *batch.lock(), &mut taken.batch);
        }
        // Usually few have any, and each line is looked for among those that are left.
        let mut left: Vec<&mut TakenBatch> = self.taken.iter_mut().filter(|taken| taken.next().is_some()).collect();
        while let Some(first) = (0..left.len()).min_by_key(|index| left[*index].next()) {
            left[first].read(&mut write);
            if left[first].next().is_none() {
                left.remove(first);
            }
        }
        self.clear();
    }

    /// Makes room for other lines; how many of those that were taken had not been handed out.
    fn clear(&mut self) -> u64 {
        let mut unread = 0;
        for taken in &mut self.taken {
            unread += (taken.batch.lines.len() - taken.read) as u64;
            self.queue.granted.fetch_sub(taken.clear(), Ordering::Relaxed);
        }
        unread
    }
}

impl Drop for QueueReader {
    fn drop(&mut self) {
        self.queue.closed.store(true, Ordering::Relaxed);
        // There are some when what they were handed to has panicked.
        let mut lost = self.clear();
        // Whoever locks a batch from here on sees that it is closed; what was put there before is lost.
        self.take(|_, _| lost += 1);
        self.queue.lose(lost);
    }
}

impl TakenBatch {
    /// When the request of the next line ended.
    fn next(&self) -> Option<SystemTime> {
        self.batch.lines.get(self.read).map(|line| line.at)
    }

    /// Hands out the next line.
    fn read(&mut self, write: &mut impl FnMut(u64, &[u8])) {
        let QueuedLine { generation, place, .. } = &self.batch.lines[self.read];
        self.read += 1;
        write(*generation, &self.batch.text[place.clone()]);
    }

    /// Makes it ready for other lines; how much it had been granted.
    fn clear(&mut self) -> usize {
        let granted = std::mem::take(&mut self.batch.granted);
        if self.batch.text.capacity() > KEPT_BYTES {
            self.batch = LineBatch::default();
        }
        self.batch.text.clear();
        self.batch.lines.clear();
        self.read = 0;
        granted
    }
}

/// Wakes the one who waits.
#[derive(Debug, Default)]
struct Bell {
    rung: Mutex<bool>,
    changed: Condvar,
}

impl Bell {
    fn ring(&self) {
        let mut rung = self.rung.lock();
        if !std::mem::replace(&mut *rung, true) {
            self.changed.notify_one();
        }
    }

    /// Returns at once when it was rung since it returned last.
    fn wait(&self) {
        let mut rung = self.rung.lock();
        self.changed.wait_while(&mut rung, |rung| !*rung);
        *rung = false;
    }
}

#[cfg(test)]
mod tests;
