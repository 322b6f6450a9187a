#!/usr/bin/env bash
# tower_governor 0.8.0: is a client let through that waits as long as the refusal's Retry-After says?
#
# Seen: no. One request each 2.5 s is allowed, in a burst of one. The second one is refused with `retry-after: 2`, and a client
# that comes back 2 s later is refused again, now with `retry-after: 0`. One that comes back at once, as that says, gets the same
# answer, over and over until the half second that was cut off is past. The wait is rounded down to whole seconds: under a quota
# of several a second every refusal says 0. Clients that obey the header add requests just where there were too many.
# RFC 9110 section 10.2.3 has Retry-After tell how long the client ought to wait; a server that has whole seconds only
# has to round up for that.
#
# Ends with 1 when the answers are others.
set -euo pipefail
command -v cargo >/dev/null || { echo "needs cargo (Rust 1.85 or newer)" >&2; exit 2; }
work=$(mktemp -d)
trap 'rm -rf "$work"' EXIT
mkdir "$work/src"
cat >"$work/Cargo.toml" <<'TOML'
[package]
name = "check"
version = "0.1.0"
edition = "2021"
[dependencies]
axum = { version = "0.8", default-features = false }
tokio = { version = "1", features = ["macros", "rt", "time"] }
tower = { version = "0.5", features = ["util"] }
tower_governor = "=0.8.0"
TOML
cat >"$work/src/main.rs" <<'RUST'
use axum::{body::Body, extract::Request, http::StatusCode, routing::get, Router};
use std::time::Duration;
use tower::ServiceExt;
use tower_governor::{governor::GovernorConfigBuilder, key_extractor::GlobalKeyExtractor, GovernorLayer};

/// The status and Retry-After of an answer.
async fn ask(app: &Router) -> (StatusCode, Option<String>) {
    let request = Request::get("/").body(Body::empty()).unwrap();
    let answer = app.clone().oneshot(request).await.unwrap();
    (answer.status(), answer.headers().get("retry-after").map(|value| value.to_str().unwrap().to_owned()))
}

#[tokio::main(flavor = "current_thread")]
async fn main() {
    let mut quota = GovernorConfigBuilder::default().key_extractor(GlobalKeyExtractor);
    let quota = quota.per_millisecond(2500).burst_size(1).finish().unwrap();
    let app = Router::new().route("/", get(|| async { "ok" })).layer(GovernorLayer::new(quota));
    let first = ask(&app).await;
    let at_once = ask(&app).await;
    tokio::time::sleep(Duration::from_secs(2)).await;
    let obedient = ask(&app).await;
    let again = ask(&app).await;
    tokio::time::sleep(Duration::from_millis(600)).await;
    let later = ask(&app).await;
    println!("first {first:?}\nat once {at_once:?}\n2 s later {obedient:?}\nat once {again:?}\n0.6 s later {later:?}");
    let refused = |wait: &str| (StatusCode::TOO_MANY_REQUESTS, Some(wait.to_owned()));
    if first.0 != StatusCode::OK || at_once != refused("2") || obedient != refused("0") || again != refused("0") || later.0 != StatusCode::OK {
        eprintln!("this is not what was seen");
        std::process::exit(1);
    }
}
RUST
cd "$work"
cargo run --quiet
