//! Keys that the file has and the schema has not.

use serde_yaml::Value;

use super::problem::KeyPath;
use super::report::Report;
use super::tree;
use crate::spelling::closest;

/// Takes every key out of `value` that `schema` does not allow, at every level, and reports it with those allowed.
pub(super) fn remove(value: &mut Value, schema: &serde_json::Value, path: &KeyPath, report: &mut Report) {
    // Of a section that may be null, the section.
    let kinds = schema.get("anyOf").and_then(|kinds| kinds.as_array()).into_iter().flatten();
    let schema = kinds
        .into_iter()
        .find(|kind| kind.get("properties").or(kind.get("additionalProperties")).is_some())
        .unwrap_or(schema);
    match value {
        Value::Mapping(mapping) => {
            let Some(known) = schema.get("properties").and_then(|known| known.as_object()) else {
                let Some(each) = schema.get("additionalProperties") else { return };
                let items = mapping.iter_mut();
                return items.for_each(|(key, value)| remove(value, each, &path.key(&tree::name(key)), report));
            };
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
