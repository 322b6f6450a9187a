//! What a process is told about itself.

use std::path::PathBuf;

use super::privileges::{Group, User};

/// How a process runs, and where its files are.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct ProcessSettings {
    /// Whether it runs in the background. Default: no.
    pub daemon: bool,
    /// The file that holds the process id. Default [`PID_FILE`](Self::PID_FILE).
    pub pid_file: PathBuf,
    /// The socket over which a running process hands over to its successor. Default `/run/tollgate/upgrade.sock`.
    pub upgrade_sock: PathBuf,
    /// The user to become once the addresses are bound; none stays the one who started it.
    pub user: Option<User>,
    /// The group to become; none is the user's.
    pub group: Option<Group>,
    /// The directory to work in; none is where it was started, and `/` for a daemon.
    pub working_directory: Option<PathBuf>,
    /// Where a daemon's events and standard output go; none is nowhere.
    pub error_log: Option<PathBuf>,
}

impl ProcessSettings {
    /// Where the process id is kept when nobody says where.
    pub const PID_FILE: &str = "/run/tollgate/tollgate.pid";
}

impl Default for ProcessSettings {
    fn default() -> Self {
        ProcessSettings {
            daemon: false,
            pid_file: ProcessSettings::PID_FILE.into(),
            upgrade_sock: "/run/tollgate/upgrade.sock".into(),
            user: None,
            group: None,
            working_directory: None,
            error_log: None,
        }
    }
}
