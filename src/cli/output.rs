//! What commands print, and the event log of those that run something.

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use super::failure::Failure;
use crate::clock::SystemClock;
use crate::config::{Config, Problem};
use crate::telemetry::events::EventsError;
use crate::telemetry::{self, EventLogGuard};

/// Prints what is wrong, one a line.
pub(super) fn print_problems<'p>(problems: impl Iterator<Item = &'p Problem>) -> ExitCode {
    print(&problems.map(|problem| format!("{problem}\n")).collect::<String>());
    ExitCode::from(2)
}

/// Prints the one line of a good configuration; what is not wise about it goes to standard error. A certificate that is
/// not valid is served by `run`, and yet whoever checks is to hear of it.
pub(super) fn print_verdict(conf: Option<&Path>, config: &Config) -> ExitCode {
    for warning in &config.warnings {
        eprintln!("tollgate: warning: {warning}");
    }
    if !config.lapsed.is_empty() {
        return print_problems(config.lapsed.iter());
    }
    print(&format!("{}\n", config.summary(conf.unwrap_or(Path::new("the command line")))))
}

/// Prints `text`; a reader that left early, such as `head`, is no failure.
pub(super) fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

/// The process's event log, which ends with what is returned; `None` when it has one already.
pub(super) fn start_events() -> Result<Option<EventLogGuard>, Failure> {
    match telemetry::events::init(Arc::new(SystemClock)) {
        Ok(events) => Ok(Some(events)),
        Err(EventsError::Taken(_)) => Ok(None),
        Err(error @ EventsError::Filter(_)) => Err(Failure::Usage(error.to_string())),
    }
}
