//! Loads: wrk and h2load, each on cores of its own, and what they measured.
//!
//! wrk and h2load without `--rps` are closed loops: a connection asks again as soon as it has its answer, so the proxy
//! is saturated and the times are those of a queue as long as there are connections. With `--rps` requests go out at a
//! fixed rate, below saturation.

use std::fmt::Write as _;
use std::path::PathBuf;
use std::time::Duration;

use bytes::Bytes;

use crate::parse::{self, Measured};
use crate::process::{Cores, Launch};
use crate::stop::{Fallible, Stop};

/// What wrk's own script writes at the end: the line that [`parse::measured`] reads.
const DONE: &str = include_str!("conf/done.lua");

/// Where loads run and leave their files.
#[derive(Clone, Debug)]
pub(crate) struct Place {
    /// The cores of the load.
    pub(crate) cores: Cores,
    /// A directory for scripts, logs and outputs; one load at a time uses it.
    pub(crate) directory: PathBuf,
}

/// A load by wrk.
#[derive(Clone, Debug)]
pub(crate) struct Wrk {
    /// How many connections at a time.
    pub(crate) connections: usize,
    /// How long, in whole seconds.
    pub(crate) seconds: u64,
    /// Lua that goes before the script's end, empty for a plain GET.
    pub(crate) script: String,
}

impl Wrk {
    /// Runs it against `url`.
    ///
    /// # Errors
    ///
    /// When wrk fails, or says what cannot be read.
    pub(crate) fn run(&self, stop: &Stop, place: &Place, url: &str) -> Fallible<Measured> {
        let (script, said) = (place.directory.join("wrk.lua"), place.directory.join("wrk.out"));
        std::fs::write(&script, format!("{}\n{DONE}", self.script))?;
        let threads = place.cores.count().min(2).min(self.connections);
        let launch = Launch::new("wrk", &place.cores, place.directory.join("wrk.err"))
            .arg(format!("-t{threads}"))
            .arg(format!("-c{}", self.connections))
            .arg(format!("-d{}s", self.seconds))
            .arg("-s")
            .arg(&script)
            .stdout(&said);
        // wrk waits for its connections, whatever they do.
        launch.arg(url).finish(stop, Duration::from_secs(self.seconds + 60))?;
        let said = std::fs::read_to_string(&said)?;
        parse::measured(&said).ok_or_else(|| format!("wrk said what cannot be read:\n{said}").into())
    }
}

/// A load by h2load.
#[derive(Clone, Debug)]
pub(crate) struct H2load {
    /// How many connections at a time.
    pub(crate) connections: usize,
    /// How many streams at a time on each; 1 for HTTP/1.1.
    pub(crate) streams: usize,
    /// Whether HTTP/1.1 is spoken instead of HTTP/2.
    pub(crate) http1: bool,
    /// Requests a second in all; none is as fast as answers come.
    pub(crate) rate: Option<usize>,
    /// How long.
    pub(crate) seconds: u64,
    /// What is posted; a `GET` where that is nothing.
    pub(crate) body: Bytes,
    /// Whether these are calls of gRPC, which come back as they were sent.
    pub(crate) calls: bool,
}

impl H2load {
    /// Runs it against `url`.
    ///
    /// # Errors
    ///
    /// When h2load fails, or says what cannot be read.
    pub(crate) fn run(&self, stop: &Stop, place: &Place, url: &str) -> Fallible<Measured> {
        let (log, said) = (place.directory.join("h2load.log"), place.directory.join("h2load.out"));
        // It appends.
        let _ = std::fs::remove_file(&log);
        let mut arguments = String::new();
        let threads = place.cores.count().min(2).min(self.connections);
        write!(arguments, "-t{threads} -c{} -m{} -D{}", self.connections, self.streams, self.seconds)?;
        if self.http1 {
            write!(arguments, " --h1")?;
        }
        if let Some(rate) = self.rate {
            write!(arguments, " --rps={}", rate as f64 / self.connections as f64)?;
        }
        if !self.body.is_empty() {
            let body = place.directory.join("h2load.body");
            std::fs::write(&body, &self.body)?;
            write!(arguments, " -d {}", body.display())?;
        }
        if self.calls {
            write!(arguments, " -Hte:trailers -Hcontent-type:application/grpc")?;
        }
        Launch::new("h2load", &place.cores, place.directory.join("h2load.err"))
            .args(arguments.split(' '))
            .arg(format!("--log-file={}", log.display()))
            .arg(url)
            .stdout(&said)
            .finish(stop, Duration::from_secs(self.seconds + 60))?;
        let said = std::fs::read_to_string(&said)?;
        let log = std::fs::read_to_string(&log).unwrap_or_default();
        let unreadable = || format!("h2load said what cannot be read:\n{said}");
        let mut measured = parse::h2load(&said, &log).ok_or_else(unreadable)?;
        if self.calls {
            // A call that fails has no message in its answer, and the status 200.
            let came = parse::h2load_data(&said).ok_or_else(unreadable)? / self.body.len() as u64;
            measured.failed += measured.requests.saturating_sub(came);
        }
        Ok(measured)
    }
}
