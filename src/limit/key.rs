//! Whose bucket it is.
//!
//! A key is a kind and 64 bits. A client is known by a number that never changes and is never given away again (a row
//! number), because its name may be long and the directory has looked it up already. A caller whom no client matches is
//! known by its address, or for IPv6 by the prefix of its address: whoever has one address of a network has all of
//! them, 2⁶⁴ as a rule.
//!
//! Prefixes longer than 64 bits cannot be told apart. They would hand every host as many buckets as it likes, and eight
//! bytes more in every bucket would be a quarter of its size.

use std::net::{IpAddr, Ipv4Addr, Ipv6Addr};

/// Whose bucket it is.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct Key {
    kind: Kind,
    payload: u64,
}

/// What the 64 bits of a key mean. The numbers are saved; do not change them.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash, PartialOrd, Ord)]
#[repr(u8)]
enum Kind {
    Client = 0,
    Ipv4 = 1,
    Ipv6 = 2,
}

impl Key {
    /// The longest prefix of an IPv6 address that has a bucket of its own.
    pub const MAX_IPV6_PREFIX: u8 = 64;

    /// A client by its number.
    pub fn client(number: u64) -> Self {
        Key { kind: Kind::Client, payload: number }
    }

    /// An anonymous caller by its address: an IPv4 address (IPv4-mapped IPv6 is IPv4), or the first `ipv6_prefix` bits
    /// of an IPv6 address, at most [`MAX_IPV6_PREFIX`](Key::MAX_IPV6_PREFIX).
    pub fn address(address: IpAddr, ipv6_prefix: u8) -> Self {
        match address.to_canonical() {
            IpAddr::V4(address) => Key { kind: Kind::Ipv4, payload: u64::from(address.to_bits()) },
            IpAddr::V6(address) => {
                let upper = (address.to_bits() >> 64) as u64;
                let dropped = Self::MAX_IPV6_PREFIX.saturating_sub(ipv6_prefix);
                let kept = u64::MAX.checked_shl(u32::from(dropped)).unwrap_or(0);
                Key { kind: Kind::Ipv6, payload: upper & kept }
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

    /// What [`parts`](Key::parts) gave; `None` when it cannot have.
    pub fn from_parts(kind: u8, payload: u64) -> Option<Self> {
        let kind = match kind {
            0 => Kind::Client,
            1 if u32::try_from(payload).is_ok() => Kind::Ipv4,
            2 => Kind::Ipv6,
            _ => return None,
        };
        Some(Key { kind, payload })
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn key(address: &str, prefix: u8) -> Key {
        Key::address(address.parse().unwrap(), prefix)
    }

    #[test]
    fn one_network_is_one_caller() {
        assert_eq!(key("2001:db8:1:2::1", 64), key("2001:db8:1:2:ffff::9", 64));
        assert_ne!(key("2001:db8:1:2::1", 64), key("2001:db8:1:3::1", 64));
        assert_eq!(key("2001:db8:1:2::1", 56), key("2001:db8:1:3::1", 56));
        assert_eq!(key("2001:db8::", 0), key("fe80::1", 0));
        assert_eq!(key("2001:db8:1:2::1", 128), key("2001:db8:1:2::1", 64));
        assert_eq!(key("2001:db8:1:2::1", 64).anonymous(), Some("2001:db8:1:2::".parse().unwrap()));
    }

    #[test]
    fn a_mapped_address_is_the_address() {
        assert_eq!(key("::ffff:192.0.2.7", 64), key("192.0.2.7", 64));
        assert_ne!(key("192.0.2.7", 64), key("192.0.2.8", 64));
        assert_eq!(key("192.0.2.7", 64).anonymous(), Some("192.0.2.7".parse().unwrap()));
    }

    #[test]
    fn kinds_never_meet_and_parts_read_back() {
        let keys = [Key::client(7), key("0.0.0.7", 64), key("0:0:0:7::", 64), Key::client(u64::MAX)];
        for (index, key) in keys.iter().enumerate() {
            assert_eq!(keys.iter().position(|other| other == key), Some(index));
            let (kind, payload) = key.parts();
            assert_eq!(Key::from_parts(kind, payload), Some(*key));
        }
        assert_eq!((keys[0].client_number(), keys[0].anonymous()), (Some(7), None));
        assert_eq!(keys[1].client_number(), None);
        assert_eq!((Key::from_parts(3, 0), Key::from_parts(1, 1 << 32)), (None, None));
    }
}
