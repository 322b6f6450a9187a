//! The time, as a seam.
//!
//! The core is handed `now`; only the shell (services, hooks) holds a [`Clock`] and asks it. Tests hold a
//! [`ManualClock`] and move it, so no test sleeps to let time pass. `clippy.toml` forbids `Instant::now` and
//! `SystemTime::now` everywhere else.

mod alarm;

pub use alarm::{Alarm, Late};

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
    /// The time since the machine was started; none where it cannot be had.
    fn boot(&self) -> Option<BootTime>;
}

/// A moment of the time since a machine was started, in which time goes on while no process runs, and which nobody
/// sets.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct BootTime {
    /// Which start of which machine; numbers of two of them say nothing about each other.
    pub id: u128,
    /// Nanoseconds since then, those in which the machine slept counted too.
    pub nanos: u64,
}

impl BootTime {
    /// The nanoseconds from `earlier` to this moment; none when they are of two starts, or in the other order.
    pub fn since(self, earlier: BootTime) -> Option<u64> {
        if self.id == earlier.id { self.nanos.checked_sub(earlier.nanos) } else { None }
    }
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

    /// By `CLOCK_BOOTTIME` and the kernel's boot id, which containers share with their host.
    fn boot(&self) -> Option<BootTime> {
        let id = std::fs::read_to_string("/proc/sys/kernel/random/boot_id").ok()?;
        let id = u128::from_str_radix(&id.trim().replace('-', ""), 16).ok()?;
        let now = rustix::time::clock_gettime(rustix::time::ClockId::Boottime);
        let (seconds, nanos) = (u64::try_from(now.tv_sec).ok()?, u64::try_from(now.tv_nsec).ok()?);
        Some(BootTime { id, nanos: seconds.checked_mul(1_000_000_000)?.checked_add(nanos)? })
    }
}

/// Turns monotonic instants into nanoseconds since the Unix epoch.
///
/// The wall clock is asked once, at the start; from then on the monotonic clock counts. So the numbers never step back
/// within a process, and still mean the same to the next process.
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

    /// When `nanos` of this timeline were, by the wall clock as it is set now. That differs from the timeline by as
    /// much as the clock was set since the start; by whole seconds, so that the same moment reads the same each time.
    pub fn wall(&self, nanos: u64, clock: &dyn Clock) -> SystemTime {
        let since_epoch = clock.wall().duration_since(SystemTime::UNIX_EPOCH).unwrap_or_default();
        let (now, then) = (self.nanos(clock.now()), SystemTime::UNIX_EPOCH + Duration::from_nanos(nanos));
        let wall = u64::try_from(since_epoch.as_nanos()).unwrap_or(u64::MAX);
        let seconds = |nanos: u64| Duration::from_secs(nanos.saturating_add(500_000_000) / 1_000_000_000);
        let moved =
            if wall < now { then.checked_sub(seconds(now - wall)) } else { then.checked_add(seconds(wall - now)) };
        moved.filter(|wall| *wall > SystemTime::UNIX_EPOCH).unwrap_or(SystemTime::UNIX_EPOCH)
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
    /// How often the machine was started anew.
    boots: AtomicU64,
}

impl ManualClock {
    /// A clock that starts at the present moment.
    pub fn new() -> Self {
        ManualClock {
            start: SystemClock.now(),
            wall_start: SystemClock.wall(),
            elapsed_nanos: AtomicU64::new(0),
            set_nanos: AtomicI64::new(0),
            boots: AtomicU64::new(0),
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

    /// Has the machine started anew, with whatever the wall clock says.
    pub fn reboot(&self) {
        self.boots.fetch_add(1, Ordering::SeqCst);
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

    fn boot(&self) -> Option<BootTime> {
        let id = self.boots.load(Ordering::SeqCst).into();
        Some(BootTime { id, nanos: self.elapsed_nanos.load(Ordering::SeqCst) })
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
    fn a_moment_reads_as_the_clock_is_set_now() {
        let clock = ManualClock::new();
        let timeline = Timeline::new(&clock);
        clock.advance(Duration::from_millis(1_234));
        let (then, wall) = (timeline.nanos(clock.now()), clock.wall());
        for (set, ahead) in [(3 * 3600, true), (-6 * 3600, false), (3 * 3600, false)] {
            clock.set_wall(set);
            clock.advance(Duration::from_secs(5));
            let by = Duration::from_secs(3 * 3600);
            let expected = match (set, ahead) {
                (_, true) => wall + by,
                (..=0, _) => wall - by,
                _ => wall,
            };
            assert_eq!(timeline.wall(then, &clock), expected, "set by {set}");
        }
        let long_ago = timeline.wall(1, &clock);
        clock.set_wall(-1);
        assert_eq!(
            (long_ago, timeline.wall(1, &clock)),
            (SystemTime::UNIX_EPOCH + Duration::from_nanos(1), SystemTime::UNIX_EPOCH)
        );
    }

    #[test]
    fn the_time_since_the_start_of_a_machine_goes_on_and_tells_starts_apart() {
        let (first, second) = (SystemClock.boot().unwrap(), SystemClock.boot().unwrap());
        assert!(first.id == second.id && second.since(first).is_some() && first.nanos > 0);
        let clock = ManualClock::new();
        let first = clock.boot().unwrap();
        clock.advance(Duration::from_secs(2));
        clock.set_wall(-3600);
        assert_eq!(clock.boot().unwrap().since(first), Some(2_000_000_000));
        assert_eq!(first.since(clock.boot().unwrap()), None);
        clock.reboot();
        assert_eq!(clock.boot().unwrap().since(first), None);
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
