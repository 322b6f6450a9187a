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
//! Buckets of policies have messages of their own, which only a successor gets that has said that it knows them, and
//! says so only where its predecessor has [given](super::predecessor) one descriptor more.
//!
//! The last minutes, which the page shows, go the same way, by another descriptor; and by one more what the store of a
//! fleet is still to be told.
//!
//! Buckets go by who pays, not by the keys of one process: the other end may have another secret, or none.
//!
//! Refused: a format of serde (postcard, JSON lines), which the version before does not understand, so that an upgrade
//! from it would stop the service once.

use std::io;
use std::time::Duration;

use borsh::{BorshDeserialize, BorshSerialize};

use crate::client::{Quota, Rate};
use crate::limit::{Bucket, Payer, PolicyId, Tokens};
use crate::process::ListenAddress;
use crate::store::{Moment, Saved, SavedOwed};
use crate::telemetry::{BackendStates, KEPT, Latency, MOST_CHANGES, Sample};
use crate::upstream::BackendState;

/// Counts up when the words change. Two processes that do not speak the same part as friends: the old one goes on.
pub(super) const VERSION: u32 = 1;
/// How many sockets go with one message; the kernel takes 253.
pub(super) const SOCKETS: usize = 64;
/// How many buckets or debits go into one message, so that none is too long.
pub(super) const PIECE: usize = 4096;
/// How many backends go into one message with what became of them.
pub(super) const SOME_BACKENDS: usize = 256;

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
    /// Successor, before it is prepared: I know policies.
    KnowsPolicies,
    /// Successor, before it is prepared: I know the last minutes.
    KnowsMinutes,
    /// Successor, before it is prepared: I know what may be owed.
    KnowsOwed,
    /// Predecessor: what I gave and the fleet's store is still to be told, which is yours to do. At most [`PIECE`].
    Owed(Vec<SavedOwed>),
    /// Predecessor: what the last minutes were like. At most [`KEPT`].
    Minutes(Vec<Sample>),
    /// Predecessor: how some backends stood in them. At most [`SOME_BACKENDS`].
    Backends(Vec<BackendStates>),
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
            Message::Buckets { at, changed, dropped }
                if changed.iter().map(|saved| &saved.payer).chain(dropped).any(|payer| payer.policy().is_some()) =>
            {
                let changed: Vec<_> = changed.iter().map(|saved| (policy_of(saved.payer), saved.to_wire())).collect();
                let dropped: Vec<_> = dropped.iter().map(|payer| (policy_of(*payer), payer.to_wire())).collect();
                borsh::to_vec(&(11_u8, at.timeline, at.wall, changed, dropped))
            }
            Message::Buckets { at, changed, dropped } => {
                borsh::to_vec(&(4_u8, at.timeline, at.wall, parts_of(changed), parts_of(dropped)))
            }
            Message::Go => borsh::to_vec(&5_u8),
            Message::Serving => borsh::to_vec(&6_u8),
            Message::Debits(debits) if debits.iter().any(|debit| debit.payer.policy().is_some()) => {
                let debits: Vec<_> = debits.iter().map(|debit| (policy_of(debit.payer), debit.to_wire())).collect();
                borsh::to_vec(&(12_u8, debits))
            }
            Message::KnowsPolicies => borsh::to_vec(&10_u8),
            Message::KnowsMinutes => borsh::to_vec(&13_u8),
            Message::Minutes(samples) => borsh::to_vec(&(14_u8, parts_of(samples))),
            Message::KnowsOwed => borsh::to_vec(&16_u8),
            Message::Owed(all) => {
                let all: Vec<_> = all.iter().map(|owed| (policy_of(owed.payer), owed.to_wire())).collect();
                borsh::to_vec(&(17_u8, all))
            }
            Message::Backends(backends) => borsh::to_vec(&(15_u8, parts_of(backends))),
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
            10 => Message::KnowsPolicies,
            11 => {
                let (timeline, wall) = BorshDeserialize::deserialize(rest)?;
                let at = Moment { timeline, wall, boot: None };
                Message::Buckets { at, changed: within(rest, PIECE)?, dropped: within(rest, PIECE)? }
            }
            12 => Message::Debits(within(rest, PIECE)?),
            13 => Message::KnowsMinutes,
            14 => Message::Minutes(list(rest, KEPT)?),
            15 => Message::Backends(list(rest, SOME_BACKENDS)?),
            16 => Message::KnowsOwed,
            17 => Message::Owed(within(rest, PIECE)?),
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

/// The policy of a payer as a number, 0 when it is in none.
fn policy_of(payer: Payer) -> u64 {
    payer.policy().map_or(0, PolicyId::bits)
}

/// What has a payer, which may be in a policy.
trait OfPayer: Wired {
    /// None when the numbers are out of bounds.
    fn from_wire_within(policy: Option<PolicyId>, parts: Self::Parts) -> Option<Self>;
}

/// A list of so many at most, each with its policy.
fn within<T: OfPayer>(rest: &mut &[u8], most: usize) -> io::Result<Vec<T>> {
    let parts = Vec::<(u64, T::Parts)>::deserialize(rest)?;
    let item = |(policy, parts)| {
        let policy = if policy == 0 { None } else { Some(PolicyId::from_bits(policy)?) };
        T::from_wire_within(policy, parts)
    };
    let items = parts.into_iter().map(item).collect::<Option<Vec<T>>>();
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

    fn from_wire(parts: Self::Parts) -> Option<Self> {
        Payer::from_wire_within(None, parts)
    }
}

impl OfPayer for Payer {
    fn from_wire_within(policy: Option<PolicyId>, (kind, payload): Self::Parts) -> Option<Self> {
        match policy {
            Some(policy) => Payer::from_parts_within(policy, kind, payload),
            None => Payer::from_parts(kind, payload),
        }
    }
}

impl Wired for Sample {
    type Parts = (u64, [u64; 6], Option<[u64; 3]>, [u64; 3]);

    fn to_wire(&self) -> Self::Parts {
        let nanos = |Latency { p50, p95, p99 }: Latency| [p50, p95, p99].map(|time| time.as_nanos() as u64);
        let gauges = [self.connections, self.in_flight, self.buckets].map(|gauge| gauge as u64);
        (self.at, self.answers, self.latency.map(nanos), gauges)
    }

    fn from_wire((at, answers, latency, gauges): Self::Parts) -> Option<Self> {
        let latency = latency.map(|nanos| {
            let [p50, p95, p99] = nanos.map(Duration::from_nanos);
            Latency { p50, p95, p99 }
        });
        let [connections, in_flight, buckets] = gauges.map(|gauge| gauge as usize);
        Some(Sample { at, answers, latency, connections, in_flight, buckets })
    }
}

/// The states by their numbers on the wire.
const STATES: [BackendState; 5] =
    [BackendState::Unknown, BackendState::Up, BackendState::Down, BackendState::Ejected, BackendState::Drain];

impl Wired for BackendStates {
    type Parts = (String, String, Vec<(u64, u8)>);

    fn to_wire(&self) -> Self::Parts {
        let number = |state| STATES.iter().position(|known| *known == state).unwrap_or_default() as u8;
        let states = self.states.iter().map(|(at, state)| (*at, number(*state))).collect();
        (self.upstream.clone(), self.address.clone(), states)
    }

    fn from_wire((upstream, address, states): Self::Parts) -> Option<Self> {
        let state = |(at, number)| Some((at, *STATES.get(usize::from(number))?));
        let states: Vec<_> = states.into_iter().map(state).collect::<Option<_>>()?;
        (states.len() <= MOST_CHANGES).then_some(BackendStates { upstream, address, states })
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

    fn from_wire(parts: Self::Parts) -> Option<Self> {
        Saved::from_wire_within(None, parts)
    }
}

impl OfPayer for Saved {
    fn from_wire_within(policy: Option<PolicyId>, (payer, (whole, fraction), at, quota): Self::Parts) -> Option<Self> {
        let (payer, quota): (_, Quota) = (Payer::from_wire_within(policy, payer)?, Wired::from_wire(quota)?);
        let bucket = Bucket::resume(Tokens::from_parts(whole, fraction), at);
        // More than that has no place in the limiter's tables.
        (bucket.tokens() <= Tokens::MOST).then_some(Saved { payer, bucket, quota })
    }
}

impl Wired for Debit {
    type Parts = ((u8, u64), u32, (u32, u64));

    fn to_wire(&self) -> Self::Parts {
        (self.payer.parts(), self.tokens, self.quota.to_wire())
    }

    fn from_wire(parts: Self::Parts) -> Option<Self> {
        Debit::from_wire_within(None, parts)
    }
}

impl OfPayer for Debit {
    fn from_wire_within(policy: Option<PolicyId>, (payer, tokens, quota): Self::Parts) -> Option<Self> {
        Some(Debit { payer: Payer::from_wire_within(policy, payer)?, tokens, quota: Wired::from_wire(quota)? })
    }
}

impl Wired for SavedOwed {
    type Parts = ((u8, u64), u64, (u32, u64));

    fn to_wire(&self) -> Self::Parts {
        (self.payer.parts(), self.tokens, self.quota.to_wire())
    }

    fn from_wire(parts: Self::Parts) -> Option<Self> {
        SavedOwed::from_wire_within(None, parts)
    }
}

impl OfPayer for SavedOwed {
    fn from_wire_within(policy: Option<PolicyId>, (payer, tokens, quota): Self::Parts) -> Option<Self> {
        Some(SavedOwed { payer: Payer::from_wire_within(policy, payer)?, tokens, quota: Wired::from_wire(quota)? })
    }
}

#[cfg(test)]
mod tests;
