//! A listening socket at a path.
//!
//! A socket outlives the process that made it as a file at which nobody answers. Such a one is replaced; one at which
//! somebody answers is not, and neither is anything that is no socket. Owner and group may connect (0660), nobody else:
//! that is all the access control there is.

use std::fs::{self, Permissions};
use std::io;
use std::os::fd::OwnedFd;
use std::os::unix::fs::{FileTypeExt, PermissionsExt};
use std::path::Path;

use rustix::io::Errno;
use rustix::net::{AddressFamily, SocketAddrUnix, SocketFlags, SocketType, bind, connect, socket_with};

use super::pid_file::{kind, make_directory};

/// Binds a socket at `path`, whose directory is made when it is missing. It does not listen yet.
///
/// # Errors
/// [`io::ErrorKind::AddrInUse`] when somebody listens there; when something else is there, or it cannot be made.
pub(super) fn bind_path(path: &Path) -> io::Result<OwnedFd> {
    make_directory(path)?;
    match fs::symlink_metadata(path) {
        Ok(found) if !found.file_type().is_socket() => {
            let kind = kind(found.file_type());
            return Err(io::Error::other(format!(
                "there is {kind}, which is left as it is; must be a socket that an earlier process left, or nothing yet"
            )));
        }
        Ok(_) if is_live(path)? => return Err(io::ErrorKind::AddrInUse.into()),
        Ok(_) => fs::remove_file(path)?,
        Err(error) if error.kind() == io::ErrorKind::NotFound => {}
        Err(error) => return Err(error),
    }
    let socket = unconnected()?;
    bind(&socket, &SocketAddrUnix::new(path)?)?;
    // Before it listens, so that nobody can have come in by a wider door.
    fs::set_permissions(path, Permissions::from_mode(0o660))?;
    Ok(socket)
}

fn unconnected() -> io::Result<OwnedFd> {
    let flags = SocketFlags::CLOEXEC | SocketFlags::NONBLOCK;
    Ok(socket_with(AddressFamily::UNIX, SocketType::STREAM, flags, None)?)
}

/// Whether somebody listens at `path`, or may: whom we may not ask counts as there.
fn is_live(path: &Path) -> io::Result<bool> {
    match connect(unconnected()?, &SocketAddrUnix::new(path)?) {
        Err(Errno::CONNREFUSED | Errno::NOENT) => Ok(false),
        _ => Ok(true),
    }
}

#[cfg(test)]
mod tests {
    use std::os::unix::net::UnixListener;

    use super::*;

    #[test]
    fn what_nobody_listens_at_is_replaced_and_all_else_is_left() {
        let dir = tempfile::tempdir().unwrap();
        let path = dir.path().join("new/admin.sock");
        drop(bind_path(&path).unwrap());
        let socket = bind_path(&path).unwrap();
        assert_eq!(fs::metadata(&path).unwrap().permissions().mode() & 0o777, 0o660);
        rustix::net::listen(&socket, 1).unwrap();
        assert_eq!(bind_path(&path).unwrap_err().kind(), io::ErrorKind::AddrInUse);
        let live = UnixListener::from(socket);
        assert!(fs::symlink_metadata(&path).unwrap().file_type().is_socket());
        drop(live);
        bind_path(&path).unwrap();
        fs::remove_file(&path).unwrap();
        fs::write(&path, "mine").unwrap();
        let error = bind_path(&path).unwrap_err().to_string();
        assert!(error.starts_with("there is a file, which is left as it is"), "{error}");
        assert_eq!(fs::read_to_string(&path).unwrap(), "mine");
    }
}
