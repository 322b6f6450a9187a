//! How many requests of a caller may run at once, which is asked before its buckets are.

use std::num::NonZeroU32;

use super::{Account, Gate, Limit};
use crate::client::Mode;
use crate::limit::{Charge, Nanos, NoTurn, StoreAnswers, Turn};
use crate::proxy::gate::identify::Caller;
use crate::proxy::gate::rejection::Rejection;

impl Limit {
    /// What is told to who has no token either: when there is one.
    pub(super) fn without_token(self) -> Option<Rejection> {
        let own = self.standing().filter(|own| !own.is_enough())?;
        Some(Rejection::RateLimited(own.retry_after()))
    }
}

impl Gate<'_> {
    /// A turn for a request of `caller`, where it counts how many of them run: the one that it `has` already, or one by
    /// what it has asked.
    pub(super) fn turn(
        &self,
        caller: &Caller,
        pays: bool,
        (has, asked): (&mut Option<Turn>, &mut Option<Box<StoreAnswers>>),
        now: Nanos,
    ) -> Result<Option<Turn>, Rejection> {
        let Some(most) = self.most_at_once(caller, pays) else { return Ok(None) };
        if has.is_some() {
            return Ok(has.take());
        }
        self.turns.0.take(self.key_of(caller), most, asked, now).map(Some).map_err(|why| match why {
            NoTurn::Full => Rejection::TooManyAtOnce,
            NoTurn::Unknown => Rejection::LimitsUnavailable,
        })
    }

    /// What is said of a request of `caller` that got no turn: it counts as refused by a limit, and takes nothing.
    #[cold]
    pub(super) fn without_turn(&self, caller: &Caller, now: Nanos) -> Option<Limit> {
        let limit = match self.account(caller) {
            Account::Bucket(limiter, key, quota) => {
                Some(Limit::Limited(*limiter.foresee(&[Charge::one(key, quota).into()], now)[0].standing()))
            }
            Account::None | Account::Blocked | Account::Unlimited => None,
        };
        if let Some((client, _)) = &caller.client {
            self.turn_second(&client.usage, now);
            client.usage.count_limited(now);
        }
        limit
    }

    /// How many requests of `caller` may run at once; `None` is no bound.
    pub(in crate::proxy::gate) fn most_at_once(&self, caller: &Caller, pays: bool) -> Option<NonZeroU32> {
        let client = caller.client.as_ref().map(|(client, _)| client);
        let own = client.and_then(|client| client.max_concurrent);
        let most = match client.map(|client| client.mode) {
            Some(Mode::Blocked) => None,
            Some(Mode::Unlimited) => own,
            Some(Mode::Limit) | None => own.or(self.turns.1),
        };
        most.filter(|_| pays && self.limiter.is_some())
    }
}
