//! Where the fleet's store is, and how long it is waited for.

use std::time::Duration;

use serde_yaml::Value;

use super::kind::ValueKind;
use super::period::Period;
use crate::fleet::StoreAddress;
use crate::fleet::settings::StoreAddressError;

/// Where the fleet's store is. What is wrong with a text is told where the file is checked, in words that show nothing
/// of a password.
#[derive(Debug)]
pub(in crate::config) struct StoreKey;

impl ValueKind for StoreKey {
    type Checked = Result<StoreAddress, StoreAddressError>;
    const WANTED: &str = "the address of Valkey or Redis, such as redis://10.0.0.5:6379/0, redis+cluster://A,B,C or \
                          redis+sentinel://A,B,C/NAME (rediss over TLS)";
    const SCHEMA: &str = r#"{"type": "string", "pattern": "^(redis|valkey)s?([+](cluster|sentinel))?://.+",
        "examples": ["redis://10.0.0.5:6379/0", "redis+cluster://a,b,c", "redis+sentinel://a,b,c/main"]}"#;

    fn read(value: &Value) -> Option<Self::Checked> {
        Some(value.as_str()?.trim().parse())
    }
}

/// How far ahead tokens are held.
#[derive(Debug)]
pub(in crate::config) struct LeaseTime;

impl ValueKind for LeaseTime {
    type Checked = Duration;
    const WANTED: &str = "a duration from 10ms to 10s, such as 100ms or 1s";
    const SCHEMA: &str = Period::SCHEMA;

    fn read(value: &Value) -> Option<Duration> {
        Period::read(value).filter(|period| (10..=10_000).contains(&period.as_millis()))
    }

    fn hint(refused: &Value) -> Option<String> {
        Period::hint(refused)
    }
}

/// How long a request waits for the store.
#[derive(Debug)]
pub(in crate::config) struct StoreWait;

impl ValueKind for StoreWait {
    type Checked = Duration;
    const WANTED: &str = "a duration from 1ms to 1s, such as 25ms";
    const SCHEMA: &str = Period::SCHEMA;

    fn read(value: &Value) -> Option<Duration> {
        Period::read(value).filter(|period| *period <= Duration::from_secs(1))
    }

    fn hint(refused: &Value) -> Option<String> {
        Period::hint(refused)
    }
}
