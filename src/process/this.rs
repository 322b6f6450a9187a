//! What a server has to do with the process that it is all of: its pid file, its starter, its logs, and systemd.
//!
//! A server that is part of another program, or of a test, has none of that.

use std::io;
use std::path::{Path, PathBuf};

use log::{info, warn};
use parking_lot::Mutex;

use super::daemon::{Detached, Milestone};
use super::notify;
use super::pid_file::{self, PidFile, PidFileError};
use super::settings::ProcessSettings;

/// The process that is all of one server.
#[derive(Debug)]
pub(crate) struct Process {
    /// Where it hands over to a successor.
    upgrade_sock: PathBuf,
    pid_path: PathBuf,
    /// Whether it does not run without its pid file.
    needs_pid_file: bool,
    pid_file: Mutex<Option<PidFile>>,
    detached: Option<Detached>,
    /// The variables of the environment that count for it, by their names.
    variables: Vec<String>,
}

impl Process {
    /// This process, with what it was told about itself. A daemon needs its pid file, and so does one for which
    /// somebody chose a place; a process in the foreground does without the one at the default place.
    pub(crate) fn new(settings: &ProcessSettings, detached: Option<Detached>) -> Self {
        let needs_pid_file = detached.is_some() || settings.pid_file != Path::new(ProcessSettings::PID_FILE);
        Process {
            upgrade_sock: settings.upgrade_sock.clone(),
            pid_path: settings.pid_file.clone(),
            needs_pid_file,
            pid_file: Mutex::new(None),
            detached,
            variables: Vec::new(),
        }
    }

    /// The same, for which these variables of the environment count.
    pub(crate) fn with_variables(self, variables: Vec<String>) -> Self {
        Process { variables, ..self }
    }

    /// The variables of the environment that count for it, by their names.
    pub(crate) fn variables(&self) -> &[String] {
        &self.variables
    }

    /// Where it hands over to a successor.
    pub(crate) fn upgrade_sock(&self) -> &Path {
        &self.upgrade_sock
    }

    /// Whether it runs in the background.
    pub(crate) fn is_detached(&self) -> bool {
        self.detached.is_some()
    }

    /// Sends what a daemon writes to its error log.
    pub(crate) fn log_to(&self, settings: &ProcessSettings) -> io::Result<()> {
        self.detached.as_ref().map_or(Ok(()), |detached| detached.log_to(settings.error_log.clone()))
    }

    /// An error when another process holds the pid file that this one needs.
    pub(crate) fn is_alone(&self) -> Result<(), PidFileError> {
        match pid_file::holder(&self.pid_path) {
            Ok(Some(pid)) if self.needs_pid_file => {
                Err(PidFileError::Live { path: self.pid_path.clone(), pid: Some(pid) })
            }
            // Where it cannot be found out, writing it will tell.
            _ => Ok(()),
        }
    }

    /// Writes the pid file, of a process that takes nobody's place.
    pub(crate) fn take_pid_file(&self) -> Result<(), PidFileError> {
        self.write_pid_file(PidFile::take)
    }

    /// Writes the pid file, in its predecessor's place.
    pub(crate) fn replace_pid_file(&self) -> Result<(), PidFileError> {
        self.write_pid_file(PidFile::replace)
    }

    fn write_pid_file(&self, write: impl Fn(&Path) -> Result<PidFile, PidFileError>) -> Result<(), PidFileError> {
        // Whoever did not ask for one gets no directory either.
        if !self.needs_pid_file && !self.pid_path.parent().is_some_and(Path::is_dir) {
            return Ok(());
        }
        match write(&self.pid_path) {
            Ok(file) => *self.pid_file.lock() = Some(file),
            Err(error) if self.needs_pid_file => return Err(error),
            Err(error) => info!("no pid file: {error}"),
        }
        Ok(())
    }

    /// Puts the pid file back that a successor had replaced.
    pub(crate) fn put_pid_file_back(&self) {
        let back = self.pid_file.lock().as_mut().map_or(Ok(()), PidFile::put_back);
        if let Err(error) = back {
            warn!("{error}");
        }
    }

    /// Whether another process has the pid file, and with it all else that has a path.
    pub(crate) fn is_replaced(&self) -> bool {
        matches!(pid_file::holder(&self.pid_path), Ok(Some(pid)) if pid != std::process::id())
    }

    /// Removes the pid file, unless it is a successor's.
    pub(crate) fn release_pid_file(&self) {
        drop(self.pid_file.lock().take());
    }

    /// Tells everybody that it serves, in the words of `status`.
    pub(crate) fn serves(&self, status: &str) {
        notify::serving(status).or_log();
        self.reached(Milestone::Serving);
    }

    /// Tells the starter how far it is.
    pub(crate) fn reached(&self, milestone: Milestone) {
        if let Some(detached) = &self.detached {
            detached.reached(milestone);
        }
    }

    /// Opens the error log again, since it was moved away.
    pub(crate) fn reopen_error_log(&self) {
        if let Some(Err(error)) = self.detached.as_ref().map(Detached::reopen) {
            warn!("{error}; the old one is kept");
        }
    }
}
