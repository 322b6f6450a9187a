//! What is sent: the JSON of new clients and of changes.

use serde_json::{Map, Number, Value, json};

use super::args::{ClientFlags, OwnQuota};
use crate::client::ClientId;

/// What is given of a limit.
pub(super) type GivenLimit<'a> = (Option<u64>, Option<&'a Number>);

/// The body that adds a client.
pub(super) fn of_new(id: &ClientId, limit: GivenLimit<'_>, fields: &ClientFlags) -> Value {
    let mut body = of_fields(limit, fields);
    body.insert("client_id".to_owned(), id.as_str().into());
    Value::Object(body)
}

/// The body that changes a client, a JSON merge patch, in which the fields `cleared` are null; none when nothing is to
/// change.
pub(super) fn of_change(
    limit: GivenLimit<'_>,
    fields: &ClientFlags,
    cleared: impl Iterator<Item = &'static str>,
) -> Option<Value> {
    let mut body = of_fields(limit, fields);
    body.extend(cleared.map(|name| (name.to_owned(), Value::Null)));
    (!body.is_empty()).then_some(Value::Object(body))
}

fn of_fields((capacity, rate): GivenLimit<'_>, fields: &ClientFlags) -> Map<String, Value> {
    let ClientFlags { mode, address, api_key, generate_key, note, plan, max_concurrent, candidate, policy } = fields;
    let own: Map<_, _> =
        policy.iter().map(|(name, own)| (name.clone(), own.as_ref().map_or(Value::Null, of_quota))).collect();
    let given = [
        ("capacity", capacity.map(Value::from)),
        ("rate_per_sec", rate.cloned().map(Value::from)),
        ("mode", mode.as_deref().map(Value::from)),
        ("addresses", (!address.is_empty()).then(|| address.clone().into())),
        ("api_key", api_key.as_deref().map(Value::from)),
        ("generate_api_key", generate_key.then(|| true.into())),
        ("note", note.as_deref().map(Value::from)),
        ("plan", plan.as_deref().map(Value::from)),
        ("max_concurrent", max_concurrent.map(Value::from)),
        ("candidate", candidate.as_ref().map(of_quota)),
        ("policies", (!own.is_empty()).then(|| own.into())),
    ];
    given.into_iter().filter_map(|(name, value)| Some((name.to_owned(), value?))).collect()
}

fn of_quota(quota: &OwnQuota) -> Value {
    json!({"capacity": quota.capacity, "rate_per_sec": quota.rate})
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn only_what_is_given_is_sent() {
        let id = ClientId::parse("user1").unwrap();
        let rate = Number::from_f64(0.5).unwrap();
        let none = ClientFlags::default();
        let user1 = json!({"client_id": "user1", "capacity": 100, "rate_per_sec": 0.5});
        assert_eq!(of_new(&id, (Some(100), Some(&rate)), &none), user1);
        let quota = OwnQuota { capacity: 50, rate: rate.clone() };
        let fields = ClientFlags {
            mode: Some("blocked".to_owned()),
            address: vec!["10.0.0.0/8".to_owned(), "::1".to_owned()],
            api_key: Some("secret".to_owned()),
            generate_key: false,
            note: Some(String::new()),
            plan: Some("free".to_owned()),
            max_concurrent: Some(3),
            candidate: Some(quota.clone()),
            policy: vec![("writes".to_owned(), Some(quota)), ("reads".to_owned(), None)],
        };
        let half = json!({"capacity": 50, "rate_per_sec": 0.5});
        let rest = json!({
            "mode": "blocked", "addresses": ["10.0.0.0/8", "::1"], "api_key": "secret", "note": "", "plan": "free",
            "max_concurrent": 3, "candidate": half, "policies": {"writes": half, "reads": null},
        });
        assert_eq!(of_change((None, None), &fields, [].into_iter()), Some(rest));
        let generated = ClientFlags { generate_key: true, ..ClientFlags::default() };
        let made = of_change((Some(1), None), &generated, [].into_iter()).unwrap();
        assert_eq!(made, json!({"capacity": 1, "generate_api_key": true}));
        let cleared = ["addresses", "api_key"].into_iter();
        assert_eq!(
            of_change((None, Some(&rate)), &none, cleared).unwrap(),
            json!({"rate_per_sec": 0.5, "addresses": null, "api_key": null})
        );
        assert_eq!(of_change((None, None), &none, [].into_iter()), None);
    }
}
