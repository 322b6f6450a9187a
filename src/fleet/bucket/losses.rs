//! Questions and answers that are lost, and questions that are carried out late and in any order: nothing counts twice,
//! and nothing is lost with them but what went back in a question that was never carried out.

use proptest::collection::vec;
use proptest::prelude::*;

use super::model::ModelBucket;
use super::*;
use crate::client::Rate;

const HOLDERS: [&str; 3] = ["a", "b", "c"];

/// What becomes of a question.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
enum QuestionFate {
    Answered,
    /// Carried out, and the answer is lost.
    Unheard,
    /// Carried out at some time, after its node has given it up.
    Late,
    Lost,
}

/// A node that spends what it leases, and asks again.
#[derive(Clone, Copy, Debug, Default)]
struct LosingNode {
    left: u32,
    owed: u64,
    known: u64,
    number: u64,
}

/// A bucket, its nodes, what is on its way, and what was spent when.
struct LosingFleet {
    quota: Quota,
    now: u64,
    model: ModelBucket,
    nodes: [LosingNode; 3],
    late: Vec<(usize, u64, BucketAsk<'static>)>,
    spent: Vec<(u64, i64)>,
    lost: i64,
}

/// One question of a node: the pause before it, who asks, want and ahead, what is spent and goes back before it, a debt,
/// and its fate.
type LosingTurn = (u64, usize, (u32, u32, u32), (u32, u64), QuestionFate);

fn turns(debts: u64) -> impl Strategy<Value = Vec<LosingTurn>> {
    let fate = prop_oneof![5 => Just(QuestionFate::Answered), 2 => Just(QuestionFate::Unheard), 2 => Just(QuestionFate::Late), 1 => Just(QuestionFate::Lost)];
    vec((0u64..300_000, 0usize..3, (0u32..20, 0u32..20, 0u32..20), (0u32..5, 0..=debts), fate), 1..60)
}

impl LosingFleet {
    fn new(quota: Quota) -> Self {
        let (model, nodes, late) = (ModelBucket::default(), <[LosingNode; 3]>::default(), Vec::new());
        LosingFleet { quota, now: 1_000_000_000, model, nodes, late, spent: Vec::new(), lost: 0 }
    }

    fn turn(&mut self, (pause, at, (want, ahead, spends), (back, debt), fate): LosingTurn) {
        self.now += pause;
        let node = &mut self.nodes[at];
        let spend = node.left.min(spends);
        let back = (node.left - spend).min(back);
        node.left -= spend + back;
        node.number += 1;
        self.spent.push((self.now, i64::from(spend) + debt as i64));
        let (debit, number, known, left) = (node.owed + debt, node.number, node.known, node.left);
        let valid = Duration::from_secs(3_600);
        let (quota, holder) = (self.quota, HOLDERS[at]);
        let ask = BucketAsk { quota, holder, left, want, ahead, divisor: 2, debit, back, valid, number, known };
        node.owed = debit;
        match fate {
            QuestionFate::Late => self.late.push((at, number, ask)),
            QuestionFate::Lost => self.lost += i64::from(back),
            QuestionFate::Answered | QuestionFate::Unheard => {
                let answer = self.model.ask(self.now, &ask);
                assert!(!answer.is_late);
                if fate == QuestionFate::Answered {
                    let node = &mut self.nodes[at];
                    (node.left, node.owed, node.known) = (left + answer.ahead, 0, number);
                    self.spent.push((self.now, i64::from(answer.granted)));
                }
            }
        }
    }

    /// One that is late is carried out; to nothing, where a later one was.
    fn arrive(&mut self, which: usize) {
        let (at, number, ask) = self.late.swap_remove(which % self.late.len());
        let answer = self.model.ask(self.now, &ask);
        assert!(answer.is_late || number > self.nodes[at].known, "one from before an answered one was carried out");
        if answer.is_late {
            self.lost += i64::from(ask.back);
        }
    }

    /// Over `C + rate * t` in the worst window, in 10^-15 tokens.
    fn over(&self, nanos: u64) -> Option<String> {
        const UNIT: i128 = 1_000_000_000_000_000;
        (0..self.spent.len()).find_map(|from| {
            let mut admitted = 0;
            self.spent[from..].iter().find_map(|(at, tokens)| {
                admitted += i128::from(*tokens);
                let earned = i128::from(at - self.spent[from].0) * i128::from(nanos);
                let most = i128::from(self.quota.capacity().get()) * UNIT + earned;
                (admitted * UNIT > most).then(|| format!("{admitted} from {from} at {at}, {most} may be"))
            })
        })
    }
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(512))]

    /// What is in the bucket, held and spent is what was there, however many are lost.
    #[test]
    fn nothing_counts_twice_and_nothing_is_lost(turns in turns(3), order in vec((0usize..60, any::<bool>()), 60)) {
        let quota = Quota::from_parts(100, Rate::from_nanos_per_sec(1_000).unwrap()).unwrap();
        let mut fleet = LosingFleet::new(quota);
        for (turn, (which, arrives)) in turns.into_iter().zip(order) {
            fleet.turn(turn);
            if arrives && !fleet.late.is_empty() {
                fleet.arrive(which);
            }
        }
        for at in 0..3 {
            fleet.turn((0, at, (0, 0, 0), (0, 0), QuestionFate::Answered));
        }
        while !fleet.late.is_empty() {
            fleet.arrive(0);
        }
        let held = fleet.model.held().unwrap_or(100);
        let left: u32 = fleet.nodes.iter().map(|node| node.left).sum();
        let spent: i64 = fleet.spent.iter().map(|(_, tokens)| tokens).sum();
        let tokens = fleet.model.ask(fleet.now, &BucketAsk {
            quota, holder: "d", left: 0, want: 0, ahead: 0, divisor: 1, debit: 0, back: 0,
            valid: Duration::from_secs(1), number: 0, known: 0,
        }).tokens;
        prop_assert_eq!(held, tokens + i64::from(left), "the store knows what each holds");
        prop_assert_eq!(tokens + i64::from(left) + spent + fleet.lost, 100);
    }

    /// In no window is more spent than C + rate * t, though what was lost comes back.
    #[test]
    fn what_comes_back_is_never_more_than_the_bucket_would_have(
        capacity in 1u64..60,
        nanos in 1_000u64..100_000_000_000,
        turns in turns(0),
        order in vec((0usize..60, any::<bool>()), 60),
    ) {
        let quota = Quota::from_parts(capacity, Rate::from_nanos_per_sec(nanos).unwrap()).unwrap();
        let mut fleet = LosingFleet::new(quota);
        for (turn, (which, arrives)) in turns.into_iter().zip(order) {
            fleet.turn(turn);
            if arrives && !fleet.late.is_empty() {
                fleet.arrive(which);
            }
            prop_assert_eq!(fleet.over(nanos), None);
        }
    }
}
