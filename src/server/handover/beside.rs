//! What goes beside the sockets and is none: a pipe, out of which come the keys of TLS tickets, and, where no database
//! keeps it, the secret of sticky cookies.
//!
//! It is the last descriptor of all, behind the last socket, and no address names it. A version that does not know it
//! takes the sockets that it was told of and closes the rest; one that gets none makes keys of its own. So it needs no
//! other version of the hand-over. A pipe, and no file, however short-lived: the keys are never on a disk.

use std::fmt;
use std::time::Duration;

use borsh::BorshDeserialize;

use crate::tls::TicketSecret;

/// The form of what comes through the pipe: the keys of tickets alone, or a secret behind them. A version that knows
/// only the first takes nothing of the second.
const TICKETS: u8 = 1;
const WITH_SECRET: u8 = 2;

/// What a successor has of its predecessor beside the sockets and the buckets.
#[derive(Clone, Default, PartialEq)]
pub(in crate::server) struct Inherited {
    /// The keys that its TLS tickets are sealed with.
    pub(in crate::server) tickets: Vec<TicketSecret>,
    /// The secret of its sticky cookies, where no database keeps it.
    pub(in crate::server) sticky: Option<u128>,
}

impl fmt::Debug for Inherited {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("Inherited").field("tickets", &self.tickets).finish_non_exhaustive()
    }
}

/// As it goes through the pipe.
pub(super) fn encode(Inherited { tickets, sticky }: &Inherited) -> Vec<u8> {
    let keys: Vec<_> = tickets.iter().map(|key| (key.secret, key.age.as_secs())).collect();
    let bytes = match sticky {
        None => borsh::to_vec(&(TICKETS, keys)),
        Some(secret) => borsh::to_vec(&(WITH_SECRET, keys, secret)),
    };
    bytes.expect("a few keys are short")
}

/// The same read; nothing of what makes no sense, which costs clients a full handshake or another backend.
pub(super) fn decode(bytes: &[u8]) -> Inherited {
    type Keys = Vec<([u8; 32], u64)>;
    let plain = <(u8, Keys)>::try_from_slice(bytes).ok().filter(|(form, _)| *form == TICKETS);
    let (keys, sticky) = match plain {
        Some((_, keys)) => (keys, None),
        None => match <(u8, Keys, u128)>::try_from_slice(bytes) {
            Ok((WITH_SECRET, keys, secret)) => (keys, Some(secret)),
            _ => return Inherited::default(),
        },
    };
    let tickets = keys.into_iter().map(|(secret, age)| TicketSecret { secret, age: Duration::from_secs(age) });
    Inherited { tickets: tickets.collect(), sticky }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_tickets_go_through_a_pipe_and_whatever_else_does_is_none() {
        let key = |byte: u8| TicketSecret { secret: [byte; 32], age: Duration::from_secs(u64::from(byte)) };
        let of = |sticky| Inherited { tickets: vec![key(1), key(200)], sticky };
        let bytes = encode(&of(None));
        assert_eq!((decode(&bytes), bytes.len()), (of(None), 1 + 4 + 2 * 40));
        assert_eq!(decode(&encode(&of(Some(7)))), of(Some(7)));
        for other in [&b""[..], b"\x02\0\0\0\0", b"\x01\xff\xff\xff\xff", &bytes[..bytes.len() - 1]] {
            assert_eq!(decode(other), Inherited::default());
        }
    }
}
