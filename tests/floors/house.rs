//! The table of the house.

/// The rooms and their floors, from below. A room uses what lies on floors below its own; what is no room of its own is
/// part of the room around it.
pub(crate) const ROOMS: &[(&str, &str)] = &[
    ("clock", "0"),
    ("client", "0"),
    ("decimal", "0"),
    ("limit", "0"),
    ("route", "0"),
    ("spelling", "0"),
    ("tls", "1"),
    ("upstream", "1"),
    ("store", "2"),
    ("fleet", "3"),
    ("telemetry", "3"),
    ("proxy::wire", "3"),
    ("proxy::gate", "3a"),
    ("proxy::downstream", "3b"),
    ("proxy::backend", "3c"),
    ("proxy::exchange", "3d"),
    ("proxy::pingora", "3d"),
    ("proxy::service", "3e"),
    ("proxy", "3f"),
    ("admin::api", "4"),
    ("admin::handlers", "4a"),
    ("admin", "4b"),
    ("process", "4"),
    ("config", "5"),
    ("server", "5"),
    ("cli", "6"),
    ("main", "7"),
];

/// Uses within a floor that are allowed all the same: a bucket is under a client's quota, connections to backends do
/// the handshakes of `tls`, the server builds from the configuration.
pub(crate) const SAME_FLOOR: &[(&str, &str)] =
    &[("limit", "client"), ("upstream", "tls"), ("server", "config"), ("proxy::pingora", "proxy::exchange")];

/// Uses of a lower floor that are refused all the same: no database on the request path, an admin interface that works
/// whatever the proxy does, and a process that knows no HTTP.
pub(crate) const REFUSED: &[(&str, &str)] = &[
    ("proxy", "store"),
    ("proxy", "fleet"),
    ("admin", "proxy"),
    ("process", "proxy"),
    ("process", "telemetry"),
    ("process", "upstream"),
    ("process", "store"),
];

/// Libraries that only some rooms may name.
pub(crate) const LIBRARIES: &[(&str, &[&str])] = &[
    ("rusqlite", &["store::sqlite"]),
    ("redis", &["fleet"]),
    ("clap", &["cli", "main"]),
    ("clap_complete", &["cli", "main"]),
    ("clap_mangen", &["cli"]),
    ("pingora_proxy", &["proxy", "server"]),
    ("pingora_load_balancing", &["upstream", "server"]),
    ("serde_yaml", &["config"]),
    ("axum", &["admin"]),
    ("utoipa", &["admin"]),
    ("prometheus_client", &["telemetry"]),
    ("opentelemetry", &["telemetry"]),
    ("opentelemetry_otlp", &["telemetry"]),
];

/// Types of `static` items that are the same in every server: what is written there once is the name of a header, or
/// the digest of a script.
pub(crate) const CONSTANTS: &[&str] = &["OwnName", "Script"];

/// Names that say nothing about what is inside.
pub(crate) const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "types", "manager", "misc"];

/// The most lines of a function and of a file whose doc gives no reason to be longer.
pub(crate) const LONGEST_FUNCTION: usize = 60;
pub(crate) const LONGEST_FILE: usize = 400;

/// The room that `module` is part of, and its floor.
pub(crate) fn room(module: &[String]) -> Option<(&'static str, &'static str)> {
    let path = module.join("::");
    let around = |room: &str| path.strip_prefix(room).is_some_and(|rest| rest.is_empty() || rest.starts_with("::"));
    ROOMS.iter().filter(|(room, _)| around(room)).max_by_key(|(room, _)| room.len()).copied()
}

/// Why `from` may not use `to`; nothing when it may.
pub(crate) fn objection(from: &[String], to: &[String]) -> Option<String> {
    let Some((upper, above)) = room(from) else {
        return Some(format!("`{}` is in no room of the table", from.join("::")));
    };
    let Some((lower, below)) = room(to) else {
        return Some(format!("`{upper}` names `{}`, which is in no room of the table", to.join("::")));
    };
    let top = |room: &'static str| room.split("::").next().unwrap_or(room);
    let refused = REFUSED.contains(&(top(upper), top(lower)));
    let allowed = upper == lower || below < above || SAME_FLOOR.contains(&(upper, lower));
    (refused || !allowed).then(|| format!("`{upper}` (floor {above}) imports `{lower}` (floor {below})"))
}
