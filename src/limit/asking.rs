//! Requests that wait for an answer about their buckets, or about how many of their caller's run.
//!
//! Who is asked is behind `AnswersStore`, so that a request, and the seam it is decided through, need not know what
//! leases are. All that wait are in one `AskingRoom`, and whoever asks for them is woken there.

use std::fmt;
use std::num::NonZeroU32;
use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};
use std::time::Duration;

use smallvec::SmallVec;
use tokio::sync::{Notify, oneshot};

use crate::limit::key::Key;

/// Who gave an answer, and takes back what is not made use of.
pub(super) trait AnswersStore: Send + Sync {
    /// Takes back what was given under a key and not spent.
    fn take_back(&self, key: Key, cost: u32);
}

/// Where requests wait, so many at once, and where whoever asks for them waits for them.
#[derive(Debug)]
pub(super) struct AskingRoom {
    most: usize,
    limit: Duration,
    inside: AtomicUsize,
    woken: Notify,
}

impl AskingRoom {
    /// For `most` requests, each of which waits no longer than `limit`.
    pub(super) fn new(most: usize, limit: Duration) -> Arc<Self> {
        Arc::new(AskingRoom { most, limit, inside: AtomicUsize::new(0), woken: Notify::new() })
    }

    /// Counts one more request; whether there is room for it.
    pub(super) fn enter(self: &Arc<Self>) -> (AskingPlace, bool) {
        let before = self.inside.fetch_add(1, Ordering::Relaxed);
        (AskingPlace(Arc::clone(self)), before < self.most)
    }

    /// There is something to ask that somebody waits for.
    pub(super) fn wake(&self) {
        self.woken.notify_one();
    }

    /// Waits until there is.
    pub(super) async fn woken(&self) {
        self.woken.notified().await;
    }
}

/// The place of a request that waits.
#[derive(Debug)]
pub(super) struct AskingPlace(Arc<AskingRoom>);

impl Drop for AskingPlace {
    fn drop(&mut self) {
        self.0.inside.fetch_sub(1, Ordering::Relaxed);
    }
}

/// What a request that waits is told of one bucket, or of its caller's turns.
#[derive(Debug)]
pub enum StoreVerdict {
    /// Tokens were given for it, or a turn.
    Granted(Prepaid),
    /// There are none.
    Empty,
}

/// Tokens that the store gave for one request, or its turn. They go back when they are dropped before they were
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
    turn: Option<oneshot::Receiver<StoreVerdict>>,
    place: AskingPlace,
}

impl PendingAnswers {
    /// About buckets.
    pub(super) fn new(questions: SmallVec<[(Key, oneshot::Receiver<StoreVerdict>); 2]>, place: AskingPlace) -> Self {
        PendingAnswers { questions, turn: None, place }
    }

    /// About a turn.
    pub(super) fn of_turn(question: oneshot::Receiver<StoreVerdict>, place: AskingPlace) -> Self {
        PendingAnswers { questions: SmallVec::new(), turn: Some(question), place }
    }

    /// The longest it may be waited for, in all.
    pub fn limit(&self) -> Duration {
        self.place.0.limit
    }

    /// Waits until all are answered, and adds what was answered to `asked`; whether the store answered all of it.
    pub async fn answered(&mut self, asked: &mut StoreAnswers) -> bool {
        let mut all = true;
        if let Some(question) = self.turn.take() {
            asked.turn = question.await.ok();
            all = asked.turn.is_some();
        }
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
    /// Whether it may run.
    pub(super) turn: Option<StoreVerdict>,
    /// Whose turn it has to ask for first, and how many of that caller's may run.
    pub(super) wanted: Option<(Key, NonZeroU32)>,
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
