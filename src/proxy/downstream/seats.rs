//! How many connections clients may have, and whose goes when there are too many.
//!
//! The problem: each connection holds a descriptor, and clients that only connect and say nothing can take them all.
//! Then nobody else gets in, no backend can be reached, and the admin API, whose descriptors are the same, does not
//! answer.
//!
//! The rule. A connection has a seat, of which there are `limits.max_connections`, and of which one address has at most
//! `limits.max_connections_per_address`. It is silent while no whole request of it is there: before its first one,
//! between two, in a TLS handshake, in half a header however it drips, in HTTP/2 without a stream, and while what it
//! still sends after its last answer is thrown away. When there is no seat for a new one, the one that has been silent
//! longest gives its own up: over HTTP/1 its connection is closed, over HTTP/2 after a GOAWAY that names the requests
//! that were taken. When none is silent, the new one is closed at once. nginx does the first with what it calls
//! reusable connections, and both it and HAProxy do the second, or let new ones wait in the kernel.
//!
//! A request costs two stores to memory that is its connection's own. Seats are looked through only when one is wanted,
//! for many at once (those that were silent longest then, in their order, which nothing that happens later can change
//! but by taking them out), and not more often than costs a small part of the time.
//!
//! Refused: a list in the order of silence, which is a lock that all threads meet at, twice for each request.

use std::collections::HashMap;
use std::future::poll_fn;
use std::net::IpAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicU64, AtomicUsize, Ordering};
use std::task::Poll;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use futures_util::task::AtomicWaker;
use log::warn;
use parking_lot::Mutex;
use pingora_timeout::timeout;
use tokio::sync::Notify;

use crate::clock::Clock;
use crate::limit::Payer;
use crate::proxy::gate::rules::Rules;
use crate::telemetry::{SeatLimit, Tally};

/// How long a new connection waits for the seat of one that was told to go.
const WAIT: Duration = Duration::from_millis(250);
/// How many are found at once by looking through all seats, at least; a part of them where there are many.
const BATCH: usize = 32;
/// The same as a part of all seats.
const PART: usize = 8;
/// For each seat that was looked at, so long it is not looked again.
const PAUSE: Duration = Duration::from_micros(1);

/// New ones for which somebody had to go, one this soon after the other, are a flood, in which each wait is one for two
/// threads. So more are told than have to, twice as many each time, up to a [`PART`].
const FLOOD: Duration = Duration::from_millis(100);

/// The state of a connection that has a request.
const BUSY: u64 = 0;
/// The state of one that is to give its seat up.
const TOLD: u64 = u64::MAX;

/// The most connections that descriptors allow for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct SeatRoom {
    /// When nobody says how many.
    pub auto: usize,
    /// However many somebody wants.
    pub most: usize,
}

/// The seats of a server.
pub struct Seats {
    rules: Arc<ArcSwap<Rules>>,
    room: SeatRoom,
    tally: Arc<Tally>,
    clock: Arc<dyn Clock>,
    origin: Instant,
    list: Mutex<SeatPlan>,
    /// Told whenever a seat is free, or one that was to be is not.
    freed: Notify,
}

#[derive(Default)]
struct SeatPlan {
    /// Connections that were let in and have not sat down yet.
    coming: usize,
    /// How many were told to go and have not yet.
    leaving: usize,
    places: Vec<Arc<SeatPlace>>,
    /// Those of each address, while there is a bound for them.
    addresses: HashMap<Payer, Vec<Arc<SeatPlace>>>,
    /// Who was silent longest when it was last looked, and since when; that one is the last.
    oldest: Vec<(u64, Arc<SeatPlace>)>,
    /// When it may be looked again.
    next_look: Option<Instant>,
    /// When somebody was told to go last, and how many more than had to.
    told: Option<(Instant, usize)>,
}

/// Where a connection sits.
struct SeatPlace {
    /// Since when it is silent, in nanoseconds since the server's start, at least 1; or [`BUSY`], or [`TOLD`].
    state: AtomicU64,
    waker: AtomicWaker,
    /// Where it is in the list of all.
    index: AtomicUsize,
}

/// A connection's seat, until it is dropped.
pub(in crate::proxy) struct Seat {
    place: Arc<SeatPlace>,
    /// Under which address it is counted.
    address: Option<Payer>,
    seats: Arc<Seats>,
}

/// What looking for somebody who is to go came to.
enum SeatSearch {
    /// One was told, or has been before.
    Some,
    /// Nobody is silent.
    Nobody,
    /// It is too soon to look.
    Later(Duration),
}

impl SeatPlan {
    fn len(&self) -> usize {
        self.places.len() + self.coming
    }

    /// Finds those who have been silent longest.
    fn look(&mut self) {
        let silent = |place: &Arc<SeatPlace>| match place.state.load(Ordering::Relaxed) {
            BUSY | TOLD => None,
            since => Some((since, Arc::clone(place))),
        };
        let mut found: Vec<_> = self.places.iter().filter_map(silent).collect();
        let wanted = BATCH.max(self.places.len() / PART);
        if found.len() > wanted {
            found.select_nth_unstable_by_key(wanted, |(since, _)| *since);
            found.truncate(wanted);
        }
        found.sort_unstable_by_key(|(since, _)| std::cmp::Reverse(*since));
        self.oldest = found;
    }

    /// Tells the connection at `place` to go, if it is silent since `since`; whether it is.
    fn tell(&mut self, place: &SeatPlace, since: u64) -> bool {
        let told = place.state.compare_exchange(since, TOLD, Ordering::AcqRel, Ordering::Relaxed).is_ok();
        if told {
            self.leaving += 1;
            place.waker.wake();
        }
        told
    }

    /// Makes room for one more connection of `address`, which may have `bound`, at the cost of one of its own; `Later`
    /// when there is room without that.
    fn make_room_at(&mut self, address: Payer, bound: usize) -> SeatSearch {
        let seated = self.addresses.get(&address).map(Vec::as_slice).unwrap_or_default();
        // Those who were told already are as good as gone.
        let states = seated.iter().map(|place| (place.state.load(Ordering::Relaxed), place));
        let stays: Vec<_> = states.filter(|(state, _)| *state != TOLD).collect();
        if stays.len() < bound {
            return SeatSearch::Later(Duration::ZERO);
        }
        let silent = stays.into_iter().filter(|(state, _)| *state != BUSY);
        match silent.min_by_key(|(state, _)| *state).map(|(since, place)| (since, Arc::clone(place))) {
            Some((since, place)) if self.tell(&place, since) => SeatSearch::Some,
            _ => SeatSearch::Nobody,
        }
    }

    /// Tells the one that has been silent longest to go.
    fn tell_oldest(&mut self, now: Instant) -> SeatSearch {
        loop {
            while let Some((since, place)) = self.oldest.pop() {
                if self.tell(&place, since) {
                    return SeatSearch::Some;
                }
            }
            if let Some(wait) = self.next_look.map(|next| next.saturating_duration_since(now)).filter(|w| !w.is_zero())
            {
                return SeatSearch::Later(wait);
            }
            self.look();
            let seats = u32::try_from(self.places.len()).unwrap_or(u32::MAX);
            self.next_look = Some(now + PAUSE * seats);
            if self.oldest.is_empty() {
                return SeatSearch::Nobody;
            }
        }
    }
}

impl Seats {
    /// Seats for as many as `rules` say, and `room` allows for. What does not find one is counted in `tally`.
    pub fn new(rules: Arc<ArcSwap<Rules>>, room: SeatRoom, tally: Arc<Tally>, clock: Arc<dyn Clock>) -> Self {
        let origin = clock.now();
        Seats { rules, room, tally, clock, origin, list: Mutex::default(), freed: Notify::new() }
    }

    /// How many there are.
    pub fn bound(&self) -> usize {
        self.rules.load().limits.max_connections.map_or(self.room.auto, |wanted| wanted.get().min(self.room.most))
    }

    /// Warns of a bound that there are no descriptors for.
    pub fn warn(&self) {
        let wanted = self.rules.load().limits.max_connections.map(|wanted| wanted.get());
        if let Some(wanted) = wanted.filter(|wanted| *wanted > self.room.most) {
            let most = self.room.most;
            warn!(
                "limits.max_connections: {wanted} does not fit into the limit of open files; at most {most} are held"
            );
        }
    }

    /// How many are taken.
    pub fn taken(&self) -> usize {
        self.list.lock().len()
    }

    /// Lets a new connection in, if there is a seat or one can be had; whether there is. It then has to
    /// sit down.
    pub async fn enter(&self) -> bool {
        if self.take_one() {
            return true;
        }
        let wait = timeout(WAIT, async {
            loop {
                let mut freed = std::pin::pin!(self.freed.notified());
                // From now on nothing is missed.
                freed.as_mut().enable();
                if self.take_one() {
                    return true;
                }
                match self.tell_oldest() {
                    SeatSearch::Some => freed.await,
                    SeatSearch::Nobody => return false,
                    SeatSearch::Later(wait) => drop(timeout(wait, freed).await),
                }
            }
        });
        let entered = wait.await.unwrap_or(false);
        if !entered {
            self.refused(SeatLimit::All);
        }
        entered
    }

    /// Takes a seat for a new connection; whether there is one.
    fn take_one(&self) -> bool {
        let (bound, mut list) = (self.bound(), self.list.lock());
        let free = list.len() < bound;
        list.coming += usize::from(free);
        free
    }

    /// Tells as many to go as are too many for one more, and more of them while new ones keep coming; what came of it.
    fn tell_oldest(&self) -> SeatSearch {
        let (bound, now, mut told) = (self.bound(), self.clock.now(), 0);
        let mut list = self.list.lock();
        let needed = (list.len() + 1).saturating_sub(bound + list.leaving);
        let spare = match list.told {
            _ if needed == 0 => return SeatSearch::Some,
            Some((last, spare)) if now.saturating_duration_since(last) < FLOOD => (2 * spare + 1).min(bound / PART),
            _ => 0,
        };
        let mut found = SeatSearch::Some;
        while told < needed + spare && matches!(found, SeatSearch::Some) {
            found = list.tell_oldest(now);
            told += usize::from(matches!(found, SeatSearch::Some));
        }
        list.told = Some((now, spare));
        drop(list);
        (0..told).for_each(|_| self.made_room(SeatLimit::All));
        if told > 0 { SeatSearch::Some } else { found }
    }

    /// Takes a seat whether there is one or not, for a connection that cannot be refused any more.
    pub fn force(&self) {
        self.list.lock().coming += 1;
    }

    /// Gives a connection from `peer` that was let in its seat, silent from now on. `None` when its address has as many
    /// as it may have, all of them with requests.
    pub(in crate::proxy) fn sit(self: &Arc<Self>, peer: IpAddr) -> Option<Seat> {
        let rules = self.rules.load();
        let bound = rules.limits.max_connections_per_address.map(|bound| bound.get());
        // A proxy of ours brings the connections of everybody.
        let bound = bound.filter(|_| !rules.identity.trusted_proxies.contains(peer));
        let address = bound.map(|_| Payer::address(peer, rules.identity.ipv6_prefix));
        let mut list = self.list.lock();
        list.coming = list.coming.saturating_sub(1);
        let room = bound.zip(address).map(|(bound, address)| list.make_room_at(address, bound));
        if let Some(SeatSearch::Nobody) = room {
            drop(list);
            self.freed.notify_waiters();
            self.refused(SeatLimit::Address);
            return None;
        }
        let (state, index) = (AtomicU64::new(self.stamp(self.clock.now())), AtomicUsize::new(list.places.len()));
        let place = Arc::new(SeatPlace { state, waker: AtomicWaker::new(), index });
        list.places.push(Arc::clone(&place));
        if let Some(address) = address {
            list.addresses.entry(address).or_default().push(Arc::clone(&place));
        }
        drop(list);
        if let Some(SeatSearch::Some) = room {
            self.made_room(SeatLimit::Address);
        }
        Some(Seat { place, address, seats: Arc::clone(self) })
    }

    /// The seat of the same connection, from now on counted for `peer`; `None` as in [`sit`](Self::sit).
    pub(in crate::proxy) fn sit_as(self: &Arc<Self>, seat: Seat, peer: IpAddr) -> Option<Seat> {
        self.force();
        drop(seat);
        self.sit(peer)
    }

    fn stamp(&self, at: Instant) -> u64 {
        let nanos = at.saturating_duration_since(self.origin).as_nanos();
        u64::try_from(nanos).unwrap_or(u64::MAX).clamp(1, TOLD - 1)
    }

    fn refused(&self, limit: SeatLimit) {
        self.tally.refused(limit);
        warn!("{}: a new connection was refused, as none is silent", limit.key());
    }

    fn made_room(&self, limit: SeatLimit) {
        self.tally.made_room(limit);
        warn!("{}: the connection that was silent longest was closed for a new one", limit.key());
    }
}

impl Seat {
    /// Notes that the connection is silent since `since`.
    pub(in crate::proxy) fn silent(&self, since: Instant) {
        let (state, stamp) = (&self.place.state, self.seats.stamp(since));
        match state.load(Ordering::Relaxed) {
            // Nobody else changes it.
            BUSY => state.store(stamp, Ordering::Release),
            TOLD => {}
            // It fails where it is told in this moment, which stays so.
            before => drop(state.compare_exchange(before, stamp, Ordering::AcqRel, Ordering::Relaxed)),
        }
    }

    /// Notes that it has a request, which is served even when it was just told to go.
    pub(in crate::proxy) fn busy(&self) {
        if self.place.state.swap(BUSY, Ordering::AcqRel) == TOLD {
            self.seats.list.lock().leaving -= 1;
            self.seats.freed.notify_waiters();
        }
    }

    /// Waits until it is told to go.
    pub(in crate::proxy) async fn told(&self) {
        poll_fn(|cx| {
            self.place.waker.register(cx.waker());
            if self.place.state.load(Ordering::Acquire) == TOLD { Poll::Ready(()) } else { Poll::Pending }
        })
        .await;
    }
}

impl Drop for Seat {
    fn drop(&mut self) {
        let mut list = self.seats.list.lock();
        // Busy from now on for those who may have found it.
        if self.place.state.swap(BUSY, Ordering::AcqRel) == TOLD {
            list.leaving -= 1;
        }
        let index = self.place.index.load(Ordering::Relaxed);
        list.places.swap_remove(index);
        if let Some(moved) = list.places.get(index) {
            moved.index.store(index, Ordering::Relaxed);
        }
        if let Some(address) = self.address
            && let Some(seated) = list.addresses.get_mut(&address)
        {
            seated.retain(|place| !Arc::ptr_eq(place, &self.place));
            if seated.is_empty() {
                list.addresses.remove(&address);
            }
        }
        drop(list);
        self.seats.freed.notify_waiters();
    }
}

#[cfg(test)]
mod tests;
