//! What is no HTTP/2 request, or would be another one in HTTP/1.1, reaches no backend.

use h2::Reason;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::http2::{DATA, END_STREAM, Frame, Frames, GOAWAY, HEADERS, RST_STREAM, SETTINGS, error_code};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

/// The four that a request has, to be spoiled.
const GOOD: [(&str, &str); 4] = [(":method", "GET"), (":scheme", "https"), (":path", "/x"), (":authority", "a")];

/// The first byte of a header block that begins with this status (RFC 7541 appendix A).
const STATUS_200: u8 = 0x88;
const STATUS_400: u8 = 0x8c;

fn server() -> ([Backend; 1], Tollgate) {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).start();
    (backend, server)
}

/// `GOOD` with these changes: a name alone takes its line away.
fn lines<'a>(changes: &[(&'a str, Option<&'a str>)]) -> Vec<(&'a str, &'a str)> {
    let mut lines = GOOD.to_vec();
    for (name, value) in changes {
        match (value, lines.iter().position(|(line, _)| line == name)) {
            (None, Some(at)) => drop(lines.remove(at)),
            (Some(value), Some(at)) if name.starts_with(':') => lines[at].1 = value,
            (Some(value), _) => lines.push((name, value)),
            (None, None) => panic!("{name} is not there"),
        }
    }
    lines
}

/// Whether a frame refuses its stream: by a reset, or by 400.
fn refuses(frame: &Frame) -> bool {
    match frame.kind {
        RST_STREAM => error_code(frame) == u32::from(Reason::PROTOCOL_ERROR),
        _ => frame.payload.first() == Some(&STATUS_400),
    }
}

#[track_caller]
fn assert_still_serves(client: &mut Frames, stream: u32, after: &str) {
    client.headers(stream, END_STREAM, &GOOD).unwrap_or_else(|e| panic!("{after}: {e}"));
    loop {
        let frame = client.wait_for(&[HEADERS, RST_STREAM, GOAWAY]);
        assert_ne!(frame.kind, GOAWAY, "after {after}: {frame:?}");
        if frame.stream == stream {
            assert_eq!(frame.payload.first(), Some(&STATUS_200), "after {after}: {frame:?}");
            return;
        }
    }
}

#[test]
fn malformed_requests_are_refused_and_the_connection_stays() {
    let (backend, server) = server();
    let change = |changes: &[(&'static str, Option<&'static str>)]| lines(changes);
    let with = |name, value| change(&[(name, Some(value))]);
    let mut cases = vec![
        ("no :method", change(&[(":method", None)])),
        ("no :scheme", change(&[(":scheme", None)])),
        ("no :path", change(&[(":path", None)])),
        ("no :authority and no host", change(&[(":authority", None)])),
        ("an empty :path", with(":path", "")),
        ("a :path without a slash", with(":path", "x")),
        ("an absolute :path", with(":path", "http://b/")),
        (":path * with GET", with(":path", "*")),
        ("a space in :path", with(":path", "/a b")),
        ("a line end in :path", with(":path", "/a\r\nx: y")),
        ("a tab in :path", with(":path", "/a\tb")),
        ("brackets in :path", with(":path", "/<a>")),
        ("a :scheme of something else", with(":scheme", "ftp")),
        ("a user in :authority", with(":authority", "user@a")),
        ("a path in :authority", with(":authority", "a/b")),
        ("a bad port in :authority", with(":authority", "a:99999")),
        ("a space in :authority", with(":authority", "a b")),
        ("another host", with("host", "b")),
        ("host twice", change(&[("host", Some("a")), ("host", Some("a"))])),
        ("a list in host", change(&[(":authority", None), ("host", Some("a, b"))])),
        ("an empty host", change(&[(":authority", None), ("host", Some(""))])),
        ("connection", with("connection", "close")),
        ("keep-alive", with("keep-alive", "timeout=5")),
        ("proxy-connection", with("proxy-connection", "keep-alive")),
        ("transfer-encoding", with("transfer-encoding", "chunked")),
        ("upgrade", with("upgrade", "websocket")),
        ("te", with("te", "gzip")),
        ("upper case", with("X-Upper", "1")),
        ("a space in a name", with("x y", "1")),
        ("a colon in a name", with("x:y", "1")),
        ("an empty name", with("", "1")),
        ("a line end in a value", with("x", "a\r\nb: c")),
        ("a lone line feed in a value", with("x", "a\nb")),
        ("a zero byte in a value", with("x", "a\0b")),
        ("a blank before a credential", with("authorization", " Bearer key")),
        ("a tab after it", with("authorization", "Bearer key\t")),
        ("content-length twice", change(&[("content-length", Some("0")), ("content-length", Some("0"))])),
        ("content-length of two kinds", change(&[("content-length", Some("0")), ("content-length", Some("5"))])),
        ("a signed content-length", with("content-length", "+0")),
        ("a content-length that is none", with("content-length", "x")),
        ("a body that was announced and does not come", with("content-length", "5")),
        ("an unknown pseudo-header", {
            let mut lines = GOOD.to_vec();
            lines.push((":unknown", "1"));
            lines
        }),
        (":status in a request", {
            let mut lines = GOOD.to_vec();
            lines.push((":status", "200"));
            lines
        }),
    ];
    for repeated in GOOD {
        cases.push(("a repeated pseudo-header", [&GOOD[..], &[repeated]].concat()));
        cases.push(("a late pseudo-header", {
            let mut lines: Vec<_> = GOOD.into_iter().filter(|line| *line != repeated).collect();
            lines.extend([("x", "y"), repeated]);
            lines
        }));
    }
    for (name, lines) in &cases {
        let mut client = Frames::connect(server.address);
        client.headers(1, END_STREAM, lines).unwrap();
        let answer = client.wait_for(&[HEADERS, RST_STREAM, GOAWAY]);
        assert_eq!(backend[0].count("GET /x"), 0, "{name}");
        // Names and values that no header may have at all end the connection.
        if answer.kind == GOAWAY {
            let about = ["name", "value", "upper case", "pseudo"];
            assert!(about.iter().any(|about| name.contains(about)), "{name}: {answer:?}");
            assert_eq!(error_code(&answer), u32::from(Reason::PROTOCOL_ERROR), "{name}");
            continue;
        }
        assert!(answer.stream == 1 && refuses(&answer), "{name}: {answer:?}");
        assert_still_serves(&mut client, 3, name);
        backend[0].control("forget");
    }
}

#[test]
fn bodies_of_another_length_than_announced_end_their_stream() {
    let (backend, server) = server();
    for (announced, sent) in [("5", &b"abc"[..]), ("5", b"abcdefg"), ("1", b"")] {
        let mut client = Frames::connect(server.address);
        let mut lines = lines(&[(":method", Some("POST"))]);
        lines.push(("content-length", announced));
        client.headers(1, 0, &lines).unwrap();
        client.send(DATA, END_STREAM, 1, sent).unwrap();
        let reset = client.wait_for(&[RST_STREAM]);
        assert_eq!(error_code(&reset), u32::from(Reason::PROTOCOL_ERROR), "{announced} {sent:?}");
        assert_still_serves(&mut client, 3, announced);
    }
    // Each of them reached the backend as far as it went, and none as a whole request.
    let whole = backend[0].seen().iter().filter(|seen| *seen == "GET /x").count();
    assert_eq!(whole, 3, "{:?}", backend[0].seen());
}

#[test]
fn connect_is_served_for_nothing_but_websockets() {
    let (backend, server) = server();
    for lines in [
        vec![(":method", "CONNECT"), (":authority", "a:443")],
        [&[(":method", "CONNECT"), (":protocol", "connect-udp")], &GOOD[1..]].concat(),
    ] {
        let mut client = Frames::connect(server.address);
        client.headers(1, 0, &lines).unwrap();
        let answer = client.wait_for(&[HEADERS, RST_STREAM]);
        let refused = answer.kind == RST_STREAM || answer.payload.first() != Some(&STATUS_200);
        assert!(refused, "{lines:?}: {answer:?}");
        assert_still_serves(&mut client, 3, "CONNECT");
    }
    assert_eq!(backend[0].seen(), ["GET /x", "GET /x"]);
}

#[test]
fn too_many_header_lines_are_431() {
    let (backend, server) = server();
    let mut client = Frames::connect(server.address);
    let mut many = GOOD.to_vec();
    many.extend(std::iter::repeat_n(("x", "y"), 300));
    client.headers(1, END_STREAM, &many).unwrap();
    let answer = client.wait_for(&[HEADERS, RST_STREAM]);
    assert_eq!(answer.kind, HEADERS);
    assert_still_serves(&mut client, 3, "many lines");
    let line = server.access_lines(1).remove(0);
    assert_eq!((&line["status"], &line["path"]), (&431.into(), &"/x".into()), "{line}");
    assert_eq!(backend[0].seen(), ["GET /x"]);
}

#[test]
fn a_client_that_goes_on_with_malformed_requests_is_sent_away() {
    let (backend, server) = server();
    // The first is refused with a 400 of ours, the second with a reset of the h2 crate's.
    for (bad, most) in [((":authority", Some("user@a")), 200), ((":path", Some("/<a>")), 2000)] {
        let (mut client, bad) = (Frames::connect(server.address), lines(&[bad]));
        for stream in (1..).step_by(2).take(most) {
            if client.headers(stream, END_STREAM, &bad).is_err() {
                break;
            }
        }
        let goodbye = client.wait_for(&[GOAWAY]);
        assert_eq!(error_code(&goodbye), u32::from(Reason::ENHANCE_YOUR_CALM), "{bad:?}");
        assert!(client.ends_without(&[SETTINGS]));
    }
    assert_eq!(backend[0].seen(), Vec::<String>::new());
}

#[test]
fn malformed_requests_among_good_ones_do_not_end_the_connection() {
    let (backend, server) = server();
    let mut client = Frames::connect(server.address);
    let bad = lines(&[(":authority", Some("user@a"))]);
    for stream in (1..).step_by(4).take(100) {
        client.headers(stream, END_STREAM, &bad).unwrap();
        assert_still_serves(&mut client, stream + 2, "a malformed request");
    }
    assert_eq!(backend[0].seen().len(), 100);
}

#[test]
fn a_client_that_opens_streams_and_resets_them_is_sent_away() {
    let (_backend, server) = server();
    let mut client = Frames::connect(server.address);
    let held = lines(&[(":path", Some("/?hold=k"))]);
    let cancel = u32::from(Reason::CANCEL).to_be_bytes();
    let flood = (1..).step_by(2).take(20_000).take_while(|stream| {
        client.headers(*stream, END_STREAM, &held).is_ok() && client.send(RST_STREAM, 0, *stream, &cancel).is_ok()
    });
    let sent = flood.count();
    assert!(client.ends_without(&[HEADERS]), "after {sent} streams");
    let mut other = Frames::connect(server.address);
    assert_still_serves(&mut other, 1, "the flood");
}
