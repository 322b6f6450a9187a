//! What the file says, checked into what the server is built from.

mod settings;

pub use settings::{Config, PingoraSettings};
