//! On what, with what and when it was measured.

use std::path::PathBuf;
use std::process::Command;

use serde::{Deserialize, Serialize};

use crate::contender::Contender;
use crate::parse;
use crate::process::Cores;

/// The machine and the versions, in words.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Machine {
    /// The day, as `2026-01-31`.
    pub(crate) date: String,
    /// The processor, and how many cores of it there are.
    pub(crate) processor: String,
    /// The memory.
    pub(crate) memory: String,
    /// The kernel.
    pub(crate) kernel: String,
    /// The proxies and the load generators.
    pub(crate) versions: Vec<String>,
}

impl Machine {
    /// This one. What it does not tell is left empty.
    pub(crate) fn this(cores: &Cores, contenders: &[Contender]) -> Self {
        let read = |path: &str| std::fs::read_to_string(path).unwrap_or_default();
        let (processor, memory) = (read("/proc/cpuinfo"), read("/proc/meminfo"));
        let kib = parse::field(&memory, "MemTotal").and_then(|total| total.trim_end_matches(" kB").parse::<u64>().ok());
        let mut versions: Vec<_> =
            contenders.iter().map(|contender| format!("{} {}", contender.name, contender.version)).collect();
        // wrk tells its version with its usage, for a flag that it does not know.
        for (tool, flag) in [("wrk", "-v"), ("h2load", "--version")] {
            let said = said(tool, &[flag]).unwrap_or_default();
            versions.extend(parse::version(&said).map(|version| format!("{tool} {version}")));
        }
        Machine {
            date: said("date", &["-u", "+%Y-%m-%d"]).unwrap_or_default(),
            processor: format!(
                "{} cores of {}",
                cores.count(),
                parse::field(&processor, "model name").unwrap_or("an unknown make")
            ),
            memory: format!("{} GiB", (kib.unwrap_or(0) + 512 * 1024) / (1024 * 1024)),
            kernel: format!("Linux {}", read("/proc/sys/kernel/osrelease").trim()),
            versions,
        }
    }
}

/// The program of this name on the path, or where Debian keeps servers, which is not on everybody's path.
pub(crate) fn find(program: &str) -> Option<PathBuf> {
    let path = std::env::var_os("PATH").unwrap_or_default();
    let directories = std::env::split_paths(&path).chain([PathBuf::from("/usr/sbin"), PathBuf::from("/sbin")]);
    directories.map(|directory| directory.join(program)).find(|file| file.is_file())
}

/// The first line that a program says.
fn said(program: &str, arguments: &[&str]) -> Option<String> {
    let output = Command::new(program).args(arguments).output().ok()?;
    let text = [output.stdout, output.stderr].concat();
    Some(String::from_utf8_lossy(&text).lines().next()?.trim().to_owned())
}
