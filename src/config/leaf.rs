//! The kinds of values, but for addresses and names out of a few.

use std::marker::PhantomData;
use std::num::{NonZeroU32, NonZeroUsize};
use std::ops::RangeInclusive;
use std::time::Duration;

use http::HeaderName;
use http::header::{
    AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE,
};
use ipnet::IpNet;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde::de::DeserializeOwned;
use serde_yaml::Value;

use super::key::Leaf;
use crate::client::{QuotaError, Rate, network};
use crate::route::{HostPattern, PathPrefix, RouteError};

/// A whole number from `MIN` to `MAX`, which `T` must be able to hold.
#[derive(Debug)]
pub(super) struct Whole<T, const MIN: u64, const MAX: u64>(PhantomData<T>);

/// A backend's share.
pub(super) type Weight = Whole<NonZeroU32, 1, 65_535>;

/// A number of connections.
pub(super) type Connections = Whole<NonZeroUsize, 1, 10_000_000>;

/// Checks in a row.
pub(super) type Threshold = Whole<NonZeroU32, 1, 100>;

impl<T: DeserializeOwned, const MIN: u64, const MAX: u64> Leaf for Whole<T, MIN, MAX> {
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
pub(super) struct Flag;

impl Leaf for Flag {
    type Checked = bool;

    fn wanted() -> String {
        "true or false".to_owned()
    }

    fn read(value: &Value) -> Option<bool> {
        value.as_bool()
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "boolean"})
    }
}

/// A duration with its unit. Never zero: nothing here can wait for no time at all.
#[derive(Debug)]
pub(super) struct Span;

impl Leaf for Span {
    type Checked = Duration;

    fn wanted() -> String {
        "a duration from 1ms to 24h, such as 250ms, 5s or 1m".to_owned()
    }

    fn read(value: &Value) -> Option<Duration> {
        let bounds = Duration::from_millis(1)..=Duration::from_secs(24 * 60 * 60);
        humantime::parse_duration(value.as_str()?).ok().filter(|span| bounds.contains(span))
    }

    fn hint(refused: &Value) -> Option<String> {
        let bare = refused.is_number() || refused.as_str().is_some_and(|text| text.parse::<f64>().is_ok());
        bare.then(|| "write a unit behind the number".to_owned())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^\\s*[0-9].*[a-zA-Z]\\s*$", "examples": ["250ms", "5s", "1m"]})
    }
}

/// How often something is done for which a day is no interval.
#[derive(Debug)]
pub(super) struct Tick;

impl Leaf for Tick {
    type Checked = Duration;

    fn wanted() -> String {
        "a duration from 1ms to 1m, such as 250ms or 1s".to_owned()
    }

    fn read(value: &Value) -> Option<Duration> {
        Span::read(value).filter(|span| *span <= Duration::from_secs(60))
    }

    fn hint(refused: &Value) -> Option<String> {
        Span::hint(refused)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        Span::schema(generator)
    }
}

/// A number of bytes, with or without a unit. Never zero, which some proxies take for no limit and others for nothing.
#[derive(Debug)]
pub(super) struct Size;

impl Leaf for Size {
    type Checked = u64;

    fn wanted() -> String {
        "a size from 1 byte to 1TiB, such as 64KiB, 10MiB or 1048576".to_owned()
    }

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

/// The name of a pool: short, and the same in a log, a path and a metric.
#[derive(Debug)]
pub(super) struct Name;

impl Leaf for Name {
    type Checked = String;

    fn wanted() -> String {
        "a name of 1 to 64 characters of A-Z, a-z, 0-9, . _ and -".to_owned()
    }

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str().filter(|text| (1..=64).contains(&text.len()))?;
        text.bytes().all(|b| b.is_ascii_alphanumeric() || b"._-".contains(&b)).then(|| text.to_owned())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[A-Za-z0-9._-]{1,64}$"})
    }
}

/// What a check asks for.
#[derive(Debug)]
pub(super) struct CheckPath;

impl Leaf for CheckPath {
    type Checked = String;

    fn wanted() -> String {
        "a path that starts with /, such as /health, without spaces or #".to_owned()
    }

    fn read(value: &Value) -> Option<String> {
        let text = value.as_str().filter(|text| text.starts_with('/'))?;
        text.bytes().all(|b| b.is_ascii_graphic() && b != b'#').then(|| text.to_owned())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^/[!-\"$-~]*$"})
    }
}

/// The statuses that a check takes for healthy.
#[derive(Debug)]
pub(super) struct Expect;

impl Leaf for Expect {
    type Checked = RangeInclusive<u16>;

    fn wanted() -> String {
        "a status such as 200, or a range such as 200-399, from 100 to 599 and lowest first".to_owned()
    }

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

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [
            {"type": "integer", "minimum": 100, "maximum": 599},
            {"type": "string", "pattern": "^[1-5][0-9]{2}( *- *[1-5][0-9]{2})?$", "examples": ["200-399"]},
        ]})
    }
}

/// The host of a route.
#[derive(Debug)]
pub(super) struct RouteHost;

impl Leaf for RouteHost {
    type Checked = HostPattern;

    fn wanted() -> String {
        RouteError::Host.to_string().trim_start_matches("must be ").to_owned()
    }

    fn read(value: &Value) -> Option<HostPattern> {
        HostPattern::parse(value.as_str()?).ok()
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "examples": ["api.example.com", "*.example.com"]})
    }
}

/// The path of a route.
#[derive(Debug)]
pub(super) struct RoutePath;

impl Leaf for RoutePath {
    type Checked = PathPrefix;

    fn wanted() -> String {
        RouteError::Path.to_string().trim_start_matches("must be ").to_owned()
    }

    fn read(value: &Value) -> Option<PathPrefix> {
        PathPrefix::parse(value.as_str()?).ok()
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^/", "examples": ["/", "/v1"]})
    }
}

/// The name of a header.
#[derive(Debug)]
pub(super) struct Header;

impl Leaf for Header {
    type Checked = HeaderName;

    fn wanted() -> String {
        "the name of a header that holds nothing else, such as x-api-key".to_owned()
    }

    fn read(value: &Value) -> Option<HeaderName> {
        let name: HeaderName = value.as_str()?.parse().ok()?;
        let taken =
            [AUTHORIZATION, CONNECTION, CONTENT_LENGTH, COOKIE, EXPECT, HOST, TE, TRAILER, TRANSFER_ENCODING, UPGRADE];
        (!taken.contains(&name) && !name.as_str().starts_with("x-forwarded-")).then_some(name)
    }

    fn hint(refused: &Value) -> Option<String> {
        let bearer = refused.as_str()?.eq_ignore_ascii_case("authorization");
        bearer.then(|| "`Authorization: Bearer KEY` is read in any case".to_owned())
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[!#$%&'*+.^_`|~0-9A-Za-z-]+$", "examples": ["x-api-key"]})
    }
}

/// An address or a network.
#[derive(Debug)]
pub(super) struct Network;

impl Leaf for Network {
    type Checked = IpNet;

    fn wanted() -> String {
        "an IP address or a network, such as 10.0.0.1, 10.0.0.0/8 or \"2001:db8::/32\"".to_owned()
    }

    fn read(value: &Value) -> Option<IpNet> {
        network(value.as_str()?)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "pattern": "^[0-9a-fA-F:.]+(/[0-9]{1,3})?$", "examples": ["10.0.0.0/8"]})
    }
}

/// A number of requests a second.
#[derive(Debug)]
pub(super) struct PerSec;

impl Leaf for PerSec {
    type Checked = Rate;

    fn wanted() -> String {
        QuotaError::Rate.to_string().trim_start_matches("must be ").to_owned()
    }

    fn read(value: &Value) -> Option<Rate> {
        Rate::per_sec(value.as_f64()?).ok()
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "number", "minimum": 1e-6, "maximum": 1e9})
    }
}
