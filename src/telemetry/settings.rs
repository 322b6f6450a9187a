//! What the access log is built from.

use std::path::PathBuf;

/// Where access lines go and in which form.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct AccessLogSettings {
    /// Where to; `None` switches the access log off.
    pub target: Option<AccessLogTarget>,
    /// In which form.
    pub format: AccessLogFormat,
}

impl Default for AccessLogSettings {
    fn default() -> Self {
        AccessLogSettings { target: Some(AccessLogTarget::Stdout), format: AccessLogFormat::Json }
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
        AccessLogSettings { target, format: self.format }
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
    /// One line of text, close to nginx's `combined` format.
    Text,
}
