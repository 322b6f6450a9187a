//! What holds of every limiter, whatever it is made of; one thread.
//!
//! Long because each implementation has to keep all of it, and it is read as one.

use std::num::{NonZeroU32, NonZeroUsize};

use proptest::prelude::*;

use super::exact::Exact;
use super::samples::{client, number, stranger};
use super::*;
use crate::client::Quota;

/// A limiter for so many buckets, whose anonymous callers have three tokens, one a second.
type Make = fn(usize) -> Box<dyn WholeLimiter>;

fn striped(max_buckets: usize) -> Box<dyn WholeLimiter> {
    of_stripes(4, max_buckets)
}

fn of_stripes(stripes: usize, max_buckets: usize) -> Box<dyn WholeLimiter> {
    let (stripes, max_buckets) = (NonZeroUsize::new(stripes), NonZeroUsize::new(max_buckets).unwrap());
    Box::new(Striped::new(StripedSettings { max_buckets, stripes, default_quota: quota(3, 1.0) }, 0))
}

fn exact(max_buckets: usize) -> Box<dyn WholeLimiter> {
    Box::new(Exact::new(max_buckets, quota(3, 1.0), 0))
}

/// Runs each test over each implementation.
macro_rules! contract {
    ($($name:ident),* $(,)?) => {
        mod over_striped {
            $(#[test] fn $name() { super::$name(super::striped); })*
        }
        mod over_exact {
            $(#[test] fn $name() { super::$name(super::exact); })*
        }
    };
}

contract!(
    several_charges_are_made_all_or_none,
    what_is_on_trial_hinders_nothing,
    what_is_paid_later_must_be_there_and_may_leave_a_debt,
    a_policy_has_its_own_bound_and_overflow_bucket,
    a_policy_that_changes_keeps_what_was_spent,
    a_policy_that_comes_back_before_the_sweep_has_its_buckets_counted,
    an_own_quota_in_a_policy_is_of_the_same_bucket,
    a_cost_over_the_capacity_is_never_there,
    callers_who_share_are_charged_all_or_none,
    each_key_has_its_own_bucket_and_quota,
    beyond_the_bound_new_callers_share_one_bucket,
    a_client_has_its_bucket_however_many_strangers_there_are,
    the_sweep_drops_full_buckets_and_no_debt,
    a_late_thread_earns_no_time_twice,
    an_edit_keeps_what_was_spent,
    a_reset_bucket_is_full,
    what_changed_is_exported_once_and_reads_back,
    a_restored_bucket_earns_while_nobody_ran_and_trusts_no_future,
    a_debit_is_taken_from_whom_it_concerns_and_saved_with_it,
);

const SECOND: Nanos = 1_000_000_000;

fn quota(capacity: u64, rate: f64) -> Quota {
    Quota::new(capacity, rate).unwrap()
}

/// How many of ten takes are allowed.
fn allowed(map: &dyn WholeLimiter, key: Key, quota: Quota, now: Nanos) -> usize {
    (0..10).filter(|_| map.take(&Charge::one(key, quota), now).is_allowed()).count()
}

fn sweep(map: &dyn WholeLimiter, now: Nanos) -> Vec<Key> {
    let mut gone = Vec::new();
    let count: usize = (0..map.parts()).map(|stripe| map.sweep(stripe, now, &mut |key| gone.push(key))).sum();
    assert_eq!(count, gone.len());
    gone
}

fn export(map: &dyn WholeLimiter) -> Vec<KeptBucket> {
    let mut saved = Vec::new();
    (0..map.parts()).for_each(|stripe| map.export(stripe, &mut |bucket| saved.push(bucket)));
    saved
}

fn each_key_has_its_own_bucket_and_quota(make: Make) {
    let map = make(100);
    assert_eq!(allowed(map.as_ref(), client(1), quota(5, 1.0), 0), 5);
    assert_eq!(allowed(map.as_ref(), client(2), quota(7, 1.0), 0), 7);
    assert_eq!(allowed(map.as_ref(), client(1), quota(5, 1.0), 2 * SECOND), 2);
    assert_eq!((map.buckets(), map.buckets() == 0, map.overflowed()), (2, false, 0));
    let standing = map.peek(client(2), quota(7, 1.0), SECOND);
    assert_eq!((standing.remaining(), standing.quota(), standing.is_overflow()), (1, quota(7, 1.0), false));
    assert_eq!(map.peek(client(3), quota(7, 1.0), SECOND).remaining(), 7);
    assert_eq!(map.buckets(), 2, "looking makes no bucket");
}

fn beyond_the_bound_new_callers_share_one_bucket(make: Make) {
    let map = make(2);
    assert!(map.take(&Charge::one(stranger(1), quota(3, 1.0)), 0).is_allowed());
    assert!(map.take(&Charge::one(stranger(2), quota(3, 1.0)), 0).is_allowed());
    let decision = map.take(&Charge::one(stranger(3), quota(3, 1.0)), 0);
    assert!(decision.is_allowed() && decision.standing().is_overflow());
    assert_eq!(decision.standing().quota(), quota(3, 1.0));
    let standing = map.peek(stranger(4), quota(3, 1.0), 0);
    assert!(standing.is_overflow() && standing.remaining() == 2, "looking tells what a take would find: {standing:?}");
    assert!(!map.peek(stranger(1), quota(3, 1.0), 0).is_overflow());
    assert!(!map.peek(client(1), quota(5, 1.0), 0).is_overflow());
    assert_eq!(
        (3..20).filter(|&number| map.take(&Charge::one(stranger(number), quota(3, 1.0)), 0).is_allowed()).count(),
        2
    );
    assert_eq!((map.buckets(), map.overflowed()), (2, 18));
    assert_eq!(allowed(map.as_ref(), stranger(1), quota(3, 1.0), 0), 2, "known callers keep theirs");
    // The second one is full again after a second; its place is free then.
    assert_eq!(sweep(map.as_ref(), SECOND), [stranger(2)]);
    assert!(!map.take(&Charge::one(stranger(3), quota(3, 1.0)), SECOND).standing().is_overflow());
    map.set_default_quota(quota(1, 1.0), 9 * SECOND);
    assert_eq!(allowed(map.as_ref(), stranger(4), quota(3, 1.0), 9 * SECOND), 1);
}

fn a_client_has_its_bucket_however_many_strangers_there_are(make: Make) {
    let map = make(2);
    for number in 0..10 {
        map.take(&Charge::one(stranger(number), quota(5, 1e-6)), 0);
    }
    for number in 0..5 {
        let decision = map.take(&Charge::one(client(number), quota(7, 1e-6)), 0);
        assert!(decision.is_allowed() && !decision.standing().is_overflow());
        assert_eq!(allowed(map.as_ref(), client(number), quota(7, 1e-6), 0), 6, "with its own quota");
    }
    assert_eq!(map.buckets(), 2 + 5);
    // Clients take no room from strangers, and are forgotten one for one.
    sweep(map.as_ref(), u64::MAX / 2);
    assert_eq!(map.buckets(), 0);
    assert!((0..2).all(|number| !map.take(&Charge::one(stranger(number), quota(5, 1.0)), 0).standing().is_overflow()));
}

fn the_sweep_drops_full_buckets_and_no_debt(make: Make) {
    let map = make(10_000);
    for number in 0..1_000 {
        (0..=number % 3).for_each(|_| assert!(map.take(&Charge::one(client(number), quota(3, 1.0)), 0).is_allowed()));
    }
    assert_eq!(sweep(map.as_ref(), SECOND - 1), []);
    let gone = sweep(map.as_ref(), SECOND);
    assert_eq!((gone.len(), map.buckets()), (334, 666));
    assert!(gone.iter().all(|key| number(*key).is_multiple_of(3)));
    for number in 0..1_000 {
        let left = 3 - number as usize % 3;
        assert_eq!(allowed(map.as_ref(), client(number), quota(3, 1.0), SECOND), left, "{number}");
    }
    assert_eq!(sweep(map.as_ref(), 4 * SECOND).len(), 1_000);
    assert!(map.buckets() == 0);
}

fn a_late_thread_earns_no_time_twice(make: Make) {
    let (map, key, quota) = (make(10), client(1), quota(1, 1.0));
    assert!(map.take(&Charge::one(key, quota), 0).is_allowed());
    assert_eq!(sweep(map.as_ref(), SECOND), [key]);
    // This one read the clock before the sweep.
    assert!(map.take(&Charge::one(key, quota), SECOND / 2).is_allowed());
    assert!(!map.take(&Charge::one(key, quota), 2 * SECOND - 1).is_allowed());
    assert!(map.take(&Charge::one(key, quota), 2 * SECOND).is_allowed());
}

fn an_edit_keeps_what_was_spent(make: Make) {
    let (map, key) = (make(10), client(1));
    let (small, large) = (quota(5, 1.0), quota(50, 10.0));
    map.edit(key, small, large, 0);
    assert_eq!(map.peek(key, large, 0).remaining(), 5, "it was full with 5, there or not");
    assert_eq!(map.peek(key, large, SECOND).remaining(), 15);
    map.edit(key, large, small, SECOND);
    assert_eq!(map.peek(key, small, SECOND).remaining(), 5);
    // Without an edit it adapts when it is next used: the time until then is credited under the quota it saw last.
    assert_eq!(allowed(map.as_ref(), key, small, SECOND), 5);
    assert_eq!(map.peek(key, large, 3 * SECOND).remaining(), 2);
    assert_eq!(allowed(map.as_ref(), key, large, 3 * SECOND), 2);
    assert_eq!(allowed(map.as_ref(), key, large, 3 * SECOND + SECOND / 2), 5);
    // A lower capacity needs no bucket: it is full before and after.
    map.edit(client(2), large, small, 0);
    assert_eq!(map.buckets(), 1);
}

fn a_reset_bucket_is_full(make: Make) {
    let (map, key) = (make(10), client(1));
    assert_eq!(allowed(map.as_ref(), key, quota(5, 1.0), 0), 5);
    export(map.as_ref());
    map.reset(key, quota(7, 1.0), 0);
    map.reset(client(2), quota(7, 1.0), 0);
    assert_eq!(map.buckets(), 1, "a bucket that is not there is full");
    assert_eq!(export(map.as_ref()).iter().map(|saved| saved.bucket.tokens()).collect::<Vec<_>>(), [Tokens::whole(7)]);
    assert_eq!(allowed(map.as_ref(), key, quota(7, 1.0), 0), 7);
    // So is one that owes, and it earns again.
    map.debit(charge(key, quota(7, 1.0), 100), 0);
    map.reset(key, quota(7, 1.0), SECOND);
    assert_eq!(allowed(map.as_ref(), key, quota(7, 1.0), SECOND), 7);
    assert_eq!(allowed(map.as_ref(), key, quota(7, 1.0), 3 * SECOND), 2);
}

fn what_changed_is_exported_once_and_reads_back(make: Make) {
    let map = make(1_000);
    for number in 0..100 {
        map.take(&Charge::one(client(number), quota(5 + number, 0.7)), number);
    }
    let mut saved = export(map.as_ref());
    assert_eq!(saved.len(), 100);
    assert_eq!(export(map.as_ref()), []);
    map.take(&Charge::one(client(7), quota(12, 0.7)), 100);
    let again = export(map.as_ref());
    assert_eq!(again.iter().map(|saved| saved.key).collect::<Vec<_>>(), [client(7)]);
    saved.extend(again);

    let other = make(1);
    assert!(saved.iter().all(|&saved| other.restore(saved, saved.quota, 200)));
    assert_eq!(other.buckets(), 100);
    for number in 0..100 {
        let (key, quota) = (client(number), quota(5 + number, 0.7));
        assert_eq!(other.peek(key, quota, SECOND).tokens(), map.peek(key, quota, SECOND).tokens());
    }
    let empty = Bucket::resume(Tokens::default(), 200);
    let strangers = [1, 2].map(|number| KeptBucket { key: stranger(number), bucket: empty, ..saved[0] });
    assert!(other.restore(strangers[0], strangers[0].quota, 200));
    assert!(!other.restore(strangers[1], strangers[1].quota, 200), "there is no room");
}

fn a_restored_bucket_earns_while_nobody_ran_and_trusts_no_future(make: Make) {
    let (key, quota) = (client(1), quota(5, 1.0));
    let saved = |at| KeptBucket { key, bucket: Bucket::resume(Tokens::default(), at), quota };
    let map = make(10);
    assert!(map.restore(saved(SECOND), quota, 3 * SECOND));
    assert_eq!(allowed(map.as_ref(), key, quota, 3 * SECOND), 2);
    let ahead = KeptBucket { bucket: Bucket::resume(Tokens::ONE, u64::MAX), ..saved(0) };
    assert!(map.restore(ahead, quota, 3 * SECOND));
    assert_eq!(allowed(map.as_ref(), key, quota, 4 * SECOND), 2);
    // One without a token may owe, and more than the bucket holds.
    assert!(map.restore(saved(99 * SECOND), quota, 3 * SECOND));
    let takes = |now| allowed(map.as_ref(), key, quota, now);
    assert_eq!((takes(9 * SECOND), takes(100 * SECOND - 1), takes(100 * SECOND)), (0, 0, 1));
    assert!(map.restore(saved(0), quota, 100 * SECOND));
    assert!(map.buckets() == 0, "what is full again needs no bucket");
}

fn a_debit_is_taken_from_whom_it_concerns_and_saved_with_it(make: Make) {
    let (map, quota) = (make(1), quota(3, 1.0));
    let changed = |map: &dyn WholeLimiter| {
        let mut changed = Vec::new();
        (0..map.parts()).for_each(|stripe| map.export(stripe, &mut |saved| changed.push(saved)));
        changed
    };
    map.debit(charge(stranger(1), quota, 2), SECOND);
    assert_eq!(allowed(map.as_ref(), stranger(1), quota, SECOND), 1, "a bucket that is not there was full");
    assert_eq!(changed(map.as_ref()).len(), 1);
    map.debit(charge(stranger(1), quota, 2), SECOND);
    map.debit(charge(stranger(2), quota, 1), SECOND);
    assert_eq!(map.buckets(), 1, "there is no room for another one");
    let saved = changed(map.as_ref());
    assert_eq!(saved.len(), 1);
    let other = make(1);
    assert!(other.restore(saved[0], quota, SECOND));
    for map in [map.as_ref(), other.as_ref()] {
        assert_eq!(allowed(map, stranger(1), quota, 4 * SECOND - 1), 0, "two are owed, and the third takes a second");
        assert_eq!(allowed(map, stranger(1), quota, 4 * SECOND), 1);
    }
    changed(map.as_ref());
    map.mark_all();
    assert_eq!((changed(map.as_ref()).len(), changed(map.as_ref()).len()), (1, 0));
}

fn charge(key: Key, quota: Quota, cost: u32) -> Charge {
    Charge { key, quota, cost: NonZeroU32::new(cost).unwrap() }
}

fn charges(of: &[Charge]) -> Claims {
    of.iter().copied().map(Claim::from).collect()
}

fn several_charges_are_made_all_or_none(make: Make) {
    let (map, own) = (make(10), quota(5, 1.0));
    let keys = [1, 2, 3, 4].map(client);
    let all = |costs: [u32; 4]| charges(&std::array::from_fn::<_, 4, _>(|at| charge(keys[at], own, costs[at])));
    let left = |now| keys.map(|key| map.peek(key, own, now).remaining());
    let decisions = map.take_all(&all([1, 2, 3, 5]), 0);
    assert!(decisions.iter().all(Decision::is_allowed));
    assert_eq!(decisions.iter().map(|decision| decision.standing().remaining()).collect::<Vec<_>>(), [4, 3, 2, 0]);
    assert_eq!(left(0), [4, 3, 2, 0]);
    let decisions = map.take_all(&all([1, 1, 3, 1]), 0);
    assert_eq!(decisions.iter().map(Decision::is_allowed).collect::<Vec<_>>(), [true, true, false, false]);
    let standing = decisions[0].standing();
    assert_eq!((standing.remaining(), left(0)), (4, [4, 3, 2, 0]), "nothing was taken");
    assert_eq!(decisions[2].standing().retry_at(), SECOND);
    assert!(map.take_all(&all([1, 1, 3, 1]), SECOND).iter().all(Decision::is_allowed));
    assert_eq!(left(SECOND), [4, 3, 0, 0]);
    assert!(map.take_all(&[], 0).is_empty());
    // Whom nobody knew has no bucket after a refusal.
    let known = map.buckets();
    assert!(!map.take_all(&charges(&[charge(client(9), own, 1), charge(keys[3], own, 1)]), SECOND)[1].is_allowed());
    assert_eq!(map.buckets(), known);
}

fn what_is_on_trial_hinders_nothing(make: Make) {
    let (map, own) = (make(10), quota(3, 1.0));
    let both = |trial: u32, cost: u32| {
        let trial = Claim { trial: true, ..charge(client(1), own, trial).into() };
        [trial, charge(client(2), own, cost).into()]
    };
    let left = || [client(1), client(2)].map(|key| map.peek(key, own, 0).remaining());
    let claims = both(2, 1);
    let decisions = map.take_all(&claims, 0);
    assert!(are_allowed(&claims, &decisions) && decisions[0].is_allowed());
    assert_eq!(left(), [1, 2]);
    let decisions = map.take_all(&claims, 0);
    assert!(are_allowed(&claims, &decisions) && !decisions[0].is_allowed(), "it would have refused");
    assert_eq!((left(), decisions[0].standing().remaining()), ([1, 1], 1));
    let claims = both(1, 2);
    let decisions = map.take_all(&claims, 0);
    assert!(!are_allowed(&claims, &decisions) && decisions[0].is_allowed());
    assert_eq!(left(), [1, 1], "what is refused costs nothing on trial either");
}

fn what_is_paid_later_must_be_there_and_may_leave_a_debt(make: Make) {
    let (map, own) = (make(10), quota(3, 1.0));
    let later = Claim { later: true, ..charge(client(1), own, 1).into() };
    let ask = |now| map.take_all(&[later], now)[0].is_allowed();
    assert!(ask(0) && ask(0));
    assert_eq!((map.buckets(), map.peek(client(1), own, 0).remaining()), (0, 3), "nothing is taken yet");
    assert_eq!(map.settle(&charge(client(1), own, 1), 0).remaining(), 2);
    let standing = map.settle(&charge(client(1), own, 5), 0);
    assert_eq!((standing.remaining(), standing.retry_at()), (0, 4 * SECOND), "three are owed");
    assert!(!ask(4 * SECOND - 1) && ask(4 * SECOND));
    // Who shares a bucket settles there.
    let full = make(1);
    assert!(full.take(&Charge::one(stranger(1), own), 0).is_allowed());
    assert!(full.settle(&charge(stranger(2), own, 4), 0).is_overflow());
    assert!(!full.take(&Charge::one(stranger(3), own), SECOND).is_allowed());
    assert_eq!((full.buckets(), full.overflowed()), (1, 1));
}

fn terms(name: &str, capacity: u64, max_buckets: usize) -> PolicyTerms {
    let max_buckets = NonZeroUsize::new(max_buckets).unwrap();
    PolicyTerms { id: PolicyId::of(name), quota: quota(capacity, 1.0), max_buckets }
}

/// The key of somebody at this place.
fn of(slot: PolicySlot, number: u32) -> Key {
    Key::new(Scope::Policy(slot), stranger(1_000 * (1 + u32::from(slot.0)) + number).bits())
}

fn a_policy_has_its_own_bound_and_overflow_bucket(make: Make) {
    let map = make(10);
    let slots = map.set_policies(&[terms("a", 2, 1), terms("b", 3, 2)], 0);
    let given = quota(1, 1.0);
    let counts = || (map.buckets(), map.of_policy(PolicyId::of("a")).buckets, map.of_policy(PolicyId::of("b")).buckets);
    let one = |slot: usize, number| charge(of(slots[slot], number), given, 1);
    assert_eq!(allowed(map.as_ref(), of(slots[0], 1), given, 0), 2, "the quota is the policy's");
    for number in [2, 3] {
        let decision = map.take(&one(0, number), 0);
        assert!(decision.is_allowed() && decision.standing().is_overflow());
    }
    assert!(!map.take(&one(0, 4), 0).is_allowed(), "they share two tokens");
    assert!(!map.take(&one(1, 1), 0).standing().is_overflow());
    assert!(map.peek(of(slots[0], 9), given, 0).is_overflow());
    assert_eq!((counts(), map.of_policy(PolicyId::of("a")).overflowed, map.overflowed()), ((0, 1, 1), 3, 0));
    // All or none, the overflow bucket too.
    assert!(!map.take_all(&charges(&[one(1, 2), one(0, 5)]), 0)[1].is_allowed());
    assert_eq!((counts(), map.peek(of(slots[1], 2), given, 0).remaining()), ((0, 1, 1), 3));
    assert_eq!(sweep(map.as_ref(), 9 * SECOND).len(), 2);
    assert_eq!(counts(), (0, 0, 0));
    assert!(!map.take(&one(0, 4), 9 * SECOND).standing().is_overflow());
}

fn a_policy_that_changes_keeps_what_was_spent(make: Make) {
    let map = make(10);
    let [a, b] = map.set_policies(&[terms("a", 4, 9), terms("b", 4, 9)], 0)[..] else { panic!("two places") };
    let given = quota(1, 1.0);
    let left = |slot, now| map.peek(of(slot, 1), given, now).remaining();
    for slot in [a, b] {
        assert!(map.take(&charge(of(slot, 1), given, 3), 0).is_allowed());
    }
    export(map.as_ref());
    let slots = map.set_policies(&[terms("c", 8, 9), terms("b", 8, 9)], SECOND);
    assert_eq!((slots[1], slots[0] != a, left(b, SECOND)), (b, true, 2), "one more, and no other");
    assert_eq!(map.policy(PolicyId::of("b")), Some((b, quota(8, 1.0))));
    assert_eq!((map.policy(PolicyId::of("a")), map.of_policy(PolicyId::of("a")).buckets), (None, 0));
    assert_eq!(export(map.as_ref()).len(), 2, "one changed, and one is full");
    assert_eq!(sweep(map.as_ref(), SECOND), [of(a, 1)], "what is nobody's is forgotten");
    let slots = map.set_policies(&[terms("d", 1, 9), terms("b", 2, 9)], SECOND);
    assert_eq!((slots, left(b, SECOND)), (vec![a, b], 2), "its place is another's");
}

fn a_policy_that_comes_back_before_the_sweep_has_its_buckets_counted(make: Make) {
    let map = make(10);
    let (given, count) = (quota(1, 1.0), |map: &dyn WholeLimiter| map.of_policy(PolicyId::of("a")).buckets);
    let slot = map.set_policies(&[terms("a", 2, 1)], 0)[0];
    assert_eq!(allowed(map.as_ref(), of(slot, 1), given, 0), 2);
    assert!(map.take(&charge(of(slot, 2), given, 2), 0).standing().is_overflow());
    assert!(map.set_policies(&[], 0).is_empty());
    let back = map.set_policies(&[terms("b", 2, 1), terms("a", 2, 1)], 0);
    assert_eq!((back[1], back[0] != slot, count(map.as_ref())), (slot, true, 1));
    // What went was filled, what callers share too.
    assert_eq!(allowed(map.as_ref(), of(slot, 1), given, 0), 2);
    assert!(map.take(&charge(of(slot, 2), given, 2), 0).is_allowed());
    assert_eq!((map.of_policy(PolicyId::of("a")).overflowed, sweep(map.as_ref(), 9 * SECOND).len()), (2, 1));
    assert_eq!((count(map.as_ref()), map.in_policies()), (0, 0));
    assert!(!map.take(&charge(of(slot, 3), given, 1), 9 * SECOND).standing().is_overflow());
}

fn an_own_quota_in_a_policy_is_of_the_same_bucket(make: Make) {
    let map = make(10);
    let slot = map.set_policies(&[terms("a", 4, 9)], 0)[0];
    let (plain, own) = (of(slot, 1), quota(10, 2.0));
    let exempt = Key::new(Scope::OwnInPolicy(slot), plain.bits());
    assert!(map.take(&charge(plain, own, 3), 0).is_allowed());
    map.edit(exempt, quota(4, 1.0), own, SECOND);
    assert_eq!(map.peek(exempt, own, 2 * SECOND).remaining(), 4, "one and one and two");
    map.set_policies(&[terms("a", 1, 9)], 2 * SECOND);
    assert_eq!(map.peek(exempt, own, 2 * SECOND).remaining(), 4, "the policy's quota is not its");
    let saved = export(map.as_ref());
    assert_eq!((saved.len(), saved[0].key, saved[0].quota), (1, exempt, own));
    map.edit(plain, own, own, 2 * SECOND);
    assert_eq!((map.peek(plain, own, 2 * SECOND).remaining(), map.of_policy(PolicyId::of("a")).buckets), (1, 1));
}

fn a_cost_over_the_capacity_is_never_there(make: Make) {
    let (map, own) = (make(10), quota(5, 1.0));
    let decision = map.take(&charge(client(1), own, 6), 0);
    assert!(!decision.is_allowed());
    assert_eq!((decision.standing().remaining(), decision.standing().retry_at()), (5, Nanos::MAX));
    assert!(map.take(&charge(client(1), own, 5), 0).is_allowed());
}

fn callers_who_share_are_charged_all_or_none(make: Make) {
    let map = make(1);
    assert!(map.take(&Charge::one(stranger(1), quota(3, 1.0)), 0).is_allowed());
    let both = |cost| charges(&[charge(stranger(2), quota(9, 1.0), cost), charge(client(1), quota(2, 1.0), cost)]);
    let decisions = map.take_all(&both(3), 0);
    assert!(decisions[0].is_allowed() && decisions[0].standing().is_overflow() && !decisions[1].is_allowed());
    assert_eq!((decisions[0].standing().remaining(), map.overflowed()), (3, 1));
    assert!(map.take_all(&both(2), 0).iter().all(Decision::is_allowed));
    assert_eq!(map.peek(stranger(2), quota(9, 1.0), 0).remaining(), 1);
}

/// What is done with a limiter, by whom and with which quota.
#[derive(Clone, Debug)]
enum Step {
    Take(u8, u8, u32),
    TakeAll(Vec<((u8, u8, u32), bool, bool)>),
    Edit(u8, u8, u8),
    Grant(u8, u8, u32),
    Reset(u8, u8),
    Debit(u8, u8, u32),
    Restore(u8, u8, u32),
    Settle(u8, u8, u32),
    Default(u8),
    /// The policies, by the places of their quotas; those beyond are gone.
    Policies(Vec<u8>),
    Sweep,
    Wait(Nanos),
    Back(Nanos),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let (who, which) = (0..24_u8, 0..4_u8);
    let one = (who.clone(), which.clone(), 1..5_u32);
    let step = prop_oneof![
        6 => one.clone().prop_map(|(who, which, cost)| Step::Take(who, which, cost)),
        8 => prop::collection::vec((one.clone(), any::<bool>(), any::<bool>()), 0..=8).prop_map(Step::TakeAll),
        1 => (who.clone(), which.clone(), which.clone()).prop_map(|(who, from, to)| Step::Edit(who, from, to)),
        1 => one.clone().prop_map(|(who, which, tokens)| Step::Grant(who, which, tokens)),
        1 => (who, which.clone()).prop_map(|(who, which)| Step::Reset(who, which)),
        1 => one.clone().prop_map(|(who, which, cost)| Step::Debit(who, which, cost)),
        2 => one.clone().prop_map(|(who, which, cost)| Step::Settle(who, which, cost)),
        1 => prop::collection::vec(which.clone(), 0..3).prop_map(Step::Policies),
        1 => one.prop_map(|(who, which, tokens)| Step::Restore(who, which, tokens)),
        1 => which.prop_map(Step::Default),
        1 => Just(Step::Sweep),
        3 => (0..3 * SECOND).prop_map(Step::Wait),
        1 => (0..SECOND).prop_map(Step::Back),
    ];
    prop::collection::vec(step, 1..60)
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(200))]

    /// Every answer and every bucket is that of the limiter with one lock and one map.
    #[test]
    fn striped_is_exact(steps in steps()) {
        let quotas = [quota(3, 1.0), quota(7, 1.0 / 3.0), quota(1, 1e-6), quota(40, 9.0)];
        let quota_of = |which: u8| quotas[usize::from(which)];
        // Of two policies, whose places were given once: with the policy's quota, and with one's own.
        let key = |who: u8| match who {
            0..6 => client(who.into()),
            6..12 => stranger(who.into()),
            _ => {
                let bits = stranger(u32::from(who % 6) + 100).bits() ^ u128::from(who % 2);
                let slot = PolicySlot(u16::from(who % 2));
                Key::new(if who < 18 { Scope::Policy(slot) } else { Scope::OwnInPolicy(slot) }, bits)
            }
        };
        let one = |&(who, which, cost): &(u8, u8, u32)| charge(key(who), quota_of(which), cost);
        // One stripe in which somebody lives: a sweep passes by where nobody does, and notes no time there.
        let (striped, exact) = (of_stripes(1, 4), exact(4));
        let policies = |of: &[u8]| -> Vec<PolicyTerms> {
            let named = of.iter().zip(["a", "b"]);
            named.map(|(which, name)| PolicyTerms { quota: quota_of(*which), ..terms(name, 1, 2) }).collect()
        };
        assert!([&striped, &exact].iter().all(|map| map.set_policies(&policies(&[0, 1]), 0).len() == 2));
        let resident = Charge::one(client(99), quotas[2]);
        assert!([&striped, &exact].iter().all(|map| map.take(&resident, 0).is_allowed()));
        let mut now = SECOND;
        for step in steps {
            let both = |act: &dyn Fn(&dyn WholeLimiter)| [&striped, &exact].iter().for_each(|map| act(map.as_ref()));
            match &step {
                Step::Take(who, which, cost) => {
                    let charge = one(&(*who, *which, *cost));
                    prop_assert_eq!(striped.take(&charge, now), exact.take(&charge, now));
                }
                Step::TakeAll(of) => {
                    let mut seen = std::collections::HashSet::new();
                    let claims = of.iter().map(|(of, later, trial)| Claim { charge: one(of), later: *later, trial: *trial });
                    // No two of one bucket, and of those that may share one at most one.
                    let alike = |key: Key| match key.scope() {
                        Scope::Client => (0, key.bits()),
                        scope => (scope.slot().map_or(1, |slot| 2 + slot.0), 0),
                    };
                    let claims: Claims = claims.filter(|claim| seen.insert(alike(claim.charge.key))).collect();
                    prop_assert_eq!(striped.take_all(&claims, now), exact.take_all(&claims, now));
                }
                Step::Edit(who, from, to) => both(&|map| map.edit(key(*who), quota_of(*from), quota_of(*to), now)),
                Step::Grant(who, which, tokens) => {
                    both(&|map| map.grant(key(*who), quota_of(*which), *tokens, now));
                }
                Step::Reset(who, which) => both(&|map| map.reset(key(*who), quota_of(*which), now)),
                Step::Debit(who, which, cost) => both(&|map| map.debit(one(&(*who, *which, *cost)), now)),
                Step::Restore(who, which, tokens) => {
                    let (key, own) = (key(*who), quota_of(*which));
                    let bucket = Bucket::resume(Tokens::whole((*tokens).min(own.capacity().get())), now);
                    let saved = KeptBucket { key, bucket, quota: own };
                    prop_assert_eq!(striped.restore(saved, own, now), exact.restore(saved, own, now));
                }
                Step::Settle(who, which, cost) => {
                    let charge = one(&(*who, *which, *cost));
                    prop_assert_eq!(striped.settle(&charge, now), exact.settle(&charge, now));
                }
                Step::Policies(of) => {
                    let of = policies(of);
                    prop_assert_eq!(striped.set_policies(&of, now), exact.set_policies(&of, now));
                }
                Step::Default(which) => both(&|map| map.set_default_quota(quota_of(*which), now)),
                Step::Sweep => {
                    let [mut left, mut right] = [&striped, &exact].map(|map| sweep(map.as_ref(), now));
                    left.sort_unstable();
                    right.sort_unstable();
                    prop_assert_eq!(left, right);
                }
                Step::Wait(nanos) => now += nanos,
                Step::Back(nanos) => now = now.saturating_sub(*nanos),
            }
            prop_assert_eq!(
                (striped.buckets(), striped.overflowed()), (exact.buckets(), exact.overflowed()), "{:?}", step
            );
            for id in ["a", "b"].map(PolicyId::of) {
                prop_assert_eq!(striped.of_policy(id), exact.of_policy(id), "{:?}", step);
            }
            let [mut left, mut right] = [&striped, &exact].map(|map| {
                map.mark_all();
                export(map.as_ref())
            });
            left.sort_by_key(|saved| saved.key);
            right.sort_by_key(|saved| saved.key);
            prop_assert_eq!(left, right, "{:?}", step);
        }
    }
}
