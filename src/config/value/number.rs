//! Numbers: whole ones, sizes, rates, statuses, and what is true or false.

use std::marker::PhantomData;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::kind::ValueKind;
use crate::client::{QuotaError, Rate};

/// A whole number from `MIN` to `MAX`, which `T` must be able to hold.
#[derive(Debug)]
pub(in crate::config) struct Whole<T, const MIN: u64, const MAX: u64>(PhantomData<T>);

/// A backend's share.
pub(in crate::config) type BackendWeight = Whole<NonZeroU32, 1, 65_535>;

/// A number of connections.
pub(in crate::config) type Connections = Whole<NonZeroUsize, 1, 10_000_000>;

/// Checks in a row.
pub(in crate::config) type Threshold = Whole<NonZeroU32, 1, 100>;

impl<T: DeserializeOwned, const MIN: u64, const MAX: u64> ValueKind for Whole<T, MIN, MAX> {
    type Checked = T;

    fn wanted() -> String {
        if MIN == MAX { MIN.to_string() } else { format!("a whole number from {MIN} to {MAX}") }
    }

    fn read(value: &Value) -> Option<T> {
        value.as_u64().filter(|number| (MIN..=MAX).contains(number)).and_then(|_| T::deserialize(value).ok())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "integer", "minimum": MIN, "maximum": MAX})
    }
}

/// `true` or `false`.
#[derive(Debug)]
pub(in crate::config) struct Flag;

impl ValueKind for Flag {
    type Checked = bool;
    const WANTED: &str = "true or false";
    const SCHEMA: &str = r#"{"type": "boolean"}"#;

    fn read(value: &Value) -> Option<bool> {
        value.as_bool()
    }
}

/// A number of bytes, with or without a unit. Never zero, which some proxies take for no limit and others for nothing.
#[derive(Debug)]
pub(in crate::config) struct Size;

impl ValueKind for Size {
    type Checked = u64;
    const WANTED: &str = "a size from 1 byte to 1TiB, such as 64KiB, 10MiB or 1048576";

    fn read(value: &Value) -> Option<u64> {
        let size = match value.as_str() {
            Some(text) => text.parse::<bytesize::ByteSize>().ok()?.as_u64(),
            None => value.as_u64()?,
        };
        (1..=bytesize::TIB).contains(&size).then_some(size)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 1, "maximum": bytesize::TIB},
            {"type": "string", "pattern": "^[0-9]", "examples": ["64KiB", "10MiB"]},
        ]})
    }
}

/// A share of a whole.
#[derive(Debug)]
pub(in crate::config) struct Fraction;

impl ValueKind for Fraction {
    type Checked = f64;
    const WANTED: &str = "a number from 0 to 1, such as 0.2";
    const SCHEMA: &str = r#"{"type": "number", "minimum": 0, "maximum": 1}"#;

    fn read(value: &Value) -> Option<f64> {
        value.as_f64().filter(|share| (0.0..=1.0).contains(share))
    }
}

/// A number of requests a second.
#[derive(Debug)]
pub(in crate::config) struct PerSec;

impl ValueKind for PerSec {
    type Checked = Rate;
    const SCHEMA: &str = r#"{"type": "number", "minimum": 1e-6, "maximum": 1e9}"#;

    fn wanted() -> String {
        QuotaError::Rate.to_string().trim_start_matches("must be ").to_owned()
    }

    fn read(value: &Value) -> Option<Rate> {
        Rate::per_sec(value.as_f64()?).ok()
    }
}

/// The statuses that a check takes for healthy.
#[derive(Debug)]
pub(in crate::config) struct Expect;

impl ValueKind for Expect {
    type Checked = RangeInclusive<u16>;
    const WANTED: &str = "a status such as 200, or a range such as 200-399, from 100 to 599 and lowest first";
    const SCHEMA: &str = r#"{"anyOf": [
        {"type": "integer", "minimum": 100, "maximum": 599},
        {"type": "string", "pattern": "^[1-5][0-9]{2}( *- *[1-5][0-9]{2})?$", "examples": ["200-399"]}
    ]}"#;

    fn read(value: &Value) -> Option<RangeInclusive<u16>> {
        let status = |text: &str| {
            let digits = text.len() == 3 && text.bytes().all(|b| b.is_ascii_digit());
            text.parse().ok().filter(|status| digits && (100..=599).contains(status))
        };
        let text =
            value.as_u64().map_or_else(|| value.as_str().map(str::to_owned), |number| Some(number.to_string()))?;
        let (first, last) = text.split_once('-').unwrap_or((&text, &text));
        let (first, last) = (status(first.trim())?, status(last.trim())?);
        (first <= last).then_some(first..=last)
    }
}
