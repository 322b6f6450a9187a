//! A client that takes its answers slowly gets them whole, though nothing is left to do for the server but to wait.

use std::time::Duration;

use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::http2::{DATA, END_STREAM, Frames, GOAWAY, RST_STREAM};
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::tls::{NAME, NOW, write_pair};
use crate::harness::{PATIENCE, dawdle, eventually};

const WINDOW_UPDATE: u8 = 8;
/// Together more than the kernel takes for a client that does not read, and each no more than a stream's first window.
const STREAMS: u32 = 120;
const BYTES: usize = 60_000;

/// A client that has asked for all of them, and the backend has been asked for all.
fn asked(more: &str) -> ([Backend; 1], Tollgate, Frames) {
    let (backend, dir) = ([Backend::scripted("a")], TempDir::new().unwrap());
    write_pair(dir.path(), NOW);
    let server = Setup::app(&backend, NO_CHECK).line(more).tls(dir.path()).start();
    let mut client = Frames::connect(server.address);
    client.send(WINDOW_UPDATE, 0, 0, &(1_u32 << 30).to_be_bytes()).unwrap();
    let path = format!("/?bytes={BYTES}&seed=4");
    let lines = [(":method", "GET"), (":scheme", "https"), (":path", path.as_str()), (":authority", NAME)];
    for stream in (1..).step_by(2).take(STREAMS as usize) {
        client.headers(stream, END_STREAM, &lines).unwrap();
    }
    let asked = || backend[0].count("GET /") == STREAMS as usize;
    assert!(eventually(PATIENCE, asked), "{} requests", backend[0].count("GET /"));
    (backend, server, client)
}

/// Reads all answers.
#[track_caller]
fn take(client: &mut Frames) {
    let (mut whole, mut bytes) = (0, 0);
    while whole < STREAMS {
        let frame = client.next().unwrap_or_else(|e| panic!("{whole} answers, {bytes} bytes: {e}"));
        let frame = frame.unwrap_or_else(|| panic!("the connection ended after {whole} answers, {bytes} bytes"));
        assert_ne!(frame.kind, RST_STREAM, "after {whole} answers");
        if frame.kind == DATA {
            bytes += frame.payload.len();
            whole += u32::from(frame.flags & END_STREAM);
        }
    }
    assert_eq!(bytes, STREAMS as usize * BYTES);
}

#[test]
fn a_connection_with_answers_to_take_is_not_idle() {
    let (_backend, _server, mut client) = asked("limits: {keepalive_timeout: 200ms}");
    dawdle(Duration::from_millis(1500));
    take(&mut client);
    // Then it is.
    client.wait_for(&[GOAWAY]);
}

#[test]
fn a_stop_waits_until_the_answers_are_taken() {
    let (_backend, mut server, mut client) = asked("pingora: {grace_period_seconds: 30}");
    server.process.signal("TERM");
    dawdle(Duration::from_millis(6500));
    assert!(server.process.is_running(), "{}", server.process.err.text());
    take(&mut client);
    drop(client);
    assert_eq!(server.process.wait_exit(PATIENCE).code, Some(0));
}
