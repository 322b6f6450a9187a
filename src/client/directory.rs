//! Finding a client by its key or its address.

use std::collections::HashMap;
use std::net::IpAddr;
use std::num::NonZeroU32;
use std::sync::Arc;

use hashbrown::HashTable;
use hashbrown::hash_table::Entry;
use ipnet::IpNet;

use super::prefix::PrefixMap;
use super::{Client, ClientId, KeyDigest};

/// All clients, by key digest and by longest address prefix. Immutable: a change makes another directory, and whoever
/// holds the old one goes on with it undisturbed.
#[derive(Debug, Default)]
pub struct Directory {
    clients: Vec<Arc<Client>>,
    /// The digest stands beside the client's place, so that a miss costs no look at a client.
    by_key: HashTable<(KeyDigest, u32)>,
    /// Places from 1 on, so that an empty one takes no room.
    by_address: PrefixMap<NonZeroU32>,
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
    /// A directory of `clients`.
    ///
    /// # Errors
    /// When two of them have the same credential. One network inside another is fine: the longer prefix counts.
    pub fn new(clients: impl IntoIterator<Item = Arc<Client>>) -> Result<Self, Conflict> {
        let clients: Vec<_> = clients.into_iter().collect();
        let mut by_key: HashTable<(KeyDigest, u32)> = HashTable::with_capacity(clients.len());
        let mut addresses = Vec::new();
        for (place, client) in (0_u32..).zip(&clients) {
            let from_one = NonZeroU32::MIN.saturating_add(place);
            addresses.extend(client.addresses.iter().map(|net| (net.trunc(), from_one)));
            let Some(key) = client.api_key else { continue };
            match by_key.entry(key.hash(), |(known, _)| *known == key, |(known, _)| known.hash()) {
                Entry::Vacant(free) => drop(free.insert((key, place))),
                Entry::Occupied(taken) => {
                    let other = &clients[taken.get().1 as usize];
                    return Err(Conflict::Key(other.id.clone(), client.id.clone()));
                }
            }
        }
        addresses.sort_unstable();
        for pair in addresses.windows(2) {
            if pair[0].0 == pair[1].0 {
                let id = |place: NonZeroU32| clients[place.get() as usize - 1].id.clone();
                return Err(Conflict::Address(id(pair[0].1), id(pair[1].1), pair[0].0));
            }
        }
        Ok(Directory { by_key, by_address: PrefixMap::new(addresses), clients })
    }

    /// The client with this key.
    pub fn by_key(&self, key: &KeyDigest) -> Option<&Arc<Client>> {
        let (_, place) = self.by_key.find(key.hash(), |(known, _)| known == key)?;
        Some(&self.clients[*place as usize])
    }

    /// The client whose addresses cover `address` with the longest prefix.
    pub fn by_address(&self, address: IpAddr) -> Option<&Arc<Client>> {
        Some(&self.clients[self.by_address.get(address)?.get() as usize - 1])
    }

    /// The directory after `changes`: of each client what it was, and what it is. A client that stays keeps its usage.
    #[must_use]
    pub fn with(&self, changes: impl IntoIterator<Item = (Option<Client>, Option<Client>)>) -> Self {
        let mut clients: HashMap<u64, Arc<Client>> =
            self.clients.iter().map(|client| (client.number, Arc::clone(client))).collect();
        for (before, after) in changes {
            let old = before.and_then(|before| clients.remove(&before.number));
            if let Some(mut after) = after {
                if let Some(old) = old {
                    after.usage = Arc::clone(&old.usage);
                }
                clients.insert(after.number, Arc::new(after));
            }
        }
        Directory::new(clients.into_values()).unwrap_or_default()
    }

    /// The client as it is known here: found by the credentials of `client`, and of the same number.
    pub fn get(&self, client: &Client) -> Option<&Arc<Client>> {
        self.clients.iter().find(|known| known.number == client.number)
    }

    /// How many clients there are.
    pub fn len(&self) -> usize {
        self.clients.len()
    }

    /// Whether there is none.
    pub fn is_empty(&self) -> bool {
        self.clients.is_empty()
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Mode, Quota};

    fn client(number: u64, name: &str, key: Option<&str>, addresses: &[&str]) -> Arc<Client> {
        Arc::new(Client {
            number,
            id: ClientId::parse(name).unwrap(),
            quota: Quota::new(10, 1.0).unwrap(),
            mode: Mode::Limit,
            addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
            api_key: key.map(|key| KeyDigest::of(key.as_bytes())),
            usage: Arc::default(),
        })
    }

    #[test]
    fn clients_are_found_by_key_and_by_longest_prefix() {
        let directory = Directory::new([
            client(1, "wide", None, &["10.0.0.0/8", "2001:db8::/32"]),
            client(2, "narrow", Some("secret"), &["10.1.0.0/16"]),
        ])
        .unwrap();
        let by_address = |address: &str| directory.by_address(address.parse().unwrap()).map(|client| client.number);
        assert_eq!(directory.by_key(&KeyDigest::of(b"secret")).unwrap().number, 2);
        assert!(directory.by_key(&KeyDigest::of(b"Secret")).is_none());
        assert_eq!((by_address("10.1.2.3"), by_address("10.2.2.3")), (Some(2), Some(1)));
        assert_eq!((by_address("2001:db8::1"), by_address("192.0.2.1")), (Some(1), None));
    }

    #[test]
    fn a_credential_belongs_to_one_client() {
        let (a, b) = (client(1, "a", Some("k"), &["10.0.0.0/8"]), client(2, "b", Some("k"), &[]));
        assert_eq!(
            Directory::new([a.clone(), b]).unwrap_err(),
            Conflict::Key(a.id.clone(), ClientId::parse("b").unwrap())
        );
        let c = client(3, "c", None, &["10.0.0.7/8"]);
        let error = Directory::new([a, c]).unwrap_err().to_string();
        assert_eq!(error, "clients a and c both have the address 10.0.0.0/8");
    }
}
