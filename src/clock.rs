//! The time, as a seam.
//!
//! The core is handed `now`; only the shell (services, hooks) holds a [`Clock`] and asks it. Tests hold a
//! [`ManualClock`] and move it, so no test sleeps to let time pass. `clippy.toml` forbids `Instant::now` and
//! `SystemTime::now` everywhere else.

use std::sync::atomic::{AtomicI64, AtomicU64, Ordering};
use std::time::{Duration, Instant, SystemTime};

/// Tells the time, monotonic and wall.
///
/// Contract: [`now`](Clock::now) never steps back within a process; [`wall`](Clock::wall) may step either way at any
/// moment and is only for people (timestamps in logs), never for measuring.
pub trait Clock: Send + Sync {
    /// The monotonic time.
    fn now(&self) -> Instant;
    /// The wall-clock time.
    fn wall(&self) -> SystemTime;
}

/// The operating system's clocks.
#[derive(Clone, Copy, Debug, Default)]
pub struct SystemClock;

#[expect(clippy::disallowed_methods, reason = "this is the one place that asks the system")]
impl Clock for SystemClock {
    fn now(&self) -> Instant {
        Instant::now()
    }

    fn wall(&self) -> SystemTime {
        SystemTime::now()
    }
}

/// Turns monotonic instants into nanoseconds since the Unix epoch.
///
/// The wall clock is asked once, at the start; from then on the monotonic clock counts. So the numbers never step back within a
/// process, and still mean the same to the next process.
#[derive(Clone, Copy, Debug)]
pub struct Timeline {
    start: Instant,
    start_nanos: u64,
}

impl Timeline {
    /// A timeline that starts at the present moment of `clock`.
    pub fn new(clock: &dyn Clock) -> Self {
        let since_epoch = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        Timeline { start: clock.now(), start_nanos: u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX) }
    }

    /// The nanoseconds at `now`; those at the start for anything before it.
    pub fn nanos(&self, now: Instant) -> u64 {
        let elapsed = now.saturating_duration_since(self.start).as_nanos();
        self.start_nanos.saturating_add(u64::try_from(elapsed).unwrap_or(u64::MAX))
    }
}

/// A clock that stands still until it is moved by [`advance`](ManualClock::advance). For tests.
#[derive(Debug)]
pub struct ManualClock {
    start: Instant,
    wall_start: SystemTime,
    elapsed_nanos: AtomicU64,
    /// How far the wall clock was set, in nanoseconds.
    set_nanos: AtomicI64,
}

impl ManualClock {
    /// A clock that starts at the present moment.
    pub fn new() -> Self {
        ManualClock {
            start: SystemClock.now(),
            wall_start: SystemClock.wall(),
            elapsed_nanos: AtomicU64::new(0),
            set_nanos: AtomicI64::new(0),
        }
    }

    /// Moves the clock forward by `step`, at most 584 years in all.
    pub fn advance(&self, step: Duration) {
        let nanos = u64::try_from(step.as_nanos()).unwrap_or(u64::MAX);
        self.elapsed_nanos.fetch_add(nanos, Ordering::SeqCst);
    }

    /// Sets the wall clock, forward or back; the monotonic time goes on as it was.
    pub fn set_wall(&self, seconds: i64) {
        self.set_nanos.fetch_add(seconds.saturating_mul(1_000_000_000), Ordering::SeqCst);
    }

    fn elapsed(&self) -> Duration {
        Duration::from_nanos(self.elapsed_nanos.load(Ordering::SeqCst))
    }
}

impl Default for ManualClock {
    fn default() -> Self {
        Self::new()
    }
}

impl Clock for ManualClock {
    fn now(&self) -> Instant {
        self.start + self.elapsed()
    }

    fn wall(&self) -> SystemTime {
        let set = self.set_nanos.load(Ordering::SeqCst);
        let moved = Duration::from_nanos(set.unsigned_abs());
        let wall = self.wall_start + self.elapsed();
        if set < 0 { wall - moved } else { wall + moved }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    /// The contract, over both implementations.
    fn never_steps_back(clock: &dyn Clock) {
        let first = clock.now();
        assert!((0..1000).all(|_| clock.now() >= first));
    }

    #[test]
    fn clocks_never_step_back() {
        never_steps_back(&SystemClock);
        never_steps_back(&ManualClock::new());
    }

    #[test]
    fn a_timeline_counts_on_from_the_wall_clock() {
        let clock = ManualClock::new();
        let timeline = Timeline::new(&clock);
        let wall = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap().as_nanos() as u64;
        let before = clock.now();
        clock.advance(Duration::from_nanos(1_500_000_001));
        assert_eq!(timeline.nanos(clock.now()), wall + 1_500_000_001);
        assert_eq!(timeline.nanos(before - Duration::from_secs(1)), wall);
    }

    #[test]
    fn a_manual_clock_moves_only_when_told() {
        let clock = ManualClock::new();
        let (now, wall) = (clock.now(), clock.wall());
        assert_eq!((clock.now(), clock.wall()), (now, wall));
        clock.advance(Duration::from_millis(1500));
        assert_eq!(clock.now() - now, Duration::from_millis(1500));
        assert_eq!(clock.wall().duration_since(wall).ok(), Some(Duration::from_millis(1500)));
    }
}
