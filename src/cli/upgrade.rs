//! `tollgate upgrade`: a new process in the place of the running one.
//!
//! The new one is started first and gets as far as it can without the sockets. Only then the running one is asked to
//! hand over, so that a wrong configuration, a program that does not start or a missing library changes nothing. From
//! there on the two agree among themselves; here is only waited for how it ends.

use std::ffi::OsString;
use std::os::unix::fs::MetadataExt;
use std::path::Path;
use std::process::ExitCode;
use std::time::Duration;

use rustix::process::{Pid, Signal, geteuid, kill_process};

use super::args::RunArgs;
use super::failure::Failure;
use super::output::{print, print_verdict};
use super::progress::Progress;
use super::run::{exit_code, load, warn_of_lost_output};
use crate::config::Config;
use crate::process::daemon::{Ended, Milestone, Starter};
use crate::process::{User, pid_file};

/// How often, and after which pause, it is looked whether the old process has its pid file again.
const TRIES: u32 = 20;
const PAUSE: Duration = Duration::from_millis(50);

/// Upgrades, and prints one line.
pub(super) fn run(args: &RunArgs) -> Result<ExitCode, Failure> {
    let (config, _) = load(args)?;
    if args.test {
        return Ok(print_verdict(args.conf.as_deref(), &config));
    }
    let old = running(&config.pingora.process.pid_file)?;
    same_user(old, &config)?;
    warn_of_lost_output(&config);
    let new = Starter::start_orphan(arguments(), Milestone::Settled);
    let progress = Progress::waiting("starting the new process");
    let outcome = new.and_then(|mut new| {
        new.wait_for(Milestone::Waiting)?;
        progress.wait("handing over");
        if let Err(reason) = ask(old, &config.pingora.process.pid_file) {
            new.end();
            return Err(Ended::Failed(std::io::Error::other(format!(
                "pid {old} cannot be told to hand over: {reason}"
            ))));
        }
        new.wait_for(Milestone::Settled)?;
        Ok(new.pid())
    });
    drop(progress);
    match outcome {
        Ok(new) => Ok(print(&format!("upgraded: pid {old} -> {new}\n"))),
        Err(Ended::Exited(status)) => {
            eprintln!("tollgate: {}; {}", Ended::Exited(status), fate(old, &config.pingora.process.pid_file));
            Ok(exit_code(status))
        }
        Err(error @ Ended::Left(..)) => Err(Failure::Background(error.to_string())),
        Err(error) => Err(Failure::Background(format!("{error}; {}", fate(old, &config.pingora.process.pid_file)))),
    }
}

/// Asks the running process to hand over, if it still is that: its number may be another program's by now.
fn ask(old: Pid, path: &Path) -> Result<(), String> {
    match pid_file::holder(path) {
        Ok(Some(pid)) if i32::try_from(pid) == Ok(old.as_raw_pid()) => {
            kill_process(old, Signal::QUIT).map_err(|error| error.to_string())
        }
        Ok(_) => Err("it has ended".to_owned()),
        Err(error) => Err(error.to_string()),
    }
}

/// What became of the process that was to be replaced. When it takes everything back, its pid file is back in a moment.
fn fate(old: Pid, path: &Path) -> String {
    let holds = || matches!(pid_file::holder(path), Ok(Some(pid)) if i32::try_from(pid) == Ok(old.as_raw_pid()));
    let serves = (0..TRIES).any(|_| {
        let holds = holds();
        if !holds {
            std::thread::park_timeout(PAUSE);
        }
        holds
    });
    format!("pid {old} {}", if serves { "goes on serving" } else { "does not hold its pid file any more" })
}

/// The process that is to be replaced.
fn running(path: &Path) -> Result<Pid, Failure> {
    let failed = |what: String| Failure::Background(format!("nothing to upgrade: {what}"));
    let pid = pid_file::holder(path).map_err(|error| failed(format!("{}: {error}", path.display())))?;
    let pid = pid.and_then(|pid| i32::try_from(pid).ok());
    pid.and_then(Pid::from_raw)
        .ok_or_else(|| failed(format!("no running process holds the pid file {}", path.display())))
}

/// Makes sure that the new process will be of the user of the old one: the two would not talk to each other.
fn same_user(old: Pid, config: &Config) -> Result<(), Failure> {
    let Ok(process) = std::fs::metadata(format!("/proc/{old}")) else { return Ok(()) };
    let uid = config.pingora.process.user.as_ref().map_or_else(|| geteuid().as_raw(), |user| user.uid);
    if uid == process.uid() {
        return Ok(());
    }
    Err(Failure::Background(format!(
        "pid {old} runs as user {}, and its successor would run as {}: run this as that user, or set pingora.user",
        User::name_of(process.uid()),
        User::name_of(uid)
    )))
}

/// What starts the new one: the flags of this command, for `run`.
fn arguments() -> impl Iterator<Item = OsString> {
    // No flag comes before the command.
    let flags = std::env::args_os().skip_while(|argument| argument != "upgrade").skip(1);
    ["run", "-d", "-u"].into_iter().map(OsString::from).chain(flags)
}
