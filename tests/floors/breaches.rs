//! What does not keep the rules yet. These lists only get shorter: an entry that is no longer needed fails the test.

/// Uses of a room that is not below.
pub(crate) const ROOMS: &[&str] = &[];

/// Uses (from file to file) without which there would be no circle.
pub(crate) const CIRCLES: &[(&str, &str)] = &[
    ("cli", "cli::args"),
    ("cli", "cli::clients"),
    ("cli", "cli::demo"),
    ("cli", "cli::healthcheck"),
    ("cli", "cli::run"),
    ("cli", "cli::upgrade"),
    ("cli::environment", "cli"),
    ("server", "server::echo"),
    ("server", "server::store"),
    ("server::conductor", "server::handover::conduct"),
    ("server::handover", "server::handover::predecessor"),
];

/// Names of several types.
#[rustfmt::skip]
pub(crate) const NAMES: &[&str] = &[
    "Asked",
    "Choice",
    "Socket",
    "Backend",
    "Failure",
];

/// Functions that are too long, and give no reason.
pub(crate) const FUNCTIONS: &[&str] = &[
    "proxy::service::connection::serve_requests",
    "proxy::exchange::request::write",
    "proxy::service::http2::run",
    "server::admin::into_parts",
    "server::build::build",
    "server::reload::attempt",
    "server::run::assemble",
];

/// Files that are too long, and give no reason.
pub(crate) const FILES: &[&str] =
    &["proxy::service::http2", "server::buckets::tests", "proxy::downstream::head", "proxy::pingora::loan"];
