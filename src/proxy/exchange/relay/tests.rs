use std::future::poll_fn;
use std::num::NonZeroU64;
use std::pin::pin;
use std::time::{Instant, SystemTime};

use bytes::BytesMut;
use pingora_core::ErrorSource;
use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};

use super::*;
use crate::clock::BootTime;
use crate::proxy::downstream::coming::{Coming, ComingOver};
use crate::proxy::downstream::pace::Waited;
use crate::proxy::downstream::parcel::MOST;
use crate::proxy::wire::chunked::Chunked;
use crate::proxy::wire::request_body::Body;

/// The time that tokio's timers have, too.
#[derive(Debug)]
struct Paused;

impl Clock for Paused {
    fn now(&self) -> Instant {
        tokio::time::Instant::now().into_std()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::UNIX_EPOCH
    }

    fn boot(&self) -> Option<BootTime> {
        None
    }
}

const HEAD: &str = "POST / HTTP/1.1\r\n\r\n";
const BOUNDS: BodyBounds = BodyBounds {
    silence: Some(Duration::from_secs(30)),
    rate: NonZeroU64::new(100),
    expects: false,
    underscores: Underscores::Drop,
    length: Some(u64::MAX),
    write: Duration::from_secs(20),
};

/// A body that comes over HTTP/1, on its way.
struct Way {
    relay: Relay,
    coming: Coming,
    ahead: BytesMut,
    client: DuplexStream,
}

impl Way {
    /// One of which `first` was read with its header; the rest comes over the connection whose other end is returned.
    fn new(body: Body, first: &[u8], bounds: BodyBounds) -> (Self, DuplexStream) {
        let (near, client) = duplex(1 << 10);
        let in_chunks = matches!(body, Body::Chunked(_));
        let (mut parcel, clock) = (Parcel::new(), Arc::new(Paused));
        let coming = Coming::new(body, BytesMut::from(first), Waited::new(Arc::clone(&clock) as _), &mut parcel);
        let end = coming.is_done().then(|| coming.trailers());
        let relay = Relay::new((parcel, end), in_chunks, bounds, clock);
        (Way { relay, coming, ahead: BytesMut::new(), client: near }, client)
    }

    fn begin(&mut self) {
        self.relay.begin(&mut HEAD.into(), false);
    }

    fn poll(&mut self, cx: &mut Context<'_>, to: &mut impl RequestSink) -> Poll<Box<Error>> {
        let Way { relay, coming, ahead, client: stream } = self;
        relay.poll(cx, &mut ComingOver { coming, stream, ahead }, to)
    }

    /// Goes on until it is over; an error when it is for the client's sake, or in time.
    async fn run(&mut self, to: &mut impl RequestSink) -> Result<()> {
        poll_fn(|cx| match self.poll(cx, to) {
            Poll::Ready(error) => Poll::Ready(Err(error)),
            Poll::Pending if self.relay.is_over() => Poll::Ready(Ok(())),
            Poll::Pending => Poll::Pending,
        })
        .await
    }
}

/// The body that a backend understands `sent` as.
fn understood(sent: &[u8], in_chunks: bool) -> Vec<u8> {
    let body = sent.strip_prefix(HEAD.as_bytes()).expect("the header section comes first");
    let mut data = Vec::new();
    if in_chunks {
        let mut chunked = Chunked::new();
        assert_eq!(chunked.decode(body, |piece| data.extend_from_slice(piece)), Ok(body.len()));
        assert!(chunked.is_done());
    } else {
        data.extend_from_slice(body);
    }
    data
}

/// A body in chunks of any sizes, with all that may be around them.
fn chunked(data: &[u8], sizes: &[usize], dressed: bool) -> Vec<u8> {
    let (mut out, mut left, mut sizes) = (Vec::new(), data, sizes.iter().copied().cycle());
    while !left.is_empty() {
        let (chunk, rest) = left.split_at(sizes.next().unwrap_or(1).clamp(1, left.len()));
        let extension = if dressed { ";a=\"b;c\"" } else { "" };
        out.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
        out.extend_from_slice(chunk);
        out.extend_from_slice(b"\r\n");
        left = rest;
    }
    out.extend_from_slice(if dressed { b"0;d\r\nX-Sum: 1\r\n\r\n" } else { b"0\r\n\r\n" });
    out
}

fn block_on<F: Future>(future: F) -> F::Output {
    let runtime = tokio::runtime::Builder::new_current_thread().enable_time().start_paused(true).build();
    runtime.expect("a runtime").block_on(future)
}

proptest! {
    #![proptest_config(ProptestConfig { cases: 200, ..ProptestConfig::default() })]

    /// However a body is framed, cut and slowed down, and however often its backend is lost while little of it has
    /// come, the backend gets the same bytes, once; and what comes behind it is not of it.
    #[test]
    fn a_body_arrives_as_it_was_sent(
        length in prop_oneof![0_usize..200, 60_000_usize..70_000, 0_usize..300_000],
        in_chunks: bool,
        dressed: bool,
        sizes in prop::collection::vec(prop_oneof![1_usize..10, 1_usize..100_000], 1..6),
        cuts in prop::collection::vec(prop_oneof![1_usize..50, 1_usize..100_000], 1..6),
        first in 0_usize..3000,
        takes in prop_oneof![1_usize..100, 1_usize..100_000],
        lost_after in prop::collection::vec(0_usize..80_000, 0..3),
    ) {
        let data: Vec<u8> = (0..length).map(|n| ((n * 31) >> 3) as u8).collect();
        let bytes = if in_chunks { chunked(&data, &sizes, dressed) } else { data.clone() };
        let body = if in_chunks { Body::Chunked(Chunked::new()) } else { Body::Length(length as u64) };
        let first = first.min(bytes.len());
        let (got, ahead, received) = block_on(async {
            let (mut way, mut client) = Way::new(body, &bytes[..first], BOUNDS);
            let late = [&bytes[first..], &b"GET /next"[..]].concat();
            let sending = async {
                let mut left = &late[..];
                for cut in cuts.iter().cycle() {
                    let (part, rest) = left.split_at((*cut).min(left.len()));
                    client.write_all(part).await.unwrap();
                    left = rest;
                    if left.is_empty() { break }
                    tokio::task::yield_now().await;
                }
                client
            };
            let relaying = async {
                let mut lost = lost_after.iter();
                loop {
                    let (mut to, mut backend) = duplex(takes);
                    way.begin();
                    let most = lost.next().copied().unwrap_or(usize::MAX);
                    let mut got = Vec::new();
                    let taking = async {
                        let mut part = [0; 5000];
                        while got.len() < most {
                            match backend.read(&mut part).await.unwrap() {
                                0 => return true,
                                read => got.extend_from_slice(&part[..read]),
                            }
                        }
                        drop(backend);
                        false
                    };
                    let running = async {
                        way.run(&mut to).await.unwrap();
                        drop(to);
                    };
                    let ((), is_whole) = tokio::join!(running, taking);
                    if is_whole {
                        assert!(way.relay.is_sent());
                        break got;
                    }
                    // All of it may have been on its way to a backend that left before it had read it.
                    assert!(way.relay.is_sent() || way.relay.take_refusal().is_some());
                    if !way.relay.is_kept() {
                        // Too much has passed to begin anew.
                        assert!(way.relay.received() > MOST as u64 - 1);
                        return None;
                    }
                }.into()
            };
            let (client, got) = {
                let (mut sending, mut relaying) = (pin!(sending), pin!(relaying));
                let mut client = None;
                let got = poll_fn(|cx| {
                    if client.is_none() && let Poll::Ready(end) = sending.as_mut().poll(cx) { client = Some(end) }
                    relaying.as_mut().poll(cx)
                }).await;
                (client, got)
            };
            drop(client);
            (got, way.ahead, way.relay.received())
        });
        if let Some(got) = got {
            prop_assert!(understood(&got, in_chunks) == data);
            prop_assert_eq!(received, length as u64);
            prop_assert!(b"GET /next".starts_with(&ahead));
        }
    }
}

#[test]
fn a_silent_client_and_one_that_drips_are_cut_and_a_slow_backend_is_another_matter() {
    block_on(async {
        let start = tokio::time::Instant::now();
        let (mut way, _client) = Way::new(Body::Length(9), b"abc", BOUNDS);
        way.begin();
        // Ten seconds are given, and what the bytes are worth.
        let error = way.run(&mut tokio::io::sink()).await.unwrap_err();
        assert_eq!((error.etype(), error.esource()), (&ErrorType::ReadTimedout, &ErrorSource::Downstream));
        assert_eq!((way.relay.rejection(), start.elapsed().as_secs()), (Some(Rejection::RequestTimeout), 10));

        let start = tokio::time::Instant::now();
        let (mut way, _client) = Way::new(Body::Length(9), b"abc", BOUNDS);
        way.begin();
        way.relay.answer_begins();
        assert!(way.run(&mut tokio::io::sink()).await.is_err());
        assert_eq!(start.elapsed().as_secs(), 30, "once the answer has begun");

        let start = tokio::time::Instant::now();
        let (mut way, _client) = Way::new(Body::Length(9), b"abc", BOUNDS);
        way.begin();
        way.relay.answer_ends();
        assert!(way.run(&mut tokio::io::sink()).await.is_err());
        assert_eq!(start.elapsed().as_secs(), 1, "once it is whole");

        let start = tokio::time::Instant::now();
        let (mut way, mut client) = Way::new(Body::Length(1 << 20), b"", BOUNDS);
        way.begin();
        let (mut to, mut backend) = duplex(1000);
        let sending = async { client.write_all(&[b'x'; 1 << 20]).await };
        let taking = async {
            let mut taken = 0;
            while taken < HEAD.len() + (1 << 20) {
                tokio::time::sleep(Duration::from_secs(1)).await;
                taken += backend.read(&mut [0; 1000]).await.unwrap();
            }
        };
        let (end, sent, ()) = tokio::join!(way.run(&mut to), sending, taking);
        assert!(end.is_ok() && sent.is_ok() && start.elapsed().as_secs() > 1000, "it is its backend that is slow");

        let start = tokio::time::Instant::now();
        let (mut way, _client) = Way::new(Body::Length(2000), &[b'x'; 2000], BOUNDS);
        way.begin();
        let (mut to, _backend) = duplex(1000);
        let error = way.run(&mut to).await.unwrap_err();
        assert_eq!((error.etype(), error.esource()), (&ErrorType::WriteTimedout, &ErrorSource::Upstream));
        assert_eq!(start.elapsed().as_secs(), 20);
    });
}

#[test]
fn what_is_too_long_or_no_body_is_not_sent_as_a_whole_one() {
    let five = BodyBounds { length: Some(u64::MAX), ..BOUNDS };
    for (first, later, rejection) in [
        (&b"5\r\nhello\r\n"[..], &b"1\r\n!\r\n0\r\n\r\n"[..], Rejection::BodyTooLarge(5)),
        (b"", b"6\r\nhello!\r\n0\r\n\r\n", Rejection::BodyTooLarge(5)),
        (b"5\r\nhello\r\n", b"zz\r\n", Rejection::BadRequest(MALFORMED_BODY)),
    ] {
        let sent = block_on(async {
            let (mut way, mut client) = Way::new(Body::Chunked(Chunked::new()), first, five);
            way.relay.bound(5, Duration::from_secs(20)).unwrap();
            way.begin();
            let mut sent = Vec::new();
            client.write_all(later).await.unwrap();
            let error = way.run(&mut sent).await.unwrap_err();
            assert_eq!((error.esource(), way.relay.rejection()), (&ErrorSource::Downstream, Some(rejection)));
            sent
        });
        assert!(!sent.ends_with(LAST_CHUNK), "{}", sent.escape_ascii());
    }
    block_on(async {
        let (mut way, _client) = Way::new(Body::Chunked(Chunked::new()), b"6\r\nhello!\r\n", five);
        assert!(way.relay.bound(5, Duration::ZERO).is_err());
        // gRPC has no bound.
        let (mut way, _client) = Way::new(Body::Length(9), b"hello!", BodyBounds { length: None, ..five });
        assert!(way.relay.bound(5, Duration::ZERO).is_ok());
    });
}

#[test]
fn a_client_that_leaves_within_its_body_ends_it() {
    block_on(async {
        let (mut way, client) = Way::new(Body::Length(9), b"abc", BOUNDS);
        way.begin();
        drop(client);
        let mut sent = Vec::new();
        let error = way.run(&mut sent).await.unwrap_err();
        assert_eq!((error.etype(), error.esource()), (&ErrorType::ConnectionClosed, &ErrorSource::Downstream));
        assert!(!way.relay.is_read() && way.relay.rejection().is_none());
    });
}

#[test]
fn what_a_backend_does_not_take_is_read_for_nothing() {
    block_on(async {
        let (mut way, mut client) = Way::new(Body::Length(100_000), b"", BOUNDS);
        let sending = async { client.write_all(&[b'x'; 100_003]).await.unwrap() };
        let Way { relay, coming, ahead, client: stream } = &mut way;
        let mut over = ComingOver { coming, stream, ahead };
        let discarding = poll_fn(|cx| relay.poll_discard(cx, &mut over));
        let mut sending = pin!(sending);
        let mut discarding = pin!(discarding);
        poll_fn(|cx| {
            let _ = sending.as_mut().poll(cx);
            discarding.as_mut().poll(cx)
        })
        .await
        .unwrap();
        assert!(way.relay.is_read() && way.relay.received() == 100_000);
    });
}

#[test]
fn an_answer_is_waited_for_as_long_again_behind_each_part_of_its_request() {
    block_on(async {
        let limit = Duration::from_secs(5);
        let (mut way, mut client) = Way::new(Body::Length(2), b"", BOUNDS);
        way.begin();
        let mut to = tokio::io::sink();
        let mut turn = async |way: &mut Way| {
            tokio::time::sleep(Duration::from_secs(3)).await;
            poll_fn(|cx| Poll::Ready(way.poll(cx, &mut to).is_pending())).await
        };
        assert!(turn(&mut way).await);
        assert_eq!(way.relay.more_time(limit), Some(limit));
        client.write_all(b"x").await.unwrap();
        assert!(turn(&mut way).await);
        assert_eq!(way.relay.more_time(limit), Some(limit));
        client.write_all(b"y").await.unwrap();
        assert!(turn(&mut way).await && way.relay.is_sent());
        assert!(turn(&mut way).await);
        assert_eq!(way.relay.more_time(limit), Some(Duration::from_secs(2)));
        assert!(turn(&mut way).await);
        assert_eq!(way.relay.more_time(limit), None);
    });
}
