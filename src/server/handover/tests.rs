//! A predecessor against successors that go wrong at each step, by a clock that is moved by hand.

use std::net::TcpListener;
use std::os::unix::net::{UnixListener, UnixStream};
use std::sync::Arc;
use std::time::Duration;

use super::beside;
use super::conversation::Conversation;
use super::debits::Told;
use super::predecessor::{Estate, Outcome, Predecessor, Underway};
use super::successor::{TakeOver, Waiting};
use super::surroundings::Surroundings;
use super::wire::{Debit, Message, VERSION};
use crate::client::{ClientId, Quota};
use crate::clock::{Clock, ManualClock, SystemClock, Timeline};
use crate::limit::exact::Exact;
use crate::limit::{Charge, Limiter, Payer, RateLimit, WholeLimiter};
use crate::process::descriptors::open_files_limit;
use crate::process::{Channel, ListeningSocket, Process, ProcessSettings, Sockets};
use crate::server::buckets::Buckets;
use crate::server::lifecycle::{Lifecycle, State};
use crate::store::memory::Memory;
use crate::store::{Change, Profile};
use crate::telemetry::{CountedSoFar, Sample, Series};
use crate::tls::{TicketSecret, TlsListeners};
use crate::upstream::BackendState;

mod meeting;

const LONG: Duration = Duration::from_secs(20);

/// A predecessor that serves, and the place where its successor waits.
struct Bench {
    predecessor: Arc<Predecessor>,
    told: Arc<Told>,
    lifecycle: Lifecycle,
    clock: Arc<ManualClock>,
    listener: UnixListener,
    address: std::net::SocketAddr,
    _dir: tempfile::TempDir,
}

fn quota() -> Quota {
    Quota::new(10, 1.0).unwrap()
}

impl Bench {
    fn new() -> Self {
        Self::with(Some("a.db"))
    }

    /// One with this database.
    fn with(database: Option<&str>) -> Self {
        let dir = tempfile::tempdir().unwrap();
        let settings = ProcessSettings {
            pid_file: dir.path().join("a.pid"),
            upgrade_sock: dir.path().join("a.sock"),
            ..ProcessSettings::default()
        };
        let clock = Arc::new(ManualClock::new());
        let timeline = Timeline::new(clock.as_ref());
        let limiter: Arc<dyn WholeLimiter> = Arc::new(Exact::new(100, quota(), timeline.nanos(clock.now())));
        let (told, given) = Told::new(Arc::clone(&limiter));
        let store = Arc::new(Memory::new());
        let saving = Arc::clone(&store) as _;
        let buckets = Buckets::new(limiter, saving, &RateLimit::default(), Arc::clone(&clock) as _, timeline);
        let (sockets, lifecycle) = (Sockets::default(), Lifecycle::new());
        let socket = TcpListener::bind("127.0.0.1:0").unwrap();
        let address = socket.local_addr().unwrap();
        sockets.keep(address.into(), ListeningSocket::Tcp(socket));
        lifecycle.advance(State::Ready);
        let listener = UnixListener::bind(&settings.upgrade_sock).unwrap();
        let predecessor = Arc::new(Predecessor {
            process: Arc::new(Process::new(&settings, None).with_variables(vec!["TOLLGATE_FLEET".to_owned()])),
            sockets,
            tls: Arc::new(TlsListeners::new([], &[], clock.now()).unwrap()),
            estate: Estate { buckets: Arc::new(buckets), told: Arc::clone(&told), given: given.into() },
            database: database.map(str::to_owned),
            clients: store,
            sticky: None,
            series: Arc::default(),
            lifecycle: lifecycle.clone(),
            clock: Arc::clone(&clock) as _,
        });
        Bench { predecessor, told, lifecycle, clock, listener, address, _dir: dir }
    }

    /// A token of the first client.
    fn one(&self) -> Charge {
        Charge::one(self.predecessor.estate.buckets.keys().client(1), quota())
    }

    fn now(&self) -> u64 {
        Timeline::new(self.clock.as_ref()).nanos(self.clock.now())
    }

    /// Begins, and comes to the point where the successor has the sockets.
    fn begin(&self) -> (Underway, Conversation) {
        let underway = self.predecessor.begin().unwrap();
        let mut channel = Conversation::over(Channel::new(self.listener.accept().unwrap().0, Arc::new(SystemClock)));
        let database = self.predecessor.database.clone().unwrap_or_default();
        let hello = Message::Hello { version: VERSION, pid: std::process::id(), sockets: 1, database };
        assert_eq!(channel.receive(LONG).unwrap(), hello);
        assert_eq!(channel.receive(LONG).unwrap(), Message::Sockets(vec![self.address.into()]));
        ListeningSocket::given(channel.next_socket().unwrap(), &self.address.into()).unwrap();
        let secrets = |keys: &[TicketSecret]| keys.iter().map(|key| key.secret).collect::<Vec<_>>();
        let tickets = beside::decode(&channel.beside().unwrap()).tickets;
        let expected = self.predecessor.tls.tickets().secrets(self.predecessor.clock.now());
        assert_eq!(secrets(&tickets), secrets(&expected));
        let variables = vec!["TOLLGATE_FLEET".to_owned()];
        let surroundings = Surroundings { variables, open_files: Some(open_files_limit()) };
        assert_eq!(Surroundings::decode(&channel.beside().unwrap()), surroundings);
        assert_eq!(
            [channel.beside(), channel.beside(), channel.beside()],
            [Some(vec![]), Some(vec![]), None],
            "versions before took all of them for this"
        );
        (underway, channel)
    }

    /// And on to the point where the successor is to begin; the buckets that it was given.
    fn go(&self) -> (Underway, Conversation, usize) {
        let (underway, mut channel) = self.begin();
        channel.send(&Message::Prepared, LONG).unwrap();
        let mut given = 0;
        loop {
            match channel.receive(LONG).unwrap() {
                Message::Buckets { changed, .. } => given += changed.len(),
                Message::Go => break,
                other => panic!("{other:?}"),
            }
        }
        assert_eq!(self.lifecycle.state(), State::HandingOver);
        (underway, channel, given)
    }

    /// Lets time pass until something is said; how much.
    fn wait(&self, channel: &Conversation) -> Duration {
        let start = self.clock.now();
        while !channel.has_news(Duration::from_millis(5)) {
            self.clock.advance(Duration::from_millis(500));
        }
        self.clock.now() - start
    }

    /// Everything is as it was, because of `reason`.
    async fn stays(&self, mut underway: Underway, reason: &str) {
        match tokio::time::timeout(LONG, underway.outcome()).await.unwrap() {
            Outcome::Stays(because) => assert!(because.contains(reason), "{because}"),
            Outcome::Leaves => panic!("it leaves"),
        }
        assert_eq!(self.lifecycle.state(), State::Ready);
        // Nothing is told any more, and the next one may come.
        assert!(self.told.take(&self.one(), self.now()).is_allowed());
        let (underway, channel, _) = self.go();
        drop(channel);
        drop(underway);
    }
}

#[tokio::test]
async fn it_leaves_when_the_successor_has_served_for_long_enough() {
    let bench = Bench::new();
    assert!(bench.told.take(&bench.one(), bench.now()).is_allowed());
    let (mut underway, mut channel, given) = bench.go();
    assert_eq!(given, 1);
    channel.send(&Message::Serving, LONG).unwrap();
    // What is given from here on is told, before it leaves and after.
    let expected = Message::Debits(vec![Debit { payer: Payer::client(1), tokens: 1, quota: quota() }]);
    assert!(bench.told.take(&bench.one(), bench.now()).is_allowed());
    assert_eq!(channel.receive(LONG).unwrap(), expected);
    assert!(bench.wait(&channel) >= super::predecessor::SETTLING - Duration::from_secs(1));
    assert_eq!(channel.receive(LONG).unwrap(), Message::Settled);
    assert_eq!(underway.outcome().await, Outcome::Leaves);
    assert!(bench.told.take(&bench.one(), bench.now()).is_allowed());
    tokio::task::spawn_blocking(move || underway.finish(&SystemClock)).await.unwrap();
    assert_eq!(channel.receive(LONG).unwrap(), expected);
    assert!(channel.receive(LONG).is_err(), "and no more than that");
}

#[tokio::test]
async fn one_that_knows_the_last_minutes_is_told_of_them() {
    let bench = Bench::new();
    for at in [5, 6] {
        let backends = (0..300).map(|n| ("app".to_owned(), format!("10.0.0.{n}:1"), BackendState::Up)).collect();
        bench.predecessor.series.take(at, CountedSoFar { backends, ..CountedSoFar::default() }, 0);
    }
    let (_underway, mut channel) = bench.begin();
    channel.send(&Message::KnowsMinutes, LONG).unwrap();
    channel.send(&Message::Prepared, LONG).unwrap();
    let samples = vec![Sample { at: 6, ..Sample::default() }];
    assert_eq!(channel.receive(LONG).unwrap(), Message::Minutes(samples));
    let mut backends = Vec::new();
    while backends.len() < 300 {
        let Message::Backends(some) = channel.receive(LONG).unwrap() else { panic!("other backends were awaited") };
        backends.extend(some);
    }
    assert_eq!(backends, bench.predecessor.series.backends());
}

#[tokio::test]
async fn a_successor_that_does_not_get_ready_is_not_waited_for_for_ever() {
    let bench = Bench::new();
    let (underway, mut channel) = bench.begin();
    assert_eq!(bench.lifecycle.state(), State::Ready, "until then it serves");
    assert!(bench.wait(&channel) >= Duration::from_secs(59));
    let Message::Refused(reason) = channel.receive(LONG).unwrap() else { panic!("it was not told") };
    assert_eq!(reason, "the successor was not there within 60s");
    bench.stays(underway, "within 60s").await;
}

#[tokio::test]
async fn a_successor_that_gives_up_is_quoted() {
    let bench = Bench::new();
    let (underway, mut channel) = bench.begin();
    channel.send(&Message::Refused("no room".to_owned()), LONG).unwrap();
    bench.stays(underway, "the successor gave up: no room").await;
}

#[tokio::test]
async fn clients_that_no_database_keeps_are_not_lost() {
    let bench = Bench::with(None);
    // Without clients there is nothing to lose.
    let (underway, channel, _) = bench.go();
    drop(channel);
    bench.stays(underway, "the successor ended").await;
    let bench = Bench::with(None);
    let change = Change {
        id: ClientId::parse("a").unwrap(),
        by: "test".to_owned(),
        at: bench.clock.wall(),
        rollback: false,
        local: false,
        edit: Box::new(|_| Ok(Some(Profile::new(quota())))),
    };
    bench.predecessor.clients.change(change).wait().await.unwrap();
    let (mut underway, mut channel) = bench.begin();
    channel.send(&Message::Prepared, LONG).unwrap();
    let Message::Refused(reason) = channel.receive(LONG).unwrap() else { panic!("it was not told") };
    assert!(reason.starts_with("its clients (1) are in memory alone (database: null) and would be lost"), "{reason}");
    assert_eq!(underway.outcome().await, Outcome::Stays(reason));
    assert_eq!(bench.lifecycle.state(), State::Ready);
}

#[tokio::test]
async fn a_successor_that_never_serves_loses_what_it_was_given() {
    let bench = Bench::new();
    let (underway, mut channel, _) = bench.go();
    assert!(bench.wait(&channel) >= Duration::from_secs(9));
    assert!(matches!(channel.receive(LONG).unwrap(), Message::Refused(_)));
    bench.stays(underway, "within 10s").await;
}

#[tokio::test]
async fn a_successor_that_dies_is_noticed_at_each_step() {
    let bench = Bench::new();
    let (underway, channel) = bench.begin();
    drop(channel);
    bench.stays(underway, "the successor ended").await;

    let bench = Bench::new();
    let (underway, channel, _) = bench.go();
    drop(channel);
    bench.stays(underway, "the successor ended").await;

    let bench = Bench::new();
    let (underway, mut channel, _) = bench.go();
    channel.send(&Message::Serving, LONG).unwrap();
    drop(channel);
    bench.stays(underway, "the successor ended").await;
}

#[tokio::test]
async fn a_successor_that_is_stopped_does_not_bring_it_back() {
    let bench = Bench::new();
    let (mut underway, mut channel, _) = bench.go();
    channel.send(&Message::Serving, LONG).unwrap();
    channel.send(&Message::Settled, LONG).unwrap();
    assert_eq!(underway.outcome().await, Outcome::Leaves);
}

#[tokio::test]
async fn a_stop_decides_at_once() {
    let bench = Bench::new();
    let (underway, _channel) = bench.begin();
    underway.hurry();
    bench.stays(underway, "the running process is to stop").await;

    let bench = Bench::new();
    let (mut underway, mut channel, _) = bench.go();
    channel.send(&Message::Serving, LONG).unwrap();
    underway.hurry();
    // It serves, or it was just about to: in either case somebody does.
    match underway.outcome().await {
        Outcome::Leaves => assert_eq!(bench.lifecycle.state(), State::HandingOver),
        Outcome::Stays(_) => assert_eq!(bench.lifecycle.state(), State::Ready),
    }
}

/// Takes over as a successor does; its life, and the predecessor's end once it serves.
fn served(dir: &std::path::Path) -> (Lifecycle, Conversation, std::thread::JoinHandle<()>) {
    let settings =
        ProcessSettings { pid_file: dir.join("a.pid"), upgrade_sock: dir.join("a.sock"), ..ProcessSettings::default() };
    let (time, lifecycle): (Arc<dyn Clock>, _) = (Arc::new(SystemClock), Lifecycle::new());
    let timeline = Timeline::new(time.as_ref());
    let limiter: Arc<dyn WholeLimiter> = Arc::new(Exact::new(100, quota(), timeline.nanos(time.now())));
    let (told, _given) = Told::new(Arc::clone(&limiter));
    let buckets = Buckets::new(limiter, Arc::new(Memory::new()), &RateLimit::default(), Arc::clone(&time), timeline);
    let series = Arc::<Series>::default();
    let take_over = TakeOver {
        buckets: Arc::new(buckets.of_successor()),
        told,
        now: Box::new(|| 0),
        quota: Box::new(|_| Some(quota())),
        database: None,
        series: Arc::clone(&series),
        process: Arc::new(Process::new(&settings, None)),
        lifecycle: lifecycle.clone(),
    };
    let waiting = Waiting::at(&settings.upgrade_sock).unwrap();
    let mut channel =
        Conversation::over(Channel::new(UnixStream::connect(&settings.upgrade_sock).unwrap(), Arc::clone(&time)));
    let hello = Message::Hello { version: VERSION, pid: 1, sockets: 0, database: String::new() };
    channel.send(&hello, LONG).unwrap();
    let successor = std::thread::spawn(move || take_over.run(waiting.wait(&time).unwrap()));
    assert_eq!(channel.receive(LONG).unwrap(), Message::Prepared);
    let sample = Sample { at: 7, ..Sample::default() };
    channel.send(&Message::Minutes(vec![sample]), LONG).unwrap();
    channel.send(&Message::Go, LONG).unwrap();
    assert_eq!(channel.receive(LONG).unwrap(), Message::Serving);
    assert_eq!((lifecycle.state(), series.since(0)), (State::Ready, vec![sample]));
    (lifecycle, channel, successor)
}

#[test]
fn a_successor_that_fails_says_so_at_once_and_one_that_is_stopped_says_that() {
    let dir = tempfile::tempdir().unwrap();
    let (lifecycle, mut channel, successor) = served(dir.path());
    lifecycle.fail("no listener".to_owned());
    lifecycle.advance(State::Draining);
    assert_eq!(channel.receive(LONG).unwrap(), Message::Refused("no listener".to_owned()));
    successor.join().unwrap();

    let dir = tempfile::tempdir().unwrap();
    let (lifecycle, mut channel, successor) = served(dir.path());
    lifecycle.advance(State::Draining);
    assert_eq!(channel.receive(LONG).unwrap(), Message::Settled);
    drop(channel);
    successor.join().unwrap();
}

#[test]
fn one_waits_at_a_time_for_as_long_as_it_should() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("run/a.sock");
    let waiting = Waiting::at(&path).unwrap();
    assert!(Waiting::at(&path).unwrap_err().starts_with("another upgrade is under way"));
    let clock = Arc::new(ManualClock::new());
    let time: Arc<dyn Clock> = Arc::clone(&clock) as _;
    let waiter = std::thread::spawn(move || waiting.wait(&time).map(drop));
    let start = clock.now();
    while !waiter.is_finished() {
        clock.advance(Duration::from_millis(500));
        std::thread::park_timeout(Duration::from_millis(5));
    }
    assert!(clock.now() - start >= Duration::from_secs(29));
    let reason = waiter.join().unwrap().unwrap_err();
    assert!(reason.contains("within 30s: send SIGQUIT to the one that is to be replaced"), "{reason}");
    assert!(!path.exists());
    drop(Waiting::at(&path).unwrap());
}
