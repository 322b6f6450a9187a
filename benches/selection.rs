//! The cost of choosing a backend, beside Pingora's own round robin.
//!
//! Both sides do what a request does: choose among backends that are all healthy, and hold the choice.

use std::hint::black_box;
use std::net::{Ipv4Addr, SocketAddr};
use std::num::NonZeroU32;
use std::time::Instant;

use criterion::{BenchmarkId, Criterion, criterion_group, criterion_main};
use pingora_load_balancing::LoadBalancer;
use pingora_load_balancing::selection::RoundRobin;
use tollgate::clock::{Clock, SystemClock};
use tollgate::upstream::{
    BackendAddress, BackendSettings, Balance, Check, HealthSettings, Pool, PoolSettings, Requester, StickyToken,
    Timeouts,
};

fn addresses(count: u16) -> impl Iterator<Item = SocketAddr> {
    (1..=count).map(|port| (Ipv4Addr::LOCALHOST, port).into())
}

fn pool(balance: Balance, count: u16) -> Pool {
    let backends = addresses(count)
        .map(|address| BackendSettings { address: BackendAddress::Socket(address), weight: NonZeroU32::MIN })
        .collect();
    Pool::new(PoolSettings {
        name: "bench".into(),
        balance,
        backends,
        // Without checks, backends are up from the start.
        health: HealthSettings { check: Check::None, ..HealthSettings::default() },
        retries: 2,
        timeouts: Timeouts::default(),
        ..PoolSettings::default()
    })
}

/// A request by which nothing is chosen but in time.
struct Anybody;

impl Requester for Anybody {
    fn now(&self) -> Instant {
        SystemClock.now()
    }

    fn key(&self) -> impl AsRef<[u8]> {
        b"somebody"
    }

    fn stuck(&self) -> Option<StickyToken> {
        None
    }
}

fn selection(criterion: &mut Criterion) {
    let mut group = criterion.benchmark_group("selection");
    for count in [3, 100, 1_000] {
        let pingora = LoadBalancer::<RoundRobin>::try_from_iter(addresses(count)).expect("addresses parse");
        group.bench_function(BenchmarkId::new("pingora_round_robin", count), |bench| {
            bench.iter(|| black_box(pingora.select(b"", 256)));
        });
        for balance in Balance::ALL {
            let pool = pool(*balance, count);
            group.bench_function(BenchmarkId::new(balance.name(), count), |bench| {
                bench.iter(|| black_box(pool.lease(&[], &Anybody)));
            });
        }
    }
    group.finish();
}

criterion_group!(benches, selection);
criterion_main!(benches);
