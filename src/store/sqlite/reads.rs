//! Reads, each on a connection of its own beside the writer's.
//!
//! Short ones (one client, a page, a history) share a few connections. Long ones (all clients, all buckets) open their
//! own, so that a caller who takes its time holds nobody up. A reader sees the file as it was when it began, and every
//! write that was answered before that.

use std::num::NonZeroUsize;
use std::path::Path;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::{Mutex, MutexGuard};
use rusqlite::config::DbConfig;
use rusqlite::{Connection, OpenFlags};

use super::super::{HistoryEntry, Page, PageQuery, Record};
use super::meta;
use super::rows::{self, ClientReader, ReadFailure};
use super::search::Search;
use super::search_text::SearchPass;
use crate::client::ClientId;

/// How many short reads can run at once.
const CONNECTIONS: NonZeroUsize = NonZeroUsize::new(4).expect("4 is not 0");

/// The connections for short reads.
#[derive(Debug)]
pub(super) struct Readers {
    connections: Vec<Mutex<Connection>>,
    next: AtomicUsize,
}

impl Readers {
    /// Opens them.
    pub(super) fn open(path: &Path) -> rusqlite::Result<Self> {
        let connections = (0..CONNECTIONS.get()).map(|_| connect(path).map(Mutex::new)).collect::<Result<_, _>>()?;
        Ok(Readers { connections, next: AtomicUsize::new(0) })
    }

    /// One of them: a free one, or else the next that becomes free among those that wait their turn.
    pub(super) fn get(&self) -> MutexGuard<'_, Connection> {
        let free = self.connections.iter().find_map(Mutex::try_lock);
        free.unwrap_or_else(|| {
            let next = self.next.fetch_add(1, Ordering::Relaxed) % CONNECTIONS;
            self.connections[next].lock()
        })
    }
}

/// A connection that only reads. It never ends the write-ahead log: that is the writer's.
pub(super) fn connect(path: &Path) -> rusqlite::Result<Connection> {
    let connection =
        Connection::open_with_flags(path, OpenFlags::SQLITE_OPEN_READ_ONLY | OpenFlags::SQLITE_OPEN_NO_MUTEX)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_NO_CKPT_ON_CLOSE, true)?;
    connection.set_db_config(DbConfig::SQLITE_DBCONFIG_ENABLE_QPSG, true)?;
    connection.pragma_update(None, "temp_store", "MEMORY")?;
    connection.set_prepared_statement_cache_capacity(32);
    // The first read is what finds the file unreadable.
    connection.query_row("SELECT count(*) FROM meta", [], |_| Ok(()))?;
    Ok(connection)
}

/// Some clients, in the order of their names. Without a search this takes as long as the page is long, wherever it is;
/// a search looks through the text of all clients.
pub(super) fn page(connection: &Connection, search: &Search, query: &PageQuery) -> Result<Page, ReadFailure> {
    // The total is of the same moment as the items.
    let moment = connection.unchecked_transaction()?;
    let mut reader = ClientReader::default();
    let after = query.after.as_ref().map_or("", ClientId::as_str);
    let (mut items, mut more) = (Vec::new(), false);
    let total;
    if query.search.is_empty() {
        let sql = format!("SELECT {} FROM clients WHERE client_id > ?1 ORDER BY client_id", rows::RECORD);
        let mut all = moment.prepare_cached(&sql)?;
        let mut found = all.query([after])?;
        while !more && let Some(row) = found.next()? {
            more = items.len() == query.limit;
            if !more {
                items.push(reader.record(row)?);
            }
        }
        total = meta::get(&moment, "clients")?.unwrap_or(0).cast_unsigned();
    } else {
        let mut pass = SearchPass::new(&query.search, after, query.limit.saturating_add(1));
        search.look(&moment, &mut pass)?;
        (more, total) = (pass.names.len() > query.limit, pass.total);
        let mut one = moment.prepare_cached(&format!("SELECT {} FROM clients WHERE client_id = ?1", rows::RECORD))?;
        for id in pass.names.iter().take(query.limit) {
            items.push(one.query_row([id], |row| Ok(reader.record(row)))??);
        }
    }
    Ok(Page { items, more, total })
}

/// Changes of the client with this name, the latest first, of versions below `before`. Takes as long as the answer is
/// long.
pub(super) fn history(
    connection: &Connection,
    id: &ClientId,
    before: Option<u64>,
    limit: usize,
) -> Result<Vec<HistoryEntry>, ReadFailure> {
    let mut reader = ClientReader::default();
    let sql = format!(
        "SELECT {} FROM history WHERE client_id = ?1 AND version < ?2 ORDER BY version DESC LIMIT ?3",
        rows::HISTORY
    );
    let mut latest = connection.prepare_cached(&sql)?;
    let before = rows::signed(before.unwrap_or(u64::MAX));
    let mut changes = latest.query((id.as_str(), before, rows::signed(limit as u64)))?;
    let mut entries = Vec::new();
    while let Some(row) = changes.next()? {
        entries.push(reader.entry(row)?);
    }
    Ok(entries)
}

/// The latest changes of all clients, the latest first. Takes as long as the answer is long.
pub(super) fn latest_changes(
    connection: &Connection,
    limit: usize,
) -> Result<Vec<(ClientId, HistoryEntry)>, ReadFailure> {
    let mut reader = ClientReader::default();
    let sql = format!("SELECT {} FROM history ORDER BY sequence DESC LIMIT ?1", rows::HISTORY);
    let mut latest = connection.prepare_cached(&sql)?;
    let mut changes = latest.query([rows::signed(limit as u64)])?;
    let mut entries = Vec::new();
    while let Some(row) = changes.next()? {
        entries.push(reader.named_entry(row)?);
    }
    Ok(entries)
}

/// Gives `each` every client of one moment, in the order of their names, until it returns false.
pub(super) fn for_each(connection: &Connection, each: &mut dyn FnMut(Record) -> bool) -> Result<(), ReadFailure> {
    let mut reader = ClientReader::default();
    let mut all = connection.prepare(&format!("SELECT {} FROM clients ORDER BY client_id", rows::RECORD))?;
    let mut found = all.query([])?;
    while let Some(row) = found.next()? {
        if !each(reader.record(row)?) {
            break;
        }
    }
    Ok(())
}
