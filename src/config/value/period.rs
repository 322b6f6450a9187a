//! How long, and how often.

use std::num::NonZeroU64;
use std::time::Duration;

use serde_yaml::Value;

use super::kind::ValueKind;

/// A duration with its unit. Never zero: nothing here can wait for no time at all.
#[derive(Debug)]
pub(in crate::config) struct Period;

impl ValueKind for Period {
    type Checked = Duration;
    const WANTED: &str = "a duration from 1ms to 24h, such as 250ms, 5s or 1m";
    const SCHEMA: &str =
        r#"{"type": "string", "pattern": "^\\s*[0-9].*[a-zA-Z]\\s*$", "examples": ["250ms", "5s", "1m"]}"#;

    fn read(value: &Value) -> Option<Duration> {
        let bounds = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
        humantime::parse_duration(value.as_str()?).ok().filter(|period| bounds.contains(period))
    }

    fn hint(refused: &Value) -> Option<String> {
        let bare = refused.is_number() || refused.as_str().is_some_and(|text| text.parse::<f64>().is_ok());
        bare.then(|| "write a unit behind the number".to_owned())
    }
}

/// A duration with its unit, which may be none at all.
#[derive(Debug)]
pub(in crate::config) struct Pause;

impl ValueKind for Pause {
    type Checked = Duration;
    const WANTED: &str = "a duration from 0s to 24h, such as 250ms, 5s or 1m";
    const SCHEMA: &str = Period::SCHEMA;

    fn read(value: &Value) -> Option<Duration> {
        let none = value.as_str().and_then(|text| humantime::parse_duration(text).ok()).filter(Duration::is_zero);
        none.or_else(|| Period::read(value))
    }

    fn hint(refused: &Value) -> Option<String> {
        Period::hint(refused)
    }
}

/// A duration that can be told in whole seconds; how many of them.
#[derive(Debug)]
pub(in crate::config) struct WholeSeconds;

impl ValueKind for WholeSeconds {
    type Checked = NonZeroU64;
    const WANTED: &str = "a duration of whole seconds from 1s to 24h, such as 2s or 1m";
    const SCHEMA: &str = Period::SCHEMA;

    fn read(value: &Value) -> Option<NonZeroU64> {
        let period = Period::read(value).filter(|period| period.subsec_nanos() == 0)?;
        NonZeroU64::new(period.as_secs())
    }

    fn hint(refused: &Value) -> Option<String> {
        Period::hint(refused)
    }
}

/// How often something is done for which a day is no interval.
#[derive(Debug)]
pub(in crate::config) struct Tick;

impl ValueKind for Tick {
    type Checked = Duration;
    const WANTED: &str = "a duration from 1ms to 1m, such as 250ms or 1s";
    const SCHEMA: &str = Period::SCHEMA;

    fn read(value: &Value) -> Option<Duration> {
        Period::read(value).filter(|period| *period <= Duration::from_secs(60))
    }

    fn hint(refused: &Value) -> Option<String> {
        Period::hint(refused)
    }
}
