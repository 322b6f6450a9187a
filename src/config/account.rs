//! The user and the group to run as.

use schemars::{Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::key::Leaf;
use crate::process::{Group, User};

/// The name of a user.
#[derive(Debug)]
pub(super) struct UserName;

impl Leaf for UserName {
    type Checked = User;

    fn wanted() -> String {
        "the name of a user of this machine".to_owned()
    }

    fn read(value: &Value) -> Option<User> {
        User::of_name(name(value)?)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// The name of a group.
#[derive(Debug)]
pub(super) struct GroupName;

impl Leaf for GroupName {
    type Checked = Group;

    fn wanted() -> String {
        "the name of a group of this machine".to_owned()
    }

    fn read(value: &Value) -> Option<Group> {
        Group::of_name(name(value)?)
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// A name that the system can be asked for.
fn name(value: &Value) -> Option<&str> {
    value.as_str().filter(|name| !name.is_empty() && !name.contains('\0'))
}
