//! What a request asks for, and so which way it goes.

use crate::proxy::downstream::head::Head;
use crate::proxy::exchange::{request, upgrade};
use crate::proxy::wire::lines::Lines;

/// What a request asks for.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::proxy) enum Purpose {
    /// An answer.
    Answer,
    /// Another protocol, if it may, and else an answer.
    Upgrade,
    /// More than that, which only Pingora's loop knows how to give.
    More,
}

impl Purpose {
    /// Whether a request that asks for this goes by Pingora's loop: it must, or it need not go `direct`ly. No
    /// connection changes its protocol there.
    pub(in crate::proxy) fn goes_by_loop(self, direct: bool) -> bool {
        match self {
            Purpose::Answer => !direct,
            Purpose::Upgrade => false,
            Purpose::More => true,
        }
    }
}

/// What a request with this header asks for.
pub(in crate::proxy) fn purpose(head: &Head, bytes: &[u8], lines: &Lines) -> Purpose {
    let usual = head.version == 1 && head.target.of_bytes(bytes).starts_with(b"/");
    let lines = lines.of(bytes);
    match usual {
        true if request::is_plain(lines.iter()) => Purpose::Answer,
        true if upgrade::takes(lines) => Purpose::Upgrade,
        _ => Purpose::More,
    }
}
