//! Pingora's own keys: threads, and how the process runs.

use std::time::Duration;

use crate::config::overrides::Overrides;
use crate::config::report::Level;
use crate::config::settings::PingoraSettings;
use crate::config::shape::PingoraKeys;
use crate::config::written::{Section, Written};
use crate::process::ProcessSettings;

/// The longest path of a Unix socket, in bytes (unix(7)).
const LONGEST_SOCKET: usize = 107;

pub(super) fn of_file(
    top: &mut Level<'_>,
    key: Written<Section<PingoraKeys>>,
    overrides: &Overrides,
) -> PingoraSettings {
    let (keys, mut at) = top.section("pingora", key);
    let default = PingoraSettings::default();
    at.take("version", keys.version);
    let locate = |path| overrides.locate(path);
    let working_directory = at.take("working_directory", keys.working_directory).map(locate);
    if let Some(path) = working_directory.as_ref().filter(|path| !path.is_dir()) {
        at.add("working_directory", format!("must be a directory that is there, not {}", path.display()));
    }
    let grace_period = at.take("grace_period_seconds", keys.grace_period_seconds);
    let upgrade_sock = at.take("upgrade_sock", keys.upgrade_sock).map(locate);
    if let Some(path) = upgrade_sock.as_ref().filter(|path| path.as_os_str().len() > LONGEST_SOCKET) {
        at.add("upgrade_sock", format!("must be a path of at most {LONGEST_SOCKET} bytes, not {}", path.display()));
    }
    PingoraSettings {
        threads: at.or("threads", keys.threads, default.threads),
        work_stealing: at.or("work_stealing", keys.work_stealing, default.work_stealing),
        listener_tasks_per_fd: at.or(
            "listener_tasks_per_fd",
            keys.listener_tasks_per_fd,
            default.listener_tasks_per_fd,
        ),
        upstream_keepalive_pool_size: at.or(
            "upstream_keepalive_pool_size",
            keys.upstream_keepalive_pool_size,
            default.upstream_keepalive_pool_size,
        ),
        grace_period: grace_period.map_or(default.grace_period, Duration::from_secs),
        process: ProcessSettings {
            daemon: at.or("daemon", keys.daemon, default.process.daemon),
            pid_file: at.take("pid_file", keys.pid_file).map_or(default.process.pid_file, locate),
            upgrade_sock: upgrade_sock.unwrap_or(default.process.upgrade_sock),
            user: at.take("user", keys.user),
            group: at.take("group", keys.group),
            working_directory,
            error_log: at.take("error_log", keys.error_log).flatten().map(locate),
        },
    }
}
