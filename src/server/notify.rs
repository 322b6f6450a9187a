//! What systemd is told: that we serve, that we stop, and which process is the one that counts.
//!
//! Only where `NOTIFY_SOCKET` says where to; else nothing happens. That systemd does not take it is an event and no
//! more: the proxy serves all the same. Source: sd_notify(3).

use log::{info, warn};
use sd_notify::NotifyState;

/// This process serves, and is the one that counts: at the start, after a reload, after taking over, after taking back.
pub(super) fn serving(status: &str) {
    tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready, NotifyState::Status(status)]);
}

/// The configuration is read again; [`serving`] ends that, whether it was taken or refused.
pub(super) fn reloading() {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")]),
        Err(error) => warn!("systemd cannot be told of the reload: {error}"),
    }
}

/// This process ends.
pub(super) fn stopping() {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")]);
}

/// How it stands, in words, without a change.
pub(super) fn status(status: &str) {
    tell(&[NotifyState::Status(status)]);
}

fn tell(state: &[NotifyState<'_>]) {
    if let Err(error) = sd_notify::notify(state) {
        info!("systemd was not told {state:?}: {error}");
    }
}
