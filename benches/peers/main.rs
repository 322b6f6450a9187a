//! tollgate beside nginx and HAProxy: the same load on each in turns, and what a request costs.
//!
//! `cargo bench --bench peers -- --help` tells the options; `make bench`, `make bench-quick` and `make bench-check` are
//! the common ones. The proxies are configured by the files in `conf/`, and what they cost is their own processor time
//! as the kernel counts it, since that is what a proxy's owner pays, and since it hardly depends on the load generator.
//! Requests a second are those of a proxy that has its cores for itself.

mod address;
mod bench;
mod calls;
mod case;
mod check;
mod clients;
mod connect;
mod contender;
mod document;
mod figures;
mod idle;
mod introduced;
mod load;
mod machine;
mod messages;
mod options;
mod parse;
mod process;
mod record;
mod report;
mod stop;
mod template;

use std::collections::BTreeMap;
use std::fs::Permissions;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::process::ExitCode;

use bench::Bench;
use case::{CASES, Case, Speech};
use contender::{Contender, Kind};
use figures::{Figures, Round};
use machine::Machine;
use nix::sys::resource::{Resource, getrlimit, setrlimit};
use options::Options;
use process::Cores;
use record::{Record, Results};
use report::Scaling;
use stop::{Fallible, Stop};

const NO_BACKEND: &str = "nginx is missing, which is also the backend, so nothing can be measured; \
                          benches/peers/setup.sh installs it";

fn main() -> ExitCode {
    let arguments: Vec<_> = std::env::args().skip(1).collect();
    let done = match arguments.split_first() {
        Some((first, rest)) if first == connect::ARGUMENT => connect::load(rest),
        Some((first, rest)) if first == messages::ARGUMENT => messages::load(rest),
        Some((first, rest)) if first == messages::BACKEND => messages::serve(rest),
        Some((first, rest)) if first == calls::ARGUMENT => calls::load(rest),
        Some((first, rest)) if first == calls::BACKEND => calls::serve(rest),
        Some((first, rest)) if first == introduced::ARGUMENT => introduced::load(rest),
        _ => run(arguments),
    };
    match done {
        Ok(()) => ExitCode::SUCCESS,
        Err(error) => {
            eprintln!("peers: {error}");
            ExitCode::FAILURE
        }
    }
}

fn run(arguments: Vec<String>) -> Fallible<()> {
    let Some(options) = Options::parse(arguments)? else {
        print!("{}", options::HELP);
        return Ok(());
    };
    let backend = machine::find("nginx").ok_or(NO_BACKEND)?;
    let record = options.check.then(Record::read).transpose()?;
    let stop = Stop::on_signals()?;
    // nginx's workers are another user, who has to reach what they serve.
    let everybody = Permissions::from_mode(0o755);
    let directory = tempfile::Builder::new().prefix("tollgate-peers").permissions(everybody).tempdir()?;
    connect::certificate(directory.path())?;
    let bench = Bench {
        stop,
        cores: Cores::allowed()?,
        contenders: contenders(&options),
        backend,
        directory: directory.path().to_owned(),
        seconds: options.seconds(),
        verbose: options.verbose,
        files: raise_files()?,
        clients: if options.quick { 100_000 } else { 1_000_000 },
    };
    if !bench.contenders.iter().any(|contender| contender.kind == Kind::Tollgate) {
        return Err("there is no tollgate to measure".into());
    }
    let machine = Machine::this(&bench.cores, &bench.contenders);
    println!("{}, {}, {}\n{}", machine.processor, machine.memory, machine.kernel, machine.versions.join(", "));
    if options.quick {
        println!("Short rounds; the case of known clients has {} of them.", bench.clients);
    }
    if let Some(connections) = options.connections {
        println!("Every case has {connections} connections, whatever its title says.");
    }
    let rounds = options.rounds();
    let (mut results, mut left_out, mut verdicts) = (Results::new(), BTreeMap::new(), Vec::new());
    for case in cases(&options)? {
        if let Some(why) = case
            .too_few(bench.cores.count())
            .or_else(|| without_tool(&case))
            .or_else(|| without_http2(&case, &bench.contenders))
        {
            eprintln!("peers: {} is left out: {why}", case.name);
            left_out.insert(case.name.to_owned(), why);
            continue;
        }
        let measured = bench.run(&case, rounds).map_err(|error| format!("{}: {error}", case.name))?;
        let figures = compare(&bench.contenders, &measured);
        print!("{}{}", report::case(&case, &bench.contenders, &figures), against(&bench.contenders, &measured));
        for (name, _) in figures.iter().filter(|(_, figures)| case.is_spoilt(figures)) {
            eprintln!("peers: {}: {name} did not do what it should; its figures are not to be trusted", case.name);
        }
        results.insert(case.name.to_owned(), figures);
        if let Some(record) = &record {
            verdicts.extend(check::judge(&bench, &case, rounds, &measured, record)?);
        }
    }
    if results.is_empty() {
        return Err("nothing was measured: all cases are left out".into());
    }
    for Scaling { title, rate, cost } in report::scaling(&results) {
        println!("{title}: two cores answer {rate:.2} times what one does; by CPU time {cost:.2} times");
    }
    if options.write {
        let record = Record { machine, rounds: (rounds, bench.seconds), cases: results, left_out };
        record.write()?;
        document::write(&record)?;
    }
    if record.is_some() { check::conclude(&verdicts) } else { Ok(()) }
}

/// Why a case is left out whose load nothing makes here.
fn without_tool(case: &Case) -> Option<String> {
    let missing = case.work.tool().filter(|tool| machine::find(tool).is_none())?;
    Some(format!("{missing} is missing; benches/peers/setup.sh installs it"))
}

/// Why a case is left out in which nginx does not speak HTTP/2 to the backend, which it does since 1.29.4.
fn without_http2(case: &Case, contenders: &[Contender]) -> Option<String> {
    let nginx = contenders.iter().find(|contender| contender.kind == Kind::Nginx)?;
    let is_old = parse::release(&nginx.version).is_none_or(|release| release < (1, 30));
    (case.work.speech() == Speech::Http2 && is_old)
        .then(|| format!("it needs nginx 1.30 or newer, and this is {}", nginx.version))
}

/// The figures of a case, by contender.
fn compare(contenders: &[Contender], measured: &[Vec<Round>]) -> BTreeMap<String, Figures> {
    let rounds_of = |kind| {
        let place = contenders.iter().position(|contender| contender.kind == kind)?;
        Some(measured[place].as_slice())
    };
    let (nginx, haproxy) = (rounds_of(Kind::Nginx), rounds_of(Kind::Haproxy));
    let figures = |(contender, rounds): (&Contender, &Vec<Round>)| {
        let haproxy = haproxy.filter(|_| contender.kind == Kind::Tollgate);
        let haproxy_ratio = haproxy.and_then(|haproxy| Figures::of(rounds, Some(haproxy)).ratio);
        (contender.name.clone(), Figures { haproxy_ratio, ..Figures::of(rounds, nginx) })
    };
    contenders.iter().zip(measured).map(figures).collect()
}

/// A line with the ratio of the first tollgate to the second, if there are two.
fn against(contenders: &[Contender], measured: &[Vec<Round>]) -> String {
    let rounds = |name| contenders.iter().position(|contender| contender.name == name).map(|place| &measured[place]);
    match (rounds("tollgate"), rounds("against")) {
        (Some(own), Some(other)) => {
            format!("  tollgate ÷ against {}\n", report::range(Figures::of(own, Some(other)).ratio))
        }
        _ => String::new(),
    }
}

fn cases(options: &Options) -> Fallible<Vec<Case>> {
    let names: Vec<_> = CASES.iter().map(|case| case.name).collect();
    if let Some(unknown) = options.only.iter().find(|name| !names.contains(&name.as_str())) {
        return Err(format!("--only {unknown}: there are {}", names.join(", ")).into());
    }
    let wanted = |case: &&Case| options.only.is_empty() || options.only.iter().any(|name| name == case.name);
    let with = |case: Case| Case { connections: options.connections.unwrap_or(case.connections), ..case };
    Ok(CASES.iter().filter(wanted).copied().map(with).collect())
}

/// Who takes part: nginx first. Whoever is missing is named.
fn contenders(options: &Options) -> Vec<Contender> {
    let built = Path::new(env!("CARGO_BIN_EXE_tollgate"));
    let peer = |name| machine::find(name).unwrap_or_else(|| PathBuf::from(name));
    let mut wanted = vec![("nginx", Kind::Nginx, peer("nginx"))];
    if !options.check {
        wanted.push(("haproxy", Kind::Haproxy, peer("haproxy")));
    }
    wanted.push(("tollgate", Kind::Tollgate, options.tollgate.clone().unwrap_or_else(|| built.to_owned())));
    wanted.extend(options.against.clone().map(|path| ("against", Kind::Tollgate, path)));
    wanted.retain(|(name, _, _)| !options.without.iter().any(|without| without == name));
    let found = wanted.into_iter().filter_map(|(name, kind, program)| {
        Contender::find(name, kind, &program).inspect_err(|why| eprintln!("peers: {why}")).ok()
    });
    found.collect()
}

/// Lets this process and its children open as many files as it may: idle connections need one each, on both sides.
fn raise_files() -> Fallible<u64> {
    const WANTED: u64 = 65_536;
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Only root may raise the hard limit.
    if soft < WANTED && setrlimit(Resource::RLIMIT_NOFILE, WANTED, hard.max(WANTED)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(getrlimit(Resource::RLIMIT_NOFILE)?.0)
}
