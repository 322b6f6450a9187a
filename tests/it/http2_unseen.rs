//! Requests in HTTP/2 that h2 resets before anybody sees them are counted and told all the same.

use h2::Reason;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::http2::{END_STREAM, Frames, GOAWAY, HEADERS, RST_STREAM, error_code};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::{PATIENCE, eventually};

const NAME: &str = "tollgate_http2_malformed_targets_total";

/// A request for this path and authority.
fn lines<'a>(path: &'a str, authority: &'a str) -> [(&'a str, &'a str); 4] {
    [(":method", "GET"), (":scheme", "https"), (":path", path), (":authority", authority)]
}

fn counted(server: &Tollgate) -> u64 {
    let metrics = server.ask("GET", "/metrics", "").text();
    let value = metrics.lines().find_map(|line| line.strip_prefix(NAME)?.strip_prefix(' '));
    value.unwrap_or_else(|| panic!("{metrics}")).parse().unwrap()
}

#[test]
fn targets_that_are_no_uri_are_reset_counted_and_told() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let mut server = Setup::app(&backend, NO_CHECK).tls(dir.path()).start();
    assert_eq!(counted(&server), 0);
    let mut client = Frames::connect(server.address);
    let cases = [
        (r#"/?f={"a":1}"#, "a"),
        ("/?secret=<x>", "a"),
        ("/a b", "a"),
        ("/?a b", "a"),
        ("/`", "a"),
        ("/\u{7f}", "a"),
        ("x", "a"),
        ("/x", "a b"),
        ("/x", "a\""),
    ];
    let mut stream = 1;
    for (count, (path, authority)) in (1..).zip(cases) {
        client.headers(stream, END_STREAM, &lines(path, authority)).unwrap();
        let answer = client.wait_for(&[HEADERS, RST_STREAM, GOAWAY]);
        assert_eq!((answer.kind, answer.stream), (RST_STREAM, stream), "{path} of {authority}: {answer:?}");
        assert_eq!(error_code(&answer), u32::from(Reason::PROTOCOL_ERROR), "{path} of {authority}");
        assert_eq!(counted(&server), count, "{path} of {authority}");
        if count == 1 {
            let line = server.wait_for_event(&["HTTP/2", "since their target is no URI"], PATIENCE);
            assert!(line.contains("WARN") && line.ends_with(": 1"), "{line}");
        }
        // The connection lives on.
        client.headers(stream + 2, END_STREAM, &lines("/good?f={%22a%22:1}", "a")).unwrap();
        let answer = client.wait_for(&[HEADERS, RST_STREAM, GOAWAY]);
        assert_eq!((answer.kind, answer.stream), (HEADERS, stream + 2), "after {path} of {authority}: {answer:?}");
        stream += 4;
    }
    // What is malformed in another way, or answered with a reason, is none of them.
    for lines in [&lines("", "a")[..], &lines("*", "a"), &lines("/x", "a")[1..], &lines("/{\"x\"}", "a")] {
        client.headers(stream, END_STREAM, lines).unwrap();
        client.wait_for(&[HEADERS, RST_STREAM, GOAWAY]);
        stream += 2;
    }
    assert!(eventually(PATIENCE, || backend[0].count("GET /{\"x\"}") == 1));
    assert_eq!(counted(&server), u64::try_from(cases.len()).unwrap());
    // Told once, the rest in a minute; what was asked for never.
    server.process.signal("TERM");
    let events = server.process.wait_exit(PATIENCE).err;
    assert_eq!(events.matches("since their target is no URI").count(), 1, "{events}");
    assert!(!events.contains("secret") && !events.contains("malformed"), "{events}");
}
