//! What SIGQUIT does.

use log::{error, info, warn};

use super::Outcome;
use crate::server::OPERATOR;
use crate::server::asks::{Ask, Asks};
use crate::server::conductor::Conductor;
use crate::server::lifecycle::State;

/// How a hand-over ended.
pub(in crate::server) enum Next {
    /// Everything is as it was.
    Stay,
    /// The successor serves.
    Leave,
    /// Somebody wants the server to stop; who.
    Stop(&'static str),
    /// The server cannot go on.
    Fail,
}

impl Conductor {
    /// Hands over to a successor, if there is one.
    pub(in crate::server) async fn hand_over(&self, asks: &mut Asks<'_>) -> Next {
        let Some(predecessor) = &self.predecessor else {
            warn!(target: OPERATOR, "SIGQUIT: there is nothing to hand over here");
            return Next::Stay;
        };
        if self.lifecycle.state() != State::Ready {
            warn!(target: OPERATOR, "SIGQUIT: not ready yet, so there is nothing to hand over");
            return Next::Stay;
        }
        info!("SIGQUIT: handing over at {}", predecessor.process.upgrade_sock().display());
        let mut underway = match predecessor.begin() {
            Ok(underway) => underway,
            Err(error) => {
                error!(target: OPERATOR, "SIGQUIT: cannot hand over: {error}; still serving");
                return Next::Stay;
            }
        };
        let mut otherwise = Next::Stay;
        let outcome = loop {
            tokio::select! {
                outcome = underway.outcome() => break outcome,
                ask = asks.next() => match ask {
                    Ask::Stop(name) => {
                        underway.hurry();
                        otherwise = Next::Stop(name);
                    }
                    Ask::Reopen => self.reopen(),
                    Ask::HandOver => info!("SIGQUIT: handing over already"),
                    Ask::Reload => warn!(target: OPERATOR, "SIGHUP: not reloading, since the server hands over; the successor can"),
                },
                () = self.lifecycle.failed() => {
                    underway.hurry();
                    otherwise = Next::Fail;
                }
            }
        };
        match outcome {
            Outcome::Leaves => {
                *self.underway.lock() = Some(underway);
                let busy = self.activity.busy();
                info!("handed over: draining for {:?} at most; requests in flight: {busy}", self.grace_period);
                Next::Leave
            }
            Outcome::Stays(reason) => {
                // Done already, unless the thread has ended by a fault.
                predecessor.take_back();
                error!(target: OPERATOR, "SIGQUIT: {reason}; still serving");
                otherwise
            }
        }
    }
}
