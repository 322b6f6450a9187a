//! Tables for people: on the terminal.

use std::collections::BTreeMap;
use std::fmt::Write as _;

use crate::case::{Case, Work};
use crate::contender::{Contender, Limit};
use crate::figures::{Figures, Spread};

/// One case as a table of lines.
pub(crate) fn case(case: &Case, contenders: &[Contender], figures: &BTreeMap<String, Figures>) -> String {
    let mut text = format!("\n{}: {}", case.name, case.title);
    if let Some(aim) = case.aim {
        let _ = write!(text, " (our aim: at most {aim} of nginx)");
    }
    let cost = if matches!(case.work, Work::Idle { .. }) { "KiB/conn" } else { "CPU s/100k" };
    let _ = writeln!(
        text,
        "\n  {:<10} {:>8} {cost:>10} {:>22} {:>8} {:>8} {:>8} {:>9} {:>5} {:>8} {:>8}",
        "", "req/s", "ratio (least..most)", "p50 ms", "p99 ms", "p99.9 ms", "p99 ratio", "busy", "MiB", "failed"
    );
    for contender in contenders {
        if let Some(figures) = figures.get(&contender.name) {
            let _ = writeln!(
                text,
                "  {:<10} {:>8} {:>10} {:>22} {:>8} {:>8} {:>8} {:>9} {:>5} {:>8} {:>8}",
                contender.name,
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
                    format!("{} of {}", figures.refused, figures.requests)
                } else {
                    (figures.failed + figures.refused).to_string()
                },
            );
        }
    }
    text
}

fn number(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(|| "–".to_owned(), |spread| format!("{:.digits$}", spread.median))
}

fn range(spread: Option<Spread>) -> String {
    spread.map_or_else(
        || "–".to_owned(),
        |spread| format!("{:.2} ({:.2}..{:.2})", spread.median, spread.least, spread.most),
    )
}
