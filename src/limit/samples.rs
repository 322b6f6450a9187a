//! Keys for the tests of limiters.

use std::net::Ipv4Addr;

use super::{Key, KeyMaker, Payer};

/// What makes them.
pub(crate) fn maker() -> KeyMaker {
    KeyMaker::new(7)
}

/// A client's.
pub(crate) fn client(number: u64) -> Key {
    maker().client(number)
}

/// An anonymous caller's.
pub(crate) fn stranger(number: u32) -> Key {
    maker().key(Payer::address(Ipv4Addr::from_bits(number).into(), 64))
}

/// The number that the key was made of.
pub(crate) fn number(key: Key) -> u64 {
    maker().payer(key).unwrap().parts().1
}
