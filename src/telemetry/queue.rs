//! Access lines on their way from the threads that serve requests to the one that writes.
//!
//! The problem: in one queue for all threads each line is an allocation that another thread frees, and the queue's ends
//! travel from core to core with every request. Together that cost a request more than its line did.
//!
//! The rule: each thread puts its lines into a batch of its own, behind a lock that nobody else wants but the writer. The
//! writer takes whole batches and leaves empty ones, which is an exchange of pointers, and merges them by when requests
//! ended: lines are in that order as far as they were taken together. It is woken by the first line of a batch, not by
//! every one.
//!
//! What waits or is being written is bounded, for all threads together: a batch is granted a piece of the bound whenever
//! its last one is used up, so that the bound itself is seldom touched. A line that finds no room is refused.
//!
//! Refused: one buffer for all threads under a lock, which a thread that is put to sleep inside would hold for all others;
//! the same bound for each thread, which one busy thread would reach with most of the memory unused.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::SystemTime;

use parking_lot::{Condvar, Mutex};

use super::timestamp::Seconds;
use crate::upstream::Sharded;

/// How much may wait or be written, give or take [`GRANT`] and a line for each thread: a second of usual lines at 50,000
/// requests a second.
pub(super) const QUEUE_BYTES: usize = 16 << 20;
/// How much of that a batch is granted at a time.
const GRANT: usize = 32 << 10;
/// A batch that was larger than this is not kept for the next lines.
const KEPT_BYTES: usize = 1 << 20;

/// Both ends.
#[derive(Debug)]
pub(super) struct Queue {
    batches: Sharded<Mutex<Batch>>,
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
struct Batch {
    /// One after the other.
    text: Vec<u8>,
    /// In the order in which they were put there.
    lines: Vec<Line>,
    granted: usize,
    seconds: Seconds,
}

/// A line of a batch.
#[derive(Debug)]
struct Line {
    /// When its request ended.
    at: SystemTime,
    generation: u64,
    length: usize,
}

impl Queue {
    pub(super) fn new() -> Arc<Self> {
        Arc::new(Queue {
            batches: Sharded::new(),
            granted: AtomicUsize::new(0),
            closed: AtomicBool::new(false),
            dropped: AtomicU64::new(0),
            bell: Bell::default(),
        })
    }

    /// Puts the line that `write` appends into the queue, for a request that ended at `at`. Where there is no room, nothing
    /// is written and the line counts as dropped. Waits for no other thread but one that shares its batch.
    pub(super) fn push(&self, generation: u64, at: SystemTime, write: impl FnOnce(&mut Seconds, &mut Vec<u8>)) {
        let mut batch = self.batches.mine().lock();
        // Asked while the batch is locked: whoever closes looks at it afterwards.
        if !self.has_room(&mut batch) || self.closed.load(Ordering::Relaxed) {
            return self.lose(1);
        }
        let Batch { text, lines, seconds, .. } = &mut *batch;
        let (start, first) = (text.len(), lines.is_empty());
        write(seconds, text);
        lines.push(Line { at, generation, length: text.len() - start });
        drop(batch);
        if first {
            self.bell.ring();
        }
    }

    fn has_room(&self, batch: &mut Batch) -> bool {
        while batch.text.len() >= batch.granted {
            if self.granted.load(Ordering::Relaxed) >= QUEUE_BYTES {
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

    /// Memory that lines take, as far as it was granted to them.
    #[cfg(test)]
    pub(super) fn granted(&self) -> usize {
        self.granted.load(Ordering::Relaxed)
    }
}

/// The end that takes lines out. Once it is dropped the queue takes none.
#[derive(Debug)]
pub(super) struct Lines {
    queue: Arc<Queue>,
    /// Batches that were taken, with how far they were read: of the text, and of the lines.
    taken: Vec<Taken>,
}

#[derive(Debug, Default)]
struct Taken {
    batch: Batch,
    text: usize,
    line: usize,
}

impl Lines {
    pub(super) fn new(queue: &Arc<Queue>) -> Self {
        let taken = queue.batches.iter().map(|_| Taken::default()).collect();
        Lines { queue: Arc::clone(queue), taken }
    }

    /// Waits until there may be a line, or somebody rang.
    pub(super) fn wait(&self) {
        self.queue.bell.wait();
    }

    /// Takes all lines there are, and hands each with its generation to `write`, in the order in which their requests ended.
    pub(super) fn take(&mut self, mut write: impl FnMut(u64, &[u8])) {
        for (batch, taken) in self.queue.batches.iter().zip(&mut self.taken) {
            std::mem::swap(&mut *batch.lock(), &mut taken.batch);
        }
        // Usually few have any, and each line is looked for among those that are left.
        let mut left: Vec<&mut Taken> = self.taken.iter_mut().filter(|taken| taken.next().is_some()).collect();
        while let Some(first) = (0..left.len()).min_by_key(|index| left[*index].next()) {
            left[first].read(&mut write);
            if left[first].next().is_none() {
                left.remove(first);
            }
        }
        for taken in &mut self.taken {
            self.queue.granted.fetch_sub(taken.clear(), Ordering::Relaxed);
        }
    }
}

impl Drop for Lines {
    fn drop(&mut self) {
        self.queue.closed.store(true, Ordering::Relaxed);
        // Whoever locks a batch from here on sees that; what was put there before is lost.
        let mut lost = 0;
        self.take(|_, _| lost += 1);
        self.queue.lose(lost);
    }
}

impl Taken {
    /// When the request of the next line ended.
    fn next(&self) -> Option<SystemTime> {
        self.batch.lines.get(self.line).map(|line| line.at)
    }

    /// Hands out the next line.
    fn read(&mut self, write: &mut impl FnMut(u64, &[u8])) {
        let Line { generation, length, .. } = self.batch.lines[self.line];
        write(generation, &self.batch.text[self.text..self.text + length]);
        self.text += length;
        self.line += 1;
    }

    /// Makes it ready for other lines; how much it had been granted.
    fn clear(&mut self) -> usize {
        let granted = std::mem::take(&mut self.batch.granted);
        if self.batch.text.capacity() > KEPT_BYTES {
            self.batch = Batch::default();
        }
        self.batch.text.clear();
        self.batch.lines.clear();
        (self.text, self.line) = (0, 0);
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
mod tests {
    use std::time::{Duration, UNIX_EPOCH};

    use super::*;

    fn push(queue: &Queue, at: u64, text: &str) {
        queue.push(7, UNIX_EPOCH + Duration::from_millis(at), |_, out| out.extend_from_slice(text.as_bytes()));
    }

    fn take(lines: &mut Lines) -> Vec<String> {
        let mut taken = Vec::new();
        lines.take(|generation, line| {
            assert_eq!(generation, 7);
            taken.push(String::from_utf8(line.to_vec()).unwrap());
        });
        taken
    }

    #[test]
    fn lines_of_several_threads_come_in_the_order_in_which_their_requests_ended() {
        let queue = Queue::new();
        let mut lines = Lines::new(&queue);
        for thread in 0..4 {
            let queue = Arc::clone(&queue);
            let of_thread =
                move || (0..5).for_each(|step| push(&queue, step * 4 + thread, &format!("{step} {thread}")));
            std::thread::spawn(of_thread).join().unwrap();
        }
        let expected: Vec<_> = (0..5).flat_map(|step| (0..4).map(move |thread| format!("{step} {thread}"))).collect();
        assert_eq!(take(&mut lines), expected);
        assert_eq!(take(&mut lines), [""; 0]);
        push(&queue, 0, "next");
        assert_eq!(take(&mut lines), ["next"]);
    }

    #[test]
    fn a_clock_that_is_set_back_does_not_turn_the_lines_of_a_thread_around() {
        let queue = Queue::new();
        let mut lines = Lines::new(&queue);
        [3, 1, 2].into_iter().for_each(|at| push(&queue, at, &at.to_string()));
        assert_eq!(take(&mut lines), ["3", "1", "2"]);
    }

    #[test]
    fn what_may_wait_is_bounded_and_there_is_room_again_afterwards() {
        let queue = Queue::new();
        let mut lines = Lines::new(&queue);
        let line = "a".repeat(1000);
        let pushes = 2 * QUEUE_BYTES / line.len();
        for _ in 0..3 {
            let before = queue.dropped();
            (0..pushes).for_each(|_| push(&queue, 0, &line));
            let waiting = take(&mut lines).len();
            assert_eq!(waiting as u64 + queue.dropped() - before, pushes as u64);
            assert!((QUEUE_BYTES..=QUEUE_BYTES + GRANT).contains(&(waiting * line.len())), "{waiting}");
            assert_eq!(queue.granted(), 0);
        }
    }

    #[test]
    fn what_is_left_or_comes_later_is_counted_when_nobody_takes_it() {
        let queue = Queue::new();
        let lines = Lines::new(&queue);
        push(&queue, 0, "left");
        drop(lines);
        assert_eq!(queue.dropped(), 1);
        push(&queue, 0, "late");
        assert_eq!(queue.dropped(), 2);
    }

    #[test]
    fn the_first_line_rings_and_a_ring_is_not_forgotten() {
        let queue = Queue::new();
        let mut lines = Lines::new(&queue);
        push(&queue, 0, "one");
        push(&queue, 0, "two");
        lines.wait();
        assert_eq!(take(&mut lines).len(), 2);
        queue.ring();
        lines.wait();
        let waiting = std::thread::spawn(move || {
            lines.wait();
            take(&mut lines)
        });
        push(&queue, 0, "three");
        assert_eq!(waiting.join().unwrap(), ["three"]);
    }
}
