//! Where accounts and pairs are kept: beside the database, or in memory.
//!
//! In memory they are files all the same, of the kind that has no place on any disk (`memfd_create`), and a path that
//! holds in this process alone: what reads pairs need not know.

use std::collections::HashMap;
use std::fmt::Write as _;
use std::fs::{self, DirBuilder, File, OpenOptions, TryLockError};
use std::io::{self, Seek, Write};
use std::os::fd::AsRawFd;
use std::os::unix::fs::{DirBuilderExt, OpenOptionsExt};
use std::path::{Path, PathBuf};

use parking_lot::Mutex;
use rustix::fs::{MemfdFlags, memfd_create};
use sha2::{Digest, Sha256};

use super::settings::AcmeSettings;
use crate::tls::PairFiles;

/// The directory beside the database.
const DIRECTORY: &str = "acme";

/// Where accounts and pairs are kept.
#[derive(Debug)]
pub(super) enum AcmeStorage {
    /// In this directory.
    Beside(PathBuf),
    /// In memory.
    Memory(Mutex<MemoryFiles>),
}

/// What is kept in memory.
#[derive(Debug, Default)]
pub(super) struct MemoryFiles {
    accounts: HashMap<String, String>,
    pairs: HashMap<String, File>,
}

/// Holds a lock that only one process has, until it is dropped.
pub(super) struct AskingLock(#[expect(dead_code, reason = "it is held")] Option<File>);

impl AcmeStorage {
    pub(super) fn beside(database: Option<&Path>) -> Self {
        match database {
            Some(database) => AcmeStorage::Beside(database.with_file_name(DIRECTORY)),
            None => AcmeStorage::Memory(Mutex::default()),
        }
    }

    pub(super) fn is_in_memory(&self) -> bool {
        matches!(self, AcmeStorage::Memory(_))
    }

    /// Where the pair of `settings` is, or will be: the certificate and its key in one file.
    ///
    /// # Errors
    /// When there can be no file in memory.
    pub(super) fn files_of(&self, settings: &AcmeSettings) -> Result<PairFiles, String> {
        let name = name_of(settings);
        let path = match self {
            AcmeStorage::Beside(directory) => directory.join(format!("{name}.pem")),
            AcmeStorage::Memory(kept) => {
                let mut kept = kept.lock();
                if !kept.pairs.contains_key(&name) {
                    let made = memfd_create("tollgate-acme", MemfdFlags::CLOEXEC);
                    kept.pairs.insert(name.clone(), made.map_err(|error| error.to_string())?.into());
                }
                path_of(&kept.pairs[&name])
            }
        };
        Ok(PairFiles { cert: path.clone(), key: path })
    }

    /// Where all pairs are that were kept, for whatever names.
    pub(super) fn kept(&self) -> Vec<PairFiles> {
        let paths: Vec<PathBuf> = match self {
            AcmeStorage::Beside(directory) => {
                let all = fs::read_dir(directory).into_iter().flatten().flatten().map(|entry| entry.path());
                all.filter(|path| path.extension().is_some_and(|extension| extension == "pem")).collect()
            }
            AcmeStorage::Memory(kept) => kept.lock().pairs.values().map(path_of).collect(),
        };
        paths.into_iter().map(|path| PairFiles { cert: path.clone(), key: path }).collect()
    }

    /// Keeps a pair.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(super) fn put_pair(&self, settings: &AcmeSettings, pem: &str) -> Result<(), String> {
        let path = self.files_of(settings)?.cert;
        match self {
            AcmeStorage::Beside(_) => put(&path, pem),
            AcmeStorage::Memory(kept) => {
                let mut kept = kept.lock();
                let write = |file: &mut File| {
                    file.set_len(0)?;
                    file.rewind()?;
                    file.write_all(pem.as_bytes())
                };
                let written = kept.pairs.get_mut(&name_of(settings)).map_or(Ok(()), write);
                written.map_err(|error: io::Error| error.to_string())
            }
        }
    }

    /// The account with the authority of `settings`, if there is one.
    ///
    /// # Errors
    /// When it cannot be read.
    pub(super) fn account(&self, settings: &AcmeSettings) -> Result<Option<String>, String> {
        match self {
            AcmeStorage::Beside(directory) => {
                let path = account_in(directory, settings);
                match fs::read_to_string(&path) {
                    Ok(text) => Ok(Some(text)),
                    Err(error) if error.kind() == io::ErrorKind::NotFound => Ok(None),
                    Err(error) => Err(format!("{}: {error}", path.display())),
                }
            }
            AcmeStorage::Memory(kept) => Ok(kept.lock().accounts.get(&settings.directory).cloned()),
        }
    }

    /// Keeps the account with the authority of `settings`.
    ///
    /// # Errors
    /// When it cannot be kept.
    pub(super) fn put_account(&self, settings: &AcmeSettings, text: &str) -> Result<(), String> {
        match self {
            AcmeStorage::Beside(directory) => put(&account_in(directory, settings), text),
            AcmeStorage::Memory(kept) => {
                kept.lock().accounts.insert(settings.directory.clone(), text.to_owned());
                Ok(())
            }
        }
    }

    /// Forgets the account with the authority of `settings`, which does not know it any more.
    pub(super) fn forget_account(&self, settings: &AcmeSettings) {
        match self {
            // What stays is tried again and found wanting again.
            AcmeStorage::Beside(directory) => drop(fs::remove_file(account_in(directory, settings))),
            AcmeStorage::Memory(kept) => drop(kept.lock().accounts.remove(&settings.directory)),
        }
    }

    /// The lock of whoever asks; none while another process has it.
    ///
    /// # Errors
    /// When there can be none.
    pub(super) fn lock(&self) -> Result<Option<AskingLock>, String> {
        let AcmeStorage::Beside(directory) = self else { return Ok(Some(AskingLock(None))) };
        let path = directory.join("lock");
        let failed = |error: io::Error| format!("{}: {error}", path.display());
        let file = OpenOptions::new().write(true).create(true).truncate(false).mode(0o600).open(&path);
        let file = file.map_err(failed)?;
        match file.try_lock() {
            Ok(()) => Ok(Some(AskingLock(Some(file)))),
            Err(TryLockError::WouldBlock) => Ok(None),
            Err(TryLockError::Error(error)) => Err(failed(error)),
        }
    }
}

/// Where a file is that is in memory.
fn path_of(file: &File) -> PathBuf {
    PathBuf::from(format!("/proc/self/fd/{}", file.as_raw_fd()))
}

/// Writes a file that is its owner's alone, whole or not at all.
fn put(path: &Path, text: &str) -> Result<(), String> {
    let write = || {
        if let Some(directory) = path.parent() {
            match DirBuilder::new().mode(0o700).create(directory) {
                Err(error) if error.kind() != io::ErrorKind::AlreadyExists => return Err(error),
                _ => {}
            }
        }
        let mut new = path.as_os_str().to_owned();
        new.push(".new");
        let mut file = OpenOptions::new().write(true).create(true).truncate(true).mode(0o600).open(&new)?;
        file.write_all(text.as_bytes())?;
        file.sync_all()?;
        fs::rename(&new, path)
    };
    write().map_err(|error: io::Error| format!("{}: {error}", path.display()))
}

fn account_in(directory: &Path, settings: &AcmeSettings) -> PathBuf {
    directory.join(format!("account-{}.json", digest(&settings.directory)))
}

/// What the files of a pair are called: by a name, and by all that is asked, in whatever order.
fn name_of(settings: &AcmeSettings) -> String {
    let mut domains: Vec<&str> = settings.domains.iter().map(String::as_str).collect();
    domains.sort_unstable();
    let all = format!("{}\n{}", settings.directory, domains.join("\n"));
    format!("{}-{}", domains.first().copied().unwrap_or_default(), digest(&all))
}

fn digest(text: &str) -> String {
    Sha256::digest(text.as_bytes())[..8].iter().fold(String::new(), |mut all, byte| {
        let _ = write!(all, "{byte:02x}");
        all
    })
}

#[cfg(test)]
mod tests {
    use std::os::unix::fs::PermissionsExt;

    use super::*;

    fn settings() -> AcmeSettings {
        let (domains, directory) = (vec!["a.example".to_owned()], "https://ca.example/dir".to_owned());
        AcmeSettings { domains, contact: Vec::new(), directory }
    }

    #[test]
    fn what_is_kept_is_its_owners_alone_and_one_process_asks() {
        let dir = tempfile::tempdir().unwrap();
        let storage = AcmeStorage::beside(Some(&dir.path().join("tollgate.db")));
        assert_eq!(storage.account(&settings()), Ok(None));
        storage.put_account(&settings(), "{}").unwrap();
        storage.put_pair(&settings(), "chain").unwrap();
        assert_eq!(storage.account(&settings()), Ok(Some("{}".to_owned())));
        let files = storage.files_of(&settings()).unwrap();
        assert_eq!(fs::read_to_string(&files.cert).unwrap(), "chain");
        for entry in fs::read_dir(dir.path().join("acme")).unwrap() {
            assert_eq!(entry.unwrap().metadata().unwrap().permissions().mode() & 0o777, 0o600);
        }
        let lock = storage.lock().unwrap().unwrap();
        assert!(AcmeStorage::beside(Some(&dir.path().join("tollgate.db"))).lock().unwrap().is_none());
        drop(lock);
        assert!(storage.lock().unwrap().is_some());
        storage.forget_account(&settings());
        assert_eq!(storage.account(&settings()), Ok(None));
    }

    #[test]
    fn in_memory_they_are_files_of_this_process() {
        let storage = AcmeStorage::beside(None);
        let files = storage.files_of(&settings()).unwrap();
        storage.put_pair(&settings(), "a longer chain").unwrap();
        storage.put_pair(&settings(), "chain").unwrap();
        assert_eq!(fs::read_to_string(&files.cert).unwrap(), "chain");
        assert_eq!(storage.files_of(&settings()).unwrap(), files);
        storage.put_account(&settings(), "{}").unwrap();
        assert!(
            storage.account(&settings()).unwrap().is_some()
                && storage.lock().unwrap().is_some()
                && storage.is_in_memory()
        );
    }
}
