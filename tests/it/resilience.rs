//! Backends that die under load and come back.

use std::sync::Mutex;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use crate::harness::backend::three_echoes;
use crate::harness::client::Request;
use crate::harness::server::Tollgate;
use crate::harness::setup::Setup;
use crate::harness::{PATIENCE, eventually, now};

const INTERVAL: Duration = Duration::from_secs(1);
const CLIENTS: usize = 32;

/// What the clients have seen.
#[derive(Default)]
struct Seen {
    /// When an answer came and from which backend.
    answers: Vec<(Instant, String)>,
    failures: Vec<String>,
}

/// Asks on one connection until `stop`; `way` is what it says of the connection.
fn load(server: &Tollgate, way: &str, stop: &AtomicBool, seen: &Mutex<Seen>) {
    let mut client = server.client();
    while !stop.load(Ordering::Relaxed) {
        let result = client.call_again(&Request::new("GET", "/load").headers(&[("Connection", way)]));
        let mut seen = seen.lock().unwrap();
        match result {
            Ok(response) if response.status == 200 => seen.answers.push((now(), response.backend().to_owned())),
            Ok(response) => seen.failures.push(format!("{} {}", response.status, response.text())),
            Err(e) => {
                seen.failures.push(e.to_string());
                client = server.client();
            }
        }
    }
}

#[test]
fn a_backend_killed_under_load_costs_no_request_and_takes_its_share_when_it_is_back() {
    let mut backends = three_echoes();
    let setup = Setup::app(&backends, "health_check: {type: tcp, interval: 1s, timeout: 1s}");
    let server = setup.line("pingora: {threads: 1}").start();
    let (stop, seen) = (AtomicBool::new(false), Mutex::new(Seen::default()));
    let answers = || seen.lock().unwrap().answers.len();
    let from_b = |since: Instant| {
        let seen = seen.lock().unwrap();
        let later = seen.answers.iter().filter(|(time, _)| *time > since);
        (later.clone().count(), later.clone().find(|(_, name)| name == "b").map(|(time, _)| *time))
    };
    std::thread::scope(|scope| {
        // The load ends with the scope even when an assertion fails; it would wait for its threads forever otherwise.
        let _stop = StopOnDrop(&stop);
        for _ in 0..CLIENTS {
            scope.spawn(|| load(&server, "keep-alive", &stop, &seen));
        }
        assert!(eventually(PATIENCE, || answers() > 1000), "no load");
        backends[1].kill();
        let killed = now();
        assert!(eventually(PATIENCE, || from_b(killed).0 > 2000), "the load stopped");
        assert!(eventually(PATIENCE, || now() - killed > 3 * INTERVAL));
        let down = now();
        assert!(eventually(PATIENCE, || from_b(down).0 > 500));
        assert_eq!(from_b(down).1, None, "a dead backend answers");

        backends[1].restart();
        let back = now();
        assert!(eventually(PATIENCE, || from_b(back).1.is_some()), "b never came back");
        // Intervals vary by a tenth, and a check needs its moment on a busy machine.
        let took = from_b(back).1.unwrap() - back;
        assert!(took < 2 * INTERVAL + INTERVAL / 2, "b was back only after {took:?}");
        let settled = now();
        assert!(eventually(PATIENCE, || from_b(settled).0 >= 3000), "the load stopped");
    });
    let seen = seen.into_inner().unwrap();
    assert_eq!(seen.failures, Vec::<String>::new(), "{}", server.process.err.text());
    let last = &seen.answers[seen.answers.len() - 3000..];
    let share = last.iter().filter(|(_, name)| name == "b").count();
    assert!((900..=1100).contains(&share), "b has {share} of the last 3000");
}

#[test]
fn backends_that_are_killed_again_and_again_cost_no_idempotent_request() {
    let mut backends = three_echoes();
    let server = Setup::app(&backends, "health_check: {type: tcp, interval: 500ms, timeout: 500ms}").start();
    let (stop, seen) = (AtomicBool::new(false), Mutex::new(Seen::default()));
    let more = |count: usize, name: &str| {
        let since = now();
        let later = |time: &Instant| *time > since;
        eventually(PATIENCE, || {
            let seen = seen.lock().unwrap();
            seen.answers.iter().filter(|(time, by)| later(time) && (name.is_empty() || by == name)).count() >= count
        })
    };
    std::thread::scope(|scope| {
        let _stop = StopOnDrop(&stop);
        for n in 0..CLIENTS {
            // By both ways.
            let way = ["keep-alive", "keep-alive, x-nothing"][n % 2];
            let (server, stop, seen) = (&server, &stop, &seen);
            scope.spawn(move || load(server, way, stop, seen));
        }
        assert!(more(500, ""), "no load");
        for round in 0..9 {
            let backend = &mut backends[round % 3];
            backend.kill();
            assert!(more(300, ""), "the load stopped");
            backend.restart();
            assert!(more(1, ["a", "b", "c"][round % 3]), "it never came back");
        }
    });
    let mut seen = seen.into_inner().unwrap();
    // A backend that is killed between the two writes of an answer leaves half of one, which nobody can take back.
    let all = seen.failures.len();
    seen.failures.retain(|failure| failure != "unexpected end of file");
    let halves = all - seen.failures.len();
    assert_eq!(seen.failures, Vec::<String>::new(), "of {}: {}", seen.answers.len(), server.process.err.text());
    assert!(halves <= 2, "{halves} of {}: {}", seen.answers.len(), server.process.err.text());
}

struct StopOnDrop<'a>(&'a AtomicBool);

impl Drop for StopOnDrop<'_> {
    fn drop(&mut self) {
        self.0.store(true, Ordering::Relaxed);
    }
}
