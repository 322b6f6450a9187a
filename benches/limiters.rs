//! The striped limiter beside governor's keyed one and a `DashMap` of mutexes: time for a take, and resident bytes.
//!
//! `cargo bench --bench limiters` prints four Markdown tables; with `-- --pairs` only the last, of requests that pay
//! into two buckets, all or none of it. All contenders run in one process over the same keys and the same instants;
//! rounds are interleaved and the median counts, so that a noisy neighbour hits all alike. The others get plain `u64`
//! keys, and each runs twice: with its own hasher (SipHash) and with ours.
//!
//! `cargo bench --bench limiters -- --resident NAME` fills one contender with a million clients, prints how many bytes
//! each made resident, and ends; the first form runs the second in a process of its own for each contender.

use std::cell::Cell;
use std::hash::BuildHasher;
use std::num::{NonZeroU32, NonZeroUsize};
use std::sync::Barrier;
use std::time::Instant;

use dashmap::DashMap;
use governor::clock::{Clock, Reference};
use governor::middleware::NoOpMiddleware;
use governor::nanos::Nanos as GovernorNanos;
use governor::state::keyed::DashMapStateStore;
use parking_lot::Mutex;
use tollgate::client::Quota;
use tollgate::limit::{
    Bucket, Charge, Key, KeyMaker, Limiter, Payer, PolicyId, PolicySlot, PolicyTerms, Striped, StripedSettings, Upkeep,
    are_allowed,
};

const CLIENTS: u64 = 1_000_000;
const OPERATIONS: usize = 1_000_000;
/// A take every microsecond, so that a client that is asked again has earned something.
const STEP: u64 = 1_000;

thread_local! {
    /// The time of the running thread; handed to all alike.
    static NOW: Cell<u64> = const { Cell::new(0) };
}

/// Something that takes a token for a client.
trait Contender: Sync {
    fn take(&self, client: u64, now: u64) -> bool;
}

/// The key of a client, which the proxy finds in its directory: bits as good as random (SplitMix64).
#[inline]
fn key(client: u64) -> Key {
    let mixed = (client ^ (client >> 30)).wrapping_mul(0xbf58_476d_1ce4_e5b9);
    let mixed = (mixed ^ (mixed >> 27)).wrapping_mul(0x94d0_49bb_1331_11eb);
    Key::client(u128::from(client) << 64 | u128::from(mixed ^ (mixed >> 31)))
}

struct Ours(Striped, Quota);

impl Contender for Ours {
    #[inline]
    fn take(&self, client: u64, now: u64) -> bool {
        self.0.take(&Charge::one(key(client), self.1), now).is_allowed()
    }
}

struct Mutexes<S>(DashMap<u64, Mutex<Bucket>, S>, Quota);

impl<S: BuildHasher + Clone + Sync> Contender for Mutexes<S> {
    #[inline]
    fn take(&self, client: u64, now: u64) -> bool {
        if let Some(bucket) = self.0.get(&client) {
            return bucket.lock().take(self.1, now);
        }
        self.0.entry(client).or_insert_with(|| Mutex::new(Bucket::full(self.1, now))).lock().take(self.1, now)
    }
}

#[derive(Clone, Copy, Debug, PartialEq, Eq, PartialOrd, Ord)]
struct At(u64);

impl std::ops::Add<GovernorNanos> for At {
    type Output = At;

    fn add(self, nanos: GovernorNanos) -> At {
        At(self.0 + nanos.as_u64())
    }
}

impl Reference for At {
    fn duration_since(&self, earlier: At) -> GovernorNanos {
        self.0.saturating_sub(earlier.0).into()
    }

    fn saturating_sub(&self, duration: GovernorNanos) -> At {
        At(self.0.saturating_sub(duration.as_u64()))
    }
}

#[derive(Clone)]
struct Handed;

impl Clock for Handed {
    type Instant = At;

    #[inline]
    fn now(&self) -> At {
        At(NOW.get())
    }
}

struct Governor<S: BuildHasher + Clone>(
    governor::RateLimiter<u64, DashMapStateStore<u64, S>, Handed, NoOpMiddleware<At>>,
);

impl<S: BuildHasher + Clone + Sync + Send> Contender for Governor<S> {
    #[inline]
    fn take(&self, client: u64, now: u64) -> bool {
        NOW.set(now);
        self.0.check_key(&client).is_ok()
    }
}

/// The bucket of a client and its bucket in a policy, whose key is made for each request as the proxy does.
struct OurPair {
    limiter: Striped,
    quota: Quota,
    keys: KeyMaker,
    policy: (PolicyId, PolicySlot),
}

impl OurPair {
    fn new(quota: Quota) -> Self {
        let policy = PolicyId::of("writes");
        let limiter = Striped::new(settings(quota), 0);
        let terms = PolicyTerms { id: policy, quota, max_buckets: settings(quota).max_buckets };
        let slot = limiter.set_policies(&[terms], 0)[0];
        OurPair { limiter, quota, keys: KeyMaker::new(7), policy: (policy, slot) }
    }
}

impl Contender for OurPair {
    #[inline]
    fn take(&self, client: u64, now: u64) -> bool {
        let within = self.keys.key_within(Payer::client(client).within(self.policy.0), self.policy.1, false);
        let claims = [key(client), within].map(|key| Charge::one(key, self.quota).into());
        are_allowed(&claims, &self.limiter.take_all(&claims, now))
    }
}

/// A limiter for each bucket. What the first gave stays spent when the second refuses.
struct TheirPair<S: BuildHasher + Clone>([Governor<S>; 2]);

impl<S: BuildHasher + Clone + Sync + Send> Contender for TheirPair<S> {
    #[inline]
    fn take(&self, client: u64, now: u64) -> bool {
        self.0.iter().all(|one| one.take(client, now))
    }
}

const PAIRS: [&str; 3] = ["tollgate", "governor", "governor + ahash"];

fn pair(name: &str, capacity: u32, rate: u32) -> Box<dyn Contender> {
    let (quota, theirs) = quotas(capacity, rate);
    match name {
        "tollgate" => Box::new(OurPair::new(quota)),
        "governor" => Box::new(TheirPair([(); 2].map(|()| {
            let map = DashMap::with_hasher(std::hash::RandomState::new());
            Governor(governor::RateLimiter::new(theirs, map, Handed))
        }))),
        _ => Box::new(TheirPair([(); 2].map(|()| {
            let map = DashMap::with_hasher(ahash::RandomState::new());
            Governor(governor::RateLimiter::new(theirs, map, Handed))
        }))),
    }
}

fn quotas(capacity: u32, rate: u32) -> (Quota, governor::Quota) {
    let burst = NonZeroU32::new(capacity).expect("not 0");
    let theirs = governor::Quota::per_second(NonZeroU32::new(rate).expect("not 0")).allow_burst(burst);
    (Quota::new(u64::from(capacity), f64::from(rate)).expect("within bounds"), theirs)
}

fn settings(default_quota: Quota) -> StripedSettings {
    StripedSettings { max_buckets: NonZeroUsize::new(CLIENTS as usize).expect("not 0"), stripes: None, default_quota }
}

const NAMES: [&str; 5] = ["tollgate", "governor", "governor + ahash", "DashMap", "DashMap + ahash"];

fn contender(name: &str, capacity: u32, rate: u32) -> Box<dyn Contender> {
    let (quota, theirs) = quotas(capacity, rate);
    match name {
        "tollgate" => Box::new(Ours(Striped::new(settings(quota), 0), quota)),
        "governor" => {
            let map = DashMap::with_hasher(std::hash::RandomState::new());
            Box::new(Governor(governor::RateLimiter::new(theirs, map, Handed)))
        }
        "governor + ahash" => Box::new(Governor(governor::RateLimiter::new(
            theirs,
            DashMap::with_hasher(ahash::RandomState::new()),
            Handed,
        ))),
        "DashMap" => Box::new(Mutexes(DashMap::new(), quota)),
        _ => Box::new(Mutexes(DashMap::with_hasher(ahash::RandomState::new()), quota)),
    }
}

/// One round: every thread walks over its own sequence of clients. Nanoseconds for one take of one thread.
fn round(contender: &dyn Contender, sequences: &[Vec<u32>], start: u64) -> f64 {
    let barrier = Barrier::new(sequences.len() + 1);
    let took = std::thread::scope(|scope| {
        for sequence in sequences {
            let barrier = &barrier;
            scope.spawn(move || {
                barrier.wait();
                let mut now = start;
                for &client in sequence {
                    now += STEP;
                    std::hint::black_box(contender.take(u64::from(client), now));
                }
                barrier.wait();
            });
        }
        barrier.wait();
        let started = instant();
        barrier.wait();
        started.elapsed()
    });
    took.as_nanos() as f64 / OPERATIONS as f64
}

#[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
fn instant() -> Instant {
    Instant::now()
}

fn median(mut numbers: Vec<f64>) -> f64 {
    numbers.sort_by(f64::total_cmp);
    numbers[numbers.len() / 2]
}

/// Draws clients: all alike, or the k-th with a weight of k to the power of −1.1, or always the same one.
fn sequences(shape: &str, threads: usize) -> Vec<Vec<u32>> {
    let mut sums = Vec::new();
    if shape.starts_with("Zipf") {
        sums = (1..=CLIENTS)
            .scan(0.0, |sum, k| {
                *sum += (k as f64).powf(-1.1);
                Some(*sum)
            })
            .collect();
    }
    let draw = |random: &mut fastrand::Rng| match shape {
        "uniform" => random.u32(0..CLIENTS as u32),
        "Zipf 1.1" => {
            let goal = random.f64() * sums[sums.len() - 1];
            sums.partition_point(|&sum| sum < goal).min(sums.len() - 1) as u32
        }
        _ => 4711,
    };
    (0..threads)
        .map(|thread| {
            let mut random = fastrand::Rng::with_seed(thread as u64);
            (0..OPERATIONS).map(|_| draw(&mut random)).collect()
        })
        .collect()
}

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

fn print_resident(name: &str) {
    let before = resident_bytes();
    let filled = contender(name, 100, 10);
    for client in 0..CLIENTS {
        filled.take(client, client);
    }
    println!("{:.1}", (resident_bytes() - before) as f64 / CLIENTS as f64);
    drop(filled);
}

/// How long the ticker holds a lock with a million buckets, in microseconds. There are so many stripes here that one
/// has at most some 700 slots; then a call holds its lock for at most 512 of them at a time, and takes longer than any
/// one hold.
fn print_sweep() {
    let quota = Quota::new(100, 10.0).expect("within bounds");
    let map = Striped::new(StripedSettings { stripes: NonZeroUsize::new(2048), ..settings(quota) }, 0);
    for client in 0..CLIENTS {
        map.take(&Charge::one(key(client), quota), 0);
    }
    let mut gone = vec![Key::client(0); 2048];
    println!("| µs per stripe of ~490 buckets, 1,000,000 in all | median | 99.9 % | longest | all stripes |");
    println!("|---|---:|---:|---:|---:|");
    for (what, now) in
        [("sweep, none full", Some(1)), ("export, all changed", None), ("sweep, all full", Some(1 << 40))]
    {
        let mut holds: Vec<f64> = (0..map.parts())
            .map(|stripe| {
                let mut count = 0;
                let mut note = |key| {
                    gone[count] = key;
                    count += 1;
                };
                let started = instant();
                match now {
                    Some(now) => {
                        map.sweep(stripe, now, &mut note);
                    }
                    None => map.export(stripe, &mut |saved| note(saved.key)),
                }
                started.elapsed().as_nanos() as f64 / 1000.0
            })
            .collect();
        let all: f64 = holds.iter().sum();
        holds.sort_by(f64::total_cmp);
        let (longest, most) = (holds[holds.len() - 1], holds[holds.len() * 999 / 1000]);
        println!("| {what} | {:.1} | {most:.1} | {longest:.1} | {all:.0} |", median(holds));
    }
    println!();
}

fn main() {
    let arguments: Vec<String> = std::env::args().collect();
    if let Some(index) = arguments.iter().position(|argument| argument == "--resident") {
        return print_resident(&arguments[index + 1]);
    }
    if arguments.iter().any(|argument| argument == "--pairs") {
        return compare("ns for two buckets", &PAIRS, pair);
    }
    println!("| resident bytes per client at 1,000,000 | {} |", NAMES.join(" | "));
    println!("|---|{}", "---:|".repeat(NAMES.len()));
    let own = std::env::current_exe().expect("this program has a path");
    let resident = NAMES.map(|name| {
        let output = std::process::Command::new(&own).args(["--resident", name]).output().expect("it starts");
        String::from_utf8_lossy(&output.stdout).trim().to_owned()
    });
    println!("| | {} |\n", resident.join(" | "));

    print_sweep();

    compare("ns per take", &NAMES, contender);
    println!();
    compare("ns for two buckets", &PAIRS, pair);
}

/// Prints a table of how long a decision takes.
fn compare(what: &str, names: &[&str], contender: fn(&str, u32, u32) -> Box<dyn Contender>) {
    let rounds = std::env::var("ROUNDS").ok().and_then(|rounds| rounds.parse().ok()).unwrap_or(9);
    println!("| {what} | threads | {} | ÷ best as they come | ÷ best with ahash |", names.join(" | "));
    println!("|---|---:|{}", "---:|".repeat(names.len() + 2));
    for (shape, capacity, rate) in [
        ("uniform", 1000, 1000),
        ("Zipf 1.1", 1000, 1000),
        ("hot key, allowed", 1_000_000_000, 1_000_000_000),
        ("hot key, refused", 100, 10),
    ] {
        let contenders: Vec<_> = names.iter().map(|name| contender(name, capacity, rate)).collect();
        for filled in &contenders {
            for client in 0..CLIENTS {
                filled.take(client, client);
            }
        }
        let mut start = CLIENTS;
        for threads in [1, 2, 4] {
            let sequences = sequences(shape, threads);
            let mut times = vec![Vec::new(); names.len()];
            for number in 0..=rounds {
                for (contender, times) in contenders.iter().zip(&mut times) {
                    let time = round(contender.as_ref(), &sequences, start);
                    // The first one is for warming up.
                    if number > 0 {
                        times.push(time);
                    }
                }
                start += OPERATIONS as u64 * STEP;
                std::thread::yield_now();
            }
            let medians: Vec<_> = times.into_iter().map(median).collect();
            let best = |ahash: bool| {
                let others = names.iter().zip(&medians).skip(1).filter(|(name, _)| name.ends_with("ahash") == ahash);
                others.map(|(_, median)| *median).fold(f64::INFINITY, f64::min) / medians[0]
            };
            let cells: Vec<_> = medians.iter().map(|median| format!("{median:.1}")).collect();
            println!("| {shape} | {threads} | {} | {:.2} | {:.2} |", cells.join(" | "), best(false), best(true));
        }
    }
}
