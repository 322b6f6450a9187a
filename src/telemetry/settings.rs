//! What the access log is built from.

use std::path::PathBuf;
use std::sync::Arc;

use super::access_field::NamedField;

/// Where access lines go, in which form, and how many of them.
#[derive(Clone, Debug, PartialEq)]
pub struct AccessLogSettings {
    /// Where to; `None` switches the access log off.
    pub target: Option<AccessLogTarget>,
    /// In which form.
    pub format: AccessLogFormat,
    /// The share of requests that get a line, from 0 to 1, whatever they came to: so that counts of lines, divided by
    /// it, are counts of requests.
    pub sample: f64,
    /// What a line in JSON holds, in this order; `None` is all that the contract names.
    pub fields: Option<Arc<[NamedField]>>,
}

impl Default for AccessLogSettings {
    fn default() -> Self {
        AccessLogSettings {
            target: Some(AccessLogTarget::Stdout),
            format: AccessLogFormat::Json,
            sample: 1.0,
            fields: None,
        }
    }
}

impl AccessLogSettings {
    /// The same, with a path that means the same in every working directory: becoming a daemon changes it, and the path
    /// is opened again later.
    pub(super) fn absolute(&self) -> Self {
        let target = self.target.as_ref().map(|target| match target {
            AccessLogTarget::Stdout => AccessLogTarget::Stdout,
            AccessLogTarget::File(path) => {
                AccessLogTarget::File(std::path::absolute(path).unwrap_or_else(|_| path.clone()))
            }
        });
        AccessLogSettings { target, ..self.clone() }
    }

    /// Whether lines tell what is looked for among the lines of a request's header.
    pub(super) fn tells_of_header(&self) -> bool {
        let is_chosen = |fields: &[NamedField]| fields.iter().any(|named| named.field.is_of_header());
        self.target.is_some() && (self.format == AccessLogFormat::Text || self.fields.as_deref().is_some_and(is_chosen))
    }

    /// Whether the next request gets a line. By chance: every tenth one would be the same one of a client that sends
    /// ten in turn.
    pub(super) fn keeps_next(&self) -> bool {
        self.target.is_some() && (self.sample >= 1.0 || fastrand::f64() < self.sample)
    }
}

/// Where access lines go.
#[derive(Clone, Debug, PartialEq, Eq)]
pub enum AccessLogTarget {
    /// Standard output, `-` in the file.
    Stdout,
    /// A file, appended to and created when missing. Reopened on SIGUSR1, so that it can be rotated.
    File(PathBuf),
}

/// The form of an access line.
#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
pub enum AccessLogFormat {
    /// One JSON object a line.
    #[default]
    Json,
    /// One line of text: nginx's `combined`, and what tollgate knows beyond that behind it.
    Text,
}
