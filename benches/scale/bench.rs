//! The measuring.

use std::fmt;
use std::fs::Permissions;
use std::io::Write as _;
use std::os::unix::fs::PermissionsExt;
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::Duration;

use nix::sys::resource::{Resource, getrlimit, setrlimit};
use tempfile::TempDir;

use crate::load::{Place, Wrk};
use crate::options::Options;
use crate::process::Cores;
use crate::shapes::{Dimension, Shape};
use crate::stop::{Fallible, Stop};
use crate::tollgate::{Backends, FILES, Setting, Tollgate};

/// What all measurements share.
pub(crate) struct Bench {
    pub(crate) stop: Arc<Stop>,
    /// The core of what is measured.
    pub(crate) core: Cores,
    pub(crate) program: PathBuf,
    pub(crate) backends: Backends,
    pub(crate) directory: TempDir,
    /// The most connections that can ask at a time: each needs two files, and some are needed for the rest.
    pub(crate) most_connections: usize,
    place: Place,
    rounds: usize,
    seconds: u64,
}

/// Microseconds of CPU for each request, one for each round.
#[derive(Clone, Debug, Default)]
pub(crate) struct Cost(Vec<f64>);

impl fmt::Display for Cost {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let mut sorted = self.0.clone();
        sorted.sort_by(f64::total_cmp);
        let [Some(least), Some(most)] = [sorted.first(), sorted.last()] else { return f.write_str("–") };
        write!(f, "{:.1} ({least:.1}–{most:.1})", sorted[sorted.len() / 2])
    }
}

impl Bench {
    /// Starts the backends.
    ///
    /// # Errors
    ///
    /// When there are too few cores, or nginx or a directory cannot be had.
    pub(crate) fn new(options: &Options) -> Fallible<Self> {
        let files = raise_files()?;
        let stop = Stop::on_signals()?;
        // nginx's workers are another user, who has to reach what they serve.
        let everybody = Permissions::from_mode(0o755);
        let directory = tempfile::Builder::new().prefix("tollgate-scale").permissions(everybody).tempdir()?;
        let (others, core) = Cores::allowed()?.split_last(1)?;
        let backends = Backends::start(&others, &directory.path().join("backends"), &stop)?;
        let place = Place { cores: others, directory: directory.path().to_owned() };
        let Options { rounds, seconds, tollgate, .. } = options.clone();
        let most_connections = files.saturating_sub(1_000) / 2;
        Ok(Bench { stop, core, program: tollgate, backends, directory, most_connections, place, rounds, seconds })
    }

    /// What a request costs in each of `shapes`.
    ///
    /// # Errors
    ///
    /// When one does not start, fails requests, or a signal came.
    pub(crate) fn costs(&self, shapes: &[Shape]) -> Fallible<Vec<Cost>> {
        let started = shapes.iter().enumerate().map(|(number, shape)| {
            let directory = self.directory.path().join(format!("{}{number}", shape.dimension.name()));
            let database = self.clients(shape, &directory)?;
            self.tollgate(shape, &directory, database.as_deref(), false)
        });
        let proxies = started.collect::<Fallible<Vec<_>>>()?;
        let mut costs = vec![Cost::default(); shapes.len()];
        for (proxy, shape) in proxies.iter().zip(shapes) {
            // Connections to all backends are made, and the code is warm. Thousands of connections take their time.
            self.round(proxy, shape, if shape.connections() > 1_000 { 5 } else { 1 })?;
        }
        for round in 0..self.rounds {
            for turn in 0..shapes.len() {
                let who = (turn + round) % shapes.len();
                costs[who].0.push(self.round(&proxies[who], &shapes[who], self.seconds)?);
            }
        }
        Ok(costs)
    }

    fn round(&self, proxy: &Tollgate, shape: &Shape, seconds: u64) -> Fallible<f64> {
        let wrk = Wrk { connections: shape.connections(), seconds, script: shape.script() };
        let before = proxy.process.cpu()?;
        let measured = wrk.run(&self.stop, &self.place, &format!("http://{}/", proxy.address))?;
        let cpu = proxy.process.cpu()?.saturating_sub(before);
        if measured.refused > 0 || measured.requests == 0 {
            let (refused, requests) = (measured.refused, measured.requests);
            return Err(proxy.process.said(&format!("refused {refused} of {requests} requests")));
        }
        Ok(cpu.as_secs_f64() * 1e6 / measured.requests as f64)
    }

    /// Starts what a shape asks for.
    pub(crate) fn tollgate(
        &self,
        shape: &Shape,
        directory: &Path,
        database: Option<&Path>,
        checks: bool,
    ) -> Fallible<Tollgate> {
        let rest = self.rest(shape, checks, 1);
        Tollgate::start(&self.program, &self.core, directory, &Setting { rest: &rest, database }, &self.stop)
    }

    /// The rest of a shape's configuration. Nobody is refused.
    pub(crate) fn rest(&self, shape: &Shape, checks: bool, edition: usize) -> String {
        let limits =
            "access_log: {path: null}\nrate_limit: {default: {capacity: 1000000000, rate_per_sec: 1000000000}}\n";
        limits.to_owned() + &shape.configuration(self.backends.port, checks, edition)
    }

    /// Makes a database with the clients of a shape that is about clients, by one bulk apply.
    pub(crate) fn clients(&self, shape: &Shape, directory: &Path) -> Fallible<Option<PathBuf>> {
        if shape.dimension != Dimension::Clients {
            return Ok(None);
        }
        std::fs::create_dir_all(directory)?;
        let (path, list) = (directory.join("clients.db"), directory.join("clients.ndjson"));
        let mut lines = std::io::BufWriter::new(std::fs::File::create(&list)?);
        for number in 0..shape.count {
            writeln!(lines, r#"{{"client_id":"key-{number:07}","capacity":1000000000,"rate_per_sec":1000000000}}"#)?;
        }
        lines.flush()?;
        let tollgate = self.tollgate(shape, directory, Some(&path), false)?;
        let request = ureq::put(format!("http://{}/clients", tollgate.admin));
        let request = request.config().timeout_global(Some(Duration::from_secs(300))).build();
        request.content_type("application/x-ndjson").send(std::fs::File::open(&list)?)?;
        tollgate.process.terminate(&self.stop, Duration::from_secs(60))?;
        std::fs::remove_file(list)?;
        Ok(Some(path))
    }
}

/// Lets this process and those that it starts open as many files as they may; how many that is.
fn raise_files() -> Fallible<usize> {
    let (soft, hard) = getrlimit(Resource::RLIMIT_NOFILE)?;
    // Only root may raise the hard limit.
    if soft < FILES && setrlimit(Resource::RLIMIT_NOFILE, FILES, hard.max(FILES)).is_err() {
        setrlimit(Resource::RLIMIT_NOFILE, hard, hard)?;
    }
    Ok(usize::try_from(getrlimit(Resource::RLIMIT_NOFILE)?.0)?)
}
