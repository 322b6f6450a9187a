//! The bodies that make and change clients, for the description of the API.
//!
//! They are read by hand, in `fields`: a derived reader stops at the first mistake. Several calls take the same fields
//! with small differences, so their schemas are put together here from one list. Refused: structures with derived
//! schemas. A part that they share becomes an `allOf`, in which nothing can forbid unknown fields, so the description
//! would allow what is refused.

use std::borrow::Cow;

use serde_json::{Value, json};
use utoipa::openapi::RefOr;
use utoipa::openapi::schema::{
    AdditionalProperties, AnyOfBuilder, ArrayBuilder, KnownFormat, ObjectBuilder, Schema, SchemaFormat, SchemaType,
    Type,
};
use utoipa::{IntoParams, PartialSchema, ToSchema};

use super::fields::{MAX_ADDRESSES, MAX_CONCURRENT, MAX_NOTE, READ_ONLY};
use super::keys::MAX_KEY;
use crate::client::{MAX_CAPACITY, MOST_KEYS};

/// A client's name.
const NAME: &str = "^[A-Za-z0-9._:@/-]{1,128}$";
/// Text without control characters but tab and newline.
const NOTE: &str = r"^[^\x00-\x08\x0b-\x1f\x7f-\x9f]*$";
/// A network in IPv4.
const IPV4: &str = concat!(
    r"^((25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])\.){3}(25[0-5]|2[0-4][0-9]|1[0-9]{2}|[1-9]?[0-9])",
    r"/(3[0-2]|[12]?[0-9])$"
);
/// A network in IPv6: whole, or with `::` at the end, in front, or in between.
const IPV6: &str = concat!(
    r"^((H:){7}H|(H:){1,7}:|:(:H){1,7}|H:(:H){1,6}|(H:){2}(:H){1,5}|(H:){3}(:H){1,4}|(H:){4}(:H){1,3}",
    r"|(H:){5}(:H){1,2}|(H:){6}:H)/(12[0-8]|1[01][0-9]|[1-9]?[0-9])$"
);

/// What is done with a client's requests: they are held to its quota, let in for free, or refused with 403.
#[derive(Debug, ToSchema)]
#[schema(as = Mode)]
#[serde(rename_all = "snake_case")]
#[expect(dead_code, reason = "describes the field, whose values are texts")]
pub(in crate::admin) enum ModeName {
    /// They are held to its quota.
    Limit,
    /// They are let in, and cost nothing.
    Unlimited,
    /// They are refused with 403.
    Blocked,
}

/// The body of `POST /clients`.
#[derive(Debug)]
pub(in crate::admin) struct ClientInput;

impl ToSchema for ClientInput {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ClientInput")
    }
}

impl PartialSchema for ClientInput {
    fn schema() -> RefOr<Schema> {
        body(fields(false).required("client_id"), "A client, to be made.")
    }
}

/// The body of `PUT /clients/{client_id}`.
#[derive(Debug)]
pub(in crate::admin) struct ClientReplacement;

impl ToSchema for ClientReplacement {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ClientReplacement")
    }
}

impl PartialSchema for ClientReplacement {
    fn schema() -> RefOr<Schema> {
        let about =
            "What a client becomes: fields that are left out are at their defaults, but a present API key stays.";
        body(passed_over(fields(false)), about)
    }
}

/// One item of the body of `PUT /clients`.
#[derive(Debug)]
pub(in crate::admin) struct ClientItem;

impl ToSchema for ClientItem {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ClientItem")
    }
}

impl PartialSchema for ClientItem {
    fn schema() -> RefOr<Schema> {
        let about = "A client among many: fields that are left out are at their defaults, but a present API key stays.";
        let never = "Not here, as nobody could be shown the key.";
        let never = ObjectBuilder::new().schema_type(Type::Boolean).enum_values(Some([false])).description(Some(never));
        body(passed_over(fields(false)).required("client_id").property("generate_api_key", never), about)
    }
}

/// The body of `PATCH /clients/{client_id}`.
#[derive(Debug)]
pub(in crate::admin) struct ClientPatch;

impl ToSchema for ClientPatch {
    fn name() -> Cow<'static, str> {
        Cow::Borrowed("ClientPatch")
    }
}

impl PartialSchema for ClientPatch {
    fn schema() -> RefOr<Schema> {
        let about = "A change of a client as a JSON merge patch (RFC 7396): fields that are left out stay, `null` puts one back \
                     to its default.";
        closed(fields(true), about)
    }
}

/// The body of `POST /clients/{client_id}/rollback`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(in crate::admin) struct RollbackInput {
    /// The client becomes what it was after this change.
    #[schema(minimum = 1, example = 1)]
    version: u64,
}

/// The body of `POST /clients/{client_id}/grant`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(in crate::admin) struct GrantInput {
    /// How many tokens are added.
    #[schema(minimum = 1, maximum = 1_000_000_000, example = 500)]
    tokens: u32,
}

/// The body of `POST /clients/{client_id}/keys`.
#[derive(Debug, ToSchema)]
#[serde(deny_unknown_fields)]
#[expect(dead_code, reason = "describes the body, which is read field by field")]
pub(in crate::admin) struct KeyInput {
    /// From when on the key counts no more, by the second; null or left out for never.
    #[schema(format = DateTime, example = "2026-12-31T23:59:59Z")]
    expires_at: Option<String>,
}

/// A body that has to say what the client may spend.
fn body(fields: ObjectBuilder, about: &str) -> RefOr<Schema> {
    closed(fields, &format!("{about} Has to have a capacity and a rate_per_sec, or a plan."))
}

/// An object with no other fields than these.
fn closed(fields: ObjectBuilder, about: &str) -> RefOr<Schema> {
    let closed = fields.additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let example = json!({"client_id": "user1", "capacity": 100, "rate_per_sec": 10});
    closed.description(Some(about)).examples([example]).into()
}

/// The fields that a body may set; `null` stands for the default where `patch` says so.
///
/// Long because each field stands with its description.
fn fields(patch: bool) -> ObjectBuilder {
    let of = |kind: Type, null: bool| {
        let kind = if null { SchemaType::Array(vec![kind, Type::Null]) } else { SchemaType::Type(kind) };
        ObjectBuilder::new().schema_type(kind)
    };
    let id = of(Type::String, false).pattern(Some(NAME)).description(Some(
        "Its name. Without addresses and API key it is the credential: an address or network by address, anything else as \
         the API key. Where the path has it, it may be left out.",
    ));
    let capacity = of(Type::Integer, false)
        .minimum(Some(1))
        .maximum(Some(MAX_CAPACITY))
        .description(Some("The most tokens that it can save up: a whole number, written without point or exponent."));
    let rate = of(Type::Number, false)
        .minimum(Some(0.000_001))
        .maximum(Some(1_000_000_000))
        .description(Some("The tokens that come back each second."));
    let plan = of(Type::String, true).pattern(Some("^[A-Za-z0-9._-]{1,64}$")).description(Some(
        "A plan of the configuration: the client has the capacity and the rate that the plan has now. Those that are \
         given beside it hold when there is no such plan any more. Null for none: then it has what it had.",
    ));
    let mut modes: Vec<_> = ["limit", "unlimited", "blocked"].map(Value::from).into();
    modes.extend(patch.then_some(Value::Null));
    let mode = of(Type::String, patch)
        .enum_values(Some(modes))
        .description(Some("What is done with its requests; `limit` when it is left out."));
    let about = "IP addresses and networks that it is known by; none of them twice.";
    let addresses = ArrayBuilder::new().items(address()).max_items(Some(MAX_ADDRESSES)).unique_items(true);
    let addresses = match patch {
        true => addresses.schema_type(SchemaType::Array(vec![Type::Array, Type::Null])),
        false => addresses,
    };
    let key = of(Type::String, true).pattern(Some(format!("^[!-~]{{1,{MAX_KEY}}}$"))).description(Some(
        "The one API key that it is known by, kept only as a digest; null for none. Left out, present keys stay.",
    ));
    let digest = of(Type::String, true)
        .pattern(Some("^[0-9A-Fa-f]{64}$"))
        .description(Some("The SHA-256 digest of the API key in hexadecimal, in place of the key."));
    let generate = of(Type::Boolean, patch)
        .description(Some("Whether an API key is made, and shown in this one answer. Not together with another key."));
    let note = of(Type::String, patch)
        .pattern(Some(NOTE))
        .max_length(Some(MAX_NOTE))
        .description(Some("Whatever the operator wants to remember, without control characters but tab and newline."));
    let concurrent = of(Type::Integer, true).minimum(Some(1)).maximum(Some(MAX_CONCURRENT)).description(Some(
        "The most of its requests that run at once; null for none of its own, so that `rate_limit.max_concurrent` counts.",
    ));
    ObjectBuilder::new()
        .property("client_id", id)
        .property("capacity", capacity)
        .property("rate_per_sec", rate)
        .property("plan", plan)
        .property("policies", policies(patch))
        .property("mode", mode)
        .property("addresses", addresses.description(Some(about)).examples([json!(["203.0.113.0/24"])]))
        .property("api_key", key)
        .property("api_key_sha256", digest)
        .property("api_keys", api_keys(patch))
        .property("generate_api_key", generate)
        .property("note", note)
        .property("candidate", candidate())
        .property("max_concurrent", concurrent)
}

/// The quota that a client is tried with.
fn candidate() -> ObjectBuilder {
    let capacity = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_CAPACITY));
    let rate = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0.000_001)).maximum(Some(1_000_000_000));
    let about = "A quota that is judged beside the one in force, and refuses nothing; null for none.";
    ObjectBuilder::new()
        .schema_type(SchemaType::Array(vec![Type::Object, Type::Null]))
        .property("capacity", capacity)
        .property("rate_per_sec", rate)
        .required("capacity")
        .required("rate_per_sec")
        .additional_properties(Some(AdditionalProperties::FreeForm(false)))
        .description(Some(about))
}

/// What a client may spend of its own in policies.
fn policies(patch: bool) -> ObjectBuilder {
    let kind =
        |null| if null { SchemaType::Array(vec![Type::Object, Type::Null]) } else { SchemaType::Type(Type::Object) };
    let capacity = ObjectBuilder::new().schema_type(Type::Integer).minimum(Some(1)).maximum(Some(MAX_CAPACITY));
    let rate = ObjectBuilder::new().schema_type(Type::Number).minimum(Some(0.000_001)).maximum(Some(1_000_000_000));
    let own =
        ObjectBuilder::new().schema_type(kind(patch)).property("capacity", capacity).property("rate_per_sec", rate);
    let own = own.required("capacity").required("rate_per_sec");
    let names = ObjectBuilder::new().schema_type(Type::String).pattern(Some("^[A-Za-z0-9._-]{1,64}$"));
    let about =
        "What it may spend of its own in policies whose key is `client`, by their names; kept when a policy is gone.";
    ObjectBuilder::new()
        .schema_type(kind(patch))
        .property_names(Some(names))
        .additional_properties(Some(RefOr::T(Schema::from(own))))
        .description(Some(about))
}

/// All API keys of a client.
fn api_keys(patch: bool) -> ArrayBuilder {
    let text = |pattern: &str, about: &str| {
        let text = ObjectBuilder::new().schema_type(Type::String).pattern(Some(pattern));
        text.description(Some(about))
    };
    let end = ObjectBuilder::new().schema_type(SchemaType::Array(vec![Type::String, Type::Null]));
    let end = end.format(Some(SchemaFormat::KnownFormat(KnownFormat::DateTime)));
    let end = end.description(Some("From when on it counts no more, by the second; null or left out for never."));
    let id = "By what it is told from the others; alone it names a key that is there. Made where it is left out.";
    let key = ObjectBuilder::new()
        .property("key_id", text("^[A-Za-z0-9_-]{1,32}$", id))
        .property("key", text(&format!("^[!-~]{{1,{MAX_KEY}}}$"), "The key, kept only as a digest."))
        .property("key_sha256", text("^[0-9A-Fa-f]{64}$", "The SHA-256 digest of the key, in place of the key."))
        .property("expires_at", end)
        .additional_properties(Some(AdditionalProperties::FreeForm(false)));
    let keys = ArrayBuilder::new().items(key).max_items(Some(MOST_KEYS));
    let keys = match patch {
        true => keys.schema_type(SchemaType::Array(vec![Type::Array, Type::Null])),
        false => keys,
    };
    keys.description(Some("All API keys that it is known by, in place of those it has. Not together with api_key."))
}

/// An IP address or network.
fn address() -> AnyOfBuilder {
    let text = || ObjectBuilder::new().schema_type(Type::String);
    let format = |name: &str| text().format(Some(SchemaFormat::Custom(name.to_owned())));
    let ipv6 = IPV6.replace('H', "[0-9A-Fa-f]{1,4}");
    let any = AnyOfBuilder::new().item(format("ipv4")).item(format("ipv6"));
    any.item(text().pattern(Some(IPV4))).item(text().pattern(Some(ipv6)))
}

/// The same with the fields that only answers have, so that what was read can be edited and sent back.
fn passed_over(fields: ObjectBuilder) -> ObjectBuilder {
    READ_ONLY.iter().fold(fields, |fields, name| {
        let anything = ObjectBuilder::new().schema_type(SchemaType::AnyValue);
        fields.property(*name, anything.description(Some("Only answers have it; here it is passed over.")))
    })
}

/// The client in a path.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Path)]
#[expect(dead_code, reason = "describes the path, which is read by hand")]
pub(in crate::admin) struct ClientName {
    /// The client's name; a slash in it may be written as it is or as `%2F`. A new one has no segment between slashes
    /// that is empty, `.` or `..`.
    #[param(pattern = "^[A-Za-z0-9._:@/-]{1,128}$", example = "user1")]
    client_id: String,
}

/// How a change is made while the fleet's store cannot be reached.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Query)]
#[expect(dead_code, reason = "describes the parameter, which is read by hand")]
pub(in crate::admin) struct LocalQuery {
    /// When the fleet's store cannot be reached, make the change on this node at once, and on all when it can be
    /// reached again, unless a newer one was made there. Without it, the answer is 503 then.
    #[param(pattern = "^(0|1|true|false)$", nullable = false)]
    local: Option<String>,
}

/// The header of a change that wants the client to be as it was seen.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the header, which is read by hand")]
pub(in crate::admin) struct MatchHeaders {
    /// Only if the client's `ETag` is one of these, or `*`: only if there is one.
    #[param(
        rename = "If-Match",
        pattern = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#,
        nullable = false,
        example = "\"1\""
    )]
    if_match: Option<String>,
}

/// The headers of a change that makes the client when there is none.
#[derive(Debug, IntoParams)]
#[into_params(parameter_in = Header)]
#[expect(dead_code, reason = "describes the headers, which are read by hand")]
pub(in crate::admin) struct ConditionHeaders {
    /// Only if the client's `ETag` is one of these, or `*`: only if there is one.
    #[param(
        rename = "If-Match",
        pattern = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#,
        nullable = false,
        example = "\"1\""
    )]
    if_match: Option<String>,
    /// Only if the client's `ETag` is none of these, or `*`: only if there is none.
    #[param(
        rename = "If-None-Match",
        pattern = r#"^(\*|(W/)?"[!#-~]*"(, ?(W/)?"[!#-~]*")*)$"#,
        nullable = false,
        example = "\"1\""
    )]
    if_none_match: Option<String>,
}
