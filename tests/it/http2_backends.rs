//! Backends that speak HTTP/2 without TLS, by prior knowledge.

use std::collections::HashMap;
use std::future::poll_fn;
use std::io::{Read, Write};
use std::net::{SocketAddr, TcpListener};
use std::sync::atomic::{AtomicUsize, Ordering};
use std::sync::{Arc, Mutex};
use std::time::Duration;

use bytes::Bytes;
use h2::server::Builder;
use h2::{Reason, SendStream};
use http::{HeaderMap, HeaderValue, Response};
use tempfile::TempDir;
use tokio::sync::{Notify, Semaphore};

use crate::harness::client::{Body, Client, Request};
use crate::harness::http2::{Http2, read, read_body, request, send_all};
use crate::harness::http2_backend::{Call, Http2Backend, Order};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};
use crate::harness::{PATIENCE, assert_ours, eventually};

const ONE_THREAD: &str = "pingora: {threads: 1}";

fn plain(address: SocketAddr, keys: &str) -> Tollgate {
    let keys = format!("protocol: h2, {NO_CHECK}{}{keys}", if keys.is_empty() { "" } else { ", " });
    Setup::default().pool("app", &[address], &keys).line(ONE_THREAD).start()
}

fn secure(address: SocketAddr, keys: &str) -> Tollgate {
    let dir = TempDir::new().unwrap();
    write_pair(dir.path(), NOW);
    let keys = format!("protocol: h2, {NO_CHECK}{}{keys}", if keys.is_empty() { "" } else { ", " });
    Setup::default().pool("app", &[address], &keys).line(ONE_THREAD).tls(dir.path()).start()
}

/// Answers with what came, as JSON: the header, the body's length, the trailers.
async fn echo(call: Call) {
    let Call { request, mut respond, .. } = call;
    let (parts, mut stream) = request.into_parts();
    let body = read_body(&mut stream).await.unwrap_or_default();
    let map = |headers: &HeaderMap| -> HashMap<String, String> {
        headers.iter().map(|(name, value)| (name.to_string(), value.to_str().unwrap().to_owned())).collect()
    };
    let trailers = stream.trailers().await.ok().flatten().map(|trailers| map(&trailers));
    let told = serde_json::json!({
        "method": parts.method.as_str(), "uri": parts.uri.to_string(), "headers": map(&parts.headers),
        "length": body.len(), "trailers": trailers,
    });
    let mut stream = respond.send_response(Response::new(()), false).unwrap();
    stream.send_data(Bytes::from(told.to_string()), true).unwrap();
}

#[test]
fn a_request_is_translated_and_comes_back() {
    let backend = Http2Backend::new(Builder::new(), echo);
    let server = plain(backend.address, "");
    let mut client = server.client();
    let headers = [("Connection", "X-Private, TE"), ("X-Private", "1"), ("TE", "trailers"), ("Cookie", "a=b; c=d")];
    let body = vec![b'x'; 500_000];
    for body in [Body::None, Body::Length(b"hello"), Body::Length(&body), Body::Chunked(&body, 10_000)] {
        let told = client.call(&Request::new("POST", "/a?b=c").headers(&headers).body(body)).unwrap();
        assert_eq!(told.status, 200, "{told:?}");
        let told = told.json();
        assert_eq!((told["method"].as_str(), told["uri"].as_str()), (Some("POST"), Some("http://test.example/a?b=c")));
        let got = |name: &str| told["headers"][name].as_str().map(str::to_owned);
        assert_eq!((got("cookie").as_deref(), got("te").as_deref()), (Some("a=b; c=d"), Some("trailers")));
        assert!(["connection", "x-private", "host", "transfer-encoding"].iter().all(|name| got(name).is_none()));
        assert_eq!(got("x-forwarded-for").as_deref(), Some("127.0.0.1"));
    }
    let line = &server.access_lines(4)[3];
    assert_eq!((&line["status"], &line["bytes_in"]), (&200.into(), &500_000.into()), "{line}");
    // One of HTTP/1.0 that names nobody.
    let mut old = server.client();
    old.send(b"GET / HTTP/1.0\r\n\r\n").unwrap();
    assert!(old.rest(PATIENCE).unwrap().contains("\"method\":\"GET\""));
    assert_eq!(backend.connections(), 1);
}

#[test]
fn many_requests_share_a_connection_and_more_are_made_where_it_is_full() {
    let (gate, most) = (Arc::new(Semaphore::new(0)), Arc::new(Mutex::new(HashMap::<usize, (usize, usize)>::new())));
    for (allowed, connections) in [(100, 1), (3, 4)] {
        let (held, seen) = (Arc::clone(&gate), Arc::clone(&most));
        seen.lock().unwrap().clear();
        let mut settings = Builder::new();
        settings.max_concurrent_streams(allowed);
        let backend = Http2Backend::new(settings, move |call| {
            let (held, seen) = (Arc::clone(&held), Arc::clone(&seen));
            async move {
                let connection = call.connection;
                {
                    let mut seen = seen.lock().unwrap();
                    let (now, most) = seen.entry(connection).or_default();
                    *now += 1;
                    *most = (*most).max(*now);
                }
                held.acquire().await.unwrap().forget();
                seen.lock().unwrap().get_mut(&connection).unwrap().0 -= 1;
                call.answer("ok");
            }
        });
        let server = plain(backend.address, "");
        let mut clients: Vec<_> = (0..10).map(|_| server.client()).collect();
        for client in &mut clients {
            client.send(&Request::new("POST", "/").encode()).unwrap();
        }
        let running = || most.lock().unwrap().values().map(|(now, _)| now).sum::<usize>();
        assert!(eventually(PATIENCE, || running() == 10), "{}", running());
        gate.add_permits(10);
        for client in &mut clients {
            assert_eq!(client.read("POST").unwrap().text(), "ok");
        }
        assert_eq!(backend.connections(), connections, "with {allowed} streams each");
        let most = most.lock().unwrap();
        assert!(most.values().all(|(_, most)| *most <= allowed as usize), "{most:?}");
    }
}

#[test]
fn what_was_not_begun_is_sent_again_whatever_it_is() {
    let seen = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&seen);
    let backend = Http2Backend::new(Builder::new(), move |mut call| {
        let number = count.fetch_add(1, Ordering::SeqCst);
        async move {
            if number == 0 {
                return call.respond.send_reset(Reason::REFUSED_STREAM);
            }
            call.answer("ok");
        }
    });
    let server = plain(backend.address, "");
    let posted = server.client().call(&Request::new("POST", "/").body(Body::Length(b"hello"))).unwrap();
    assert_eq!((posted.status, seen.load(Ordering::SeqCst)), (200, 2), "{posted:?}");
    assert_eq!(server.access_lines(1)[0]["attempts"], 2);
}

#[test]
fn a_backend_that_goes_finishes_what_it_has_and_gets_no_more() {
    let (first, release) = (Arc::new(Notify::new()), Arc::new(Notify::new()));
    let (begun, released) = (Arc::clone(&first), Arc::clone(&release));
    let backend = Http2Backend::new(Builder::new(), move |call| {
        let (begun, released) = (Arc::clone(&begun), Arc::clone(&released));
        async move {
            if call.request.uri().path() == "/held" {
                call.order.send(Order::Leave).unwrap();
                begun.notify_one();
                released.notified().await;
            }
            call.answer("ok");
        }
    });
    let server = plain(backend.address, "retries: 0");
    let mut held = server.client();
    held.send(&Request::new("POST", "/held").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend.connections() == 1));
    for _ in 0..20 {
        assert_eq!(server.client().call(&Request::new("POST", "/")).unwrap().status, 200);
    }
    assert_eq!(backend.connections(), 2);
    release.notify_one();
    assert_eq!(held.read("POST").unwrap().text(), "ok");
    assert!(eventually(PATIENCE, || backend.open() == 1), "the first one is closed");
}

#[test]
fn a_connection_that_breaks_costs_its_own_streams() {
    let backend = Http2Backend::new(Builder::new(), |call| async move {
        match call.request.uri().path() {
            "/break" => call.order.send(Order::Break).unwrap(),
            "/held" => std::future::pending().await,
            _ => call.answer("ok"),
        }
    });
    let server = plain(backend.address, "retries: 0");
    let mut held = server.client();
    held.send(&Request::new("POST", "/held").encode()).unwrap();
    assert!(eventually(PATIENCE, || backend.open() == 1));
    assert_ours(&server.client().call(&Request::new("POST", "/break")).unwrap(), 502, "Bad gateway");
    assert_ours(&held.read("POST").unwrap(), 502, "Bad gateway");
    assert_eq!(server.client().call(&Request::new("POST", "/")).unwrap().status, 200);
}

#[test]
fn interim_answers_and_trailers_pass() {
    let backend = Http2Backend::new(Builder::new(), |call| async move {
        let Call { request, mut respond, .. } = call;
        let body = read_body(&mut request.into_body()).await.unwrap();
        let early = Response::builder().status(103).header("link", "</a>").body(()).unwrap();
        respond.send_informational(early).unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from(body), false).unwrap();
        let mut trailers = HeaderMap::new();
        trailers.insert("x-sum", HeaderValue::from_static("1"));
        trailers.insert("content-length", HeaderValue::from_static("7"));
        stream.send_trailers(trailers).unwrap();
    });
    let server = plain(backend.address, "");
    let mut client = server.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 2\r\nConnection: close\r\n\r\nhi").unwrap();
    let all = client.rest(PATIENCE).unwrap();
    assert!(all.starts_with("HTTP/1.1 103 ") && all.contains("\r\nlink: </a>\r\n"), "{all}");
    assert!(all.ends_with("\r\n\r\n2\r\nhi\r\n0\r\nx-sum: 1\r\n\r\n"), "{all}");
    let server = secure(backend.address, "");
    let mut client = Http2::connect(server.address);
    let (coming, mut stream) = client.open(request("POST", "/"), false).unwrap();
    stream.send_data(Bytes::from_static(b"hi"), true).unwrap();
    let (data, trailers) = client.runtime.block_on(async {
        let mut body = coming.await.unwrap().into_body();
        (read_body(&mut body).await.unwrap(), body.trailers().await.unwrap().unwrap())
    });
    assert_eq!((data, trailers.len(), &trailers["x-sum"]), (b"hi".to_vec(), 1, &HeaderValue::from_static("1")));
}

#[test]
fn trailers_of_requests_reach_the_backend() {
    let backend = Http2Backend::new(Builder::new(), echo);
    let server = plain(backend.address, "");
    let mut client = server.client();
    let head = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\n";
    client.send(format!("{head}5\r\nhello\r\n0\r\nX-Sum: 1\r\n\r\n").as_bytes()).unwrap();
    let told = client.read("POST").unwrap().json();
    assert_eq!((&told["length"], &told["trailers"]["x-sum"]), (&5.into(), &"1".into()), "{told}");
    let server = secure(backend.address, "");
    let mut client = Http2::connect(server.address);
    let (coming, mut stream) = client.open(request("POST", "/"), false).unwrap();
    stream.send_data(Bytes::from_static(b"hello"), false).unwrap();
    stream.send_trailers(HeaderMap::from_iter([("x-sum".parse().unwrap(), "1".parse().unwrap())])).unwrap();
    let told = client.runtime.block_on(read(coming)).unwrap().json();
    assert_eq!((&told["length"], &told["trailers"]["x-sum"]), (&5.into(), &"1".into()), "{told}");
}

#[test]
fn both_sides_stream_at_once_and_the_slow_one_slows_the_other() {
    let sent = Arc::new(AtomicUsize::new(0));
    let count = Arc::clone(&sent);
    let backend = Http2Backend::new(Builder::new(), move |call| {
        let count = Arc::clone(&count);
        async move {
            let mut stream = { call }.respond.send_response(Response::new(()), false).unwrap();
            for _ in 0..3_000 {
                stream.reserve_capacity(10_000);
                while stream.capacity() < 10_000 {
                    if poll_fn(|cx| stream.poll_capacity(cx)).await.is_none_or(|room| room.is_err()) {
                        return;
                    }
                }
                stream.send_data(Bytes::from(vec![b'x'; 10_000]), false).unwrap();
                count.fetch_add(10_000, Ordering::SeqCst);
            }
            stream.send_data(Bytes::new(), true).unwrap();
        }
    });
    let server = plain(backend.address, "");
    let mut slow = Client::connect(server.address);
    slow.send(&Request::new("GET", "/").encode()).unwrap();
    let steady = |last: &mut usize| std::mem::replace(last, sent.load(Ordering::SeqCst)) == *last && *last > 0;
    let (mut last, mut looks) = (0, 0);
    // It stands still for a while when nobody takes it.
    let stands = eventually(PATIENCE, || {
        looks = if steady(&mut last) { looks + 1 } else { 0 };
        looks > 50
    });
    assert!(stands && last < 16 << 20, "{last} bytes of 30,000,000 lie somewhere");
    // Others go on meanwhile, on the same connection.
    assert_eq!(slow.read("GET").unwrap().body.len(), 30_000_000);
    assert_eq!(backend.connections(), 1);
}

#[test]
fn long_bodies_pass_in_both_directions() {
    let backend = Http2Backend::new(Builder::new(), |call| async move {
        let Call { request, mut respond, .. } = call;
        let body = read_body(&mut request.into_body()).await.unwrap();
        let stream = respond.send_response(Response::new(()), false).unwrap();
        send_all(stream, Bytes::from(body)).await.unwrap();
    });
    let body: Vec<u8> = (0..5_000_000_u32).map(|at| at as u8).collect();
    let server = plain(backend.address, "");
    let answer = server.client().call(&Request::new("POST", "/").body(Body::Length(&body))).unwrap();
    assert!(answer.body == body, "{}", answer.body.len());
    let server = secure(backend.address, "");
    assert!(Http2::connect(server.address).call(request("POST", "/"), &body).unwrap().body == body);
}

#[test]
fn resets_are_bad_gateways_and_a_client_that_goes_is_told() {
    let told = Arc::new(Mutex::new(None));
    let tell = Arc::clone(&told);
    let backend = Http2Backend::new(Builder::new(), move |mut call| {
        let tell = Arc::clone(&tell);
        async move {
            if call.request.uri().path() == "/reset" {
                return call.respond.send_reset(Reason::ENHANCE_YOUR_CALM);
            }
            let reason = poll_fn(|cx| call.respond.poll_reset(cx)).await.unwrap();
            *tell.lock().unwrap() = Some(reason);
        }
    });
    let server = secure(backend.address, "retries: 0");
    let mut client = Http2::connect(server.address);
    assert_eq!(client.get("/reset").unwrap().status, 502);
    let line = &server.access_lines(1)[0];
    assert_eq!(line["error"], "it reset the stream: ENHANCE_YOUR_CALM", "{line}");
    let (answer, mut stream) = client.open(request("POST", "/held"), false).unwrap();
    assert!(eventually(PATIENCE, || backend.open() == 1));
    stream.send_data(Bytes::from_static(b"x"), false).unwrap();
    stream.send_reset(Reason::CANCEL);
    drop(answer);
    assert!(eventually(PATIENCE, || told.lock().unwrap().is_some()));
    assert_eq!(*told.lock().unwrap(), Some(Reason::CANCEL));
}

#[test]
fn what_does_not_speak_it_is_told_in_words() {
    let listener = TcpListener::bind("127.0.0.1:0").unwrap();
    let address = listener.local_addr().unwrap();
    std::thread::spawn(move || {
        for stream in listener.incoming() {
            let mut stream = stream.unwrap();
            let _ = stream.read(&mut [0; 1000]);
            let _ = stream.write_all(b"HTTP/1.1 400 Bad Request\r\nContent-Length: 0\r\n\r\n");
        }
    });
    let server = plain(address, "retries: 0");
    let refused = server.client().get("/").unwrap();
    assert!([502, 503].contains(&refused.status), "{refused:?}");
    let line = &server.access_lines(1)[0];
    let words = ["it does not speak HTTP/2", "it closed the connection instead of speaking HTTP/2"];
    assert!(words.contains(&line["error"].as_str().unwrap()), "{line}");
}

#[test]
fn connections_without_requests_are_closed_in_time() {
    let backend = Http2Backend::ok();
    let server = plain(backend.address, "idle_timeout: 1s");
    assert_eq!(server.client().get("/").unwrap().text(), "ok");
    assert_eq!(backend.open(), 1);
    assert!(eventually(PATIENCE, || backend.open() == 0));
    assert_eq!(server.client().get("/").unwrap().text(), "ok");
    assert!(eventually(Duration::from_secs(1), || backend.connections() == 2));
}

#[test]
fn expectations_are_passed_on() {
    let backend = Http2Backend::new(Builder::new(), |call| async move {
        let Call { request, mut respond, .. } = call;
        assert_eq!(request.headers()["expect"], "100-continue");
        respond.send_informational(Response::builder().status(100).body(()).unwrap()).unwrap();
        let body = read_body(&mut request.into_body()).await.unwrap();
        let mut stream = respond.send_response(Response::new(()), false).unwrap();
        stream.send_data(Bytes::from(body), true).unwrap();
    });
    let server = plain(backend.address, "");
    let mut client = server.client();
    client.send(b"POST / HTTP/1.1\r\nHost: a\r\nExpect: 100-continue\r\nContent-Length: 5\r\n\r\n").unwrap();
    let mut interim = [0; 12];
    client.stream().read_exact(&mut interim).unwrap();
    assert_eq!(&interim, b"HTTP/1.1 100");
    client.send(b"hello").unwrap();
    client.stream().read_exact(&mut [0; 13]).ok();
    assert_eq!(client.read("POST").unwrap().text(), "hello");
}

#[test]
fn over_tls_it_is_agreed_on() {
    use rustls::pki_types::pem::PemObject;
    use rustls::pki_types::{CertificateDer, PrivateKeyDer};
    let dir = TempDir::new().unwrap();
    let (cert, key) = write_pair(dir.path(), NOW);
    let certs = vec![CertificateDer::from_pem_file(&cert).unwrap()];
    let key = PrivateKeyDer::from_pem_file(&key).unwrap();
    let config = rustls::ServerConfig::builder_with_provider(Arc::new(rustls::crypto::ring::default_provider()));
    let config = config.with_safe_default_protocol_versions().unwrap().with_no_client_auth();
    let mut config = config.with_single_cert(certs, key).unwrap();
    config.alpn_protocols = vec![b"h2".to_vec(), b"http/1.1".to_vec()];
    let acceptor = tokio_rustls::TlsAcceptor::from(Arc::new(config));
    let backend = Http2Backend::with(Builder::new(), Some(acceptor), echo);
    for protocol in ["h2", "auto"] {
        let tls = format!("tls: {{server_name: test.example, ca: {}}}", cert.display());
        let keys = format!("protocol: {protocol}, {NO_CHECK}, {tls}");
        let server = Setup::default().pool("app", &[backend.address], &keys).line(ONE_THREAD).start();
        let before = backend.connections();
        for _ in 0..3 {
            let told = server.client().call(&Request::new("POST", "/").body(Body::Length(b"hello"))).unwrap();
            assert_eq!(told.status, 200, "{told:?}");
            assert_eq!((&told.json()["uri"], &told.json()["length"]), (&"https://test.example/".into(), &5.into()));
        }
        assert_eq!(backend.connections() - before, 1, "{protocol}");
    }
}

/// Sends pieces of 64 bytes, each in a frame of its own.
async fn send_pieces(stream: &mut SendStream<Bytes>, count: usize) {
    for _ in 0..count {
        stream.reserve_capacity(64);
        while stream.capacity() < 64 {
            poll_fn(|cx| stream.poll_capacity(cx)).await.expect("the stream is open").unwrap();
        }
        stream.send_data(Bytes::from_static(&[b'x'; 64]), false).unwrap();
    }
}

/// h2 keeps each frame at many times its size, and gives up a client of which too many lie there.
#[test]
fn a_hundred_thousand_small_pieces_pass_however_late_they_are_taken() {
    for late in [false, true] {
        let taken = Arc::new(Semaphore::new(usize::from(!late)));
        let gate = Arc::clone(&taken);
        let backend = Http2Backend::new(Builder::new(), move |call| {
            let gate = Arc::clone(&gate);
            async move {
                drop(gate.acquire().await);
                echo(call).await;
            }
        });
        let server = secure(backend.address, "");
        let mut client = Http2::connect(server.address);
        let (answer, mut stream) = client.open(request("POST", "/"), false).unwrap();
        let answer = client.runtime.block_on(async {
            send_pieces(&mut stream, 60_000).await;
            taken.add_permits(1);
            send_pieces(&mut stream, 40_000).await;
            stream.send_data(Bytes::new(), true).unwrap();
            read(answer).await.unwrap()
        });
        assert_eq!(answer.json()["length"], 6_400_000, "taken late: {late}");
    }
}
