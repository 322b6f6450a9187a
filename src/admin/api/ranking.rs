//! Clients in the order of what they have done.
//!
//! The problem: what clients do changes with every request and stands in memory, a million counters apart from each
//! other; a page of them in order must not look at all of them each time, and nobody should wait for one.
//!
//! The rule: all clients stand in the order of their names in a list that is kept for good, 8 bytes each, and made anew
//! behind requests when clients have changed, so that it takes a [`SHARE`](names::SHARE) of one thread at most; over a
//! million clients it takes half a second. An order is a list of numbers beside it, 16 bytes for each client, which
//! needs one pass over the counters and a sort of those that have done something: some 70 ms for a million, and who asks
//! first waits for that. It is some seconds old, made anew beside requests when it is older than [`FRESH`], and dropped
//! when nobody has asked for it for [`UNUSED`]. Those with the same number stand by their names. Who came or went since
//! the names were made is put in or left out of each page.
//!
//! Refused: a tree that requests keep in order, which they would wait for; orders that are kept up while nobody asks; an
//! order as old as the last question.

mod names;

use std::cmp::Reverse;
use std::iter;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::sleep;

use self::names::NamedClients;
use super::ApiError;
use super::reads::blocking;
use crate::client::{Client, ClientId, Directory};
use crate::clock::Clock;

/// How old a list may be that is given away while a newer one is made.
const FRESH: Duration = Duration::from_secs(3);
/// How old it may be at all.
const OLDEST: Duration = Duration::from_secs(30);
/// For how long one is kept that nobody asks for.
const UNUSED: Duration = Duration::from_secs(60);
/// How often it is looked what has changed, when nobody asks.
const LOOK: Duration = Duration::from_secs(1);
/// What takes no longer than this, whoever asks waits for.
const QUICK: Duration = Duration::from_millis(10);

/// What clients are sorted by, the greatest first.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::admin) enum Achievement {
    /// Their requests on which their limit decided.
    Requests,
    /// Those that it refused.
    Limited,
    /// When their last request came.
    LastSeen,
}

impl Achievement {
    /// What `client` has done.
    fn of(self, client: &Client) -> u64 {
        match self {
            Achievement::Requests => client.usage.requests(),
            Achievement::Limited => client.usage.limited(),
            Achievement::LastSeen => client.usage.last_seen().unwrap_or(0),
        }
    }
}

/// A place among the clients: what it is sorted by, and the client's name.
pub(in crate::admin) type RankPlace = (u64, ClientId);

/// All clients in one order.
#[derive(Debug)]
pub(in crate::admin) struct Ranking {
    names: Arc<NamedClients>,
    by: Achievement,
    /// What each has done, and which it is among the names.
    order: Vec<(u64, u32)>,
}

impl Ranking {
    fn new(names: Arc<NamedClients>, by: Achievement) -> Self {
        let mut order = Vec::with_capacity(names.clients.len());
        let mut idle = Vec::new();
        for (place, client) in (0..).zip(&names.clients) {
            match by.of(client) {
                0 => idle.push((0, place)),
                done => order.push((done, place)),
            }
        }
        order.sort_unstable_by_key(|(done, place)| (Reverse(*done), *place));
        // Most have done nothing as a rule, and stand by their names already.
        order.append(&mut idle);
        Ranking { names, by, order }
    }

    /// At most `limit` clients behind `after`, with what each has done, and whether there are more: those in `directory`
    /// now. Blocks for what has changed since the last page.
    pub(in crate::admin) fn page(
        &self,
        after: Option<&RankPlace>,
        limit: usize,
        directory: &ArcSwap<Directory>,
    ) -> (Vec<RankPlace>, bool) {
        let differences = self.names.differences(directory);
        let client = |place: u32| &self.names.clients[place as usize];
        let is_before = |(done, id): (u64, &ClientId)| {
            after.is_some_and(|(last, last_id)| (Reverse(done), id) <= (Reverse(*last), last_id))
        };
        let start = self.order.partition_point(|(done, place)| is_before((*done, &client(*place).id)));
        let stayed = self.order[start..].iter().map(|(done, place)| (*done, client(*place)));
        let stayed = stayed.filter(|(_, client)| !differences.gone.contains(&client.uid));
        let mut stayed = stayed.map(|(done, client)| (done, &client.id)).peekable();
        let came = differences.came.values().map(|client| (self.by.of(client), &client.id));
        let mut came: Vec<_> = came.filter(|place| !is_before(*place)).collect();
        came.sort_unstable_by_key(|(done, id)| (Reverse(*done), *id));
        let mut came = came.into_iter().peekable();
        let both = iter::from_fn(|| {
            let is_next = came.peek().is_some_and(|(done, id)| {
                stayed.peek().is_none_or(|(other, other_id)| (Reverse(*done), *id) < (Reverse(*other), *other_id))
            });
            if is_next { came.next() } else { stayed.next() }
        });
        let mut page: Vec<_> = both.take(limit + 1).map(|(done, id)| (done, id.clone())).collect();
        let more = page.len() > limit;
        page.truncate(limit);
        (page, more)
    }
}

/// The latest list of each order.
pub(in crate::admin) struct Rankings {
    orders: [RankOrder; 3],
    names: Mutex<Option<Arc<NamedClients>>>,
    /// Held by whoever makes other names, on a thread where it may block.
    naming: Mutex<()>,
    directory: Arc<ArcSwap<Directory>>,
    clock: Arc<dyn Clock>,
}

#[derive(Debug, Default)]
struct RankOrder {
    latest: Mutex<Option<Latest>>,
    /// Held by whoever makes another one.
    making: Arc<tokio::sync::Mutex<()>>,
}

#[derive(Clone, Debug)]
struct Latest {
    made: Instant,
    asked: Instant,
    list: Arc<Ranking>,
}

impl Rankings {
    /// Of the clients in `directory`.
    pub(in crate::admin) fn new(directory: Arc<ArcSwap<Directory>>, clock: Arc<dyn Clock>) -> Self {
        Rankings { orders: Default::default(), names: Mutex::default(), naming: Mutex::default(), directory, clock }
    }

    /// Has the names at hand before somebody asks, and drops what nobody asks for any more, for as long as there is
    /// an API.
    pub(in crate::admin) fn upkeep(self: &Arc<Self>) -> impl Future<Output = ()> + Send + use<> {
        let rankings = Arc::downgrade(self);
        async move {
            while let Some(rankings) = rankings.upgrade() {
                rankings.drop_unused();
                // The log has it if that failed; the next look tries again.
                let _ = blocking(move || rankings.names(Duration::MAX)).await;
                sleep(LOOK).await;
            }
        }
    }

    /// The clients in this order, as they stood some seconds ago.
    ///
    /// # Errors
    /// 500 when making the list panics.
    pub(in crate::admin) async fn get(self: &Arc<Self>, by: Achievement) -> Result<Arc<Ranking>, ApiError> {
        let order = &self.orders[by as usize];
        if let Some((list, age)) = self.latest(order) {
            if age >= FRESH
                && let Ok(making) = Arc::clone(&order.making).try_lock_owned()
            {
                let rankings = Arc::clone(self);
                tokio::spawn(async move {
                    let _making = making;
                    rankings.make(by).await
                });
            }
            if age < OLDEST && !list.names.is_overtaken() {
                return Ok(list);
            }
        }
        let _making = order.making.lock().await;
        // Whoever made one meanwhile made it for all who wait.
        if let Some((list, _)) = self.latest(order).filter(|(_, age)| *age < FRESH) {
            return Ok(list);
        }
        self.make(by).await
    }

    /// The latest list and its age.
    fn latest(&self, order: &RankOrder) -> Option<(Arc<Ranking>, Duration)> {
        let (now, mut latest) = (self.clock.now(), order.latest.lock());
        let latest = latest.as_mut()?;
        latest.asked = now;
        Some((Arc::clone(&latest.list), now.saturating_duration_since(latest.made)))
    }

    async fn make(self: &Arc<Self>, by: Achievement) -> Result<Arc<Ranking>, ApiError> {
        let rankings = Arc::clone(self);
        let list = blocking(move || Arc::new(Ranking::new(rankings.names(QUICK), by))).await?;
        let now = self.clock.now();
        let latest = Latest { made: now, asked: now, list: Arc::clone(&list) };
        *self.orders[by as usize].latest.lock() = Some(latest);
        Ok(list)
    }

    /// The names, made anew if they are due and that takes no longer than `patience`. Blocks for that long.
    fn names(&self, patience: Duration) -> Arc<NamedClients> {
        if let Some(names) = self.named(patience) {
            return names;
        }
        let _naming = self.naming.lock();
        // Whoever made them meanwhile made them for all who wait.
        self.named(patience).unwrap_or_else(|| {
            let names = Arc::new(NamedClients::new(self.directory.load_full(), &*self.clock));
            *self.names.lock() = Some(Arc::clone(&names));
            names
        })
    }

    /// The names, unless they are to be made anew. Blocks for what has changed.
    fn named(&self, patience: Duration) -> Option<Arc<NamedClients>> {
        let (now, names) = (self.clock.now(), self.names.lock().clone()?);
        (names.cost > patience || !names.is_due(&self.directory, now)).then_some(names)
    }

    /// Drops what nobody has asked for in a while.
    fn drop_unused(&self) {
        for order in &self.orders {
            let (now, mut latest) = (self.clock.now(), order.latest.lock());
            if latest.as_ref().is_some_and(|latest| now.saturating_duration_since(latest.asked) >= UNUSED) {
                *latest = None;
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ClientId, Quota};
    use crate::clock::ManualClock;

    fn clients(count: u128) -> Vec<Arc<Client>> {
        let client = |uid: u128| {
            let id = ClientId::parse(&format!("c{uid}")).unwrap();
            let addresses =
                vec![format!("10.0.0.{uid}/32").parse().unwrap(), format!("10.0.1.{uid}/32").parse().unwrap()];
            Arc::new(Client { addresses, ..Client::new(uid, id, Quota::new(1, 1.0).unwrap()) })
        };
        (0..count).map(client).collect()
    }

    fn names(page: &[RankPlace]) -> Vec<&str> {
        page.iter().map(|(_, id)| id.as_str()).collect()
    }

    async fn first(rankings: &Arc<Rankings>) -> [String; 1] {
        let list = rankings.get(Achievement::Requests).await.unwrap();
        [list.page(None, 1, &rankings.directory).0[0].1.to_string()]
    }

    #[tokio::test]
    async fn pages_follow_on_each_other_and_have_each_client_once() {
        let (all, clock) = (clients(5), Arc::new(ManualClock::new()));
        for (client, requests) in all.iter().zip([2, 0, 7, 2, 0]) {
            (0..requests).for_each(|_| client.usage.count_limited(1_000_000_000 * client.uid as u64));
        }
        let directory = Arc::new(ArcSwap::from_pointee(Directory::new(all.clone()).unwrap()));
        let rankings = Arc::new(Rankings::new(Arc::clone(&directory), clock.clone()));
        for by in [Achievement::Requests, Achievement::Limited] {
            let list = rankings.get(by).await.unwrap();
            let (first, more) = list.page(None, 2, &directory);
            assert_eq!((names(&first), more), (vec!["c2", "c0"], true));
            let (rest, more) = list.page(first.last(), 9, &directory);
            assert_eq!((names(&rest), more), (vec!["c3", "c1", "c4"], false));
            assert!(list.page(Some(&(0, ClientId::parse("c5").unwrap())), 9, &directory).0.is_empty());
        }
        let seen = rankings.get(Achievement::LastSeen).await.unwrap();
        assert_eq!(names(&seen.page(None, 3, &directory).0), ["c3", "c2", "c0"]);
        // Who comes stands in the list at once, in whatever has been done; who goes is not in it.
        let mut now = clients(8);
        (0..5).for_each(|at| now[at] = Arc::clone(&all[at]));
        (0..4).for_each(|_| now[5].usage.count_allowed(1));
        now[6].usage.count_allowed(1);
        now.remove(2);
        directory.store(Arc::new(Directory::new(now).unwrap()));
        let list = rankings.get(Achievement::Requests).await.unwrap();
        let (mut after, mut pages) = (None, Vec::new());
        loop {
            let (page, more) = list.page(after.as_ref(), 2, &directory);
            pages.push(names(&page).join(" "));
            if !more {
                break;
            }
            after = page.last().cloned();
        }
        assert_eq!(pages, ["c5 c0", "c3 c6", "c1 c4", "c7"]);
        directory.store(Arc::new(Directory::new(all.clone()).unwrap()));
        // What is done meanwhile shows once the list is old.
        (0..20).for_each(|_| all[4].usage.count_allowed(1));
        assert_eq!(first(&rankings).await, ["c2"]);
        clock.advance(OLDEST);
        assert_eq!(first(&rankings).await, ["c4"]);
    }

    #[tokio::test(start_paused = true)]
    async fn names_are_at_hand_and_follow_the_clients() {
        let clock = Arc::new(ManualClock::new());
        let directory = Arc::new(ArcSwap::from_pointee(Directory::new(clients(3)).unwrap()));
        let rankings = Arc::new(Rankings::new(Arc::clone(&directory), clock.clone()));
        let upkeep = tokio::spawn(rankings.upkeep());
        let made = |count| {
            let rankings = &rankings;
            async move {
                while rankings.names.lock().as_ref().is_none_or(|names| names.clients.len() != count) {
                    sleep(FRESH).await;
                }
            }
        };
        made(3).await;
        // Other clients are seen without a question, and by who asks where that is quick.
        directory.store(Arc::new(Directory::new(clients(4)).unwrap()));
        made(4).await;
        directory.store(Arc::new(Directory::new(clients(5)).unwrap()));
        let named = async |by| rankings.get(by).await.unwrap().names.clients.len();
        assert_eq!(named(Achievement::Limited).await, 5);
        // Names that took long are waited for by nobody, and made anew in proportion.
        let slow = NamedClients { cost: 2 * QUICK, ..NamedClients::new(directory.load_full(), &*clock) };
        *rankings.names.lock() = Some(Arc::new(slow));
        directory.store(Arc::new(Directory::new(clients(6)).unwrap()));
        assert_eq!(named(Achievement::Requests).await, 5);
        clock.advance(2 * QUICK * names::SHARE);
        assert_eq!(named(Achievement::LastSeen).await, 5);
        made(6).await;
        // An order that nobody asks for goes; the upkeep ends with the API.
        clock.advance(UNUSED);
        while rankings.orders.iter().any(|order| order.latest.lock().is_some()) {
            sleep(FRESH).await;
        }
        drop(rankings);
        upkeep.await.unwrap();
    }
}
