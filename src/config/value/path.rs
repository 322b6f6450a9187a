//! The files that a configuration names.

use std::path::PathBuf;

use serde_yaml::Value;

use super::kind::ValueKind;
use crate::telemetry::AccessLogTarget;

/// What an editor is told of a path, and of one that may be null.
const PATH: &str = r#"{"type": "string", "minLength": 1}"#;
const PATH_OR_NULL: &str = r#"{"type": ["string", "null"], "minLength": 1}"#;

/// Where access lines go; null switches them off.
#[derive(Debug)]
pub(in crate::config) struct LogPath;

impl ValueKind for LogPath {
    type Checked = Option<AccessLogTarget>;
    const WANTED: &str = "the path of a file, \"-\" for standard output, or null for no access log";
    const SCHEMA: &str = PATH_OR_NULL;

    fn read(value: &Value) -> Option<Option<AccessLogTarget>> {
        match value {
            Value::String(path) if path == "-" => Some(Some(AccessLogTarget::Stdout)),
            _ => path_or_null(value).map(|path| path.map(AccessLogTarget::File)),
        }
    }
}

/// Where clients and buckets are kept; null keeps them in memory only.
#[derive(Debug)]
pub(in crate::config) struct DatabasePath;

impl ValueKind for DatabasePath {
    type Checked = Option<PathBuf>;
    const WANTED: &str = "the path of a file, or null to keep clients and buckets in memory only";
    const SCHEMA: &str = PATH_OR_NULL;

    fn read(value: &Value) -> Option<Option<PathBuf>> {
        // SQLite has a meaning of its own for these, and none of them is a file that was meant.
        let is_special = |text: &str| text == ":memory:" || text.starts_with("file:");
        if value.as_str().is_some_and(is_special) { None } else { path_or_null(value) }
    }

    fn hint(refused: &Value) -> Option<String> {
        match refused.as_str()? {
            ":memory:" => Some("null is memory".to_owned()),
            text => text.starts_with("file:").then(|| "a path, not a URI: leave out file:".to_owned()),
        }
    }
}

/// Where the admin API's tokens are; null is nowhere.
#[derive(Debug)]
pub(in crate::config) struct TokenPath;

impl ValueKind for TokenPath {
    type Checked = Option<PathBuf>;
    const WANTED: &str = "the path of a file with a token on each line, or null for none";
    const SCHEMA: &str = PATH_OR_NULL;

    fn read(value: &Value) -> Option<Option<PathBuf>> {
        path_or_null(value)
    }
}

/// Where a password is; null is nowhere.
#[derive(Debug)]
pub(in crate::config) struct SecretPath;

impl ValueKind for SecretPath {
    type Checked = Option<PathBuf>;
    const WANTED: &str = "the path of a file with nothing but a password, or null for none";
    const SCHEMA: &str = PATH_OR_NULL;

    fn read(value: &Value) -> Option<Option<PathBuf>> {
        path_or_null(value)
    }
}

/// A file that a running process keeps for itself.
#[derive(Debug)]
pub(in crate::config) struct StatePath;

impl ValueKind for StatePath {
    type Checked = PathBuf;
    const WANTED: &str = "the path of a file";
    const SCHEMA: &str = PATH;

    fn read(value: &Value) -> Option<PathBuf> {
        file_path(value)
    }
}

/// Where a daemon's events go; null is nowhere.
#[derive(Debug)]
pub(in crate::config) struct EventsPath;

impl ValueKind for EventsPath {
    type Checked = Option<PathBuf>;
    const WANTED: &str = "the path of a file, or null for nowhere";
    const SCHEMA: &str = PATH_OR_NULL;

    fn read(value: &Value) -> Option<Option<PathBuf>> {
        path_or_null(value)
    }
}

/// A directory.
#[derive(Debug)]
pub(in crate::config) struct DirectoryPath;

impl ValueKind for DirectoryPath {
    type Checked = PathBuf;
    const WANTED: &str = "the path of a directory";
    const SCHEMA: &str = PATH;

    fn read(value: &Value) -> Option<PathBuf> {
        path(value)
    }
}

/// Where a certificate or a key is.
#[derive(Debug)]
pub(in crate::config) struct PemPath;

impl ValueKind for PemPath {
    type Checked = PathBuf;
    const WANTED: &str = "the path of a PEM file";
    const SCHEMA: &str = PATH;

    fn read(value: &Value) -> Option<PathBuf> {
        file_path(value)
    }
}

fn path(value: &Value) -> Option<PathBuf> {
    value.as_str().filter(|path| !path.is_empty() && !path.contains('\0')).map(PathBuf::from)
}

/// The path of something that can be a file.
fn file_path(value: &Value) -> Option<PathBuf> {
    path(value).filter(|_| value.as_str().is_some_and(|path| !path.ends_with('/')))
}

fn path_or_null(value: &Value) -> Option<Option<PathBuf>> {
    if value.is_null() { Some(None) } else { file_path(value).map(Some) }
}
