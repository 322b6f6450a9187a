//! How the descriptors that this process may have are shared out.
//!
//! Each request that is served takes two: its client's connection and its backend's. Some belong to the process itself:
//! its listeners, its threads, the database, the logs, the admin API and its clients, health checks. So some are set aside
//! for that, and of the others clients get a half when nobody says otherwise. Whoever says otherwise may give them all of
//! the others, and no more: nginx takes more and warns that its "worker_connections exceed open file resource limit", and
//! then cannot accept; HAProxy does not start.

use nix::sys::resource::{Resource, getrlimit};

use crate::proxy::Room;

/// Descriptors of the process itself.
const OWN: u64 = 64;
/// The same for each of its threads.
const OF_A_THREAD: u64 = 8;
/// The fewest connections of clients, however few descriptors there are.
const FEWEST: u64 = 8;

/// The room for connections of clients in this process, with so many threads that serve them.
pub(super) fn room(threads: usize) -> Room {
    let limit = getrlimit(Resource::RLIMIT_NOFILE).map_or(u64::MAX, |(soft, _)| soft);
    room_in(limit, threads as u64)
}

fn room_in(limit: u64, threads: u64) -> Room {
    let most = limit.saturating_sub(OWN + OF_A_THREAD * threads);
    let count = |number: u64| usize::try_from(number.max(FEWEST)).unwrap_or(usize::MAX);
    Room { auto: count(most / 2), most: count(most) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_a_half_of_what_the_process_does_not_need() {
        for (limit, threads, auto, most) in
            [(256, 2, 88, 176), (1024, 4, 464, 928), (1 << 20, 16, 524_192, 1_048_384), (64, 1, 8, 8), (0, 1, 8, 8)]
        {
            assert_eq!(room_in(limit, threads), Room { auto, most }, "{limit}");
        }
    }
}
