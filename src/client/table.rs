//! A hash table of clients that shares what did not change with the table it was made from.
//!
//! The problem: the directory is immutable and swapped whole, so that a lookup takes no lock, and it changes thousands
//! of times a second while it holds a million clients. Copying it for each change would cost tenths of a second.
//!
//! The rule: three levels of branches, 64 wide, chosen by 18 bits of the key's hash, and under them small leaves that
//! are searched from end to end. A change copies one branch of each level and one leaf, and everything else is shared
//! by both tables: some 200 reference counts, whatever the number of clients. What nobody shares is changed in place,
//! so many changes at once pay for each branch only once, and building a table copies none. A million clients make four
//! to a leaf, ten million forty.
//!
//! The hash is keyed, and the key is drawn for each new table: whoever may choose addresses or digests cannot fill one
//! leaf with them. Branches that were emptied stay; there are at most 4,161 of them, 4.3 MB.
//!
//! Refused: a tree of fixed depth over the bits of the key itself, as chosen keys make it lopsided; wider and fewer
//! branches, which copy more for a lookup that gains little; a table of recent changes beside a large one, as merging
//! the two costs what this avoids, only later; a lock.

use std::array;
use std::hash::Hash;
use std::iter::once;
use std::sync::Arc;

use ahash::RandomState;

use super::Client;

/// How many bits of the hash choose at each level.
const BITS: u32 = 6;
const WIDTH: usize = 1 << BITS;

/// Clients by some credential of theirs. A clone costs one reference count, and changes without changing the original.
#[derive(Clone, Debug)]
pub(super) struct CredentialTable<K> {
    hasher: RandomState,
    root: Arc<Branch<Branch<Branch<Leaf<K>>>>>,
}

#[derive(Debug)]
struct Branch<T: ?Sized>([Option<Arc<T>>; WIDTH]);

type Leaf<K> = [Slot<K>];

#[derive(Clone, Debug)]
struct Slot<K> {
    key: K,
    /// None only in a leaf that is about to be dropped.
    client: Option<Arc<Client>>,
}

impl<K: Copy + Eq + Hash> CredentialTable<K> {
    /// The client with this key.
    pub(super) fn get(&self, key: &K) -> Option<&Arc<Client>> {
        let [first, second, third] = self.path(key);
        let leaf = self.root.0[first].as_ref()?.0[second].as_ref()?.0[third].as_ref()?;
        leaf.iter().find(|slot| slot.key == *key)?.client.as_ref()
    }

    /// The client of every key there is: one with several comes as often.
    pub(super) fn clients(&self) -> impl Iterator<Item = &Arc<Client>> {
        let branches = self.root.0.iter().flatten().flat_map(|branch| branch.0.iter().flatten());
        let leaves = branches.flat_map(|branch| branch.0.iter().flatten());
        leaves.flat_map(|leaf| leaf.iter().filter_map(|slot| slot.client.as_ref()))
    }

    /// The clients here that are not at the same place in `other`, each as often as it has such a place. What both
    /// tables share is not looked at.
    pub(super) fn apart_from<'a>(&'a self, other: &'a Self) -> impl Iterator<Item = &'a Arc<Client>> {
        let branches = self.root.apart_from(Some(&other.root)).flat_map(|(own, other)| own.apart_from(other));
        let leaves = branches.flat_map(|(own, other)| own.apart_from(other));
        leaves.flat_map(|(own, other)| {
            let is_there = move |client: &&Arc<Client>| {
                let mut others = other.into_iter().flatten().filter_map(|slot| slot.client.as_ref());
                others.any(|other| Arc::ptr_eq(client, other))
            };
            own.iter().filter_map(|slot| slot.client.as_ref()).filter(move |client| !is_there(client))
        })
    }

    /// Gives the key to `client`; tells who had it before.
    pub(super) fn insert(&mut self, key: K, client: Arc<Client>) -> Option<Arc<Client>> {
        let leaf = self.leaf(&key);
        if let Some(slots) = leaf
            && let Some(place) = slots.iter().position(|slot| slot.key == key)
        {
            return Arc::make_mut(slots)[place].client.replace(client);
        }
        let added = once(Slot { key, client: Some(client) });
        *leaf = Some(match leaf.take() {
            None => added.collect(),
            Some(mut slots) => match Arc::get_mut(&mut slots) {
                Some(own) => own.iter_mut().map(Slot::take).chain(added).collect(),
                None => slots.iter().cloned().chain(added).collect(),
            },
        });
        None
    }

    /// Takes the key away, if it belongs to the client with these bits; whether it did.
    pub(super) fn remove(&mut self, key: &K, uid: u128) -> bool {
        if self.get(key).is_none_or(|client| client.uid != uid) {
            return false;
        }
        let leaf = self.leaf(key);
        let kept = leaf.iter().flat_map(|slots| slots.iter()).filter(|slot| slot.key != *key).cloned();
        let kept: Arc<Leaf<K>> = kept.collect();
        *leaf = Some(kept).filter(|kept| !kept.is_empty());
        true
    }

    /// The leaf of a key, to be changed.
    fn leaf(&mut self, key: &K) -> &mut Option<Arc<Leaf<K>>> {
        let [first, second, third] = self.path(key);
        let branch = Arc::make_mut(&mut self.root).branch(first).branch(second);
        &mut branch.0[third]
    }

    fn path(&self, key: &K) -> [usize; 3] {
        let hash = self.hasher.hash_one(key);
        array::from_fn(|level| (hash >> (BITS as usize * level)) as usize % WIDTH)
    }
}

impl<T: ?Sized> Branch<Branch<T>> {
    /// The branch at a place, to be changed.
    fn branch(&mut self, place: usize) -> &mut Branch<T> {
        Arc::make_mut(self.0[place].get_or_insert_default())
    }
}

impl<T: ?Sized> Branch<T> {
    /// What is here and not the same in `other`, with what that has in its place.
    fn apart_from<'a>(&'a self, other: Option<&'a Self>) -> impl Iterator<Item = (&'a T, Option<&'a T>)> {
        self.0.iter().enumerate().filter_map(move |(place, own)| {
            let (own, other) = (own.as_ref()?, other.and_then(|other| other.0[place].as_ref()));
            let is_shared = other.is_some_and(|other| Arc::ptr_eq(own, other));
            (!is_shared).then_some((&**own, other.map(|other| &**other)))
        })
    }
}

impl<K: Copy> Slot<K> {
    /// What is in it, leaving no client behind.
    fn take(&mut self) -> Self {
        Slot { key: self.key, client: self.client.take() }
    }
}

impl<K> Default for CredentialTable<K> {
    fn default() -> Self {
        CredentialTable { hasher: RandomState::new(), root: Arc::default() }
    }
}

impl<T: ?Sized> Clone for Branch<T> {
    fn clone(&self) -> Self {
        Branch(self.0.clone())
    }
}

impl<T: ?Sized> Default for Branch<T> {
    fn default() -> Self {
        Branch(array::from_fn(|_| None))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;
    use std::hash::Hasher;

    use proptest::prelude::*;

    use super::*;
    use crate::client::{ClientId, Quota};

    /// A key of which there are only two hashes, so that leaves fill.
    #[derive(Clone, Copy, Debug, PartialEq, Eq)]
    struct Clash(u8);

    impl Hash for Clash {
        fn hash<H: Hasher>(&self, state: &mut H) {
            state.write_u8(self.0 % 2);
        }
    }

    fn client(uid: u128) -> Arc<Client> {
        Arc::new(Client::new(uid, ClientId::parse("a").unwrap(), Quota::new(1, 1.0).unwrap()))
    }

    fn number(found: Option<&Arc<Client>>) -> Option<u128> {
        found.map(|client| client.uid)
    }

    proptest! {
        /// It agrees with a map, and clones of it stay as they were. `keep` says whether the present one is shared, so
        /// that both ways of changing a leaf are taken.
        #[test]
        fn agrees_with_a_map(steps in prop::collection::vec((0_u8..12, 0_u128..3, any::<bool>(), any::<bool>()), 1..80)) {
            let (mut table, mut map) = (CredentialTable::default(), HashMap::new());
            let mut kept = Vec::new();
            for (key, owner, insert, keep) in steps {
                if keep {
                    kept.push((table.clone(), map.clone()));
                }
                if insert {
                    let before = table.insert(Clash(key), client(owner));
                    prop_assert_eq!(before.map(|client| client.uid), map.insert(key, owner));
                } else {
                    let owned = map.get(&key) == Some(&owner);
                    prop_assert_eq!(table.remove(&Clash(key), owner), owned);
                    if owned {
                        map.remove(&key);
                    }
                }
            }
            kept.push((table, map));
            for (table, map) in kept {
                for key in 0..12 {
                    prop_assert_eq!(number(table.get(&Clash(key))), map.get(&key).copied());
                }
            }
        }
    }

    #[test]
    fn tells_what_it_does_not_share() {
        let mut table = CredentialTable::default();
        (0..20_000_u64).for_each(|key| drop(table.insert(key, client(key.into()))));
        let before = table.clone();
        let apart = |one: &CredentialTable<u64>, other: &CredentialTable<u64>| {
            let mut uids: Vec<_> = one.apart_from(other).map(|client| client.uid).collect();
            uids.sort_unstable();
            uids
        };
        assert!(apart(&table, &before).is_empty());
        table.insert(7, client(7));
        table.insert(30_000, client(30_000));
        assert!(table.remove(&8, 8));
        assert_eq!((apart(&table, &before), apart(&before, &table)), (vec![7, 30_000], vec![7, 8]));
        // Tables that have nothing in common have all apart.
        assert_eq!(apart(&table, &CredentialTable::default()).len(), 20_000);
    }

    #[test]
    fn what_leaves_is_dropped() {
        let (mut table, gone) = (CredentialTable::default(), client(1));
        for key in 0..8 {
            table.insert(Clash(key), Arc::clone(&gone));
        }
        (0..7).for_each(|key| assert!(table.remove(&Clash(key), 1)));
        table.insert(Clash(7), client(2));
        assert_eq!((Arc::strong_count(&gone), number(table.get(&Clash(7)))), (1, Some(2)));
    }

    #[test]
    fn many_keys_spread() {
        let mut table = CredentialTable::default();
        (0..20_000_u64).for_each(|key| drop(table.insert(key, client(key.into()))));
        assert!((0..20_000).all(|key| number(table.get(&key)) == Some(key.into())));
        let branches = table.root.0.iter().flatten().flat_map(|branch| branch.0.iter().flatten());
        let longest = branches.flat_map(|branch| branch.0.iter().flatten()).map(|leaf| leaf.len()).max();
        assert!(longest.is_some_and(|longest| longest < 12), "{longest:?}");
    }
}
