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
        ErrorType::ConnectError | ErrorType::SocketError => return system_reason(error),
        other => other.as_str(),
    };
    words.to_owned()
}

/// The operating system's own words, where it had some.
fn system_reason(error: &Error) -> String {
    match error.root_cause().downcast_ref::<std::io::Error>() {
        Some(cause) => format!("connecting failed: {cause}"),
        None => "connecting failed".to_owned(),
    }
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
    fn the_system_is_quoted() {
        let cause = std::io::Error::from_raw_os_error(101);
        let error = Error::because(ErrorType::ConnectError, "Fail to connect", cause);
        assert_eq!(reason(&error), "connecting failed: Network is unreachable (os error 101)");
    }
}
