//! The connection between predecessor and successor: whole messages, sockets beside them, and a bound for every wait.
//!
//! A message is its length (four bytes, little endian, without these four) and that many bytes, which mean nothing
//! here. No length makes anybody reserve more memory than has arrived.

use std::collections::VecDeque;
use std::io::{self, IoSlice, IoSliceMut, Write};
use std::mem::MaybeUninit;
use std::os::fd::{AsFd, BorrowedFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::{Duration, Instant};

use rustix::event::{PollFd, PollFlags, Timespec, poll};
use rustix::io::retry_on_intr;
use rustix::net::{
    RecvAncillaryBuffer, RecvAncillaryMessage, RecvFlags, SendAncillaryBuffer, SendAncillaryMessage, SendFlags,
    recvmsg, sendmsg,
};

use crate::clock::Clock;

/// The longest message, in bytes.
const LONGEST: usize = 1 << 20;
/// How many sockets go with one message; the kernel takes 253.
const MOST_SOCKETS: usize = 64;
/// How much is read at once.
const ROUND: usize = 64 << 10;

/// One end of the connection.
pub(crate) struct Channel {
    stream: UnixStream,
    clock: Arc<dyn Clock>,
    /// What has come and is no whole message yet, or not read yet.
    bytes: Vec<u8>,
    /// The sockets that came and were not asked for yet.
    sockets: VecDeque<OwnedFd>,
}

impl Channel {
    /// Speaks over `stream`, which waits when it is read.
    pub(crate) fn new(stream: UnixStream, clock: Arc<dyn Clock>) -> Self {
        Channel { stream, clock, bytes: Vec::new(), sockets: VecDeque::new() }
    }

    /// Says `message` and gives `sockets` with it, at most [`MOST_SOCKETS`].
    ///
    /// # Errors
    /// When the other end is gone, or does not take it within `limit`.
    pub(crate) fn send(&mut self, message: &[u8], sockets: &[BorrowedFd<'_>], limit: Duration) -> io::Result<()> {
        let end = self.clock.now() + limit;
        let length = u32::try_from(message.len()).map_err(|_| nonsense("a message that is too long"))?;
        let bytes = [&length.to_le_bytes(), message].concat();
        let mut rest = &bytes[..];
        if !sockets.is_empty() {
            let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
            let mut beside = SendAncillaryBuffer::new(&mut space);
            if !beside.push(SendAncillaryMessage::ScmRights(sockets)) {
                return Err(io::Error::new(io::ErrorKind::InvalidInput, "too many sockets for one message"));
            }
            self.stream.set_write_timeout(Some(self.left(end)?))?;
            let send = || sendmsg(&self.stream, &[IoSlice::new(rest)], &mut beside, SendFlags::NOSIGNAL);
            let sent = retry_on_intr(send).map_err(|error| timely(error.into()))?;
            rest = &rest[sent..];
        }
        while !rest.is_empty() {
            self.stream.set_write_timeout(Some(self.left(end)?))?;
            match self.stream.write(rest) {
                Ok(sent) => rest = &rest[sent..],
                Err(error) if error.kind() == io::ErrorKind::Interrupted => {}
                Err(error) => return Err(timely(error)),
            }
        }
        Ok(())
    }

    /// Waits for the next message, for `limit` at most.
    ///
    /// # Errors
    /// When it does not come in time ([`io::ErrorKind::TimedOut`]), never will
    /// ([`io::ErrorKind::UnexpectedEof`]), or has a wrong length.
    pub(crate) fn receive(&mut self, limit: Duration) -> io::Result<Vec<u8>> {
        let end = self.clock.now() + limit;
        loop {
            if let Some(length) = length(&self.bytes)?
                && self.bytes.len() >= length
            {
                let rest = self.bytes.split_off(length);
                let mut message = std::mem::replace(&mut self.bytes, rest);
                message.drain(..4);
                return Ok(message);
            }
            self.stream.set_read_timeout(Some(self.left(end)?))?;
            if self.fill()? == 0 {
                return Err(io::Error::new(io::ErrorKind::UnexpectedEof, "the other process ended, or gave up"));
            }
        }
    }

    /// Whether there is something to receive, the end of the connection included, within `limit`.
    pub(crate) fn has_news(&self, limit: Duration) -> bool {
        if !self.bytes.is_empty() {
            return true;
        }
        let limit = Timespec { tv_sec: limit.as_secs().cast_signed(), tv_nsec: limit.subsec_nanos().into() };
        poll(&mut [PollFd::new(&self.stream, PollFlags::IN)], Some(&limit)).is_ok_and(|ready| ready > 0)
    }

    /// The next socket that came with what was received.
    ///
    /// # Errors
    /// When there is none.
    pub(crate) fn next_socket(&mut self) -> io::Result<OwnedFd> {
        let none =
            || io::Error::new(io::ErrorKind::InvalidData, "the other process named a socket that it did not send");
        self.sockets.pop_front().ok_or_else(none)
    }

    /// The next descriptor that came with what was received, whatever it is; none when there is none.
    pub(crate) fn next_descriptor(&mut self) -> Option<OwnedFd> {
        self.sockets.pop_front()
    }

    /// The time until `end`; an error when it is over.
    fn left(&self, end: Instant) -> io::Result<Duration> {
        let left = end.saturating_duration_since(self.clock.now());
        if left.is_zero() { Err(late()) } else { Ok(left) }
    }

    /// Reads what is there; how much.
    fn fill(&mut self) -> io::Result<usize> {
        let old = self.bytes.len();
        self.bytes.resize(old + ROUND, 0);
        let mut space = [MaybeUninit::uninit(); rustix::cmsg_space!(ScmRights(MOST_SOCKETS))];
        let mut beside = RecvAncillaryBuffer::new(&mut space);
        let read = loop {
            let mut into = [IoSliceMut::new(&mut self.bytes[old..])];
            match recvmsg(self.stream.as_fd(), &mut into, &mut beside, RecvFlags::CMSG_CLOEXEC) {
                Err(rustix::io::Errno::INTR) => {}
                read => break read,
            }
        };
        self.bytes.truncate(old + read.as_ref().map_or(0, |read| read.bytes));
        for message in beside.drain() {
            if let RecvAncillaryMessage::ScmRights(sockets) = message {
                self.sockets.extend(sockets);
            }
        }
        read.map(|read| read.bytes).map_err(|error| timely(error.into()))
    }
}

/// How long the message is that begins with `bytes`, its length included; none when that is not known yet.
fn length(bytes: &[u8]) -> io::Result<Option<usize>> {
    let Some(length) = bytes.first_chunk::<4>() else { return Ok(None) };
    match u32::from_le_bytes(*length) as usize {
        0 => Err(nonsense("a message of a wrong length")),
        length if length > LONGEST => Err(nonsense("a message of a wrong length")),
        length => Ok(Some(4 + length)),
    }
}

fn nonsense(what: &str) -> io::Error {
    io::Error::new(io::ErrorKind::InvalidData, format!("the other process sent {what}"))
}

fn late() -> io::Error {
    io::Error::new(io::ErrorKind::TimedOut, "the other process did not answer in time")
}

/// A read or write that waited too long, under the one name for that.
fn timely(error: io::Error) -> io::Error {
    if error.kind() == io::ErrorKind::WouldBlock { late() } else { error }
}

#[cfg(test)]
mod tests {
    use std::io::Read;
    use std::net::TcpListener;

    use super::*;
    use crate::clock::SystemClock;

    const SOON: Duration = Duration::from_millis(50);
    const LONG: Duration = Duration::from_secs(20);

    fn pair() -> (Channel, Channel) {
        let (left, right) = UnixStream::pair().unwrap();
        let clock: Arc<dyn Clock> = Arc::new(SystemClock);
        (Channel::new(left, Arc::clone(&clock)), Channel::new(right, clock))
    }

    #[test]
    fn messages_come_whole_and_in_order_with_their_sockets() {
        let (mut left, mut right) = pair();
        let listeners: Vec<_> = (0..MOST_SOCKETS).map(|_| TcpListener::bind("127.0.0.1:0").unwrap()).collect();
        let addresses: Vec<_> = listeners.iter().map(|listener| listener.local_addr().unwrap()).collect();
        let sockets: Vec<_> = listeners.iter().map(AsFd::as_fd).collect();
        left.send(b"all", &sockets, LONG).unwrap();
        left.send(b"one", &sockets[3..4], LONG).unwrap();
        left.send(b"none", &[], LONG).unwrap();
        assert!(right.has_news(LONG));
        for message in [&b"all"[..], b"one", b"none"] {
            assert_eq!(right.receive(LONG).unwrap(), message);
        }
        for address in addresses.iter().chain([&addresses[3]]) {
            assert_eq!(TcpListener::from(right.next_socket().unwrap()).local_addr().unwrap(), *address);
        }
        assert!(right.next_socket().is_err());
    }

    #[test]
    fn a_long_message_comes_in_pieces() {
        let (mut left, mut right) = pair();
        let message = vec![7; LONGEST];
        std::thread::scope(|scope| {
            scope.spawn(|| left.send(&message, &[], LONG).unwrap());
            assert_eq!(right.receive(LONG).unwrap(), message);
        });
    }

    #[test]
    fn nobody_waits_for_ever() {
        let (mut left, mut right) = pair();
        assert!(!right.has_news(Duration::ZERO));
        assert_eq!(right.receive(SOON).unwrap_err().kind(), io::ErrorKind::TimedOut);
        left.stream.write_all(&[1]).unwrap();
        assert_eq!(right.receive(SOON).unwrap_err().kind(), io::ErrorKind::TimedOut, "a message that does not end");
        let long = vec![7; 1_000_000];
        assert_eq!(left.send(&long, &[], SOON).unwrap_err().kind(), io::ErrorKind::TimedOut, "nobody reads");
        drop(left);
        assert!(right.has_news(LONG));
        right.stream.read_to_end(&mut Vec::new()).unwrap();
        right.bytes.clear();
        assert_eq!(right.receive(LONG).unwrap_err().kind(), io::ErrorKind::UnexpectedEof);
        assert!(right.send(b"x", &[], SOON).is_err());
    }

    #[test]
    fn lengths_that_lie_are_refused_at_once() {
        for length in [*b"GET ", [0; 4], (LONGEST as u32 + 1).to_le_bytes(), [0xff; 4]] {
            let (mut left, mut right) = pair();
            left.stream.write_all(&length).unwrap();
            assert_eq!(right.receive(LONG).unwrap_err().kind(), io::ErrorKind::InvalidData);
        }
    }
}
