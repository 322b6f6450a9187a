//! Wrong files, right files, any files.

mod any;
mod fleet;
mod right;
mod variables;
mod whole;
mod wrong;

use super::load::load_text;
use super::{Config, Overrides, Problems};

/// The start of a file with one listener and one upstream, which may go on.
const START: &str = "listeners: [{address: 0.0.0.0:8080}]
upstreams:
  - name: app
    backends: [{address: 127.0.0.1:9001}]
";

/// Checks `text` as the file `f.yaml`.
fn check(text: &str) -> Result<Config, Problems> {
    load_text("f.yaml", text, &Overrides::default(), &|_| None)
}

/// One problem a line, without the line that counts them.
fn lines(result: Result<Config, Problems>) -> Vec<String> {
    result.map_or_else(|problems| problems.iter().map(ToString::to_string).collect(), |_| Vec::new())
}
