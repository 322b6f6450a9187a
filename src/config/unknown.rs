//! Keys that the file has and the schema has not.

use serde_yaml::Value;

use super::problem::{KeyPath, Report};
use super::tree;

/// Takes every key out of `value` that `schema` does not allow, at every level, and reports it with those allowed.
pub(super) fn remove(value: &mut Value, schema: &serde_json::Value, path: &KeyPath, report: &mut Report) {
    match value {
        Value::Mapping(mapping) => {
            let Some(known) = schema.get("properties").and_then(|known| known.as_object()) else { return };
            mapping.retain(|key, value| {
                let name = tree::name(key);
                let path = path.key(&name);
                let schema = key.as_str().and_then(|key| known.get(key));
                match schema {
                    Some(schema) => remove(value, schema, &path, report),
                    None => report.add(&path, complaint(&name, known.keys().map(String::as_str).collect())),
                }
                schema.is_some()
            });
        }
        Value::Sequence(items) => {
            let Some(schema) = schema.get("items") else { return };
            for (index, item) in items.iter_mut().enumerate() {
                remove(item, schema, &path.item(index), report);
            }
        }
        _ => {}
    }
}

fn complaint(name: &str, mut known: Vec<&str>) -> String {
    known.sort_unstable();
    let meant =
        closest(name, known.iter().copied()).map_or_else(String::new, |close| format!(", did you mean {close}?"));
    format!("unknown key{meant} (allowed: {})", known.join(", "))
}

/// The one of `known` that `name` was most likely meant to be, if it is like any.
pub(super) fn closest<'a>(name: &str, known: impl Iterator<Item = &'a str>) -> Option<&'a str> {
    const ALIKE: f64 = 0.8;
    let name = name.to_ascii_lowercase();
    let alike = known.map(|known| (strsim::jaro_winkler(&name, known), known)).filter(|(alike, _)| *alike > ALIKE);
    alike.max_by(|(a, _), (b, _)| a.total_cmp(b)).map(|(_, known)| known)
}
