//! Many nodes, and clients of which few ask often and most seldom, amid what goes wrong in a fleet: slow ways, nodes that
//! are cut off or killed, clocks that step. Nobody is given more than docs/fleet.md says, and little less than what one
//! bucket each in one place would have given to the same requests.
//!
//! Each round trip of a node is simulated, with all of its questions, as `Asker` makes them; what a request would wait
//! for is waited for. The form is that of `TOLLGATE_TEST_FLEET`; the long one prints the table of docs/fleet.md.

use std::collections::HashMap;
use std::num::NonZeroU32;

use super::*;
use crate::limit::{Bucket, Decision, Tokens};

/// How long a request waits.
const TIMEOUT: Nanos = 25 * MILLI;
/// After how long a node knows that it is cut off, and how long after its return the store is believed again.
const NOTICED: Nanos = 250 * MILLI;
const SETTLING: Nanos = 500 * MILLI;
/// How often is asked what nobody waits for, in milliseconds; the most questions of a round trip, and round trips at once.
const PACE: u64 = 10;
const MOST: usize = 1_000;
const UNDERWAY: usize = 2;
/// The longest way to the store or back; and that of one in a hundred where ways are slow.
const WAY: Nanos = 3 * MILLI;
const SLOW: Nanos = 300 * MILLI;
/// How the store's clock steps, so many milliseconds after the beginning: little is waited for, more is another time, and
/// by how much it may step forward says the tenth that it holds leases longer than nodes.
const STEPS: [(u64, i64); 3] = [(1_000, -300), (2_000, 150), (3_000, -10_000)];

/// What goes wrong.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum Trouble {
    Nothing,
    /// One way in a hundred is slow.
    Slow,
    /// So many nodes are cut off in the second second and the third.
    CutOff(usize),
    /// A node is killed twice a second, and another begins.
    Kills,
    /// The store's clock steps.
    Clock,
}

#[derive(Clone, Copy)]
struct Terms {
    nodes: usize,
    clients: u64,
    /// Requests a millisecond.
    requests: usize,
    seconds: u64,
}

/// A round trip.
struct Trip {
    sent: Nanos,
    questions: Vec<BucketQuestion>,
    /// When it is at the store, and when there are `answers` at its node; never where it is lost.
    there: Nanos,
    answers: Option<Vec<Option<Answered>>>,
    /// Whether nobody waits for it any more.
    given_up: bool,
}

struct Node {
    holder: String,
    limiter: SharedLimiter,
    leases: Arc<Leases>,
    trips: Vec<Trip>,
    /// Requests that wait, since when and for whom.
    waits: Vec<(Nanos, Charge, Wait)>,
    is_cut_off: bool,
    /// Whether it knows that.
    is_away: bool,
}

/// The least bucket that would have let all in that was.
struct LeastBucket {
    /// How many times the quota it earns, and how much is in it for a moment.
    times: f64,
    level: f64,
    at: Nanos,
    /// The most that it had to hold.
    most: f64,
}

/// A client, its bucket in the store, and what became of it.
struct Simulated {
    charge: Charge,
    store: ModelBucket,
    /// One that is in one place.
    exact: Bucket,
    /// By its quota, and by what the contract allows.
    least: [LeastBucket; 2],
}

#[derive(Default)]
struct Counts {
    requests: u64,
    admitted: u64,
    /// As many as one bucket each would have let in.
    exact: u64,
    trips: u64,
    questions: u64,
    /// Requests that waited in vain.
    vain: u64,
    /// Requests that killed nodes held tokens for, or that waited there.
    lost: u64,
}

struct Fleet {
    names: Vec<String>,
    parts: Vec<FleetPart>,
    nodes: Vec<Node>,
    clients: HashMap<Key, Simulated>,
    trouble: Trouble,
    /// Who asks where is the same whatever goes wrong.
    asks: Rng,
    ways: Rng,
    counts: Counts,
}

/// By its number: those of the table in docs/fleet.md.
fn charge_of(client: u64) -> Charge {
    let quotas = [(1_000_000, 100_000.0, 500), (100, 50.0, 1), (1, 1.0, 1), (5, 0.2, 1)];
    let (capacity, rate, cost) = quotas[(client % 4) as usize];
    // As good as random, as they are.
    let bits = u128::from(client).wrapping_mul(0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c835);
    Charge { key: Key::client(bits), quota: quota(capacity, rate), cost: NonZeroU32::new(cost).unwrap() }
}

/// The clocks of nodes are hours apart.
fn clock_of(node: usize, now: Nanos) -> Nanos {
    now + node as u64 * 3_600 * SECOND
}

impl LeastBucket {
    fn new(times: f64, now: Nanos) -> Self {
        LeastBucket { times, level: 0.0, at: now, most: 0.0 }
    }

    fn add(&mut self, charge: &Charge, now: Nanos) {
        let earned = self.times * charge.quota.rate().to_f64() * (now - self.at) as f64 / 1e9;
        self.level = (self.level - earned).max(0.0) + f64::from(charge.cost.get());
        self.at = now;
        self.most = self.most.max(self.level);
    }

    /// How much more that is than the quota, in parts of it.
    fn over(&self, quota: Quota, trouble: Trouble) -> f64 {
        // What is given is spent a way later, and everything is done once a millisecond.
        let steps = if trouble == Trouble::Clock { STEPS[1].1.unsigned_abs() * MILLI } else { 0 };
        let late = quota.rate().to_f64() * (WAY + 2 * MILLI + steps) as f64 / 1e9;
        let may = self.times * (f64::from(quota.capacity().get()) + late);
        (self.most - may) / f64::from(quota.capacity().get())
    }
}

impl Fleet {
    fn new(terms: Terms, trouble: Trouble) -> Self {
        let names: Vec<_> = (0..terms.nodes).map(|node| format!("n{node}")).collect();
        let parts = names.iter().map(|own| FleetPart::new(own, names.iter().map(String::as_str))).collect();
        let (clients, counts) = (HashMap::new(), Counts::default());
        let (asks, ways) = (Rng::with_seed(7), Rng::with_seed(8));
        let mut fleet = Fleet { names, parts, nodes: Vec::new(), clients, trouble, asks, ways, counts };
        fleet.nodes = (0..terms.nodes).map(|at| fleet.node(at, START)).collect();
        fleet
    }

    fn node(&self, at: usize, now: Nanos) -> Node {
        let (limiter, leases) = limiter(&self.names[at], &self.names, clock_of(at, now));
        let holder = format!("{}/{now}", self.names[at]);
        Node { holder, limiter, leases, trips: Vec::new(), waits: Vec::new(), is_cut_off: false, is_away: false }
    }

    /// How many times its quota a client may be given.
    fn times(&self, charge: &Charge) -> f64 {
        let cut_off = match self.trouble {
            Trouble::CutOff(count) => count,
            // Whose request waited in vain may be any.
            Trouble::Slow => self.nodes.len(),
            _ => 0,
        };
        let is_owner = |part: &FleetPart| part.is_owner(charge.key.bits());
        match charge.quota.capacity().get() as usize >= self.nodes.len() {
            true => 1.0 + cut_off as f64 / self.nodes.len() as f64,
            false if self.parts[..cut_off].iter().any(is_owner) => 2.0,
            false => 1.0,
        }
    }

    fn way(&mut self) -> Nanos {
        let is_slow = self.trouble == Trouble::Slow && self.ways.u8(..100) == 0;
        if is_slow { SLOW } else { self.ways.u64(MILLI / 5..WAY) }
    }

    /// A request on some node: each decade of clients asks as often as any other (Zipf).
    fn request(&mut self, clients: u64, now: Nanos) {
        let client = ((clients as f64).powf(self.asks.f64()) as u64).min(clients);
        let (at, charge) = (self.asks.usize(..self.nodes.len()), charge_of(client));
        let times = if self.clients.contains_key(&charge.key) { 1.0 } else { self.times(&charge) };
        let of = self.clients.entry(charge.key).or_insert_with(|| {
            let least = [1.0, times].map(|times| LeastBucket::new(times, now));
            let exact = Bucket::full(charge.quota, now);
            Simulated { charge, store: ModelBucket::default(), exact, least }
        });
        self.counts.requests += 1;
        if of.exact.held(charge.quota, now) >= Tokens::whole(charge.cost.get()) {
            of.exact = of.exact.debited(charge.cost.get(), charge.quota, now);
            self.counts.exact += 1;
        }
        let decision = self.nodes[at].limiter.take(&charge, clock_of(at, now));
        self.settle(at, charge, decision, (now, StoreAnswers::default()), now);
    }

    /// Counts a request that is let in, and has one wait that is not decided.
    fn settle(&mut self, at: usize, charge: Charge, decision: Decision, asked: (Nanos, StoreAnswers), now: Nanos) {
        if decision.is_allowed() {
            self.counts.admitted += 1;
            if let Some(of) = self.clients.get_mut(&charge.key) {
                of.least.iter_mut().for_each(|least| least.add(&charge, now));
            }
        } else if decision.is_undecided()
            && let Some(asking) = self.nodes[at].limiter.ask(&[charge], clock_of(at, now))
        {
            self.nodes[at].waits.push((asked.0, charge, wait(asking, asked.1)));
        }
    }

    /// What waits is judged again where it was answered, or has waited long enough.
    fn judge(&mut self, at: usize, now: Nanos) {
        for (since, charge, mut waiting) in std::mem::take(&mut self.nodes[at].waits) {
            let mut answers = match (&mut waiting).now_or_never() {
                Some(answers) => answers,
                None if now < since + TIMEOUT => {
                    self.nodes[at].waits.push((since, charge, waiting));
                    continue;
                }
                None => wait_in_vain(),
            };
            drop(waiting);
            self.counts.vain += u64::from(answers.last);
            let decision = self.nodes[at].limiter.judge(&[Claim::from(charge)], &mut answers, clock_of(at, now))[0];
            self.settle(at, charge, decision, (since, answers), now);
        }
    }

    /// One millisecond of a node and of its ways.
    fn step(&mut self, at: usize, store: Nanos, now: Nanos) {
        let (own, tick) = (clock_of(at, now), now / MILLI + at as u64);
        let node = &self.nodes[at];
        if tick.is_multiple_of(100) {
            node.leases.tend(own);
        }
        let has_room = node.trips.iter().filter(|trip| !trip.given_up).count() < UNDERWAY;
        if has_room && !node.is_away && (!node.waits.is_empty() || tick.is_multiple_of(PACE)) {
            let questions = node.limiter.due(MOST, own);
            if !questions.is_empty() {
                self.counts.trips += 1;
                self.counts.questions += questions.len() as u64;
                let there = now + self.way();
                self.nodes[at].trips.push(Trip { sent: now, questions, there, answers: None, given_up: false });
            }
        }
        for trip in std::mem::take(&mut self.nodes[at].trips) {
            let back = self.way();
            if let Some(trip) = self.pass(at, trip, back, (store, now)) {
                self.nodes[at].trips.push(trip);
            }
        }
        self.judge(at, now);
    }

    /// One millisecond of a round trip, unless it ends.
    fn pass(&mut self, at: usize, mut trip: Trip, back: Nanos, (store, now): (Nanos, Nanos)) -> Option<Trip> {
        let (node, clients) = (&mut self.nodes[at], &mut self.clients);
        if trip.there <= now && node.is_cut_off {
            trip.there = Nanos::MAX;
        } else if trip.there <= now {
            if let Some(answers) = trip.answers {
                for (question, answered) in trip.questions.iter().zip(answers) {
                    match answered {
                        Some(answered) => node.limiter.told(question.key, &answered, clock_of(at, now)),
                        None => node.limiter.unanswered(question.key),
                    }
                }
                return None;
            }
            let mut answer = |question: &BucketQuestion| {
                carried_out(&mut clients.get_mut(&question.key)?.store, &node.holder, question, store)
            };
            trip.answers = Some(trip.questions.iter().map(&mut answer).collect());
            trip.there = now + back;
        }
        if trip.sent + ANSWER <= now && !trip.given_up {
            trip.questions.iter().for_each(|question| node.limiter.unanswered(question.key));
            trip.given_up = true;
        }
        // It may be carried out yet.
        let is_over = trip.given_up && (trip.answers.is_some() || trip.there == Nanos::MAX);
        (!is_over).then_some(trip)
    }

    /// What goes wrong so long after the beginning.
    fn go_wrong(&mut self, passed: Nanos) {
        match self.trouble {
            Trouble::CutOff(count) => {
                for node in &mut self.nodes[..count] {
                    match passed {
                        at if at == SECOND => node.is_cut_off = true,
                        at if at == SECOND + NOTICED => {
                            node.is_away = true;
                            node.leases.set_reach(Reach::Share);
                        }
                        at if at == 3 * SECOND => (node.is_cut_off, node.is_away) = (false, false),
                        at if at == 3 * SECOND + SETTLING => node.leases.set_reach(Reach::Joined),
                        _ => {}
                    }
                }
            }
            Trouble::Kills if passed > 0 && passed.is_multiple_of(SECOND / 2) => {
                let at = self.ways.usize(..self.nodes.len());
                let fresh = self.node(at, START + passed);
                let killed = std::mem::replace(&mut self.nodes[at], fresh);
                let own = clock_of(at, START + passed);
                self.counts.lost += killed.waits.len() as u64;
                for of in self.clients.values() {
                    while killed.limiter.take(&of.charge, own).is_allowed() {
                        self.counts.lost += 1;
                    }
                }
            }
            _ => {}
        }
    }

    fn run(&mut self, terms: Terms) {
        for milli in 0..terms.seconds * 1_000 {
            let now = START + milli * MILLI;
            self.go_wrong(milli * MILLI);
            (0..terms.requests).for_each(|_| self.request(terms.clients, now));
            let steps = STEPS.iter().filter(|(at, _)| self.trouble == Trouble::Clock && milli >= *at);
            let store = now.saturating_add_signed(steps.map(|(_, millis)| millis * MILLI as i64).sum());
            (0..self.nodes.len()).for_each(|at| self.step(at, store, now));
        }
    }
}

fn wait_in_vain() -> StoreAnswers {
    let mut answers = StoreAnswers::default();
    answers.last = true;
    answers
}

/// Runs it with whatever may go wrong, and prints a line of the table for each.
fn run(terms: Terms) {
    let Terms { nodes, clients, requests, seconds } = terms;
    println!("{nodes} nodes, {clients} clients, {requests},000 requests a second for {seconds} s");
    let cut_off = [nodes / 10, nodes / 2, nodes].map(Trouble::CutOff);
    let mut undisturbed = None;
    for trouble in [&[Trouble::Nothing, Trouble::Slow][..], &cut_off, &[Trouble::Kills, Trouble::Clock]].concat() {
        let mut fleet = Fleet::new(terms, trouble);
        fleet.run(terms);
        let over = |of: usize| {
            let each = fleet.clients.values().map(|client| client.least[of].over(client.charge.quota, trouble));
            each.fold(0.0, f64::max)
        };
        let Counts { requests, admitted, exact, trips, questions, vain, lost } = fleet.counts;
        let part = |count: u64, of: u64| count as f64 / of as f64;
        println!(
            "| {trouble:?} | {:.4} | {:.2} | {:.3} | {:.3} | {vain} | {lost} |",
            part(admitted, exact),
            over(0),
            part(trips, requests),
            part(questions, requests),
        );
        assert!(over(1) <= 1e-6, "{trouble:?}: somebody got {} of the capacity more than may be", over(1));
        let undisturbed = *undisturbed.get_or_insert(admitted);
        match trouble {
            Trouble::Nothing => assert!(part(admitted, exact) >= 0.98, "only {admitted} of {exact}"),
            Trouble::Kills => assert!(admitted + lost >= undisturbed, "{admitted} of {undisturbed}, {lost} lost"),
            _ => {}
        }
    }
}

#[test]
fn nobody_among_many_gets_more_than_the_contract_says() {
    match std::env::var("TOLLGATE_TEST_FLEET") {
        Ok(form) if form == "long" => run(Terms { nodes: 100, clients: 1_000_000, requests: 100, seconds: 6 }),
        _ => run(Terms { nodes: 10, clients: 10_000, requests: 5, seconds: 4 }),
    }
}
