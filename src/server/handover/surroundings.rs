//! What a successor must have of what its predecessor was started with: variables, open files, a database.
//!
//! The problem: whoever types an upgrade has a shell, a directory and limits of its own. Without the service's
//! environment the new process would have no token to ask for and no fleet; in another directory a database without a
//! client; and each upgrade would be told to have succeeded.
//!
//! The rule: the predecessor tells the names of the variables that count for it, never what they say, and how many files
//! it may have open. A successor that lacks a variable refuses, as does one whose database would have to be made while
//! its predecessor has another. One that is set, if to nothing, or has something in its place, is not lacked: so whoever
//! wants to do without it can say so. Fewer open files are a warning, since it serves with them. The predecessor itself
//! refuses where it has clients and no database: nothing would keep them.
//!
//! The names go through a pipe, which is the second descriptor behind the sockets. Versions before had there a
//! descriptor that only had to be there, one out of which nothing comes: they say nothing, and take nothing of this.
//!
//! Refused: handing the variables on. What changed in the service's environment would never count again, and a secret
//! would live on in a process that nobody gave it to. Handing clients on from memory: that is a database's work, their
//! history and their keys included.

use std::io::{self, PipeReader, Write};
use std::path::Path;

use borsh::BorshDeserialize;

use crate::store::ClientRepository;

/// The form of what comes through the pipe. Another version may write more behind it.
const FORM: u8 = 1;
/// The variable of the token, which may not be blank.
const TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";

/// The environment in which a process was started, as far as tollgate reads it. By names alone.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct StartEnvironment {
    /// The variables that say something.
    pub given: Vec<String>,
    /// Those that may not be missed: they are set, if to nothing, or something else is in their place.
    pub answered: Vec<String>,
}

/// What a predecessor tells; of a version before, nothing.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub(super) struct Surroundings {
    /// The variables that count for it.
    pub(super) variables: Vec<String>,
    /// How many files it may have open.
    pub(super) open_files: Option<u64>,
}

impl Surroundings {
    /// As it goes through the pipe.
    pub(super) fn encode(&self) -> Vec<u8> {
        borsh::to_vec(&(FORM, &self.variables, self.open_files)).expect("a few names are short")
    }

    /// The same read; nothing of what makes no sense.
    pub(super) fn decode(mut bytes: &[u8]) -> Self {
        match <(u8, Vec<String>, Option<u64>)>::deserialize(&mut bytes) {
            Ok((FORM, variables, open_files)) => Surroundings { variables, open_files },
            _ => Surroundings::default(),
        }
    }

    /// What is wrong with a successor of the process `pid` that was started in `environment`.
    pub(super) fn lacked(&self, pid: u32, environment: &StartEnvironment) -> Result<(), String> {
        let lacked = self.variables.iter().filter(|name| !environment.answered.contains(name));
        let lacked: Vec<_> = lacked.map(String::as_str).collect();
        if lacked.is_empty() {
            return Ok(());
        }
        let optional: Vec<_> = lacked.iter().filter(|name| **name != TOKEN).map(|name| format!("{name}=")).collect();
        let mut without = Vec::new();
        if !optional.is_empty() {
            without.push(format!("set {} to go on without", optional.join(" ")));
        }
        if lacked.contains(&TOKEN) {
            without.push(format!("name an admin.token_file in place of {TOKEN}"));
        }
        Err(format!(
            "the running process (pid {pid}) was started with {}, and this one without: start it in the service's \
             environment (with systemd: systemctl reload tollgate), or {}",
            lacked.join(" and "),
            without.join(", and ")
        ))
    }

    /// What to say where a successor of the process `pid` may have only so many files open.
    pub(super) fn fewer_files(&self, pid: u32, open_files: u64) -> Option<String> {
        let theirs = self.open_files.filter(|theirs| open_files < *theirs)?;
        Some(format!(
            "this process may have {open_files} files open, and the running one (pid {pid}) {theirs}: fewer connections \
             fit; ulimit -n raises it"
        ))
    }
}

/// What is wrong with the database of a successor of the process `pid`, which has `theirs`, empty for none.
pub(super) fn no_new_database(pid: u32, theirs: &str, ours: Option<&Path>) -> Result<(), String> {
    let Some(ours) = ours.filter(|ours| !theirs.is_empty() && matches!(ours.try_exists(), Ok(false))) else {
        return Ok(());
    };
    // The very file of the running process may be missing, too: it writes it anew.
    let directory = ours.parent().and_then(|directory| directory.canonicalize().ok());
    if directory.zip(ours.file_name()).is_some_and(|(directory, name)| directory.join(name) == Path::new(theirs)) {
        return Ok(());
    }
    Err(format!(
        "there is no database {}, and the running process (pid {pid}) has {theirs}, whose clients would be gone: relative \
         paths count from where this is started, so start it where that one was, or write absolute ones; to have the \
         database elsewhere, copy it there first (tollgate backup)",
        ours.display()
    ))
}

/// What is wrong with a predecessor that has these clients and no database, whatever its successor's version is.
pub(super) fn no_client(clients: &dyn ClientRepository) -> Result<(), String> {
    let mut count = 0_usize;
    let counted = clients.for_each(&mut |_| {
        count += 1;
        true
    });
    counted.map_err(|error| error.to_string())?;
    if count == 0 {
        return Ok(());
    }
    Err(format!(
        "its clients ({count}) are in memory alone (database: null) and would be lost: export them (tollgate clients \
         export), stop and start tollgate, with a database if they are to stay, and apply the file (tollgate clients \
         apply)"
    ))
}

/// A pipe out of which `bytes` come, which are fewer than it takes before anybody reads.
pub(super) fn pipe_with(bytes: &[u8]) -> io::Result<PipeReader> {
    let (reader, mut writer) = io::pipe()?;
    writer.write_all(bytes)?;
    Ok(reader)
}

#[cfg(test)]
mod tests {
    use super::*;

    fn names(names: &[&str]) -> Vec<String> {
        names.iter().map(|name| (*name).to_owned()).collect()
    }

    #[test]
    fn names_go_through_a_pipe_and_whatever_else_does_is_none() {
        let told = Surroundings { variables: names(&["TOLLGATE_FLEET", "TOLLGATE_LOG"]), open_files: Some(1024) };
        let bytes = told.encode();
        assert_eq!(Surroundings::decode(&bytes), told);
        assert_eq!(Surroundings::decode(&[&bytes[..], b"more"].concat()), told, "a later version may say more");
        for other in [&b""[..], b"\x02\0\0\0\0\0", b"\x01\xff\xff\xff\xff", &bytes[..bytes.len() - 1]] {
            assert_eq!(Surroundings::decode(other), Surroundings::default());
        }
    }

    #[test]
    fn a_successor_that_lacks_a_variable_is_told_which_and_what_to_do() {
        let told = Surroundings { variables: names(&[TOKEN, "TOLLGATE_FLEET"]), open_files: None };
        let with = |answered: &[&str]| {
            told.lacked(7, &StartEnvironment { given: names(&[]), answered: names(answered) }).err().unwrap_or_default()
        };
        let start = "the running process (pid 7) was started with";
        let tail = "and this one without: start it in the service's environment (with systemd: systemctl reload \
                    tollgate), or";
        let (token, fleet) =
            ("name an admin.token_file in place of TOLLGATE_ADMIN_TOKEN", "set TOLLGATE_FLEET= to go on without");
        assert_eq!(with(&[TOKEN, "TOLLGATE_FLEET", "TOLLGATE_LISTEN"]), "");
        assert_eq!(with(&[TOKEN]), format!("{start} TOLLGATE_FLEET, {tail} {fleet}"));
        assert_eq!(with(&["TOLLGATE_FLEET"]), format!("{start} {TOKEN}, {tail} {token}"));
        assert_eq!(with(&[]), format!("{start} {TOKEN} and TOLLGATE_FLEET, {tail} {fleet}, and {token}"));
        assert_eq!(Surroundings::default().lacked(7, &StartEnvironment::default()), Ok(()), "a version before");
    }

    #[test]
    fn fewer_open_files_are_told_and_as_many_are_not() {
        let told = |open_files, ours| Surroundings { variables: Vec::new(), open_files }.fewer_files(7, ours);
        let said = told(Some(1024), 256).unwrap();
        assert!(said.starts_with("this process may have 256 files open, and the running one (pid 7) 1024"), "{said}");
        assert_eq!((told(Some(1024), 1024), told(Some(256), u64::MAX), told(None, 8)), (None, None, None));
    }

    #[test]
    fn a_database_that_would_be_made_is_refused_where_there_is_another() {
        let dir = tempfile::tempdir().unwrap();
        let here = dir.path().canonicalize().unwrap();
        let (theirs, other, missing) = (here.join("a.db"), here.join("b.db"), here.join("else/a.db"));
        std::fs::write(&other, "").unwrap();
        let judge = |ours: Option<&Path>| no_new_database(7, theirs.to_str().unwrap(), ours);
        let said = judge(Some(&missing)).unwrap_err();
        let expected = format!(
            "there is no database {}, and the running process (pid 7) has {}",
            missing.display(),
            theirs.display()
        );
        assert!(said.starts_with(&expected), "{said}");
        // Another that exists, the same that was removed meanwhile, none, and a predecessor that has none.
        assert_eq!((judge(Some(&other)), judge(Some(&theirs)), judge(None)), (Ok(()), Ok(()), Ok(())));
        assert_eq!(no_new_database(7, "", Some(&missing)), Ok(()));
    }
}
