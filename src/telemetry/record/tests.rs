use std::time::UNIX_EPOCH;

use proptest::prelude::*;

use super::*;
use crate::telemetry::TraceParent;

/// A request that went well.
pub(in crate::telemetry) const SAMPLE: AccessRecord<'static> = AccessRecord {
    ts: UNIX_EPOCH,
    request_id: "4f9c",
    client_id: Some("user1"),
    client_ip: IpAddr::V4(std::net::Ipv4Addr::new(203, 0, 113, 7)),
    identity: Some("api_key"),
    method: "GET",
    host: b"api.example.com",
    path: b"/v1/users",
    protocol: Some("HTTP/1.1"),
    tls_version: None,
    referer: None,
    user_agent: None,
    status: 200,
    grpc_status: None,
    duration: Duration::from_nanos(12_345_999),
    bytes_in: 7,
    bytes_out: 1234,
    upstream: Some("app"),
    backend: Some(&ConnectAddress::Tcp(std::net::SocketAddr::new(IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), 9001))),
    attempts: 1,
    limit: Some("allowed"),
    tokens: Some(87.4999),
    limited_by: None,
    shadow: None,
    trace_id: None,
    error: None,
};

/// A request that its client gave up before anything was known about it.
const BARE: AccessRecord<'static> = AccessRecord {
    client_id: None,
    identity: None,
    host: b"",
    status: 0,
    limit: None,
    tokens: None,
    upstream: None,
    backend: None,
    attempts: 0,
    error: Some("client gone"),
    ..SAMPLE
};

fn line(record: &AccessRecord<'_>, format: AccessLogFormat) -> String {
    line_of(record, &AccessLogSettings { format, ..AccessLogSettings::default() })
}

fn line_of(record: &AccessRecord<'_>, settings: &AccessLogSettings) -> String {
    let mut out = Vec::new();
    record.write(settings, &mut SecondText::default(), &mut out);
    String::from_utf8(out).unwrap()
}

/// The line with these fields, each maybe with another name behind `=`.
fn chosen(record: &AccessRecord<'_>, fields: &str) -> String {
    let named = fields.split(' ').map(|field| {
        let (known, name) = field.split_once('=').unwrap_or((field, field));
        let (_, field) = AccessField::ALL.into_iter().find(|(field, _)| *field == known).unwrap();
        NamedField { field, name: name.to_owned() }
    });
    line_of(record, &AccessLogSettings { fields: Some(named.collect()), ..AccessLogSettings::default() })
}

#[test]
fn the_json_form_is_the_contract() {
    assert_eq!(
        line(&SAMPLE, AccessLogFormat::Json),
        "{\"ts\":\"1970-01-01T00:00:00.000Z\",\"request_id\":\"4f9c\",\"client_id\":\"user1\",\
         \"client_ip\":\"203.0.113.7\",\"identity\":\"api_key\",\"method\":\"GET\",\"host\":\"api.example.com\",\"path\":\"/v1/users\",\"status\":200,\
         \"duration_ms\":12.345,\"bytes_in\":7,\"bytes_out\":1234,\"upstream\":\"app\",\
         \"backend\":\"127.0.0.1:9001\",\"attempts\":1,\"limit\":\"allowed\",\"tokens\":87.499,\"error\":null}\n"
    );
    let limited = AccessRecord { limited_by: Some("writes"), shadow: Some("a,b"), ..SAMPLE };
    let both = "\"tokens\":87.499,\"limited_by\":\"writes\",\"shadow\":\"a,b\",\"error\":null}\n";
    assert!(line(&limited, AccessLogFormat::Json).ends_with(both));
    assert!(line(&limited, AccessLogFormat::Text).contains(" limited_by=writes shadow=a,b"));
    let trace = TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap().trace;
    let traced = AccessRecord { trace_id: Some(trace), ..SAMPLE };
    let id = "4bf92f3577b34da6a3ce929d0e0e4736";
    assert!(line(&traced, AccessLogFormat::Json).ends_with(&format!(",\"trace_id\":\"{id}\",\"error\":null}}\n")));
    assert!(line(&traced, AccessLogFormat::Text).contains(&format!(" trace_id={id} error=-")));
    let bare: serde_json::Value = serde_json::from_str(&line(&BARE, AccessLogFormat::Json)).unwrap();
    assert!(
        ["status", "upstream", "backend", "client_id", "identity", "limit", "tokens"]
            .iter()
            .all(|key| bare[key].is_null()),
        "{bare}"
    );
    assert_eq!(bare["host"], "");
    assert_eq!(bare["error"], "client gone");
    let grpc = line(&AccessRecord { status: 429, grpc_status: Some(8), ..SAMPLE }, AccessLogFormat::Json);
    assert!(grpc.contains(r#""status":429,"grpc_status":8,"#), "{grpc}");
}

#[test]
fn chosen_fields_are_in_their_order_under_their_names_and_always_there() {
    let record = AccessRecord { tls_version: Some("TLSv1.3"), referer: Some(b"https://a/?x"), ..SAMPLE };
    assert_eq!(
        chosen(&record, "status=http.status path protocol=@p tls_version referer user_agent limited_by tokens ts"),
        "{\"http.status\":200,\"path\":\"/v1/users\",\"@p\":\"HTTP/1.1\",\"tls_version\":\"TLSv1.3\",\
         \"referer\":\"https://a/\",\"user_agent\":null,\"limited_by\":null,\"tokens\":87.499,\
         \"ts\":\"1970-01-01T00:00:00.000Z\"}\n"
    );
    let all: Vec<_> = AccessField::ALL.iter().map(|(name, _)| *name).collect();
    for record in [SAMPLE, BARE, AccessRecord { grpc_status: Some(8), limited_by: Some("a"), ..SAMPLE }] {
        let usual: serde_json::Value = serde_json::from_str(&line(&record, AccessLogFormat::Json)).unwrap();
        let whole: serde_json::Value = serde_json::from_str(&chosen(&record, &all.join(" "))).unwrap();
        assert_eq!(whole.as_object().unwrap().len(), all.len());
        assert!(usual.as_object().unwrap().iter().all(|(key, value)| whole[key] == *value), "{usual} {whole}");
    }
}

#[test]
fn what_a_client_says_of_itself_is_cut_off_between_characters() {
    let agent = |agent: &str| {
        let line = chosen(&AccessRecord { user_agent: Some(agent.as_bytes()), ..SAMPLE }, "user_agent");
        serde_json::from_str::<serde_json::Value>(&line).unwrap()["user_agent"].as_str().map(str::to_owned)
    };
    assert_eq!(agent("").as_deref(), None);
    for (before, rest) in [("x", "x"), ("x", "\u{e4}"), ("", "\u{e4}"), ("x", "\u{1f600}"), ("xxx", "\u{1f600}")] {
        let long = format!("{before}{}", rest.repeat(2000));
        let kept = agent(&long).unwrap();
        assert!(long.starts_with(&kept) && (LONGEST - 3..=LONGEST).contains(&kept.len()), "{rest}: {}", kept.len());
    }
    let garbage = AccessRecord { user_agent: Some(&[0x80; 2000]), ..SAMPLE };
    assert_eq!(line(&garbage, AccessLogFormat::Text).matches("\\x80").count(), LONGEST);
}

#[test]
fn the_text_form_is_combined_with_more_behind_it() {
    let asked = AccessRecord {
        client_id: None,
        referer: Some(b"https://a.example/p?key=secret#x"),
        user_agent: Some(b"curl/8 \"x\"\n"),
        tls_version: Some("TLSv1.3"),
        protocol: Some("HTTP/2.0"),
        ..SAMPLE
    };
    let text = line(&asked, AccessLogFormat::Text);
    let combined = "203.0.113.7 - - [01/Jan/1970:00:00:00 +0000] \"GET /v1/users HTTP/2.0\" 200 1234 \
                    \"https://a.example/p\" \"curl/8 \\x22x\\x22\\x0A\" host=";
    assert!(text.starts_with(combined) && text.contains(" identity=api_key tls_version=TLSv1.3 "), "{text}");
    let unknown = line(&AccessRecord { method: "-", path: b"", ..SAMPLE }, AccessLogFormat::Text);
    assert!(unknown.contains("] \"-\" 200 "), "{unknown}");
    assert_eq!(
        line(&SAMPLE, AccessLogFormat::Text),
        "203.0.113.7 - user1 [01/Jan/1970:00:00:00 +0000] \"GET /v1/users HTTP/1.1\" 200 1234 \"-\" \"-\" \
         host=\"api.example.com\" request_id=\"4f9c\" client_id=\"user1\" identity=api_key duration_ms=12.345 bytes_in=7 \
         upstream=\"app\" backend=127.0.0.1:9001 attempts=1 limit=allowed tokens=87.499 error=-\n"
    );
    assert_eq!(
        line(&BARE, AccessLogFormat::Text),
        "203.0.113.7 - - [01/Jan/1970:00:00:00 +0000] \"GET /v1/users HTTP/1.1\" 499 1234 \"-\" \"-\" \
         host=- request_id=\"4f9c\" client_id=- identity=- duration_ms=12.345 bytes_in=7 \
         upstream=- backend=- attempts=0 limit=- tokens=- error=\"client gone\"\n"
    );
}

#[test]
fn a_query_string_is_never_written() {
    let record = AccessRecord { path: b"/v1?key=secret?x", ..SAMPLE };
    for format in [AccessLogFormat::Json, AccessLogFormat::Text] {
        let line = line(&record, format);
        assert!((line.contains("/v1\"") || line.contains("/v1 ")) && !line.contains("secret"), "{line}");
    }
}

#[test]
fn a_line_cannot_be_forged() {
    let path = "/\"\\\r\n\u{1b}[31m\u{7f}\u{85}\u{2028}\u{e4}".as_bytes();
    let record = AccessRecord { path, host: b"a\xff\" 200", client_ip: "::ffff:192.0.2.1".parse().unwrap(), ..SAMPLE };
    let json = line(&record, AccessLogFormat::Json);
    assert!(json.contains(r#""path":"/\"\\\u000d\u000a\u001b[31m\u007f\u0085\u2028ä","#), "{json}");
    assert!(json.contains("\"host\":\"a\u{fffd}\\\" 200\","), "{json}");
    assert!(json.contains("\"client_ip\":\"192.0.2.1\","), "{json}");
    let text = line(&record, AccessLogFormat::Text);
    let escaped = r#""GET /\x22\x5C\x0D\x0A\x1B[31m\x7F\xC2\x85\xE2\x80\xA8\xC3\xA4 HTTP/1.1" 200 1234 "#;
    assert!(text.contains(escaped) && text.contains(r#"host="a\xFF\x22 200" "#), "{text}");
}

fn bytes() -> impl Strategy<Value = Vec<u8>> {
    prop_oneof![prop::collection::vec(any::<u8>(), 0..40), any::<String>().prop_map(String::into_bytes)]
}

proptest! {
    #[test]
    fn json_lines_parse_back(host in bytes(), path in bytes(), error in any::<Option<String>>(),
                             status in any::<u16>(), duration in any::<Duration>(), bytes_out in any::<u64>()) {
        let error = error.as_deref();
        let record = AccessRecord { host: &host, path: &path, error, status, duration, bytes_out, ..SAMPLE };
        let said = AccessRecord { referer: Some(&path), user_agent: Some(&host), ..record };
        let said: serde_json::Value = serde_json::from_str(&chosen(&said, "user_agent referer")).unwrap();
        prop_assert_eq!(said["user_agent"].as_str().unwrap_or(""), &*String::from_utf8_lossy(&host));
        let line = line(&record, AccessLogFormat::Json);
        prop_assert!(line.ends_with('\n') && !line.trim_end_matches('\n').contains(char::is_control));
        let value: serde_json::Value = serde_json::from_str(&line).unwrap();
        let path = String::from_utf8_lossy(path.split(|b| *b == b'?').next().unwrap()).into_owned();
        prop_assert_eq!(value["path"].as_str(), Some(path.as_str()));
        prop_assert_eq!(value["host"].as_str(), Some(&*String::from_utf8_lossy(&host)));
        prop_assert_eq!(value["error"].as_str(), error);
        prop_assert_eq!(value["status"].as_u64(), Some(u64::from(status)).filter(|status| *status != 0));
        prop_assert_eq!(value["bytes_out"].as_u64(), Some(bytes_out));
        prop_assert!((value["duration_ms"].as_f64().unwrap() / 1e3 / duration.as_secs_f64().max(1e-9) - 1.0) < 1e-6);
    }

    #[test]
    fn text_lines_are_one_printable_line(host in bytes(), path in bytes(), error in any::<Option<String>>()) {
        let (referer, user_agent) = (Some(&path[..]), Some(&host[..]));
        let record = AccessRecord { host: &host, path: &path, error: error.as_deref(), referer, user_agent, ..SAMPLE };
        let line = line(&record, AccessLogFormat::Text);
        let body = line.strip_suffix('\n').unwrap();
        prop_assert!(body.bytes().all(|b| (b' '..=b'~').contains(&b)), "{}", body);
        // Request, referer, agent, request id, client id and upstream have their quotes, and no quote comes from
        // outside.
        let fields = 6 + usize::from(error.is_some()) + usize::from(!host.is_empty());
        prop_assert_eq!(body.matches('"').count(), 2 * fields);
    }
}
