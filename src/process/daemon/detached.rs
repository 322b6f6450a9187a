//! The daemon's side.

use std::ffi::OsString;
use std::fs::File;
use std::io::{self, Write};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::PathBuf;

use log::warn;
use parking_lot::Mutex;
use rustix::fs::Mode;
use rustix::net::SocketType;
use rustix::net::sockopt::socket_type;
use rustix::process::{setsid, umask};
use rustix::stdio::dup2_stdin;

use super::outputs::Outputs;
use super::{Milestone, PID, VARIABLE};

/// A process that was started in the background, and its way to tell its starter how far it is.
#[derive(Debug)]
pub struct Detached {
    /// Until when the starter listens.
    until: Milestone,
    /// The starter's end, as long as it listens.
    starter: Mutex<Option<UnixStream>>,
    outputs: Mutex<Option<Outputs>>,
}

impl Detached {
    /// Leaves the starter's session and takes over its socket, if there is a starter; none in the foreground. To be
    /// called before anything else, in particular before there are threads.
    ///
    /// # Errors
    /// When the system refuses something that it never refuses.
    pub fn of_environment() -> io::Result<Option<Self>> {
        let until = std::env::var_os(VARIABLE).as_deref().and_then(|word| Milestone::of(&word.to_string_lossy()));
        let stdin = io::stdin();
        // The variable alone may have been inherited from a daemon.
        let (Some(until), Ok(SocketType::STREAM)) = (until, socket_type(stdin.as_fd())) else { return Ok(None) };
        let mut starter = UnixStream::from(stdin.as_fd().try_clone_to_owned()?);
        dup2_stdin(File::open("/dev/null")?)?;
        // It fails for the leader of a group, which nobody is that another process started this way.
        setsid()?;
        drop(writeln!(starter, "{PID}{}", std::process::id()));
        umask(Mode::from_raw_mode(0o027));
        Ok(Some(Detached { until, starter: Mutex::new(Some(starter)), outputs: Mutex::default() }))
    }

    /// Sends standard output to `error_log`, or nowhere without one; standard error follows when the starter has heard
    /// enough. In systemd's journal both stay.
    ///
    /// # Errors
    /// When the file cannot be opened; it is named.
    pub fn log_to(&self, error_log: Option<PathBuf>) -> io::Result<()> {
        let outputs = Outputs::new(error_log);
        outputs.redirect_stdout()?;
        *self.outputs.lock() = Some(outputs);
        Ok(())
    }

    /// Tells the starter, unless it has heard enough. When this is what it waits for, nothing of it stays open. Waits a
    /// second at most until what was logged so far is where the starter's is.
    pub fn reached(&self, milestone: Milestone) {
        log::logger().flush();
        if let Err(error) = self.tell(milestone) {
            warn!("{error}; events stay where they are");
        }
    }

    fn tell(&self, milestone: Milestone) -> io::Result<()> {
        let mut starter = self.starter.lock();
        let Some(stream) = starter.as_mut() else { return Ok(()) };
        let last = milestone >= self.until;
        let redirected = match &*self.outputs.lock() {
            Some(outputs) if last => outputs.redirect_stderr(),
            _ => Ok(()),
        };
        // A starter that is gone needs no news.
        drop(writeln!(stream, "{}", milestone.word()));
        if last {
            *starter = None;
        }
        redirected
    }

    /// Opens the error log again, since it was moved away. Waits a second at most until what was logged so far is in
    /// the old one.
    ///
    /// # Errors
    /// When it cannot be opened; the old one is kept.
    pub fn reopen(&self) -> io::Result<()> {
        let Some(outputs) = self.outputs.lock().clone() else { return Ok(()) };
        log::logger().flush();
        outputs.redirect_stdout()?;
        // Before that it is the starter's.
        if self.starter.lock().is_none() { outputs.redirect_stderr() } else { Ok(()) }
    }

    /// What the environment of a process must say that is to be detached until `until`.
    pub(super) fn variable(until: Milestone) -> (&'static str, OsString) {
        (VARIABLE, until.word().into())
    }
}
