//! The change of the default quota: against the edit of one bucket, and under many threads.

use std::num::NonZeroUsize;
use std::sync::atomic::{AtomicBool, AtomicU32, Ordering};

use proptest::prelude::*;

use super::*;
use crate::limit::bucket::{Bucket, Tokens};
use crate::limit::samples::{client, number, stranger};
use crate::limit::striped::StripedSettings;
use crate::limit::{Charge, Gauges, KeptBucket, Limiter, Upkeep};

const SECOND: Nanos = 1_000_000_000;

fn quota(capacity: u64, rate: f64) -> Quota {
    Quota::new(capacity, rate).unwrap()
}

fn striped(stripes: usize, default_quota: Quota) -> Striped {
    let (max_buckets, stripes) = (NonZeroUsize::new(100_000).unwrap(), NonZeroUsize::new(stripes));
    Striped::new(StripedSettings { max_buckets, stripes, default_quota }, 0)
}

/// One stripe in which somebody lives, since a sweep passes by where nobody does.
fn inhabited(default: Quota) -> Striped {
    let map = striped(1, default);
    assert!(map.take(&Charge::one(client(1), quota(1, 1e-6)), 0).is_allowed());
    map
}

fn sweep(map: &Striped, now: Nanos) -> usize {
    (0..map.parts()).map(|stripe| map.sweep(stripe, now, &mut |_| ())).sum()
}

fn export(map: &Striped) -> Vec<KeptBucket> {
    let mut saved = Vec::new();
    (0..map.parts()).for_each(|stripe| map.export(stripe, &mut |bucket| saved.push(bucket)));
    saved
}

#[derive(Clone, Debug)]
enum Step {
    Wait(Nanos),
    Back(Nanos),
    /// So many requests, each of which brings one of the quotas there have been or will be.
    Ask(u8),
    Change(usize),
    Sweep,
    /// Another process goes on, with the quota there is or another one.
    Restart(usize),
}

fn quotas() -> impl Strategy<Value = Vec<Quota>> {
    let rate = prop_oneof![Just(1e-6), Just(1.0 / 3.0), Just(7.0), 0.1..1_000.0_f64, Just(1e9)];
    prop::collection::vec((1..40_u64, rate).prop_map(|(capacity, rate)| quota(capacity, rate)), 1..5)
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        3 => (0..5 * SECOND).prop_map(Step::Wait),
        1 => (0..SECOND).prop_map(Step::Back),
        4 => (1..30_u8).prop_map(Step::Ask),
        3 => any::<usize>().prop_map(Step::Change),
        1 => Just(Step::Sweep),
        1 => any::<usize>().prop_map(Step::Restart),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(500))]

    /// Whatever the requests bring along: each answer and each level is that of one bucket that was edited at the
    /// moments of the changes, to the last of 10¹⁸ parts. And no more is given than one capacity at the start, one for
    /// each change and what the time earns; a restart begins anew.
    #[test]
    fn is_the_edit_of_each_bucket(quotas in quotas(), steps in steps()) {
        let quota_at = |at: usize| quotas[at % quotas.len()];
        let mut current = quota_at(0);
        let mut map = inhabited(current);
        let (mut now, mut latest, mut swept, mut brought) = (SECOND, SECOND, 0, 0);
        let fastest = quotas.iter().map(|quota| quota.rate().nanos_per_sec()).max().unwrap();
        let mut model: Option<Bucket> = None;
        let most = u128::from(quotas.iter().map(|quota| quota.capacity().get()).max().unwrap()) * Tokens::ONE.units();
        let (mut allowance, mut given) = (most, 0_u128);
        for step in steps {
            match step {
                Step::Wait(nanos) => {
                    now += nanos;
                    allowance += u128::from(fastest) * u128::from(nanos);
                    latest = latest.max(now);
                }
                Step::Back(nanos) => now = now.saturating_sub(nanos),
                Step::Ask(times) => for _ in 0..times {
                    let bucket = model.get_or_insert_with(|| Bucket::full(current, now.max(swept)));
                    let allowed = bucket.take(current, now);
                    brought += 1;
                    let decision = map.take(&Charge::one(stranger(1), quota_at(brought)), now);
                    prop_assert_eq!((decision.is_allowed(), decision.standing().quota()), (allowed, current));
                    given += u128::from(allowed) * Tokens::ONE.units();
                },
                Step::Change(to) => {
                    if quota_at(to) != current {
                        model = model.map(|bucket| bucket.edit(current, quota_at(to), now));
                        current = quota_at(to);
                        allowance += most;
                    }
                    map.set_default_quota(current, now);
                }
                Step::Sweep => {
                    sweep(&map, now);
                    swept = swept.max(now);
                    model = model.filter(|bucket| !bucket.is_full(current, now));
                }
                Step::Restart(to) => {
                    // From the time of the last write on, since the new process trusts no future.
                    now = latest;
                    map.take(&Charge::one(stranger(1), current), now);
                    model.get_or_insert_with(|| Bucket::full(current, now.max(swept))).take(current, now);
                    let saved = export(&map).into_iter().find(|saved| saved.key == stranger(1)).unwrap();
                    prop_assert_eq!(saved.quota, current);
                    let to = quota_at(to);
                    map = inhabited(to);
                    prop_assert!(map.restore(saved, quota_at(brought), now));
                    model = model.map(|bucket| bucket.edit(current, to, now)).filter(|bucket| !bucket.is_full(to, now));
                    (current, swept, allowance, given) = (to, 0, most, 0);
                }
            }
            let standing = map.peek(stranger(1), quota_at(brought), now);
            let expected = model.unwrap_or_else(|| Bucket::full(current, now)).held(current, now);
            prop_assert_eq!((standing.tokens(), standing.quota()), (expected, current));
            prop_assert!(given <= allowance);
        }
    }
}

#[test]
fn whoever_is_not_heard_of_for_an_hour_earns_under_the_quota_of_the_time() {
    let (slow, fast) = (quota(1_000, 0.01), quota(1_000, 10.0));
    let map = striped(4, slow);
    (0..1_000).for_each(|_| assert!(map.take(&Charge::one(stranger(1), slow), 0).is_allowed()));
    let hour = 3_600 * SECOND;
    map.set_default_quota(fast, hour);
    assert_eq!(map.peek(stranger(1), fast, hour).remaining(), 36);
    assert_eq!(map.peek(stranger(1), slow, hour + SECOND).remaining(), 46, "a request from before counts as any");
    assert_eq!(map.take(&Charge::one(stranger(1), slow), hour + SECOND).standing().quota(), fast);
}

#[test]
fn what_changed_is_saved_and_what_is_full_goes() {
    let (large, small) = (quota(10, 1.0), quota(4, 2.0));
    let map = striped(4, large);
    for number in 0..20 {
        for _ in 0..=number {
            map.take(&Charge::one(stranger(number), large), 0);
        }
        map.take(&Charge::one(client(number.into()), large), 0);
    }
    assert_eq!(export(&map).len(), 40);
    map.set_default_quota(large, 0);
    assert_eq!(export(&map), [], "the same quota changes nothing");
    map.set_default_quota(small, 0);
    let changed = export(&map);
    assert_eq!(changed.len(), 20, "nothing of clients");
    for saved in changed {
        let spent = u32::try_from(number(saved.key)).unwrap() + 1;
        let left = 10_u32.saturating_sub(spent).min(4);
        assert_eq!((saved.quota, saved.bucket.tokens(), saved.bucket.at()), (small, Tokens::whole(left), 0));
    }
    assert_eq!(sweep(&map, 0), 6, "those who have spent at most six of ten are full with four");
    assert_eq!(map.buckets(), 34);
}

/// Eight threads with requests of now and of long ago, while the quota goes back and forth, newcomers make the tables
/// grow and the sweep moves entries: at a clock that stands still each caller gets the smaller capacity, and not one
/// more or less.
#[test]
fn nobody_gains_or_loses_while_it_changes() {
    const CALLERS: u32 = 400;
    let (past, small, large) = (quota(50, 1.0), quota(80, 1e-6), quota(90, 3.0));
    let map = striped(4, small);
    let counts: Vec<AtomicU32> = (0..CALLERS).map(|_| AtomicU32::new(1)).collect();
    (0..CALLERS).for_each(|number| assert!(map.take(&Charge::one(stranger(number), small), SECOND).is_allowed()));
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (map, counts, done) = (&map, &counts, &done);
        scope.spawn(move || {
            for turn in 0_u32.. {
                map.set_default_quota(if turn.is_multiple_of(2) { large } else { small }, SECOND);
                if done.load(Ordering::Relaxed) {
                    break;
                }
                for number in 0..20 {
                    map.take(&Charge::one(stranger(CALLERS + turn % 1_000 * 20 + number), small), SECOND);
                }
                sweep(map, SECOND);
            }
        });
        let ask = |thread: u32| {
            for turn in 0..CALLERS * 15 {
                let number = (turn * 79 + thread * 31) % CALLERS;
                let brought = if (turn + thread).is_multiple_of(2) { small } else { past };
                let allowed = map.take(&Charge::one(stranger(number), brought), SECOND).is_allowed();
                counts[number as usize].fetch_add(u32::from(allowed), Ordering::Relaxed);
            }
        };
        let askers: Vec<_> = (0..8).map(|thread| scope.spawn(move || ask(thread))).collect();
        askers.into_iter().for_each(|asker| asker.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    for (number, count) in counts.iter().enumerate() {
        assert_eq!(count.load(Ordering::Relaxed), 80, "caller {number}");
    }
}
