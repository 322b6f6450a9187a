//! Kinds of values that may also be a word that says that there is none.

use std::marker::PhantomData;

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::kind::ValueKind;

/// A `T`, or null for no bound.
#[derive(Debug)]
pub(in crate::config) struct OrNull<T>(PhantomData<T>);

impl<T: ValueKind> ValueKind for OrNull<T> {
    type Checked = Option<T::Checked>;

    fn wanted() -> String {
        format!("{}, or null for no bound", T::wanted())
    }

    fn read(value: &Value) -> Option<Self::Checked> {
        if value.is_null() { Some(None) } else { T::read(value).map(Some) }
    }

    fn hint(refused: &Value) -> Option<String> {
        T::hint(refused)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [T::schema(generator), {"type": "null"}]})
    }
}

/// A `T`, or null for none.
#[derive(Debug)]
pub(in crate::config) struct OrNone<T>(PhantomData<T>);

impl<T: ValueKind> ValueKind for OrNone<T> {
    type Checked = Option<T::Checked>;

    fn wanted() -> String {
        format!("{}, or null", T::wanted())
    }

    fn read(value: &Value) -> Option<Self::Checked> {
        OrNull::<T>::read(value)
    }

    fn hint(refused: &Value) -> Option<String> {
        T::hint(refused)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        OrNull::<T>::schema(generator)
    }
}

/// A `T`, or `auto` for what tollgate finds right.
#[derive(Debug)]
pub(in crate::config) struct OrAuto<T>(PhantomData<T>);

impl<T: ValueKind> ValueKind for OrAuto<T> {
    type Checked = Option<T::Checked>;

    fn wanted() -> String {
        format!("{}, or auto", T::wanted())
    }

    fn read(value: &Value) -> Option<Self::Checked> {
        if value.as_str() == Some("auto") { Some(None) } else { T::read(value).map(Some) }
    }

    fn hint(refused: &Value) -> Option<String> {
        T::hint(refused)
    }

    fn schema(generator: &mut SchemaGenerator) -> Schema {
        json_schema!({"anyOf": [T::schema(generator), {"const": "auto"}]})
    }
}
