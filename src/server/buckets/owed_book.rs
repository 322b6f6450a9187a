//! Who else has what is owed: the database, and a successor.

use std::collections::HashMap;

use crate::limit::{Owed, Payer};
use crate::store::{BucketStore, SavedOwed, StoreError};

/// Who else has what is owed.
#[derive(Debug, Default)]
pub(super) struct OwedBook {
    /// What the database has; none where that is not known.
    pub(super) saved: Option<HashMap<Payer, SavedOwed>>,
    /// What a successor was given.
    pub(super) handed_over: Vec<Owed>,
}

impl OwedBook {
    /// The database has this piece.
    pub(super) fn note(&mut self, piece: &[SavedOwed]) {
        let Some(saved) = &mut self.saved else { return };
        for owed in piece {
            if owed.tokens > 0 {
                saved.insert(owed.payer, *owed);
            } else {
                saved.remove(&owed.payer);
            }
        }
    }
}

/// What `store` has of it.
pub(super) fn saved_in(store: &dyn BucketStore) -> Result<HashMap<Payer, SavedOwed>, StoreError> {
    let mut all = HashMap::new();
    store.load_owed(&mut |owed| all.extend([(owed.payer, owed)]))?;
    Ok(all)
}
