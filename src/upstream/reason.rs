//! Pingora's errors in words for operators.

use pingora_core::{Error, ErrorType};

/// Why an exchange with a backend failed, in a few words that are the same for the same cause, so that repeats of it can
/// be told to be repeats.
pub fn reason(error: &Error) -> String {
    let words = match error.etype() {
        ErrorType::ConnectRefused => "connection refused",
        ErrorType::ConnectTimedout => "connecting timed out",
        ErrorType::ConnectNoRoute => "no route to host",
        ErrorType::ConnectionClosed => "connection closed before the answer was complete",
        ErrorType::ReadTimedout => "no answer in time",
        ErrorType::WriteTimedout => "it did not take the request in time",
        ErrorType::ReadError => "connection broken while reading",
        ErrorType::WriteError => "connection broken while writing",
        ErrorType::InvalidHTTPHeader => "it answered something that is not HTTP",
        ErrorType::HTTPStatus(_) => return error.context.as_ref().map_or_else(String::new, |c| c.as_str().to_owned()),
        ErrorType::ConnectError | ErrorType::SocketError | ErrorType::BindError | ErrorType::InternalError => {
            return system_reason(error);
        }
        other => other.as_str(),
    };
    words.to_owned()
}

/// Whether a failure speaks against the backend. One that this machine met before it got there does not: it has no
/// descriptors or ports left, or no memory.
pub fn is_backends_fault(error: &Error) -> bool {
    use std::io::ErrorKind::{ConnectionAborted, ConnectionReset, HostUnreachable, NetworkUnreachable};
    match error.etype() {
        ErrorType::SocketError | ErrorType::BindError | ErrorType::InternalError => false,
        ErrorType::ConnectError => system_error(error).is_some_and(|cause| {
            matches!(cause.kind(), ConnectionAborted | ConnectionReset | HostUnreachable | NetworkUnreachable)
        }),
        _ => true,
    }
}

/// The operating system's own words, where it had some.
fn system_reason(error: &Error) -> String {
    match system_error(error) {
        Some(cause) => format!("connecting failed: {cause}"),
        None => "connecting failed".to_owned(),
    }
}

fn system_error(error: &Error) -> Option<&std::io::Error> {
    error.root_cause().downcast_ref()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_same_cause_has_the_same_words() {
        let refused = || Error::explain(ErrorType::ConnectRefused, format!("peer {}", fastrand::u32(..)));
        assert_eq!(reason(&refused()), reason(&refused()));
        assert_eq!(reason(&refused()), "connection refused");
    }

    #[test]
    fn what_this_machine_lacks_is_not_the_backends_fault() {
        let because = |etype, code| Error::because(etype, "", std::io::Error::from_raw_os_error(code));
        assert!(is_backends_fault(&Error::explain(ErrorType::ConnectRefused, "")));
        assert!(is_backends_fault(&because(ErrorType::ConnectError, 104)));
        for (etype, code) in
            [(ErrorType::SocketError, 24), (ErrorType::ConnectError, 99), (ErrorType::InternalError, 24)]
        {
            assert!(!is_backends_fault(&because(etype, code)), "{code}");
        }
    }

    #[test]
    fn the_system_is_quoted() {
        let cause = std::io::Error::from_raw_os_error(101);
        let error = Error::because(ErrorType::ConnectError, "Fail to connect", cause);
        assert_eq!(reason(&error), "connecting failed: Network is unreachable (os error 101)");
    }
}
