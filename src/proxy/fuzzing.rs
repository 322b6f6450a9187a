//! What holds for any bytes that a client or a backend may send.
//!
//! The problem: parsers that read a message in pieces, and pass on what another parser reads, have to agree with
//! themselves and with it; examples show that only for what somebody thought of.
//!
//! The rule: each function here takes any bytes and panics when a property does not hold. cargo-fuzz looks for such
//! bytes (`fuzz/`, `make fuzz`), and the tests try again what it has kept (`fuzz/corpus/`). The parsers stay private:
//! this is their door, and it is there in builds for fuzzing, where `cfg(fuzzing)` is set, and in tests alone.

use std::net::IpAddr;
use std::task::Poll;
use std::time::Duration;

use bytes::BytesMut;
use http::{HeaderMap, HeaderName, HeaderValue};
use pingora_core::Result;
use tokio::io::AsyncWriteExt;
use tokio::net::UnixStream;

use super::backend::answer::{self, Added, Answer};
use super::backend::body::{AnswerBody, Unmeasured};
use super::backend::connection::BackendConnection;
use super::downstream::head::{self, Head};
use super::downstream::introduction;
use super::exchange::request::{self, Framing};
use super::gate::headers::{Sender, Underscores};
use super::gate::identify::{Identity, origin};
use super::gate::request_id::RequestId;
use super::gate::settings::HeaderVersions;
use super::wire::chunked::{Chunked, MalformedChunks};
use super::wire::lines::{Fields, Lines, LinesOf, MAX_HEADERS, is, length_of, line};
use super::wire::request_body::Body;
use crate::clock::Alarm;
use crate::upstream::{BackendStream, Wire, streamed};

/// Where `bytes` may be cut in two: everywhere when they are few, else at some places.
fn cuts(bytes: &[u8]) -> impl Iterator<Item = usize> {
    (0..bytes.len()).step_by(bytes.len().div_ceil(128).max(1))
}

/// The first byte of an input, for choices, and the rest.
fn choices(bytes: &[u8]) -> (u8, &[u8]) {
    bytes.split_first().map_or((0, bytes), |(first, rest)| (*first, rest))
}

/// The header section of a request: read in pieces it is the same, and what is passed on is the same request again.
pub fn head(bytes: &[u8]) {
    let (choice, bytes) = choices(bytes);
    let mut lines = Lines::default();
    let whole = head::check(bytes, &mut lines);
    for cut in cuts(bytes) {
        let mut earlier = Lines::default();
        match (head::check(&bytes[..cut], &mut earlier), &whole) {
            (Ok(None), _) | (Err(_), Err(_)) => {}
            (Ok(Some(first)), Ok(Some(whole))) => {
                assert_eq!((first.end, first.method, first.target), (whole.end, whole.method, whole.target));
                assert!(earlier.of(bytes).iter().eq(lines.of(bytes).iter()));
            }
            (first, whole) => panic!("{first:?} of the first {cut} bytes, {whole:?} of all"),
        }
    }
    let Ok(Some(head)) = whole else { return };
    for cut in cuts(&bytes[..head.end]) {
        assert!(head::is_whole(&bytes[..head.end], cut), "its end is not seen from {cut} on");
    }
    match head::in_origin_form(bytes, &head, &lines) {
        Some(written) => is_the_same_in_origin_form(bytes, &head, &written),
        None if head.version == 1 => is_the_same_for_a_backend(bytes, &head, lines.of(bytes), choice),
        None => {}
    }
}

/// How long the body is that `head` announces; `None` when it comes in chunks.
fn length(head: &Head) -> Option<u64> {
    match head.body {
        Body::Length(length) => Some(length),
        Body::Chunked(_) => None,
    }
}

/// Takes what was written as a request.
fn again(written: &[u8], lines: &mut Lines) -> Head {
    let told = || written.escape_ascii().to_string();
    let head = head::check(written, lines).unwrap_or_else(|refused| panic!("{refused:?}: {}", told()));
    head.unwrap_or_else(|| panic!("incomplete: {}", told()))
}

fn is_the_same_in_origin_form(bytes: &[u8], head: &Head, written: &[u8]) {
    let mut lines = Lines::default();
    let anew = again(written, &mut lines);
    assert_eq!(anew.method.of_bytes(written), head.method.of_bytes(bytes));
    assert_eq!((anew.version, length(&anew)), (head.version, length(head)));
    assert_eq!(&written[anew.end..], &bytes[head.end..], "what follows");
    assert!(head::in_origin_form(written, &anew, &lines).is_none(), "written anew twice");
    let host = lines.of(written).all_of(&http::header::HOST).next().expect("check has found one").to_vec();
    assert!(bytes.windows(host.len().max(1)).any(|part| part == host) || host.is_empty());
}

fn is_the_same_for_a_backend(bytes: &[u8], head: &Head, lines: LinesOf<'_>, choice: u8) {
    if !request::is_plain(lines.iter()) {
        return;
    }
    let (peer, caller): (IpAddr, IpAddr) = ([192, 0, 2, 7].into(), [203, 0, 113, 9].into());
    let underscores = if choice & 2 == 0 { Underscores::Drop } else { Underscores::Pass };
    let sender = Sender { peer, caller, trusted: choice & 1 == 1, secure: false, underscores, trace: None };
    let id = RequestId::given(b"r1").expect("it is one");
    let (framing, told) = match length(head) {
        Some(length) => (Framing::AsSaid, Some(length)),
        None if choice & 4 == 0 => (Framing::Length(5), Some(5)),
        None => (Framing::Chunks, None),
    };
    let method = str::from_utf8(head.method.of_bytes(bytes)).expect("it is a token");
    let mut out = Vec::new();
    request::write(&mut out, (method, head.target.of_bytes(bytes)), || lines.iter(), framing, (sender, &id));
    let mut sent = Lines::default();
    let anew = again(&out, &mut sent);
    assert_eq!(anew.end, out.len(), "another request follows");
    assert_eq!(anew.method.of_bytes(&out), method.as_bytes());
    assert_eq!(anew.target.of_bytes(&out), head.target.of_bytes(bytes));
    assert_eq!(length(&anew), told);
    let sent = sent.of(&out);
    let all = |name: &'static str| sent.all_of(&HeaderName::from_static(name)).map(<[u8]>::to_vec).collect::<Vec<_>>();
    let forwarded = all("x-forwarded-for");
    assert!(forwarded.len() == 1 && forwarded[0].ends_with(b"192.0.2.7"), "{forwarded:?}");
    assert_eq!((all("x-real-ip"), all("x-request-id")), (vec![b"203.0.113.9".to_vec()], vec![b"r1".to_vec()]));
    assert!(["connection", "keep-alive", "te"].iter().all(|name| all(name).is_empty()), "hop by hop");
    let dropped = underscores == Underscores::Drop;
    assert!(!(dropped && sent.iter().any(|(name, _)| name.contains(&b'_'))), "an underscore");
}

/// A header of the PROXY protocol: read in pieces it is the same, what follows it does not count, and only the version
/// that is expected is read.
pub fn introduction(bytes: &[u8]) {
    let whole = introduction::read(bytes, HeaderVersions::Any);
    for cut in cuts(bytes) {
        match (introduction::read(&bytes[..cut], HeaderVersions::Any), whole) {
            (Ok(None), _) => {}
            (first, whole) => assert_eq!(first, whole, "of the first {cut} bytes, and of all"),
        }
    }
    let [first, second] = [HeaderVersions::V1, HeaderVersions::V2].map(|version| introduction::read(bytes, version));
    if let Ok(Some(read)) = whole {
        assert!(read.length <= bytes.len());
        assert_eq!(introduction::read(&bytes[..read.length], HeaderVersions::Any), whole, "what follows counts");
        assert_eq!(introduction::read(&bytes[..read.length - 1], HeaderVersions::Any), Ok(None), "it is whole earlier");
        assert!([first, second].contains(&whole) && first != second);
    } else {
        assert!(!matches!(first, Ok(Some(_))) && !matches!(second, Ok(Some(_))));
    }
}

/// A chunked body: cut anywhere it ends at the same place and holds the same, and a parser that forgives reads it so,
/// too.
pub fn chunked(bytes: &[u8]) {
    let (choice, bytes) = choices(bytes);
    let new = if choice & 1 == 0 { Chunked::new } else { Chunked::of_answer };
    let decoded = |pieces: &[&[u8]]| {
        let (mut chunked, mut data, mut taken) = (new(), Vec::new(), 0);
        for piece in pieces {
            let part = chunked.decode(piece, |part| data.extend_from_slice(part))?;
            assert!(part == piece.len() || chunked.is_done(), "{part} of {}, and no end", piece.len());
            taken += part;
        }
        Ok::<_, MalformedChunks>((taken, chunked.is_done(), chunked.has_trailers(), data))
    };
    let whole = decoded(&[bytes]);
    for cut in cuts(bytes) {
        assert_eq!(decoded(&[&bytes[..cut], &bytes[cut..]]), whole, "cut at {cut}");
    }
    assert_eq!(decoded(&bytes.chunks(1).collect::<Vec<_>>()), whole, "byte by byte");
    let Ok((taken, true, _, data)) = whole else { return };
    let (end, read) = forgiving(bytes);
    assert_eq!(read, data, "a parser that forgives reads something else");
    assert!(end.is_none_or(|end| end == taken), "it ends at {end:?} for a parser that forgives, and not at {taken}");
}

/// What httparse reads of a chunked body that is whole: where it ends, if it can tell, and the data.
fn forgiving(bytes: &[u8]) -> (Option<usize>, Vec<u8>) {
    let (mut at, mut data) = (0, Vec::new());
    loop {
        let size = httparse::parse_chunk_size(&bytes[at..]).expect("a size that is taken here is one to httparse");
        let httparse::Status::Complete((start, size)) = size else { panic!("the line of a size has no end") };
        at += start;
        if size == 0 {
            let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
            // It counts trailers, which here their bytes bound.
            let end = match httparse::parse_headers(&bytes[at..], &mut headers) {
                Ok(httparse::Status::Complete((end, _))) => Some(at + end),
                Ok(httparse::Status::Partial) => panic!("the trailers have no end"),
                Err(_) => None,
            };
            return (end, data);
        }
        let end = at + usize::try_from(size).expect("data that is there");
        data.extend_from_slice(&bytes[at..end]);
        assert_eq!(&bytes[end..end + 2], b"\r\n");
        at = end + 2;
    }
}

/// A backend's answer: read in pieces it is the same, and the client reads the same status, one framing and the same
/// body.
pub fn answer(bytes: &[u8]) {
    let (choice, bytes) = choices(bytes);
    let to_head = choice & 1 == 1;
    let mut lines = Lines::default();
    let whole = answer::parse(bytes, &mut lines, to_head);
    for cut in cuts(bytes) {
        match (answer::parse(&bytes[..cut], &mut Lines::default(), to_head), &whole) {
            (Ok(None), _) | (Err(_), Err(_)) => {}
            (Ok(Some(first)), Ok(Some(whole))) => assert_eq!((first.end, first.status), (whole.end, whole.status)),
            (first, whole) => panic!("{first:?} of the first {cut} bytes, {whole:?} of all"),
        }
    }
    let Ok(Some(answer)) = whole else { return };
    let rest = &bytes[answer.end..];
    let body = data_of(&answer.body, &[rest]);
    for cut in cuts(rest) {
        assert_eq!(data_of(&answer.body, &[&rest[..cut], &rest[cut..]]), body, "cut at {cut}");
    }
    let Some((data, done)) = body else { return };
    let mut out = Vec::new();
    let added = Added { standing: None, date: b"Sat, 28 Nov 2026 10:00:00 GMT", keeps: true, bare: false };
    answer.write(&mut out, bytes, lines.of(bytes), added);
    let (end, mut passed) = (out.len(), answer.body.clone());
    passed.take(&mut BytesMut::from(rest), &mut out, Unmeasured::WithTrailers).expect("it was well formed");
    is_the_same_for_a_client(&answer, to_head, &out, end, (&data, done));
}

/// What of a body is data in these pieces, and whether it is whole; `None` when it is malformed.
fn data_of(body: &AnswerBody, pieces: &[&[u8]]) -> Option<(Vec<u8>, bool)> {
    let (mut body, mut buffer, mut data) = (body.clone(), BytesMut::new(), Vec::new());
    for piece in pieces {
        buffer.extend_from_slice(piece);
        data.extend_from_slice(&body.take_data(&mut buffer).ok()?);
    }
    Some((data, body.is_done()))
}

/// Reads what a client gets: `end` bytes of header, and what came of the body, which was `done` then.
fn is_the_same_for_a_client(answer: &Answer, to_head: bool, out: &[u8], end: usize, (data, done): (&[u8], bool)) {
    let mut lines = Lines::default();
    let told = answer::parse(out, &mut lines, to_head);
    let told = told.ok().flatten().unwrap_or_else(|| panic!("no answer: {}", out.escape_ascii()));
    assert_eq!((told.end, told.status), (end, answer.status));
    let lines = lines.of(out);
    let count = |name: &[u8]| lines.iter().filter(|(sent, _)| is(sent, name)).count();
    let (lengths, codings) = (count(b"content-length"), count(b"transfer-encoding"));
    assert!(lengths + codings <= 1, "{lengths} lengths, {codings} codings");
    assert!(count(b"connection") <= 1 && count(b"keep-alive") == 0 && count(b"te") == 0, "hop by hop");
    if answer.is_interim() || answer.switches() {
        return;
    }
    if lengths == 1 {
        let length = lines.iter().find(|(sent, _)| is(sent, b"content-length")).and_then(|(_, value)| length_of(value));
        assert_eq!(length, answer.told_length());
    }
    match told.body {
        AnswerBody::Length(length) => assert_eq!((&out[end..], length as usize == data.len()), (data, done)),
        AnswerBody::Chunked(mut chunked) => {
            let mut read = Vec::new();
            let taken = chunked.decode(&out[end..], |piece| read.extend_from_slice(piece));
            assert_eq!((taken, &*read, chunked.is_done()), (Ok(out.len() - end), data, done));
        }
        AnswerBody::UntilEnd(_) => panic!("a client cannot tell an end from a break"),
    }
}

/// What a backend says first over HTTP/2: its settings, and the answers to ours and to our PING.
const WELCOME: &[u8] = b"\0\0\0\x04\0\0\0\0\0\0\0\0\x04\x01\0\0\0\0\
                         \0\0\x08\x06\x01\0\0\0\0\x3b\x7c\xdb\x7a\x0b\x87\x16\xb4";

/// What a backend sends over a connection in HTTP/2, from its beginning or once it has a request: it comes to an end.
pub fn http2_backend(bytes: &[u8]) {
    let (choice, bytes) = choices(bytes);
    let runtime = tokio::runtime::Builder::new_current_thread().enable_all().build().expect("a runtime");
    let ended = runtime.block_on(async { tokio::time::timeout(LONG, hear(choice, bytes)).await });
    assert!(ended.is_ok(), "it does not end");
}

/// Longer than anything takes that ends.
const LONG: Duration = Duration::from_secs(5);

/// Has a backend send `bytes` and then close, and reads its answer as an exchange does; how many bytes of body came.
async fn hear(choice: u8, bytes: &[u8]) -> Result<usize> {
    let (near, mut far) = UnixStream::pair().expect("two sockets");
    let at_once = choice & 1 == 1;
    far.write_all(if at_once { bytes } else { WELCOME }).await.expect("it fits");
    if at_once {
        far.shutdown().await.expect("it is open");
    }
    let mut backend = BackendConnection::new(streamed(BackendStream::Plain(Wire::Right(near))).await?, 4 << 10);
    let body: &[u8] = if choice & 2 == 0 { b"" } else { &[b'x'; 1_000] };
    backend.send(b"POST / HTTP/1.1\r\nHost: a\r\n\r\n", body, LONG).await?;
    if !at_once {
        far.write_all(bytes).await.expect("it fits");
        far.shutdown().await.expect("it is open");
    }
    let (mut alarm, mut lines, mut body) = (Alarm::default(), Lines::default(), None);
    let mut length = 0;
    loop {
        let read = backend.read((LONG, &mut alarm), |_, _| Poll::Pending).await?;
        while body.is_none() {
            let Ok(Some(mut answer)) = answer::parse(&backend.buffer, &mut lines, choice & 4 != 0) else { break };
            answer.comes_in_frames(backend.is_over());
            bytes::Buf::advance(&mut backend.buffer, answer.end);
            body = Some(answer.body.clone()).filter(|_| !answer.is_interim());
        }
        length += backend.buffer.len();
        assert!(body.is_none() || length <= bytes.len(), "more came than was sent");
        backend.buffer.clear();
        if read == 0 {
            return Ok(length);
        }
    }
}

/// The lines of a header section: they are what httparse found, say the same as a map, and can be written and read
/// again.
pub fn lines(bytes: &[u8]) {
    let mut headers = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let Ok(httparse::Status::Complete((_, headers))) = httparse::parse_headers(bytes, &mut headers) else { return };
    let mut lines = Lines::default();
    lines.fill(bytes, headers);
    let lines = lines.of(bytes);
    assert!(lines.iter().eq(headers.iter().map(|header| (header.name.as_bytes(), header.value))));
    let (mut map, mut out) = (HeaderMap::new(), Vec::new());
    for (name, value) in lines.iter() {
        super::wire::keep_alive::timeout(value);
        line(&mut out, name, value);
        let name = HeaderName::from_bytes(name).expect("httparse takes names alone");
        map.append(name, HeaderValue::from_bytes(value).expect("and values"));
    }
    for name in map.keys() {
        assert!(lines.all_of(name).eq(map.all_of(name)), "{name}");
    }
    let trusted_proxies = std::iter::once("10.0.0.0/8".parse().expect("a network")).collect();
    let identity = Identity { trusted_proxies, ..Identity::default() };
    let peer: IpAddr = [10, 0, 0, 1].into();
    assert_eq!(origin(&lines, peer, &identity), origin(&map, peer, &identity));
    out.extend_from_slice(b"\r\n");
    let mut again = [httparse::EMPTY_HEADER; MAX_HEADERS];
    let again = httparse::parse_headers(&out, &mut again).expect("what is written is well formed");
    let httparse::Status::Complete((end, again)) = again else { panic!("what is written has no end") };
    assert_eq!(end, out.len());
    assert!(lines.iter().eq(again.iter().map(|header| (header.name.as_bytes(), header.value))));
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    #[test]
    fn what_fuzzing_has_kept_holds() {
        type Target = (&'static str, fn(&[u8]));
        let targets: [Target; 6] = [
            ("head", head),
            ("introduction", introduction),
            ("chunked", chunked),
            ("answer", answer),
            ("http2_backend", http2_backend),
            ("lines", lines),
        ];
        for (name, target) in targets {
            let dir = Path::new(env!("CARGO_MANIFEST_DIR")).join("fuzz/corpus").join(name);
            let mut count = 0;
            for file in std::fs::read_dir(&dir).unwrap() {
                target(&std::fs::read(file.unwrap().path()).unwrap());
                count += 1;
            }
            assert!(count >= 20, "{}: {count}", dir.display());
        }
    }
}
