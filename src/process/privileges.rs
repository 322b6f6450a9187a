//! Becoming another user, once what only root may do is done.
//!
//! The order: addresses are bound as whoever started it (ports below 1024), missing directories and logs are made and
//! given to the user, then it becomes that user, and everything else is opened as that user. So what could not be
//! opened again later, by a rotation or the next start, is found out at this one. What is there already keeps its
//! owner.

use std::ffi::CString;
use std::fs::{DirBuilder, OpenOptions};
use std::io;
use std::os::unix::fs::{DirBuilderExt, FileTypeExt, OpenOptionsExt, fchown, lchown};
use std::path::Path;

use nix::unistd::{self, Gid, Uid, getegid, geteuid, initgroups, setgid, setgroups, setuid};

/// A user that this machine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The id of the user's own group.
    pub gid: u32,
}

impl User {
    /// Who has this name; nobody, too, when the machine cannot say.
    pub fn of_name(name: &str) -> Option<Self> {
        let user = unistd::User::from_name(name).ok()??;
        Some(User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
    }

    /// The name of the user with this id; the id where there is none.
    pub fn name_of(uid: u32) -> String {
        let user = unistd::User::from_uid(Uid::from_raw(uid)).ok().flatten();
        user.map_or_else(|| uid.to_string(), |user| user.name)
    }
}

/// A group that this machine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name.
    pub name: String,
    /// The group id.
    pub gid: u32,
}

impl Group {
    /// The one of this name; none, too, when the machine cannot say.
    pub fn of_name(name: &str) -> Option<Self> {
        let group = unistd::Group::from_name(name).ok()??;
        Some(Group { name: group.name, gid: group.gid.as_raw() })
    }
}

/// Why it cannot become who it should.
#[derive(Debug, thiserror::Error)]
#[error("cannot become {who}: {cause}")]
pub struct PrivilegesError {
    who: String,
    #[source]
    cause: io::Error,
}

/// What a server writes, to be made for the user that it becomes where it is missing.
#[derive(Debug)]
pub(crate) struct NeededFiles<'a> {
    /// Files that are written in directories of the user.
    pub(crate) files: Vec<&'a Path>,
    /// Logs, which the user goes on writing.
    pub(crate) logs: Vec<&'a Path>,
    /// Sockets that were bound for the user, who takes them away in the end.
    pub(crate) sockets: Vec<&'a Path>,
}

/// Becomes `user` and `group`, if there is one of them, and leaves what is `needed` to them. Needs a process without
/// other threads.
///
/// # Errors
/// When whoever started this may not become them, or something cannot be made for them.
pub(crate) fn become_user(
    (user, group): (Option<&User>, Option<&Group>),
    needed: &NeededFiles<'_>,
) -> Result<(), PrivilegesError> {
    let names = [user.map(|user| format!("user {}", user.name)), group.map(|group| format!("group {}", group.name))];
    let who = names.into_iter().flatten().collect::<Vec<_>>().join(" and ");
    let uid = user.map_or_else(geteuid, |user| Uid::from_raw(user.uid));
    let gid = group.map(|group| group.gid).or(user.map(|user| user.gid));
    let gid = gid.map_or_else(getegid, Gid::from_raw);
    if (uid, gid) == (geteuid(), getegid()) {
        return Ok(());
    }
    let become_them = || {
        if !geteuid().is_root() {
            return Err(io::Error::new(io::ErrorKind::PermissionDenied, "only root can become another user"));
        }
        prepare(needed, uid, gid)?;
        match user {
            Some(user) => initgroups(&CString::new(user.name.as_str())?, gid)?,
            None => setgroups(&[gid])?,
        }
        setgid(gid)?;
        setuid(uid)?;
        Ok(())
    };
    become_them().map_err(|cause| PrivilegesError { who, cause })
}

/// Makes the directories and logs that are missing.
fn prepare(needed: &NeededFiles<'_>, uid: Uid, gid: Gid) -> io::Result<()> {
    for path in needed.files.iter().chain(&needed.logs) {
        if let Some(directory) = path.parent() {
            make(directory, uid, gid)?;
        }
    }
    needed.logs.iter().try_for_each(|path| make_log(path, uid, gid))?;
    // A successor's may be its predecessor's still, and then it is the user's already.
    let give = |path: &&Path| lchown(path, Some(uid.as_raw()), Some(gid.as_raw()));
    needed
        .sockets
        .iter()
        .filter(|path| path.symlink_metadata().is_ok_and(|found| found.file_type().is_socket()))
        .try_for_each(give)
}

/// Makes a log that is missing, and gives it away. A link that leads nowhere is not followed: whoever owns the
/// directory may have put it there, to have a file made for it where only root may.
fn make_log(path: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    match OpenOptions::new().append(true).create_new(true).mode(0o640).open(path) {
        Err(error) if error.kind() == io::ErrorKind::AlreadyExists => Ok(()),
        made => made.and_then(|file| fchown(file, Some(uid.as_raw()), Some(gid.as_raw()))),
    }
    .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", path.display())))
}

/// Makes a directory and those above it, and gives away what it made.
fn make(directory: &Path, uid: Uid, gid: Gid) -> io::Result<()> {
    if directory.as_os_str().is_empty() || directory.exists() {
        return Ok(());
    }
    if let Some(above) = directory.parent() {
        make(above, uid, gid)?;
    }
    DirBuilder::new()
        .mode(0o755)
        .create(directory)
        // What stands there now may be a link already.
        .and_then(|()| lchown(directory, Some(uid.as_raw()), Some(gid.as_raw())))
        .map_err(|error| io::Error::new(error.kind(), format!("{}: {error}", directory.display())))
}

#[cfg(test)]
mod tests {
    use std::fs;
    use std::os::unix::fs::{PermissionsExt, symlink};

    use super::*;

    #[test]
    fn a_log_is_made_where_none_is_and_no_link_is_followed() {
        let dir = tempfile::tempdir().unwrap();
        let (log, there, link) = (dir.path().join("a.log"), dir.path().join("b.log"), dir.path().join("c.log"));
        fs::write(&there, "lines\n").unwrap();
        symlink(dir.path().join("elsewhere"), &link).unwrap();
        for path in [&log, &there, &link] {
            make_log(path, geteuid(), getegid()).unwrap();
        }
        assert_eq!(fs::metadata(&log).unwrap().permissions().mode() & 0o777, 0o640);
        assert_eq!(fs::read_to_string(&there).unwrap(), "lines\n");
        assert!(!dir.path().join("elsewhere").exists());
        let error = make_log(&dir.path().join("no/d.log"), geteuid(), getegid()).unwrap_err().to_string();
        assert!(error.contains("no/d.log: "), "{error}");
    }
}
