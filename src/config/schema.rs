//! The JSON Schema of the file, for editors.

use schemars::generate::SchemaSettings;
use serde_json::Value;

use super::shape::FileShape;

/// The JSON Schema (draft 2020-12) of the configuration file, as `tollgate schema` prints it.
///
/// `conf/tollgate.schema.json` holds a copy, which `tollgate schema > conf/tollgate.schema.json` renews.
pub fn schema() -> String {
    format!("{:#}", value())
}

/// The schema as a tree, without references.
pub(super) fn value() -> Value {
    let settings = SchemaSettings::draft2020_12().with(|settings| settings.inline_subschemas = true);
    settings.into_generator().into_root_schema_for::<FileShape>().into()
}
