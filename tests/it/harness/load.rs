//! Closed-loop load: so many clients, each sending its next request as soon as the last one is answered.
//!
//! Every request that is not answered whole is counted as failed, with the reason. A connection that ends after an
//! answer that said so is no failure; one that ends in any other way is, and so is one that cannot be made.

use std::collections::BTreeMap;
use std::net::SocketAddr;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, AtomicU64, Ordering};
use std::thread::JoinHandle;

use super::client::{Client, Request};
use super::{PATIENCE, eventually};

/// Running load.
#[derive(Debug)]
pub(crate) struct Load {
    stop: Arc<AtomicBool>,
    answered: Arc<AtomicU64>,
    clients: Vec<JoinHandle<Outcome>>,
}

/// What came of it.
#[derive(Debug, Default)]
pub(crate) struct Outcome {
    /// How many answers had which status.
    pub(crate) statuses: BTreeMap<u16, u64>,
    /// Why requests failed.
    pub(crate) failures: Vec<String>,
}

impl Outcome {
    /// Answers in all.
    pub(crate) fn answered(&self) -> u64 {
        self.statuses.values().sum()
    }

    /// Answers with this status.
    pub(crate) fn with(&self, status: u16) -> u64 {
        self.statuses.get(&status).copied().unwrap_or_default()
    }

    fn add(&mut self, other: Outcome) {
        for (status, count) in other.statuses {
            *self.statuses.entry(status).or_default() += count;
        }
        self.failures.extend(other.failures);
    }
}

/// How the clients of a load behave.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Behaviour {
    /// How many there are.
    pub(crate) clients: usize,
    /// Whether they keep their connections.
    pub(crate) kept: bool,
    /// Whether one that cannot connect is done, rather than failed.
    pub(crate) until_refused: bool,
}

impl Load {
    /// Starts `clients` clients that send `GET target` with these headers, over kept connections or a fresh one each
    /// time.
    pub(crate) fn start(
        address: SocketAddr,
        (clients, kept): (usize, bool),
        target: &str,
        headers: &[(&str, &str)],
    ) -> Self {
        Self::with(address, Behaviour { clients, kept, until_refused: false }, target, headers)
    }

    /// The same, as `behaviour` says.
    pub(crate) fn with(address: SocketAddr, behaviour: Behaviour, target: &str, headers: &[(&str, &str)]) -> Self {
        let (stop, answered): (Arc<AtomicBool>, Arc<AtomicU64>) = Default::default();
        let headers: Vec<_> = headers.iter().map(|(name, value)| (name.to_string(), value.to_string())).collect();
        let client = || {
            let (stop, answered, target, headers) =
                (Arc::clone(&stop), Arc::clone(&answered), target.to_owned(), headers.clone());
            std::thread::spawn(move || {
                let headers: Vec<_> = headers.iter().map(|(name, value)| (name.as_str(), value.as_str())).collect();
                let request = Request::new("GET", &target).headers(&headers);
                run(address, behaviour, &request, &stop, &answered)
            })
        };
        let clients = (0..behaviour.clients).map(|_| client()).collect();
        Load { stop, answered, clients }
    }

    /// How many requests were answered so far.
    pub(crate) fn answered(&self) -> u64 {
        self.answered.load(Ordering::Relaxed)
    }

    /// Waits until so many more were answered.
    #[track_caller]
    pub(crate) fn wait_for(&self, more: u64) {
        let goal = self.answered() + more;
        assert!(eventually(PATIENCE, || self.answered() >= goal), "the load stands still at {}", self.answered());
    }

    /// Ends it after the requests that are under way.
    #[track_caller]
    pub(crate) fn stop(self) -> Outcome {
        self.stop.store(true, Ordering::Relaxed);
        self.finish()
    }

    /// Waits until it has ended by itself.
    #[track_caller]
    pub(crate) fn finish(self) -> Outcome {
        let mut outcome = Outcome::default();
        self.clients.into_iter().for_each(|client| outcome.add(client.join().unwrap()));
        outcome
    }
}

fn run(
    address: SocketAddr,
    behaviour: Behaviour,
    request: &Request<'_>,
    stop: &AtomicBool,
    answered: &AtomicU64,
) -> Outcome {
    let (mut outcome, mut connection) = (Outcome::default(), None);
    while !stop.load(Ordering::Relaxed) {
        let mut client: Client = match connection.take() {
            Some(client) => client,
            None => match Client::try_connect(address) {
                Ok(client) => client,
                Err(_) if behaviour.until_refused => break,
                Err(error) => {
                    outcome.failures.push(format!("connect: {error}"));
                    continue;
                }
            },
        };
        match client.call(request) {
            Ok(answer) => {
                *outcome.statuses.entry(answer.status).or_default() += 1;
                answered.fetch_add(1, Ordering::Relaxed);
                connection = (behaviour.kept && !answer.closes()).then_some(client);
            }
            Err(error) => outcome.failures.push(format!("request: {error}")),
        }
        if outcome.failures.len() > 100 {
            break;
        }
    }
    outcome
}
