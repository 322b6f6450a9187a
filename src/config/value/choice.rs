//! Values that are one of a few names.

use std::marker::PhantomData;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::kind::ValueKind;
use crate::proxy::{Underscores, UnknownKey};
use crate::spelling::closest;
use crate::telemetry::AccessLogFormat;
use crate::upstream::Balance;

/// Something that has a few values, each with a name.
pub(in crate::config) trait Named: Copy + 'static {
    /// All names, the default first.
    const NAMES: &'static [(&'static str, Self)];
}

impl Named for Balance {
    const NAMES: &'static [(&'static str, Self)] = &[
        ("round_robin", Balance::RoundRobin),
        ("random", Balance::Random),
        ("least_connections", Balance::LeastConnections),
    ];
}

impl Named for AccessLogFormat {
    const NAMES: &'static [(&'static str, Self)] = &[("json", AccessLogFormat::Json), ("text", AccessLogFormat::Text)];
}

impl Named for UnknownKey {
    const NAMES: &'static [(&'static str, Self)] =
        &[("by_address", UnknownKey::ByAddress), ("reject", UnknownKey::Reject)];
}

impl Named for Underscores {
    const NAMES: &'static [(&'static str, Self)] = &[("drop", Underscores::Drop), ("pass", Underscores::Pass)];
}

/// What a health check does, without what it takes to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum CheckType {
    Tcp,
    Http,
    None,
}

impl Named for CheckType {
    const NAMES: &'static [(&'static str, Self)] =
        &[("tcp", CheckType::Tcp), ("http", CheckType::Http), ("none", CheckType::None)];
}

/// One of the names of `T`.
#[derive(Debug)]
pub(in crate::config) struct Choice<T>(PhantomData<T>);

impl<T: Named> ValueKind for Choice<T> {
    type Checked = T;

    fn wanted() -> String {
        match T::NAMES {
            [first @ .., (last, _)] => {
                let first: Vec<_> = first.iter().map(|(name, _)| *name).collect();
                format!("{} or {last}", first.join(", "))
            }
            [] => String::new(),
        }
    }

    fn read(value: &Value) -> Option<T> {
        let text = value.as_str()?;
        T::NAMES.iter().find(|(name, _)| *name == text).map(|(_, value)| *value)
    }

    fn hint(refused: &Value) -> Option<String> {
        let close = closest(refused.as_str()?, T::NAMES.iter().map(|(name, _)| *name))?;
        Some(format!("did you mean {close}?"))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": T::NAMES.iter().map(|(name, _)| *name).collect::<Vec<_>>()})
    }
}
