//! Finding a client among a million, by key and by address.

use std::hint::black_box;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::sync::Arc;

use criterion::{Criterion, criterion_group, criterion_main};
use ipnet::IpNet;
use tollgate::client::{Client, ClientId, Directory, KeyDigest, Mode, Quota};

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
fn directory() -> Directory {
    let quota = Quota::new(100, 10.0).expect("within bounds");
    Directory::new((0..CLIENTS).map(|number| {
        let network = |address, length| vec![IpNet::new(address, length).expect("a valid length").trunc()];
        let (api_key, addresses) = match number % 3 {
            0 => (Some(key(number)), Vec::new()),
            1 => (None, network(v4(number), 32)),
            _ => (None, network(v6(number), 64)),
        };
        let id = ClientId::parse(&format!("client{number}")).expect("a valid name");
        Arc::new(Client {
            number: number.into(),
            id,
            quota,
            mode: Mode::Limit,
            addresses,
            api_key,
            usage: Arc::default(),
        })
    }))
    .expect("no two have the same credential")
}

fn lookup(criterion: &mut Criterion) {
    let directory = directory();
    let mut number = 0;
    let mut next = move || {
        number = (number + 3 * 7919) % (CLIENTS - 3);
        number - number % 3
    };
    let mut group = criterion.benchmark_group("directory/1M");
    let digests: Vec<KeyDigest> = (0..CLIENTS).map(key).collect();
    group.bench_function("by_key", |bench| {
        bench.iter(|| black_box(directory.by_key(&digests[next() as usize])).is_some());
    });
    group.bench_function("digest_and_by_key", |bench| {
        bench.iter(|| black_box(directory.by_key(&key(next()))).is_some());
    });
    group.bench_function("by_ipv4", |bench| {
        bench.iter(|| black_box(directory.by_address(v4(next() + 1))).is_some());
    });
    group.bench_function("by_ipv6", |bench| {
        bench.iter(|| black_box(directory.by_address(v6(next() + 2))).is_some());
    });
    group.bench_function("by_unknown_ipv4", |bench| {
        bench.iter(|| black_box(directory.by_address(v4(next()))).is_some());
    });
    group.finish();
}

criterion_group!(benches, lookup);
criterion_main!(benches);
