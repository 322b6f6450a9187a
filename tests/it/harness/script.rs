//! The words in which a test tells a scripted backend what to do: the query of the request's target.
//!
//! So one request through the proxy carries both the question and the fault, and `at=a` names the one backend that is
//! to misbehave while the others answer. A shared switchboard was refused: tests would wait for it, and forget to reset
//! it.
//!
//! | word | does |
//! |---|---|
//! | `at=NAME` | limits everything below to the backend of this name |
//! | `fault=close` | closes after reading the request, before answering |
//! | `fault=close_reused` | the same, but only when the connection has served a request before |
//! | `fault=half_body`, `fault=half_chunked` | closes in the middle of the answer's body |
//! | `fault=hang`, `fault=half_head`, `fault=head_only` | sends nothing, half a head, or only a head, and then nothing |
//! | `raw=N` | answers [`GARBAGE`]`[N]` and closes |
//! | `early=N` | answers with status N before it reads the body |
//! | `interim=N` | sends an interim answer with status N first |
//! | `switch=echo` | answers 101 and then sends back whatever bytes come |
//! | `delay_ms=N` | answers late |
//! | `hold=KEY` | answers when the test releases it |
//! | `status=N`, `bytes=N`, `seed=N`, `header_kb=N` | shapes the answer |
//! | `answer=length`, `answer=chunked`, `answer=close` | frames the answer's body |

/// Answers that are not HTTP, by `raw=N`.
pub(crate) const GARBAGE: [&[u8]; 9] = [
    b"\x00\x01\x02 this is not HTTP\r\n\r\n",
    b"HTTP/1.1 abc OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 2000 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1\r\n\r\n",
    b"FTP/1.1 200 OK\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nno colon here\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nbad name: 1\r\nContent-Length: 0\r\n\r\n",
    b"HTTP/1.1 200 OK\r\nContent-Length: -5\r\n\r\nhello",
    b"\x16\x03\x01\x00\x05hello\r\n\r\n",
];

/// The path of a target.
pub(crate) fn path(target: &str) -> &str {
    target.split('?').next().unwrap_or_default()
}

/// The value of `key` in a target's query.
pub(crate) fn word<'a>(target: &'a str, key: &str) -> Option<&'a str> {
    let (_, query) = target.split_once('?')?;
    query.split('&').filter_map(|pair| pair.split_once('=')).find(|(name, _)| *name == key).map(|(_, value)| value)
}

/// The number that `key` has in a target's query.
pub(crate) fn number(target: &str, key: &str) -> Option<u64> {
    word(target, key).map(|value| value.parse().unwrap_or_else(|_| panic!("{key}={value} is not a number")))
}

#[test]
fn words_are_found() {
    let target = "/a/b?at=a&bytes=100&fault=close";
    assert_eq!((path(target), word(target, "at"), word(target, "fault")), ("/a/b", Some("a"), Some("close")));
    assert_eq!((number(target, "bytes"), word(target, "t"), word("/a", "at")), (Some(100), None, None));
}
