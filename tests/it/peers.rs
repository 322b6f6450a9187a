//! The benchmark beside peers: its parsing, and its figures.
//!
//! A bench target without a harness runs no tests, so its pure modules are compiled here once more.

#[expect(dead_code, reason = "what is done in a case is the benchmark's")]
#[path = "../../benches/peers/case.rs"]
mod case;
#[path = "../../benches/peers/figures.rs"]
mod figures;
#[path = "../../benches/peers/parse.rs"]
mod parse;
#[path = "../../benches/peers/template.rs"]
mod template;

use case::CASES;
use figures::{Beside, Figures, Round, Spread};
use parse::{
    Measured, Stat, cores, duration, field, h2load, h2load_data, measured, percentile, release, stat, version,
};
use template::fill;

fn round(cpu: f64, requests: u64) -> Round {
    let measured = Measured { requests, seconds: 2.0, p99: 1000.0 * cpu, failed: 1, ..Measured::default() };
    Round::Load { measured, cpu, busy: 0.5, resident: 1048576, beside: None }
}

#[test]
fn a_machine_has_the_cases_that_it_has_the_cores_for() {
    let left_out = |cores| CASES.iter().filter(|case| case.too_few(cores).is_some()).map(|case| case.name).collect();
    let lacking: Vec<Vec<_>> = (1..=4).map(left_out).collect();
    assert_eq!(lacking[0].len(), CASES.len(), "the load needs a core of its own");
    assert_eq!(lacking[1], ["two-cores", "tls-two-cores"]);
    assert_eq!(lacking[2..], [[""; 0]; 2]);
    let why = CASES.iter().find_map(|case| case.too_few(2)).unwrap();
    assert_eq!(why, "it needs 3 cores, 2 of them for the proxy, and here are 2");
}

#[test]
fn a_spread_has_the_middle_and_both_ends() {
    let spread = |median, least, most| Some(Spread { median, least, most });
    assert_eq!(Spread::of([3.0, 1.0, 2.0]), spread(2.0, 1.0, 3.0));
    assert_eq!(Spread::of([4.0, 1.0, 2.0, 3.0]), spread(2.5, 1.0, 4.0));
    assert_eq!(Spread::of([]), None);
}

#[test]
fn costs_are_compared_round_by_round() {
    let reference = [round(1.0, 100_000), round(4.0, 100_000), round(2.0, 100_000)];
    let own = [round(2.0, 100_000), round(4.0, 50_000), round(2.0, 100_000)];
    let figures = Figures::of(&own, Some(&reference));
    assert_eq!(figures.cost.unwrap(), Spread { median: 2.0, least: 2.0, most: 8.0 });
    assert_eq!(figures.ratio.unwrap(), Spread { median: 2.0, least: 1.0, most: 2.0 });
    assert_eq!(figures.rate.unwrap().median, 50_000.0);
    assert_eq!((figures.failed, figures.requests), (3, 250_000));
    assert!(Figures::of(&own, None).ratio.is_none());
}

#[test]
fn a_round_is_compared_with_what_it_was_measured_beside() {
    let of = |beside| {
        let rounds = [1.0, 3.0, 4.0].map(|cpu| round(cpu, 100_000).beside(Some(beside)));
        Figures::of(&rounds, None).beside.unwrap()
    };
    assert_eq!(of(Beside::Cost(2.0)), Spread { median: 1.5, least: 0.5, most: 2.0 });
    // Two seconds for as many requests.
    assert_eq!(of(Beside::Time(1e-5)), Spread { median: 2.0, least: 2.0, most: 2.0 });
    let none = [round(1.0, 1).beside(None), round(1.0, 1).beside(Some(Beside::Cost(0.0)))];
    assert!(Figures::of(&none, None).beside.is_none());
}

#[test]
fn idle_connections_have_a_cost_and_no_rate() {
    let figures = Figures::of(&[Round::Idle { bytes: 2048.0, resident: 1048576 }], None);
    assert_eq!(figures.cost.unwrap().median, 2.0);
    assert_eq!(figures.resident.unwrap().median, 1.0);
    assert!(figures.rate.is_none() && figures.busy.is_none());
}

#[test]
fn a_stat_line_is_read_whatever_the_name() {
    let line = "42 (a b) c) S 1 40 40 0 -1 4194560 1 0 0 0 120 35 7 9 20 0 1 0 100 1000 10 18446744073709551615";
    assert_eq!(stat(line), Some(Stat { pid: 42, group: 40, ticks: 155 }));
    assert_eq!(stat(""), None);
}

#[test]
fn lists_of_cores_are_read() {
    assert_eq!(cores("0-2,5"), Some(vec![0, 1, 2, 5]));
    assert_eq!(cores("3"), Some(vec![3]));
    assert_eq!(cores("x"), None);
    assert_eq!(field("Name:\tx\nVmRSS:\t  12 kB\n", "VmRSS"), Some("12 kB"));
}

#[test]
fn the_line_of_a_load_is_found() {
    let line = r#"MEASURED {"requests":10,"seconds":2.0,"refused":1,"failed":2,"p50":1,"p99":2,"p999":3}"#;
    let got = measured(&format!("Running\n{line}\nmore")).unwrap();
    assert_eq!((got.requests, got.refused, got.failed, got.rate()), (10, 1, 2, 5.0));
    assert_eq!(measured("nothing"), None);
}

#[test]
fn h2load_is_read_from_its_words_and_its_log() {
    let output = "finished in 500.00ms, 8.00 req/s, 1KB/s\n\
        requests: 5 total, 5 started, 5 done, 4 succeeded, 3 failed, 2 errored, 1 timeout\n";
    let log = "1795322111513656\t200\t10\n1795322111513656\t429\t30\n1795322111513656\t200\t20\n";
    let got = h2load(output, log).unwrap();
    assert_eq!(got, Measured { requests: 3, seconds: 0.5, refused: 1, failed: 3, p50: 20.0, p99: 30.0, p999: 30.0 });
    assert_eq!(h2load("", log), None);
    let traffic =
        "traffic: 1.30MB (1365000) total, 302.73KB (310000) headers (space savings 90.61%), 1.00MB (1050000) data";
    assert_eq!((h2load_data(traffic), h2load_data(output)), (Some(1_050_000), None));
}

#[test]
fn a_percentile_is_a_value_that_occurred() {
    let values: Vec<f64> = (1..=1000).map(f64::from).collect();
    assert_eq!(
        (percentile(&values, 0.5), percentile(&values, 0.99), percentile(&values, 0.999)),
        (500.0, 990.0, 999.0)
    );
    assert_eq!(percentile(&[], 0.5), 0.0);
}

#[test]
fn times_have_units() {
    let close = |text, seconds: f64| (duration(text).unwrap() - seconds).abs() < 1e-9;
    assert!(close("1.01s", 1.01) && close("432.24ms", 0.43224) && close("72us", 72e-6));
    assert_eq!(duration("fast"), None);
}

#[test]
fn every_gap_is_filled_or_named() {
    let values = [("a", "1".to_owned()), ("b", "{x}".to_owned())];
    assert_eq!(fill("{{...}} {{a}}-{{b}} {k: {{a}}}", &values).unwrap(), "{{...}} 1-{x} {k: 1}");
    assert!(fill("{{c}}", &values).unwrap_err().to_string().contains("no value for c"));
    assert!(fill("{{a", &values).is_err());
}

#[test]
fn a_version_is_found_in_what_programs_say() {
    for (said, expected) in [
        ("nginx version: nginx/1.24.0 (Ubuntu)", "1.24.0"),
        ("HAProxy version 2.6.12-1+deb12u4 2026/10/17 - https://haproxy.org/", "2.6.12-1+deb12u4"),
        ("wrk debian/4.1.0-3+b2 [epoll] Copyright (C) 2012 Will Glozer", "4.1.0-3+b2"),
        ("h2load nghttp2/1.52.0", "1.52.0"),
        ("tollgate 0.1.0", "0.1.0"),
    ] {
        assert_eq!(version(said), Some(expected));
    }
    assert_eq!(version("none"), None);
    assert_eq!((release("2.6.12-1"), release("2"), release("x.y")), (Some((2, 6)), None, None));
}

#[test]
fn figures_are_kept_with_four_digits() {
    let spread = Spread { median: 12345.678, least: 1.23456, most: 0.000123456 };
    let text = serde_json::to_string(&spread).unwrap();
    assert_eq!(text, "[12346.0,1.235,0.000123]");
    assert_eq!(
        serde_json::from_str::<Spread>(&text).unwrap(),
        Spread { median: 12346.0, least: 1.235, most: 0.000123 }
    );
}
