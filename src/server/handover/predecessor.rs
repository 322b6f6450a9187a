//! The process that serves and is asked to make room.

use std::collections::HashMap;
use std::io::{self, PipeReader};
use std::os::fd::AsFd;
use std::os::unix::net::UnixStream;
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::Receiver;
use std::thread::JoinHandle;
use std::time::Duration;

use log::{debug, info, warn};
use parking_lot::Mutex;
use tokio::sync::oneshot;

use super::beside;
use super::beside::Inherited;
use super::conversation::Conversation;
use super::debits::Told;
use super::surroundings::{Surroundings, no_client, pipe_with};
use super::wire::{Debit, Message, PIECE, SOCKETS, SOME_BACKENDS, VERSION};
use crate::client::Quota;
use crate::clock::Clock;
use crate::limit::{Bucket, Charge, Key, Tokens};
use crate::process::descriptors::open_files_limit;
use crate::process::{Channel, Process, Sockets, trusted};
use crate::server::buckets::{Buckets, HandedOver};
use crate::server::lifecycle::{Lifecycle, State};
use crate::store::{ClientRepository, Saved};
use crate::telemetry::Series;
use crate::tls::TlsListeners;

/// How long somebody may need to be there.
const CONNECT: Duration = Duration::from_secs(5);
/// How long the successor may need to build everything.
const PREPARE: Duration = Duration::from_secs(60);
/// How long it may need to begin once it has everything.
const BEGIN: Duration = Duration::from_secs(10);
/// How long it may need to take one message.
const TAKE: Duration = Duration::from_secs(5);
/// How often it is made sure that it is still there, and debits are sent.
const LOOK: Duration = Duration::from_millis(20);
/// How long a successor must live until its predecessor believes in it.
pub(super) const SETTLING: Duration = Duration::from_secs(5);
/// How long the last debits may need.
const LAST: Duration = Duration::from_secs(1);

/// What a process that serves can hand over.
pub(in crate::server) struct Predecessor {
    pub(in crate::server) process: Arc<Process>,
    pub(in crate::server) sockets: Sockets,
    pub(in crate::server) tls: Arc<TlsListeners>,
    pub(in crate::server) estate: Estate,
    /// The database, as its successor must have it to know the same clients by the same numbers.
    pub(in crate::server) database: Option<String>,
    /// The clients, which go by the database or not at all.
    pub(in crate::server) clients: Arc<dyn ClientRepository>,
    /// The secret of its sticky cookies, where no database keeps it.
    pub(in crate::server) sticky: Option<u128>,
    /// What the last minutes were like.
    pub(in crate::server) series: Arc<Series>,
    pub(in crate::server) lifecycle: Lifecycle,
    pub(in crate::server) clock: Arc<dyn Clock>,
}

/// The buckets, and what is given of them afterwards.
pub(in crate::server) struct Estate {
    pub(in crate::server) buckets: Arc<Buckets>,
    pub(in crate::server) told: Arc<Told>,
    pub(in crate::server) given: Mutex<Receiver<Charge>>,
}

/// What became of it.
#[derive(Debug, PartialEq, Eq)]
pub(in crate::server) enum Outcome {
    /// The successor serves and will go on to; here nothing remains but to finish.
    Leaves,
    /// Nothing has changed, or everything is as it was; this is why.
    Stays(String),
}

/// What a successor knows that versions before did not.
#[derive(Clone, Copy, Debug, Default)]
struct Known {
    policies: bool,
    minutes: bool,
    owed: bool,
}

/// A hand-over that was begun.
#[derive(Debug)]
pub(in crate::server) struct Underway {
    outcome: oneshot::Receiver<Outcome>,
    flags: Arc<Flags>,
    thread: JoinHandle<()>,
}

/// What its thread is told.
#[derive(Debug, Default)]
struct Flags {
    /// The process is to stop: decide soon.
    hurry: AtomicBool,
    /// The last request is answered.
    drained: AtomicBool,
}

impl Underway {
    /// What becomes of it. To be asked until it has answered once.
    pub(in crate::server) async fn outcome(&mut self) -> Outcome {
        (&mut self.outcome).await.unwrap_or_else(|_| Outcome::Stays("the hand-over ended by a fault".to_owned()))
    }

    /// Has it decided soon, because the process is to stop: what is not handed over yet stays here.
    pub(in crate::server) fn hurry(&self) {
        self.flags.hurry.store(true, Ordering::SeqCst);
    }

    /// Sends what is left to be told, when the last request is answered. Blocks the thread, for about a second at most.
    pub(in crate::server) fn finish(self, clock: &dyn Clock) {
        self.flags.drained.store(true, Ordering::SeqCst);
        let end = clock.now() + 2 * LAST;
        while !self.thread.is_finished() && clock.now() < end {
            std::thread::park_timeout(LOOK / 4);
        }
    }
}

impl Predecessor {
    /// Hands over on a thread of its own.
    ///
    /// # Errors
    /// When there can be no such thread.
    pub(in crate::server) fn begin(self: &Arc<Self>) -> io::Result<Underway> {
        let (tell, outcome) = oneshot::channel();
        let (this, flags) = (Arc::clone(self), Arc::new(Flags::default()));
        let told = Arc::clone(&flags);
        let thread = std::thread::Builder::new().name("hand-over".to_owned()).spawn(move || this.run(&told, tell))?;
        Ok(Underway { outcome, flags, thread })
    }

    fn run(&self, flags: &Flags, tell: oneshot::Sender<Outcome>) {
        let mut channel = match connect(self.process.upgrade_sock(), self.clock.as_ref(), flags) {
            Ok(stream) => Conversation::over(Channel::new(stream, Arc::clone(&self.clock))),
            Err(reason) => return drop(tell.send(Outcome::Stays(reason))),
        };
        let handed = self.prepare(&mut channel, flags);
        let settled = handed.and_then(|knows| {
            if knows.minutes {
                self.send_minutes(&mut channel)?;
            }
            self.hand_over(&mut channel, knows, flags)?;
            self.settle(&mut channel, knows, flags).map(|()| knows)
        });
        let knows = match settled {
            Ok(knows) => knows,
            Err(reason) => {
                self.take_back();
                // It may be past hearing.
                drop(channel.send(&Message::Refused(reason.clone()), LAST));
                return drop(tell.send(Outcome::Stays(reason)));
            }
        };
        // Nobody asks when the process is to stop anyway.
        drop(tell.send(Outcome::Leaves));
        self.send_the_rest(&mut channel, knows, flags);
    }

    /// Names itself, gives the sockets, and waits until the successor has built everything. What that one knows:
    /// a version before policies is told of none.
    fn prepare(&self, channel: &mut Conversation, flags: &Flags) -> Result<Known, String> {
        let sockets = self.sockets.all().map_err(|error| format!("the sockets cannot be duplicated: {error}"))?;
        let hello = Message::Hello {
            version: VERSION,
            pid: std::process::id(),
            sockets: sockets.len() as u32,
            database: self.database.clone().unwrap_or_default(),
        };
        channel.send(&hello, TAKE).map_err(gone)?;
        let piped = |bytes: &[u8]| pipe_with(bytes).map_err(|error| format!("a pipe cannot be had: {error}"));
        let (beside, surroundings) = (piped(&self.beside())?, piped(&self.surroundings())?);
        let mut pieces = sockets.chunks(SOCKETS - 4).peekable();
        while let Some(some) = pieces.next() {
            // That there is a second one says that policies are known here; the third says that the last minutes are, the
            // fourth that what is owed is, and nothing else.
            let last = [&beside, &surroundings, &beside, &beside].map(PipeReader::as_fd);
            let last = pieces.peek().is_none().then_some(last);
            let last = last.into_iter().flatten();
            let descriptors: Vec<_> = some.iter().map(|(_, socket)| socket.as_fd()).chain(last).collect();
            let addresses = some.iter().map(|(address, _)| address.clone()).collect();
            channel.send_with(&Message::Sockets(addresses), &descriptors, TAKE).map_err(gone)?;
        }
        drop(sockets);
        let mut known = Known::default();
        loop {
            match self.wait(channel, PREPARE, flags)? {
                Message::KnowsPolicies => known.policies = true,
                Message::KnowsMinutes => known.minutes = true,
                Message::KnowsOwed => known.owed = true,
                Message::Prepared if self.database.is_none() => return no_client(&*self.clients).map(|()| known),
                Message::Prepared => return Ok(known),
                other => return Err(unexpected(&other)),
            }
        }
    }

    /// The keys of tickets, and what else goes with them.
    fn beside(&self) -> Vec<u8> {
        let tickets = self.tls.tickets().secrets(self.clock.now());
        beside::encode(&Inherited { tickets, sticky: self.sticky })
    }

    /// What a successor must have, too.
    fn surroundings(&self) -> Vec<u8> {
        let variables = self.process.variables().to_vec();
        Surroundings { variables, open_files: Some(open_files_limit()) }.encode()
    }

    /// Tells what the last minutes were like.
    fn send_minutes(&self, channel: &mut Conversation) -> Result<(), String> {
        channel.send(&Message::Minutes(self.series.since(0)), TAKE).map_err(gone)?;
        let backends = self.series.backends();
        let mut pieces = backends.chunks(SOME_BACKENDS);
        pieces.try_for_each(|piece| channel.send(&Message::Backends(piece.to_vec()), TAKE)).map_err(gone)
    }

    /// Gives the buckets, stops accepting, and waits until the successor accepts.
    fn hand_over(&self, channel: &mut Conversation, knows: Known, flags: &Flags) -> Result<(), String> {
        let start = self.clock.now();
        let Estate { buckets, told, .. } = &self.estate;
        let handed = buckets.begin_hand_over().ok_or("the database takes too long to save the buckets")?;
        send_buckets(channel, handed, knows.policies)?;
        let stopped = self.clock.now();
        if !self.lifecycle.advance(State::HandingOver) {
            return Err("the server is not ready any more".to_owned());
        }
        told.switch(true);
        send_buckets(channel, buckets.hand_over_the_rest(), knows.policies)?;
        self.send_owed(channel, knows, false)?;
        channel.send(&Message::Go, TAKE).map_err(gone)?;
        match self.wait(channel, BEGIN, flags)? {
            Message::Serving => {
                let now = self.clock.now();
                let (all, stall) = (now.saturating_duration_since(start), now.saturating_duration_since(stopped));
                debug!("handed over in {all:?}; nobody accepted for {stall:?}");
                Ok(())
            }
            other => Err(unexpected(&other)),
        }
    }

    /// Makes sure for a while that the successor lives, and tells it what is given here.
    fn settle(&self, channel: &mut Conversation, knows: Known, flags: &Flags) -> Result<(), String> {
        info!("the successor serves; here what is begun is finished");
        let end = self.clock.now() + SETTLING;
        while self.clock.now() < end && !flags.hurry.load(Ordering::SeqCst) {
            self.send_debits(channel, knows)?;
            self.send_owed(channel, knows, false)?;
            if channel.has_news(LOOK) {
                match channel.receive(TAKE).map_err(gone)? {
                    // It was asked to stop; that is no reason to serve again.
                    Message::Settled => return Ok(()),
                    other => return Err(unexpected(&other)),
                }
            }
        }
        channel.send(&Message::Settled, TAKE).map_err(gone)
    }

    /// Tells what is given until the last request is answered.
    fn send_the_rest(&self, channel: &mut Conversation, knows: Known, flags: &Flags) {
        loop {
            let drained = flags.drained.load(Ordering::SeqCst);
            let sent = self.send_debits(channel, knows).and_then(|()| self.send_owed(channel, knows, drained));
            if let Err(reason) = sent {
                return warn!("tokens that were given here are not known to the successor: {reason}");
            }
            if drained {
                return;
            }
            std::thread::park_timeout(LOOK);
        }
    }

    /// Everything is as it was: it accepts again, saves again, and is the one that counts. Does nothing when it is so
    /// already.
    pub(super) fn take_back(&self) {
        let Estate { buckets, told, given } = &self.estate;
        told.switch(false);
        buckets.take_back();
        given.lock().try_iter().for_each(drop);
        if self.lifecycle.state() == State::HandingOver {
            self.process.put_pid_file_back();
            if self.lifecycle.advance(State::Ready) {
                self.process.serves("an upgrade failed; serving");
            }
        }
    }

    /// Tells what was given since it was last told.
    fn send_debits(&self, channel: &mut Conversation, knows: Known) -> Result<(), String> {
        let mut debits: HashMap<(Key, Quota), u32> = HashMap::new();
        for Charge { key, quota, cost } in self.estate.given.lock().try_iter() {
            let sum = debits.entry((key, quota)).or_default();
            *sum = sum.saturating_add(cost.get());
        }
        let keys = self.estate.buckets.keys();
        let debit = |((key, quota), tokens)| Some(Debit { payer: keys.payer(key)?, tokens, quota });
        let debits = debits.into_iter().filter_map(debit);
        let debits: Vec<_> = debits.filter(|debit| knows.policies || debit.payer.policy().is_none()).collect();
        let mut pieces = debits.chunks(PIECE);
        pieces.try_for_each(|piece| channel.send(&Message::Debits(piece.to_vec()), TAKE)).map_err(gone)
    }

    /// Gives what the fleet's store is still to be told, while it is away or in the `end`.
    fn send_owed(&self, channel: &mut Conversation, knows: Known, end: bool) -> Result<(), String> {
        if !knows.owed {
            return Ok(());
        }
        let owed = self.estate.buckets.hand_over_owed(end);
        owed.chunks(PIECE).try_for_each(|piece| channel.send(&Message::Owed(piece.to_vec()), TAKE)).map_err(gone)
    }

    /// Waits for a message, for `limit` at most, or until the process is to stop.
    fn wait(&self, channel: &mut Conversation, limit: Duration, flags: &Flags) -> Result<Message, String> {
        let end = self.clock.now() + limit;
        while !channel.has_news(LOOK) {
            if flags.hurry.load(Ordering::SeqCst) {
                return Err("the running process is to stop".to_owned());
            }
            if self.clock.now() >= end {
                return Err(format!("the successor was not there within {limit:?}"));
            }
        }
        channel.receive(TAKE).map_err(gone)
    }
}

/// Gives these buckets, those of policies where the successor `knows` them.
fn send_buckets(channel: &mut Conversation, handed: HandedOver, knows: bool) -> Result<(), String> {
    let HandedOver { at, mut changed, mut dropped } = handed;
    changed.retain(|saved| knows || saved.payer.policy().is_none());
    dropped.retain(|payer| knows || payer.policy().is_none());
    if !knows {
        // Nor does it know of tokens above a capacity.
        for Saved { bucket, quota, .. } in &mut changed {
            let most = Tokens::whole(quota.capacity().get());
            *bucket = Bucket::resume(bucket.tokens().min(most), bucket.at());
        }
    }
    for piece in changed.chunks(PIECE) {
        let message = Message::Buckets { at, changed: piece.to_vec(), dropped: Vec::new() };
        channel.send(&message, TAKE).map_err(gone)?;
    }
    for piece in dropped.chunks(PIECE) {
        let message = Message::Buckets { at, changed: Vec::new(), dropped: piece.to_vec() };
        channel.send(&message, TAKE).map_err(gone)?;
    }
    Ok(())
}

/// Finds a successor.
fn connect(path: &Path, clock: &dyn Clock, flags: &Flags) -> Result<UnixStream, String> {
    let end = clock.now() + CONNECT;
    loop {
        match UnixStream::connect(path) {
            Ok(stream) if trusted(&stream) => return Ok(stream),
            Ok(_) => return Err(format!("the process at {} is another user's", path.display())),
            Err(_) if clock.now() < end && !flags.hurry.load(Ordering::SeqCst) => std::thread::park_timeout(LOOK),
            Err(error) => {
                return Err(format!(
                    "nobody to take over at {} ({error}): start the successor first with tollgate -c FILE -u, or use \
                     tollgate upgrade",
                    path.display()
                ));
            }
        }
    }
}

fn gone(error: io::Error) -> String {
    match error.kind() {
        io::ErrorKind::UnexpectedEof | io::ErrorKind::BrokenPipe | io::ErrorKind::ConnectionReset => {
            "the successor ended".to_owned()
        }
        _ => format!("the successor: {error}"),
    }
}

fn unexpected(message: &Message) -> String {
    match message {
        Message::Refused(reason) => format!("the successor gave up: {reason}"),
        _ => "the successor said what makes no sense here".to_owned(),
    }
}
