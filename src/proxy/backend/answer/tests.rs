use proptest::prelude::*;

use super::*;

fn read(text: &str) -> Result<Option<Answer>, &'static str> {
    parse(text.as_bytes(), &mut Lines::default(), false)
}

fn body(text: &str) -> AnswerBody {
    read(text).unwrap().unwrap().body
}

/// The header that the client gets.
fn passed_on(text: &str, to_head: bool) -> String {
    let mut lines = Lines::default();
    let answer = parse(text.as_bytes(), &mut lines, to_head).unwrap().unwrap();
    let mut out = Vec::new();
    let added = Added { standing: None, date: b"now", keeps: true, bare: false };
    answer.write(&mut out, text.as_bytes(), lines.of(text.as_bytes()), added);
    String::from_utf8(out).unwrap()
}

#[test]
fn the_header_says_where_the_body_ends() {
    assert!(matches!(body("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"), AnswerBody::Length(5)));
    assert!(matches!(
        body("HTTP/1.1 200 OK\r\nContent-Length: 5, 5\r\nContent-Length: 5\r\n\r\n"),
        AnswerBody::Length(5)
    ));
    assert!(matches!(body("HTTP/1.1 200 OK\r\nTransfer-Encoding: Chunked\r\n\r\n"), AnswerBody::Chunked(_)));
    let both = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n";
    assert!(matches!(body(both), AnswerBody::Chunked(_)));
    assert!(!read(both).unwrap().unwrap().keeps, "nobody knows what follows");
    assert!(matches!(body("HTTP/1.1 200 OK\r\n\r\n"), AnswerBody::UntilEnd(_)));
    for bodiless in
        ["HTTP/1.1 204 No\r\n\r\n", "HTTP/1.1 304 Not\r\nContent-Length: 5\r\n\r\n", "HTTP/1.1 103 E\r\n\r\n"]
    {
        assert!(matches!(body(bodiless), AnswerBody::Length(0)), "{bodiless}");
    }
    let to_head = parse(b"HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", &mut Lines::default(), true);
    assert!(matches!(to_head.unwrap().unwrap().body, AnswerBody::Length(0)));
    assert!(read("HTTP/1.1 200 OK\r\nContent-Le").unwrap().is_none());
}

#[test]
fn what_two_readers_could_understand_differently_is_no_answer() {
    for wrong in [
        "HTTP/1.1 200 OK\r\nContent-Length: 5\r\nContent-Length: 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 5, 6\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: +5\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length:\r\n\r\n",
        "HTTP/1.1 200 OK\r\nContent-Length: 9999999999999999999\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: gzip, chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nTransfer-Encoding: chunked\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: a\r\n b\r\n\r\n",
        "HTTP/1.1 200 OK\r\nX: \0\r\n\r\n",
        "HTTP/1.1 099 OK\r\n\r\n",
        "HTTP/2.0 200 OK\r\n\r\n",
        "200 OK\r\n\r\n",
        "SSH-2.0-OpenSSH\r\n",
    ] {
        assert!(read(wrong).is_err(), "{wrong:?}");
    }
    let long = format!("HTTP/1.1 200 OK\r\nX: {}", "y".repeat(MAX_ANSWER_HEAD));
    assert!(read(&long).is_err());
}

#[test]
fn a_connection_is_kept_when_its_backend_keeps_it() {
    let keeps = |text: &str| read(text).unwrap().unwrap().keeps;
    assert!(keeps("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n"));
    assert!(keeps("HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: x\r\n\r\n"));
    assert!(keeps("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: Keep-Alive\r\n\r\n"));
    assert!(!keeps("HTTP/1.0 200 OK\r\nContent-Length: 5\r\n\r\n"));
    assert!(!keeps("HTTP/1.0 200 OK\r\nTransfer-Encoding: chunked\r\nConnection: keep-alive\r\n\r\n"));
    assert!(!keeps("HTTP/1.0 200 OK\r\nContent-Length: 5\r\nConnection: keep-alive, close\r\n\r\n"));
    assert!(!keeps("HTTP/1.1 200 OK\r\nContent-Length: 5\r\nConnection: x, Close\r\n\r\n"));
    assert!(!keeps("HTTP/1.1 200 OK\r\n\r\n"));
}

#[test]
fn the_client_gets_the_header_without_what_was_for_us() {
    let text = "HTTP/1.0 418 I'm a teapot\r\nSet-Cookie: a=b\r\nDate: then\r\nServer : x\r\nX-Private: 1\r\nUpgrade: h2c\r\n\
                Connection: x-private, set-cookie\r\nKeep-Alive: 5\r\nContent-Length: 5\r\ncontent-length: 5\r\n\r\n";
    assert_eq!(
        passed_on(text, false),
        "HTTP/1.1 418 I'm a teapot\r\nSet-Cookie: a=b\r\nServer: x\r\nContent-Length: 5\r\nDate: now\r\n\
         Connection: keep-alive\r\n\r\n"
    );
    let chunked = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n";
    let expected = "HTTP/1.1 200 OK\r\nTransfer-Encoding: chunked\r\nDate: now\r\nConnection: keep-alive\r\n\r\n";
    assert_eq!(passed_on(chunked, false), expected);
    assert_eq!(passed_on("HTTP/1.0 200 OK\r\n\r\n", false), expected);
    assert!(passed_on("HTTP/1.1 200 OK\r\nContent-Length: 5\r\n\r\n", true).contains("\r\nContent-Length: 5\r\n"));
    for (status, to_head) in [("304 Not", false), ("200 OK", true)] {
        let text = format!("HTTP/1.1 {status}\r\nTransfer-Encoding: chunked\r\nContent-Length: 5\r\n\r\n");
        let expected = format!("HTTP/1.1 {status}\r\nContent-Length: 5\r\nDate: now\r\nConnection: keep-alive\r\n\r\n");
        assert_eq!(passed_on(&text, to_head), expected);
    }
    assert!(!passed_on("HTTP/1.1 204 No\r\nContent-Length: 5\r\n\r\n", false).contains("Content-Length"));
    assert_eq!(
        passed_on("HTTP/1.1 103 Early\r\nLink: </x>\r\nTe: x\r\n\r\n", false),
        "HTTP/1.1 103 Early\r\nLink: </x>\r\n\r\n"
    );
}

proptest! {
    #[test]
    fn no_bytes_panic(bytes in prop::collection::vec(any::<u8>(), 0..300), start in "(HTTP/1.1 200 OK\r\n)?") {
        let all = [start.as_bytes(), &bytes].concat();
        let _ = parse(&all, &mut Lines::default(), false);
    }
}

/// The lines that a client of HTTP/2 gets, but for what is added to each.
fn by_name(lines: impl IntoIterator<Item = (String, Vec<u8>)>) -> Vec<(String, Vec<u8>)> {
    let mut all: Vec<_> = lines.into_iter().filter(|(name, _)| name != "date" && name != "content-length").collect();
    all.sort();
    all
}

proptest! {
    /// An answer in fields says what the same answer in bytes says.
    #[test]
    fn fields_say_what_bytes_say(
        sent in prop::collection::vec(
            (
                "content-length|date|te|keep-alive|proxy-authenticate|x-ratelimit-limit|ratelimit|upgrade|x-[ab]|set-cookie",
                "[a-z0-9]{1,3}",
            ),
            0..8,
        ),
        status in prop::sample::select(vec![103_u16, 200, 204, 304, 404]),
        to_head: bool,
        limited: bool,
        is_over: bool,
    ) {
        let (mut fields, mut text) = (HeaderMap::new(), format!("HTTP/1.1 {status} x\r\n"));
        for (name, value) in &sent {
            fields.append(HeaderName::from_bytes(name.as_bytes()).unwrap(), value.parse().unwrap());
        }
        for (name, value) in &fields {
            text.push_str(&format!("{name}: {}\r\n", value.to_str().unwrap()));
        }
        text.push_str("\r\n");
        let mut lines = Lines::default();
        let in_bytes = parse(text.as_bytes(), &mut lines, to_head);
        let in_fields = of_fields(StatusCode::from_u16(status).unwrap(), &fields, (to_head, is_over));
        prop_assert_eq!(in_bytes.as_ref().err(), in_fields.as_ref().err());
        if let (Ok(Some(mut bytes)), Ok(answer)) = (in_bytes, in_fields) {
            bytes.comes_in_frames(is_over);
            let told = |answer: &Answer| {
                let body = &answer.body;
                (answer.status, answer.told_length(), answer.keeps, body.is_done(), body.is_unmeasured(), body.left())
            };
            prop_assert_eq!(told(&bytes), told(&answer));
            let came = bytes.lines(lines.of(text.as_bytes()), limited);
            let came = by_name(came.map(|(name, value)| (String::from_utf8(name.to_vec()).unwrap(), value.to_vec())));
            answer.pass_fields(&mut fields, limited);
            let anew = |name: &str| limited && !answer.is_interim() && name.contains("ratelimit");
            let passed = fields.iter().filter(|(name, _)| !anew(name.as_str()));
            prop_assert_eq!(came, by_name(passed.map(|(name, value)| (name.to_string(), value.as_bytes().to_vec()))));
            let told = fields.get("content-length").is_some();
            prop_assert!(!told || answer.told_length().is_some());
        }
    }
}
