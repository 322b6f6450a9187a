//! The scripted backend: an HTTP/1.1 server in a process of its own that does what [`script`](super::script) says.
//!
//! It is this test binary, started again. It ends with its standard input, so it never outlives the test that started
//! it. What lies under `/-/` is for the test alone and not counted.

use std::collections::HashMap;
use std::io::{self, Read};
use std::net::{TcpListener, TcpStream};
use std::sync::{Arc, Condvar, Mutex};
use std::time::{Duration, Instant};

use serde_json::json;

use super::client::chunks;
use super::script::{GARBAGE, number, path, word};
use super::wire::{Framing, Head, Wire};
use super::{checksum, dawdle, now};

/// Holds `NAME ADDRESS` in the backend's process, and nothing in all others.
pub(crate) const SPEC: &str = "TOLLGATE_TEST_BACKEND";
/// In how many pieces a body that takes its time comes.
const PIECES: usize = 50;

struct Shared {
    name: String,
    start: Instant,
    state: Mutex<State>,
    released: Condvar,
}

#[derive(Default)]
struct State {
    /// What `/health` answers; 0 is nothing at all.
    health: u16,
    /// When `/health` was asked, in milliseconds since the start.
    checks: Vec<u64>,
    /// `METHOD /path` of each request, in order.
    seen: Vec<String>,
    /// How many wait, by key.
    held: HashMap<String, usize>,
    /// How many holds were released, by key.
    releases: HashMap<String, bool>,
    connections: usize,
}

/// Serves until the process ends.
pub(crate) fn serve(spec: &str) -> ! {
    let (name, address) = spec.split_once(' ').expect("NAME ADDRESS");
    let state = State { health: 200, ..State::default() };
    let shared =
        Arc::new(Shared { name: name.to_owned(), start: now(), state: Mutex::new(state), released: Condvar::new() });
    let listener = TcpListener::bind(address).unwrap_or_else(|e| panic!("cannot bind {address}: {e}"));
    std::thread::spawn(|| {
        let mut rest = Vec::new();
        // Whatever ends the input, the test is gone.
        let _ = io::stdin().read_to_end(&mut rest);
        std::process::exit(0);
    });
    loop {
        let (stream, _) = listener.accept().expect("accept");
        let shared = Arc::clone(&shared);
        // A broken connection is the other side's business.
        std::thread::spawn(move || serve_connection(stream, &shared).ok());
    }
}

struct Asked<'a> {
    method: &'a str,
    target: &'a str,
    head: &'a Head,
    body: &'a [u8],
    framing: Option<Framing>,
    served: usize,
}

fn serve_connection(stream: TcpStream, shared: &Shared) -> io::Result<()> {
    stream.set_nodelay(true)?;
    let mut wire = Wire::new(stream);
    let mut served = 0;
    let mut counted = false;
    while let Some(head) = wire.head()? {
        let mut words = head.first.splitn(3, ' ');
        let (method, target) = (words.next().unwrap_or_default(), words.next().unwrap_or_default());
        if let Some(control) = target.strip_prefix("/-/") {
            return wire.send(&answer(&shared.control(control), "200 OK", &[], false));
        }
        let is_check = path(target) == "/health";
        if !is_check {
            let mut state = shared.state.lock().unwrap();
            state.seen.push(format!("{method} {}", path(target)));
            state.connections += usize::from(!counted);
            counted = true;
        }
        if head.header("expect").is_some_and(|expect| expect.eq_ignore_ascii_case("100-continue")) {
            wire.send(b"HTTP/1.1 100 Continue\r\n\r\n")?;
        }
        let early = number(target, "early");
        if let Some(status) = early {
            wire.send(&answer(b"early", &format!("{status} Early"), &[], false))?;
        }
        let framing = head.framing()?;
        let body = framing.map_or(Ok(Vec::new()), |framing| wire.body(framing))?;
        if early.is_some() {
            served += 1;
            continue;
        }
        let asked = Asked { method, target, head: &head, body: &body, framing, served };
        let goes_on = if is_check { shared.check(&mut wire)? } else { shared.respond(&mut wire, &asked)? };
        served += 1;
        if !goes_on || head.header("connection").is_some_and(|value| value.eq_ignore_ascii_case("close")) {
            return Ok(());
        }
    }
    Ok(())
}

impl Shared {
    fn control(&self, command: &str) -> Vec<u8> {
        let mut state = self.state.lock().unwrap();
        let value = match command.split_once('=').unwrap_or((command, "")) {
            ("health", status) => {
                state.health = status.parse().expect("a status");
                json!(null)
            }
            ("release", key) => {
                state.releases.insert(key.to_owned(), true);
                self.released.notify_all();
                json!(null)
            }
            ("forget", _) => {
                state.seen.clear();
                json!(null)
            }
            ("held", key) => json!(state.held.get(key).copied().unwrap_or_default()),
            ("seen", _) => json!(state.seen),
            ("checks", _) => json!(state.checks),
            ("connections", _) => json!(state.connections),
            _ => panic!("unknown control {command}"),
        };
        value.to_string().into_bytes()
    }

    fn check(&self, wire: &mut Wire) -> io::Result<bool> {
        let mut state = self.state.lock().unwrap();
        state.checks.push(self.start.elapsed().as_millis() as u64);
        let health = state.health;
        drop(state);
        if health == 0 {
            return until_closed(wire);
        }
        wire.send(&answer(b"ok", &format!("{health} Health"), &[], false))?;
        Ok(true)
    }

    fn hold(&self, key: &str) {
        let mut state = self.state.lock().unwrap();
        *state.held.entry(key.to_owned()).or_default() += 1;
        let mut state = self.released.wait_while(state, |state| !state.releases.contains_key(key)).unwrap();
        *state.held.entry(key.to_owned()).or_default() -= 1;
    }

    /// Answers as the target says; `false` when the connection is to end.
    fn respond(&self, wire: &mut Wire, asked: &Asked<'_>) -> io::Result<bool> {
        let target = asked.target;
        if word(target, "at").is_some_and(|name| name != self.name) {
            return self.answer(wire, asked, false);
        }
        if let Some(key) = word(target, "hold") {
            self.hold(key);
        }
        dawdle(Duration::from_millis(number(target, "delay_ms").unwrap_or_default()));
        if let Some(status) = number(target, "interim") {
            wire.send(format!("HTTP/1.1 {status} Interim\r\nX-Interim: {}\r\n\r\n", self.name).as_bytes())?;
        }
        if word(target, "switch") == Some("echo") {
            let protocol = asked.head.header("upgrade").unwrap_or("unasked");
            let head = format!("HTTP/1.1 101 Switching\r\nConnection: Upgrade\r\nUpgrade: {protocol}\r\n\r\n");
            wire.send(head.as_bytes())?;
            return echo(wire);
        }
        if let Some(index) = number(target, "raw") {
            wire.send(GARBAGE[index as usize])?;
            return Ok(false);
        }
        match word(target, "fault") {
            Some("close") => return Ok(false),
            Some("close_reused") if asked.served > 0 => return Ok(false),
            Some("half_body") => {
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\n")?;
                wire.send(&[b'x'; 500])?;
                return Ok(false);
            }
            Some("half_chunked") => {
                wire.send(b"HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n100\r\nand no")?;
                return Ok(false);
            }
            Some("hang") => return until_closed(wire),
            Some("half_head") => {
                wire.send(b"HTTP/1.1 200 OK\r\nX-Half: ")?;
                return until_closed(wire);
            }
            Some("head_only") => {
                wire.send(b"HTTP/1.1 200 OK\r\nContent-Length: 1000\r\n\r\nhello")?;
                return until_closed(wire);
            }
            Some("close_reused") | None => {}
            Some(other) => panic!("unknown fault {other}"),
        }
        self.answer(wire, asked, true)
    }

    fn answer(&self, wire: &mut Wire, asked: &Asked<'_>, shaped: bool) -> io::Result<bool> {
        let target = if shaped { asked.target } else { "" };
        let status = number(target, "status").unwrap_or(200);
        let body = match number(target, "bytes") {
            Some(bytes) => checksum::body(number(target, "seed").unwrap_or_default(), bytes as usize),
            None => self.report(asked).to_string().into_bytes(),
        };
        let mut headers = vec![
            ("X-Backend".to_owned(), self.name.clone()),
            ("X-Got".to_owned(), format!("{} {:x}", asked.body.len(), checksum::sum(asked.body))),
            ("X-Sum".to_owned(), format!("{:x}", checksum::sum(&body))),
            // Hop-by-hop headers, which must end at the proxy.
            ("Keep-Alive".to_owned(), "timeout=7".to_owned()),
            ("Proxy-Connection".to_owned(), "keep-alive".to_owned()),
            ("X-Private".to_owned(), "for the proxy alone".to_owned()),
        ];
        headers.extend(
            word(target, "answer_header")
                .and_then(|line| line.split_once(':'))
                .map(|(n, v)| (n.to_owned(), v.to_owned())),
        );
        headers.extend((0..number(target, "header_kb").unwrap_or_default()).map(|n| (format!("X-Big-{n}"), big(n))));
        let bodiless = asked.method == "HEAD" || matches!(status, 204 | 304);
        let framing = word(target, "answer").unwrap_or("length");
        let mut bytes = answer_head(&format!("{status} Scripted"), &headers);
        match framing {
            _ if status == 204 => {}
            "length" => bytes.extend_from_slice(format!("Content-Length: {}\r\n", body.len()).as_bytes()),
            "chunked" => bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n"),
            "close" => {}
            other => panic!("unknown framing {other}"),
        }
        let connection = if framing == "close" { "close" } else { "keep-alive" };
        bytes.extend_from_slice(format!("Connection: {connection}, X-Private\r\n\r\n").as_bytes());
        if let Some(time) = number(target, "over_ms") {
            wire.send(&bytes)?;
            for piece in body.chunks(body.len().div_ceil(PIECES).max(1)) {
                dawdle(Duration::from_millis(time) / PIECES as u32);
                wire.send(piece)?;
            }
            return Ok(true);
        }
        match framing {
            _ if bodiless => {}
            "chunked" => bytes.extend_from_slice(&chunks(&body, 7919)),
            _ => bytes.extend_from_slice(&body),
        }
        wire.send(&bytes)?;
        Ok(framing != "close")
    }

    /// What the backend got, for requests that do not ask for a body of their own.
    fn report(&self, asked: &Asked<'_>) -> serde_json::Value {
        json!({
            "backend": self.name,
            "method": asked.method,
            "target": asked.target,
            "headers": asked.head.headers,
            "framing": asked.framing.map(|framing| if framing == Framing::Chunked { "chunked" } else { "length" }),
            "served": asked.served,
        })
    }
}

/// The value of the nth big header: 1,000 bytes.
pub(crate) fn big(n: u64) -> String {
    format!("{n:04}").repeat(250)
}

fn answer(body: &[u8], status: &str, headers: &[(String, String)], close: bool) -> Vec<u8> {
    let mut bytes = answer_head(status, headers);
    let close = if close { "Connection: close\r\n" } else { "" };
    bytes.extend_from_slice(format!("{close}Content-Length: {}\r\n\r\n", body.len()).as_bytes());
    bytes.extend_from_slice(body);
    bytes
}

fn answer_head(status: &str, headers: &[(String, String)]) -> Vec<u8> {
    let mut head = format!("HTTP/1.1 {status}\r\n");
    for (name, value) in headers {
        head.push_str(&format!("{name}: {value}\r\n"));
    }
    head.into_bytes()
}

/// Sends back what comes until the other side closes.
fn echo(wire: &mut Wire) -> io::Result<bool> {
    loop {
        let bytes = wire.take_unread();
        wire.send(&bytes)?;
        if !wire.fill()? {
            return Ok(false);
        }
    }
}

/// Says nothing more until the other side closes.
fn until_closed(wire: &mut Wire) -> io::Result<bool> {
    while wire.fill()? {}
    Ok(false)
}
