//! A set of networks that the operator names: trusted proxies, a handful or a few hundred.
//!
//! Merged and sorted, so that asking is one binary search, whatever lies within what. Finding a client by its address
//! is another matter: the [`Directory`](super::Directory) tells whose network it is, for a million of them.

use std::net::IpAddr;

use ipnet::{IpNet, Ipv4Net, Ipv6Net};

/// Networks, of which it is asked whether any covers an address.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Networks {
    v4: Vec<Ipv4Net>,
    v6: Vec<Ipv6Net>,
}

impl FromIterator<IpNet> for Networks {
    /// IPv4-mapped IPv6 addresses are IPv4 addresses when they are asked for, so networks of them are never found.
    fn from_iter<I: IntoIterator<Item = IpNet>>(networks: I) -> Self {
        let (mut v4, mut v6) = (Vec::new(), Vec::new());
        for network in networks {
            match network {
                IpNet::V4(network) => v4.push(network),
                IpNet::V6(network) => v6.push(network),
            }
        }
        // Merged, none lies within another, and they come in their order.
        Networks { v4: Ipv4Net::aggregate(&v4), v6: Ipv6Net::aggregate(&v6) }
    }
}

impl Networks {
    /// Whether one of them covers `address`.
    pub fn contains(&self, address: IpAddr) -> bool {
        match address.to_canonical() {
            IpAddr::V4(address) => {
                let after = self.v4.partition_point(|network| network.network() <= address);
                after.checked_sub(1).is_some_and(|last| self.v4[last].contains(&address))
            }
            IpAddr::V6(address) => {
                let after = self.v6.partition_point(|network| network.network() <= address);
                after.checked_sub(1).is_some_and(|last| self.v6[last].contains(&address))
            }
        }
    }
}

#[cfg(test)]
mod tests {
    use std::net::{Ipv4Addr, Ipv6Addr};

    use proptest::prelude::*;

    use super::*;

    #[test]
    fn the_ends_of_networks_and_of_the_space_are_covered() {
        let networks: Networks = ["10.1.0.0/16", "10.0.0.0/8", "255.255.255.255/32", "2001:db8::/32"]
            .map(|text| text.parse().unwrap())
            .into_iter()
            .collect();
        for (address, covered) in [
            ("10.0.0.0", true),
            ("10.255.255.255", true),
            ("::ffff:10.1.2.3", true),
            ("9.255.255.255", false),
            ("11.0.0.0", false),
            ("255.255.255.255", true),
            ("255.255.255.254", false),
            ("2001:db8:ffff::1", true),
            ("2001:db9::", false),
        ] {
            assert_eq!(networks.contains(address.parse().unwrap()), covered, "{address}");
        }
        let all: Networks = ["0.0.0.0/0", "::/0"].map(|text| text.parse().unwrap()).into_iter().collect();
        assert!(all.contains([255; 4].into()) && all.contains(Ipv6Addr::from_bits(u128::MAX).into()));
        assert!(!Networks::default().contains([127, 0, 0, 1].into()));
    }

    proptest! {
        /// It agrees with looking at every network. Few distinct bits make for deep nesting.
        #[test]
        fn agrees_with_a_linear_search(
            networks in prop::collection::vec((any::<bool>(), any::<[bool; 8]>(), 0_u8..=128), 0..100),
            addresses in prop::collection::vec((any::<bool>(), any::<[bool; 8]>()), 20),
        ) {
            let spread = |v4: bool, bits: [bool; 8]| -> IpAddr {
                let bits = bits.iter().fold(0_u128, |all, bit| (all << 16) | if *bit { 0xffff } else { 0 });
                if v4 { Ipv4Addr::from_bits(bits as u32).into() } else { Ipv6Addr::from_bits(bits).into() }
            };
            let nets: Vec<IpNet> = networks
                .into_iter()
                .map(|(v4, bits, length)| IpNet::new(spread(v4, bits), if v4 { length / 4 } else { length }).unwrap().trunc())
                .collect();
            let set: Networks = nets.iter().copied().collect();
            let edges = nets.iter().flat_map(|net| [net.network(), net.broadcast()]);
            for address in edges.chain(addresses.into_iter().map(|(v4, bits)| spread(v4, bits))) {
                let address = address.to_canonical();
                prop_assert_eq!(set.contains(address), nets.iter().any(|net| net.contains(&address)), "{}", address);
            }
        }
    }
}
