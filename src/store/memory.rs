//! Nothing outlives the process: clients and buckets in maps. For tests, and for a proxy that is told to keep nothing.
//!
//! A write is carried out by whoever asks for it, under one lock, and its answer is there at once. The follower is
//! called under the same lock, so it sees the changes in their order.

use std::collections::{BTreeMap, HashMap, VecDeque};
use std::convert::Infallible;
use std::fmt;
use std::ops::Bound;
use std::time::SystemTime;

use ipnet::IpNet;
use parking_lot::Mutex;

use super::plan::{self, ClientSource, Stamp};
use super::{
    Batch, BucketStore, Change, ClientRepository, Committed, Difference, Follower, HistoryEntry, HistoryRules, Moment,
    Page, PageQuery, Profile, Record, Refusal, Reply, Saved, SavedOwed, Snapshot, StoreError, WriteError, credentials,
    new_secret,
};
use crate::client::{ClientId, KeyDigest};
use crate::clock::{Clock, SystemClock};
use crate::limit::Payer;

/// Clients and buckets in memory. See the [module](self).
pub struct Memory {
    clients: Mutex<ClientMap>,
    followers: Mutex<Vec<Follower>>,
    buckets: Mutex<(HashMap<Payer, Saved>, Option<Moment>)>,
    owed: Mutex<HashMap<Payer, SavedOwed>>,
    secret: u128,
}

impl fmt::Debug for Memory {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Memory").finish_non_exhaustive()
    }
}

#[derive(Clone)]
struct ClientMap {
    records: BTreeMap<ClientId, Record>,
    keys: HashMap<KeyDigest, ClientId>,
    networks: HashMap<IpNet, ClientId>,
    history: HashMap<ClientId, VecDeque<HistoryEntry>>,
    numbers: u64,
    rules: HistoryRules,
}

impl Default for ClientMap {
    fn default() -> Self {
        ClientMap {
            records: BTreeMap::new(),
            keys: HashMap::new(),
            networks: HashMap::new(),
            history: HashMap::new(),
            numbers: 0,
            rules: HistoryRules::ALL,
        }
    }
}

impl ClientSource for ClientMap {
    type Error = Infallible;

    fn number(&mut self) -> Result<u64, Infallible> {
        self.numbers += 1;
        Ok(self.numbers)
    }

    fn last_version(&mut self, id: &ClientId) -> Result<u64, Infallible> {
        Ok(self.history.get(id).and_then(|entries| entries.front()).map_or(0, |entry| entry.version))
    }
}

impl ClientMap {
    /// What the change comes to, without carrying it out.
    fn outcome(&mut self, id: &ClientId, after: Option<Profile>, stamp: &Stamp) -> Committed {
        let before = self.records.get(id).cloned();
        match plan::outcome(id, before, after, stamp, self) {
            Ok(committed) => committed,
            Err(never) => match never {},
        }
    }

    /// Gives up the credentials of what the client was.
    fn release(&mut self, committed: &Committed) {
        let Some(before) = &committed.before else { return };
        let (keys, networks) = credentials(&before.id, &before.profile);
        for key in keys {
            self.keys.remove(&key);
        }
        for network in networks {
            self.networks.remove(&network);
        }
    }

    /// The first other client that has a credential of what this one becomes.
    fn conflict(&self, committed: &Committed) -> Option<Refusal> {
        let Record { id, profile, .. } = committed.after.as_ref()?;
        let (keys, networks) = credentials(id, profile);
        if let Some(other) = keys.iter().filter_map(|key| self.keys.get(key)).find(|other| *other != id) {
            return Some(plan::taken(id, other.clone(), None));
        }
        networks.into_iter().find_map(|network| {
            let other = self.networks.get(&network).filter(|other| *other != id)?;
            Some(plan::taken(id, other.clone(), Some(network)))
        })
    }

    /// Carries it out; its old credentials are released, its new ones are free.
    fn carry_out(&mut self, id: &ClientId, committed: &Committed, stamp: &Stamp) {
        let Some(action) = committed.action else { return };
        match &committed.after {
            Some(after) => {
                let (keys, networks) = credentials(id, &after.profile);
                self.keys.extend(keys.into_iter().map(|key| (key, id.clone())));
                self.networks.extend(networks.into_iter().map(|network| (network, id.clone())));
                self.records.insert(id.clone(), after.clone());
            }
            None => drop(self.records.remove(id)),
        }
        let profile = |record: &Option<Record>| record.as_ref().map(|record| record.profile.clone());
        let entries = self.history.entry(id.clone()).or_default();
        entries.push_front(HistoryEntry {
            version: committed.version(),
            at: stamp.at,
            by: stamp.by.clone(),
            action,
            before: profile(&committed.before),
            after: profile(&committed.after),
        });
        self.trim(id, stamp.at);
    }

    /// Forgets what the history of a client has beyond its bounds at `now`, but not what the client is.
    fn trim(&mut self, id: &ClientId, now: SystemTime) {
        let (HistoryRules { keep, age }, current) = (self.rules, self.records.get(id).map(|record| record.version));
        let Some(entries) = self.history.get_mut(id) else { return };
        entries.truncate(usize::try_from(keep.get()).unwrap_or(usize::MAX));
        let old = |entry: &HistoryEntry| now.duration_since(entry.at).is_ok_and(|passed| passed > age);
        entries.retain(|entry| Some(entry.version) == current || !old(entry));
    }

    fn change(&mut self, change: Change) -> Result<Committed, WriteError> {
        let Change { id, by, at, rollback, edit, .. } = change;
        let stamp = Stamp::new(by, at, rollback);
        let after = plan::run(&id, &edit, self.records.get(&id))?;
        let numbers = self.numbers;
        let committed = self.outcome(&id, after, &stamp);
        if let Some(refusal) = plan::check_name(&id, &committed).err().or_else(|| self.conflict(&committed)) {
            self.numbers = numbers;
            return Err(refusal.into());
        }
        if committed.action.is_some() {
            self.release(&committed);
            self.carry_out(&id, &committed, &stamp);
        }
        Ok(committed)
    }

    fn apply(&mut self, batch: Batch) -> Result<Difference, Refusal> {
        let stamp = Stamp::new(batch.by, batch.at, false);
        let mut wanted: BTreeMap<ClientId, Option<Profile>> = BTreeMap::new();
        if batch.prune {
            wanted.extend(self.records.keys().map(|id| (id.clone(), None)));
        }
        let items = batch.items.len() as u64;
        for item in batch.items {
            let (mut profile, present) = (item.profile, self.records.get(&item.id).map(|record| &record.profile));
            if let Some(present) = present {
                profile = profile.keeping_own(present, item.of_plan);
            }
            let keys = present.map(|present| &present.api_keys[..]).unwrap_or_default();
            profile.api_keys = item.keys.of(keys).map_err(Refusal::of_keys(&item.id))?;
            wanted.insert(item.id, Some(profile));
        }
        let outcomes: Vec<_> = wanted.into_iter().map(|(id, after)| (self.outcome(&id, after, &stamp), id)).collect();
        let changes: Vec<_> = outcomes.into_iter().filter(|(committed, _)| committed.action.is_some()).collect();
        changes.iter().try_for_each(|(committed, id)| plan::check_name(id, committed))?;
        for (committed, _) in &changes {
            self.release(committed);
        }
        for (committed, id) in &changes {
            if let Some(refusal) = self.conflict(committed) {
                return Err(refusal);
            }
            self.carry_out(id, committed, &stamp);
        }
        let kept = changes.iter().filter(|(committed, _)| committed.after.is_some()).count() as u64;
        Ok(Difference {
            changes: changes.into_iter().map(|(committed, _)| committed).collect(),
            unchanged: items - kept,
        })
    }
}

impl Memory {
    /// An empty store.
    #[expect(clippy::new_without_default, reason = "no two are alike: each has a secret of its own")]
    pub fn new() -> Self {
        Memory {
            clients: Mutex::default(),
            followers: Mutex::default(),
            buckets: Mutex::default(),
            owed: Mutex::default(),
            secret: new_secret(),
        }
    }

    /// Tells the followers; the clients are still locked, so that the order is kept.
    fn tell(&self, changes: &[Committed]) {
        if !changes.is_empty() {
            self.followers.lock().iter_mut().for_each(|follower| follower(changes));
        }
    }
}

impl ClientRepository for Memory {
    fn change(&self, change: Change) -> Reply<Committed> {
        let mut clients = self.clients.lock();
        let answer = clients.change(change);
        if let Ok(committed) = &answer
            && committed.action.is_some()
        {
            self.tell(std::slice::from_ref(committed));
        }
        Reply::ready(answer)
    }

    fn apply(&self, batch: Batch) -> Reply<Difference> {
        let mut clients = self.clients.lock();
        let dry_run = batch.dry_run;
        let mut changed = clients.clone();
        let answer = changed.apply(batch);
        if let Ok(difference) = &answer
            && !dry_run
        {
            *clients = changed;
            self.tell(&difference.changes);
        }
        Reply::ready(answer.map_err(WriteError::Refused))
    }

    fn get(&self, id: &ClientId) -> Result<Option<Record>, StoreError> {
        Ok(self.clients.lock().records.get(id).cloned())
    }

    fn page(&self, query: &PageQuery) -> Result<Page, StoreError> {
        let clients = self.clients.lock();
        let found = |record: &&Record| plan::matches(&query.search, record.id.as_str(), &record.profile.note);
        let start = query.after.clone().map_or(Bound::Unbounded, Bound::Excluded);
        let after = clients.records.range((start, Bound::Unbounded)).map(|(_, record)| record);
        let mut items: Vec<_> = after.filter(found).take(query.limit.saturating_add(1)).cloned().collect();
        let more = items.len() > query.limit;
        items.truncate(query.limit);
        Ok(Page { items, more, total: clients.records.values().filter(found).count() as u64 })
    }

    fn history(&self, id: &ClientId, before: Option<u64>, limit: usize) -> Result<Vec<HistoryEntry>, StoreError> {
        let clients = self.clients.lock();
        let entries = clients.history.get(id).into_iter().flatten();
        let earlier = entries.skip_while(|entry| before.is_some_and(|before| entry.version >= before));
        Ok(earlier.take(limit).cloned().collect())
    }

    fn latest_changes(&self, limit: usize) -> Result<Vec<(ClientId, HistoryEntry)>, StoreError> {
        let clients = self.clients.lock();
        let each = clients.history.iter().flat_map(|(id, entries)| entries.iter().map(move |entry| (id, entry)));
        let mut latest: Vec<_> = each.map(|(id, entry)| (id.clone(), entry.clone())).collect();
        latest.sort_by(|(id, a), (other, b)| (b.at, b.version, id).cmp(&(a.at, a.version, other)));
        latest.truncate(limit);
        Ok(latest)
    }

    fn for_each(&self, each: &mut dyn FnMut(Record) -> bool) -> Result<(), StoreError> {
        let records = self.clients.lock().records.clone();
        let _ = records.into_values().all(each);
        Ok(())
    }

    fn keep_history(&self, rules: HistoryRules) {
        let mut clients = self.clients.lock();
        clients.rules = rules;
        let ids: Vec<_> = clients.history.keys().cloned().collect();
        ids.iter().for_each(|id| clients.trim(id, SystemClock.wall()));
    }

    fn follow(&self, follower: Follower) {
        self.followers.lock().push(follower);
    }
}

impl BucketStore for Memory {
    fn secret(&self) -> u128 {
        self.secret
    }

    fn save(&self, snapshot: Snapshot) -> Reply<()> {
        let mut buckets = self.buckets.lock();
        for payer in &snapshot.dropped {
            buckets.0.remove(payer);
        }
        buckets.0.extend(snapshot.changed.into_iter().map(|saved| (saved.payer, saved)));
        buckets.1 = Some(snapshot.at);
        let mut owed = self.owed.lock();
        owed.extend(snapshot.owed.into_iter().map(|saved| (saved.payer, saved)));
        owed.retain(|_, saved| saved.tokens > 0);
        Reply::ready(Ok(()))
    }

    fn load(&self, each: &mut dyn FnMut(Saved)) -> Result<Option<Moment>, StoreError> {
        let (buckets, moment) = self.buckets.lock().clone();
        buckets.into_values().for_each(each);
        Ok(moment)
    }

    fn load_owed(&self, each: &mut dyn FnMut(SavedOwed)) -> Result<(), StoreError> {
        self.owed.lock().values().copied().for_each(each);
        Ok(())
    }
}
