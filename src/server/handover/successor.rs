//! The process that takes over.

use std::collections::BTreeMap;
use std::fs::{self, File, FileType, OpenOptions};
use std::io;
use std::net::{SocketAddr, TcpListener};
use std::os::unix::fs::{FileTypeExt, OpenOptionsExt, PermissionsExt};
use std::os::unix::net::{UnixListener, UnixStream};
use std::path::{Path, PathBuf};
use std::sync::Arc;
use std::time::{Duration, Instant};

use log::{info, warn};
use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::fs::OFlags;

use super::channel::Channel;
use super::debits::Told;
use super::trusted;
use super::wire::{Message, VERSION};
use crate::client::Quota;
use crate::clock::Clock;
use crate::limit::{Key, Nanos};
use crate::server::buckets::{Buckets, HandedOver};
use crate::server::daemon::Milestone;
use crate::server::lifecycle::{Lifecycle, State};
use crate::server::pid_file::{kind, make_directory};
use crate::server::process::Process;

/// How long a predecessor may need to come.
const COME: Duration = Duration::from_secs(30);
/// How often the time is looked at.
const ROUND: Duration = Duration::from_millis(50);
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
pub(in crate::server) struct Waiting {
    path: PathBuf,
    listener: UnixListener,
    /// Locked while one waits, so that no other one does.
    _lock: File,
}

impl Waiting {
    /// Waits at `path`. A socket that an earlier process left there is removed; anything else stays as it is.
    ///
    /// # Errors
    /// When another process waits there, or nobody can.
    pub(in crate::server) fn at(path: &Path) -> Result<Self, String> {
        let failed = |error: io::Error| format!("cannot wait for a predecessor at {}: {error}", path.display());
        let foreign = |path: &Path, found: FileType, wanted: &str| {
            let (path, kind) = (path.display(), kind(found));
            format!("pingora.upgrade_sock: {path}: there is {kind}, which is left as it is; must be {wanted}")
        };
        let is_socket = |found: FileType| match found.is_socket() {
            true => Ok(()),
            false => Err(foreign(path, found, "a socket that an earlier process left, or nothing yet")),
        };
        make_directory(path).map_err(failed)?;
        let there = || fs::symlink_metadata(path).map(|found| found.file_type());
        there().map_or(Ok(()), is_socket)?;
        let mut beside = path.as_os_str().to_owned();
        beside.push(".lock");
        let beside = Path::new(&beside);
        if let Ok(found) = fs::symlink_metadata(beside)
            && !found.is_file()
        {
            return Err(foreign(beside, found.file_type(), "the lock of an earlier upgrade, or nothing yet"));
        }
        let flags = (OFlags::NOFOLLOW | OFlags::NONBLOCK).bits().cast_signed();
        let mut options = OpenOptions::new();
        options.write(true).create(true).truncate(false).mode(0o600).custom_flags(flags);
        let lock = options.open(beside).map_err(failed)?;
        lock.try_lock().map_err(|error| match error {
            fs::TryLockError::WouldBlock => {
                format!("another upgrade is under way: its successor waits at {}", path.display())
            }
            fs::TryLockError::Error(error) => failed(error),
        })?;
        // What stands there now: another successor may have gone meanwhile.
        if let Ok(found) = there() {
            is_socket(found)?;
            fs::remove_file(path).map_err(failed)?;
        }
        let listener = UnixListener::bind(path).map_err(failed)?;
        fs::set_permissions(path, fs::Permissions::from_mode(0o600)).map_err(failed)?;
        listener.set_nonblocking(true).map_err(failed)?;
        Ok(Waiting { path: path.to_owned(), listener, _lock: lock })
    }

    /// Waits until a predecessor has come and given its sockets. Whoever else comes does no harm.
    ///
    /// # Errors
    /// When none comes in time.
    pub(in crate::server) fn wait(self, clock: &Arc<dyn Clock>) -> Result<Successor, String> {
        let end = clock.now() + COME;
        while let Some(stream) = self.next(end, clock.as_ref()) {
            if !trusted(&stream) {
                warn!("{}: a process of another user came", self.path.display());
                continue;
            }
            match Successor::meet(Channel::new(stream, Arc::clone(clock))) {
                Ok(successor) => return Ok(successor),
                Err(error) => warn!("{}: somebody came who is no predecessor: {error}", self.path.display()),
            }
        }
        Err(format!(
            "no running process came to {} within {COME:?}: send SIGQUIT to the one that is to be replaced, or use \
             tollgate upgrade",
            self.path.display()
        ))
    }

    /// Who comes next; nobody when the time is over.
    fn next(&self, end: Instant, clock: &dyn Clock) -> Option<UnixStream> {
        loop {
            if let Ok((stream, _)) = self.listener.accept()
                && stream.set_nonblocking(false).is_ok()
            {
                return Some(stream);
            }
            let left = end.saturating_duration_since(clock.now());
            if left.is_zero() {
                return None;
            }
            let round = left.min(ROUND);
            let left = Timespec { tv_sec: round.as_secs().cast_signed(), tv_nsec: round.subsec_nanos().into() };
            // Whatever woke it up is looked at again.
            let _ = poll(&mut [PollFd::new(&self.listener, PollFlags::IN)], Some(&left));
        }
    }
}

impl Drop for Waiting {
    fn drop(&mut self) {
        drop(fs::remove_file(&self.path));
    }
}

/// A process that has its predecessor's sockets, and builds the rest.
pub(in crate::server) struct Successor {
    channel: Channel,
    pid: u32,
    database: String,
    sockets: BTreeMap<SocketAddr, TcpListener>,
}

impl Successor {
    /// Hears who it is, and takes the sockets.
    fn meet(mut channel: Channel) -> io::Result<Self> {
        let wrong = |what: String| io::Error::new(io::ErrorKind::InvalidData, what);
        let Message::Hello { version, pid, sockets: count, database } = channel.receive(SAY)? else {
            return Err(wrong("it did not say hello".to_owned()));
        };
        if version != VERSION || count > MOST_SOCKETS {
            let reason = format!("the two versions of tollgate hand over in different ways ({version} and {VERSION})");
            drop(channel.send(&Message::Refused(reason.clone()), SAY));
            return Err(wrong(reason));
        }
        let mut sockets = BTreeMap::new();
        while sockets.len() < count as usize {
            let Message::Sockets(addresses) = channel.receive(SAY)? else {
                return Err(wrong("it did not give its sockets".to_owned()));
            };
            if addresses.is_empty() {
                return Err(wrong("it gave no sockets".to_owned()));
            }
            for address in addresses {
                let socket = channel.next_socket()?;
                if socket.local_addr()? != address || sockets.insert(address, socket).is_some() {
                    return Err(wrong(format!("it gave a wrong socket for {address}")));
                }
            }
        }
        Ok(Successor { channel, pid, database, sockets })
    }

    /// The predecessor's process id.
    pub(in crate::server) fn predecessor(&self) -> u32 {
        self.pid
    }

    /// Its socket for `address`, once.
    pub(in crate::server) fn take_socket(&mut self, address: SocketAddr) -> Option<TcpListener> {
        self.sockets.remove(&address)
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
    /// What the owner of a bucket has now, none when nobody is known.
    pub(in crate::server) quota: Box<dyn Fn(Key) -> Option<Quota> + Send + Sync>,
    pub(in crate::server) database: Option<String>,
    pub(in crate::server) process: Arc<Process>,
    pub(in crate::server) lifecycle: Lifecycle,
}

impl TakeOver {
    /// Takes over, and then listens to the predecessor until it is gone. Blocks the thread. What goes wrong fails the
    /// server.
    pub(in crate::server) fn run(self, successor: Successor) {
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
    fn take_over(&self, channel: &mut Channel, pid: u32, same: bool) -> Result<(), String> {
        let say = |error: io::Error| format!("the running process (pid {pid}): {error}");
        channel.send(&Message::Prepared, SAY).map_err(say)?;
        let mut restored = false;
        loop {
            match channel.receive(GIVE).map_err(say)? {
                Message::Buckets { at, mut changed, mut dropped } => {
                    if !same {
                        self.restore_once(&mut restored)?;
                        changed.retain(|saved| saved.key.client_number().is_none());
                        dropped.retain(|key| key.client_number().is_none());
                    }
                    self.buckets.take_over(&HandedOver { at, changed, dropped }, &self.quota);
                }
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

    /// Whether somebody has asked for the end.
    fn is_stopping(&self) -> bool {
        matches!(self.lifecycle.state(), State::Draining | State::Stopped) && self.lifecycle.failure().is_none()
    }

    /// Takes debits until the predecessor is gone.
    fn listen(&self, channel: &mut Channel, pid: u32, same: bool) {
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
                    for debit in debits.iter().filter(|debit| same || debit.key.client_number().is_none()) {
                        self.told.debit(debit.key, debit.tokens, debit.quota, (self.now)());
                    }
                }
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
