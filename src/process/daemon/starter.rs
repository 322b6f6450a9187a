//! The starter's side.

use std::ffi::OsString;
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::net::UnixStream;
use std::os::unix::process::{CommandExt, ExitStatusExt};
use std::path::PathBuf;
use std::process::{Child, Command, ExitStatus, Stdio};

use rustix::process::{Pid, Signal, kill_process};
use tokio::io::{AsyncBufReadExt, BufReader, Lines};
use tokio::runtime::{Builder, Runtime};
use tokio::signal::unix::{SignalKind, signal};

use super::{Detached, Milestone, ORPHAN, PID};

/// A process in the background that was started and is watched until it is where it should be.
#[derive(Debug)]
pub struct Starter {
    child: Child,
    /// Its process id, where it is no child of ours.
    orphan: Option<u32>,
    /// How far it has told that it is.
    reached: Option<Milestone>,
    news: Lines<BufReader<tokio::net::UnixStream>>,
    // Dropped last: what it runs is above.
    runtime: Runtime,
}

/// Why a process in the background is not where it should be.
#[derive(Debug, thiserror::Error)]
pub enum Ended {
    /// It ended; it has told why itself.
    #[error("{}", outcome(.0))]
    Exited(ExitStatus),
    /// It ended, and was no child of ours; it has told why itself.
    #[error("the process in the background ended")]
    Gone,
    /// Somebody ended the starter while it served already, so it was left to itself.
    #[error("{0}: not waiting any longer; pid {1} serves")]
    Left(&'static str, u32),
    /// Somebody ended the starter, so it was ended, too.
    #[error("{0}: stopped before it was ready")]
    Interrupted(&'static str),
    /// It cannot be started or watched.
    #[error("cannot start a process in the background: {0}")]
    Failed(#[from] io::Error),
}

fn outcome(status: &ExitStatus) -> String {
    match (status.code(), status.signal()) {
        (Some(code), _) => format!("the process in the background ended with exit code {code}"),
        (None, signal) => format!("the process in the background was ended by signal {}", signal.unwrap_or_default()),
    }
}

impl Starter {
    /// Starts this program with `arguments` in the background. It keeps this process' standard error until it has
    /// reached `until`.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start(arguments: impl IntoIterator<Item = OsString>, until: Milestone) -> Result<Self, Ended> {
        Starter::start_with(arguments, until, false)
    }

    fn start_with(
        arguments: impl IntoIterator<Item = OsString>,
        until: Milestone,
        orphan: bool,
    ) -> Result<Self, Ended> {
        let (ours, theirs) = UnixStream::pair()?;
        let (name, word) = Detached::variable(until);
        let mut command = Command::new(program()?);
        command.args(arguments).env(name, word).stdin(Stdio::from(OwnedFd::from(theirs)));
        if orphan {
            command.env(ORPHAN, "1");
        } else {
            command.env_remove(ORPHAN);
        }
        if let Some(typed) = std::env::args_os().next() {
            command.arg0(typed);
        }
        let runtime = Builder::new_current_thread().enable_all().build()?;
        let child = command.spawn()?;
        // Its own end of the pair, which the command holds, must not keep the connection open.
        drop(command);
        ours.set_nonblocking(true)?;
        let news = {
            let _context = runtime.enter();
            BufReader::new(tokio::net::UnixStream::from_std(ours)?).lines()
        };
        Ok(Starter { child, orphan: None, reached: None, news, runtime })
    }

    /// The same as [`start`](Starter::start), but the process is no child of this one: it is started by another, which
    /// ends at once, so that whoever looks after processes whose parent is gone has it from the start. systemd would
    /// else take the new main process of a service for one that it cannot wait for, and kill it at a stop.
    ///
    /// # Errors
    /// When it cannot be started.
    pub fn start_orphan(arguments: impl IntoIterator<Item = OsString>, until: Milestone) -> Result<Self, Ended> {
        let mut starter = Starter::start_with(arguments, until, true)?;
        let between = starter.child.wait()?;
        if !between.success() {
            return Err(Ended::Exited(between));
        }
        let news = &mut starter.news;
        let first = starter.runtime.block_on(news.next_line())?.unwrap_or_default();
        let pid = first.strip_prefix(PID).and_then(|pid| pid.parse().ok());
        starter.orphan = Some(pid.ok_or_else(|| io::Error::other("it ended before it could tell its process id"))?);
        Ok(starter)
    }

    /// Its process id.
    pub fn pid(&self) -> u32 {
        self.orphan.unwrap_or_else(|| self.child.id())
    }

    /// Waits until it is as far as `milestone`.
    ///
    /// # Errors
    /// When it ends before. On SIGINT and SIGTERM it is ended, unless it serves already: then it may be the only one
    /// that does, and is left to itself.
    pub fn wait_for(&mut self, milestone: Milestone) -> Result<(), Ended> {
        let (news, last) = (&mut self.news, &mut self.reached);
        let interrupted = self.runtime.block_on(async {
            let (mut interrupt, mut terminate) = (signal(SignalKind::interrupt())?, signal(SignalKind::terminate())?);
            loop {
                tokio::select! {
                    // What it has told already counts before any wish to end it.
                    biased;
                    line = news.next_line() => match line {
                        Ok(Some(word)) => {
                            *last = Milestone::of(&word).or(*last);
                            if last.is_some_and(|reached| reached >= milestone) {
                                return Ok::<_, io::Error>(None);
                            }
                        }
                        // It has ended, or is about to: it holds its end until it has told all.
                        Ok(None) | Err(_) => return Ok(Some(None)),
                    },
                    _ = interrupt.recv() => return Ok(Some(Some("SIGINT"))),
                    _ = terminate.recv() => return Ok(Some(Some("SIGTERM"))),
                }
            }
        })?;
        match interrupted {
            None => Ok(()),
            Some(None) if self.orphan.is_some() => Err(Ended::Gone),
            Some(None) => Err(Ended::Exited(self.child.wait()?)),
            Some(Some(name)) if self.reached.is_some_and(|reached| reached >= Milestone::Serving) => {
                Err(Ended::Left(name, self.pid()))
            }
            Some(Some(name)) => {
                self.end();
                Err(Ended::Interrupted(name))
            }
        }
    }

    /// Ends it and waits until it is gone, which a process that does not serve yet is at once.
    pub fn end(&mut self) {
        if let Some(pid) = self.orphan.and_then(process_id) {
            // It holds its end of the socket for as long as it lives and has not settled, so the number is its own. It
            // is not asked to stop: a successor that is asked that in the moment in which it begins to serve stops the
            // service, and one that dies gives it back.
            let _ = kill_process(pid, Signal::KILL);
            while let Ok(Some(_)) = self.runtime.block_on(self.news.next_line()) {}
            return;
        }
        // As long as nobody has waited for it, the number is its own.
        if let Ok(None) = self.child.try_wait()
            && let Some(pid) = process_id(self.child.id())
        {
            let _ = kill_process(pid, Signal::TERM);
            drop(self.child.wait());
        }
    }
}

fn process_id(pid: u32) -> Option<Pid> {
    i32::try_from(pid).ok().and_then(Pid::from_raw)
}

/// Starts this process' own command again, without the wish for an orphan, and leaves it alone; whether that was to be
/// done.
///
/// # Errors
/// When it cannot be started.
pub fn pass_on() -> io::Result<bool> {
    if std::env::var_os(ORPHAN).is_none() {
        return Ok(false);
    }
    let mut command = Command::new(program()?);
    command.args(std::env::args_os().skip(1)).env_remove(ORPHAN);
    if let Some(typed) = std::env::args_os().next() {
        command.arg0(typed);
    }
    command.spawn()?;
    Ok(true)
}

/// The file of this program. By its path, so that the process has its name, and what stands there now counts; where it
/// was removed, by the running process itself.
fn program() -> io::Result<PathBuf> {
    let path = std::env::current_exe()?;
    Ok(if path.is_file() { path } else { "/proc/self/exe".into() })
}
