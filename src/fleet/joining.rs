//! Bringing a stopped node that has clients of its own into a fleet that has others.
//!
//! Its file is moved aside, whole and with its history, and a new one takes in the fleet's clients. To have its clients
//! added to the fleet's, each is then made as the admin API would, so that what must be free is checked where it always
//! is; who is in the way is told. What was broken off is gone on with by the same call.
//!
//! Refused: merging the files. Both have numbers and versions of their own, and histories that never met.

use std::os::unix::fs::{MetadataExt, chown};
use std::path::{Path, PathBuf};
use std::time::Duration;

use rustix::process::geteuid;
use thiserror::Error;
use tokio::sync::watch;
use tokio::time::timeout;

use super::link::{LinkState, StoreLink};
use super::registry::{ClientRegistry, JoinOutcome, RegistryError};
use crate::client::ClientId;
use crate::clock::Clock;
use crate::store::sqlite::{OpenError, Sqlite};
use crate::store::{Change, ClientRepository, Record, Refusal, StoreError, WriteError};

/// How long the fleet's store may take to answer at all.
const ANSWERS: Duration = Duration::from_secs(10);
/// How long taking its clients in may come no further.
const WITHIN: Duration = Duration::from_secs(60);

/// What becomes of the clients that a node has.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum OwnClients {
    /// They are added to the fleet's.
    Import,
    /// They are given up.
    Replace,
}

/// What a node that joins is at.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum JoinStep {
    /// It takes in the fleet's clients.
    Taking,
    /// It adds its own.
    Adding,
}

/// Is told how many clients of how many are done.
pub type JoinProgress<'p> = &'p mut (dyn FnMut(JoinStep, u64, u64) + Send);

/// What a node's joining came to.
#[derive(Debug, Default)]
pub struct JoinReport {
    /// How many clients were added to the fleet's, or are there just so.
    pub added: usize,
    /// Those that were not, and what is in the way.
    pub conflicts: Vec<(ClientId, Refusal)>,
    /// Where the file from before is.
    pub before: PathBuf,
}

/// Why a node did not join.
#[derive(Debug, Error)]
pub enum JoinError {
    /// A file cannot be opened.
    #[error(transparent)]
    Open(#[from] OpenError),
    /// A file cannot be read.
    #[error(transparent)]
    Read(#[from] StoreError),
    /// Another process has the file open.
    #[error("the database {0} is in use: stop the node first")]
    InUse(PathBuf),
    /// The file cannot be moved aside.
    #[error("the database cannot be moved to {0}: {1}")]
    Move(PathBuf, std::io::Error),
    /// The file cannot be given to whom the one from before belongs to.
    #[error(
        "the database {0} cannot be given the owner of the one from before: {1}; run this as that user, or as root"
    )]
    Own(PathBuf, std::io::Error),
    /// The clients of the fleet cannot be had.
    #[error(transparent)]
    Registry(#[from] RegistryError),
    /// A client could not be added.
    #[error(transparent)]
    Write(WriteError),
    /// The fleet's store does not answer.
    #[error("the fleet's store cannot be reached; nothing is lost: run it again when it can")]
    Unreachable,
}

/// Brings the node of the database at `path` into the fleet. `link` must [run](StoreLink::run); the node must not. Where
/// the store does not answer within 10 s, nothing was touched.
///
/// # Errors
/// When it did not join, or not all of its clients could be added yet. The file from before is then beside it, with
/// `.before-fleet` behind its name, and the same call goes on.
pub async fn join(
    link: &StoreLink,
    (path, prefix): (&Path, &str),
    own: OwnClients,
    (clock, progress): (&dyn Clock, JoinProgress<'_>),
) -> Result<JoinReport, JoinError> {
    let mut state = link.state();
    if !matches!(timeout(ANSWERS, state.wait_for(LinkState::is_reachable)).await, Ok(Ok(_))) {
        return Err(JoinError::Unreachable);
    }
    let mut name = path.as_os_str().to_owned();
    name.push(".before-fleet");
    let before = PathBuf::from(name);
    let moving = |error| JoinError::Move(before.clone(), error);
    // Gone where an earlier call got no further.
    if path.exists() {
        Sqlite::open(path)?.close();
        let mut log = std::fs::canonicalize(path).map_err(moving)?.into_os_string();
        log.push("-wal");
        // Whoever closes it last takes its log away.
        if Path::new(&log).exists() {
            return Err(JoinError::InUse(path.to_owned()));
        }
    }
    if !before.exists() {
        let (owner, own) = (std::fs::metadata(path).map_err(moving)?.uid(), geteuid());
        if !own.is_root() && own.as_raw() != owner {
            let denied = std::io::Error::from(std::io::ErrorKind::PermissionDenied);
            return Err(JoinError::Own(path.to_owned(), denied));
        }
        std::fs::rename(path, &before).map_err(moving)?;
    }
    let store = Sqlite::open(path)?;
    like(&before, path).map_err(|error| JoinError::Own(path.to_owned(), error))?;
    let mut report = JoinReport { before, ..JoinReport::default() };
    let registry = ClientRegistry::new(link.clone(), store.clone(), prefix);
    let mut taking = |done, all| progress(JoinStep::Taking, done, all);
    match registry.join_at_start(WITHIN, &mut taking).await? {
        JoinOutcome::Joined { .. } => {}
        JoinOutcome::Foreign | JoinOutcome::Unreachable => return Err(JoinError::Unreachable),
    }
    if own == OwnClients::Import {
        store.publish_through(registry.publisher());
        let (stop, stopping) = watch::channel(false);
        let running = tokio::spawn(async move { registry.run(stopping).await });
        let added = add_all(&store, &mut report, (clock, progress)).await;
        stop.send_replace(true);
        // It only ends.
        let _ = running.await;
        added?;
    }
    store.close();
    Ok(report)
}

/// Gives the database at `path`, and what is beside it while it is open, the owner and the rights of that at `before`:
/// whoever brings the node in may be root, and the node is not.
fn like(before: &Path, path: &Path) -> std::io::Result<()> {
    let wanted = std::fs::metadata(before)?;
    for suffix in ["", "-wal", "-shm"] {
        let mut name = path.as_os_str().to_owned();
        name.push(suffix);
        let there = match std::fs::metadata(&name) {
            Ok(there) => there,
            Err(error) if error.kind() == std::io::ErrorKind::NotFound => continue,
            Err(error) => return Err(error),
        };
        if (there.uid(), there.gid()) != (wanted.uid(), wanted.gid()) {
            chown(&name, Some(wanted.uid()), Some(wanted.gid()))?;
        }
        std::fs::set_permissions(&name, wanted.permissions())?;
    }
    Ok(())
}

/// Makes the clients of the file from before in `store`.
async fn add_all(
    store: &Sqlite,
    report: &mut JoinReport,
    (clock, progress): (&dyn Clock, JoinProgress<'_>),
) -> Result<(), JoinError> {
    let old = Sqlite::open(&report.before)?;
    let mut records = Vec::new();
    old.for_each(&mut |record| {
        records.push(record);
        true
    })?;
    old.close();
    let all = records.len() as u64;
    for (done, Record { id, profile, .. }) in (0..).zip(records) {
        progress(JoinStep::Adding, done, all);
        let (wanted, name) = (profile, id.clone());
        let edit = move |there: Option<&Record>| match there {
            Some(there) if there.profile != wanted => Err(Refusal::Exists(name.clone())),
            _ => Ok(Some(wanted.clone())),
        };
        let by = "fleet join".to_owned();
        let change =
            Change { id: id.clone(), by, at: clock.wall(), rollback: false, local: false, edit: Box::new(edit) };
        match store.change(change).wait().await {
            Ok(_) => report.added += 1,
            Err(WriteError::Refused(refusal)) => report.conflicts.push((id, refusal)),
            Err(WriteError::FleetUnreachable | WriteError::FleetUnknown) => return Err(JoinError::Unreachable),
            Err(error) => return Err(JoinError::Write(error)),
        }
    }
    Ok(())
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;
    use crate::client::{ApiKey, KeyDigest, Quota};
    use crate::clock::SystemClock;
    use crate::fleet::link::tests::{settings, start};
    use crate::fleet::servers::{Engine, StoreServer};
    use crate::store::Profile;

    fn make(store: &Sqlite, name: &str, capacity: u64, key: &str) {
        let api_keys = vec![ApiKey::primary(KeyDigest::of(key.as_bytes()))];
        let profile = Profile { api_keys, ..Profile::new(Quota::new(capacity, 1.0).unwrap()) };
        let edit = Box::new(move |_: Option<&Record>| Ok(Some(profile.clone())));
        let (id, at) = (ClientId::parse(name).unwrap(), SystemClock.wall());
        let change = Change { id, by: "test".to_owned(), at, rollback: false, local: false, edit };
        store.change(change).wait_blocking().unwrap();
    }

    /// A closed file with these clients: name, capacity, key.
    fn file(clients: &[(&str, u64, &str)]) -> (tempfile::TempDir, PathBuf) {
        let directory = tempfile::tempdir().unwrap();
        let path = directory.path().join("tollgate.db");
        let store = Sqlite::open(&path).unwrap();
        clients.iter().for_each(|(name, capacity, key)| make(&store, name, *capacity, key));
        store.close();
        (directory, path)
    }

    fn names(path: &Path) -> Vec<String> {
        let store = Sqlite::open(path).unwrap();
        let mut names = Vec::new();
        let read = store.for_each(&mut |record| {
            names.push(record.id.to_string());
            true
        });
        read.unwrap();
        names
    }

    #[tokio::test(flavor = "multi_thread")]
    async fn a_nodes_clients_are_added_or_given_up() {
        let server = StoreServer::start(Engine::all()[0]);
        let (link, _stop) = start(&settings(&server.url()));
        let made = |clients: &'static [(&'static str, u64, &'static str)]| async {
            tokio::task::spawn_blocking(|| file(clients)).await.unwrap()
        };
        let (_first, first) = made(&[("a", 1, "ka"), ("b", 1, "kb")]).await;
        let registry = ClientRegistry::new(link.clone(), Sqlite::open(&first).unwrap(), "tollgate");
        assert!(matches!(registry.join_at_start(WITHIN, &mut |_, _| ()).await.unwrap(), JoinOutcome::Joined { .. }));
        let (_own, own) = made(&[("a", 2, "other"), ("b", 1, "kb"), ("c", 1, "kc"), ("d", 1, "ka")]).await;
        for _ in 0..2 {
            let mut steps = Vec::new();
            let mut told = |step, done, all| steps.push((step, done, all));
            let report = join(&link, (&own, "tollgate"), OwnClients::Import, (&SystemClock, &mut told)).await.unwrap();
            let adding = (0..4).map(|done| (JoinStep::Adding, done, 4));
            assert!(steps.ends_with(&adding.collect::<Vec<_>>()), "{steps:?}");
            let conflicts: Vec<_> = report.conflicts.iter().map(|(_, why)| why.to_string()).collect();
            let told = ["client a exists already", "the API key of d is that of client a"];
            assert_eq!((report.added, conflicts), (2, told.map(str::to_owned).to_vec()));
            assert_eq!((names(&own), names(&report.before)), (text("abc"), text("abcd")));
        }
        let (_given, given) = made(&[("z", 1, "kz")]).await;
        // Root brings in the node of another user.
        let owner = if geteuid().is_root() { 65_534 } else { geteuid().as_raw() };
        chown(&given, Some(owner), None).unwrap();
        std::fs::set_permissions(&given, std::fs::Permissions::from_mode(0o640)).unwrap();
        let mut steps = Vec::new();
        let mut told = |step, done, all| steps.push((step, done, all));
        let report = join(&link, (&given, "tollgate"), OwnClients::Replace, (&SystemClock, &mut told)).await.unwrap();
        assert!(steps.ends_with(&[(JoinStep::Taking, 3, 3)]), "{steps:?}");
        let found = std::fs::metadata(&given).unwrap();
        assert_eq!((found.uid(), found.mode() & 0o777), (owner, 0o640));
        assert_eq!((names(&given), names(&report.before)), (text("abc"), text("z")));
    }

    fn text(names: &str) -> Vec<String> {
        names.chars().map(String::from).collect()
    }
}
