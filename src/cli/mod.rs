//! Arguments and exit codes.
//!
//! Flags beat environment variables, which beat the file, which beats the defaults. Exit codes: 0 stopped as asked, 1
//! failed while running, 2 wrong usage or configuration.

mod api;
mod args;
mod backup;
mod clients;
mod connect;
mod demo;
mod endpoint;
mod environment;
mod failure;
mod fleet;
mod healthcheck;
#[cfg(test)]
mod manual;
mod output;
mod progress;
mod run;
mod start_environment;
mod top;
mod trust;
mod upgrade;

use std::io;
use std::path::Path;
use std::process::ExitCode;

use clap::{CommandFactory, Parser};

use crate::config::{self, Overrides, PingoraSettings};
use crate::process::descriptors::raise_open_files_limit;
use crate::server::echo::Echo;
use crate::server::{ServerError, Stop};
use crate::telemetry;
use args::{Args, Command, RunArgs};
use failure::Failure;
use output::{print, print_problems, print_verdict, start_events};

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
        Some(Command::Fleet(args)) => fleet::run(args),
        Some(Command::Backup(args)) => backup::run(args, overrides),
        Some(Command::Top(args)) => top::run(args),
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

/// What the environment says instead of the file `conf`, as `run` would find it.
fn overrides(conf: &Path) -> Result<Overrides, Failure> {
    RunArgs::of_file(conf.to_owned()).overrides(|name| std::env::var_os(name))
}

fn check(conf: &Path) -> Result<ExitCode, Failure> {
    Ok(match config::load(Some(conf), &overrides(conf)?) {
        Ok(config) => print_verdict(Some(conf), &config),
        Err(problems) => print_problems(problems.iter()),
    })
}
