//! Starting as a process of its own: in the foreground, as a daemon, in the place of another one.
//!
//! The order matters. Addresses are bound as whoever started it, then it becomes its user, and everything else is
//! opened as that user. A successor cannot bind what its predecessor listens on; it binds the rest, and gets those
//! later.

use std::collections::BTreeMap;
use std::io;
use std::path::{Path, PathBuf};
use std::sync::Arc;

use log::info;
use tokio::runtime::Builder;
use tokio::signal::unix::{SignalKind, signal};

use super::built::Server;
use super::error::ServerError;
use super::handover::{StartEnvironment, Successor, Waiting};
use crate::clock::{Clock, SystemClock};
use crate::config::Config;
use crate::fleet::registry::TakingIn;
use crate::process::daemon::{Detached, Milestone};
use crate::process::{BindError, Bound, ListenAddress, NeededFiles, Process, become_user, notify};
use crate::telemetry::{AccessLogTarget, EventLog};

impl Server {
    /// Builds a server that is all of this process, as [`bind`](Server::bind) does, with everything that a process
    /// has: its user, its directory, its pid file, its logs when it is `detached`. As a `successor` it waits until the
    /// running process hands over to it; that one goes on when this fails, or lacks in its `environment` what that one
    /// has. Needs a process without other threads; `events` gets its own once nobody needs that any more. `taking` hears
    /// how far it is while it takes in all clients of a fleet.
    ///
    /// # Errors
    /// As [`bind`](Server::bind); when it cannot become its user, its pid file is held by a living process, or nobody
    /// hands over to it.
    pub fn start(
        config: Config,
        environment: StartEnvironment,
        detached: Option<Detached>,
        successor: bool,
        events: Option<&EventLog>,
        taking: TakingIn<'_>,
    ) -> Result<Self, ServerError> {
        let failed = |what: &str, error: io::Error| ServerError::Failed(format!("{what}: {error}"));
        ignore_signals().map_err(|error| failed("cannot handle signals", error))?;
        let process = Process::new(&config.pingora.process, detached).with_variables(environment.given.clone());
        let process = Arc::new(process);
        if !successor {
            // Before the addresses, which it has, too: this says what to do.
            process.is_alone()?;
        }
        let mut bound = bind_free(&config, successor)?;
        become_the_user(&config)?;
        start_events(events)?;
        let directory = config.pingora.process.working_directory.as_deref();
        if let Some(directory) = directory.or(process.is_detached().then_some(Path::new("/"))) {
            let in_it = std::env::set_current_dir(directory);
            in_it.map_err(|error| failed(&format!("cannot work in {}", directory.display()), error))?;
        }
        process.log_to(&config.pingora.process).map_err(|error| ServerError::Failed(error.to_string()))?;
        if !successor {
            process.take_pid_file()?;
            let sockets = sockets(&config, bound, None)?;
            return Server::build(config, sockets, Some((process, None)), taking).map(|(server, _)| server);
        }
        let mut successor = wait(&process)?;
        let build = || {
            let may = successor.may_take_over(&environment, config.database.as_deref());
            may.map_err(ServerError::Failed)?;
            let sockets = sockets(&config, std::mem::take(&mut bound), Some(&mut successor))?;
            Server::build(config, sockets, Some((process, Some(successor.take_inherited()))), taking)
        };
        match build() {
            Ok((mut server, quotas)) => {
                successor.drop_the_rest();
                server.inheritance = Some((successor, quotas));
                Ok(server)
            }
            Err(error) => {
                successor.refuse(&error.to_string());
                Err(error)
            }
        }
    }
}

/// Becomes the user that `config` names, who then owns what is written and was missing.
fn become_the_user(config: &Config) -> Result<(), ServerError> {
    let settings = &config.pingora.process;
    let access_log = match &config.access_log.target {
        Some(AccessLogTarget::File(path)) => Some(path.as_path()),
        Some(AccessLogTarget::Stdout) | None => None,
    };
    let files = [&settings.pid_file, &settings.upgrade_sock].into_iter().chain(&config.database);
    let socket = match config.admin.as_ref().map(|admin| &admin.address) {
        Some(ListenAddress::Unix(path)) => Some(path.as_path()),
        Some(ListenAddress::Tcp(_)) | None => None,
    };
    let needed = NeededFiles {
        sockets: socket.into_iter().collect(),
        files: files.map(PathBuf::as_path).collect(),
        logs: settings.error_log.as_deref().into_iter().chain(access_log).collect(),
    };
    Ok(become_user((settings.user.as_ref(), settings.group.as_ref()), &needed)?)
}

/// Has the event log written from here on.
pub(super) fn start_events(events: Option<&EventLog>) -> Result<(), ServerError> {
    let failed = |error| ServerError::Failed(format!("cannot write the event log: {error}"));
    events.map_or(Ok(()), |events| events.start().map_err(failed))
}

/// Waits for the running process.
fn wait(process: &Process) -> Result<Successor, ServerError> {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let waiting = Waiting::at(process.upgrade_sock()).map_err(ServerError::Failed)?;
    info!("waiting for the running process to hand over at {}", process.upgrade_sock().display());
    notify::status("waiting for the running process to hand over").or_log();
    process.reached(Milestone::Waiting);
    let successor = waiting.wait(&clock).map_err(ServerError::Failed)?;
    info!("pid {} hands over", successor.predecessor());
    Ok(successor)
}

/// The addresses of `config` on which nobody listens. That somebody does is an error, unless that is what a successor
/// takes over.
fn bind_free(config: &Config, successor: bool) -> Result<BTreeMap<ListenAddress, Bound>, BindError> {
    let listeners = config.listeners.iter().map(|listener| listener.address.into());
    let mut bound = BTreeMap::new();
    for address in listeners.chain(config.admin.as_ref().map(|admin| admin.address.clone())) {
        let socket = match successor {
            true => Bound::if_free(address.clone())?,
            false => Some(Bound::new(address.clone())?),
        };
        bound.extend(socket.map(|socket| (address, socket)));
    }
    Ok(bound)
}

/// The sockets of the listeners and of the admin API: those of the predecessor, those that are bound, and new ones.
fn sockets(
    config: &Config,
    mut bound: BTreeMap<ListenAddress, Bound>,
    mut successor: Option<&mut Successor>,
) -> Result<(Vec<Bound>, Option<Bound>), BindError> {
    let mut socket = |address: ListenAddress| {
        let inherited = successor.as_mut().and_then(|successor| successor.take_socket(&address));
        let inherited = inherited.map(|socket| Bound::inherited(address.clone(), socket));
        inherited.or_else(|| bound.remove(&address)).map_or_else(|| Bound::new(address), Ok)
    };
    let listeners =
        config.listeners.iter().map(|listener| socket(listener.address.into())).collect::<Result<_, _>>()?;
    let admin = config.admin.as_ref().map(|admin| socket(admin.address.clone())).transpose()?;
    Ok((listeners, admin))
}

/// Has SIGQUIT, SIGHUP and SIGUSR1 do nothing until the server answers to them; by default they end the process, which
/// an impatient upgrade must not.
fn ignore_signals() -> io::Result<()> {
    let runtime = Builder::new_current_thread().enable_all().build()?;
    let _context = runtime.enter();
    // The handlers stay when the listeners are gone.
    [SignalKind::quit(), SignalKind::hangup(), SignalKind::user_defined1()]
        .into_iter()
        .try_for_each(|kind| signal(kind).map(drop))
}
