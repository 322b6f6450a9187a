//! What predecessor and successor say to each other, over their channel.

use std::fs::File;
use std::io::{self, Read};
use std::os::fd::{BorrowedFd, OwnedFd};
use std::time::Duration;

use super::wire::{self, Message, VERSION};
use crate::process::Channel;

/// The most that is read of a pipe.
const MOST_BESIDE: u64 = 16 << 10;

/// One end of what is said.
pub(super) struct Conversation(Channel);

impl Conversation {
    /// What is said over `channel`.
    pub(super) fn over(channel: Channel) -> Self {
        Conversation(channel)
    }

    /// Says `message`.
    ///
    /// # Errors
    /// When the other end is gone, or does not take it within `limit`.
    pub(super) fn send(&mut self, message: &Message, limit: Duration) -> io::Result<()> {
        self.send_with(message, &[], limit)
    }

    /// Says `message` and gives `sockets` with it.
    ///
    /// # Errors
    /// As [`send`](Conversation::send).
    pub(super) fn send_with(
        &mut self,
        message: &Message,
        sockets: &[BorrowedFd<'_>],
        limit: Duration,
    ) -> io::Result<()> {
        self.0.send(&message.encode(), sockets, limit)
    }

    /// Waits for the next message, for `limit` at most.
    ///
    /// # Errors
    /// When it does not come in time ([`io::ErrorKind::TimedOut`]), never will ([`io::ErrorKind::UnexpectedEof`]), or
    /// makes no sense.
    pub(super) fn receive(&mut self, limit: Duration) -> io::Result<Message> {
        Message::decode(&self.0.receive(limit)?)
    }

    /// Waits for the first message: as [`receive`](Conversation::receive), or the version that it names when that is
    /// not ours.
    pub(super) fn receive_hello(&mut self, limit: Duration) -> io::Result<Result<Message, u32>> {
        let bytes = self.0.receive(limit)?;
        match wire::version(&bytes) {
            Some(version) if version != VERSION => Ok(Err(version)),
            _ => Message::decode(&bytes).map(Ok),
        }
    }

    /// Whether there is something to receive, the end of the connection included, within `limit`.
    pub(super) fn has_news(&self, limit: Duration) -> bool {
        self.0.has_news(limit)
    }

    /// What came through a pipe beside the sockets, which has to be there as a whole; none when there is no descriptor
    /// more. To be asked for once all of them were taken.
    pub(super) fn beside(&mut self) -> Option<Vec<u8>> {
        let pipe = self.0.next_descriptor()?;
        let mut bytes = Vec::new();
        // Whoever gave it has written and closed it before. Nobody is waited for.
        let read = rustix::io::ioctl_fionbio(&pipe, true).map_err(io::Error::from);
        let read = read.and_then(|()| File::from(pipe).take(MOST_BESIDE).read_to_end(&mut bytes));
        Some(if read.is_ok() { bytes } else { Vec::new() })
    }

    /// Whether one descriptor more came beside all others: the predecessor knows the last minutes, or what is owed.
    pub(super) fn has_descriptor(&mut self) -> bool {
        self.0.next_descriptor().is_some()
    }

    /// The next socket that came with what was received.
    ///
    /// # Errors
    /// When there is none.
    pub(super) fn next_socket(&mut self) -> io::Result<OwnedFd> {
        self.0.next_socket()
    }
}
