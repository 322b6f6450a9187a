//! Claims that the store was asked about in vain.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::leases::LeaseSettings;
use super::*;
use crate::limit::StripedSettings;

const SECOND: Nanos = 1_000_000_000;

/// A node of three, and its leases.
fn node() -> (SharedLimiter, Arc<Leases>) {
    let quota = Quota::new(1, 1.0).unwrap();
    let settings = StripedSettings { max_buckets: NonZeroUsize::MIN, stripes: None, default_quota: quota };
    let lease = LeaseSettings { lease: Duration::from_millis(100), timeout: Duration::from_millis(25), max_asks: 16 };
    let leases = Leases::new(lease, FleetPart::new("a", ["a", "b", "c"].into_iter()), Reach::Joined);
    (SharedLimiter::new(Striped::new(settings, SECOND), Arc::clone(&leases)), leases)
}

fn claim(bucket: u128, capacity: u64, cost: u32) -> Claim {
    let quota = Quota::new(capacity, 3.0).unwrap();
    Charge { key: Key::client(bucket), quota, cost: NonZeroU32::new(cost).unwrap() }.into()
}

/// What is told to the store of a request with these claims, for which it was asked in vain, and whether it goes on.
fn in_vain(claims: &[Claim]) -> (bool, Vec<(Key, u32, u64)>) {
    let (limiter, leases) = node();
    assert!(limiter.take_all(claims, SECOND).iter().all(Decision::is_undecided));
    let mut answers = StoreAnswers::default();
    answers.last = true;
    let decisions = limiter.judge(claims, &mut answers, SECOND);
    assert!(!decisions.iter().any(Decision::is_undecided), "{decisions:?}");
    let told = leases.due(16, SECOND).into_iter();
    let told = told.map(|question| (question.key, question.quota.capacity().get(), question.debit));
    (are_allowed(claims, &decisions), told.collect())
}

#[test]
fn what_its_part_allows_is_told_under_the_quota_of_all() {
    let (own, policy) = (claim(1, 30, 1), claim(2, 60, 2));
    assert_eq!(in_vain(&[own, policy]), (true, vec![(own.charge.key, 30, 1), (policy.charge.key, 60, 2)]));
}

#[test]
fn claims_are_made_to_its_parts_all_or_none() {
    let (limiter, _) = node();
    let (own, large) = (claim(1, 9, 3), claim(2, 60, 11));
    let claims = [own, large];
    let mut answers = StoreAnswers::default();
    answers.last = true;
    assert!(limiter.judge(&[large], &mut answers, SECOND)[0].is_allowed(), "eleven of twenty");
    assert!(!are_allowed(&claims, &limiter.judge(&claims, &mut answers, SECOND)));
    // Its part of nine is three, of which none is gone.
    let decision = limiter.judge(&[own], &mut answers, SECOND)[0];
    assert!(decision.is_allowed() && decision.standing().remaining() == 0, "{decision:?}");
    assert!(!limiter.judge(&[own], &mut answers, SECOND)[0].is_allowed());
}

#[test]
fn what_was_given_for_a_request_that_is_refused_goes_back() {
    let (limiter, leases) = node();
    let claims = [claim(1, 30, 1), claim(2, 30, 1)];
    let charges = claims.map(|claim| claim.charge);
    let mut asking = limiter.ask(&charges, SECOND).unwrap();
    let mut answers = StoreAnswers::default();
    for (question, granted) in leases.due(16, SECOND).iter().zip([1, 0]) {
        let answer = Answered { granted, ahead: 0, tokens: 0, age: 0 };
        limiter.told(question.key, &answer, SECOND);
    }
    assert!(futures_util::FutureExt::now_or_never(asking.answered(&mut answers)).unwrap());
    let decisions = limiter.judge(&claims, &mut answers, SECOND);
    assert!(decisions[0].is_allowed() && !decisions[1].is_allowed() && !decisions[1].is_undecided(), "{decisions:?}");
    let back: Vec<_> = leases.due(16, SECOND).iter().map(|question| (question.key, question.back)).collect();
    assert_eq!(back, [(charges[0].key, 1)]);
}

#[test]
fn a_store_that_goes_before_it_is_asked_leaves_the_node_its_part() {
    for (away, goes) in [(Reach::Share, true), (Reach::Allow, true), (Reach::Refuse, false)] {
        let (limiter, leases) = node();
        let claims = [claim(1, 30, 1)];
        assert!(limiter.take(&claims[0].charge, SECOND).is_undecided());
        leases.set_reach(away);
        let asking = limiter.ask(&[claims[0].charge], SECOND);
        assert_eq!(asking.is_some(), goes, "{away:?}");
        let Some(mut asking) = asking else { continue };
        let mut answers = StoreAnswers::default();
        let all = futures_util::FutureExt::now_or_never(asking.answered(&mut answers));
        assert_eq!(all, Some(false), "{away:?}");
        assert!(limiter.judge(&claims, &mut answers, SECOND)[0].is_allowed(), "{away:?}");
    }
}
