//! Clients in the order of what they have done.
//!
//! The problem: what clients do changes with every request and stands in memory, a million counters apart from each
//! other; a page of them in order must not look at all of them each time.
//!
//! The rule: whoever asks for an order gets a list of all clients that is some seconds old, which is made anew beside
//! that when it is older than [`FRESH`]. Only the first to ask waits for one, some tenths of a second for a million
//! clients. A list that nobody asks for is dropped after [`UNUSED`]. Those with the same number stand in an order that
//! has no meaning and is always the same, so that a page begins where the one before ended.
//!
//! Refused: a tree that requests keep in order, which they would wait for; names as the second key, which cost a
//! million looks elsewhere for the many that have done nothing.

use std::cmp::Reverse;
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::Mutex;
use tokio::time::sleep;

use super::ApiError;
use super::reads::blocking;
use crate::client::{Client, Directory};
use crate::clock::Clock;

/// How old a list may be that is given away while a newer one is made.
const FRESH: Duration = Duration::from_secs(3);
/// How old it may be at all.
const OLDEST: Duration = Duration::from_secs(30);
/// For how long one is kept that nobody asks for.
const UNUSED: Duration = Duration::from_secs(60);

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

/// A place among the clients: what it is sorted by, and the client's own bits.
pub(in crate::admin) type RankPlace = (u64, u128);

/// A client and its place.
type RankedClient = (u64, u128, Arc<Client>);

/// All clients in one order.
#[derive(Debug)]
pub(in crate::admin) struct Ranking(Vec<RankedClient>);

impl Ranking {
    fn new(directory: &Directory, by: Achievement) -> Self {
        let done = |client: &Client| match by {
            Achievement::Requests => client.usage.requests(),
            Achievement::Limited => client.usage.limited(),
            Achievement::LastSeen => client.usage.last_seen().unwrap_or(0),
        };
        let mut all = Vec::with_capacity(directory.len());
        all.extend(directory.credentials().map(|client| (done(client), client.uid, Arc::clone(client))));
        all.sort_unstable_by_key(|(done, uid, _)| (Reverse(*done), *uid));
        // One with several credentials came as often, and may have done more meanwhile.
        all.dedup_by_key(|(_, uid, _)| *uid);
        Ranking(all)
    }

    /// At most `limit` clients behind `after`, with their places, and whether there are more.
    pub(in crate::admin) fn page(&self, after: Option<RankPlace>, limit: usize) -> (&[RankedClient], bool) {
        let is_before = |(done, uid, _): &RankedClient| {
            after.is_some_and(|(last, last_uid)| (Reverse(*done), *uid) <= (Reverse(last), last_uid))
        };
        let rest = &self.0[self.0.partition_point(is_before)..];
        (&rest[..limit.min(rest.len())], rest.len() > limit)
    }

    /// How many there are.
    pub(in crate::admin) fn len(&self) -> usize {
        self.0.len()
    }
}

/// The latest list of each order.
pub(in crate::admin) struct Rankings {
    orders: [Arc<RankOrder>; 3],
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
        Rankings { orders: Default::default(), directory, clock }
    }

    /// The clients in this order, as they stood some seconds ago at most.
    ///
    /// # Errors
    /// 500 when making the list panics.
    pub(in crate::admin) async fn get(&self, by: Achievement) -> Result<Arc<Ranking>, ApiError> {
        let order = &self.orders[by as usize];
        if let Some((list, age)) = self.latest(order) {
            if age >= FRESH
                && let Ok(making) = Arc::clone(&order.making).try_lock_owned()
            {
                let (order, directory, clock) =
                    (Arc::clone(order), self.directory.load_full(), Arc::clone(&self.clock));
                tokio::spawn(async move {
                    let _making = making;
                    order.make(by, directory, &*clock).await
                });
            }
            if age < OLDEST {
                return Ok(list);
            }
        }
        let _making = order.making.lock().await;
        // Whoever made one meanwhile made it for all who wait.
        if let Some((list, _)) = self.latest(order).filter(|(_, age)| *age < FRESH) {
            return Ok(list);
        }
        let list = order.make(by, self.directory.load_full(), &*self.clock).await?;
        self.drop_unused(order);
        Ok(list)
    }

    /// The latest list and its age.
    fn latest(&self, order: &RankOrder) -> Option<(Arc<Ranking>, Duration)> {
        let (now, mut latest) = (self.clock.now(), order.latest.lock());
        let latest = latest.as_mut()?;
        latest.asked = now;
        Some((Arc::clone(&latest.list), now.saturating_duration_since(latest.made)))
    }

    /// Drops what nobody has asked for in a while.
    fn drop_unused(&self, order: &Arc<RankOrder>) {
        let (order, clock) = (Arc::downgrade(order), Arc::clone(&self.clock));
        tokio::spawn(async move {
            loop {
                sleep(UNUSED).await;
                let Some(order) = order.upgrade() else { return };
                let mut latest = order.latest.lock();
                let asked = latest.as_ref().map(|latest| clock.now().saturating_duration_since(latest.asked));
                if asked.is_none_or(|asked| asked >= UNUSED) {
                    *latest = None;
                    return;
                }
            }
        });
    }
}

impl RankOrder {
    async fn make(
        &self,
        by: Achievement,
        directory: Arc<Directory>,
        clock: &dyn Clock,
    ) -> Result<Arc<Ranking>, ApiError> {
        let list = blocking(move || Arc::new(Ranking::new(&directory, by))).await?;
        let now = clock.now();
        *self.latest.lock() = Some(Latest { made: now, asked: now, list: Arc::clone(&list) });
        Ok(list)
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

    fn names(page: &[RankedClient]) -> Vec<&str> {
        page.iter().map(|(.., client)| client.id.as_str()).collect()
    }

    #[tokio::test]
    async fn pages_follow_on_each_other_and_have_each_client_once() {
        let (all, clock) = (clients(5), Arc::new(ManualClock::new()));
        for (client, requests) in all.iter().zip([2, 0, 7, 2, 0]) {
            (0..requests).for_each(|_| client.usage.count_limited(1_000_000_000 * client.uid as u64));
        }
        let directory = Arc::new(ArcSwap::from_pointee(Directory::new(all.clone()).unwrap()));
        let rankings = Rankings::new(directory, clock.clone());
        for by in [Achievement::Requests, Achievement::Limited] {
            let list = rankings.get(by).await.unwrap();
            assert_eq!(list.len(), 5);
            let (first, more) = list.page(None, 2);
            assert_eq!((names(first), more), (vec!["c2", "c0"], true));
            let (rest, more) = list.page(first.last().map(|(done, uid, _)| (*done, *uid)), 9);
            assert_eq!((names(rest), more), (vec!["c3", "c1", "c4"], false));
            assert!(list.page(Some((0, u128::MAX)), 9).0.is_empty());
        }
        let seen = rankings.get(Achievement::LastSeen).await.unwrap();
        assert_eq!(names(seen.page(None, 3).0), ["c3", "c2", "c0"]);
        // What is done meanwhile shows once the list is old.
        (0..20).for_each(|_| all[4].usage.count_allowed(1));
        assert_eq!(names(rankings.get(Achievement::Requests).await.unwrap().page(None, 1).0), ["c2"]);
        clock.advance(OLDEST);
        assert_eq!(names(rankings.get(Achievement::Requests).await.unwrap().page(None, 1).0), ["c4"]);
    }
}
