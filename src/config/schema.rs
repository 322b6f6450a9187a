//! The JSON Schema of the file, for editors.

use schemars::generate::SchemaSettings;
use serde_json::{Value, json};

use super::shape::FileShape;

/// The JSON Schema (draft 2020-12) of the configuration file, as `tollgate schema` prints it.
///
/// `conf/tollgate.schema.json` holds a copy, which `tollgate schema > conf/tollgate.schema.json` renews.
pub fn schema() -> String {
    let mut schema = value();
    let keys = schema.get_mut("properties").and_then(Value::as_object_mut).into_iter().flatten();
    keys.for_each(|(_, key)| take_variables(key));
    schema["$defs"] = json!({"variable": {
        "description": "${NAME} is what the variable says; ${NAME:-default} what it says unless it is unset or empty.",
        "type": "string",
        "pattern": "\\$\\{[A-Za-z_]",
    }});
    format!("{schema:#}")
}

/// Lets `schema` take a text with variables wherever it would refuse one that it can become.
fn take_variables(schema: &mut Value) {
    let Some(object) = schema.as_object_mut() else { return };
    for name in ["items", "additionalProperties"] {
        object.get_mut(name).into_iter().for_each(take_variables);
    }
    let keys = object.get_mut("properties").and_then(Value::as_object_mut);
    keys.into_iter().flatten().for_each(|(_, key)| take_variables(key));
    let variable = json!({"$ref": "#/$defs/variable"});
    if let Some(kinds) = object.get_mut("anyOf").and_then(Value::as_array_mut) {
        kinds.iter_mut().filter(|kind| !is_narrow(kind)).for_each(take_variables);
        if kinds.iter().any(is_narrow) {
            kinds.push(variable);
        }
    } else if is_narrow(schema) {
        // What is told of a key stays with it.
        let mut own = std::mem::take(schema);
        let mut told = serde_json::Map::new();
        for name in ["description", "default"] {
            told.extend(own.as_object_mut().and_then(|own| own.remove(name)).map(|value| (name.to_owned(), value)));
        }
        told.insert("anyOf".to_owned(), json!([own, variable]));
        *schema = Value::Object(told);
    }
}

/// Whether it is a scalar, and not any text.
fn is_narrow(schema: &Value) -> bool {
    let is_scalar = |name: &Value| ["string", "integer", "number", "boolean"].iter().any(|scalar| name == scalar);
    let scalar = match &schema["type"] {
        Value::Array(names) => names.iter().any(is_scalar),
        name => is_scalar(name),
    };
    let says = |name: &str| schema.get(name).is_some();
    let any_text = schema["type"] == "string" && !says("pattern") && !says("not");
    says("enum") || says("const") || scalar && !any_text
}

/// The schema as a tree, without references.
pub(super) fn value() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<FileShape>().into()
}
