//! Buckets in the file.

use rusqlite::Connection;

use super::super::{Moment, Snapshot};
use super::meta;
use super::rows::{self, Failure, Reader};
use crate::limit::striped::Saved;

const TIMELINE: &str = "saved_timeline";
const WALL: &str = "saved_wall";

/// Writes a snapshot, within a transaction. In the order of the keys, as each is a place in a b-tree.
pub(super) fn save(connection: &Connection, snapshot: Snapshot) -> rusqlite::Result<()> {
    let Snapshot { mut changed, mut dropped, at } = snapshot;
    dropped.sort_unstable();
    let mut forget = connection.prepare_cached("DELETE FROM buckets WHERE (kind, payload) = (?1, ?2)")?;
    for (kind, payload) in dropped.iter().map(|key| key.parts()) {
        forget.execute((kind, payload.cast_signed()))?;
    }
    // Stable, so that of two with the same key the last one counts.
    changed.sort_by_key(|saved| saved.key);
    let sql = format!("INSERT OR REPLACE INTO buckets ({}) VALUES (?, ?, ?, ?, ?, ?, ?)", rows::BUCKET);
    let mut put = connection.prepare_cached(&sql)?;
    for Saved { key, bucket, quota } in &changed {
        let ((kind, payload), (tokens, fraction)) = (key.parts(), bucket.tokens().parts());
        let [capacity, rate] = rows::quota(*quota);
        let (payload, fraction, at) = (payload.cast_signed(), fraction.cast_signed(), bucket.at().cast_signed());
        put.execute((kind, payload, tokens, fraction, at, capacity, rate))?;
    }
    meta::set(connection, TIMELINE, at.timeline.cast_signed())?;
    meta::set(connection, WALL, at.wall.cast_signed())
}

/// Gives `each` every bucket; the moment of the last save. Within a transaction, so that they belong together.
pub(super) fn load(connection: &Connection, each: &mut dyn FnMut(Saved)) -> Result<Option<Moment>, Failure> {
    let mut reader = Reader::default();
    let mut all = connection.prepare(&format!("SELECT {} FROM buckets", rows::BUCKET))?;
    let mut saved = all.query([])?;
    while let Some(row) = saved.next()? {
        each(reader.bucket(row)?);
    }
    let (timeline, wall) = (meta::get(connection, TIMELINE)?, meta::get(connection, WALL)?);
    let nanos = i64::cast_unsigned;
    Ok(timeline.zip(wall).map(|(timeline, wall)| Moment { timeline: nanos(timeline), wall: nanos(wall) }))
}
