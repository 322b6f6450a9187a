//! Two servers in one process do not share anything.

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::in_process::InProcess;
use crate::harness::setup::UNLIMITED;
use crate::harness::{PATIENCE, eventually};

#[test]
fn two_servers_in_one_process_share_nothing() {
    let (mut a, b) = (Backend::scripted("a"), Backend::scripted("b"));
    let checks = "health_check: {interval: 100ms, unhealthy_threshold: 1}";
    let (first, second) = (InProcess::start(&[&a], checks, UNLIMITED), InProcess::start(&[&b], checks, UNLIMITED));
    for _ in 0..10 {
        assert_eq!((first.backend_of_next_answer().as_str(), second.backend_of_next_answer().as_str()), ("a", "b"));
    }
    // Pools of one name, each with a health of its own.
    a.kill();
    let status = |server: &InProcess| Client::connect(server.address).get("/").unwrap().status;
    assert!(eventually(PATIENCE, || status(&first) == 503 && !first.pools[0].backends()[0].is_ready()));
    assert_eq!(status(&second), 200);
    // One stops, the other does not notice.
    first.stop();
    for _ in 0..10 {
        assert_eq!(second.backend_of_next_answer(), "b");
    }
    second.stop();
}

#[test]
fn every_counter_is_zero_after_a_storm_of_aborts_errors_and_retries() {
    let mut backends = [Backend::scripted("a"), Backend::scripted("b")];
    let extra = "balance: least_connections\n    retries: 1\n    read_timeout: 300ms\n    health_check: {type: none}";
    let server = InProcess::start(&[&backends[0], &backends[1]], extra, UNLIMITED);
    std::thread::scope(|scope| {
        for number in 0..16 {
            let address = server.address;
            scope.spawn(move || {
                for round in 0..40 {
                    let Ok(mut client) = Client::try_connect(address) else { continue };
                    let request = match (number + round) % 4 {
                        0 => "GET /?delay_ms=50 HTTP/1.1\r\nHost: a\r\n\r\n",
                        1 => "POST / HTTP/1.1\r\nHost: a\r\nContent-Length: 1000\r\n\r\npart",
                        2 => "POST / HTTP/1.1\r\nHost: a\r\nTransfer-Encoding: chunked\r\n\r\nnonsense",
                        _ => "GET /?bytes=500000 HTTP/1.1\r\nHost: a\r\n\r\n",
                    };
                    let _ = client.send(request.as_bytes());
                    if round % 3 == 0 {
                        let _ = client.read("GET");
                    }
                    // Otherwise the client leaves in the middle.
                }
            });
        }
        for _ in 0..3 {
            backends[0].kill();
            backends[0].restart();
        }
    });
    let in_flight = || server.pools[0].backends().iter().map(|backend| backend.in_flight()).sum::<usize>();
    assert!(eventually(PATIENCE, || in_flight() == 0), "{} requests are still counted", in_flight());
    server.stop();
}
