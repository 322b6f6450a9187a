//! What the tests stand on: real processes, real sockets, and waiting by deadline.
//!
//! Nothing here shares code with tollgate but its clock, so a mistake in the proxy cannot hide behind the same mistake
//! in its tests. Nothing sleeps for time to pass: [`eventually`] polls, everything else waits for what it waits for.

pub(crate) mod authority;
pub(crate) mod backend;
pub(crate) mod browser;
pub(crate) mod checksum;
pub(crate) mod client;
pub(crate) mod daemon;
pub(crate) mod fleet;
pub(crate) mod front;
pub(crate) mod haproxy;
pub(crate) mod http2;
pub(crate) mod http2_backend;
pub(crate) mod in_process;
pub(crate) mod instance;
pub(crate) mod load;
pub(crate) mod pebble;
pub(crate) mod played;
pub(crate) mod ports;
pub(crate) mod process;
pub(crate) mod relay;
pub(crate) mod script;
pub(crate) mod scripted;
pub(crate) mod server;
pub(crate) mod setup;
#[path = "../../../src/fleet/servers.rs"]
pub(crate) mod store;
pub(crate) mod tls;
pub(crate) mod way;
pub(crate) mod wire;

use std::time::{Duration, Instant};

use ::tollgate::clock::{Clock, SystemClock};

/// Long enough for anything that works, also on two cores in a debug build beside other tests.
pub(crate) const PATIENCE: Duration = Duration::from_secs(20);

/// The monotonic time.
pub(crate) fn now() -> Instant {
    SystemClock.now()
}

/// Whether `what` comes true before `limit` has passed.
pub(crate) fn eventually(limit: Duration, mut what: impl FnMut() -> bool) -> bool {
    let end = now() + limit;
    loop {
        if what() {
            return true;
        }
        if now() >= end {
            return false;
        }
        std::thread::park_timeout(Duration::from_millis(10));
    }
}

/// Keeps a scripted party (a slow backend, a dripping client) waiting for exactly this long. For behaviour only: a test
/// that waits for something uses [`eventually`].
pub(crate) fn dawdle(time: Duration) {
    let end = now() + time;
    while let Some(left) = end.checked_duration_since(now()).filter(|left| !left.is_zero()) {
        std::thread::park_timeout(left);
    }
}

/// Asserts on an answer of tollgate's own: the status, the exact JSON, the content type and the request id.
#[track_caller]
pub(crate) fn assert_ours(response: &client::Response, status: u16, message: &str) {
    assert_eq!(response.status, status, "{response:?}");
    assert_is_our_json(response);
    assert_eq!(response.text(), format!(r#"{{"code":{status},"message":"{message}"}}"#));
}

/// Asserts that an answer is an error of tollgate's own, whichever it is.
#[track_caller]
pub(crate) fn assert_is_our_json(response: &client::Response) {
    let value: serde_json::Value =
        serde_json::from_slice(&response.body).unwrap_or_else(|e| panic!("not JSON ({e}): {response:?}"));
    assert_eq!(value["code"], response.status, "{response:?}");
    assert!(value["message"].as_str().is_some_and(|message| !message.is_empty()), "{response:?}");
    assert_eq!(response.header("content-type"), Some("application/json"), "{response:?}");
    assert!(response.header("x-request-id").is_some_and(|id| !id.is_empty()), "{response:?}");
}
