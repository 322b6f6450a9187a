//! What ties a request to a backend: hashes, cookies, shares of a route, and what comes back slowly.

use std::collections::{BTreeMap, BTreeSet};

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::backend::{Backend, three_echoes, three_scripted};
use crate::harness::client::{Client, Request, Response};
use crate::harness::daemon::Daemon;
use crate::harness::http2::{Http2, get};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

const STICKY: &str = "health_check: {type: none}, sticky: {cookie: tg_backend}";

/// The cookie that an answer sets, as a client sends it back, and its attributes.
fn cookie(answer: &Response) -> Option<(String, String)> {
    let (cookie, attributes) = answer.header("set-cookie")?.split_once("; ").unwrap();
    Some((cookie.to_owned(), attributes.to_owned()))
}

/// A GET with this cookie.
fn with(server: &Tollgate, cookie: &str) -> Response {
    let answer = server.client().call(&Request::new("GET", "/").headers(&[("Cookie", cookie)])).unwrap();
    assert_eq!(answer.status, 200, "{answer:?}");
    answer
}

/// What the backend got of a header.
fn got(answer: &Response, name: &str) -> Vec<String> {
    let report = answer.json();
    let headers = report["headers"].as_array().unwrap().clone();
    let named = headers.iter().filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

fn set(server: &Tollgate, address: std::net::SocketAddr, state: &str) {
    let answer =
        server.ask("PATCH", &format!("/upstreams/app/backends/{address}"), &format!(r#"{{"state":"{state}"}}"#));
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_cookie_leads_back_to_its_backend_by_both_ways() {
    let backends = three_scripted();
    for way in ["direct: true", "direct: false"] {
        let server = Setup::app(&backends, STICKY).line(way).start();
        let first = server.client().get("/").unwrap();
        let (token, attributes) = cookie(&first).unwrap();
        assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax", "{way}");
        assert!(token.starts_with("tg_backend=") && token.len() == 33, "{token}");
        for _ in 0..12 {
            let again = with(&server, &format!("a=b; {token}; c=d"));
            assert_eq!((again.backend(), cookie(&again)), (first.backend(), None), "{way}");
            assert_eq!(got(&again, "cookie"), ["a=b; c=d"], "{way}: no backend sees it");
        }
        assert_eq!(got(&with(&server, &token), "cookie"), [""; 0], "{way}");
        // Without one, each is balanced, and told where it was.
        let others: BTreeSet<_> = (0..6).map(|_| cookie(&server.client().get("/").unwrap()).unwrap().0).collect();
        assert_eq!(others.len(), 3, "{way}");
        let changed = token.replace(char::is_alphanumeric, "x").replace("xx_xxxxxxx", "tg_backend");
        for stranger in [changed.as_str(), "tg_backend=", "tg_backend=127.0.0.1:1", "tg_backend"] {
            assert!(cookie(&with(&server, stranger)).is_some(), "{way}: {stranger}");
        }
        let at = backends.iter().find(|backend| backend.name == first.backend()).unwrap().address;
        set(&server, at, "drain");
        let moved = with(&server, &token);
        let (new, _) = cookie(&moved).unwrap();
        assert_ne!((moved.backend(), new.as_str()), (first.backend(), token.as_str()), "{way}");
        assert_eq!(with(&server, &new).backend(), moved.backend(), "{way}");
        set(&server, at, "up");
        assert_eq!(with(&server, &token).backend(), first.backend(), "{way}: it is back");
    }
}

#[test]
fn over_tls_the_cookie_is_secure_and_http2_has_it_too() {
    let (backends, dir) = (three_scripted(), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backends, STICKY).tls(dir.path()).start();
    let mut client = Http2::connect(server.address);
    let first = client.get("/").unwrap();
    let (token, attributes) = cookie(&first).unwrap();
    assert_eq!(attributes, "Path=/; HttpOnly; SameSite=Lax; Secure");
    for _ in 0..6 {
        let mut request = get("/");
        request.headers_mut().insert("cookie", token.parse().unwrap());
        let again = client.call(request, b"").unwrap();
        assert_eq!((again.backend(), cookie(&again)), (first.backend(), None));
        assert_eq!(got(&again, "cookie"), [""; 0]);
    }
}

#[test]
fn a_cookie_outlives_a_restart_and_a_reload() {
    let (backends, dir) = (three_scripted(), TempDir::new().unwrap());
    let database = format!("database: {}", dir.path().join("a.db").display());
    let setup = |keys: &str| Setup::app(&backends, &format!("{STICKY}{keys}")).line(&database);
    let server = setup("").start();
    let first = server.client().get("/").unwrap();
    let (token, _) = cookie(&first).unwrap();
    server.rewrite(&setup(", retries: 1, balance: least_time").yaml());
    assert_eq!(server.ask("POST", "/config/reload", "").status, 200);
    let same = |server: &Tollgate| {
        (0..6).all(|_| {
            let again = with(server, &token);
            (again.backend(), cookie(&again)) == (first.backend(), None)
        })
    };
    assert!(same(&server), "after a reload");
    drop(server);
    assert!(same(&setup("").start()), "after a restart");
    let elsewhere = Setup::app(&backends, STICKY).start();
    assert!(cookie(&with(&elsewhere, &token)).is_some(), "with another database it is a stranger's");
}

#[test]
fn without_a_database_an_upgrade_hands_the_secret_over() {
    let backends = ["a", "b"].map(Backend::scripted);
    let daemon = Daemon::configured(backends[0].address, "");
    let text = std::fs::read_to_string(daemon.file()).unwrap();
    let one = format!("{{address: \"{}\"}}", backends[0].address);
    assert!(text.contains(&one), "{text}");
    let two = format!("{one}, {{address: \"{}\"}}", backends[1].address);
    let text = text.replace(&one, &two).replace("{name: app, ", "{name: app, sticky: {cookie: tg_backend}, ");
    let text = text.replace("database: data/tollgate.db", "database: null");
    std::fs::write(daemon.file(), text).unwrap();
    daemon.run(&["run", "-d"]);
    let first = Client::connect(daemon.address).get("/").unwrap();
    let (token, _) = cookie(&first).unwrap();
    let old = daemon.pid();
    daemon.upgrade_by_hand();
    assert_ne!(daemon.pid(), old);
    for _ in 0..6 {
        let request = Request::new("GET", "/");
        let again = Client::connect(daemon.address).call(&request.headers(&[("Cookie", &token)])).unwrap();
        assert_eq!((again.backend(), cookie(&again)), (first.backend(), None));
    }
    daemon.stop();
}

#[test]
fn a_key_leads_to_its_backend_and_comes_back_with_it() {
    let backends = three_echoes();
    let server = Setup::app(&backends, &format!("balance: hash, hash: {{by: 'header:X-User'}}, {NO_CHECK}")).start();
    let mut client = server.client();
    let mut places = |users: u32| -> BTreeMap<u32, String> {
        let mut ask = |user: u32| {
            let user = user.to_string();
            let request = Request::new("GET", "/");
            client.call_again(&request.headers(&[("X-User", &user)])).unwrap().backend().to_owned()
        };
        (0..users).map(|user| (user, ask(user))).collect()
    };
    let before = places(300);
    assert_eq!(before, places(300));
    let of = |name: &str| before.values().filter(|place| *place == name).count();
    assert!(["a", "b", "c"].iter().all(|name| (70..130).contains(&of(name))), "{before:?}");
    set(&server, backends[1].address, "drain");
    for (user, place) in places(300) {
        assert!(place != "b" && (place == before[&user] || before[&user] == "b"), "{user}");
    }
    set(&server, backends[1].address, "up");
    assert_eq!(before, places(300));
    let without: BTreeSet<_> = (0..60).map(|_| server.client().get("/").unwrap().backend().to_owned()).collect();
    assert_eq!(without.len(), 3, "a request without the key may go anywhere");
}

#[test]
fn a_path_and_a_cookie_can_be_keys_and_nobody_knows_the_query() {
    let backends = three_echoes();
    for (by, same, other) in
        [("path", ["/x?a=1", "/x?a=2"], "/{}"), ("address", ["/1", "/2"], ""), ("client", ["/1", "/2"], "")]
    {
        let server = Setup::app(&backends, &format!("balance: hash, hash: {{by: {by}}}, {NO_CHECK}")).start();
        let place = |target: &str| server.client().get(target).unwrap().backend().to_owned();
        assert_eq!(place(same[0]), place(same[1]), "{by}");
        if !other.is_empty() {
            let all: BTreeSet<_> = (0..60).map(|n| place(&other.replace("{}", &n.to_string()))).collect();
            assert_eq!(all.len(), 3, "{by}");
        }
    }
    let server = Setup::app(&backends, &format!("balance: hash, hash: {{by: 'cookie:id'}}, {NO_CHECK}")).start();
    let place = |cookie: &str| with(&server, cookie).backend().to_owned();
    assert_eq!(place("id=7; x=1"), place("x=2; id=7"));
}

#[test]
fn a_route_gives_each_of_its_upstreams_its_exact_share() {
    let backends = three_echoes();
    let server = Setup::default()
        .pool("app", &[backends[0].address], NO_CHECK)
        .pool("canary", &[backends[1].address], NO_CHECK)
        .line("routes: [{path: /, upstreams: [{name: app, weight: 9}, {name: canary, weight: 1}]}]")
        .start();
    let counts = std::sync::Mutex::new(BTreeMap::<String, u32>::new());
    std::thread::scope(|scope| {
        for _ in 0..10 {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..50 {
                    let answer = client.call_again(&Request::new("GET", "/")).unwrap();
                    *counts.lock().unwrap().entry(answer.backend().to_owned()).or_default() += 1;
                }
            });
        }
    });
    assert_eq!(counts.into_inner().unwrap(), BTreeMap::from([("a".to_owned(), 450), ("b".to_owned(), 50)]));
    let lines = server.access_lines(500);
    let canary = lines.iter().filter(|line| line["upstream"] == "canary").count();
    assert_eq!(canary, 50, "the line says which it was");
}

#[test]
fn who_is_sticky_stays_with_the_upstream_of_its_backend() {
    let backends = ["a", "b"].map(Backend::scripted);
    let server = Setup::default()
        .pool("app", &[backends[0].address], STICKY)
        .pool("canary", &[backends[1].address], STICKY)
        .line("routes: [{path: /, upstreams: [{name: app, weight: 1}, {name: canary, weight: 1}]}]")
        .start();
    for _ in 0..2 {
        let first = server.client().get("/").unwrap();
        let (token, _) = cookie(&first).unwrap();
        assert!((0..5).all(|_| with(&server, &token).backend() == first.backend()));
        let cookie = format!(r#"{{"address":"127.0.0.1","path":"/","headers":{{"Cookie":"{token}"}}}}"#);
        let stays = server.ask("POST", "/explain", &cookie).json()["upstream"].clone();
        assert_eq!(stays, if first.backend() == "a" { "app" } else { "canary" });
    }
}

#[test]
fn least_time_leaves_a_slow_backend_and_one_that_fails_fast() {
    let backends = three_scripted();
    let ask = |target: &str, count: usize| -> BTreeMap<String, usize> {
        let server = Setup::app(&backends, &format!("balance: least_time, {NO_CHECK}")).start();
        let mut client = server.client();
        let mut counts = BTreeMap::new();
        for _ in 0..count {
            let answer = client.call_again(&Request::new("GET", target)).unwrap();
            *counts.entry(answer.backend().to_owned()).or_default() += 1;
        }
        counts
    };
    let slow = ask("/?at=a&delay_ms=200", 60);
    assert!(slow.get("a").copied().unwrap_or_default() <= 3, "{slow:?}");
    let failing = ask("/?at=b&status=503", 200);
    assert!(failing.get("b").copied().unwrap_or_default() <= 40, "{failing:?}");
}

#[test]
fn who_comes_back_from_a_drain_starts_slowly() {
    let backends = three_echoes();
    let server = Setup::app(&backends, &format!("slow_start: 1h, {NO_CHECK}")).start();
    let share = |name: &str| {
        let mut client = server.client();
        let asked = (0..210).map(|_| client.call_again(&Request::new("GET", "/")).unwrap());
        asked.filter(|answer| answer.backend() == name).count()
    };
    assert_eq!(share("a"), 70, "at the start nobody waits");
    set(&server, backends[0].address, "drain");
    assert_eq!(share("a"), 0);
    set(&server, backends[0].address, "up");
    let found = share("a");
    assert!((9..=11).contains(&found), "a tenth beside two wholes: {found} of 210");
    let pool: Value = server.ask("GET", "/upstreams", "").json();
    assert_eq!(pool["items"][0]["backends"][0]["weight"], 1, "the weight is what it is");
}
