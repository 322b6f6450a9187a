//! Requests that wait for an answer about their buckets.
//!
//! Who is asked is behind `AnswersStore`, so that a request, and the seam it is decided through, need not know what
//! leases are.

use std::fmt;
use std::sync::Arc;
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use crate::limit::key::Key;

/// Who gave an answer, and takes back what is not made use of.
pub(super) trait AnswersStore: Send + Sync {
    /// Takes back tokens of a bucket that were not spent.
    fn take_back(&self, key: Key, cost: u32);

    /// One of those that wait does so no more.
    fn stood_up(&self);
}

/// What a request that waits is told of one bucket.
#[derive(Debug)]
pub enum StoreVerdict {
    /// Tokens were given for it.
    Granted(Prepaid),
    /// There are none.
    Empty,
}

/// Tokens that the store gave for one request. They go back when they are dropped before they were
/// spent.
pub struct Prepaid {
    of: Arc<dyn AnswersStore>,
    key: Key,
    cost: u32,
}

impl Prepaid {
    pub(super) fn new(of: Arc<dyn AnswersStore>, key: Key, cost: u32) -> Self {
        Prepaid { of, key, cost }
    }

    /// Of which bucket.
    pub(super) fn key(&self) -> Key {
        self.key
    }

    /// They are spent.
    pub(super) fn spend(mut self) {
        self.cost = 0;
    }
}

impl Drop for Prepaid {
    fn drop(&mut self) {
        if self.cost > 0 {
            self.of.take_back(self.key, self.cost);
        }
    }
}

/// A request's questions, to be waited for.
pub struct PendingAnswers {
    questions: SmallVec<[(Key, oneshot::Receiver<StoreVerdict>); 2]>,
    of: Arc<dyn AnswersStore>,
    limit: Duration,
}

impl Drop for PendingAnswers {
    fn drop(&mut self) {
        self.of.stood_up();
    }
}

impl PendingAnswers {
    pub(super) fn new(
        questions: SmallVec<[(Key, oneshot::Receiver<StoreVerdict>); 2]>,
        of: Arc<dyn AnswersStore>,
        limit: Duration,
    ) -> Self {
        PendingAnswers { questions, of, limit }
    }

    /// The longest it may be waited for, in all.
    pub fn limit(&self) -> Duration {
        self.limit
    }

    /// Waits until all are answered, and adds what was answered to `asked`; whether the store answered all of it.
    pub async fn answered(&mut self, asked: &mut StoreAnswers) -> bool {
        let mut all = true;
        for (key, question) in self.questions.drain(..) {
            match question.await {
                Ok(StoreVerdict::Granted(granted)) => asked.verdicts.push((key, StoreVerdict::Granted(granted))),
                Ok(StoreVerdict::Empty) => {}
                Err(_) => all = false,
            }
        }
        all
    }
}

/// What a request has found out.
#[derive(Debug, Default)]
pub struct StoreAnswers {
    verdicts: SmallVec<[(Key, StoreVerdict); 2]>,
    /// Whether it waits no longer, and is judged by what there is.
    pub last: bool,
}

impl StoreAnswers {
    pub(super) fn take(&mut self, key: Key) -> Option<StoreVerdict> {
        let found = self.verdicts.iter().position(|(of, _)| *of == key)?;
        Some(self.verdicts.swap_remove(found).1)
    }

    pub(super) fn keep(&mut self, granted: Prepaid) {
        self.verdicts.push((granted.key(), StoreVerdict::Granted(granted)));
    }
}

impl fmt::Debug for Prepaid {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Prepaid").field("key", &self.key).field("cost", &self.cost).finish_non_exhaustive()
    }
}
