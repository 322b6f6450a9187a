//! A plain request goes past Pingora's request loop, any other one through it. Nobody may be able to tell which way it
//! went: the same request is sent both ways, and what the backend got, what the client got and what the log says are
//! compared, byte for byte but for what differs from one exchange to the next: dates, ids, how a bucket stands.
//!
//! The one difference that is meant here, how the length of a body in chunks is told, is taken out before they are
//! compared; `harness/way.rs` lists all that are meant.

mod corpus;
mod framing;
mod generated;

use std::collections::HashMap;
use std::fmt::Debug;

use corpus::{GET, HEAD, POST, answers, requests};

use crate::harness::PATIENCE;
use crate::harness::client::{Client, Response};
use crate::harness::played::{Got, Played};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::wire::Head;

/// What makes a request go directly, and what through Pingora: an option that names nothing.
const WAYS: [&str; 2] = ["keep-alive", "keep-alive, x-nothing"];
/// The same for the last request of a connection.
const LAST: [&str; 2] = ["close", "close, x-nothing"];

/// A start line, the header and the body.
type Message = (String, Vec<(String, String)>, String);

/// What became of one exchange, as far as it should be the same both ways.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// What the backend got, when it got anything.
    got: Option<Message>,
    /// The interim answers that the client got.
    interim: Vec<Message>,
    /// What the client got; `None` when there was no answer or not all of it.
    answer: Option<Message>,
    /// Whether the client's connection serves another request.
    stays: bool,
}

/// The message without what differs from one to the next.
fn message(head: Head, body: &[u8]) -> Message {
    let mask = |(name, value): (String, String)| match name.to_lowercase() {
        differs if differs == "date" || differs == "x-request-id" || differs.contains("ratelimit") => {
            (name, "…".to_owned())
        }
        _ => (name, value),
    };
    (head.first, head.headers.into_iter().map(mask).collect(), body.escape_ascii().to_string())
}

/// One exchange, and the id under which it is logged.
fn exchange(
    server: &Tollgate,
    backend: &Played,
    (head, body): (&str, &[u8]),
    way: &str,
    answer: Option<&[u8]>,
) -> (Outcome, String) {
    let (mut client, sent) = (server.client(), head.to_lowercase());
    client.send(&[format!("{head}\r\nConnection: {way}\r\n\r\n").as_bytes(), body].concat()).unwrap();
    let mut ids = Vec::new();
    let mut id_of = |head: &Head| ids.extend(head.header("x-request-id").map(str::to_owned));
    let got = answer.map(|answer| {
        let Some(mut taken) = backend.take_within(PATIENCE) else {
            panic!("{head:?} {way}: not sent: {:?}\n{}", client.read("GET"), server.process.err.text());
        };
        let Got { head, body } = taken.request();
        taken.send(answer);
        id_of(&head);
        let mut got = message(head, &body);
        // The one difference that is meant: a body in chunks that is there as a whole has a length when it goes
        // directly.
        if sent.contains("transfer-encoding: chunked") {
            got.1.retain(|(name, _)| !["content-length", "transfer-encoding"].contains(&&*name.to_lowercase()));
        }
        got
    });
    let mut interim = Vec::new();
    let answer = client.read_all(head.trim_start().split(' ').next().unwrap(), &mut interim).ok();
    let interim = interim.into_iter().map(|head| message(head, b"")).collect();
    let stays = answer.as_ref().is_some_and(|answer| !answer.closes()) && serves_another(&mut client, backend);
    if !stays {
        client.wait_closed(PATIENCE).unwrap_or_else(|e| panic!("{head:?} {way}: {e}"));
    }
    let answer = answer.map(|Response { head, body, .. }| {
        id_of(&head);
        message(head, &body)
    });
    (Outcome { got, interim, answer, stays }, ids.swap_remove(0))
}

/// Where the two say something else, in short.
fn difference(direct: &impl Debug, other: &impl Debug) -> String {
    let (direct, other) = (format!("{direct:?}"), format!("{other:?}"));
    let same = direct.bytes().zip(other.bytes()).take_while(|(one, other)| one == other).count();
    let part =
        |text: &str| String::from_utf8_lossy(&text.as_bytes()[same.saturating_sub(150)..]).chars().take(500).collect();
    let [direct, other]: [String; 2] = [&direct, &other].map(|text| part(text));
    format!("  directly …{direct}\nby Pingora …{other}")
}

fn serves_another(client: &mut Client, backend: &Played) -> bool {
    if client.send(b"GET /another HTTP/1.1\r\nHost: a\r\n\r\n").is_err() {
        return false;
    }
    let Some(mut taken) = backend.take_within(PATIENCE) else { return false };
    taken.request();
    taken.send(b"HTTP/1.1 200 OK\r\nContent-Length: 7\r\n\r\nanother");
    client.read("GET").is_ok_and(|response| response.text() == "another")
}

#[test]
fn a_backend_and_a_client_cannot_tell_the_ways_apart() {
    let backend = Played::new();
    // One thread, so that whatever came before a request was noticed before it.
    let setup = Setup::default().pool("app", &[backend.address], &format!("retries: 0, {NO_CHECK}"));
    // Each request comes over a connection of its own.
    let setup = setup.line("pingora: {threads: 1, upstream_keepalive_pool_size: 0}").line("limits: {max_body: 5}");
    let server = setup.start();
    let plain = answers().swap_remove(0);
    let by_request = requests().into_iter().map(|request| (request, Some(plain.clone())));
    let by_answer =
        answers().into_iter().flat_map(|answer| [GET, HEAD, POST].map(|request| (request, Some(answer.clone()))));
    let ours = [("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 6", "hello!")].map(|request| (request, None));
    let (mut exchanges, mut lines) = (Vec::new(), 0);
    for (request, answer) in by_request.chain(by_answer).chain(ours) {
        for ways in [WAYS, LAST] {
            let sent = (request.0, request.1.as_bytes());
            let both = ways.map(|way| exchange(&server, &backend, sent, way, answer.as_deref()));
            lines += both.iter().map(|(outcome, _)| 1 + usize::from(outcome.stays)).sum::<usize>();
            let answer = answer.as_deref().unwrap_or_default();
            let what = format!("{:?} got {}", request.0, answer[..answer.len().min(200)].escape_ascii());
            exchanges.push((what, both));
        }
    }
    let mut logged = HashMap::new();
    for mut line in server.access_lines(lines) {
        let id = line["request_id"].as_str().unwrap().to_owned();
        for differs in ["ts", "request_id", "duration_ms"] {
            line.as_object_mut().unwrap().remove(differs);
        }
        logged.insert(id, line);
    }
    let differ: Vec<_> = exchanges
        .into_iter()
        .filter_map(|(what, both)| {
            let [direct, other] = both.map(|(outcome, id)| (outcome, &logged[&id]));
            (direct != other).then(|| format!("{what}\n{}", difference(&direct, &other)))
        })
        .collect();
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n\n"));
}
