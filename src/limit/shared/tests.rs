//! Claims that the store was asked about in vain.
//!
//! Long because each test is the story of a bucket over the same few nodes.

use std::num::{NonZeroU32, NonZeroUsize};
use std::time::Duration;

use super::leases::LeaseSettings;
use super::queue::SLOT;
use super::*;
use crate::limit::{Owed, Scope, StripedSettings};

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
    let (limiter, _) = node();
    assert!(limiter.take_all(claims, SECOND).iter().all(Decision::is_undecided));
    let mut answers = StoreAnswers::default();
    answers.last = true;
    let decisions = limiter.judge(claims, &mut answers, SECOND);
    assert!(!decisions.iter().any(Decision::is_undecided), "{decisions:?}");
    let told = limiter.due(16, SECOND).into_iter();
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
fn what_is_let_in_without_the_store_pays_nothing_before_its_cost_is_known() {
    let (limiter, leases) = node();
    leases.set_reach(Reach::Allow);
    let later = Claim { later: true, ..claim(1, 1, 1) };
    let before = limiter.foresee(&[later], SECOND);
    assert!(before[0].is_allowed() && limiter.take_all(&[later], SECOND) == before);
    assert_eq!((before[0].standing().remaining(), limiter.foresee(&[later], SECOND)), (1, before));
    assert!(limiter.due(16, SECOND).is_empty());
}

#[test]
fn what_was_given_for_a_request_that_is_refused_goes_back() {
    let (limiter, _) = node();
    let claims = [claim(1, 30, 1), claim(2, 30, 1)];
    let charges = claims.map(|claim| claim.charge);
    let mut asking = limiter.ask(&charges, SECOND).unwrap();
    let mut answers = StoreAnswers::default();
    for (question, granted) in limiter.due(16, SECOND).iter().zip([1, 0]) {
        let answer = Answered { granted, ahead: 0, tokens: 0, age: 0 };
        limiter.told(question.key, &answer, SECOND);
    }
    assert!(futures_util::FutureExt::now_or_never(asking.answered(&mut answers)).unwrap());
    let decisions = limiter.judge(&claims, &mut answers, SECOND);
    assert!(decisions[0].is_allowed() && !decisions[1].is_allowed() && !decisions[1].is_undecided(), "{decisions:?}");
    let back: Vec<_> = limiter.due(16, SECOND + SLOT).iter().map(|question| (question.key, question.back)).collect();
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

#[test]
fn what_is_owed_goes_on_and_is_told_there_once() {
    let ((first, leases), (second, _)) = (node(), node());
    let (own, policy) = (claim(1, 30, 2).charge, claim(2, 60, 3).charge);
    leases.set_reach(Reach::Share);
    assert!(first.take(&own, SECOND).is_allowed());
    let under_way = first.due(16, SECOND);
    assert!(first.take(&own, SECOND).is_allowed() && first.take(&policy, SECOND).is_allowed());
    let of = |charge: &Charge, tokens| Owed { key: charge.key, quota: charge.quota, tokens };
    let sorted = |mut all: Vec<Owed>| {
        all.sort_by_key(|owed| owed.key.bits());
        all
    };
    // Saved is also what was told and not answered; handed over is only what was not told.
    assert_eq!(sorted(first.owed()), [of(&own, 4), of(&policy, 3)]);
    leases.set_reach(Reach::Joined);
    assert_eq!(first.take_owed(false), [], "it is told here");
    leases.set_reach(Reach::Share);
    let taken = sorted(first.take_owed(false));
    assert_eq!((&taken[..], under_way.len()), (&[of(&own, 2), of(&policy, 3)][..], 1));
    assert!(leases.owes(own.key.bits()) && !leases.owes(policy.key.bits()) && !leases.owes(9));
    taken.into_iter().for_each(|owed| second.owe_too(owed, SECOND));
    first.unanswered(own.key);
    assert_eq!(sorted(first.owed()), [of(&own, 2)]);
    first.due(16, SECOND);
    first.take_owed(true).into_iter().for_each(|owed| second.owe_too(owed, SECOND));
    assert_eq!(first.owed(), []);
    // No request came here: nothing is asked for.
    let told = second.due(16, SECOND).into_iter();
    let mut told: Vec<_> = told.map(|told| (told.key, told.debit, told.want, told.ahead)).collect();
    told.sort_by_key(|(key, ..)| key.bits());
    assert_eq!(told, [(own.key, 4, 0, 0), (policy.key, 3, 0, 0)]);
    told.iter().for_each(|(key, ..)| second.told(*key, &Answered { granted: 0, ahead: 0, tokens: 0, age: 0 }, SECOND));
    assert_eq!((second.owed(), second.due(16, SECOND + SLOT)), (vec![], vec![]));
}

const MILLI: Nanos = 1_000_000;

/// A bucket in the store, and what it was told last that nodes hold.
struct Stored {
    bucket: Bucket,
    out: [u32; 3],
}

impl Stored {
    fn full(quota: Quota) -> Self {
        Stored { bucket: Bucket::full(quota, SECOND), out: [0; 3] }
    }

    /// What a question of a node is answered. What is out keeps its room.
    fn answer(&mut self, node: usize, question: &BucketQuestion, at: Nanos) -> Answered {
        let quota = question.quota;
        let over = |out: u32, held: u32| (held + out).saturating_sub(quota.capacity().get());
        let held = |bucket: &Bucket| bucket.held(quota, at).floor();
        self.bucket = self.bucket.debited(over(self.out.iter().sum(), held(&self.bucket)), quota, at);
        let mut take = |most: u32, part: u32| {
            let taken = (held(&self.bucket) / part).min(most);
            self.bucket = self.bucket.debited(taken, quota, at);
            taken
        };
        let (granted, ahead) = (take(question.want, 1), take(question.ahead, question.divisor));
        self.out[node] = question.left + ahead;
        Answered { granted, ahead, tokens: held(&self.bucket).into(), age: 0 }
    }
}

/// What a node is let in and asks between two instants, where a request comes every so many milliseconds; each
/// question is answered at once.
fn served(
    (node, limiter): (usize, &SharedLimiter),
    charge: Charge,
    (from, to, every): (Nanos, Nanos, usize),
    stored: &mut Stored,
) -> (usize, Vec<BucketQuestion>) {
    let (mut allowed, mut questions) = (0, Vec::new());
    for at in (from..to).step_by(every * MILLI as usize) {
        let decision = limiter.take(&charge, at);
        let mut asking = decision.is_undecided().then(|| limiter.ask(&[charge], at).unwrap());
        for question in limiter.due(16, at) {
            limiter.told(question.key, &stored.answer(node, &question, at), at);
            questions.push(question);
        }
        let decision = match asking.as_mut() {
            None => decision,
            Some(asking) => {
                let mut answers = StoreAnswers::default();
                assert!(futures_util::FutureExt::now_or_never(asking.answered(&mut answers)).unwrap());
                limiter.judge(&[charge.into()], &mut answers, at)[0]
            }
        };
        allowed += usize::from(decision.is_allowed());
        if let Decision::Refused(standing) = decision {
            assert!(!standing.is_enough() && standing.retry_after() == 1, "{standing:?}");
        }
    }
    (allowed, questions)
}

#[test]
fn an_empty_bucket_is_asked_about_for_all_that_it_earned() {
    let (limiter, _) = node();
    let quota = Quota::new(100, 100.0).unwrap();
    let (charge, mut stored) = (Charge::one(Key::client(1), quota), Stored::full(quota));
    // Until it is empty.
    served((0, &limiter), charge, (SECOND, 5 * SECOND, 1), &mut stored);
    let (allowed, questions) = served((0, &limiter), charge, (5 * SECOND, 15 * SECOND, 5), &mut stored);
    assert!((990..=1_010).contains(&allowed), "{allowed}");
    assert!(questions.len() <= 120, "{} questions for 2,000 requests", questions.len());
    // Nobody asks for who does not come.
    assert!(limiter.due(16, 16 * SECOND).len() <= 1 && limiter.due(16, 17 * SECOND).is_empty());
}

#[test]
fn an_empty_bucket_that_earns_little_is_asked_about_when_it_has_a_token() {
    let (limiter, _) = node();
    let quota = Quota::new(100, 5.0).unwrap();
    let (charge, mut stored) = (Charge::one(Key::client(1), quota), Stored::full(quota));
    served((0, &limiter), charge, (SECOND, 5 * SECOND, 1), &mut stored);
    let (allowed, questions) = served((0, &limiter), charge, (5 * SECOND, 15 * SECOND, 1), &mut stored);
    assert!((49..=51).contains(&allowed) && questions.len() <= 60, "{allowed}, {} questions", questions.len());
}

#[test]
fn who_seldom_asks_is_asked_for_seldom_while_there_is_plenty() {
    let (limiter, leases) = node();
    let quota = Quota::new(1_000, 100.0).unwrap();
    let (charge, mut stored) = (Charge::one(Key::client(1), quota), Stored::full(quota));
    let mut now = SECOND;
    let (mut asked, mut most) = (0, 0);
    // Two requests a second, and what is held is looked through.
    while now < 61 * SECOND {
        asked += served((0, &limiter), charge, (now, now + MILLI, 1), &mut stored).1.len();
        leases.tend(now + 100 * MILLI);
        most = most.max(leases.leased(now));
        now += SECOND / 2;
    }
    assert!(asked <= 15 && most == 20, "{asked} questions for 120 requests, {most} held");
    // It goes back, but not before it is plain that nobody comes.
    leases.tend(now + 5 * SECOND);
    assert!(leases.leased(now + 5 * SECOND) > 0);
    leases.tend(now + 10 * SECOND);
    let back: Vec<_> = limiter.due(16, now + 10 * SECOND).iter().map(|question| question.back > 0).collect();
    assert_eq!(back, [true]);
}

#[test]
fn a_lease_is_asked_for_under_the_quota_of_now() {
    let (limiter, _) = node();
    let [old, new] = [30, 20].map(|capacity| Quota::new(capacity, 1.0).unwrap());
    let keys = [Key::client(1), Key::new(Scope::Address, 2)];
    limiter.set_default_quota(old, SECOND);
    let asked_under = |at| -> Vec<_> {
        let questions = limiter.due(16, at);
        for question in &questions {
            let answer = Answered { granted: question.want, ahead: question.ahead, tokens: 20, age: 0 };
            limiter.told(question.key, &answer, at);
        }
        let mut asked: Vec<_> = questions.iter().map(|question| (question.key, question.quota)).collect();
        asked.sort_by_key(|(key, _)| key.bits());
        asked
    };
    let waits = keys.map(|key| limiter.ask(&[Charge::one(key, old)], SECOND).unwrap());
    let first = asked_under(SECOND);
    assert_eq!(first.iter().map(|(_, quota)| *quota).collect::<Vec<_>>(), [old, old]);
    drop(waits);
    // An operator's edit of the client, and a reload for everybody else.
    limiter.edit(keys[0], old, new, 2 * SECOND);
    limiter.set_default_quota(new, 2 * SECOND);
    limiter.settle(&Charge::one(keys[1], old), 2 * SECOND);
    let second = asked_under(2 * SECOND + SLOT);
    assert_eq!(second.iter().map(|(_, quota)| *quota).collect::<Vec<_>>(), [new, new]);
}

#[test]
fn a_request_is_refused_where_one_of_its_buckets_is_not_to_be_asked_about_yet() {
    let (limiter, _) = node();
    let quota = Quota::new(100, 100.0).unwrap();
    let (dry, other) = (Charge::one(Key::client(1), quota), claim(2, 1_000, 1));
    served((0, &limiter), dry, (SECOND, 5 * SECOND, 1), &mut Stored::full(quota));
    let now = 5 * SECOND;
    // There may be a token by then, and nobody is asked.
    let decisions = limiter.take_all(&[dry.into(), other], now + 15 * MILLI);
    assert!(matches!(decisions[0], Decision::Refused(standing) if !standing.is_enough()), "{decisions:?}");
    assert!(!are_allowed(&[dry.into(), other], &decisions) && !decisions.iter().any(Decision::is_undecided));
}

#[test]
fn what_a_full_bucket_earns_while_nodes_drain_it_is_given_too() {
    let (nodes, quota) = ([node(), node(), node()], Quota::new(1_000_000, 100_000.0).unwrap());
    // Twice to twenty times what it earns: how long it lasts.
    for (cost, seconds) in [(67, 12), (100, 8), (300, 3), (667, 2)] {
        let charge = Charge { cost: NonZeroU32::new(cost).unwrap(), ..Charge::one(Key::client(cost.into()), quota) };
        let mut stored = Stored::full(quota);
        let ends = SECOND + seconds * SECOND;
        let mut allowed = 0;
        for at in (SECOND..ends).step_by(MILLI as usize) {
            for (node, (limiter, _)) in nodes.iter().enumerate() {
                allowed += served((node, limiter), charge, (at, at + MILLI, 1), &mut stored).0;
            }
        }
        let given = allowed as f64 * f64::from(cost);
        let most = 1_000_000.0 + 100_000.0 * seconds as f64;
        // What is spent untold costs less than 0.8 %; some is still held.
        assert!((0.99 * most..=most).contains(&given), "{cost}: {given} of {most}");
    }
}

#[test]
fn who_uses_little_of_what_it_earns_has_time_to_ask_and_is_given_all_the_same() {
    let (nodes, quota) = ([node(), node(), node()], Quota::new(1_000, 1_000.0).unwrap());
    let charges = [1, 2, 3, 4, 5, 6, 7, 8].map(|client| Charge::one(Key::client(client), quota));
    let mut stored = charges.map(|_| Stored::full(quota));
    // The questions of a node, answered at once.
    let mut answered = |number: usize, at: Nanos| {
        let (limiter, _) = &nodes[number];
        let due = limiter.due(16, at);
        for question in &due {
            let of = charges.iter().position(|charge| charge.key == question.key).unwrap();
            limiter.told(question.key, &stored[of].answer(number, question, at), at);
        }
        due
    };
    let (mut trips, mut questions) = (0, 0);
    // Each 250 a second, one after the other.
    for at in (SECOND..11 * SECOND).step_by(MILLI as usize) {
        for (number, (limiter, _)) in nodes.iter().enumerate() {
            if (at / MILLI) as usize % 3 == number {
                continue;
            }
            let charge = charges[(at / MILLI) as usize % 8];
            let undecided = limiter.take(&charge, at).is_undecided();
            assert!(!undecided || at < 2 * SECOND, "{at}");
            let waits = undecided.then(|| limiter.ask(&[charge], at).unwrap());
            let due = answered(number, at);
            trips += usize::from(!due.is_empty());
            questions += due.len();
            drop(waits);
        }
    }
    assert!(
        questions <= 2_000 && trips * 3 <= questions,
        "{trips} trips with {questions} questions for 20,000 requests"
    );
    // Then one of them comes at twice what it earns.
    let mut allowed = 0;
    for at in (11 * SECOND..14 * SECOND).step_by(MILLI as usize) {
        for number in [0, 1] {
            let (limiter, _) = &nodes[number];
            let decision = limiter.take(&charges[0], at);
            let asking = decision.is_undecided().then(|| limiter.ask(&charges[..1], at).unwrap());
            answered(number, at);
            let decision = asking.map_or(decision, |mut asking| {
                let mut answers = StoreAnswers::default();
                assert!(futures_util::FutureExt::now_or_never(asking.answered(&mut answers)).unwrap());
                limiter.judge(&[charges[0].into()], &mut answers, at)[0]
            });
            allowed += u32::from(decision.is_allowed());
        }
    }
    let end = 14 * SECOND;
    let held = nodes.iter().flat_map(|(limiter, leases)| {
        leases.give_all_back();
        limiter.due(100, end).into_iter().filter(|question| question.key == charges[0].key)
    });
    let held: u32 = held.map(|question| question.back).sum();
    let there = allowed + held + stored[0].bucket.held(quota, end).floor();
    // Lost are C/21 that were untold, and what it earned for 35 ms: until 15 more had gone on each, and a slot.
    assert!((3_918..=4_000).contains(&there), "{allowed} and {held} held, {there} of 4,000");
}

#[test]
fn what_was_spent_is_told_and_nothing_is_held_for_a_moment() {
    let (limiter, leases) = node();
    let quota = Quota::new(1_000, 0.001).unwrap();
    let (charge, mut stored) = (Charge::one(Key::client(1), quota), Stored::full(quota));
    served((0, &limiter), charge, (SECOND, 2 * SECOND, 5), &mut stored);
    let mut now = 2 * SECOND;
    // One is under way that brings more to hold.
    let first = loop {
        assert!(limiter.take(&charge, now).is_allowed());
        if let Some(question) = limiter.due(16, now).pop() {
            break question;
        }
        now += MILLI;
    };
    assert!(limiter.take(&charge, now).is_allowed() && first.left > 1 && first.ahead > 0, "{first:?}");
    let mut telling = Box::pin(leases.tell(charge.key.bits(), now));
    let mut told = || futures_util::FutureExt::now_or_never(telling.as_mut()).is_some();
    assert!(!told());
    limiter.told(charge.key, &stored.answer(0, &first, now), now);
    // One that was spent meanwhile would be untold, and the next is lost.
    assert!(limiter.take(&charge, now).is_undecided() && !told());
    let second = limiter.due(16, now).pop().unwrap();
    assert_eq!((second.left, second.back, second.ahead), (0, first.left - 1 + first.ahead, 0));
    limiter.unanswered(charge.key);
    assert!(!told());
    let third = limiter.due(16, now).pop().unwrap();
    limiter.told(charge.key, &stored.answer(0, &third, now), now);
    assert!(told() && (stored.out[0], leases.leased(now)) == (0, 0), "{third:?}");
    // Each request asks for itself, and then as ever.
    let (allowed, questions) = served((0, &limiter), charge, (now, now + 400 * MILLI, 10), &mut stored);
    assert!(allowed == 40 && questions.iter().all(|question| (question.want, question.ahead) == (1, 0)));
    let (allowed, questions) = served((0, &limiter), charge, (now + SECOND, now + 2 * SECOND, 10), &mut stored);
    assert!(allowed == 100 && questions.len() < 20, "{allowed}, {}", questions.len());
    // Of one that nobody knows nothing is told.
    assert!(futures_util::FutureExt::now_or_never(leases.tell(2, now)).is_some());
}
