//! The files that a configuration names.

use std::path::PathBuf;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::key::Leaf;
use crate::telemetry::AccessLogTarget;

/// Where access lines go; null switches them off.
#[derive(Debug)]
pub(super) struct LogPath;

impl Leaf for LogPath {
    type Checked = Option<AccessLogTarget>;

    fn wanted() -> String {
        "the path of a file, \"-\" for standard output, or null for no access log".to_owned()
    }

    fn read(value: &Value) -> Option<Option<AccessLogTarget>> {
        match value {
            Value::Null => Some(None),
            Value::String(path) if path == "-" => Some(Some(AccessLogTarget::Stdout)),
            _ => file_path(value).map(|path| Some(AccessLogTarget::File(path))),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "null"], "minLength": 1})
    }
}

/// Where clients and buckets are kept; null keeps them in memory only.
#[derive(Debug)]
pub(super) struct DatabasePath;

impl Leaf for DatabasePath {
    type Checked = Option<PathBuf>;

    fn wanted() -> String {
        "the path of a file, or null to keep clients and buckets in memory only".to_owned()
    }

    fn read(value: &Value) -> Option<Option<PathBuf>> {
        // SQLite has a meaning of its own for these, and none of them is a file that was meant.
        let is_special = |text: &str| text == ":memory:" || text.starts_with("file:");
        match value {
            Value::Null => Some(None),
            Value::String(text) if is_special(text) => None,
            _ => file_path(value).map(Some),
        }
    }

    fn hint(refused: &Value) -> Option<String> {
        match refused.as_str()? {
            ":memory:" => Some("null is memory".to_owned()),
            text => text.starts_with("file:").then(|| "a path, not a URI: leave out file:".to_owned()),
        }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "null"], "minLength": 1})
    }
}

/// Where the admin API's tokens are; null is nowhere.
#[derive(Debug)]
pub(super) struct TokenPath;

impl Leaf for TokenPath {
    type Checked = Option<PathBuf>;

    fn wanted() -> String {
        "the path of a file with a token on each line, or null for none".to_owned()
    }

    fn read(value: &Value) -> Option<Option<PathBuf>> {
        if value.is_null() { Some(None) } else { file_path(value).map(Some) }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "null"], "minLength": 1})
    }
}

/// A file that a running process keeps for itself.
#[derive(Debug)]
pub(super) struct StatePath;

impl Leaf for StatePath {
    type Checked = PathBuf;

    fn wanted() -> String {
        "the path of a file".to_owned()
    }

    fn read(value: &Value) -> Option<PathBuf> {
        file_path(value)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// Where a daemon's events go; null is nowhere.
#[derive(Debug)]
pub(super) struct EventsPath;

impl Leaf for EventsPath {
    type Checked = Option<PathBuf>;

    fn wanted() -> String {
        "the path of a file, or null for nowhere".to_owned()
    }

    fn read(value: &Value) -> Option<Option<PathBuf>> {
        if value.is_null() { Some(None) } else { file_path(value).map(Some) }
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": ["string", "null"], "minLength": 1})
    }
}

/// A directory.
#[derive(Debug)]
pub(super) struct Directory;

impl Leaf for Directory {
    type Checked = PathBuf;

    fn wanted() -> String {
        "the path of a directory".to_owned()
    }

    fn read(value: &Value) -> Option<PathBuf> {
        value.as_str().filter(|path| !path.is_empty() && !path.contains('\0')).map(PathBuf::from)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// Where a certificate or a key is.
#[derive(Debug)]
pub(super) struct PemPath;

impl Leaf for PemPath {
    type Checked = PathBuf;

    fn wanted() -> String {
        "the path of a PEM file".to_owned()
    }

    fn read(value: &Value) -> Option<PathBuf> {
        file_path(value)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// The path of something that can be a file.
fn file_path(value: &Value) -> Option<PathBuf> {
    let path = value.as_str()?;
    (!path.is_empty() && !path.ends_with('/') && !path.contains('\0')).then(|| path.into())
}
