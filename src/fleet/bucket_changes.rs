//! What operators do to buckets: in the store at once, or on this node first, and in the store when it is there again.
//!
//! The problem: while the store is away, a client is to have its tokens all the same. A grant counts once, whatever
//! ends in between: a call without an answer may be carried out later, and a node may be killed after the store has it
//! and before it knows.
//!
//! The rule: a change that may be made here alone has a number, drawn at random, from its first try on. The store
//! remembers for 30 days that it has carried it out, in a key beside the bucket, and does not do it again. What the
//! store has not answered is kept in the database before it counts here, and forgotten when the store has answered. It
//! is told once the store is believed again, in the order in which the changes were made: by then all nodes have told
//! what they gave meanwhile, so a bucket that was filled here is full for all, whatever was given before that.
//!
//! What this node gave of a grant before it was told is owed as everything else that it gives without the store; that
//! a node is killed before it tells what it gave is no worse here than there.
//!
//! Refused: to keep the change with the bucket in the store, which would make every bucket larger; to tell the tokens of
//! the view in place of the change, which are those of one node's share.

use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, SystemTime};

use log::{info, warn};
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::bucket;
use super::link::{LinkError, StoreLink};
use super::names::Names;
use crate::client::{Quota, Rate};
use crate::clock::Clock;
use crate::limit::shared::leases::Leases;
use crate::limit::{KeyMaker, Payer, PolicyId, Reach};
use crate::store::WriteError;
use crate::store::sqlite::Sqlite;

/// How long the store may take for one.
const LIMIT: Duration = Duration::from_secs(1);
/// How often is looked whether what is kept can be told.
const PACE: Duration = Duration::from_millis(200);
/// How the names begin of the notes that they are kept in.
const KEPT: &str = "bucket-change/";

/// What is done to buckets of one client.
#[derive(Clone, Debug, PartialEq)]
pub struct BucketChange {
    /// Which, under what quotas.
    pub buckets: Vec<(Payer, Quota)>,
    /// So many tokens are added; none fills them.
    pub tokens: Option<NonZeroU32>,
}

/// A change that is kept to be told later.
#[derive(Debug)]
pub struct KeptChange(String);

/// Makes changes of buckets.
pub struct BucketChanges {
    link: StoreLink,
    names: Names,
    keys: Arc<KeyMaker>,
    leases: Arc<Leases>,
    file: Sqlite,
    clock: Arc<dyn Clock>,
    /// Whether some may be kept.
    some: AtomicBool,
}

impl BucketChanges {
    /// In the store that `link` leads to, or in `file`, which is open; `keys` makes the fleet's.
    pub fn new(
        (link, names): (StoreLink, Names),
        (keys, leases): (Arc<KeyMaker>, Arc<Leases>),
        file: Sqlite,
        clock: Arc<dyn Clock>,
    ) -> Arc<Self> {
        Arc::new(BucketChanges { link, names, keys, leases, file, clock, some: AtomicBool::new(true) })
    }

    /// Makes a change in the store. Where the store cannot be reached and it may be `local`, keeps it for later: then it
    /// is to be made here, too, or [given up](BucketChanges::give_up).
    ///
    /// # Errors
    /// Why it is neither made nor kept.
    pub async fn make(&self, change: &BucketChange, local: bool) -> Result<Option<KeptChange>, WriteError> {
        let number = local.then(|| fastrand::u64(1..));
        match self.tell(change, number).await {
            Ok(()) => Ok(None),
            Err(LinkError::Unreachable(_) | LinkError::Refused(_) | LinkError::TimedOut)
                if let Some(number) = number =>
            {
                let since = self.clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
                let name = format!("{KEPT}{:020}/{number:016x}", since.as_micros());
                self.file.keep_fleet_note(&name, &written(change)).wait().await?;
                self.some.store(true, Ordering::SeqCst);
                Ok(Some(KeptChange(name)))
            }
            Err(LinkError::TimedOut) => Err(WriteError::FleetUnknown),
            Err(LinkError::Unreachable(_)) => Err(WriteError::FleetUnreachable),
            Err(LinkError::Refused(reason) | LinkError::Script(reason)) => Err(WriteError::FleetRefuses(reason)),
        }
    }

    /// Gives up what was kept.
    pub async fn give_up(&self, kept: KeptChange) {
        drop(self.file.forget_fleet_note(&kept.0).wait().await);
    }

    /// Tells what is kept whenever the store is believed, until `shutdown` says that the server stops.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let mut pace = interval(PACE);
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stopping| *stopping) => return,
                _ = pace.tick() => {}
            }
            if self.leases.reach() == Reach::Joined
                && self.some.swap(false, Ordering::SeqCst)
                && !self.tell_kept().await
            {
                self.some.store(true, Ordering::SeqCst);
            }
        }
    }

    /// Tells what is kept; whether nothing is any more.
    async fn tell_kept(&self) -> bool {
        let file = self.file.clone();
        let Ok(Ok(kept)) = tokio::task::spawn_blocking(move || file.fleet_notes(KEPT)).await else { return false };
        let mut all = true;
        for (name, text) in &kept {
            let Some((number, change)) = number_in(name).zip(read(text)) else {
                warn!("fleet: a change of buckets that was kept makes no sense: {name} {text}");
                continue;
            };
            // First what was given before it, here.
            let owes = change.buckets.iter().any(|(payer, _)| self.leases.owes(self.keys.of(*payer)));
            if owes {
                all = false;
                continue;
            }
            if self.tell(&change, Some(number)).await.is_err() {
                return false;
            }
            if self.file.forget_fleet_note(name).wait().await.is_err() {
                return false;
            }
        }
        if all && !kept.is_empty() {
            info!("fleet: resets and grants that were made here alone, told to the store: {}", kept.len());
        }
        all
    }

    /// Has the store carry out a change, which has a number where it is to be carried out once.
    async fn tell(&self, change: &BucketChange, number: Option<u64>) -> Result<(), LinkError> {
        let call = |(payer, quota): &(Payer, Quota)| match change.tokens {
            None => bucket::reset(&self.names, self.keys.of(*payer), *quota, number),
            Some(tokens) => bucket::grant(&self.names, self.keys.of(*payer), *quota, tokens.get(), number),
        };
        let calls: Vec<_> = change.buckets.iter().map(call).collect();
        self.link.calls(&calls, LIMIT).await.into_iter().try_for_each(|answer| answer.map(drop))
    }
}

/// A change as text.
pub(super) fn written(change: &BucketChange) -> String {
    let mut text = change.tokens.map_or(0, NonZeroU32::get).to_string();
    for (payer, quota) in &change.buckets {
        let ((kind, payload), policy) = (payer.parts(), payer.policy().map_or(0, PolicyId::bits));
        let (capacity, rate) = (quota.capacity(), quota.rate().nanos_per_sec());
        text.push_str(&format!(" {policy} {kind} {payload} {capacity} {rate}"));
    }
    text
}

/// The number of a change, in the name that it is kept under.
fn number_in(name: &str) -> Option<u64> {
    u64::from_str_radix(name.rsplit('/').next()?, 16).ok()
}

/// What [`written`] wrote.
pub(super) fn read(text: &str) -> Option<BucketChange> {
    let numbers: Vec<u64> = text.split(' ').map(|number| number.parse().ok()).collect::<Option<_>>()?;
    let (tokens, buckets) = numbers.split_first()?;
    let (buckets, []) = buckets.as_chunks::<5>() else { return None };
    let bucket = |[policy, kind, payload, capacity, rate]: &[u64; 5]| {
        let (kind, capacity) = (u8::try_from(*kind).ok()?, NonZeroU32::new(u32::try_from(*capacity).ok()?)?);
        let payer = match PolicyId::from_bits(*policy) {
            None => Payer::from_parts(kind, *payload)?,
            Some(policy) => Payer::from_parts_within(policy, kind, *payload)?,
        };
        Some((payer, Quota::of(capacity, Rate::from_nanos_per_sec(*rate)?)))
    };
    let buckets = buckets.iter().map(bucket).collect::<Option<_>>()?;
    Some(BucketChange { buckets, tokens: NonZeroU32::new(u32::try_from(*tokens).ok()?) })
}

#[cfg(test)]
mod tests;
