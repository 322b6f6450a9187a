//! HTTP/2 without TLS, by prior knowledge, beside HTTP/1.1 on one listener.

use std::net::TcpStream;
use std::process::Command;
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::checksum;
use crate::harness::client::Client;
use crate::harness::http2::{Http2, request};
use crate::harness::process::run;
use crate::harness::server::{LISTEN, Tollgate};
use crate::harness::setup::NO_CHECK;
use crate::harness::{PATIENCE, dawdle, now};

/// How a client begins that speaks HTTP/2.
const PREFACE: &[u8] = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n";

fn server(keys: &str, more: &str) -> (Backend, Tollgate) {
    let backend = Backend::scripted("a");
    let server = Tollgate::from_yaml(&format!(
        "listeners: [{{address: {LISTEN}, {keys}}}]\nrate_limit: {{enabled: false}}\n{more}\n\
         upstreams: [{{name: app, backends: [{{address: \"{}\"}}], {NO_CHECK}}}]\n",
        backend.address
    ));
    (backend, server)
}

#[test]
fn both_protocols_are_served_on_one_listener() {
    let (_backend, server) = server("h2c: true", "");
    let mut streams = Http2::plain(server.address);
    let answer = streams.get("/").unwrap();
    assert_eq!(answer.status, 200);
    let headers = answer.json()["headers"].as_array().unwrap().clone();
    let value = |name: &str| {
        headers.iter().find(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name)).map(|pair| pair[1].clone())
    };
    assert_eq!((value("x-forwarded-proto"), value("x-forwarded-for")), (Some("http".into()), Some("127.0.0.1".into())));
    let body = checksum::body(1, 300_000);
    let answer = streams.call(request("POST", "/?bytes=400000&seed=2"), &body).unwrap();
    let got = format!("{} {:x}", body.len(), checksum::sum(&body));
    assert_eq!((answer.status, answer.header("x-got")), (200, Some(got.as_str())));
    assert!(answer.body == checksum::body(2, 400_000));
    let mut plain = server.client();
    for _ in 0..3 {
        assert_eq!(plain.get("/").unwrap().status, 200);
    }
    // An offer to go on in it is none: the request is served as it is.
    plain.send(b"GET / HTTP/1.1\r\nHost: a\r\nConnection: Upgrade\r\nUpgrade: h2c\r\n\r\n").unwrap();
    assert_eq!(plain.read("GET").unwrap().status, 200);
}

#[test]
fn curl_speaks_it() {
    let (_backend, server) = server("h2c: true", "");
    let url = format!("http://{}/hello", server.address);
    for (option, version) in [("--http2-prior-knowledge", "2"), ("--http1.1", "1.1"), ("--http2", "1.1")] {
        let arguments = ["-sS", option, "-o", "/dev/null", "-w", "%{http_code} %{http_version}", &url];
        let finished = run(Command::new("curl").args(arguments));
        assert_eq!(finished.out, format!("200 {version}"), "{option}: {finished:?}");
    }
}

#[test]
fn what_comes_in_pieces_is_told_apart_as_soon_as_it_can_be() {
    let (_backend, server) = server("h2c: true", "limits: {header_timeout: 60s}");
    for method in ["PUT", "PRI", "PROPFIND", "GET"] {
        let text = format!("{method} / HTTP/1.1\r\nHost: a\r\nContent-Length: 0\r\n\r\n");
        for cut in [1, 2, 3, 4, 5] {
            let mut client = server.client();
            client.send(&text.as_bytes()[..cut]).unwrap();
            dawdle(Duration::from_millis(10));
            client.send(&text.as_bytes()[cut..]).unwrap();
            assert_eq!(client.read(method).unwrap().status, 200, "{method} cut at {cut}");
        }
    }
    for cut in [1, 3, 14, 18, 23] {
        let mut client = server.client();
        client.send(&PREFACE[..cut]).unwrap();
        dawdle(Duration::from_millis(10));
        client.send(&PREFACE[cut..]).unwrap();
        client.send(b"\0\0\0\x04\0\0\0\0\0").unwrap();
        // Its settings.
        assert_eq!(client.read_bytes(4).unwrap()[3], 4, "cut at {cut}");
    }
}

#[test]
fn one_that_says_half_a_preface_is_cut_and_no_reason_to_wait_at_a_stop() {
    let (_backend, mut server) = server("h2c: true", "limits: {header_timeout: 500ms}");
    for sent in [&b""[..], b"P", &PREFACE[..23], PREFACE] {
        let (start, mut client) = (now(), server.client());
        client.send(sent).unwrap();
        client.rest(PATIENCE).unwrap();
        let took = now() - start;
        assert!(took > Duration::from_millis(400) && took < Duration::from_secs(5), "{sent:?}: {took:?}");
    }
    let (_mute, mut half) = (TcpStream::connect(server.address).unwrap(), server.client());
    half.send(b"PRI").unwrap();
    let start = now();
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
    assert!(now() - start < Duration::from_secs(3), "took {:?}", now() - start);
}

#[test]
fn without_it_the_client_is_told_so() {
    let (_backend, server) = server("h2c: false", "");
    let mut client = Client::connect(server.address);
    client.send(PREFACE).unwrap();
    assert_eq!(client.read("PRI").unwrap().status, 400);
}

#[test]
fn it_goes_behind_a_load_balancer() {
    let (_backend, server) = server("h2c: true, proxy_protocol: v1", "identity: {trusted_proxies: [127.0.0.1]}");
    let mut client = Client::connect(server.address);
    client.send(b"PROXY TCP4 192.0.2.7 10.0.0.1 4711 80\r\n").unwrap();
    assert_eq!(client.get("/").unwrap().status, 200);
    let mut client = Client::connect(server.address);
    client.send(&[b"PROXY UNKNOWN\r\n", PREFACE, b"\0\0\0\x04\0\0\0\0\0"].concat()).unwrap();
    assert_eq!(client.read_bytes(4).unwrap()[3], 4, "its settings");
    assert_eq!(server.access_lines(1)[0]["client_ip"], "192.0.2.7");
}
