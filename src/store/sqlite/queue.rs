//! The writes that wait for the writer, and which of them share a transaction.
//!
//! Syncing a transaction to disk takes a hundred times as long as writing a client, so all writes that have come while
//! the last one was synced are taken into the next one. Changes of clients go first, as somebody waits for them; a
//! transaction with any of them takes one bucket snapshot along, so that snapshots get on too, however many clients are
//! changed. A batch has a transaction of its own: it may take long, and is rolled back when it is refused.

use std::collections::VecDeque;
use std::sync::mpsc::{Receiver, RecvTimeoutError};
use std::time::Duration;

use tokio::sync::oneshot;

use super::super::{
    Adoption, Authored, Batch, Change, Committed, Difference, Snapshot, StoreError, WriteError, micros, plan,
};
use super::adopt;
use super::buckets;
use super::changes::{ChangeStop, ClientRows};

/// At most so many changes of clients are in one transaction: some milliseconds' worth.
const CHANGES: usize = 512;

/// Where an answer goes.
type WriterAnswer<T> = oneshot::Sender<Result<T, WriteError>>;

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
    Change(Change, WriterAnswer<Committed>),
    /// Of many.
    Apply(Batch, WriterAnswer<Difference>),
    /// Of buckets.
    Save(Snapshot, WriterAnswer<()>),
    /// Of what other nodes have changed.
    Adopt(Adoption, WriterAnswer<()>),
    /// Of a text that is kept of the fleet, or is not any more.
    Note(String, Option<String>, WriterAnswer<()>),
}

/// A write that was carried out, or refused, in a transaction that is not committed yet.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are changes of one client")]
pub(super) enum Done {
    /// Of one client.
    Change(Result<Committed, WriteError>, WriterAnswer<Committed>),
    /// Of many.
    Apply(Result<Difference, WriteError>, WriterAnswer<Difference>, DryRun),
    /// Of buckets, or of a text.
    Save(WriterAnswer<()>),
    /// Of what other nodes have changed.
    Adopt(Result<Vec<Committed>, WriteError>, WriterAnswer<()>),
}

/// What came of a write that may yet be carried out again.
#[derive(Debug)]
#[expect(clippy::large_enum_variant, reason = "nearly all are changes of one client")]
pub(super) enum WriteOutcome {
    /// Of a change of one client.
    Change(Result<Committed, WriteError>),
    /// Of a batch.
    Apply(Result<Difference, WriteError>, DryRun),
    /// Of what other nodes have changed.
    Adopt(Result<Vec<Committed>, WriteError>),
    /// Nothing that is told.
    Save,
}

/// Whether a batch only wanted to know.
type DryRun = bool;

impl Write {
    /// Answers that the store cannot.
    pub(super) fn fail(self, error: &StoreError) {
        self.refuse(&WriteError::Unavailable(error.clone()));
    }

    /// Answers with this error.
    pub(super) fn refuse(self, error: &WriteError) {
        match self {
            Write::Change(_, answer) => fail(answer, error),
            Write::Apply(_, answer) => fail(answer, error),
            Write::Save(_, answer) | Write::Adopt(_, answer) | Write::Note(_, _, answer) => fail(answer, error),
        }
    }

    /// Whether it may be carried out without the fleet.
    pub(super) fn is_local(&self) -> bool {
        match self {
            Write::Change(change, _) => change.local,
            Write::Apply(batch, _) => batch.local || batch.dry_run,
            Write::Save(..) | Write::Adopt(..) | Write::Note(..) => true,
        }
    }

    /// What it has changed, by whom and when; of what others have changed nothing.
    pub(super) fn authored(&self, outcome: &WriteOutcome) -> Vec<Authored> {
        let (by, at) = match self {
            Write::Change(change, _) => (&change.by, change.at),
            Write::Apply(batch, _) => (&batch.by, batch.at),
            Write::Save(..) | Write::Adopt(..) | Write::Note(..) => return Vec::new(),
        };
        let at = plan::from_micros(micros(at));
        let authored = |change: &Committed| Authored { change: change.clone(), by: by.clone(), at };
        outcome.changes().iter().map(authored).collect()
    }

    /// The write with what came of it.
    pub(super) fn done(self, outcome: WriteOutcome) -> Done {
        match (self, outcome) {
            (Write::Change(_, answer), WriteOutcome::Change(result)) => Done::Change(result, answer),
            (Write::Apply(_, answer), WriteOutcome::Apply(result, dry_run)) => Done::Apply(result, answer, dry_run),
            (Write::Adopt(_, answer), WriteOutcome::Adopt(result)) => Done::Adopt(result, answer),
            (Write::Save(_, answer) | Write::Adopt(_, answer) | Write::Note(_, _, answer), _) => Done::Save(answer),
            (write, _) => {
                let (answer, _) = oneshot::channel();
                write.fail(&StoreError("the outcome is another write's".to_owned()));
                Done::Save(answer)
            }
        }
    }

    /// Carries it out, within a transaction; with an error, the transaction must be given up.
    pub(super) fn carry_out(&self, clients: &mut ClientRows<'_>) -> (WriteOutcome, Option<rusqlite::Error>) {
        match self {
            Write::Change(change, _) => {
                let (result, error) = split(clients.change(change));
                (WriteOutcome::Change(result), error)
            }
            Write::Apply(batch, _) => {
                let (result, error) = split(clients.apply(batch));
                (WriteOutcome::Apply(result, batch.dry_run), error)
            }
            Write::Adopt(adoption, _) => {
                let (result, error) = split(clients.adopt(adoption));
                (WriteOutcome::Adopt(result), error)
            }
            Write::Save(snapshot, _) => (WriteOutcome::Save, buckets::save(clients.connection(), snapshot).err()),
            Write::Note(name, value, _) => {
                (WriteOutcome::Save, adopt::keep_note(clients.connection(), name, value.as_deref()).err())
            }
        }
    }

    /// The batch, when it is one.
    pub(super) fn batch(&self) -> Option<&Batch> {
        match self {
            Write::Apply(batch, _) => Some(batch),
            _ => None,
        }
    }

    /// What others have changed, when it is that.
    pub(super) fn adoption(&self) -> Option<&Adoption> {
        match self {
            Write::Adopt(adoption, _) => Some(adoption),
            _ => None,
        }
    }

    /// Whether somebody who changes a client waits for it, so that it has to survive a loss of power.
    pub(super) fn is_durable(&self) -> bool {
        !matches!(self, Write::Save(..))
    }
}

impl WriteOutcome {
    /// Whether it is that of a batch that was refused or only wanted to know, or of what others have changed and could
    /// not be taken in, so that its transaction is to be rolled back.
    pub(super) fn is_undone(&self) -> bool {
        matches!(self, WriteOutcome::Apply(Err(_), _) | WriteOutcome::Apply(_, true) | WriteOutcome::Adopt(Err(_)))
    }

    /// Whether it must not be, by what is kept here.
    pub(super) fn is_refused(&self) -> bool {
        let refused = |error: &WriteError| matches!(error, WriteError::Refused(_));
        match self {
            WriteOutcome::Change(Err(error)) | WriteOutcome::Apply(Err(error), _) => refused(error),
            _ => false,
        }
    }

    /// Whether there was nothing to be changed, by what is kept here.
    pub(super) fn is_idle(&self) -> bool {
        matches!(self, WriteOutcome::Change(Ok(_)) | WriteOutcome::Apply(Ok(_), false)) && self.changes().is_empty()
    }

    /// What it has changed.
    pub(super) fn changes(&self) -> &[Committed] {
        match self {
            WriteOutcome::Change(Ok(committed)) if committed.action.is_some() => std::slice::from_ref(committed),
            WriteOutcome::Apply(Ok(difference), false) => &difference.changes,
            WriteOutcome::Adopt(Ok(changes)) => changes,
            _ => &[],
        }
    }
}

impl Done {
    /// Answers what came out. Whoever asked may have gone; that is no matter.
    pub(super) fn answer(self) {
        match self {
            Done::Change(result, answer) => drop(answer.send(result)),
            Done::Apply(result, answer, _) => drop(answer.send(result)),
            Done::Save(answer) => drop(answer.send(Ok(()))),
            Done::Adopt(result, answer) => drop(answer.send(result.map(drop))),
        }
    }

    /// What it has changed.
    pub(super) fn changes(&self) -> &[Committed] {
        match self {
            Done::Change(Ok(committed), _) if committed.action.is_some() => std::slice::from_ref(committed),
            Done::Apply(Ok(difference), _, false) => &difference.changes,
            Done::Adopt(Ok(changes), _) => changes,
            _ => &[],
        }
    }
}

fn fail<T>(answer: WriterAnswer<T>, error: &WriteError) {
    let _ = answer.send(Err(error.clone()));
}

/// Parts what concerns one write from what concerns all.
fn split<T>(result: Result<T, ChangeStop>) -> (Result<T, WriteError>, Option<rusqlite::Error>) {
    match result {
        Ok(done) => (Ok(done), None),
        Err(ChangeStop::Alone(error)) => (Err(error), None),
        // Never sent as it is: the transaction fails, and its reason is the answer.
        Err(ChangeStop::All(error)) => (Err(StoreError(error.to_string()).into()), Some(error)),
    }
}

/// The waiting writes.
#[derive(Debug)]
pub(super) struct Queue {
    incoming: Receiver<Request>,
    clients: VecDeque<Write>,
    snapshots: VecDeque<Write>,
    closed: bool,
    /// Whether the last group was a batch.
    batched: bool,
}

impl Queue {
    /// The writes that come through `incoming`.
    pub(super) fn new(incoming: Receiver<Request>) -> Self {
        Queue { incoming, clients: VecDeque::new(), snapshots: VecDeque::new(), closed: false, batched: false }
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
        let batch = self.clients.iter().position(|write| matches!(write, Write::Apply(..) | Write::Adopt(..)));
        // Between two batches a snapshot has its turn.
        self.batched = batch == Some(0) && (self.snapshots.is_empty() || !self.batched);
        if self.batched {
            return self.clients.drain(..1).collect();
        }
        let count = batch.unwrap_or(self.clients.len()).min(CHANGES);
        let mut group: Vec<_> = self.clients.drain(..count).collect();
        group.extend(self.snapshots.pop_front());
        group
    }

    /// Answers all that wait, and all that have come, that the store cannot.
    pub(super) fn fail(&mut self, error: &StoreError) {
        self.wait(Duration::ZERO);
        self.clients.drain(..).chain(self.snapshots.drain(..)).for_each(|write| write.fail(error));
    }
}

#[cfg(test)]
mod tests {
    use std::sync::mpsc::channel;

    use super::super::super::samples::{batch, set, snapshot};
    use super::super::super::{Reply, samples};
    use super::*;

    #[test]
    fn a_batch_is_alone_and_keeps_no_snapshot_waiting() {
        let (requests, incoming) = channel();
        let send = |write| requests.send(Request::Write(write)).unwrap();
        let apply = || Write::Apply(batch(vec![], false), Reply::new().0);
        let change = || Write::Change(set("a", samples::profile(1, 1.0)), Reply::new().0);
        for write in [apply(), apply(), change(), change(), apply(), apply()] {
            send(write);
        }
        for at in 0..3 {
            send(Write::Save(snapshot(vec![], vec![], at), Reply::new().0));
        }
        let mut queue = Queue::new(incoming);
        queue.wait(Duration::ZERO);
        let mut groups = String::new();
        while !queue.is_empty() {
            for write in queue.group() {
                groups.push(match write {
                    Write::Change(..) => 'c',
                    Write::Apply(..) => 'b',
                    Write::Save(..) => 's',
                    Write::Adopt(..) | Write::Note(..) => '?',
                });
            }
            groups.push(' ');
        }
        assert_eq!(groups, "b s b ccs b s b ");
    }
}
