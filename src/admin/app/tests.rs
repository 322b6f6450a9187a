//! Connections, over pipes in memory and with a clock that jumps to whatever is waited for.

use std::time::SystemTime;

use tokio::io::{DuplexStream, duplex};
use tokio::sync::watch;
use tokio::task::JoinHandle;
use tokio::time::Instant;

use super::*;
use crate::admin::Access;
use crate::admin::fixture::{Fixture, PATIENCE};
use crate::client::{ClientId, Quota};
use crate::store::memory::Memory;
use crate::store::{Batch, BatchItem, ClientRepository, KeyChange, Profile};

const GET: &str = "GET /clients HTTP/1.1\r\nHost: localhost\r\n\r\n";

/// A server of connections, and the switch that stops it.
struct Server {
    admin: Arc<Admin>,
    stop: watch::Sender<bool>,
}

impl Server {
    fn new() -> Self {
        Server { admin: Fixture::new().admin, stop: watch::Sender::new(false) }
    }

    fn connect(&self) -> (DuplexStream, JoinHandle<()>) {
        let (near, far) = duplex(1 << 16);
        let (admin, shutdown) = (Arc::clone(&self.admin), self.stop.subscribe());
        (near, tokio::spawn(async move { admin.serve(far, &shutdown).await }))
    }
}

/// Sends a request and reads its answer, whose body must end with a brace.
async fn ask(connection: &mut DuplexStream, request: &str) -> String {
    connection.write_all(request.as_bytes()).await.unwrap();
    let mut answer = Vec::new();
    while !answer.ends_with(b"}") {
        assert_ne!(connection.read_buf(&mut answer).await.unwrap(), 0, "{}", String::from_utf8_lossy(&answer));
    }
    String::from_utf8(answer).unwrap()
}

async fn rest(connection: &mut DuplexStream) -> String {
    let mut rest = String::new();
    connection.read_to_string(&mut rest).await.unwrap();
    rest
}

#[tokio::test(start_paused = true)]
async fn a_connection_serves_many_requests_and_ends_when_the_server_stops_and_it_is_silent() {
    let server = Server::new();
    let (mut used, used_task) = server.connect();
    let (mut fresh, fresh_task) = server.connect();
    let (mut asking, asking_task) = server.connect();
    for _ in 0..3 {
        assert!(ask(&mut used, GET).await.starts_with("HTTP/1.1 200"));
    }
    let started = Instant::now();
    server.stop.send_replace(true);
    // A request that was under way is answered, and then it ends.
    asking.write_all(GET.as_bytes()).await.unwrap();
    let answer = rest(&mut asking).await.to_lowercase();
    assert!(answer.starts_with("http/1.1 200") && answer.contains("connection: close"), "{answer}");
    assert_eq!(started.elapsed(), Duration::ZERO);
    assert_eq!((rest(&mut used).await, rest(&mut fresh).await), (String::new(), String::new()));
    assert_eq!(started.elapsed(), PATIENCE);
    drop((used, fresh, asking));
    for task in [used_task, fresh_task, asking_task] {
        task.await.unwrap();
    }
}

#[tokio::test(start_paused = true)]
async fn a_running_request_is_answered_when_the_server_stops() {
    let server = Server::new();
    let (mut connection, _task) = server.connect();
    connection.write_all(b"POST /clients HTTP/1.1\r\nHost: localhost\r\nContent-Length: 2\r\n\r\n{").await.unwrap();
    tokio::time::sleep(Duration::from_secs(1)).await;
    server.stop.send_replace(true);
    tokio::time::sleep(Duration::from_secs(1)).await;
    connection.write_all(b"}").await.unwrap();
    let answer = rest(&mut connection).await;
    assert!(answer.starts_with("HTTP/1.1 422") && answer.to_lowercase().contains("connection: close"), "{answer}");
}

/// An export is the answer that goes on for longest.
#[tokio::test(start_paused = true)]
async fn a_stream_that_nobody_ends_does_not_hold_a_stop() {
    let repository = Arc::new(Memory::new());
    let note = "n".repeat(1_000);
    let items = (0..4_000).map(|number| BatchItem {
        id: ClientId::parse(&format!("client-{number}")).unwrap(),
        profile: Profile { note: note.clone(), ..Profile::new(Quota::new(1, 1.0).unwrap()) },
        keys: KeyChange::Keep,
        of_plan: None,
    });
    let (by, at) = ("test".to_owned(), SystemTime::UNIX_EPOCH);
    let batch = Batch {
        items: items.collect(),
        prune: false,
        dry_run: false,
        local: false,
        by,
        at,
        progress: Default::default(),
    };
    repository.apply(batch).wait().await.unwrap();
    let fixture = Fixture::over(repository, Access::Loopback);
    let server = Server { admin: Arc::clone(&fixture.admin), stop: watch::Sender::new(false) };
    let (mut connection, task) = server.connect();
    connection.write_all(b"GET /clients?format=ndjson HTTP/1.1\r\nHost: localhost\r\n\r\n").await.unwrap();
    let mut read = vec![0; 1 << 10];
    connection.read_exact(&mut read).await.unwrap();
    assert!(read.starts_with(b"HTTP/1.1 200"), "{}", String::from_utf8_lossy(&read));
    server.stop.send_replace(true);
    let stopped = Instant::now();
    // The caller reads on, though slowly. The clock does not jump by itself while the export's thread waits.
    while !task.is_finished() {
        fixture.clock.advance(Duration::from_secs(1));
        tokio::time::advance(Duration::from_secs(1)).await;
        connection.read_exact(&mut read).await.unwrap();
        // Each task has its turn before the next second, also where the read had nothing to wait for.
        for _ in 0..100 {
            tokio::task::yield_now().await;
        }
        assert!(stopped.elapsed() < Duration::from_secs(10), "the export goes on");
    }
    assert!(stopped.elapsed() >= Duration::from_secs(5), "{:?}", stopped.elapsed());
}

#[tokio::test(start_paused = true)]
async fn the_connection_that_is_too_many_is_told_so() {
    let server = Server::new();
    let mut connections = Vec::new();
    for _ in 0..MAX_CONNECTIONS {
        let mut connection = server.connect();
        assert!(ask(&mut connection.0, GET).await.starts_with("HTTP/1.1 200"));
        connections.push(connection);
    }
    let (mut too_many, _task) = server.connect();
    let answer = rest(&mut too_many).await;
    let (head, body) = answer.split_once("\r\n\r\n").unwrap();
    assert!(
        head.starts_with("HTTP/1.1 503") && head.contains(&format!("Content-Length: {}\r\n", body.len())),
        "{head}"
    );
    assert_eq!(body, r#"{"code":503,"message":"Too many connections"}"#);
    let (gone, task) = connections.remove(0);
    drop(gone);
    task.await.unwrap();
    let (mut next, _task) = server.connect();
    assert!(ask(&mut next, GET).await.starts_with("HTTP/1.1 200"));
}

#[tokio::test(start_paused = true)]
async fn a_slow_head_and_an_idle_connection_are_closed() {
    let server = Server::new();
    let (mut slow, _slow) = server.connect();
    let (mut idle, _idle) = server.connect();
    slow.write_all(b"GET / HTTP/1.1\r\nHo").await.unwrap();
    ask(&mut idle, GET).await;
    let started = Instant::now();
    assert_eq!(rest(&mut slow).await, "");
    assert_eq!(rest(&mut idle).await, "");
    assert!(started.elapsed() <= HEADER_TIMEOUT + LINGER, "{:?}", started.elapsed());
}

#[tokio::test(start_paused = true)]
async fn a_body_that_stops_is_408() {
    let server = Server::new();
    for head in [
        "POST /clients HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{",
        "PUT /clients HTTP/1.1\r\nHost: localhost\r\nTransfer-Encoding: chunked\r\n\r\n1\r\n[\r\n",
    ] {
        let (mut connection, _task) = server.connect();
        let started = Instant::now();
        let answer = ask(&mut connection, head).await;
        assert!(
            answer.starts_with("HTTP/1.1 408") && answer.ends_with(r#"{"code":408,"message":"Request timeout"}"#),
            "{answer}"
        );
        assert_eq!(started.elapsed(), Duration::from_secs(10));
        assert_eq!(rest(&mut connection).await, "", "the rest of the body is not waited for");
    }
}

#[tokio::test(start_paused = true)]
async fn a_body_that_comes_slowly_is_408_in_the_end() {
    let server = Server::new();
    let (mut connection, _task) = server.connect();
    let started = Instant::now();
    let head = b"POST /clients HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n{";
    connection.write_all(head).await.unwrap();
    for _ in 0..4 {
        tokio::time::sleep(Duration::from_secs(7)).await;
        connection.write_all(b" ").await.unwrap();
    }
    let answer = ask(&mut connection, "").await;
    assert!(answer.starts_with("HTTP/1.1 408"), "{answer}");
    assert_eq!(started.elapsed(), Duration::from_secs(30));
}

/// There are two places for imports, and whoever waits for one does so for 30 s.
#[tokio::test(start_paused = true)]
async fn imports_that_are_stuck_do_not_block_others() {
    let server = Server::new();
    let head = "PUT /clients HTTP/1.1\r\nHost: localhost\r\nContent-Length: 10\r\n\r\n";
    let mut stuck = [server.connect(), server.connect()];
    for (connection, _) in &mut stuck {
        connection.write_all(head.as_bytes()).await.unwrap();
    }
    tokio::time::sleep(Duration::from_secs(1)).await;
    let (mut connection, _task) = server.connect();
    let answer = ask(&mut connection, &format!("{head}[]        ")).await;
    assert!(answer.starts_with("HTTP/1.1 200"), "{answer}");
}

#[tokio::test(start_paused = true)]
async fn a_head_may_have_256_lines() {
    let server = Server::new();
    let head = |lines: usize| {
        let more: String = (1..lines).map(|line| format!("X-{line}: 1\r\n")).collect();
        format!("GET /clients HTTP/1.1\r\nHost: localhost\r\n{more}\r\n")
    };
    let (mut connection, _task) = server.connect();
    assert!(ask(&mut connection, &head(MAX_HEADERS)).await.starts_with("HTTP/1.1 200"));
    connection.write_all(head(MAX_HEADERS + 1).as_bytes()).await.unwrap();
    assert!(rest(&mut connection).await.starts_with("HTTP/1.1 431"));
}

#[tokio::test(start_paused = true)]
async fn an_answer_that_nobody_reads_ends_the_connection() {
    let server = Server::new();
    let (near, far) = duplex(64);
    let (admin, shutdown) = (Arc::clone(&server.admin), server.stop.subscribe());
    let task = tokio::spawn(async move { admin.serve(far, &shutdown).await });
    let mut near = near;
    let started = Instant::now();
    near.write_all(GET.as_bytes()).await.unwrap();
    task.await.unwrap();
    assert!(started.elapsed() <= WRITE_TIMEOUT + LINGER, "{:?}", started.elapsed());
}

/// Closing with unread bytes would reset the connection, and the reset overtakes the answer.
#[tokio::test(start_paused = true)]
async fn who_is_still_sending_after_a_refusal_is_read_on_for_a_moment() {
    let server = Server::new();
    let (mut connection, task) = server.connect();
    let head = "POST /clients HTTP/1.1\r\nHost: localhost\r\nContent-Length: 4000000\r\n\r\n";
    let answer = ask(&mut connection, head).await;
    assert!(answer.starts_with("HTTP/1.1 413"), "{answer}");
    assert_eq!(rest(&mut connection).await, "", "our side is closed");
    connection.write_all(&vec![b' '; 1_000_000]).await.unwrap();
    let started = Instant::now();
    task.await.unwrap();
    assert!(started.elapsed() <= LINGER);
    assert!(connection.write_all(&vec![b' '; 1_000_000]).await.is_err(), "but not for ever");
}

#[tokio::test(start_paused = true)]
async fn what_is_no_http_is_400() {
    let server = Server::new();
    let (mut connection, _task) = server.connect();
    connection.write_all(b"\x16\x03\x01\x02\x00\x01\x00\x01\xfc\x03\x03 hello\r\n\r\n").await.unwrap();
    assert!(rest(&mut connection).await.starts_with("HTTP/1.1 400"));
}
