//! The event log: what it says, and that a burst of failures does not flood it.

use crate::harness::PATIENCE;
use crate::harness::backend::{Backend, three_scripted};
use crate::harness::client::Request;
use crate::harness::ports::free_address;
use crate::harness::server::Tollgate;
use crate::harness::setup::{NO_CHECK, QUICK_TCP, Setup};

#[test]
fn a_retry_on_another_backend_is_told_with_its_reason() {
    let live = Backend::scripted("live");
    let dead = free_address();
    let server = Setup::default().pool("app", &[dead, live.address], NO_CHECK).start();
    server.client().get("/").unwrap();
    let line = server.wait_for_event(&["app", &dead.to_string()], PATIENCE);
    assert!(line.to_lowercase().contains("refused"), "the reason in words: {line}");
}

#[test]
fn a_burst_of_the_same_failure_is_summarised() {
    let backends = three_scripted();
    let server = Setup::app(&backends, NO_CHECK).start();
    std::thread::scope(|scope| {
        for _ in 0..8 {
            scope.spawn(|| {
                let mut client = server.client();
                for _ in 0..250 {
                    let response = client.call_again(&Request::new("POST", "/?fault=close")).unwrap();
                    assert_eq!(response.status, 502);
                }
            });
        }
    });
    assert_eq!(server.access_lines(2000).len(), 2000, "the access log has them all");
    let events = server.process.err.wait("failures are told", PATIENCE, |lines| !lines.is_empty());
    assert!(events.len() < 200, "{} events for 2000 failures of one kind:\n{}", events.len(), events[..20].join("\n"));
}

#[test]
fn a_burst_is_its_first_line_and_one_that_counts_the_rest() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let mut client = server.client();
    for _ in 0..200 {
        assert_eq!(client.call_again(&Request::new("POST", "/?fault=close")).unwrap().status, 502);
    }
    let address = backend[0].address.to_string();
    server.wait_for_event(&[&address, "(repeated "], 2 * PATIENCE);
    let lines: Vec<_> = server.process.err.lines().into_iter().filter(|line| line.contains(&address)).collect();
    assert!(lines.len() == 2 && !lines[0].contains("repeated"), "{lines:#?}");
    assert!(lines[1].ends_with("(repeated 199 times in 10 s)"), "{lines:#?}");
}

#[test]
fn clients_that_leave_do_not_flood_it_either() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).start();
    for _ in 0..300 {
        let mut client = server.client();
        client.send(&Request::new("GET", "/?bytes=300000").encode()).unwrap();
        drop(client);
        let mut client = server.client();
        client.send(b"GET / HT").unwrap();
    }
    assert!(server.answers());
    let events = server.process.err.lines();
    assert!(events.len() < 100, "{} events:\n{}", events.len(), events[..20].join("\n"));
}

#[test]
fn the_level_is_chosen_by_either_variable() {
    let dead = free_address();
    let yaml = Setup::default().pool("app", &[dead], QUICK_TCP).yaml();
    let events = |variables: &[(&str, &str)]| {
        let mut server = Tollgate::start(&yaml, &["run", "-c", "$FILE"], variables, false);
        assert_eq!(server.client().get("/").unwrap().status, 503);
        server.process.signal("TERM");
        server.process.wait_exit(PATIENCE).err
    };
    let says_down = |events: &str| events.contains(&dead.to_string());
    assert!(says_down(&events(&[("TOLLGATE_LOG", "info")])), "a backend that is down is told");
    assert_eq!(events(&[("TOLLGATE_LOG", "off")]), "");
    // An empty variable is as good as none; then the usual name of Rust programs counts.
    assert_eq!(events(&[("TOLLGATE_LOG", ""), ("RUST_LOG", "off")]), "");
    assert!(says_down(&events(&[("TOLLGATE_LOG", "info"), ("RUST_LOG", "off")])), "our own name wins");
}
