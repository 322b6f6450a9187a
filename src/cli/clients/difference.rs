//! What a bulk apply changes, for people.

use std::io::{self, Write};

use serde_json::Value;

use crate::cli::api::plain;

/// Writes the difference: `+ id` for each new client, `~ id field before → after` for each changed one, `- id` for
/// each removed one, and a line that counts.
pub(super) fn write(difference: &Value, out: &mut dyn Write) -> io::Result<()> {
    let list = |name: &str| difference[name].as_array().map(Vec::as_slice).unwrap_or_default();
    let (created, changed, deleted) = (list("created"), list("changed"), list("deleted"));
    for id in created {
        writeln!(out, "+ {}", text(id))?;
    }
    for change in changed {
        writeln!(out, "~ {} {}", text(&change["client_id"]), changes(&change["before"], &change["after"]))?;
    }
    for id in deleted {
        writeln!(out, "- {}", text(id))?;
    }
    let is_dry = difference["dry_run"] == true;
    let (begin, end) = if is_dry { ("to be ", "; nothing was done (--dry-run)") } else { ("", "") };
    writeln!(
        out,
        "{} {begin}created, {} {begin}changed, {} {begin}removed, {} unchanged{end}",
        created.len(),
        changed.len(),
        deleted.len(),
        difference["unchanged"].as_u64().unwrap_or_default(),
    )
}

/// The fields that are not the same, and how.
fn changes(before: &Value, after: &Value) -> String {
    let fields = after.as_object().into_iter().flatten();
    let changes: Vec<_> = fields
        .filter(|(name, value)| before[name.as_str()] != **value)
        .map(|(name, value)| format!("{} {} → {}", plain(name), text(&before[name.as_str()]), text(value)))
        .collect();
    // A key is never shown, so nothing else can be told of it.
    if changes.is_empty() { "api_key changed".to_owned() } else { changes.join(", ") }
}

fn text(value: &Value) -> String {
    match value {
        Value::Null => "none".to_owned(),
        Value::String(text) if text.is_empty() || text.contains(' ') => plain(&format!("{text:?}")),
        Value::String(text) => plain(text),
        Value::Array(items) => format!("[{}]", items.iter().map(text).collect::<Vec<_>>().join(" ")),
        _ => value.to_string(),
    }
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    fn written(difference: &Value) -> String {
        let mut out = Vec::new();
        write(difference, &mut out).unwrap();
        String::from_utf8(out).unwrap()
    }

    #[test]
    fn each_kind_of_change_has_its_sign_and_the_last_line_counts() {
        let profile = |capacity: u64, note: &str, addresses: Value| {
            json!({"client_id": "b", "capacity": capacity, "rate_per_sec": 10, "mode": "limit", "addresses": addresses,
                "has_api_key": true, "note": note})
        };
        let difference = json!({
            "dry_run": true,
            "created": ["a", "203.0.113.0/24"],
            "changed": [
                {"client_id": "b", "before": profile(100, "", json!([])),
                    "after": profile(200, "two words", json!(["::1"]))},
                {"client_id": "k", "before": profile(1, "", json!([])), "after": profile(1, "", json!([]))},
            ],
            "deleted": ["c"],
            "unchanged": 7,
        });
        let said = "+ a\n+ 203.0.113.0/24\n\
            ~ b addresses [] → [::1], capacity 100 → 200, note \"\" → \"two words\"\n\
            ~ k api_key changed\n- c\n\
            2 to be created, 2 to be changed, 1 to be removed, 7 unchanged; nothing was done (--dry-run)\n";
        assert_eq!(written(&difference), said);
        let nothing = json!({"dry_run": false, "created": [], "changed": [], "deleted": [], "unchanged": 3});
        assert_eq!(written(&nothing), "0 created, 0 changed, 0 removed, 3 unchanged\n");
    }
}
