//! Addresses of other servers that begin with http:// or https://.

use http::Uri;

/// Whether `text` is an address that begins with `scheme` and `://`.
///
/// # Errors
/// Why it is none, where there is a word for that. What stands in it is not repeated.
pub(super) fn check(text: &str, scheme: &str) -> Result<(), Option<&'static str>> {
    let rest = text.strip_prefix(scheme).and_then(|rest| rest.strip_prefix("://")).ok_or(None)?;
    let authority = rest.split(['/', '?', '#']).next().unwrap_or_default();
    if rest.contains('@') {
        return Err(Some("it must hold no user and no password"));
    }
    let uri: Uri = text.parse().map_err(|_| None)?;
    if uri.host().is_none_or(str::is_empty) {
        return Err(Some("the host is missing"));
    }
    let host_ends = authority.rfind(']').unwrap_or(0);
    match authority[host_ends..].split_once(':') {
        Some((_, port)) if port.parse::<u16>().is_ok_and(|port| port != 0) => Ok(()),
        Some(_) => Err(Some("a port is a number from 1 to 65535")),
        None => Ok(()),
    }
}
