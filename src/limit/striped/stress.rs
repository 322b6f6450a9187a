//! The map, many threads: nobody gets one token too many or too few, whatever runs beside.

use std::sync::atomic::AtomicBool;

use super::*;
use crate::limit::Upkeep;
use crate::limit::samples::{client, number, stranger};

const THREADS: u64 = 8;
const SECOND: Nanos = 1_000_000_000;

fn striped(max_buckets: usize) -> Striped {
    let settings = StripedSettings {
        max_buckets: NonZeroUsize::new(max_buckets).unwrap(),
        stripes: None,
        default_quota: Quota::new(1, 1e-6).unwrap(),
    };
    Striped::new(settings, SECOND)
}

/// Runs `ask` on all threads and `beside` over and over until they are done; the sum of what `ask` returned.
fn race(ask: impl Fn(u64) -> u64 + Sync, beside: impl Fn(u64) + Sync) -> u64 {
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (ask, beside, done) = (&ask, &beside, &done);
        let helper = scope.spawn(move || {
            for number in 0.. {
                beside(number);
                if done.load(Ordering::Relaxed) {
                    break;
                }
            }
        });
        let askers: Vec<_> = (0..THREADS).map(|thread| scope.spawn(move || ask(thread))).collect();
        let sum = askers.into_iter().map(|asker| asker.join().unwrap()).sum();
        done.store(true, Ordering::Relaxed);
        helper.join().unwrap();
        sum
    })
}

#[test]
fn one_key_gives_its_capacity_once() {
    let quota = Quota::new(100_000, 1.0).unwrap();
    let map = striped(10);
    let ask = |_| (0..50_000).filter(|_| map.take(&Charge::one(client(1), quota), SECOND).is_allowed()).count() as u64;
    assert_eq!(race(ask, |_| std::thread::yield_now()), 100_000);
    assert!(!map.take(&Charge::one(client(1), quota), SECOND).is_allowed());
    assert!(map.take(&Charge::one(client(1), quota), 2 * SECOND).is_allowed());
}

/// 10,000 keys with a hundred quotas. Beside them, all the time: the sweep, exports, edits of these keys, and visitors
/// who come, are filled up and are evicted, so that entries move under everybody's feet.
#[test]
fn ten_thousand_keys_give_theirs_whatever_runs_beside() {
    let keys = if cfg!(debug_assertions) { 2_000 } else { 10_000 };
    let quota_of = |number: u64| Quota::new(1 + number % 100, 1e-6).unwrap();
    let map = striped(20_000);
    let counts: Vec<AtomicU64> = (0..keys).map(|_| AtomicU64::new(0)).collect();
    let exported: Vec<AtomicU64> = (0..keys).map(|_| AtomicU64::new(u64::MAX)).collect();
    let export = || {
        for stripe in 0..map.parts() {
            map.export(stripe, &mut |saved| {
                if let Some(last) = exported.get(number(saved.key) as usize) {
                    last.store(u64::from(saved.bucket.tokens().floor()), Ordering::Relaxed);
                }
            });
        }
    };
    let ask = |thread: u64| {
        for turn in 0..keys * 20 {
            // Each thread walks in its own order; all together ask each key 160 times.
            let number = (turn * 7919 + thread * 1231) % keys;
            let decision = map.take(&Charge::one(client(number), quota_of(number)), SECOND);
            counts[number as usize].fetch_add(u64::from(decision.is_allowed()), Ordering::Relaxed);
        }
        0
    };
    let beside = |turn: u64| {
        for stripe in 0..map.parts() {
            map.sweep(stripe, SECOND, &mut |key| assert!(number(key) >= keys));
        }
        export();
        for number in 0..500 {
            let visitor = client(keys + turn % 3 * 1_000 + number);
            map.take(&Charge::one(visitor, quota_of(number)), SECOND);
            // An edit to the same capacity and another rate, and back, at a clock that stands still.
            let (key, own) = (client((turn * 500 + number) % keys), quota_of((turn * 500 + number) % keys));
            let other = Quota::new(u64::from(own.capacity().get()), 5.0).unwrap();
            map.edit(key, own, other, SECOND);
            map.edit(key, other, own, SECOND);
            map.peek(key, own, SECOND);
            map.reset(visitor, quota_of(number), SECOND);
        }
    };
    race(ask, beside);
    for (number, count) in counts.iter().enumerate() {
        assert_eq!(count.load(Ordering::Relaxed), u64::from(quota_of(number as u64).capacity().get()), "key {number}");
    }
    (0..map.parts()).for_each(|stripe| {
        map.sweep(stripe, SECOND, &mut |key| assert!(number(key) >= keys, "only visitors were filled up"));
    });
    export();
    assert!(exported.iter().all(|last| last.load(Ordering::Relaxed) == 0), "the last state of each was exported");
    assert_eq!((map.buckets() as u64, map.overflowed()), (keys, 0));
}

/// Time passes while the sweep drops what is full: a bucket that is dropped and made again between two takes gives no
/// more than one that stayed.
#[test]
fn eviction_forgives_nothing_while_time_passes() {
    let quota = Quota::new(5, 1_000.0).unwrap();
    let map = striped(1_000);
    let (clock, asked) = (AtomicU64::new(SECOND), AtomicU64::new(0));
    let end = 2 * SECOND;
    let ask = |_| {
        let mut allowed = 0;
        loop {
            let now = clock.load(Ordering::SeqCst).min(end);
            for number in 0..2 {
                allowed += u64::from(map.take(&Charge::one(client(number), quota), now).is_allowed());
            }
            asked.fetch_add(1, Ordering::SeqCst);
            if now == end {
                return allowed;
            }
        }
    };
    // Now and then long enough to fill the buckets.
    let step = |turn: u64| if turn % 50 == 49 { 6_000_000 } else { 200_000 };
    let beside = |turn: u64| {
        // No step before everybody has asked once more since the last one, and each key more often than it has tokens.
        let now = clock.fetch_add(step(turn), Ordering::SeqCst);
        let so_far = asked.load(Ordering::SeqCst);
        (0..map.parts()).for_each(|stripe| {
            map.sweep(stripe, now.min(end), &mut |_| ());
        });
        while clock.load(Ordering::SeqCst) < end && asked.load(Ordering::SeqCst) < so_far + 2 * THREADS {
            std::thread::yield_now();
        }
    };
    let allowed = race(ask, beside);

    let (mut bucket, mut now, mut expected) = (Bucket::full(quota, SECOND), SECOND, 0);
    for turn in 0.. {
        expected += (0..6).filter(|_| bucket.take(quota, now)).count() as u64;
        if now == end {
            break;
        }
        now = (now + step(turn)).min(end);
    }
    assert_eq!(allowed, 2 * expected);
    assert!((800..=1_005).contains(&expected));
}

/// Eight threads charge pairs of sixteen keys, in either order, beside the sweep: nobody waits for ever, and of each
/// pair both are charged or none.
#[test]
fn pairs_are_charged_both_or_none() {
    let quota = Quota::new(2_000, 1e-6).unwrap();
    let map = striped(100);
    let keys: Vec<Key> = (0..16).map(client).collect();
    let made: Vec<AtomicU64> = keys.iter().map(|_| AtomicU64::new(0)).collect();
    let ask = |thread: u64| {
        for turn in 0..3_000 {
            let (one, other) = ((turn * 7 + thread) % 16, (turn * 5 + thread * 3 + 1) % 16);
            if one == other {
                continue;
            }
            let pair = [one, other].map(|at| Charge::one(keys[at as usize], quota));
            let decisions = map.take_all(&pair.map(Into::into), SECOND);
            if decisions.iter().all(Decision::is_allowed) {
                for at in [one, other] {
                    made[at as usize].fetch_add(1, Ordering::Relaxed);
                }
            }
        }
        0
    };
    let sweep = |_| {
        for part in 0..map.parts() {
            map.sweep(part, SECOND, &mut |_| ());
        }
    };
    race(ask, sweep);
    for (key, made) in keys.iter().zip(&made) {
        let left = u64::from(map.peek(*key, quota, SECOND).remaining());
        assert_eq!(made.load(Ordering::Relaxed), 2_000 - left);
    }
    assert!(made.iter().any(|made| made.load(Ordering::Relaxed) == 2_000), "some pairs were refused");
}

/// The bound holds to the last bucket while eight threads bring new keys, and whoever came too late was counted.
#[test]
fn the_bound_is_exact() {
    let map = striped(5_000);
    let quota = Quota::new(1, 1e-6).unwrap();
    let ask = |thread: u64| {
        let own = (0..2_000).map(|number| stranger((thread * 2_000 + number) as u32));
        own.filter(|&key| !map.take(&Charge::one(key, quota), SECOND).standing().is_overflow()).count() as u64
    };
    assert_eq!(race(ask, |_| std::thread::yield_now()), 5_000);
    assert_eq!((map.buckets(), map.overflowed()), (5_000, 11_000));
}
