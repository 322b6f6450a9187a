//! How the descriptors that this process may have are shared out.
//!
//! Each request that is served takes two: its client's connection and its backend's. Some belong to the process itself:
//! its listeners, its threads, the database, the logs, the admin API and its clients, health checks. So some are set
//! aside for that, and of the others clients get a half when nobody says otherwise. Whoever says otherwise may give
//! them all of the others, and no more: nginx takes more and warns that its "worker_connections exceed open file
//! resource limit", and then cannot accept; HAProxy does not start.

use rustix::process::{Resource, Rlimit, getrlimit, setrlimit};

/// Descriptors of the process itself.
const OWN: u64 = 64;
/// The same for each of its threads.
const OF_A_THREAD: u64 = 8;
/// The fewest connections of clients, however few descriptors there are.
const FEWEST: u64 = 8;

/// How many connections of clients there may be.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(crate) struct ClientShare {
    /// When nobody says otherwise.
    pub(crate) auto: usize,
    /// At most.
    pub(crate) most: usize,
}

/// What clients may have of this process' descriptors, with so many threads that serve them.
pub(crate) fn client_share(threads: usize) -> ClientShare {
    share_of(open_files_limit(), threads as u64)
}

/// How many files this process may have open.
pub(crate) fn open_files_limit() -> u64 {
    getrlimit(Resource::Nofile).current.unwrap_or(u64::MAX)
}

/// Says so where the process needs most of them for itself, and clients are left with next to none.
pub(crate) fn warn_of_few(threads: usize) {
    let (limit, own) = (open_files_limit(), own(threads as u64));
    if limit < 2 * own {
        log::warn!(
            "the limit of open files is {limit}, of which tollgate needs {own} for itself: raise it to 1024 or more \
            (LimitNOFILE, `ulimit -Hn`)"
        );
    }
}

/// Descriptors that the process needs for itself, with so many threads.
fn own(threads: u64) -> u64 {
    OWN + OF_A_THREAD * threads
}

fn share_of(limit: u64, threads: u64) -> ClientShare {
    let most = limit.saturating_sub(own(threads));
    let count = |number: u64| usize::try_from(number.max(FEWEST)).unwrap_or(usize::MAX);
    ClientShare { auto: count(most / 2), most: count(most) }
}

/// Allows the process as many open files as the system lets it have: each request needs two.
pub(crate) fn raise_open_files_limit() {
    let Rlimit { current, maximum } = getrlimit(Resource::Nofile);
    let of = |limit: Option<u64>| limit.unwrap_or(u64::MAX);
    if of(current) < of(maximum)
        && let Err(error) = setrlimit(Resource::Nofile, Rlimit { current: maximum, maximum })
    {
        log::warn!("cannot raise the limit of open files from {} to {}: {error}", of(current), of(maximum));
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn clients_get_a_half_of_what_the_process_does_not_need() {
        for (limit, threads, auto, most) in
            [(256, 2, 88, 176), (1024, 4, 464, 928), (1 << 20, 16, 524_192, 1_048_384), (64, 1, 8, 8), (0, 1, 8, 8)]
        {
            assert_eq!(share_of(limit, threads), ClientShare { auto, most }, "{limit}");
        }
    }
}
