use proptest::prelude::*;

use super::*;
use crate::client::Quota;

fn client(number: u128, name: &str, key: Option<&str>, addresses: &[&str]) -> Arc<Client> {
    Arc::new(Client {
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        api_key: key.map(|key| KeyDigest::of(key.as_bytes())),
        ..Client::new(number, ClientId::parse(name).unwrap(), Quota::new(10, 1.0).unwrap())
    })
}

#[test]
fn clients_are_found_by_key_and_by_longest_prefix() {
    let directory = Directory::new([
        client(1, "wide", None, &["10.0.0.0/8", "2001:db8::/32"]),
        client(2, "narrow", Some("secret"), &["10.1.0.0/16"]),
    ])
    .unwrap();
    let by_address = |address: &str| directory.by_address(address.parse().unwrap()).map(|client| client.uid);
    assert_eq!(directory.by_key(&KeyDigest::of(b"secret"), SystemTime::UNIX_EPOCH).unwrap().uid, 2);
    assert!(directory.by_key(&KeyDigest::of(b"Secret"), SystemTime::UNIX_EPOCH).is_none());
    assert_eq!((by_address("10.1.2.3"), by_address("10.2.2.3")), (Some(2), Some(1)));
    assert_eq!((by_address("2001:db8::1"), by_address("192.0.2.1")), (Some(1), None));
}

#[test]
fn a_credential_belongs_to_one_client() {
    let (a, b) = (client(1, "a", Some("k"), &["10.0.0.0/8"]), client(2, "b", Some("k"), &[]));
    assert_eq!(Directory::new([a.clone(), b]).unwrap_err(), Conflict::Key(a.id.clone(), ClientId::parse("b").unwrap()));
    let c = client(3, "c", None, &["10.0.0.7/8"]);
    let error = Directory::new([a, c]).unwrap_err().to_string();
    assert_eq!(error, "clients a and c both have the address 10.0.0.0/8");
}

#[test]
fn a_mapped_network_is_the_ipv4_network() {
    let directory = Directory::new([client(1, "a", None, &["::ffff:10.1.0.0/112"])]).unwrap();
    for address in ["10.1.2.3", "::ffff:10.1.2.3"] {
        let (network, found) = directory.longest_match(address.parse().unwrap()).unwrap();
        assert_eq!((network.to_string().as_str(), found.uid), ("10.1.0.0/16", 1), "{address}");
    }
    assert!(directory.by_address("10.2.0.0".parse().unwrap()).is_none());
    let all = Directory::new([client(1, "v6", None, &["::/0"]), client(2, "v4", None, &["0.0.0.0/0"])]).unwrap();
    let number = |address: &str| all.by_address(address.parse().unwrap()).unwrap().uid;
    assert_eq!((number("192.0.2.1"), number("::ffff:192.0.2.1"), number("2001:db8::1")), (2, 2, 1));
}

#[test]
fn a_change_counts_in_the_new_directory_only() {
    let old = Directory::new([client(1, "a", Some("k"), &["10.0.0.0/8"])]).unwrap();
    let before = client(1, "a", Some("k"), &["10.0.0.0/8"]);
    let after = client(1, "a", Some("l"), &["10.0.0.0/8"]);
    let new = old.with([(Some(Client::clone(&before)), Some(Client::clone(&after)))]);
    let (k, l) = (KeyDigest::of(b"k"), KeyDigest::of(b"l"));
    assert_eq!(
        (old.by_key(&k, SystemTime::UNIX_EPOCH).is_some(), old.by_key(&l, SystemTime::UNIX_EPOCH).is_some()),
        (true, false)
    );
    assert_eq!(
        (new.by_key(&k, SystemTime::UNIX_EPOCH).is_some(), new.by_key(&l, SystemTime::UNIX_EPOCH).is_some()),
        (false, true)
    );
    assert!(Arc::ptr_eq(&old.get(&before).unwrap().usage, &new.get(&after).unwrap().usage));
    let none = new.with([(Some(Client::clone(&after)), None)]);
    assert_eq!((none.is_empty(), none.get(&after).is_none()), (true, true));
    assert!(none.by_address([10, 0, 0, 1].into()).is_none());
    assert_eq!((old.len(), new.len()), (1, 1));
}

#[test]
fn what_the_repository_never_does_leaves_the_count_right() {
    let a = Client::clone(&client(1, "a", Some("k"), &["10.0.0.0/8"]));
    let thief = Client::clone(&client(2, "b", Some("k"), &["10.0.0.0/8"]));
    let nobody = Client::clone(&client(3, "c", None, &[]));
    let directory = Directory::default().with([(None, Some(a.clone())), (None, Some(nobody.clone()))]);
    assert_eq!(directory.len(), 1, "one without credentials is left out");
    // It is told twice that a client was made.
    let usage = Arc::clone(&directory.get(&a).unwrap().usage);
    let directory = directory.with([(None, Some(a.clone()))]);
    assert_eq!((directory.len(), Arc::ptr_eq(&directory.get(&a).unwrap().usage, &usage)), (1, true));
    // One client takes all that another had, and then the other goes.
    let directory = directory.with([(None, Some(thief.clone()))]);
    assert_eq!((directory.len(), directory.get(&a).is_none()), (1, true));
    let directory = directory.with([(Some(a), None), (Some(nobody), None)]);
    assert_eq!((directory.len(), directory.by_address([10, 0, 0, 1].into()).unwrap().uid), (1, 2));
    assert!(directory.with([(Some(thief), None)]).is_empty());
}

#[test]
fn changes_that_are_told_again_leave_what_came_of_them() {
    let versions: Vec<Client> =
        ["k", "l", "m"].iter().map(|key| Client::clone(&client(1, "a", Some(key), &[]))).collect();
    // Loaded as it is in the end; then the changes that led there are told.
    let loaded = Directory::new([Arc::new(versions[2].clone())]).unwrap();
    let told = versions
        .windows(2)
        .fold(loaded, |directory, pair| directory.with([(Some(pair[0].clone()), Some(pair[1].clone()))]));
    let known = |key: &str| told.by_key(&KeyDigest::of(key.as_bytes()), SystemTime::UNIX_EPOCH).is_some();
    assert_eq!((told.len(), known("k"), known("l"), known("m")), (1, false, false, true));
}

/// Some keys and networks, of which clients have some each: nested ones, of both families, mapped ones among them.
const KEYS: [&str; 4] = ["k0", "k1", "k2", "k3"];
const NETWORKS: [&str; 12] = [
    "0.0.0.0/0",
    "10.0.0.0/8",
    "10.1.0.0/16",
    "10.1.2.0/24",
    "10.1.2.3/32",
    "::ffff:10.1.2.4/128",
    "::/0",
    "2001:db8::/32",
    "2001:db8:1::/48",
    "2001:db8:1:2::/64",
    "2001:db8:1:2::/80",
    "2001:db8:1:2::3/128",
];
const ADDRESSES: [&str; 12] = [
    "10.1.2.3",
    "10.1.2.4",
    "::ffff:10.1.2.3",
    "10.1.2.5",
    "10.1.3.1",
    "10.2.0.0",
    "192.0.2.1",
    "2001:db8:1:2::3",
    "2001:db8:1:2::4",
    "2001:db8:1:2:1::",
    "2001:db8:1:3::",
    "fe80::1",
];

/// The clients by number, searched from end to end.
type Model = HashMap<u128, Client>;

/// Gives the credentials in `wanted` (bits, keys first) to the client `number`, from whomever has them; deletes it when
/// there are none. Tells of the changes, of each client one.
fn assign(model: &mut Model, number: u128, wanted: u16) -> Vec<DirectoryChange> {
    let has = |bit: usize| wanted >> bit & 1 == 1;
    let api_key = (0..KEYS.len()).find(|key| has(*key)).map(|key| KeyDigest::of(KEYS[key].as_bytes()));
    let networks = (0..NETWORKS.len()).filter(|index| has(KEYS.len() + index));
    let addresses: Vec<IpNet> = networks.map(|index| NETWORKS[index].parse().unwrap()).collect();
    let mut changes = Vec::new();
    for other in (0..8).filter(|other| *other != number) {
        let Some(before) = model.get(&other).cloned() else { continue };
        let mut after = before.clone();
        after.addresses.retain(|network| !addresses.contains(network));
        after.api_key = before.api_key.filter(|key| Some(*key) != api_key);
        if (&after.addresses, after.api_key) != (&before.addresses, before.api_key) {
            changes.push((Some(before), replace(model, other, after)));
        }
    }
    let after = Client { api_key, addresses, ..Client::clone(&client(number, &format!("c{number}"), None, &[])) };
    let before = model.get(&number).cloned();
    let after = replace(model, number, after);
    if before.is_some() || after.is_some() {
        changes.push((before, after));
    }
    changes
}

fn replace(model: &mut Model, number: u128, after: Client) -> Option<Client> {
    model.remove(&number);
    let stays = after.api_key.is_some() || !after.addresses.is_empty();
    stays.then(|| model.entry(number).or_insert(after).clone())
}

fn agree(directory: &Directory, model: &Model) {
    assert_eq!(directory.len(), model.len());
    for key in KEYS.map(|key| KeyDigest::of(key.as_bytes())) {
        let slow = model.values().find(|client| client.api_key == Some(key)).map(|client| client.uid);
        assert_eq!(directory.by_key(&key, SystemTime::UNIX_EPOCH).map(|client| client.uid), slow);
    }
    for address in ADDRESSES.map(|address| address.parse::<IpAddr>().unwrap().to_canonical()) {
        let all = model.values().flat_map(|client| client.addresses.iter().map(|net| (canonical(*net), client.uid)));
        let slow = all.filter(|(net, _)| net.contains(&address)).max_by_key(|(net, _)| net.prefix_len());
        let fast = directory.longest_match(address).map(|(net, client)| (net, client.uid));
        assert_eq!(fast, slow, "{address}");
    }
    for client in model.values() {
        assert_eq!(directory.get(client).map(|known| known.uid), Some(client.uid));
    }
}

proptest! {
    /// Whatever changes hands, in whatever order it is told, the directory is as good as a search from end to end; and
    /// the one before stays as it was. Clients keep their usage for as long as they are there.
    #[test]
    fn changes_agree_with_a_linear_search(
        batches in prop::collection::vec(prop::collection::vec((0_u128..8, any::<u16>(), any::<u16>()), 1..4), 1..12),
        order in any::<u64>(),
    ) {
        let (mut model, mut directory) = (Model::new(), Directory::default());
        let mut usages: HashMap<u128, Arc<crate::client::Usage>> = HashMap::new();
        for batch in batches {
            let (old_model, old) = (model.clone(), directory.clone());
            let assigned = batch.into_iter().flat_map(|(number, some, few)| assign(&mut model, number, some & few));
            let mut changes: Vec<DirectoryChange> = assigned.collect();
            // In another order of the clients, those of each in its own.
            changes.sort_by_key(|(before, after)| {
                before.as_ref().or(after.as_ref()).unwrap().uid.wrapping_mul(u128::from(order) | 1) >> 32
            });
            directory = directory.with(changes);
            agree(&directory, &model);
            agree(&old, &old_model);
            usages.retain(|number, _| model.contains_key(number) && old_model.contains_key(number));
            for client in model.values() {
                let usage = &directory.get(client).unwrap().usage;
                let known = usages.entry(client.uid).or_insert_with(|| Arc::clone(usage));
                prop_assert!(Arc::ptr_eq(known, usage), "client {}", client.uid);
            }
        }
        let rebuilt = Directory::new(model.values().map(|client| Arc::new(client.clone()))).unwrap();
        agree(&rebuilt, &model);
        prop_assert_eq!((&rebuilt.v4, &rebuilt.v6), (&directory.v4, &directory.v6), "the lengths in use");
    }
}
