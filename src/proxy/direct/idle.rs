//! Connections to backends that wait for their next request.
//!
//! A connection is kept by the thread that used it last, so that threads do not meet at one lock, and the one that was
//! used last is taken first, so that those beyond the need grow old and are closed. Whether a connection is still good
//! is known without a system call: the runtime has been told of everything that came over it meanwhile.
//!
//! Pingora's own pool runs a task for each connection that waits, which is started and ended for every request.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::NonZeroUsize;
use std::time::Instant;

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::net::TcpStream;

use crate::upstream::Sharded;

/// The connections that wait. Any thread may use it at any time.
#[derive(Debug)]
pub struct Idle {
    shelves: Sharded<Mutex<Shelf>>,
    most: usize,
    shared: bool,
}

/// Those of one thread.
#[derive(Debug, Default)]
struct Shelf {
    waiting: HashMap<SocketAddr, Vec<Waiting>, RandomState>,
    count: usize,
}

#[derive(Debug)]
struct Waiting {
    connection: TcpStream,
    until: Instant,
}

impl Idle {
    /// Keeps at most `in_all` connections, of which each of so many `threads` has its share. When they are `shared`, a
    /// thread that has none takes those of the others; that is of use where all of them are driven by one runtime.
    pub fn new(in_all: usize, threads: NonZeroUsize, shared: bool) -> Self {
        // One for each: a thread that takes another's would be woken by that one's runtime.
        let shelves = Sharded::of(threads.get().next_power_of_two());
        Idle { shelves, most: in_all.div_ceil(threads.get()), shared }
    }

    /// A connection to `backend` that is still open at `now`.
    pub(super) fn take(&self, backend: SocketAddr, now: Instant) -> Option<TcpStream> {
        let mine = self.shelves.mine().lock().take(backend, now);
        mine.or_else(|| {
            let mut others = self.shelves.iter().filter(|_| self.shared);
            others.find_map(|shelf| shelf.lock().take(backend, now))
        })
    }

    /// Keeps `connection` to `backend` until it is taken or closed, or until `until`. It is closed at once when there
    /// are enough.
    pub(super) fn put(&self, backend: SocketAddr, connection: TcpStream, until: Instant) {
        let mut shelf = self.shelves.mine().lock();
        if shelf.count < self.most {
            shelf.count += 1;
            shelf.waiting.entry(backend).or_default().push(Waiting { connection, until });
        }
    }

    /// Closes those whose time is over at `now` and those that their backend has closed.
    pub fn sweep(&self, now: Instant) {
        for shelf in self.shelves.iter() {
            let over = shelf.lock().over(now);
            // Closing is a system call each, and nobody waits for the lock meanwhile.
            drop(over);
        }
    }

    /// How many there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.lock().count).sum()
    }
}

impl Shelf {
    fn take(&mut self, backend: SocketAddr, now: Instant) -> Option<TcpStream> {
        let waiting = self.waiting.get_mut(&backend)?;
        while let Some(last) = waiting.pop() {
            self.count -= 1;
            if last.is_good(now) {
                return Some(last.connection);
            }
        }
        None
    }

    fn over(&mut self, now: Instant) -> Vec<Waiting> {
        let mut over = Vec::new();
        self.waiting.retain(|_, waiting| {
            over.extend(waiting.extract_if(.., |one| !one.is_good(now)));
            !waiting.is_empty()
        });
        self.count -= over.len();
        over
    }
}

impl Waiting {
    /// Whether it may be used: its time is not over, and its backend has neither closed it nor said anything, which
    /// nobody asked for.
    fn is_good(&self, now: Instant) -> bool {
        let silent = |error: std::io::Error| error.kind() == std::io::ErrorKind::WouldBlock;
        now < self.until && self.connection.try_read(&mut [0]).is_err_and(silent)
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::TcpListener;

    use super::*;
    use crate::clock::{Clock, ManualClock};

    const SECOND: Duration = Duration::from_secs(1);

    struct Backend(TcpListener);

    impl Backend {
        async fn new() -> Self {
            Backend(TcpListener::bind("127.0.0.1:0").await.unwrap())
        }

        fn address(&self) -> SocketAddr {
            self.0.local_addr().unwrap()
        }

        /// Both ends of a connection.
        async fn connection(&self) -> (TcpStream, TcpStream) {
            let (near, far) = tokio::join!(TcpStream::connect(self.address()), self.0.accept());
            (near.unwrap(), far.unwrap().0)
        }
    }

    #[tokio::test]
    async fn the_last_one_is_taken_first_and_no_more_are_kept_than_may_be() {
        let (backend, now) = (Backend::new().await, ManualClock::new().now());
        let idle = Idle::new(2, NonZeroUsize::MIN, false);
        let mut far = Vec::new();
        let mut ports = Vec::new();
        for _ in 0..3 {
            let (connection, other) = backend.connection().await;
            ports.push(connection.local_addr().unwrap().port());
            far.push(other);
            idle.put(backend.address(), connection, now + SECOND);
        }
        assert_eq!(idle.len(), 2);
        let taken = || idle.take(backend.address(), now).map(|one| one.local_addr().unwrap().port());
        assert_eq!([taken(), taken(), taken()], [Some(ports[1]), Some(ports[0]), None]);
        assert_eq!(idle.len(), 0);
        assert!(idle.take("127.0.0.1:1".parse().unwrap(), now).is_none());
    }

    #[test]
    fn each_thread_has_its_share_of_all_and_a_shelf_of_its_own() {
        // Also of more threads than there are cores.
        for (in_all, threads, most) in [(1024, 1, 1024), (1024, 3, 342), (1024, 64, 16), (0, 4, 0), (1, 100, 1)] {
            let idle = Idle::new(in_all, NonZeroUsize::new(threads).unwrap(), false);
            assert_eq!(idle.most, most, "{threads}");
            assert!(idle.shelves.iter().count() >= threads, "{threads}");
        }
    }

    #[tokio::test]
    async fn one_that_is_closed_or_old_or_speaks_is_not_taken_and_swept() {
        let (backend, now) = (Backend::new().await, ManualClock::new().now());
        let idle = Idle::new(10, NonZeroUsize::MIN, true);
        let (old, _far) = backend.connection().await;
        idle.put(backend.address(), old, now + SECOND);
        assert!(idle.take(backend.address(), now + SECOND).is_none());
        for speaks in [false, true] {
            for swept in [false, true] {
                let (near, mut far) = backend.connection().await;
                if speaks {
                    far.write_all(b"x").await.unwrap();
                } else {
                    drop(far);
                }
                near.readable().await.unwrap();
                idle.put(backend.address(), near, now + SECOND);
                if swept {
                    idle.sweep(now);
                    assert_eq!(idle.len(), 0);
                }
                assert!(idle.take(backend.address(), now).is_none(), "speaks: {speaks}");
            }
        }
        let (good, _far) = backend.connection().await;
        idle.put(backend.address(), good, now + SECOND);
        idle.sweep(now);
        assert!(idle.take(backend.address(), now).is_some());
    }
}
