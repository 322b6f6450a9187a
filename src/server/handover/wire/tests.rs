use std::net::SocketAddr;

use proptest::prelude::*;

use super::*;

fn payers() -> impl Strategy<Value = Payer> {
    prop_oneof![
        any::<u64>().prop_map(Payer::client),
        any::<std::net::IpAddr>().prop_map(|address| Payer::address(address, 64)),
        any::<u64>().prop_map(|number| Payer::client(number).within(PolicyId::of("writes"))),
        any::<u64>().prop_map(|hash| Payer::value(PolicyId::of("reads"), hash)),
        Just(Payer::everybody(PolicyId::of("reads"))),
    ]
}

fn quotas() -> impl Strategy<Value = Quota> {
    (1..=1_000_000_000_u64, 1e-6..=1e9).prop_map(|(capacity, rate)| Quota::new(capacity, rate).unwrap())
}

fn buckets() -> impl Strategy<Value = Saved> {
    (payers(), quotas(), any::<u32>(), 0..1_000_000_000_000_000_000_u64, any::<u64>()).prop_map(
        |(payer, quota, whole, fraction, at)| {
            // Above the capacity where tokens were granted.
            let tokens = Tokens::from_parts(whole % 1_200_000_000, fraction);
            Saved { payer, quota, bucket: Bucket::resume(tokens, at) }
        },
    )
}

fn samples() -> impl Strategy<Value = Sample> {
    let times = prop::option::of(any::<[u64; 3]>());
    (any::<u64>(), any::<[u64; 6]>(), times, any::<[usize; 3]>()).prop_map(|(at, answers, times, gauges)| {
        let latency = times.map(|times| {
            let [p50, p95, p99] = times.map(Duration::from_nanos);
            Latency { p50, p95, p99 }
        });
        let [connections, in_flight, buckets] = gauges;
        Sample { at, answers, latency, connections, in_flight, buckets }
    })
}

fn backends() -> impl Strategy<Value = BackendStates> {
    let states = (any::<u64>(), prop::sample::select(STATES.to_vec()));
    (any::<String>(), any::<String>(), prop::collection::vec(states, 0..=MOST_CHANGES))
        .prop_map(|(upstream, address, states)| BackendStates { upstream, address, states })
}

fn messages() -> impl Strategy<Value = Message> {
    let debits = (payers(), any::<u32>(), quotas()).prop_map(|(payer, tokens, quota)| Debit { payer, tokens, quota });
    let owed = (payers(), any::<u64>(), quotas()).prop_map(|(payer, tokens, quota)| SavedOwed { payer, tokens, quota });
    let moments = (any::<u64>(), any::<u64>()).prop_map(|(timeline, wall)| Moment { timeline, wall, boot: None });
    let lists = (prop::collection::vec(buckets(), 0..20), prop::collection::vec(payers(), 0..20));
    prop_oneof![
        (any::<u32>(), any::<u32>(), any::<u32>(), any::<String>())
            .prop_map(|(version, pid, sockets, database)| { Message::Hello { version, pid, sockets, database } }),
        prop::collection::vec(any::<SocketAddr>(), 0..=SOCKETS).prop_map(|mut addresses| {
            // What no text of an address holds.
            addresses.iter_mut().for_each(|address| {
                if let SocketAddr::V6(address) = address {
                    address.set_flowinfo(0);
                }
            });
            Message::Sockets(addresses.into_iter().map(ListenAddress::from).collect())
        }),
        (moments, lists).prop_map(|(at, (changed, dropped))| Message::Buckets { at, changed, dropped }),
        prop::collection::vec(debits, 0..20).prop_map(Message::Debits),
        prop::collection::vec(owed, 0..20).prop_map(Message::Owed),
        any::<String>().prop_map(Message::Refused),
        prop::collection::vec(samples(), 0..20).prop_map(Message::Minutes),
        prop::collection::vec(backends(), 0..20).prop_map(Message::Backends),
        prop::sample::select(vec![
            Message::Prepared,
            Message::Go,
            Message::Serving,
            Message::Settled,
            Message::KnowsPolicies,
            Message::KnowsMinutes,
            Message::KnowsOwed,
        ]),
    ]
}

proptest! {
    #[test]
    fn what_is_said_is_what_is_heard(message in messages()) {
        let bytes = message.encode();
        prop_assert_eq!(Message::decode(&bytes).unwrap(), message);
    }

    #[test]
    fn a_message_that_was_cut_or_goes_on_is_none(message in messages(), cut in any::<prop::sample::Index>()) {
        let mut bytes = message.encode();
        let cut = cut.index(bytes.len());
        prop_assert!(Message::decode(&bytes[..cut]).is_err());
        bytes.push(0);
        prop_assert!(Message::decode(&bytes).is_err());
    }

    #[test]
    fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
        let _ = (version(&bytes), Message::decode(&bytes));
    }
}

#[test]
fn lengths_that_lie_are_refused() {
    for list in [2, 7, 9] {
        let mut bytes = vec![list];
        bytes.extend_from_slice(&u32::MAX.to_le_bytes());
        assert!(Message::decode(&bytes).is_err());
    }
}

/// Byte for byte what the binaries before this format's library have sent and understood.
#[test]
fn version_1_is_what_it_always_was() {
    let hello = Message::Hello { version: 1, pid: 0x0102, sockets: 2, database: "a.db".to_owned() };
    assert_eq!(hello.encode(), *b"\x01\x01\0\0\0\x02\x01\0\0\x02\0\0\0\x04\0\0\0a.db");
    let sockets = Message::Sockets(vec!["[::1]:80".parse().unwrap(), "1.2.3.4:5".parse().unwrap()]);
    assert_eq!(sockets.encode(), *b"\x02\x02\0\0\0\x08\0\0\0[::1]:80\x09\0\0\x001.2.3.4:5");
    let quota = Quota::new(10, 1e-6).unwrap();
    let payer = Payer::address([1, 2, 3, 4].into(), 64);
    let bucket = Bucket::resume(Tokens::from_parts(7, 9), 0x0a0b);
    let (at, saved) = (Moment { timeline: 5, wall: 6, boot: None }, Saved { payer, bucket, quota });
    let buckets = Message::Buckets { at, changed: vec![saved], dropped: vec![Payer::client(8)] };
    let numbers = |numbers: &[u64]| numbers.iter().flat_map(|number| number.to_le_bytes()).collect::<Vec<_>>();
    let bytes = [
        b"\x04".to_vec(),
        numbers(&[5, 6]),
        b"\x01\0\0\0\x01".to_vec(),
        numbers(&[0x0102_0304]),
        b"\x07\0\0\0".to_vec(),
        numbers(&[9, 0x0a0b]),
        b"\x0a\0\0\0".to_vec(),
        numbers(&[1_000]),
        b"\x01\0\0\0\0".to_vec(),
        numbers(&[8]),
    ];
    assert_eq!(buckets.encode(), bytes.concat());
    let debits = Message::Debits(vec![Debit { payer: Payer::client(8), tokens: 3, quota }]);
    let bytes = [b"\x07\x01\0\0\0\0".to_vec(), numbers(&[8]), b"\x03\0\0\0\x0a\0\0\0".to_vec(), numbers(&[1_000])];
    assert_eq!(debits.encode(), bytes.concat());
    let short = [Message::Prepared, Message::Go, Message::Serving, Message::Settled];
    assert_eq!(short.map(|message| message.encode()), [[3], [5], [6], [8]]);
    assert_eq!(Message::Refused("no".to_owned()).encode(), *b"\x09\x02\0\0\0no");
}

#[test]
fn the_version_is_read_whatever_comes_after_it() {
    let bytes = b"\x01\x07\0\0\0 what version 7 says";
    assert_eq!((version(bytes), version(&bytes[..4]), version(b"\x02\x07\0\0\0")), (Some(7), None, None));
    assert!(Message::decode(bytes).is_err());
}

#[test]
fn the_longest_lists_fit() {
    let quota = Quota::new(1_000_000_000, 1e9).unwrap();
    let saved = Saved { payer: Payer::client(u64::MAX), bucket: Bucket::full(quota, u64::MAX), quota };
    let debit = Debit { payer: saved.payer, tokens: u32::MAX, quota };
    let at = Moment { timeline: u64::MAX, wall: u64::MAX, boot: None };
    for message in [
        Message::Buckets { at, changed: vec![saved; PIECE], dropped: vec![saved.payer; PIECE] },
        Message::Debits(vec![debit; PIECE]),
        Message::Owed(vec![SavedOwed { payer: saved.payer, tokens: u64::MAX, quota }; PIECE]),
        Message::Sockets(vec!["[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(); SOCKETS]),
        Message::Sockets(vec![format!("unix:/{}", "x".repeat(107)).parse().unwrap(); SOCKETS]),
    ] {
        let bytes = message.encode();
        assert!(bytes.len() < 1 << 20);
        assert_eq!(Message::decode(&bytes).unwrap(), message);
    }
}
