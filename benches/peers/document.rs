//! The section of `docs/benchmarks.md` that a full run writes. Everything outside its two marks stays as it is.

use std::fmt::Write as _;
use std::path::PathBuf;

use crate::case::{CASES, Case, Work};
use crate::figures::{Figures, Spread};
use crate::record::Record;
use crate::report::{Scaling, scaling};
use crate::stop::Fallible;

const BEGIN: &str = "<!-- peers: from here on written by `make bench` -->";
const END: &str = "<!-- peers: up to here -->";

/// What stands behind the table of two cores.
const SCALING_NOTE: &str = "\
Our aim is at least 1.9 ×. Over plain connections the load and the backends, which have the other two cores, need as much CPU time as the
proxies, and may bound requests a second; over TLS the proxy has most of the work. More than 2 × says that a request costs less
beside a busier load ([performance.md](performance.md#what-is-not-reached)).";

/// What stands before the tables.
const READ: &str = include_str!("conf/section.md");

/// Writes the section.
///
/// # Errors
///
/// When the document cannot be read or written, or has not both marks.
pub(crate) fn write(record: &Record) -> Fallible<()> {
    let path = PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("docs/benchmarks.md");
    let text = std::fs::read_to_string(&path)?;
    let (before, rest) = text.split_once(BEGIN).ok_or("docs/benchmarks.md has no mark where the section begins")?;
    let (_, after) = rest.split_once(END).ok_or("docs/benchmarks.md has no mark where the section ends")?;
    Ok(std::fs::write(&path, format!("{before}{BEGIN}\n\n{}\n{END}{after}", section(record)?))?)
}

fn section(record: &Record) -> Fallible<String> {
    let mut text = String::new();
    let (machine, (rounds, seconds)) = (&record.machine, record.rounds);
    writeln!(text, "Measured on {}, in {rounds} rounds of {seconds} s, on", machine.date)?;
    writeln!(
        text,
        "{}, {}, {}:\n{}.\n\n{READ}",
        machine.processor,
        machine.memory,
        machine.kernel,
        machine.versions.join(", ")
    )?;
    writeln!(
        text,
        "| tollgate ÷ nginx | CPU a request | our aim | p99 | HAProxy ÷ nginx: CPU | p99 |\n|---|---:|---:|---:|---:|---:|"
    )?;
    for (case, name) in loads() {
        let figures = |contender: &str| record.cases.get(case.name)?.get(contender);
        let Some(ours) = figures("tollgate") else { continue };
        let aim = case.aim.map_or_else(|| "–".to_owned(), |aim| format!("≤ {aim}"));
        let (peer, p99) = figures("haproxy").map_or((None, None), |peer| (peer.ratio, peer.p99_ratio));
        let cells = [cell(ours.ratio, 2), aim, cell(ours.p99_ratio, 2), cell(peer, 2), cell(p99, 2)];
        writeln!(text, "| {name} | {} |", cells.join(" | "))?;
    }
    for (name, why) in &record.left_out {
        let title = CASES.iter().find(|case| case.name == name).map_or(name.as_str(), |case| case.title);
        writeln!(text, "| {title} | left out: {why} | | | | |")?;
    }
    writeln!(text, "\nOur aim for p99 is at most 1.5 times nginx's.\n")?;
    writeln!(text, "| tollgate ÷ | | | our aim |\n|---|---|---:|---:|")?;
    for (case, name) in loads() {
        let figures = |contender: &str| record.cases.get(case.name)?.get(contender);
        let Some(ours) = figures("tollgate") else { continue };
        let to_reach = |aim: Option<f64>| aim.map_or_else(|| "–".to_owned(), |aim| format!("≤ {aim}"));
        if case.aim_haproxy.is_some() {
            let ratio = cell(ours.haproxy_ratio, 2);
            writeln!(text, "| {name} | HAProxy's CPU | {ratio} | {} |", to_reach(case.aim_haproxy))?;
        }
        if let Some(what) = case.work.beside() {
            let ratio = cell(ours.beside, 2);
            writeln!(text, "| {name} | {what} | {ratio} | {} |", to_reach(case.aim_beside))?;
            for peer in ["nginx", "haproxy"] {
                if let Some(figures) = figures(peer) {
                    writeln!(text, "| | the same of {peer} | {} | |", cell(figures.beside, 2))?;
                }
            }
        }
    }
    writeln!(text)?;
    writeln!(text, "| | | req/s | CPU s for 100,000 | p50 ms | p99 ms | p99.9 ms | cores in use | MiB | failed |")?;
    writeln!(text, "|---|---|---:|---:|---:|---:|---:|---:|---:|---:|")?;
    for (case, name) in loads() {
        for (place, (contender, figures)) in all(record, case).enumerate() {
            let cells = [
                cell(figures.rate, 0),
                cell(figures.cost, 2),
                cell(figures.p50, 2),
                cell(figures.p99, 2),
                cell(figures.p999, 2),
                figures.busy.map_or_else(|| "–".to_owned(), |busy| format!("{:.0} %", busy.median * 100.0)),
                figures.resident.map_or_else(|| "–".to_owned(), |resident| format!("{:.0}", resident.median)),
                figures.failed.to_string(),
            ];
            writeln!(text, "| {} | {contender} | {} |", if place == 0 { name } else { "" }, cells.join(" | "))?;
        }
    }
    let lines = scaling(&record.cases);
    if !lines.is_empty() {
        writeln!(text, "\n| two cores beside one | req/s | requests for each CPU second, twice |\n|---|---:|---:|")?;
        for Scaling { title, rate, cost } in lines {
            writeln!(text, "| {title} | {rate:.2} × | {cost:.2} × |")?;
        }
        writeln!(text, "\n{SCALING_NOTE}")?;
    }
    writeln!(text, "\n| idle connections | | KiB each | MiB with all of them |\n|---|---|---:|---:|")?;
    for case in CASES.iter().filter(|case| matches!(case.work, Work::Idle { .. })) {
        for (place, (contender, figures)) in all(record, case).enumerate() {
            let name = if place == 0 { case.title } else { "" };
            writeln!(text, "| {name} | {contender} | {} | {} |", cell(figures.cost, 1), cell(figures.resident, 0))?;
        }
    }
    writeln!(text, "\nOur aim is at most 4 KiB for a connection, 12 over TLS.")?;
    Ok(text)
}

fn loads() -> impl Iterator<Item = (&'static Case, &'static str)> {
    CASES.iter().filter(|case| !matches!(case.work, Work::Idle { .. })).map(|case| (case, case.title))
}

/// The contenders of a case, peers first.
fn all<'a>(record: &'a Record, case: &Case) -> impl Iterator<Item = (&'static str, &'a Figures)> {
    let case = record.cases.get(case.name);
    ["nginx", "haproxy", "tollgate"].into_iter().filter_map(move |name| Some((name, case?.get(name)?)))
}

fn cell(spread: Option<Spread>, digits: usize) -> String {
    spread.map_or_else(
        || "–".to_owned(),
        |Spread { median, least, most }| format!("{median:.digits$} ({least:.digits$}–{most:.digits$})"),
    )
}
