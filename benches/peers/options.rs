//! The command line.

use std::path::PathBuf;

use crate::stop::Fallible;

/// The most connections that may be asked for: a proxy has as many again to its backends, and its share of descriptors.
const MOST_ASKED_FOR: u64 = 8_000;

/// What `--help` says.
pub(crate) const HELP: &str = "\
tollgate beside nginx and HAProxy: the same load on each in turns, and what it costs.

cargo bench --bench peers -- [OPTIONS]

  --quick            short rounds, and 100,000 known clients instead of a million; nothing is written
  --check            nginx and tollgate only: fails when a ratio is worse than in benches/peers/figures.json by over 10 %
  --write            writes benches/peers/figures.json, and the section of docs/benchmarks.md
  --only CASE        this case only; repeatable
  --rounds N         rounds of each case (default 7; quick 2; check 3)
  --seconds S        seconds of each round (default 3; quick 1; check 2)
  --tollgate PATH    this binary of tollgate, instead of the one just built
  --against PATH     a second binary of tollgate, to compare with
  --connections N    so many connections in each case, up to 8000, instead of its own; nothing is written or checked
  --verbose          tells of each round
  --without NAME     leaves out haproxy or nginx; without nginx there are no ratios to it; repeatable
";

/// What is asked for.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(crate) struct Options {
    /// Short rounds.
    pub(crate) quick: bool,
    /// Compare with the committed figures.
    pub(crate) check: bool,
    /// Write the figures down.
    pub(crate) write: bool,
    /// Tell of each round.
    pub(crate) verbose: bool,
    /// Only these cases; all when empty.
    pub(crate) only: Vec<String>,
    /// How many rounds.
    pub(crate) rounds: Option<usize>,
    /// How many seconds a round.
    pub(crate) seconds: Option<u64>,
    /// How many connections, instead of the case's own.
    pub(crate) connections: Option<usize>,
    /// Another binary of tollgate.
    pub(crate) tollgate: Option<PathBuf>,
    /// A second one.
    pub(crate) against: Option<PathBuf>,
    /// Contenders that are left out.
    pub(crate) without: Vec<String>,
}

impl Options {
    /// Reads the arguments; nothing when help is asked for.
    ///
    /// # Errors
    ///
    /// When one is unknown, or lacks its value, or that is wrong.
    pub(crate) fn parse(arguments: impl IntoIterator<Item = String>) -> Fallible<Option<Self>> {
        let mut options = Options::default();
        let mut arguments = arguments.into_iter();
        while let Some(argument) = arguments.next() {
            let mut value = || arguments.next().ok_or_else(|| format!("{argument} needs a value"));
            match argument.as_str() {
                // What cargo itself passes on.
                "--bench" => (),
                "--help" | "-h" => return Ok(None),
                "--quick" => options.quick = true,
                "--check" => options.check = true,
                "--write" => options.write = true,
                "--verbose" => options.verbose = true,
                "--only" => options.only.push(value()?),
                "--rounds" => options.rounds = Some(whole(&argument, &value()?, 1000)? as usize),
                "--seconds" => options.seconds = Some(whole(&argument, &value()?, 1000)?),
                "--connections" => options.connections = Some(whole(&argument, &value()?, MOST_ASKED_FOR)? as usize),
                "--tollgate" => options.tollgate = Some(value()?.into()),
                "--against" => options.against = Some(value()?.into()),
                "--without" => options.without.push(value()?),
                _ => return Err(format!("{argument} is unknown; --help tells what is not").into()),
            }
        }
        if options.connections.is_some() && (options.write || options.check) {
            return Err("--connections: figures on record are of the cases' own".into());
        }
        let partial = options.quick || options.check || options.against.is_some();
        if options.write && (partial || !options.only.is_empty() || !options.without.is_empty()) {
            return Err(
                "--write keeps what a full run finds: it goes with --rounds, --seconds and --tollgate only".into()
            );
        }
        Ok(Some(options))
    }

    /// How many rounds.
    pub(crate) fn rounds(&self) -> usize {
        self.rounds.unwrap_or(if self.quick {
            2
        } else if self.check {
            3
        } else {
            7
        })
    }

    /// How many seconds a round.
    pub(crate) fn seconds(&self) -> u64 {
        self.seconds.unwrap_or(if self.quick {
            1
        } else if self.check {
            2
        } else {
            3
        })
    }
}

fn whole(name: &str, value: &str, most: u64) -> Fallible<u64> {
    match value.parse() {
        Ok(number) if (1..=most).contains(&number) => Ok(number),
        _ => Err(format!("{name} {value}: a whole number from 1 to {most} is needed").into()),
    }
}
