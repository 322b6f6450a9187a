//! Certificates that the nodes of a fleet get behind one name, when the authority asks whichever node it meets.

use std::net::SocketAddr;
use std::path::Path;
use std::time::Duration;

use crate::acme::{acme, asked, got, shown};
use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request, Response};
use crate::harness::daemon::Daemon;
use crate::harness::fleet::FlatOut;
use crate::harness::pebble::Pebble;
use crate::harness::ports::free_address;
use crate::harness::process::run;
use crate::harness::relay;
use crate::harness::server::Tollgate;
use crate::harness::setup::NO_CHECK;
use crate::harness::store::{Engine, StoreServer};
use crate::harness::{PATIENCE, eventually, now};

/// Where the answers are in the store.
const KEY: &str = "tollgate:{nodes}:challenges";
/// As authorities make them.
const TOKEN: &str = "evaGxfADs6pSRb2LAv9IZf17Dt3juxGJ-PCt92wr-oA";
/// How long a request waits for what others know.
const LIMIT: Duration = Duration::from_millis(250);
/// What an answer may take beside that, in a debug build beside other tests.
const BESIDE: Duration = Duration::from_millis(250);

/// A node of the fleet over `store`, with a plain listener and one that wants a certificate.
#[track_caller]
fn node(name: &str, store: &StoreServer, at: [SocketAddr; 2], directory: (&str, &Path), backend: &Backend) -> Tollgate {
    let yaml = format!(
        "listeners: [{{address: \"{}\"}}, {{address: \"{}\", tls: {}}}]\ndatabase: $DIR/tollgate.db\n\
         fleet: {{store: \"{}\", node: {name}}}\nrate_limit: {{enabled: false}}\n\
         upstreams: [{{name: app, backends: [{{address: \"{}\"}}], {NO_CHECK}}}]\n",
        at[0],
        at[1],
        acme(directory.0, "a.example"),
        store.url(),
        backend.address
    );
    let ca = directory.1.to_str().unwrap();
    let node = Tollgate::start(&yaml, &["run", "-c", "$FILE"], &[("SSL_CERT_FILE", ca)], false);
    wait_until(&node, "joined");
    node
}

#[track_caller]
fn wait_until(node: &Tollgate, state: &str) {
    let stands = || node.ask("GET", "/fleet", "").json()["state"] == state;
    assert!(eventually(PATIENCE, stands), "not {state}: {}", node.process.err.text());
}

#[track_caller]
fn get(at: SocketAddr, token: &str) -> Response {
    let target = format!("/.well-known/acme-challenge/{token}");
    Client::connect(at).call(&Request::new("GET", &target)).unwrap()
}

#[test]
fn every_node_gets_its_own_whichever_node_the_authority_asks() {
    for engine in Engine::all() {
        let (backend, store) = (Backend::scripted("a"), StoreServer::start(engine));
        let [plain, secure, other_plain, other_secure] = [(); 4].map(|()| free_address());
        // It meets the first node, whoever wants the certificate.
        let pebble = Pebble::start(plain, free_address(), 90 * 24 * 60 * 60);
        let directory = (&*pebble.directory, &*pebble.ca());
        let first = node("first", &store, [plain, secure], directory, &backend);
        let second = node("second", &store, [other_plain, other_secure], directory, &backend);
        for (node, at) in [(&first, secure), (&second, other_secure)] {
            got(node, &pebble, "a.example");
            assert_eq!(asked("a.example", at, &pebble.root()), "200 2", "{engine:?}");
            assert!(!node.process.err.text().contains("ACME: no certificate"), "{}", node.process.err.text());
        }
        assert_ne!(shown(secure), shown(other_secure), "no key leaves its node");
        let left = eventually(PATIENCE, || store.command(&format!("EXISTS {KEY}")) == ":0\r\n");
        assert!(left, "{engine:?}: {}", store.command(&format!("HGETALL {KEY}")));
    }
}

#[test]
fn what_nobody_knows_goes_its_usual_way_and_waits_for_no_store() {
    let (backend, mut store) = (Backend::scripted("a"), StoreServer::start(Engine::all()[0]));
    let plain = free_address();
    let nobody = format!("https://{}/dir", free_address());
    let node = node("a", &store, [plain, free_address()], (&nobody, Path::new("/dev/null")), &backend);
    // A machine that stands still for a moment slows one try; a wait for the store all of them.
    let usual = |token: &str| {
        let took = || {
            let (began, answer) = (now(), get(plain, token));
            assert_eq!((answer.status, answer.header("x-backend")), (200, Some("a")), "{answer:?}");
            now() - began
        };
        let tries: Vec<_> = (0..3).map(|_| took()).collect();
        assert!(tries.iter().any(|took| *took <= LIMIT + BESIDE), "{tries:?}");
    };
    let put = format!("HSET {KEY} {TOKEN} {TOKEN}.key short short.key");
    assert_eq!(store.command(&put), ":2\r\n");
    let answer = get(plain, TOKEN);
    assert_eq!((answer.status, &*answer.text()), (200, &*format!("{TOKEN}.key")));
    usual("short");
    usual(&TOKEN.replace('-', "_"));
    // Strangers that ask flat out: the node looks ten times a second, and tells each second that it is there.
    let looks = |store: &StoreServer| {
        let told = store.command("INFO commandstats");
        let calls = told.split_once("cmdstat_hgetall:calls=").unwrap().1.split(',').next().unwrap();
        calls.parse::<f64>().unwrap()
    };
    let stranger = format!(".well-known/acme-challenge/{}", TOKEN.replace('-', "x"));
    let (before, began) = (looks(&store), now());
    let flood = FlatOut::run(&[plain], 16, &stranger, Duration::from_secs(1));
    let most = (now() - began).as_secs_f64() * 11.0 + 2.0;
    let looks = looks(&store) - before;
    assert!(flood.failed.is_empty() && flood.allowed > 2 * most as u64 && looks <= most, "{looks}: {flood:?}");
    // A store that stands still, one that is known to, one that is gone.
    let mut slowest = Vec::new();
    while slowest.iter().all(|slowest| *slowest > LIMIT + BESIDE) {
        store.pause();
        let flood = FlatOut::run(&[plain], 16, &stranger, Duration::from_secs(1));
        slowest.push(flood.slowest);
        assert!(flood.failed.is_empty() && slowest.len() < 4, "{slowest:?}: {flood:?}");
        wait_until(&node, "unreachable");
        usual(TOKEN);
        store.resume();
        wait_until(&node, "joined");
    }
    assert_eq!(get(plain, TOKEN).text(), format!("{TOKEN}.key"));
    store.kill();
    usual(TOKEN);
    wait_until(&node, "unreachable");
    usual(TOKEN);
}

#[test]
fn what_the_old_process_of_an_upgrade_was_asked_the_new_one_answers() {
    let (backend, store) = (Backend::scripted("a"), StoreServer::start(Engine::all()[0]));
    let daemon = Daemon::configured(backend.address, "");
    let [plain, secure] = [(); 2].map(|()| free_address());
    // The authority asks later than this takes.
    let pebble = Pebble::start(relay::to(plain, Duration::from_secs(20)), free_address(), 90 * 24 * 60 * 60);
    let listeners = [
        format!("{{address: \"{plain}\"}}"),
        format!("{{address: \"{secure}\", tls: {}}}", acme(&pebble.directory, "a.example")),
    ];
    daemon.configure_listeners(&listeners, &format!("fleet: {{store: \"{}\"}}", store.url()));
    let run = |arguments: &[&str]| {
        let finished = run(daemon.command(arguments).env("SSL_CERT_FILE", pebble.ca()));
        assert_eq!(finished.code, Some(0), "{finished:?}\n{}", daemon.text("error.log"));
    };
    run(&["run", "-d"]);
    let tokens = || store.command(&format!("HKEYS {KEY}"));
    assert!(eventually(PATIENCE, || tokens().lines().count() == 3), "{}\n{}", tokens(), pebble.told());
    let token = tokens().lines().last().unwrap().to_owned();
    let expires: u64 = store.command(&format!("TTL {KEY}")).trim_matches([':', '\r', '\n']).parse().unwrap();
    assert!((1..=600).contains(&expires), "{expires}");
    let old = daemon.processes();
    run(&["upgrade"]);
    assert!(eventually(PATIENCE, || old.iter().all(|pid| !daemon.processes().contains(pid))), "{old:?}");
    let answer = get(plain, &token);
    assert!(answer.status == 200 && answer.text().starts_with(&format!("{token}.")), "{answer:?}");
}
