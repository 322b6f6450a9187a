//! The user and the group to run as.

use nix::unistd;
use schemars::{Schema, SchemaGenerator, json_schema};
use serde_yaml::Value;

use super::key::Leaf;

/// A user that this machine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct User {
    /// The name.
    pub name: String,
    /// The user id.
    pub uid: u32,
    /// The id of the user's own group.
    pub gid: u32,
}

/// A group that this machine knows.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Group {
    /// The name.
    pub name: String,
    /// The group id.
    pub gid: u32,
}

/// The name of a user.
#[derive(Debug)]
pub(super) struct UserName;

impl Leaf for UserName {
    type Checked = User;

    fn wanted() -> String {
        "the name of a user of this machine".to_owned()
    }

    fn read(value: &Value) -> Option<User> {
        let user = unistd::User::from_name(name(value)?).ok()??;
        Some(User { name: user.name, uid: user.uid.as_raw(), gid: user.gid.as_raw() })
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
        let group = unistd::Group::from_name(name(value)?).ok()??;
        Some(Group { name: group.name, gid: group.gid.as_raw() })
    }

    fn schema(_: &mut SchemaGenerator) -> Schema {
        json_schema!({"type": "string", "minLength": 1})
    }
}

/// A name that the system can be asked for.
fn name(value: &Value) -> Option<&str> {
    value.as_str().filter(|name| !name.is_empty() && !name.contains('\0'))
}
