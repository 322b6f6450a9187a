//! From a path and arguments to a [`Config`].

use std::path::Path;

use serde::Deserialize;
use serde_yaml::Value;

use super::check::check;
use super::overrides::Overrides;
use super::problem::{KeyPath, Problem, Problems};
use super::report::Report;
use super::settings::Config;
use super::shape::FileShape;
use super::source::{self, FileRefusal};
use super::value::describe;
use super::variables::{self, Hidden, Variables};
use super::{schema, tree, unknown};

/// What to write into a file that has nothing in it.
const SMALLEST: &str = "smallest useful file: {listeners: [{address: 0.0.0.0:8080}], \
                        upstreams: [{name: app, backends: [{address: 127.0.0.1:9001}]}]}";

/// No configuration is as large.
const LARGEST: u64 = 4 << 20;

/// Reads and checks the file at `path`, overridden by `overrides`; without a path they say everything.
///
/// The file is checked as a whole even where an override takes the place of a part of it; only then may that part be
/// missing. Variables are those of this process. Blocks on the file, so it is for the start and for threads of its own.
///
/// # Errors
/// Every problem of the file and of the overrides.
pub fn load(path: Option<&Path>, overrides: &Overrides) -> Result<Config, Problems> {
    let Some(path) = path else {
        let mut report = Report::default();
        let config = check(None, overrides, &mut report);
        return finish("the command line", config, report, &Hidden::default());
    };
    let name = path.display().to_string();
    match source::read(path, LARGEST) {
        Ok(text) => load_text(&name, &text, overrides, &|name| std::env::var_os(name)),
        Err(refusal) => Err(refused(&name, refusal)),
    }
}

/// As [`load`], from the text of the file `source`, with other variables.
pub(super) fn load_text(
    source: &str,
    text: &str,
    overrides: &Overrides,
    variables: Variables<'_>,
) -> Result<Config, Problems> {
    // Some editors begin a file with a byte order mark.
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (file, mut report, hidden) = parse(text, variables).map_err(|refusal| refused(source, refusal))?;
    let config = check(Some(file), overrides, &mut report);
    finish(source, config, report, &hidden)
}

fn refused(source: &str, (message, line): FileRefusal) -> Problems {
    Problems::new(source, vec![Problem { path: source.to_owned(), message, line }])
}

fn parse(text: &str, variables: Variables<'_>) -> Result<(FileShape, Report, Hidden), FileRefusal> {
    let not_yaml = |error: serde_yaml::Error| {
        let hint = if text.contains("${") { "; between brackets ${NAME} needs quotes" } else { "" };
        (format!("the file cannot be read as YAML: {error}{hint}"), error.location().map(|location| location.line()))
    };
    let empty = || (format!("the file is empty; {SMALLEST}"), None);
    if is_blank(text) {
        return Err(empty());
    }
    let (mut value, mut report) = tree::read(text).map_err(not_yaml)?;
    if value == Value::Null {
        return Err(empty());
    }
    if !matches!(value, Value::Mapping(_)) {
        return Err((format!("the file must be a mapping of keys to values, not {}", describe(&value)), None));
    }
    unknown::remove(&mut value, &schema::value(), &KeyPath::default(), &mut report);
    let hidden = variables::fill(&mut value, variables, &mut report);
    let file = FileShape::deserialize(value).map_err(not_yaml)?;
    Ok((file, report, hidden))
}

/// Whether there is nothing but space and comments.
fn is_blank(text: &str) -> bool {
    text.lines().map(str::trim).all(|line| line.is_empty() || line.starts_with('#'))
}

fn finish(source: &str, config: Option<Config>, mut report: Report, hidden: &Hidden) -> Result<Config, Problems> {
    let hide = |message: &mut String| *message = hidden.without(std::mem::take(message));
    match config {
        Some(mut config) if report.problems.is_empty() => {
            config.warnings.iter_mut().for_each(hide);
            config.lapsed.iter_mut().for_each(|problem| hide(&mut problem.message));
            Ok(config)
        }
        _ => {
            report.problems.iter_mut().for_each(|problem| hide(&mut problem.message));
            Err(Problems::new(source, report.problems))
        }
    }
}
