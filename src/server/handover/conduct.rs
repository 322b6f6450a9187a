//! What SIGQUIT does.

use std::sync::Arc;

use log::{error, info, warn};

use super::predecessor::{Outcome, Predecessor, Underway};
use crate::server::asks::{Ask, Asks, OPERATOR};
use crate::server::lifecycle::State;
use crate::server::logs::Logs;

/// How a hand-over ended.
pub(in crate::server) enum Next {
    /// Everything is as it was.
    Stay,
    /// The successor serves; this is to be finished with the last request.
    Leave(Underway),
    /// Somebody wants the server to stop; who.
    Stop(&'static str),
    /// The server cannot go on.
    Fail,
}

impl Predecessor {
    /// Hands over to a successor, if one comes.
    pub(in crate::server) async fn conduct(self: &Arc<Self>, asks: &mut Asks<'_>, logs: &Logs) -> Next {
        if self.lifecycle.state() != State::Ready {
            warn!(target: OPERATOR, "SIGQUIT: not ready yet, so there is nothing to hand over");
            return Next::Stay;
        }
        info!("SIGQUIT: handing over at {}", self.process.upgrade_sock().display());
        let mut underway = match self.begin() {
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
                    Ask::Reopen => logs.reopen(),
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
            Outcome::Leaves => Next::Leave(underway),
            Outcome::Stays(reason) => {
                // Done already, unless the thread has ended by a fault.
                self.take_back();
                error!(target: OPERATOR, "SIGQUIT: {reason}; still serving");
                otherwise
            }
        }
    }
}
