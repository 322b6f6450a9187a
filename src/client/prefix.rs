//! The longest matching prefix of an address, for IPv4 and IPv6.
//!
//! Nested prefixes are flattened into ranges that do not overlap, each with the value of the longest prefix that covers
//! it. A lookup is then one search among the starts of the ranges. Every 16th start stands in a small table of its own that
//! stays in the cache, so a search waits for memory two or three times, however many prefixes there are: a plain binary
//! search over a million of them would wait for memory ten times, a hash table for each prefix length up to 128 times, and a
//! trie once for each level.
//!
//! IPv6 is searched by the upper half of the address, as nearly all of its prefixes end there; that halves the memory that a
//! search touches. Prefixes longer than 64 bits stand in maps of their own, one for each upper half that has any.

use std::collections::HashMap;
use std::net::{IpAddr, Ipv6Addr};

use ipnet::IpNet;

/// How many ranges one entry of the small table stands for.
const BLOCK: usize = 16;

/// Values by prefix. Immutable; a lookup takes no lock.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct PrefixMap<T> {
    v4: Ranges<u32, T>,
    v6: Ranges<u64, T>,
    /// By lower half, for the upper halves in which longer prefixes lie.
    v6_long: HashMap<u64, Ranges<u64, T>>,
}

impl<T: Copy> PrefixMap<T> {
    /// A map of `prefixes`; of equal ones the last counts. IPv4-mapped IPv6 addresses are IPv4 addresses in lookups, so
    /// prefixes of them are never found.
    pub fn new(prefixes: impl IntoIterator<Item = (IpNet, T)>) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        let mut v6_long: HashMap<u64, Vec<_>> = HashMap::new();
        for (prefix, value) in prefixes {
            match prefix {
                IpNet::V4(net) => v4.push((net.network().to_bits(), net.broadcast().to_bits(), value)),
                IpNet::V6(net) => {
                    let (first, last) = (halves(net.network()), halves(net.broadcast()));
                    match net.prefix_len() {
                        0..=64 => v6.push((first.0, last.0, value)),
                        _ => v6_long.entry(first.0).or_default().push((first.1, last.1, value)),
                    }
                }
            }
        }
        let v6_long = v6_long.into_iter().map(|(upper, prefixes)| (upper, Ranges::new(prefixes))).collect();
        PrefixMap { v4: Ranges::new(v4), v6: Ranges::new(v6), v6_long }
    }

    /// The value of the longest prefix that covers `address`.
    pub fn get(&self, address: IpAddr) -> Option<T> {
        match address.to_canonical() {
            IpAddr::V4(address) => self.v4.get(address.to_bits()),
            IpAddr::V6(address) => {
                let (upper, lower) = halves(address);
                let long = || self.v6_long.get(&upper)?.get(lower);
                if self.v6_long.is_empty() { None } else { long() }.or_else(|| self.v6.get(upper))
            }
        }
    }
}

impl<T: Copy> Default for PrefixMap<T> {
    fn default() -> Self {
        Self::new([])
    }
}

/// The upper and the lower half of an address.
fn halves(address: Ipv6Addr) -> (u64, u64) {
    let bits = address.to_bits();
    ((bits >> 64) as u64, bits as u64)
}

/// Ranges that do not overlap: each from its start up to the next one's.
#[derive(Clone, Debug, PartialEq, Eq)]
struct Ranges<A, T> {
    /// Every [`BLOCK`]th of `starts`.
    blocks: Box<[A]>,
    starts: Box<[A]>,
    values: Box<[Option<T>]>,
}

impl<A: Address, T: Copy> Ranges<A, T> {
    /// Of `(first, last, value)`, which nest or do not touch.
    fn new(mut prefixes: Vec<(A, A, T)>) -> Self {
        // Outer before inner; the sort is stable, so of equal ones the last stays on top.
        prefixes.sort_by_key(|&(first, last, _)| (first, std::cmp::Reverse(last)));
        let mut ranges = Builder { starts: Vec::new(), values: Vec::new() };
        let mut open: Vec<(A, T)> = Vec::new();
        for (first, last, value) in prefixes {
            ranges.close(&mut open, Some(first));
            ranges.push(first, Some(value));
            open.push((last, value));
        }
        ranges.close(&mut open, None);
        Ranges {
            blocks: ranges.starts.iter().copied().step_by(BLOCK).collect(),
            starts: ranges.starts.into(),
            values: ranges.values.into(),
        }
    }

    fn get(&self, address: A) -> Option<T> {
        let block = self.blocks.partition_point(|start| *start <= address).checked_sub(1)? * BLOCK;
        let starts = &self.starts[block..self.starts.len().min(block + BLOCK)];
        self.values[block + starts.partition_point(|start| *start <= address) - 1]
    }
}

struct Builder<A, T> {
    starts: Vec<A>,
    values: Vec<Option<T>>,
}

impl<A: Address, T: Copy> Builder<A, T> {
    /// Ends the prefixes in `open`, innermost last, that end before `next`; all of them when nothing comes next.
    fn close(&mut self, open: &mut Vec<(A, T)>, next: Option<A>) {
        while let Some(&(last, _)) = open.last()
            && next.is_none_or(|next| last < next)
        {
            open.pop();
            if let Some(after) = last.successor() {
                self.push(after, open.last().map(|&(_, value)| value));
            }
        }
    }

    /// From `start` on it is `value`. What started there before was empty.
    fn push(&mut self, start: A, value: Option<T>) {
        if self.starts.last() == Some(&start) {
            self.values.pop();
        } else {
            self.starts.push(start);
        }
        self.values.push(value);
    }
}

/// An address as a number.
trait Address: Copy + Ord {
    /// The next one, if there is any.
    fn successor(self) -> Option<Self>;
}

impl Address for u32 {
    fn successor(self) -> Option<Self> {
        self.checked_add(1)
    }
}

impl Address for u64 {
    fn successor(self) -> Option<Self> {
        self.checked_add(1)
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    fn map(prefixes: &[&'static str]) -> PrefixMap<&'static str> {
        PrefixMap::new(prefixes.iter().map(|prefix| (prefix.parse().unwrap(), *prefix)))
    }

    #[test]
    fn the_longest_prefix_wins() {
        let map = map(&["10.0.0.0/8", "10.1.0.0/16", "10.1.2.0/24", "10.1.2.3/32", "2001:db8::/32", "2001:db8:1::/48"]);
        for (address, expected) in [
            ("10.0.0.0", Some("10.0.0.0/8")),
            ("10.255.255.255", Some("10.0.0.0/8")),
            ("10.1.9.9", Some("10.1.0.0/16")),
            ("10.1.2.2", Some("10.1.2.0/24")),
            ("10.1.2.3", Some("10.1.2.3/32")),
            ("10.1.2.4", Some("10.1.2.0/24")),
            ("10.1.3.0", Some("10.1.0.0/16")),
            ("10.2.0.0", Some("10.0.0.0/8")),
            ("11.0.0.0", None),
            ("9.255.255.255", None),
            ("::ffff:10.1.2.3", Some("10.1.2.3/32")),
            ("2001:db8:1::5", Some("2001:db8:1::/48")),
            ("2001:db8:2::5", Some("2001:db8::/32")),
            ("2001:db9::", None),
        ] {
            assert_eq!(map.get(address.parse().unwrap()), expected, "{address}");
        }
    }

    #[test]
    fn the_whole_space_and_its_ends_are_covered() {
        let map = map(&["0.0.0.0/0", "255.255.255.255/32", "::/0"]);
        assert_eq!(map.get("255.255.255.255".parse().unwrap()), Some("255.255.255.255/32"));
        assert_eq!(map.get("255.255.255.254".parse().unwrap()), Some("0.0.0.0/0"));
        assert_eq!(map.get("0.0.0.0".parse().unwrap()), Some("0.0.0.0/0"));
        let last = "ffff:ffff:ffff:ffff:ffff:ffff:ffff:ffff".parse().unwrap();
        assert_eq!((map.get(last), PrefixMap::<()>::default().get(last)), (Some("::/0"), None));
    }

    proptest! {
        /// The same for IPv6, on both sides of the middle.
        #[test]
        fn agrees_with_a_linear_search_in_ipv6(
            prefixes in prop::collection::vec((any::<[bool; 8]>(), 0_u8..=128), 0..100),
            addresses in prop::collection::vec(any::<[bool; 8]>(), 20),
        ) {
            let spread = |bits: [bool; 8]| {
                std::net::Ipv6Addr::from_bits(bits.iter().fold(0, |all, bit| (all << 16) | if *bit { 0xffff } else { 0 }))
            };
            let prefixes: Vec<(IpNet, usize)> = prefixes
                .iter()
                .enumerate()
                .map(|(index, (bits, length))| (IpNet::new(spread(*bits).into(), *length).unwrap().trunc(), index))
                .filter(|(net, _)| net.network().to_canonical().is_ipv6() && net.broadcast().to_canonical().is_ipv6())
                .collect();
            let map = PrefixMap::new(prefixes.iter().copied());
            let edges = prefixes.iter().flat_map(|(net, _)| [net.network(), net.broadcast()]);
            for address in edges.chain(addresses.into_iter().map(|bits| spread(bits).into())) {
                if address.to_canonical().is_ipv4() { continue }
                let slow = prefixes.iter().filter(|(net, _)| net.contains(&address));
                let slow = slow.max_by_key(|(net, index)| (net.prefix_len(), *index)).map(|(_, index)| *index);
                prop_assert_eq!(map.get(address), slow, "{}", address);
            }
        }

        /// It agrees with looking at every prefix. Few distinct bits make for deep nesting.
        #[test]
        fn agrees_with_a_linear_search(
            prefixes in prop::collection::vec((any::<[bool; 4]>(), 0_u8..=32), 0..200),
            addresses in prop::collection::vec(any::<u32>(), 20),
        ) {
            let spread = |bits: [bool; 4]| bits.iter().fold(0_u32, |all, bit| (all << 8) | if *bit { 0xff } else { 0 });
            let prefixes: Vec<(IpNet, usize)> = prefixes
                .iter()
                .enumerate()
                .map(|(index, (bits, length))| {
                    let address = std::net::Ipv4Addr::from_bits(spread(*bits));
                    (IpNet::new(address.into(), *length).unwrap().trunc(), index)
                })
                .collect();
            let map = PrefixMap::new(prefixes.iter().copied());
            let edges = prefixes.iter().flat_map(|(net, _)| [net.network(), net.broadcast()]);
            for address in edges.chain(addresses.into_iter().map(|bits| std::net::Ipv4Addr::from_bits(bits).into())) {
                let slow = prefixes.iter().filter(|(net, _)| net.contains(&address));
                let slow = slow.max_by_key(|(net, index)| (net.prefix_len(), *index)).map(|(_, index)| *index);
                prop_assert_eq!(map.get(address), slow, "{}", address);
            }
        }
    }
}
