//! `${NAME}` and `${NAME:-default}` in the file's values.
//!
//! The problem: one file for several machines, and secrets that have no place in a file. The rule: a variable is put in
//! after the file was parsed, so whatever it says, it is one value and never YAML; a number or true or false only where
//! the key wants one, and never null. Names of keys are as they stand. As in a shell, a default counts where the
//! variable is unset or empty. A literal `${` is written `$${`, as Docker Compose has it; a `$` before anything else is
//! itself, since regular expressions end with it, and so is `${` before a digit, which no name begins with: what is put
//! in their stead names its groups like that.
//!
//! A value that came out of the environment may be a secret: no message says it. So what was put in is marked (by a tag
//! with a NUL, which no tag of the file can have), messages show what the file says in its place, and where a later
//! check shows a value all the same, [`Hidden`] takes it out.
//!
//! Refused: putting variables into the text before it is parsed, by which a value could add keys, and `$NAME` without
//! braces, which regular expressions and shells' scripts in answers are full of.

use std::ffi::OsString;

use serde_yaml::Value;

use super::problem::KeyPath;
use super::report::Report;
use super::tree;
use super::value::Filled;

/// How to write what is no variable.
const LITERAL: &str = "a literal ${ is written $${";
/// How much variables may put into a file, in bytes, as much as a file may have.
const MOST: usize = 4 << 20;
/// What is shorter is no secret, and too common a word to be taken out of messages.
const SECRET: usize = 6;

/// Tells what a variable says.
pub(super) type Variables<'e> = &'e dyn Fn(&str) -> Option<OsString>;

/// What variables have put in, to be taken out of messages.
#[derive(Debug, Default)]
pub(super) struct Hidden(Vec<(String, String)>);

impl Hidden {
    /// `message` without what variables say.
    pub(super) fn without(&self, mut message: String) -> String {
        for (name, value) in &self.0 {
            // As it is, and as it stands between quotes.
            let quoted = format!("{value:?}");
            for value in [value.as_str(), &quoted[1..quoted.len() - 1]] {
                if message.contains(value) {
                    message = message.replace(value, &format!("${{{name}}}"));
                }
            }
        }
        message
    }
}

/// Puts variables into every value below `value`; reports those that have nothing to put in.
pub(super) fn fill(value: &mut Value, variables: Variables<'_>, report: &mut Report) -> Hidden {
    let mut filler = Filler { variables, report, hidden: Hidden::default(), room: MOST };
    filler.fill(value, &KeyPath::default());
    // The longest first, as one may be a part of another.
    filler.hidden.0.sort_by_key(|(_, value)| std::cmp::Reverse(value.len()));
    filler.hidden.0.dedup();
    filler.hidden
}

struct Filler<'a> {
    variables: Variables<'a>,
    report: &'a mut Report,
    hidden: Hidden,
    room: usize,
}

impl Filler<'_> {
    fn fill(&mut self, value: &mut Value, path: &KeyPath) {
        match value {
            Value::String(text) if text.contains("${") => {
                let template = std::mem::take(text);
                *value = match self.text(&template) {
                    Ok((text, false)) => text.into(),
                    Ok((text, true)) => Filled::With(&text, template).marked(),
                    Err(message) => {
                        self.report.add(path, message);
                        Filled::Told.marked()
                    }
                };
            }
            Value::Sequence(items) => {
                (0..).zip(items).for_each(|(index, item)| self.fill(item, &path.item(index)));
            }
            Value::Mapping(keys) => {
                keys.iter_mut().for_each(|(key, value)| self.fill(value, &path.key(&tree::name(key))));
            }
            _ => {}
        }
    }

    /// What `template` says, and whether a variable is in it.
    fn text(&mut self, template: &str) -> Result<(String, bool), String> {
        let (mut text, mut rest, mut has) = (String::new(), template, false);
        while let Some(at) = rest.find("${") {
            let (before, found) = rest.split_at(at);
            if let Some(before) = before.strip_suffix('$') {
                text.extend([before, "${"]);
                rest = &found[2..];
                continue;
            }
            if found.as_bytes().get(2).is_some_and(u8::is_ascii_digit) {
                text.extend([before, "${"]);
                rest = &found[2..];
                continue;
            }
            let end = found.find('}').ok_or_else(|| format!("has a ${{ without a }} behind it; {LITERAL}"))?;
            let value = self.value(&found[2..end])?;
            text.extend([before, &value]);
            self.room = self.room.checked_sub(value.len()).ok_or("variables say more than 4 MiB in all")?;
            (rest, has) = (&found[end + 1..], true);
        }
        text.push_str(rest);
        Ok((text, has))
    }

    /// What stands between `${` and `}` means.
    fn value(&mut self, inner: &str) -> Result<String, String> {
        let (name, default) = inner.split_once(":-").map_or((inner, None), |(name, default)| (name, Some(default)));
        let is_name = name.bytes().all(|byte| byte.is_ascii_alphanumeric() || byte == b'_');
        if !is_name || name.is_empty() || default.is_some_and(|default| default.contains("${")) {
            let shown: String = inner.chars().take(60).collect();
            return Err(format!(
                "must be ${{NAME}} or ${{NAME:-default}}, with a name of letters, digits and _, and no variable in the \
                 default, not {:?}; {LITERAL}",
                format!("${{{shown}}}")
            ));
        }
        let value = (self.variables)(name).map(OsString::into_string).transpose();
        let value = value.map_err(|_| format!("the variable {name} must be text in UTF-8"))?;
        match (value, default) {
            (Some(value), None) => Ok(self.hide(name, value)),
            (Some(value), Some(_)) if !value.is_empty() => Ok(self.hide(name, value)),
            (_, Some(default)) => Ok(default.to_owned()),
            (None, None) => {
                Err(format!("the variable {name} is not set, and ${{{name}:-…}} gives no default; {LITERAL}"))
            }
        }
    }

    fn hide(&mut self, name: &str, value: String) -> String {
        if value.len() >= SECRET {
            self.hidden.0.push((name.to_owned(), value.clone()));
        }
        value
    }
}
