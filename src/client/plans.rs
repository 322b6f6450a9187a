//! Plans: quotas with a name, that many clients share.
//!
//! A client that has a plan spends what the plan has now: whoever changes the plan changes all of them at once. Beside
//! the name of its plan a client keeps a quota of its own, which holds when there is no such plan any more. That is the
//! one that was given with the plan, else what the plan had then.
//!
//! Refused: `rate_limit.default` for clients whose plan is gone. A name mistyped in the file would put everybody who
//! pays on the quota of strangers; and nothing of it would be kept, so that a restart could not know better either.

use std::collections::BTreeMap;
use std::fmt;
use std::sync::Arc;

use super::Quota;

/// The name of a plan: 1 to 64 characters of `A-Za-z0-9._-`.
#[derive(Clone, PartialEq, Eq, Hash, PartialOrd, Ord)]
pub struct PlanName(Arc<str>);

impl PlanName {
    /// Reads a name; none when it cannot be one.
    pub fn parse(text: &str) -> Option<Self> {
        let allowed = |byte: u8| byte.is_ascii_alphanumeric() || b"._-".contains(&byte);
        ((1..=64).contains(&text.len()) && text.bytes().all(allowed)).then(|| PlanName(text.into()))
    }

    /// Its characters.
    pub fn as_str(&self) -> &str {
        &self.0
    }
}

impl fmt::Display for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.write_str(self.as_str())
    }
}

impl fmt::Debug for PlanName {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        write!(f, "{:?}", self.as_str())
    }
}

/// The plans there are now.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Plans(BTreeMap<PlanName, Quota>);

impl Plans {
    /// What a client may spend that has the quota `own`, and the plan `name` if any.
    pub fn quota(&self, name: Option<&PlanName>, own: Quota) -> Quota {
        name.and_then(|name| self.get(name)).unwrap_or(own)
    }

    /// What the plan has; none when there is no such plan.
    pub fn get(&self, name: &PlanName) -> Option<Quota> {
        self.0.get(name).copied()
    }

    /// Their names, in their order.
    pub fn names(&self) -> impl Iterator<Item = &PlanName> {
        self.0.keys()
    }
}

impl FromIterator<(PlanName, Quota)> for Plans {
    fn from_iter<I: IntoIterator<Item = (PlanName, Quota)>>(plans: I) -> Self {
        Plans(plans.into_iter().collect())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_plan_counts_before_what_is_the_clients_own_while_there_is_one() {
        let quota = |capacity| Quota::new(capacity, 1.0).unwrap();
        let name = |text| PlanName::parse(text).unwrap();
        let plans: Plans = [(name("free"), quota(5)), (name("pro"), quota(50))].into_iter().collect();
        assert_eq!(plans.quota(Some(&name("free")), quota(7)), quota(5));
        assert_eq!(plans.quota(Some(&name("gone")), quota(7)), quota(7));
        assert_eq!(plans.quota(None, quota(7)), quota(7));
        assert_eq!((PlanName::parse(""), PlanName::parse("a b"), PlanName::parse(&"x".repeat(65))), (None, None, None));
    }
}
