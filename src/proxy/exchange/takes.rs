//! What a request asks for, and so which way it goes.

use crate::proxy::downstream::head::Head;
use crate::proxy::exchange::{request, upgrade};
use crate::proxy::wire::lines::{Lines, LinesOf, is};

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Purpose {
    /// An answer.
    Answer,
    /// The same, with lines that are not for its backend.
    Special,
    /// The same, and a word before it sends its body.
    Expectation,
    /// Another protocol, if it may, and else an answer.
    Upgrade,
}

impl Purpose {
    /// Whether a request that asks for this goes by Pingora's loop, given whether it may go `direct`ly. No connection
    /// changes its protocol there.
    pub(in crate::proxy) fn goes_by_loop(self, direct: bool) -> bool {
        !direct && self != Purpose::Upgrade
    }

    /// Whether what comes of its body in a moment comes together with its header. Who waits for a word does not send
    /// it then.
    pub(in crate::proxy) fn sends_at_once(self) -> bool {
        self != Purpose::Expectation
    }
}

/// What a request with this header asks for.
pub(in crate::proxy) fn purpose(head: &Head, bytes: &[u8], lines: &Lines) -> Purpose {
    let lines = lines.of(bytes);
    if head.version == 1 && request::is_plain(lines.iter()) { Purpose::Answer } else { unusual(head, lines) }
}

/// The same for one that is not plain. Only HTTP/1.1 can ask for another protocol, or for a word (RFC 9110 sections 7.8
/// and 10.1.1).
#[cold]
fn unusual(head: &Head, lines: LinesOf<'_>) -> Purpose {
    let has = |name: &[u8]| head.version == 1 && lines.iter().any(|(sent, _)| is(sent, name));
    match (has(b"expect"), has(b"upgrade")) {
        (true, _) => Purpose::Expectation,
        (false, true) if upgrade::takes(lines) => Purpose::Upgrade,
        _ => Purpose::Special,
    }
}
