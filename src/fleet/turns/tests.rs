//! The script against the model, and nodes over the model in time that is made up: never more run than may.

use std::collections::VecDeque;
use std::num::NonZeroU32;
use std::pin::Pin;
use std::sync::Arc;

use fastrand::Rng;
use futures_util::FutureExt;
use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::model::ModelTurns;
use super::*;
use crate::fleet::link::tests::{runtime, settings, start, until};
use crate::fleet::servers::{Engine, StoreServer, pause};
use crate::limit::Reach;
use crate::limit::shared::FleetPart;
use crate::limit::shared::leases::{LeaseSettings, Leases};
use crate::limit::turns::shared::{TurnQuestion, VALID};
use crate::limit::{CallerTurns, Key, Nanos, NoTurn, SharedTurns, StoreAnswers, Turn};

const LONG: Duration = Duration::from_secs(5);

fn plain(holder: &'static str, running: u32, most: u32) -> TurnsAsk<'static> {
    TurnsAsk { holder, running, keeps: running, wants: 0, most, number: 1, valid: Duration::from_secs(1_000) }
}

/// Questions: of whom, what runs, may begin and is wanted beside, of how many, and how much later it is than the last.
fn questions() -> impl Strategy<Value = Vec<(usize, u32, u32, u32, u32, i64)>> {
    let later = prop_oneof![9 => Just(1), 1 => -3i64..=0];
    vec((0usize..4, 0u32..6, 0u32..4, 0u32..6, 1u32..14, later), 1..40)
}

#[test]
fn the_script_does_what_the_model_does_on_either_engine() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        let runtime = runtime();
        let (link, _stop) = runtime.block_on(async {
            let running = start(&settings(&server.url()));
            until(&running.0, true).await;
            running
        });
        let (names, next) = (Names::new("t"), std::cell::Cell::new(0u128));
        let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&questions(), |questions| {
            next.set(next.get() + 1);
            let (key, mut model, mut number) = (next.get(), ModelTurns::default(), 10i64);
            for (holder, running, beside, wants, most, later) in questions {
                number += later;
                let holder = ["a", "b", "c", "d"][holder];
                let (keeps, number) = (running + beside, u64::try_from(number.max(0)).unwrap());
                let of = TurnsAsk { keeps, wants, number, ..plain(holder, running, most) };
                let answer = runtime.block_on(link.calls(&[ask(&names, key, &of)], LONG)).pop().unwrap().unwrap();
                prop_assert_eq!(read(&answer).unwrap(), model.ask(0, &of), "{:?} {:?}", engine, of);
            }
            Ok(())
        });
        outcome.unwrap();
    }
}

#[test]
fn who_vanished_holds_nothing_after_its_time_and_who_is_back_holds_again() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&server.url()));
            until(&link, true).await;
            let names = Names::new("t");
            let hold = async |of: TurnsAsk<'_>| {
                let answer = link.calls(&[ask(&names, 9, &of)], LONG).await.pop().unwrap().unwrap();
                let TurnsTold { held, others } = read(&answer).unwrap();
                (held, others)
            };
            let short = Duration::from_millis(100);
            assert_eq!(hold(TurnsAsk { valid: short, ..plain("a", 3, 5) }).await, (3, 0), "{engine:?}");
            let wants = TurnsAsk { wants: 5, ..plain("b", 0, 5) };
            // What is wanted finds the room that there is.
            let mut found = hold(wants).await;
            let mut tries = 0;
            while found != (5, 0) {
                assert_eq!(found, (2, 3), "{engine:?}");
                tries += 1;
                assert!(tries < 1000, "turns of a node that vanished stay");
                pause();
                found = hold(wants).await;
            }
            // Its own time is over by now, as nobody else's is.
            assert_eq!(hold(plain("a", 1, 5)).await, (1, 5));
            assert_eq!(hold(plain("b", 0, 5)).await, (0, 1));
            assert_eq!(hold(TurnsAsk { valid: short, ..plain("a", 1, 5) }).await, (1, 0));
            let left = async || {
                let mut ttl = redis::cmd("PTTL");
                ttl.arg(names.turns(9));
                redis::from_redis_value::<i64>(link.commands(&[ttl], LONG).await.unwrap().remove(0)).unwrap()
            };
            // A second beside its time.
            assert!((100..=1_110).contains(&left().await), "{engine:?}");
            assert_eq!(hold(plain("a", 0, 5)).await, (0, 0));
            assert_eq!(left().await, -2, "{engine:?}: nothing is kept of whom nothing runs");
        });
    }
}

const MILLI: Nanos = 1_000_000;
const START: Nanos = 1_000_000 * MILLI;

/// A request that waits, and what it knows then.
type Wait = Pin<Box<dyn Future<Output = StoreAnswers>>>;

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Fate {
    Answered,
    /// It does not get there.
    Lost,
    /// It gets there, and its answer does not come.
    Unheard,
    /// It gets there after a later one was asked.
    Late,
}

struct TurnsNode {
    name: String,
    turns: Arc<CallerTurns>,
    shared: Arc<SharedTurns>,
    /// Questions, and when they are there.
    underway: VecDeque<(Nanos, TurnQuestion, Fate)>,
    /// Answers, and when they are there; `None` where it is known that none comes.
    back: VecDeque<(Nanos, Key, Option<TurnsTold>)>,
    waiting: Vec<Wait>,
    /// What runs, and until when.
    running: Vec<(Nanos, Turn)>,
}

fn leases(name: &str, names: &[String], reach: Reach) -> Arc<Leases> {
    let lease =
        LeaseSettings { lease: Duration::from_millis(100), timeout: Duration::from_millis(25), max_asks: 1_024 };
    Leases::new(lease, FleetPart::new(name, names.iter().map(String::as_str)), reach)
}

impl TurnsNode {
    fn new(name: String, place: &str, names: &[String]) -> Self {
        let shared = SharedTurns::new(leases(place, names, Reach::Joined));
        let turns = Arc::new(CallerTurns::Shared(Arc::clone(&shared)));
        TurnsNode {
            name,
            turns,
            shared,
            underway: VecDeque::new(),
            back: VecDeque::new(),
            waiting: Vec::new(),
            running: Vec::new(),
        }
    }

    /// Decides on a request that has asked or not; whether it begins, and until when.
    fn judge(&mut self, mut asked: Option<Box<StoreAnswers>>, most: NonZeroU32, (now, till): (Nanos, Nanos)) {
        match self.turns.take(key(), most, &mut asked, now) {
            Ok(turn) => self.running.push((till, turn)),
            Err(NoTurn::Full) => {}
            Err(NoTurn::Unknown) => {
                let mut answers = *asked.unwrap();
                let mut asking = self.turns.ask(&mut answers).unwrap();
                self.waiting.push(Box::pin(async move {
                    answers.last = !asking.answered(&mut answers).await;
                    answers
                }));
            }
        }
    }
}

fn key() -> Key {
    Key::client(7)
}

struct Turning {
    nodes: Vec<TurnsNode>,
    names: Vec<String>,
    store: ModelTurns,
    most: NonZeroU32,
    rng: Rng,
    /// Of a hundred questions how many go wrong.
    faults: u32,
    questions: u64,
    begun: u64,
    /// Requests that run, each for so many milliseconds.
    run: u64,
}

impl Turning {
    fn new(nodes: usize, most: u32, faults: u32, seed: u64) -> Self {
        let names: Vec<_> = (0..nodes).map(|node| format!("n{node}")).collect();
        let nodes = names.iter().map(|name| TurnsNode::new(name.clone(), name, &names)).collect();
        let (store, most) = (ModelTurns::default(), NonZeroU32::new(most).unwrap());
        Turning { nodes, names, store, most, rng: Rng::with_seed(seed), faults, questions: 0, begun: 0, run: 0 }
    }

    fn fate(&mut self) -> Fate {
        if self.rng.u32(0..100) >= self.faults {
            return Fate::Answered;
        }
        [Fate::Lost, Fate::Unheard, Fate::Late][self.rng.usize(0..3)]
    }

    fn running(&self) -> usize {
        self.nodes.iter().map(|node| node.running.len()).sum()
    }

    /// A request comes to a node, and takes so long if it may.
    fn request(&mut self, node: usize, now: Nanos, takes: Nanos) {
        let node = &mut self.nodes[node];
        let before = node.running.len() + node.waiting.len();
        node.judge(None, self.most, (now, now + takes));
        self.begun += (node.running.len() + node.waiting.len() - before) as u64;
    }

    /// A millisecond passes; never do more run than may.
    fn step(&mut self, now: Nanos, takes: Nanos) {
        for at in 0..self.nodes.len() {
            let milli = now / MILLI;
            let node = &mut self.nodes[at];
            node.running.retain(|(till, _)| *till > now);
            if milli.is_multiple_of(100) {
                node.shared.tend(now);
            }
            let questions = match milli.is_multiple_of(10) || !node.waiting.is_empty() {
                true => node.shared.due(100, now),
                false => Vec::new(),
            };
            for question in questions {
                self.questions += 1;
                let (fate, way) = (self.fate(), self.rng.u64(MILLI..=3 * MILLI));
                let there = now + if fate == Fate::Late { 400 * MILLI } else { way };
                let node = &mut self.nodes[at];
                node.underway.push_back((there, question, fate));
                if fate != Fate::Answered {
                    node.back.push_back((now + 250 * MILLI, question.key, None));
                }
            }
            self.deliver(at, now, takes);
        }
        self.run += self.running() as u64;
        assert!(self.running() <= self.most.get() as usize, "{} of {} at {now}", self.running(), self.most);
    }

    fn deliver(&mut self, at: usize, now: Nanos, takes: Nanos) {
        let node = &mut self.nodes[at];
        for (there, question, fate) in std::mem::take(&mut node.underway) {
            if there > now {
                node.underway.push_back((there, question, fate));
                continue;
            }
            let TurnQuestion { key, running, keeps, wants, most, number } = question;
            let (holder, valid) = (node.name.as_str(), Duration::from_nanos(VALID));
            let ask = TurnsAsk { holder, running, keeps, wants, most, number, valid };
            if fate != Fate::Lost {
                let told = self.store.ask(now / 1_000, &ask);
                if fate == Fate::Answered {
                    node.back.push_back((now + 2 * MILLI, key, Some(told)));
                }
            }
        }
        for (there, key, told) in std::mem::take(&mut node.back) {
            match told {
                _ if there > now => node.back.push_back((there, key, told)),
                Some(told) => node.shared.told(key, told, now),
                None => node.shared.unanswered(key),
            }
        }
        for mut waiting in std::mem::take(&mut node.waiting) {
            match (&mut waiting).now_or_never() {
                None => node.waiting.push(waiting),
                // Who waited in vain goes by this node's part, which is no matter here.
                Some(answers) if answers.last => {}
                Some(answers) => node.judge(Some(Box::new(answers)), self.most, (now, now + takes)),
            }
        }
    }

    /// A node vanishes with what runs there; another process takes its place.
    fn kill(&mut self, node: usize, now: Nanos) {
        let place = &self.names[node];
        self.nodes[node] = TurnsNode::new(format!("{place}/{now}"), place, &self.names);
    }
}

#[test]
fn never_do_more_run_than_may_whatever_is_lost_late_or_killed() {
    for (nodes, most, seed) in [(3, 4, 1), (3, 1, 2), (3, 30, 3), (5, 200, 4), (2, 7, 5)] {
        let mut turning = Turning::new(nodes, most, 5, seed);
        let seconds = 60;
        for milli in 0..seconds * 1_000 {
            let now = START + milli * MILLI;
            // From many short ones to few long ones, and back.
            let takes = if milli / 5_000 % 2 == 0 { 20 } else { 4_000 };
            let takes = turning.rng.u64(1..=takes) * MILLI;
            for _ in 0..turning.rng.usize(0..=2) {
                let node = turning.rng.usize(0..nodes);
                turning.request(node, now, takes);
            }
            if turning.rng.u32(0..5_000) == 0 {
                let node = turning.rng.usize(0..nodes);
                turning.kill(node, now);
            }
            turning.step(now, takes);
        }
        // The last has ended after 4 s, and what is idle or was of one that vanished has gone 2.2 s and a question later.
        let end = START + seconds * 1_000 * MILLI;
        (0..8_000).for_each(|milli| turning.step(end + milli * MILLI, 0));
        assert!(turning.nodes.iter().all(|node| node.shared.entries() == 0), "{nodes} {most}: something is left");
        assert_eq!(turning.store.held((end + 8_000 * MILLI) / 1_000), 0, "{nodes} {most}");
    }
}

#[test]
fn nearly_all_turns_are_used_where_there_is_demand() {
    for (nodes, most) in [(3, 4), (3, 30), (10, 100)] {
        let mut turning = Turning::new(nodes, most, 0, 6);
        let millis = 20_000;
        for milli in 0..millis {
            let now = START + milli * MILLI;
            (0..nodes).for_each(|node| turning.request(node, now, 100 * MILLI));
            turning.step(now, 100 * MILLI);
        }
        let used = turning.run as f64 / (millis as f64 * f64::from(most));
        // One that ends is another's after 10 ms until it is told, 3 ms for that, 10 ms in which another node believes
        // that there is none, and 5 ms for its question.
        assert!(used > 100.0 / 128.0, "{nodes} {most}: {used}");
    }
}

#[test]
fn a_bound_that_leaves_plenty_is_asked_about_much_less_than_once_a_request() {
    let mut turning = Turning::new(3, 200, 0, 7);
    for milli in 0..20_000 {
        let now = START + milli * MILLI;
        (0..3).for_each(|node| turning.request(node, now, 5 * MILLI));
        turning.step(now, 5 * MILLI);
    }
    // While something is idle, ten a second for each node.
    assert_eq!(turning.begun, 60_000);
    assert!(turning.questions < 3 * 20 * 10 + 100, "{} questions", turning.questions);
}

#[test]
fn parts_of_a_bound_make_no_more_than_the_bound() {
    for nodes in 1..7 {
        let names: Vec<_> = (0..nodes).map(|node| format!("n{node}")).collect();
        let turns: Vec<_> = names.iter().map(|name| SharedTurns::new(leases(name, &names, Reach::Share))).collect();
        for most in 1..20 {
            let (key, bound) = (Key::client(u128::from(most) << 70), NonZeroU32::new(most).unwrap());
            let mut begun = Vec::new();
            for node in &turns {
                let turns = Arc::new(CallerTurns::Shared(Arc::clone(node)));
                begun.extend(std::iter::from_fn(|| turns.take(key, bound, &mut None, START).ok()));
            }
            let parts = if most < nodes { most } else { most / nodes * nodes };
            assert_eq!(begun.len(), parts as usize, "{most} of {nodes}");
        }
    }
}
