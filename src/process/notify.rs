//! What systemd is told: that we serve, that we stop, and which process is the one that counts.
//!
//! Only where `NOTIFY_SOCKET` says where to; else nothing happens. That systemd does not take it is an event and no
//! more: the proxy serves all the same. Source: sd_notify(3).

use log::info;
use sd_notify::NotifyState;

/// What became of a word to systemd; to be [logged](Word::or_log) where nothing is locked.
#[must_use]
pub(crate) struct Word(Result<(), String>);

impl Word {
    /// Says it where systemd was not told.
    pub(crate) fn or_log(self) {
        if let Err(why) = self.0 {
            info!("systemd was not told {why}");
        }
    }
}

/// This process serves, and is the one that counts: at the start, after a reload, after taking over, after taking back.
pub(crate) fn serving(status: &str) -> Word {
    tell(&[NotifyState::MainPid(std::process::id()), NotifyState::Ready, NotifyState::Status(status)])
}

/// The configuration is read again; [`serving`] ends that, whether it was taken or refused.
pub(crate) fn reloading() -> Word {
    match NotifyState::monotonic_usec_now() {
        Ok(now) => tell(&[NotifyState::Reloading, now, NotifyState::Status("reading the configuration again")]),
        Err(error) => Word(Err(format!("of the reload: {error}"))),
    }
}

/// This process ends.
pub(crate) fn stopping() -> Word {
    tell(&[NotifyState::Stopping, NotifyState::Status("draining")])
}

/// How it stands, in words, without a change.
pub(crate) fn status(status: &str) -> Word {
    tell(&[NotifyState::Status(status)])
}

fn tell(state: &[NotifyState<'_>]) -> Word {
    Word(sd_notify::notify(state).map_err(|error| format!("{state:?}: {error}")))
}
