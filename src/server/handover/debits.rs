//! A limiter that tells of each token that it gives, while somebody wants to know.
//!
//! From the moment that a predecessor hands its buckets over, two processes give tokens of the same buckets: the
//! successor to everybody, the predecessor to the requests that still come over its kept connections. What it gives is
//! told to the successor, which takes it from its own bucket, into debt if it must.
//!
//! The switch is turned before the buckets are read for the last time, and looked at after the token was taken. So no
//! token is missed. One that is taken in that very moment may be counted twice, which gives a client one less and not
//! one more.

use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, Sender, channel};

use crate::client::Quota;
use crate::limit::{Charge, Charges, Decision, Decisions, Key, Limiter, Nanos, Standing, WholeLimiter};

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
        self.on.store(on, Ordering::SeqCst);
    }

    /// Takes tokens that a predecessor has given, and tells of them too: of three in a row, the last one has the
    /// buckets.
    pub(super) fn debit(&self, charge: Charge, now: Nanos) {
        self.limiter.debit(charge, now);
        self.tell(charge);
    }

    fn tell(&self, given: Charge) {
        if self.on.load(Ordering::SeqCst) {
            // It fails when nobody wants to know any more.
            let _ = self.given.send(given);
        }
    }

    /// Tells of a charge that was made, unless callers share the bucket that paid: that one is each process' own.
    fn tell_of(&self, charge: Charge, decision: &Decision) {
        if !decision.standing().is_overflow() {
            self.tell(charge);
        }
    }
}

impl Limiter for Told {
    fn take(&self, charge: Charge, now: Nanos) -> Decision {
        let decision = self.limiter.take(charge, now);
        if decision.is_allowed() {
            self.tell_of(charge, &decision);
        }
        decision
    }

    fn take_all(&self, charges: &Charges, now: Nanos) -> Decisions {
        let decisions = self.limiter.take_all(charges, now);
        if decisions.iter().all(Decision::is_allowed) {
            charges.iter().zip(&decisions).for_each(|(charge, decision)| self.tell_of(*charge, decision));
        }
        decisions
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        self.limiter.peek(key, quota, now)
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroU32;

    use super::*;
    use crate::limit::exact::Exact;

    fn stranger(number: u32) -> Key {
        Key::address(std::net::Ipv4Addr::from_bits(number).into(), 64)
    }

    #[test]
    fn what_is_given_is_told_while_it_is_on_and_what_is_refused_never() {
        let quota = Quota::new(2, 1e-6).unwrap();
        let one = |key| Charge::one(key, quota);
        let (told, given) = Told::new(Arc::new(Exact::new(1, quota, 0)));
        let take = |key| told.take(one(key), 0).is_allowed();
        assert!(take(Key::client(1)));
        told.switch(true);
        assert!(take(Key::client(1)) && !take(Key::client(1)));
        assert!(take(stranger(1)) && take(stranger(2)));
        let three = Charge { cost: NonZeroU32::new(3).unwrap(), ..one(stranger(1)) };
        told.debit(three, 0);
        assert_eq!(told.peek(stranger(1), quota, 0).remaining(), 0);
        let pair = |left: Key, right: Key| told.take_all(&[one(left), one(right)].into_iter().collect(), 0);
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
}
