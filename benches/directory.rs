//! Finding a client among a million, by key and by address; changing some of them; what they take up.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;
use std::time::Instant;
use std::time::SystemTime;

use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use tollgate::client::{Client, ClientId, Directory, KeyDigest, Quota};

/// The allocator that the binary has by default.
#[cfg(feature = "mimalloc")]
#[global_allocator]
static ALLOCATOR: mimalloc::MiMalloc = mimalloc::MiMalloc;

const CLIENTS: u32 = 1_000_000;

/// Spreads numbers over the whole space, so that neighbours in time are not neighbours in memory.
fn scatter(number: u32) -> u32 {
    number.wrapping_mul(2_654_435_761)
}

fn v4(number: u32) -> IpAddr {
    Ipv4Addr::from_bits(scatter(number)).into()
}

fn v6(number: u32) -> IpAddr {
    Ipv6Addr::from_bits((0x2001_0db8 << 96) | (u128::from(scatter(number)) << 64)).into()
}

fn key(number: u32) -> KeyDigest {
    KeyDigest::of(&number.to_le_bytes())
}

/// A third each is known by key, by IPv4 network and by IPv6 network.
fn client(number: u32) -> Client {
    let network = |address, length| vec![IpNet::new(address, length).expect("a valid length").trunc()];
    let (api_key, addresses) = match number % 3 {
        0 => (Some(key(number)), Vec::new()),
        1 => (None, network(v4(number), 32)),
        _ => (None, network(v6(number), 64)),
    };
    let id = ClientId::parse(&format!("client{number}")).expect("a valid name");
    Client { addresses, api_key, ..Client::new(number.into(), id, Quota::new(100, 10.0).expect("within bounds")) }
}

/// Clients that are known by networks of every length.
fn nested(first: u32) -> impl Iterator<Item = Arc<Client>> {
    let networks = (0..=32).map(|length| (v4(0), length)).chain((0..=128).map(|length| (v6(0), length)));
    networks.zip(first..).map(|((address, length), number)| {
        let addresses = vec![IpNet::new(address, length).expect("a valid length").trunc()];
        Arc::new(Client { api_key: None, addresses, ..client(number) })
    })
}

fn directory(clients: impl IntoIterator<Item = Arc<Client>>) -> Directory {
    Directory::new(clients).expect("no two have the same credential")
}

/// Random places, those of one kind of clients.
fn walk() -> impl FnMut() -> u32 {
    let mut number = 0;
    move || {
        number = (number + 3 * 7919) % (CLIENTS - 3);
        number - number % 3
    }
}

fn lookup(criterion: &mut Criterion) {
    let before = resident_bytes();
    let clients: Vec<_> = (0..CLIENTS).map(|number| Arc::new(client(number))).collect();
    let between = resident_bytes();
    #[expect(clippy::disallowed_methods, reason = "a benchmark measures real time")]
    let start = Instant::now();
    let built = directory(clients.iter().cloned());
    let (took, after) = (start.elapsed(), resident_bytes());
    let each = |bytes: usize| bytes as f64 / f64::from(CLIENTS);
    println!("build: {took:?}; bytes a client: {:.0} itself,", each(between - before));
    println!("{:.0} in the directory", each(after.saturating_sub(between)));

    let mut next = walk();
    let mut group = criterion.benchmark_group("directory/1M");
    let digests: Vec<KeyDigest> = (0..CLIENTS).map(key).collect();
    group.bench_function("by_key", |bench| {
        bench.iter(|| black_box(built.by_key(&digests[next() as usize], SystemTime::UNIX_EPOCH)).is_some());
    });
    group.bench_function("digest_and_by_key", |bench| {
        bench.iter(|| black_box(built.by_key(&key(next()), SystemTime::UNIX_EPOCH)).is_some());
    });
    group.bench_function("by_ipv4", |bench| {
        bench.iter(|| black_box(built.by_address(v4(next() + 1))).is_some());
    });
    group.bench_function("by_ipv6", |bench| {
        bench.iter(|| black_box(built.by_address(v6(next() + 2))).is_some());
    });
    group.bench_function("by_unknown_ipv4", |bench| {
        bench.iter(|| black_box(built.by_address(v4(next()))).is_some());
    });
    let every_length = directory(clients.iter().filter(|client| client.uid > 2).cloned().chain(nested(CLIENTS)));
    group.bench_function("by_unknown_ipv4, 33 lengths", |bench| {
        bench.iter(|| black_box(every_length.by_address(v4(next()))).is_some());
    });
    group.bench_function("by_unknown_ipv6, 129 lengths", |bench| {
        bench.iter(|| black_box(every_length.by_address(v6(next()))).is_some());
    });
    group.finish();
}

/// Each change makes a directory that takes the place of the one before, as it does in the proxy.
fn change(criterion: &mut Criterion) {
    let mut present = directory((0..CLIENTS).map(|number| Arc::new(client(number))));
    let mut next = walk();
    let mut group = criterion.benchmark_group("directory/1M");
    group.sample_size(20);
    for (name, count, kind) in [
        ("change 1 by key", 1, 0),
        ("change 1 by IPv4", 1, 1),
        ("change 32 by key", 32, 0),
        ("change 32 by IPv4", 32, 1),
    ] {
        group.bench_function(name, |bench| {
            bench.iter_batched(
                || {
                    let changed = |number| (Some(client(number)), Some(client(number)));
                    (0..count).map(|_| changed(next() + kind)).collect::<Vec<_>>()
                },
                |changes| present = present.with(changes),
                criterion::BatchSize::LargeInput,
            );
        });
    }
    group.finish();
    assert_eq!(present.len(), CLIENTS as usize);
}

/// What of this process is in memory.
fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux has it");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("the second is a number");
    pages * 4096
}

criterion_group!(benches, lookup, change);
criterion_main!(benches);
