//! `tollgate fleet join`: a stopped node that has clients of its own becomes one of a fleet that has others.
//!
//! What is to become of its clients has to be said, since nobody can guess it. Who is in the way is listed on standard
//! error, in the admin API's words, and ends the command with 1: the other clients are added, and the same command can
//! be given again once that is settled.

mod args;

use std::io::Write;
use std::process::ExitCode;
use std::sync::Arc;

use tokio::runtime::Builder;
use tokio::sync::watch;

use self::args::{FleetCommand, JoinArgs};
use super::args::RunArgs;
use super::failure::Failure;
use super::output::{print, start_events};
use super::progress::Progress;
use super::run::load;
use crate::clock::{Clock, SystemClock};
use crate::fleet::joining::join;
use crate::fleet::{JoinReport, JoinStep, OwnClients, StoreLink};

pub(super) use args::FleetArgs;

/// Does what was typed.
///
/// # Errors
/// When the configuration has no fleet, the node runs, or it did not join.
pub(super) fn run(args: FleetArgs) -> Result<ExitCode, Failure> {
    let FleetCommand::Join(JoinArgs { conf, own }) = args.action;
    let own = if own.import { OwnClients::Import } else { OwnClients::Replace };
    let (config, _) = load(&RunArgs::of_file(conf))?;
    let (Some(settings), Some(path)) = (&config.fleet, &config.database) else {
        return Err(Failure::Usage("fleet: is not set, so there is none to join; must say its store".to_owned()));
    };
    let failed = |error: &dyn std::fmt::Display| Failure::Background(format!("the node did not join: {error}"));
    let events = start_events()?;
    if let Some(events) = &events {
        events.log().start().map_err(|error| failed(&error))?;
    }
    let runtime = Builder::new_multi_thread().worker_threads(1).enable_all().build().map_err(|error| failed(&error))?;
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let progress = Progress::waiting("reaching the fleet's store");
    let mut step = None;
    let mut tell_progress = |now: JoinStep, done, all| {
        if step.replace(now) != Some(now) {
            progress.count(if now == JoinStep::Taking { "taking in the fleet's clients" } else { "adding clients" });
        }
        progress.set(done, all);
    };
    let report = runtime.block_on(async {
        let (stop, stopping) = watch::channel(false);
        let link = StoreLink::new(settings, Arc::clone(&clock));
        let running = link.clone();
        tokio::spawn(async move { running.run(stopping).await });
        let report = join(&link, (path, &settings.prefix), own, (clock.as_ref(), &mut tell_progress)).await;
        stop.send_replace(true);
        report
    });
    drop(progress);
    // What was logged comes before what is printed.
    drop(events);
    Ok(tell(&report.map_err(|error| failed(&error))?))
}

/// Says what it came to.
fn tell(JoinReport { added, conflicts, before }: &JoinReport) -> ExitCode {
    let mut err = std::io::stderr().lock();
    for (_, refusal) in conflicts {
        // Nobody may be there to read it.
        let _ = writeln!(err, "tollgate: not added: {refusal}");
    }
    let told = print(&format!(
        "joined; its clients in the fleet: {added}, not added: {}; the database from before is {}\n",
        conflicts.len(),
        before.display()
    ));
    if conflicts.is_empty() { told } else { ExitCode::from(1) }
}
