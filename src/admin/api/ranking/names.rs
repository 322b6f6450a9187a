//! All clients by their names, and what has changed since they were put in that order.
//!
//! The problem: half a second goes by until a million names are in order, and who was made a moment ago belongs in the
//! lists at once.
//!
//! The rule: the directory that the names were read from is kept, and whoever wants to know what changed compares the
//! present one with it. Directories share what did not change, so that costs microseconds for each client that did, and
//! the next look starts where this one ended. Once [`MANY`] have changed the names are made anew instead, which takes a
//! tenth of a thread at most while clients come by the thousand.
//!
//! Refused: putting a new name into the list, which moves a million places, or copies them while somebody reads.

use std::collections::{HashMap, HashSet};
use std::sync::Arc;
use std::time::{Duration, Instant};

use arc_swap::ArcSwap;
use parking_lot::{MappedMutexGuard, Mutex, MutexGuard};

use crate::client::{Client, Directory};
use crate::clock::Clock;

/// How many clients may have changed between two looks.
const MANY: usize = 10_000;
/// How many may have come or gone since the names were made.
const MOST: usize = 4 * MANY;
/// The names are made anew once they are so many times as old as they took to make.
pub(super) const SHARE: u32 = 50;
/// The same when so many clients have changed that what changed is not known.
const OVERTAKEN: u32 = 10;

/// All clients by their names.
#[derive(Debug)]
pub(super) struct NamedClients {
    pub(super) clients: Vec<Arc<Client>>,
    pub(super) since: Mutex<Since>,
    pub(super) made: Instant,
    /// How long that took.
    pub(super) cost: Duration,
}

/// What changed since the names were made.
#[derive(Debug)]
pub(super) struct Since {
    /// What was looked at last; nothing once too much has changed.
    seen: Option<Arc<Directory>>,
    has_changed: bool,
    differences: Differences,
}

/// What is not as the names have it.
#[derive(Debug, Default)]
pub(super) struct Differences {
    /// Who is not among them, by their bits.
    pub(super) came: HashMap<u128, Arc<Client>>,
    /// Who is, and is no client any more.
    pub(super) gone: HashSet<u128>,
}

impl NamedClients {
    pub(super) fn new(directory: Arc<Directory>, clock: &dyn Clock) -> Self {
        let began = clock.now();
        let mut clients = Vec::with_capacity(directory.len());
        clients.extend(directory.credentials().cloned());
        clients.sort_unstable_by(|one, other| one.id.cmp(&other.id));
        // One with several credentials came as often.
        clients.dedup_by_key(|client| client.uid);
        let since = Since { seen: Some(directory), has_changed: false, differences: Differences::default() };
        let made = clock.now();
        NamedClients { clients, since: Mutex::new(since), made, cost: made.saturating_duration_since(began) }
    }

    /// What has changed until now. Blocks for what it has not yet looked at.
    pub(super) fn differences(&self, directory: &ArcSwap<Directory>) -> MappedMutexGuard<'_, Differences> {
        let mut since = self.since.lock();
        since.look_at(&self.clients, directory.load_full());
        MutexGuard::map(since, |since| &mut since.differences)
    }

    /// Whether clients have changed, and it is time to look at them. Blocks as [`differences`](Self::differences) does.
    pub(super) fn is_due(&self, directory: &ArcSwap<Directory>, now: Instant) -> bool {
        drop(self.differences(directory));
        let share = if self.is_overtaken() { OVERTAKEN } else { SHARE };
        let is_old = now.saturating_duration_since(self.made) >= self.cost.saturating_mul(share);
        is_old && self.since.lock().has_changed
    }

    /// Whether too much has changed for it to be told.
    pub(super) fn is_overtaken(&self) -> bool {
        self.since.lock().seen.is_none()
    }
}

impl Since {
    fn look_at(&mut self, names: &[Arc<Client>], directory: Arc<Directory>) {
        let Some(seen) = self.seen.take_if(|seen| !Arc::ptr_eq(seen, &directory)) else { return };
        self.has_changed = true;
        let Differences { came, gone } = &mut self.differences;
        let is_named = |client: &Client| {
            let place = names.binary_search_by(|named| named.id.cmp(&client.id));
            place.is_ok_and(|place| names[place].uid == client.uid)
        };
        let mut looked_at = 0;
        for client in seen.apart_from(&directory).take(MANY) {
            looked_at += 1;
            if directory.get(client).is_none() {
                came.remove(&client.uid);
                if is_named(client) {
                    gone.insert(client.uid);
                }
            }
        }
        // After those that left: who is known by other credentials now was among them.
        for client in directory.apart_from(&seen).take(MANY - looked_at) {
            looked_at += 1;
            if seen.get(client).is_some() {
                continue;
            }
            gone.remove(&client.uid);
            if !is_named(client) {
                came.insert(client.uid, Arc::clone(client));
            }
        }
        if looked_at < MANY && came.len() + gone.len() < MOST {
            self.seen = Some(directory);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{ClientId, Quota};
    use crate::clock::ManualClock;

    fn client(uid: u128, name: &str, addresses: &[&str]) -> Client {
        let addresses = addresses.iter().map(|address| address.parse().unwrap()).collect();
        Client { addresses, ..Client::new(uid, ClientId::parse(name).unwrap(), Quota::new(1, 1.0).unwrap()) }
    }

    #[test]
    fn differences_are_those_to_the_present() {
        let many = (0..500_u128)
            .map(|uid| client(uid, &format!("c{uid}"), &[&format!("10.0.{}.{}/32", uid / 250, uid % 250)]));
        let all: Vec<_> = many.collect();
        let directory = ArcSwap::from_pointee(Directory::new(all.iter().cloned().map(Arc::new)).unwrap());
        let clock = ManualClock::new();
        let names = NamedClients::new(directory.load_full(), &clock);
        let change = |before: Option<&Client>, after: Option<&Client>| {
            directory.store(Arc::new(directory.load().with([(before.cloned(), after.cloned())])));
        };
        let told = || {
            let now = names.differences(&directory);
            let mut told: (Vec<_>, Vec<_>) = (now.came.keys().copied().collect(), now.gone.iter().copied().collect());
            told.0.sort_unstable();
            told
        };
        assert_eq!((told(), names.is_due(&directory, clock.now())), ((vec![], vec![]), false));
        // Of other credentials, of more, of other text: it is the same client, and the old version is let go in time.
        let moved = client(3, "c3", &["10.9.0.1/32"]);
        change(Some(&all[3]), Some(&moved));
        assert_eq!((told(), names.is_due(&directory, clock.now())), ((vec![], vec![]), true));
        // Two come, one goes, and comes again; and one leaves and its name is somebody else's.
        let (new, newer) = (client(900, "b", &["10.9.0.2/32", "10.9.0.3/32"]), client(901, "z", &["10.9.0.4/32"]));
        change(None, Some(&new));
        change(None, Some(&newer));
        change(Some(&moved), None);
        assert_eq!(told(), (vec![900, 901], vec![3]));
        change(Some(&newer), None);
        change(None, Some(&all[3]));
        assert_eq!(told(), (vec![900], vec![]));
        change(Some(&all[4]), None);
        change(None, Some(&client(902, "c4", &["10.9.0.5/32"])));
        assert_eq!(told(), (vec![900, 902], vec![4]));
        assert!(!names.is_overtaken());
    }

    #[test]
    fn too_much_is_not_kept() {
        let clients = |from: u32, to: u32| {
            let of = |uid: u32| {
                Arc::new(client(uid.into(), &format!("c{uid}"), &[&format!("{}/32", std::net::Ipv4Addr::from(uid))]))
            };
            Directory::new((from..to).map(of)).unwrap()
        };
        let directory = ArcSwap::from_pointee(clients(0, 10));
        let clock = ManualClock::new();
        let names = NamedClients { cost: Duration::from_secs(1), ..NamedClients::new(directory.load_full(), &clock) };
        let added = |count: u32| {
            (0..count).map(|uid| {
                (
                    None,
                    Some(client(
                        (1000 + uid).into(),
                        &format!("n{uid}"),
                        &[&format!("{}/32", std::net::Ipv4Addr::from(1 << 24 | uid))],
                    )),
                )
            })
        };
        let many = u32::try_from(MANY).unwrap();
        directory.store(Arc::new(directory.load().with(added(many - 1))));
        assert_eq!(names.differences(&directory).came.len(), MANY - 1);
        assert!(!names.is_due(&directory, clock.now()));
        directory.store(Arc::new(directory.load().with(added(many))));
        // While as many come each second, they are not put in order as often.
        assert!(!names.is_due(&directory, clock.now()) && names.is_overtaken());
        clock.advance(names.cost * OVERTAKEN);
        assert!(names.is_due(&directory, clock.now()));
    }
}
