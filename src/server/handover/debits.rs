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
use crate::limit::{Decision, Key, Limiter, Nanos, Standing, Striped};

/// Tokens that were given, to whom, and under which quota.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::server) struct Given {
    pub(super) key: Key,
    pub(super) tokens: u32,
    pub(super) quota: Quota,
}

/// The limiter of the proxy. Costs one load beside what its limiter costs.
pub(in crate::server) struct Told {
    limiter: Arc<Striped>,
    on: AtomicBool,
    given: Sender<Given>,
}

impl Told {
    /// Tells what `limiter` gives, once it is switched on.
    pub(in crate::server) fn new(limiter: Arc<Striped>) -> (Arc<Self>, Receiver<Given>) {
        let (given, told) = channel();
        (Arc::new(Told { limiter, on: AtomicBool::new(false), given }), told)
    }

    /// Tells from now on, or no more.
    pub(super) fn switch(&self, on: bool) {
        self.on.store(on, Ordering::SeqCst);
    }

    /// Takes tokens that a predecessor has given, and tells of them too: of three in a row, the last one has the
    /// buckets.
    pub(super) fn debit(&self, key: Key, tokens: u32, quota: Quota, now: Nanos) {
        self.limiter.debit(key, tokens, quota, now);
        self.tell(Given { key, tokens, quota });
    }

    fn tell(&self, given: Given) {
        if self.on.load(Ordering::SeqCst) {
            // It fails when nobody wants to know any more.
            let _ = self.given.send(given);
        }
    }
}

impl Limiter for Told {
    fn take(&self, key: Key, quota: Quota, now: Nanos) -> Decision {
        let decision = self.limiter.take(key, quota, now);
        // The overflow bucket is each process' own.
        if decision.is_allowed() && !decision.standing().is_overflow() {
            self.tell(Given { key, tokens: 1, quota });
        }
        decision
    }

    fn peek(&self, key: Key, quota: Quota, now: Nanos) -> Standing {
        self.limiter.peek(key, quota, now)
    }

    fn edit(&self, key: Key, from: Quota, to: Quota, now: Nanos) {
        self.limiter.edit(key, from, to, now);
    }

    fn reset(&self, key: Key, quota: Quota, now: Nanos) {
        self.limiter.reset(key, quota, now);
    }
}

#[cfg(test)]
mod tests {
    use std::num::NonZeroUsize;

    use super::*;
    use crate::limit::StripedSettings;

    #[test]
    fn what_is_given_is_told_while_it_is_on_and_what_is_refused_never() {
        let quota = Quota::new(2, 1e-6).unwrap();
        let settings = StripedSettings { max_buckets: NonZeroUsize::MIN, stripes: None, default_quota: quota };
        let (told, given) = Told::new(Arc::new(Striped::new(settings, 0)));
        let stranger = |number: u32| Key::address(std::net::Ipv4Addr::from_bits(number).into(), 64);
        assert!(told.take(Key::client(1), quota, 0).is_allowed());
        told.switch(true);
        assert!(told.take(Key::client(1), quota, 0).is_allowed() && !told.take(Key::client(1), quota, 0).is_allowed());
        assert!(told.take(stranger(1), quota, 0).is_allowed() && told.take(stranger(2), quota, 0).is_allowed());
        told.debit(stranger(1), 3, quota, 0);
        assert_eq!(told.peek(stranger(1), quota, 0).remaining(), 0);
        told.switch(false);
        assert!(told.take(Key::client(2), quota, 0).is_allowed());
        let given: Vec<_> = given.try_iter().collect();
        let one = |key| Given { key, tokens: 1, quota };
        assert_eq!(
            given,
            [one(Key::client(1)), one(stranger(1)), Given { tokens: 3, ..one(stranger(1)) }],
            "the overflow bucket is each process' own"
        );
    }
}
