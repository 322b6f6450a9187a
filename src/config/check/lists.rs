//! What lists of sections have in common.

use std::collections::HashMap;
use std::collections::hash_map::Entry;
use std::hash::Hash;

use crate::config::problem::KeyPath;
use crate::config::report::Level;
use crate::config::value::ValueKind;
use crate::config::written::{List, Section, Written};

/// The items of a list of sections, each with its path; one that is no section is reported, and none. No list at all
/// when there is none, which is reported when it is `needed`.
pub(super) fn sections<T, const MIN: usize>(
    level: &mut Level<'_>,
    name: &str,
    key: Written<List<Section<T>, MIN>>,
    needed: bool,
) -> Option<Vec<(KeyPath, Option<T>)>>
where
    Section<T>: ValueKind<Checked = T>,
{
    let items = if needed { level.need(name, key) } else { level.take(name, key) }?;
    let at = level.at.key(name);
    let items = items.into_iter().enumerate().map(|(index, item)| (at.item(index), item));
    Some(items.map(|(at, item)| (at.clone(), level.report.take(&at, item))).collect())
}

/// Where `value` was seen first, when this is not the first time; else this is remembered as the first.
pub(super) fn seen_at<T: Eq + Hash>(seen: &mut HashMap<T, KeyPath>, value: T, at: &KeyPath) -> Option<KeyPath> {
    match seen.entry(value) {
        Entry::Occupied(first) => Some(first.get().clone()),
        Entry::Vacant(free) => {
            free.insert(at.clone());
            None
        }
    }
}
