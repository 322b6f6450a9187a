//! Over a store in memory and a manual clock.
//!
//! Long because each test is a life of a few processes that share one database.

use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::atomic::{AtomicBool, Ordering};

use super::due::PIECE;
use super::*;
use crate::admin::NotFilled;
use crate::clock::ManualClock;
use crate::limit::{Charge, Striped, StripedSettings};
use crate::store::Reply;
use crate::store::SavedOwed;
use crate::store::memory::Memory;

const SECOND: Duration = Duration::from_secs(1);

fn quota() -> Quota {
    Quota::new(10, 1.0).unwrap()
}

fn caller(last: u8) -> Payer {
    Payer::address(IpAddr::from([192, 0, 2, last]), 64)
}

/// Buckets as a process has them that starts now.
pub(super) fn process(store: &Arc<dyn BucketStore>, clock: &Arc<ManualClock>) -> Buckets {
    let timeline = Timeline::new(clock.as_ref());
    let settings =
        StripedSettings { max_buckets: NonZeroUsize::new(100_000).unwrap(), stripes: None, default_quota: quota() };
    let limiter = Arc::new(Striped::new(settings, timeline.nanos(clock.now())));
    let settings = RateLimit { quota: quota(), ..RateLimit::default() };
    Buckets::new(limiter, Arc::clone(store), &settings, Arc::clone(clock) as _, timeline)
}

fn take(buckets: &Buckets, payer: Payer, count: usize) {
    for _ in 0..count {
        assert!(buckets.limiter.take(&Charge::one(buckets.keys.key(payer), quota()), buckets.now()).is_allowed());
    }
}

fn tokens(buckets: &Buckets, payer: Payer) -> f64 {
    buckets.limiter.peek(buckets.keys.key(payer), quota(), buckets.now()).tokens().to_f64()
}

fn everybody(_: Payer) -> Option<Quota> {
    Some(quota())
}

fn in_memory() -> (Arc<dyn BucketStore>, Arc<ManualClock>) {
    (Arc::new(Memory::new()), Arc::new(ManualClock::new()))
}

#[test]
fn time_at_rest_is_refill_and_full_buckets_are_forgotten() {
    let (store, clock) = in_memory();
    let first = process(&store, &clock);
    take(&first, caller(1), 10);
    take(&first, Payer::client(7), 3);
    clock.advance(2 * SECOND);
    first.save_at_stop().unwrap();
    clock.advance(3 * SECOND);
    let second = process(&store, &clock);
    assert_eq!(second.restore(everybody).unwrap(), 1, "the client's is full by now");
    assert_eq!((tokens(&second, caller(1)), tokens(&second, Payer::client(7))), (5.0, 10.0));
    second.save_at_stop().unwrap();
    let mut kept = Vec::new();
    store.load(&mut |saved| kept.push(saved.payer)).unwrap();
    assert_eq!(kept, [caller(1)], "what is full is not kept");
}

#[test]
fn what_nobody_has_any_more_is_forgotten() {
    let (store, clock) = in_memory();
    let first = process(&store, &clock);
    take(&first, Payer::client(7), 10);
    first.save_at_stop().unwrap();
    let second = process(&store, &clock);
    assert_eq!(second.restore(|_| None).unwrap(), 0);
    second.save_at_stop().unwrap();
    assert!(store.load(&mut |saved| panic!("{saved:?} is kept")).unwrap().is_some());
}

#[test]
fn the_later_of_two_events_counts() {
    let (store, clock) = in_memory();
    let buckets = process(&store, &clock);
    take(&buckets, caller(1), 1);
    take(&buckets, caller(2), 1);
    buckets.export();
    clock.advance(10 * SECOND);
    buckets.sweep();
    take(&buckets, caller(2), 4);
    buckets.save_at_stop().unwrap();
    let mut kept = Vec::new();
    store.load(&mut |saved| kept.push((saved.payer, saved.bucket.tokens().floor()))).unwrap();
    assert_eq!(kept, [(caller(2), 6)]);
}

/// A store that may be out of order.
struct Fickle {
    memory: Memory,
    broken: AtomicBool,
}

impl BucketStore for Fickle {
    fn secret(&self) -> u128 {
        1
    }

    fn save(&self, snapshot: Snapshot) -> Reply<()> {
        match self.broken.load(Ordering::SeqCst) {
            true => Reply::ready(Err(StoreError("the disk is full".to_owned()).into())),
            false => self.memory.save(snapshot),
        }
    }

    fn load(&self, each: &mut dyn FnMut(Saved)) -> Result<Option<Moment>, StoreError> {
        self.memory.load(each)
    }

    fn load_owed(&self, each: &mut dyn FnMut(SavedOwed)) -> Result<(), StoreError> {
        self.memory.load_owed(each)
    }
}

#[test]
fn what_the_store_could_not_take_stays_due() {
    let clock = Arc::new(ManualClock::new());
    let fickle = Arc::new(Fickle { memory: Memory::new(), broken: AtomicBool::new(true) });
    let store: Arc<dyn BucketStore> = Arc::clone(&fickle) as _;
    let buckets = process(&store, &clock);
    // More than one piece, so that the first one fails and the others were never tried.
    for number in 0..u64::try_from(PIECE).unwrap() + 10 {
        take(&buckets, Payer::client(number), 4);
    }
    assert!(buckets.save_at_stop().is_err());
    take(&buckets, Payer::client(3), 2);
    assert!(buckets.save_at_stop().is_err());
    fickle.broken.store(false, Ordering::SeqCst);
    buckets.save_at_stop().unwrap();
    let second = process(&store, &clock);
    assert_eq!(second.restore(everybody).unwrap(), PIECE + 10);
    assert_eq!((tokens(&second, Payer::client(3)), tokens(&second, Payer::client(4))), (4.0, 6.0));
}

#[test]
fn an_outage_does_not_collect_callers_without_end() {
    let clock = Arc::new(ManualClock::new());
    let fickle = Arc::new(Fickle { memory: Memory::new(), broken: AtomicBool::new(true) });
    let store: Arc<dyn BucketStore> = Arc::clone(&fickle) as _;
    let buckets = process(&store, &clock);
    take(&buckets, Payer::client(1), 10);
    for round in 0..20_u32 {
        for number in 0..5_000 {
            let address = IpAddr::from((round * 5_000 + number).to_be_bytes());
            take(&buckets, Payer::address(address, 64), 1);
        }
        assert!(buckets.save_at_stop().is_err());
        clock.advance(SECOND);
        buckets.sweep();
        let waiting = buckets.due.lock().len();
        assert!(waiting < 25_000, "round {round}: {waiting} are due");
    }
    fickle.broken.store(false, Ordering::SeqCst);
    buckets.save_at_stop().unwrap();
    let second = process(&store, &clock);
    second.restore(everybody).unwrap();
    assert_eq!(tokens(&second, Payer::client(1)), 10.0, "it has had 20 s to fill");
}

#[test]
fn a_stop_notes_the_moment_even_when_no_bucket_changed() {
    let (store, clock) = in_memory();
    let first = process(&store, &clock);
    take(&first, caller(1), 10);
    first.save_at_stop().unwrap();
    clock.advance(2 * SECOND);
    first.save_at_stop().unwrap();
    let moment = store.load(&mut |_| {}).unwrap().unwrap();
    assert_eq!(moment, first.moment());
}

#[test]
fn between_two_processes_a_clock_that_was_set_back_credits_nothing_and_one_far_ahead_fills() {
    for (set, expected) in [(-3600, 0.0), (3, 3.0), (1_000_000, 10.0)] {
        let (store, clock) = in_memory();
        let first = process(&store, &clock);
        take(&first, caller(1), 10);
        first.save_at_stop().unwrap();
        clock.set_wall(set);
        clock.reboot();
        let second = process(&store, &clock);
        second.restore(everybody).unwrap();
        assert_eq!(tokens(&second, caller(1)), expected, "set by {set} s");
        clock.advance(SECOND);
        assert_eq!(tokens(&second, caller(1)), (expected + 1.0).min(10.0), "and it goes on from there");
    }
}

#[test]
fn a_debt_is_owed_after_a_restart_and_no_clock_makes_it_longer() {
    for (set, expected) in [(-3600, 991), (100, 891), (1_000_000, 1)] {
        let (store, clock) = in_memory();
        let first = process(&store, &clock);
        let charge =
            Charge { cost: NonZeroU32::new(1_000).unwrap(), ..Charge::one(first.keys.key(caller(1)), quota()) };
        assert_eq!(first.limiter.settle(&charge, first.now()).retry_after(), 991, "ten were there");
        first.save_at_stop().unwrap();
        clock.set_wall(set);
        clock.reboot();
        let second = process(&store, &clock);
        second.restore(everybody).unwrap();
        assert_eq!(second.limiter.peek(charge.key, quota(), second.now()).retry_after(), expected, "set by {set} s");
    }
}

#[test]
fn a_process_under_a_wrong_clock_gives_nothing_to_the_next_one() {
    let (store, clock) = in_memory();
    clock.set_wall(-10 * 365 * 24 * 3600);
    let first = process(&store, &clock);
    take(&first, caller(1), 10);
    first.save_at_stop().unwrap();
    clock.set_wall(10 * 365 * 24 * 3600);
    clock.advance(3 * SECOND);
    let second = process(&store, &clock);
    second.restore(everybody).unwrap();
    assert_eq!(tokens(&second, caller(1)), 3.0);
}

#[tokio::test]
async fn a_clock_that_is_set_while_the_process_runs_is_noted_and_credits_nothing() {
    let (store, clock) = in_memory();
    let first = process(&store, &clock);
    take(&first, caller(1), 10);
    first.save().await;
    clock.set_wall(8 * 3600);
    // Nothing has changed since, but the moment that the next process counts from.
    first.save().await;
    let second = process(&store, &clock);
    second.restore(everybody).unwrap();
    assert_eq!(tokens(&second, caller(1)), 0.0);
}

/// What a store has.
fn kept(store: &Arc<dyn BucketStore>) -> Vec<Payer> {
    let mut kept = Vec::new();
    store.load(&mut |saved| kept.push(saved.payer)).unwrap();
    kept.sort_unstable();
    kept
}

#[tokio::test]
async fn a_successor_has_every_bucket_and_alone_may_save() {
    let (store, clock) = in_memory();
    let (first, second) = (process(&store, &clock), process(&store, &clock));
    take(&first, caller(1), 4);
    take(&first, caller(2), 1);
    first.save().await;
    // One that is saved and full by the time it is handed over, one that was never saved, one that changes in between.
    clock.advance(SECOND);
    take(&first, caller(3), 3);
    first.sweep();
    second.take_over(&first.begin_hand_over().unwrap(), everybody);
    assert_eq!([1, 2, 3].map(|number| tokens(&second, caller(number))), [7.0, 10.0, 7.0]);
    take(&first, caller(1), 2);
    second.take_over(&first.hand_over_the_rest(), everybody);
    assert_eq!(tokens(&second, caller(1)), 5.0);

    take(&first, caller(4), 1);
    first.save().await;
    assert_eq!(kept(&store), [caller(1), caller(2)], "it has no right to save any more");
    second.save().await;
    assert_eq!(kept(&store), [caller(1), caller(3)]);
}

#[tokio::test]
async fn a_successor_saves_from_when_it_serves_until_it_fails() {
    let (store, clock) = in_memory();
    let buckets = process(&store, &clock).of_successor();
    take(&buckets, caller(1), 1);
    buckets.save().await;
    save_at_stop(&buckets);
    assert_eq!(kept(&store), []);
    buckets.receive_right();
    buckets.save().await;
    assert_eq!(kept(&store), [caller(1)]);
    take(&buckets, caller(2), 1);
    buckets.give_up_right();
    buckets.save().await;
    save_at_stop(&buckets);
    assert_eq!(kept(&store), [caller(1)]);
}

#[tokio::test]
async fn what_fills_up_in_between_is_full_for_the_successor() {
    let (store, clock) = in_memory();
    let (first, second) = (process(&store, &clock), process(&store, &clock));
    take(&first, caller(1), 1);
    second.take_over(&first.begin_hand_over().unwrap(), everybody);
    assert_eq!(second.limiter.buckets(), 1);
    clock.advance(SECOND);
    first.sweep();
    second.take_over(&first.hand_over_the_rest(), everybody);
    second.sweep();
    assert!(second.limiter.buckets() == 0);
    second.save().await;
    assert_eq!(kept(&store), []);
}

#[tokio::test]
async fn who_takes_back_saves_everything() {
    let (store, clock) = in_memory();
    let first = process(&store, &clock);
    take(&first, caller(1), 4);
    take(&first, caller(2), 1);
    first.save().await;
    clock.advance(SECOND);
    first.sweep();
    first.take_back();
    let handed = first.begin_hand_over().unwrap();
    assert_eq!((handed.changed.len(), handed.dropped.as_slice()), (1, &[caller(2)][..]));
    // The successor has saved something and is gone.
    let second = process(&store, &clock);
    second.take_over(&handed, everybody);
    take(&second, caller(7), 1);
    second.save().await;
    take(&first, caller(3), 2);
    first.take_back();
    first.save().await;
    assert_eq!(kept(&store), [caller(1), caller(3), caller(7)]);
    assert!(first.begin_hand_over().is_some(), "and it can be handed over again");
}

#[test]
fn a_debt_is_carried_over_and_kept_through_a_restart() {
    let (store, clock) = in_memory();
    let (first, second) = (process(&store, &clock), process(&store, &clock));
    take(&first, caller(1), 10);
    let now = first.now();
    first
        .limiter
        .debit(Charge { cost: NonZeroU32::new(5).unwrap(), ..Charge::one(first.keys.key(caller(1)), quota()) }, now);
    second.take_over(&first.begin_hand_over().unwrap(), everybody);
    second.save_at_stop().unwrap();
    clock.advance(2 * SECOND);
    let third = process(&store, &clock);
    third.restore(everybody).unwrap();
    // One token a second: three of five are still owed.
    clock.advance(3 * SECOND);
    for process in [&second, &third] {
        assert_eq!(tokens(process, caller(1)), 0.0);
    }
    clock.advance(2 * SECOND);
    assert_eq!((tokens(&second, caller(1)), tokens(&third, caller(1))), (2.0, 2.0));
}

#[tokio::test]
async fn a_reset_is_not_undone_by_a_save_that_began_before_it() {
    let (store, clock) = in_memory();
    let first = process(&store, &clock);
    // Three pieces, of which the first goes to the store before the reset and is never confirmed.
    for number in 0..2 * PIECE as u64 + 10 {
        take(&first, Payer::client(number), 10);
    }
    first.export();
    drop(first.send().unwrap());
    let filled = [3, PIECE as u64 + 3];
    for number in filled {
        first.reset(&[Payer::client(number)], everybody).await.unwrap();
    }
    // And one of which the limiter has told nobody yet.
    take(&first, Payer::client(5), 0);
    first.save().await;
    let second = process(&store, &clock);
    second.restore(everybody).unwrap();
    assert_eq!(filled.map(|number| tokens(&second, Payer::client(number))), [10.0, 10.0]);
    assert_eq!(tokens(&second, Payer::client(4)), 0.0);
}

#[tokio::test]
async fn a_raised_bucket_is_not_undone_by_a_save_that_began_before_it() {
    let (store, clock) = in_memory();
    let first = process(&store, &clock);
    let (payer, raised) = (Payer::client(7), Quota::new(100, 1.0).unwrap());
    let key = first.keys.key(payer);
    take(&first, payer, 4);
    first.export();
    clock.advance(4 * SECOND);
    first.sweep();
    // Due now: that it is full and nobody's.
    first.limiter.edit(key, quota(), raised, first.now());
    first.keep(&[(payer, key, raised)]);
    first.save().await;
    let second = process(&store, &clock);
    second.restore(|_| Some(raised)).unwrap();
    assert_eq!(second.limiter.peek(key, raised, second.now()).tokens().floor(), 10);
}

#[tokio::test]
async fn nothing_is_reset_while_another_process_has_the_buckets() {
    let (store, clock) = in_memory();
    let (first, second) = (process(&store, &clock), process(&store, &clock).of_successor());
    take(&first, caller(1), 4);
    second.take_over(&first.begin_hand_over().unwrap(), everybody);
    for process in [&first, &second] {
        assert_eq!(process.reset(&[caller(1)], everybody).await, Err(NotFilled::HandedOver));
        assert_eq!(tokens(process, caller(1)), 6.0);
    }
    first.take_back();
    assert_eq!(first.reset(&[caller(1)], everybody).await, Ok(()));
    assert_eq!(tokens(&first, caller(1)), 10.0);
}

#[tokio::test]
async fn a_reset_that_the_store_does_not_take_is_none() {
    let clock = Arc::new(ManualClock::new());
    let fickle = Arc::new(Fickle { memory: Memory::new(), broken: AtomicBool::new(true) });
    let store: Arc<dyn BucketStore> = Arc::clone(&fickle) as _;
    let buckets = process(&store, &clock);
    take(&buckets, caller(1), 4);
    assert!(matches!(buckets.reset(&[caller(1)], everybody).await, Err(NotFilled::Store(_))));
    assert_eq!(tokens(&buckets, caller(1)), 6.0);
    fickle.broken.store(false, Ordering::SeqCst);
    assert_eq!(buckets.reset(&[caller(1)], everybody).await, Ok(()));
    assert_eq!(tokens(&buckets, caller(1)), 10.0);
}
