//! What a route changes of its requests and answers: paths, headers, whether anybody pays. Both ways of a request, and
//! for clients of both protocols.

use serde_json::Value;
use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::{Body, Request, Response};
use crate::harness::http2::{Http2, request};
use crate::harness::played::Played;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NOW, write_pair};

/// Both ways.
const WAYS: [&str; 2] = ["direct: true", "direct: false"];

/// What the backend got: its target, and the values of a header.
fn got(response: &Response, name: &str) -> (String, Vec<String>) {
    let report = response.json();
    let headers = report["headers"].as_array().expect("a list").clone();
    let named = headers.iter().filter(|pair| pair[0].as_str().expect("a name").eq_ignore_ascii_case(name));
    let values = named.map(|pair| pair[1].as_str().expect("a value").to_owned()).collect();
    (report["target"].as_str().expect("a target").to_owned(), values)
}

fn values(response: &Response, name: &str) -> Vec<String> {
    got(response, name).1
}

/// Writes the file anew and has it read.
#[track_caller]
fn reload(server: &Tollgate, setup: &Setup) {
    server.rewrite(&setup.yaml());
    let answer = server.ask("POST", "/config/reload", "");
    assert_eq!(answer.status, 200, "{answer:?}");
}

#[test]
fn a_prefix_is_taken_off_the_path_and_put_back_by_a_reload() {
    let backend = [Backend::scripted("a")];
    for way in WAYS {
        let setup = |route: &str| Setup::app(&backend, NO_CHECK).line(way).line(&format!("routes: [{route}]"));
        let server = setup("{path: /git, upstream: app, strip_prefix: /git}, {path: /, upstream: app}").start();
        let mut client = server.client();
        for (target, expected) in [
            ("/git", "/"),
            ("/git/", "/"),
            ("/git?x=/git", "/?x=/git"),
            ("/git/a%2Fb/..//c?d", "/a%2Fb/..//c?d"),
            ("/gitx/a", "/gitx/a"),
            ("/x/git/a", "/x/git/a"),
        ] {
            let answer = client.get(target).unwrap();
            assert_eq!(got(&answer, "host"), (expected.to_owned(), vec!["test.example".to_owned()]), "{way} {target}");
        }
        let body = Request::new("POST", "/git/up").body(Body::Chunked(b"hello", 2));
        assert_eq!(got(&client.call(&body).unwrap(), "a").0, "/up", "{way}");
        // Of a target with a host, too, which goes by Pingora's loop.
        let whole = Request::new("GET", "http://test.example/git/abs?x");
        assert_eq!(got(&client.call(&whole).unwrap(), "a").0, "/abs?x", "{way}");
        let logged = server.access_lines(1);
        assert_eq!(logged[0]["path"], "/git", "the log has what the client asked for");
        reload(&server, &setup("{path: /git/v1, upstream: app, strip_prefix: /git}, {path: /, upstream: app}"));
        assert_eq!(got(&client.get("/git/v1/x").unwrap(), "a").0, "/v1/x", "{way}");
        assert_eq!(got(&client.get("/git/x").unwrap(), "a").0, "/git/x", "{way}");
    }
}

#[test]
fn a_route_without_limit_costs_nothing_and_says_nothing_of_rates() {
    let backend = [Backend::scripted("a")];
    for way in WAYS {
        let setup = |limit: bool| {
            let routes =
                format!("routes: [{{path: /, upstream: app}}, {{path: /free, upstream: app, limit: {limit}}}]");
            let rate = "rate_limit: {default: {capacity: 2, rate_per_sec: 0.000001}}";
            Setup::app(&backend, NO_CHECK).line(way).line(&routes).line(rate)
        };
        let server = setup(false).start();
        for body in [
            r#"{"client_id":"blocked","capacity":1,"rate_per_sec":1,"mode":"blocked","api_key":"blocked-key"}"#,
            r#"{"client_id":"team","capacity":2,"rate_per_sec":0.000001,"api_key":"team-key"}"#,
        ] {
            assert_eq!(server.ask("POST", "/clients", body).status, 201);
        }
        let mut client = server.client();
        for _ in 0..5 {
            let free = client.get("/free/x").unwrap();
            assert_eq!((free.status, free.header("ratelimit"), free.header("x-ratelimit-limit")), (200, None, None));
        }
        let known = [("X-Api-Key", "team-key")];
        assert_eq!(client.call(&Request::new("GET", "/free").headers(&known)).unwrap().status, 200);
        assert_eq!(server.ask("GET", "/clients/team", "").json()["tokens"], 2.0);
        assert_eq!([0; 3].map(|_| client.get("/").unwrap().status), [200, 200, 429]);
        assert_eq!(client.get("/free").unwrap().status, 200, "also for one who has nothing left");
        let blocked = [("X-Api-Key", "blocked-key")];
        assert_eq!(client.call(&Request::new("GET", "/free").headers(&blocked)).unwrap().status, 403);
        let explain = |path: &str| {
            let told = server.ask("POST", "/explain", &format!(r#"{{"address":"127.0.0.1","path":"{path}"}}"#)).json();
            (told["decision"].clone(), told["upstream"].clone(), told["answer"]["status"].clone())
        };
        assert_eq!(explain("/free/x"), (Value::Null, "app".into(), Value::Null), "{way}");
        assert_eq!(explain("/x"), ("limited".into(), "app".into(), 429.into()), "{way}");
        let lines = server.access_lines(11);
        assert_eq!((&lines[0]["limit"], &lines[0]["tokens"]), (&Value::Null, &Value::Null));
        assert_eq!((&lines[8]["limit"], &lines[10]["limit"]), (&"limited".into(), &"blocked".into()));
        reload(&server, &setup(true));
        assert_eq!(client.get("/free").unwrap().status, 429, "{way}");
    }
}

#[test]
fn keys_cannot_be_guessed_for_nothing_on_a_route_without_limit() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK)
        .line("routes: [{path: /, upstream: app, limit: false}]")
        .line("identity: {unknown_api_key: reject}")
        .line("rate_limit: {default: {capacity: 2, rate_per_sec: 0.000001}}")
        .start();
    let guess = [("X-Api-Key", "guess")];
    let mut client = server.client();
    let statuses = [0; 4].map(|_| client.call(&Request::new("GET", "/").headers(&guess)).unwrap().status);
    assert_eq!(statuses, [401, 401, 429, 429]);
    assert_eq!(client.get("/").unwrap().status, 200);
}

/// The rules of a route in these tests.
const RULES: &str = "request_headers: {remove: [Cookie, X-Gone], \
    edit: [{name: Destination, from: '^https:', to: 'http:'}, {name: x-both, from: '(\\w+)-(\\w+)', to: '${2}-$1'}], \
    set: {X-Env: prod, X-Who: '{client_id}', X-From: '{client_ip} {request_id}', Host: inner.example}}, \
    response_headers: {remove: [X-Backend, set-cookie], edit: [{name: Location, from: '^http:', to: 'https:'}], \
    set: {Strict-Transport-Security: max-age=31536000, X-Request-Id: '{request_id}'}}";

/// What is sent to meet them.
const SENT: [(&str, &str); 9] = [
    ("cookie", "a=b"),
    ("x-gone", "1"),
    ("destination", "https://test.example/x"),
    ("x-both", "a-b c-d"),
    ("x-env", "dev"),
    ("x-who", "root"),
    ("x-kept", "1"),
    ("cookie", "c=d"),
    ("x-env", "test"),
];

#[track_caller]
fn assert_requests_change(answer: &Response, what: &str) {
    for (name, expected) in [
        ("cookie", &[][..]),
        ("x-gone", &[]),
        ("destination", &["http://test.example/x"]),
        ("x-both", &["b-a d-c"]),
        ("x-env", &["prod"]),
        ("x-who", &[]),
        ("x-kept", &["1"]),
        ("host", &["inner.example"]),
        ("x-forwarded-host", &["test.example"]),
    ] {
        assert_eq!(values(answer, name), expected, "{what}: {name}");
    }
    let from = values(answer, "x-from");
    let id = answer.header("x-request-id").expect("an id");
    assert_eq!(from, [format!("127.0.0.1 {id}")], "{what}");
    assert_eq!(values(answer, "x-request-id"), [id], "{what}");
    assert_eq!((answer.header("x-backend"), answer.header("set-cookie")), (None, None), "{what}");
    assert_eq!(answer.head.all("strict-transport-security"), ["max-age=31536000"], "{what}");
    assert_eq!(answer.head.all("date").len(), 1, "{what}");
}

#[test]
fn headers_change_as_the_rules_say_whichever_way_and_protocol() {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    for way in WAYS {
        let setup = || Setup::app(&backend, NO_CHECK).line(way);
        let routes = format!("routes: [{{path: /, upstream: app, {RULES}}}, {{path: /plain, upstream: app}}]");
        let plain = setup().line(&routes).start();
        let mut client = plain.client();
        for body in [Body::None, Body::Length(b"hello"), Body::Chunked(b"hello", 3)] {
            let method = if matches!(body, Body::None) { "GET" } else { "POST" };
            let request = Request::new(method, "/x").headers(&SENT).body(body);
            assert_requests_change(&client.call(&request).unwrap(), way);
        }
        // Through the loop, whatever the file says: its Connection has several options.
        let more = [&SENT[..], &[("connection", "keep-alive, x-nothing")]].concat();
        assert_requests_change(&client.call(&Request::new("GET", "/x").headers(&more)).unwrap(), way);
        let other = client.call(&Request::new("GET", "/plain").headers(&SENT)).unwrap();
        assert_eq!(
            (values(&other, "x-env"), other.header("x-backend")),
            (vec!["dev".into(), "test".into()], Some("a"))
        );
        let secure = setup().tls(dir.path()).line(&routes).start();
        let mut client = Http2::connect(secure.address);
        for body in ["", "hello"] {
            let mut asked = request(if body.is_empty() { "GET" } else { "POST" }, "/x");
            for (name, value) in SENT {
                asked.headers_mut().append(name, value.parse().unwrap());
            }
            assert_requests_change(&client.call(asked, body.as_bytes()).unwrap(), way);
        }
    }
}

#[test]
fn a_client_is_told_by_name_and_its_key_stays_here() {
    let backend = [Backend::scripted("a")];
    let sent = [
        ("X-Api-Key", "team-key"),
        ("Authorization", "Bearer team-key"),
        ("X-Client-Id", "root"),
        ("x-client-id", "root"),
        ("X_Client_Id", "root"),
    ];
    for way in WAYS {
        let setup = |forward: bool| {
            let identity = format!("identity: {{forward_api_key: {forward}, underscores: pass}}");
            Setup::app(&backend, NO_CHECK).line(way).line(&identity)
        };
        let server = setup(false).start();
        let team = r#"{"client_id":"team","capacity":10,"rate_per_sec":1,"api_key":"team-key"}"#;
        assert_eq!(server.ask("POST", "/clients", team).status, 201);
        let mut client = server.client();
        let answer = client.call(&Request::new("GET", "/").headers(&sent)).unwrap();
        for (name, expected) in
            [("x-api-key", &[][..]), ("authorization", &[]), ("x-client-id", &["team"]), ("x_client_id", &[])]
        {
            assert_eq!(values(&answer, name), expected, "{way} {name}");
        }
        // A token that is no client's is the backend's; a stranger has no name.
        let other = [("X-Api-Key", "nobody"), ("Authorization", "Bearer nobody"), ("X-Client-Id", "root")];
        let answer = client.call(&Request::new("GET", "/").headers(&other)).unwrap();
        assert_eq!(values(&answer, "authorization"), ["Bearer nobody"], "{way}");
        assert!(values(&answer, "x-api-key").is_empty() && values(&answer, "x-client-id").is_empty(), "{way}");
        reload(&server, &setup(true));
        let answer = client.call(&Request::new("GET", "/").headers(&sent)).unwrap();
        assert_eq!(values(&answer, "x-api-key"), ["team-key"], "{way}");
    }
}

#[test]
fn answers_of_ours_and_interim_ones_are_left_alone_and_framing_stays() {
    let played = Played::new();
    for way in WAYS {
        let rules = "response_headers: {set: {X-Set: '1', X-Named: ours}, remove: [Server], \
                     edit: [{name: X-Long, from: 'x', to: 'yyyyyyyyyyyyyyyy'}]}";
        let server = Setup::default()
            .pool("app", &[played.address], &format!("{NO_CHECK}, retries: 0"))
            .pool("dead", &[crate::harness::ports::free_address()], NO_CHECK)
            .line(way)
            .line(&format!("routes: [{{path: /, upstream: app, {rules}}}, {{path: /dead, upstream: dead, {rules}}}]"))
            .start();
        let mut client = server.client();
        let dead = client.get("/dead").unwrap();
        assert_eq!((dead.status, dead.header("x-set")), (503, None), "{way}");
        client.send(&Request::new("GET", "/").encode()).unwrap();
        let (mut backend, _) = played.take_request();
        let long = "x".repeat(8000);
        backend.send(
            format!(
                "HTTP/1.1 103 Early Hints\r\nLink: </a>\r\n\r\nHTTP/1.1 200 Fine\r\nServer: s\r\nX-Named: theirs\r\n\
                 Connection: x-named\r\nX-Long: {long}\r\nX-A: 1\r\nTransfer-Encoding: chunked\r\n\r\n\
                 3\r\nabc\r\n0\r\n\r\n"
            )
            .as_bytes(),
        );
        let mut interim = Vec::new();
        let answer = client.read_all("GET", &mut interim).unwrap();
        assert_eq!((interim.len(), interim[0].header("x-set")), (1, None), "{way}");
        assert_eq!((answer.head.first.as_str(), answer.text().as_str()), ("HTTP/1.1 200 Fine", "abc"), "{way}");
        assert_eq!((answer.header("x-set"), answer.header("x-named")), (Some("1"), Some("ours")), "{way}");
        assert_eq!((answer.header("server"), answer.header("x-a")), (None, Some("1")), "{way}");
        assert_eq!(answer.header("x-long"), None, "what an edit made too long is not sent: {way}");
    }
}
