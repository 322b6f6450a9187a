//! What a request has of a connection: all of it, or a stream.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicUsize, Ordering};
use std::time::Duration;

use bytes::Bytes;
use h2::client::SendRequest;
use tokio::sync::oneshot;

use super::stream::BackendStream;

/// What a request gets of a connection.
#[derive(Debug)]
pub enum Link {
    /// All of it.
    Alone(BackendStream),
    /// A stream.
    Shared(StreamSeat),
}

/// A connection that a request gets.
#[derive(Debug)]
pub struct Reached {
    /// It, or a part of it.
    pub link: Link,
    /// How long it had waited, when it had served another request before.
    pub idled: Option<Duration>,
}

/// What a connection that requests share is about.
#[derive(Debug)]
pub(super) struct StreamLoad {
    streams: AtomicUsize,
    over: AtomicBool,
    /// Dropped with the last of those that use it.
    _used: oneshot::Sender<()>,
}

impl StreamLoad {
    /// One of a connection without requests, and what ends once nobody uses it any more.
    pub(super) fn new() -> (Self, oneshot::Receiver<()>) {
        let (_used, unused) = oneshot::channel();
        (StreamLoad { streams: AtomicUsize::new(0), over: AtomicBool::new(false), _used }, unused)
    }

    /// How many requests it has.
    pub(super) fn streams(&self) -> usize {
        self.streams.load(Ordering::Acquire)
    }

    /// Whether it has ended, or takes no more requests.
    pub(super) fn is_over(&self) -> bool {
        self.over.load(Ordering::Acquire)
    }

    /// Takes note that it has.
    pub(super) fn end(&self) {
        self.over.store(true, Ordering::Release);
    }
}

/// The right to one stream of a connection, which has room for it as long as this lives.
#[derive(Debug)]
pub struct StreamSeat {
    /// What opens it.
    pub sender: SendRequest<Bytes>,
    /// Whether the connection is in TLS.
    pub secure: bool,
    load: Arc<StreamLoad>,
}

impl StreamSeat {
    /// One more on the connection of `sender`, which is in TLS if it is `secure`.
    pub(super) fn new(sender: SendRequest<Bytes>, secure: bool, load: &Arc<StreamLoad>) -> Self {
        load.streams.fetch_add(1, Ordering::AcqRel);
        StreamSeat { sender, secure, load: Arc::clone(load) }
    }

    /// Has the connection get no more requests than it has.
    pub fn retire(&self) {
        self.load.end();
    }
}

impl Drop for StreamSeat {
    fn drop(&mut self) {
        self.load.streams.fetch_sub(1, Ordering::AcqRel);
    }
}
