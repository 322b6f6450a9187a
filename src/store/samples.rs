//! Clients, changes and buckets for the tests of the stores.

use std::time::{Duration, SystemTime};

use super::*;
use crate::client::{ApiKey, KeyDigest, Quota};
use crate::clock::BootTime;
use crate::limit::Tokens;

pub(super) fn client_id(name: &str) -> ClientId {
    ClientId::parse(name).unwrap()
}

pub(super) fn profile(capacity: u64, rate: f64) -> Profile {
    Profile::new(Quota::new(capacity, rate).unwrap())
}

pub(super) fn profile_with(key: Option<&str>, addresses: &[&str]) -> Profile {
    Profile {
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        api_keys: key.map(|key| ApiKey::primary(KeyDigest::of(key.as_bytes()))).into_iter().collect(),
        ..profile(10, 1.0)
    }
}

fn at() -> SystemTime {
    SystemTime::UNIX_EPOCH + Duration::from_micros(1_700_000_000_123_456)
}

pub(super) fn edit(
    name: &str,
    edit: impl Fn(Option<&Record>) -> Result<Option<Profile>, Refusal> + Send + 'static,
) -> Change {
    Change { id: client_id(name), by: "test".to_owned(), at: at(), rollback: false, local: false, edit: Box::new(edit) }
}

pub(super) fn set(name: &str, profile: Profile) -> Change {
    edit(name, move |_| Ok(Some(profile.clone())))
}

pub(super) fn delete(name: &str) -> Change {
    edit(name, |_| Ok(None))
}

/// Makes a client that is not there yet.
pub(super) fn create<S: ClientRepository + ?Sized>(
    store: &S,
    name: &str,
    profile: Profile,
) -> Result<Committed, WriteError> {
    let make = edit(name, move |before| match before {
        Some(before) => Err(Refusal::Exists(before.id.clone())),
        None => Ok(Some(profile.clone())),
    });
    store.change(make).wait_blocking()
}

pub(super) fn item(name: &str, profile: Profile) -> BatchItem {
    let key =
        |key: &ApiKey| WantedKey { id: Some(key.id.clone()), digest: Some(key.digest), expires_at: key.expires_at };
    let keys = KeyChange::Set(profile.api_keys.iter().map(key).collect());
    BatchItem { id: client_id(name), profile, keys, of_plan: None }
}

pub(super) fn batch(items: Vec<BatchItem>, prune: bool) -> Batch {
    Batch { items, prune, dry_run: false, local: false, by: "test".to_owned(), at: at(), progress: Default::default() }
}

/// The names of all clients.
pub(super) fn names<S: ClientRepository + ?Sized>(store: &S) -> Vec<String> {
    let mut names = Vec::new();
    store
        .for_each(&mut |record| {
            names.push(record.id.to_string());
            true
        })
        .unwrap();
    names
}

pub(super) fn id_of(change: &Committed) -> String {
    change.after.as_ref().or(change.before.as_ref()).unwrap().id.to_string()
}

/// The bucket of `payer` with `tokens` and a half.
pub(super) fn spent(payer: Payer, tokens: u32) -> Saved {
    let bucket = Bucket::resume(Tokens::from_parts(tokens, 500_000_000_000_000_000), 1_700_000_000_000_000_007);
    Saved { payer, bucket, quota: Quota::new(100, 0.7).unwrap() }
}

pub(super) fn snapshot(changed: Vec<Saved>, dropped: Vec<Payer>, at: u64) -> Snapshot {
    let boot = Some(BootTime { id: u128::from(at) << 70 | 5, nanos: at + 2 });
    Snapshot::of(changed, dropped, Moment { timeline: at, wall: at + 1, boot })
}
