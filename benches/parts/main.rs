//! What the parts of tollgate cost a request: limits, the access log, metrics; each beside a tollgate without it.
//!
//! For each part two processes of the real binary run, pinned to the last core, before the same nginx; wrk loads one at
//! a time from 64 connections, in rounds, and who goes first alternates. The cost is the processor time of the process
//! as the kernel counts it. The ratio is taken within each round, so that what else the machine does falls on both
//! sides of it.
//!
//! `cargo bench --bench parts [-- OPTIONS] [limits] [log] [metrics]`: some four minutes for all. `--rounds N` and
//! `--seconds N` are those of one measurement (11 of 3 s), `--tollgate PATH` takes another binary than the one that is
//! built beside this.

#[path = "../peers/address.rs"]
mod address;
#[path = "../peers/load.rs"]
#[expect(dead_code, reason = "the benchmark beside peers uses the rest")]
mod load;
mod metrics;
#[path = "../peers/parse.rs"]
#[expect(dead_code, reason = "the benchmark beside peers uses the rest")]
mod parse;
#[path = "../peers/process.rs"]
#[expect(dead_code, reason = "the benchmark beside peers uses the rest")]
mod process;
#[path = "../peers/stop.rs"]
mod stop;
#[path = "../peers/template.rs"]
mod template;
#[path = "../scale/tollgate.rs"]
#[expect(dead_code, reason = "the benchmark of scale uses the rest")]
mod tollgate;

use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::PathBuf;
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use load::{Place, Wrk};
use process::Cores;
use stop::{Fallible, Stop};
use tempfile::TempDir;
use tollgate::{Backends, Setting, Tollgate};

/// How often metrics are asked for.
const SCRAPE: Duration = Duration::from_secs(1);

/// One row of the table.
struct Part {
    /// Its name as an argument.
    name: &'static str,
    title: &'static str,
    /// Lines of the configuration with it; `{log}` is the path of a file.
    with: &'static str,
    /// And without it.
    without: &'static str,
    /// Whether metrics are asked for where it is in force.
    scraped: bool,
    /// The ratio that we aim at.
    aim: f64,
}

const PLENTY: &str =
    "access_log: {path: null}\nrate_limit: {default: {capacity: 1000000000, rate_per_sec: 1000000000}}\n";
const NO_LIMITS: &str = "access_log: {path: null}\nrate_limit: {enabled: false}\n";
const NO_HEADERS: &str = "access_log: {path: null}\n\
                          rate_limit: {headers: false, default: {capacity: 1000000000, rate_per_sec: 1000000000}}\n";
const LOGGED: &str = "access_log: {path: \"{log}\", format: json}\n\
                      rate_limit: {default: {capacity: 1000000000, rate_per_sec: 1000000000}}\n";

const PARTS: [Part; 4] = [
    Part {
        name: "limits",
        title: "limits, with rate headers",
        with: PLENTY,
        without: NO_LIMITS,
        scraped: false,
        aim: 1.03,
    },
    Part {
        name: "limits",
        title: "limits, without rate headers",
        with: NO_HEADERS,
        without: NO_LIMITS,
        scraped: false,
        aim: 1.03,
    },
    Part { name: "log", title: "JSON access log to a file", with: LOGGED, without: PLENTY, scraped: false, aim: 1.05 },
    Part {
        name: "metrics",
        title: "metrics, asked for once a second",
        with: PLENTY,
        without: PLENTY,
        scraped: true,
        aim: 1.01,
    },
];

fn main() -> ExitCode {
    match Options::parse().and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("parts: {error}");
            ExitCode::FAILURE
        }
    }
}

struct Options {
    rounds: usize,
    seconds: u64,
    tollgate: PathBuf,
    parts: Vec<String>,
}

impl Options {
    fn parse() -> Fallible<Self> {
        let tollgate = PathBuf::from(env!("CARGO_BIN_EXE_tollgate"));
        let mut options = Options { rounds: 11, seconds: 3, tollgate, parts: Vec::new() };
        let mut arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                "--rounds" => options.rounds = value()?.parse()?,
                "--seconds" => options.seconds = value()?.parse()?,
                "--tollgate" => options.tollgate = value()?.into(),
                part if PARTS.iter().any(|known| known.name == part) => options.parts.push(argument),
                _ => return Err(format!("{argument}: neither an option nor one of limits, log, metrics").into()),
            }
        }
        Ok(options)
    }
}

/// What all parts share.
struct Bench<'a> {
    options: &'a Options,
    stop: Arc<Stop>,
    directory: TempDir,
    core: Cores,
    place: Place,
    backends: Backends,
}

fn run(options: &Options) -> Fallible<()> {
    let stop = Stop::on_signals()?;
    // nginx's workers are another user, who has to reach what they serve.
    let everybody = Permissions::from_mode(0o755);
    let directory = tempfile::Builder::new().prefix("tollgate-parts").permissions(everybody).tempdir()?;
    let (others, core) = Cores::allowed()?.split_last(1)?;
    let backends = Backends::start(&others, &directory.path().join("backends"), &stop)?;
    let place = Place { cores: others, directory: directory.path().to_owned() };
    let bench = Bench { options, stop, directory, core, place, backends };
    println!("| µs of CPU a request | with | without | ratio | its rounds | aim |\n|---|---:|---:|---:|---:|---:|");
    let wanted = |part: &&Part| options.parts.is_empty() || options.parts.iter().any(|name| name == part.name);
    for part in PARTS.iter().filter(wanted) {
        let rounds = bench.rounds(part)?;
        let with = sorted(rounds.iter().map(|(with, _)| *with));
        let without = sorted(rounds.iter().map(|(_, without)| *without));
        let ratios = sorted(rounds.iter().map(|(with, without)| with / without));
        println!(
            "| {} | {:.2} | {:.2} | {:.3} | {:.3}–{:.3} | {:.2} |",
            part.title,
            median(&with),
            median(&without),
            median(&ratios),
            ratios[0],
            ratios[ratios.len() - 1],
            part.aim
        );
        if part.scraped {
            bench.pieces(part, median(&without))?;
        }
    }
    Ok(())
}

impl Bench<'_> {
    /// A proxy with a directory of its own, and `text` in its configuration.
    fn start(&self, name: &str, text: &str) -> Fallible<Tollgate> {
        let directory = self.directory.path().join(name);
        let log = directory.join("access.log").display().to_string();
        let backend = self.backends.port;
        let upstreams = format!(
            "upstreams: [{{name: app, connect_timeout: 10s, backends: [{{address: \"127.0.0.1:{backend}\"}}]}}]\n"
        );
        let rest = text.replace("{log}", &log) + &upstreams;
        let setting = Setting { rest: &rest, database: None };
        Tollgate::start(&self.options.tollgate, &self.core, &directory, &setting, &self.stop)
    }

    /// What metrics cost where a request costs `request` microseconds.
    fn pieces(&self, part: &Part, request: f64) -> Fallible<()> {
        let proxy = self.start("alone", part.with)?;
        self.cost(&proxy, false, 1)?;
        let (counting, scrape) = (metrics::counting(), metrics::scrape(&proxy)?);
        // The first is a share of each request, the second one of each second.
        let share = counting / 1e3 / request + scrape / SCRAPE.as_secs_f64() / 1e6;
        println!(
            "| the same by its pieces: {counting:.1} ns to count a request, {scrape:.0} µs to tell | | | {:.4} | | {:.2} |",
            1.0 + share,
            part.aim
        );
        Ok(())
    }

    /// What a request costs with a part and without it, for each round.
    fn rounds(&self, part: &Part) -> Fallible<Vec<(f64, f64)>> {
        let (with, without) = (self.start("with", part.with)?, self.start("without", part.without)?);
        for proxy in [&with, &without] {
            self.cost(proxy, false, 1)?;
        }
        let seconds = self.options.seconds;
        let rounds = (0..self.options.rounds).map(|round| {
            // Who goes first alternates.
            if round % 2 == 0 {
                let first = self.cost(&with, part.scraped, seconds)?;
                Ok((first, self.cost(&without, false, seconds)?))
            } else {
                let first = self.cost(&without, false, seconds)?;
                Ok((self.cost(&with, part.scraped, seconds)?, first))
            }
        });
        let rounds = rounds.collect();
        let log = self.directory.path().join("with/access.log");
        if log.exists() {
            // Rounds of it are gigabytes.
            std::fs::remove_file(log)?;
        }
        rounds
    }

    /// Microseconds of CPU for each request.
    fn cost(&self, proxy: &Tollgate, scraped: bool, seconds: u64) -> Fallible<f64> {
        let done = AtomicBool::new(false);
        std::thread::scope(|scope| {
            if scraped {
                scope.spawn(|| scrape(proxy, &self.stop, &done));
            }
            let wrk = Wrk { connections: 64, seconds, script: String::new() };
            let before = proxy.process.cpu()?;
            let measured = wrk.run(&self.stop, &self.place, &format!("http://{}/", proxy.address));
            let after = proxy.process.cpu();
            done.store(true, Ordering::Relaxed);
            let (measured, cpu) = (measured?, after?.saturating_sub(before));
            if measured.refused > 0 || measured.requests == 0 {
                return Err(proxy.process.said(&format!("refused {} of {}", measured.refused, measured.requests)));
            }
            Ok(cpu.as_secs_f64() * 1e6 / measured.requests as f64)
        })
    }
}

/// Asks for the metrics until it is done.
fn scrape(proxy: &Tollgate, stop: &Stop, done: &AtomicBool) {
    while !done.load(Ordering::Relaxed) {
        ask_for_metrics(proxy);
        if stop.pause(SCRAPE).is_err() {
            return;
        }
    }
}

fn ask_for_metrics(proxy: &Tollgate) {
    let address = format!("http://{}/metrics", proxy.admin);
    let answer = ureq::get(&address).call().and_then(|mut answer| answer.body_mut().read_to_string());
    assert!(answer.is_ok_and(|text| text.contains("tollgate_requests_total")), "the admin API gives no metrics");
}

fn sorted(values: impl Iterator<Item = f64>) -> Vec<f64> {
    let mut values: Vec<_> = values.collect();
    values.sort_by(f64::total_cmp);
    values
}

fn median(sorted: &[f64]) -> f64 {
    sorted[sorted.len() / 2]
}
