//! How much work there is, so that a stop can wait until it is done.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use tokio::sync::Notify;

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

#[cfg(test)]
mod tests {
    use std::time::Duration;

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
}
