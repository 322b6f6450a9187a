//! Single numbers that are kept by name. A version that does not know a name leaves it alone.

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

/// The secret of the keys of buckets, in two halves.
const SECRET: [&str; 2] = ["secret_high", "secret_low"];

/// The secret that is kept; `made` from now on where there is none. Of two processes that make one at once, both use
/// the first.
pub(super) fn secret(connection: &Connection, made: u128) -> rusqlite::Result<u128> {
    let read = || -> rusqlite::Result<Option<u128>> {
        let halves = get(connection, SECRET[0])?.zip(get(connection, SECRET[1])?);
        Ok(halves.map(|(high, low)| u128::from(high.cast_unsigned()) << 64 | u128::from(low.cast_unsigned())))
    };
    if let Some(kept) = read()? {
        return Ok(kept);
    }
    // One statement, so that nobody sees half of it.
    let sql = "INSERT OR IGNORE INTO meta (name, value) VALUES (?1, ?2), (?3, ?4)";
    let [high, low] = [(made >> 64) as u64, made as u64].map(u64::cast_signed);
    connection.execute(sql, (SECRET[0], high, SECRET[1], low))?;
    Ok(read()?.unwrap_or(made))
}

/// Makes this the secret.
pub(super) fn replace_secret(connection: &Connection, secret: u128) -> rusqlite::Result<()> {
    let halves = [(secret >> 64) as u64, secret as u64].map(u64::cast_signed);
    SECRET.into_iter().zip(halves).try_for_each(|(name, half)| set(connection, name, half))
}
