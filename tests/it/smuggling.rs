//! A request that hides in the body of another: where the two parsers on the way read a chunk's size differently, the
//! rest of the body would be taken for a request of its own.

use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::eventually;
use crate::harness::setup::{NO_CHECK, Setup};

/// What is to stay a part of the body.
const HIDDEN: &str = "GET /smuggled HTTP/1.1\r\nHost: a\r\n\r\n";
const LIMIT: Duration = Duration::from_secs(10);

/// Chunk sizes that end in the length of [`HIDDEN`], and whether they are that size or one beyond all measure.
fn sizes() -> Vec<(String, bool)> {
    let length = HIDDEN.len();
    let zeros = [16, 17, 18, 20, 26].map(|digits| (format!("{length:0digits$x}"), true));
    // Cut to 64 bits, these are the length too.
    let beyond = [15, 16, 18, 24].map(|digits| (format!("1{length:0digits$x}"), false));
    zeros.into_iter().chain(beyond).chain([(format!("f{}", "f".repeat(15)), false)]).collect()
}

/// Sends the first packet, and the second once the proxy has read the first.
fn send_in_two(client: &mut Client, backend: &Backend, path: &str, packets: [&str; 2]) {
    client.send(packets[0].as_bytes()).unwrap();
    let seen = || backend.count(&format!("POST {path}")) > 0;
    let read = eventually(Duration::from_secs(1), || client.has_answer(Duration::from_millis(10)) || seen());
    assert!(read || !packets[0].ends_with('\n'), "{path}: no answer, and nothing reached the backend");
    // The proxy may have closed by now, which is an answer too.
    let _ = client.send(packets[1].as_bytes());
}

#[test]
fn a_chunk_size_with_many_digits_hides_no_request() {
    let backend = Backend::scripted("a");
    let server = Setup::default()
        .pool("app", &[backend.address], NO_CHECK)
        .line("limits: {keepalive_timeout: 500ms, header_timeout: 2s}")
        .start();
    let mut wrong = Vec::new();
    for (n, (size, may_pass)) in sizes().into_iter().enumerate() {
        for (m, before) in ["", "5\r\nhello\r\n", "5;a=b\r\nhello\r\n"].into_iter().enumerate() {
            for (k, cut) in [0, 2, size.len()].into_iter().enumerate() {
                let path = format!("/outer-{n}-{m}-{k}");
                let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n");
                let first = format!("{head}{before}{size}\r\n");
                let second = format!("{HIDDEN}\r\n0\r\n\r\n");
                // The packet ends behind the size's line, within its line end and digits, or before it.
                let (first, rest) = first.split_at(first.len() - if cut == 0 { 0 } else { cut });
                let mut client = server.client();
                send_in_two(&mut client, &backend, &path, [first, &format!("{rest}{second}")]);
                let all = client.rest(LIMIT);
                let seen = backend.seen();
                let statuses: Vec<_> =
                    all.iter().flat_map(|all| all.split("HTTP/1.1 ").skip(1)).map(|a| &a[..3]).collect();
                let good = statuses == ["400"] || (may_pass && statuses == ["200"]);
                if !good || seen.iter().any(|seen| seen.ends_with("/smuggled")) {
                    wrong.push(format!("{size} behind {before:?}, cut {cut}: {all:?}, and the backend saw {seen:?}"));
                }
                backend.control("forget");
            }
        }
    }
    assert!(wrong.is_empty(), "{} wrong:\n{}", wrong.len(), wrong.join("\n"));
    assert_eq!(server.client().get("/").unwrap().status, 200);
}

#[test]
fn a_body_that_goes_wrong_later_hides_no_request_either() {
    let backend = Backend::scripted("a");
    let server = Setup::default()
        .pool("app", &[backend.address], NO_CHECK)
        .line("limits: {keepalive_timeout: 500ms, header_timeout: 2s}")
        .start();
    for (n, wrong) in ["5\nhello\n", "3\r\nhello\r\n", "zz\r\n", "5;bad[=x\r\nhello\r\n", "-1\r\n", "0\r\n X: y\r\n"]
        .into_iter()
        .enumerate()
    {
        let path = format!("/outer-{n}");
        let head = format!("POST {path} HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n5\r\nhello\r\n");
        let mut client = server.client();
        send_in_two(&mut client, &backend, &path, [&head, &format!("{wrong}0\r\n\r\n{HIDDEN}")]);
        let all = client.rest(LIMIT).unwrap_or_else(|e| panic!("{wrong:?}: {e}"));
        assert!(all.starts_with("HTTP/1.1 400 ") && all.matches("HTTP/1.1 ").count() == 1, "{wrong:?}: {all}");
        assert_eq!(backend.count("GET /smuggled"), 0, "{wrong:?}");
    }
}
