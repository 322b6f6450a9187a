//! How often the proxy asks for memory to serve one request, and for how many bytes.
//!
//! The real server runs in this process, over an allocator that counts. Clients and the backend run in a process of
//! their own, the same program started again, so that all that is counted is the proxy's. One connection asks one
//! request after another; the first hundreds are not counted, as they fill what is kept. The counts repeat to within a
//! few hundredths, on any machine, whatever else runs on it.
//!
//! - `cargo bench --bench allocations`: the table; `... -- POST`: of the cases with this in their name
//! - `... -- --check`: fails when a case asks more than once more often than `benches/allocations/committed.tsv` says
//! - `... -- --save`: writes that file anew

mod backend;
mod cases;
mod clients;
mod committed;
mod server;

use std::alloc::System;
use std::io::{BufRead, BufReader, Write};
use std::net::SocketAddr;
use std::process::{Child, ChildStdin, ChildStdout, Command, ExitCode, Stdio};

use stats_alloc::{INSTRUMENTED_SYSTEM, StatsAlloc};

use cases::{CASES, Case};
use committed::Committed;
use server::{Certificate, Measured};

#[global_allocator]
static ALLOCATOR: &StatsAlloc<System> = &INSTRUMENTED_SYSTEM;

/// The argument that makes a process the other side.
const OTHER_SIDE: &str = "--other-side";
/// Each case is measured so often; the fewest count, as others hold what the proxy did beside the requests.
const ROUNDS: usize = 3;

/// What one request costs.
#[derive(Clone, Copy, Debug)]
struct Cost {
    /// New blocks of memory.
    allocations: f64,
    /// Blocks made larger or smaller.
    reallocations: f64,
    /// What was asked for in all.
    bytes: f64,
}

fn main() -> ExitCode {
    let arguments: Vec<String> = std::env::args().collect();
    let has = |name: &str| arguments.iter().any(|argument| argument == name);
    if has(OTHER_SIDE) {
        other_side();
        return ExitCode::SUCCESS;
    }
    let certificate = Certificate::make();
    let mut other = OtherSide::start(&certificate);
    println!("| per request | allocations | reallocations | bytes |\n|---|---:|---:|---:|");
    let mut costs = Vec::new();
    // A word picks the cases that have it in their name.
    let picked = arguments[1..].iter().find(|argument| !argument.starts_with("--")).map_or("", String::as_str);
    for case in CASES.iter().filter(|case| case.name.contains(picked)) {
        let cost = measure(case, &certificate, &mut other);
        println!("| {} | {:.2} | {:.2} | {:.0} |", case.name, cost.allocations, cost.reallocations, cost.bytes);
        costs.push((case.name, cost));
    }
    other.end();
    if has("--save") {
        Committed::write(&costs);
    }
    if has("--check") {
        let worse = Committed::read().worse(&costs);
        worse.iter().for_each(|line| eprintln!("allocations: {line}"));
        return if worse.is_empty() { ExitCode::SUCCESS } else { ExitCode::FAILURE };
    }
    ExitCode::SUCCESS
}

fn measure(case: &Case, certificate: &Certificate, other: &mut OtherSide) -> Cost {
    let server = Measured::start(case.settings, other.backend, certificate);
    let costs = (0..ROUNDS).map(|_| {
        other.say(&format!("{} {} {}", server.plain, server.tls, case.name));
        other.expect("warm");
        let before = ALLOCATOR.stats();
        other.say("go");
        other.expect("done");
        let after = ALLOCATOR.stats();
        let each = |before: usize, after: usize| (after - before) as f64 / f64::from(case.requests);
        let grown = (after.bytes_reallocated - before.bytes_reallocated).max(0) as f64 / f64::from(case.requests);
        Cost {
            allocations: each(before.allocations, after.allocations),
            reallocations: each(before.reallocations, after.reallocations),
            bytes: each(before.bytes_allocated, after.bytes_allocated) + grown,
        }
    });
    let asked = |cost: &Cost| cost.allocations + cost.reallocations;
    let fewest = costs.min_by(|a, b| asked(a).total_cmp(&asked(b))).expect("there is a round");
    server.stop();
    fewest
}

/// The process with the clients and the backend.
struct OtherSide {
    process: Child,
    input: ChildStdin,
    output: BufReader<ChildStdout>,
    /// Where the backend listens.
    backend: SocketAddr,
}

impl OtherSide {
    fn start(certificate: &Certificate) -> Self {
        let program = std::env::current_exe().expect("this program is a file");
        let mut command = Command::new(program);
        command.args([OTHER_SIDE]).env("CERTIFICATE", certificate.path());
        let mut process = command.stdin(Stdio::piped()).stdout(Stdio::piped()).spawn().expect("it ran just now");
        let input = process.stdin.take().expect("it is piped");
        let output = BufReader::new(process.stdout.take().expect("it is piped"));
        let mut other = OtherSide { process, input, output, backend: SocketAddr::from(([127, 0, 0, 1], 0)) };
        other.backend = other.hear().parse().expect("it begins with its address");
        other
    }

    fn say(&mut self, line: &str) {
        writeln!(self.input, "{line}").expect("it listens");
    }

    fn hear(&mut self) -> String {
        let mut line = String::new();
        self.output.read_line(&mut line).expect("it speaks");
        line.trim_end().to_owned()
    }

    fn expect(&mut self, word: &str) {
        let heard = self.hear();
        assert_eq!(heard, word, "the other side failed");
    }

    fn end(self) {
        let OtherSide { mut process, input, .. } = self;
        drop(input);
        process.wait().expect("it ends with its input");
    }
}

/// The clients and the backend: says where the backend is, then does the case of each line, until there is no more.
fn other_side() {
    println!("{}", backend::start());
    let mut lines = std::io::stdin().lines().map(|line| line.expect("lines are text"));
    while let Some(line) = lines.next() {
        let words: Vec<&str> = line.splitn(3, ' ').collect();
        let [plain, tls, name] = words[..] else { panic!("two addresses and a case: {line}") };
        let case = CASES.iter().find(|case| case.name == name).expect("both sides know the cases");
        let [plain, tls] = [plain, tls].map(|address| address.parse().expect("an address"));
        let mut client = clients::connect(case, plain, tls);
        // A bucket that is still full lets the first one in.
        client.ask(cases::WARM_UP, None);
        println!("warm");
        lines.next().expect("the word to go");
        client.ask(case.requests, Some(case.status));
        println!("done");
    }
}
