//! Whose bucket it is.
//!
//! A bucket is paid by a client, known by a number that never changes and is never given away again (its name may be
//! made anew; then it has a new number, and a new bucket). Or by a caller whom no client matches, known by its address,
//! or for IPv6 by the prefix of its address: whoever has one address of a network has all of them, 2⁶⁴ as a rule. That
//! is the [`Payer`], as it is saved, handed over and shown.
//!
//! A limiter finds buckets by a [`Key`]: what kind of payer it is, and 128 bits, the same on every node that has the
//! same secret, and after a restart. They are the payer under AES-128, one block, keyed by the secret: a keyed hash in
//! which no two payers meet, and which whoever has the secret can read back. Nobody else can choose payers that fall on
//! one place of a table, so the bits need no second hash. The [`KeyMaker`] holds the secret, which is made once and
//! kept in the database.
//!
//! Refused: SipHash, which takes four times the instructions for 128 bits and cannot be read back, so that every bucket
//! would have to keep its address beside its key, or could not be saved for the version before; random bits for each
//! client, kept in a column of its own, which the version before would lose with each edit.
//!
//! Cost: some 20 instructions for an address, where the processor has AES; half a microsecond where it has none. A
//! client's key is made when the directory is.
//!
//! Within a policy the same payers have buckets of their own: the policy is in the block beside them, by 56 bits of a
//! hash of its name. There the payer may also be everybody together, or what a header says, by 64 bits of a keyed hash.
//! Of a million values two have the same one once in thirty million times.
//!
//! Prefixes longer than 64 bits cannot be told apart. They would hand every host as many buckets as it likes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};
use std::num::NonZeroU64;

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};
use sha2::{Digest, Sha256};

/// Whose bucket it is, for a limiter. Its bits are as good as random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    scope: Scope,
    bits: [u64; 2],
}

/// What kind of payer it is, so that a limiter can hold each kind to its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub enum Scope {
    /// A client, with a quota of its own.
    Client,
    /// An anonymous caller, with the default quota.
    Address,
    /// Somebody in a policy, with the quota of the policy.
    Policy(PolicySlot),
    /// A client in a policy, with a quota of its own there. Its bucket is the one that it has without it.
    OwnInPolicy(PolicySlot),
}

impl Scope {
    /// Its kind as a number below 31; both of a policy have one, as they are of one bucket.
    #[inline]
    pub(super) fn kind(self) -> u32 {
        match self {
            Scope::Client => 0,
            Scope::Address => 1,
            Scope::Policy(_) | Scope::OwnInPolicy(_) => 2,
        }
    }

    /// The policy it is in.
    #[inline]
    pub fn slot(self) -> Option<PolicySlot> {
        match self {
            Scope::Policy(slot) | Scope::OwnInPolicy(slot) => Some(slot),
            Scope::Client | Scope::Address => None,
        }
    }

    /// Whether the quota is the payer's own, not one that a limiter holds for many.
    #[inline]
    pub fn has_own_quota(self) -> bool {
        matches!(self, Scope::Client | Scope::OwnInPolicy(_))
    }
}

/// A policy by its place in one limiter, as long as that has it.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicySlot(pub(super) u16);

impl PolicySlot {
    /// The place as an index.
    #[inline]
    pub fn index(self) -> usize {
        usize::from(self.0)
    }
}

/// A policy by its name, the same everywhere and for good: 56 bits of the name's SHA-256.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PolicyId(NonZeroU64);

impl PolicyId {
    /// The policy that is called so.
    pub fn of(name: &str) -> Self {
        let digest = Sha256::digest(name.as_bytes());
        let bits = digest.iter().take(7).fold(0, |bits, byte| bits << 8 | u64::from(*byte));
        PolicyId(NonZeroU64::new(bits).unwrap_or(NonZeroU64::MIN))
    }

    /// Its bits, below 2⁵⁶ and never 0.
    pub fn bits(self) -> u64 {
        self.0.get()
    }

    /// What [`bits`](PolicyId::bits) gave; `None` when it cannot have.
    pub fn from_bits(bits: u64) -> Option<Self> {
        NonZeroU64::new(bits).filter(|bits| bits.get() >> 56 == 0).map(PolicyId)
    }
}

impl Key {
    /// The key of these bits.
    #[inline]
    pub fn new(scope: Scope, bits: u128) -> Self {
        Key { scope, bits: [bits as u64, (bits >> 64) as u64] }
    }

    /// A client by its [bits](crate::client::Client::uid).
    #[inline]
    pub fn client(uid: u128) -> Self {
        Key::new(Scope::Client, uid)
    }

    /// The quota that a client is tried with, beside its own: a bucket of its own that no payer has, so that it is
    /// neither saved nor handed over. Whoever refuses nothing by it loses nothing with it.
    pub fn candidate(uid: u128) -> Self {
        // Any other bits as good as random.
        Key::new(Scope::Client, uid.rotate_left(64) ^ 0x9e37_79b9_7f4a_7c15_f39c_c060_5ced_c834)
    }

    /// What kind of payer it is.
    #[inline]
    pub fn scope(self) -> Scope {
        self.scope
    }

    /// Whether it is a client.
    #[inline]
    pub fn is_client(self) -> bool {
        self.scope == Scope::Client
    }

    /// Its bits.
    pub fn bits(self) -> u128 {
        u128::from(self.bits[1]) << 64 | u128::from(self.bits[0])
    }

    /// The lower half of its bits: where a table looks for it.
    #[inline]
    pub(super) fn hash(self) -> u64 {
        self.bits[0]
    }

    /// The halves of its bits, the lower one first.
    #[inline]
    pub(super) fn halves(self) -> [u64; 2] {
        self.bits
    }
}

/// Who pays: a kind and 64 bits, and the policy in which it pays, if it is in one.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Payer {
    policy: Option<PolicyId>,
    kind: Kind,
    payload: u64,
}

/// What the 64 bits of a payer mean. The numbers are saved; do not change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
enum Kind {
    Client = 0,
    Ipv4 = 1,
    Ipv6 = 2,
    Everybody = 3,
    Value = 4,
}

impl Payer {
    /// The longest prefix of an IPv6 address that has a bucket of its own.
    pub const MAX_IPV6_PREFIX: u8 = 64;

    /// A client by its number.
    pub fn client(number: u64) -> Self {
        Payer { policy: None, kind: Kind::Client, payload: number }
    }

    /// An anonymous caller by its address: an IPv4 address (IPv4-mapped IPv6 is IPv4), or the first `ipv6_prefix` bits
    /// of an IPv6 address, at most [`MAX_IPV6_PREFIX`](Payer::MAX_IPV6_PREFIX).
    pub fn address(address: IpAddr, ipv6_prefix: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Payer { policy: None, kind: Kind::Ipv4, payload: u64::from(address.to_bits()) },
            IpAddr::V6(address) => {
                let upper = (address.to_bits() >> 64) as u64;
                let dropped = Self::MAX_IPV6_PREFIX.saturating_sub(ipv6_prefix);
                let kept = u64::MAX.checked_shl(u32::from(dropped)).unwrap_or(0);
                Payer { policy: None, kind: Kind::Ipv6, payload: upper & kept }
            }
        }
    }

    /// The same payer in a policy.
    #[must_use]
    pub fn within(self, policy: PolicyId) -> Self {
        Payer { policy: Some(policy), ..self }
    }

    /// All callers of a policy together.
    pub fn everybody(policy: PolicyId) -> Self {
        Payer { policy: Some(policy), kind: Kind::Everybody, payload: 0 }
    }

    /// Who sends a header's value in a policy, by its [hash](KeyMaker::hash).
    pub fn value(policy: PolicyId, hash: u64) -> Self {
        Payer { policy: Some(policy), kind: Kind::Value, payload: hash }
    }

    /// The policy that it is in, if it is in one.
    pub fn policy(self) -> Option<PolicyId> {
        self.policy
    }

    /// The client's number, if it is a client, in a policy or not.
    pub fn client_number(self) -> Option<u64> {
        (self.kind == Kind::Client).then_some(self.payload)
    }

    /// The address, or the first one of the prefix, if it is an anonymous caller.
    pub fn anonymous(self) -> Option<IpAddr> {
        match self.kind {
            Kind::Client | Kind::Everybody | Kind::Value => None,
            Kind::Ipv4 => Some(Ipv4Addr::from_bits(self.payload as u32).into()),
            Kind::Ipv6 => Some(Ipv6Addr::from_bits(u128::from(self.payload) << 64).into()),
        }
    }

    /// As two numbers, to be saved: the kind (0 to 2, in a policy to 4) and the 64 bits. The policy is not in them.
    pub fn parts(self) -> (u8, u64) {
        (self.kind as u8, self.payload)
    }

    /// What [`parts`](Payer::parts) gave of one in no policy; `None` when it cannot have.
    pub fn from_parts(kind: u8, payload: u64) -> Option<Self> {
        Payer::read(None, kind, payload)
    }

    /// The same of one in a policy.
    pub fn from_parts_within(policy: PolicyId, kind: u8, payload: u64) -> Option<Self> {
        Payer::read(Some(policy), kind, payload)
    }

    fn read(policy: Option<PolicyId>, kind: u8, payload: u64) -> Option<Self> {
        let kind = match kind {
            0 => Kind::Client,
            1 if u32::try_from(payload).is_ok() => Kind::Ipv4,
            2 => Kind::Ipv6,
            3 if policy.is_some() && payload == 0 => Kind::Everybody,
            4 if policy.is_some() => Kind::Value,
            _ => return None,
        };
        Some(Payer { policy, kind, payload })
    }
}

/// Makes keys of payers, and reads them back.
#[derive(Clone)]
pub struct KeyMaker(Aes128);

impl KeyMaker {
    /// Makes the keys that belong to a secret.
    pub fn new(secret: u128) -> Self {
        KeyMaker(Aes128::new(&secret.to_le_bytes().into()))
    }

    /// The key of `payer`, which is in no policy.
    #[inline]
    pub fn key(&self, payer: Payer) -> Key {
        let scope = if payer.kind == Kind::Client { Scope::Client } else { Scope::Address };
        Key::new(scope, self.bits(payer))
    }

    /// The key of `payer`, whose policy is at `slot`, where it has a quota of its `own` or not.
    #[inline]
    pub fn key_within(&self, payer: Payer, slot: PolicySlot, own: bool) -> Key {
        let scope = if own { Scope::OwnInPolicy(slot) } else { Scope::Policy(slot) };
        Key::new(scope, self.bits(payer))
    }

    /// The bits of the key of `payer`, whatever its scope is where it is used.
    pub fn of(&self, payer: Payer) -> u128 {
        self.bits(payer)
    }

    #[inline]
    fn bits(&self, payer: Payer) -> u128 {
        let policy = payer.policy.map_or(0, PolicyId::bits);
        let plain = u128::from(policy) << 72 | u128::from(payer.kind as u8) << 64 | u128::from(payer.payload);
        let mut block = plain.to_le_bytes().into();
        self.0.encrypt_block(&mut block);
        u128::from_le_bytes(block.into())
    }

    /// The key of the client with this number.
    pub fn client(&self, number: u64) -> Key {
        self.key(Payer::client(number))
    }

    /// The number of the client with these [bits](Key::client); `None` when they belong to another secret.
    pub fn number(&self, uid: u128) -> Option<u64> {
        self.payer(Key::client(uid))?.client_number()
    }

    /// 64 bits of `value`, that nobody can choose who has not the secret: a CBC-MAC over its length and itself.
    pub fn hash(&self, value: &[u8]) -> u64 {
        let mut state = value.len() as u128;
        // Of one block it is a key's block if nothing sets it apart: no payer has these upper bits.
        state |= u128::from(u8::MAX) << 64;
        for chunk in std::iter::once(&[][..]).chain(value.chunks(16)) {
            let mut padded = [0; 16];
            padded[..chunk.len()].copy_from_slice(chunk);
            let mut block = (state ^ u128::from_le_bytes(padded)).to_le_bytes().into();
            self.0.encrypt_block(&mut block);
            state = u128::from_le_bytes(block.into());
        }
        state as u64
    }

    /// Whose key it is; `None` when it belongs to another secret.
    pub fn payer(&self, key: Key) -> Option<Payer> {
        let mut block = key.bits().to_le_bytes().into();
        self.0.decrypt_block(&mut block);
        let plain = u128::from_le_bytes(block.into());
        let policy = PolicyId::from_bits((plain >> 72) as u64);
        let payer = Payer::read(policy, (plain >> 64) as u8, plain as u64)?;
        let fits = match key.scope() {
            Scope::Client => policy.is_none() && payer.kind == Kind::Client,
            Scope::Address => policy.is_none() && payer.kind != Kind::Client,
            Scope::Policy(_) | Scope::OwnInPolicy(_) => policy.is_some(),
        };
        fits.then_some(payer)
    }
}

impl fmt::Debug for KeyMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaker(..)")
    }
}

#[cfg(test)]
mod tests;
