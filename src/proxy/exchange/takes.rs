//! Which requests go directly.

use crate::proxy::downstream::head::Head;
use crate::proxy::exchange::{request, upgrade};
use crate::proxy::wire::lines::Lines;

/// What a request that goes directly asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Purpose {
    /// An answer.
    Answer,
    /// Another protocol, if it may, and else an answer.
    Upgrade,
}

/// What a request with this header asks for, if it goes directly.
pub(in crate::proxy) fn takes(head: &Head, bytes: &[u8], lines: &Lines) -> Option<Purpose> {
    let usual = head.version == 1 && head.target.of_bytes(bytes).starts_with(b"/");
    let lines = lines.of(bytes);
    match usual {
        true if request::is_plain(lines.iter()) => Some(Purpose::Answer),
        true if upgrade::takes(lines) => Some(Purpose::Upgrade),
        _ => None,
    }
}
