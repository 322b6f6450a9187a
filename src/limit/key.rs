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
//! Prefixes longer than 64 bits cannot be told apart. They would hand every host as many buckets as it likes.

use std::fmt;
use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

use aes::Aes128;
use aes::cipher::{BlockCipherDecrypt, BlockCipherEncrypt, KeyInit};

/// Whose bucket it is, for a limiter. Its bits are as good as random.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    scope: Scope,
    bits: [u64; 2],
}

/// What kind of payer it is, so that a limiter can hold each kind to its rules.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
pub enum Scope {
    /// A client, with a quota of its own.
    Client = 0,
    /// An anonymous caller, with the default quota.
    Address = 1,
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

/// Who pays: a kind and 64 bits.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Payer {
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
}

impl Payer {
    /// The longest prefix of an IPv6 address that has a bucket of its own.
    pub const MAX_IPV6_PREFIX: u8 = 64;

    /// A client by its number.
    pub fn client(number: u64) -> Self {
        Payer { kind: Kind::Client, payload: number }
    }

    /// An anonymous caller by its address: an IPv4 address (IPv4-mapped IPv6 is IPv4), or the first `ipv6_prefix` bits
    /// of an IPv6 address, at most [`MAX_IPV6_PREFIX`](Payer::MAX_IPV6_PREFIX).
    pub fn address(address: IpAddr, ipv6_prefix: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Payer { kind: Kind::Ipv4, payload: u64::from(address.to_bits()) },
            IpAddr::V6(address) => {
                let upper = (address.to_bits() >> 64) as u64;
                let dropped = Self::MAX_IPV6_PREFIX.saturating_sub(ipv6_prefix);
                let kept = u64::MAX.checked_shl(u32::from(dropped)).unwrap_or(0);
                Payer { kind: Kind::Ipv6, payload: upper & kept }
            }
        }
    }

    /// The client's number, if it is a client.
    pub fn client_number(self) -> Option<u64> {
        (self.kind == Kind::Client).then_some(self.payload)
    }

    /// The address, or the first one of the prefix, if it is an anonymous caller.
    pub fn anonymous(self) -> Option<IpAddr> {
        match self.kind {
            Kind::Client => None,
            Kind::Ipv4 => Some(Ipv4Addr::from_bits(self.payload as u32).into()),
            Kind::Ipv6 => Some(Ipv6Addr::from_bits(u128::from(self.payload) << 64).into()),
        }
    }

    /// As two numbers, to be saved: the kind (0 to 2) and the 64 bits.
    pub fn parts(self) -> (u8, u64) {
        (self.kind as u8, self.payload)
    }

    /// What [`parts`](Payer::parts) gave; `None` when it cannot have.
    pub fn from_parts(kind: u8, payload: u64) -> Option<Self> {
        let kind = match kind {
            0 => Kind::Client,
            1 if u32::try_from(payload).is_ok() => Kind::Ipv4,
            2 => Kind::Ipv6,
            _ => return None,
        };
        Some(Payer { kind, payload })
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

    /// The key of `payer`.
    #[inline]
    pub fn key(&self, payer: Payer) -> Key {
        let scope = if payer.kind == Kind::Client { Scope::Client } else { Scope::Address };
        let plain = u128::from(payer.kind as u8) << 64 | u128::from(payer.payload);
        let mut block = plain.to_le_bytes().into();
        self.0.encrypt_block(&mut block);
        Key::new(scope, u128::from_le_bytes(block.into()))
    }

    /// The key of the client with this number.
    pub fn client(&self, number: u64) -> Key {
        self.key(Payer::client(number))
    }

    /// Whose key it is; `None` when it belongs to another secret.
    pub fn payer(&self, key: Key) -> Option<Payer> {
        let mut block = key.bits().to_le_bytes().into();
        self.0.decrypt_block(&mut block);
        let plain = u128::from_le_bytes(block.into());
        let payer = Payer::from_parts(u8::try_from(plain >> 64).ok()?, plain as u64)?;
        (key.is_client() == (payer.kind == Kind::Client)).then_some(payer)
    }
}

impl fmt::Debug for KeyMaker {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str("KeyMaker(..)")
    }
}

#[cfg(test)]
mod tests {
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
        assert_eq!((Payer::from_parts(3, 0), Payer::from_parts(1, 1 << 32)), (None, None));
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
}
