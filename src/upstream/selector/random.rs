//! Weighted random: each choice is independent, each backend as likely as its weight says among those that are left.
//!
//! Unlike round robin it shares nothing between callers that they write, and many proxies in front of the same backends
//! do not fall into step. What callers read is a table of the sums of the weights up to each ready backend, in which a
//! number is looked up; whoever finds that backends have changed since it was made makes another one.

use std::sync::Arc;

use arc_swap::ArcSwap;

use super::members::{Chosen, LeaseRequest, Members, Rule};
use crate::upstream::BackendId;

/// Weighted random. A choice takes no lock and costs O(log backends); the first one after backends became ready or
/// ceased to be costs O(backends).
#[derive(Debug)]
pub(super) struct Random {
    table: ArcSwap<WeightTable>,
}

/// The ready backends.
#[derive(Debug)]
struct WeightTable {
    /// That of the changes that are in it.
    version: u64,
    /// For each the sum of the weights up to and with its own.
    ends: Box<[u64]>,
    /// For each its place among all.
    indexes: Box<[usize]>,
}

impl Random {
    pub(super) fn new(members: &Members) -> Self {
        Random { table: ArcSwap::from_pointee(WeightTable::new(members)) }
    }

    /// `roll(n)` is a number below `n`, each as likely as the others.
    pub(super) fn pick(&self, members: &Members, tried: &[BackendId], roll: impl FnOnce(u64) -> u64) -> Option<usize> {
        let mut table = self.table.load();
        if table.version != members.changes.version() {
            self.table.store(Arc::new(WeightTable::new(members)));
            table = self.table.load();
        }
        let total = *table.ends.last()?;
        if tried.is_empty() {
            return Some(table.at(roll(total)));
        }
        let mut tried: Vec<_> = tried.iter().filter_map(|id| table.place(members.place(*id)?)).collect();
        tried.sort_unstable();
        tried.dedup();
        let left = total - tried.iter().map(|place| table.end(*place) - table.start(*place)).sum::<u64>();
        if left == 0 {
            return None;
        }
        // As if those that were tried were not there: what falls behind one goes on by its weight.
        let number = tried.iter().fold(roll(left), |number, place| {
            if number < table.start(*place) { number } else { number + table.end(*place) - table.start(*place) }
        });
        Some(table.at(number))
    }
}

impl Rule for Random {
    fn choose(&self, members: &Members, asked: LeaseRequest<'_>) -> Option<Chosen> {
        self.pick(members, asked.tried, |total| fastrand::u64(..total)).map(|place| members.take(place))
    }
}

impl WeightTable {
    fn new(members: &Members) -> Self {
        // Before the backends are looked at: what changes meanwhile has another version.
        let version = members.changes.version();
        let (mut ends, mut indexes, mut sum) = (Vec::new(), Vec::new(), 0);
        for (index, backend) in members.backends.iter().enumerate() {
            if backend.is_ready() {
                sum += members.weight(index);
                ends.push(sum);
                indexes.push(index);
            }
        }
        WeightTable { version, ends: ends.into(), indexes: indexes.into() }
    }

    /// Whose part of the range `number` is in.
    fn at(&self, number: u64) -> usize {
        self.indexes[self.ends.partition_point(|end| *end <= number)]
    }

    /// Where the backend at `index` is in the table, if it is.
    fn place(&self, index: usize) -> Option<usize> {
        self.indexes.binary_search(&index).ok()
    }

    fn start(&self, place: usize) -> u64 {
        place.checked_sub(1).map_or(0, |before| self.ends[before])
    }

    fn end(&self, place: usize) -> u64 {
        self.ends[place]
    }
}
