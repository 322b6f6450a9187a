//! How much work there is, so that a stop can wait until it is done.
//!
//! Counted by tokio-util's `TaskTracker`: a count that loses no end of work between the look at it and the wait for it
//! is easily written wrong, and that one is used and tested by many.

use std::time::Duration;

use pingora_timeout::timeout;
use tokio::sync::watch;
use tokio_util::task::TaskTracker;
use tokio_util::task::task_tracker::TaskTrackerToken;

/// How long tunnels that are cut may take to write their access line.
const CUT: Duration = Duration::from_millis(500);

/// Counts the requests that are being read, served or refused.
#[derive(Debug)]
pub struct Activity(TaskTracker);

/// One request's part in the count.
#[derive(Debug)]
pub struct Busy {
    _token: TaskTrackerToken,
}

impl Default for Activity {
    fn default() -> Self {
        let tracker = TaskTracker::new();
        // To the tracker, only one that is closed can be idle; it counts on all the same.
        tracker.close();
        Activity(tracker)
    }
}

impl Activity {
    /// How many there are.
    pub fn busy(&self) -> usize {
        self.0.len()
    }

    /// Waits until there are none.
    pub async fn idle(&self) {
        self.0.wait().await;
    }

    /// Counts one until the guard is dropped.
    pub fn begin(&self) -> Busy {
        Busy { _token: self.0.token() }
    }
}

/// Counts the tunnels, which have no end of their own that a stop could wait for, and ends them. A tunnel is a request
/// in flight, too.
#[derive(Debug, Default)]
pub struct Tunnels {
    open: Activity,
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
    use std::sync::Arc;

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
