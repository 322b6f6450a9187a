//! Processes that the benchmark starts: pinned to cores, measured through `/proc`, and never left behind.
//!
//! Each is the leader of a process group, so that nginx's workers belong to it, and Ctrl-C reaches the benchmark alone,
//! which then ends them all. When the benchmark itself is killed, the kernel ends each leader (`setpriv --pdeathsig`):
//! with SIGTERM, as nginx's master takes its workers along then, and would leave them behind if it were killed.

use std::ffi::{OsStr, OsString};
use std::fmt;
use std::fs::File;
use std::os::unix::process::CommandExt;
use std::path::{Path, PathBuf};
use std::process::{Child, Command, ExitStatus, Stdio};
use std::time::Duration;

use nix::sys::signal::{Signal, killpg};
use nix::unistd::Pid;

use crate::parse;
use crate::stop::{Fallible, Stop};

/// A set of cores, by number. Never empty.
#[derive(Clone, Debug, PartialEq, Eq)]
pub(crate) struct Cores(Vec<usize>);

impl Cores {
    /// The cores that this process may run on.
    ///
    /// # Errors
    ///
    /// When `/proc` does not tell.
    pub(crate) fn allowed() -> Fallible<Self> {
        let status = std::fs::read_to_string("/proc/self/status")?;
        let list = parse::field(&status, "Cpus_allowed_list").ok_or("/proc/self/status has no Cpus_allowed_list")?;
        Ok(Cores(parse::cores(list).ok_or_else(|| format!("Cpus_allowed_list is {list:?}"))?))
    }

    /// These without the last `count`, and the last `count`.
    ///
    /// # Errors
    ///
    /// When nothing would be left for the first.
    pub(crate) fn split_last(&self, count: usize) -> Fallible<(Cores, Cores)> {
        if count >= self.0.len() {
            return Err(format!("{count} cores for the proxy and one for the load: there are {}", self.0.len()).into());
        }
        let (first, last) = self.0.split_at(self.0.len() - count);
        Ok((Cores(first.to_vec()), Cores(last.to_vec())))
    }

    /// The first `count` of these, or all.
    pub(crate) fn first(&self, count: usize) -> Cores {
        Cores(self.0.iter().copied().take(count.max(1)).collect())
    }

    /// How many these are.
    pub(crate) fn count(&self) -> usize {
        self.0.len()
    }

    /// One mask of bits for each core, the lowest core last, as nginx's `worker_cpu_affinity` takes them.
    pub(crate) fn masks(&self) -> String {
        let masks: Vec<_> = self.0.iter().map(|core| format!("1{}", "0".repeat(*core))).collect();
        masks.join(" ")
    }
}

/// As `taskset -c` takes it: `0,1,2`.
impl fmt::Display for Cores {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        for (place, core) in self.0.iter().enumerate() {
            write!(f, "{}{core}", if place == 0 { "" } else { "," })?;
        }
        Ok(())
    }
}

/// A command to be run on some cores.
#[derive(Debug)]
pub(crate) struct Launch {
    program: PathBuf,
    cores: Cores,
    arguments: Vec<OsString>,
    stdout: Option<PathBuf>,
    stderr: PathBuf,
}

impl Launch {
    /// `program`, pinned to `cores`; what it says on standard error goes to the file `stderr`.
    pub(crate) fn new(program: impl Into<PathBuf>, cores: &Cores, stderr: impl Into<PathBuf>) -> Self {
        Launch {
            program: program.into(),
            cores: cores.clone(),
            arguments: Vec::new(),
            stdout: None,
            stderr: stderr.into(),
        }
    }

    /// With one more argument.
    pub(crate) fn arg(mut self, argument: impl AsRef<OsStr>) -> Self {
        self.arguments.push(argument.as_ref().to_owned());
        self
    }

    /// With more arguments.
    pub(crate) fn args<A: AsRef<OsStr>>(mut self, arguments: impl IntoIterator<Item = A>) -> Self {
        self.arguments.extend(arguments.into_iter().map(|argument| argument.as_ref().to_owned()));
        self
    }

    /// With standard output in this file, else it goes nowhere.
    pub(crate) fn stdout(mut self, path: impl Into<PathBuf>) -> Self {
        self.stdout = Some(path.into());
        self
    }

    /// Starts it. The thread that calls this has to live as long as the process: the kernel ends the process with it.
    ///
    /// # Errors
    ///
    /// When `setpriv`, `taskset` or the program cannot be started, or a file of its output not be made.
    pub(crate) fn start(self) -> Fallible<Process> {
        let stdout = match &self.stdout {
            Some(path) => Stdio::from(File::create(path)?),
            None => Stdio::null(),
        };
        let child = Command::new("setpriv")
            .args(["--pdeathsig", "TERM", "taskset", "-c"])
            .arg(self.cores.to_string())
            .arg(&self.program)
            .args(&self.arguments)
            .stdin(Stdio::null())
            .stdout(stdout)
            .stderr(File::create(&self.stderr)?)
            .process_group(0)
            .spawn()
            .map_err(|error| format!("setpriv, which starts {}: {error}", self.program.display()))?;
        Ok(Process { child, stderr: self.stderr, program: self.program })
    }

    /// Runs it to its end.
    ///
    /// # Errors
    ///
    /// As [`start`](Launch::start); when it fails, with what it said, or takes longer than `time`.
    pub(crate) fn finish(self, stop: &Stop, time: Duration) -> Fallible<()> {
        let mut process = self.start()?;
        let what = format!("the end of {}", process.program.display());
        let status = stop.until(&what, time, || process.ended())?;
        if status.success() { Ok(()) } else { Err(process.said(&format!("failed with {status}"))) }
    }
}

/// A running process and all of its group. Dropping it kills them.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    program: PathBuf,
    stderr: PathBuf,
}

impl Process {
    /// How it ended, if it has.
    ///
    /// # Errors
    ///
    /// When the system does not tell.
    pub(crate) fn ended(&mut self) -> Fallible<Option<ExitStatus>> {
        Ok(self.child.try_wait()?)
    }

    /// An error that names the program, `what` happened, and what it said itself.
    pub(crate) fn said(&self, what: &str) -> Box<dyn std::error::Error + Send + Sync> {
        let said = std::fs::read_to_string(&self.stderr).unwrap_or_default();
        let lines: Vec<_> = said.lines().collect();
        let last = lines[lines.len().saturating_sub(10)..].join("\n  ");
        format!("{} {what}\n  {last}", self.program.display()).into()
    }

    /// The processor time of the whole group so far, user and system, in steps of the kernel's tick of 10 ms.
    ///
    /// # Errors
    ///
    /// When `/proc` does not tell, as when it has ended.
    pub(crate) fn cpu(&self) -> Fallible<Duration> {
        let ticks: u64 = self.stats()?.iter().map(|stat| stat.ticks).sum();
        // The kernel reports in units of 1/100 s on every platform that Rust has a Linux target for.
        Ok(Duration::from_millis(ticks * 10))
    }

    /// The resident memory of the whole group, in bytes. Memory that processes share counts for each of them.
    ///
    /// # Errors
    ///
    /// When `/proc` does not tell, as when it has ended.
    pub(crate) fn resident(&self) -> Fallible<u64> {
        let mut bytes = 0;
        for stat in self.stats()? {
            let status = std::fs::read_to_string(format!("/proc/{}/status", stat.pid))?;
            let kib =
                parse::field(&status, "VmRSS").and_then(|value| value.trim_end_matches(" kB").parse::<u64>().ok());
            bytes += kib.unwrap_or(0) * 1024;
        }
        Ok(bytes)
    }

    /// Kills the whole group at once and waits for its leader.
    pub(crate) fn kill(&mut self) {
        self.signal(Signal::SIGKILL);
        // It cannot resist.
        let _ = self.child.wait();
    }

    /// Asks the leader to stop and waits for it, at most `time`; then kills the group.
    ///
    /// # Errors
    ///
    /// When it had to be killed, or a signal came meanwhile.
    pub(crate) fn terminate(mut self, stop: &Stop, time: Duration) -> Fallible<()> {
        self.signal(Signal::SIGTERM);
        let what = format!("{} to stop", self.program.display());
        stop.until(&what, time, || self.ended()).map(drop)
    }

    fn signal(&self, signal: Signal) {
        if let Ok(group) = i32::try_from(self.child.id()) {
            // It may have ended already.
            let _ = killpg(Pid::from_raw(group), signal);
        }
    }

    fn stats(&self) -> Fallible<Vec<parse::Stat>> {
        let group = self.child.id();
        let mut stats = Vec::new();
        for entry in std::fs::read_dir("/proc")? {
            let name = entry?.file_name();
            if name.to_str().is_none_or(|name| name.parse::<u32>().is_err()) {
                continue;
            }
            // Any process of the machine may end while we look.
            let text = std::fs::read_to_string(Path::new("/proc").join(name).join("stat")).unwrap_or_default();
            stats.extend(parse::stat(&text).filter(|stat| stat.group == group));
        }
        if stats.is_empty() { Err(self.said("has ended")) } else { Ok(stats) }
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}
