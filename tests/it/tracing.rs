//! Traces: what backends are told of them, what a stranger may say, and what the log says.

use h2::server::Builder;

use crate::harness::backend::{Backend, three_scripted};
use crate::harness::client::{Request, Response};
use crate::harness::http2::{Http2, get};
use crate::harness::http2_backend::Http2Backend;
use crate::harness::server::{LISTEN, Tollgate};
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::{PATIENCE, eventually};

const TRACE: &str = "4bf92f3577b34da6a3ce929d0e0e4736";
const SENT: &str = "00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01";

/// All values of a header as the backend got it.
fn got(response: &Response, name: &str) -> Vec<String> {
    let report = response.json();
    let headers = report["headers"].as_array().unwrap().clone();
    let named = headers.iter().filter(|pair| pair[0].as_str().unwrap().eq_ignore_ascii_case(name));
    named.map(|pair| pair[1].as_str().unwrap().to_owned()).collect()
}

/// The trace, the span and the flags that a backend was told.
#[track_caller]
fn told(values: &[String]) -> [String; 3] {
    let [value] = values else { panic!("{values:?}") };
    let parts: Vec<_> = value.split('-').map(str::to_owned).collect();
    let [version, trace, span, flags] = &parts[..] else { panic!("{value}") };
    assert_eq!((version.as_str(), trace.len(), span.len()), ("00", 32, 16), "{value}");
    [trace.clone(), span.clone(), flags.clone()]
}

fn server(backends: &[Backend], keys: &str, lines: &[&str]) -> Tollgate {
    lines.iter().fold(Setup::app(backends, keys), |setup, line| setup.line(line)).start()
}

#[track_caller]
fn ask(server: &Tollgate, headers: &[(&str, &str)]) -> Response {
    server.client().call(&Request::new("GET", "/").headers(headers)).unwrap()
}

#[test]
fn a_trace_goes_on_with_a_span_of_ours_and_a_wrong_one_is_made_anew() {
    let backend = [Backend::scripted("a")];
    let server = server(&backend, NO_CHECK, &["tracing: {sample: 0}"]);
    let states = [("tracestate", "a=1,b=2"), ("Tracestate", "c=3")];
    let right = [("Traceparent", SENT), states[0], ("X-Between", "x"), states[1]];
    let later = [("traceparent", &*format!("01{}-more", &SENT[2..])), states[0], states[1]];
    let mut spans = Vec::new();
    for headers in [&right[..], &later] {
        let answer = ask(&server, headers);
        let [trace, span, flags] = told(&got(&answer, "traceparent"));
        assert_eq!((trace.as_str(), flags.as_str()), (TRACE, "00"), "a stranger's flag does not count");
        assert_eq!(got(&answer, "tracestate"), ["a=1,b=2", "c=3"]);
        spans.push(span);
        // A line is written behind its answer, and might be so behind the next one's.
        server.access_lines(spans.len());
    }
    let short = &SENT[..54];
    let mut traces = Vec::new();
    for parents in
        [&[][..], &[short], &["ff-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01"], &[SENT, SENT], &[""]]
    {
        let mut headers = states.to_vec();
        headers.extend(parents.iter().map(|parent| ("traceparent", *parent)));
        let answer = ask(&server, &headers);
        let [trace, span, _] = told(&got(&answer, "traceparent"));
        assert_eq!(got(&answer, "tracestate"), [""; 0], "{parents:?}");
        assert_ne!(trace, TRACE, "{parents:?}");
        traces.push(trace);
        spans.push(span);
        server.access_lines(spans.len());
    }
    let (all, all_traces) = (spans.len(), traces.len());
    spans.sort();
    spans.dedup();
    assert!(spans.len() == all && !spans.contains(&"00f067aa0ba902b7".to_owned()), "{spans:?}");
    let lines = server.access_lines(all);
    let logged: Vec<_> = lines.iter().map(|line| line["trace_id"].as_str().unwrap().to_owned()).collect();
    assert_eq!(logged, [vec![TRACE.to_owned(); 2], traces.clone()].concat());
    traces.sort();
    traces.dedup();
    assert_eq!(traces.len(), all_traces);
}

#[test]
fn a_trusted_proxy_says_what_is_sampled() {
    let backend = [Backend::scripted("a")];
    let trusting = "identity: {trusted_proxies: [127.0.0.1]}";
    for (sample, chosen) in [("0", "00"), ("1", "01")] {
        let tracing = format!("tracing: {{sample: {sample}}}");
        let believing = server(&backend, NO_CHECK, &[&tracing, trusting]);
        for flags in ["00", "01"] {
            let sent = format!("{}{flags}", &SENT[..53]);
            assert_eq!(told(&got(&ask(&believing, &[("traceparent", &sent)]), "traceparent"))[2], flags);
        }
        assert_eq!(told(&got(&ask(&believing, &[]), "traceparent"))[2], chosen);
        let strange = server(&backend, NO_CHECK, &[&tracing]);
        assert_eq!(told(&got(&ask(&strange, &[("traceparent", SENT)]), "traceparent"))[2], chosen);
    }
}

#[test]
fn another_backend_is_told_the_same() {
    let backends = three_scripted();
    let server = server(&backends, &format!("{NO_CHECK}, retry_on: [broken]"), &["tracing: {}"]);
    let tried = eventually(PATIENCE, || {
        let request = Request::new("GET", "/?fault=close&at=a");
        let answer = server.client().call(&request.headers(&[("traceparent", SENT)])).unwrap();
        assert_eq!((answer.status, told(&got(&answer, "traceparent"))[0].as_str()), (200, TRACE));
        server.access_lines(1).iter().any(|line| line["attempts"] == 2)
    });
    assert!(tried, "{:?}", server.access_lines(1));
}

#[test]
fn streams_have_traces_and_so_do_backends_of_http2() {
    let echo = Http2Backend::new(Builder::new(), |call| async move {
        let all = |name: &str| {
            let values = call.request.headers().get_all(name).iter().map(|value| value.to_str().unwrap());
            serde_json::json!(values.map(|value| [name, value]).collect::<Vec<_>>()).as_array().unwrap().clone()
        };
        let headers = [all("traceparent"), all("tracestate")].concat();
        call.answer(serde_json::json!({"headers": headers}).to_string().leak());
    });
    let backend = Backend::scripted("a");
    for (address, protocol) in [(backend.address, "http/1.1"), (echo.address, "h2")] {
        let server = Tollgate::from_yaml(&format!(
            "listeners: [{{address: {LISTEN}, h2c: true}}]\nrate_limit: {{enabled: false}}\ntracing: {{}}\n\
             upstreams: [{{name: app, protocol: {protocol}, backends: [{{address: \"{address}\"}}], {NO_CHECK}}}]\n",
        ));
        let mut streams = Http2::plain(server.address);
        for (sent, goes_on) in [(SENT, true), ("?", false)] {
            let mut request = get("/");
            request.headers_mut().insert("traceparent", sent.parse().unwrap());
            request.headers_mut().insert("tracestate", "a=1".parse().unwrap());
            let by_stream = streams.call(request, &[]).unwrap();
            let by_http1 = ask(&server, &[("traceparent", sent), ("tracestate", "a=1")]);
            for answer in [by_stream, by_http1] {
                let [trace, span, _] = told(&got(&answer, "traceparent"));
                assert!((trace == TRACE) == goes_on && span != "00f067aa0ba902b7", "{protocol} {sent}");
                assert_eq!(got(&answer, "tracestate").len(), usize::from(goes_on), "{protocol} {sent}");
            }
        }
        assert_eq!(server.access_lines(4).iter().filter(|line| line["trace_id"] == TRACE).count(), 2);
    }
}

#[test]
fn a_reload_begins_and_ends_them_and_without_them_nothing_is_touched() {
    let backend = [Backend::scripted("a")];
    let setup = Setup::app(&backend, NO_CHECK);
    let server = setup.start();
    let headers =
        [("X-First", "1"), ("TraceParent", "?"), ("traceParent", SENT), ("tracestate", "a=1"), ("X-Last", "2")];
    let untouched = |server: &Tollgate| {
        let answer = ask(server, &headers).json();
        let all = answer["headers"].as_array().unwrap().clone();
        let sent: Vec<_> = all.iter().map(|pair| (pair[0].as_str().unwrap(), pair[1].as_str().unwrap())).collect();
        assert!(sent.windows(headers.len()).any(|window| window == headers), "{sent:?}");
    };
    untouched(&server);
    assert_eq!(server.access_lines(1)[0].get("trace_id"), None);
    let reload = |line: &str| {
        server.rewrite(&setup.clone().line(line).yaml());
        let answer = server.ask("POST", "/config/reload", "");
        assert_eq!(answer.status, 200, "{}", answer.text());
    };
    reload("tracing: {sample: 1}");
    assert_eq!(told(&got(&ask(&server, &[]), "traceparent"))[2], "01");
    reload("tracing: {sample: 0}");
    assert_eq!(told(&got(&ask(&server, &[]), "traceparent"))[2], "00");
    reload("tracing: {propagate: false}");
    untouched(&server);
    assert_eq!(server.access_lines(4)[3]["trace_id"].as_str().unwrap().len(), 32);
    reload("tracing: null");
    untouched(&server);
    assert_eq!(server.access_lines(5)[4].get("trace_id"), None);
}
