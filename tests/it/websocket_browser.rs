//! A WebSocket from a real browser, which asks for it over the HTTP/2 connection that its page came by (RFC 8441).

use std::sync::mpsc::{Sender, channel};

use serde_json::{Value, json};
use tempfile::TempDir;

use crate::harness::PATIENCE;
use crate::harness::browser::Browser;
use crate::harness::played::{Played, Taken};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

/// Says one message, waits for its echo and for one that is long, closes, and tells what came of it.
const PAGE: &str = "<!doctype html><script>
const got = [];
const socket = new WebSocket('wss://' + location.host + '/chat?a=b', ['other', 'talk']);
socket.onopen = () => socket.send('hello');
socket.onmessage = (event) => {
    got.push(event.data.length > 100 ? event.data.length : event.data);
    if (got.length === 2) socket.close(4001, 'enough');
};
socket.onclose = (event) => fetch('/told', {method: 'POST', body: JSON.stringify({
    got, code: event.code, clean: event.wasClean, protocol: socket.protocol,
    page: performance.getEntriesByType('navigation')[0].nextHopProtocol})});
</script>";

/// Says that it takes the WebSocket, without the proof that the key was read. Over HTTP/1.1 a browser gives up there;
/// over HTTP/2 there is no such proof.
const TAKEN: &str = "HTTP/1.1 101 Switching Protocols\r\nUpgrade: websocket\r\nConnection: Upgrade\r\n\
                     Sec-WebSocket-Accept: none\r\nSec-WebSocket-Protocol: talk\r\n\r\n";

/// How long the second message is.
const LONG: u16 = 50_000;

fn serve(mut taken: Taken, told: &Sender<(String, Value)>) {
    while let Ok(Some(got)) = taken.next() {
        let (first, upgrade) = (got.head.first.clone(), got.head.header("upgrade") == Some("websocket"));
        let body = serde_json::from_slice(&got.body).unwrap_or_else(|_| json!(got.head.header("origin")));
        let _ = told.send((first, body));
        if upgrade {
            return chat(taken);
        }
        let answer =
            format!("HTTP/1.1 200 OK\r\nContent-Type: text/html\r\nContent-Length: {}\r\n\r\n{PAGE}", PAGE.len());
        taken.send(answer.as_bytes());
    }
}

/// Sends each message back, and a long one behind the first, until the client closes (RFC 6455 section 5).
fn chat(mut taken: Taken) {
    taken.send(TAKEN.as_bytes());
    while let Ok(head) = taken.read_bytes(2) {
        let length = usize::from(head[1] & 127);
        assert!(head[1] & 128 != 0 && length < 126, "{head:?}");
        let mask = taken.read_bytes(4).unwrap();
        let said = taken.read_bytes(length).unwrap();
        let said: Vec<_> = said.iter().zip(mask.iter().cycle()).map(|(byte, mask)| byte ^ mask).collect();
        taken.send(&[&[head[0], head[1] & 127], &said[..]].concat());
        if head[0] & 15 == 8 {
            return;
        }
        let long = [&[0x81, 126][..], &LONG.to_be_bytes(), &vec![b'x'; LONG.into()]].concat();
        taken.send(&long);
    }
}

#[test]
fn messages_pass_both_ways_over_the_connection_of_the_page() {
    let (backend, dir) = (Played::new(), TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::default().pool("app", &[backend.address], NO_CHECK).tls(dir.path()).start();
    let Some(browser) = Browser::open(server.address, "/") else { return };
    let (tell, told) = channel();
    std::thread::spawn(move || {
        while let Some(taken) = backend.take_within(2 * PATIENCE) {
            let tell = tell.clone();
            std::thread::spawn(move || serve(taken, &tell));
        }
    });
    let mut heard = Vec::new();
    while heard.last().is_none_or(|(first, _): &(String, Value)| first != "POST /told HTTP/1.1") {
        let next = told.recv_timeout(2 * PATIENCE);
        heard.push(next.unwrap_or_else(|_| panic!("{heard:?}: {}", browser.process.err.text())));
    }
    let expected = json!({"got": ["hello", LONG], "code": 4001, "clean": true, "protocol": "talk", "page": "h2"});
    assert_eq!(heard.last().unwrap().1, expected, "{heard:?}");
    let asked = heard.iter().find(|(first, _)| first == "GET /chat?a=b HTTP/1.1").expect("no WebSocket");
    assert!(asked.1.as_str().is_some_and(|origin| origin.starts_with("https://test.example:")), "{asked:?}");
    let lines =
        server.process.out.wait("its line", PATIENCE, |lines| lines.iter().any(|line| line.contains(r#""/chat""#)));
    let line: Value = serde_json::from_str(lines.iter().find(|line| line.contains(r#""/chat""#)).unwrap()).unwrap();
    assert_eq!(line["status"], 101, "{line}");
}
