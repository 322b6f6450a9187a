//! `tollgate backup`: a copy of the database, while the proxy runs or not.
//!
//! It reads the file itself and asks no admin API, so it works whenever the file can be read: as the user that tollgate
//! runs as, or as root. How far it is, is told on a terminal only.

use std::path::{Path, PathBuf};
use std::process::ExitCode;

use clap::Args as ClapArgs;

use super::environment::one;
use super::failure::Failure;
use super::output::print;
use super::progress::Progress;
use crate::config::{self, Overrides, parse_database};
use crate::store::sqlite::backup::{BackupDone, backup};

/// Where the database is when nothing says so.
const DATABASE: &str = "data/tollgate.db";

/// What may be typed behind `tollgate backup`.
#[derive(Debug, ClapArgs)]
pub(super) struct BackupArgs {
    /// The file to make; nothing may be there yet
    #[arg(value_name = "FILE")]
    to: PathBuf,
    /// The configuration file, which says where the database is
    #[arg(short, long, value_name = "FILE")]
    conf: Option<PathBuf>,
    /// The database, in place of the file's [default: data/tollgate.db] [env: TOLLGATE_DATABASE]
    #[arg(long, value_name = "PATH", value_parser = parse_database)]
    database: Option<PathBuf>,
}

/// Makes the backup and says what it holds. `overrides` counts before a file.
///
/// # Errors
/// When there is no database, or no copy of it could be made.
pub(super) fn run(
    args: BackupArgs,
    overrides: impl FnOnce(&Path) -> Result<Overrides, Failure>,
) -> Result<ExitCode, Failure> {
    let BackupArgs { to, conf, database } = args;
    let var = |name: &str| std::env::var_os(name);
    let named = database.map_or_else(|| one("TOLLGATE_DATABASE", var, parse_database), |flag| Ok(Some(flag)))?;
    let from = match (named, conf) {
        (Some(database), _) => database,
        (None, Some(conf)) => config::load(Some(&conf), &overrides(&conf)?)?.database.ok_or_else(|| {
            Failure::Usage("database: is null, so clients are in memory only and there is nothing to copy".to_owned())
        })?,
        (None, None) => DATABASE.into(),
    };
    if matches!(std::fs::symlink_metadata(&from), Err(error) if error.kind() == std::io::ErrorKind::NotFound) {
        let told = format!("{}: there is no database; --database PATH or --conf FILE says where it is", from.display());
        return Err(Failure::Background(told));
    }
    if to.as_os_str() == "-" {
        let told =
            "FILE: must be the path of a file, as the copy is checked before it gets its name; ./- is a file called -";
        return Err(Failure::Usage(told.to_owned()));
    }
    let absolute = |path: &Path| {
        std::path::absolute(path).map_err(|error| Failure::Background(format!("{}: {error}", path.display())))
    };
    let (source, place) = (absolute(&from)?, absolute(&to)?);
    let progress = Progress::bytes(format!("copying {}", from.display()), Some(0));
    let done = backup(&source, &place, &mut |done, all| progress.set(done, all));
    drop(progress);
    let BackupDone { clients, bytes } = done.map_err(Failure::Background)?;
    Ok(print(&format!("{}: {clients} clients, {bytes} bytes, from {}\n", to.display(), from.display())))
}
