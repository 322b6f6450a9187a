//! Finding a client by its key or its address.
//!
//! Keys and networks stand in two [`CredentialTable`]s, which share with the next directory whatever does not change: a
//! change costs microseconds, whatever the number of clients.
//!
//! The longest prefix is found by asking for each length that any client has, the longest first. So a lookup by address
//! costs one search for each length in use that is at least as long as the one that matches: 40 to 80 ns each at a
//! million clients. Clients have few lengths as a rule (/32, /24, /16; /64, /48). The worst case is an unknown address
//! when clients have all 33 lengths of IPv4, or all 129 of IPv6; `docs/benchmarks.md` has the figures. Only who may
//! write clients can bring that about.
//!
//! Refused: flat ranges in their order, where a lookup does not depend on the lengths, but one change moves a million
//! entries; a trie that is copied along one path, which waits for memory once for each level.

use std::collections::hash_map::Entry;
use std::collections::{HashMap, HashSet};
use std::net::IpAddr;
use std::sync::Arc;
use std::time::SystemTime;

use ipnet::IpNet;

use super::lengths::Lengths;
use super::table::CredentialTable;
use super::{Client, ClientId, KeyDigest, canonical};

/// All clients, by key digest and by longest address prefix. Immutable: a change makes another directory, and whoever
/// holds the old one goes on with it undisturbed. A clone costs little and shares everything.
#[derive(Clone, Debug, Default)]
pub struct Directory {
    by_key: CredentialTable<KeyDigest>,
    by_network: CredentialTable<Prefix>,
    /// The lengths of the networks, of each family.
    v4: Lengths,
    v6: Lengths,
    len: usize,
}

/// Two clients cannot have the same credential.
#[derive(Clone, Debug, PartialEq, Eq, thiserror::Error)]
pub enum Conflict {
    /// The same key.
    #[error("clients {0} and {1} have the same API key")]
    Key(ClientId, ClientId),
    /// The same address or network.
    #[error("clients {0} and {1} both have the address {2}")]
    Address(ClientId, ClientId, IpNet),
}

impl Directory {
    /// A directory of `clients`, whose bits differ. One without any credential could not be found, and is left out.
    ///
    /// # Errors
    /// When two of them have the same credential. One network inside another is fine: the longer prefix counts.
    pub fn new(clients: impl IntoIterator<Item = Arc<Client>>) -> Result<Self, Conflict> {
        let mut directory = Directory::default();
        for client in clients {
            directory.insert(&client).map_or(Ok(()), Err)?;
        }
        Ok(directory)
    }

    /// The client with this key, if that counts at `now`, by the wall clock.
    pub fn by_key(&self, key: &KeyDigest, now: SystemTime) -> Option<&Arc<Client>> {
        self.by_key.get(key).filter(|client| client.counts(key, now))
    }

    /// The client whose addresses cover `address` with the longest prefix. IPv4-mapped IPv6 is IPv4.
    pub fn by_address(&self, address: IpAddr) -> Option<&Arc<Client>> {
        self.longest_match(address).map(|(_, client)| client)
    }

    /// The longest prefix among the clients' addresses that covers `address`, and whose it is. IPv4-mapped IPv6 is
    /// IPv4.
    pub fn longest_match(&self, address: IpAddr) -> Option<(IpNet, &Arc<Client>)> {
        let address = address.to_canonical();
        let lengths = if address.is_ipv4() { &self.v4 } else { &self.v6 };
        let (length, client) = lengths
            .longest_first()
            .find_map(|length| Some((length, self.by_network.get(&Prefix::of(address, length))?)))?;
        Some((IpNet::new(address, length).ok()?.trunc(), client))
    }

    /// The client as it is known here: found by the credentials of `client`, and of the same bits.
    pub fn get(&self, client: &Client) -> Option<&Arc<Client>> {
        let by_key = client.keys().filter_map(|key| self.by_key.get(&key));
        let by_network = client.addresses.iter().filter_map(|network| self.by_network.get(&canonical(*network).into()));
        by_key.chain(by_network).find(|known| known.uid == client.uid)
    }

    /// The client that has this credential, as [`Client::credential`] writes it, whether or not it counts now.
    pub fn by_credential(&self, text: &str) -> Option<&Arc<Client>> {
        match KeyDigest::from_hex(text) {
            Some(key) => self.by_key.get(&key),
            None => self.by_network.get(&canonical(text.parse().ok()?).into()),
        }
    }

    /// The directory after `changes`: of each client what it was and what it is, in the order in which that came about.
    /// A client that stays keeps its usage. Credentials may go from one client to another, whatever the order.
    ///
    /// The repository sees to it that no two clients have the same credential in the end. If they do, the latest has
    /// it.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = (Option<Client>, Option<Client>)>) -> Self {
        let mut directory = self.clone();
        // All go before any comes, so that whoever takes over a credential finds it free.
        let mut coming = Vec::new();
        for (before, after) in fold(changes) {
            let known = [&before, &after].into_iter().flatten().find_map(|client| directory.get(client).cloned());
            if let Some(known) = &known {
                directory.remove(known);
            }
            if let Some(mut client) = after {
                client.usage = known.map_or(client.usage, |known| Arc::clone(&known.usage));
                coming.push(Arc::new(client));
            }
        }
        for client in &coming {
            directory.insert(client);
        }
        directory
    }

    /// The clients of which `which` holds, each once. Looks at all clients.
    pub fn those(&self, which: impl Fn(&Client) -> bool) -> impl Iterator<Item = &Arc<Client>> {
        let mut seen = HashSet::new();
        self.credentials().filter(move |client| which(client) && seen.insert(client.uid))
    }

    /// All clients, each as often as it has credentials.
    pub fn credentials(&self) -> impl Iterator<Item = &Arc<Client>> {
        self.by_key.clients().chain(self.by_network.clients())
    }

    /// The clients that are not the same in `other`, each as often as it has credentials of which that is so. Of
    /// directories of which one was made from the other, only what changed is looked at.
    pub fn apart_from<'a>(&'a self, other: &'a Directory) -> impl Iterator<Item = &'a Arc<Client>> {
        self.by_key.apart_from(&other.by_key).chain(self.by_network.apart_from(&other.by_network))
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.len
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.len == 0
    }

    /// Adds a client that is not there. Tells of another that had one of its credentials and has lost it.
    fn insert(&mut self, client: &Arc<Client>) -> Option<Conflict> {
        let mut conflict = None;
        // A change that is told of twice may find the client as it was later.
        let mut counted = false;
        for key in client.keys() {
            let Some(other) = self.by_key.insert(key, Arc::clone(client)) else { continue };
            counted |= other.uid == client.uid;
            self.forget_if_lost(&other);
            conflict = Some(Conflict::Key(other.id.clone(), client.id.clone()));
        }
        for network in &client.addresses {
            let network = canonical(*network);
            match self.by_network.insert(network.into(), Arc::clone(client)) {
                None => self.lengths(network).add(network.prefix_len()),
                // It names one network twice.
                Some(other) if Arc::ptr_eq(&other, client) => {}
                Some(other) => {
                    counted |= other.uid == client.uid;
                    self.forget_if_lost(&other);
                    conflict = Some(Conflict::Address(other.id.clone(), client.id.clone(), network));
                }
            }
        }
        self.len += usize::from(!counted && (client.keys().next().is_some() || !client.addresses.is_empty()));
        conflict
    }

    /// Removes a client that is there, as it is known here.
    fn remove(&mut self, known: &Client) {
        for key in known.keys() {
            self.by_key.remove(&key, known.uid);
        }
        for network in &known.addresses {
            let network = canonical(*network);
            if self.by_network.remove(&network.into(), known.uid) {
                self.lengths(network).remove(network.prefix_len());
            }
        }
        self.len -= 1;
    }

    /// Does not count a client any more that has lost its last credential.
    fn forget_if_lost(&mut self, client: &Client) {
        if self.get(client).is_none() {
            self.len -= 1;
        }
    }

    fn lengths(&mut self, network: IpNet) -> &mut Lengths {
        match network {
            IpNet::V4(_) => &mut self.v4,
            IpNet::V6(_) => &mut self.v6,
        }
    }
}

/// The first bits of an address: IPv4 as mapped into IPv6, so that comparing and hashing are the same few steps for
/// both. The families do not meet, because a canonical IPv6 network is not one of mapped addresses.
#[derive(Clone, Copy, Debug, PartialEq, Eq, Hash)]
struct Prefix {
    upper: u64,
    lower: u64,
    length: u8,
}

impl Prefix {
    /// The first `length` bits of `address`, in its own family.
    fn of(address: IpAddr, length: u8) -> Self {
        let (bits, length) = match address {
            IpAddr::V4(address) => (address.to_ipv6_mapped().to_bits(), 96 + length),
            IpAddr::V6(address) => (address.to_bits(), length),
        };
        let kept = bits & u128::MAX.checked_shl(128 - u32::from(length)).unwrap_or(0);
        Prefix { upper: (kept >> 64) as u64, lower: kept as u64, length }
    }
}

impl From<IpNet> for Prefix {
    fn from(network: IpNet) -> Self {
        Prefix::of(network.addr(), network.prefix_len())
    }
}

/// What a client was at first, and what it is in the end.
type DirectoryChange = (Option<Client>, Option<Client>);

/// The changes, those of one client drawn together into one.
fn fold(changes: impl IntoIterator<Item = DirectoryChange>) -> Vec<DirectoryChange> {
    let mut folded: Vec<DirectoryChange> = Vec::new();
    let mut places: HashMap<u128, usize> = HashMap::new();
    for (before, after) in changes {
        let Some(uid) = before.as_ref().or(after.as_ref()).map(|client| client.uid) else { continue };
        match places.entry(uid) {
            Entry::Occupied(place) => folded[*place.get()].1 = after,
            Entry::Vacant(free) => {
                free.insert(folded.len());
                folded.push((before, after));
            }
        }
    }
    folded
}

#[cfg(test)]
mod tests;
