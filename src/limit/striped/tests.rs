//! The map, one thread.

use super::*;
use crate::limit::bucket::Tokens;

const SECOND: Nanos = 1_000_000_000;

fn quota(capacity: u64, rate: f64) -> Quota {
    Quota::new(capacity, rate).unwrap()
}

fn striped(max_buckets: usize) -> Striped {
    let settings = StripedSettings {
        max_buckets: NonZeroUsize::new(max_buckets).unwrap(),
        stripes: NonZeroUsize::new(4),
        default_quota: quota(3, 1.0),
    };
    Striped::new(settings, 0)
}

/// How many of ten takes are allowed.
fn allowed(map: &Striped, key: Key, quota: Quota, now: Nanos) -> usize {
    (0..10).filter(|_| map.take(key, quota, now).is_allowed()).count()
}

fn sweep(map: &Striped, now: Nanos) -> Vec<Key> {
    let mut gone = Vec::new();
    let count: usize = (0..map.stripes()).map(|stripe| map.sweep(stripe, now, |key| gone.push(key))).sum();
    assert_eq!(count, gone.len());
    gone
}

fn export(map: &Striped) -> Vec<Saved> {
    let mut saved = Vec::new();
    (0..map.stripes()).for_each(|stripe| map.export(stripe, |bucket| saved.push(bucket)));
    saved
}

#[test]
fn each_key_has_its_own_bucket_and_quota() {
    let map = striped(100);
    assert_eq!(allowed(&map, Key::client(1), quota(5, 1.0), 0), 5);
    assert_eq!(allowed(&map, Key::client(2), quota(7, 1.0), 0), 7);
    assert_eq!(allowed(&map, Key::client(1), quota(5, 1.0), 2 * SECOND), 2);
    assert_eq!((map.len(), map.is_empty(), map.overflowed()), (2, false, 0));
    let standing = map.peek(Key::client(2), quota(7, 1.0), SECOND);
    assert_eq!((standing.remaining(), standing.quota(), standing.is_overflow()), (1, quota(7, 1.0), false));
    assert_eq!(map.peek(Key::client(3), quota(7, 1.0), SECOND).remaining(), 7);
    assert_eq!(map.len(), 2, "looking makes no bucket");
}

#[test]
fn stripes_are_a_power_of_two() {
    let stripes = |stripes| {
        let settings = StripedSettings {
            max_buckets: NonZeroUsize::MIN,
            stripes: NonZeroUsize::new(stripes),
            default_quota: quota(1, 1.0),
        };
        Striped::new(settings, 0).stripes()
    };
    assert_eq!((stripes(1), stripes(5), stripes(usize::MAX)), (1, 8, 1 << 16));
    let default = stripes(0);
    assert!(default >= 64 && default.is_power_of_two());
}

/// An anonymous caller.
fn stranger(number: u64) -> Key {
    Key::address(std::net::Ipv4Addr::from_bits(number as u32).into(), 64)
}

#[test]
fn beyond_the_bound_new_callers_share_one_bucket() {
    let map = striped(2);
    assert!(map.take(stranger(1), quota(3, 1.0), 0).is_allowed());
    assert!(map.take(stranger(2), quota(3, 1.0), 0).is_allowed());
    let decision = map.take(stranger(3), quota(3, 1.0), 0);
    assert!(decision.is_allowed() && decision.standing().is_overflow());
    assert_eq!(decision.standing().quota(), quota(3, 1.0));
    let standing = map.peek(stranger(4), quota(3, 1.0), 0);
    assert!(standing.is_overflow() && standing.remaining() == 2, "looking tells what a take would find: {standing:?}");
    assert!(!map.peek(stranger(1), quota(3, 1.0), 0).is_overflow());
    assert!(!map.peek(Key::client(1), quota(5, 1.0), 0).is_overflow());
    assert_eq!((3..20).filter(|&number| map.take(stranger(number), quota(3, 1.0), 0).is_allowed()).count(), 2);
    assert_eq!((map.len(), map.overflowed()), (2, 18));
    assert_eq!(allowed(&map, stranger(1), quota(3, 1.0), 0), 2, "known callers keep theirs");
    // The second one is full again after a second; its place is free then.
    assert_eq!(sweep(&map, SECOND), [stranger(2)]);
    assert!(!map.take(stranger(3), quota(3, 1.0), SECOND).standing().is_overflow());
    map.set_default_quota(quota(1, 1.0), 9 * SECOND);
    assert_eq!(allowed(&map, stranger(4), quota(3, 1.0), 9 * SECOND), 1);
}

#[test]
fn a_client_has_its_bucket_however_many_strangers_there_are() {
    let map = striped(2);
    for number in 0..10 {
        map.take(stranger(number), quota(5, 1e-6), 0);
    }
    for number in 0..5 {
        let decision = map.take(Key::client(number), quota(7, 1e-6), 0);
        assert!(decision.is_allowed() && !decision.standing().is_overflow());
        assert_eq!(allowed(&map, Key::client(number), quota(7, 1e-6), 0), 6, "with its own quota");
    }
    assert_eq!(map.len(), 2 + 5);
    // Clients take no room from strangers, and are forgotten one for one.
    sweep(&map, u64::MAX / 2);
    assert_eq!(map.len(), 0);
    assert!((0..2).all(|number| !map.take(stranger(number), quota(5, 1.0), 0).standing().is_overflow()));
}

#[test]
fn the_sweep_drops_full_buckets_and_no_debt() {
    let map = striped(10_000);
    for number in 0..1_000 {
        (0..=number % 3).for_each(|_| assert!(map.take(Key::client(number), quota(3, 1.0), 0).is_allowed()));
    }
    assert_eq!(sweep(&map, SECOND - 1), []);
    let gone = sweep(&map, SECOND);
    assert_eq!((gone.len(), map.len()), (334, 666));
    assert!(gone.iter().all(|key| key.client_number().unwrap() % 3 == 0));
    for number in 0..1_000 {
        let left = 3 - number as usize % 3;
        assert_eq!(allowed(&map, Key::client(number), quota(3, 1.0), SECOND), left, "{number}");
    }
    assert_eq!(sweep(&map, 4 * SECOND).len(), 1_000);
    assert!(map.is_empty());
}

#[test]
fn a_late_thread_earns_no_time_twice() {
    let (map, key, quota) = (striped(10), Key::client(1), quota(1, 1.0));
    assert!(map.take(key, quota, 0).is_allowed());
    assert_eq!(sweep(&map, SECOND), [key]);
    // This one read the clock before the sweep.
    assert!(map.take(key, quota, SECOND / 2).is_allowed());
    assert!(!map.take(key, quota, 2 * SECOND - 1).is_allowed());
    assert!(map.take(key, quota, 2 * SECOND).is_allowed());
}

#[test]
fn an_edit_keeps_what_was_spent() {
    let (map, key) = (striped(10), Key::client(1));
    let (small, large) = (quota(5, 1.0), quota(50, 10.0));
    map.edit(key, small, large, 0);
    assert_eq!(map.peek(key, large, 0).remaining(), 5, "it was full with 5, there or not");
    assert_eq!(map.peek(key, large, SECOND).remaining(), 15);
    map.edit(key, large, small, SECOND);
    assert_eq!(map.peek(key, small, SECOND).remaining(), 5);
    // Without an edit it adapts when it is next used: the time until then is credited under the quota it saw last.
    assert_eq!(allowed(&map, key, small, SECOND), 5);
    assert_eq!(map.peek(key, large, 3 * SECOND).remaining(), 2);
    assert_eq!(allowed(&map, key, large, 3 * SECOND), 2);
    assert_eq!(allowed(&map, key, large, 3 * SECOND + SECOND / 2), 5);
    // A lower capacity needs no bucket: it is full before and after.
    map.edit(Key::client(2), large, small, 0);
    assert_eq!(map.len(), 1);
}

#[test]
fn a_reset_bucket_is_full() {
    let (map, key) = (striped(10), Key::client(1));
    assert_eq!(allowed(&map, key, quota(5, 1.0), 0), 5);
    export(&map);
    map.reset(key, quota(7, 1.0), 0);
    map.reset(Key::client(2), quota(7, 1.0), 0);
    assert_eq!(map.len(), 1, "a bucket that is not there is full");
    assert_eq!(export(&map).iter().map(|saved| saved.bucket.tokens()).collect::<Vec<_>>(), [Tokens::whole(7)]);
    assert_eq!(allowed(&map, key, quota(7, 1.0), 0), 7);
}

#[test]
fn what_changed_is_exported_once_and_reads_back() {
    let map = striped(1_000);
    for number in 0..100 {
        map.take(Key::client(number), quota(5 + number, 0.7), number);
    }
    let mut saved = export(&map);
    assert_eq!(saved.len(), 100);
    assert_eq!(export(&map), []);
    map.take(Key::client(7), quota(12, 0.7), 100);
    let again = export(&map);
    assert_eq!(again.iter().map(|saved| saved.key).collect::<Vec<_>>(), [Key::client(7)]);
    saved.extend(again);

    let other = striped(1);
    assert!(saved.iter().all(|&saved| other.restore(saved, saved.quota, 200)));
    assert_eq!(other.len(), 100);
    for number in 0..100 {
        let (key, quota) = (Key::client(number), quota(5 + number, 0.7));
        assert_eq!(other.peek(key, quota, SECOND).tokens(), map.peek(key, quota, SECOND).tokens());
    }
    let empty = Bucket::resume(Tokens::default(), 200);
    let strangers = [1, 2].map(|number| Saved { key: stranger(number), bucket: empty, ..saved[0] });
    assert!(other.restore(strangers[0], strangers[0].quota, 200));
    assert!(!other.restore(strangers[1], strangers[1].quota, 200), "there is no room");
}

#[test]
fn a_restored_bucket_earns_while_nobody_ran_and_trusts_no_future() {
    let (key, quota) = (Key::client(1), quota(5, 1.0));
    let saved = |at| Saved { key, bucket: Bucket::resume(Tokens::default(), at), quota };
    let map = striped(10);
    assert!(map.restore(saved(SECOND), quota, 3 * SECOND));
    assert_eq!(allowed(&map, key, quota, 3 * SECOND), 2);
    let ahead = Saved { bucket: Bucket::resume(Tokens::ONE, u64::MAX), ..saved(0) };
    assert!(map.restore(ahead, quota, 3 * SECOND));
    assert_eq!(allowed(&map, key, quota, 4 * SECOND), 2);
    // One without a token may owe; no debt is longer than the bucket takes to fill.
    assert!(map.restore(saved(u64::MAX), quota, 3 * SECOND));
    assert_eq!((allowed(&map, key, quota, 8 * SECOND), allowed(&map, key, quota, 9 * SECOND)), (0, 1));
    assert!(map.restore(saved(0), quota, 9 * SECOND));
    assert!(map.is_empty(), "what is full again needs no bucket");
}

#[test]
fn a_debit_is_taken_from_whom_it_concerns_and_saved_with_it() {
    let (map, quota) = (striped(1), quota(3, 1.0));
    let changed = |map: &Striped| {
        let mut changed = Vec::new();
        (0..map.stripes()).for_each(|stripe| map.export(stripe, |saved| changed.push(saved)));
        changed
    };
    map.debit(stranger(1), 2, quota, SECOND);
    assert_eq!(allowed(&map, stranger(1), quota, SECOND), 1, "a bucket that is not there was full");
    assert_eq!(changed(&map).len(), 1);
    map.debit(stranger(1), 2, quota, SECOND);
    map.debit(stranger(2), 1, quota, SECOND);
    assert_eq!(map.len(), 1, "there is no room for another one");
    let saved = changed(&map);
    assert_eq!(saved.len(), 1);
    let other = striped(1);
    assert!(other.restore(saved[0], quota, SECOND));
    for map in [&map, &other] {
        assert_eq!(allowed(map, stranger(1), quota, 4 * SECOND - 1), 0, "two are owed, and the third takes a second");
        assert_eq!(allowed(map, stranger(1), quota, 4 * SECOND), 1);
    }
    changed(&map);
    map.mark_all();
    assert_eq!((changed(&map).len(), changed(&map).len()), (1, 0));
}
