//! What a request costs as there is more of everything: backends, clients, routes, connections; and how long tollgate
//! takes to start and to reload with them.
//!
//! The real binary runs, one process for each column of a table, pinned to the last core; an nginx that stands for all
//! backends, and wrk, have the others. One process is loaded at a time, in rounds, and who goes first rotates. The cost
//! is the processor time of the process as the kernel counts it, which depends little on the load. Prints the tables of
//! docs/benchmarks.md.
//!
//! `cargo bench --bench scale [-- OPTIONS] [backends] [clients] [routes] [connections] [start]`; without a table's name
//! all of them, in some ten minutes. `--rounds N` and `--seconds N` are those of one measurement (5 of 2 s),
//! `--tollgate PATH` takes another binary than the one that is built beside this, `--quick` leaves out the largest of
//! clients and routes.

mod bench;
mod options;
mod shapes;
mod starts;
mod tollgate;

#[path = "../peers/address.rs"]
mod address;
#[path = "../peers/load.rs"]
#[expect(dead_code, reason = "the benchmark beside peers uses the rest")]
mod load;
#[path = "../peers/parse.rs"]
#[expect(dead_code, reason = "the benchmark beside peers uses the rest")]
mod parse;
#[path = "../peers/process.rs"]
mod process;
#[path = "../peers/stop.rs"]
mod stop;
#[path = "../peers/template.rs"]
mod template;

use std::process::ExitCode;

use bench::Bench;
use options::Options;
use shapes::{Dimension, Shape};
use stop::Fallible;

fn main() -> ExitCode {
    let arguments = std::env::args().skip(1).filter(|argument| argument != "--bench");
    match Options::parse(arguments).and_then(|options| run(&options)) {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("scale: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(options: &Options) -> Fallible<()> {
    let bench = Bench::new(options)?;
    let counts_of = |dimension: Dimension| {
        let counts = dimension.counts();
        let cut = usize::from(options.quick && matches!(dimension, Dimension::Clients | Dimension::Routes));
        let most = if dimension == Dimension::Connections { bench.most_connections } else { usize::MAX };
        counts[..counts.len() - cut].iter().map(|count| *count.min(&most)).collect::<Vec<_>>()
    };
    for dimension in Dimension::ALL {
        if options.wants(dimension.name()) {
            let counts = counts_of(dimension);
            println!(
                "\nµs of CPU a request, by {}: the median, and the least and the most of the rounds\n",
                dimension.name()
            );
            let columns: Vec<_> = counts.iter().map(|count| shapes::grouped(*count)).collect();
            println!("| {} | {} |\n|---|{}", dimension.name(), columns.join(" | "), "---:|".repeat(counts.len()));
            for (row, rule) in dimension.rows() {
                let shapes: Vec<_> = counts.iter().map(|count| Shape::new(dimension, *count, rule)).collect();
                let costs = bench.costs(&shapes)?;
                let cells: Vec<_> = costs.iter().map(|cost| cost.to_string()).collect();
                println!("| {row} | {} |", cells.join(" | "));
            }
        }
    }
    if options.wants("start") {
        println!("\n| with | serves after, ms | reloads in, ms | resident, MiB |\n|---|---:|---:|---:|");
        for dimension in [Dimension::Backends, Dimension::Clients, Dimension::Routes] {
            let more = match dimension {
                Dimension::Backends => &[10_000][..],
                _ => &[],
            };
            for count in counts_of(dimension).iter().chain(more) {
                let start = bench.start(&Shape::new(dimension, *count, "round_robin"))?;
                println!("| {} {} | {start} |", shapes::grouped(*count), dimension.name());
            }
        }
    }
    Ok(())
}
