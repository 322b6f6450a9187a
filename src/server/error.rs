//! Why a server does not serve.

use std::io;

use crate::process::{BindError, PidFileError, PrivilegesError};
use crate::store::sqlite::OpenError;

/// Why a server could not start, or stopped although nobody asked it to.
#[derive(Debug, thiserror::Error)]
pub enum ServerError {
    /// An address cannot be listened on.
    #[error(transparent)]
    Bind(#[from] BindError),
    /// The database cannot be used.
    #[error(transparent)]
    Store(#[from] OpenError),
    /// The access log cannot be written.
    #[error("{0}")]
    AccessLog(#[source] io::Error),
    /// It cannot become the user that it should.
    #[error(transparent)]
    Privileges(#[from] PrivilegesError),
    /// Its pid file cannot be had.
    #[error(transparent)]
    PidFile(#[from] PidFileError),
    /// It could not go on.
    #[error("{0}")]
    Failed(String),
}
