//! Who gets a seat, and who gives it up.

use std::num::NonZeroUsize;

use futures_util::FutureExt;

use super::*;
use crate::clock::ManualClock;
use crate::proxy::gate::identify::Identity;
use crate::proxy::gate::settings::Limits;
use crate::route::RouteTable;

const HOME: IpAddr = IpAddr::V4(std::net::Ipv4Addr::LOCALHOST);

struct Bench {
    seats: Arc<Seats>,
    clock: Arc<ManualClock>,
    tally: Arc<Tally>,
    rules: Arc<ArcSwap<Rules>>,
}

impl Bench {
    fn new(max: Option<usize>, of_an_address: Option<usize>) -> Self {
        let (clock, tally): (Arc<ManualClock>, Arc<Tally>) = (Arc::new(ManualClock::new()), Arc::default());
        let rules = Arc::new(ArcSwap::from_pointee(rules(max, of_an_address)));
        let room = SeatRoom { auto: 4, most: 6 };
        let seats = Seats::new(Arc::clone(&rules), room, Arc::clone(&tally), Arc::clone(&clock) as _);
        Bench { seats: Arc::new(seats), clock, tally, rules }
    }

    fn pass(&self) {
        self.clock.advance(Duration::from_secs(1));
    }

    /// A new connection, when there is a seat at once.
    fn come(&self) -> Option<Seat> {
        self.pass();
        self.seats.enter().now_or_never()?.then(|| self.seats.sit(HOME))?
    }

    fn from(&self, address: &str) -> Option<Seat> {
        self.pass();
        self.seats.force();
        self.seats.sit(address.parse().unwrap())
    }
}

fn rules(max: Option<usize>, of_an_address: Option<usize>) -> Rules {
    let (max_connections, of_an_address) = (max.and_then(NonZeroUsize::new), of_an_address.and_then(NonZeroUsize::new));
    let limits = Limits { max_connections, max_connections_per_address: of_an_address, ..Limits::default() };
    let trusted = ["10.0.0.0/8".parse().unwrap()].into_iter();
    let identity = Identity { trusted_proxies: trusted.collect(), ..Identity::default() };
    Rules {
        self_service: false,
        answers: None,
        identity,
        rate: None,
        policies: None,
        routes: RouteTable::new([]),
        limits,
        listeners: [].into(),
        direct: true,
        tracing: None,
    }
}

fn is_told(seat: &Seat) -> bool {
    seat.told().now_or_never().is_some()
}

#[tokio::test]
async fn the_one_that_was_silent_longest_gives_its_seat_to_a_new_one() {
    let bench = Bench::new(Some(3), None);
    let first = bench.come().unwrap();
    let second = bench.come().unwrap();
    let third = bench.come().unwrap();
    first.busy();
    bench.pass();
    first.silent(bench.clock.now());
    third.busy();
    let seats = Arc::clone(&bench.seats);
    let coming = tokio::spawn(async move { seats.enter().await });
    second.told().await;
    assert!(!is_told(&first) && !is_told(&third) && !coming.is_finished());
    drop(second);
    assert!(coming.await.unwrap());
    assert_eq!((bench.seats.taken(), bench.tally.closed(SeatLimit::All)), (3, 1));
    assert_eq!(bench.tally.refusals(SeatLimit::All), 0);
}

#[tokio::test]
async fn a_request_that_is_there_is_served_and_another_one_goes() {
    let bench = Bench::new(Some(2), None);
    let (first, second) = (bench.come().unwrap(), bench.come().unwrap());
    let seats = Arc::clone(&bench.seats);
    let coming = tokio::spawn(async move { seats.enter().await });
    first.told().await;
    first.busy();
    second.told().await;
    drop(second);
    assert!(coming.await.unwrap());
    assert_eq!(bench.seats.list.lock().leaving, 0);
}

#[test]
fn a_new_one_is_refused_when_nobody_is_silent() {
    let bench = Bench::new(Some(2), None);
    let seats = [bench.come().unwrap(), bench.come().unwrap()];
    seats.iter().for_each(Seat::busy);
    assert!(bench.come().is_none());
    assert_eq!((bench.tally.refusals(SeatLimit::All), bench.tally.closed(SeatLimit::All)), (1, 0));
    drop(seats);
    assert!(bench.come().is_some());
}

#[test]
fn whatever_is_wanted_descriptors_bound_it() {
    assert_eq!(Bench::new(None, None).seats.bound(), 4);
    assert_eq!(Bench::new(Some(5), None).seats.bound(), 5);
    assert_eq!(Bench::new(Some(7), None).seats.bound(), 6);
}

#[tokio::test]
async fn a_bound_that_comes_down_makes_all_go_that_are_too_many() {
    let bench = Bench::new(Some(4), None);
    let mut seats: Vec<_> = (0..4).map(|_| bench.come().unwrap()).collect();
    bench.rules.store(Arc::new(rules(Some(2), None)));
    bench.pass();
    let entering = bench.seats.enter();
    tokio::pin!(entering);
    assert!(entering.as_mut().now_or_never().is_none());
    assert_eq!(seats.iter().map(is_told).collect::<Vec<_>>(), [true, true, true, false]);
    seats.drain(..3);
    assert!(entering.await);
}

#[test]
fn many_are_found_at_once_and_in_their_order() {
    let bench = Bench::new(None, None);
    let many: Vec<_> = (0..1000).map(|_| bench.from("127.0.0.1").unwrap()).collect();
    let mut list = bench.seats.list.lock();
    let mut told = Vec::new();
    // Fewer than were found: nothing is looked through again.
    for _ in 0..PART_OF_A_THOUSAND {
        assert!(matches!(list.tell_oldest(bench.clock.now()), SeatSearch::Some));
        told.push(many.iter().rposition(|seat| seat.place.state.load(Ordering::Relaxed) == TOLD).unwrap());
    }
    assert_eq!(told, (0..PART_OF_A_THOUSAND).collect::<Vec<_>>());
    assert!(matches!(list.tell_oldest(bench.clock.now()), SeatSearch::Later(_)), "it was looked just now");
    drop(list);
    drop(many);
    let list = bench.seats.list.lock();
    assert_eq!((list.len(), list.leaving, list.addresses.len()), (0, 0, 0));
}

const PART_OF_A_THOUSAND: usize = 1000 / PART;

#[test]
fn an_address_has_its_own_bound_and_its_own_silent_ones() {
    let bench = Bench::new(Some(100), Some(2));
    let other = bench.from("192.0.2.1").unwrap();
    let (first, second) = (bench.from("192.0.2.2").unwrap(), bench.from("192.0.2.2").unwrap());
    second.busy();
    let third = bench.from("192.0.2.2").unwrap();
    assert!(is_told(&first) && !is_told(&second) && !is_told(&other));
    third.busy();
    assert!(bench.from("192.0.2.2").is_none(), "the first is as good as gone, and the others have requests");
    assert_eq!((bench.tally.refusals(SeatLimit::Address), bench.tally.closed(SeatLimit::Address)), (1, 1));
    drop((first, second));
    assert!(bench.from("::ffff:192.0.2.2").is_some());
    let neighbours = [bench.from("2001:db8::1").unwrap(), bench.from("2001:db8::2").unwrap()];
    let _third = bench.from("2001:db8::3").unwrap();
    assert!(is_told(&neighbours[0]), "they are of one prefix");
    let proxies: Vec<_> = (0..9).map(|_| bench.from("10.1.2.3").unwrap()).collect();
    assert!(!proxies.iter().any(is_told), "a trusted proxy brings everybody");
}

#[test]
fn seats_come_and_go_and_nothing_is_left() {
    let bench = Bench::new(None, Some(50));
    let mut seats: Vec<_> = (0..40).map(|_| bench.from("192.0.2.1").unwrap()).collect();
    for turn in 0..40 {
        let gone = seats.swap_remove((turn * 7) % seats.len());
        drop(gone);
        let list = bench.seats.list.lock();
        assert!(list.places.iter().enumerate().all(|(at, place)| place.index.load(Ordering::Relaxed) == at));
        assert_eq!(list.len(), seats.len());
    }
    assert!(bench.seats.list.lock().addresses.is_empty());
}
