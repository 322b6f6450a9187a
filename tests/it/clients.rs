//! Clients with keys, addresses and modes of their own. They are put into the directory directly, as nothing else does
//! yet.

use std::sync::Arc;

use tollgate::client::{Client as Known, ClientId, Directory, KeyDigest, Mode, Quota};

use crate::harness::assert_ours;
use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request, Response};
use crate::harness::in_process::InProcess;

/// A client that is known by its name as its key, or by its addresses when it has any.
fn known(uid: u128, name: &str, capacity: u64, mode: Mode, addresses: &[&str]) -> Arc<Known> {
    let (id, quota) = (ClientId::parse(name).unwrap(), Quota::new(capacity, 0.001).unwrap());
    let addresses: Vec<_> = addresses.iter().map(|address| address.parse().unwrap()).collect();
    let api_key = addresses.is_empty().then(|| KeyDigest::of(name.as_bytes()));
    Arc::new(Known { mode, addresses, api_key, ..Known::new(uid, id, quota) })
}

fn server(backend: &Backend, clients: impl IntoIterator<Item = Arc<Known>>) -> InProcess {
    let limit = "rate_limit: {default: {capacity: 2, rate_per_sec: 0.001}}\nidentity: {trusted_proxies: [127.0.0.1]}";
    let server = InProcess::start(&[backend], "health_check: {type: none}", limit);
    server.directory.store(Arc::new(Directory::new(clients).unwrap()));
    server
}

fn ask(server: &InProcess, name: &str, value: &str) -> Response {
    Client::connect(server.address).call(&Request::new("GET", "/").headers(&[(name, value)])).unwrap()
}

fn allowed(server: &InProcess, name: &str, value: &str) -> usize {
    (0..20).filter(|_| ask(server, name, value).status == 200).count()
}

#[test]
fn each_client_has_its_own_quota_by_key_or_address() {
    let backend = Backend::scripted("a");
    let clients = [
        known(1, "alice", 5, Mode::Limit, &[]),
        known(2, "bob", 7, Mode::Limit, &[]),
        known(3, "office", 9, Mode::Limit, &["203.0.113.0/24", "2001:db8::/32"]),
        known(4, "desk", 3, Mode::Limit, &["203.0.113.7/32"]),
    ];
    let server = server(&backend, clients);
    assert_eq!(allowed(&server, "X-Api-Key", "alice"), 5);
    assert_eq!(allowed(&server, "Authorization", "Bearer alice"), 0, "the same client by the other header");
    assert_eq!(allowed(&server, "Authorization", "Bearer bob"), 7);
    assert_eq!(allowed(&server, "X-Forwarded-For", "203.0.113.7"), 3, "the longest prefix counts");
    assert_eq!(allowed(&server, "X-Forwarded-For", "203.0.113.8"), 9);
    assert_eq!(allowed(&server, "X-Forwarded-For", "2001:db8::1"), 0, "the same client in the other family");
    assert_eq!(allowed(&server, "X-Forwarded-For", "192.0.2.1"), 2, "everybody else has the default");
    assert_eq!((0..20).filter(|n| ask(&server, "X-Api-Key", &format!("guess{n}")).status == 200).count(), 2);
    server.stop();
}

#[test]
fn unlimited_and_blocked_clients_are_that() {
    let backend = Backend::scripted("a");
    let clients =
        [known(1, "free", 1, Mode::Unlimited, &[]), known(2, "banned", 9, Mode::Blocked, &["198.51.100.0/24"])];
    let server = server(&backend, clients);
    assert_eq!(allowed(&server, "X-Api-Key", "free"), 20);
    assert_eq!(ask(&server, "X-Api-Key", "free").header("ratelimit"), None, "there is no bucket to tell about");
    let before = backend.seen().len();
    assert_ours(&ask(&server, "X-Forwarded-For", "198.51.100.9"), 403, "Client is blocked");
    assert_eq!(backend.seen().len(), before);
    server.stop();
}

#[test]
fn another_directory_counts_from_the_next_request_and_keeps_what_was_spent() {
    let backend = Backend::scripted("a");
    let server = server(&backend, [known(1, "alice", 5, Mode::Limit, &[])]);
    assert_eq!(allowed(&server, "X-Api-Key", "alice"), 5);
    let swap = |client| server.directory.store(Arc::new(Directory::new([client]).unwrap()));
    swap(known(1, "alice", 100, Mode::Limit, &[]));
    assert_eq!(ask(&server, "X-Api-Key", "alice").status, 429, "a larger capacity is no gift of tokens");
    assert_eq!(ask(&server, "X-Api-Key", "alice").header("x-ratelimit-limit"), Some("100"));
    swap(known(1, "alice", 100, Mode::Unlimited, &[]));
    assert_eq!(allowed(&server, "X-Api-Key", "alice"), 20);
    server.directory.store(Arc::default());
    assert_eq!(allowed(&server, "X-Api-Key", "alice"), 2, "nobody knows the key any more");
    server.stop();
}

#[test]
fn what_a_client_did_is_counted() {
    let backend = Backend::scripted("a");
    let clients = [known(1, "alice", 5, Mode::Limit, &[]), known(2, "banned", 9, Mode::Blocked, &["198.51.100.0/24"])];
    let server = server(&backend, clients.clone());
    assert_eq!(allowed(&server, "X-Api-Key", "alice"), 5);
    assert_eq!(ask(&server, "X-Forwarded-For", "198.51.100.9").status, 403);
    let usage = clients.map(|client| Arc::clone(&client.usage));
    assert_eq!(usage.each_ref().map(|usage| (usage.allowed(), usage.limited())), [(5, 15), (0, 0)]);
    assert!(usage.iter().all(|usage| usage.last_seen().is_some()));
    server.stop();
}
