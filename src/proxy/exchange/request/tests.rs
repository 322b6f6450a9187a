use std::collections::BTreeMap;

use http::Method;
use pingora_http::RequestHeader;
use proptest::prelude::*;

use super::*;
use crate::proxy::backend::stream::RequestFields;
use crate::proxy::downstream::head;
use crate::proxy::exchange::client::ReceivedRequest;
use crate::proxy::exchange::http1::Http1Request;
use crate::proxy::exchange::http2::received::Http2Request;
use crate::proxy::exchange::takes::Purpose;
use crate::proxy::gate::headers::ToldTrace;
use crate::proxy::pingora::headers;
use crate::proxy::wire::lines::Lines;
use crate::telemetry::TraceParent;
use crate::upstream::Protocol;

/// What `with` makes of the request in `text`.
fn request<T>(text: &str, with: impl FnOnce(&Http1Request<'_>) -> T) -> T {
    let mut lines = Lines::default();
    let head = head::check(text.as_bytes(), &mut lines).unwrap().unwrap();
    with(&Http1Request::new(text.as_bytes(), &head, &lines, Purpose::Answer))
}

fn sender(trusted: bool, underscores: Underscores) -> Sender {
    let (peer, caller) = ([192, 0, 2, 7].into(), [203, 0, 113, 9].into());
    Sender { peer, caller, trusted, secure: false, underscores, trace: None }
}

fn written(text: &str, trusted: bool, underscores: Underscores, id: &RequestId) -> String {
    written_by(sender(trusted, underscores), text, id)
}

fn written_by(sender: Sender, text: &str, id: &RequestId) -> String {
    let mut out = Vec::new();
    request(text, |request| request.write(&mut out, Protocol::Http1, sender, id));
    String::from_utf8(out).unwrap()
}

#[test]
fn lines_are_passed_on_as_they_came() {
    let id = RequestId::given(b"r1").unwrap();
    let text = "POST /a?b=c HTTP/1.1\r\nhOST: example.com\r\nX-Odd:  a b \r\nConnection: close\r\nContent-Length: 2\r\n\
                X-Forwarded-For: 1.1.1.1\r\nX-Forwarded-Proto: https\r\nx-request-id: mine\r\nKeep-Alive: 5\r\nX_Y: z\r\n\
                forwarded: for=x\r\nX-Real-Ip: 1.1.1.1\r\n\r\n";
    assert_eq!(
        written(text, false, Underscores::Drop, &id),
        "POST /a?b=c HTTP/1.1\r\nhOST: example.com\r\nX-Odd: a b\r\nContent-Length: 2\r\nX-Forwarded-For: 192.0.2.7\r\n\
         X-Real-IP: 203.0.113.9\r\nX-Forwarded-Proto: http\r\nX-Forwarded-Host: example.com\r\nX-Request-Id: r1\r\n\r\n"
    );
    assert_eq!(
        written(text, true, Underscores::Pass, &id),
        "POST /a?b=c HTTP/1.1\r\nhOST: example.com\r\nX-Odd: a b\r\nContent-Length: 2\r\nX-Forwarded-Proto: https\r\n\
         X_Y: z\r\nforwarded: for=x\r\nX-Forwarded-For: 1.1.1.1, 192.0.2.7\r\nX-Real-IP: 203.0.113.9\r\nX-Forwarded-Host: example.com\r\nX-Request-Id: r1\r\n\r\n"
    );
}

#[test]
fn only_plain_requests_go_directly() {
    let plain =
        |lines: &str| request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), |r| is_plain(r.lines().iter()));
    for lines in [
        "",
        "Connection: keep-alive\r\n",
        "connection: Close\r\n",
        "Keep-Alive: timeout=5\r\n",
        "X-Te: 1\r\n",
        "Trailer: x\r\n",
        "TE: trailers\r\nConnection: te\r\n",
        "Transfer-Encoding: chunked\r\n",
    ] {
        assert!(plain(lines), "{lines}");
    }
    for lines in [
        "Upgrade: websocket\r\n",
        "Expect: 100-continue\r\n",
        "HTTP2-Settings: x\r\n",
        "Proxy-Connection: close\r\n",
        "Proxy-Authorization: x\r\n",
        "Proxy-Authenticate: x\r\n",
        "Connection: x-private\r\n",
        "Connection: close, x-private\r\n",
        "Connection: close\r\nConnection: x-private\r\n",
    ] {
        assert!(!plain(lines), "{lines}");
    }
    let last = |lines: &str| request(&format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n"), |r| is_last(r.lines()));
    assert!(last("connection: Close\r\n") && !last("Connection: keep-alive\r\n") && !last(""));
}

#[test]
fn a_body_that_came_in_chunks_has_a_length() {
    let (id, mut lines, mut out) = (RequestId::given(b"r1").unwrap(), Lines::default(), Vec::new());
    let text = "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\nte: trailers\r\nTea: x\r\n\r\n";
    let head = head::check(text.as_bytes(), &mut lines).unwrap().unwrap();
    let sender = sender(false, Underscores::Drop);
    Http1Request::new(text.as_bytes(), &head, &lines, Purpose::Answer).with_body(b"hello").write(
        &mut out,
        Protocol::Http1,
        sender,
        &id,
    );
    let written = String::from_utf8(out).unwrap();
    let start = "POST / HTTP/1.1\r\nHost: a\r\nTea: x\r\nContent-Length: 5\r\nX-Forwarded-For: 192.0.2.7\r\n";
    assert!(written.starts_with(start), "{written}");
}

#[test]
fn who_takes_trailers_says_so_to_the_backend() {
    let id = RequestId::given(b"r1").unwrap();
    let told = |lines: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        written(&text, false, Underscores::Drop, &id).contains("\r\nConnection: TE\r\nTE: trailers\r\n\r\n")
    };
    assert!(
        told("TE: trailers\r\nConnection: te\r\n") && told("Connection: close, TE\r\nte: gzip;q=0.5, trailers\r\n")
    );
    for lines in ["", "TE: trailers\r\n", "Connection: TE\r\n", "TE: gzip\r\nConnection: TE\r\n"] {
        assert!(!told(lines), "{lines}");
    }
}

/// All that is said under each name.
fn by_name<'h>(lines: impl Iterator<Item = (String, &'h [u8])>) -> BTreeMap<String, Vec<String>> {
    let mut all: BTreeMap<String, Vec<String>> = BTreeMap::new();
    for (name, value) in lines {
        all.entry(name.to_lowercase()).or_default().push(String::from_utf8(value.to_vec()).unwrap());
    }
    all
}

proptest! {
    /// The backend learns the same of the sender by both ways.
    #[test]
    fn both_ways_say_the_same(
        sent in prop::collection::vec(
            (
                "[xX][-_][fF]orwarded-(For|Proto|Host)|X-Request-ID|X[-_]Real[-_]IP|[fF]orwarded|_|a_?|Accept|Cookie|Connection|Keep-Alive|[tT]race(parent|state)",
                "[a-z0-9._]{1,8}",
            ),
            0..8,
        ),
        trusted: bool,
        passes: bool,
        traced: Option<bool>,
    ) {
        let underscores = if passes { Underscores::Pass } else { Underscores::Drop };
        let mut connections = 0;
        let sent: Vec<(String, String)> = sent
            .into_iter()
            .filter(|(name, _)| name != "Connection" || { connections += 1; connections == 1 })
            .map(|(name, value)| if name == "Connection" { (name, "close".to_owned()) } else { (name, value) })
            .collect();
        let lines: String = sent.iter().map(|(name, value)| format!("{name}: {value}\r\n")).collect();
        let id = RequestId::random();
        let came = format!("GET /x HTTP/1.1\r\nHost: a:80\r\n{lines}\r\n");
        let parent = TraceParent::parse(b"00-4bf92f3577b34da6a3ce929d0e0e4736-00f067aa0ba902b7-01").unwrap();
        let trace = traced.map(|goes_on| ToldTrace { parent, goes_on });
        let sender = Sender { trace, ..sender(trusted, underscores) };
        let text = written_by(sender, &came, &id);
        let mut parsed = [httparse::EMPTY_HEADER; 32];
        let start = text.find("\r\n").unwrap() + 2;
        let (_, parsed) = httparse::parse_headers(&text.as_bytes()[start..], &mut parsed).unwrap().unwrap();
        let direct = by_name(parsed.iter().map(|line| (line.name.to_owned(), line.value)));

        let mut header = RequestHeader::build("GET", b"/x", None).unwrap();
        header.append_header("Host", "a:80").unwrap();
        // Of these Pingora takes the first two away itself, and HTTP/2 has neither.
        let for_maps: Vec<_> = sent.into_iter().filter(|(name, _)| name != "Connection" && name != "Keep-Alive").collect();
        for (name, value) in for_maps.clone() {
            header.append_header(name, value).unwrap();
        }
        headers::to_backend(&mut header, sender, &id);
        let by_pingora = by_name(header.headers.iter().map(|(name, value)| (name.to_string(), value.as_bytes())));
        prop_assert_eq!(&direct, &by_pingora);
        if let Some(goes_on) = traced {
            prop_assert_eq!(direct["traceparent"].len(), 1);
            prop_assert!(goes_on || !direct.contains_key("tracestate"));
        }

        let names = |fields: &RequestFields| {
            by_name(fields.fields.iter().map(|(name, value)| (name.to_string(), value.as_bytes())))
        };
        let in_fields = request(&came, |request| request.in_fields(sender, &id)).unwrap();
        prop_assert_eq!(&names(&in_fields), &direct);
        prop_assert_eq!((in_fields.method, in_fields.target.as_str()), (Method::GET, "/x"));

        let mut parts = http::Request::builder().uri("/x").header("host", "a:80");
        for (name, value) in for_maps {
            parts = parts.header(name, value);
        }
        let (parts, ()) = parts.body(()).unwrap().into_parts();
        let in_fields = Http2Request::new(Box::new(parts), Purpose::Answer, None).in_fields(sender, &id).unwrap();
        prop_assert_eq!(&names(&in_fields), &direct);
    }
}

#[test]
fn who_takes_trailers_says_so_in_fields() {
    let (id, sender) = (RequestId::given(b"r1").unwrap(), sender(false, Underscores::Drop));
    let told = |lines: &str| {
        let text = format!("GET / HTTP/1.1\r\nHost: a\r\n{lines}\r\n");
        request(&text, |request| request.in_fields(sender, &id)).unwrap().fields.contains_key("te")
    };
    assert!(told("TE: trailers\r\nConnection: te\r\n") && !told("TE: trailers\r\n") && !told("Connection: te\r\n"));
    let (parts, ()) = http::Request::post("/").header("te", "trailers").body(()).unwrap().into_parts();
    let whole = Http2Request::new(Box::new(parts), Purpose::Answer, Some("hello".into()));
    let fields = whole.in_fields(sender, &id).unwrap().fields;
    assert_eq!((&fields["te"], &fields["content-length"]), (&"trailers".parse().unwrap(), &"5".parse().unwrap()));
}
