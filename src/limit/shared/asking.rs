//! Requests that wait for the store.

use std::sync::Arc;

use smallvec::SmallVec;
use tokio::sync::oneshot;

use super::leases::Leases;
use crate::limit::key::Key;

/// What a request that waits is told of one bucket.
#[derive(Debug)]
pub enum Verdict {
    /// Tokens were given for it.
    Granted(Prepaid),
    /// There are none.
    Empty,
}

/// Tokens that the store gave for one request. They go back when they are dropped before they were
/// [spent](Prepaid::spend).
#[derive(Debug)]
pub struct Prepaid {
    leases: Arc<Leases>,
    key: Key,
    cost: u32,
}

impl Prepaid {
    pub(super) fn new(leases: Arc<Leases>, key: Key, cost: u32) -> Self {
        Prepaid { leases, key, cost }
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
            self.leases.return_prepaid(self.key, self.cost);
        }
    }
}

/// A request's questions, to be waited for.
#[derive(Debug)]
pub struct Asking {
    questions: SmallVec<[(Key, oneshot::Receiver<Verdict>); 2]>,
    /// Its place among those that wait.
    _seat: Option<WaitingSeat>,
    leases: Arc<Leases>,
}

/// One of the requests that wait.
#[derive(Debug)]
pub(super) struct WaitingSeat(pub(super) Arc<Leases>);

impl Drop for WaitingSeat {
    fn drop(&mut self) {
        self.0.stood_up();
    }
}

impl Asking {
    pub(super) fn new(
        questions: SmallVec<[(Key, oneshot::Receiver<Verdict>); 2]>,
        seat: Option<WaitingSeat>,
        leases: Arc<Leases>,
    ) -> Self {
        Asking { questions, _seat: seat, leases }
    }

    /// The longest it may be waited for, in all.
    pub fn limit(&self) -> std::time::Duration {
        self.leases.timeout()
    }

    /// Waits until all are answered, and adds what was answered to `asked`; whether the store answered all of it.
    pub async fn answered(&mut self, asked: &mut StoreAnswers) -> bool {
        let mut all = true;
        for (key, question) in self.questions.drain(..) {
            match question.await {
                Ok(Verdict::Granted(granted)) => asked.verdicts.push((key, Verdict::Granted(granted))),
                Ok(Verdict::Empty) => {}
                Err(_) => all = false,
            }
        }
        all
    }
}

/// What a request has found out.
#[derive(Debug, Default)]
pub struct StoreAnswers {
    verdicts: SmallVec<[(Key, Verdict); 2]>,
    /// Whether it waits no longer, and is judged by what there is.
    pub last: bool,
}

impl StoreAnswers {
    pub(super) fn take(&mut self, key: Key) -> Option<Verdict> {
        let found = self.verdicts.iter().position(|(of, _)| *of == key)?;
        Some(self.verdicts.swap_remove(found).1)
    }

    pub(super) fn keep(&mut self, granted: Prepaid) {
        self.verdicts.push((granted.key(), Verdict::Granted(granted)));
    }
}
