//! What routes change of headers.

use std::collections::HashMap;

use http::HeaderName;

use super::lists::{sections, seen_at};
use crate::config::report::Level;
use crate::config::shape::HeaderRuleKeys;
use crate::config::written::{Section, Written};
use crate::route::{HeaderEdit, HeaderLine, HeaderRules, RuleSide, RuleVerb, may};

/// The rules at the key `name` of a route, for messages of one side.
pub(super) fn of_route(
    route: &mut Level<'_>,
    name: &str,
    key: Written<Section<HeaderRuleKeys>>,
    side: RuleSide,
) -> HeaderRules {
    let (keys, mut at) = route.section(name, key);
    let mut rules = HeaderRules::default();
    let remove_at = at.at.key("remove");
    for (index, field) in at.take("remove", keys.remove).into_iter().flatten().enumerate() {
        let item = remove_at.item(index);
        let Some(field) = at.report.take(&item, field) else { continue };
        match may(side, RuleVerb::Remove, &field) {
            Ok(()) => rules.remove.push(field),
            Err(error) => at.report.add(&item, format!("{field} {error}")),
        }
    }
    for (item, keys) in sections(&mut at, "edit", keys.edit, false).into_iter().flatten() {
        let Some(keys) = keys else { continue };
        let mut at = Level { report: at.report, at: item };
        let field = at.need("name", keys.name);
        if let Some((field, Err(error))) = field.as_ref().map(|field| (field, may(side, RuleVerb::Edit, field))) {
            at.add("name", format!("{field} {error}"));
        }
        let (from, to) = (at.need("from", keys.from), at.need("to", keys.to));
        let (Some(field), Some(from), Some(to)) = (field, from, to) else { continue };
        match HeaderEdit::new(field, from, &to) {
            Ok(edit) => rules.edit.push(edit),
            Err(error) => at.add("to", error.to_string()),
        }
    }
    let lines = at.take("set", keys.set).unwrap_or_default();
    let (mut at, mut seen) = (at.below("set"), HashMap::new());
    for (spelt, value) in lines {
        let Ok(field) = spelt.parse::<HeaderName>() else {
            at.add(&spelt, "must be the name of a header, such as X-Env");
            continue;
        };
        if let Some(first) = seen_at(&mut seen, field.clone(), &at.at.key(&spelt)) {
            at.add(&spelt, format!("must be set once, but is the same header as {first}"));
        }
        if let Err(error) = may(side, RuleVerb::Set, &field) {
            at.add(&spelt, error.to_string());
        }
        let Some(value) = at.take(&spelt, value) else { continue };
        match HeaderLine::new(field, spelt.clone(), &value) {
            Ok(line) => rules.set.push(line),
            Err(error) => at.add(&spelt, error.to_string()),
        }
    }
    rules
}
