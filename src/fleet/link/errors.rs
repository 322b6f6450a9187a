//! What goes wrong on the way to the store, and what it means for who asked.

use redis::{ErrorKind, RedisError, ServerError, ServerErrorKind};
use thiserror::Error;

/// Why there is no answer.
#[derive(Clone, Debug, Error, PartialEq, Eq)]
pub enum LinkError {
    /// The store was not asked, or is not the one to ask: nothing was done.
    #[error("the store is unreachable: {0}")]
    Unreachable(String),
    /// The store says that it cannot now: nothing was done.
    #[error("the store refuses: {0}")]
    Refused(String),
    /// No answer in time, or the connection broke before it: it may have been carried out.
    #[error("the store did not answer in time")]
    TimedOut,
    /// The store refuses this: it is wrong, or not allowed.
    #[error("the store refuses: {0}")]
    Script(String),
}

impl LinkError {
    /// There is no connection any more.
    pub(super) fn lost() -> Self {
        LinkError::Unreachable("the connection was lost".to_owned())
    }

    /// Why, without what that means; for people.
    pub fn reason(&self) -> String {
        match self {
            LinkError::Unreachable(reason) | LinkError::Refused(reason) | LinkError::Script(reason) => reason.clone(),
            LinkError::TimedOut => "it did not answer in time".to_owned(),
        }
    }
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
    /// Whether another node of a Cluster is the one to ask.
    elsewhere: bool,
}

impl StoreFault {
    /// The same of who was taken for the only server: one that names others is none.
    pub(super) fn of_one_server(self) -> Self {
        if !self.elsewhere {
            return self;
        }
        let reason =
            "it is a node of a Cluster; an address that begins with redis+cluster:// or rediss+cluster:// is needed";
        StoreFault { error: LinkError::Refused(reason.to_owned()), breaks: true, ..self }
    }

    /// The deadline passed.
    pub(super) fn late() -> Self {
        StoreFault {
            error: LinkError::TimedOut,
            breaks: false,
            answered: false,
            unknown_script: false,
            elsewhere: false,
        }
    }

    pub(super) fn is_unknown_script(&self) -> bool {
        self.unknown_script
    }

    /// Whether the store answers and does not do it, now or ever.
    pub(super) fn is_refusal(&self) -> bool {
        matches!(self.error, LinkError::Refused(_) | LinkError::Script(_)) && !self.unknown_script
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
                let error = LinkError::Refused("it refuses the user or the password".to_owned());
                StoreFault { error, breaks: true, answered: true, unknown_script: false, elsewhere: false }
            }
            // No node of the Cluster could be asked.
            ErrorKind::ClusterConnectionNotFound => {
                let error = LinkError::Unreachable(error.to_string());
                StoreFault { error, breaks: false, answered: false, unknown_script: false, elsewhere: false }
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
        let cannot = matches!(kind, Some(BusyLoading | ClusterDown | MasterDown | ReadOnly))
            || matches!(code, "OOM" | "NOREPLICAS" | "MISCONF" | "NOAUTH" | "WRONGPASS");
        let later = matches!(kind, Some(TryAgain | Moved | Ask)) || matches!(code, "BUSY" | "UNBLOCKED");
        let text = plain(code, text);
        let error = match (cannot, later) {
            (true, _) => LinkError::Refused(text),
            (_, true) => LinkError::Unreachable(text),
            _ => LinkError::Script(text),
        };
        let (unknown_script, elsewhere) = (kind == Some(NoScript), matches!(kind, Some(Moved | Ask)));
        StoreFault { error, breaks: cannot, answered: true, unknown_script, elsewhere }
    }
}

/// What the store says, without where in which script, and what that means where it is not plain.
fn plain(code: &str, text: &str) -> String {
    // Valkey leaves the digest out at times.
    let is_place = |(_, rest): &(&str, &str)| {
        rest.bytes().take_while(u8::is_ascii_hexdigit).count() == 40 || rest.starts_with("on @user_script:")
    };
    let said =
        text.split_once(" script: ").filter(is_place).map_or(text, |(said, _)| said).trim_end_matches(['.', ' ']);
    match code {
        "CLUSTERDOWN" => format!("the Cluster is down: {said}"),
        "OOM" => format!("its memory is full: {said}"),
        "READONLY" => format!("it is a replica, which takes no writes: {said}"),
        "MISCONF" => format!("it cannot write to its disk: {said}"),
        _ => said.to_owned(),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn what_the_store_says_is_told_without_the_place_in_a_script() {
        let full = "OOM command not allowed when used memory > 'maxmemory'.";
        for place in [
            "",
            " script: 033e04db8ad3e3ae2a7d13c2ffb3d94b0f4f8a10, on @user_script:86.",
            " script: on @user_script:15",
        ] {
            let told = plain("OOM", &format!("{full}{place}"));
            assert_eq!(told, "its memory is full: OOM command not allowed when used memory > 'maxmemory'", "{place}");
        }
    }
}
