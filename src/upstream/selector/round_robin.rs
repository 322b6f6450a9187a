//! Smooth weighted round robin.
//!
//! Each choice raises every candidate's credit by its weight, takes the one with the most, and lowers that one by the
//! sum of all weights. Weights 5, 1, 1 give a a b a c a a. Over each cycle of as many choices as the sum of the
//! weights, every backend is chosen exactly as often as its weight says; when the set of candidates changes, the cycle
//! that this cuts short may be one choice off. This is nginx's rule (commit 52327e0627f4, 2012). Pingora's instead
//! repeats each backend as often as its weight says, in a burst.
//!
//! Raising every credit for each choice would cost as much as there are backends. All candidates of one weight rise
//! alike, so their order changes only with the one that is chosen: they are kept without the rises, in a tournament for
//! each weight, and the rises are added when the winners of the weights are compared. Who is no candidate keeps the
//! credit that it had, as in nginx.
//!
//! One lock around the credits makes it exact under any number of callers. A cycle worked out beforehand would need no
//! lock, but could not keep the weights among those that are left while some backends are down. A heap of deadlines, as
//! in Envoy, has one part for all weights, but its order is another: 5, 1, 1 gives a a a a a b c.

use std::cmp::Reverse;
use std::collections::BTreeMap;

use parking_lot::Mutex;

use super::members::{Chosen, LeaseRequest, Members, Rule};
use super::tournament::Tournament;
use super::warm_up::Turns;
use crate::upstream::BackendId;

/// Choices after which the rises are put into the credits, long before they could overflow.
const TURNS: i64 = 1 << 29;

/// Smooth weighted round robin. A choice takes a lock and costs O(different weights + log backends).
#[derive(Debug)]
pub(super) struct RoundRobin {
    credits: Mutex<Credits>,
}

#[derive(Debug)]
struct Credits {
    weights: Box<[WeightClass]>,
    /// For each backend the number of its weight, and its place among those of that weight.
    places: Box<[(usize, usize)]>,
    /// For each candidate its credit without the rises, for the others their credit.
    credit: Box<[i64]>,
    is_candidate: Box<[bool]>,
    /// The sum of the candidates' weights.
    total: i64,
    /// How often the credits have risen.
    turn: i64,
    turns: Turns,
}

/// The backends of one weight.
#[derive(Debug)]
struct WeightClass {
    weight: i64,
    backends: Box<[usize]>,
    /// Those that are candidates, by their credits without the rises.
    candidates: Tournament<i64>,
}

impl RoundRobin {
    pub(super) fn new(members: &Members) -> Self {
        RoundRobin { credits: Mutex::new(Credits::new(members)) }
    }

    fn pick(&self, members: &Members, tried: &[BackendId]) -> Option<usize> {
        let mut credits = self.credits.lock();
        members.changes.take(|index| credits.set_candidate(index, members.backends[index].is_ready()));
        // One that was tried is none for this choice alone.
        let tried = || tried.iter().filter_map(|id| members.place(*id));
        tried().for_each(|index| credits.set_candidate(index, false));
        let mut chosen = credits.choose();
        if let Some(warm_up) = &members.warm_up {
            // Some time it is somebody's turn: each has every tenth of his at least.
            while let Some(index) = chosen.filter(|index| !credits.turns.has(warm_up, *index)) {
                chosen = credits.choose().or(Some(index));
            }
        }
        tried().for_each(|index| credits.set_candidate(index, members.backends[index].is_ready()));
        chosen
    }
}

impl Rule for RoundRobin {
    fn choose(&self, members: &Members, asked: LeaseRequest<'_>) -> Option<Chosen> {
        self.pick(members, asked.tried).map(|place| members.take(place))
    }
}

impl Credits {
    fn new(members: &Members) -> Self {
        let mut by_weight: BTreeMap<i64, Vec<usize>> = BTreeMap::new();
        for (index, weight) in members.weights.iter().enumerate() {
            by_weight.entry(weight.get().into()).or_default().push(index);
        }
        let count = members.weights.len();
        let mut places = vec![(0, 0); count];
        for (number, backends) in by_weight.values().enumerate() {
            backends.iter().enumerate().for_each(|(place, index)| places[*index] = (number, place));
        }
        let weights = by_weight.into_iter().map(|(weight, backends)| {
            let candidates = Tournament::new(backends.len());
            WeightClass { weight, backends: backends.into(), candidates }
        });
        let (credit, is_candidate) = (vec![0; count].into(), vec![false; count].into());
        Credits {
            weights: weights.collect(),
            places: places.into(),
            credit,
            is_candidate,
            total: 0,
            turn: 0,
            turns: Turns::default(),
        }
    }

    /// Lets the backend at `index` take part, or not.
    fn set_candidate(&mut self, index: usize, is_candidate: bool) {
        if std::mem::replace(&mut self.is_candidate[index], is_candidate) == is_candidate {
            return;
        }
        let (number, place) = self.places[index];
        let WeightClass { weight, candidates, .. } = &mut self.weights[number];
        let (rises, credit) = (*weight * self.turn, &mut self.credit[index]);
        if is_candidate {
            *credit -= rises;
            self.total += *weight;
        } else {
            *credit += rises;
            self.total -= *weight;
        }
        candidates.set(place, is_candidate.then_some(*credit));
    }

    fn choose(&mut self) -> Option<usize> {
        let turn = self.turn + 1;
        let winners = self.weights.iter().filter_map(|WeightClass { weight, backends, candidates }| {
            let (credit, place) = candidates.best()?;
            Some((credit + *weight * turn, Reverse(backends[place])))
        });
        let (_, Reverse(index)) = winners.max()?;
        self.turn = turn;
        self.credit[index] -= self.total;
        let (number, place) = self.places[index];
        self.weights[number].candidates.set(place, Some(self.credit[index]));
        if turn == TURNS {
            self.settle();
        }
        Some(index)
    }

    /// Puts the rises into the credits.
    fn settle(&mut self) {
        let candidates: Vec<_> = (0..self.credit.len()).filter(|index| self.is_candidate[*index]).collect();
        candidates.iter().for_each(|index| self.set_candidate(*index, false));
        self.turn = 0;
        candidates.iter().for_each(|index| self.set_candidate(*index, true));
    }
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;
    use crate::upstream::selector::tests::{members, set_up};

    /// nginx's rule as it is written: raise all, take the most, lower that one.
    fn nginx(credits: &mut [i64], weights: &[u32], candidates: impl Fn(usize) -> bool) -> Option<usize> {
        let mut best: Option<usize> = None;
        let mut total = 0;
        for index in (0..weights.len()).filter(|index| candidates(*index)) {
            credits[index] += i64::from(weights[index]);
            total += i64::from(weights[index]);
            if best.is_none_or(|best| credits[index] > credits[best]) {
                best = Some(index);
            }
        }
        credits[best?] -= total;
        best
    }

    proptest! {
        /// Every choice is nginx's, also while backends come and go and while some were tried.
        #[test]
        fn chooses_as_nginx_does(
            weights in prop::collection::vec(1_u32..6, 1..12),
            steps in prop::collection::vec((prop::option::weighted(0.2, (0_usize..12, any::<bool>())), prop::collection::vec(0_usize..12, 0..3)), 1..120),
            settle_at in 0_usize..120,
        ) {
            let members = members(&weights);
            let rule = RoundRobin::new(&members);
            let (mut credits, mut up) = (vec![0; weights.len()], vec![true; weights.len()]);
            for (step, (change, tried)) in steps.into_iter().enumerate() {
                if let Some((index, is_up)) = change {
                    let index = index % weights.len();
                    up[index] = is_up;
                    set_up(&members.backends[index], is_up);
                }
                if step == settle_at {
                    rule.credits.lock().settle();
                }
                let tried: Vec<_> = tried.into_iter().filter(|index| *index < weights.len()).collect();
                let ids: Vec<_> = tried.iter().map(|index| members.backends[*index].id()).collect();
                let expected = nginx(&mut credits, &weights, |index| up[index] && !tried.contains(&index));
                prop_assert_eq!(rule.pick(&members, &ids), expected);
            }
        }
    }
}
