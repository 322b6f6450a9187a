//! The words that predecessor and successor say to each other, as bytes.
//!
//! A message is its length (four bytes, little endian, without these four), one byte that says which it is, and its
//! parts one after the other. Numbers are little endian. Sockets travel beside the bytes of the message that names
//! them. Nothing is trusted: a message of a wrong length, an unknown word, or a number out of bounds is an error, and
//! no length makes anybody reserve more memory than has arrived.

use std::io;
use std::net::SocketAddr;

use crate::client::{Quota, Rate};
use crate::limit::{Bucket, Key, Saved, Tokens};
use crate::store::Moment;

/// Counts up when the words change. Two processes that do not speak the same part as friends: the old one goes on.
pub(super) const VERSION: u32 = 1;
/// The longest message, in bytes.
#[cfg(test)]
pub(super) const LONGEST: usize = 1 << 20;
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
    Sockets(Vec<SocketAddr>),
    /// Successor: everything is built; from here on it takes a moment.
    Prepared,
    /// Predecessor: buckets, as they are; those named later count. At most [`PIECE`].
    Buckets {
        /// When this was.
        at: Moment,
        /// Those that are not full.
        changed: Vec<Saved>,
        /// Those that are full by now.
        dropped: Vec<Key>,
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
    pub(super) key: Key,
    /// How many.
    pub(super) tokens: u32,
    /// Under which quota.
    pub(super) quota: Quota,
}

impl Message {
    /// As bytes.
    pub(super) fn encode(&self) -> Vec<u8> {
        let mut out = Writer(vec![0; 4]);
        match self {
            Message::Hello { version, pid, sockets, database } => {
                out.u8(1);
                [version, pid, sockets].into_iter().for_each(|number| out.u32(*number));
                out.text(database);
            }
            Message::Sockets(addresses) => {
                out.u8(2);
                out.list(addresses, |out, address| out.text(&address.to_string()));
            }
            Message::Prepared => out.u8(3),
            Message::Buckets { at, changed, dropped } => {
                out.u8(4);
                out.u64(at.timeline);
                out.u64(at.wall);
                out.list(changed, Writer::saved);
                out.list(dropped, |out, key| out.key(*key));
            }
            Message::Go => out.u8(5),
            Message::Serving => out.u8(6),
            Message::Debits(debits) => {
                out.u8(7);
                out.list(debits, |out, debit| {
                    out.key(debit.key);
                    out.u32(debit.tokens);
                    out.quota(debit.quota);
                });
            }
            Message::Settled => out.u8(8),
            Message::Refused(reason) => {
                out.u8(9);
                out.text(reason);
            }
        }
        let length = (out.0.len() - 4) as u32;
        out.0[..4].copy_from_slice(&length.to_le_bytes());
        out.0
    }

    /// How long the message is that begins with `bytes`, its length included; none when that is not known yet.
    ///
    /// # Errors
    /// When no message is as long.
    #[cfg(test)]
    pub(super) fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
        let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
        let length = u32::from_le_bytes(*length) as usize;
        if length == 0 || length > LONGEST {
            Err(nonsense("a message of a wrong length"))
        } else {
            Ok(Some(4 + length))
        }
    }

    /// Reads a message, from behind its length to its end.
    ///
    /// # Errors
    /// When it is none.
    pub(super) fn decode(bytes: &[u8]) -> io::Result<Self> {
        let mut parts = Reader(bytes);
        let message = parts.message().ok_or_else(|| nonsense("a message that makes no sense"))?;
        if parts.0.is_empty() { Ok(message) } else { Err(nonsense("a message that is too long")) }
    }
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other process sent {what}"))
}

/// Bytes in the making.
struct Writer(Vec<u8>);

impl Writer {
    fn u8(&mut self, number: u8) {
        self.0.push(number);
    }

    fn u32(&mut self, number: u32) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn u64(&mut self, number: u64) {
        self.0.extend_from_slice(&number.to_le_bytes());
    }

    fn text(&mut self, text: &str) {
        self.u32(text.len() as u32);
        self.0.extend_from_slice(text.as_bytes());
    }

    fn list<T>(&mut self, items: &[T], mut item: impl FnMut(&mut Self, &T)) {
        self.u32(items.len() as u32);
        items.iter().for_each(|each| item(self, each));
    }

    fn key(&mut self, key: Key) {
        let (kind, payload) = key.parts();
        self.u8(kind);
        self.u64(payload);
    }

    fn quota(&mut self, quota: Quota) {
        self.u32(quota.capacity().get());
        self.u64(quota.rate().nanos_per_sec());
    }

    fn saved(&mut self, saved: &Saved) {
        self.key(saved.key);
        let (whole, fraction) = saved.bucket.tokens().parts();
        self.u32(whole);
        self.u64(fraction);
        self.u64(saved.bucket.at());
        self.quota(saved.quota);
    }
}

/// Bytes yet to be read.
struct Reader<'a>(&'a [u8]);

impl Reader<'_> {
    fn message(&mut self) -> Option<Message> {
        Some(match self.u8()? {
            1 => {
                Message::Hello { version: self.u32()?, pid: self.u32()?, sockets: self.u32()?, database: self.text()? }
            }
            2 => Message::Sockets(self.list(SOCKETS, |parts| parts.text()?.parse().ok())?),
            3 => Message::Prepared,
            4 => Message::Buckets {
                at: Moment { timeline: self.u64()?, wall: self.u64()?, boot: None },
                changed: self.list(PIECE, Reader::saved)?,
                dropped: self.list(PIECE, Reader::key)?,
            },
            5 => Message::Go,
            6 => Message::Serving,
            7 => {
                Message::Debits(self.list(PIECE, |parts| {
                    Some(Debit { key: parts.key()?, tokens: parts.u32()?, quota: parts.quota()? })
                })?)
            }
            8 => Message::Settled,
            9 => Message::Refused(self.text()?),
            _ => return None,
        })
    }

    fn bytes<const N: usize>(&mut self) -> Option<[u8; N]> {
        let (first, rest) = self.0.split_first_chunk::<N>()?;
        self.0 = rest;
        Some(*first)
    }

    fn u8(&mut self) -> Option<u8> {
        self.bytes().map(u8::from_le_bytes)
    }

    fn u32(&mut self) -> Option<u32> {
        self.bytes().map(u32::from_le_bytes)
    }

    fn u64(&mut self) -> Option<u64> {
        self.bytes().map(u64::from_le_bytes)
    }

    fn text(&mut self) -> Option<String> {
        let length = self.u32()? as usize;
        let (text, rest) = self.0.split_at_checked(length)?;
        self.0 = rest;
        Some(String::from_utf8_lossy(text).into_owned())
    }

    fn list<T>(&mut self, most: usize, item: impl Fn(&mut Self) -> Option<T>) -> Option<Vec<T>> {
        let length = self.u32()? as usize;
        if length > most {
            return None;
        }
        (0..length).map(|_| item(self)).collect()
    }

    fn key(&mut self) -> Option<Key> {
        Key::from_parts(self.u8()?, self.u64()?)
    }

    fn quota(&mut self) -> Option<Quota> {
        Quota::from_parts(u64::from(self.u32()?), Rate::from_nanos_per_sec(self.u64()?)?).ok()
    }

    fn saved(&mut self) -> Option<Saved> {
        let key = self.key()?;
        let (whole, fraction) = (self.u32()?, self.u64()?);
        let bucket = Bucket::resume(Tokens::from_parts(whole, fraction), self.u64()?);
        let quota = self.quota()?;
        // More than that has no place in the limiter's tables.
        (bucket.tokens() <= Tokens::whole(quota.capacity().get())).then_some(Saved { key, bucket, quota })
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn keys() -> impl Strategy<Value = Key> {
        prop_oneof![
            any::<u64>().prop_map(Key::client),
            any::<std::net::IpAddr>().prop_map(|address| Key::address(address, 64)),
        ]
    }

    fn quotas() -> impl Strategy<Value = Quota> {
        (1..=1_000_000_000_u64, 1e-6..=1e9).prop_map(|(capacity, rate)| Quota::new(capacity, rate).unwrap())
    }

    fn buckets() -> impl Strategy<Value = Saved> {
        (keys(), quotas(), any::<u32>(), 0..1_000_000_000_000_000_000_u64, any::<u64>()).prop_map(
            |(key, quota, whole, fraction, at)| {
                let tokens = Tokens::from_parts(whole % quota.capacity(), fraction);
                Saved { key, quota, bucket: Bucket::resume(tokens, at) }
            },
        )
    }

    fn messages() -> impl Strategy<Value = Message> {
        let debits = (keys(), any::<u32>(), quotas()).prop_map(|(key, tokens, quota)| Debit { key, tokens, quota });
        let moments = (any::<u64>(), any::<u64>()).prop_map(|(timeline, wall)| Moment { timeline, wall, boot: None });
        let lists = (prop::collection::vec(buckets(), 0..20), prop::collection::vec(keys(), 0..20));
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
                Message::Sockets(addresses)
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
            prop_assert_eq!(Message::length(&bytes).unwrap(), Some(bytes.len()));
            prop_assert_eq!(Message::decode(&bytes[4..]).unwrap(), message);
        }

        #[test]
        fn a_message_that_was_cut_or_goes_on_is_none(message in messages(), cut in any::<prop::sample::Index>()) {
            let mut bytes = message.encode().split_off(4);
            let cut = cut.index(bytes.len());
            prop_assert!(Message::decode(&bytes[..cut]).is_err());
            bytes.push(0);
            prop_assert!(Message::decode(&bytes).is_err());
        }

        #[test]
        fn any_bytes_get_an_answer(bytes in prop::collection::vec(any::<u8>(), 0..200)) {
            let _ = (Message::length(&bytes), Message::decode(&bytes));
        }
    }

    #[test]
    fn lengths_that_lie_are_refused() {
        assert_eq!(Message::length(&[1, 0, 0]).unwrap(), None);
        for length in [0, LONGEST as u32 + 1, u32::MAX] {
            assert!(Message::length(&length.to_le_bytes()).is_err());
        }
        for list in [2, 7, 9] {
            let mut bytes = vec![list];
            bytes.extend_from_slice(&u32::MAX.to_le_bytes());
            assert!(Message::decode(&bytes).is_err());
        }
    }

    #[test]
    fn the_longest_lists_fit() {
        let quota = Quota::new(1_000_000_000, 1e9).unwrap();
        let saved = Saved { key: Key::client(u64::MAX), bucket: Bucket::full(quota, u64::MAX), quota };
        let debit = Debit { key: saved.key, tokens: u32::MAX, quota };
        let at = Moment { timeline: u64::MAX, wall: u64::MAX, boot: None };
        for message in [
            Message::Buckets { at, changed: vec![saved; PIECE], dropped: vec![saved.key; PIECE] },
            Message::Debits(vec![debit; PIECE]),
            Message::Sockets(vec!["[ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff]:65535".parse().unwrap(); SOCKETS]),
        ] {
            let bytes = message.encode();
            assert!(Message::length(&bytes).is_ok_and(|length| length == Some(bytes.len())));
            assert_eq!(Message::decode(&bytes[4..]).unwrap(), message);
        }
    }
}
