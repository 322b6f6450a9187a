//! Generated requests with generated answers. The seed is fixed, so a failure comes again.

use std::future::poll_fn;
use std::task::Poll;

use bytes::Bytes;
use fastrand::Rng;
use http::HeaderMap;
use tempfile::TempDir;

use super::{Message, WAYS, difference, exchange, message};
use crate::harness::PATIENCE;
use crate::harness::http2::{Http2, read_body, request, send_all};
use crate::harness::played::{Got, Played};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::wire::Head;

const SEED: u64 = 12;

/// A request: method, target, lines, body and whether the body is in chunks.
#[derive(Clone, Debug)]
struct Request {
    method: &'static str,
    target: String,
    lines: Vec<(String, String)>,
    body: Option<Vec<u8>>,
    chunked: bool,
}

fn pick<'a>(rng: &mut Rng, all: &[&'a str]) -> &'a str {
    rng.choice(all.iter().copied()).unwrap()
}

/// Each letter in either case.
fn cased(rng: &mut Rng, name: &str) -> String {
    match rng.u8(..4) {
        0 => name.to_uppercase(),
        1 => name.to_lowercase(),
        2 => name.chars().map(|c| if rng.bool() { c.to_ascii_uppercase() } else { c.to_ascii_lowercase() }).collect(),
        _ => name.to_owned(),
    }
}

fn value(rng: &mut Rng) -> String {
    match rng.u8(..8) {
        0 => String::new(),
        1 => "é\u{fc}ber 日".to_owned(),
        2 => "a \t b,  c;d=\"e, f\"".to_owned(),
        3 => "x".repeat(rng.usize(..3000)),
        _ => std::iter::repeat_with(|| rng.alphanumeric()).take(12).collect(),
    }
}

/// Lines under `names`, often repeated, sometimes many.
fn lines(rng: &mut Rng, names: &[&str]) -> Vec<(String, String)> {
    let count = if rng.u8(..10) == 0 { rng.usize(50..150) } else { rng.usize(..8) };
    let short = count > 20;
    let mut line = || {
        let name = pick(rng, names);
        let value = value(rng);
        (cased(rng, name), if short { value.chars().take(20).collect() } else { value })
    };
    let mut lines: Vec<_> = (0..count).map(|_| line()).collect();
    // The blanks at the ends are no part of a value.
    lines.iter_mut().for_each(|(_, value)| *value = value.trim().to_owned());
    lines
}

fn generate_request(rng: &mut Rng, http2: bool) -> Request {
    const NAMES: &[&str] = &[
        "X-A",
        "X-B",
        "X-Long-Name-With-Many-Parts",
        "Accept",
        "Cookie",
        "Cache-Control",
        "Via",
        "Forwarded",
        "Referer",
        "X-Forwarded-For",
        "X-Forwarded-Proto",
        "X-Forwarded-Host",
        "X-Request-Id",
        "User-Agent",
        "Range",
        "If-None-Match",
        "Date",
        "Content-Type",
        "Accept-Encoding",
        "X-RateLimit-Limit",
        "Origin",
    ];
    let method = pick(rng, &["GET", "GET", "HEAD", "POST", "PUT", "PATCH", "DELETE", "OPTIONS", "PROPFIND"]);
    let target = pick(rng, &["/", "/a/b", "/a%2Fb?c=d&e", "//x/../y", "/?", "/;a=b/c?d?e/", "/%ff%00"]).to_owned();
    let mut lines = lines(rng, NAMES);
    if !http2 && rng.bool() {
        let own = cased(rng, "Keep-Alive");
        lines.insert(rng.usize(..=lines.len()), (own, "timeout=5".to_owned()));
    }
    // Directly go the bodies that are there with their header.
    let length = rng.choice([0, 1, 100, 5000, 30_000]).unwrap();
    let body = rng.bool().then(|| std::iter::repeat_with(|| rng.u8(..)).take(length).collect());
    let body = body.filter(|_| !matches!(method, "GET" | "HEAD"));
    Request { method, target, lines, chunked: body.is_some() && rng.u8(..4) == 0, body }
}

impl Request {
    /// The header without `Connection` and the empty line, and the body as it is sent.
    fn http1(&self, rng: &mut Rng) -> (String, Vec<u8>) {
        let mut head = format!("{} {} HTTP/1.1", self.method, self.target);
        let mut lines = self.lines.clone();
        let mut add = |name: &str, value: String| {
            let name = cased(rng, name);
            lines.insert(rng.usize(..=lines.len()), (name, value));
        };
        add("Host", "a.example:8080".to_owned());
        let body = self.body.clone().unwrap_or_default();
        let body = match (&self.body, self.chunked) {
            (None, _) => body,
            (Some(_), true) => {
                add("Transfer-Encoding", "chunked".to_owned());
                crate::harness::client::chunks(&body, 1000)
            }
            (Some(_), false) => {
                add("Content-Length", body.len().to_string());
                body
            }
        };
        for (name, value) in lines {
            head.push_str(&format!("\r\n{name}: {value}"));
        }
        (head, body)
    }
}

/// A backend's answer to a request, in bytes; the connection ends after it.
fn generate_answer(rng: &mut Rng) -> Vec<u8> {
    const NAMES: &[&str] = &[
        "X-A",
        "X-B",
        "Set-Cookie",
        "Date",
        "Server",
        "Via",
        "ETag",
        "Vary",
        "Cache-Control",
        "Content-Type",
        "Location",
        "Link",
        "Keep-Alive",
        "Proxy-Authenticate",
        "Upgrade",
        "Trailer",
        "TE",
        "WWW-Authenticate",
        "X-Request-Id",
        "RateLimit",
        "X-RateLimit-Reset",
        "Age",
    ];
    const STATUSES: &[&str] = &[
        "200 OK",
        "200 OK",
        "200 OK",
        "201 Created",
        "204 No Content",
        "206 Partial Content",
        "301 Moved",
        "304 Not Modified",
        "400 Bad",
        "404 Nothing here",
        "418 I'm a teapot",
        "500 ",
        "503 Busy",
        "599 Odd",
        "299",
        "205 Reset Content",
    ];
    let mut out = Vec::new();
    for _ in 0..rng.usize(..5).saturating_sub(2) {
        let status = pick(rng, &["103 Early Hints", "102 Processing", "100 Continue", "199 Odd"]);
        out.extend_from_slice(format!("HTTP/1.1 {status}\r\nLink: </a>\r\nX-Interim: 1\r\nTE: x\r\n\r\n").as_bytes());
    }
    let version = pick(rng, &["HTTP/1.1", "HTTP/1.1", "HTTP/1.0"]);
    let body: Vec<u8> = {
        let length = rng.choice([0, 1, 5, 2000, 20_000]).unwrap();
        std::iter::repeat_with(|| rng.u8(..)).take(length).collect()
    };
    let mut lines = lines(rng, NAMES);
    let mut add = |rng: &mut Rng, name: &str, value: &str| {
        let name = cased(rng, name);
        lines.insert(rng.usize(..=lines.len()), (name, value.to_owned()));
    };
    if rng.bool() {
        let said = pick(rng, &["close", "keep-alive", "Keep-Alive, x-a", "x-b, set-cookie", "upgrade", ""]);
        add(rng, "Connection", said);
    }
    let length = body.len().to_string();
    let mut sent = body.clone();
    match rng.u8(..20) {
        0..6 => add(rng, "Content-Length", &length),
        6..11 => {
            let coding = pick(rng, &["chunked", "Chunked"]);
            add(rng, "Transfer-Encoding", coding);
            sent = chunks(rng, &body);
        }
        11..13 => {}
        13 => {
            add(rng, "Content-Length", &length);
            add(rng, "Content-Length", &length);
        }
        14 => add(rng, "Content-Length", &format!("{length}, {length}")),
        15 => {
            add(rng, "Content-Length", &length);
            add(rng, "Content-Length", "7");
        }
        16 => {
            add(rng, "Content-Length", &length);
            add(rng, "Transfer-Encoding", "chunked");
            sent = chunks(rng, &body);
        }
        17 => {
            let coding = pick(rng, &["identity", "gzip, chunked", "chunked, chunked", "chunked;q=1", "", "xchunked"]);
            add(rng, "Transfer-Encoding", coding);
        }
        18 => add(rng, "X-A", "folded\r\n line"),
        // It ends too early, or what is there is none.
        _ if rng.bool() => add(rng, "Content-Length", &(body.len() + 10).to_string()),
        _ => {
            add(rng, "Transfer-Encoding", "chunked");
            sent = chunks(rng, &body);
            sent.truncate(rng.usize(..=sent.len()));
            sent.extend_from_slice(pick(rng, &["", "x\r\n", "5\r\nabc", "-1\r\n"]).as_bytes());
        }
    }
    out.extend_from_slice(format!("{version} {}\r\n", pick(rng, STATUSES)).as_bytes());
    for (name, value) in lines {
        out.extend_from_slice(format!("{name}: {value}\r\n").as_bytes());
    }
    out.extend_from_slice(b"\r\n");
    out.extend_from_slice(&sent);
    out
}

/// `body` in chunks of any sizes, with extensions and trailers.
fn chunks(rng: &mut Rng, body: &[u8]) -> Vec<u8> {
    let (mut out, mut left) = (Vec::new(), body);
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(rng.usize(1..=left.len()));
        let extension = pick(rng, &["", "", ";a", ";a=b;c=\"d e\"", "  "]);
        out.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        left = rest;
    }
    let trailers = pick(rng, &["", "", "X-Sum: 1\r\n", "X-Sum: 1\r\nContent-Length: 3\r\n"]);
    out.extend_from_slice(format!("0\r\n{trailers}\r\n").as_bytes());
    out
}

/// What is said of an exchange that was not the same.
fn failure(number: usize, asked: &str, answer: &[u8], how: &str) -> String {
    let asked: String = asked.chars().take(500).collect();
    format!("{number}: {asked}\nanswered {}\n{how}", answer[..answer.len().min(500)].escape_ascii())
}

fn setup(backend: &Played) -> Setup {
    let setup = Setup::default().pool("app", &[backend.address], &format!("retries: 0, {NO_CHECK}"));
    // Each request comes over a connection of its own. All are told how their bucket stands.
    setup
        .line("pingora: {threads: 1, upstream_keepalive_pool_size: 0}")
        .line("rate_limit: {default: {capacity: 1000000, rate_per_sec: 1000}}")
        .line("access_log: {path: null}")
}

#[test]
fn generated_exchanges_are_the_same_both_ways() {
    let backend = Played::new();
    let server = setup(&backend).start();
    let mut rng = Rng::with_seed(SEED);
    let mut differ = Vec::new();
    for number in 0..150 {
        let asked = generate_request(&mut rng, false);
        let (head, body) = asked.http1(&mut rng);
        let answer = generate_answer(&mut rng);
        let [direct, other] = WAYS.map(|way| exchange(&server, &backend, (&head, &body), way, Some(&answer)).0);
        let (_, _, got) = direct.got.as_ref().expect("an answer is played");
        let whole = asked.body.as_deref().unwrap_or_default().escape_ascii().to_string();
        if direct != other || *got != whole {
            differ.push(failure(number, &head, &answer, &difference(&direct, &other)));
        }
    }
    let first = differ.iter().take(5).map(|text: &String| &**text).collect::<Vec<_>>();
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), first.join("\n\n"));
}

/// What became of an exchange over HTTP/2: what the backend got, the interim answers and the answer.
#[derive(Debug, PartialEq)]
struct Outcome {
    got: Message,
    interim: Vec<Message>,
    answer: Option<Message>,
}

fn headers(first: String, headers: &HeaderMap) -> Head {
    let line = |(name, value): (&http::HeaderName, &http::HeaderValue)| {
        (name.to_string(), String::from_utf8_lossy(value.as_bytes()).into_owned())
    };
    Head { first, headers: headers.iter().map(line).collect() }
}

fn over_http2(client: &mut Http2, backend: &Played, asked: &Request, by_pingora: bool, answer: &[u8]) -> Outcome {
    let mut head = request(asked.method, &asked.target);
    for (name, value) in &asked.lines {
        head.headers_mut().append(
            http::HeaderName::from_bytes(name.as_bytes()).unwrap(),
            http::HeaderValue::from_bytes(value.as_bytes()).unwrap(),
        );
    }
    if let (Some(body), false) = (&asked.body, asked.chunked) {
        head.headers_mut().insert("content-length", body.len().into());
    }
    if by_pingora {
        head.headers_mut().insert("te", "trailers".parse().unwrap());
    }
    let body = asked.body.clone().map(Bytes::from);
    let (response, stream) = client.open(head, body.is_none()).unwrap();
    if let Some(body) = body {
        let _entered = client.runtime.enter();
        tokio::spawn(async move {
            let mut stream = stream;
            if body.is_empty() { stream.send_data(body, true) } else { send_all(stream, body).await }
        });
    }
    let Some(mut taken) = backend.take_within(PATIENCE) else {
        panic!("not sent: {asked:?}");
    };
    let Got { head, body } = taken.request();
    taken.send(answer);
    drop(taken);
    let got = message(head, &body);
    let mut response = response;
    // On the one thread that drives the connection too: what comes between the two polls would be lost, since h2 drops
    // interim answers once the final one is asked for.
    let reading = client.runtime.spawn(async move {
        let mut interim = Vec::new();
        let answer = poll_fn(|cx| {
            while let Poll::Ready(Some(Ok(told))) = response.poll_informational(cx) {
                interim.push(message(headers(told.status().to_string(), told.headers()), b""));
            }
            std::pin::Pin::new(&mut response).poll(cx)
        });
        let answer = async {
            let (parts, mut stream) = answer.await.ok()?.into_parts();
            let body = read_body(&mut stream).await.ok()?;
            Some(message(headers(parts.status.to_string(), &parts.headers), &body))
        };
        (answer.await, interim)
    });
    let (answer, interim) = client.runtime.block_on(reading).unwrap();
    Outcome { got, interim, answer }
}

pub(super) fn secure(backend: &Played) -> (Tollgate, TempDir) {
    let dir = TempDir::new().unwrap();
    write_pair(dir.path(), NOW);
    (setup(backend).tls(dir.path()).start(), dir)
}

#[test]
fn generated_exchanges_over_http_2_are_the_same_both_ways() {
    let backend = Played::new();
    let (server, _dir) = secure(&backend);
    let mut client = Http2::connect(server.address);
    let mut rng = Rng::with_seed(SEED + 1);
    let mut differ = Vec::new();
    for number in 0..150 {
        let asked = generate_request(&mut rng, true);
        let answer = generate_answer(&mut rng);
        let [direct, other] =
            [false, true].map(|by_pingora| over_http2(&mut client, &backend, &asked, by_pingora, &answer));
        let whole = asked.body.as_deref().unwrap_or_default().escape_ascii().to_string();
        if direct != other || direct.got.2 != whole {
            differ.push(failure(number, &format!("{asked:?}"), &answer, &difference(&direct, &other)));
        }
    }
    let first = differ.iter().take(5).map(|text: &String| &**text).collect::<Vec<_>>();
    assert!(differ.is_empty(), "{} differ:\n{}", differ.len(), first.join("\n\n"));
}
