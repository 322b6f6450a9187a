//! Which backends of a pool are left out for what they answer, and when that is not heeded.
//!
//! Two bounds keep a pool from doing without itself: no more than `max_ejected` of its backends are ejected at once,
//! and never the last one that is ready. And there is panic, as Envoy calls it: when less than half of the backends
//! that operators have not drained are well, those that are ejected get requests again, as the rest would have to bear
//! more than twice its load; they still answer, if badly. It ends when half of them are well again.
//!
//! What is known to be dead gets nothing, in panic either: whose check failed, or who could not be connected to three
//! times in a row. Envoy sends requests there, too; here the answer is at once 503 when nobody is left, rather than the
//! time that connecting to the dead takes. Nor what an operator drained, and what has not been checked yet.

use std::sync::atomic::Ordering;
use std::time::{Instant, SystemTime};

use log::Level;

use super::roster::PoolStage;
use super::{News, Pool, TARGET};
use crate::upstream::health::HealthStatus;
use crate::upstream::{Backend, Lease};

impl Pool {
    /// Takes note that the backend of `lease` answered with an error, or broke an answer off, as is known at that
    /// moment; `why` is in words. Costs nothing where the pool ejects nobody.
    pub fn erred(&self, lease: &Lease, at: (Instant, SystemTime), why: impl FnOnce() -> String) {
        let (backend, Some(rules)) = (lease.backend(), &self.settings.outlier) else { return };
        if !backend.conduct().erred(rules, at.0) {
            return;
        }
        // Not let go of before the locks are: it may be the last to hold that pool.
        let serving = self.lineage.current();
        let serving = serving.as_deref().unwrap_or(self);
        let alone = self.lineage.take_out_alone();
        serving.eject(backend, at, &why());
        drop(alone);
    }

    fn eject(&self, backend: &Backend, at: (Instant, SystemTime), why: &str) {
        let Some(rules) = &self.settings.outlier else { return };
        let selection = self.selector.now();
        let all = selection.backends();
        let ejected = all.iter().filter(|one| one.conduct().is_ejected()).count();
        let reason = format!("{} errors in a row, the last: {why}", rules.errors);
        let mut news = News::default();
        let mut say = |target, what: String| {
            news.add(target, Level::Warn, format!("upstream {}: backend {} {what}", self.name(), backend.address()));
        };
        // What changes nothing comes again and again, and is summed up.
        let same = module_path!();
        if (ejected + 1) as f64 > rules.max_ejected * all.len() as f64 {
            say(same, format!("is not ejected: {reason}; {ejected} of {} are, and no more may be", all.len()));
        } else if !self.can_do_without(backend) {
            say(same, format!("is not ejected: {reason}; no other one is ready"));
        } else {
            let takes = backend.conduct().eject(rules, at, reason.clone());
            backend.follow_conduct();
            say(TARGET, format!("ejected for {}: {reason}; {}", humantime::format_duration(takes), self.left()));
            self.weigh(&mut news);
        }
    }

    /// Lets those come back whose ejection is over at `now`.
    pub(in crate::upstream) fn end_ejections(&self, now: Instant) {
        let mut news = News::default();
        let roster = self.roster.lock();
        if roster.stage != PoolStage::Serving {
            return;
        }
        for backend in self.selector.now().backends() {
            if backend.conduct().end(now) {
                backend.follow_conduct();
                let (name, address, left) = (self.name(), backend.address(), self.left());
                news.add(TARGET, Level::Info, format!("upstream {name}: backend {address} is back on trial; {left}"));
            }
        }
        self.weigh(&mut news);
    }

    /// Forgets how backends behaved, where the pool does not go by it. That there is no panic any more then is `news`.
    pub(super) fn pardon(&self, news: &mut News) {
        if self.settings.outlier.is_none() {
            for backend in self.selector.now().backends() {
                backend.conduct().pardon();
                backend.follow_conduct();
            }
            self.weigh(news);
        }
    }

    /// Finds out whether there is panic. That is `news`.
    fn weigh(&self, news: &mut News) {
        let selection = self.selector.now();
        let wanted = selection.backends().iter().filter(|backend| !backend.is_draining());
        let alive: Vec<_> = wanted.clone().filter(|backend| backend.status() == HealthStatus::Up).collect();
        let well = alive.iter().filter(|backend| !backend.conduct().is_ejected()).count();
        let wanted = wanted.count();
        let panic = well * 2 < wanted && well < alive.len();
        for backend in selection.backends() {
            if backend.conduct().spare(panic && backend.conduct().is_ejected()) {
                backend.follow_conduct();
            }
        }
        if self.lineage.panic.swap(panic, Ordering::Relaxed) == panic {
            return;
        }
        let name = self.name();
        if panic {
            self.lineage.panics.fetch_add(1, Ordering::Relaxed);
            let what = format!("panic: {well} of {wanted} backends are well, so ejected ones get requests");
            news.add(TARGET, Level::Warn, format!("upstream {name}: {what}"));
        } else {
            let what = format!("no panic any more: {well} of {wanted} backends are well");
            news.add(TARGET, Level::Info, format!("upstream {name}: {what}"));
        }
    }

    /// Whether ejected backends get requests, as too few others are well.
    pub fn is_in_panic(&self) -> bool {
        self.lineage.panic.load(Ordering::Relaxed)
    }

    /// How often that came about.
    pub fn panics(&self) -> u64 {
        self.lineage.panics.load(Ordering::Relaxed)
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;

    use super::*;
    use crate::clock::{Clock, ManualClock};
    use crate::upstream::health::CheckOutcome;
    use crate::upstream::pool::tests::pool;
    use crate::upstream::{AdminState, Anybody, BackendState, Check, OutlierRules, PoolSettings};

    /// Four backends that are up.
    fn four(max_ejected: f64) -> Pool {
        let settings =
            pool(Check::Tcp, &["127.0.0.1:1", "127.0.0.1:2", "127.0.0.1:3", "127.0.0.1:4"]).settings().clone();
        let outlier = Some(OutlierRules { max_ejected, ..OutlierRules::default() });
        let pool = Pool::new(PoolSettings { outlier, ..settings });
        pool.backends().iter().for_each(|backend| pool.checked(backend, CheckOutcome::Passed));
        pool
    }

    fn fail(pool: &Pool, place: usize, clock: &ManualClock) {
        let backend = Arc::clone(&pool.backends()[place]);
        for _ in 0..5 {
            pool.erred(&Lease::new(&backend), (clock.now(), clock.wall()), || "it answered 500".to_owned());
        }
    }

    fn ready(pool: &Pool) -> Vec<bool> {
        pool.backends().iter().map(|backend| backend.is_ready()).collect()
    }

    #[test]
    fn no_more_than_the_share_are_ejected_and_they_come_back() {
        let (clock, pool) = (ManualClock::new(), four(0.5));
        (0..4).for_each(|place| fail(&pool, place, &clock));
        assert_eq!(ready(&pool), [false, false, true, true]);
        assert!((0..20).all(|_| !pool.lease(&[], &Anybody).unwrap().backend().ejections().0));
        let told = pool.overview().backends;
        assert_eq!((told[0].state, told[2].state), (BackendState::Ejected, BackendState::Up));
        let ejected = told[0].ejected.clone().unwrap();
        assert_eq!(ejected.reason, "5 errors in a row, the last: it answered 500");
        assert_eq!(ejected.until, clock.wall() + OutlierRules::default().eject);
        assert!(!pool.is_in_panic(), "half of them are well");
        clock.advance(OutlierRules::default().eject);
        pool.end_ejections(clock.now());
        assert_eq!((ready(&pool), pool.overview().backends[0].ejections), (vec![true; 4], 1));
    }

    #[test]
    fn the_last_one_that_is_ready_stays() {
        let (clock, pool) = (ManualClock::new(), four(1.0));
        for backend in &pool.backends()[1..] {
            (0..2).for_each(|_| pool.checked(backend, CheckOutcome::Failed("refused".to_owned())));
        }
        fail(&pool, 0, &clock);
        assert_eq!(ready(&pool), [true, false, false, false]);
    }

    #[test]
    fn in_panic_the_ejected_get_requests_and_the_dead_do_not() {
        let (clock, pool) = (ManualClock::new(), four(1.0));
        (0..2).for_each(|place| fail(&pool, place, &clock));
        assert_eq!((ready(&pool), pool.is_in_panic()), (vec![false, false, true, true], false));
        (0..2).for_each(|_| pool.checked(&pool.backends()[2], CheckOutcome::Failed("refused".to_owned())));
        pool.end_ejections(clock.now());
        assert_eq!((ready(&pool), pool.is_in_panic(), pool.panics()), (vec![true, true, false, true], true, 1));
        assert_eq!(pool.overview().backends[0].state, BackendState::Ejected, "it is, all the same");
        // Whom an operator drains is not missed.
        for (port, ready_then) in [(1, false), (3, false)] {
            let address: std::net::SocketAddr = ([127, 0, 0, 1], port).into();
            pool.set_backend(address, Some(AdminState::Drain), None).unwrap();
            assert_eq!(pool.backends()[usize::from(port) - 1].is_ready(), ready_then);
        }
        pool.end_ejections(clock.now());
        assert_eq!((ready(&pool), pool.is_in_panic()), (vec![false, false, false, true], false), "one of two is well");
        let address: std::net::SocketAddr = ([127, 0, 0, 1], 1).into();
        pool.set_backend(address, Some(AdminState::Up), None).unwrap();
        clock.advance(OutlierRules::default().eject);
        pool.end_ejections(clock.now());
        assert_eq!((ready(&pool), pool.is_in_panic(), pool.panics()), (vec![true, true, false, true], false, 1));
    }

    #[test]
    fn a_pool_that_ejects_nobody_pardons_those_that_were() {
        let (clock, old) = (ManualClock::new(), Arc::new(four(0.5)));
        (0..2).for_each(|place| fail(&old, place, &clock));
        (0..2).for_each(|_| old.checked(&old.backends()[2], CheckOutcome::Failed("refused".to_owned())));
        old.end_ejections(clock.now());
        assert!(old.is_in_panic());
        let new = Arc::new(old.successor(PoolSettings { outlier: None, ..old.settings().clone() }));
        new.take_over(&old, &mut News::default());
        assert_eq!((ready(&new), new.is_in_panic()), (vec![true, true, false, true], false));
    }
}
