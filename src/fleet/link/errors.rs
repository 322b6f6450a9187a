//! What goes wrong on the way to the store, and what it means for who asked.

use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};
use thiserror::Error;

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// The store was not asked, or says that it cannot now: nothing was done.
    #[error("the store is unreachable: {0}")]
    Unreachable(String),
    /// No answer in time, or the connection broke before it: it may have been carried out.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The store refuses this: it is wrong, or not allowed.
    #[error("the store refuses: {0}")]
    Script(String),
}

/// An error, and what it means for the connection.
#[derive(Clone, Debug)]
pub(super) struct StoreFault {
    pub(super) error: LinkError,
    /// Whether the connection is of no use any more.
    pub(super) breaks: bool,
    /// Whether the store said it.
    pub(super) answered: bool,
    unknown_script: bool,
}

impl StoreFault {
    /// The deadline passed.
    pub(super) fn late() -> Self {
        StoreFault { error: LinkError::TimedOut, breaks: false, answered: false, unknown_script: false }
    }

    pub(super) fn is_unknown_script(&self) -> bool {
        self.unknown_script
    }

    /// What an error of the library means.
    pub(super) fn of(error: &RedisError) -> Self {
        match error.kind() {
            ErrorKind::Server(kind) => {
                StoreFault::said(Some(kind), error.code().unwrap_or_default(), &error.to_string())
            }
            ErrorKind::Extension => StoreFault::said(None, error.code().unwrap_or_default(), &error.to_string()),
            ErrorKind::Io if error.is_timeout() => StoreFault::late(),
            ErrorKind::AuthenticationFailed => {
                let error = LinkError::Unreachable(error.to_string());
                StoreFault { error, breaks: true, answered: true, unknown_script: false }
            }
            // No node of the Cluster could be asked.
            ErrorKind::ClusterConnectionNotFound => {
                let error = LinkError::Unreachable(error.to_string());
                StoreFault { error, breaks: false, answered: false, unknown_script: false }
            }
            _ => StoreFault { breaks: true, ..StoreFault::late() },
        }
    }

    /// What an error in a pipeline means.
    pub(super) fn of_server(error: &ServerError) -> Self {
        let text = error.details().map_or_else(|| error.code().to_owned(), |said| format!("{} {said}", error.code()));
        StoreFault::said(error.kind(), error.code(), &text)
    }

    fn said(kind: Option<ServerErrorKind>, code: &str, text: &str) -> Self {
        use ServerErrorKind::{Ask, BusyLoading, ClusterDown, MasterDown, Moved, NoScript, ReadOnly, TryAgain};
        let elsewhere = matches!(kind, Some(BusyLoading | MasterDown | ReadOnly));
        let later = matches!(kind, Some(ClusterDown | TryAgain | Moved | Ask))
            || matches!(code, "OOM" | "BUSY" | "NOREPLICAS" | "MISCONF" | "NOAUTH" | "UNBLOCKED");
        let error = if elsewhere || later {
            LinkError::Unreachable(text.to_owned())
        } else {
            LinkError::Script(text.to_owned())
        };
        let unknown_script = kind == Some(NoScript);
        StoreFault { error, breaks: elsewhere || code == "NOAUTH", answered: true, unknown_script }
    }
}
