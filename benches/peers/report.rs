//! Tables for the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::{Case, Limit, SCALING, Work};
use crate::contender::{Contender, Kind};
use crate::figures::{Figures, Spread};
use crate::record::Results;

/// One case as a table.
pub(crate) fn case(case: &Case, contenders: &[Contender], figures: &BTreeMap<String, Figures>) -> String {
    let aim = case.aim.map_or_else(String::new, |aim| format!(" (our aim: at most {aim} × nginx)"));
    let cost = if matches!(case.work, Work::Idle { .. }) { "KiB each" } else { "CPU s/100k" };
    let failed = if case.limit == Limit::Refuse { "refused" } else { "failed" };
    let heads = ["", "req/s", cost, "÷ nginx", "p50 ms", "p99 ms", "p99.9 ms", "p99 ÷ nginx", "busy", "MiB", failed];
    let mut text = format!("\n{}: {}{aim}\n", case.name, case.title);
    let mut row = |cells: [String; 11]| {
        let [name, rate, cost, ratio, p50, p99, p999, p99_ratio, busy, resident, failed] = cells;
        let _ = writeln!(
            text,
            "  {name:<9} {rate:>7} {cost:>10} {ratio:>19} {p50:>8} {p99:>8} {p999:>8} {p99_ratio:>11} {busy:>5} {resident:>7} {failed:>8}"
        );
    };
    row(heads.map(str::to_owned));
    for contender in contenders {
        let Some(figures) = figures.get(&contender.name) else { continue };
        row([
            contender.name.clone(),
            number(figures.rate, 0),
            number(figures.cost, 2),
            range(figures.ratio),
            number(figures.p50, 2),
            number(figures.p99, 2),
            number(figures.p999, 2),
            number(figures.p99_ratio, 2),
            number(figures.busy, 2),
            number(figures.resident, 1),
            if case.limit == Limit::Refuse {
                format!("{:.1} %", figures.refused as f64 / figures.requests.max(1) as f64 * 100.0)
            } else {
                (figures.failed + figures.refused).to_string()
            },
        ]);
    }
    for contender in contenders {
        let Some(figures) = figures.get(&contender.name) else { continue };
        let to_reach = |aim: Option<f64>| aim.map_or_else(String::new, |aim| format!(" (our aim: at most {aim})"));
        if let (Some(what), Some(_)) = (case.work.beside(), figures.beside) {
            let aim = to_reach(case.aim_beside.filter(|_| contender.kind == Kind::Tollgate));
            let _ = writeln!(text, "  {} ÷ {what} {}{aim}", contender.name, range(figures.beside));
        }
        if figures.haproxy_ratio.is_some() {
            let (ratio, aim) = (range(figures.haproxy_ratio), to_reach(case.aim_haproxy));
            let _ = writeln!(text, "  {} ÷ haproxy {ratio}{aim}", contender.name);
        }
    }
    text
}

/// What two cores are beside one, for a contender.
pub(crate) struct Scaling {
    /// Who, and over which connections.
    pub(crate) title: String,
    /// By requests a second.
    pub(crate) rate: f64,
    /// By requests for a CPU second, times two. That holds also where the load could not keep two cores busy.
    pub(crate) cost: f64,
}

/// What two cores are beside one, for each contender.
pub(crate) fn scaling(results: &Results) -> Vec<Scaling> {
    let pair = |(one, two, over): &(&str, &str, &str)| {
        let (one, two) = (results.get(*one)?, results.get(*two)?);
        let beside = |(name, two): (&String, &Figures)| {
            let one = one.get(name)?;
            let rate = two.rate?.median / one.rate?.median;
            Some(Scaling { title: format!("{name}, {over}"), rate, cost: 2.0 * one.cost?.median / two.cost?.median })
        };
        Some(two.iter().filter_map(beside).collect::<Vec<_>>())
    };
    SCALING.iter().filter_map(pair).flatten().collect()
}

/// A ratio with its least and most.
pub(crate) fn range(spread: Option<Spread>) -> String {
    spread
        .map_or_else(|| "–".to_owned(), |Spread { median, least, most }| format!("{median:.2} ({least:.2}–{most:.2})"))
}

fn number(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.digits$}", spread.median))
}
