//! Connections in HTTP/2 to backends, each of which many requests share.
//!
//! The problem: a stream is cheap and a connection is not, but what a backend allows on one is its to say, and changes;
//! a connection that is given up by its backend still has requests to finish; and many requests that come at once must
//! not make a connection each, only because none is there yet.
//!
//! The rule: a request gets a stream on a connection of its own thread, on the first one that has room: as many streams
//! as the backend's SETTINGS allow, and [`MOST_STREAMS`] at most. Where none has, one request makes another connection,
//! and those that come meanwhile wait for it. A connection counts once the backend has answered a PING, before which it
//! has said what it allows: so nothing is sent to one that does not speak HTTP/2, and what it does not allow is not
//! tried. One that has been told to go gets no more requests, and is gone with its last one; so does one over which a
//! request has waited in vain: what has hung up without a word, or no longer reads, takes no others with it. One
//! without requests is closed after the pool's `idle_timeout`.
//!
//! What a backend can make this process hold is bounded: [`STREAM_WINDOW`] for each stream that its client does not
//! take, and [`CONNECTION_WINDOW`] for a connection, which is enough for all of its streams, so that no slow client
//! holds up the others; [`SMALL_FRAMES`] for what frames cost beside that; a header section of 64 KiB; and what h2
//! bounds itself (resets, floods of control frames, empty frames). Pushed streams are refused.
//!
//! Refused: a bound on connections to a backend (it is the backend that says how many streams it takes on one); PING on
//! connections that are silent, which gRPC servers take for an attack when it comes more often than every five minutes.
//! The kernel looks after whether the other machine is there.

use std::collections::HashMap;
use std::future::poll_fn;
use std::num::NonZeroUsize;
use std::pin::{Pin, pin};
use std::sync::Arc;
use std::task::{Context, Poll, Waker};
use std::time::{Duration, Instant};

use ahash::RandomState;
use bytes::Bytes;
use h2::client::{Builder, Connection, SendRequest};
use h2::{Ping, PingPong};
use parking_lot::Mutex;
use pingora_core::{Error, ErrorType, Result};
use tokio::sync::Semaphore;
use tokio::time::timeout;

use super::connect::connect;
use super::link::{Link, Reached, StreamLoad, StreamSeat};
use super::manner::Protocol;
use super::sips::Sips;
use super::site::Site;
use super::stream::BackendStream;
use crate::upstream::Sharded;

/// The most requests on one connection at once.
const MOST_STREAMS: usize = 128;
/// What a backend may send ahead on a stream, in bytes.
const STREAM_WINDOW: u32 = 64 << 10;
/// The same on all streams of a connection.
const CONNECTION_WINDOW: u32 = STREAM_WINDOW * MOST_STREAMS as u32;
/// What may lie here of each request that its backend does not take.
const SEND_BUFFER: usize = 64 << 10;
/// The largest header section of an answer.
const MAX_HEAD: u32 = 64 << 10;
/// What small frames may cost that are not taken, in bytes: enough for a stream that is full of messages of a byte.
const SMALL_FRAMES: usize = 3 << 20;
/// How long a connection that nobody uses any more may take to say goodbye.
const GOODBYE: Duration = Duration::from_secs(5);

/// The silence after which the kernel asks whether the other machine is there, and how often it does.
const SILENCE: Duration = Duration::from_secs(60);
const BETWEEN: Duration = Duration::from_secs(10);

/// The connections that requests share. Any thread may use it at any time.
#[derive(Debug)]
pub(super) struct SharedConnections {
    shelves: Sharded<Mutex<SharedShelf>>,
    /// Whether one runtime drives all threads, so that each may use what another has made.
    shared: bool,
}

/// Those of one thread, by the address of where they lead to: it is there as long as one of them.
#[derive(Debug, Default)]
struct SharedShelf(HashMap<usize, SharedRow, RandomState>);

/// Those to one backend.
#[derive(Debug)]
struct SharedRow {
    _site: Arc<Site>,
    connections: Vec<SharedConnection>,
    /// Closed when the connection that is being made is there, or is not going to be.
    making: Option<Arc<Semaphore>>,
}

#[derive(Debug)]
struct SharedConnection {
    sender: SendRequest<Bytes>,
    secure: bool,
    load: Arc<StreamLoad>,
    /// Since when it is known to have no request.
    idle: Option<Instant>,
    /// For how long it may have none.
    longest: Duration,
}

/// What a request finds.
enum FoundStream {
    /// A stream, on a connection that had nothing to do for so long.
    Seat(StreamSeat, Duration),
    /// A connection that is being made.
    Made(Arc<Semaphore>),
    /// Nothing, so that it makes one.
    Nothing(Arc<Semaphore>),
}

/// Ends the wait of those that wait for a connection, whether it is there or not.
struct Making<'m> {
    shelf: &'m Mutex<SharedShelf>,
    key: usize,
    made: Arc<Semaphore>,
}

impl Drop for Making<'_> {
    fn drop(&mut self) {
        if let Some(row) = self.shelf.lock().0.get_mut(&self.key) {
            row.making = None;
        }
        self.made.close();
    }
}

impl SharedConnections {
    /// Those of so many `threads`, which one runtime drives if they are `shared`.
    pub(super) fn new(threads: NonZeroUsize, shared: bool) -> Self {
        SharedConnections { shelves: Sharded::of(threads.get().next_power_of_two()), shared }
    }

    fn shelf(&self) -> &Mutex<SharedShelf> {
        self.shelves.iter().next().filter(|_| self.shared).unwrap_or_else(|| self.shelves.mine())
    }

    /// A stream to `site` on a connection that is open at `now` or made within `limit`; one without requests is kept
    /// for `longest`. A backend that may choose and chooses HTTP/1.1 gives a connection; `None` when it has done so
    /// before.
    ///
    /// # Errors
    /// When none can be made.
    pub(super) async fn reach(
        &self,
        site: &Arc<Site>,
        now: Instant,
        (limit, longest): (Duration, Duration),
    ) -> Result<Option<Reached>> {
        let reaching = async {
            while !site.chose_http1() {
                match self.find(site, now) {
                    FoundStream::Seat(seat, idle) => {
                        return Ok(Some(Reached { link: Link::Shared(seat), idled: Some(idle) }));
                    }
                    // An error says that it is over.
                    FoundStream::Made(made) => drop(made.acquire().await),
                    FoundStream::Nothing(made) => {
                        let _making = Making { shelf: self.shelf(), key: key(site), made };
                        let stream = connect(site, None, limit).await?;
                        if site.protocol() == Protocol::Auto && stream.negotiated() != Some(Protocol::Http2) {
                            site.set_chose_http1(true);
                            return Ok(Some(Reached { link: Link::Alone(stream), idled: None }));
                        }
                        return self.take_up(site, stream, longest).await.map(Some);
                    }
                }
            }
            Ok(None)
        };
        match timeout(limit, reaching).await {
            Ok(reached) => reached,
            Err(_) => Err(Error::explain(ErrorType::ConnectTimedout, "connecting").into_up()),
        }
    }

    /// Begins HTTP/2 over `stream`, and gives its first stream.
    pub(super) async fn take_up(&self, site: &Arc<Site>, stream: BackendStream, longest: Duration) -> Result<Reached> {
        let begun = begin(stream).await?;
        site.set_chose_http1(false);
        Ok(Reached { link: Link::Shared(self.put(site, begun, longest)), idled: None })
    }

    fn find(&self, site: &Arc<Site>, now: Instant) -> FoundStream {
        let mut shelf = self.shelf().lock();
        let row = shelf.row(site);
        row.connections.retain_mut(SharedConnection::is_open);
        if let Some(connection) = row.connections.iter_mut().find(|connection| connection.has_room()) {
            let idle = connection.idle.map(|since| now.saturating_duration_since(since));
            return FoundStream::Seat(connection.sit(), idle.unwrap_or_default());
        }
        match &row.making {
            Some(made) => FoundStream::Made(Arc::clone(made)),
            None => FoundStream::Nothing(Arc::clone(row.making.insert(Arc::new(Semaphore::new(0))))),
        }
    }

    /// Keeps a connection that was made, and has the runtime drive it; its first stream.
    fn put(
        &self,
        site: &Arc<Site>,
        (sender, connection): (SendRequest<Bytes>, Connection<Sips<BackendStream>, Bytes>),
        longest: Duration,
    ) -> StreamSeat {
        let (load, unused) = StreamLoad::new();
        let load = Arc::new(load);
        let mut made =
            SharedConnection { sender, secure: site.tls().is_some(), load: Arc::clone(&load), idle: None, longest };
        let seat = made.sit();
        let load = Arc::downgrade(&load);
        tokio::spawn(async move {
            let mut connection = pin!(connection);
            // How it ended, each of its streams is told.
            tokio::select! {
                _ = &mut connection => {}
                // A backend that takes nothing does not hear it.
                _ = unused => drop(timeout(GOODBYE, connection).await),
            }
            if let Some(load) = load.upgrade() {
                load.end();
            }
        });
        self.shelf().lock().row(site).connections.push(made);
        seat
    }

    /// Closes those that had no request for too long at `now`, and forgets those that are over.
    pub(super) fn sweep(&self, now: Instant) {
        for shelf in self.shelves.iter() {
            let mut over = Vec::new();
            shelf.lock().0.retain(|_, row| {
                over.extend(row.connections.extract_if(.., |connection| !connection.stays(now)));
                !row.connections.is_empty() || row.making.is_some()
            });
            // The last handle says goodbye, and nobody waits for the lock meanwhile.
            drop(over);
        }
    }
}

impl SharedShelf {
    fn row(&mut self, site: &Arc<Site>) -> &mut SharedRow {
        let new = || SharedRow { _site: Arc::clone(site), connections: Vec::new(), making: None };
        self.0.entry(key(site)).or_insert_with(new)
    }
}

fn key(site: &Arc<Site>) -> usize {
    Arc::as_ptr(site).addr()
}

impl SharedConnection {
    /// Whether it takes requests: it is there, no request has waited for it in vain, and its backend has said neither
    /// that it goes nor that it allows none, in which case there would be ever more that wait to be of use.
    fn is_open(&mut self) -> bool {
        let mut cx = Context::from_waker(Waker::noop());
        let allows = self.load.streams() > 0 || self.sender.current_max_send_streams() > 0;
        allows && !self.load.is_over() && !matches!(self.sender.poll_ready(&mut cx), Poll::Ready(Err(_)))
    }

    fn has_room(&self) -> bool {
        let most = self.sender.current_max_send_streams().min(MOST_STREAMS);
        self.load.streams() < most
    }

    fn sit(&mut self) -> StreamSeat {
        self.idle = None;
        StreamSeat::new(self.sender.clone(), self.secure, &self.load)
    }

    /// Whether it is kept at `now`.
    fn stays(&mut self, now: Instant) -> bool {
        if !self.is_open() {
            return false;
        }
        if self.load.streams() > 0 {
            self.idle = None;
            return true;
        }
        now.saturating_duration_since(*self.idle.get_or_insert(now)) < self.longest
    }
}

/// Begins to speak HTTP/2 over `stream`; ready once the backend has said what it allows.
pub(in crate::upstream) async fn begin(
    stream: BackendStream,
) -> Result<(SendRequest<Bytes>, Connection<Sips<BackendStream>, Bytes>)> {
    look_after(&stream);
    let mut options = Builder::new();
    options
        .enable_push(false)
        .initial_window_size(STREAM_WINDOW)
        .initial_connection_window_size(CONNECTION_WINDOW)
        .max_header_list_size(MAX_HEAD)
        .max_send_buffer_size(SEND_BUFFER)
        .data_frame_budget(SMALL_FRAMES);
    let (sender, mut connection) = options.handshake(Sips::of(stream)).await.map_err(not_begun)?;
    let mut pings = connection.ping_pong().ok_or_else(|| Error::new_str("a connection without PING"))?;
    pings.send_ping(Ping::opaque()).map_err(not_begun)?;
    poll_fn(|cx| poll_pong(cx, &mut connection, &mut pings)).await?;
    if sender.current_max_send_streams() == 0 {
        return Err(Error::explain(ErrorType::H2Error, "it allows no requests").into_up());
    }
    Ok((sender, connection))
}

/// Has the kernel find out when the other machine is gone. Where it cannot, that is found out by what is sent.
fn look_after(stream: &BackendStream) {
    use rustix::net::sockopt;
    if let Some(tcp) = stream.tcp() {
        let _ = sockopt::set_socket_keepalive(tcp, true);
        let _ = sockopt::set_tcp_keepidle(tcp, SILENCE);
        let _ = sockopt::set_tcp_keepintvl(tcp, BETWEEN);
    }
}

/// Waits until the PING is answered.
fn poll_pong(
    cx: &mut Context<'_>,
    connection: &mut Connection<Sips<BackendStream>, Bytes>,
    pings: &mut PingPong,
) -> Poll<Result<()>> {
    if let Poll::Ready(end) = Pin::new(connection).poll(cx) {
        return Poll::Ready(Err(match end {
            Ok(()) => Error::explain(ErrorType::H2Error, CLOSED).into_up(),
            Err(error) => not_begun(error),
        }));
    }
    pings.poll_pong(cx).map_ok(drop).map_err(not_begun)
}

const CLOSED: &str = "it closed the connection instead of speaking HTTP/2";

/// A connection that did not come about.
fn not_begun(error: h2::Error) -> Box<Error> {
    match error.get_io() {
        Some(_) => Error::because(ErrorType::H2Error, CLOSED, error).into_up(),
        None if error.is_library() => Error::because(ErrorType::H2Error, "it does not speak HTTP/2", error).into_up(),
        None => Error::because(ErrorType::H2Error, format!("it refused the connection: {error}"), error).into_up(),
    }
}

/// A stream over `stream`, beside everything that keeps connections.
///
/// # Errors
/// When the other side does not speak HTTP/2.
#[cfg(any(fuzzing, test))]
pub async fn streamed(stream: BackendStream) -> Result<Link> {
    let (sender, connection) = begin(stream).await?;
    tokio::spawn(connection);
    Ok(Link::Shared(StreamSeat::new(sender, false, &Arc::new(StreamLoad::new().0))))
}
