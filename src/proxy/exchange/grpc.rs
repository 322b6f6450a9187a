//! What is known of a gRPC call beyond HTTP: how it ended.
//!
//! A call says how it ended in trailers, or in the header where there is nothing else. The access line tells it. While
//! an answer comes, a call may be as silent as both sides like: `read_timeout` counts up to the header of the answer
//! and not behind it. nginx's `grpc_read_timeout` counts for each read and Envoy's `stream_idle_timeout` for each
//! silence; both are what users of long streams turn off first. Who wants an end says so by a deadline
//! (`grpc-timeout`), which passes like any other line.

use crate::proxy::wire::lines::is;

/// The status that is among these lines.
pub(in crate::proxy) fn status<'h>(mut lines: impl Iterator<Item = (&'h [u8], &'h [u8])>) -> Option<u32> {
    let (_, value) = lines.find(|(name, _)| is(name, b"grpc-status"))?;
    str::from_utf8(value).ok()?.parse().ok()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_is_a_number() {
        let of = |value: &'static [u8]| status([(&b"x"[..], &b"1"[..]), (b"Grpc-Status", value)].into_iter());
        assert_eq!((of(b"14"), of(b"0"), of(b"x"), of(b"")), (Some(14), Some(0), None, None));
        assert_eq!(status(std::iter::empty()), None);
    }
}
