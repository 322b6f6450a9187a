//! When to come back, as nodes tell it while the store is away: whoever waits so long is let in, and nobody much sooner.

use std::thread;
use std::time::Duration;

use crate::harness::client::{Client, Request, Response};
use crate::harness::fleet::Fleet;
use crate::harness::instance::Instance;
use crate::harness::store::Engine;
use crate::harness::{dawdle, now};

/// A policy of which a node of three can give a request every 2.5 s.
const POLICY: &str = "rate_limit: {reset_header: seconds, policies: [{name: writes, match: {methods: [POST]}, \
     key: client, capacity: 30, rate_per_sec: 12, cost: 10}]}";

/// A caller of one node.
struct Caller {
    connection: Client,
    method: &'static str,
    key: &'static str,
}

impl Caller {
    fn of(node: &Instance, method: &'static str, key: &'static str) -> Self {
        Caller { connection: Client::connect(node.address), method, key }
    }

    fn ask(&mut self) -> Response {
        let headers = [("x-api-key", self.key)];
        let answer = self.connection.call_again(&Request::new(self.method, "/").headers(&headers)).unwrap();
        assert!(matches!(answer.status, 200 | 429), "{answer:?}");
        answer
    }
}

/// The number in a header.
#[track_caller]
fn number(answer: &Response, name: &str) -> u64 {
    answer.header(name).and_then(|value| value.parse().ok()).unwrap_or_else(|| panic!("{name}: {answer:?}"))
}

/// Asserts that a caller who has spent what the node gives is let in when it is told, and that the limit is told as ever.
fn assert_true(mut caller: Caller, limit: u64) {
    let (began, refused) = loop {
        let (began, answer) = (now(), caller.ask());
        assert_eq!(number(&answer, "x-ratelimit-limit"), limit, "{answer:?}");
        if answer.status == 429 {
            break (began, answer);
        }
    };
    let (heard, told) = (now(), number(&refused, "retry-after"));
    assert_eq!(number(&refused, "x-ratelimit-reset"), told, "{refused:?}");
    assert!(refused.header("ratelimit").unwrap().ends_with(&format!(";t={told}")), "{refused:?}");
    loop {
        let asked = now();
        if caller.ask().status == 200 {
            break;
        }
        assert!(asked < heard + Duration::from_secs(told), "refused after {:?}: {refused:?}", asked - heard);
        dawdle(Duration::from_millis(10));
    }
    assert!(now() > began + Duration::from_secs(told - 1), "let in after {:?}: {refused:?}", began.elapsed());
}

#[test]
fn who_waits_as_long_as_a_node_says_is_let_in_by_its_share() {
    let mut fleet = Fleet::start(Engine::all()[0], 3, "", POLICY);
    // A node can give one each 2 s, all of them three.
    fleet.create("some", 3, 1.5);
    fleet.create("many", 1_000, 1_000.0);
    fleet.store.kill();
    fleet.wait_until("unreachable");
    thread::scope(|scope| {
        for node in &fleet.nodes {
            scope.spawn(|| assert_true(Caller::of(node, "GET", "some"), 3));
            // The older headers are of the policy, which is the tighter one.
            scope.spawn(|| assert_true(Caller::of(node, "POST", "many"), 30));
        }
    });
}

#[test]
fn nothing_is_left_of_what_another_node_gives() {
    let mut fleet = Fleet::start(Engine::all()[0], 3, "", POLICY);
    fleet.create("one", 2, 0.5);
    fleet.store.kill();
    fleet.wait_until("unreachable");
    let mut callers: Vec<_> = fleet.nodes.iter().map(|node| Caller::of(node, "GET", "one")).collect();
    let began = now();
    let owner = callers.iter_mut().position(|caller| caller.ask().status == 200).expect("it is one node's");
    let owner = callers.remove(owner);
    while now() < began + Duration::from_secs(2) {
        for caller in &mut callers {
            let answer = caller.ask();
            assert_eq!(answer.status, 429, "{answer:?}");
            let told = ["retry-after", "ratelimit", "x-ratelimit-remaining", "x-ratelimit-reset", "x-ratelimit-limit"];
            let told = told.map(|name| answer.header(name).unwrap());
            assert_eq!(told, ["1", "\"default\";r=0;t=1", "0", "1", "2"], "{answer:?}");
        }
        dawdle(Duration::from_millis(100));
    }
    assert_true(owner, 2);
}
