//! The user and the group to run as.

use serde_yaml::Value;

use super::kind::ValueKind;
use crate::process::{Group, User};

/// What an editor is told of a name.
const NAME: &str = r#"{"type": "string", "minLength": 1}"#;

/// The name of a user.
#[derive(Debug)]
pub(in crate::config) struct UserName;

impl ValueKind for UserName {
    type Checked = User;
    const WANTED: &str = "the name of a user of this machine";
    const SCHEMA: &str = NAME;

    fn read(value: &Value) -> Option<User> {
        User::of_name(name(value)?)
    }
}

/// The name of a group.
#[derive(Debug)]
pub(in crate::config) struct GroupName;

impl ValueKind for GroupName {
    type Checked = Group;
    const WANTED: &str = "the name of a group of this machine";
    const SCHEMA: &str = NAME;

    fn read(value: &Value) -> Option<Group> {
        Group::of_name(name(value)?)
    }
}

/// A name that the system can be asked for.
fn name(value: &Value) -> Option<&str> {
    value.as_str().filter(|name| !name.is_empty() && !name.contains('\0'))
}
