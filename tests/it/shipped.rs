//! What is shipped with the binary agrees with it. That it runs is for `make test-package` and `make test-docker`.

use std::path::Path;

use serde_json::Value;

use crate::harness::process::run;
use crate::harness::server::command;

const UNIT: &str = include_str!("../../packaging/tollgate.service");
const PACKAGED: &str = include_str!("../../packaging/tollgate.yaml");
const COMPOSE: &str = include_str!("../../docker-compose.yml");
const DOCKERFILE: &str = include_str!("../../Dockerfile");
const MANIFEST: &str = include_str!("../../Cargo.toml");
const TOOLCHAIN: &str = include_str!("../../rust-toolchain.toml");
const SCHEMA: &str = include_str!("../../conf/tollgate.schema.json");

/// The value of a key of the unit that is there once.
fn of_unit(key: &str) -> &'static str {
    let values: Vec<_> = UNIT.lines().filter_map(|line| line.strip_prefix(key)?.strip_prefix('=')).collect();
    assert_eq!(values.len(), 1, "{key}: {values:?}");
    values[0]
}

/// The grace period that holds where a file says nothing, in seconds.
fn grace_period() -> u64 {
    let schema: Value = serde_json::from_str(SCHEMA).unwrap();
    let default = schema.pointer("/properties/pingora/properties/grace_period_seconds/default");
    default.and_then(Value::as_u64).expect("the schema tells the default of pingora.grace_period_seconds")
}

#[test]
fn the_services_command_and_configuration_are_valid() {
    let words: Vec<_> = of_unit("ExecStart").split(' ').collect();
    let ["/usr/bin/tollgate", arguments @ .., "/etc/tollgate/tollgate.yaml"] = &words[..] else { panic!("{words:?}") };
    let file = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/tollgate.yaml");
    let finished = run(command().args(arguments).arg(file).arg("--test"));
    assert_eq!((finished.code, &*finished.err), (Some(0), ""), "{finished:?}");
}

#[test]
fn the_services_configuration_writes_only_where_the_unit_lets_it() {
    let (state, logs) = (of_unit("StateDirectory"), of_unit("LogsDirectory"));
    let path = |key: &str| {
        let line = PACKAGED.lines().map(str::trim).find_map(|line| line.strip_prefix(key));
        line.unwrap_or_else(|| panic!("{key} is not set")).trim()
    };
    assert!(path("database:").starts_with(&format!("/var/lib/{state}/")));
    assert!(path("path:").starts_with(&format!("/var/log/{logs}/")));
    assert_eq!((of_unit("ProtectSystem"), of_unit("RuntimeDirectory")), ("strict", "tollgate"));
}

#[test]
fn a_fresh_installation_is_closed_to_the_network() {
    let addresses: Vec<_> = PACKAGED.lines().filter_map(|line| line.trim().strip_prefix("- address: ")).collect();
    assert_eq!(addresses.len(), 2, "a listener and a backend: {addresses:?}");
    assert!(addresses.iter().all(|address| address.starts_with("127.0.0.1:")), "{addresses:?}");
}

#[test]
fn the_pinned_rust_is_one_that_builds_it() {
    let minor = |text: &str, before: &str| -> u32 {
        let version = text.lines().find_map(|line| line.strip_prefix(before)).unwrap();
        version.split(['.', '"']).next().unwrap().parse().unwrap()
    };
    let (oldest, pinned) = (minor(MANIFEST, "rust-version = \"1."), minor(TOOLCHAIN, "channel = \"1."));
    assert!(oldest <= pinned, "rust-version 1.{oldest}, rust-toolchain.toml 1.{pinned}");
}

#[test]
fn who_stops_it_waits_longer_than_it_drains() {
    let unit: u64 = of_unit("TimeoutStopSec").parse().unwrap();
    let compose = COMPOSE.lines().find_map(|line| line.trim().strip_prefix("stop_grace_period: "));
    let compose: u64 = compose.and_then(|rest| rest.split_once('s')).unwrap().0.parse().unwrap();
    assert!(unit > grace_period() + 5, "TimeoutStopSec={unit}");
    assert!(compose > grace_period() + 5, "stop_grace_period: {compose}s");
    assert!(DOCKERFILE.contains("STOPSIGNAL SIGTERM"));
}
