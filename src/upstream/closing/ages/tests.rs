use proptest::prelude::*;

use super::*;
use crate::clock::{Clock, ManualClock};

fn ms(millis: u64) -> Duration {
    Duration::from_millis(millis)
}

/// Ages in the making, with a clock.
#[derive(Default)]
struct Watched {
    ages: ClosingAges,
    clock: ManualClock,
}

impl Watched {
    /// So many milliseconds go by, and connections of these ages are closed.
    fn closes_at_once(&mut self, after: u64, ages: &[u64]) {
        self.clock.advance(ms(after));
        ages.iter().for_each(|age| self.ages.closed(ms(*age), self.clock.now()));
    }

    /// Connections become idle and are closed at these ages, one after the other.
    fn closes(&mut self, ages: &[u64]) {
        ages.iter().for_each(|age| self.closes_at_once(age + 200, &[*age]));
    }

    /// A connection becomes idle and is looked at every now and then until it is so old.
    fn outlives(&mut self, age: u64) {
        let start = self.clock.now();
        while self.clock.now() - start < ms(age) {
            self.clock.advance(ms(500));
            self.ages.open(self.clock.now() - start, self.clock.now());
        }
    }

    /// The timer and the safe age, in milliseconds.
    fn timer(&self) -> Option<(u64, u64)> {
        let millis = |duration: Duration| duration.as_millis() as u64;
        self.ages.timer().map(|timer| (millis(timer.closes_after), millis(timer.safe_age)))
    }
}

/// What is learned of closings one after the other.
fn learned(ages: &[u64]) -> Option<(u64, u64)> {
    let mut watched = Watched::default();
    watched.closes(ages);
    watched.timer()
}

#[test]
fn one_closing_says_nothing_and_two_alike_do() {
    assert_eq!(learned(&[]), None);
    assert_eq!(learned(&[5000]), None);
    assert_eq!(learned(&[5000, 2000]), None);
    assert_eq!(learned(&[5000, 5000]), Some((5000, 3333)));
    assert_eq!(learned(&[5000, 2000, 5100]), Some((5000, 3333)), "another one does not count");
    assert_eq!(learned(&[300, 300]), Some((300, 150)), "what is kept is half of it at most");
    assert_eq!(learned(&[120, 110]), Some((110, 55)));
}

#[test]
fn the_margin_falls_with_what_is_known_and_grows_with_how_far_ages_are_apart() {
    assert_eq!(learned(&[5000; 8]), Some((5000, 4444)));
    assert_eq!(learned(&[5000; 80]), Some((5000, 4444)), "no more than eight are remembered");
    assert_eq!(learned(&[1200; 80]), Some((1200, 950)), "a quarter of a second at least");
    assert_eq!(learned(&[2100, 2900, 2500, 2300, 2700]), Some((2100, 1300)), "a server that looks once a second");
    assert_eq!(learned(&[2000, 2500, 2600, 2900]), Some((2500, 1100)), "the least one is the timer's, too");
}

#[test]
fn what_is_closed_right_after_an_answer_is_not_closed_for_being_idle() {
    assert_eq!(learned(&[0, 1, 3, 2, 80, 99, 1, 2, 3, 4]), None);
    let mut watched = Watched::default();
    watched.closes(&[5000, 5000, 0, 1, 2, 3, 4, 5, 6, 7, 8, 9, 10]);
    assert_eq!(watched.timer(), Some((5000, 3333)));
}

#[test]
fn a_stop_of_the_backend_teaches_nothing() {
    let mut watched = Watched::default();
    for _ in 0..5 {
        watched.closes_at_once(10_000, &[900, 12, 1100, 4000, 300, 20_000]);
    }
    assert_eq!(watched.timer(), None);
    watched.closes(&[6000, 6000]);
    for _ in 0..20 {
        watched.closes_at_once(10_000, &[900, 2000, 7100, 1000]);
    }
    assert_eq!(watched.timer(), Some((6000, 4000)));
}

#[test]
fn those_that_a_coarse_timer_closes_at_once_count_once() {
    let mut watched = Watched::default();
    watched.closes_at_once(10_000, &[5900, 5100, 5600, 5300]);
    assert_eq!(watched.timer(), None);
    watched.closes_at_once(10_000, &[5400, 5000, 5700]);
    assert_eq!(watched.timer(), Some((5000, 3333)));
}

#[test]
fn a_timer_that_is_lowered_is_known_at_once_and_one_that_is_raised_later() {
    let mut watched = Watched::default();
    watched.closes(&[5000; 8]);
    watched.closes(&[2000, 2000]);
    assert_eq!(watched.timer(), Some((2000, 1333)));
    watched.closes(&[3000; 6]);
    assert_eq!(watched.timer(), Some((2000, 1000)));
    watched.closes(&[3000; 2]);
    assert_eq!(watched.timer(), Some((3000, 2666)));
    watched.closes(&[9000; 3]);
    assert_eq!(watched.timer(), Some((3000, 2500)));
    watched.closes(&[9000; 1]);
    assert_eq!(watched.timer(), Some((9000, 7200)), "four that outlived it are enough");
}

#[test]
fn a_timer_that_is_gone_is_forgotten_slowly() {
    let mut watched = Watched::default();
    watched.closes(&[2000; 8]);
    (0..3).for_each(|_| watched.outlives(4500));
    watched.outlives(3500);
    assert_eq!(watched.timer(), Some((2000, 1750)), "three, and one that may yet be closed");
    watched.closes(&[2000]);
    (0..3).for_each(|_| watched.outlives(4500));
    assert_eq!(watched.timer(), Some((2000, 1750)), "they are counted anew after a closing in time");
    watched.outlives(4500);
    assert_eq!(watched.timer(), None);
    watched.closes(&[7000, 7000]);
    assert_eq!(watched.timer(), Some((7000, 4666)));
}

#[test]
fn of_those_that_outlive_it_together_one_counts() {
    let mut watched = Watched::default();
    watched.closes(&[2000; 8]);
    watched.clock.advance(ms(5000));
    for _ in 0..100 {
        watched.clock.advance(ms(10));
        watched.ages.open(ms(5000), watched.clock.now());
    }
    assert_eq!(watched.timer(), Some((2000, 1750)));
}

proptest! {
    /// Whatever a timer is, give or take a tenth: two closings teach it, none of its connections is used when it
    /// closes, and none is given up long before.
    #[test]
    fn a_timer_is_learned(timer in 500_u64..600_000, late in prop::collection::vec(0_u64..=1000, 2..50)) {
        let ages: Vec<_> = late.iter().map(|late| timer + timer * late / 10_000).collect();
        let (closes, safe) = learned(&ages).unwrap();
        prop_assert!((timer..=timer + timer / 10).contains(&closes), "{closes}");
        prop_assert!(safe <= timer && safe >= timer / 2, "{safe}");
    }

    /// A server that looks once a second, with any timer: once eight closings are known, none is used when it closes.
    #[test]
    fn a_coarse_timer_is_learned(timer in 2_000_u64..60_000, late in prop::collection::vec(0_u64..1_000, 8)) {
        let (least, most) = (late.iter().min().unwrap(), late.iter().max().unwrap());
        // Eight in the upper half alone tell less, which chance does once in a while.
        prop_assume!(most - least >= *least);
        let ages: Vec<_> = late.iter().map(|late| timer + late).collect();
        let (_, safe) = learned(&ages).unwrap();
        prop_assert!(safe <= timer, "{safe}");
    }

    /// Closings right after an answer and stops, between those of a timer, change nothing about that.
    #[test]
    fn noise_is_no_timer(
        timer in 2_000_u64..60_000,
        noise in prop::collection::vec((prop::collection::vec(0_u64..50_000, 3..9), prop::bool::ANY), 1..20),
    ) {
        let mut watched = Watched::default();
        watched.closes(&[timer; 2]);
        let before = watched.timer();
        for (mut ages, stop) in noise {
            let most = if stop { timer } else { 100 };
            ages.iter_mut().for_each(|age| *age %= most);
            // A stop closes the youngest, too.
            ages.push(50);
            watched.closes_at_once(200, &ages);
        }
        prop_assert_eq!(watched.timer(), before);
    }

    /// One moment teaches nothing, whatever is closed in it.
    #[test]
    fn a_moment_is_not_enough(ages in prop::collection::vec(0_u64..100_000, 0..30), each in 0_u64..3) {
        let mut watched = Watched::default();
        ages.iter().for_each(|age| watched.closes_at_once(each, &[*age]));
        prop_assert_eq!(watched.timer(), None);
    }

    /// Whatever comes: it never fails, what is safe is between a quarter of the timer and the timer, and no more is
    /// remembered than may be.
    #[test]
    fn it_takes_anything(steps in prop::collection::vec((0_u64..5_000, 0_u64..100_000, prop::bool::ANY), 0..200)) {
        let mut watched = Watched::default();
        for (after, age, closed) in steps {
            watched.clock.advance(ms(after));
            let now = watched.clock.now();
            if closed {
                watched.ages.closed(ms(age), now);
            } else {
                watched.ages.open(ms(age), now);
            }
            prop_assert!(watched.ages.ages.len() < REMEMBERED);
            if let Some((closes, safe)) = watched.timer() {
                prop_assert!(safe <= closes && safe >= closes / 4, "{closes} {safe}");
            }
        }
    }
}
