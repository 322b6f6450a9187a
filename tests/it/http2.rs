//! HTTP/2 towards clients: the same promises as in HTTP/1.1, and many requests at once on one connection.

use std::time::Duration;

use bytes::Bytes;
use futures_util::future::join_all;
use h2::Reason;
use h2::client::Builder;
use serde_json::Value;
use tempfile::TempDir;

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::checksum;
use crate::harness::client::{Client, Response};
use crate::harness::http2::{
    DATA, END_STREAM, Frames, GOAWAY, HEADERS, Http2, PING, RST_STREAM, error_code, get, read, read_body, request,
    send_all,
};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NAME, NOW, write_pair};
use crate::harness::{PATIENCE, assert_ours, eventually, now};

fn start(setup: Setup) -> Tollgate {
    let dir = TempDir::new().unwrap();
    write_pair(dir.path(), NOW);
    setup.tls(dir.path()).start()
}

/// A scripted backend behind a TLS listener, with more lines in the file.
fn server(more: &str) -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let server = start(Setup::app(&backend, NO_CHECK).line(more));
    (backend, server)
}

/// All values of a header as the backend got it.
fn got(response: &Response, name: &str) -> Vec<String> {
    let headers = response.json()["headers"].as_array().unwrap().clone();
    let named = headers.iter().filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

#[test]
fn a_backend_sees_an_ordinary_http_1_request() {
    let (_backend, server) = server("");
    let mut client = Http2::connect(server.address);
    let mut asked = get("/a%2Fb//c?x=%20&y");
    for crumb in ["a=b", "c=d"] {
        asked.headers_mut().append("cookie", crumb.parse().unwrap());
    }
    asked.headers_mut().insert("te", "trailers".parse().unwrap());
    let response = client.call(asked, &[]).unwrap();
    let report = response.json();
    assert_eq!((response.status, &report["target"]), (200, &Value::from("/a%2Fb//c?x=%20&y")));
    assert_eq!(report["framing"], Value::Null, "a request without a body has none");
    for (name, expected) in [
        ("host", &[NAME][..]),
        ("cookie", &["a=b; c=d"]),
        ("x-forwarded-proto", &["https"]),
        ("x-forwarded-host", &[NAME]),
        ("x-forwarded-for", &["127.0.0.1"]),
        ("te", &[]),
        ("connection", &[]),
        ("transfer-encoding", &[]),
    ] {
        assert_eq!(got(&response, name), expected, "{name}");
    }
    for name in ["connection", "keep-alive", "proxy-connection", "transfer-encoding", "x-private"] {
        assert_eq!(response.header(name), None, "{:?}", response.head);
    }
    let line = server.access_lines(1).remove(0);
    assert_eq!((&line["host"], &line["path"]), (&NAME.into(), &"/a%2Fb//c".into()), "{line}");
    assert_eq!((&line["status"], &line["error"], &line["upstream"]), (&200.into(), &Value::Null, &"app".into()));
}

#[test]
fn limits_hold_and_are_told_in_headers() {
    let (_backend, server) = server("rate_limit: {default: {capacity: 2, rate_per_sec: 0.01}}");
    let mut client = Http2::connect(server.address);
    let answers: Vec<_> = (0..3).map(|_| client.get("/").unwrap()).collect();
    let statuses: Vec<_> = answers.iter().map(|answer| answer.status).collect();
    assert_eq!(statuses, [200, 200, 429]);
    assert_eq!(answers[0].header("ratelimit-policy"), Some("\"default\";q=2;w=200"));
    assert_eq!(answers[1].header("x-ratelimit-remaining"), Some("0"));
    assert_ours(&answers[2], 429, "Rate limit exceeded");
    assert!(answers[2].header("retry-after").is_some() && answers[2].header("connection").is_none());
    // The bucket is the caller's, not the connection's.
    assert_eq!(Http2::connect(server.address).get("/").unwrap().status, 429);
    let limits: Vec<_> = server.access_lines(4).iter().map(|line| line["limit"].clone()).collect();
    assert_eq!(limits, ["allowed", "allowed", "limited", "limited"]);
}

#[test]
fn a_hundred_streams_run_at_once() {
    let (backend, server) = server("");
    let mut client = Http2::connect(server.address);
    let waiting: Vec<_> = (0..100).map(|_| client.open(get("/?hold=k&bytes=1000"), true).unwrap().0).collect();
    assert!(eventually(PATIENCE, || backend[0].held("k") == 100), "only {} run", backend[0].held("k"));
    // One more does not wait for them.
    assert_eq!(client.get("/").unwrap().status, 200);
    backend[0].release("k");
    for answer in client.runtime.block_on(join_all(waiting.into_iter().map(read))) {
        let answer = answer.unwrap();
        assert!((answer.status, &answer.body) == (200, &checksum::body(0, 1000)), "{answer:?}");
    }
}

#[test]
fn more_streams_than_are_offered_are_refused() {
    let (backend, server) = server("");
    let mut client = Frames::connect(server.address);
    let lines = [(":method", "GET"), (":scheme", "https"), (":path", "/?hold=k"), (":authority", NAME)];
    for stream in (1..).step_by(2).take(129) {
        client.headers(stream, END_STREAM, &lines).unwrap();
    }
    let refused = client.wait_for(&[HEADERS, RST_STREAM]);
    assert_eq!((refused.kind, refused.stream), (RST_STREAM, 257), "{refused:?}");
    assert_eq!(error_code(&refused), u32::from(Reason::REFUSED_STREAM), "safe to try again");
    assert!(eventually(PATIENCE, || backend[0].held("k") == 128), "only {} run", backend[0].held("k"));
    backend[0].release("k");
    let answers: Vec<_> = (0..128).map(|_| client.wait_for(&[HEADERS, RST_STREAM]).kind).collect();
    assert_eq!(answers, [HEADERS; 128]);
}

#[test]
fn bodies_pass_whole_in_both_directions() {
    let (_backend, server) = server("");
    let mut client = Http2::connect(server.address);
    let body = checksum::body(1, 5_000_000);
    let sum = format!("{} {:x}", body.len(), checksum::sum(&body));
    for announced in [true, false] {
        let mut asked = request("POST", "/?bytes=6000000&seed=2&answer=chunked");
        if announced {
            asked.headers_mut().insert("content-length", body.len().into());
        }
        let response = client.call(asked, &body).unwrap();
        assert_eq!((response.status, response.header("x-got")), (200, Some(sum.as_str())), "announced: {announced}");
        assert!(response.body == checksum::body(2, 6_000_000), "{} bytes", response.body.len());
    }
}

#[test]
fn a_client_that_does_not_read_holds_up_itself_alone() {
    let (_backend, server) = server("");
    let mut client = Http2::connect(server.address);
    // Two answers that nobody reads, larger than all windows between here and the backend.
    let stalled: Vec<_> = (0..2).map(|_| client.open(get("/?bytes=8000000&seed=3"), true).unwrap().0).collect();
    let mut stalled: Vec<_> = stalled.into_iter().map(|answer| client.runtime.block_on(answer).unwrap()).collect();
    let mut other = Http2::connect(server.address);
    for _ in 0..20 {
        assert_eq!(other.get("/").unwrap().status, 200);
    }
    for body in client.runtime.block_on(join_all(stalled.iter_mut().map(|answer| read_body(answer.body_mut())))) {
        let body = body.unwrap();
        assert!(body == checksum::body(3, 8_000_000), "{} bytes", body.len());
    }
}

#[test]
fn trailers_of_a_request_end_its_body() {
    let (_backend, server) = server("");
    let mut client = Http2::connect(server.address);
    let (answer, mut stream) = client.open(request("POST", "/"), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    let mut trailers = http::HeaderMap::new();
    trailers.insert("x-sum", "1".parse().unwrap());
    stream.send_trailers(trailers).unwrap();
    let answer = client.runtime.block_on(read(answer)).unwrap();
    assert_eq!((answer.status, answer.json()["framing"].as_str()), (200, Some("chunked")));
    assert!(answer.header("x-got").unwrap().starts_with("5 "), "{answer:?}");
    assert_eq!(got(&answer, "x-sum"), Vec::<String>::new());
}

#[test]
fn an_empty_last_frame_ends_the_body_once() {
    let (backend, server) = server("");
    let mut client = Http2::connect(server.address);
    // A second end would be taken for the start of the next request on the backend's connection.
    for _ in 0..20 {
        let (answer, mut stream) = client.open(request("POST", "/"), false).unwrap();
        stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
        stream.send_data(Bytes::new(), false).unwrap();
        stream.send_data(Bytes::new(), true).unwrap();
        let answer = client.runtime.block_on(read(answer)).unwrap();
        assert_eq!(answer.status, 200);
        assert!(answer.header("x-got").unwrap().starts_with("5 "), "{answer:?}");
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert_eq!(backend[0].seen().len(), 40);
    // Some may be opened while the last one is on its way back to the pool.
    let connections = backend[0].control("connections").as_u64().unwrap();
    assert!(connections < 10, "each request leaves the connection to the backend usable, yet it took {connections}");
}

#[test]
fn answers_of_our_own_are_those_of_http_1() {
    let closed = crate::harness::ports::free_address();
    let backend = [Backend::scripted("a")];
    let keys = format!("{NO_CHECK}, read_timeout: 300ms, retries: 0");
    let server = start(
        Setup::app(&backend, &keys)
            .pool("down", &[closed], NO_CHECK)
            .line("routes: [{path: /app, upstream: app}, {path: /down, upstream: down}]")
            .line("limits: {max_body: 64KiB}"),
    );
    let mut client = Http2::connect(server.address);
    for (target, status, message) in [
        ("/nowhere", 404, "No route matches"),
        ("/down", 503, "No healthy backend"),
        ("/app?fault=close", 502, "Bad gateway"),
        ("/app?raw=0", 502, "Bad gateway"),
        ("/app?fault=hang", 504, "Gateway timeout"),
    ] {
        let answer = client.get(target).unwrap();
        assert_ours(&answer, status, message);
        assert_eq!(answer.header("connection"), None);
    }
    let large = vec![b'x'; 100_000];
    let mut announced = request("POST", "/app");
    announced.headers_mut().insert("content-length", large.len().into());
    for asked in [announced, request("POST", "/app")] {
        assert_ours(&client.call(asked, &large).unwrap(), 413, "Request body too large: at most 65536 bytes");
    }
    let head = client.call(request("HEAD", "/app?bytes=5000"), &[]).unwrap();
    assert_eq!((head.status, head.header("content-length"), head.body.len()), (200, Some("5000"), 0));
    assert_eq!(client.get("/app?status=204").unwrap().status, 204);
    // All of that on one connection.
    assert_eq!(client.get("/app").unwrap().status, 200);
}

#[test]
fn interim_answers_come_before_the_body_is_sent() {
    let (_backend, server) = server("");
    let mut client = Frames::connect(server.address);
    let lines = [
        (":method", "POST"),
        (":scheme", "https"),
        (":path", "/"),
        (":authority", NAME),
        ("expect", "100-continue"),
        ("content-length", "5"),
    ];
    client.headers(1, 0, &lines).unwrap();
    let interim = client.wait_for(&[HEADERS, RST_STREAM]);
    assert_eq!((interim.kind, interim.flags & END_STREAM), (HEADERS, 0), "100 (Continue)");
    client.send(DATA, END_STREAM, 1, b"hello").unwrap();
    assert_eq!(client.wait_for(&[HEADERS, RST_STREAM]).kind, HEADERS, "the answer");
    assert_eq!(client.wait_for(&[DATA, RST_STREAM]).kind, DATA);
}

#[test]
fn an_early_answer_ends_a_stream_whose_body_stalls() {
    let (_backend, server) = server("");
    let mut client = Frames::connect(server.address);
    let lines = [(":method", "POST"), (":scheme", "https"), (":path", "/?early=401"), (":authority", NAME)];
    let start = now();
    client.headers(1, 0, &lines).unwrap();
    client.send(DATA, 0, 1, b"only this").unwrap();
    assert_eq!(client.wait_for(&[HEADERS, RST_STREAM]).kind, HEADERS);
    while client.wait_for(&[DATA, RST_STREAM]).flags & END_STREAM == 0 {}
    assert!(now() - start < Duration::from_secs(2), "the answer took {:?}", now() - start);
    let reset = client.wait_for(&[RST_STREAM]);
    assert_eq!((reset.stream, error_code(&reset)), (1, u32::from(Reason::NO_ERROR)));
    assert_eq!(server.access_lines(1)[0]["status"], 401);
}

#[test]
fn half_an_answer_is_never_taken_for_a_whole_one() {
    let (_backend, server) = server("");
    let mut client = Http2::connect(server.address);
    for fault in ["half_body", "half_chunked"] {
        let broken = client.get(&format!("/?fault={fault}")).unwrap_err();
        assert!(broken.is_reset(), "{fault}: {broken:?}");
        assert_eq!(client.get("/").unwrap().status, 200, "other streams go on");
    }
}

#[test]
fn a_stream_that_its_client_gives_up_is_given_up_by_the_backend_too() {
    let (backend, server) = server("");
    let mut client = Http2::connect(server.address);
    let (answer, mut stream) = client.open(get("/?hold=k"), true).unwrap();
    assert!(eventually(PATIENCE, || backend[0].held("k") == 1));
    stream.send_reset(Reason::CANCEL);
    assert!(client.runtime.block_on(read(answer)).is_err());
    let line = server.access_lines(1).remove(0);
    assert_eq!((&line["status"], &line["error"]), (&Value::Null, &"the client closed the connection".into()), "{line}");
    backend[0].release("k");
    assert_eq!(client.get("/").unwrap().status, 200);
}

#[test]
fn one_connection_reaches_all_backends() {
    let backends = three_scripted();
    let server = start(Setup::app(&backends, NO_CHECK));
    let mut client = Http2::connect(server.address);
    let opened: Vec<_> = (0..300).map(|n| client.open(get(&format!("/{n}")), true).unwrap().0).collect();
    for answer in client.runtime.block_on(join_all(opened.into_iter().map(read))) {
        assert_eq!(answer.unwrap().status, 200);
    }
    let counts = backends.each_ref().map(|backend| backend.seen().len());
    assert_eq!(counts, [100, 100, 100]);
}

#[test]
fn an_idle_connection_ends_in_time_whatever_it_pings() {
    let (_backend, server) = server("limits: {header_timeout: 400ms, keepalive_timeout: 800ms}");
    for (used, limit) in [(false, 400), (true, 800)] {
        let (start, mut client) = (now(), Frames::connect(server.address));
        if used {
            let lines = [(":method", "GET"), (":scheme", "https"), (":path", "/"), (":authority", NAME)];
            client.headers(1, END_STREAM, &lines).unwrap();
            while client.wait_for(&[DATA]).flags & END_STREAM == 0 {}
        }
        // Each answer to a PING is followed by the next PING; that of the server's own is not answered.
        let mut goodbyes = 0;
        while client.send(PING, 0, 0, b"12345678").is_ok() {
            match client.next() {
                Ok(Some(frame)) => goodbyes += usize::from(frame.kind == GOAWAY),
                Ok(None) | Err(_) => break,
            }
            crate::harness::dawdle(Duration::from_millis(20));
            assert!(now() - start < PATIENCE, "it is never closed");
        }
        let took = now() - start;
        assert!(took > Duration::from_millis(limit - 50) && goodbyes > 0, "used: {used}, {took:?}, {goodbyes}");
    }
}

#[test]
fn a_stop_says_goaway_and_finishes_what_runs() {
    let (backend, mut server) = server("pingora: {grace_period_seconds: 20}");
    let mut client = Http2::connect(server.address);
    let (held, _) = client.open(get("/?hold=k&bytes=3000000&seed=1"), true).unwrap();
    let (sending, body) = client.open(request("POST", "/"), false).unwrap();
    assert!(eventually(PATIENCE, || backend[0].held("k") == 1));
    server.process.signal("TERM");
    assert!(eventually(PATIENCE, || Client::try_connect(server.address).is_err()), "the listener stays open");
    // Once told, the client opens no more streams.
    assert!(eventually(PATIENCE, || client.open(get("/late"), true).is_err()), "no GOAWAY");
    assert!(server.process.is_running());
    client.runtime.block_on(send_all(body, Bytes::from(checksum::body(2, 1_000_000)))).unwrap();
    assert_eq!(client.runtime.block_on(read(sending)).unwrap().status, 200);
    backend[0].release("k");
    let answer = client.runtime.block_on(read(held)).unwrap();
    assert!(answer.body == checksum::body(1, 3_000_000), "{} bytes", answer.body.len());
    let start = now();
    drop(client);
    let finished = server.process.wait_exit(PATIENCE);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(now() - start < Duration::from_secs(3), "drained, yet it took {:?}", now() - start);
}

#[test]
fn a_stop_delivers_what_a_slow_client_has_not_taken_yet() {
    let (_backend, mut server) = server("pingora: {grace_period_seconds: 20}");
    let mut client = Http2::with(server.address, Builder::new().initial_window_size(10_000));
    let (answer, _) = client.open(get("/?bytes=400000&seed=5"), true).unwrap();
    let mut answer = client.runtime.block_on(answer).unwrap();
    server.process.signal("TERM");
    let mut body = Vec::new();
    client.runtime.block_on(async {
        while let Some(data) = answer.body_mut().data().await {
            let data = data.unwrap();
            // A slow reader; nothing is waited for.
            tokio::time::sleep(Duration::from_millis(10)).await;
            answer.body_mut().flow_control().release_capacity(data.len()).unwrap();
            body.extend_from_slice(&data);
        }
    });
    assert!(body == checksum::body(5, 400_000), "{} bytes", body.len());
    assert!(client.runtime.block_on(&mut client.end).unwrap().is_ok(), "the connection ends in peace");
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
}

#[test]
fn idle_connections_are_no_reason_to_wait_at_a_stop() {
    let (_backend, mut server) = server("pingora: {grace_period_seconds: 60}");
    let mut used = Http2::connect(server.address);
    used.get("/").unwrap();
    let _fresh = Http2::connect(server.address);
    // This one neither answers the PING nor closes.
    let mut deaf = Frames::connect(server.address);
    deaf.wait_for(&[crate::harness::http2::SETTINGS]);
    let start = now();
    server.process.signal("TERM");
    let finished = server.process.wait_exit(PATIENCE);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(now() - start < Duration::from_secs(2), "took {:?}", now() - start);
    let end = used.runtime.block_on(&mut used.end).unwrap();
    assert!(end.is_ok(), "told, not cut: {end:?}");
}
