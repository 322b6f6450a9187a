//! What nodes spent of a bucket and have not told: they tell it before an operator fills the bucket.
//!
//! The problem: what a node spends of its lease keeps its room in the bucket until the node tells it. A bucket that is
//! filled meanwhile lacks as much. The rule: first all nodes are asked to tell what they spent of it. Each tells the
//! store, and holds nothing of the bucket for half a second, in which each request asks the store. So when it is filled
//! nobody holds anything of it, and it is full to the token. A node that has not answered within 250 ms is not waited
//! for: what it holds then counts as held, and what it spent of that is lost, as ever; never is more let in than is there.
//!
//! Refused: to fill it first, and then to give back what nodes say that they spent before: of what was let in meanwhile
//! no node knows on which side of that it was; to number the fillings in the bucket and in each question, which every
//! question pays for, and which only tells the store the same.

use std::sync::Arc;
use std::time::Duration;

use futures_util::future::{BoxFuture, join_all};
use tokio::time::timeout;

use super::bucket_changes::{BucketChange, read, written};
use super::gather::Gatherer;
use crate::clock::{Clock, Timeline};
use crate::limit::shared::leases::Leases;
use crate::limit::{KeyMaker, Reach};

/// What a question begins with; no other does.
const TELL: &str = "tell ";
/// How long telling may take.
const LIMIT: Duration = Duration::from_millis(250);

/// Has the store told what nodes spent of buckets. A clone is the same.
#[derive(Clone)]
pub struct Untold {
    leases: Arc<Leases>,
    keys: Arc<KeyMaker>,
    clock: Arc<dyn Clock>,
    timeline: Timeline,
}

impl Untold {
    /// What `leases` spent, whose keys `keys` makes.
    pub fn new(leases: Arc<Leases>, keys: Arc<KeyMaker>, (clock, timeline): (Arc<dyn Clock>, Timeline)) -> Self {
        Untold { leases, keys, clock, timeline }
    }

    /// Has all nodes tell, before buckets are filled in a store that answers, what they spent of them.
    pub async fn before(&self, change: &BucketChange, others: &Gatherer) {
        if change.tokens.is_some() || self.leases.reach() != Reach::Joined {
            return;
        }
        let question = format!("{TELL}{}", written(change));
        let (_, gathered) = tokio::join!(self.tell(change.clone()), others.ask_anew(&question));
        if !gathered.missing.is_empty() {
            log::debug!(target: "tollgate::fleet", "not told before buckets are filled: {:?}", gathered.missing);
        }
    }

    /// This node's answer to another's question, if it is one of these.
    pub fn answer(&self, question: &str) -> Option<BoxFuture<'static, Option<String>>> {
        let change = read(question.strip_prefix(TELL)?)?;
        let own = self.clone();
        Some(Box::pin(async move { own.tell(change).await.then(String::new) }))
    }

    /// Tells the store what this node spent; whether it knows.
    async fn tell(&self, change: BucketChange) -> bool {
        let now = self.timeline.nanos(self.clock.now());
        let all = change.buckets.iter().map(|(payer, _)| self.leases.tell(self.keys.of(*payer), now));
        timeout(LIMIT, join_all(all)).await.is_ok()
    }
}
