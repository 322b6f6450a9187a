//! Whole connections against a client and a backend that a seed plays, over real sockets in one thread.
//!
//! Tokio's clock is paused: it moves on to the next timer as soon as nobody has anything to do, so silences of minutes
//! cost nothing. What is asserted holds whatever the timing: no byte of a body is lost or doubled, a body that breaks
//! off is never taken for a whole one, a request that may not be repeated is not, nobody gets two answers or another's,
//! a connection to a backend that has unread rest in it is not used again, and each request is counted once.
//!
//! Long because a client, a backend and the server between them are one play.

use std::collections::HashMap;
use std::net::SocketAddr;
use std::num::{NonZeroU32, NonZeroUsize};
use std::panic::{AssertUnwindSafe, catch_unwind, resume_unwind};
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use fastrand::Rng;
use futures_util::FutureExt;
use parking_lot::Mutex;
use pingora_core::apps::ServerApp;
use pingora_proxy::HttpProxy;
use tokio::io::{AsyncReadExt, AsyncWriteExt};
use tokio::net::tcp::OwnedReadHalf;
use tokio::net::{TcpListener, TcpStream};
use tokio::sync::watch;
use tokio::time::sleep;

use crate::client::{Directory, Quota};
use crate::clock::{BootTime, Clock, Timeline};
use crate::limit::exact::Exact;
use crate::proxy::downstream::activity::Activity;
use crate::proxy::downstream::patience::Patience;
use crate::proxy::downstream::seats::{SeatRoom, Seats};
use crate::proxy::downstream::socket::ClientSocket;
use crate::proxy::exchange::parts::ProxyParts;
use crate::proxy::exchange::proxy::Proxy;
use crate::proxy::exchange::untaken::UntakenAnswers;
use crate::proxy::gate::admit::Destination;
use crate::proxy::gate::identify::Identity;
use crate::proxy::gate::rules::Rules;
use crate::proxy::gate::settings::Limits;
use crate::proxy::service::downstream::Downstream;
use crate::proxy::wire::chunked::Chunked;
use crate::route::{HostPattern, PathPrefix, RouteTable};
use crate::telemetry::{AccessLog, Tally};
use crate::upstream::{
    BackendAddress, BackendSettings, Check, HealthSettings, Pool, PoolSettings, Timeouts, Transport,
};

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

/// The body of the request or the answer with this number.
fn body(number: usize, length: usize) -> Vec<u8> {
    (0..length).map(|at| (at * 7 + number * 131 + (at >> 8)) as u8).collect()
}

/// What backends saw.
#[derive(Debug, Default)]
struct Saw {
    /// How often each request came whole.
    whole: HashMap<usize, usize>,
    /// Whether something was not what it should be, which stands in the test's output.
    wrong: bool,
}

type Seen = Arc<Mutex<Saw>>;

/// A request as it is told in its target, by number and length of its body.
fn told(head: &str) -> (usize, usize) {
    let target = head.split(' ').nth(1).unwrap_or_default();
    let (number, length) =
        target.trim_start_matches('/').split_once('-').unwrap_or_else(|| panic!("no request: {head:?}"));
    (number.parse().unwrap(), length.parse().unwrap())
}

fn header<'h>(head: &'h str, name: &str) -> Option<&'h str> {
    let lines = head.lines().filter_map(|line| line.split_once(": "));
    lines.filter(|(given, _)| given.eq_ignore_ascii_case(name)).map(|(_, value)| value).next()
}

/// Bytes that come over a connection.
struct Wire<R> {
    from: R,
    read: Vec<u8>,
}

impl<R: AsyncReadExt + Unpin> Wire<R> {
    async fn more(&mut self) -> bool {
        matches!(self.from.read_buf(&mut self.read).await, Ok(1..))
    }

    /// The next header section; none when the connection ends before one begins, or within one.
    async fn head(&mut self) -> Option<String> {
        loop {
            if let Some(end) = memchr::memmem::find(&self.read, b"\r\n\r\n") {
                let rest = self.read.split_off(end + 4);
                return Some(String::from_utf8(std::mem::replace(&mut self.read, rest)).unwrap());
            }
            if !self.more().await {
                return None;
            }
        }
    }

    /// The body behind `head`, when it comes whole. Sleeps now and then, or gives up, as `pace` says.
    async fn body(&mut self, head: &str, pace: &mut impl FnMut() -> Option<Duration>) -> Option<Vec<u8>> {
        let mut chunked = header(head, "transfer-encoding").map(|_| Chunked::new());
        let length: usize = header(head, "content-length").map_or(0, |length| length.parse().unwrap());
        let mut data = Vec::new();
        loop {
            let at;
            let done = match &mut chunked {
                Some(chunked) => {
                    at = chunked.decode(&self.read, |piece| data.extend_from_slice(piece)).expect("chunks");
                    chunked.is_done()
                }
                None => {
                    at = self.read.len().min(length - data.len());
                    data.extend_from_slice(&self.read[..at]);
                    data.len() == length
                }
            };
            self.read.drain(..at);
            if done {
                return Some(data);
            }
            sleep(pace()?).await;
            if !self.more().await {
                return None;
            }
        }
    }
}

/// Serves one connection as `rng` says.
async fn play_backend(mut stream: TcpStream, mut rng: Rng, seen: Seen) {
    let (from, mut to) = stream.split();
    let mut wire = Wire { from, read: Vec::new() };
    while let Some(head) = wire.head().await {
        let (number, length) = told(&head);
        let how = rng.u8(..12);
        let answered = rng.choice([0, 5, 5000, 100_000]).unwrap();
        let answer = format!("HTTP/1.1 200 OK\r\nX-Number: {number}\r\nContent-Length: {answered}\r\n\r\n");
        let answer = [answer.as_bytes(), &body(number + 1000, answered)].concat();
        let mut slow = rng.clone();
        let mut pace = move || match how {
            0 if slow.u8(..3) == 0 => None,
            1 => Some(Duration::from_millis(slow.u64(..3000))),
            _ => Some(Duration::ZERO),
        };
        if header(&head, "expect").is_some() || how == 2 {
            let interim = ["HTTP/1.1 100 Continue\r\n\r\n", "HTTP/1.1 103 Early Hints\r\nLink: x\r\n\r\n"];
            let _ = to.write_all(rng.choice(interim).unwrap().as_bytes()).await;
        }
        let early = how == 3 || how == 4;
        if early && to.write_all(&answer).await.is_err() || how == 5 {
            return;
        }
        if how == 4 && rng.bool() {
            // It has said what it had to say.
            let _ = to.shutdown().await;
            while wire.more().await {}
            return;
        }
        let Some(got) = wire.body(&head, &mut pace).await else { return };
        assert!(got == body(number, length), "{number}: {} bytes of {length}", got.len());
        *seen.lock().whole.entry(number).or_default() += 1;
        match how {
            3 | 4 => continue,
            6 => return,
            7 => {
                let _ = to.write_all(&answer[..rng.usize(..answer.len())]).await;
                return;
            }
            8 => {
                let _ = to.write_all(b"no HTTP at all\r\n\r\n").await;
                return;
            }
            _ => {}
        }
        for piece in answer.chunks(rng.usize(1..50_000)) {
            if to.write_all(piece).await.is_err() {
                return;
            }
            if rng.u8(..8) == 0 {
                sleep(Duration::from_millis(rng.u64(..2000))).await;
            }
        }
    }
}

/// A request: its bytes, and whether they are all that there should be.
struct Asked {
    bytes: Vec<u8>,
    repeatable: bool,
}

/// A request of any kind.
fn ask(rng: &mut Rng, number: usize) -> Asked {
    let method = rng.choice(["POST", "PUT", "GET"]).unwrap();
    let length = if method == "GET" { 0 } else { rng.choice([0, 1, 3000, 70_000, 200_000]).unwrap() };
    let mut bytes = format!("{method} /{number}-{length} HTTP/1.1\r\nHost: a\r\n").into_bytes();
    if rng.u8(..6) == 0 {
        bytes.extend_from_slice(b"Expect: 100-continue\r\n");
    }
    let data = body(number, length);
    if method == "GET" {
        bytes.extend_from_slice(b"\r\n");
    } else if rng.bool() {
        bytes.extend_from_slice(format!("Content-Length: {length}\r\n\r\n").as_bytes());
        bytes.extend_from_slice(&data);
    } else {
        bytes.extend_from_slice(b"Transfer-Encoding: chunked\r\n\r\n");
        let mut left = &data[..];
        while !left.is_empty() {
            let (chunk, rest) = left.split_at(rng.usize(1..60_000).min(left.len()));
            let extension = rng.choice(["", ";a=b"]).unwrap();
            bytes.extend_from_slice(format!("{:x}{extension}\r\n", chunk.len()).as_bytes());
            bytes.extend_from_slice(chunk);
            bytes.extend_from_slice(b"\r\n");
            left = rest;
        }
        let wrong = rng.u8(..20) == 0;
        let end = rng.choice(["0\r\n\r\n", "0\r\nX-Sum: 1\r\n\r\n"]).unwrap();
        bytes.extend_from_slice(if wrong { b"zz\r\n" } else { end.as_bytes() });
    }
    Asked { bytes, repeatable: method != "POST" }
}

/// Reads answers until the connection ends; how many there were.
async fn read_answers(from: OwnedReadHalf, all: usize) -> usize {
    let mut wire = Wire { from, read: Vec::new() };
    let mut answers = 0;
    while let Some(head) = wire.head().await {
        let status: u16 = head.split(' ').nth(1).unwrap().parse().unwrap();
        if status < 200 {
            continue;
        }
        assert!(answers < all, "an answer too many: {head}");
        let Some(got) = wire.body(&head, &mut || Some(Duration::ZERO)).await else { break };
        if let Some(number) = header(&head, "x-number") {
            let number: usize = number.parse().unwrap();
            assert_eq!(number, answers, "another's answer: {head}");
            assert!(got == body(number + 1000, got.len()), "{head}");
        } else {
            assert!(got.starts_with(b"{\"code\":"), "{head}");
        }
        answers += 1;
        if header(&head, "connection") == Some("close") {
            let more = wire.more().await;
            assert!(!more && wire.read.is_empty(), "after the last answer: {:?}", wire.read.escape_ascii().to_string());
            break;
        }
    }
    answers
}

/// Sends `requests` as `rng` says; how many of them began to go.
async fn play_client(stream: TcpStream, requests: &[Asked], mut rng: Rng) -> (usize, usize) {
    let (from, mut to) = stream.into_split();
    let answers = tokio::spawn(read_answers(from, requests.len()));
    let mut begun = 0;
    'all: for request in requests {
        begun += 1;
        let cut = if rng.u8(..12) == 0 { rng.usize(..request.bytes.len()) } else { request.bytes.len() };
        for piece in request.bytes[..cut].chunks(rng.usize(1..80_000)) {
            if to.write_all(piece).await.is_err() {
                break 'all;
            }
            match rng.u8(..30) {
                0 => sleep(Duration::from_secs(rng.u64(..45))).await,
                1..4 => sleep(Duration::from_millis(rng.u64(..100))).await,
                _ => {}
            }
        }
        if cut < request.bytes.len() {
            break;
        }
    }
    if rng.u8(..10) == 0 {
        answers.abort();
    }
    let _ = to.shutdown().await;
    drop(to);
    match answers.await {
        Ok(answers) => (begun, answers),
        Err(gone) if gone.is_cancelled() => (begun, 0),
        Err(wrong) => resume_unwind(wrong.into_panic()),
    }
}

/// A server before two backends that `rng` plays, and what those see.
async fn server(rng: &mut Rng) -> (Arc<Downstream>, Arc<Pool>, Arc<Tally>, Seen) {
    let (seen, clock): (Seen, Arc<dyn Clock>) = (Seen::default(), Arc::new(Paused));
    let mut backends = Vec::new();
    for _ in 0..2 {
        let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
        let address = BackendAddress::Socket(listener.local_addr().unwrap());
        backends.push(BackendSettings { address, weight: NonZeroU32::MIN });
        let (mut rng, seen) = (rng.fork(), Arc::clone(&seen));
        tokio::spawn(async move {
            while let Ok((stream, _)) = listener.accept().await {
                let playing = AssertUnwindSafe(play_backend(stream, rng.fork(), Arc::clone(&seen))).catch_unwind();
                let seen = Arc::clone(&seen);
                tokio::spawn(async move { seen.lock().wrong |= playing.await.is_err() });
            }
        });
    }
    let pool = Arc::new(Pool::new(PoolSettings {
        name: "app".into(),
        balance: Default::default(),
        backends,
        health: HealthSettings { check: Check::None, ..HealthSettings::default() },
        retries: 2,
        timeouts: Timeouts::default(),
        ..PoolSettings::default()
    }));
    let rules = Rules {
        policies: None,
        self_service: false,
        answers: None,
        identity: Identity::default(),
        rate: None,
        routes: RouteTable::new([(
            HostPattern::Any,
            PathPrefix::parse("/").unwrap(),
            Destination::from(Arc::clone(&pool)),
        )]),
        limits: Limits::default(),
        listeners: [].into(),
        direct: true,
        tracing: None,
    };
    let (rules, tally) = (Arc::new(ArcSwap::from_pointee(rules)), Arc::<Tally>::default());
    let app = Proxy::new(ProxyParts {
        rules: Arc::clone(&rules),
        directory: Arc::new(ArcSwap::from_pointee(Directory::new([]).unwrap())),
        limiter: Arc::new(Exact::new(10, Quota::new(1, 1.0).unwrap(), 0)),
        keys: Arc::new(crate::limit::KeyMaker::new(1)),
        access_log: AccessLog::off(),
        decisions: Arc::default(),
        tally: Arc::clone(&tally),
        transport: Arc::new(Transport::new(8, NonZeroUsize::MIN, false)),
        turns: Arc::default(),
        recorder: Arc::default(),
        untaken: UntakenAnswers::default(),
        challenges: Arc::default(),
        clock: Arc::clone(&clock),
        timeline: Timeline::new(clock.as_ref()),
    });
    let proxy = HttpProxy::new(app.clone(), Arc::default());
    let seats = Seats::new(rules, SeatRoom { auto: 100, most: 100 }, Arc::clone(&tally), clock);
    let life = (Arc::<Activity>::default(), Arc::<Patience>::default());
    let downstream = Downstream::new((proxy, app), Arc::default(), life, Arc::new(seats));
    (Arc::new(downstream), pool, tally, seen)
}

/// Both ends of a connection.
async fn connected() -> (TcpStream, ClientSocket) {
    let listener = TcpListener::bind("127.0.0.1:0").await.unwrap();
    let address: SocketAddr = listener.local_addr().unwrap();
    let (near, far) = tokio::join!(TcpStream::connect(address), listener.accept());
    let (far, peer) = far.unwrap();
    (near.unwrap(), ClientSocket::new(far, peer, address))
}

/// Plays one seed; how many answers there were.
async fn run(seed: u64) -> usize {
    let mut rng = Rng::with_seed(seed);
    let (downstream, pool, tally, seen) = server(&mut rng).await;
    let requests: Vec<_> = (0..rng.usize(1..5)).map(|number| ask(&mut rng, number)).collect();
    let (client, stream) = connected().await;
    let (_stop, shutdown) = watch::channel(false);
    let serving = tokio::spawn(async move { downstream.process_new(Box::new(stream), &shutdown).await });
    let (begun, answers) = play_client(client, &requests, rng.fork()).await;
    serving.await.unwrap();
    let seen = seen.lock();
    assert!(!seen.wrong);
    for (number, times) in &seen.whole {
        assert!(*times == 1 || requests[*number].repeatable && *times <= 3, "{number} came whole {times} times");
    }
    let count = |totals: Vec<(u16, u64)>| totals.into_iter().map(|(_, count)| count).sum::<u64>() as usize;
    let counted = count(pool.traffic().totals().statuses) + count(tally.unrouted().totals().statuses);
    let known = answers.max(seen.whole.len());
    assert!((known..=begun).contains(&counted), "{counted} counted, {known} known of {begun}");
    answers
}

#[test]
fn whatever_clients_and_backends_do_no_byte_is_lost_and_no_answer_is_anothers() {
    // For one seed: SEED=123 cargo test simulation. A thousand take a minute.
    let one = std::env::var("SEED").ok().and_then(|seed| seed.parse().ok());
    let seeds = one.map_or(0..150, |seed: u64| seed..seed + 1);
    let mut answers = 0;
    for seed in seeds.clone() {
        let runtime = tokio::runtime::Builder::new_current_thread().enable_all().start_paused(true).build().unwrap();
        let outcome = catch_unwind(AssertUnwindSafe(|| runtime.block_on(run(seed))));
        answers += outcome.unwrap_or_else(|_| panic!("SEED={seed}"));
    }
    assert!(one.is_some() || answers > seeds.count(), "{answers} answers in all");
}
