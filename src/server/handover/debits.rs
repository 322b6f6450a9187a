//! A limiter that tells of each token that it gives, while somebody wants to know.
//!
//! From the moment that a predecessor hands its buckets over, two processes give tokens of the same buckets: the
//! successor to everybody, the predecessor to the requests that still come over its kept connections. What it gives is
//! told to the successor, which takes it from its own bucket, into debt if it must.
//!
//! The switch is turned before the buckets are read for the last time, and looked at after the token was taken. So no
//! token is missed. One that is taken in that very moment may be counted twice, which gives a client one less and not
//! one more. Shown for every order of steps by loom, in the tests below: for them the switch is a seam.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::client::Quota;
use crate::limit::{
    Charge, Claim, Decision, Decisions, Key, Limiter, Nanos, PendingAnswers, Reach, Standing, StoreAnswers,
    WholeLimiter, are_allowed,
};

/// Whether somebody wants to know.
trait Switch {
    fn turn(&self, on: bool);
    fn is_on(&self) -> bool;
}

impl Switch for AtomicBool {
    fn turn(&self, on: bool) {
        self.store(on, Ordering::SeqCst);
    }

    fn is_on(&self) -> bool {
        self.load(Ordering::SeqCst)
    }
}

/// Takes, and then tells what was taken if the switch is on by then.
fn take_and_tell<T>(switch: &impl Switch, take: impl FnOnce() -> T, tell: impl FnOnce(&T)) -> T {
    let taken = take();
    if switch.is_on() {
        tell(&taken);
    }
    taken
}

/// The limiter of the proxy. Costs one load beside what its limiter costs.
pub(in crate::server) struct Told {
    limiter: Arc<dyn WholeLimiter>,
    on: AtomicBool,
    given: Sender<Charge>,
}

impl Told {
    /// Tells what `limiter` gives, once it is switched on.
    pub(in crate::server) fn new(limiter: Arc<dyn WholeLimiter>) -> (Arc<Self>, Receiver<Charge>) {
        let (given, told) = channel();
        (Arc::new(Told { limiter, on: AtomicBool::new(false), given }), told)
    }

    /// Tells from now on, or no more.
    pub(super) fn switch(&self, on: bool) {
        self.on.turn(on);
    }

    /// Takes tokens that a predecessor has given, and tells of them too: of three in a row, the last one has the
    /// buckets.
    pub(super) fn debit(&self, charge: Charge, now: Nanos) {
        take_and_tell(&self.on, || self.limiter.debit(charge, now), |()| self.tell(charge));
    }

    fn tell(&self, given: Charge) {
        // It fails when nobody wants to know any more.
        let _ = self.given.send(given);
    }

    /// Tells of a charge that was made, unless callers share the bucket that paid: that one is each process' own.
    fn tell_of(&self, charge: &Charge, decision: &Decision) {
        if decision.is_allowed() && !decision.standing().is_overflow() {
            self.tell(*charge);
        }
    }

    /// Tells of what was made of several claims.
    fn tell_of_all(&self, claims: &[Claim], decisions: &[Decision]) {
        if are_allowed(claims, decisions) {
            let made = claims.iter().zip(decisions).filter(|(claim, decision)| claim.is_made(decision));
            made.for_each(|(claim, decision)| self.tell_of(&claim.charge, decision));
        }
    }
}

impl Limiter for Told {
    fn take(&self, charge: &Charge, now: Nanos) -> Decision {
        take_and_tell(&self.on, || self.limiter.take(charge, now), |decision| self.tell_of(charge, decision))
    }

    fn take_all(&self, claims: &[Claim], now: Nanos) -> Decisions {
        let take = || self.limiter.take_all(claims, now);
        take_and_tell(&self.on, take, |decisions| self.tell_of_all(claims, decisions))
    }

    fn judge(&self, claims: &[Claim], asked: &mut StoreAnswers, now: Nanos) -> Decisions {
        let judge = || self.limiter.judge(claims, asked, now);
        take_and_tell(&self.on, judge, |decisions| self.tell_of_all(claims, decisions))
    }

    fn ask(&self, charges: &[Charge], now: Nanos) -> Option<PendingAnswers> {
        self.limiter.ask(charges, now)
    }

    fn rehearse(&self, charge: &Charge, now: Nanos) -> Decision {
        self.limiter.rehearse(charge, now)
    }

    fn settle(&self, charge: &Charge, now: Nanos) -> Standing {
        take_and_tell(
            &self.on,
            || self.limiter.settle(charge, now),
            |standing| {
                if !standing.is_overflow() {
                    self.tell(*charge);
                }
            },
        )
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        self.limiter.peek(key, quota, now)
    }

    fn foresee(&self, claims: &[Claim], now: Nanos) -> Decisions {
        self.limiter.foresee(claims, now)
    }

    fn reach(&self) -> (Reach, u32) {
        self.limiter.reach()
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::limit::exact::Exact;
    use crate::limit::samples::stranger;

    #[test]
    fn what_is_given_is_told_while_it_is_on_and_what_is_refused_never() {
        let quota = Quota::new(2, 1e-6).unwrap();
        let one = |key| Charge::one(key, quota);
        let (told, given) = Told::new(Arc::new(Exact::new(1, quota, 0)));
        let take = |key| told.take(&one(key), 0).is_allowed();
        assert!(take(Key::client(1)));
        told.switch(true);
        assert!(take(Key::client(1)) && !take(Key::client(1)));
        assert!(take(stranger(1)) && take(stranger(2)));
        let three = Charge { cost: NonZeroU32::new(3).unwrap(), ..one(stranger(1)) };
        told.debit(three, 0);
        assert_eq!(told.peek(stranger(1), quota, 0).remaining(), 0);
        let pair = |left: Key, right: Key| told.take_all(&[one(left).into(), one(right).into()], 0);
        assert!(!pair(Key::client(2), Key::client(1))[1].is_allowed());
        assert!(pair(Key::client(2), Key::client(3)).iter().all(Decision::is_allowed));
        told.switch(false);
        assert!(take(Key::client(2)));
        assert_eq!(
            given.try_iter().collect::<Vec<_>>(),
            [one(Key::client(1)), one(stranger(1)), three, one(Key::client(2)), one(Key::client(3))],
            "the overflow bucket is each process' own"
        );
    }

    /// Loom's, which is in every state that the memory model allows.
    impl Switch for loom::sync::atomic::AtomicBool {
        fn turn(&self, on: bool) {
            self.store(on, Ordering::SeqCst);
        }

        fn is_on(&self) -> bool {
            self.load(Ordering::SeqCst)
        }
    }

    /// Two requests take a token each while the bucket of five is handed over; `ask` says in which order a request
    /// takes and looks. The hand-over is true to all clients when what was read and what is told afterwards are all
    /// takes.
    fn hand_over(ask: fn(&loom::sync::atomic::AtomicBool, &loom::sync::Mutex<u32>, &loom::sync::Mutex<u32>)) {
        use loom::sync::atomic::AtomicBool;
        use loom::sync::{Arc, Mutex};
        loom::model(move || {
            let (on, bucket, told) =
                (Arc::new(AtomicBool::new(false)), Arc::new(Mutex::new(5)), Arc::new(Mutex::new(0)));
            let requests = [(); 2].map(|()| {
                let (on, bucket, told) = (Arc::clone(&on), Arc::clone(&bucket), Arc::clone(&told));
                loom::thread::spawn(move || ask(&on, &bucket, &told))
            });
            on.turn(true);
            let handed_over = *bucket.lock().unwrap();
            requests.into_iter().for_each(|request| request.join().unwrap());
            let (left, told) = (*bucket.lock().unwrap(), *told.lock().unwrap());
            assert_eq!(left, 3);
            assert!(handed_over - told <= left, "{handed_over} were handed over, {told} told, and {left} are left");
        });
    }

    #[test]
    fn no_token_is_missed_in_whatever_order_things_happen() {
        hand_over(|on, bucket, told| {
            take_and_tell(on, || *bucket.lock().unwrap() -= 1, |()| *told.lock().unwrap() += 1);
        });
    }

    #[test]
    #[should_panic(expected = "were handed over")]
    fn whoever_looks_before_it_takes_misses_some() {
        hand_over(|on, bucket, told| {
            let on = on.is_on();
            *bucket.lock().unwrap() -= 1;
            *told.lock().unwrap() += u32::from(on);
        });
    }
}
