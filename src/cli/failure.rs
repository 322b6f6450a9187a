//! How a command fails, and what the process ends with then.

use std::io;
use std::process::ExitCode;

use crate::config::Problems;
use crate::server::ServerError;

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
pub(super) enum Failure {
    #[error("{0}")]
    Configuration(#[from] Problems),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Running(#[from] ServerError),
    /// What the admin API said, or that it did not answer.
    #[error("{0}")]
    ApiClient(String),
    /// A process in the background, or an upgrade.
    #[error("{0}")]
    Background(String),
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

impl Failure {
    /// What the process ends with.
    pub(super) fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Configuration(_) | Failure::Usage(_) => ExitCode::from(2),
            Failure::Running(_) | Failure::ApiClient(_) | Failure::Background(_) | Failure::Output(_) => {
                ExitCode::from(1)
            }
        }
    }
}
