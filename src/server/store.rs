//! The store, and what keeps the proxy's memory in step with it.
//!
//! Each change goes first into its client's bucket (credited under the old quota up to now, then clamped to the new
//! capacity) and then into the directory, so that no request sees the new quota over tokens of the old one. A request
//! that read the directory just before is decided by what was, and the bucket keeps its tokens either way.

use std::collections::HashMap;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use arc_swap::ArcSwap;
use log::warn;
use parking_lot::Mutex;

use super::buckets::{Buckets, Raised};
use super::error::ServerError;
use crate::client::{Client, ClientId, Directory, Plans, Quota};
use crate::clock::{Clock, Timeline};
use crate::limit::{Key, Nanos, Payer, PolicyId, WholeLimiter};
use crate::store::memory::Memory;
use crate::store::sqlite::Sqlite;
use crate::store::{BucketStore, ClientRepository, Committed, Follower, Record};

/// How many changes at once make it worth to wait until nobody looks into the directory before them.
const MANY: usize = 1_000;
/// For how many milliseconds, at most.
const PATIENCE: u32 = 100;

/// Where clients and buckets are kept.
#[derive(Clone)]
pub(super) struct Store {
    pub(super) clients: Arc<dyn ClientRepository>,
    pub(super) buckets: Arc<dyn BucketStore>,
    /// The file; none when nothing outlives the process.
    file: Option<Sqlite>,
}

impl Store {
    /// Opens the file, or begins with nothing when there is to be none.
    pub(super) fn open(path: Option<&Path>) -> Result<Self, ServerError> {
        Ok(match path {
            Some(path) => Store::of(Sqlite::open(path)?),
            None => {
                let memory = Arc::new(Memory::new());
                Store { clients: Arc::clone(&memory) as _, buckets: memory, file: None }
            }
        })
    }

    /// The file, to join a fleet with.
    pub(super) fn file(&self) -> Option<Sqlite> {
        self.file.clone()
    }

    /// The same store in `file`.
    pub(super) fn of(file: Sqlite) -> Self {
        Store { clients: Arc::new(file.clone()), buckets: Arc::new(file.clone()), file: Some(file) }
    }

    /// Why nothing can be written now; none when it can.
    pub(super) fn fault(&self) -> Option<String> {
        self.file.as_ref()?.fault()
    }

    /// How many writes failed so far.
    pub(super) fn errors(&self) -> u64 {
        self.file.as_ref().map_or(0, |file| file.errors())
    }

    /// Writes what waits, and closes the file.
    pub(super) fn close(&self) {
        if let Some(file) = self.file.clone() {
            file.close();
        }
    }
}

/// What follows the store: where the proxy looks clients up, and their buckets.
#[derive(Clone)]
pub(super) struct Followers {
    pub(super) directory: Arc<ArcSwap<Directory>>,
    pub(super) limiter: Arc<dyn WholeLimiter>,
    /// Who keeps them on disk; only asked to, never waited for.
    pub(super) buckets: Arc<Buckets>,
    pub(super) clock: Arc<dyn Clock>,
    pub(super) timeline: Timeline,
    /// What clients with a plan may spend.
    pub(super) plans: Arc<ArcSwap<Plans>>,
    /// Locked by whoever changes any of these, since what is read of them must not change before it is written.
    pub(super) alone: Arc<Mutex<()>>,
}

impl Followers {
    /// Fills the directory with all clients and keeps it in step from then on. Returns what they have.
    pub(super) fn load(&self, clients: &dyn ClientRepository) -> Result<HashMap<Payer, Quota>, ServerError> {
        // Changes of another process wait until all is loaded; one that was loaded already does no harm when it comes
        // again.
        let loading = self.alone.lock();
        clients.follow(self.clone().follower());
        let (mut quotas, mut all, plans) = (HashMap::new(), Vec::new(), self.plans.load());
        let load = clients.for_each(&mut |record| {
            let client = record.client(self.buckets.keys(), &plans);
            let payer = Payer::client(record.number);
            quotas.insert(payer, client.quota);
            quotas.extend(client.policies.iter().map(|(name, own)| (payer.within(PolicyId::of(name)), *own)));
            all.push(Arc::new(client));
            true
        });
        load.map_err(|error| ServerError::Failed(error.to_string()))?;
        let directory =
            Directory::new(all).map_err(|conflict| ServerError::Failed(format!("the database: {conflict}")))?;
        self.directory.store(Arc::new(directory));
        drop(loading);
        self.warn_of_missing();
        Ok(quotas)
    }

    fn follower(self) -> Follower {
        Box::new(move |changes| {
            let _loaded = self.alone.lock();
            self.follow(changes);
        })
    }

    /// Puts clients that have a plan under what `plans` say from now on. Takes as long as there are clients.
    pub(super) fn set_plans(&self, plans: &Plans) {
        let _alone = self.alone.lock();
        if **self.plans.load() == *plans {
            return;
        }
        let (now, keys) = (self.timeline.nanos(self.clock.now()), self.buckets.keys());
        let directory = self.directory.load_full();
        let (mut raised, mut changes) = (Vec::new(), Vec::new());
        for client in directory.those(|client| client.plan.is_some()) {
            let Some((name, own)) = client.plan.as_deref() else { continue };
            let (from, to) = (client.quota, plans.quota(Some(name), *own));
            if from != to {
                let key = Key::client(client.uid);
                raised.extend(keys.payer(key).and_then(|payer| self.edit((payer, key), from, to, now)));
                changes.push((Some(Client::clone(client)), Some(Client { quota: to, ..Client::clone(client) })));
            }
        }
        self.buckets.keep(&raised);
        let many = changes.len() >= MANY;
        let next = directory.with(changes);
        drop(directory);
        self.plans.store(Arc::new(plans.clone()));
        self.replace(next, many);
    }

    /// Says, in a line each, how many clients have a plan that is not there, and how many a quota of their own in a
    /// policy that is not there. Takes as long as there are clients.
    pub(super) fn warn_of_missing(&self) {
        let (directory, plans) = (self.directory.load_full(), self.plans.load());
        let plan = |client: &Client| Some(client.plan.as_deref()?.0.clone()).filter(|name| plans.get(name).is_none());
        if let Some((count, client, plan)) = those(&directory, |client| Some(plan(client)?.to_string())) {
            warn!(
                "clients whose plan the configuration does not have: {count}, such as {client} with {plan}; \
                 each may spend what is kept for it, see its capacity"
            );
        }
        let gone = |name: &str| self.limiter.policy(PolicyId::of(name)).is_none();
        let policy =
            |client: &Client| client.policies.iter().find(|(name, _)| gone(name)).map(|(name, _)| name.clone());
        if let Some((count, client, policy)) = those(&directory, policy) {
            warn!(
                "clients with a quota of their own in a policy that the configuration does not have: {count}, \
                 such as {client} in {policy}; it is kept, and counts when the policy is there"
            );
        }
    }

    /// Says in a line which policy that is not there clients now have a quota of their own in.
    fn warn_of_new_missing(&self, changes: &[Committed]) {
        let has = |record: &Option<Record>, name: &str| {
            record.as_ref().is_some_and(|record| record.profile.policies.iter().any(|(other, _)| other == name))
        };
        let new = |change: &Committed| {
            let own = &change.after.as_ref()?.profile.policies;
            let mut missing = own.iter().filter(|(name, _)| self.limiter.policy(PolicyId::of(name)).is_none());
            let (name, _) = missing.find(|(name, _)| !has(&change.before, name))?;
            Some((change.after.as_ref()?.id.clone(), name.clone()))
        };
        let mut found = changes.iter().filter_map(new);
        if let Some((client, policy)) = found.next() {
            let others = match found.count() {
                0 => String::new(),
                count => format!(", and {count} other clients in such a policy"),
            };
            warn!(
                "client {client} has a quota of its own in {policy}, a policy that the configuration does not have{others}; \
                 it is kept, and counts when the policy is there"
            );
        }
    }

    /// Puts a bucket under another quota; the bucket if it is to be saved at once.
    fn edit(&self, (payer, key): (Payer, Key), from: Quota, to: Quota, now: Nanos) -> Option<Raised> {
        self.limiter.edit(key, from, to, now);
        // A bucket that was full is saved nowhere. After a crash it would be full under the new capacity, so it does
        // not wait for its turn. If this fails, the next export has it.
        (from.capacity() < to.capacity()).then_some((payer, key, to))
    }

    /// Puts another directory in place of the one there is.
    fn replace(&self, directory: Directory, many: bool) {
        let old = self.directory.swap(Arc::new(directory));
        if many {
            // A request may still look into the old one; it must not be the one to take a million clients apart.
            for _ in 0..PATIENCE {
                if Arc::strong_count(&old) == 1 {
                    break;
                }
                std::thread::park_timeout(Duration::from_millis(1));
            }
        }
    }

    /// Puts the buckets of a client in policies under what it has of its own there now, or the policy's quota; what is
    /// to be saved of them at once.
    fn follow_policies(&self, change: &Committed, now: Nanos) -> Vec<Raised> {
        let mut raised = Vec::new();
        // Who is new has no bucket yet, and one that is gone needs none.
        let (Some(before), Some(record)) = (&change.before, &change.after) else { return raised };
        let own = |record: &Record| -> HashMap<String, Quota> { record.profile.policies.iter().cloned().collect() };
        let (before, after) = (own(before), own(record));
        let all = before.keys().chain(after.keys().filter(|name| !before.contains_key(*name)));
        for name in all.filter(|name| before.get(*name) != after.get(*name)) {
            let id = PolicyId::of(name);
            let Some((slot, quota)) = self.limiter.policy(id) else { continue };
            let [from, to] = [&before, &after].map(|own| own.get(name).copied().unwrap_or(quota));
            let payer = Payer::client(record.number).within(id);
            let key = self.buckets.keys().key_within(payer, slot, after.contains_key(name));
            raised.extend(self.edit((payer, key), from, to, now));
        }
        raised
    }

    fn follow(&self, changes: &[Committed]) {
        let now = self.timeline.nanos(self.clock.now());
        let (mut raised, keys, plans) = (Vec::new(), self.buckets.keys(), self.plans.load());
        for change in changes {
            if let (Some(before), Some(after)) = (&change.before, &change.after) {
                let (from, to) = (before.profile.quota(&plans), after.profile.quota(&plans));
                let payer = Payer::client(after.number);
                raised.extend((from != to).then(|| self.edit((payer, keys.key(payer)), from, to, now)).flatten());
            }
        }
        raised.extend(changes.iter().flat_map(|change| self.follow_policies(change, now)));
        self.buckets.keep(&raised);
        let client =
            |record: &Option<Record>| -> Option<Client> { record.as_ref().map(|record| record.client(keys, &plans)) };
        let changed = changes.iter().filter(|change| change.action.is_some());
        let directory =
            self.directory.load().with(changed.map(|change| (client(&change.before), client(&change.after))));
        self.replace(directory, changes.len() >= MANY);
        self.warn_of_new_missing(changes);
        for change in changes {
            if let (Some(gone), None) = (&change.before, &change.after) {
                // Full, so the next sweep drops it.
                self.limiter.reset(keys.client(gone.number), gone.profile.quota(&plans), now);
            }
        }
    }
}

/// How many clients have what `of` finds, the first of them by its name, and what it has; none when there are none.
fn those(directory: &Directory, of: impl Fn(&Client) -> Option<String>) -> Option<(usize, ClientId, String)> {
    let (mut count, mut first) = (0, None::<&Arc<Client>>);
    for client in directory.those(|client| of(client).is_some()) {
        count += 1;
        first = Some(first.filter(|first| first.id <= client.id).unwrap_or(client));
    }
    first.and_then(|client| Some((count, client.id.clone(), of(client)?)))
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::ManualClock;
    use crate::limit::RateLimit;
    use crate::limit::exact::Exact;
    use crate::store::{Change, Profile};

    fn capacity(clock: &ManualClock, capacity: u64) -> Change {
        let quota = Quota::new(capacity, 1.0).unwrap();
        let profile = Profile::new(quota);
        let (id, edit) =
            (ClientId::parse("user1").unwrap(), Box::new(move |_: Option<&Record>| Ok(Some(profile.clone()))));
        Change { id, by: "test".to_owned(), at: clock.wall(), rollback: false, local: false, edit }
    }

    #[test]
    fn a_raised_capacity_is_saved_at_once_unless_another_process_saves() {
        let (store, clock) = (Arc::new(Memory::new()), Arc::new(ManualClock::new()));
        let timeline = Timeline::new(clock.as_ref());
        let default_quota = Quota::new(1, 1.0).unwrap();
        let limiter: Arc<dyn WholeLimiter> = Arc::new(Exact::new(1, default_quota, timeline.nanos(clock.now())));
        let saving = Arc::clone(&store) as Arc<dyn BucketStore>;
        let buckets =
            Buckets::new(Arc::clone(&limiter), saving, &RateLimit::default(), Arc::clone(&clock) as _, timeline);
        let buckets = Arc::new(buckets.of_successor());
        let followers = Followers {
            directory: Arc::default(),
            limiter,
            buckets: Arc::clone(&buckets),
            clock: Arc::clone(&clock) as _,
            timeline,
            plans: Arc::default(),
            alone: Arc::default(),
        };
        followers.load(store.as_ref()).unwrap();
        let saved = |to: u64| {
            store.change(capacity(&clock, to)).wait_blocking().unwrap();
            let mut saved = 0;
            store.load(&mut |_| saved += 1).unwrap();
            saved
        };
        assert_eq!((saved(5), saved(10)), (0, 0));
        buckets.receive_right();
        assert_eq!(saved(20), 1);
    }
}
