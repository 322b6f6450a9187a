//! The writes that wait for the writer, and which of them share a transaction.
//!
//! Syncing a transaction to disk takes a hundred times as long as writing a client, so all writes that have come while
//! the last one was synced are taken into the next one. Changes of clients go first, as somebody waits for them; a
//! transaction with any of them takes one bucket snapshot along, so that snapshots get on too, however many clients are
//! changed.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::{Batch, Change, Committed, Difference, Snapshot, StoreError, WriteError};
use super::buckets;
use super::changes::{Clients, Stop};

/// At most so many changes of clients are in one transaction: some milliseconds' worth.
const CHANGES: usize = 512;

/// Where an answer goes.
type Answer<T> = oneshot::Sender<Result<T, WriteError>>;

/// What the writer is asked for.
#[derive(Debug)]
pub(super) enum Request {
    /// A write.
    Write(Write),
    /// To end, after what came before.
    Close,
}

/// A write, and where its answer goes.
#[derive(Debug)]
pub(super) enum Write {
    /// Of one client.
    Change(Change, Answer<Committed>),
    /// Of many.
    Apply(Batch, Answer<Difference>),
    /// Of buckets.
    Save(Snapshot, Answer<()>),
}

/// A write that was carried out, or refused, in a transaction that is not committed yet.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are changes of one client")]
pub(super) enum Done {
    /// Of one client.
    Change(Result<Committed, WriteError>, Answer<Committed>),
    /// Of many. A dry run has changed nothing.
    Apply(Result<Difference, WriteError>, Answer<Difference>, DryRun),
    /// Of buckets.
    Save(Answer<()>),
}

/// Whether a batch only wanted to know.
type DryRun = bool;

impl Write {
    /// Answers that the store cannot.
    pub(super) fn fail(self, error: &StoreError) {
        match self {
            Write::Change(_, answer) => fail(answer, error),
            Write::Apply(_, answer) => fail(answer, error),
            Write::Save(_, answer) => fail(answer, error),
        }
    }

    /// Carries it out, within a transaction; with an error, the transaction must be given up.
    pub(super) fn carry_out(self, clients: &mut Clients<'_>) -> (Done, Option<rusqlite::Error>) {
        match self {
            Write::Change(change, answer) => {
                let (result, error) = split(clients.change(change));
                (Done::Change(result, answer), error)
            }
            Write::Apply(batch, answer) => {
                let dry_run = batch.dry_run;
                let (result, error) = split(clients.apply(batch));
                (Done::Apply(result, answer, dry_run), error)
            }
            Write::Save(snapshot, answer) => (Done::Save(answer), buckets::save(clients.connection(), snapshot).err()),
        }
    }

    /// Whether somebody who changes a client waits for it, so that it has to survive a loss of power.
    pub(super) fn is_durable(&self) -> bool {
        !matches!(self, Write::Save(..))
    }
}

impl Done {
    /// Answers that the store cannot, whatever the result would have been: a refusal, too, may rest on what is not kept
    /// now.
    pub(super) fn fail(self, error: &StoreError) {
        match self {
            Done::Change(_, answer) => fail(answer, error),
            Done::Apply(_, answer, _) => fail(answer, error),
            Done::Save(answer) => fail(answer, error),
        }
    }

    /// Answers what came out. Whoever asked may have gone; that is no matter.
    pub(super) fn answer(self) {
        match self {
            Done::Change(result, answer) => drop(answer.send(result)),
            Done::Apply(result, answer, _) => drop(answer.send(result)),
            Done::Save(answer) => drop(answer.send(Ok(()))),
        }
    }

    /// What it has changed.
    pub(super) fn changes(&self) -> &[Committed] {
        match self {
            Done::Change(Ok(committed), _) if committed.action.is_some() => std::slice::from_ref(committed),
            Done::Apply(Ok(difference), _, false) => &difference.changes,
            _ => &[],
        }
    }
}

fn fail<T>(answer: Answer<T>, error: &StoreError) {
    let _ = answer.send(Err(error.clone().into()));
}

/// Parts what concerns one write from what concerns all.
fn split<T>(result: Result<T, Stop>) -> (Result<T, WriteError>, Option<rusqlite::Error>) {
    match result {
        Ok(done) => (Ok(done), None),
        Err(Stop::Alone(error)) => (Err(error), None),
        // Never sent as it is: the transaction fails, and its reason is the answer.
        Err(Stop::All(error)) => (Err(StoreError(error.to_string()).into()), Some(error)),
    }
}

/// The waiting writes.
#[derive(Debug)]
pub(super) struct Queue {
    incoming: Receiver<Request>,
    clients: VecDeque<Write>,
    snapshots: VecDeque<Write>,
    closed: bool,
}

impl Queue {
    /// The writes that come through `incoming`.
    pub(super) fn new(incoming: Receiver<Request>) -> Self {
        Queue { incoming, clients: VecDeque::new(), snapshots: VecDeque::new(), closed: false }
    }

    /// Waits until there is a write, it is closed, or `timeout` is over, and takes in all that have come.
    pub(super) fn wait(&mut self, timeout: Duration) {
        if self.is_empty() && !self.closed {
            match self.incoming.recv_timeout(timeout) {
                Ok(request) => self.take(request),
                Err(RecvTimeoutError::Timeout) => {}
                Err(RecvTimeoutError::Disconnected) => self.closed = true,
            }
        }
        while let Ok(request) = self.incoming.try_recv() {
            self.take(request);
        }
    }

    fn take(&mut self, request: Request) {
        match request {
            Request::Write(write) if write.is_durable() => self.clients.push_back(write),
            Request::Write(write) => self.snapshots.push_back(write),
            Request::Close => self.closed = true,
        }
    }

    /// Whether nothing waits.
    pub(super) fn is_empty(&self) -> bool {
        self.clients.is_empty() && self.snapshots.is_empty()
    }

    /// Whether nothing will come any more.
    pub(super) fn is_closed(&self) -> bool {
        self.closed
    }

    /// The writes of the next transaction, in their order.
    pub(super) fn group(&mut self) -> Vec<Write> {
        // A batch is the last of its group, as it may take long.
        let batch = self.clients.iter().position(|write| matches!(write, Write::Apply(..))).map(|at| at + 1);
        let count = batch.unwrap_or(self.clients.len()).min(CHANGES);
        let mut group: Vec<_> = self.clients.drain(..count).collect();
        group.extend(self.snapshots.pop_front());
        group
    }
}
