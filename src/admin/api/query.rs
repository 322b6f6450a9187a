//! Reading a query: every parameter known, none twice, every value allowed. What is wrong is collected and told at
//! once.

use std::ops::RangeInclusive;

use http::Uri;

use super::percent::decode_query;
use super::{ApiError, FieldError};

/// The parameters of one request.
#[derive(Debug)]
pub(in crate::admin) struct Query {
    values: Vec<(String, String)>,
    errors: Vec<FieldError>,
}

impl Query {
    /// The parameters of `uri`, which may have those in `known`, each once.
    ///
    /// # Errors
    /// 400 when the query cannot be decoded.
    pub(in crate::admin) fn of(uri: &Uri, known: &[&str]) -> Result<Self, ApiError> {
        let mut query = Query { values: Vec::new(), errors: Vec::new() };
        for pair in uri.query().unwrap_or_default().split('&').filter(|pair| !pair.is_empty()) {
            let (name, value) = pair.split_once('=').unwrap_or((pair, ""));
            let decoded = |text: &str| {
                decode_query(text).map_err(|wrong| ApiError::bad_request(format!("The query parameter {name} {wrong}")))
            };
            let (name, value) = (decoded(name)?, decoded(value)?);
            if !known.contains(&name.as_str()) {
                query.wrong(&name, unknown(known));
            } else if query.values.iter().any(|(other, _)| *other == name) {
                query.wrong(&name, "must not be given twice");
            } else {
                query.values.push((name, value));
            }
        }
        Ok(query)
    }

    /// Whether the parameter was given.
    pub(in crate::admin) fn has(&self, name: &str) -> bool {
        self.values.iter().any(|(known, _)| known == name)
    }

    /// The value of a parameter, as it is.
    pub(in crate::admin) fn text(&self, name: &str) -> Option<&str> {
        self.values.iter().find(|(known, _)| known == name).map(|(_, value)| value.as_str())
    }

    /// A whole number within `allowed`, or `default` when it was not given.
    pub(in crate::admin) fn number(&mut self, name: &str, allowed: RangeInclusive<usize>, default: usize) -> usize {
        let Some(text) = self.text(name) else { return default };
        // `parse` takes a `+` too, which nobody means.
        let number = text.bytes().all(|byte| byte.is_ascii_digit()).then(|| text.parse().ok()).flatten();
        number.filter(|number| allowed.contains(number)).unwrap_or_else(|| {
            self.wrong(name, format!("must be a whole number from {} to {}", allowed.start(), allowed.end()));
            default
        })
    }

    /// Yes or no: `1` or `true`, `0` or `false`; no when it was not given.
    pub(in crate::admin) fn flag(&mut self, name: &str) -> bool {
        match self.text(name) {
            Some("1" | "true") => true,
            None | Some("0" | "false") => false,
            Some(_) => {
                self.wrong(name, "must be 1, true, 0 or false");
                false
            }
        }
    }

    /// One of `allowed` by its place, or the first when it was not given.
    pub(in crate::admin) fn choice(&mut self, name: &str, allowed: &[&str]) -> usize {
        let Some(text) = self.text(name) else { return 0 };
        allowed.iter().position(|known| *known == text).unwrap_or_else(|| {
            self.wrong(name, format!("must be {}", allowed.join(" or ")));
            0
        })
    }

    /// Notes that a parameter is wrong.
    pub(in crate::admin) fn wrong(&mut self, name: &str, message: impl Into<String>) {
        self.errors.push(FieldError::new(name, message));
    }

    /// Ends the reading.
    ///
    /// # Errors
    /// 422 with everything that was wrong.
    pub(in crate::admin) fn finish(self) -> Result<(), ApiError> {
        if self.errors.is_empty() { Ok(()) } else { Err(ApiError::fields(self.errors)) }
    }
}

fn unknown(known: &[&str]) -> String {
    match known {
        [] => "is unknown here; there are no query parameters".to_owned(),
        known => format!("is unknown here; the query parameters are {}", known.join(", ")),
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn query(text: &str) -> Result<Query, ApiError> {
        Query::of(&format!("/x?{text}").parse().unwrap(), &["limit", "flag", "kind", "q"])
    }

    #[test]
    fn what_is_right_is_read() {
        let mut right = query("limit=7&flag=true&q=a%20b+c&&kind=b").unwrap();
        assert_eq!(
            (right.number("limit", 1..=10, 5), right.flag("flag"), right.choice("kind", &["a", "b"])),
            (7, true, 1)
        );
        assert_eq!((right.text("q"), right.has("q")), (Some("a b c"), true));
        right.finish().unwrap();
        let mut none = query("").unwrap();
        assert_eq!(
            (none.number("limit", 1..=10, 5), none.flag("flag"), none.choice("kind", &["a", "b"])),
            (5, false, 0)
        );
        none.finish().unwrap();
    }

    #[test]
    fn everything_wrong_is_told_at_once() {
        let mut wrong = query("limit=0&flag=yes&kind=c&q=1&q=2&other=1").unwrap();
        let _ = (wrong.number("limit", 1..=10, 5), wrong.flag("flag"), wrong.choice("kind", &["a", "b"]));
        let told: Vec<_> = wrong.finish().unwrap_err().errors.into_iter().map(|e| (e.field, e.message)).collect();
        let expected = [
            ("q", "must not be given twice"),
            ("other", "is unknown here; the query parameters are limit, flag, kind, q"),
            ("limit", "must be a whole number from 1 to 10"),
            ("flag", "must be 1, true, 0 or false"),
            ("kind", "must be a or b"),
        ];
        assert_eq!(told, expected.map(|(field, message)| (field.to_owned(), message.to_owned())));
        for text in ["limit=+5", "limit=-1", "limit=", "limit=1e1", "limit=99999999999999999999", "limit=5.0"] {
            let mut wrong = query(text).unwrap();
            wrong.number("limit", 1..=10, 5);
            assert_eq!(wrong.finish().unwrap_err().status, 422, "{text}");
        }
    }

    #[test]
    fn bad_escapes_are_no_query() {
        for text in ["q=%zz", "q=%ff", "%=1", "q=%00"] {
            assert_eq!(query(text).unwrap_err().status, 400, "{text}");
        }
    }
}
