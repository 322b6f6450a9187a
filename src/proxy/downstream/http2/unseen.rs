//! Requests that nobody sees: h2 resets their stream itself.
//!
//! The problem: a target such as `/?f={"a":1}`, with a character that a URI has to escape, is nothing that the `http`
//! crate can hold. The h2 crate answers it with a reset before it hands out the request, so there is neither an answer
//! nor an access line, and an operator whose client sends such targets finds no trace of them.
//!
//! The one sign is an event for `tracing`, at the level of debugging. [`Unseen`] listens to the events of that module,
//! and counts those that begin as this one does. It listens only while a connection is polled, by what `tracing` has
//! for one thread, so that two servers in a process count apart. Every other place that has something to say learns
//! that nobody listens, once, and costs a comparison from then on. Of the target itself nothing is kept: there may be
//! keys in it.

use std::fmt::{self, Debug, Write};
use std::sync::Arc;

use tracing_core::dispatcher::{Dispatch, with_default};
use tracing_core::field::{Field, Visit};
use tracing_core::span::{Attributes, Id, Record};
use tracing_core::{Event, Interest, Level, LevelFilter, Metadata, Subscriber};

use crate::telemetry::Tally;

/// The module of h2 that turns header blocks into requests.
const MODULE: &str = "h2::server";
/// How it begins what it says of a path, an authority or a scheme that is none.
const START: &str = "malformed headers: malformed ";

/// Counts them.
pub(in crate::proxy) struct Unseen(Dispatch);

impl Unseen {
    /// Counts them in `tally`.
    pub(in crate::proxy) fn new(tally: Arc<Tally>) -> Self {
        Unseen(Dispatch::new(UnseenListener(tally)))
    }

    /// Counts those that h2 comes upon in `poll`.
    pub(in crate::proxy) fn counted<T>(&self, poll: impl FnOnce() -> T) -> T {
        with_default(&self.0, poll)
    }
}

/// What `tracing` asks and tells.
struct UnseenListener(Arc<Tally>);

impl Subscriber for UnseenListener {
    fn register_callsite(&self, metadata: &'static Metadata<'static>) -> Interest {
        if self.enabled(metadata) { Interest::always() } else { Interest::never() }
    }

    fn enabled(&self, metadata: &Metadata<'_>) -> bool {
        metadata.is_event() && *metadata.level() == Level::DEBUG && metadata.target() == MODULE
    }

    fn max_level_hint(&self) -> Option<LevelFilter> {
        Some(LevelFilter::DEBUG)
    }

    fn event(&self, event: &Event<'_>) {
        let mut start = Start(START);
        event.record(&mut start);
        if start.0.is_empty() {
            self.0.malformed_target();
        }
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

/// What a message has yet to begin with. It is written no further than it takes to tell.
struct Start(&'static str);

impl Visit for Start {
    fn record_debug(&mut self, field: &Field, value: &dyn Debug) {
        if field.name() == "message" {
            // An error means that enough was written.
            let _ = write!(self, "{value:?}");
        }
    }
}

impl Write for Start {
    fn write_str(&mut self, text: &str) -> fmt::Result {
        match self.0.strip_prefix(text) {
            Some(rest) => self.0 = rest,
            None if text.starts_with(self.0) => self.0 = "",
            None => return Err(fmt::Error),
        }
        if self.0.is_empty() { Err(fmt::Error) } else { Ok(()) }
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

    /// `GET https://a` for this path, in one frame on stream 1, behind the preface and empty settings.
    fn bytes(path: &str) -> Vec<u8> {
        let mut bytes = b"PRI * HTTP/2.0\r\n\r\nSM\r\n\r\n\0\0\0\x04\0\0\0\0\0".to_vec();
        // RFC 7541: `:method: GET`, `:scheme: https`, and then a literal for each of `:path` and `:authority`.
        let block = [b"\x82\x87\x04", &[u8::try_from(path.len()).unwrap()][..], path.as_bytes(), b"\x01\x01a"].concat();
        bytes.extend([0, 0, u8::try_from(block.len()).unwrap(), 1, 5, 0, 0, 0, 1]);
        bytes.extend(block);
        bytes
    }

    #[tokio::test]
    async fn two_of_a_process_count_apart() {
        let tallies: [Arc<Tally>; 3] = Default::default();
        let [one, other, none] = [0, 1, 2].map(|n| Unseen::new(Arc::clone(&tallies[n])));
        for (unseen, path) in [(&one, "/?\""), (&other, "/?<"), (&other, "/ "), (&none, "/?{}")] {
            let (mut client, server) = duplex(1 << 10);
            client.write_all(&bytes(path)).await.unwrap();
            let mut server: Connection<DuplexStream, Bytes> = h2::server::handshake(server).await.unwrap();
            let opened = poll_fn(|cx| Poll::Ready(unseen.counted(|| server.poll_accept(cx)))).await;
            assert_eq!(matches!(opened, Poll::Ready(Some(Ok(_)))), path == "/?{}", "{opened:?}");
        }
        assert_eq!(tallies.each_ref().map(|tally| tally.malformed_targets()), [1, 2, 0]);
    }

    #[test]
    fn a_start_is_told_however_it_is_cut() {
        let begins = |parts: &[&str]| {
            let mut start = Start(START);
            let _ = parts.iter().try_for_each(|part| start.write_str(part));
            start.0.is_empty()
        };
        assert!(begins(&["malformed headers: malformed path (\"/{\"): no"]));
        assert!(begins(&["malformed headers: malformed ", "path"]));
        assert!(begins(&["malformed ", "", "headers: malf", "ormed authority", " (", "x", ")"]));
        assert!(!begins(&[]));
        assert!(!begins(&["malformed headers: missing path"]));
        assert!(!begins(&["malformed headers: ", "missing path", "malformed "]));
        assert!(!begins(&["malformed headers: malformed"]));
    }
}
