//! Many known clients: a database of tollgate's, made once for each of its binaries.

use std::fmt::Write as _;
use std::fs::File;
use std::path::Path;
use std::time::Duration;

use crate::bench::Bench;
use crate::contender::{Contender, Database, Kind, Setting};
use crate::stop::Fallible;

/// Has tollgate make a database with the clients, by one bulk apply. Nothing for other proxies, whose tables hold whom
/// they have seen.
///
/// # Errors
///
/// When tollgate fails or takes longer than three minutes.
pub(crate) fn prepare(bench: &Bench, contender: &Contender, setting: &Setting, directory: &Path) -> Fallible<Database> {
    if contender.kind != Kind::Tollgate {
        return Ok(Database::None);
    }
    let own = directory.join(format!("{}-clients", contender.name));
    std::fs::create_dir_all(&own)?;
    let list = own.join("clients.ndjson");
    let mut lines = String::with_capacity(bench.clients * 80);
    for number in 0..bench.clients {
        writeln!(lines, r#"{{"client_id":"key-{number:07}","capacity":1000000000,"rate_per_sec":1000000000}}"#)?;
    }
    std::fs::write(&list, lines)?;
    let setting = Setting { database: Database::New, ..setting.clone() };
    let running = contender.start(&bench.stop, &setting, &own.join("run"))?;
    let asked = ureq::put(format!("http://{}/clients", running.admin))
        .config()
        .timeout_global(Some(Duration::from_secs(180)))
        .build()
        .content_type("application/x-ndjson")
        .send(File::open(&list)?);
    asked.map_err(|error| format!("{}: {} clients: {error}", contender.name, bench.clients))?;
    running.process.terminate(&bench.stop, Duration::from_secs(30))?;
    std::fs::remove_file(list)?;
    Ok(Database::Copy(own.join("run").join("tollgate.db")))
}
