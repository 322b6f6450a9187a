//! One tollgate and the nginx behind it.

use std::fmt::Write as _;
use std::net::SocketAddr;
use std::path::{Path, PathBuf};
use std::time::Duration;

use crate::address;
use crate::process::{Cores, Launch, Process};
use crate::stop::{Fallible, Stop, now};
use crate::template::fill;

/// How many files a process may open at the most here.
pub(crate) const FILES: u64 = 65_536;

/// What of a configuration is not the same everywhere.
#[derive(Clone, Debug)]
pub(crate) struct Setting<'a> {
    /// The keys of the file beside listeners, admin and Pingora's.
    pub(crate) rest: &'a str,
    /// The path of the database; none keeps nothing.
    pub(crate) database: Option<&'a Path>,
}

/// A tollgate that runs.
#[derive(Debug)]
pub(crate) struct Tollgate {
    pub(crate) process: Process,
    /// Where it listens.
    pub(crate) address: SocketAddr,
    /// Its admin API.
    pub(crate) admin: SocketAddr,
    /// Its configuration.
    file: PathBuf,
    /// How long it took until it answered.
    pub(crate) started_in: Duration,
}

impl Tollgate {
    /// Starts `program` on `cores` with its files in `directory`, and waits until it answers.
    ///
    /// # Errors
    ///
    /// When it does not, with what it said.
    pub(crate) fn start(
        program: &Path,
        cores: &Cores,
        directory: &Path,
        setting: &Setting<'_>,
        stop: &Stop,
    ) -> Fallible<Self> {
        std::fs::create_dir_all(directory)?;
        let [address, admin] = address::free()?;
        let file = directory.join("tollgate.yaml");
        write(&file, directory, (address, admin), cores, setting)?;
        let launch = Launch::new(program, cores, directory.join("stderr")).args(["run", "-c"]).arg(&file);
        let started = now();
        let mut process = launch.start()?;
        let answered = stop.until("tollgate to answer", Duration::from_secs(120), || match process.ended()? {
            Some(status) => Err(process.said(&format!("ended with {status}"))),
            None => Ok(address::answers(address).then(|| started.elapsed())),
        });
        let started_in = answered.map_err(|error| process.said(&error.to_string()))?;
        Ok(Tollgate { process, address, admin, file, started_in })
    }

    /// Puts another configuration into force; how long that took.
    ///
    /// # Errors
    ///
    /// When it is refused.
    pub(crate) fn reload(&self, cores: &Cores, setting: &Setting<'_>) -> Fallible<Duration> {
        let directory = self.file.parent().ok_or("the file is in a directory")?;
        write(&self.file, directory, (self.address, self.admin), cores, setting)?;
        let started = now();
        let request = ureq::post(format!("http://{}/config/reload", self.admin));
        request.config().timeout_global(Some(Duration::from_secs(120))).build().send_empty()?;
        Ok(started.elapsed())
    }
}

fn write(
    file: &Path,
    directory: &Path,
    (address, admin): (SocketAddr, SocketAddr),
    cores: &Cores,
    Setting { rest, database }: &Setting<'_>,
) -> Fallible<()> {
    let mut text = format!("listeners: [{{address: \"{address}\"}}]\nadmin: {{address: \"{admin}\"}}\n");
    let database = database.map_or("null".to_owned(), |path| path.display().to_string());
    writeln!(text, "database: {database}\npingora:\n  threads: {}", cores.count())?;
    writeln!(
        text,
        "  upstream_keepalive_pool_size: 16384\n  pid_file: {0}/pid\n  upgrade_sock: {0}/sock",
        directory.display()
    )?;
    std::fs::write(file, text + rest)?;
    Ok(())
}

/// An nginx that answers on all of loopback.
#[derive(Debug)]
pub(crate) struct Backends {
    _process: Process,
    /// The port.
    pub(crate) port: u16,
}

impl Backends {
    /// Starts it on the first two of `cores`, with its files in `directory`.
    ///
    /// # Errors
    ///
    /// When it does not answer, with what it said.
    pub(crate) fn start(cores: &Cores, directory: &Path, stop: &Stop) -> Fallible<Self> {
        std::fs::create_dir_all(directory)?;
        let cores = cores.first(2);
        let [address] = address::free()?;
        let values = [
            ("workers", cores.count().to_string()),
            ("affinity", cores.masks()),
            ("files", FILES.to_string()),
            ("directory", directory.display().to_string()),
            ("address", format!("0.0.0.0:{}", address.port())),
        ];
        let file = directory.join("backend.conf");
        std::fs::write(&file, fill(include_str!("../peers/conf/backend.conf"), &values)?)?;
        let launch = Launch::new("nginx", &cores, directory.join("stderr"));
        let mut process = launch.arg("-p").arg(directory).arg("-c").arg(&file).start()?;
        stop.until("the backend to answer", Duration::from_secs(10), || match process.ended()? {
            Some(_) => Err(process.said("ended")),
            None => Ok(address::answers(address).then_some(())),
        })?;
        Ok(Backends { _process: process, port: address.port() })
    }
}
