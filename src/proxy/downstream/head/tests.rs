use proptest::prelude::*;

use super::*;

fn outcome(head: &str) -> Result<Option<Head>, Rejection> {
    check(head.as_bytes(), &mut Lines::default())
}

#[test]
fn ordinary_requests_pass() {
    for head in [
        "GET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nhost: a.example.com:8080\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1]:80\r\n\r\n",
        "GET / HTTP/1.1\r\nHost:\r\n\r\n",
        "GET / HTTP/1.0\r\n\r\n",
        "POST /x?y=%20 HTTP/1.1\r\nHost: a\r\nContent-Length: 3\r\n\r\nabc",
        "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: Chunked\r\n\r\n",
        "OPTIONS * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET HTTPS://B:443?x HTTP/1.1\r\nHost:\r\n\r\n",
        "OPTIONS http://[::1]:80 HTTP/1.1\r\nHost: a\r\n\r\n",
        "\r\nGET / HTTP/1.1\r\nHost: a\r\n\r\n",
        "M-SEARCH /%ff;a=b HTTP/1.1\r\nHost: a\r\nX-Empty:\r\n\r\n",
    ] {
        assert!(matches!(outcome(head), Ok(Some(_))), "{head:?}");
    }
}

#[test]
fn doubtful_requests_are_refused() {
    for head in [
        "GET / HTTP/1.1\r\n\r\n",
        "GET / HTTP/1.1\nHost: a\n\n",
        "GET / HTTP/1.1\r\nHost: a\nX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\rX: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a, b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: user@a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a/b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:port\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a:99999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::::]\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: [::1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a%zz\r\n\r\n",
        "GET / HTTP/1.1\r\nHost : a\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: b\r\n c\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX: \0\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\n: b\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nX\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nContent-Length: 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1, 1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: +1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: -1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 0x1\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length:\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 9999999999999999999\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nContent-Length: 1\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "GET / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: xchunked\r\n\r\n",
        "GET / HTTP/1.0\r\nTransfer-Encoding: chunked\r\n\r\n",
        "GET / HTTP/2.0\r\nHost: a\r\n\r\n",
        "GET /\r\n\r\n",
        "GET  / HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /a b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /#a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET * HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:// HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:///x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://:80/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://?x HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:/a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http:a HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET //a HTTP/1.0\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET http://u@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://u:p@a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a@/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a:99999/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a\\b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a%20b/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a#b HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/<b> HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: a\r\nHost: a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\nHost: u@a\r\n\r\n",
        "GET http://a/ HTTP/1.1\r\n\r\n",
        "GET ftp://a/ HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /<a> HTTP/1.1\r\nHost: a\r\n\r\n",
        "GET /?\" HTTP/1.1\r\nHost: a\r\n\r\n",
        "G\u{7f}T / HTTP/1.1\r\nHost: a\r\n\r\n",
        "\u{16}\u{3}\u{1}",
    ] {
        assert!(matches!(outcome(head), Err(Rejection::BadRequest(_))), "{head:?}");
    }
    let connect = outcome("CONNECT a:443 HTTP/1.1\r\nHost: a:443\r\n\r\n");
    assert_eq!(connect.err(), Some(Rejection::MethodNotAllowed));
}

#[test]
fn http2_is_told_where_it_is_offered() {
    let why = |head: &str| outcome(head).err();
    let told = Some(Rejection::BadRequest(OVER_TLS_ONLY));
    assert_eq!(why("PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0"), told);
    assert_eq!((why("PRI * HTTP/2.0"), why("PRI * HTTP/2.0\r\n\r\n")), (told, told));
    assert_ne!(why("GET / HTTP/2.0\r\nHost: a\r\n\r\n"), told);
}

#[test]
fn the_log_learns_what_can_be_made_out() {
    for (head, expected) in [
        (&b"GET /a?b HTTP/1.1\r\nHost: a"[..], ("GET", &b"/a?b"[..], Some("HTTP/1.1"))),
        (b"GET /a HTTP/1.0\r\n", ("GET", b"/a", Some("HTTP/1.0"))),
        (b"GET /a HTTP/1.15", ("GET", b"/a", None)),
        (b"\r\nGET /a\nHost: a", ("GET", b"/a", None)),
        (b"GARBAGE", ("GARBAGE", b"", None)),
        (b"\x16\x03\x01 x", ("-", b"", None)),
    ] {
        let (method, target, protocol) = expected;
        assert_eq!(request_line(head), Some(RequestLine { method, target, protocol }), "{head:?}");
    }
    assert_eq!((request_line(b""), request_line(b"\r\n\r\n")), (None, None), "none has begun");
}

#[test]
fn an_absolute_target_is_written_in_origin_form_with_its_own_host() {
    for (line, host, expected) in [
        ("GET http://a/x?y HTTP/1.1", "Host: a\r\n", "GET /x?y HTTP/1.1\r\nHost: a\r\n"),
        ("GET http://b HTTP/1.1", "hOST: a\r\n", "GET / HTTP/1.1\r\nHost: b\r\n"),
        ("GET http://B:80?x=1 HTTP/1.1", "Host: a\r\n", "GET /?x=1 HTTP/1.1\r\nHost: B:80\r\n"),
        ("GET HTTP://a//x/../y HTTP/1.0", "", "GET //x/../y HTTP/1.0\r\nHost: a\r\n"),
        ("OPTIONS https://[::1]:8443 HTTP/1.1", "Host:\r\n", "OPTIONS * HTTP/1.1\r\nHost: [::1]:8443\r\n"),
        ("OPTIONS http://a/ HTTP/1.1", "Host: a\r\n", "OPTIONS / HTTP/1.1\r\nHost: a\r\n"),
        ("OPTIONS http://a?x HTTP/1.1", "Host: a\r\n", "OPTIONS /?x HTTP/1.1\r\nHost: a\r\n"),
    ] {
        let text = format!("{line}\r\nX-A: b \r\n{host}Content-Length: 2\r\n\r\nhi and more");
        let mut lines = Lines::default();
        let head = check(text.as_bytes(), &mut lines).unwrap().unwrap();
        let written = in_origin_form(text.as_bytes(), &head, &lines).unwrap();
        let expected = format!("{expected}X-A: b\r\nContent-Length: 2\r\n\r\nhi and more");
        assert_eq!(str::from_utf8(&written), Ok(expected.as_str()), "{line}");
        let head = check(&written, &mut lines).unwrap().unwrap();
        assert_eq!(in_origin_form(&written, &head, &lines), None, "{line}");
    }
}

#[test]
fn a_request_by_head_is_known_before_it_is_whole() {
    for head in [&b"HEAD "[..], b"HEAD / HTTP/1.1\r\nX", b"\r\nHEAD /\n"] {
        assert!(is_for_head(head), "{head:?}");
    }
    for head in [&b""[..], b"\r\n", b"HEAD", b"HEADER / HTTP/1.1", b"head / HTTP/1.1", b"GET / HTTP/1.1\r\nHEAD "] {
        assert!(!is_for_head(head), "{head:?}");
    }
}

#[test]
fn the_body_is_what_the_header_announces() {
    let body = |headers: &str| outcome(&format!("GET / HTTP/1.1\r\nHost: a\r\n{headers}\r\n")).unwrap().unwrap().body;
    assert!(matches!(body(""), Body::Length(0)));
    assert!(matches!(body("Content-Length: 12\r\n"), Body::Length(12)));
    assert!(matches!(body("Transfer-Encoding: chunked\r\n"), Body::Chunked(_)));
    assert!(matches!(body("Upgrade: websocket\r\nConnection: upgrade\r\n"), Body::Length(0)));
    assert!(matches!(outcome("GET / HTTP/1.1\r\nHost: a\r\n"), Ok(None)));
}

#[test]
fn too_much_header_is_refused() {
    let many = format!("GET / HTTP/1.1\r\nHost: a\r\n{}\r\n", "X: y\r\n".repeat(MAX_HEADERS));
    assert_eq!(outcome(&many).err(), Some(Rejection::HeaderTooLarge));
    let long = format!("GET / HTTP/1.1\r\nHost: a\r\nX: {}\r\n\r\n", "y".repeat(MAX_HEAD));
    assert_eq!(outcome(&long).err(), Some(Rejection::HeaderTooLarge));
    assert_eq!(outcome(&long[..long.len() - 4]).err(), Some(Rejection::HeaderTooLarge), "before it is complete");
}

#[test]
fn the_end_is_found_however_it_arrives() {
    let head = b"GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    let ends: Vec<_> = (1..=head.len()).map(|length| is_whole(&head[..length], length - 1)).collect();
    assert_eq!(ends.iter().filter(|whole| **whole).count(), 1);
    assert!(is_whole(head, 0) && is_whole(b"GET /\n\n", 6));
}

proptest! {
    /// What is written anew passes too, and means the same.
    #[test]
    fn what_is_written_in_origin_form_passes_again(rest in "([/?][!-~]{0,12})?", options: bool, old: bool) {
        let (method, version) = (if options { "OPTIONS" } else { "GET" }, if old { "1.0" } else { "1.1" });
        let text = format!("{method} http://a.example:80{rest} HTTP/{version}\r\nHost: b\r\nX: y\r\n\r\nbody");
        let mut lines = Lines::default();
        if let Ok(Some(head)) = check(text.as_bytes(), &mut lines) {
            let written = in_origin_form(text.as_bytes(), &head, &lines).unwrap();
            let again = check(&written, &mut lines).unwrap().unwrap();
            prop_assert_eq!((again.version, &written[again.end..]), (head.version, &b"body"[..]));
            let hosts: Vec<_> = lines.of(&written).iter().filter(|(name, _)| is(name, b"host")).map(|(_, host)| host).collect();
            prop_assert_eq!(hosts, [b"a.example:80"]);
        }
    }

    /// What passes, Pingora's own type for a header takes as well: so every refusal is ours, in our words.
    #[test]
    fn what_passes_here_passes_in_pingora(target in "(http://a)?/[!-~]{0,12}") {
        let head = format!("GET {target} HTTP/1.1\r\nHost: a\r\n\r\n");
        if outcome(&head).is_ok() {
            prop_assert!(pingora_http::RequestHeader::build("GET", target.as_bytes(), None).is_ok());
        }
    }

    #[test]
    fn no_bytes_panic(head in prop::collection::vec(any::<u8>(), 0..300), seen in 0_usize..400) {
        let _ = check(&head, &mut Lines::default());
        let _ = is_whole(&head, seen.min(head.len()));
    }
}
