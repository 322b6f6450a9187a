//! What a backend says of how long it keeps an idle connection, in a line that has no standard beyond RFC 2068:
//! `Keep-Alive: timeout=5, max=100`.

use std::time::Duration;

/// The time in the value of such a line, if it has one. It comes in whole seconds; more than a connection can live are
/// as good as any.
pub(in crate::proxy) fn timeout(value: &[u8]) -> Option<Duration> {
    value.split(|byte| *byte == b',').find_map(|parameter| {
        let (name, seconds) = parameter.split_at(parameter.iter().position(|byte| *byte == b'=')?);
        let seconds = seconds[1..].trim_ascii();
        let digits = seconds.strip_prefix(b"\"").and_then(|digits| digits.strip_suffix(b"\"")).unwrap_or(seconds);
        let is_number = !digits.is_empty() && digits.iter().all(u8::is_ascii_digit);
        if !(is_number && name.trim_ascii().eq_ignore_ascii_case(b"timeout")) {
            return None;
        }
        let seconds = digits.iter().fold(0_u32, |n, digit| n.saturating_mul(10).saturating_add((digit - b'0').into()));
        Some(Duration::from_secs(seconds.into()))
    })
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn the_time_is_found_wherever_it_stands() {
        for (value, seconds) in [
            ("timeout=5", Some(5)),
            ("timeout=5, max=100", Some(5)),
            ("max=100,Timeout = 15 ", Some(15)),
            ("timeout=\"5\"", Some(5)),
            ("timeout=0", Some(0)),
            ("timeout=007", Some(7)),
            ("timeout=99999999999999999999", Some(u32::MAX.into())),
            ("", None),
            ("5", None),
            ("timeout", None),
            ("timeout=", None),
            ("timeout=\"\"", None),
            ("timeout=\"", None),
            ("timeout=-1", None),
            ("timeout=1.5", None),
            ("timeout=5s", None),
            ("max=5", None),
            ("xtimeout=5", None),
            ("max=x, timeout=x, timeout=3", Some(3)),
        ] {
            assert_eq!(timeout(value.as_bytes()), seconds.map(Duration::from_secs), "{value}");
        }
    }
}
