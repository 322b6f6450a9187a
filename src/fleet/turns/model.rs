//! What `turns.lua` does, in Rust: handed `now`.

use std::collections::BTreeMap;

use super::TurnsAsk;
use crate::limit::turns::shared::TurnsTold;

/// The turns of one caller: of each holder how many, until when, by which question.
#[derive(Clone, Debug, Default)]
pub(super) struct ModelTurns(BTreeMap<String, (u32, u64, u64)>);

impl ModelTurns {
    /// What the script does at `now`, in microseconds.
    pub(super) fn ask(&mut self, now: u64, ask: &TurnsAsk<'_>) -> TurnsTold {
        let alive = |holder: &&String| self.0[*holder].1 >= now;
        let others = self.0.keys().filter(alive).filter(|holder| *holder != ask.holder);
        let others = others.map(|holder| self.0[holder].0).sum::<u32>();
        let own = self.0.get(ask.holder).filter(|(_, till, _)| *till >= now);
        if let Some((held, _, number)) = own
            && *number > ask.number
        {
            return TurnsTold { held: *held, others };
        }
        let had = own.map_or(0, |(held, ..)| *held);
        let room = ask.most.saturating_sub(others);
        let held = ask.running.max(ask.keeps.min(had)).max((ask.keeps + ask.wants).min(room));
        self.0.retain(|_, (_, till, _)| *till >= now);
        self.0.remove(ask.holder);
        if held > 0 {
            let till = now + u64::try_from(ask.valid.as_millis()).unwrap() * 1_100;
            self.0.insert(ask.holder.to_owned(), (held, till, ask.number));
        }
        TurnsTold { held, others }
    }

    /// What all hold.
    pub(super) fn held(&self, now: u64) -> u32 {
        self.0.values().filter(|(_, till, _)| *till >= now).map(|(held, ..)| held).sum()
    }
}
