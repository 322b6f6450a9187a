//! How much work there is, so that a stop can wait until it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use pingora_timeout::timeout;
use tokio::sync::{Notify, watch};

/// How long tunnels that are cut may take to write their access line.
const CUT: Duration = Duration::from_millis(500);

/// Counts the requests that are being read, served or refused.
#[derive(Debug, Default)]
pub struct Activity {
    busy: AtomicUsize,
    idle: Notify,
}

/// One request's part in the count.
#[derive(Debug)]
pub struct Busy(Arc<Activity>);

impl Activity {
    /// How many there are.
    pub fn busy(&self) -> usize {
        self.busy.load(Ordering::SeqCst)
    }

    /// Waits until there are none.
    pub async fn idle(&self) {
        loop {
            let idle = self.idle.notified();
            if self.busy() == 0 {
                return;
            }
            idle.await;
        }
    }

    /// Counts one until the guard is dropped.
    pub fn begin(self: &Arc<Self>) -> Busy {
        self.busy.fetch_add(1, Ordering::SeqCst);
        Busy(Arc::clone(self))
    }
}

impl Drop for Busy {
    fn drop(&mut self) {
        if self.0.busy.fetch_sub(1, Ordering::SeqCst) == 1 {
            self.0.idle.notify_waiters();
        }
    }
}

/// Counts the tunnels, which have no end of their own that a stop could wait for, and ends them. A tunnel is a request
/// in flight, too.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: Arc<Activity>,
    cut: watch::Sender<bool>,
}

impl Tunnels {
    /// Counts one until the guard is dropped.
    pub(in crate::proxy) fn begin(&self) -> Busy {
        self.open.begin()
    }

    /// Waits until they are to end.
    pub(in crate::proxy) async fn cut(&self) {
        // The sender lives as long as `self`, so waiting cannot fail.
        let _ = self.cut.subscribe().wait_for(|cut| *cut).await;
    }

    /// Ends all of them, and those that begin from now on. Waits until they are gone, but not for long.
    pub async fn end(&self) {
        self.cut.send_replace(true);
        let _ = timeout(CUT, self.open.idle()).await;
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[tokio::test]
    async fn idle_is_when_the_last_is_done() {
        let activity = Arc::new(Activity::default());
        activity.idle().await;
        let (first, second) = (activity.begin(), activity.begin());
        let waiting = tokio::spawn({
            let activity = Arc::clone(&activity);
            async move { activity.idle().await }
        });
        drop(first);
        tokio::task::yield_now().await;
        assert!(!waiting.is_finished() && activity.busy() == 1);
        drop(second);
        tokio::time::timeout(Duration::from_secs(10), waiting).await.unwrap().unwrap();
    }

    #[tokio::test]
    async fn tunnels_are_told_to_end_and_waited_for() {
        let tunnels = Arc::new(Tunnels::default());
        tunnels.end().await;
        tunnels.cut().await;
        let tunnels = Arc::new(Tunnels::default());
        let running = tokio::spawn({
            let (tunnels, open) = (Arc::clone(&tunnels), tunnels.begin());
            async move {
                tunnels.cut().await;
                drop(open);
            }
        });
        tunnels.end().await;
        assert_eq!(tunnels.open.busy(), 0);
        running.await.unwrap();
    }
}
