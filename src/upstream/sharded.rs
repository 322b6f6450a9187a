//! What every core writes, such as counters: a copy for each of a few threads, put together when they are read.
//!
//! The problem: a counter that all cores write lives on one cache line, which travels from core to core with every
//! request, some 50 to 100 ns each time. Here a thread writes the copy that is its own, or nearly so.
//!
//! The rule: threads are numbered as they start, and a thread's number, cut to the number of copies, says which is its
//! own. The workers of a runtime start one after the other, so they get different ones. Two threads that meet on one
//! copy still count right, only slower.
//!
//! Refused: thread locals, which are statics and lose what ended threads have counted; a copy drawn at random, which
//! spreads the waiting but not the travelling; the number of the core, which cannot be asked for without unsafe code.

use std::hash::{Hash, Hasher};
use std::num::NonZeroUsize;
use std::thread;

use crossbeam_utils::CachePadded;

/// The most copies there are. Each is as large as a `T`, and a pool has one `T` of several kilobytes.
const MOST: usize = 16;

/// Copies of a `T`, each on cache lines of its own.
#[derive(Debug)]
pub struct Sharded<T> {
    /// A power of two of them.
    copies: Box<[CachePadded<T>]>,
}

impl<T: Default> Sharded<T> {
    /// As many copies as there are cores, rounded up to a power of two, 16 at most.
    pub fn new() -> Self {
        let cores = thread::available_parallelism().map_or(1, NonZeroUsize::get);
        Self::of(cores.next_power_of_two().min(MOST))
    }

    /// So many copies, a power of two.
    pub(crate) fn of(copies: usize) -> Self {
        debug_assert!(copies.is_power_of_two());
        Sharded { copies: std::iter::repeat_with(CachePadded::default).take(copies).collect() }
    }
}

impl<T: Default> Default for Sharded<T> {
    fn default() -> Self {
        Self::new()
    }
}

impl<T> Sharded<T> {
    /// The copy that this thread writes. Costs some nanoseconds.
    pub fn mine(&self) -> &T {
        let mut number = Number(0);
        thread::current().id().hash(&mut number);
        &self.copies[number.0 as usize & (self.copies.len() - 1)]
    }

    /// All copies, to be put together. Always in the same order.
    pub fn iter(&self) -> impl Iterator<Item = &T> {
        self.copies.iter().map(|copy| &**copy)
    }
}

/// Takes the number out of a thread's id, which shows it to hashers only. Not a good hash, and that is the point:
/// numbers that follow on each other fall on different copies.
struct Number(u64);

impl Hasher for Number {
    fn finish(&self) -> u64 {
        self.0
    }

    fn write(&mut self, bytes: &[u8]) {
        for byte in bytes {
            self.0 = self.0.rotate_left(8) ^ u64::from(*byte);
        }
    }

    fn write_u64(&mut self, number: u64) {
        self.0 = number;
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashSet;
    use std::sync::Barrier;
    use std::sync::atomic::{AtomicU64, Ordering};

    use super::*;

    #[test]
    fn nothing_is_lost_among_threads() {
        let counter = Sharded::<AtomicU64>::new();
        thread::scope(|scope| {
            for _ in 0..32 {
                scope.spawn(|| (0..1000).for_each(|_| _ = counter.mine().fetch_add(1, Ordering::Relaxed)));
            }
        });
        assert_eq!(counter.iter().map(|copy| copy.load(Ordering::Relaxed)).sum::<u64>(), 32_000);
    }

    #[test]
    fn a_thread_keeps_its_copy_and_many_threads_do_not_share_one() {
        let sharded = Sharded::<AtomicU64>::new();
        let place = |copy: &AtomicU64| std::ptr::from_ref(copy).addr();
        assert_eq!(place(sharded.mine()), place(sharded.mine()));
        // Other tests start threads in between, so not every thread falls on the next copy.
        let threads = 16 * sharded.copies.len();
        let all_alive = Barrier::new(threads);
        let used: HashSet<usize> = thread::scope(|scope| {
            let started = (0..threads).map(|_| {
                scope.spawn(|| {
                    all_alive.wait();
                    place(sharded.mine())
                })
            });
            let started: Vec<_> = started.collect();
            started.into_iter().map(|thread| thread.join().unwrap()).collect()
        });
        assert!(used.len() > sharded.copies.len() / 2, "{threads} threads use {} copies", used.len());
    }
}
