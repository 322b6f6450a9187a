use proptest::prelude::*;

use super::*;

fn payer(address: &str, prefix: u8) -> Payer {
    Payer::address(address.parse().unwrap(), prefix)
}

#[test]
fn one_network_is_one_caller() {
    assert_eq!(payer("2001:db8:1:2::1", 64), payer("2001:db8:1:2:ffff::9", 64));
    assert_ne!(payer("2001:db8:1:2::1", 64), payer("2001:db8:1:3::1", 64));
    assert_eq!(payer("2001:db8:1:2::1", 56), payer("2001:db8:1:3::1", 56));
    assert_eq!(payer("2001:db8::", 0), payer("fe80::1", 0));
    assert_eq!(payer("2001:db8:1:2::1", 128), payer("2001:db8:1:2::1", 64));
    assert_eq!(payer("2001:db8:1:2::1", 64).anonymous(), Some("2001:db8:1:2::".parse().unwrap()));
}

#[test]
fn a_mapped_address_is_the_address() {
    assert_eq!(payer("::ffff:192.0.2.7", 64), payer("192.0.2.7", 64));
    assert_ne!(payer("192.0.2.7", 64), payer("192.0.2.8", 64));
    assert_eq!(payer("192.0.2.7", 64).anonymous(), Some("192.0.2.7".parse().unwrap()));
}

#[test]
fn kinds_never_meet_and_parts_read_back() {
    let payers = [Payer::client(7), payer("0.0.0.7", 64), payer("0:0:0:7::", 64), Payer::client(u64::MAX)];
    let maker = KeyMaker::new(1);
    for (index, payer) in payers.iter().enumerate() {
        assert_eq!(payers.iter().position(|other| other == payer), Some(index));
        assert_eq!(payers.iter().position(|other| maker.key(*other) == maker.key(*payer)), Some(index));
        let (kind, payload) = payer.parts();
        assert_eq!(Payer::from_parts(kind, payload), Some(*payer));
    }
    assert_eq!((payers[0].client_number(), payers[0].anonymous()), (Some(7), None));
    assert_eq!(payers[1].client_number(), None);
    assert_eq!((Payer::from_parts(3, 0), Payer::from_parts(4, 0)), (None, None), "those are of policies only");
    assert_eq!(Payer::from_parts(1, 1 << 32), None);
}

#[test]
fn in_each_policy_a_payer_is_another_one() {
    let (maker, writes, reads) = (KeyMaker::new(1), PolicyId::of("writes"), PolicyId::of("reads"));
    let of = |policy: PolicyId| {
        let plain = [Payer::client(7), payer("0.0.0.7", 64), payer("0:0:0:7::", 64)].map(|it| it.within(policy));
        plain.into_iter().chain([Payer::everybody(policy), Payer::value(policy, 7)])
    };
    let all: Vec<_> = of(writes).chain(of(reads)).collect();
    for (index, payer) in all.iter().enumerate() {
        let (slot, policy) = (PolicySlot(3), payer.policy().unwrap());
        let key = maker.key_within(*payer, slot, false);
        assert_eq!(all.iter().position(|other| maker.key_within(*other, slot, true).bits() == key.bits()), Some(index));
        assert_eq!((maker.payer(key), key.scope().slot()), (Some(*payer), Some(slot)));
        let (kind, payload) = payer.parts();
        assert_eq!(Payer::from_parts_within(policy, kind, payload), Some(*payer));
        assert_eq!(PolicyId::from_bits(policy.bits()), Some(policy));
    }
    assert_ne!(maker.key_within(Payer::client(7).within(writes), PolicySlot(0), true).bits(), maker.client(7).bits());
    assert_eq!((maker.number(maker.client(7).bits()), maker.number(7)), (Some(7), None));
}

#[test]
fn values_of_headers_differ_by_every_byte_and_their_length() {
    let maker = KeyMaker::new(1);
    let values: [&[u8]; 8] = [b"", b"\0", b"\0\0", b"a", b"b", &[b'x'; 16], &[b'x'; 17], &[b'x'; 32]];
    for (index, value) in values.iter().enumerate() {
        assert_eq!(values.iter().position(|other| maker.hash(other) == maker.hash(value)), Some(index));
    }
    assert_ne!(maker.hash(b"a"), KeyMaker::new(2).hash(b"a"));
}

/// Known for good: nodes of different versions share keys.
#[test]
fn a_key_is_the_same_everywhere() {
    let maker = KeyMaker::new(0x0f0e_0d0c_0b0a_0908_0706_0504_0302_0100);
    // FIPS 197 appendix C.1, byte by byte.
    let block: [u8; 16] = std::array::from_fn(|at| 0x11 * at as u8);
    let mut sealed = block.into();
    maker.0.encrypt_block(&mut sealed);
    assert_eq!(<[u8; 16]>::from(sealed)[..4], [0x69, 0xc4, 0xe0, 0xd8]);
    let keys = [maker.client(7), maker.key(payer("192.0.2.7", 64)), maker.key(payer("2001:db8::", 64))];
    assert_eq!(keys.map(Key::scope), [Scope::Client, Scope::Address, Scope::Address]);
    assert_eq!(keys.map(Key::bits), KNOWN);
    assert_eq!(format!("{maker:?}"), "KeyMaker(..)");
}

const KNOWN: [u128; 3] = [
    0xec301a99_cdbb51f4_cc7ee0ea_e6c3540a,
    0x54ab0d12_479adb6a_d721af95_4c976f65,
    0xd2594fa8_811d71b6_2fb2da52_eedc906b,
];

proptest! {
    #[test]
    fn a_key_reads_back_with_its_secret_only(secret: u128, other: u128, number: u64, address: IpAddr) {
        let (maker, another) = (KeyMaker::new(secret), KeyMaker::new(other));
        for payer in [Payer::client(number), Payer::address(address, 64)] {
            let key = maker.key(payer);
            prop_assert_eq!((maker.payer(key), key.is_client()), (Some(payer), payer.anonymous().is_none()));
            // By chance one of 2⁶² does.
            prop_assert!(secret == other || another.payer(key).is_none());
        }
    }
}
