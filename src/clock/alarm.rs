//! A timer for many waits, one after the other, nearly all of which end long before their limit.
//!
//! The problem: a timer that is set for each wait and taken back after it is most of what a short wait costs. A request
//! has two waits and four moments at which it might have to wait; with a timer of their own each, and a reading of the
//! clock, they were 2,000 of 21,000 instructions.
//!
//! The rule: the timer is set for the earliest moment at which a wait could be over, and left alone while later ones go
//! on beyond that. When it rings, what is being waited for by then says until when to set it anew. So it is set once
//! for each limit that passes, and not once for each wait. How late it is, is read from the kernel's coarse clock,
//! which costs a tenth of the exact one; a limit is never cut short, and overrun by at most two of its ticks, 8 to 20
//! ms.

use std::future::poll_fn;
use std::pin::{Pin, pin};
use std::task::{Context, Poll, Waker};
use std::time::Duration;

use rustix::time::{ClockId, clock_gettime};
use tokio::time::{Instant, Sleep, sleep};

/// The longest tick that a kernel's coarse clock has, in milliseconds.
const TICK: u64 = 10;

/// A limit has passed.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub struct Late;

/// One timer, for the waits of one task. Takes memory only once one of them has to wait.
#[derive(Debug, Default)]
pub struct Alarm(Option<Timer>);

#[derive(Debug)]
struct Timer {
    sleep: Pin<Box<Sleep>>,
    /// When it rings, by the coarse clock.
    rings: u64,
    /// Whom it wakes.
    waker: Waker,
}

impl Alarm {
    /// What `future` comes to, unless it takes longer than `limit`. Nothing of it is lost when this is dropped.
    ///
    /// # Errors
    /// When it does.
    pub async fn within<T>(&mut self, limit: Duration, future: impl Future<Output = T>) -> Result<T, Late> {
        let (mut future, mut due) = (pin!(future), None);
        poll_fn(|cx| {
            if let Poll::Ready(outcome) = future.as_mut().poll(cx) {
                return Poll::Ready(Ok(outcome));
            }
            let now = coarse_millis();
            let limit = u64::try_from(limit.as_millis()).unwrap_or(u64::MAX);
            let due = *due.get_or_insert(now.saturating_add(limit).saturating_add(TICK));
            self.poll_due(cx, now, due).map(|()| Err(Late))
        })
        .await
    }

    /// Sees to it that the task is woken when it is `due`; ready when that is `now` or over.
    fn poll_due(&mut self, cx: &mut Context<'_>, now: u64, due: u64) -> Poll<()> {
        if now >= due {
            return Poll::Ready(());
        }
        if let Some(timer) = &self.0
            && timer.rings <= due
            && timer.waker.will_wake(cx.waker())
            && !timer.sleep.is_elapsed()
        {
            return Poll::Pending;
        }
        let left = Duration::from_millis(due - now);
        let timer =
            self.0.get_or_insert_with(|| Timer { sleep: Box::pin(sleep(left)), rings: due, waker: cx.waker().clone() });
        if timer.rings > due || timer.sleep.is_elapsed() {
            timer.sleep.as_mut().reset(Instant::now() + left);
            timer.rings = due;
        }
        timer.waker.clone_from(cx.waker());
        while timer.sleep.as_mut().poll(cx).is_ready() {
            // Rung in this very moment, by a clock that is ahead of the coarse one.
            timer.sleep.as_mut().reset(Instant::now() + Duration::from_millis(TICK));
        }
        Poll::Pending
    }
}

/// The kernel's coarse monotonic clock, in milliseconds.
fn coarse_millis() -> u64 {
    let now = clock_gettime(ClockId::MonotonicCoarse);
    now.tv_sec as u64 * 1000 + now.tv_nsec as u64 / 1_000_000
}

#[cfg(test)]
mod tests {
    use std::future::{pending, ready};

    use tokio::time::sleep;

    use super::*;
    use crate::clock::{Clock, SystemClock};

    const SHORT: Duration = Duration::from_millis(30);
    const LONG: Duration = Duration::from_secs(60);

    #[tokio::test]
    async fn what_is_there_needs_no_timer() {
        let mut alarm = Alarm::default();
        assert_eq!(alarm.within(Duration::ZERO, ready(1)).await, Ok(1));
        assert!(alarm.0.is_none());
    }

    #[tokio::test]
    async fn limits_are_kept_whatever_was_waited_for_before() {
        let mut alarm = Alarm::default();
        for (limit, before) in [(LONG, SHORT), (SHORT, Duration::from_millis(1)), (LONG, 3 * SHORT), (LONG, SHORT / 2)]
        {
            let _ = alarm.within(limit, sleep(before)).await;
            let start = SystemClock.now();
            assert_eq!(alarm.within(SHORT, pending::<()>()).await, Err(Late));
            assert!(SystemClock.now() - start >= SHORT, "after {before:?} of {limit:?}");
        }
    }

    #[tokio::test]
    async fn the_timer_is_left_alone_until_it_rings() {
        let mut alarm = Alarm::default();
        let wait = async |alarm: &mut Alarm| {
            alarm.within(LONG, sleep(Duration::from_millis(1))).await.unwrap();
            alarm.0.as_ref().map(|timer| timer.rings)
        };
        let first = wait(&mut alarm).await;
        assert_eq!((first, first), (wait(&mut alarm).await, wait(&mut alarm).await));
        // Set for something shorter, it rings in the middle of a longer wait, which goes on.
        alarm.within(SHORT, sleep(Duration::from_millis(1))).await.unwrap();
        assert!(alarm.0.as_ref().map(|timer| timer.rings) < first);
        assert_eq!(alarm.within(LONG, sleep(4 * SHORT)).await, Ok(()));
    }
}
