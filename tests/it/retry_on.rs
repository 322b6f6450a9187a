//! For what a request goes on to another backend, and how often in all.

use crate::harness::backend::{Backend, count_all, three_scripted};
use crate::harness::client::{Body, Request};
use crate::harness::played::Played;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, assert_ours, checksum, eventually};

/// Three backends that are never checked, and how they are tried.
fn three(keys: &str) -> ([Backend; 3], Tollgate) {
    let backends = three_scripted();
    let server = Setup::app(&backends, &format!("read_timeout: 300ms, {NO_CHECK}, {keys}")).start();
    (backends, server)
}

#[test]
fn what_one_of_three_leaves_unanswered_others_answer() {
    let (backends, server) = three("retries: 2");
    for (number, fault) in ["hang", "close"].iter().cycle().take(12).enumerate() {
        let path = format!("/{number}");
        let response = server.client().get(&format!("{path}?fault={fault}&at=a")).unwrap();
        assert_eq!(response.status, 200, "{fault}: {response:?}");
        assert!(count_all(&backends, &format!("GET {path}")) <= 2);
    }
    assert!(backends[0].seen().len() >= 2, "it had its share");
    // What may have been carried out is not sent twice.
    let statuses: Vec<_> = (0..6)
        .map(|_| server.client().call_again(&Request::new("POST", "/?fault=hang&at=a").body(Body::Length(b"x"))))
        .map(|response| response.unwrap().status)
        .collect();
    assert!(statuses.contains(&504) && statuses.contains(&200), "{statuses:?}");
}

#[test]
fn who_is_late_is_not_asked_again() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, &format!("read_timeout: 300ms, {NO_CHECK}")).start();
    assert_ours(&server.client().get("/late?fault=hang").unwrap(), 504, "Gateway timeout");
    assert_eq!(count_all(&backend, "GET /late"), 1);
}

#[test]
fn only_what_is_chosen_is_tried_again() {
    let (backends, server) = three("retry_on: [connect]");
    for (path, status) in [("/late?fault=hang", 504), ("/gone?fault=close", 502), ("/ill?status=500", 500)] {
        assert_eq!(server.client().get(path).unwrap().status, status, "{path}");
        let asked = path.split('?').next().unwrap();
        assert_eq!(count_all(&backends, &format!("GET {asked}")), 1, "{path}");
    }
}

#[test]
fn an_answer_of_a_chosen_status_is_another_backends_turn() {
    let (backends, server) = three("retry_on: [connect, 500, 503]");
    let mut client = server.client();
    for number in 0..12 {
        let status = [500, 503][number % 2];
        let response = client.call_again(&Request::new("GET", &format!("/?status={status}&at=a"))).unwrap();
        assert_eq!(response.status, 200, "{response:?}");
    }
    assert!(backends[0].seen().len() >= 2, "it had its share");
    // Its body is sent again as a whole, and the answer is that of the other one as a whole.
    let body = checksum::body(1, 10_000);
    for sent in [Body::Length(&body), Body::Chunked(&body, 1_007)] {
        for _ in 0..6 {
            let put = Request::new("PUT", "/?status=503&at=a&bytes=100000").body(sent);
            let response = client.call_again(&put).unwrap();
            let got = format!("{} {:x}", body.len(), checksum::sum(&body));
            assert_eq!((response.status, response.header("x-got")), (200, Some(&*got)));
        }
    }
    // One that is not chosen is passed on, and so is each for a method that may not be sent twice.
    for (method, status) in [("GET", 502), ("POST", 503)] {
        let path = format!("/{method}");
        let request = Request::new(method, &path);
        let ill = Request { target: &format!("{path}?status={status}"), ..request };
        assert_eq!(client.call_again(&ill).unwrap().status, status);
        assert_eq!(count_all(&backends, &format!("{method} {path}")), 1, "{method}");
    }
}

#[test]
fn the_last_answer_is_passed_on_whatever_its_status() {
    let (backends, server) = three("retries: 5, retry_on: [503]");
    let response = server.client().get("/all?status=503&bytes=100").unwrap();
    assert_eq!((response.status, response.body.len()), (503, 100));
    assert_eq!(count_all(&backends, "GET /all"), 3, "each once");
    let (backends, server) = three("retries: 1, retry_on: [503]");
    assert_eq!(server.client().get("/two?status=503").unwrap().status, 503);
    assert_eq!(count_all(&backends, "GET /two"), 2);
}

#[test]
fn an_answer_before_is_no_reason_not_to_go_on() {
    for way in ["direct: true", "direct: false"] {
        let (ill, well, closes) = (Backend::scripted("a"), Backend::scripted("b"), Played::new());
        let addresses = [ill.address, closes.address, well.address];
        let closing = std::thread::spawn(move || {
            let taken = std::iter::from_fn(|| closes.take_within(PATIENCE)?.next().ok());
            taken.take_while(|got| got.as_ref().is_none_or(|got| !got.head.first.contains("/end"))).count()
        });
        let keys = format!("{NO_CHECK}, retries: 2, retry_on: [connect, broken, 500]");
        let server = Setup::default().pool("app", &addresses, &keys).line(way).start();
        let mut client = server.client();
        for number in 0..12 {
            let answer = client.call_again(&Request::new("GET", &format!("/{number}?status=500&at=a"))).unwrap();
            assert_eq!((answer.status, answer.header("x-backend")), (200, Some("b")), "{way}");
        }
        assert!(ill.seen().len() >= 4, "it had its share");
        crate::harness::client::Client::connect(addresses[1]).get("/end").unwrap_err();
        assert!(closing.join().unwrap() >= 4, "it had its share");
    }
}

#[test]
fn a_pool_has_a_budget_of_further_attempts() {
    let (backends, server) = three("retry_on: [timeout, 500], retry_budget: {ratio: 0, min_per_sec: 1}");
    for _ in 0..30 {
        assert_eq!(server.client().get("/all?status=500").unwrap().status, 500);
    }
    assert_eq!(count_all(&backends, "GET /all"), 40, "ten in ten seconds");
    assert_ours(&server.client().get("/late?fault=hang").unwrap(), 504, "Gateway timeout");
    assert_eq!(count_all(&backends, "GET /late"), 1);
    server.wait_for_event(&["the retry budget is spent"], PATIENCE);
    let metrics = || server.ask("GET", "/metrics", "").text();
    let lines = [
        "tollgate_upstream_retries_total{upstream=\"app\"} 10\n",
        // Five requests had both of theirs; the other 25 and the late one asked for one each.
        "tollgate_upstream_retries_denied_total{upstream=\"app\"} 26\n",
    ];
    assert!(eventually(PATIENCE, || lines.iter().all(|line| metrics().contains(line))), "{}", metrics());
}

#[test]
fn a_reload_changes_what_is_tried_again() {
    let backends = three_scripted();
    let setup = |keys: &str| Setup::app(&backends, &format!("{NO_CHECK}, {keys}"));
    let server = setup("retry_on: [connect]").start();
    let ok = || (0..6).filter(|_| server.client().get("/?status=500&at=a").unwrap().status == 200).count();
    assert_eq!(ok(), 4);
    server.rewrite(&setup("retry_on: [500]").yaml());
    assert_eq!(server.ask("POST", "/config/reload", "").status, 200);
    assert_eq!(ok(), 6);
}
