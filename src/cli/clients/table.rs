//! Clients for people: a table of many, a list of one's fields.

use std::io::{self, Write};

use serde_json::Value;

use crate::cli::api::plain;

/// The columns: title, field, and whether it is a number, which stands to the right.
const COLUMNS: [(&str, &str, bool); 11] = [
    ("CLIENT", "client_id", false),
    ("MODE", "mode", false),
    ("CAPACITY", "capacity", true),
    ("RATE/S", "rate_per_sec", true),
    ("TOKENS", "tokens", true),
    ("ALLOWED", "allowed", true),
    ("LIMITED", "limited", true),
    ("LAST SEEN", "last_seen", false),
    ("KEY", "has_api_key", false),
    ("ADDRESSES", "addresses", false),
    ("NOTE", "note", false),
];

/// The fields of one client, in the order in which they are shown.
const FIELDS: [&str; 15] = [
    "client_id",
    "api_key",
    "plan",
    "capacity",
    "rate_per_sec",
    "mode",
    "addresses",
    "has_api_key",
    "note",
    "tokens",
    "allowed",
    "limited",
    "last_seen",
    "created_at",
    "updated_at",
];

/// More of a note than this does not help in a table.
const NOTE: usize = 40;

/// More addresses than this do not help either.
const ADDRESSES: usize = 2;

/// A table of clients, filled before it is written, since every row decides how wide a column is.
#[derive(Debug, Default)]
pub(super) struct TextTable {
    rows: Vec<[String; COLUMNS.len()]>,
}

impl TextTable {
    /// Adds a client.
    pub(super) fn add(&mut self, client: &Value) {
        self.rows.push(COLUMNS.map(|(_, field, _)| match (field, &client[field]) {
            ("addresses", Value::Array(addresses)) if addresses.len() > ADDRESSES => {
                let more = addresses.len() - ADDRESSES;
                format!("{} and {more} more", shown(&addresses[..ADDRESSES].into()))
            }
            ("note", Value::String(note)) if note.chars().count() > NOTE => {
                plain(&note.chars().take(NOTE - 1).chain(['…']).collect::<String>())
            }
            (_, value) => shown(value),
        }));
    }

    /// Writes the titles and every row.
    pub(super) fn write(&self, out: &mut dyn Write) -> io::Result<()> {
        let titles = COLUMNS.map(|(title, ..)| title.to_owned());
        let lines = || std::iter::once(&titles).chain(&self.rows);
        let mut widths = [0; COLUMNS.len()];
        for line in lines() {
            for (width, cell) in widths.iter_mut().zip(line) {
                *width = cell.chars().count().max(*width);
            }
        }
        for line in lines() {
            let cells = line.iter().zip(widths).zip(COLUMNS).map(|((cell, width), (_, _, is_number))| {
                if is_number { format!("{cell:>width$}") } else { format!("{cell:<width$}") }
            });
            writeln!(out, "{}", cells.collect::<Vec<_>>().join("  ").trim_end())?;
        }
        Ok(())
    }
}

/// Writes the fields of one client, one a line; those that this version does not know come last.
pub(super) fn write_fields(client: &Value, out: &mut dyn Write) -> io::Result<()> {
    let Some(fields) = client.as_object() else { return writeln!(out, "{}", shown(client)) };
    let known = FIELDS.iter().filter_map(|name| fields.get_key_value(*name));
    // Warnings are told beside the answer.
    let others = fields.iter().filter(|(name, _)| !FIELDS.contains(&name.as_str()) && *name != "warnings");
    let lines: Vec<_> = known.chain(others).map(|(name, value)| (plain(name), shown(value))).collect();
    let width = lines.iter().map(|(name, _)| name.chars().count()).max().unwrap_or_default();
    lines.iter().try_for_each(|(name, value)| writeln!(out, "{}", format!("{name:<width$}  {value}").trim_end()))
}

/// A value in words.
fn shown(value: &Value) -> String {
    match value {
        Value::Null => "-".to_owned(),
        Value::Bool(true) => "yes".to_owned(),
        Value::Bool(false) => "no".to_owned(),
        Value::String(text) => plain(text),
        Value::Array(items) if items.is_empty() => "-".to_owned(),
        Value::Array(items) => items.iter().map(shown).collect::<Vec<_>>().join(", "),
        Value::Number(_) | Value::Object(_) => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(write: impl Fn(&mut dyn Write) -> io::Result<()>) -> String {
        let mut out = Vec::new();
        write(&mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn columns_are_aligned_and_numbers_stand_to_the_right() {
        let mut table = TextTable::default();
        table.add(&json!({
            "client_id": "user1", "mode": "limit", "capacity": 100, "rate_per_sec": 10, "tokens": 87.5, "allowed": 1200,
            "limited": 13, "last_seen": "2026-01-02T03:04:05Z", "has_api_key": true, "addresses": [], "note": "",
        }));
        table.add(&json!({
            "client_id": "büro", "mode": "unlimited", "capacity": 1_000_000_000, "rate_per_sec": 0.000001,
            "tokens": null, "allowed": 0, "limited": 0, "last_seen": null, "has_api_key": false,
            "addresses": ["10.0.0.0/8", "::1", "192.0.2.1"], "note": "a\u{1b}[2J\nb",
        }));
        let expected = "\
CLIENT  MODE         CAPACITY  RATE/S  TOKENS  ALLOWED  LIMITED  LAST SEEN             KEY  ADDRESSES                   NOTE
user1   limit             100      10    87.5     1200       13  2026-01-02T03:04:05Z  yes  -
büro    unlimited  1000000000    1e-6       -        0        0  -                     no   10.0.0.0/8, ::1 and 1 more  a\\u{1b}[2J\\nb
";
        assert_eq!(written(|out| table.write(out)), expected);
        let title = "CLIENT  MODE  CAPACITY  RATE/S  TOKENS  ALLOWED  LIMITED  LAST SEEN  KEY  ADDRESSES  NOTE\n";
        assert_eq!(written(|out| TextTable::default().write(out)), title, "nobody has a table too");
        let mut long = TextTable::default();
        long.add(&json!({"note": "x".repeat(41)}));
        assert!(written(|out| long.write(out)).ends_with(&format!("  {}…\n", "x".repeat(39))));
    }

    #[test]
    fn one_client_is_shown_field_by_field_and_a_new_field_is_not_lost() {
        let client =
            json!({"version": 3, "note": "", "capacity": 5, "client_id": "a", "addresses": ["::1", "10.0.0.1"]});
        let expected = "client_id  a\ncapacity   5\naddresses  ::1, 10.0.0.1\nnote\nversion    3\n";
        assert_eq!(written(|out| write_fields(&client, out)), expected);
    }
}
