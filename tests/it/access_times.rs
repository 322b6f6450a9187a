//! What an access line says of the time a request took and of the backend that it was given to.

use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::Request;
use crate::harness::dawdle;
use crate::harness::ports::free_address;
use crate::harness::setup::{NO_CHECK, Setup};

#[test]
fn the_time_counts_from_the_first_byte_of_the_header() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let mut client = server.client();
    for n in 0..2 {
        client.send(b"GET / HTTP/1.1\r\nHo").unwrap();
        dawdle(Duration::from_millis(500));
        client.send(b"st: a\r\n\r\n").unwrap();
        assert_eq!(client.read("GET").unwrap().status, 200);
        let line = server.access_lines(n + 1).remove(n);
        assert!(line["duration_ms"].as_f64().is_some_and(|ms| (450.0..5_000.0).contains(&ms)), "{line}");
    }
}

#[test]
fn silence_before_a_request_does_not_count() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let wrong = "GET / HTTP/1.1\r\nHost: a\r\nno colon\r\n\r\n";
    let good = "GET / HTTP/1.1\r\nHost: a\r\n\r\n";
    for (n, (sent, status)) in [(wrong, 400), (good, 200)].into_iter().enumerate() {
        let mut client = server.client();
        client.get("/").unwrap();
        dawdle(Duration::from_secs(1));
        client.send(sent.as_bytes()).unwrap();
        assert_eq!(client.read("GET").unwrap().status, status);
        let line = server.access_lines(2 * n + 2).remove(2 * n + 1);
        assert_eq!(line["status"], status, "{line}");
        assert!(line["duration_ms"].as_f64().is_some_and(|ms| (0.0..500.0).contains(&ms)), "{line}");
    }
}

#[test]
fn a_request_that_could_not_connect_names_the_last_backend_tried() {
    let (heavy, light) = (free_address(), free_address());
    for (retries, attempts, last) in [(0, 1, heavy), (1, 2, light), (5, 2, light)] {
        let server = Setup::default()
            .weighted_pool("app", &[(heavy, 5), (light, 1)], &format!("retries: {retries}, {NO_CHECK}"))
            .start();
        server.client().call(&Request::new("POST", "/")).unwrap();
        let line = server.access_lines(1).remove(0);
        assert_eq!((&line["upstream"], &line["attempts"]), (&"app".into(), &attempts.into()), "{line}");
        assert_eq!(line["backend"], last.to_string(), "retries {retries}: {line}");
        assert!(line["error"].is_string(), "{line}");
    }
}
