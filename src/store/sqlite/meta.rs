//! Single numbers that are kept by name.

use rusqlite::{Connection, OptionalExtension};

/// The number with this name, if there is one.
pub(super) fn get(connection: &Connection, name: &str) -> rusqlite::Result<Option<i64>> {
    connection.prepare_cached("SELECT value FROM meta WHERE name = ?1")?.query_row([name], |row| row.get(0)).optional()
}

/// Forgets the number with this name.
pub(super) fn remove(connection: &Connection, name: &str) -> rusqlite::Result<()> {
    connection.prepare_cached("DELETE FROM meta WHERE name = ?1")?.execute([name])?;
    Ok(())
}

/// Keeps a number by its name.
pub(super) fn set(connection: &Connection, name: &str, value: i64) -> rusqlite::Result<()> {
    connection.prepare_cached("INSERT OR REPLACE INTO meta (name, value) VALUES (?1, ?2)")?.execute((name, value))?;
    Ok(())
}
