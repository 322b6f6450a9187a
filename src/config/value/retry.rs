//! What a request is tried again for.

use serde_yaml::Value;

use super::kind::ValueKind;
use crate::upstream::RetryOn;

/// Causes of further attempts.
#[derive(Debug)]
pub(in crate::config) struct RetryCauses;

impl ValueKind for RetryCauses {
    type Checked = RetryOn;
    const WANTED: &str = "a list of connect, broken, timeout, 500, 502, 503 and 504, each at most once";
    const SCHEMA: &str = r#"{"type": "array", "uniqueItems": true, "items": {"enum": ["connect", "broken", "timeout", 500, 502, 503, 504]}}"#;

    fn read(value: &Value) -> Option<RetryOn> {
        let mut on = RetryOn::NOTHING;
        for cause in value.as_sequence()? {
            let place = match cause.as_str() {
                Some("connect") => &mut on.connect,
                Some("broken") => &mut on.broken,
                Some("timeout") => &mut on.timeout,
                text => {
                    let filled = || matches!(cause, Value::Tagged(_)).then(|| text?.parse().ok()).flatten();
                    let status = cause.as_u64().or_else(filled)?;
                    let at = RetryOn::STATUSES.iter().position(|of| u64::from(*of) == status)?;
                    &mut on.statuses[at]
                }
            };
            if std::mem::replace(place, true) {
                return None;
            }
        }
        Some(on)
    }
    fn hint(refused: &Value) -> Option<String> {
        let is_quoted = |cause: &Value| cause.as_str().is_some_and(|text| text.parse().is_ok_and(is_status));
        let is_status_quoted = refused.as_sequence()?.iter().any(is_quoted);
        is_status_quoted.then(|| "leave out the quotes of a status".to_owned())
    }
}

fn is_status(status: u16) -> bool {
    RetryOn::STATUSES.contains(&status)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_status_in_quotes_is_told_to_be_one_without() {
        let hint = |text: &str| RetryCauses::hint(&serde_yaml::from_str(text).unwrap());
        assert!(hint("[connect, '503']").is_some_and(|hint| hint.contains("quotes")));
        assert_eq!((hint("['404']"), hint("[connect, connect]"), hint("503")), (None, None, None));
    }
}
