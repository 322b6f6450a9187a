//! The pump between two pipes, whose other ends the test holds.

use std::io;

use proptest::prelude::*;
use tokio::io::{AsyncReadExt, AsyncWriteExt, DuplexStream, duplex};
use tokio::runtime::Builder;

use super::*;
use crate::clock::{ManualClock, SystemClock};

/// Longer than anything takes.
const LONG: Duration = Duration::from_secs(3600);

/// Lets bytes pass between two pipes until both sides have ended.
async fn passed(client: &mut DuplexStream, early: &[u8], backend: &mut DuplexStream, behind: &[u8]) -> Passed {
    let (early, behind) = (BytesMut::from(early), BytesMut::from(behind));
    pass((client, early), (backend, behind), b"", (LONG, &SystemClock), std::future::pending()).await
}

/// Sends `pieces`, ends, and reads to the end.
async fn talk(stream: DuplexStream, pieces: Vec<Vec<u8>>) -> Vec<u8> {
    let (mut reads, mut writes) = tokio::io::split(stream);
    let send = async {
        for piece in &pieces {
            writes.write_all(piece).await.unwrap();
            tokio::task::yield_now().await;
        }
        writes.shutdown().await.unwrap();
    };
    let mut all = Vec::new();
    let (read, ()) = tokio::join!(reads.read_to_end(&mut all), send);
    read.unwrap();
    all
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(64))]

    /// Whatever is sent in whatever pieces over pipes of whatever width, before or after the pump begins, arrives whole
    /// and in order, and is counted.
    #[test]
    fn nothing_is_lost_or_swapped(
        up in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..12),
        down in prop::collection::vec(prop::collection::vec(any::<u8>(), 1..3000), 0..12),
        early in prop::collection::vec(any::<u8>(), 0..3000),
        behind in prop::collection::vec(any::<u8>(), 0..3000),
        widths in (1_usize..5000, 1_usize..5000),
    ) {
        let (client, mut near) = duplex(widths.0);
        let (mut far, backend) = duplex(widths.1);
        let (sent_up, sent_down) = ([early.clone(), up.concat()].concat(), [behind.clone(), down.concat()].concat());
        let runtime = Builder::new_current_thread().enable_time().build().unwrap();
        let (got_down, got_up, passed) = runtime.block_on(async {
            let passing = async {
                let passed = passed(&mut near, &early, &mut far, &behind).await;
                drop((near, far));
                passed
            };
            tokio::join!(talk(client, up), talk(backend, down), passing)
        });
        prop_assert_eq!((passed.from_client, passed.to_client), (sent_up.len() as u64, sent_down.len() as u64));
        prop_assert_eq!(passed.end, TunnelEnd::Both);
        prop_assert!(got_up == sent_up && got_down == sent_down);
    }
}

#[tokio::test]
async fn the_other_direction_goes_on_when_one_has_ended() {
    let (mut client, mut near) = duplex(64);
    let (mut far, mut backend) = duplex(64);
    let test = async {
        client.write_all(b"question").await.unwrap();
        client.shutdown().await.unwrap();
        let mut question = Vec::new();
        backend.read_to_end(&mut question).await.unwrap();
        assert_eq!(question, b"question");
        for _ in 0..3 {
            backend.write_all(b"answer").await.unwrap();
            let mut answer = [0; 6];
            client.read_exact(&mut answer).await.unwrap();
            assert_eq!(&answer, b"answer");
        }
        backend.shutdown().await.unwrap();
        assert_eq!(client.read(&mut [0]).await.unwrap(), 0);
    };
    let (passed, ()) = tokio::join!(passed(&mut near, b"", &mut far, b""), test);
    assert_eq!((passed.from_client, passed.to_client, passed.end), (8, 18, TunnelEnd::Both));
}

#[tokio::test]
async fn one_that_takes_nothing_is_not_sent_more() {
    let (mut client, mut near) = duplex(64 << 10);
    let (mut far, backend) = duplex(16);
    let mut sent = 0;
    let flood = async {
        // As much as goes in while nobody takes anything.
        while let Ok(part) = tokio::time::timeout(Duration::from_millis(50), client.write(&[7; 4096])).await {
            sent += part.unwrap();
        }
    };
    tokio::select! {
        _ = passed(&mut near, b"", &mut far, b"") => panic!("nobody has ended"),
        () = flood => {}
    }
    // The pipe, one piece, and what the other pipe takes.
    assert!(sent <= (64 << 10) + PIECE + 16, "{sent}");
    drop(backend);
}

/// A stream that hands out `said` and then fails, and takes nothing.
struct Broken<'b> {
    said: &'b [u8],
    kind: ErrorKind,
}

impl AsyncRead for Broken<'_> {
    fn poll_read(mut self: Pin<&mut Self>, _: &mut Context<'_>, piece: &mut ReadBuf<'_>) -> Poll<io::Result<()>> {
        let said = std::mem::take(&mut self.as_mut().get_mut().said);
        piece.put_slice(said);
        Poll::Ready(if said.is_empty() { Err(self.kind()) } else { Ok(()) })
    }
}

impl Broken<'_> {
    fn kind(&self) -> io::Error {
        self.kind.into()
    }
}

impl AsyncWrite for Broken<'_> {
    fn poll_write(self: Pin<&mut Self>, _: &mut Context<'_>, _: &[u8]) -> Poll<io::Result<usize>> {
        Poll::Ready(Err(self.kind()))
    }

    fn poll_flush(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.kind()))
    }

    fn poll_shutdown(self: Pin<&mut Self>, _: &mut Context<'_>) -> Poll<io::Result<()>> {
        Poll::Ready(Err(self.kind()))
    }
}

#[tokio::test]
async fn what_was_said_before_a_break_arrives_also_when_it_cannot_be_answered() {
    for (kind, end) in
        [(ErrorKind::ConnectionReset, TunnelEnd::Backend), (ErrorKind::UnexpectedEof, TunnelEnd::BackendWent)]
    {
        let (mut client, mut near) = duplex(64);
        client.write_all(b"ping").await.unwrap();
        let mut far = Broken { said: b"goodbye", kind };
        let passed = pass(
            (&mut near, BytesMut::new()),
            (&mut far, BytesMut::new()),
            b"",
            (LONG, &SystemClock),
            std::future::pending(),
        );
        assert_eq!(passed.await.end, end);
        drop(near);
        let mut heard = Vec::new();
        client.read_to_end(&mut heard).await.unwrap();
        assert_eq!(heard, b"goodbye", "{kind}");
    }
}

#[tokio::test]
async fn what_the_backend_is_owed_comes_first_and_is_not_the_clients() {
    let (mut client, mut near) = duplex(4);
    let (mut far, mut backend) = duplex(4);
    let early = BytesMut::from(&b"early"[..]);
    let passing =
        pass((&mut near, early), (&mut far, BytesMut::new()), b"owed", (LONG, &SystemClock), std::future::pending());
    let test = async {
        client.shutdown().await.unwrap();
        let mut heard = Vec::new();
        backend.read_to_end(&mut heard).await.unwrap();
        backend.shutdown().await.unwrap();
        heard
    };
    let (passed, heard) = tokio::join!(passing, test);
    assert_eq!((&heard[..], passed.from_client), (&b"owedearly"[..], 5));
}

#[tokio::test(start_paused = true)]
async fn a_silence_ends_it_and_bytes_in_either_direction_do_not() {
    let clock = ManualClock::new();
    for from_client in [true, false] {
        let (mut client, mut near) = duplex(64);
        let (mut far, mut backend) = duplex(64);
        let test = async {
            for _ in 0..5 {
                tokio::time::sleep(Duration::from_secs(40)).await;
                clock.advance(Duration::from_secs(40));
                let (says, hears) = if from_client { (&mut client, &mut backend) } else { (&mut backend, &mut client) };
                says.write_all(b"x").await.unwrap();
                hears.read_exact(&mut [0]).await.unwrap();
            }
            // From here on time passes alone.
            loop {
                tokio::time::sleep(Duration::from_secs(1)).await;
                clock.advance(Duration::from_secs(1));
            }
        };
        let start = clock.now();
        let silence = (Duration::from_secs(60), &clock as &dyn Clock);
        let passing =
            pass((&mut near, BytesMut::new()), (&mut far, BytesMut::new()), b"", silence, std::future::pending());
        let passed = tokio::select! {
            passed = passing => passed,
            () = test => panic!("it has no end"),
        };
        let took = (clock.now() - start).as_secs();
        assert_eq!(passed.end, TunnelEnd::Silence);
        assert!((259..=261).contains(&took), "{took}");
    }
}

#[tokio::test]
async fn a_stop_ends_it() {
    let ((_client, mut near), (mut far, _backend)) = (duplex(64), duplex(64));
    let ends = ((&mut near, BytesMut::new()), (&mut far, BytesMut::new()));
    let passed = pass(ends.0, ends.1, b"", (LONG, &SystemClock), std::future::ready(())).await;
    assert_eq!(passed.end, TunnelEnd::Stop);
}
