//! Requests that nobody sees: h2 resets their stream itself, or answers them.
//!
//! The problem: a target such as `/?f={"a":1}`, with a character that a URI has to escape, is nothing that the `http`
//! crate can hold. The h2 crate answers it with a reset before it hands out the request; so it does with header blocks
//! that are malformed, and to those that are too large it says 431. There would be no access line, and an operator
//! whose client sends such requests would find no trace of them.
//!
//! The one sign is an event for `tracing`, at the level of debugging. [`Unseen`] listens to the events of those modules
//! that are no more than a message, and knows them by how they begin ([`KNOWN`]). It listens only while a connection is
//! polled, by what `tracing` has for one thread, so that two servers in a process count apart, and what it heard is
//! told to that connection. Every other place that has something to say learns that nobody listens, once, and costs a
//! comparison from then on. Of the target itself nothing is kept: there may be keys in it.

use std::fmt::{self, Debug, Write};
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::thread::{self, ThreadId};

use parking_lot::Mutex;
use tracing_core::dispatcher::{Dispatch, with_default};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Interest, Level, LevelFilter, Metadata, Subscriber};

use crate::proxy::gate::rejection::Rejection;
use crate::telemetry::Tally;

/// The module of h2 that turns header blocks into requests, the one that opens streams, and the one that decodes.
const MODULES: [&str; 3] = ["h2::server", "h2::proto::streams::recv", "h2::codec::framed_read"];
/// How it begins what is said of a path, an authority or a scheme that is none.
const TARGET: &str = "malformed headers: malformed ";
/// How begins what is said of requests that nobody sees, the longest before others that it begins like, and why that is.
const KNOWN: [(&str, Rejection); 13] = [
    (TARGET, Rejection::BadRequest("malformed request target")),
    ("malformed headers: ", PSEUDO),
    ("stream error PROTOCOL_ERROR -- cannot use :", PSEUDO),
    ("stream error PROTOCOL_ERROR -- error building request", HEADER),
    ("stream error PROTOCOL_ERROR -- malformed header block", HEADER),
    ("stream error PROTOCOL_ERROR -- malformed CONTINUATION frame", HEADER),
    ("stream error PROTOCOL_ERROR -- could not parse content-length", LENGTH),
    ("stream error PROTOCOL_ERROR -- conflicting content-length", LENGTH),
    ("stream error PROTOCOL_ERROR -- recv_headers with END_STREAM", LENGTH),
    ("stream error REQUEST_HEADER_FIELDS_TOO_LARGE", Rejection::HeaderTooLarge),
    ("connection error PROTOCOL_ERROR -- failed HPACK decoding", HEADER),
    ("connection error PROTOCOL_ERROR -- decoded ", Rejection::HeaderTooLarge),
    ("connection error PROTOCOL_ERROR -- CONTINUATION frame header block size", Rejection::HeaderTooLarge),
];
const PSEUDO: Rejection = Rejection::BadRequest("a pseudo-header is missing, or one too many");
const HEADER: Rejection = Rejection::BadRequest("malformed header");
const LENGTH: Rejection = Rejection::BadRequest("doubtful Content-Length");
/// How begins what is said of the one kind that has an answer.
const ANSWERED: &str = "stream error R";
/// More than the longest of those beginnings, and the number of a stream behind it.
const BEGINNING: usize = 96;

/// A request that h2 has dealt with itself.
#[derive(Clone, Copy, Debug, PartialEq)]
pub(in crate::proxy) struct UnseenRequest {
    /// Why.
    pub(in crate::proxy) why: Rejection,
    /// Whether it was answered so; else its stream was reset, or its connection given up.
    pub(in crate::proxy) is_answered: bool,
    /// Its stream, where that was said.
    pub(in crate::proxy) stream: Option<u32>,
}

/// Hears of them.
pub(in crate::proxy) struct Unseen {
    listener: Dispatch,
    heard: Arc<UnseenSoFar>,
}

/// What was heard, and which thread has to take it.
#[derive(Default)]
struct UnseenSoFar {
    /// How many of them there are. Looked at first, so that a connection without them costs no more than that.
    count: AtomicUsize,
    all: Mutex<Vec<(ThreadId, UnseenRequest)>>,
}

impl Unseen {
    /// Counts those with a malformed target in `tally`.
    pub(in crate::proxy) fn new(tally: Arc<Tally>) -> Self {
        let heard: Arc<UnseenSoFar> = Arc::default();
        Unseen { listener: Dispatch::new(UnseenListener { tally, heard: Arc::clone(&heard) }), heard }
    }

    /// Adds those to `to` that h2 comes upon in `poll`.
    pub(in crate::proxy) fn heard<T>(&self, poll: impl FnOnce() -> T, to: &mut Vec<UnseenRequest>) -> T {
        let polled = with_default(&self.listener, poll);
        if self.heard.count.load(Ordering::Relaxed) > 0 {
            let here = thread::current().id();
            self.heard.all.lock().retain(|(thread, unseen)| {
                let is_mine = *thread == here;
                if is_mine {
                    to.push(*unseen);
                    self.heard.count.fetch_sub(1, Ordering::Relaxed);
                }
                !is_mine
            });
        }
        polled
    }
}

/// What `tracing` asks and tells.
struct UnseenListener {
    tally: Arc<Tally>,
    heard: Arc<UnseenSoFar>,
}

impl Subscriber for UnseenListener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        let is_message = || metadata.fields().iter().all(|field| field.name() == "message");
        metadata.is_event() && *metadata.level() == Level::DEBUG && MODULES.contains(&metadata.target()) && is_message()
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        let mut said = Beginning { text: [0; BEGINNING], length: 0 };
        event.record(&mut said);
        let said = str::from_utf8(&said.text[..said.length]).unwrap_or_default();
        let Some((start, why)) = KNOWN.iter().find(|(start, _)| said.starts_with(start)) else { return };
        if *start == TARGET {
            self.tally.malformed_target();
        }
        let stream = said.split_once("stream=StreamId(").and_then(|(_, rest)| rest.split_once(')')?.0.parse().ok());
        let unseen = UnseenRequest { why: *why, is_answered: start.starts_with(ANSWERED), stream };
        self.heard.all.lock().push((thread::current().id(), unseen));
        self.heard.count.fetch_add(1, Ordering::Relaxed);
    }

    // It listens to no spans.
    fn new_span(&self, _: &Attributes<'_>) -> Id {
        Id::from_u64(1)
    }

    fn record(&self, _: &Id, _: &Record<'_>) {}

    fn record_follows_from(&self, _: &Id, _: &Id) {}

    fn enter(&self, _: &Id) {}

    fn exit(&self, _: &Id) {}
}

/// How a message begins. It is written no further than that.
struct Beginning {
    text: [u8; BEGINNING],
    length: usize,
}

impl Visit for Beginning {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // An error means that enough was written.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl Write for Beginning {
    /// What is no ASCII is of no message's own, and ends it.
    fn write_str(&mut self, text: &str) -> fmt::Result {
        for byte in text.bytes() {
            let free = self.text.get_mut(self.length).filter(|_| byte.is_ascii()).ok_or(fmt::Error)?;
            *free = byte;
            self.length += 1;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use std::future::poll_fn;
    use std::task::Poll;

    use bytes::Bytes;
    use h2::server::Connection;
    use tokio::io::{AsyncWriteExt, DuplexStream, duplex};

    use super::*;

    /// `GET https://a` for this path, in one frame on stream 1, behind the preface and empty settings; with one more
    /// line of this name.
    fn bytes(path: &str, name: &str) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        let text = |text: &str| [&[u8::try_from(text.len()).unwrap()], text.as_bytes()].concat();
        // RFC 7541: `:method: GET`, `:scheme: https`, and then a literal for each of `:path` and `:authority`.
        let mut block = [b"\x82\x87\x04", &text(path)[..], b"\x01\x01a"].concat();
        block.extend([b"\0", &text(name)[..], &text("x")].concat());
        bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
        bytes.extend(block);
        bytes
    }

    #[tokio::test]
    async fn two_of_a_process_count_apart() {
        let tallies: [Arc<Tally>; 3] = Default::default();
        let [one, other, none] = [0, 1, 2].map(|n| Unseen::new(Arc::clone(&tallies[n])));
        let (target, header) = (Some(KNOWN[0].1), Some(HEADER));
        for (unseen, path, name, why) in [
            (&one, "/?\"", "x", target),
            (&other, "/?<", "x", target),
            (&other, "/ ", "x", target),
            (&none, "/?{}", "x", None),
            (&other, "/", "X", header),
            (&one, "/", "content-length", Some(LENGTH)),
            (&none, "/", ":path", header),
        ] {
            let (mut client, server) = duplex(1 << 10);
            client.write_all(&bytes(path, name)).await.unwrap();
            let mut server: Connection<DuplexStream, Bytes> = h2::server::handshake(server).await.unwrap();
            let mut told = Vec::new();
            let opened = poll_fn(|cx| Poll::Ready(unseen.heard(|| server.poll_accept(cx), &mut told))).await;
            assert_eq!(matches!(opened, Poll::Ready(Some(Ok(_)))), why.is_none(), "{path} {name}: {opened:?}");
            assert_eq!(
                told.first().map(|one| (one.why, one.is_answered)),
                why.map(|why| (why, false)),
                "{path} {name}"
            );
            assert!(told.iter().all(|one| one.stream.is_none_or(|stream| stream == 1)), "{told:?}");
            assert_eq!(told.len(), usize::from(why.is_some()));
        }
        assert_eq!(tallies.each_ref().map(|tally| tally.malformed_targets()), [1, 2, 0]);
        assert_eq!(one.heard.count.load(Ordering::Relaxed) + other.heard.count.load(Ordering::Relaxed), 0);
    }

    #[test]
    fn a_beginning_is_kept_however_it_is_cut_and_no_more_than_that() {
        let kept = |parts: &[&str]| {
            let mut said = Beginning { text: [0; BEGINNING], length: 0 };
            let _ = parts.iter().try_for_each(|part| said.write_str(part));
            String::from_utf8(said.text[..said.length].to_vec()).unwrap()
        };
        assert_eq!(
            kept(&["malformed ", "", "headers: malf", "ormed authority"]),
            "malformed headers: malformed authority"
        );
        assert_eq!(kept(&["malformed path (\"/\u{e4}", "b"]), "malformed path (\"/");
        assert_eq!(kept(&["x"; 200]), "x".repeat(BEGINNING));
        let room = |start: &str| {
            BEGINNING - if start.starts_with("stream") { "; stream=StreamId(4294967295)".len() } else { 0 }
        };
        assert!(KNOWN.iter().all(|(start, _)| start.len() <= room(start)));
    }
}
