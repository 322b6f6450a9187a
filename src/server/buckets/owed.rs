//! What this node owes the store of its fleet outlives the process.
//!
//! The problem: what a node gives while the store is away is told once it is back. Were it forgotten by a node that is
//! stopped, killed or upgraded before that, its callers would get as much again.
//!
//! The rule: what is owed is saved when the buckets are, every `persist_interval` and at a stop, of whom it is another
//! amount than the database has. It is read back at the start, and told with the first question about the bucket, under
//! the quota of now. A successor gets it from memory: before it serves, then what its predecessor gives while the store
//! is away, and what is left when that has gone. A hand-over that fails leaves it where it was.
//!
//! A process that is killed loses what it gave since the last save. What it told since then is told again, as is what a
//! successor told that failed: callers pay for it twice. That is the lesser fault, as never is more given than a limit
//! allows; and it is rare, for whoever is told is forgotten at the next save. The same goes for a
//! backup of such a time that is put back.
//!
//! Refused: to reckon it from this node's share of a bucket, which is saved: how much of what that lacks the store knew
//! before it went, nobody can tell; a column beside the bucket, which is dropped when the share is full again, while
//! what was given of it is still to be told.

use std::collections::HashMap;
use std::sync::Arc;

use super::Buckets;
use super::due::PIECE;
use super::owed_book::saved_in;
use crate::client::Quota;
use crate::limit::{Key, Owed, Payer};
use crate::store::{SavedOwed, Snapshot, StoreError, WriteError};

impl Buckets {
    /// Saves it, unless another process has the buckets.
    pub(super) async fn save_owed(&self) -> Result<(), WriteError> {
        if self.owed.lock().saved.is_none() {
            let Ok(_right) = self.right.try_acquire() else { return Ok(()) };
            let store = Arc::clone(&self.store);
            // Tried again at the next save.
            let Ok(Ok(saved)) = tokio::task::spawn_blocking(move || saved_in(store.as_ref())).await else {
                return Ok(());
            };
            self.owed.lock().saved = Some(saved);
        }
        for piece in self.unsaved_owed().chunks(PIECE) {
            let Ok(_right) = self.right.try_acquire() else { return Ok(()) };
            self.store.save(self.snapshot_of(piece)).wait().await?;
            self.owed.lock().note(piece);
        }
        Ok(())
    }

    /// The same at the end, by who has the right. Blocks the thread.
    pub(super) fn save_owed_at_stop(&self) -> Result<(), WriteError> {
        if self.owed.lock().saved.is_none() {
            let saved = saved_in(self.store.as_ref())?;
            self.owed.lock().saved = Some(saved);
        }
        for piece in self.unsaved_owed().chunks(PIECE) {
            self.store.save(self.snapshot_of(piece)).wait_blocking()?;
            self.owed.lock().note(piece);
        }
        Ok(())
    }

    fn snapshot_of(&self, owed: &[SavedOwed]) -> Snapshot {
        Snapshot { changed: Vec::new(), dropped: Vec::new(), owed: owed.to_vec(), at: self.moment() }
    }

    fn saved_owed(&self, Owed { key, quota, tokens }: Owed) -> Option<SavedOwed> {
        Some(SavedOwed { payer: self.keys.payer(key)?, tokens, quota })
    }

    /// Of whom the database has another amount than is owed; of nobody while it is not known what it has.
    fn unsaved_owed(&self) -> Vec<SavedOwed> {
        let mut all: HashMap<Payer, SavedOwed> = HashMap::new();
        for owed in self.limiter.owed().into_iter().filter_map(|owed| self.saved_owed(owed)) {
            // A bucket may have two keys, of who came with a quota of its own and without.
            let sum = all.entry(owed.payer).or_insert(SavedOwed { tokens: 0, ..owed });
            sum.tokens = sum.tokens.saturating_add(owed.tokens);
        }
        let book = self.owed.lock();
        let Some(saved) = &book.saved else { return Vec::new() };
        let told = saved.values().filter(|saved| !all.contains_key(&saved.payer));
        let mut unsaved: Vec<_> = told.map(|saved| SavedOwed { tokens: 0, ..*saved }).collect();
        let is_saved = |owed: &SavedOwed| saved.get(&owed.payer).is_some_and(|saved| saved.tokens == owed.tokens);
        unsaved.extend(all.into_values().filter(|owed| !is_saved(owed)));
        unsaved.sort_by_key(|owed| owed.payer);
        unsaved
    }

    /// Reads back what an earlier process saved. Of who is gone it is forgotten.
    pub(super) fn restore_owed(&self, own: impl Fn(Payer) -> Option<Quota>) -> Result<(), StoreError> {
        let saved = saved_in(self.store.as_ref())?;
        let all: Vec<_> = saved.values().copied().collect();
        self.owed.lock().saved = Some(saved);
        all.iter().for_each(|owed| self.owe_too(owed, self.whose(owed.payer, &own)));
        Ok(())
    }

    /// Gives a successor what is owed while the store is away, and in the `end` all of it.
    pub(in crate::server) fn hand_over_owed(&self, end: bool) -> Vec<SavedOwed> {
        let taken = self.limiter.take_owed(end);
        self.owed.lock().handed_over.extend_from_slice(&taken);
        taken.into_iter().filter_map(|owed| self.saved_owed(owed)).collect()
    }

    /// Owes what a process owed that went before. `own` is the quota that a payer has of its own. A client that was made
    /// since pays all the same.
    pub(in crate::server) fn take_over_owed(&self, all: &[SavedOwed], own: impl Fn(Payer) -> Option<Quota>) {
        for owed in all {
            let plain = || owed.payer.policy().is_none().then(|| (self.keys.key(owed.payer), owed.quota));
            self.owe_too(owed, self.whose(owed.payer, &own).or_else(plain));
        }
    }

    fn owe_too(&self, owed: &SavedOwed, whose: Option<(Key, Quota)>) {
        if let Some((key, quota)) = whose {
            self.limiter.owe_too(Owed { key, quota, tokens: owed.tokens }, self.now());
        }
    }

    /// Owes again what a successor was given that came to nothing. What that has saved is not known.
    pub(super) fn take_owed_back(&self) {
        let book = std::mem::take(&mut *self.owed.lock());
        book.handed_over.into_iter().for_each(|owed| self.limiter.owe_too(owed, self.now()));
    }
}
