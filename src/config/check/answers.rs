//! What is said in place of tollgate's own answers.

use std::collections::{HashMap, HashSet};

use super::lists::seen_at;
use crate::config::report::Level;
use crate::config::shape::AnswerKeys;
use crate::config::value::OrNone;
use crate::config::written::{Section, Statuses, Written};
use crate::proxy::{STATUSES, SiteAnswer, SiteAnswers};

/// The answers of the file.
pub(super) fn of_file(top: &mut Level<'_>, key: Written<OrNone<Statuses<Section<AnswerKeys>>>>) -> Option<SiteAnswers> {
    let written = top.take("answers", key).flatten().unwrap_or_default();
    let (mut at, mut answers) = (top.below("answers"), Vec::new());
    let mut seen = HashSet::new();
    for (name, keys) in written {
        if !seen.insert(name.clone()) {
            at.add(&name, "stands here twice, as a number and in quotes, must be written once");
        }
        let Some(status) = STATUSES.into_iter().find(|status| status.to_string() == name) else {
            let allowed: Vec<_> = STATUSES.iter().map(u16::to_string).collect();
            at.add(&name, format!("is no status that tollgate answers with (allowed: {})", allowed.join(", ")));
            continue;
        };
        if let Some(keys) = at.take(&name, keys) {
            answers.push((status, answer(&mut at.below(&name), keys)));
        }
    }
    SiteAnswers::new(answers)
}

fn answer(at: &mut Level<'_>, keys: AnswerKeys) -> SiteAnswer {
    let mut answer = SiteAnswer::default();
    let (kind, body) = (at.take("content_type", keys.content_type), at.take("body", keys.body));
    match (kind, body) {
        (Some(_), None) => at.add("content_type", "must stand beside a body"),
        (None, None) => {}
        (kind, Some(body)) => {
            let kind = kind.as_deref().unwrap_or("application/json");
            match answer.clone().with_body(kind, &body) {
                Ok(with_body) => answer = with_body,
                Err(error) => at.add(if error.is_of_type() { "content_type" } else { "body" }, error.to_string()),
            }
        }
    }
    let lines = at.take("headers", keys.headers).unwrap_or_default();
    let (mut at, mut seen) = (at.below("headers"), HashMap::new());
    for (spelt, value) in lines {
        if let Some(first) = seen_at(&mut seen, spelt.to_ascii_lowercase(), &at.at.key(&spelt)) {
            at.add(&spelt, format!("must be set once, but is the same header as {first}"));
        }
        let Some(value) = at.take(&spelt, value) else { continue };
        match answer.clone().with_header(&spelt, &value) {
            Ok(with_header) => answer = with_header,
            Err(error) => at.add(&spelt, error.to_string()),
        }
    }
    answer
}
