//! Variables of the environment, which count after flags and before the file.
//!
//! A blank variable is none: whoever fills a template has no value for each. The token of a server is the exception. It
//! is what closes the admin API, so a template that was filled with nothing must not open it: who wants no token leaves
//! the variable unset. And what is no text is always told, never taken for unset.
//!
//! They are read here and not by clap, which would read them for every command, `tollgate schema` included.

use std::ffi::OsString;

use super::failure::Failure;
use crate::admin::Token;
use crate::config::{InvalidValue, parse_token};

/// The variable of the token.
pub(super) const TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";

/// The value of a variable; a blank one is none.
///
/// # Errors
/// Names the variable and what it must be.
pub(super) fn one<T>(
    name: &str,
    variable: impl Fn(&str) -> Option<OsString>,
    parse: impl Fn(&str) -> Result<T, InvalidValue>,
) -> Result<Option<T>, Failure> {
    let text = text(name, variable)?;
    let text = text.as_deref().map(str::trim).filter(|text| !text.is_empty());
    text.map(|text| parse(text).map_err(|error| wrong(name, &error))).transpose()
}

/// The values of a variable, which commas separate.
///
/// # Errors
/// Names the variable and what each of them must be.
pub(super) fn list<T>(
    name: &str,
    variable: impl Fn(&str) -> Option<OsString>,
    parse: impl Fn(&str) -> Result<T, InvalidValue>,
) -> Result<Vec<T>, Failure> {
    let text = text(name, variable)?.unwrap_or_default();
    let values = text.split(',').map(str::trim).filter(|value| !value.is_empty());
    values.map(|value| parse(value).map_err(|error| wrong(name, &error))).collect()
}

/// The token that a server is to ask for; none only when the variable is unset.
///
/// # Errors
/// When it is no token, a blank one included. The message does not show it.
pub(super) fn token_to_ask_for(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Token>, Failure> {
    variable(TOKEN).map(|value| token(&value)).transpose()
}

/// The token to show to a server; a blank variable is none.
///
/// # Errors
/// When it is no token. The message does not show it.
pub(super) fn token_to_show(variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<Token>, Failure> {
    variable(TOKEN).filter(|value| !is_blank(value)).map(|value| token(&value)).transpose()
}

/// Whether it is a text without a word.
pub(super) fn is_blank(value: &OsString) -> bool {
    value.to_str().is_some_and(|text| text.trim().is_empty())
}

fn token(value: &OsString) -> Result<Token, Failure> {
    // What is no text gets characters that no token has.
    let token = parse_token(&value.to_string_lossy());
    token.map_err(|error| Failure::Usage(format!("{TOKEN}: {error}; unset it to have no token")))
}

fn text(name: &str, variable: impl Fn(&str) -> Option<OsString>) -> Result<Option<String>, Failure> {
    let text = variable(name).map(OsString::into_string).transpose();
    text.map_err(|_| Failure::Usage(format!("{name}: must be text in UTF-8, or unset")))
}

fn wrong(name: &str, error: &InvalidValue) -> Failure {
    Failure::Usage(format!("{name}: {error}"))
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use super::*;
    use crate::config::{parse_database, parse_listen};

    fn told<T: std::fmt::Debug>(outcome: Result<T, Failure>) -> String {
        let failure = outcome.unwrap_err();
        assert!(matches!(failure, Failure::Usage(_)), "{failure:?}");
        failure.to_string()
    }

    #[test]
    fn a_blank_variable_is_none_and_one_that_is_no_text_is_wrong() {
        for blank in ["", " ", "\t\n"] {
            assert_eq!(one("X", |_| Some(blank.into()), parse_database).unwrap(), None);
            assert_eq!(list("X", |_| Some(blank.into()), parse_listen).unwrap(), []);
        }
        let no_text = |_: &str| Some(OsString::from_vec(b"data/\xff.db".to_vec()));
        assert_eq!(told(one("X", no_text, parse_database)), "X: must be text in UTF-8, or unset");
        assert_eq!(told(list("X", no_text, parse_listen)), "X: must be text in UTF-8, or unset");
        assert_eq!(one("X", |_| None, parse_database).unwrap(), None);
    }

    #[test]
    fn a_servers_token_is_unset_or_right() {
        let ask = |value: Option<&[u8]>| token_to_ask_for(|_| value.map(|value| OsString::from_vec(value.to_vec())));
        let show = |value: Option<&[u8]>| token_to_show(|_| value.map(|value| OsString::from_vec(value.to_vec())));
        assert_eq!((ask(None).unwrap(), show(None).unwrap()), (None, None));
        let right = b" 0123456789abcdef\n";
        assert_eq!(ask(Some(right)).unwrap().map(|token| token.secret).as_deref(), Some("0123456789abcdef"));
        assert_eq!(show(Some(right)).unwrap().map(|token| token.secret).as_deref(), Some("0123456789abcdef"));
        for blank in [&b""[..], b" ", b"\n"] {
            let said = told(ask(Some(blank)));
            assert!(said.starts_with("TOLLGATE_ADMIN_TOKEN: a token must be 16 to 4096 visible ASCII"), "{said}");
            assert!(said.ends_with("unset it to have no token"), "{said}");
            assert_eq!(show(Some(blank)).unwrap(), None);
        }
        for wrong in [&b"hunter2"[..], b"hunter2-0123456789\xff", b"\xff", "hunter2-0123456789ü".as_bytes()] {
            for said in [told(ask(Some(wrong))), told(show(Some(wrong)))] {
                assert!(said.starts_with("TOLLGATE_ADMIN_TOKEN: a token must be 16 to 4096 visible ASCII"), "{said}");
                assert!(!said.contains("hunter2"), "{said}");
            }
        }
    }
}
