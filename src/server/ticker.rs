//! Work that is done again and again while the server runs.
//!
//! The rule: one tick at a time, at multiples of the interval from the start. A machine that stalls misses ticks; they
//! are not made up for, and the following ones come when they would have come. A tick that panics is logged, and the
//! next one comes all the same.

use std::panic::AssertUnwindSafe;
use std::time::Duration;

use futures_util::FutureExt;
use log::error;
use pingora_core::server::ShutdownWatch;
use tokio::time::{MissedTickBehavior, interval};

/// Calls `tick` at once and then every `every`, one after the other, until the server stops. `name` is for the log.
pub(super) async fn run<F: Future<Output = ()> + Send>(
    name: &str,
    every: Duration,
    mut shutdown: ShutdownWatch,
    mut tick: impl FnMut() -> F + Send,
) {
    let mut ticks = interval(every);
    ticks.set_missed_tick_behavior(MissedTickBehavior::Skip);
    loop {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stopping| *stopping) => return,
            _ = ticks.tick() => {}
        }
        // What the tick leaves half done is its own to repair; each of ours takes whole steps under a lock.
        if AssertUnwindSafe(async { tick().await }).catch_unwind().await.is_err() {
            error!("{name}: a tick failed; the next one comes as usual");
        }
    }
}

#[cfg(test)]
mod tests {
    use std::sync::Arc;
    use std::sync::atomic::{AtomicUsize, Ordering};

    use tokio::sync::watch;
    use tokio::time::{Instant, advance, sleep};

    use super::*;

    const SECOND: Duration = Duration::from_secs(1);

    /// A running ticker whose ticks are counted, and the switch that stops it.
    fn start(
        tick: impl Fn(usize) + Send + Sync + 'static,
    ) -> (Arc<AtomicUsize>, watch::Sender<bool>, tokio::task::JoinHandle<()>) {
        let (count, (stop, stopping)) = (Arc::new(AtomicUsize::new(0)), watch::channel(false));
        let counted = Arc::clone(&count);
        let task = tokio::spawn(async move {
            let tick = || {
                tick(counted.fetch_add(1, Ordering::SeqCst));
                std::future::ready(())
            };
            run("test", SECOND, stopping, tick).await;
        });
        (count, stop, task)
    }

    #[tokio::test(start_paused = true)]
    async fn it_does_not_drift() {
        let begin = Instant::now();
        let (count, _stop, _task) = start(|_| {});
        sleep(Duration::from_millis(1_000_500)).await;
        assert_eq!((count.load(Ordering::SeqCst), begin.elapsed().as_secs()), (1001, 1000));
    }

    #[tokio::test(start_paused = true)]
    async fn a_stall_is_not_made_up_for() {
        let (count, _stop, _task) = start(|_| {});
        sleep(Duration::from_millis(500)).await;
        advance(Duration::from_secs(10)).await;
        sleep(Duration::from_millis(1)).await;
        assert_eq!(count.load(Ordering::SeqCst), 2, "one at the start, one for the ten that were missed");
        sleep(SECOND).await;
        assert_eq!(count.load(Ordering::SeqCst), 3);
    }

    #[tokio::test(start_paused = true)]
    async fn a_panic_costs_one_tick() {
        let (count, stop, task) = start(|number| assert_ne!(number, 1, "the second tick fails"));
        sleep(Duration::from_millis(3500)).await;
        assert_eq!(count.load(Ordering::SeqCst), 4);
        stop.send(true).unwrap();
        task.await.unwrap();
        sleep(5 * SECOND).await;
        assert_eq!(count.load(Ordering::SeqCst), 4, "it stops when the server does");
    }
}
