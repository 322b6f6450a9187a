//! Tending the table of all clients: a bulk is folded in, and what tells of clients that were deleted longer ago than the
//! history goes back is dropped.
//!
//! Any node may do it, one at a time, in pieces of a few milliseconds with as long a rest after each, so that nobody else
//! waits for it. How far it has come stands in the store, and by the store's time a deletion is old: a node that ends is
//! followed by another, and one whose clock is wrong drops nothing too soon.

use std::time::Duration;

use tokio::time::timeout;

use super::answers;
use super::outcome::RegistryState;
use super::publish::{CALL, ChangeLine, LAPSE, texts};
use crate::clock::{Clock, SystemClock};
use crate::fleet::link::LinkError;
use crate::fleet::script;

/// How often to look for old deletions. Each hour, all of the table is gone through.
const TEND: Duration = Duration::from_secs(60);
/// How many clients are looked at in one call.
const CLIENTS: u64 = 250;
/// For how long another may be at it.
const ANOTHER: Duration = Duration::from_secs(1);

impl ChangeLine {
    /// Tends the table for ever.
    pub(super) async fn tend(&self) {
        let mut unfolded = self.unfolded.subscribe();
        loop {
            // It is time, or there is a bulk.
            let _ = timeout(TEND.mul_f64(0.5 + fastrand::f64()), unfolded.wait_for(Option::is_some)).await;
            while *self.state.borrow() == RegistryState::Joined {
                let begun = SystemClock.now();
                match self.tend_piece().await {
                    Ok(true) => self.pause(begun.elapsed()).await,
                    Ok(false) | Err(LinkError::Unreachable(_) | LinkError::Refused(_) | LinkError::TimedOut) => break,
                    Err(LinkError::Script(reason)) => {
                        log::error!(target: "tollgate::fleet", "the fleet's clients cannot be tended: {reason}");
                        self.pause(TEND).await;
                    }
                }
            }
            self.pause(ANOTHER).await;
        }
    }

    /// Does a piece of it; whether there is more.
    pub(super) async fn tend_piece(&self) -> Result<bool, LinkError> {
        let unfolded = *self.unfolded.borrow();
        let age = self.store.history_rules().age.as_micros();
        // Lua's numbers are exact so far; some hundred years.
        let age = u64::try_from(age).unwrap_or(u64::MAX).min(1 << 52);
        let mut args = texts(&[self.me, CLIENTS, age, LAPSE.into()]);
        args.push(unfolded.map(|mark| mark.to_string()).unwrap_or_default().into_bytes());
        let stage = self.stage(unfolded.unwrap_or_default());
        let keys = ["meta", "all", "bulks"].map(|name| self.names.clients(name)).into_iter().chain([stage]);
        let answer = self.call(&script::REGISTRY_TEND, keys.collect(), args, CALL).await?;
        let (more, unfolded) =
            answers::tended(&answer).ok_or_else(|| LinkError::Script("an answer that makes no sense".to_owned()))?;
        self.heard(unfolded);
        Ok(more)
    }
}
