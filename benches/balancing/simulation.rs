//! Backends as a script has them, in virtual time, behind the pools and rules that the proxy has.
//!
//! Requests come by a seeded Poisson process, each is given a backend by [`Pool::lease`], waits there for one of its
//! workers, and is served for a time that is half fixed and half exponential. What the proxy would tell the pool of an
//! answer is told. The same seed gives the same run.

use std::cmp::Reverse;
use std::collections::{BinaryHeap, HashMap, VecDeque};
use std::num::NonZeroU32;
use std::time::{Duration, Instant};

use tollgate::clock::{Clock, ManualClock};
use tollgate::upstream::{
    AdminState, BackendAddress, BackendSettings, Balance, Check, HashBy, HashKey, HealthSettings, Lease, Pool,
    PoolSettings, Requester, StickyToken,
};

/// What a failure counts as: the proxy's default `read_timeout`.
const FAILED_AS: Duration = Duration::from_secs(30);
/// Over how long requests are counted for the herd.
const WINDOW: f64 = 0.1;
/// How many callers there are, for rules that tell them apart.
const CALLERS: u64 = 10_000;

/// What one backend is like at each second.
pub(crate) struct Script {
    /// How many requests it serves at once.
    pub(crate) workers: usize,
    /// The mean time that it takes for one, in milliseconds.
    pub(crate) millis: fn(f64) -> f64,
    /// Whether it answers that it failed.
    pub(crate) fails: fn(f64) -> bool,
    /// Whether it is up.
    pub(crate) up: fn(f64) -> bool,
}

impl Script {
    /// One that is always up, fails never and takes this long.
    pub(crate) fn steady(millis: fn(f64) -> f64) -> Self {
        Script { workers: 8, millis, fails: |_| false, up: |_| true }
    }
}

/// What is simulated.
pub(crate) struct Scenario {
    /// Its name.
    pub(crate) name: &'static str,
    /// What it is about, in a sentence.
    pub(crate) about: &'static str,
    /// The backends; the first is the one that something is the matter with.
    pub(crate) backends: Vec<Script>,
    /// Requests a second at each second.
    pub(crate) rate: fn(f64) -> f64,
    /// How long it lasts.
    pub(crate) seconds: f64,
    /// From when on it is measured.
    pub(crate) from: f64,
    /// The time over which backends start slowly.
    pub(crate) slow_start: Duration,
}

/// One request that has ended.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Served {
    /// When it came, in seconds.
    pub(crate) at: f64,
    /// How long it took, in milliseconds.
    pub(crate) millis: f64,
    /// By which backend.
    pub(crate) by: usize,
    /// Whether that failed it.
    pub(crate) failed: bool,
}

/// What came of a run.
#[derive(Debug)]
pub(crate) struct Outcome {
    /// The requests, in the order in which they ended.
    pub(crate) served: Vec<Served>,
    from: f64,
    backends: usize,
}

impl Outcome {
    /// Those that count.
    pub(crate) fn measured(&self) -> impl Iterator<Item = &Served> {
        self.served.iter().filter(|one| one.at >= self.from)
    }

    /// The time that this part of them took at most, in milliseconds.
    pub(crate) fn quantile(&self, part: f64) -> f64 {
        let mut millis: Vec<_> = self.measured().map(|one| one.millis).collect();
        millis.sort_by(f64::total_cmp);
        let at = (millis.len() as f64 * part) as usize;
        millis.get(at.min(millis.len().saturating_sub(1))).copied().unwrap_or_default()
    }

    /// The share of them that the first backend had.
    pub(crate) fn share(&self) -> f64 {
        part(self.measured().map(|one| one.by == 0))
    }

    /// The share of them that failed.
    pub(crate) fn failed(&self) -> f64 {
        part(self.measured().map(|one| one.failed))
    }

    /// The most that any backend had of the requests of a tenth of a second, as a multiple of its fair share of them.
    /// Tenths in which there were fewer than ten for each are not looked at.
    pub(crate) fn herd(&self) -> f64 {
        let mut most: f64 = 0.0;
        let last = self.served.iter().map(|one| one.at).fold(0.0, f64::max);
        let mut counts = vec![vec![0_u32; self.backends]; (last / WINDOW) as usize + 1];
        self.measured().for_each(|one| counts[(one.at / WINDOW) as usize][one.by] += 1);
        for window in counts {
            let fair = f64::from(window.iter().sum::<u32>()) / self.backends as f64;
            if fair >= 10.0 {
                most = most.max(f64::from(window.into_iter().max().unwrap_or_default()) / fair);
            }
        }
        most
    }
}

fn part(all: impl Iterator<Item = bool>) -> f64 {
    let (mut count, mut found) = (0_u32, 0_u32);
    all.for_each(|one| (count, found) = (count + 1, found + u32::from(one)));
    f64::from(found) / f64::from(count.max(1))
}

/// A request of one of the callers.
struct Caller<'c> {
    number: u64,
    clock: &'c ManualClock,
}

impl Requester for Caller<'_> {
    fn now(&self) -> Instant {
        self.clock.now()
    }

    fn key(&self) -> impl AsRef<[u8]> {
        HashKey::of(&self.number.to_le_bytes())
    }

    fn stuck(&self) -> Option<StickyToken> {
        None
    }
}

/// One request that a backend has.
struct Held {
    at: f64,
    lease: Lease,
}

#[derive(Default)]
struct Station {
    busy: usize,
    waiting: VecDeque<Held>,
    serving: Vec<Option<Held>>,
}

/// What happens next: at so many nanoseconds, with a number to keep the order of what happens at once.
#[derive(PartialEq, Eq, PartialOrd, Ord)]
enum Event {
    Arrival,
    Done(usize, usize),
    Look,
}

struct World<'s> {
    scenario: &'s Scenario,
    pool: Pool,
    clock: ManualClock,
    now: u64,
    random: fastrand::Rng,
    stations: Vec<Station>,
    /// Where each is, by its address.
    places: HashMap<String, usize>,
    up: Vec<bool>,
    events: BinaryHeap<Reverse<(u64, u64, Event)>>,
    numbered: u64,
    served: Vec<Served>,
}

/// Runs `scenario` with the rule of this name.
pub(crate) fn run(scenario: &Scenario, rule: &str, seed: u64) -> Outcome {
    // The rules draw from the thread's own generator.
    fastrand::seed(seed);
    let backend = |place: usize| BackendSettings { address: at(place), weight: NonZeroU32::MIN };
    let pool = Pool::new(PoolSettings {
        name: "app".to_owned(),
        balance: Balance::named(rule).expect("the table has it"),
        hash: Some(HashBy::Client),
        slow_start: scenario.slow_start,
        backends: (0..scenario.backends.len()).map(backend).collect(),
        health: HealthSettings { check: Check::None, ..HealthSettings::default() },
        ..PoolSettings::default()
    });
    let station =
        |script: &Script| Station { serving: (0..script.workers).map(|_| None).collect(), ..Default::default() };
    let mut world = World {
        scenario,
        pool,
        clock: ManualClock::new(),
        now: 0,
        random: fastrand::Rng::with_seed(seed),
        stations: scenario.backends.iter().map(station).collect(),
        places: (0..scenario.backends.len()).map(|place| (at(place).to_string(), place)).collect(),
        up: vec![true; scenario.backends.len()],
        events: BinaryHeap::new(),
        numbered: 0,
        served: Vec::new(),
    };
    world.later(0.0, Event::Arrival);
    world.later(0.0, Event::Look);
    while let Some(Reverse((at, _, event))) = world.events.pop() {
        world.clock.advance(Duration::from_nanos(at - world.now));
        world.now = at;
        match event {
            Event::Arrival => world.arrive(),
            Event::Done(by, worker) => world.done(by, worker),
            Event::Look => world.look(),
        }
    }
    Outcome { served: world.served, from: scenario.from, backends: scenario.backends.len() }
}

fn at(place: usize) -> BackendAddress {
    BackendAddress::Socket(([10, 0, (place / 250) as u8, (place % 250 + 1) as u8], 80).into())
}

impl World<'_> {
    fn seconds(&self) -> f64 {
        self.now as f64 / 1e9
    }

    fn later(&mut self, seconds: f64, event: Event) {
        self.numbered += 1;
        self.events.push(Reverse((self.now + (seconds * 1e9) as u64, self.numbered, event)));
    }

    fn exponential(&mut self) -> f64 {
        -(1.0 - self.random.f64()).ln()
    }

    fn arrive(&mut self) {
        let second = self.seconds();
        if second >= self.scenario.seconds {
            return;
        }
        let wait = self.exponential() / (self.scenario.rate)(second);
        self.later(wait, Event::Arrival);
        let number = self.random.u64(..CALLERS);
        let Some(lease) = self.pool.lease(&[], &Caller { number, clock: &self.clock }) else { return };
        let by = self.places[&lease.backend().address().to_string()];
        self.stations[by].waiting.push_back(Held { at: second, lease });
        self.serve(by);
    }

    fn serve(&mut self, by: usize) {
        let (script, second) = (&self.scenario.backends[by], self.seconds());
        if self.stations[by].busy == script.workers {
            return;
        }
        let Some(held) = self.stations[by].waiting.pop_front() else { return };
        let took = (script.millis)(second) / 1e3 * (0.5 + 0.5 * self.exponential());
        let station = &mut self.stations[by];
        let free = station.serving.iter().position(Option::is_none).expect("not all are busy");
        station.serving[free] = Some(held);
        station.busy += 1;
        self.later(took, Event::Done(by, free));
    }

    fn done(&mut self, by: usize, worker: usize) {
        let (second, failed) = (self.seconds(), (self.scenario.backends[by].fails)(self.seconds()));
        let station = &mut self.stations[by];
        station.busy -= 1;
        if let Some(Held { at, lease }) = station.serving[worker].take() {
            match failed {
                true => lease.let_down(self.clock.now(), FAILED_AS),
                false => lease.answered(self.clock.now()),
            }
            self.served.push(Served { at, millis: (second - at) * 1e3, by, failed });
        }
        self.serve(by);
    }

    /// Lets backends go and come back.
    fn look(&mut self) {
        let second = self.seconds();
        for place in 0..self.up.len() {
            let up = (self.scenario.backends[place].up)(second);
            if std::mem::replace(&mut self.up[place], up) != up {
                let (BackendAddress::Socket(address), state) =
                    (at(place), if up { AdminState::Up } else { AdminState::Drain })
                else {
                    continue;
                };
                self.pool.set_backend(address, Some(state), None).expect("it is there");
            }
        }
        if second < self.scenario.seconds {
            self.later(0.05, Event::Look);
        }
    }
}

/// All of them.
pub(crate) fn scenarios() -> Vec<Scenario> {
    let steady = |count: usize| (0..count).map(|_| Script::steady(|_| 10.0));
    let base = |name, about, backends| Scenario {
        name,
        about,
        backends,
        rate: |_| 1_176.0,
        seconds: 30.0,
        from: 5.0,
        slow_start: Duration::ZERO,
    };
    let cold = || Script { up: |second| !(5.0..10.0).contains(&second), millis: warming, ..Script::steady(|_| 10.0) };
    let restart = |name, about, slow_start| Scenario {
        rate: |_| 1_200.0,
        from: 10.0,
        slow_start,
        seconds: 20.0,
        ..base(name, about, std::iter::once(cold()).chain(steady(2)).collect())
    };
    vec![
        base(
            "one slow",
            "Three backends of eight workers, one ten times slower than the others (100 ms beside 10); load: 70 % of what they can do together.",
            std::iter::once(Script::steady(|_| 100.0)).chain(steady(2)).collect(),
        ),
        Scenario {
            seconds: 20.0,
            ..base(
                "fails fast",
                "Three backends; from the fifth to the fifteenth second one answers 500 after a millisecond.",
                std::iter::once(Script {
                    millis: |second| if (5.0..15.0).contains(&second) { 1.0 } else { 10.0 },
                    fails: |second| (5.0..15.0).contains(&second),
                    ..Script::steady(|_| 10.0)
                })
                .chain(steady(2))
                .collect(),
            )
        },
        Scenario {
            rate: |second| if second.fract() < 0.1 { 20_000.0 } else { 2_000.0 },
            ..base(
                "bursts",
                "Ten backends; a tenth of each second brings ten times as many requests as the rest, two and a half times what the backends can do.",
                steady(10).collect(),
            )
        },
        restart(
            "restart",
            "Three backends, of which one comes back in the tenth second with cold caches: its answers take 100 ms, and 10 from the twentieth on. Load: 75 % of what the two others can do.",
            Duration::ZERO,
        ),
        restart("restart, slow_start: 10s", "The same with `slow_start: 10s`.", Duration::from_secs(10)),
        Scenario {
            rate: |_| 40_000.0,
            seconds: 4.0,
            from: 2.0,
            ..base(
                "a thousand",
                "A thousand backends, one of them ten times slower; 5 % load, so that what counts is whom the rule chooses.",
                std::iter::once(Script::steady(|_| 100.0)).chain(steady(999)).collect(),
            )
        },
    ]
}

/// From 100 ms in the tenth second to 10 ms in the twentieth.
fn warming(second: f64) -> f64 {
    if second < 10.0 { 10.0 } else { (100.0 - (second - 10.0) * 9.0).max(10.0) }
}
