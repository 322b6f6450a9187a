//! A route that leads to several pools, each of which gets its share of the requests.
//!
//! The shares are exact: of any so many requests in a row as the weights are together, each pool gets its weight, well
//! mixed (nginx's smooth weighted round robin, as among the backends of a pool). A few requests to a new version are so
//! few from the first minute on, where nginx's `split_clients` and a draw at random would be right on average only.
//! Whether a pool has a backend for a request counts for nothing: a canary that is down is seen as one.
//!
//! A client that is to stay with its backend ([`sticky`](crate::proxy::gate::sticky)) stays with the pool of it, so its
//! requests after the first are not part of the shares.

use std::num::NonZeroU32;
use std::sync::Arc;

use parking_lot::Mutex;

use crate::proxy::gate::affinity::token;
use crate::proxy::wire::lines::Fields;
use crate::upstream::Pool;

/// Pools with their shares. A choice costs a lock and a look at all of them.
#[derive(Debug)]
pub struct PoolSplit {
    shares: Box<[(Arc<Pool>, i64)]>,
    credits: Mutex<Box<[i64]>>,
}

impl PoolSplit {
    /// Shares among these, of which there is at least one.
    pub fn new(shares: impl IntoIterator<Item = (Arc<Pool>, NonZeroU32)>) -> Self {
        let shares: Box<[_]> = shares.into_iter().map(|(pool, weight)| (pool, i64::from(weight.get()))).collect();
        let credits = Mutex::new(vec![0; shares.len()].into());
        PoolSplit { shares, credits }
    }

    /// The pool of a request with these `fields`: the one that its client stays with, or the next in turn.
    pub(in crate::proxy) fn pool(&self, fields: &impl Fields) -> Option<&Arc<Pool>> {
        self.stays(fields).or_else(|| self.shares.get(self.next()).map(|(pool, _)| pool))
    }

    /// The pool that a client stays with whose request has these `fields`; none of who is new.
    pub(in crate::proxy) fn stays(&self, fields: &impl Fields) -> Option<&Arc<Pool>> {
        let stays = |pool: &&Arc<Pool>| {
            let sticky = pool.settings().sticky.as_ref();
            sticky.is_some_and(|name| token(pool, (fields, name)).is_some())
        };
        self.shares.iter().map(|(pool, _)| pool).find(stays)
    }

    fn next(&self) -> usize {
        let (mut credits, mut best, mut all) = (self.credits.lock(), 0, 0);
        for (at, (_, weight)) in self.shares.iter().enumerate() {
            credits[at] += weight;
            all += weight;
            if credits[at] > credits[best] {
                best = at;
            }
        }
        if let Some(credit) = credits.get_mut(best) {
            *credit -= all;
        }
        best
    }

    /// The pools with their weights.
    pub fn shares(&self) -> impl Iterator<Item = (&Arc<Pool>, u32)> {
        self.shares.iter().map(|(pool, weight)| (pool, u32::try_from(*weight).unwrap_or(u32::MAX)))
    }
}

#[cfg(test)]
mod tests {
    use std::collections::HashMap;

    use http::HeaderMap;
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::PoolSettings;

    fn split(weights: &[u32]) -> PoolSplit {
        let pool = |at: usize| Pool::new(PoolSettings { name: at.to_string(), ..PoolSettings::default() });
        let share = |(at, weight): (usize, &u32)| (Arc::new(pool(at)), NonZeroU32::new(*weight).unwrap());
        PoolSplit::new(weights.iter().enumerate().map(share))
    }

    fn names(split: &PoolSplit, count: u32) -> Vec<String> {
        (0..count).map(|_| split.pool(&HeaderMap::new()).unwrap().name().to_owned()).collect()
    }

    #[test]
    fn nine_of_ten_go_to_the_one_and_one_to_the_other() {
        assert_eq!(names(&split(&[9, 1]), 10).concat(), "0000010000");
    }

    proptest! {
        /// In every cycle each has its weight, wherever the cycle begins.
        #[test]
        fn shares_are_exact(weights in prop::collection::vec(1_u32..20, 1..6), start in 0_u32..50) {
            let (split, all) = (split(&weights), weights.iter().sum());
            names(&split, start);
            let mut counts = HashMap::<String, u32>::new();
            names(&split, all).into_iter().for_each(|name| *counts.entry(name).or_default() += 1);
            for (at, weight) in weights.iter().enumerate() {
                prop_assert_eq!(counts[&at.to_string()], *weight);
            }
        }
    }
}
