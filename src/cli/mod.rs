//! Arguments and exit codes.
//!
//! Flags beat environment variables, which beat the file, which beats the defaults. Exit codes: 0 stopped as asked, 1
//! failed while running, 2 wrong usage or configuration.

mod api;
mod args;
mod clients;
mod demo;
mod endpoint;
mod environment;
mod healthcheck;
#[cfg(test)]
mod manual;
mod run;
mod upgrade;

use std::io::{self, Write};
use std::path::Path;
use std::process::ExitCode;
use std::sync::Arc;

use clap::{CommandFactory, Parser};

use crate::clock::SystemClock;
use crate::config::{self, Config, Overrides, PingoraSettings, Problem, Problems};
use crate::process::descriptors::raise_open_files_limit;
use crate::server::echo::Echo;
use crate::server::{ServerError, Stop};
use crate::telemetry::events::EventsError;
use crate::telemetry::{self, EventLogGuard};
use args::{Args, Command};
use environment::token_to_ask_for;

/// Why a command ended badly.
#[derive(Debug, thiserror::Error)]
enum Failure {
    #[error("{0}")]
    Configuration(#[from] Problems),
    #[error("{0}")]
    Usage(String),
    #[error("{0}")]
    Running(#[from] ServerError),
    /// What the admin API said, or that it did not answer.
    #[error("{0}")]
    ApiClient(String),
    /// A process in the background, or an upgrade.
    #[error("{0}")]
    Background(String),
    #[error("cannot write the output: {0}")]
    Output(#[source] io::Error),
}

impl Failure {
    fn exit_code(&self) -> ExitCode {
        match self {
            Failure::Configuration(_) | Failure::Usage(_) => ExitCode::from(2),
            Failure::Running(_) | Failure::ApiClient(_) | Failure::Background(_) | Failure::Output(_) => {
                ExitCode::from(1)
            }
        }
    }
}

/// Does what the command line says, and tells how it ended.
pub fn main() -> ExitCode {
    let args = Args::parse();
    let done = |()| ExitCode::SUCCESS;
    let outcome = match args.command {
        None => run::run(&args.run),
        Some(Command::Run(args)) => run::run(&args),
        Some(Command::Upgrade(args)) => upgrade::run(&args),
        Some(Command::Check { conf }) => check(&conf),
        Some(Command::Clients(args)) => clients::run(args).map(done),
        Some(Command::Healthcheck(args)) => healthcheck::run(&args).map(done),
        Some(Command::Demo) => demo::run().map(done),
        Some(Command::Echo { listen, name }) => echo(listen, name).map(done),
        Some(Command::Schema) => Ok(print(&format!("{}\n", config::schema().trim_end()))),
        Some(Command::Completions { shell }) => {
            let mut script = Vec::new();
            clap_complete::generate(shell, &mut Args::command(), "tollgate", &mut script);
            Ok(print(&String::from_utf8_lossy(&script)))
        }
    };
    outcome.unwrap_or_else(|failure| match failure {
        // A reader that left early, such as `head`, is no failure.
        Failure::Output(error) if error.kind() == io::ErrorKind::BrokenPipe => ExitCode::SUCCESS,
        failure => {
            // The event log has ended, so this comes last; and it ends although nobody may read it.
            telemetry::events::tell(&format!("tollgate: {failure}"));
            failure.exit_code()
        }
    })
}

fn echo(listen: std::net::SocketAddr, name: Option<String>) -> Result<(), Failure> {
    let events = start_events()?;
    if let Some(events) = &events {
        events.log().start().map_err(|error| ServerError::Failed(format!("cannot write the event log: {error}")))?;
    }
    raise_open_files_limit();
    let echo = Echo::bind(listen, name.unwrap_or_else(|| listen.to_string())).map_err(ServerError::from)?;
    Ok(echo.run(Stop::Signals, &PingoraSettings::default())?)
}

fn check(conf: &Path) -> Result<ExitCode, Failure> {
    // The token decides whether the admin API may listen where the file says.
    let admin_token = token_to_ask_for(|name| std::env::var_os(name))?;
    let overrides = Overrides { admin_token, ..Overrides::default() };
    Ok(match config::load(Some(conf), &overrides) {
        Ok(config) => print_verdict(Some(conf), &config),
        Err(problems) => print_problems(problems.iter()),
    })
}

/// Prints what is wrong, one a line.
fn print_problems<'p>(problems: impl Iterator<Item = &'p Problem>) -> ExitCode {
    print(&problems.map(|problem| format!("{problem}\n")).collect::<String>());
    ExitCode::from(2)
}

/// Prints the one line of a good configuration; what is not wise about it goes to standard error. A certificate that is
/// not valid is served by `run`, and yet whoever checks is to hear of it.
fn print_verdict(conf: Option<&Path>, config: &Config) -> ExitCode {
    for warning in &config.warnings {
        eprintln!("tollgate: warning: {warning}");
    }
    if !config.lapsed.is_empty() {
        return print_problems(config.lapsed.iter());
    }
    print(&format!("{}\n", config.summary(conf.unwrap_or(Path::new("the command line")))))
}

/// Prints `text`; a reader that left early, such as `head`, is no failure.
fn print(text: &str) -> ExitCode {
    match io::stdout().lock().write_all(text.as_bytes()) {
        Err(error) if error.kind() != io::ErrorKind::BrokenPipe => ExitCode::from(1),
        _ => ExitCode::SUCCESS,
    }
}

/// The process's event log, which ends with what is returned; `None` when it has one already.
fn start_events() -> Result<Option<EventLogGuard>, Failure> {
    match telemetry::events::init(Arc::new(SystemClock)) {
        Ok(events) => Ok(Some(events)),
        Err(EventsError::Taken(_)) => Ok(None),
        Err(error @ EventsError::Filter(_)) => Err(Failure::Usage(error.to_string())),
    }
}
