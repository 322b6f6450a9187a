//! What each balancing rule comes to: in a simulation of the rules that the proxy has, and, asked to, beside nginx and
//! HAProxy before backends whose times are scripted.
//!
//! `cargo bench --bench balancing` prints the tables of the simulation; with `-- --write` they go into
//! docs/balancing.md, and the plots beside it. `-- --real` loads tollgate, HAProxy and nginx, which it finds by `PATH`,
//! in turns; `-- --real flood` only in the case of that name, and `--binary=PATH` with another tollgate.

mod real;
mod simulation;

use std::fmt::Write as _;

use plotters::prelude::*;
use simulation::{Outcome, Scenario, run, scenarios};
use tollgate::upstream::Balance;

/// The seed of every run.
const SEED: u64 = 20_261_128;
/// What stands before and behind the tables.
const BEGIN: &str = "<!-- simulated: begin -->\n";
const END: &str = "<!-- simulated: end -->\n";
const COLOURS: [RGBColor; 5] = [
    RGBColor(31, 119, 180),
    RGBColor(148, 103, 189),
    RGBColor(44, 160, 44),
    RGBColor(214, 39, 40),
    RGBColor(255, 127, 14),
];

type Fallible = Result<(), Box<dyn std::error::Error>>;

fn main() -> Fallible {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    if arguments.iter().any(|argument| argument == "--real") {
        let binary = arguments.iter().find_map(|argument| argument.strip_prefix("--binary="));
        let cases: Vec<_> = arguments.iter().filter(|argument| !argument.starts_with("--")).cloned().collect();
        return real::run(binary.unwrap_or(env!("CARGO_BIN_EXE_tollgate")), &cases);
    }
    let write = arguments.iter().any(|argument| argument == "--write");
    let mut text = String::new();
    for scenario in scenarios() {
        let outcomes: Vec<_> =
            Balance::ALL.iter().map(|rule| (rule.name(), run(&scenario, rule.name(), SEED))).collect();
        text += &table(&scenario, &outcomes)?;
        if write {
            let file = format!("{}.svg", scenario.name.replace([' ', ',', ':'], "-").replace("--", "-"));
            plot(&format!("docs/balancing/{file}"), &scenario, &outcomes)?;
            writeln!(text, "![p99 of each half second: {}](balancing/{file})\n", scenario.name)?;
        }
    }
    if !write {
        print!("{text}");
        return Ok(());
    }
    let page = std::fs::read_to_string("docs/balancing.md")?;
    let (before, rest) = page.split_once(BEGIN).ok_or("docs/balancing.md has no place for it")?;
    let (_, after) = rest.split_once(END).ok_or("docs/balancing.md has no end of it")?;
    std::fs::write("docs/balancing.md", format!("{before}{BEGIN}\n{text}{END}{after}"))?;
    Ok(())
}

fn table(scenario: &Scenario, outcomes: &[(&str, Outcome)]) -> Result<String, std::fmt::Error> {
    let mut text = format!("### {}\n\n{}\n\n", capital(scenario.name), scenario.about);
    text += "| rule | p50 ms | p99 ms | share of the first, % | herd | failed, % |\n|---|---|---|---|---|---|\n";
    for (rule, outcome) in outcomes {
        let herd =
            Some(outcome.herd()).filter(|herd| *herd > 0.0).map_or("–".to_owned(), |herd| format!("{herd:.1}"));
        writeln!(
            text,
            "| `{rule}` | {:.1} | {:.0} | {:.1} | {herd} | {:.2} |",
            outcome.quantile(0.5),
            outcome.quantile(0.99),
            outcome.share() * 100.0,
            outcome.failed() * 100.0
        )?;
    }
    text.push('\n');
    Ok(text)
}

fn capital(name: &str) -> String {
    name[..1].to_uppercase() + &name[1..]
}

/// The p99 of each half second, for each rule.
fn plot(file: &str, scenario: &Scenario, outcomes: &[(&str, Outcome)]) -> Fallible {
    if let Some(directory) = std::path::Path::new(file).parent() {
        std::fs::create_dir_all(directory)?;
    }
    let lines: Vec<Vec<(f64, f64)>> =
        outcomes.iter().map(|(_, outcome)| over_time(outcome, scenario.seconds)).collect();
    let most = lines.iter().flatten().map(|(_, millis)| *millis).fold(20.0, f64::max);
    let area = SVGBackend::new(file, (760, 320)).into_drawing_area();
    area.fill(&WHITE)?;
    let mut chart = ChartBuilder::on(&area)
        .caption(format!("{}: p99 of each half second, ms", scenario.name), ("sans-serif", 16))
        .margin(8)
        .x_label_area_size(28)
        .y_label_area_size(52)
        .build_cartesian_2d(0.0..scenario.seconds, (5.0..most * 1.2).log_scale())?;
    chart.configure_mesh().light_line_style(WHITE).x_desc("seconds").draw()?;
    for ((line, colour), (rule, _)) in lines.into_iter().zip(COLOURS).zip(outcomes) {
        chart
            .draw_series(LineSeries::new(line, colour.stroke_width(2)))?
            .label(*rule)
            .legend(move |(x, y)| PathElement::new([(x, y), (x + 18, y)], colour.stroke_width(2)));
    }
    chart.configure_series_labels().background_style(WHITE.mix(0.8)).border_style(BLACK.mix(0.3)).draw()?;
    area.present()?;
    Ok(())
}

fn over_time(outcome: &Outcome, seconds: f64) -> Vec<(f64, f64)> {
    let mut halves = vec![Vec::new(); (seconds * 2.0) as usize + 1];
    outcome.served.iter().for_each(|one| halves[(one.at * 2.0) as usize].push(one.millis));
    let mut points = Vec::new();
    for (half, mut millis) in halves.into_iter().enumerate() {
        millis.sort_by(f64::total_cmp);
        if let Some(p99) = millis.get(millis.len() * 99 / 100) {
            points.push((half as f64 / 2.0, p99.max(5.0)));
        }
    }
    points
}
