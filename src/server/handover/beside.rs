//! What goes beside the sockets and is none: a pipe, out of which come the keys of TLS tickets.
//!
//! It is the last descriptor of all, behind the last socket, and no address names it. A version that does not know it
//! takes the sockets that it was told of and closes the rest; one that gets none makes keys of its own. So it needs no
//! other version of the hand-over. A pipe, and no file, however short-lived: the keys are never on a disk.

use std::time::Duration;

use borsh::BorshDeserialize;

use crate::tls::TicketSecret;

/// The form of what comes through the pipe.
const TICKETS: u8 = 1;

/// The keys of TLS tickets, as they go through the pipe.
pub(super) fn encode(keys: &[TicketSecret]) -> Vec<u8> {
    let keys: Vec<_> = keys.iter().map(|key| (key.secret, key.age.as_secs())).collect();
    borsh::to_vec(&(TICKETS, keys)).expect("a few keys are short")
}

/// The same read; none of what makes no sense, which costs clients a full handshake and nothing else.
pub(super) fn decode(bytes: &[u8]) -> Vec<TicketSecret> {
    let read = <(u8, Vec<([u8; 32], u64)>)>::try_from_slice(bytes).ok().filter(|(form, _)| *form == TICKETS);
    let keys = read.into_iter().flat_map(|(_, keys)| keys);
    keys.map(|(secret, age)| TicketSecret { secret, age: Duration::from_secs(age) }).collect()
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn keys_of_tickets_go_through_a_pipe_and_whatever_else_does_is_none() {
        let key = |byte: u8| TicketSecret { secret: [byte; 32], age: Duration::from_secs(u64::from(byte)) };
        let keys = [key(1), key(200)];
        let bytes = encode(&keys);
        assert_eq!((decode(&bytes), bytes.len()), (keys.into(), 1 + 4 + 2 * 40));
        for other in [&b""[..], b"\x02\0\0\0\0", b"\x01\xff\xff\xff\xff", &bytes[..bytes.len() - 1]] {
            assert_eq!(decode(other), []);
        }
    }
}
