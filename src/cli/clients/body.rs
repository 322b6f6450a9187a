//! What is sent: the JSON of new clients and of changes.

use serde_json::{Map, Number, Value};

use super::args::ClientFlags;
use crate::client::ClientId;

/// The body that adds a client.
pub(super) fn of_new(id: &ClientId, capacity: u64, rate: &Number, fields: &ClientFlags) -> Value {
    let mut body = of_fields(fields);
    body.insert("client_id".to_owned(), id.as_str().into());
    body.insert("capacity".to_owned(), capacity.into());
    body.insert("rate_per_sec".to_owned(), rate.clone().into());
    Value::Object(body)
}

/// The body that changes a client, a JSON merge patch; none when nothing is to change.
pub(super) fn of_change(
    capacity: Option<u64>,
    rate: Option<&Number>,
    fields: &ClientFlags,
    clear_addresses: bool,
    clear_key: bool,
) -> Option<Value> {
    let mut body = of_fields(fields);
    body.extend(capacity.map(|capacity| ("capacity".to_owned(), capacity.into())));
    body.extend(rate.map(|rate| ("rate_per_sec".to_owned(), rate.clone().into())));
    body.extend(clear_addresses.then(|| ("addresses".to_owned(), Value::Null)));
    body.extend(clear_key.then(|| ("api_key".to_owned(), Value::Null)));
    (!body.is_empty()).then_some(Value::Object(body))
}

fn of_fields(fields: &ClientFlags) -> Map<String, Value> {
    let ClientFlags { mode, address, api_key, generate_key, note } = fields;
    let mut body = Map::new();
    body.extend(mode.as_ref().map(|mode| ("mode".to_owned(), mode.as_str().into())));
    body.extend((!address.is_empty()).then(|| ("addresses".to_owned(), address.clone().into())));
    body.extend(api_key.as_ref().map(|key| ("api_key".to_owned(), key.as_str().into())));
    body.extend(generate_key.then(|| ("generate_api_key".to_owned(), true.into())));
    body.extend(note.as_ref().map(|note| ("note".to_owned(), note.as_str().into())));
    body
}

#[cfg(test)]
mod tests {
    use serde_json::json;

    use super::*;

    #[test]
    fn only_what_is_given_is_sent() {
        let id = ClientId::parse("user1").unwrap();
        let rate = Number::from_f64(0.5).unwrap();
        let none = ClientFlags::default();
        assert_eq!(of_new(&id, 100, &rate, &none), json!({"client_id": "user1", "capacity": 100, "rate_per_sec": 0.5}));
        let fields = ClientFlags {
            mode: Some("blocked".to_owned()),
            address: vec!["10.0.0.0/8".to_owned(), "::1".to_owned()],
            api_key: Some("secret".to_owned()),
            generate_key: false,
            note: Some(String::new()),
        };
        let rest = json!({"mode": "blocked", "addresses": ["10.0.0.0/8", "::1"], "api_key": "secret", "note": ""});
        assert_eq!(of_change(None, None, &fields, false, false), Some(rest));
        let generated = ClientFlags { generate_key: true, ..ClientFlags::default() };
        assert_eq!(
            of_change(Some(1), None, &generated, false, false).unwrap(),
            json!({"capacity": 1, "generate_api_key": true})
        );
        assert_eq!(
            of_change(None, Some(&rate), &none, true, true).unwrap(),
            json!({"rate_per_sec": 0.5, "addresses": null, "api_key": null})
        );
        assert_eq!(of_change(None, None, &none, false, false), None);
    }
}
