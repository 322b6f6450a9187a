//! Values that are one of a few names.

use std::marker::PhantomData;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::kind::ValueKind;
use crate::fleet::WhenUnreachable;
use crate::limit::ResetHeader;
use crate::proxy::{HeaderVersions, Underscores, UnknownKey};
use crate::spelling::closest;
use crate::telemetry::AccessLogFormat;
use crate::upstream::{Balance, Protocol, ProxyProtocol};

/// Something that has a few values, each with a name.
pub(in crate::config) trait Named: Copy + 'static {
    /// All names, the default first.
    fn names() -> impl Iterator<Item = (&'static str, Self)>;
}

impl Named for Balance {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        Balance::ALL.iter().map(|rule| (rule.name(), *rule))
    }
}

impl Named for AccessLogFormat {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        [("json", AccessLogFormat::Json), ("text", AccessLogFormat::Text)].into_iter()
    }
}

impl Named for UnknownKey {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        [("by_address", UnknownKey::ByAddress), ("reject", UnknownKey::Reject)].into_iter()
    }
}

impl Named for Underscores {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        [("drop", Underscores::Drop), ("pass", Underscores::Pass)].into_iter()
    }
}

impl Named for ProxyProtocol {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        [("v1", ProxyProtocol::V1), ("v2", ProxyProtocol::V2)].into_iter()
    }
}

impl Named for Protocol {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        [Protocol::Http1, Protocol::Http2, Protocol::Auto].into_iter().map(|protocol| (protocol.name(), protocol))
    }
}

impl Named for HeaderVersions {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        [("v1", HeaderVersions::V1), ("v2", HeaderVersions::V2), ("any", HeaderVersions::Any)].into_iter()
    }
}

impl Named for ResetHeader {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        [("epoch", ResetHeader::Epoch), ("seconds", ResetHeader::Seconds), ("off", ResetHeader::Off)].into_iter()
    }
}

impl Named for WhenUnreachable {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        use WhenUnreachable::{Allow, Refuse, Share};
        [("share", Share), ("refuse", Refuse), ("allow", Allow)].into_iter()
    }
}

/// What a health check does, without what it takes to do it.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum CheckType {
    Tcp,
    Http,
    Grpc,
    None,
}

impl Named for CheckType {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        use CheckType::{Grpc, Http, None, Tcp};
        [("tcp", Tcp), ("http", Http), ("grpc", Grpc), ("none", None)].into_iter()
    }
}

/// Whether clients have to show a certificate.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum ClientCerts {
    Optional,
    Required,
}

impl Named for ClientCerts {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        [("optional", ClientCerts::Optional), ("required", ClientCerts::Required)].into_iter()
    }
}

/// Whether a policy refuses.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub(in crate::config) enum PolicyMode {
    Enforce,
    Shadow,
}

impl Named for PolicyMode {
    fn names() -> impl Iterator<Item = (&'static str, Self)> {
        [("enforce", PolicyMode::Enforce), ("shadow", PolicyMode::Shadow)].into_iter()
    }
}

/// One of the names of `T`.
#[derive(Debug)]
pub(in crate::config) struct Choice<T>(PhantomData<T>);

impl<T: Named> ValueKind for Choice<T> {
    type Checked = T;

    fn wanted() -> String {
        let names: Vec<_> = T::names().map(|(name, _)| name).collect();
        match names.split_last() {
            Some((last, [])) => (*last).to_owned(),
            Some((last, first)) => format!("{} or {last}", first.join(", ")),
            None => String::new(),
        }
    }

    fn read(value: &Value) -> Option<T> {
        let text = value.as_str()?;
        T::names().find(|(name, _)| *name == text).map(|(_, value)| value)
    }

    fn hint(refused: &Value) -> Option<String> {
        let close = closest(refused.as_str()?, T::names().map(|(name, _)| name))?;
        Some(format!("did you mean {close}?"))
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"enum": T::names().map(|(name, _)| name).collect::<Vec<_>>()})
    }
}
