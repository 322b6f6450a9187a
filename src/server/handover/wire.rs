//! The words that predecessor and successor say to each other, as bytes.
//!
//! A message is one byte that says which it is, and its parts one after the other, in [Borsh](https://borsh.io):
//! numbers are little endian, texts and lists say their length in four bytes. That is what version 1 has spoken from
//! the start, so every version that speaks it understands every other. Sockets travel beside the bytes of the message
//! that names them. Nothing is trusted: a message of a wrong length, an unknown word, or a number out of bounds is an
//! error, and no length makes anybody reserve more memory than has arrived.
//!
//! What goes beside the sockets and is none says [`beside`](super::beside).
//!
//! The first message begins with the version, whatever else it may hold one day: [`version`] reads it without the
//! rest, so that whoever speaks another one is told so in words.
//!
//! Buckets go by who pays, not by the keys of one process: the other end may have another secret, or none.
//!
//! Refused: a format of serde (postcard, JSON lines), which the version before does not understand, so that an upgrade
//! from it would stop the service once.

use std::io;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::client::{Quota, Rate};
use crate::limit::{Bucket, Payer, Tokens};
use crate::process::ListenAddress;
use crate::store::{Moment, Saved};

/// Counts up when the words change. Two processes that do not speak the same part as friends: the old one goes on.
pub(super) const VERSION: u32 = 1;
/// How many sockets go with one message; the kernel takes 253.
pub(super) const SOCKETS: usize = 64;
/// How many buckets or debits go into one message, so that none is too long.
pub(super) const PIECE: usize = 4096;

/// What is said.
#[derive(Clone, Debug, PartialEq)]
pub(super) enum Message {
    /// Predecessor: who I am, and how many sockets will follow.
    Hello {
        /// What it speaks.
        version: u32,
        /// Its process id.
        pid: u32,
        /// How many sockets follow.
        sockets: u32,
        /// Its database, whose clients the buckets belong to; empty for none that anybody else has.
        database: String,
    },
    /// Predecessor: as many sockets, by the addresses they listen on, at most [`SOCKETS`].
    Sockets(Vec<ListenAddress>),
    /// Successor: everything is built; from here on it takes a moment.
    Prepared,
    /// Predecessor: buckets, as they are; those named later count. At most [`PIECE`].
    Buckets {
        /// When this was.
        at: Moment,
        /// Those that are not full.
        changed: Vec<Saved>,
        /// Those that are full by now.
        dropped: Vec<Payer>,
    },
    /// Predecessor: I accept no more and have said everything; begin.
    Go,
    /// Successor: I accept.
    Serving,
    /// Predecessor: requests that I still had took these. At most [`PIECE`].
    Debits(Vec<Debit>),
    /// Predecessor: I am not coming back. Successor: I was asked to stop, do not come back.
    Settled,
    /// Either: it comes to nothing, and why.
    Refused(String),
}

/// Tokens that the predecessor gave after it had handed its buckets over.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(super) struct Debit {
    /// Whose.
    pub(super) payer: Payer,
    /// How many.
    pub(super) tokens: u32,
    /// Under which quota.
    pub(super) quota: Quota,
}

impl Message {
    /// As bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let bytes = match self {
            Message::Hello { version, pid, sockets, database } => {
                borsh::to_vec(&(HELLO, version, pid, sockets, database))
            }
            Message::Sockets(addresses) => borsh::to_vec(&(2_u8, parts_of(addresses))),
            Message::Prepared => borsh::to_vec(&3_u8),
            Message::Buckets { at, changed, dropped } => {
                borsh::to_vec(&(4_u8, at.timeline, at.wall, parts_of(changed), parts_of(dropped)))
            }
            Message::Go => borsh::to_vec(&5_u8),
            Message::Serving => borsh::to_vec(&6_u8),
            Message::Debits(debits) => borsh::to_vec(&(7_u8, parts_of(debits))),
            Message::Settled => borsh::to_vec(&8_u8),
            Message::Refused(reason) => borsh::to_vec(&(9_u8, reason)),
        };
        bytes.expect("a list of a message is shorter than 2³²")
    }

    /// Reads a message.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut rest = bytes;
        let message = Message::read(&mut rest).map_err(|_| nonsense("a message that makes no sense"))?;
        if rest.is_empty() { Ok(message) } else { Err(nonsense("a message that is too long")) }
    }

    fn read(rest: &mut &[u8]) -> io::Result<Self> {
        Ok(match u8::deserialize(rest)? {
            HELLO => {
                let (version, pid, sockets, database) = BorshDeserialize::deserialize(rest)?;
                Message::Hello { version, pid, sockets, database }
            }
            2 => Message::Sockets(list(rest, SOCKETS)?),
            3 => Message::Prepared,
            4 => {
                let (timeline, wall) = BorshDeserialize::deserialize(rest)?;
                let at = Moment { timeline, wall, boot: None };
                Message::Buckets { at, changed: list(rest, PIECE)?, dropped: list(rest, PIECE)? }
            }
            5 => Message::Go,
            6 => Message::Serving,
            7 => Message::Debits(list(rest, PIECE)?),
            8 => Message::Settled,
            9 => Message::Refused(BorshDeserialize::deserialize(rest)?),
            _ => return Err(io::ErrorKind::InvalidData.into()),
        })
    }
}

/// Which message says hello.
const HELLO: u8 = 1;

/// The version that the first message names; none when it does not say hello.
pub(super) fn version(bytes: &[u8]) -> Option<u32> {
    let (which, version): (u8, u32) = BorshDeserialize::deserialize(&mut &bytes[..]).ok()?;
    (which == HELLO).then_some(version)
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other process sent {what}"))
}

/// What goes over the wire in parts.
trait Wired: Sized {
    type Parts: BorshSerialize + BorshDeserialize;

    fn to_wire(&self) -> Self::Parts;

    /// None when the numbers are out of bounds.
    fn from_wire(parts: Self::Parts) -> Option<Self>;
}

fn parts_of<T: Wired>(items: &[T]) -> Vec<T::Parts> {
    items.iter().map(T::to_wire).collect()
}

/// A list of so many at most.
fn list<T: Wired>(rest: &mut &[u8], most: usize) -> io::Result<Vec<T>> {
    let parts = Vec::<T::Parts>::deserialize(rest)?;
    let items = parts.into_iter().map(T::from_wire).collect::<Option<Vec<T>>>();
    items.filter(|items| items.len() <= most).ok_or_else(|| io::ErrorKind::InvalidData.into())
}

impl Wired for ListenAddress {
    type Parts = String;

    fn to_wire(&self) -> String {
        self.to_string()
    }

    fn from_wire(text: String) -> Option<Self> {
        text.parse().ok()
    }
}

impl Wired for Payer {
    type Parts = (u8, u64);

    fn to_wire(&self) -> Self::Parts {
        Payer::parts(*self)
    }

    fn from_wire((kind, payload): Self::Parts) -> Option<Self> {
        Payer::from_parts(kind, payload)
    }
}

impl Wired for Quota {
    type Parts = (u32, u64);

    fn to_wire(&self) -> Self::Parts {
        (self.capacity().get(), self.rate().nanos_per_sec())
    }

    fn from_wire((capacity, rate): Self::Parts) -> Option<Self> {
        Quota::from_parts(u64::from(capacity), Rate::from_nanos_per_sec(rate)?).ok()
    }
}

impl Wired for Saved {
    type Parts = ((u8, u64), (u32, u64), u64, (u32, u64));

    fn to_wire(&self) -> Self::Parts {
        (self.payer.parts(), self.bucket.tokens().parts(), self.bucket.at(), self.quota.to_wire())
    }

    fn from_wire((payer, (whole, fraction), at, quota): Self::Parts) -> Option<Self> {
        let (payer, quota): (_, Quota) = (Wired::from_wire(payer)?, Wired::from_wire(quota)?);
        let bucket = Bucket::resume(Tokens::from_parts(whole, fraction), at);
        // More than that has no place in the limiter's tables.
        (bucket.tokens() <= Tokens::whole(quota.capacity().get())).then_some(Saved { payer, bucket, quota })
    }
}

impl Wired for Debit {
    type Parts = ((u8, u64), u32, (u32, u64));

    fn to_wire(&self) -> Self::Parts {
        (self.payer.parts(), self.tokens, self.quota.to_wire())
    }

    fn from_wire((payer, tokens, quota): Self::Parts) -> Option<Self> {
        Some(Debit { payer: Wired::from_wire(payer)?, tokens, quota: Wired::from_wire(quota)? })
    }
}

#[cfg(test)]
mod tests {
    use std::net::SocketAddr;

    use proptest::prelude::*;

    use super::*;

    fn payers() -> impl Strategy<Value = Payer> {
        prop_oneof![
            any::<u64>().prop_map(Payer::client),
            any::<std::net::IpAddr>().prop_map(|address| Payer::address(address, 64)),
        ]
    }

    fn quotas() -> impl Strategy<Value = Quota> {
        (1..=1_000_000_000_u64, 1e-6..=1e9).prop_map(|(capacity, rate)| Quota::new(capacity, rate).unwrap())
    }

    fn buckets() -> impl Strategy<Value = Saved> {
        (payers(), quotas(), any::<u32>(), 0..1_000_000_000_000_000_000_u64, any::<u64>()).prop_map(
            |(payer, quota, whole, fraction, at)| {
                let tokens = Tokens::from_parts(whole % quota.capacity(), fraction);
                Saved { payer, quota, bucket: Bucket::resume(tokens, at) }
            },
        )
    }

    fn messages() -> impl Strategy<Value = Message> {
        let debits =
            (payers(), any::<u32>(), quotas()).prop_map(|(payer, tokens, quota)| Debit { payer, tokens, quota });
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
            any::<String>().prop_map(Message::Refused),
            prop::sample::select(vec![Message::Prepared, Message::Go, Message::Serving, Message::Settled]),
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
            Message::Sockets(vec!["[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(); SOCKETS]),
            Message::Sockets(vec![format!("unix:/{}", "x".repeat(107)).parse().unwrap(); SOCKETS]),
        ] {
            let bytes = message.encode();
            assert!(bytes.len() < 1 << 20);
            assert_eq!(Message::decode(&bytes).unwrap(), message);
        }
    }
}
