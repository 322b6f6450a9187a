//! What a successor hears first, of a predecessor of this version and of those before.

use std::net::TcpListener;
use std::os::fd::{AsFd, OwnedFd};
use std::os::unix::net::UnixStream;
use std::sync::Arc;
use std::time::Duration;

use super::LONG;
use crate::clock::{Clock, SystemClock};
use crate::process::Channel;
use crate::server::handover::beside::{self, Inherited};
use crate::server::handover::conversation::Conversation;
use crate::server::handover::successor::{Successor, Waiting};
use crate::server::handover::surroundings::{StartEnvironment, Surroundings, pipe_with};
use crate::server::handover::wire::{Message, VERSION};

/// A successor of a predecessor that gave these descriptors beside its socket, each a pipe with bytes or the same one
/// again; and what it said to that.
fn met(pipes: &[Option<&[u8]>]) -> (Successor, Option<Message>) {
    let dir = tempfile::tempdir().unwrap();
    let (path, time): (_, Arc<dyn Clock>) = (dir.path().join("a.sock"), Arc::new(SystemClock));
    let waiting = Waiting::at(&path).unwrap();
    let mut channel = Conversation::over(Channel::new(UnixStream::connect(&path).unwrap(), Arc::clone(&time)));
    let hello = Message::Hello { version: VERSION, pid: 7, sockets: 1, database: "/a.db".to_owned() };
    channel.send(&hello, LONG).unwrap();
    let socket = TcpListener::bind("127.0.0.1:0").unwrap();
    let (mut given, mut first) = (vec![OwnedFd::from(socket.try_clone().unwrap())], None::<OwnedFd>);
    for pipe in pipes {
        let descriptor = pipe.map(|bytes| OwnedFd::from(pipe_with(bytes).unwrap()));
        let descriptor = descriptor.unwrap_or_else(|| first.as_ref().unwrap().try_clone().unwrap());
        first.get_or_insert_with(|| descriptor.try_clone().unwrap());
        given.push(descriptor);
    }
    let given: Vec<_> = given.iter().map(AsFd::as_fd).collect();
    let addresses = vec![socket.local_addr().unwrap().into()];
    channel.send_with(&Message::Sockets(addresses), &given, LONG).unwrap();
    let successor = waiting.wait(&time).unwrap();
    let said = channel.has_news(Duration::ZERO).then(|| channel.receive(LONG).unwrap());
    (successor, said)
}

#[test]
fn a_successor_asks_for_what_its_predecessor_had_and_versions_before_ask_for_nothing() {
    let (keys, told) = (
        beside::encode(&Inherited::default()),
        Surroundings { variables: vec!["TOLLGATE_FLEET".to_owned()], open_files: Some(8) },
    );
    let environment = |answered: &[&str]| StartEnvironment {
        given: vec![],
        answered: answered.iter().map(|name| (*name).to_owned()).collect(),
    };
    let (successor, said) = met(&[Some(&keys), Some(&told.encode()), None]);
    assert_eq!(said, Some(Message::KnowsPolicies));
    let refused = successor.may_take_over(&environment(&[]), None).unwrap_err();
    assert!(refused.starts_with("the running process (pid 7) was started with TOLLGATE_FLEET, and this"), "{refused}");
    let environment = environment(&["TOLLGATE_FLEET"]);
    assert_eq!(successor.may_take_over(&environment, None), Ok(()));
    let missing = tempfile::tempdir().unwrap().path().join("b.db");
    let refused = successor.may_take_over(&environment, Some(&missing)).unwrap_err();
    assert!(refused.contains("and the running process (pid 7) has /a.db, whose clients would be gone"), "{refused}");
    // Before they gave the same pipe again, or none, or nothing.
    for (before, expected) in
        [(&[Some(&keys[..]), None, None][..], Some(Message::KnowsPolicies)), (&[Some(&keys[..])], None), (&[], None)]
    {
        let (successor, said) = met(before);
        assert_eq!((said, successor.may_take_over(&StartEnvironment::default(), None)), (expected, Ok(())));
    }
}
