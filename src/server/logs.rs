//! The logs that are moved away while the server runs.

use std::sync::Arc;

use log::info;

use crate::process::Process;
use crate::telemetry::AccessLog;

/// The access log, and the error log of a daemon.
pub(super) struct Logs {
    pub(super) access_log: AccessLog,
    /// The process, when the server is all of one.
    pub(super) process: Option<Arc<Process>>,
}

impl Logs {
    /// Opens the logs again, since they were moved away.
    pub(super) fn reopen(&self) {
        info!("SIGUSR1: reopening the logs");
        // The error log first: a daemon's standard output, where access lines may go, is that, too.
        if let Some(process) = &self.process {
            process.reopen_error_log();
        }
        self.access_log.reopen();
    }
}
