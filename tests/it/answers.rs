//! Answers of our own, in the words that a site or a client wants.

use serde_json::json;
use tempfile::TempDir;

use crate::harness::assert_ours;
use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request, Response};
use crate::harness::http2::{Http2, request};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

/// Callers are told apart by `X-Forwarded-For`; each may ask once.
const LIMITS: &str = "rate_limit: {default: {capacity: 1, rate_per_sec: 0.01}, max_retry_after: 3s}\n\
                      identity: {trusted_proxies: [127.0.0.0/8]}";
const ANSWERS: &str = r#"
answers:
  429:
    content_type: application/json
    headers: {Access-Control-Allow-Origin: '*', Cache-Control: private}
    body: '{"error":{"code":{code},"message":"{message}","retry_after":{retry_after},"request_id":"{request_id}"}}'
  404: {content_type: text/html; charset=utf-8, body: '<h1>{code} {message}</h1><p>{request_id}{retry_after}</p>'}
  408: {body: '{"slow":true}'}
  400: {body: '{"bad":{code}}'}
"#;

fn ask(client: &mut Client, path: &str, headers: &[(&str, &str)]) -> Response {
    let method = if path.starts_with("/head") { "HEAD" } else { "GET" };
    client.call_again(&Request::new(method, path).headers(headers)).expect("an answer")
}

fn start(more: &str) -> ([Backend; 1], Tollgate) {
    let backend = [Backend::scripted("a")];
    let route = "routes: [{path: /here, upstream: app}, {path: /head, upstream: app}]";
    let server = Setup::app(&backend, NO_CHECK).line(LIMITS).line(route).line(more).start();
    (backend, server)
}

#[test]
fn a_site_says_its_own_words() {
    for direct in ["direct: true", "direct: false"] {
        let (_backend, server) = start(&format!("{ANSWERS}\n{direct}"));
        let mut client = server.client();
        let from = |address| [("X-Forwarded-For", address), ("X-Request-Id", "a\"<\\")];
        let page = ask(&mut client, "/none", &from("192.0.2.1"));
        assert_eq!((page.status, page.header("content-type")), (404, Some("text/html; charset=utf-8")));
        assert_eq!(page.text(), "<h1>404 No route matches</h1><p>a&#34;&#60;\\</p>");
        assert_eq!((page.header("cache-control"), page.header("x-request-id")), (Some("no-store"), Some("a\"<\\")));
        let refused = ask(&mut client, "/here", &from("192.0.2.1"));
        assert_eq!((refused.status, refused.header("retry-after")), (429, Some("3")));
        assert_eq!(refused.head.all("cache-control"), ["private"]);
        assert_eq!(refused.header("access-control-allow-origin"), Some("*"));
        let error = json!({"code": 429, "message": "Rate limit exceeded", "retry_after": 3, "request_id": "a\"<\\"});
        assert_eq!(refused.json(), json!({"error": error}));
        let head = ask(&mut client, "/head", &from("192.0.2.1"));
        assert_eq!((head.status, head.text().as_str()), (429, ""));
        assert_eq!(head.header("content-length"), Some(refused.text().len().to_string().as_str()));
        // What was refused before anything was known of it.
        let mut other = server.client();
        other.send(b"GET / HTTP/1.1\r\nHost: a\r\nHost: b\r\n\r\n").unwrap();
        let bad = other.read("GET").unwrap();
        assert_eq!((bad.status, bad.text().as_str()), (400, r#"{"bad":400}"#));
        // All others stay as they are.
        let two = [("X-Api-Key", "x"), ("Authorization", "Bearer y")];
        assert_eq!(ask(&mut client, "/here", &two).text(), r#"{"bad":400}"#);
        let lines = server.access_lines(5);
        assert_eq!((&lines[1]["status"], &lines[1]["error"]), (&json!(429), &json!("Rate limit exceeded")));
    }
}

#[test]
fn grpc_comes_before_problem_details_and_those_before_the_site() {
    for direct in ["direct: true", "direct: false"] {
        let (_backend, server) = start(&format!("{ANSWERS}\n{direct}"));
        let mut client = server.client();
        let problem = ("Accept", "application/json, application/problem+json");
        let from = ("X-Forwarded-For", "192.0.2.7");
        let unknown = ask(&mut client, "/none", &[problem, from]);
        assert_eq!((unknown.status, unknown.header("content-type")), (404, Some("application/problem+json")));
        let id = unknown.header("x-request-id").unwrap().to_owned();
        let expected = json!({
            "type": "about:blank", "title": "Not Found", "status": 404, "detail": "No route matches", "request_id": id,
        });
        assert_eq!(unknown.json(), expected);
        let refused = ask(&mut client, "/here", &[problem, from]);
        assert_eq!((refused.status, refused.header("access-control-allow-origin")), (429, Some("*")));
        assert_eq!(refused.json()["type"], "https://iana.org/assignments/http-problem-types#quota-exceeded");
        assert_eq!(refused.json()["violated-policies"], json!(["default"]));
        let less = ("Accept", "application/problem+json;q=0.3, application/json;q=0.4");
        assert!(ask(&mut client, "/here", &[less, from]).json()["error"].is_object());
        let grpc = ask(&mut client, "/here", &[problem, from, ("Content-Type", "application/grpc")]);
        assert_eq!((grpc.status, grpc.header("grpc-status")), (200, Some("8")));
        assert_eq!((grpc.header("grpc-retry-pushback-ms"), grpc.text().as_str()), (Some("3000"), ""));
        assert_eq!(grpc.header("access-control-allow-origin"), None);
        let head = ask(&mut client, "/head", &[problem, from]);
        assert_eq!((head.status, head.header("content-type")), (429, Some("application/problem+json")));
        assert_eq!(head.text(), "");
    }
}

#[test]
fn over_http2_the_words_are_the_same() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let route = "routes: [{path: /here, upstream: app}]";
    let server = Setup::app(&backend, NO_CHECK).line(LIMITS).line(route).line(ANSWERS).tls(dir.path()).start();
    let mut client = Http2::connect(server.address);
    let mut call = |path: &str, lines: &[(&'static str, &str)]| {
        let mut asked = request("GET", path);
        lines.iter().for_each(|(name, value)| drop(asked.headers_mut().insert(*name, value.parse().unwrap())));
        client.call(asked, &[]).unwrap()
    };
    assert_eq!(call("/here", &[]).status, 200);
    let refused = call("/here", &[]);
    assert_eq!((refused.status, refused.header("access-control-allow-origin")), (429, Some("*")));
    let id = refused.header("x-request-id").unwrap();
    let error = json!({"code": 429, "message": "Rate limit exceeded", "retry_after": 3, "request_id": id});
    assert_eq!(refused.json(), json!({"error": error}));
    let problem = call("/here", &[("accept", "application/problem+json")]);
    assert_eq!((problem.status, problem.header("content-type")), (429, Some("application/problem+json")));
    assert_eq!(problem.json()["violated-policies"], json!(["default"]));
    // One that is no request.
    let bad = call("/here", &[("host", "another.example")]);
    assert_eq!((bad.status, bad.text().as_str()), (400, r#"{"bad":400}"#));
}

#[test]
fn a_reload_changes_the_words() {
    let backend = [Backend::scripted("a")];
    let setup = |more: &str| Setup::app(&backend, NO_CHECK).line("routes: [{path: /here, upstream: app}]").line(more);
    let server = setup("").start();
    let mut client = server.client();
    assert_ours(&ask(&mut client, "/", &[]), 404, "No route matches");
    server.rewrite(&setup("answers: {404: {content_type: text/plain, body: 'nothing, {request_id}'}}").yaml());
    assert_eq!(server.ask("POST", "/config/reload", "").json()["changed"], json!(["answers changed"]));
    let answer = ask(&mut client, "/", &[]);
    assert_eq!(answer.text(), format!("nothing, {}", answer.header("x-request-id").unwrap()));
    server.rewrite(&setup("answers: {404: {body: '{broken'}}").yaml());
    let told = server.ask("POST", "/config/reload", "");
    assert_eq!((told.status, &told.json()["errors"][0]["field"]), (422, &json!("answers.404.body")), "{told:?}");
    assert!(ask(&mut client, "/", &[]).text().starts_with("nothing"));
}
