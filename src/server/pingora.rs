//! Pingora's server, which runs our services.

use pingora_core::server::Server as PingoraServer;
use pingora_core::server::configuration::ServerConf;

use crate::config::PingoraSettings;

/// More than any pool's retries, so that the pools' own limits decide; Pingora's counts attempts.
const MAX_ATTEMPTS: usize = 32;

/// Pingora's server, as far as configuration goes. Every default that matters is set, because Pingora's are not ours.
pub(super) fn pingora_server(settings: &PingoraSettings) -> PingoraServer {
    let conf = ServerConf {
        threads: settings.threads.get(),
        work_stealing: settings.work_stealing,
        listener_tasks_per_fd: settings.listener_tasks_per_fd.get(),
        upstream_keepalive_pool_size: settings.upstream_keepalive_pool_size,
        max_retries: MAX_ATTEMPTS,
        // Draining is over before Pingora hears of the stop.
        grace_period_seconds: Some(0),
        graceful_shutdown_timeout_seconds: Some(0),
        ..ServerConf::default()
    };
    PingoraServer::new_with_opt_and_conf(None, conf)
}
