//! The process that takes over.

use std::collections::BTreeMap;
use std::io;
use std::num::NonZeroU32;
use std::path::Path;
use std::sync::Arc;
use std::time::Duration;

use log::{info, warn};

use super::beside;
use super::beside::Inherited;
use super::conversation::Conversation;
use super::debits::Told;
use super::surroundings::{StartEnvironment, Surroundings, no_new_database};
use super::wire::{Message, VERSION};
use crate::client::Quota;
use crate::clock::Clock;
use crate::limit::{Charge, Nanos, Payer};
use crate::process::daemon::Milestone;
use crate::process::descriptors::open_files_limit;
use crate::process::{Channel, ListenAddress, ListeningSocket, MeetingPlace, Process, trusted};
use crate::server::buckets::{Buckets, HandedOver};
use crate::server::lifecycle::{Lifecycle, State};
use crate::store::SavedOwed;
use crate::telemetry::Series;

/// How long a predecessor may need to come.
const COME: Duration = Duration::from_secs(30);
/// How long it may need for one message.
const SAY: Duration = Duration::from_secs(5);
/// How long between two debits it may be silent; the end of the connection ends the wait anyway.
const SILENCE: Duration = Duration::from_secs(2 * 86_400);
/// How long it may need for its buckets, which may still be being saved.
const GIVE: Duration = Duration::from_secs(15);
/// How often it is made sure that nobody stops this process.
const LOOK: Duration = Duration::from_millis(20);
/// More sockets than any configuration names.
const MOST_SOCKETS: u32 = 10_000;

/// A process at whose socket its predecessor may come.
#[derive(Debug)]
pub(in crate::server) struct Waiting(MeetingPlace);

impl Waiting {
    /// Waits at `path`. A socket that an earlier process left there is removed; anything else stays as it is.
    ///
    /// # Errors
    /// When another process waits there, or nobody can.
    pub(in crate::server) fn at(path: &Path) -> Result<Self, String> {
        MeetingPlace::at(path).map(Waiting)
    }

    /// Waits until a predecessor has come and given its sockets. Whoever else comes does no harm.
    ///
    /// # Errors
    /// When none comes in time.
    pub(in crate::server) fn wait(self, clock: &Arc<dyn Clock>) -> Result<Successor, String> {
        let end = clock.now() + COME;
        while let Some(stream) = self.0.next(end, clock.as_ref()) {
            if !trusted(&stream) {
                warn!("{}: a process of another user came", self.0.path().display());
                continue;
            }
            match Successor::meet(Conversation::over(Channel::new(stream, Arc::clone(clock)))) {
                Ok(successor) => return Ok(successor),
                Err(error) => warn!("{}: somebody came who is no predecessor: {error}", self.0.path().display()),
            }
        }
        Err(format!(
            "no running process came to {} within {COME:?}: send SIGQUIT to the one that is to be replaced, or use \
             tollgate upgrade",
            self.0.path().display()
        ))
    }
}

/// A process that has its predecessor's sockets, and builds the rest.
pub(in crate::server) struct Successor {
    channel: Conversation,
    pid: u32,
    database: String,
    sockets: BTreeMap<ListenAddress, ListeningSocket>,
    inherited: Inherited,
    surroundings: Surroundings,
}

impl Successor {
    /// Hears who it is, and takes the sockets.
    fn meet(mut channel: Conversation) -> io::Result<Self> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let (pid, count, database) = match channel.receive_hello(SAY)? {
            Ok(Message::Hello { pid, sockets, database, .. }) if sockets <= MOST_SOCKETS => (pid, sockets, database),
            Ok(Message::Hello { sockets, .. }) => return Err(wrong(format!("it has {sockets} sockets"))),
            Ok(_) => return Err(wrong("it did not say hello".to_owned())),
            Err(version) => {
                let reason =
                    format!("the two versions of tollgate hand over in different ways ({version} and {VERSION})");
                drop(channel.send(&Message::Refused(reason.clone()), SAY));
                return Err(wrong(reason));
            }
        };
        let mut sockets = BTreeMap::new();
        while sockets.len() < count as usize {
            let Message::Sockets(addresses) = channel.receive(SAY)? else {
                return Err(wrong("it did not give its sockets".to_owned()));
            };
            if addresses.is_empty() {
                return Err(wrong("it gave no sockets".to_owned()));
            }
            for address in addresses {
                let socket = ListeningSocket::given(channel.next_socket()?, &address);
                match socket {
                    Ok(socket) if !sockets.contains_key(&address) => drop(sockets.insert(address, socket)),
                    _ => return Err(wrong(format!("it gave a wrong socket for {address}"))),
                }
            }
        }
        let inherited = beside::decode(&channel.beside().unwrap_or_default());
        let told = channel.beside();
        if told.is_some() {
            channel.send(&Message::KnowsPolicies, SAY)?;
        }
        let surroundings = Surroundings::decode(&told.unwrap_or_default());
        if channel.has_descriptor() {
            channel.send(&Message::KnowsMinutes, SAY)?;
        }
        if channel.has_descriptor() {
            channel.send(&Message::KnowsOwed, SAY)?;
        }
        Ok(Successor { channel, pid, database, sockets, inherited, surroundings })
    }

    /// The predecessor's process id.
    pub(in crate::server) fn predecessor(&self) -> u32 {
        self.pid
    }

    /// Makes sure that this process, which was started in `environment` and will have this database, may take over.
    ///
    /// # Errors
    /// What its predecessor has and this one would not, and what to do.
    pub(in crate::server) fn may_take_over(
        &self,
        environment: &StartEnvironment,
        database: Option<&Path>,
    ) -> Result<(), String> {
        self.surroundings.lacked(self.pid, environment)?;
        no_new_database(self.pid, &self.database, database)?;
        if let Some(fewer) = self.surroundings.fewer_files(self.pid, open_files_limit()) {
            warn!("{fewer}");
        }
        Ok(())
    }

    /// Its socket for `address`, once.
    pub(in crate::server) fn take_socket(&mut self, address: &ListenAddress) -> Option<ListeningSocket> {
        self.sockets.remove(address)
    }

    /// The keys that its TLS tickets are sealed with, and what else it keeps to itself; none of a predecessor that
    /// hands on none.
    pub(in crate::server) fn take_inherited(&mut self) -> Inherited {
        std::mem::take(&mut self.inherited)
    }

    /// Lets go of the sockets that nobody has taken.
    pub(in crate::server) fn drop_the_rest(&mut self) {
        for (address, _) in std::mem::take(&mut self.sockets) {
            info!("{address} is not taken over: the configuration does not name it any more");
        }
    }

    /// Tells the predecessor that it comes to nothing, and why.
    pub(in crate::server) fn refuse(mut self, reason: &str) {
        // One that is gone knows.
        drop(self.channel.send(&Message::Refused(reason.to_owned()), SAY));
    }
}

/// What a successor needs to take over, once everything is built.
pub(in crate::server) struct TakeOver {
    pub(in crate::server) buckets: Arc<Buckets>,
    /// Where debits go.
    pub(in crate::server) told: Arc<Told>,
    /// The limiter's time.
    pub(in crate::server) now: Box<dyn Fn() -> Nanos + Send + Sync>,
    /// What a payer has of its own now, none when nobody is known.
    pub(in crate::server) quota: Box<dyn Fn(Payer) -> Option<Quota> + Send + Sync>,
    pub(in crate::server) database: Option<String>,
    /// What the last minutes were like.
    pub(in crate::server) series: Arc<Series>,
    pub(in crate::server) process: Arc<Process>,
    pub(in crate::server) lifecycle: Lifecycle,
}

impl TakeOver {
    /// Takes over on a thread of its own. What goes wrong fails the server.
    pub(in crate::server) fn begin(self, successor: Successor) {
        let lifecycle = self.lifecycle.clone();
        let thread = std::thread::Builder::new().name("take-over".to_owned());
        if let Err(error) = thread.spawn(move || self.run(successor)) {
            lifecycle.fail(format!("the hand-over failed: {error}"));
        }
    }

    /// Takes over, and then listens to the predecessor until it is gone. Blocks the thread. What goes wrong fails the
    /// server.
    pub(super) fn run(self, successor: Successor) {
        let Successor { mut channel, pid, database, .. } = successor;
        let same = self.database.as_ref() == Some(&database);
        if self.database.clone().unwrap_or_default() != database {
            warn!(
                "the running process (pid {pid}) has another database, {database}: clients and their buckets stay there"
            );
        }
        if let Err(reason) = self.take_over(&mut channel, pid, same) {
            self.buckets.give_up_right();
            drop(channel.send(&Message::Refused(reason.clone()), SAY));
            return self.lifecycle.fail(format!("the hand-over failed: {reason}"));
        }
        self.listen(&mut channel, pid, same);
    }

    /// Up to the moment from which it serves.
    fn take_over(&self, channel: &mut Conversation, pid: u32, same: bool) -> Result<(), String> {
        let say = |error: io::Error| format!("the running process (pid {pid}): {error}");
        channel.send(&Message::Prepared, SAY).map_err(say)?;
        let mut restored = false;
        loop {
            match channel.receive(GIVE).map_err(say)? {
                Message::Buckets { at, mut changed, mut dropped } => {
                    if !same {
                        self.restore_once(&mut restored)?;
                        changed.retain(|saved| saved.payer.client_number().is_none());
                        dropped.retain(|payer| payer.client_number().is_none());
                    }
                    self.buckets.take_over(&HandedOver { at, changed, dropped }, &self.quota);
                }
                Message::Owed(owed) => {
                    if !same {
                        self.restore_once(&mut restored)?;
                    }
                    self.take_over_owed(owed, same);
                }
                Message::Minutes(samples) => self.series.inherit(samples),
                Message::Backends(backends) => self.series.inherit_backends(backends),
                Message::Go => {
                    if !same {
                        self.restore_once(&mut restored)?;
                    }
                    break;
                }
                Message::Refused(reason) => return Err(format!("the running process (pid {pid}) goes on: {reason}")),
                _ => return Err(format!("the running process (pid {pid}) said what makes no sense here")),
            }
        }
        self.process.replace_pid_file().map_err(|error| error.to_string())?;
        self.buckets.receive_right();
        if !self.lifecycle.advance(State::Ready) {
            return Err("it was stopped".to_owned());
        }
        // One that cannot hear it any more has not taken back: it would have said so, and the other end is read next.
        if let Err(error) = channel.send(&Message::Serving, SAY) {
            warn!("{}", say(error));
        }
        self.process.serves("serving");
        info!("took over from pid {pid}");
        Ok(())
    }

    /// Reads the saved buckets, unless that was done.
    fn restore_once(&self, done: &mut bool) -> Result<(), String> {
        if std::mem::replace(done, true) {
            return Ok(());
        }
        self.buckets.restore(&self.quota).map(drop).map_err(|error| error.to_string())
    }

    /// Owes what the predecessor owed; of clients only where they are the `same`.
    fn take_over_owed(&self, mut owed: Vec<SavedOwed>, same: bool) {
        owed.retain(|owed| same || owed.payer.client_number().is_none());
        self.buckets.take_over_owed(&owed, &self.quota);
    }

    /// Whether somebody has asked for the end.
    fn is_stopping(&self) -> bool {
        matches!(self.lifecycle.state(), State::Draining | State::Stopped) && self.lifecycle.failure().is_none()
    }

    /// Takes debits until the predecessor is gone.
    fn listen(&self, channel: &mut Conversation, pid: u32, same: bool) {
        let mut settled = false;
        loop {
            while !settled && !channel.has_news(LOOK) {
                if self.is_stopping() {
                    // Whoever stops the service does not want the old process back.
                    let _ = channel.send(&Message::Settled, SAY);
                    settled = true;
                } else if let Some(reason) = self.lifecycle.failure() {
                    // The predecessor serves again at once, and not when the last request here is done.
                    self.buckets.give_up_right();
                    return drop(channel.send(&Message::Refused(reason), SAY));
                }
            }
            match channel.receive(SILENCE) {
                Ok(Message::Debits(debits)) => {
                    for debit in debits.iter().filter(|debit| same || debit.payer.client_number().is_none()) {
                        let Some(cost) = NonZeroU32::new(debit.tokens) else { continue };
                        // A client that was made since is known to nobody here, and pays all the same.
                        let plain = || debit.payer.policy().is_none().then(|| self.buckets.keys().key(debit.payer));
                        let known = self.buckets.whose(debit.payer, &self.quota).map(|(key, _)| key);
                        let Some(key) = known.or_else(plain) else { continue };
                        self.told.debit(Charge { key, quota: debit.quota, cost }, (self.now)());
                    }
                }
                Ok(Message::Owed(owed)) => self.take_over_owed(owed, same),
                Ok(Message::Settled) => {
                    settled = true;
                    self.process.reached(Milestone::Settled);
                }
                Ok(Message::Refused(reason)) if !settled => {
                    self.buckets.give_up_right();
                    return self.lifecycle.fail(format!("the running process (pid {pid}) took back: {reason}"));
                }
                Ok(_) => return warn!("the predecessor (pid {pid}) said what makes no sense here"),
                Err(error) => {
                    if !settled {
                        warn!("the predecessor (pid {pid}) ended at once: {error}");
                        self.process.reached(Milestone::Settled);
                    }
                    return;
                }
            }
        }
    }
}
