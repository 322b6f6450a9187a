//! Connections to backends that wait for their next request.
//!
//! A connection is kept by the thread that used it last, so that threads do not meet at one lock, and the one that was
//! used last is taken first, so that those beyond the need grow old and are closed. Whether a connection is still good
//! is known without a system call: the runtime has been told of everything that came over it meanwhile.
//!
//! When a backend closes one, its age is to be known, so that what closes then can be foreseen
//! ([`IdleClosing`](crate::upstream::IdleClosing)). For that all of them are looked through every now and then, and at
//! once when one of those that were looked at then has something to say: the runtime wakes whoever looked last, and a
//! request that takes the connection looks itself.
//!
//! Pingora's own pool runs a task for each connection that waits, which is started and ended for every request.

use std::collections::HashMap;
use std::num::NonZeroUsize;
use std::sync::Arc;
use std::task::{Context, Wake, Waker};
use std::time::{Duration, Instant};

use ahash::RandomState;
use parking_lot::Mutex;
use tokio::sync::Notify;

use super::proxy_header::ClientEnds;
use super::site::Site;
use super::stream::BackendStream;
use super::terms::Terms;
use crate::upstream::Sharded;

/// The connections that wait. Any thread may use it at any time.
#[derive(Debug)]
pub(super) struct IdleConnections {
    shelves: Sharded<Mutex<IdleShelf>>,
    most: usize,
    shared: bool,
    bell: Arc<Doorbell>,
}

/// Those of one thread, by the address of where they lead to: it is there as long as one of them.
#[derive(Debug, Default)]
struct IdleShelf {
    rows: HashMap<usize, IdleRow, RandomState>,
    count: usize,
}

/// Those to one backend.
#[derive(Debug)]
struct IdleRow {
    site: Arc<Site>,
    waiting: Vec<IdleConnection>,
}

#[derive(Debug)]
struct IdleConnection {
    connection: BackendStream,
    terms: Terms,
    /// Whose it is told to be, if it is: it serves nobody else.
    whose: Option<Box<ClientEnds>>,
    /// Whether its end would ring.
    watched: bool,
}

/// Rings when something comes over a connection that waits.
#[derive(Debug, Default)]
struct Doorbell(Notify);

impl Wake for Doorbell {
    fn wake(self: Arc<Self>) {
        self.0.notify_one();
    }
}

impl IdleConnections {
    /// Keeps at most `in_all` connections, of which each of so many `threads` has its share. When they are `shared`, a
    /// thread that has none takes those of the others; that is of use where all of them are driven by one runtime.
    pub(super) fn new(in_all: usize, threads: NonZeroUsize, shared: bool) -> Self {
        // One for each: a thread that takes another's would be woken by that one's runtime.
        let shelves = Sharded::of(threads.get().next_power_of_two());
        IdleConnections { shelves, most: in_all.div_ceil(threads.get()), shared, bell: Arc::default() }
    }

    /// A connection to `site`, of those that were told to be `whose`, that is open at `now` and, as far as that can be
    /// foreseen, stays so until a request has come over it; when the request can be `sent_again`, one that may be
    /// closed meanwhile. With it, how long it waited.
    pub(super) fn take(
        &self,
        site: &Arc<Site>,
        now: Instant,
        sent_again: bool,
        whose: Option<&ClientEnds>,
    ) -> Option<(BackendStream, Duration)> {
        let oldest = if sent_again { Duration::MAX } else { site.closing().safe_age() };
        let mine = self.shelves.mine().lock().take(site, (now, oldest), whose);
        mine.or_else(|| {
            let mut others = self.shelves.iter().filter(|_| self.shared);
            others.find_map(|shelf| shelf.lock().take(site, (now, oldest), whose))
        })
    }

    /// Keeps `connection` to `site`, which was told to be `whose`, until it is taken or closed, or for as long as
    /// `terms` say. It is closed at once when there are enough.
    pub(super) fn put(
        &self,
        (site, whose): (&Arc<Site>, Option<Box<ClientEnds>>),
        connection: BackendStream,
        terms: Terms,
    ) {
        let mut shelf = self.shelves.mine().lock();
        if shelf.count < self.most {
            shelf.count += 1;
            let new = || IdleRow { site: Arc::clone(site), waiting: Vec::new() };
            let row = shelf.rows.entry(key(site)).or_insert_with(new);
            row.waiting.push(IdleConnection { connection, terms, whose, watched: false });
        }
    }

    /// Closes those whose time is over at `now` and those that their backend has closed.
    pub(super) fn sweep(&self, now: Instant) {
        let waker = Waker::from(Arc::clone(&self.bell));
        for shelf in self.shelves.iter() {
            let over = shelf.lock().over(now, &mut Context::from_waker(&waker));
            // Closing is a system call each, and nobody waits for the lock meanwhile.
            drop(over);
        }
    }

    /// Waits until one of those that were there at the last [sweep](Self::sweep) has been closed by its backend, or may
    /// have been.
    pub(super) async fn rung(&self) {
        self.bell.0.notified().await;
    }

    /// How many there are.
    #[cfg(test)]
    fn len(&self) -> usize {
        self.shelves.iter().map(|shelf| shelf.lock().count).sum()
    }
}

fn key(site: &Arc<Site>) -> usize {
    Arc::as_ptr(site).addr()
}

impl IdleShelf {
    fn take(
        &mut self,
        site: &Arc<Site>,
        (now, oldest): (Instant, Duration),
        whose: Option<&ClientEnds>,
    ) -> Option<(BackendStream, Duration)> {
        let row = self.rows.get_mut(&key(site))?;
        while let Some(mut last) = row.pop(now, oldest, whose) {
            self.count -= 1;
            if last.is_good(now) {
                let idle = last.age(now);
                return Some((last.connection, idle));
            }
            last.teach(site, now);
        }
        None
    }

    fn over(&mut self, now: Instant, cx: &mut Context<'_>) -> Vec<IdleConnection> {
        let mut over = Vec::new();
        self.rows.retain(|_, IdleRow { site, waiting }| {
            let before = over.len();
            over.extend(waiting.extract_if(.., |one| !one.watch(now, cx)));
            over[before..].iter().for_each(|one| one.teach(site, now));
            site.closing().open(waiting.iter().map(|one| one.terms.since), now);
            !waiting.is_empty()
        });
        self.count -= over.len();
        over
    }
}

impl IdleRow {
    /// The one that was used last, if it is younger than `oldest`, of those that were told to be `whose`.
    fn pop(&mut self, now: Instant, oldest: Duration, whose: Option<&ClientEnds>) -> Option<IdleConnection> {
        let Some(whose) = whose else { return self.waiting.pop_if(|last| last.age(now) < oldest) };
        let is_theirs = |one: &IdleConnection| one.whose.as_deref() == Some(whose) && one.age(now) < oldest;
        self.waiting.iter().rposition(is_theirs).map(|at| self.waiting.remove(at))
    }
}

impl IdleConnection {
    /// How long its backend has been idle, at most.
    fn age(&self, now: Instant) -> Duration {
        now.saturating_duration_since(self.terms.since)
    }

    /// Whether it may be used: its time is not over, and its backend has neither closed it nor said anything, which
    /// nobody asked for.
    fn is_good(&mut self, now: Instant) -> bool {
        now < self.terms.until && self.connection.is_silent()
    }

    /// Whether it may be used. If so, it rings when that changes.
    fn watch(&mut self, now: Instant, cx: &mut Context<'_>) -> bool {
        if !self.is_good(now) {
            return false;
        }
        self.watched = self.connection.poll_read_ready(cx).is_pending();
        // Something may have come between the two.
        self.watched || self.connection.is_silent()
    }

    /// Tells `site` at which age it was closed, unless nobody knows: it was not closed by its backend, or nobody
    /// looked when it was.
    fn teach(&self, site: &Site, now: Instant) {
        if self.watched && self.terms.is_exact && now < self.terms.until {
            site.closing().closed(self.age(now), now);
        }
    }
}

#[cfg(test)]
mod tests {
    use std::time::Duration;

    use tokio::io::AsyncWriteExt;
    use tokio::net::{TcpListener, TcpStream};

    use super::*;
    use crate::clock::{Clock, ManualClock};

    const SECOND: Duration = Duration::from_secs(1);

    fn terms(since: Instant, until: Instant) -> Terms {
        Terms { since, until, is_exact: true }
    }

    struct Backend(TcpListener, Arc<Site>);

    fn plain(address: std::net::SocketAddr) -> Site {
        Site::new(address.into(), Arc::default(), None)
    }

    fn port(connection: &BackendStream) -> u16 {
        connection.tcp().unwrap().local_addr().unwrap().port()
    }

    impl Backend {
        async fn new() -> Self {
            let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
            let site = Arc::new(plain(listener.local_addr().unwrap()));
            Backend(listener, site)
        }

        /// Both ends of a connection.
        async fn connection(&self) -> (BackendStream, TcpStream) {
            let (near, far) = tokio::join!(TcpStream::connect(self.0.local_addr().unwrap()), self.0.accept());
            (near.unwrap().into(), far.unwrap().0)
        }
    }

    #[tokio::test]
    async fn the_last_one_is_taken_first_and_no_more_are_kept_than_may_be() {
        let (backend, now) = (Backend::new().await, ManualClock::new().now());
        let idle = IdleConnections::new(2, NonZeroUsize::MIN, false);
        let mut far = Vec::new();
        let mut ports = Vec::new();
        for _ in 0..3 {
            let (connection, other) = backend.connection().await;
            ports.push(port(&connection));
            far.push(other);
            idle.put((&backend.1, None), connection, terms(now, now + SECOND));
        }
        assert_eq!(idle.len(), 2);
        let taken = || idle.take(&backend.1, now, false, None).map(|(one, _)| port(&one));
        assert_eq!([taken(), taken(), taken()], [Some(ports[1]), Some(ports[0]), None]);
        assert_eq!(idle.len(), 0);
        assert!(
            idle.take(&Arc::new(plain(backend.1.address().tcp().unwrap())), now, true, None).is_none(),
            "of another backend"
        );
    }

    #[test]
    fn each_thread_has_its_share_of_all_and_a_shelf_of_its_own() {
        // Also of more threads than there are cores.
        for (in_all, threads, most) in [(1024, 1, 1024), (1024, 3, 342), (1024, 64, 16), (0, 4, 0), (1, 100, 1)] {
            let idle = IdleConnections::new(in_all, NonZeroUsize::new(threads).unwrap(), false);
            assert_eq!(idle.most, most, "{threads}");
            assert!(idle.shelves.iter().count() >= threads, "{threads}");
        }
    }

    #[tokio::test]
    async fn one_that_is_closed_or_old_or_speaks_is_not_taken_and_swept() {
        let (backend, now) = (Backend::new().await, ManualClock::new().now());
        let idle = IdleConnections::new(10, NonZeroUsize::MIN, true);
        let (old, _far) = backend.connection().await;
        idle.put((&backend.1, None), old, terms(now, now + SECOND));
        assert!(idle.take(&backend.1, now + SECOND, false, None).is_none());
        for speaks in [false, true] {
            for swept in [false, true] {
                let (near, mut far) = backend.connection().await;
                if speaks {
                    far.write_all(b"x").await.unwrap();
                } else {
                    drop(far);
                }
                near.tcp().unwrap().readable().await.unwrap();
                idle.put((&backend.1, None), near, terms(now, now + SECOND));
                if swept {
                    idle.sweep(now);
                    assert_eq!(idle.len(), 0);
                }
                assert!(idle.take(&backend.1, now, false, None).is_none(), "speaks: {speaks}");
            }
        }
        let (good, _far) = backend.connection().await;
        idle.put((&backend.1, None), good, terms(now, now + SECOND));
        idle.sweep(now);
        assert!(idle.take(&backend.1, now, false, None).is_some());
    }

    /// A backend's connections: those that nobody had looked at when they closed, those whose age is not exact, and the
    /// others.
    #[tokio::test]
    async fn closings_teach_when_their_age_is_known() {
        let clock = ManualClock::new();
        for (looked, is_exact) in [(false, true), (true, false), (true, true)] {
            for swept in [false, true] {
                let backend = Backend::new().await;
                let idle = IdleConnections::new(10, NonZeroUsize::MIN, true);
                for _ in 0..2 {
                    let (near, far) = backend.connection().await;
                    let since = clock.now();
                    idle.put((&backend.1, None), near, Terms { is_exact, ..terms(since, since + 50 * SECOND) });
                    if looked {
                        idle.sweep(clock.now());
                        assert_eq!(idle.len(), 1);
                    }
                    clock.advance(5 * SECOND);
                    drop(far);
                    if looked {
                        idle.rung().await;
                    }
                    if swept || !looked {
                        while idle.len() > 0 {
                            tokio::task::yield_now().await;
                            idle.sweep(clock.now());
                        }
                    } else {
                        assert!(idle.take(&backend.1, clock.now(), true, None).is_none());
                    }
                }
                let learned = (looked && is_exact).then_some(5 * SECOND);
                assert_eq!(backend.1.closing().closes_after(), learned, "{looked} {is_exact} {swept}");
            }
        }
    }

    #[tokio::test]
    async fn what_cannot_be_sent_again_gets_no_connection_that_may_be_closed_meanwhile() {
        let (backend, clock) = (Backend::new().await, ManualClock::new());
        let idle = IdleConnections::new(10, NonZeroUsize::MIN, true);
        for _ in 0..2 {
            clock.advance(SECOND);
            backend.1.closing().closed(3 * SECOND, clock.now());
        }
        assert_eq!(backend.1.closing().safe_age(), 2 * SECOND);
        let (old, _old_far) = backend.connection().await;
        let (young, _young_far) = backend.connection().await;
        let put = |connection| idle.put((&backend.1, None), connection, terms(clock.now(), clock.now() + 50 * SECOND));
        put(old);
        clock.advance(SECOND);
        put(young);
        clock.advance(SECOND);
        assert!(idle.take(&backend.1, clock.now(), false, None).is_some());
        assert!(idle.take(&backend.1, clock.now(), false, None).is_none());
        assert_eq!(idle.len(), 1, "the other one is kept, to see when it is closed");
        assert!(idle.take(&backend.1, clock.now(), true, None).is_some());
    }

    #[tokio::test]
    async fn connections_that_stay_open_make_it_forget() {
        let (backend, clock) = (Backend::new().await, ManualClock::new());
        let idle = IdleConnections::new(10, NonZeroUsize::MIN, true);
        for _ in 0..2 {
            clock.advance(SECOND);
            backend.1.closing().closed(3 * SECOND, clock.now());
        }
        let mut far = Vec::new();
        for _ in 0..4 {
            assert_eq!(backend.1.closing().closes_after(), Some(3 * SECOND));
            let (near, other) = backend.connection().await;
            far.push(other);
            idle.put((&backend.1, None), near, terms(clock.now(), clock.now() + 50 * SECOND));
            for _ in 0..6 {
                clock.advance(SECOND);
                idle.sweep(clock.now());
            }
        }
        assert_eq!((backend.1.closing().closes_after(), backend.1.closing().safe_age()), (None, Duration::MAX));
    }
}
