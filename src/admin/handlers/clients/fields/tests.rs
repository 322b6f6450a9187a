use super::*;
use crate::admin::api::json;
use crate::client::{ApiKey, KeyDigest};
use crate::store::WantedKey;

const WHOLE: &str = "must be a whole number from 1 to 1000000000";
const RATE: &str = "must be a number from 0.000001 to 1000000000";
const ADDRESS: &str = "must be an IP address or a network such as 203.0.113.0/24";
const KEY: &str = "must be a string of 1 to 4096 visible ASCII characters without spaces, or null for none";
const NAME: &str = "must be 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ / -";

fn read(call: Call, body: &str) -> Result<Draft, ApiError> {
    Draft::read(json::parse(body.as_bytes()).unwrap(), call, &Plans::default())
}

impl Draft {
    /// The profile of a new client with its keys.
    fn keyed(self) -> Profile {
        let api_keys = self.keys.clone().of(&[]).unwrap();
        Profile { api_keys, ..self.replace().unwrap() }
    }
}

/// What is wrong with a body that has `more` in it beside what must be there.
fn wrong(call: Call, more: &str) -> Vec<(String, String)> {
    let body = format!(r#"{{"client_id":"a","capacity":1,"rate_per_sec":1,{more}}}"#);
    let error = read(call, &body).err().unwrap_or_else(|| panic!("{body} is taken"));
    assert_eq!(error.status, 422);
    error.errors.into_iter().map(|error| (error.field, error.message)).collect()
}

#[test]
fn a_client_is_read() {
    let draft = read(
        Call::Create,
        r#"{"client_id":"user1","capacity":100,"rate_per_sec":0.7,"mode":"blocked","note":"a\nb",
            "addresses":["203.0.113.7/24","::ffff:10.0.0.1","2001:db8::1"],"api_key":"secret"}"#,
    )
    .unwrap();
    assert_eq!(draft.id.as_ref().unwrap().as_str(), "user1");
    let profile = draft.keyed();
    let addresses: Vec<_> = profile.addresses.iter().map(IpNet::to_string).collect();
    assert_eq!(addresses, ["10.0.0.1/32", "203.0.113.0/24", "2001:db8::1/128"]);
    assert_eq!(profile.quota, Quota::new(100, 0.7).unwrap());
    assert_eq!((profile.mode, profile.note.as_str()), (Mode::Blocked, "a\nb"));
    assert_eq!(profile.api_keys, [ApiKey::primary(KeyDigest::of(b"secret"))]);
    let defaults = read(Call::Replace, r#"{"capacity":1,"rate_per_sec":1e-6}"#).unwrap().keyed();
    let quota = Quota::new(1, 1e-6).unwrap();
    assert_eq!(defaults, Profile::new(quota));
}

#[test]
fn each_wrong_value_is_told_with_what_is_allowed() {
    let digits = "9".repeat(200);
    let long = "x".repeat(4_097);
    let float = format!("{WHOLE}, written without point or exponent");
    for (field, value, message) in [
        ("client_id", "1", "must be a string of 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ / -"),
        ("client_id", "null", "must be a string of 1 to 128 characters of A-Z, a-z, 0-9 and . _ : @ / -"),
        ("client_id", r#""""#, NAME),
        ("client_id", r#""a b""#, NAME),
        ("client_id", r#""a\u0000""#, NAME),
        ("capacity", "0", WHOLE),
        ("capacity", "-1", WHOLE),
        ("capacity", "1000000001", WHOLE),
        ("capacity", "18446744073709551616", &float),
        ("capacity", &digits, &float),
        ("capacity", "10.0", &float),
        ("capacity", "1e2", &float),
        ("capacity", "10.5", &float),
        ("capacity", r#""10""#, WHOLE),
        ("capacity", "null", WHOLE),
        ("capacity", "true", WHOLE),
        ("capacity", "[1]", WHOLE),
        ("rate_per_sec", "0", RATE),
        ("rate_per_sec", "-0.0", RATE),
        ("rate_per_sec", "-1", RATE),
        ("rate_per_sec", "1e-7", RATE),
        ("rate_per_sec", "1000000000.1", RATE),
        ("rate_per_sec", &digits, RATE),
        ("rate_per_sec", r#""1""#, RATE),
        ("rate_per_sec", "null", RATE),
        ("mode", r#""Limit""#, "must be limit, unlimited or blocked"),
        ("mode", "null", "must be limit, unlimited or blocked"),
        ("mode", "1", "must be limit, unlimited or blocked"),
        ("api_key", r#""""#, KEY),
        ("api_key", r#"" a""#, KEY),
        ("api_key", r#""a\n""#, KEY),
        ("api_key", r#""ä""#, KEY),
        ("api_key", &format!("{long:?}"), KEY),
        ("api_key", "1", KEY),
        ("api_key_sha256", r#""abc""#, "must be a string of 64 hexadecimal digits, or null for none"),
        ("api_key_sha256", "1", "must be a string of 64 hexadecimal digits, or null for none"),
        ("generate_api_key", "1", "must be true or false"),
        ("generate_api_key", "null", "must be true or false"),
    ] {
        let rest = [("client_id", r#""a""#), ("capacity", "1"), ("rate_per_sec", "1")];
        let rest = rest.iter().filter(|(name, _)| *name != field).map(|(name, value)| format!(r#""{name}":{value},"#));
        let body = format!(r#"{{{}"{field}":{value}}}"#, rest.collect::<String>());
        let error = read(Call::Create, &body).err().unwrap_or_else(|| panic!("{body} is taken"));
        assert_eq!(error.errors, [FieldError::new(field, message)], "{body}");
    }
}

#[test]
fn notes_have_a_length_and_no_control_characters() {
    let note =
        |text: &str| read(Call::Replace, &format!(r#"{{"capacity":1,"rate_per_sec":1,"note":"{text}"}}"#)).is_ok();
    assert!(note(&"ä".repeat(1_024)) && note(r"a\tb\n"));
    assert!(!note(&"ä".repeat(1_025)) && !note(r"\u0000") && !note(r"\u001b[2J") && !note(r"\r") && !note(r"\u0085"));
}

#[test]
fn addresses_are_told_apart() {
    let many = format!(r#""addresses":[{}]"#, vec![r#""10.0.0.1""#; 1_001].join(","));
    let array = "must be an array of at most 1000 IP addresses or networks such as 203.0.113.0/24";
    for (more, field, message) in [
        (r#""addresses":["10.0.0.1/33"]"#, "addresses[0]", ADDRESS),
        (r#""addresses":["10.0.0.0/8","localhost"]"#, "addresses[1]", ADDRESS),
        (r#""addresses":[7]"#, "addresses[0]", ADDRESS),
        (r#""addresses":["10.0.0.1"," 10.0.0.2"]"#, "addresses[1]", ADDRESS),
        (r#""addresses":["10.1.1.1/8","10.0.0.0/8"]"#, "addresses[1]", "is 10.0.0.0/8, which addresses[0] is already"),
        (r#""addresses":"10.0.0.1""#, "addresses", array),
        (r#""addresses":null"#, "addresses", array),
        (&many, "addresses", array),
    ] {
        assert_eq!(wrong(Call::Create, more), [(field.to_owned(), message.to_owned())], "{more}");
    }
}

#[test]
fn a_key_is_given_in_one_way() {
    let digest = "ab".repeat(32);
    let set = |more: &str| {
        read(Call::Replace, &format!(r#"{{"capacity":1,"rate_per_sec":1,{more}}}"#)).map(|draft| draft.keys)
    };
    assert_eq!(set(r#""api_key":null"#), Ok(KeyChange::Set(vec![])));
    assert_eq!(set(r#""note":"""#), Ok(KeyChange::Keep));
    assert_eq!(set(r#""generate_api_key":false"#), Ok(KeyChange::Keep));
    assert_eq!(
        set(&format!(r#""api_key_sha256":"{digest}""#)),
        Ok(KeyChange::Set(vec![WantedKey::primary(KeyDigest::from_bytes([0xab; 32]))]))
    );
    assert!(matches!(set(r#""generate_api_key":true"#), Ok(KeyChange::Set(_))));
    for (more, field, message) in [
        (
            r#""api_key":"x","generate_api_key":true"#.to_owned(),
            "generate_api_key",
            "must not be true together with api_key",
        ),
        (
            format!(r#""api_key_sha256":"{digest}","generate_api_key":true"#),
            "generate_api_key",
            "must not be true together with api_key_sha256",
        ),
        (
            format!(r#""api_key":"x","api_key_sha256":"{digest}""#),
            "api_key_sha256",
            "must not be given together with api_key",
        ),
    ] {
        assert_eq!(wrong(Call::Create, &more), [(field.to_owned(), message.to_owned())], "{more}");
    }
    let bulk = "is not allowed in bulk; nobody could be shown the key";
    assert_eq!(wrong(Call::Item, r#""generate_api_key":true"#), [("generate_api_key".to_owned(), bulk.to_owned())]);
}

#[test]
fn what_only_answers_have_is_passed_over_by_put_alone() {
    let more = r#""has_api_key":true,"version":7,"tokens":1.5,"last_seen":null"#;
    let body = format!(r#"{{"client_id":"a","capacity":1,"rate_per_sec":1,{more}}}"#);
    assert!(read(Call::Replace, &body).is_ok() && read(Call::Item, &body).is_ok());
    for call in [Call::Create, Call::Merge] {
        let fields = wrong(call, more);
        assert_eq!(fields.len(), 4);
        assert!(fields.iter().all(|(_, message)| message == "is read-only"), "{fields:?}");
    }
}

#[test]
fn all_that_is_wrong_is_told_at_once() {
    let error = read(Call::Create, r#"{"capacity":0,"rate_per_sec":"x","capacty":1,"version":1}"#).unwrap_err();
    let mut fields: Vec<_> = error.errors.iter().map(|error| error.field.as_str()).collect();
    fields.sort_unstable();
    assert_eq!(fields, ["capacity", "capacty", "client_id", "rate_per_sec", "version"]);
}

#[test]
fn a_merge_patch_leaves_the_rest_as_it_is() {
    let at = std::time::SystemTime::UNIX_EPOCH;
    let id = ClientId::parse("a").unwrap();
    let old = r#"{"capacity":5,"rate_per_sec":2,"mode":"blocked","addresses":["10.0.0.1"],"api_key":"k","note":"n"}"#;
    let profile = read(Call::Replace, old).unwrap().keyed();
    let record = Record { number: 1, id, profile: profile.clone(), created_at: at, updated_at: at, version: 1 };
    let merged = |body: &str| read(Call::Merge, body).unwrap().merge(&record, &Plans::default()).unwrap();
    assert_eq!(merged("{}"), profile);
    assert_eq!(merged(r#"{"capacity":7}"#), Profile { quota: Quota::new(7, 2.0).unwrap(), ..profile.clone() });
    assert_eq!(merged(r#"{"rate_per_sec":0.5}"#), Profile { quota: Quota::new(5, 0.5).unwrap(), ..profile.clone() });
    let cleared = merged(r#"{"mode":null,"addresses":null,"api_key":null,"note":null,"generate_api_key":null}"#);
    let plain = Profile::new(profile.quota);
    assert_eq!(cleared, plain);
    for field in ["capacity", "rate_per_sec", "client_id"] {
        assert_eq!(read(Call::Merge, &format!(r#"{{"{field}":null}}"#)).unwrap_err().status, 422);
    }
}
