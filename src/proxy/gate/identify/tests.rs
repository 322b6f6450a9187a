use http::HeaderMap;
use proptest::prelude::*;
use sha2::Digest;

use super::*;
use crate::client::{ClientId, Quota};

fn client(number: u64, name: &str, key: Option<&str>, addresses: &[&str]) -> Arc<Client> {
    Arc::new(Client {
        addresses: addresses.iter().map(|address| address.parse().unwrap()).collect(),
        api_key: key.map(|key| KeyDigest::of(key.as_bytes())),
        ..Client::new(number.into(), ClientId::parse(name).unwrap(), Quota::new(10, 1.0).unwrap())
    })
}

fn directory() -> Directory {
    Directory::new([
        client(1, "alice", Some("alice-key"), &[]),
        client(2, "bob", Some("bob-key"), &["203.0.113.0/24"]),
        client(3, "office", None, &["203.0.113.128/25", "2001:db8:7::/48"]),
    ])
    .unwrap()
}

fn headers(lines: &[(&'static str, &str)]) -> HeaderMap {
    lines.iter().map(|(name, value)| (HeaderName::from_static(name), value.parse().unwrap())).collect()
}

fn trusting(proxies: &[&str]) -> Identity {
    let trusted_proxies = proxies.iter().map(|proxy| proxy.parse().unwrap()).collect();
    Identity { trusted_proxies, ..Identity::default() }
}

/// The name of the client, or the address of the caller, or the status of the refusal.
fn who(identity: &Identity, peer: &str, lines: &[(&'static str, &str)]) -> String {
    match identify(&headers(lines), (peer.parse().unwrap(), None, SystemTime::UNIX_EPOCH), identity, &directory()) {
        Ok(Caller { unknown_key: true, .. }) => "401".to_owned(),
        Ok(Caller { client: Some((client, _)), .. }) => client.id.to_string(),
        Ok(caller) => caller.address.to_string(),
        Err(rejection) => rejection.status().as_u16().to_string(),
    }
}

#[test]
fn a_key_decides_before_an_address() {
    let identity = Identity::default();
    for (peer, lines, expected) in [
        ("192.0.2.1", vec![("x-api-key", "alice-key")], "alice"),
        ("203.0.113.7", vec![("x-api-key", "alice-key")], "alice"),
        ("192.0.2.1", vec![("authorization", "Bearer alice-key")], "alice"),
        ("192.0.2.1", vec![("authorization", "bEARER   alice-key ")], "alice"),
        ("192.0.2.1", vec![("authorization", "Basic YWxpY2U6"), ("x-api-key", "alice-key")], "alice"),
        ("192.0.2.1", vec![("x-api-key", "alice-key"), ("authorization", "Bearer alice-key")], "alice"),
        ("203.0.113.7", vec![], "bob"),
        ("203.0.113.200", vec![], "office"),
        ("::ffff:203.0.113.200", vec![], "office"),
        ("2001:db8:7:1::9", vec![], "office"),
        ("192.0.2.1", vec![], "192.0.2.1"),
        ("::ffff:192.0.2.1", vec![], "192.0.2.1"),
    ] {
        assert_eq!(who(&identity, peer, &lines), expected, "{peer} {lines:?}");
    }
}

#[test]
fn a_key_that_no_client_has_opens_no_door() {
    let by_address = Identity::default();
    for key in ["x", "ALICE-KEY", "alice-key2", "alice", "\"alice-key\"", "alice-key, bob-key"] {
        assert_eq!(who(&by_address, "192.0.2.1", &[("x-api-key", key)]), "192.0.2.1", "{key}");
        assert_eq!(who(&by_address, "203.0.113.7", &[("x-api-key", key)]), "bob", "{key}");
    }
    let reject = Identity { unknown_api_key: UnknownKey::Reject, ..Identity::default() };
    assert_eq!(who(&reject, "192.0.2.1", &[("x-api-key", "x")]), "401");
    assert_eq!(who(&reject, "192.0.2.1", &[("authorization", "Bearer x")]), "401");
    assert_eq!(who(&reject, "192.0.2.1", &[("x-api-key", "alice-key")]), "alice");
    for no_key in [vec![], vec![("x-api-key", "")], vec![("x-api-key", " ")], vec![("authorization", "Basic eA==")]] {
        assert_eq!(who(&reject, "192.0.2.1", &no_key), "192.0.2.1", "{no_key:?}");
    }
}

#[test]
fn a_key_longer_than_any_can_be_is_that_of_nobody() {
    let longest = "k".repeat(KeyDigest::LONGEST_KEY);
    let longer = format!("{longest}k");
    // A digest can be given in place of a key, so one of a longer key may be there.
    let clients = [client(1, "longest", Some(&longest), &[]), client(2, "longer", Some(&longer), &[])];
    let (directory, reject) =
        (Directory::new(clients).unwrap(), Identity { unknown_api_key: UnknownKey::Reject, ..Identity::default() });
    let found = |key: &str| {
        let lines = headers(&[("x-api-key", key)]);
        let caller =
            identify(&lines, ([192, 0, 2, 1].into(), None, SystemTime::UNIX_EPOCH), &reject, &directory).unwrap();
        (caller.client.map(|(client, _)| client.id.to_string()), caller.unknown_key)
    };
    assert_eq!(found(&longest), (Some("longest".to_owned()), false));
    assert_eq!(found(&longer), (None, true), "it is not hashed, so it cannot be found");
}

#[test]
fn two_different_keys_are_refused() {
    let identity = Identity::default();
    for lines in [
        [("x-api-key", "alice-key"), ("x-api-key", "bob-key")],
        [("x-api-key", "x"), ("x-api-key", "alice-key")],
        [("x-api-key", "alice-key"), ("authorization", "Bearer bob-key")],
        [("authorization", "Bearer alice-key"), ("authorization", "Bearer x")],
    ] {
        assert_eq!(who(&identity, "192.0.2.1", &lines), "400", "{lines:?}");
    }
    for lines in [
        [("x-api-key", "alice-key"), ("x-api-key", "alice-key")],
        [("x-api-key", ""), ("x-api-key", "alice-key")],
        [("x-api-key", "alice-key"), ("x-api-key", " ")],
    ] {
        assert_eq!(who(&identity, "192.0.2.1", &lines), "alice", "{lines:?}");
    }
}

#[test]
fn nobody_but_a_trusted_proxy_is_believed() {
    for (name, value) in [
        ("x-forwarded-for", "203.0.113.7"),
        ("x-forwarded-for", "127.0.0.1"),
        ("x-real-ip", "203.0.113.7"),
        ("forwarded", "for=203.0.113.7"),
        ("true-client-ip", "203.0.113.7"),
        ("cf-connecting-ip", "203.0.113.7"),
        ("x-client-ip", "203.0.113.7"),
        ("x-original-forwarded-for", "203.0.113.7"),
    ] {
        assert_eq!(who(&Identity::default(), "192.0.2.1", &[(name, value)]), "192.0.2.1", "{name}");
        assert_eq!(who(&trusting(&["10.0.0.0/8"]), "192.0.2.1", &[(name, value)]), "192.0.2.1", "{name}");
        if name != "x-forwarded-for" {
            assert_eq!(who(&trusting(&["192.0.2.1/32"]), "192.0.2.1", &[(name, value)]), "192.0.2.1", "{name}");
        }
    }
}

#[test]
fn the_walk_goes_from_the_right_past_trusted_proxies() {
    let identity = trusting(&["10.0.0.0/8", "2001:db8:ffff::/48"]);
    for (lines, expected) in [
        (vec!["192.0.2.9"], "192.0.2.9"),
        (vec!["1.1.1.1, 192.0.2.9"], "192.0.2.9"),
        (vec!["1.1.1.1, 192.0.2.9, 10.0.0.2"], "192.0.2.9"),
        (vec!["1.1.1.1", "192.0.2.9", "10.0.0.2"], "192.0.2.9"),
        (vec!["1.1.1.1,192.0.2.9", "10.0.0.2 ,10.0.0.3"], "192.0.2.9"),
        (vec!["10.0.0.3, 10.0.0.2"], "10.0.0.3"),
        (vec!["192.0.2.9, unknown, 10.0.0.2"], "10.0.0.2"),
        (vec!["192.0.2.9, unknown"], "10.0.0.1"),
        (vec![""], "10.0.0.1"),
        (vec!["192.0.2.9,"], "192.0.2.9"),
        (vec!["192.0.2.9,,10.0.0.2"], "192.0.2.9"),
        (vec!["192.0.2.9, \t,\t, 10.0.0.2 ,"], "192.0.2.9"),
        (vec!["192.0.2.9", "", "10.0.0.2", ","], "192.0.2.9"),
        (vec!["192.0.2.9, unknown,, 10.0.0.2"], "10.0.0.2"),
        (vec![",", " ,\t"], "10.0.0.1"),
        (vec![",10.0.0.3,"], "10.0.0.3"),
        (vec![",,192.0.2.9"], "192.0.2.9"),
        (vec!["_hidden, 192.0.2.9"], "192.0.2.9"),
        (vec!["192.0.2.9:4711"], "192.0.2.9"),
        (vec!["[2001:db8::9]:4711"], "2001:db8::9"),
        (vec!["[2001:db8::9]"], "2001:db8::9"),
        (vec!["::ffff:192.0.2.9"], "192.0.2.9"),
        (vec!["192.0.2.9, ::ffff:10.0.0.2"], "192.0.2.9"),
        (vec!["2001:db8::9, 2001:db8:ffff::1"], "2001:db8::9"),
        (vec!["fe80::1%eth0"], "10.0.0.1"),
        (vec!["fe80::1%5"], "10.0.0.1"),
        (vec!["[fe80::1%5]:80"], "10.0.0.1"),
        (vec!["0177.0.0.1"], "10.0.0.1"),
        (vec!["192.0.2.09"], "10.0.0.1"),
        (vec!["3221226000"], "10.0.0.1"),
        (vec!["\"192.0.2.9\""], "10.0.0.1"),
        (vec!["localhost"], "10.0.0.1"),
        (vec!["203.0.113.7"], "bob"),
    ] {
        let lines: Vec<_> = lines.into_iter().map(|line| ("x-forwarded-for", line)).collect();
        assert_eq!(who(&identity, "10.0.0.1", &lines), expected, "{lines:?}");
    }
    assert_eq!(who(&identity, "10.0.0.1", &[]), "10.0.0.1");
}

proptest! {
    /// Whatever is written to the left of the first untrusted address changes nothing, and nothing panics.
    #[test]
    fn what_a_client_writes_to_the_left_counts_for_nothing(left in "[ -~]{0,60}", port in 1_u16..) {
        let identity = trusting(&["10.0.0.0/8"]);
        let line = format!("{left}, 192.0.2.9:{port}, 10.0.0.2");
        prop_assert_eq!(who(&identity, "10.0.0.1", &[("x-forwarded-for", &line)]), "192.0.2.9");
    }
}

#[test]
fn a_certificate_decides_behind_a_key_and_before_an_address_where_it_counts() {
    let key = rcgen::KeyPair::generate().unwrap();
    let names = vec!["Device.example".to_owned(), "192.0.2.9".to_owned()];
    let shown = rcgen::CertificateParams::new(names).unwrap().self_signed(&key).unwrap();
    let fingerprint = sha2::Sha256::digest(shown.der()).iter().map(|byte| format!("{byte:02X}")).collect::<Vec<_>>();
    let shown = ShownCertificate::of(shown.der());
    let who = |clients: &[&str], lines: &[(&'static str, &str)], counts: bool| {
        let (key, office) = (client(1, "alice", Some("alice-key"), &[]), client(3, "office", None, &["192.0.2.0/24"]));
        let clients = clients.iter().zip(5..).map(|(name, uid)| client(uid, name, Some(name), &[]));
        let directory = Directory::new([key, office].into_iter().chain(clients)).unwrap();
        let identity = Identity { client_certificates: counts, ..Identity::default() };
        let caller = identify(
            &headers(lines),
            ([192, 0, 2, 1].into(), Some(&shown), SystemTime::UNIX_EPOCH),
            &identity,
            &directory,
        )
        .unwrap();
        (caller.client.as_ref().unwrap().0.id.to_string(), caller.identity())
    };
    let by_fingerprint = format!("cert:{}", fingerprint.join(":"));
    let by_name = "cert-san:device.example";
    let pair = |name: &str, how: &'static str| (name.to_owned(), how);
    assert_eq!(who(&[by_name, &by_fingerprint], &[], true), pair(&by_fingerprint, "certificate"));
    assert_eq!(who(&[by_name], &[], true), pair(by_name, "certificate"));
    assert_eq!(who(&["cert-san:192.0.2.9"], &[], true), pair("cert-san:192.0.2.9", "certificate"));
    assert_eq!(who(&[by_name], &[("x-api-key", "alice-key")], true), pair("alice", "api_key"));
    assert_eq!(who(&["cert-san:other.example"], &[], true), pair("office", "address"));
    assert_eq!(who(&[by_name], &[], false), pair("office", "address"));
    // Saying it is not showing it.
    assert_eq!(who(&[by_name], &[("x-api-key", by_name)], false), pair("office", "address"));
}
