//! `tollgate run`: in the foreground, in the background, in the place of the running process.

use std::os::unix::process::ExitStatusExt;
use std::path::Path;
use std::process::{ExitCode, ExitStatus};
use std::sync::Arc;

use super::args::RunArgs;
use super::failure::Failure;
use super::output::{print_verdict, start_events};
use super::progress::Progress;
use super::start_environment::at_start;
use crate::config::{self, Config, Overrides};
use crate::process::daemon::{Detached, Ended, Milestone, Starter, is_journal, pass_on};
use crate::process::descriptors::raise_open_files_limit;
use crate::server::{Server, Source, Stop};
use crate::telemetry::{AccessLogTarget, EventLogGuard};

/// Runs the proxy, or has it run in the background.
pub(super) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let background = |error| Failure::Background(format!("cannot run in the background: {error}"));
    if pass_on().map_err(background)? {
        return Ok(ExitCode::SUCCESS);
    }
    let detached = Detached::of_environment();
    let detached = detached.map_err(background)?;
    let (config, overrides) = load(args)?;
    if args.test {
        return Ok(print_verdict(args.conf.as_deref(), &config));
    }
    if config.pingora.process.daemon && detached.is_none() {
        let until = if args.upgrade { Milestone::Waiting } else { Milestone::Serving };
        return start(&config, until);
    }
    let events = start_events()?;
    config.warn();
    raise_open_files_limit();
    let changes_user = config.pingora.process.user.is_some();
    let log = events.as_ref().map(EventLogGuard::log);
    let mut progress = None;
    let mut taking = |done, all| {
        progress.get_or_insert_with(|| Progress::items("taking in the fleet's clients")).set(done, all);
    };
    let environment = at_start(args, &config, std::env::vars_os());
    let server = Server::start(config, environment, detached, args.upgrade, log, &mut taking);
    drop(progress);
    let mut server = server?;
    if let Some(file) = &args.conf {
        let source = source(file, overrides, args.daemon);
        // By now it is another user, who may not be allowed to read what was read before.
        if let (true, Err(problems)) = (changes_user, source()) {
            problems.iter().for_each(|problem| log::warn!("a reload will be refused: {problem}"));
        }
        server.reloads_from(source);
    }
    server.run(Stop::Signals, log.cloned())?;
    Ok(ExitCode::SUCCESS)
}

/// The configuration that flags, variables and the file make.
pub(super) fn load(args: &RunArgs) -> Result<(Config, Overrides), Failure> {
    let mut overrides = args.overrides(|name| std::env::var_os(name))?;
    if args.conf.is_none() && (overrides.listen.is_empty() || overrides.backends.is_empty()) {
        return Err(Failure::Usage(
            "nothing to serve: give a file with `--conf FILE`, or at least one `--listen ADDR` and one `--backend ADDR` \
             (`tollgate demo` shows a proxy at work, `tollgate --help` tells more)"
                .to_owned(),
        ));
    }
    // Before anything leaves it. Where it cannot be found out, paths mean what they mean to the system.
    overrides.directory = std::env::current_dir().ok();
    let mut config = config::load(args.conf.as_deref(), &overrides)?;
    config.pingora.process.daemon |= args.daemon;
    Ok((config, overrides))
}

/// How to read the configuration again, from the same file and with the same arguments and environment, wherever the
/// process is by then.
fn source(file: &Path, overrides: Overrides, daemon: bool) -> Source {
    let file = overrides.directory.as_ref().map_or_else(|| file.to_owned(), |directory| directory.join(file));
    Arc::new(move || {
        let mut config = config::load(Some(&file), &overrides)?;
        config.pingora.process.daemon |= daemon;
        Ok(config)
    })
}

/// Starts this command again in the background.
fn start(config: &Config, until: Milestone) -> Result<ExitCode, Failure> {
    warn_of_lost_output(config);
    let started = Starter::start(std::env::args_os().skip(1), until);
    match started.and_then(|mut starter| starter.wait_for(until)) {
        Ok(()) => Ok(ExitCode::SUCCESS),
        // It has said why itself.
        Err(Ended::Exited(status)) if status.code().is_some_and(|code| code != 0) => Ok(exit_code(status)),
        Err(error) => Err(Failure::Background(error.to_string())),
    }
}

/// The exit code of a process in the background that should not have ended, as that of this one.
pub(super) fn exit_code(status: ExitStatus) -> ExitCode {
    let failed = status.signal().is_some() || status.code() == Some(0);
    let code = status.code().and_then(|code| u8::try_from(code).ok()).filter(|_| !failed);
    ExitCode::from(code.unwrap_or(1))
}

/// Says what of a daemon's output goes nowhere.
pub(super) fn warn_of_lost_output(config: &Config) {
    if config.pingora.process.error_log.is_none() && !is_journal() {
        eprintln!("tollgate: warning: pingora.error_log: is not set, so the events of a daemon are lost");
        if config.access_log.target == Some(AccessLogTarget::Stdout) {
            eprintln!("tollgate: warning: access_log.path: is \"-\", so the access lines of a daemon are lost");
        }
    }
}
