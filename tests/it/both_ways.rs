//! A plain request goes past Pingora's request loop, any other one through it. Nobody may be able to tell which way it
//! went: the same request is sent both ways, and what the backend got, what the client got and what the log says are
//! compared.

use std::collections::HashMap;

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

/// The request line and the lines of the header, without `Connection`; and the body.
type Asked = (&'static str, &'static str);

const GET: Asked = ("GET /a%2Fb?c=d HTTP/1.1\r\nHost: a.example:80", "");
const HEAD: Asked = ("HEAD / HTTP/1.1\r\nHost: a", "");
const POST: Asked = ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 5", "hello");

fn requests() -> Vec<Asked> {
    vec![
        GET,
        HEAD,
        POST,
        ("PUT /x HTTP/1.1\r\nHost: a\r\ncontent-length: 005", "hello"),
        ("DELETE /x HTTP/1.1\r\nHost: a\r\nContent-Length: 2", "hi"),
        ("POST /x HTTP/1.1\r\nHost: a", ""),
        ("POST /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0", ""),
        ("GET /x HTTP/1.1\r\nHost: a\r\nContent-Length: 0", ""),
        ("M-SEARCH //x/../?? HTTP/1.1\r\nHOST: [::1]:8080", ""),
        ("GET / HTTP/1.1\r\nHost:", ""),
        ("GET / HTTP/1.1\r\nX-Many: 1\r\nhost: a\r\nx-many:2\r\nX-EMPTY:\r\nCookie: a=b\r\nCookie: c=d", ""),
        ("GET / HTTP/1.1\r\nHost: a\r\nKeep-Alive: timeout=5\r\nX-Tab: \t a \tb \t\r\nX_Under: \u{e4}", ""),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-For: 1.2.3.4\r\nX-Forwarded-Proto: https\r\nX-Request-Id: mine", ""),
        ("GET / HTTP/1.1\r\nHost: a\r\nX-Forwarded-Host: b\r\nForwarded: for=c\r\nVia: 1.1 d\r\nDate: never", ""),
        ("\r\nGET / HTTP/1.1\r\nHost: a", ""),
    ]
}

fn answers() -> Vec<Vec<u8>> {
    let many = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "X-Many: 1\r\n".repeat(200));
    let too_many = format!("HTTP/1.1 200 OK\r\nContent-Length: 0\r\n{}\r\n", "X-Many: 1\r\n".repeat(300));
    let long = format!("HTTP/1.1 200 OK\r\nContent-Length: 40000\r\n\r\n{}", "x".repeat(40_000));
    let long_chunk =
        format!("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n9C40\r\n{}\r\n0\r\n\r\n", "x".repeat(40_000));
    let texts = [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nX-A: b\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\ncontent-length: 0\r\nDate: Thu, 01 Jan 1970 00:00:00 GMT\r\nServer: x\r\n\r\n",
        "HTTP/1.1 404 Nothing Here\r\nContent-Length: 5\r\nSet-Cookie: a\r\nX-A: b\r\nSet-Cookie: c\r\n\r\nhello",
        "HTTP/1.1 200\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 599 Odd\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 999 Odd\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 500 No\r\nContent-Length: 5\r\nX-Empty:\r\nX-Spaces:  \t a  b \t \r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: close\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, x-a, set-cookie\r\nX-A: b\r\nSet-Cookie: c\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nKeep-Alive: timeout=5\r\nUpgrade: h2c\r\nTrailer: x\r\nTE: y\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nProxy-Authenticate: x\r\nProxy-Connection: y\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\ntransfer-encoding: Chunked\r\n\r\n3;a=b\r\nhel\r\n002\r\nlo\r\n0\r\nX-Trailer: a\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5  \r\nhello\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\n\r\nhello, and the end",
        "HTTP/1.1 200 OK\r\n\r\n",
        "HTTP/1.0 200 OK\r\n\r\nhello, and the end",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive\r\n\r\nhello",
        "HTTP/1.1 204 No Content\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nETag: \"x\"\r\n\r\n",
        "HTTP/1.1 304 Not Modified\r\nContent-Length: 5\r\n\r\n",
        "HTTP/1.1 205 Reset\r\nContent-Length: 0\r\n\r\n",
        "HTTP/1.1 103 Early\r\nLink: </a>\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 100 Continue\r\n\r\nHTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\nhello and more",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nTransfer-Encoding: chunked\r\n\r\n2\r\nhi\r\n0\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length : 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\nContent-Length: 5\n\nhello",
        // Answers that are none.
        "",
        "HTTP/1.1 200 OK\r\nX-Half: ",
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nContent-Length: five\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX-Nul: \0\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nX-A: b\rX-B: c\r\nContent-Length: 5\r\n\r\nhello",
        "HTTP/1.1 101 Switching\r\nConnection: upgrade\r\nUpgrade: x\r\n\r\n",
        "HTTP/2.0 200 OK\r\nContent-Length: 5\r\n\r\nhello",
        "hello",
        // Answers that end too early.
        "HTTP/1.1 200 OK\r\nContent-Length: 10\r\n\r\nhello",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhel",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n",
    ];
    let texts = texts.into_iter().map(str::to_owned).chain([many, too_many, long, long_chunk]);
    texts.map(String::into_bytes).collect()
}

/// A start line, the header and the body.
type Message = (String, Vec<(String, String)>, String);

/// What became of one exchange, as far as it should be the same both ways.
#[derive(Debug, PartialEq)]
struct Outcome {
    /// What the backend got, when it got anything.
    got: Option<Message>,
    /// What the client got; `None` when there was no answer or not all of it.
    answer: Option<Message>,
    /// Whether the client's connection serves another request.
    stays: bool,
}

/// The message without what differs from one to the next, and without what only Pingora leaves as it is: the version and
/// the spelling of `chunked`.
fn message(head: Head, body: &[u8]) -> Message {
    let lines = head.headers.into_iter().map(|(name, value)| match name.to_lowercase() {
        name if name == "transfer-encoding" => (name, value.to_lowercase()),
        name => (name, value),
    });
    let mut lines: Vec<_> = lines.filter(|(name, _)| !matches!(name.as_str(), "date" | "x-request-id")).collect();
    // Stable: what is repeated stays in its order.
    lines.sort_by(|(one, _), (other, _)| one.cmp(other));
    (head.first.replace("HTTP/1.0", "HTTP/1.1"), lines, body.escape_ascii().to_string())
}

/// One exchange, and the id under which it is logged.
fn exchange(
    server: &Tollgate,
    backend: &Played,
    (head, body): Asked,
    way: &str,
    answer: Option<&[u8]>,
) -> (Outcome, String) {
    let mut client = server.client();
    client.send(format!("{head}\r\nConnection: {way}\r\n\r\n{body}").as_bytes()).unwrap();
    let mut ids = Vec::new();
    let mut id_of = |head: &Head| ids.extend(head.header("x-request-id").map(str::to_owned));
    let got = answer.map(|answer| {
        let Some(mut taken) = backend.take_within(PATIENCE) else {
            panic!("{head:?} {way}: not sent: {:?}\n{}", client.read("GET"), server.process.err.text());
        };
        let Got { head, body } = taken.request();
        taken.send(answer);
        id_of(&head);
        message(head, &body)
    });
    let answer = client.read(head.trim_start().split(' ').next().unwrap()).ok();
    let stays = answer.as_ref().is_some_and(|answer| !answer.closes()) && serves_another(&mut client, backend);
    if !stays {
        client.wait_closed(PATIENCE).unwrap_or_else(|e| panic!("{head:?} {way}: {e}"));
    }
    let answer = answer.map(|Response { head, body, .. }| {
        id_of(&head);
        message(head, &body)
    });
    (Outcome { got, answer, stays }, ids.swap_remove(0))
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
            let both = ways.map(|way| exchange(&server, &backend, request, way, answer.as_deref()));
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
            (direct != other).then(|| format!("{what}\n  directly {direct:?}\nby Pingora {other:?}"))
        })
        .collect();
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), differ.join("\n\n"));
}
