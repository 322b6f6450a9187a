//! Asks the store what this node's limiter wants to know.
//!
//! The questions of a moment go together, in one round trip on a single server. What requests wait for goes at once,
//! unless as many round trips as `UNDERWAY` are; then it goes with the next, which is when many requests come that
//! each find nothing. What nobody waits for goes when its time has come, which is looked for every `PACE`.
//!
//! Whether the store is away is the link's to say. It counts as there again only `SETTLING` after it is: by then every
//! node has told what it gave meanwhile, so that none of it is given again.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use tokio::sync::{Notify, watch};
use tokio::time::{MissedTickBehavior, interval};

use super::bucket::{self, BucketAsk};
use super::link::StoreLink;
use super::names::Names;
use super::settings::WhenUnreachable;
use super::turns::{self, TurnsAsk};
use crate::clock::{Clock, Timeline};
use crate::limit::shared::leases::Leases;
use crate::limit::shared::{Answered, BucketQuestion, SharedLimiter};
use crate::limit::turns::shared::{SharedTurns, TurnQuestion, VALID};
use crate::limit::{Key, KeyMaker, Reach};

/// How often is looked for what nobody waits for.
const PACE: Duration = Duration::from_millis(10);
/// How often all leases are looked through.
const TEND: Duration = Duration::from_millis(100);
/// The most questions of one round trip.
const MOST: usize = 1_000;
/// The most round trips at once.
const UNDERWAY: usize = 2;
/// How long an answer is waited for: longer than requests do, since it is of use to the next ones.
const ANSWER: Duration = Duration::from_millis(250);
/// How long after its return the store is believed to know what was given without it.
const SETTLING: Duration = Duration::from_millis(500);

/// What is asked in one round trip: about buckets, and about turns.
type Questions = (Vec<BucketQuestion>, Vec<TurnQuestion>);

/// What asks for one limiter.
pub struct Asker {
    link: StoreLink,
    names: Names,
    /// This process, among all that hold leases.
    holder: String,
    limiter: Arc<SharedLimiter>,
    leases: Arc<Leases>,
    turns: Arc<SharedTurns>,
    /// What made the limiter's keys, and what makes those of the fleet.
    keys: (Arc<KeyMaker>, Arc<KeyMaker>),
    away: Reach,
    time: (Arc<dyn Clock>, Timeline),
    underway: AtomicUsize,
    returned: Notify,
}

impl From<WhenUnreachable> for Reach {
    fn from(when: WhenUnreachable) -> Self {
        match when {
            WhenUnreachable::Share => Reach::Share,
            WhenUnreachable::Refuse => Reach::Refuse,
            WhenUnreachable::Allow => Reach::Allow,
        }
    }
}

impl Asker {
    /// For `limiter`, which has these `leases`, and for `turns`; this node is `node`. Of `keys` the first made the limiter's, the second
    /// those of the fleet.
    pub fn new(
        (link, names, node): (StoreLink, Names, &str),
        (limiter, leases, turns): (Arc<SharedLimiter>, Arc<Leases>, Arc<SharedTurns>),
        keys: (Arc<KeyMaker>, Arc<KeyMaker>),
        when_unreachable: WhenUnreachable,
        time: (Arc<dyn Clock>, Timeline),
    ) -> Arc<Self> {
        let holder = format!("{node}/{:08x}", fastrand::u32(..));
        let (away, underway, returned) = (when_unreachable.into(), AtomicUsize::new(0), Notify::new());
        Arc::new(Asker { link, names, holder, limiter, leases, turns, keys, away, time, underway, returned })
    }

    fn now(&self) -> u64 {
        self.time.1.nanos(self.time.0.now())
    }

    /// Asks, until `shutdown` says that the server stops.
    pub async fn run(self: &Arc<Self>, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stopping| *stopping) => {}
            () = self.follow_link() => {}
            () = self.ask_on() => {}
        }
    }

    /// Gives back what is held; after the last request.
    pub async fn finish(self: &Arc<Self>) {
        self.leases.give_all_back();
        self.turns.give_all_back();
        while let Some(questions) = self.due() {
            if !self.ask(questions).await {
                break;
            }
        }
    }

    /// Has the limiter do what it should, as the store comes and goes.
    async fn follow_link(&self) {
        let mut state = self.link.state();
        loop {
            // Who joined at its start has given nothing, and tells what an earlier process gave before anything else of
            // the bucket.
            while self.leases.reach() != Reach::Joined {
                if state.wait_for(|state| state.is_reachable()).await.is_err() {
                    return;
                }
                let settled = tokio::time::sleep(SETTLING);
                tokio::select! {
                    lost = state.wait_for(|state| !state.is_reachable()) => {
                        if lost.is_err() {
                            return;
                        }
                    }
                    () = settled => self.leases.set_reach(Reach::Joined),
                }
            }
            if state.wait_for(|state| !state.is_reachable()).await.is_err() {
                return;
            }
            self.leases.set_reach(self.away);
        }
    }

    async fn ask_on(self: &Arc<Self>) {
        let (mut pace, mut tend) = (interval(PACE), interval(TEND));
        pace.set_missed_tick_behavior(MissedTickBehavior::Delay);
        tend.set_missed_tick_behavior(MissedTickBehavior::Delay);
        loop {
            tokio::select! {
                () = self.leases.woken() => {}
                () = self.returned.notified() => {}
                _ = pace.tick() => {}
                _ = tend.tick() => {
                    self.leases.tend(self.now());
                    self.turns.tend(self.now());
                }
            }
            while self.link.state().borrow().is_reachable() && self.underway.load(Ordering::Relaxed) < UNDERWAY {
                let Some(questions) = self.due() else { break };
                self.underway.fetch_add(1, Ordering::Relaxed);
                let asker = Arc::clone(self);
                tokio::spawn(async move {
                    asker.ask(questions).await;
                    asker.underway.fetch_sub(1, Ordering::Relaxed);
                    asker.returned.notify_one();
                });
            }
        }
    }

    /// What is to be asked now, if anything is.
    fn due(&self) -> Option<Questions> {
        let now = self.now();
        let buckets = self.limiter.due(MOST, now);
        let turns = self.turns.due(MOST - buckets.len(), now);
        (!buckets.is_empty() || !turns.is_empty()).then_some((buckets, turns))
    }

    /// Asks, and takes in the answers; whether all came.
    async fn ask(&self, (buckets, turns): Questions) -> bool {
        let calls = buckets.iter().map(|question| self.call(question));
        let calls: Vec<_> = calls.chain(turns.iter().map(|question| self.turn_call(question))).collect();
        let mut answers = self.link.calls(&calls, ANSWER).await;
        let of_turns = answers.split_off(buckets.len());
        let mut all = true;
        for (question, answer) in turns.iter().zip(of_turns) {
            match answer.and_then(|answer| turns::read(&answer)) {
                Ok(told) => self.turns.told(question.key, told, self.now()),
                Err(error) => {
                    log::debug!("a question about turns was not answered: {error}");
                    self.turns.unanswered(question.key);
                    all = false;
                }
            }
        }
        for (question, answer) in buckets.iter().zip(answers) {
            let now = self.now();
            match answer.and_then(|answer| bucket::read(&answer)) {
                Ok(answer) if !answer.is_late => {
                    let bucket::BucketAnswer { granted, ahead, tokens, age_us, .. } = answer;
                    let told = Answered { granted, ahead, tokens, age: age_us.saturating_mul(1_000) };
                    self.limiter.told(question.key, &told, now);
                }
                unanswered => {
                    log::debug!("a bucket's question was not answered: {unanswered:?}");
                    self.limiter.unanswered(question.key);
                    all = false;
                }
            }
        }
        all
    }

    fn call(&self, question: &BucketQuestion) -> super::link::ScriptCall {
        let BucketQuestion { key, quota, left, want, ahead, divisor, debit, back, valid, number, known } = *question;
        let holder = &self.holder;
        let ask = BucketAsk { quota, holder, left, want, ahead, divisor, debit, back, valid, number, known };
        bucket::ask(&self.names, self.bits(key), &ask)
    }

    fn turn_call(&self, question: &TurnQuestion) -> super::link::ScriptCall {
        let TurnQuestion { key, running, keeps, wants, most, number } = *question;
        let valid = Duration::from_nanos(VALID);
        let ask = TurnsAsk { holder: &self.holder, running, keeps, wants, most, number, valid };
        turns::ask(&self.names, self.bits(key), &ask)
    }

    /// The bits of a key in the store.
    fn bits(&self, key: Key) -> u128 {
        let (own, fleet) = &self.keys;
        if Arc::ptr_eq(own, fleet) {
            return key.bits();
        }
        own.payer(key).map_or(key.bits(), |payer| fleet.of(payer))
    }
}
