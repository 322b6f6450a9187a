//! Spans as a collector gets them, which decodes what OTLP is; and collectors that are away, or take nothing.

use std::time::Duration;

use opentelemetry_proto::tonic::collector::trace::v1::ExportTraceServiceRequest;
use opentelemetry_proto::tonic::common::v1::any_value::Value;
use opentelemetry_proto::tonic::trace::v1::Span;
use prost::Message;

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::client::Request;
use crate::harness::played::{Played, Taken};
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::wire::Head;
use crate::harness::{PATIENCE, eventually, now};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";
const SERVER: i32 = 2;
const CLIENT: i32 = 3;
/// A stop waits a second for spans; the rest is a process that ends on a busy machine, far from the five seconds that a
/// collector has.
const STOP: Duration = Duration::from_millis(4_500);

fn server(backends: &[Backend], keys: &str, otlp: &str) -> Tollgate {
    Setup::app(backends, keys).line(&format!("tracing: {{sample: 1, otlp: \"http://{otlp}\"}}")).start()
}

/// The spans of the next batch, which is answered with this status.
#[track_caller]
fn batch(connection: &mut Taken, status: &str) -> Vec<Span> {
    told_batch(connection, status).0
}

/// The same, with what it came with.
#[track_caller]
fn told_batch(connection: &mut Taken, status: &str) -> (Vec<Span>, Head) {
    let got = connection.request();
    assert_eq!(got.head.first, "POST /v1/traces HTTP/1.1");
    let kind = got.head.headers.iter().find(|(name, _)| name.eq_ignore_ascii_case("content-type"));
    assert_eq!(kind.map(|(_, value)| value.as_str()), Some("application/x-protobuf"));
    connection.send(format!("HTTP/1.1 {status}\r\nContent-Length: 0\r\n\r\n").as_bytes());
    let sent = ExportTraceServiceRequest::decode(&got.body[..]).unwrap();
    let resource = sent.resource_spans[0].resource.clone().unwrap();
    let name = resource.attributes.iter().find(|attribute| attribute.key == "service.name").unwrap().value.clone();
    assert_eq!(name.and_then(|name| name.value), Some(Value::StringValue("tollgate".to_owned())));
    let scopes = sent.resource_spans.into_iter().flat_map(|resource| resource.scope_spans);
    (scopes.flat_map(|scope| scope.spans).collect(), got.head)
}

/// What is said under this key; empty when nothing is.
fn said(span: &Span, key: &str) -> String {
    let value = span.attributes.iter().find(|attribute| attribute.key == key).and_then(|found| found.value.clone());
    match value.and_then(|value| value.value) {
        Some(Value::StringValue(text)) => text,
        Some(Value::IntValue(number)) => number.to_string(),
        other => other.map(|other| format!("{other:?}")).unwrap_or_default(),
    }
}

fn hex(bytes: &[u8]) -> String {
    bytes.iter().map(|byte| format!("{byte:02x}")).collect()
}

fn metric(server: &Tollgate, name: &str) -> u64 {
    let text = server.ask("GET", "/metrics", "").text();
    let line = text.lines().find_map(|line| line.strip_prefix(&format!("{name} ")).map(str::to_owned));
    line.unwrap_or_else(|| panic!("{name} in {text}")).parse().unwrap()
}

#[test]
fn a_websocket_that_opened_is_no_error_and_the_port_stands_apart_from_the_host() {
    let (backends, collector) = (three_scripted(), Played::new());
    let server = server(&backends, NO_CHECK, &collector.address.to_string());
    let mut client = server.client();
    let switch = format!(
        "GET /?switch=echo HTTP/1.1\r\nHost: test.example:8443\r\nConnection: Upgrade\r\nUpgrade: websocket\r\n\
         traceparent: {SENT}\r\n\r\n"
    );
    client.send(switch.as_bytes()).unwrap();
    assert_eq!(client.read("GET").unwrap().status, 101);
    client.finish();
    client.rest(PATIENCE).unwrap();
    let spans = batch(&mut collector.take(), "200 OK");
    for kind in [SERVER, CLIENT] {
        let span = spans.iter().find(|span| span.kind == kind).unwrap();
        assert_eq!(said(span, "http.response.status_code"), "101", "{span:?}");
        assert_eq!((said(span, "error.type").as_str(), span.status.as_ref().map_or(0, |status| status.code)), ("", 0));
    }
    let server = spans.iter().find(|span| span.kind == SERVER).unwrap();
    assert_eq!(["server.address", "server.port"].map(|key| said(server, key)), ["test.example", "8443"]);
}

#[test]
fn a_request_is_a_span_with_its_attempts_below_it() {
    let (backends, collector) = (three_scripted(), Played::new());
    let server = server(&backends, &format!("{NO_CHECK}, retry_on: [broken]"), &collector.address.to_string());
    let mut client = server.client();
    // In turns, so one of three requests meets the one that breaks off.
    for _ in 0..3 {
        let request = Request::new("GET", "/x?fault=close&at=a&key=secret").headers(&[("traceparent", SENT)]);
        let answer = client.call(&request).unwrap();
        assert_eq!(answer.status, 200, "{answer:?}");
    }
    let mut connection = collector.take();
    let mut spans = Vec::new();
    while spans.iter().filter(|span: &&Span| span.kind == SERVER).count() < 3 {
        spans.extend(batch(&mut connection, "200 OK"));
    }
    assert!(spans.iter().all(|span| hex(&span.trace_id) == TRACE), "{spans:?}");
    let (servers, clients): (Vec<_>, Vec<_>) = spans.iter().partition(|span| span.kind == SERVER);
    assert_eq!((servers.len(), clients.len()), (3, 4), "{spans:?}");
    for span in &servers {
        assert_eq!((hex(&span.parent_span_id).as_str(), span.name.as_str()), ("00f067aa0ba902b7", "GET"));
        let keys = ["http.request.method", "url.path", "url.scheme", "http.response.status_code", "client.address"];
        let values = keys.map(|key| said(span, key));
        assert_eq!(values, ["GET", "/x", "http", "200", "127.0.0.1"]);
        assert_eq!(
            (said(span, "server.address").as_str(), said(span, "tollgate.upstream").as_str()),
            ("test.example", "app")
        );
        assert_eq!(said(span, "tollgate.request_id").len(), 32);
        let below: Vec<_> = clients.iter().filter(|client| client.parent_span_id == span.span_id).collect();
        assert!(!below.is_empty());
        for client in below {
            assert_eq!((client.kind, said(client, "server.address").as_str()), (CLIENT, "127.0.0.1"));
            let inside = span.start_time_unix_nano <= client.start_time_unix_nano
                && client.start_time_unix_nano <= client.end_time_unix_nano
                && client.end_time_unix_nano <= span.end_time_unix_nano;
            assert!(inside, "{client:?} in {span:?}");
        }
    }
    let broken: Vec<_> = clients.iter().filter(|span| said(span, "error.type") == "no_answer").collect();
    assert_eq!(broken.len(), 1, "{clients:?}");
    assert_eq!(said(broken[0], "server.port"), backends[0].address.port().to_string());
    assert_eq!(broken[0].status.as_ref().map(|status| (status.code, status.message.is_empty())), Some((2, false)));
    let again = clients.iter().find(|span| said(span, "http.request.resend_count") == "1").unwrap();
    assert_eq!(
        (again.parent_span_id.clone(), said(again, "http.response.status_code")),
        (broken[0].parent_span_id.clone(), "200".to_owned())
    );
    assert!(!format!("{spans:?}").contains("secret"));
    assert!(eventually(PATIENCE, || metric(&server, "tollgate_spans_exported_total") == 7));
    assert_eq!(metric(&server, "tollgate_spans_dropped_total"), 0);
}

#[test]
fn what_is_refused_or_not_sampled_is_told_or_not() {
    let (backend, collector) = ([Backend::scripted("a")], Played::new());
    let lines = format!("tracing: {{sample: 0, otlp: \"http://{}\"}}", collector.address);
    let setup = Setup::app(&backend, NO_CHECK).line(&lines).line("identity: {trusted_proxies: [127.0.0.1]}");
    let server = setup.line("rate_limit: {default: {capacity: 1, rate_per_sec: 0.001}}").start();
    let mut client = server.client();
    // A bucket of one, so the second is refused; neither counts but the one that a trusted proxy has sampled.
    assert_eq!(client.get("/").unwrap().status, 200);
    let answer = client.call(&Request::new("GET", "/no").headers(&[("traceparent", SENT)])).unwrap();
    assert_eq!(answer.status, 429);
    let spans = batch(&mut collector.take(), "200 OK");
    let [span] = &spans[..] else { panic!("{spans:?}") };
    assert_eq!(
        (said(span, "http.response.status_code").as_str(), said(span, "tollgate.limit").as_str()),
        ("429", "limited")
    );
    assert_eq!(span.status.as_ref().map_or(0, |status| status.code), 0, "a refusal is no error of a server");
}

#[test]
fn a_collector_that_is_away_costs_spans_alone() {
    let backend = [Backend::scripted("a")];
    let mut server = server(&backend, NO_CHECK, &free_address().to_string());
    let mut client = server.client();
    for _ in 0..5 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert!(eventually(PATIENCE, || metric(&server, "tollgate_spans_dropped_total") == 10));
    assert_eq!(metric(&server, "tollgate_spans_exported_total"), 0);
    server.process.signal("TERM");
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
}

#[test]
fn a_collector_that_says_nothing_holds_up_neither_requests_nor_a_stop() {
    let (backend, collector) = ([Backend::scripted("a")], Played::new());
    let mut server = server(&backend, NO_CHECK, &collector.address.to_string());
    let mut client = server.client();
    assert_eq!(client.get("/").unwrap().status, 200);
    let mut held = collector.take();
    held.request();
    // The queue takes 2,048 requests while the thread waits.
    for _ in 0..2_100 {
        assert_eq!(client.get("/").unwrap().status, 200);
    }
    assert!(eventually(PATIENCE, || metric(&server, "tollgate_spans_dropped_total") > 0));
    let (begins, another) = (now(), collector);
    server.process.signal("TERM");
    let finished = server.process.wait_exit(PATIENCE);
    assert_eq!(finished.code, Some(0), "{finished:?}");
    assert!(now() - begins < STOP, "{:?}", now() - begins);
    drop((held, another));
}

#[test]
fn headers_come_from_the_environment_and_nothing_else_does() {
    let (backend, collector) = ([Backend::scripted("a")], Played::new());
    let tracing = format!("tracing: {{sample: 1, otlp: \"http://{}\"}}", collector.address);
    let yaml = Setup::app(&backend, NO_CHECK).line(&tracing).yaml();
    let all = [
        ("OTEL_EXPORTER_OTLP_HEADERS", "x-team=edge,Authorization=Bearer%20secret"),
        ("OTEL_EXPORTER_OTLP_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_TRACES_ENDPOINT", "http://127.0.0.1:1"),
        ("OTEL_EXPORTER_OTLP_PROTOCOL", "http/json"),
        ("OTEL_EXPORTER_OTLP_COMPRESSION", "gzip"),
        ("OTEL_EXPORTER_OTLP_TIMEOUT", "1"),
        ("OTEL_SERVICE_NAME", "another"),
        ("OTEL_RESOURCE_ATTRIBUTES", "service.name=another"),
        ("OTEL_SDK_DISABLED", "true"),
        ("OTEL_EXPORTER_OTLP_TRACES_HEADERS", "x-team=proxies"),
    ];
    let without = &all[..all.len() - 1];
    for (variables, team, authorization) in [(without, "edge", vec!["Bearer secret"]), (&all[..], "proxies", vec![])] {
        let server = Tollgate::start(&yaml, &["run", "-c", "$FILE"], variables, false);
        assert_eq!(server.client().get("/").unwrap().status, 200);
        let (spans, head) = told_batch(&mut collector.take(), "200 OK");
        let sent = ["x-team", "authorization", "content-encoding"].map(|name| head.all(name));
        assert_eq!((spans.len(), sent), (2, [vec![team], authorization, vec![]]));
    }
}

#[test]
fn a_stop_sends_what_waits() {
    let (backend, collector) = ([Backend::scripted("a")], Played::new());
    let mut server = server(&backend, NO_CHECK, &collector.address.to_string());
    assert_eq!(server.client().get("/last").unwrap().status, 200);
    server.process.signal("TERM");
    let spans = batch(&mut collector.take(), "200 OK");
    assert_eq!((spans.len(), said(&spans[0], "url.path").as_str()), (2, "/last"));
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
}
