//! What the rules come to, in the simulation that docs/balancing.md is written from: what it claims of them, asserted.

#[expect(dead_code, reason = "the bench tells more of it")]
#[path = "../../benches/balancing/simulation.rs"]
mod simulation;

use simulation::{Outcome, run, scenarios};

const SEEDS: [u64; 2] = [1, 2];

/// What came of these rules in the scenario of this name.
fn outcomes<const N: usize>(name: &str, rules: [&str; N], seed: u64) -> [Outcome; N] {
    let scenario = scenarios().into_iter().find(|scenario| scenario.name == name).unwrap();
    rules.map(|rule| run(&scenario, rule, seed))
}

#[test]
fn the_same_seed_is_the_same_run() {
    let quantiles = || outcomes("fails fast", ["least_time"], 7).map(|one| (one.quantile(0.5), one.quantile(0.99)));
    assert_eq!(quantiles(), quantiles());
}

#[test]
fn least_time_leaves_a_slow_backend_to_less_than_one_in_fifty() {
    for seed in SEEDS {
        let [time, count] = outcomes("one slow", ["least_time", "least_connections"], seed);
        let (time_p99, count_p99) = (time.quantile(0.99), count.quantile(0.99));
        assert!(time_p99 < 0.7 * count_p99, "{time_p99} ms beside {count_p99}");
        assert!(time.share() < 0.02 && count.share() > 0.04, "{} beside {}", time.share(), count.share());
    }
}

#[test]
fn least_time_is_not_drawn_to_who_fails_fast_as_least_connections_is() {
    for seed in SEEDS {
        let [time, count] = outcomes("fails fast", ["least_time", "least_connections"], seed);
        assert!(time.failed() < 0.01 && count.failed() > 0.3, "{} beside {}", time.failed(), count.failed());
    }
}

#[test]
fn a_slow_start_spares_who_comes_back_cold_under_every_rule() {
    for rule in ["round_robin", "random", "least_connections", "least_time", "hash"] {
        let [at_once] = outcomes("restart", [rule], SEEDS[0]);
        let [slowly] = outcomes("restart, slow_start: 10s", [rule], SEEDS[0]);
        // least_time sees for itself how slow it is, and gives it little anyway.
        let sees = rule == "least_time";
        let (p99, share) = (slowly.quantile(0.99) / at_once.quantile(0.99), slowly.share() / at_once.share());
        assert!(p99 < if sees { 1.25 } else { 0.9 }, "{rule}: {p99} of the time");
        assert!(sees || share < 0.95, "{rule}: {share} of the share");
    }
}

#[test]
fn no_rule_makes_a_herd_among_equals() {
    for rule in ["round_robin", "random", "least_connections", "least_time", "hash"] {
        let [bursts] = outcomes("bursts", [rule], SEEDS[1]);
        assert!(bursts.herd() < 3.0, "{rule}: {}", bursts.herd());
        assert!((0.09..0.11).contains(&bursts.share()), "{rule}: {}", bursts.share());
    }
}
