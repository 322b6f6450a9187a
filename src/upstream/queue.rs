//! Requests that wait, as all backends of their pool hold as many as they may.
//!
//! The problem: a backend that is given more than it can do at once does all of it slowly, and whoever asks most gets
//! most of it.
//!
//! The rule: a request that ends at a backend hands its place there on to one that waits, at once and without going
//! back to the balancing rule, which has nothing to choose: only that place is free. Those that wait stand in one row
//! for each client, and the rows take turns, so a client that sends a thousand requests delays another one's by one
//! request, not by a thousand. When there is no room for another one, the youngest of the longest row gives way, if
//! that row is longer than the newcomer's would be; else the newcomer does. So a flood cannot fill the room either.
//! This is fair queueing (Nagle, RFC 970) with dropping from the longest row (McKenney's stochastic fair queueing), by
//! client and exact.
//!
//! Nobody overtakes: while one waits, whoever comes waits, too. Only the first attempt of a request does; a further one
//! needs a backend that has room, or goes to the one where the request has its place.
//!
//! Refused: one row for each backend, as HAProxy has for stickiness, in which a request waits for a slow one while
//! others are free; a row for all, which a flood fills.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::hash::{BuildHasher, Hash, RandomState};
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, AtomicUsize, Ordering};
use std::time::Duration;

use parking_lot::Mutex;
use tokio::sync::oneshot;

/// How requests wait for backends that hold as many as they may.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct QueueRules {
    /// How many wait at most. Default 0: none.
    pub size: usize,
    /// For how long. Default 1 s.
    pub timeout: Duration,
}

impl Default for QueueRules {
    fn default() -> Self {
        QueueRules { size: 0, timeout: Duration::from_secs(1) }
    }
}

/// What waits for the backends of a pool and of those that succeed it.
#[derive(Debug)]
pub(super) struct WaitingRoom<T> {
    /// How many do; follows the rows.
    waiting: AtomicUsize,
    /// How many requests a backend of the pool that serves may hold; 0 is any number.
    most: AtomicUsize,
    rows: Mutex<Rows<T>>,
    hasher: RandomState,
    closed: AtomicBool,
    /// How many ever waited, and how many were told that all are busy.
    queued: AtomicU64,
    busy: AtomicU64,
}

/// Those who wait, each with what lets it go on.
#[derive(Debug)]
struct Rows<T> {
    by_client: HashMap<u64, Row<T>>,
    /// The clients with a row, by the numbers of their turns.
    turns: BTreeMap<u64, u64>,
    /// The length of each row.
    lengths: BTreeSet<(usize, u64)>,
    next: u64,
}

/// Those of one client, by the numbers that they have drawn.
#[derive(Debug)]
struct Row<T> {
    /// The number of its turn.
    turn: u64,
    waiting: BTreeMap<u64, oneshot::Sender<T>>,
}

/// A request that waits. Dropped, it waits no more.
#[derive(Debug)]
pub struct QueuePlace<T> {
    queue: Arc<WaitingRoom<T>>,
    place: (u64, u64),
    turn: oneshot::Receiver<T>,
}

impl<T> QueuePlace<T> {
    /// Waits for a backend. None when somebody else needs the room more, or the server stops.
    pub async fn turn(&mut self) -> Option<T> {
        (&mut self.turn).await.ok()
    }
}

impl<T> Drop for QueuePlace<T> {
    fn drop(&mut self) {
        // What it may have been given by now is handed on when the receiver is dropped.
        self.queue.leave(self.place);
    }
}

impl<T> Default for WaitingRoom<T> {
    fn default() -> Self {
        let rows = Rows { by_client: HashMap::new(), turns: BTreeMap::new(), lengths: BTreeSet::new(), next: 0 };
        WaitingRoom {
            waiting: AtomicUsize::new(0),
            most: AtomicUsize::new(0),
            rows: Mutex::new(rows),
            hasher: RandomState::new(),
            closed: AtomicBool::new(false),
            queued: AtomicU64::new(0),
            busy: AtomicU64::new(0),
        }
    }
}

impl<T> WaitingRoom<T> {
    /// Whether anybody waits.
    #[inline]
    pub(super) fn is_waited_in(&self) -> bool {
        self.waiting.load(Ordering::SeqCst) > 0
    }

    /// How many do.
    pub(super) fn len(&self) -> usize {
        self.waiting.load(Ordering::Relaxed)
    }

    /// Lets backends hold so many requests.
    pub(super) fn set_most(&self, most: Option<usize>) {
        self.most.store(most.unwrap_or(0), Ordering::SeqCst);
    }

    /// How many ever waited, and how many were told that all are busy.
    pub(super) fn counts(&self) -> (u64, u64) {
        (self.queued.load(Ordering::Relaxed), self.busy.load(Ordering::Relaxed))
    }

    /// Counts one that is told that all are busy.
    pub(super) fn turned_away(&self) {
        self.busy.fetch_add(1, Ordering::Relaxed);
    }

    /// Lets nobody wait any more; how many did.
    pub(super) fn close(&self) -> usize {
        self.closed.store(true, Ordering::SeqCst);
        let mut rows = self.rows.lock();
        let gone = std::mem::take(&mut rows.by_client);
        rows.turns.clear();
        rows.lengths.clear();
        let waited = self.waiting.swap(0, Ordering::SeqCst);
        drop(rows);
        drop(gone);
        waited
    }

    /// Has a request of `client` wait among at most so many; none when there is no room for it.
    pub(super) fn enter(self: &Arc<Self>, client: impl Hash, size: usize) -> Option<QueuePlace<T>> {
        let client = self.hasher.hash_one(client);
        let (gives, turn) = oneshot::channel();
        let mut rows = self.rows.lock();
        if size == 0 || self.closed.load(Ordering::SeqCst) {
            return None;
        }
        let mut gives_way = None;
        if self.waiting.load(Ordering::SeqCst) >= size {
            let (longest, whose) = *rows.lengths.last()?;
            if longest <= rows.by_client.get(&client).map_or(0, |row| row.waiting.len()) + 1 {
                return None;
            }
            gives_way = rows.change(whose, BTreeMap::pop_last);
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        let id = rows.draw();
        rows.change(client, |row| row.insert(id, gives));
        self.waiting.fetch_add(1, Ordering::SeqCst);
        drop(rows);
        drop(gives_way);
        self.queued.fetch_add(1, Ordering::Relaxed);
        Some(QueuePlace { queue: Arc::clone(self), place: (client, id), turn })
    }

    fn leave(&self, (client, id): (u64, u64)) {
        let mut rows = self.rows.lock();
        if rows.by_client.contains_key(&client) && rows.change(client, |row| row.remove(&id)).is_some() {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
    }

    /// How many requests a backend may hold.
    pub(super) fn most(&self) -> usize {
        match self.most.load(Ordering::SeqCst) {
            0 => usize::MAX,
            most => most,
        }
    }

    /// Gives `place` to the one whose turn it is. Whoever has gone meanwhile leaves it here, to be dropped.
    pub(super) fn give(&self, place: T) {
        let mut rows = self.rows.lock();
        let next = rows.pop();
        if next.is_some() {
            self.waiting.fetch_sub(1, Ordering::SeqCst);
        }
        drop(rows);
        drop(next.map(|next| next.send(place)));
    }
}

impl<T> Rows<T> {
    /// A number that is larger than all before it.
    fn draw(&mut self) -> u64 {
        self.next += 1;
        self.next
    }

    /// Takes the one whose turn it is.
    fn pop(&mut self) -> Option<oneshot::Sender<T>> {
        let (_, client) = self.turns.pop_first()?;
        // Behind all others, if it has more.
        let turn = self.draw();
        self.turns.insert(turn, client);
        self.by_client.get_mut(&client)?.turn = turn;
        self.change(client, BTreeMap::pop_first).map(|(_, next)| next)
    }

    /// Changes the row of `client`, which is begun and ended as it must be.
    fn change<R>(&mut self, client: u64, change: impl FnOnce(&mut BTreeMap<u64, oneshot::Sender<T>>) -> R) -> R {
        let turn = self.draw();
        let row = self.by_client.entry(client).or_insert_with(|| {
            self.turns.insert(turn, client);
            Row { turn, waiting: BTreeMap::new() }
        });
        self.lengths.remove(&(row.waiting.len(), client));
        let came_of_it = change(&mut row.waiting);
        if row.waiting.is_empty() {
            self.turns.remove(&row.turn);
            self.by_client.remove(&client);
        } else {
            self.lengths.insert((row.waiting.len(), client));
        }
        came_of_it
    }
}
