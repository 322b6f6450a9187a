//! The lives of a node whose store is away, over one database: what it owes is told when the store is back.

use std::num::NonZeroU32;

use proptest::prelude::*;
use tokio::runtime::{Builder, Runtime};

use super::*;
use crate::clock::ManualClock;
use crate::limit::shared::leases::{LeaseSettings, Leases};
use crate::limit::shared::{Answered, FleetPart};
use crate::limit::{Charge, Limiter, PolicyId, PolicyTerms, Reach, SharedLimiter, Striped, StripedSettings, Upkeep};
use crate::store::SavedOwed;
use crate::store::memory::Memory;

/// So much that no share of it is spent.
fn quota() -> Quota {
    Quota::new(1_000_000, 1.0).unwrap()
}

fn own(payer: Payer) -> Option<Quota> {
    payer.policy().is_none().then(quota)
}

/// What pays: a client, an address, and what a header says in a policy.
fn payers() -> [Payer; 3] {
    let address = Payer::address([192, 0, 2, 1].into(), 64);
    [Payer::client(7), address, Payer::value(PolicyId::of("tenants"), 5)]
}

/// One process of the node.
struct Life {
    buckets: Buckets,
    limiter: Arc<SharedLimiter>,
    clock: Arc<ManualClock>,
}

impl Life {
    fn new(store: &Arc<dyn BucketStore>, clock: &Arc<ManualClock>) -> Self {
        let timeline = Timeline::new(clock.as_ref());
        let max_buckets = NonZeroUsize::new(100).unwrap();
        let settings = StripedSettings { max_buckets, stripes: None, default_quota: quota() };
        let lease =
            LeaseSettings { lease: Duration::from_millis(100), timeout: Duration::from_millis(25), max_asks: 16 };
        let leases = Leases::new(lease, FleetPart::new("a", ["a", "b", "c"].into_iter()), Reach::Share);
        let limiter = Arc::new(SharedLimiter::new(Striped::new(settings, timeline.nanos(clock.now())), leases));
        limiter.set_policies(&[PolicyTerms { id: PolicyId::of("tenants"), quota: quota(), max_buckets }], 1);
        let settings = RateLimit { quota: quota(), ..RateLimit::default() };
        let (whole, time): (Arc<dyn WholeLimiter>, _) = (Arc::clone(&limiter) as _, Arc::clone(clock) as _);
        let buckets = Buckets::new(whole, Arc::clone(store), &settings, time, timeline);
        Life { buckets, limiter, clock: Arc::clone(clock) }
    }

    /// One that was started.
    fn started(store: &Arc<dyn BucketStore>, clock: &Arc<ManualClock>) -> Self {
        let life = Life::new(store, clock);
        life.buckets.restore(own).unwrap();
        life
    }

    /// One that takes over, up to the moment when it serves.
    fn succeeding(&self, store: &Arc<dyn BucketStore>, clock: &Arc<ManualClock>) -> Self {
        let next = Life::new(store, clock);
        let next = Life { buckets: next.buckets.of_successor(), ..next };
        next.buckets.take_over(&self.buckets.begin_hand_over().unwrap(), own);
        next.buckets.take_over(&self.buckets.hand_over_the_rest(), own);
        next.buckets.take_over_owed(&self.buckets.hand_over_owed(false), own);
        next.buckets.receive_right();
        next
    }

    fn give(&self, payer: Payer, tokens: u32) {
        let (key, quota) = self.buckets.whose(payer, own).unwrap();
        let charge = Charge { key, quota, cost: NonZeroU32::new(tokens).unwrap() };
        assert!(self.limiter.take(&charge, self.buckets.now()).is_allowed());
    }

    /// The store is back: what it is told of each of [`payers`].
    fn tell(&self) -> [u64; 3] {
        // Questions that nobody waits for go together.
        self.clock.advance(Duration::from_millis(100));
        let mut told = [0; 3];
        for question in self.limiter.due(100, self.buckets.now()) {
            let payer = self.buckets.keys.payer(question.key).unwrap();
            told[payers().iter().position(|known| *known == payer).unwrap()] += question.debit;
            let answer = Answered { granted: 0, ahead: 0, tokens: 900_000, age: 0 };
            self.limiter.told(question.key, &answer, self.buckets.now());
        }
        told
    }
}

fn runtime() -> Runtime {
    Builder::new_current_thread().enable_all().build().unwrap()
}

fn saved(store: &Arc<dyn BucketStore>) -> u64 {
    let mut sum = 0;
    store.load_owed(&mut |SavedOwed { tokens, .. }| sum += tokens).unwrap();
    sum
}

#[derive(Clone, Copy, Debug)]
enum Step {
    Give(usize, u32),
    Save,
    Tell,
    Stop,
    Kill,
    /// An upgrade, in whose time the old process gives some more.
    Upgrade(u32),
    /// The same, but the new process saves and fails.
    FailedUpgrade(u32),
}

fn steps() -> impl Strategy<Value = Vec<Step>> {
    let step = prop_oneof![
        4 => (0..3_usize, 1..50_u32).prop_map(|(payer, tokens)| Step::Give(payer, tokens)),
        2 => Just(Step::Save),
        1 => Just(Step::Tell),
        1 => Just(Step::Stop),
        1 => Just(Step::Kill),
        1 => (1..50_u32).prop_map(Step::Upgrade),
        1 => (1..50_u32).prop_map(Step::FailedUpgrade),
    ];
    prop::collection::vec(step, 1..30)
}

/// Lives through the steps, and holds what is told at the end to what a process owes by the rule.
fn live(steps: Vec<Step>) {
    let (store, clock, runtime): (Arc<dyn BucketStore>, _, _) =
        (Arc::new(Memory::new()), Arc::new(ManualClock::new()), runtime());
    let mut life = Life::started(&store, &clock);
    let (mut owes, mut kept) = ([0_u64; 3], [0; 3]);
    for step in steps {
        clock.advance(Duration::from_millis(1));
        match step {
            Step::Give(payer, tokens) => {
                life.give(payers()[payer], tokens);
                owes[payer] += u64::from(tokens);
            }
            Step::Save => {
                runtime.block_on(life.buckets.save());
                kept = owes;
            }
            Step::Tell => assert_eq!(life.tell(), std::mem::take(&mut owes)),
            Step::Stop => {
                life.buckets.save_at_stop().unwrap();
                kept = owes;
                life = Life::started(&store, &clock);
            }
            Step::Kill => {
                life = Life::started(&store, &clock);
                owes = kept;
            }
            Step::Upgrade(tokens) => {
                let next = life.succeeding(&store, &clock);
                life.give(payers()[0], tokens);
                owes[0] += u64::from(tokens);
                next.buckets.take_over_owed(&life.buckets.hand_over_owed(true), own);
                life = next;
            }
            Step::FailedUpgrade(tokens) => {
                let next = life.succeeding(&store, &clock);
                next.give(payers()[1], tokens);
                runtime.block_on(next.buckets.save());
                kept = owes;
                kept[1] += u64::from(tokens);
                life.buckets.take_back();
            }
        }
    }
    assert_eq!(life.tell(), owes);
    runtime.block_on(life.buckets.save());
    assert_eq!((life.tell(), saved(&store)), ([0; 3], 0), "told once");
    assert_eq!(Life::started(&store, &clock).tell(), [0; 3]);
}

proptest! {
    #[test]
    fn what_is_owed_outlives_the_process(steps in steps()) {
        live(steps);
    }
}

#[test]
fn of_who_is_gone_nothing_is_owed() {
    let (store, clock): (Arc<dyn BucketStore>, _) = (Arc::new(Memory::new()), Arc::new(ManualClock::new()));
    let life = Life::started(&store, &clock);
    payers().into_iter().for_each(|payer| life.give(payer, 4));
    life.buckets.save_at_stop().unwrap();
    assert_eq!(saved(&store), 12);
    let next = Life::new(&store, &clock);
    next.buckets.restore(|payer| own(payer).filter(|_| payer.client_number().is_none())).unwrap();
    assert_eq!(next.tell(), [0, 4, 4]);
    next.buckets.save_at_stop().unwrap();
    assert_eq!(saved(&store), 0);
}

#[test]
fn a_limiter_that_owes_nobody_forgets_what_a_node_owed() {
    let (store, clock): (Arc<dyn BucketStore>, _) = (Arc::new(Memory::new()), Arc::new(ManualClock::new()));
    let life = Life::started(&store, &clock);
    life.give(Payer::client(7), 4);
    life.buckets.save_at_stop().unwrap();
    let alone = super::tests::process(&store, &clock);
    alone.restore(own).unwrap();
    alone.save_at_stop().unwrap();
    assert_eq!(saved(&store), 0);
}
