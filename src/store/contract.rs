//! What every repository and every bucket store must do; each test runs over all of them.
//!
//! Long because both seams stand together.

mod history;
mod pages;

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use parking_lot::Mutex;

use super::memory::Memory;
use super::samples::{
    batch, client_id, create, delete, edit, id_of, item, names, profile, profile_with, set, snapshot, spent,
};
use super::sqlite::Sqlite;
use super::*;
use crate::client::{ApiKey, KeyDigest, KeyId, PlanName};

/// Both seams, as the server has them.
trait Store: ClientRepository + BucketStore {}
impl<T: ClientRepository + BucketStore> Store for T {}

/// Runs `test` over an empty store of each kind.
fn over_each(test: impl Fn(&dyn Store)) {
    test(&Memory::new());
    let directory = tempfile::tempdir().unwrap();
    let store = Sqlite::open(&directory.path().join("tollgate.db")).unwrap();
    test(&store);
    assert_eq!((store.fault(), store.errors()), (None, 0));
}

/// What the follower of `store` was told.
fn followed(store: &dyn Store) -> Arc<Mutex<Vec<Committed>>> {
    let told = Arc::new(Mutex::new(Vec::new()));
    let follower = Arc::clone(&told);
    store.follow(Box::new(move |changes| follower.lock().extend_from_slice(changes)));
    told
}

fn refused<T: std::fmt::Debug>(reply: Reply<T>) -> Refusal {
    match reply.wait_blocking().unwrap_err() {
        WriteError::Refused(refusal) => refusal,
        error => panic!("{error}"),
    }
}

#[test]
fn a_client_is_made_changed_and_deleted() {
    over_each(|store| {
        let told = followed(store);
        let made = create(store, "user1", profile(100, 0.7)).unwrap();
        let record = made.after.clone().unwrap();
        assert_eq!((made.before.as_ref(), made.action, record.version), (None, Some(Action::Create), 1));
        assert_eq!(store.get(&client_id("user1")), Ok(Some(record.clone())));
        let raised = store.change(set("user1", profile(200, 1.0 / 3.0))).wait_blocking().unwrap();
        let second = raised.after.clone().unwrap();
        assert_eq!((raised.before.as_ref(), raised.action), (Some(&record), Some(Action::Update)));
        assert_eq!((second.version, second.number, second.created_at), (2, record.number, record.created_at));
        assert_eq!(second.profile, profile(200, 1.0 / 3.0));
        let deleted = store.change(delete("user1")).wait_blocking().unwrap();
        assert_eq!((deleted.before.as_ref(), deleted.after.as_ref()), (Some(&second), None));
        assert_eq!((store.get(&client_id("user1")), store.get(&client_id("USER1"))), (Ok(None), Ok(None)));
        assert_eq!(*told.lock(), [made, raised, deleted]);
    });
}

#[test]
fn a_change_to_what_is_there_already_records_nothing() {
    over_each(|store| {
        let told = followed(store);
        let first = create(store, "user1", profile(10, 1.0)).unwrap().after;
        let same = store.change(set("user1", profile(10, 1.0))).wait_blocking().unwrap();
        assert_eq!(same, Committed { before: first.clone(), after: first, action: None });
        let nothing = store.change(delete("nobody")).wait_blocking().unwrap();
        assert_eq!(nothing, Committed { before: None, after: None, action: None });
        assert_eq!((told.lock().len(), store.history(&client_id("user1"), None, 9).unwrap().len()), (1, 1));
        assert_eq!(store.history(&client_id("nobody"), None, 9).unwrap(), []);
    });
}

#[test]
fn a_refused_change_changes_nothing() {
    over_each(|store| {
        create(store, "user1", profile(10, 1.0)).unwrap();
        let told = followed(store);
        let id = client_id("user1");
        let refusal =
            refused(store.change(edit("user1", |_| Err(Refusal::Version { id: client_id("user1"), version: 1 }))));
        assert_eq!(refusal, Refusal::Version { id: id.clone(), version: 1 });
        assert_eq!(store.get(&id).unwrap().unwrap().version, 1);
        assert_eq!(told.lock().len(), 0);
    });
}

#[test]
fn no_new_client_has_a_name_that_paths_lose_and_those_that_are_there_stay() {
    over_each(|store| {
        let new = |names: &[&str]| batch(names.iter().map(|name| item(name, profile(3, 1.0))).collect(), false);
        for name in ["a//b", "../a", "a/.", "/"] {
            let refusal = Refusal::Name(client_id(name));
            assert_eq!(refused(store.change(set(name, profile(1, 1.0)))), refusal);
            assert_eq!(refused(store.apply(new(&["good", name]))), refusal);
            assert_eq!(store.get(&client_id(name)), Ok(None));
            // From a time when such names were taken.
            let restored = Change { rollback: true, ..set(name, profile(1, 1.0)) };
            store.change(restored).wait_blocking().unwrap();
            store.change(set(name, profile(2, 1.0))).wait_blocking().unwrap();
            store.apply(new(&[name])).wait_blocking().unwrap();
            assert_eq!(store.get(&client_id(name)).unwrap().unwrap().version, 3);
            store.change(delete(name)).wait_blocking().unwrap();
        }
        assert_eq!(names(store), Vec::<String>::new());
    });
}

#[test]
fn a_credential_has_one_owner() {
    over_each(|store| {
        let (keyed, networked) =
            (profile_with(Some("secret"), &[]), profile_with(None, &["10.0.0.0/8", "10.1.0.0/16"]));
        create(store, "a", keyed.clone()).unwrap();
        create(store, "b", networked.clone()).unwrap();
        let (a, b, c) = (client_id("a"), client_id("b"), client_id("c"));
        assert_eq!(
            refused(store.change(set("c", keyed.clone()))),
            Refusal::KeyTaken { id: c.clone(), other: a.clone() }
        );
        let network = "10.1.0.0/16".parse().unwrap();
        let wanted = set("c", profile_with(None, &["10.1.0.0/16"]));
        assert_eq!(refused(store.change(wanted)), Refusal::AddressTaken { id: c.clone(), other: b, network });
        // A name that is its own credential counts.
        let secret = set("secret", profile(1, 1.0));
        assert_eq!(refused(store.change(secret)), Refusal::KeyTaken { id: client_id("secret"), other: a.clone() });
        let network = "10.0.0.0/8".parse().unwrap();
        let id = client_id("10.9.9.9/8");
        let named = set("10.9.9.9/8", profile(1, 1.0));
        assert_eq!(refused(store.change(named)), Refusal::AddressTaken { id, other: client_id("b"), network });
        assert_eq!(store.get(&c), Ok(None));
        // What one gives up, another can have; its own it keeps.
        store.change(set("a", profile_with(Some("secret"), &["192.0.2.1/32"]))).wait_blocking().unwrap();
        store.change(set("a", profile_with(None, &["192.0.2.1/32"]))).wait_blocking().unwrap();
        store.change(set("c", keyed)).wait_blocking().unwrap();
        store.change(delete("b")).wait_blocking().unwrap();
        store.change(set("d", networked)).wait_blocking().unwrap();
        assert_eq!(names(store), ["a", "c", "d"]);
    });
}

#[test]
fn a_client_made_again_counts_on_and_has_a_new_number() {
    over_each(|store| {
        let first = create(store, "user1", profile(1, 1.0)).unwrap().after.unwrap();
        let other = create(store, "user2", profile(1, 1.0)).unwrap().after.unwrap();
        store.change(delete("user1")).wait_blocking().unwrap();
        let again = create(store, "user1", profile(1, 1.0)).unwrap().after.unwrap();
        assert_eq!(again.version, 3);
        assert!(again.number > other.number && other.number > first.number);
    });
}

#[test]
fn an_edit_that_panics_is_refused_alone() {
    over_each(|store| {
        create(store, "user1", profile(1, 1.0)).unwrap();
        let failed = store.change(edit("user1", |_| panic!("for the test"))).wait_blocking();
        let error =
            WriteError::Unavailable(StoreError("the edit of client user1 failed; the log says more".to_owned()));
        assert_eq!(failed, Err(error));
        store.change(set("user1", profile(2, 1.0))).wait_blocking().unwrap();
        assert_eq!(store.get(&client_id("user1")).unwrap().unwrap().version, 2);
    });
}

#[test]
fn every_part_of_a_client_is_kept() {
    over_each(|store| {
        let mut odd = profile_with(Some("k"), &["2001:db8::/32", "::/0", "0.0.0.0/0"]);
        odd.quota = crate::client::Quota::new(1_000_000_000, 999_999_999.9).unwrap();
        odd.mode = crate::client::Mode::Blocked;
        odd.plan = PlanName::parse("gone");
        odd.candidate = crate::client::Quota::new(7, 0.3).ok();
        odd.max_concurrent = std::num::NonZeroU32::new(9);
        odd.policies = vec![("writes".to_owned(), Quota::new(50, 0.7).unwrap())];
        odd.api_keys.extend([Some(7), None].map(|expires_at| {
            let digest = KeyDigest::of(format!("{expires_at:?}").as_bytes());
            ApiKey { id: KeyId::fresh(), digest, expires_at }
        }));
        odd.note = "line\nÄ \"' \0 end".to_owned();
        create(store, "odd", odd.clone()).unwrap();
        assert_eq!(store.get(&client_id("odd")).unwrap().unwrap().profile, odd);
        assert_eq!(store.history(&client_id("odd"), None, 1).unwrap()[0].after, Some(odd));
    });
}

#[test]
fn a_list_of_all_is_of_one_moment_and_can_be_ended() {
    over_each(|store| {
        for name in ["c", "a", "b"] {
            create(store, name, profile(1, 1.0)).unwrap();
        }
        let mut seen = Vec::new();
        store
            .for_each(&mut |record| {
                seen.push(record.id.to_string());
                // Neither does it keep a write from happening, nor does it see it.
                store.change(delete("c")).wait_blocking().unwrap();
                store.get(&client_id("a")).unwrap().unwrap();
                true
            })
            .unwrap();
        assert_eq!(seen, ["a", "b", "c"]);
        seen.clear();
        store
            .for_each(&mut |record| {
                seen.push(record.id.to_string());
                false
            })
            .unwrap();
        assert_eq!(seen, ["a"]);
    });
}

#[test]
fn a_batch_says_what_it_changes_and_a_dry_run_says_the_same() {
    over_each(|store| {
        for name in ["gone", "kept", "raised", "stays"] {
            create(store, name, profile(1, 1.0)).unwrap();
        }
        let told = followed(store);
        let items =
            || vec![item("raised", profile(2, 1.0)), item("new", profile(3, 1.0)), item("stays", profile(1, 1.0))];
        let dry = store.apply(Batch { dry_run: true, ..batch(items(), false) }).wait_blocking().unwrap();
        assert_eq!((told.lock().len(), names(store).len()), (0, 4));
        let wet = store.apply(batch(items(), false)).wait_blocking().unwrap();
        assert_eq!(dry, wet);
        let ids: Vec<_> = wet.changes.iter().map(|change| (id_of(change), change.action)).collect();
        assert_eq!(ids, [("new".to_owned(), Some(Action::Create)), ("raised".to_owned(), Some(Action::Update))]);
        assert_eq!((wet.unchanged, &*told.lock()), (1, &wet.changes));
        let pruned = batch(vec![item("kept", profile(1, 1.0)), item("zz", profile(1, 1.0))], true);
        let dry = store.apply(Batch { dry_run: true, ..pruned.clone() }).wait_blocking().unwrap();
        let wet = store.apply(pruned).wait_blocking().unwrap();
        assert_eq!(dry, wet);
        let ids: Vec<_> = wet.changes.iter().map(id_of).collect();
        assert_eq!(ids, ["gone", "new", "raised", "stays", "zz"]);
        assert_eq!((wet.unchanged, names(store)), (1, vec!["kept".to_owned(), "zz".to_owned()]));
        let total = store.page(&PageQuery { after: None, limit: 1, search: String::new() }).unwrap().total;
        assert_eq!((total, store.history(&client_id("gone"), None, 1).unwrap()[0].version), (2, 2));
    });
}

#[test]
fn clients_can_swap_credentials_in_a_batch() {
    over_each(|store| {
        let (x, y) = (profile_with(Some("x"), &["10.0.0.1/32"]), profile_with(Some("y"), &["10.0.0.2/32"]));
        create(store, "a", x.clone()).unwrap();
        create(store, "b", y.clone()).unwrap();
        let swapped = store.apply(batch(vec![item("a", y.clone()), item("b", x.clone())], false)).wait_blocking();
        assert_eq!(swapped.unwrap().changes.len(), 2);
        assert_eq!(store.get(&client_id("a")).unwrap().unwrap().profile, y);
        let taken = refused(store.change(set("c", x.clone())));
        assert_eq!(taken, Refusal::KeyTaken { id: client_id("c"), other: client_id("b") });
        // A pruned client's credentials are free for the others.
        store.apply(batch(vec![item("c", x), item("a", y)], true)).wait_blocking().unwrap();
        assert_eq!(names(store), ["a", "c"]);
    });
}

#[test]
fn a_batch_that_cannot_be_is_refused_whole() {
    over_each(|store| {
        create(store, "owner", profile_with(Some("k"), &[])).unwrap();
        let told = followed(store);
        let items = vec![item("a", profile(1, 1.0)), item("z", profile_with(Some("k"), &[]))];
        let refusal = refused(store.apply(batch(items, false)));
        assert_eq!(refusal, Refusal::KeyTaken { id: client_id("z"), other: client_id("owner") });
        let items = vec![item("a", profile_with(Some("same"), &[])), item("b", profile_with(Some("same"), &[]))];
        let refusal = refused(store.apply(batch(items, false)));
        assert_eq!(refusal, Refusal::KeyTaken { id: client_id("b"), other: client_id("a") });
        assert_eq!((names(store), told.lock().len()), (vec!["owner".to_owned()], 0));
        let made = create(store, "a", profile(1, 1.0)).unwrap().after.unwrap();
        assert_eq!((made.number, made.version), (2, 1));
    });
}

#[test]
fn a_batch_can_leave_keys_as_they_are() {
    over_each(|store| {
        create(store, "a", profile_with(Some("k"), &[])).unwrap();
        let kept = |name| BatchItem { keys: KeyChange::Keep, ..item(name, profile(5, 1.0)) };
        store.apply(batch(vec![kept("a"), kept("b")], false)).wait_blocking().unwrap();
        let keys = |name| store.get(&client_id(name)).unwrap().unwrap().profile.api_keys;
        assert_eq!((keys("a"), keys("b")), (vec![ApiKey::primary(KeyDigest::of(b"k"))], vec![]));
    });
}

#[test]
fn concurrent_writers_get_their_answers_in_one_order() {
    over_each(|store| {
        let told = followed(store);
        std::thread::scope(|scope| {
            for writer in 0..8 {
                scope.spawn(move || {
                    for step in 0..20 {
                        let counted = edit("shared", |before| {
                            let capacity = before.map_or(0, |record| record.profile.quota.capacity().get());
                            Ok(Some(profile(u64::from(capacity) + 1, 1.0)))
                        });
                        store.change(counted).wait_blocking().unwrap();
                        let name = format!("own-{writer}-{step}");
                        create(store, &name, profile(1, 1.0)).unwrap();
                        assert!(store.get(&client_id(&name)).unwrap().is_some());
                    }
                });
            }
        });
        let shared = store.get(&client_id("shared")).unwrap().unwrap();
        assert_eq!((shared.version, shared.profile.quota.capacity().get()), (160, 160));
        let told = told.lock();
        let versions: Vec<_> = told.iter().filter(|change| id_of(change) == "shared").map(Committed::version).collect();
        assert_eq!((told.len(), versions), (320, (1..=160).collect()));
    });
}

#[test]
fn buckets_are_kept_and_forgotten() {
    over_each(|store| {
        let load = || {
            let mut saved = Vec::new();
            let moment = store.load(&mut |bucket| saved.push(bucket)).unwrap();
            saved.sort_by_key(|bucket| bucket.payer);
            (saved, moment)
        };
        assert_eq!(load(), (vec![], None));
        let keys = [
            Payer::client(1),
            Payer::address("203.0.113.7".parse().unwrap(), 64),
            Payer::address("ffff:db8::".parse().unwrap(), 64),
        ];
        let first = snapshot(keys.iter().map(|key| spent(*key, 1)).collect(), vec![], 10);
        store.save(first.clone()).wait_blocking().unwrap();
        assert_eq!(load(), (first.changed.clone(), Some(first.at)));
        // A payer in both is there; the last of two counts.
        let both = snapshot(vec![spent(keys[0], 2), spent(keys[0], 3)], vec![keys[0], keys[1]], 20);
        store.save(both.clone()).wait_blocking().unwrap();
        assert_eq!(load(), (vec![spent(keys[0], 3), first.changed[2]], Some(both.at)));
        let odd = Saved {
            bucket: crate::limit::Bucket::resume(
                crate::limit::Tokens::from_parts(u32::MAX, 999_999_999_999_999_999),
                u64::MAX,
            ),
            ..spent(Payer::client(u64::MAX), 1)
        };
        let far = Snapshot {
            at: Moment { timeline: u64::MAX, wall: 0, boot: None },
            ..snapshot(vec![odd], keys.to_vec(), 0)
        };
        store.save(far.clone()).wait_blocking().unwrap();
        assert_eq!(load(), (vec![odd], Some(far.at)));
    });
}

#[test]
fn what_is_owed_is_kept_until_it_is_nothing() {
    over_each(|store| {
        let load = || {
            let mut owed = Vec::new();
            store.load_owed(&mut |saved| owed.push(saved)).unwrap();
            owed.sort_by_key(|saved| saved.payer);
            owed
        };
        assert_eq!(load(), vec![]);
        let quota = Quota::new(30, 1e-3).unwrap();
        let client = Payer::client(u64::MAX);
        let value = Payer::value(crate::limit::PolicyId::of("tenants"), u64::MAX);
        let address = Payer::address("203.0.113.7".parse().unwrap(), 64);
        let of = |payer, tokens| SavedOwed { payer, tokens, quota };
        let all = vec![of(client, 1), of(address, 3), of(value, u64::MAX)];
        let bucket = spent(client, 7);
        let save = |owed| {
            store.save(Snapshot { owed, ..snapshot(vec![bucket], vec![], 10) }).wait_blocking().unwrap();
            load()
        };
        assert_eq!(save(all.clone()), all);
        assert_eq!(save(vec![of(client, 0), of(address, 4)]), [of(address, 4), of(value, u64::MAX)]);
        assert_eq!(save(vec![of(value, 0)]), [of(address, 4)]);
        let mut buckets = Vec::new();
        store.load(&mut |saved| buckets.push(saved)).unwrap();
        assert_eq!(buckets, [bucket], "beside the bucket");
    });
}

#[test]
fn only_their_keeper_forgets_buckets() {
    over_each(|store| {
        let number = |name: &str| create(store, name, profile(1, 1.0)).unwrap().after.unwrap().number;
        let (one, two, three) = (number("one"), number("two"), number("three"));
        let saved = [one, two, three].map(|number| spent(Payer::client(number), 1));
        store.save(snapshot(saved.to_vec(), vec![], 1)).wait_blocking().unwrap();
        store.change(delete("one")).wait_blocking().unwrap();
        store.apply(batch(vec![item("three", profile(2, 1.0))], true)).wait_blocking().unwrap();
        let mut left = Vec::new();
        store.load(&mut |bucket| left.push(bucket)).unwrap();
        assert_eq!(left.len(), 3, "whoever saves them drops those of clients that are gone");
        assert_eq!(store.secret(), store.secret());
    });
}
