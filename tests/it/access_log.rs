//! The access log: one line for every request, and never in a request's way.

use std::io::Write;
use std::time::Duration;

use serde_json::Value;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Request};
use crate::harness::http2::{self, Http2};
use crate::harness::ports::free_address;
use crate::harness::setup::{NO_CHECK, QUICK_TCP, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::{PATIENCE, eventually, now};

/// Whether this is a UTC time as in RFC 3339.
fn is_timestamp(value: &Value) -> bool {
    let text = value.as_str().unwrap_or_default();
    let shape: String = text.chars().map(|c| if c.is_ascii_digit() { '0' } else { c }).collect();
    shape.starts_with("0000-00-00T00:00:00") && text.ends_with('Z')
}

#[test]
fn a_line_tells_what_happened() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let mut client = server.client();
    let body = vec![b'x'; 5000];
    let request = Request::new("POST", "/shop/cart?token=secret&bytes=3000").host("shop.example:81");
    client.call(&request.body(Body::Length(&body))).unwrap();
    let line = server.access_lines(1).remove(0);
    assert!(is_timestamp(&line["ts"]), "{line}");
    assert!(line["request_id"].as_str().is_some_and(|id| !id.is_empty()), "{line}");
    assert_eq!(line["client_ip"], "127.0.0.1");
    assert_eq!(line["method"], "POST");
    assert!(line["host"].as_str().is_some_and(|host| host.starts_with("shop.example")), "{line}");
    assert_eq!(line["path"], "/shop/cart");
    assert_eq!(line["status"], 200);
    assert!(line["duration_ms"].as_f64().is_some_and(|ms| (0.0..20_000.0).contains(&ms)), "{line}");
    assert!(line["bytes_in"].as_u64().is_some_and(|bytes| (5000..6000).contains(&bytes)), "{line}");
    assert!(line["bytes_out"].as_u64().is_some_and(|bytes| (3000..4000).contains(&bytes)), "{line}");
    assert_eq!(line["upstream"], "app");
    assert_eq!(line["backend"], backend[0].address.to_string());
    assert_eq!(line["attempts"], 1);
    assert!(line["error"].is_null(), "{line}");
    // Every field, in the contract's order, and no other.
    let fields = "ts request_id client_id client_ip identity method host path status duration_ms bytes_in bytes_out \
                  upstream backend attempts limit tokens error";
    let mut known: Vec<_> = fields.split(' ').collect();
    let written = server.process.out.text();
    assert!(known.is_sorted_by_key(|key| written.find(&format!("\"{key}\":"))), "not in order: {written}");
    known.sort_unstable();
    assert_eq!(line.as_object().unwrap().keys().collect::<Vec<_>>(), known);
}

#[test]
fn a_query_is_in_no_log() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, &format!("read_timeout: 200ms, {NO_CHECK}")).start();
    for target in ["/?key=s3cr3t", "/?key=s3cr3t&fault=close", "/?key=s3cr3t&raw=0", "/?key=s3cr3t&fault=hang"] {
        server.client().get(target).unwrap();
    }
    let mut client = server.client();
    client.send(b"GET http://a/x?key=s3cr3t HTTP/1.1\r\nHost: a\r\n\r\n").unwrap();
    client.read("GET").unwrap();
    server.access_lines(5);
    let all = format!("{}{}", server.process.out.text(), server.process.err.text());
    assert!(!all.contains("s3cr3t"), "{all}");
}

#[test]
fn every_request_has_one_line_also_those_that_fail() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, &format!("read_timeout: 200ms, {NO_CHECK}"))
        .pool("dead", &[free_address()], QUICK_TCP)
        .line("routes: [{path: /a, upstream: app}, {path: /dead, upstream: dead}]")
        .line("limits: {max_body: 10KiB, header_timeout: 300ms}")
        .start();
    let expected = [
        ("/a", 200, Some("app")),
        ("/nowhere", 404, None),
        ("/dead", 503, Some("dead")),
        ("/a?fault=close", 502, Some("app")),
        ("/a?raw=0", 502, Some("app")),
        ("/a?fault=hang", 504, Some("app")),
        ("/a?status=204", 204, Some("app")),
    ];
    for (n, (target, status, upstream)) in expected.into_iter().enumerate() {
        let response = server.client().get(target).unwrap();
        assert_eq!(response.status, status, "{target}");
        let line = server.access_lines(n + 1).remove(n);
        assert_eq!(line["status"], status, "{line}");
        assert_eq!(line["upstream"].as_str(), upstream, "{line}");
        assert_eq!(line["error"].is_string(), status >= 400, "{line}");
        if let Some(id) = response.header("x-request-id") {
            assert_eq!(line["request_id"], id);
        }
    }
    let mut client = server.client();
    client.call(&Request::new("POST", "/a").body(Body::Length(&[b'x'; 20_000]))).unwrap();
    assert_eq!(server.access_lines(8)[7]["status"], 413);
    // A client that leaves before its answer.
    let mut client = server.client();
    client.send(&Request::new("GET", "/a?delay_ms=100").encode()).unwrap();
    drop(client);
    let line = server.access_lines(9).remove(8);
    assert!(line["path"] == "/a" && line["duration_ms"].is_number(), "{line}");
    server.client().get("/a").unwrap();
    assert_eq!(server.access_lines(10).len(), 10, "one line each");
}

#[test]
fn odd_characters_do_not_break_a_line() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let mut client = server.client();
    let odd = "/a\"b\\c'{}";
    client.call(&Request::new("GET", odd).host("a").headers(&[("User-Agent", "\"}\\ \u{e4}")])).unwrap();
    assert_eq!(server.access_lines(1)[0]["path"], odd);
}

#[test]
fn the_text_format_is_one_line_of_text() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).line("access_log: {format: text}").start();
    server.client().get("/shop?token=secret").unwrap();
    let lines = server.process.out.wait("a line", PATIENCE, |lines| !lines.is_empty());
    let line = &lines[0];
    assert!(serde_json::from_str::<Value>(line).is_err(), "{line}");
    let (start, rest) = (line.starts_with("127.0.0.1 - - ["), "] \"GET /shop HTTP/1.1\" 200 ");
    assert!(start && line.contains(rest) && line.contains(" \"-\" \"-\" host="), "{line}");
    assert!(!line.contains("secret"), "{line}");
}

#[test]
fn chosen_fields_are_written_under_their_names_by_both_protocols() {
    let backend = [Backend::scripted("a")];
    let fields = "access_log: {fields: [{status: http.status}, protocol, user_agent, {referer: from}, tls_version]}";
    let server = Setup::app(&backend, NO_CHECK).line(fields).start();
    let long = "x".repeat(5000);
    let headers = [("User-Agent", "curl/8 \"x\""), ("Referer", "https://a.example/p?key=s3cr3t")];
    // A line is written after its answer: of requests on several connections the later may have the earlier line.
    server.client().call(&Request::new("GET", "/").headers(&headers)).unwrap();
    server.access_lines(1);
    server.client().call(&Request::new("GET", "/nowhere").headers(&[("User-Agent", &long)])).unwrap();
    server.access_lines(2);
    let mut old = server.client();
    old.send(b"GET /old HTTP/1.0\r\n\r\n").unwrap();
    old.read("GET").unwrap();
    server.access_lines(3);
    let lines = server.process.out.lines();
    let first = r#"{"http.status":200,"protocol":"HTTP/1.1","user_agent":"curl/8 \"x\"","from":"https://a.example/p","tls_version":null}"#;
    assert_eq!(lines[0], first);
    assert!(lines[1].contains(&format!("\"{}\"", &long[..1024])), "{}", lines[1]);
    assert!(lines[2].contains(r#""protocol":"HTTP/1.0","user_agent":null,"from":null"#), "{}", lines[2]);
    assert!(!server.process.out.text().contains("s3cr3t"));

    let dir = tempfile::TempDir::new().unwrap();
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).tls(dir.path()).line(fields).start();
    let mut asked = http2::get("/");
    asked.headers_mut().insert("user-agent", "two".parse().unwrap());
    Http2::connect(server.address).call(asked, &[]).unwrap();
    let line = server.access_lines(1).remove(0);
    let told = (&line["protocol"], &line["tls_version"], &line["user_agent"]);
    assert_eq!(told, (&"HTTP/2.0".into(), &"TLSv1.3".into(), &"two".into()), "{line}");
}

#[test]
fn a_share_of_requests_gets_a_line_and_the_rest_is_not_dropped() {
    let backend = [Backend::echo("a")];
    let server = Setup::app(&backend, NO_CHECK).line("access_log: {sample: 0.5}").start();
    let mut client = server.client();
    (0..400).for_each(|_| drop(client.get("/").unwrap()));
    let metrics = server.ask("GET", "/metrics", "").text();
    assert!(metrics.contains("tollgate_access_log_dropped_total 0\n"), "{metrics}");
    assert!(metrics.contains("status=\"200\"} 400\n"), "{metrics}");
    // 200 are expected, give or take 10: seven times that is left to chance.
    let lines = server.access_lines(130).len();
    assert!((130..=270).contains(&lines), "{lines}");
}

#[test]
fn null_is_off() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("access_log: {path: null}").start();
    server.client().get("/").unwrap();
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(PATIENCE).out, "");
}

#[test]
fn a_file_is_appended_to_and_opened_again_on_sigusr1() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("access_log: {path: $DIR/access.log}").start();
    let lines = |name: &str| std::fs::read_to_string(server.path(name)).unwrap_or_default().lines().count();
    let mut client = server.client();
    client.get("/").unwrap();
    assert!(eventually(PATIENCE, || lines("access.log") == 1));
    std::fs::rename(server.path("access.log"), server.path("rotated.log")).unwrap();
    client.get("/").unwrap();
    assert!(eventually(PATIENCE, || lines("rotated.log") == 2), "until it is told, it writes to the same file");
    server.process.signal("USR1");
    assert!(eventually(PATIENCE, || server.path("access.log").exists()), "not opened again");
    client.get("/").unwrap();
    assert!(eventually(PATIENCE, || lines("access.log") == 1));
    assert_eq!(lines("rotated.log"), 2);
    assert!(server.answers());
}

#[test]
fn a_signal_is_no_harm_when_there_is_no_file() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).start();
    server.process.signal("USR1");
    assert!(server.answers());
    assert_eq!(server.access_lines(1)[0]["path"], "/alive");
    assert!(server.process.is_running());
}

#[test]
fn lines_written_before_the_stop_are_all_there() {
    let backend = [Backend::echo("a")];
    let mut server = Setup::app(&backend, NO_CHECK).start();
    let mut client = server.client();
    for _ in 0..500 {
        client.get("/").unwrap();
    }
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(PATIENCE).out.lines().count(), 500);
}

#[test]
fn a_stuck_pipe_holds_up_no_request() {
    let backend = [Backend::echo("a")];
    let yaml = Setup::app(&backend, NO_CHECK).yaml();
    let mut server = crate::harness::server::Tollgate::with_stuck_output(&yaml);
    // Far more than a pipe of 64 KiB and the queue of 32 MiB hold.
    let path = format!("/{}", "x".repeat(7000));
    let start = now();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..600 {
                    assert_eq!(client.call_again(&Request::new("GET", &path)).unwrap().status, 200);
                }
            });
        }
    });
    assert!(now() - start < Duration::from_secs(60));
    server.unstick();
    // Once it flows again, lines come again, and what is missing is told.
    assert!(eventually(PATIENCE, || {
        server.client().get("/after").unwrap();
        server.process.out.text().contains("\"/after\"")
    }));
    let written = server.process.out.lines().len();
    assert!(written < 4800, "all {written} lines are there, so nothing was stuck");
    server.wait_for_event(&["drop"], PATIENCE);
}

#[test]
fn a_closed_pipe_does_not_end_the_server() {
    let backend = [Backend::echo("a")];
    let yaml = Setup::app(&backend, NO_CHECK).yaml();
    let mut server = crate::harness::server::Tollgate::with_stuck_output(&yaml);
    server.close_output();
    let mut client = server.client();
    for _ in 0..200 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert!(server.process.is_running());
}

#[test]
fn a_full_disk_holds_up_no_request() {
    // Linux has a disk that is always full.
    if !std::path::Path::new("/dev/full").exists() {
        let _ = writeln!(std::io::stderr(), "no /dev/full here: skipped");
        return;
    }
    let backend = [Backend::echo("a")];
    let mut server = Setup::app(&backend, NO_CHECK).line("access_log: {path: /dev/full}").start();
    let mut client = server.client();
    for _ in 0..300 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert!(server.answers());
    let events = server.process.err.lines().len();
    assert!(events < 50, "{events} events: a burst of failures floods the log");
}
