//! The measuring.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::time::{Duration, Instant};

use nix::sys::resource::{UsageWho, getrusage};
use nix::sys::time::TimeValLike;
use tokio::runtime::{Builder, Runtime};
use tokio::time::{MissedTickBehavior, interval};

use crate::servers::StoreServer;
use crate::{CLIENTS, EACH, Fallible, Quota, ROUND, Way};

/// What a decision costs, in microseconds of processor time, and in round trips.
#[derive(Clone, Copy, Debug)]
pub struct Cost {
    /// Of this process.
    pub node: f64,
    /// Of the server.
    pub store: f64,
    /// Round trips.
    pub trips: f64,
}

fn runtime(threads: usize) -> Fallible<Runtime> {
    Ok(Builder::new_multi_thread().worker_threads(threads).enable_all().build()?)
}

/// Processor time of this process, in microseconds.
fn own_time() -> Fallible<f64> {
    let usage = getrusage(UsageWho::RUSAGE_SELF)?;
    Ok((usage.user_time() + usage.system_time()).num_microseconds() as f64)
}

/// The same of the server.
fn store_time(store: &StoreServer) -> f64 {
    let said = store.command("INFO cpu");
    let of = |name: &str| -> f64 {
        let line = said.lines().find_map(|line| line.strip_prefix(name)).unwrap_or("0");
        line.trim().parse().unwrap_or_default()
    };
    (of("used_cpu_sys:") + of("used_cpu_user:")) * 1e6
}

/// Decides what all clients ask, at their pace, for a round, and prints the line of it.
pub fn paced<W: Way>(store: &StoreServer, quota: Quota, nothing: Option<&Cost>) -> Fallible<Cost> {
    store.command("FLUSHALL");
    let runtime = runtime(1)?;
    let way = Arc::new(runtime.block_on(W::open(&store.url(), 0, 1, quota))?);
    let [asked, allowed, measures] = [0; 3].map(|_| Arc::new(AtomicU64::new(0)));
    let stop = Arc::<AtomicBool>::default();
    for client in 0..CLIENTS {
        let (way, stop) = (Arc::clone(&way), Arc::clone(&stop));
        let (asked, allowed, measures) = (Arc::clone(&asked), Arc::clone(&allowed), Arc::clone(&measures));
        runtime.spawn(async move {
            let mut pace = interval(Duration::from_secs(1) / EACH);
            pace.set_missed_tick_behavior(MissedTickBehavior::Burst);
            while !stop.load(Ordering::Relaxed) {
                pace.tick().await;
                let there = way.decide(client).await;
                // Not while all is new.
                let counts = measures.load(Ordering::Relaxed);
                asked.fetch_add(counts, Ordering::Relaxed);
                allowed.fetch_add(counts * u64::from(there), Ordering::Relaxed);
            }
        });
    }
    std::thread::sleep(Duration::from_secs(2));
    let before = (own_time()?, store_time(store), way.trips());
    measures.store(1, Ordering::Relaxed);
    std::thread::sleep(ROUND);
    measures.store(0, Ordering::Relaxed);
    let after = (own_time()?, store_time(store), way.trips());
    stop.store(true, Ordering::Relaxed);
    let count = asked.load(Ordering::Relaxed) as f64;
    let cost = cost(before, after, count, nothing);
    let let_in = allowed.load(Ordering::Relaxed) as f64 / count;
    println!("| {} | {let_in:.3} | {:.3} | {:.3} | {:.4} |", W::NAME, cost.node, cost.store, cost.trips);
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(cost)
}

/// Lets one task for each client decide as often as it can; decisions a second, and what one costs.
pub fn flat_out<W: Way>(store: &StoreServer, quota: Quota, nothing: Option<&Cost>) -> Fallible<(f64, Cost)> {
    store.command("FLUSHALL");
    let runtime = runtime(2)?;
    let way = Arc::new(runtime.block_on(W::open(&store.url(), 0, 1, quota))?);
    let before = (own_time()?, store_time(store), way.trips());
    let ((asked, _), time) = drain(&runtime, (0..CLIENTS).map(|client| (Arc::clone(&way), client)), ROUND);
    let after = (own_time()?, store_time(store), way.trips());
    let (count, rate) = (asked as f64, asked as f64 / time.as_secs_f64());
    let cost = cost(before, after, count, nothing);
    let what = format!("{} | {}/{} | {rate:.0}", W::NAME, quota.capacity, quota.rate);
    println!("| {what} | {:.3} | {:.3} | {:.6} |", cost.node, cost.store, cost.trips);
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok((rate, cost))
}

/// What one of `count` decisions cost, by processor times of the node and the store and round trips before and after
/// them.
fn cost(before: (f64, f64, Option<u64>), after: (f64, f64, Option<u64>), count: f64, nothing: Option<&Cost>) -> Cost {
    let trips = match (before.2, after.2) {
        (Some(before), Some(after)) => (after - before) as f64 / count,
        _ => 1.0,
    };
    let node = (after.0 - before.0) / count - nothing.map_or(0.0, |nothing| nothing.node);
    Cost { node, store: (after.1 - before.1) / count, trips }
}

/// Asks two instances flat out for one client.
pub fn over<W: Way>(store: &StoreServer, quota: Quota) -> Fallible<()> {
    store.command("FLUSHALL");
    let runtime = runtime(2)?;
    let one = Arc::new(runtime.block_on(W::open(&store.url(), 0, 2, quota))?);
    let two = Arc::new(runtime.block_on(W::open(&store.url(), 1, 2, quota))?);
    let ((_, allowed), time) = drain(&runtime, [(one, 0), (two, 0)].into_iter(), Duration::from_secs(10));
    let budget = f64::from(quota.capacity) + f64::from(quota.rate) * time.as_secs_f64();
    println!(
        "| {} | {}/{} | {allowed} | {budget:.0} | {:.3} |",
        W::NAME,
        quota.capacity,
        quota.rate,
        allowed as f64 / budget
    );
    runtime.shutdown_timeout(Duration::from_secs(1));
    Ok(())
}

/// How many were decided, and how many of them let in, and how long that took.
fn drain<W: Way>(
    runtime: &Runtime,
    askers: impl Iterator<Item = (Arc<W>, usize)>,
    time: Duration,
) -> ((u64, u64), Duration) {
    let stop = Arc::<AtomicBool>::default();
    let began = Instant::now();
    let spawn = |(way, client): (Arc<W>, usize)| {
        let stop = Arc::clone(&stop);
        runtime.spawn(async move {
            let (mut asked, mut allowed) = (0_u64, 0_u64);
            while !stop.load(Ordering::Relaxed) {
                asked += 1;
                allowed += u64::from(way.decide(client).await);
                if asked % 16 == 0 {
                    tokio::task::yield_now().await;
                }
            }
            (asked, allowed)
        })
    };
    let tasks: Vec<_> = askers.map(spawn).collect();
    std::thread::sleep(time);
    stop.store(true, Ordering::Relaxed);
    let add = |sum: (u64, u64), (asked, allowed): (u64, u64)| (sum.0 + asked, sum.1 + allowed);
    let tally = runtime.block_on(async {
        let mut sum = (0, 0);
        for task in tasks {
            sum = add(sum, task.await.unwrap_or_default());
        }
        sum
    });
    (tally, began.elapsed())
}
