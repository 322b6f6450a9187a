//! The tokens of the admin API: from a file, or from the environment.
//!
//! The file has one token a line, `TOKEN`, `NAME TOKEN` or `viewer NAME TOKEN`; the name stands in the history of what
//! its holder changes, and a viewer changes nothing. `viewer` is no name, so that a line that lacks one is never taken for
//! a token that may change something. Empty lines and lines that begin with `#` do not count.
//!
//! No message here repeats a word of the file: a line that is wrong may still hold a secret, in whichever place.

use std::collections::HashMap;
use std::path::Path;

use super::overrides::InvalidValue;
use super::source;
use super::value::{PoolName, ValueKind};
use crate::admin::Token;

/// What a line begins with whose holder may only look.
const VIEWER: &str = "viewer";

/// What the holder of a token without a name is called.
const UNNAMED: &str = "admin";

/// What a line can be.
const FORMS: &str = "TOKEN, NAME TOKEN or viewer NAME TOKEN";

/// The length of a token: not to be guessed, and yet short enough for a header.
const LENGTH: std::ops::RangeInclusive<usize> = 16..=4096;

/// No file of tokens is as large.
const LARGEST: u64 = 1 << 20;

/// How many wrong lines are told; a file of something else has nothing but such.
const TOLD: usize = 10;

/// Reads the token of the environment, whose holder is called `admin`.
///
/// # Errors
/// When it is too short, too long, or has other characters than visible ASCII. The message does not show it.
pub fn parse_token(text: &str) -> Result<Token, InvalidValue> {
    secret(text.trim())
        .map(|secret| Token { name: UNNAMED.to_owned(), secret, viewer: false })
        .map_err(InvalidValue::new)
}

/// Reads a file of tokens, at least one.
///
/// # Errors
/// All that is wrong with it. Each message begins with the file's name, and none shows a token.
pub fn read_tokens(path: &Path) -> Result<Vec<Token>, Vec<String>> {
    read(path).map(|(tokens, _)| tokens)
}

/// Reads the file of tokens: the tokens, at least one, and what is not wise about the file.
///
/// # Errors
/// All that is wrong with it. Each message begins with the file's name.
pub(super) fn read(path: &Path) -> Result<(Vec<Token>, Option<String>), Vec<String>> {
    let file = path.display();
    let text = source::read(path, LARGEST).map_err(|(message, _)| vec![format!("{file}: {message}")])?;
    let tokens = parse(&text).map_err(|messages| {
        let rest = messages.len().saturating_sub(TOLD);
        let told = messages.into_iter().take(TOLD).map(|message| format!("{file}: {message}"));
        told.chain((rest > 0).then(|| format!("{file}: and {rest} more like these"))).collect::<Vec<_>>()
    })?;
    Ok((tokens, source::open_to_all(path)))
}

/// Reads the lines of the file.
fn parse(text: &str) -> Result<Vec<Token>, Vec<String>> {
    let text = text.strip_prefix('\u{feff}').unwrap_or(text);
    let (mut tokens, mut problems) = (Vec::new(), Vec::new());
    let (mut names, mut secrets) = (HashMap::new(), HashMap::new());
    for (number, line) in (1..).zip(text.lines()) {
        let line = line.trim();
        if line.is_empty() || line.starts_with('#') {
            continue;
        }
        match token(line) {
            Ok(token) => {
                let taken = [names.insert(token.name.clone(), number), secrets.insert(token.secret.clone(), number)];
                for (what, first) in ["name", "token"].into_iter().zip(taken) {
                    problems.extend(first.map(|first: usize| {
                        format!("line {number}: must have a {what} of its own, but has that of line {first}")
                    }));
                }
                tokens.push(token);
            }
            Err(message) => problems.push(format!("line {number}: {message}")),
        }
    }
    if tokens.is_empty() && problems.is_empty() {
        problems.push(format!("the file holds no token, must have one a line: {FORMS}"));
    }
    if problems.is_empty() { Ok(tokens) } else { Err(problems) }
}

fn token(line: &str) -> Result<Token, String> {
    let words: Vec<_> = line.split_whitespace().collect();
    let (name, text, viewer) = match words[..] {
        [VIEWER] | [VIEWER, _] | [VIEWER, VIEWER, _] => {
            return Err(format!("must be {FORMS}; `{VIEWER}` alone is no name"));
        }
        [text] => (UNNAMED, text, false),
        [name, text] => (name, text, false),
        [VIEWER, name, text] => (name, text, true),
        _ => return Err(format!("must be {FORMS}, not {} words", words.len())),
    };
    let name = PoolName::read(&name.into()).ok_or_else(|| format!("the name must be {}", PoolName::wanted()))?;
    secret(text).map(|secret| Token { name, secret, viewer })
}

fn secret(text: &str) -> Result<String, String> {
    let allowed = format!("{} to {} visible ASCII characters", LENGTH.start(), LENGTH.end());
    if !text.bytes().all(|byte| byte.is_ascii_graphic()) {
        return Err(format!("a token must be {allowed}, and this one has others"));
    }
    if !LENGTH.contains(&text.len()) {
        return Err(format!("a token must be {allowed}, not {} (`openssl rand -hex 32` makes a good one)", text.len()));
    }
    Ok(text.to_owned())
}

#[cfg(test)]
mod tests;
