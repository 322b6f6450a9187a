//! Nodes with real limiters over one bucket of the model, in time that is made up: nothing is over the quota, and
//! nearly nothing is lost, though the store stands still now and then, and questions and answers are lost.

use std::collections::VecDeque;
use std::num::NonZeroUsize;
use std::pin::Pin;
use std::sync::Arc;
use std::time::Duration;

use fastrand::Rng;
use futures_util::FutureExt;

use super::bucket::model::ModelBucket;
use super::bucket::{BucketAnswer, BucketAsk};
use crate::client::Quota;
use crate::limit::shared::leases::{LeaseSettings, Leases};
use crate::limit::shared::{Answered, BucketQuestion, FleetPart, SharedLimiter};
use crate::limit::{Charge, Claim, Key, Limiter, Nanos, PendingAnswers, Reach, StoreAnswers, Striped, StripedSettings};

mod scale;

const MILLI: Nanos = 1_000_000;
const SECOND: Nanos = 1_000_000_000;
/// How long an answer is waited for.
const ANSWER: Nanos = 250 * MILLI;
/// Where time begins.
const START: Nanos = 1_000 * SECOND;

/// A request that waits, and what it knows then.
type Wait = Pin<Box<dyn Future<Output = StoreAnswers>>>;

/// A node of the simulation.
struct SimulatedNode {
    name: String,
    limiter: SharedLimiter,
    leases: Arc<Leases>,
    /// What is on its way to the store and back, and when it is there.
    underway: VecDeque<(Nanos, BucketQuestion)>,
    back: VecDeque<(Nanos, u64, Answered)>,
    /// Questions whose answers are waited for: since when, about what, and their numbers.
    asked: Vec<(Nanos, Key, u64)>,
    waiting: Vec<Wait>,
}

/// What a run came to.
#[derive(Debug, Default)]
struct Run {
    admitted: Vec<Nanos>,
    questions: u64,
    requests: u64,
}

struct Simulation {
    nodes: Vec<SimulatedNode>,
    bucket: ModelBucket,
    quota: Quota,
    latency: Nanos,
    /// How often the store stands still, and for how long.
    stalls: Option<(Nanos, Nanos)>,
    /// How likely a question or an answer is lost.
    loss: f64,
    rng: Rng,
    run: Run,
}

fn wait(mut asking: PendingAnswers, mut answers: StoreAnswers) -> Wait {
    Box::pin(async move {
        answers.last = !asking.answered(&mut answers).await;
        answers
    })
}

/// What a node of this name decides by, which has the others' word that these are all nodes.
fn limiter(name: &str, names: &[String], now: Nanos) -> (SharedLimiter, Arc<Leases>) {
    let quota = Quota::new(1, 1.0).unwrap();
    let settings =
        StripedSettings { max_buckets: NonZeroUsize::MIN, stripes: NonZeroUsize::new(1), default_quota: quota };
    let lease =
        LeaseSettings { lease: Duration::from_millis(100), timeout: Duration::from_millis(25), max_asks: 1_024 };
    let part = FleetPart::new(name, names.iter().map(String::as_str));
    let leases = Leases::new(lease, part, Reach::Joined);
    (SharedLimiter::new(Striped::new(settings, now), Arc::clone(&leases)), leases)
}

/// What the store says to a question of `holder`, unless that came late.
fn carried_out(bucket: &mut ModelBucket, holder: &str, question: &BucketQuestion, now: Nanos) -> Option<Answered> {
    let BucketQuestion { quota, left, want, ahead, divisor, debit, back, valid, number, known, .. } = *question;
    let ask = BucketAsk { quota, holder, left, want, ahead, divisor, debit, back, valid, number, known };
    let BucketAnswer { granted, ahead, tokens, age_us, is_late, .. } = bucket.ask(now / 1_000, &ask);
    (!is_late).then_some(Answered { granted, ahead, tokens, age: age_us * 1_000 })
}

impl Simulation {
    fn new(nodes: usize, quota: Quota, latency: Nanos, seed: u64) -> Self {
        let names: Vec<_> = (0..nodes).map(|node| format!("n{node}")).collect();
        let node = |name: &String| {
            let (limiter, leases) = limiter(name, &names, START);
            let (underway, back, asked, waiting) = (VecDeque::new(), VecDeque::new(), Vec::new(), Vec::new());
            SimulatedNode { name: name.clone(), limiter, leases, underway, back, asked, waiting }
        };
        let nodes = names.iter().map(node).collect();
        let (bucket, rng, run) = (ModelBucket::default(), Rng::with_seed(seed), Run::default());
        Simulation { nodes, bucket, quota, latency, stalls: None, loss: 0.0, rng, run }
    }

    fn charge(&self) -> Charge {
        Charge::one(Key::client(7), self.quota)
    }

    /// A request comes to a node.
    fn request(&mut self, node: usize, now: Nanos) {
        self.run.requests += 1;
        let (charge, node) = (self.charge(), &mut self.nodes[node]);
        let decision = node.limiter.take(&charge, now);
        if decision.is_allowed() {
            self.run.admitted.push(now);
        } else if decision.is_undecided() {
            let asking = node.limiter.ask(&[charge], now).unwrap();
            node.waiting.push(wait(asking, StoreAnswers::default()));
        }
    }

    /// What waits is judged again where it was answered.
    fn judge(&mut self, node: usize, now: Nanos) {
        let charge = self.charge();
        let node = &mut self.nodes[node];
        for mut waiting in std::mem::take(&mut node.waiting) {
            let Some(mut answers) = (&mut waiting).now_or_never() else {
                node.waiting.push(waiting);
                continue;
            };
            let decision = node.limiter.judge(&[Claim::from(charge)], &mut answers, now)[0];
            if decision.is_allowed() {
                self.run.admitted.push(now);
            } else if decision.is_undecided() {
                let asking = node.limiter.ask(&[charge], now).unwrap();
                node.waiting.push(wait(asking, answers));
            }
        }
    }

    /// One millisecond passes for the store and the ways to it.
    fn step(&mut self, now: Nanos) {
        let stands = self.stalls.is_some_and(|(every, long)| (now - START) % every >= every - long);
        for at in 0..self.nodes.len() {
            let way = self.latency / 2 + self.rng.u64(0..=self.latency / 2);
            let node = &mut self.nodes[at];
            if (now / MILLI).is_multiple_of(100) {
                node.leases.tend(now);
            }
            for question in node.limiter.due(100, now) {
                self.run.questions += 1;
                node.asked.push((now, question.key, question.number));
                if self.rng.f64() >= self.loss {
                    node.underway.push_back((now + way, question));
                }
            }
            while !stands && node.underway.front().is_some_and(|(there, _)| *there <= now) {
                let Some((_, question)) = node.underway.pop_front() else { break };
                let answered = carried_out(&mut self.bucket, &node.name, &question, now);
                if let Some(answered) = answered.filter(|_| self.rng.f64() >= self.loss) {
                    node.back.push_back((now + way, question.number, answered));
                }
            }
            let mut heard = false;
            while node.back.front().is_some_and(|(there, ..)| *there <= now) {
                let Some((_, number, answered)) = node.back.pop_front() else { break };
                // Nobody waits for one that comes late.
                let Some(at) = node.asked.iter().position(|(.., asked)| *asked == number) else { continue };
                node.limiter.told(node.asked.swap_remove(at).1, &answered, now);
                heard = true;
            }
            while let Some(at) = node.asked.iter().position(|(since, ..)| since + ANSWER <= now) {
                node.limiter.unanswered(node.asked.swap_remove(at).1);
                heard = true;
            }
            if heard {
                self.judge(at, now);
            }
        }
    }

    /// Every node is asked as often as can be for so long.
    fn flat_out(&mut self, seconds: u64, per_milli: usize) {
        self.flat_out_from(START, seconds, per_milli);
    }

    fn flat_out_from(&mut self, start: Nanos, seconds: u64, per_milli: usize) {
        for milli in 0..seconds * 1_000 {
            let now = start + milli * MILLI;
            for node in 0..self.nodes.len() {
                for _ in 0..per_milli {
                    // While its question is under way a caller waits, and so do as many as have a connection.
                    if self.nodes[node].waiting.len() < 4 {
                        self.request(node, now);
                    }
                }
            }
            self.step(now);
        }
    }
}

fn quota(capacity: u64, rate: f64) -> Quota {
    Quota::new(capacity, rate).unwrap()
}

/// The most that was over `C + ρ·t` in any window, in tokens; negative where nothing was.
fn over(run: &Run, quota: Quota) -> f64 {
    let (capacity, rate) = (f64::from(quota.capacity().get()), quota.rate().to_f64());
    let (mut level, mut last, mut over) = (0.0_f64, START, f64::MIN);
    for at in &run.admitted {
        // The least bucket that would have let all in: what is taken, drained at the rate.
        level = (level - rate * (at - last) as f64 / 1e9).max(0.0) + 1.0;
        last = *at;
        over = over.max(level - capacity);
    }
    over
}

#[test]
fn nodes_that_are_asked_flat_out_give_what_one_bucket_would_and_no_more() {
    for (nodes, capacity, rate) in [(3, 100, 50.0), (10, 100, 50.0), (3, 1, 1.0), (10, 5, 0.2), (3, 20_000, 2_000.0)] {
        let quota = quota(capacity, rate);
        let mut simulation = Simulation::new(nodes, quota, 2 * MILLI, 7);
        simulation.flat_out(60, 4);
        let run = &simulation.run;
        let (admitted, may) = (run.admitted.len() as f64, capacity as f64 + rate * 60.0);
        // A token that is given is spent a way later.
        assert!(over(run, quota) <= rate * 0.005 + 1e-6, "{nodes} {capacity}/{rate}: {} over", over(run, quota));
        assert!(admitted <= may, "{nodes} {capacity}/{rate}: {admitted} of {may}");
        assert!(admitted >= (may * 0.98).floor() - 1.0, "{nodes} {capacity}/{rate}: {admitted} of {may}");
        let share = run.questions as f64 / run.requests as f64;
        assert!(share < 0.25, "{nodes} {capacity}/{rate}: {} questions for {}", run.questions, run.requests);
    }
}

#[test]
fn nothing_is_lost_with_answers_and_with_a_store_that_stands_still() {
    for (nodes, capacity, rate) in [(3, 100, 50.0), (3, 1, 1.0), (10, 5, 0.2), (3, 20_000, 2_000.0)] {
        let quota = quota(capacity, rate);
        let mut simulation = Simulation::new(nodes, quota, 2 * MILLI, 7);
        (simulation.stalls, simulation.loss) = (Some((2 * SECOND, 300 * MILLI)), 0.01);
        simulation.flat_out(60, 4);
        // What was given to who waited in vain is told, and what is held is given back.
        (simulation.stalls, simulation.loss) = (None, 0.0);
        let ends = START + 63 * SECOND;
        for at in (START + 60 * SECOND..ends).step_by(MILLI as usize) {
            simulation.step(at);
        }
        let (holder, valid) = ("end", Duration::from_secs(1));
        let (left, want, ahead, divisor, debit, back, number, known) = (0, 0, 0, 1, 0, 0, 0, 0);
        let end = BucketAsk { quota, holder, left, want, ahead, divisor, debit, back, valid, number, known };
        let end = simulation.bucket.ask(ends / 1_000, &end);
        let (admitted, may) = (simulation.run.admitted.len() as f64, capacity as f64 + rate * 60.0);
        let whole = admitted + end.tokens as f64 + f64::from(end.others);
        println!("{nodes} {capacity}/{rate}: {admitted} of {may}, {} over", over(&simulation.run, quota));
        assert!(whole <= may + rate * 3.0 + 1e-6, "{nodes} {capacity}/{rate}: {whole} of {may}");
        assert!(admitted >= (may * 0.98).floor() - 1.0, "{nodes} {capacity}/{rate}: {admitted} of {may}");
    }
}

#[test]
fn a_bucket_that_is_filled_once_all_have_told_what_they_spent_is_full_to_the_token() {
    for (nodes, capacity, spent) in [(3, 100, 30), (3, 100, 90), (10, 1_000, 300), (3, 20_000, 1_000), (2, 3, 1)] {
        for seed in 0..8 {
            // So slow that nothing is earned.
            let quota = quota(capacity, 0.000_001);
            let mut simulation = Simulation::new(nodes, quota, 2 * MILLI, seed);
            let mut now = START;
            let mut pass = |simulation: &mut Simulation, asked: bool| {
                if asked {
                    let node = simulation.rng.usize(0..nodes);
                    simulation.request(node, now);
                }
                now += MILLI;
                simulation.step(now);
                now
            };
            while simulation.run.admitted.len() < spent {
                pass(&mut simulation, true);
            }
            let (bits, begun) = (simulation.charge().key.bits(), pass(&mut simulation, true));
            let leases: Vec<_> = simulation.nodes.iter().map(|node| Arc::clone(&node.leases)).collect();
            let mut telling: Vec<_> = leases.iter().map(|leases| Box::pin(leases.tell(bits, begun))).collect();
            while !telling.is_empty() {
                telling.retain_mut(|telling| telling.as_mut().now_or_never().is_none());
                assert!(pass(&mut simulation, true) < begun + ANSWER, "{nodes} {capacity} {seed}");
            }
            // Requests go on until it is filled, but for those that would have been given something before that and count after it.
            let filled = (0..40).map(|at| pass(&mut simulation, at < 30)).last().unwrap();
            simulation.bucket.reset(filled / 1_000, quota);
            simulation.run.admitted.clear();
            simulation.flat_out_from(filled, 3, 4);
            let admitted = simulation.run.admitted.len() as u64;
            assert_eq!(admitted, capacity, "{nodes} nodes, {spent} spent, seed {seed}");
        }
    }
}
