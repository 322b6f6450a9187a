//! The model against the exact bucket, and the scripts against the model.

use proptest::collection::vec;
use proptest::prelude::*;
use proptest::test_runner::{Config, TestRunner};

use super::model::ModelBucket;
use super::*;
use crate::clock::{Clock, SystemClock};
use crate::fleet::link::StoreLink;
use crate::fleet::link::tests::{runtime, settings, start, until};
use crate::fleet::servers::{Engine, StoreServer};
use crate::limit::Bucket;

const LONG: Duration = Duration::from_secs(5);

fn quotas() -> impl Strategy<Value = Quota> {
    let small = (1u64..20, 1_000u64..5_000_000_000);
    let any = (1u64..=1_000_000_000, 1_000u64..=1_000_000_000_000_000_000);
    prop_oneof![small, any].prop_map(|(capacity, nanos)| {
        Quota::from_parts(capacity, crate::client::Rate::from_nanos_per_sec(nanos).unwrap()).unwrap()
    })
}

fn plain(quota: Quota, want: u32) -> BucketAsk<'static> {
    let valid = Duration::from_secs(1);
    BucketAsk { quota, holder: "a", left: 0, want, ahead: 0, divisor: 1, debit: 0, back: 0, valid, number: 0, known: 0 }
}

proptest! {
    /// One that takes without leases gets what the exact bucket gives, to the token.
    #[test]
    fn without_leases_it_is_the_exact_bucket(
        quota in quotas(),
        takes in vec((0u64..3_000_000, 0u32..8), 1..60),
    ) {
        let (mut now, mut model, mut exact) = (1_000_000_000, ModelBucket::default(), Bucket::full(quota, 1_000_000_000_000));
        for (pause, want) in takes {
            now += pause;
            let mut given = 0;
            while given < want && exact.take(quota, now * 1000) {
                given += 1;
            }
            prop_assert_eq!(model.ask(now, &plain(quota, want)).granted, given);
        }
    }

    /// However nodes lease, spend, give back and vanish: in no window more than C + rate * t.
    #[test]
    fn leases_never_exceed_the_bucket(
        capacity in 1u64..200,
        nanos in 1_000u64..200_000_000_000,
        steps in vec((0u64..400_000, 0usize..3, 0u32..30, 0u32..40, 0u32..30, 1u32..6, any::<bool>()), 1..60),
    ) {
        let rate = crate::client::Rate::from_nanos_per_sec(nanos).unwrap();
        let quota = Quota::from_parts(capacity, rate).unwrap();
        let (mut now, mut model) = (1_000_000_000u64, ModelBucket::default());
        let (mut left, mut ends) = ([0u32; 3], [0u64; 3]);
        let mut spent: Vec<(u64, u64)> = Vec::new();
        for (pause, node, want, ahead, spends, divisor, gives_back) in steps {
            now += pause;
            // A lease that has ended is spent by nobody.
            for node in 0..3 {
                if ends[node] < now {
                    left[node] = 0;
                }
            }
            let spend = left[node].min(spends);
            left[node] -= spend;
            let back = if gives_back { left[node] / 2 } else { 0 };
            left[node] -= back;
            let holder = ["a", "b", "c"][node];
            let valid = Duration::from_millis(700);
            let ask = BucketAsk { holder, left: left[node], ahead, divisor, back, valid, ..plain(quota, want) };
            let answer = model.ask(now, &ask);
            left[node] += answer.ahead;
            ends[node] = now + 700_000;
            spent.push((now, u64::from(spend + answer.granted)));
            for from in 0..spent.len() {
                let admitted: u64 = spent[from..].iter().map(|(_, tokens)| tokens).sum();
                let earned = u128::from(now - spent[from].0) * u128::from(nanos);
                let most = u128::from(capacity) * 1_000_000_000_000_000 + earned;
                prop_assert!(u128::from(admitted) * 1_000_000_000_000_000 <= most, "{admitted} of {most}");
            }
        }
    }
}

proptest! {
    /// While nothing is earned, what was granted is spent or there, wherever nodes hold it and however they give it back.
    /// Only with a lost answer may some of it go.
    #[test]
    fn what_is_granted_is_lost_nowhere(
        capacity in 1u64..200,
        steps in vec((0usize..3, 0u32..30, 0u32..40, 0u32..30, 1u32..6, 0u32..3), 1..60),
    ) {
        let quota = Quota::new(capacity, 1.0).unwrap();
        let (mut model, mut left, mut spent, mut put_in) = (ModelBucket::default(), [0u32; 3], 0, capacity as i64);
        for (known, (node, want, ahead, spends, divisor, granted)) in (0..).zip(steps) {
            let spend = left[node].min(spends);
            let back = (left[node] - spend) / 2;
            left[node] -= spend + back;
            let (holder, number) = (["a", "b", "c"][node], known + 1);
            let of = BucketAsk { holder, left: left[node], ahead, divisor, back, number, known, ..plain(quota, want) };
            let answer = model.ask(1_000_000, &of);
            left[node] += answer.ahead;
            spent += i64::from(spend + answer.granted);
            if granted > 0 {
                model.grant(1_000_000, quota, 50 * granted);
                put_in += i64::from(50 * granted);
            }
            prop_assert_eq!(model.held().unwrap_or(capacity as i64) + spent, put_in);
        }
    }
}

proptest! {
    /// Nodes that have not heard of an edit take nothing of what an operator gives right after it.
    #[test]
    fn what_is_given_after_an_edit_is_lost_to_no_older_quota(
        capacities in (1u64..200, 1u64..200),
        filled in any::<bool>(),
        steps in vec((0u64..9_000, any::<bool>(), 0usize..3, 0u32..30, 0u32..40, 0u32..30), 1..100),
        edited in 0usize..50,
    ) {
        // So slow that nothing is earned.
        let [old, new] = [capacities.0, capacities.1].map(|capacity| Quota::new(capacity, 0.000_001).unwrap());
        let (mut now, mut model, mut left, mut spent, mut given) = (1_000_000, ModelBucket::default(), [0u32; 3], 0, None);
        for (number, (pause, older, node, want, ahead, spends)) in (1..).zip(steps) {
            now += pause;
            if number as usize > edited && given.is_none() {
                match filled {
                    true => model.reset(now, new),
                    false => model.grant(now, new, 50),
                };
                given = model.held();
                spent = 0;
            }
            let spend = left[node].min(spends);
            left[node] -= spend;
            let quota = if older || given.is_none() { old } else { new };
            let (holder, known) = (["a", "b", "c"][node], number - 1);
            let of = BucketAsk { holder, left: left[node], ahead, divisor: 2, number, known, valid: LONG, ..plain(quota, want) };
            let answer = model.ask(now, &of);
            left[node] += answer.ahead;
            spent += i64::from(spend + answer.granted);
            if given.is_some() {
                prop_assert_eq!(model.held().map(|held| held + spent), given);
            }
        }
    }
}

#[test]
fn a_grant_right_after_an_edit_is_there_whoever_asks_under_the_old_quota() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&server.url()));
            until(&link, true).await;
            let names = Names::new("t");
            let call = async |called| link.calls(&[called], LONG).await.pop().unwrap().unwrap();
            let cases =
                [(300, 200, Some(100), 300), (200, 300, Some(100), 300), (200, 300, None, 300), (300, 200, None, 200)];
            for (key, (old, new, granted, whole)) in (0..).zip(cases) {
                let [old, new] = [old, new].map(|capacity| Quota::new(capacity, 0.000_001).unwrap());
                let tokens = async |quota| {
                    let of = BucketAsk { left: 9, holder: "b", ..plain(quota, 0) };
                    read(&call(ask(&names, key, &of)).await).unwrap().tokens + 9
                };
                call(ask(&names, key, &BucketAsk { ahead: 9, holder: "b", ..plain(old, 0) })).await;
                let given = match granted {
                    Some(tokens) => grant(&names, key, new, tokens, None),
                    None => reset(&names, key, new, None),
                };
                call(given).await;
                assert_eq!([tokens(old).await, tokens(new).await], [whole; 2], "{engine:?} {key}");
            }
            // An edit after a second.
            let (given, begun) = (Quota::new(300, 0.000_001).unwrap(), SystemClock.now());
            call(grant(&names, 9, given, 100, None)).await;
            let cut = Quota::new(50, 0.000_001).unwrap();
            while read(&call(ask(&names, 9, &plain(cut, 0))).await).unwrap().tokens == 400 {
                assert!(SystemClock.now() - begun < LONG, "{engine:?}");
            }
            assert!(SystemClock.now() - begun >= Duration::from_secs(1), "{engine:?}");
            assert_eq!(read(&call(ask(&names, 9, &plain(cut, 0))).await).unwrap().tokens, 150, "{engine:?}");
        });
    }
}

/// Something that is done to a bucket.
#[derive(Clone, Debug)]
enum Step {
    Ask { quota: usize, node: usize, numbers: [u32; 5], debit: u64, valid: u64, order: (u64, u64) },
    Reset(usize),
    Grant(usize, u32),
}

fn steps() -> impl Strategy<Value = (Vec<Quota>, Vec<Step>)> {
    let number = || prop_oneof![0u32..10, 0u32..2_000_000];
    let numbers = (number(), number(), number(), 1u32..5, number());
    let ask = (0usize..2, 0usize..3, numbers, 0u64..4, 1u64..2000, (0u64..20, 0u64..10)).prop_map(
        |(quota, node, numbers, debit, valid, order)| Step::Ask {
            quota,
            node,
            numbers: numbers.into(),
            debit,
            valid,
            order,
        },
    );
    let step = prop_oneof![
        20 => ask,
        1 => (0usize..2).prop_map(Step::Reset),
        1 => (0usize..2, 0u32..1000).prop_map(|(quota, tokens)| Step::Grant(quota, tokens)),
    ];
    (vec(quotas(), 2), vec(step, 1..40))
}

/// The time that the script last saw, from what it wrote; that of the store where it wrote nothing.
async fn seen(link: &StoreLink, key: &[u8]) -> u64 {
    let mut get = redis::cmd("GET");
    get.arg(key);
    let answers = link.commands(&[get, redis::cmd("TIME")], LONG).await.unwrap();
    match &answers[0] {
        Value::Nil => {
            let time: Vec<u64> = redis::from_redis_value_ref(&answers[1]).unwrap();
            time[0] * 1_000_000 + time[1]
        }
        Value::BulkString(state) => f64::from_le_bytes(state[16..24].try_into().unwrap()) as u64,
        other => panic!("{other:?}"),
    }
}

#[test]
fn scripts_do_what_the_model_does_on_either_engine() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        let runtime = runtime();
        let (link, _stop) = runtime.block_on(async {
            let running = start(&settings(&server.url()));
            until(&running.0, true).await;
            running
        });
        let (names, next) = (Names::new("t"), std::cell::Cell::new(0u128));
        let mut runner = TestRunner::new(Config { cases: 64, failure_persistence: None, ..Config::default() });
        let outcome = runner.run(&steps(), |(quotas, steps)| {
            next.set(next.get() + 1);
            let (key, mut model) = (next.get(), ModelBucket::default());
            for step in steps {
                let answer = |call: ScriptCall| {
                    runtime.block_on(async {
                        let answer = link.calls(&[call], LONG).await.pop().unwrap().unwrap();
                        (answer, seen(&link, &names.bucket(key)).await)
                    })
                };
                match step {
                    Step::Ask { quota, node, numbers: [left, want, ahead, divisor, back], debit, valid, order } => {
                        let (number, known) = order;
                        let holder = ["a", "b", "c"][node];
                        let (quota, valid) = (quotas[quota], Duration::from_millis(valid));
                        let of =
                            BucketAsk { quota, holder, left, want, ahead, divisor, debit, back, valid, number, known };
                        let (said, now) = answer(ask(&names, key, &of));
                        prop_assert_eq!(read(&said).unwrap(), model.ask(now, &of), "{:?} {:?}", engine, of);
                    }
                    Step::Reset(quota) => {
                        let (said, now) = answer(reset(&names, key, quotas[quota], None));
                        prop_assert_eq!(read_tokens(&said).unwrap(), model.reset(now, quotas[quota]));
                    }
                    Step::Grant(quota, tokens) => {
                        let (said, now) = answer(grant(&names, key, quotas[quota], tokens, None));
                        prop_assert_eq!(read_tokens(&said).unwrap(), model.grant(now, quotas[quota], tokens));
                    }
                }
            }
            Ok(())
        });
        outcome.unwrap();
    }
}

#[test]
fn who_leases_again_after_its_time_is_counted_again() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&server.url()));
            until(&link, true).await;
            let (names, quota) = (Names::new("t"), Quota::new(10, 0.001).unwrap());
            let lease = |holder: &'static str, ahead| BucketAsk {
                holder,
                ahead,
                valid: Duration::from_millis(1),
                ..plain(quota, 0)
            };
            let call = async |asked| read(&link.calls(&[asked], LONG).await.pop().unwrap().unwrap()).unwrap();
            assert_eq!(call(ask(&names, 1, &lease("a", 2))).await.ahead, 2);
            let time = async || -> (u64, u64) {
                let answer = link.commands(&[redis::cmd("TIME")], LONG).await.unwrap().remove(0);
                redis::from_redis_value(answer).unwrap()
            };
            // Until it is over by the store's clock, and nobody has looked since.
            let (begun, mut looks) = (time().await, 0);
            while time().await < (begun.0, begun.1 + 2_000) {
                looks += 1;
                assert!(looks < 100_000, "{engine:?}: the store's clock stands still");
            }
            assert_eq!(call(ask(&names, 1, &BucketAsk { valid: LONG, ..lease("a", 3) })).await.ahead, 3);
            assert_eq!(call(ask(&names, 1, &lease("b", 0))).await.others, 3, "{engine:?}");
        });
    }
}

#[test]
fn a_bucket_stays_as_long_as_it_is_not_full() {
    let server = StoreServer::start(Engine::all()[0]);
    runtime().block_on(async {
        let (link, _stop) = start(&settings(&server.url()));
        until(&link, true).await;
        let (names, quota) = (Names::new("t"), Quota::new(10, 2.0).unwrap());
        let left = async || {
            let mut ttl = redis::cmd("PTTL");
            ttl.arg(names.bucket(1));
            redis::from_redis_value::<i64>(link.commands(&[ttl], LONG).await.unwrap().remove(0)).unwrap()
        };
        let call = async |call| link.calls(&[call], LONG).await.pop().unwrap().unwrap();
        call(ask(&names, 1, &plain(quota, 0))).await;
        assert_eq!(left().await, -2, "a full one is kept");
        call(ask(&names, 1, &plain(quota, 10))).await;
        let ends = left().await;
        assert!((5500..=6000).contains(&ends), "{ends}");
        assert_eq!(read_tokens(&call(reset(&names, 1, quota, None)).await), Ok(10));
        // While its quota is firm.
        assert!((1_500..=2_000).contains(&left().await), "a reset one is not kept, or for long");
        assert_eq!(read_tokens(&call(grant(&names, 1, quota, 5, None)).await), Ok(15));
        assert_eq!(left().await, -1, "a grant ends");
    });
}

#[test]
fn a_look_changes_nothing_and_counts_what_nodes_hold() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        runtime().block_on(async {
            let (link, _stop) = start(&settings(&server.url()));
            until(&link, true).await;
            // So slow that nothing comes back meanwhile.
            let (names, quota) = (Names::new("t"), Quota::new(10, 0.000_001).unwrap());
            let kept = || server.command("GET t:{07}:b:00000000000000000000000000000007");
            for (asked, shown) in [
                (None, 10_000),
                (Some(BucketAsk { ahead: 4, ..plain(quota, 3) }), 7_000),
                (Some(BucketAsk { left: 4, debit: 2, ..plain(quota, 0) }), 5_000),
                (Some(BucketAsk { debit: 30, ..plain(quota, 0) }), 0),
            ] {
                if let Some(asked) = asked {
                    link.calls(&[ask(&names, 7, &asked)], LONG).await.pop().unwrap().unwrap();
                }
                let before = kept();
                let answer = link.calls(&[peek(&names, 7, quota)], LONG).await.pop().unwrap().unwrap();
                assert_eq!(read_thousandths(&answer).unwrap(), shown, "{engine:?}");
                assert_eq!(kept(), before, "{engine:?}");
            }
        });
    }
}
