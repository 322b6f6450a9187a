//! Fleets: nodes of the real binary, each with a database of its own, over a real store; and callers that ask all of
//! them as fast as they can.

use std::net::SocketAddr;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::{Arc, Barrier};
use std::thread::JoinHandle;
use std::time::{Duration, Instant};

use serde_json::Value;

use super::backend::Backend;
use super::client::{Client, Request};
use super::instance::Instance;
use super::store::{Engine, StoreServer};
use super::{PATIENCE, eventually, now};

/// How long a change may take to reach every node.
pub(crate) const EVERYWHERE: Duration = Duration::from_secs(1);

/// Whether the long forms are asked for, as `make test-fleet` does.
pub(crate) fn is_long() -> bool {
    std::env::var("TOLLGATE_TEST_FLEET").is_ok_and(|form| form == "long")
}

/// How long callers ask flat out: `short`, or a minute in the long forms.
pub(crate) fn window(short: Duration) -> Duration {
    if is_long() { Duration::from_secs(60) } else { short }
}

/// A bucket that one caller drains.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Budget {
    /// The caller.
    pub(crate) name: &'static str,
    pub(crate) capacity: u64,
    pub(crate) rate: f64,
    /// Tokens that one request costs.
    pub(crate) cost: u64,
}

/// The quotas that a fleet is held to. No test spends 100,000 a second one by one: of the last, a request costs many.
pub(crate) const BUDGETS: [Budget; 4] = [
    Budget { name: "middle", capacity: 100, rate: 50.0, cost: 1 },
    Budget { name: "single", capacity: 1, rate: 1.0, cost: 1 },
    Budget { name: "slow", capacity: 5, rate: 0.2, cost: 1 },
    Budget { name: "large", capacity: 1_000_000, rate: 100_000.0, cost: 500 },
];

/// What makes the last of [`BUDGETS`] cost that; of the file of each node.
pub(crate) const COSTS: &str = "rate_limit: {policies: [{name: large, match: {paths: [/large]}, key: client, \
     capacity: 1000000, rate_per_sec: 100000, cost: 500}]}";

impl Budget {
    /// What it may have given meanwhile, in requests.
    pub(crate) fn of(&self, tally: &Tally) -> f64 {
        tally.budget(self.capacity as f64, self.rate) / self.cost as f64
    }

    /// The same as a line of the table in `docs/fleet.md`, for the long forms.
    pub(crate) fn tell(&self, what: &str, engine: Engine, nodes: usize, tally: &Tally) {
        let Budget { capacity, rate, cost, .. } = self;
        let (budget, allowed, asked) = (self.of(tally), tally.allowed, tally.allowed + tally.limited);
        let of = if *cost > 1 { format!(", {cost} a request") } else { String::new() };
        let (part, slowest) = (allowed as f64 / budget, tally.slowest.as_millis());
        eprintln!(
            "| {what} | {engine:?} | {nodes} | {capacity}/{rate}{of} | {asked} | {allowed} | {part:.4} | {slowest} ms |"
        );
    }
}

/// Callers that drain budgets.
#[derive(Debug)]
pub(crate) struct Drain(Vec<(Budget, FlatOut)>);

impl Drain {
    /// Begins to ask each of `nodes` for all of [`BUDGETS`].
    pub(crate) fn all(nodes: &[SocketAddr]) -> Self {
        Self::of(&BUDGETS, nodes)
    }

    /// The same for the first only but in the long forms: several servers and whatever else runs need some of the
    /// machine, too.
    pub(crate) fn some(nodes: &[SocketAddr]) -> Self {
        Self::of(&BUDGETS[..if is_long() { BUDGETS.len() } else { 1 }], nodes)
    }

    fn of(budgets: &[Budget], nodes: &[SocketAddr]) -> Self {
        Drain(budgets.iter().map(|budget| (*budget, FlatOut::start(nodes, 1, budget.name))).collect())
    }

    /// Ends it: what came of each.
    #[track_caller]
    pub(crate) fn stop(self) -> Vec<(Budget, Tally)> {
        self.0.into_iter().map(|(budget, load)| (budget, load.stop())).collect()
    }
}

/// Asserts that the fleet gave what one bucket each gives: no more but what is `owed`, which requests got that waited in
/// vain; and, but for what was `lost`, all of it but 2 %, or but a token, or as much as was asked for.
#[track_caller]
pub(crate) fn assert_exact(
    (what, engine, nodes): (&str, Engine, usize),
    drained: &[(Budget, Tally)],
    (owed, lost): (impl Fn(&Budget) -> f64, impl Fn(&Budget) -> f64),
) {
    drained.iter().for_each(|(budget, tally)| budget.tell(what, engine, nodes, tally));
    for (budget, tally) in drained {
        let (name, of, allowed) = (budget.name, budget.of(tally), tally.allowed as f64);
        assert!(tally.failed.is_empty() && tally.unavailable == 0, "{engine:?} {name}: {tally:?}");
        assert!(allowed <= of + owed(budget), "{engine:?} {name}: {allowed} of {of}: {tally:?}");
        let least = (of * 0.98).min(of.floor() - 1.0) - lost(budget);
        assert!(allowed >= least || tally.limited == 0, "{engine:?} {name}: only {allowed} of {of}: {tally:?}");
    }
}

/// Some nodes with one store, before one backend.
#[derive(Debug)]
pub(crate) struct Fleet {
    pub(crate) store: StoreServer,
    pub(crate) nodes: Vec<Instance>,
    /// Where the store is.
    url: String,
    pub(crate) backend: Backend,
    /// The keys of every node's `fleet`, beside its store and name.
    keys: String,
    /// Further lines of every node's file.
    more: String,
}

impl Fleet {
    /// So many nodes over a store of this kind. `keys` are of the section `fleet`, as in `timeout: 5ms`; `more` are
    /// further lines of the file.
    #[track_caller]
    pub(crate) fn start(engine: Engine, nodes: usize, keys: &str, more: &str) -> Self {
        Self::over(StoreServer::start(engine), nodes, keys, more)
    }

    /// The same over this store.
    #[track_caller]
    pub(crate) fn over(store: StoreServer, nodes: usize, keys: &str, more: &str) -> Self {
        let url = store.url();
        Self::at(store, url, nodes, keys, more)
    }

    /// The same with another address for it.
    #[track_caller]
    pub(crate) fn at(store: StoreServer, url: String, nodes: usize, keys: &str, more: &str) -> Self {
        let (keys, more) = (keys.to_owned(), more.to_owned());
        let mut fleet = Fleet { store, nodes: Vec::new(), url, backend: Backend::scripted("a"), keys, more };
        (0..nodes).for_each(|_| fleet.join());
        fleet.wait_until("joined");
        fleet.wait_for_nodes(nodes);
        fleet
    }

    /// Starts one more node.
    #[track_caller]
    pub(crate) fn join(&mut self) {
        let name = format!("node-{}", self.nodes.len());
        self.nodes.push(Instance::start(self.backend.address, &self.lines(&name)));
    }

    /// The lines that make a node of this name a node of this fleet.
    pub(crate) fn lines(&self, name: &str) -> String {
        let (url, keys) = (&self.url, &self.keys);
        let comma = if keys.is_empty() { "" } else { ", " };
        format!("fleet: {{store: \"{url}\", node: {name}{comma}{keys}}}\n{}", self.more)
    }

    /// Where all nodes listen.
    pub(crate) fn addresses(&self) -> Vec<SocketAddr> {
        self.nodes.iter().map(|node| node.address).collect()
    }

    /// Waits until every node says that it stands like this to its fleet.
    #[track_caller]
    pub(crate) fn wait_until(&self, state: &str) {
        for node in &self.nodes {
            let there = eventually(PATIENCE, || standing(node)["state"] == state);
            assert!(there, "not {state}: {}\n{}", standing(node), node.process.err.text());
        }
    }

    /// Waits until every node sees so many.
    #[track_caller]
    pub(crate) fn wait_for_nodes(&self, count: usize) {
        for node in &self.nodes {
            let seen = || standing(node)["nodes"].as_array().map_or(0, Vec::len);
            assert!(eventually(PATIENCE, || seen() == count), "{}", standing(node));
        }
    }

    /// Makes the callers of [`BUDGETS`].
    #[track_caller]
    pub(crate) fn create_budgets(&self) {
        for Budget { name, capacity, rate, cost } in BUDGETS {
            let (capacity, rate) = if cost > 1 { (1_000_000_000, 1e9) } else { (capacity, rate) };
            self.create(name, capacity, rate);
        }
    }

    /// Makes a client on the first node, and waits until all nodes have it.
    #[track_caller]
    pub(crate) fn create(&self, id: &str, capacity: u64, rate: f64) {
        self.nodes[0].create(id, capacity, rate);
        self.wait_for_client(id, |client| client["capacity"] == capacity);
    }

    /// Waits until a client is on every node as `right` says: what tests begin with. That it is there within
    /// [`EVERYWHERE`] is for those that are about it, as a busy machine writes slowly to its disk.
    #[track_caller]
    pub(crate) fn wait_for_client(&self, id: &str, right: impl Fn(&Value) -> bool) {
        let target = format!("/clients/{id}");
        for node in &self.nodes {
            let there = eventually(PATIENCE, || {
                let answer = node.admin("GET", &target, "");
                answer.status == 200 && right(&answer.json())
            });
            assert!(there, "not on every node: {}", node.admin("GET", &target, "").text());
        }
    }
}

/// What a node says of the fleet.
#[track_caller]
pub(crate) fn standing(node: &Instance) -> Value {
    node.admin("GET", "/fleet", "").json()
}

/// The value of a metric, with its labels if it has some.
#[track_caller]
pub(crate) fn metric(node: &Instance, name: &str) -> f64 {
    let text = node.admin("GET", "/metrics", "").text();
    let value = text.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

/// What came of a caller that asked as fast as it could.
#[derive(Debug, Default)]
pub(crate) struct Tally {
    /// Answers 200.
    pub(crate) allowed: u64,
    /// Answers 429.
    pub(crate) limited: u64,
    /// Answers 503.
    pub(crate) unavailable: u64,
    /// All others, and requests without an answer.
    pub(crate) failed: Vec<String>,
    /// The longest that an answer took.
    pub(crate) slowest: Duration,
    /// From the first request to the last answer.
    pub(crate) time: Duration,
}

impl Tally {
    /// The most that a bucket may have given: its capacity, and what came back meanwhile.
    pub(crate) fn budget(&self, capacity: f64, rate: f64) -> f64 {
        capacity + rate * self.time.as_secs_f64()
    }

    /// Asserts that the fleet gave what one bucket gives: never more, and all of it but 2 %, or but a token.
    #[track_caller]
    pub(crate) fn assert_exact(&self, capacity: f64, rate: f64) {
        let (budget, allowed) = (self.budget(capacity, rate), self.allowed as f64);
        assert!(self.failed.is_empty(), "{self:?}");
        assert!(allowed <= budget, "{allowed} of {budget}: {self:?}");
        assert!(allowed >= (budget * 0.98).min(budget.floor() - 1.0), "only {allowed} of {budget}: {self:?}");
    }

    fn add(&mut self, other: Tally) {
        self.allowed += other.allowed;
        self.limited += other.limited;
        self.unavailable += other.unavailable;
        self.failed.extend(other.failed);
        self.slowest = self.slowest.max(other.slowest);
        self.time = self.time.max(other.time);
    }
}

/// A caller that asks nodes as fast as it can over kept connections, until it is stopped.
#[derive(Debug)]
pub(crate) struct FlatOut {
    stop: Arc<AtomicBool>,
    threads: Vec<JoinHandle<Tally>>,
}

impl FlatOut {
    /// Begins to ask each of `nodes` with this key, over so many connections each. All begin together.
    pub(crate) fn start(nodes: &[SocketAddr], connections: usize, key: &str) -> Self {
        let stop = Arc::<AtomicBool>::default();
        let barrier = Arc::new(Barrier::new(nodes.len() * connections));
        let thread = |address: SocketAddr| {
            let (stop, barrier, key) = (Arc::clone(&stop), Arc::clone(&barrier), key.to_owned());
            std::thread::spawn(move || {
                let client = Client::connect(address);
                barrier.wait();
                ask(client, address, &key, &stop)
            })
        };
        let threads = nodes.iter().flat_map(|address| std::iter::repeat_n(*address, connections)).map(thread).collect();
        FlatOut { stop, threads }
    }

    /// Asks for this long.
    #[track_caller]
    pub(crate) fn run(nodes: &[SocketAddr], connections: usize, key: &str, window: Duration) -> Tally {
        let load = Self::start(nodes, connections, key);
        super::dawdle(window);
        load.stop()
    }

    /// Ends it.
    #[track_caller]
    pub(crate) fn stop(self) -> Tally {
        self.stop.store(true, Ordering::Relaxed);
        let mut tally = Tally::default();
        self.threads.into_iter().for_each(|thread| tally.add(thread.join().unwrap()));
        tally
    }
}

fn ask(mut client: Client, address: SocketAddr, key: &str, stop: &AtomicBool) -> Tally {
    let (headers, target) = ([("x-api-key", key)], format!("/{key}"));
    let request = Request::new("GET", &target).headers(&headers);
    let (mut tally, began) = (Tally::default(), now());
    while !stop.load(Ordering::Relaxed) && tally.failed.len() < 10 {
        let asked: Instant = now();
        let answer = client.call(&request);
        let answered = now();
        tally.slowest = tally.slowest.max(answered - asked);
        tally.time = answered - began;
        match answer {
            Ok(answer) => {
                match answer.status {
                    200 => tally.allowed += 1,
                    429 => tally.limited += 1,
                    503 => tally.unavailable += 1,
                    status => tally.failed.push(format!("{address}: {status}: {}", answer.text())),
                }
                if !answer.closes() {
                    continue;
                }
            }
            Err(error) => tally.failed.push(format!("{address}: {error}")),
        }
        match Client::try_connect(address) {
            Ok(fresh) => client = fresh,
            Err(error) => {
                tally.failed.push(format!("{address}: connect: {error}"));
                break;
            }
        }
    }
    tally
}
