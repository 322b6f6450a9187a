//! A flood of ten million addresses: memory stays bounded, and the clients that were there first notice nothing.
//!
//! In a test program of its own, because it measures what the whole process keeps resident. Without optimisation it is
//! twenty times smaller.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroUsize;

use tollgate::client::Quota;
use tollgate::limit::{Bucket, Charge, Gauges, KeyMaker, Limiter, Nanos, Payer, Striped, StripedSettings, Upkeep};

const SCALE: usize = if cfg!(debug_assertions) { 20 } else { 1 };
const FLOOD: usize = 10_000_000 / SCALE;
const MAX_BUCKETS: usize = 1_000_000 / SCALE;
const KNOWN: u64 = 1_000;
const SECOND: Nanos = 1_000_000_000;

fn resident_bytes() -> usize {
    let statm = std::fs::read_to_string("/proc/self/statm").expect("Linux");
    let pages: usize = statm.split(' ').nth(1).and_then(|pages| pages.parse().ok()).expect("a number of pages");
    pages * 4096
}

/// The n-th address: IPv4, and every fourth an IPv6 network.
fn address(number: usize) -> IpAddr {
    if number.is_multiple_of(4) {
        Ipv6Addr::from_bits(0x2001_0db8 << 96 | (number as u128) << 64 | 7).into()
    } else {
        Ipv4Addr::from_bits(number as u32).into()
    }
}

/// The clients that were there first, each with a bucket beside the map that says what the answer must be.
struct Known(Vec<Bucket>, Quota, KeyMaker);

impl Known {
    fn ask(&mut self, map: &Striped, turn: usize, now: Nanos) {
        let number = turn as u64 % KNOWN;
        let expected = self.0[number as usize].take(self.1, now);
        let decision = map.take(&Charge::one(self.2.client(number), self.1), now);
        assert_eq!(decision.is_allowed(), expected, "client {number} at {now}");
        assert!(!decision.standing().is_overflow());
    }
}

#[test]
fn ten_million_addresses_are_survived() {
    let slow = Quota::new(5, 1e-6).unwrap();
    let quick = Quota::new(5, 2.0).unwrap();
    let maker = KeyMaker::new(1);
    let before = resident_bytes();
    let map = Striped::new(
        StripedSettings { max_buckets: NonZeroUsize::new(MAX_BUCKETS).unwrap(), stripes: None, default_quota: quick },
        0,
    );
    // So slow that no known client is ever full again: what it is owed can only be right if its bucket was kept.
    let quota = Quota::new(40, 0.01).unwrap();
    let mut known = Known(vec![Bucket::full(quota, 0); KNOWN as usize], quota, maker.clone());
    (0..KNOWN as usize).for_each(|turn| known.ask(&map, turn, 0));

    // First half: each address asks once and is full again half a second later, so the sweep makes room every second.
    // Second half: nobody is full again, the map fills up, and new callers share the overflow bucket.
    let (mut now, mut most_resident, mut turn) = (0, 0, 0);
    for number in 0..FLOOD {
        now += SECOND * SCALE as u64 / 1_000_000;
        if number == FLOOD / 2 {
            map.set_default_quota(slow, now);
        }
        map.take(&Charge::one(maker.key(Payer::address(address(number), 64)), slow), now);
        if number.is_multiple_of(100) {
            turn += 1;
            known.ask(&map, turn, now);
        }
        if number % MAX_BUCKETS == MAX_BUCKETS - 1 {
            most_resident = most_resident.max(resident_bytes());
            (0..map.parts()).for_each(|stripe| {
                map.sweep(stripe, now, &mut |_| ());
            });
        }
        assert!(map.buckets() <= MAX_BUCKETS + KNOWN as usize);
    }
    assert_eq!(map.buckets(), MAX_BUCKETS + KNOWN as usize);
    // A client that comes back from a rest, and so has no bucket, finds its own all the same.
    let rested = map.take(&Charge::one(maker.client(KNOWN), Quota::new(40, 0.01).unwrap()), now);
    assert!(rested.is_allowed() && !rested.standing().is_overflow());
    assert!(map.overflowed() as usize > FLOOD / 4, "{}", map.overflowed());
    most_resident = most_resident.max(resident_bytes());
    let grown = most_resident.saturating_sub(before);
    println!("{grown} bytes grown, {:.1} for each bucket of {MAX_BUCKETS}", grown as f64 / MAX_BUCKETS as f64);
    assert!(grown <= 64 * MAX_BUCKETS + (8 << 20), "{grown} bytes");

    (0..10 * KNOWN as usize).for_each(|turn| known.ask(&map, turn, now + SECOND));
    (0..map.parts()).for_each(|stripe| {
        map.sweep(stripe, u64::MAX / 2, &mut |_| ());
    });
    assert_eq!(map.buckets(), 0, "after years everybody is full again");
    println!("{} bytes grown after the last sweep", resident_bytes().saturating_sub(before));
}
