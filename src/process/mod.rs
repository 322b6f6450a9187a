//! What a server does with the process that it is all of: becoming a daemon and another user, its pid file, its
//! descriptors, its listening sockets, what systemd is told, and the connection over which it hands over to a
//! successor.
//!
//! It knows no HTTP, and nothing of what the server serves.

mod address;
mod channel;
pub mod daemon;
pub(crate) mod descriptors;
pub(crate) mod notify;
mod owner;
pub mod pid_file;
mod privileges;
mod rendezvous;
mod settings;
mod socket;
mod this;
mod unix;

pub use address::ListenAddress;
pub(crate) use channel::Channel;
pub(crate) use owner::collide;
pub use pid_file::PidFileError;
pub use privileges::{Group, PrivilegesError, User};
pub(crate) use privileges::{NeededFiles, become_user};
pub(crate) use rendezvous::{MeetingPlace, trusted};
pub use settings::ProcessSettings;
pub use socket::BindError;
pub(crate) use socket::{Bound, ListeningSocket, Sockets, clear_away};
pub(crate) use this::Process;
