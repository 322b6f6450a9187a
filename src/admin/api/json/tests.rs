use super::*;
use crate::admin::api::BodyFields;

fn message(text: &[u8]) -> String {
    let error = parse(text).unwrap_err();
    assert_eq!(error.status, 400);
    error.message
}

#[test]
fn json_is_read() {
    let value = parse(br#" {"a":[1,-2,3.5,null,true],"b":{"c":"\u00e4"}} "#).unwrap();
    let Value::Object(fields) = value else { panic!("{value:?}") };
    assert_eq!(fields[0].1, {
        let numbers = [1.into(), (-2).into(), Number::from_f64(3.5).unwrap()].map(Value::Number);
        Value::Array([numbers.as_slice(), &[Value::Null, Value::Bool(true)]].concat())
    });
    assert_eq!(fields[1].1, Value::Object(vec![("c".to_owned(), Value::String("ä".to_owned()))]));
}

#[test]
fn what_is_no_json_is_refused_with_the_reason() {
    for (text, reason) in [
        (&b""[..], "The body is empty; JSON was expected"),
        (b" \n\t", "The body is empty; JSON was expected"),
        (b"{", "EOF while parsing an object at line 1 column 1"),
        (b"{} {}", "trailing characters at line 1 column 4"),
        (b"[NaN]", "expected value at line 1 column 2"),
        (b"[Infinity]", "expected value at line 1 column 2"),
        (b"[1e400]", "number out of range at line 1 column 6"),
        (b"{\"a\":1,\n\"a\":2}", "the key \"a\" stands twice in one object at line 2 column 3"),
        (b"{'a':1}", "key must be a string at line 1 column 2"),
        (b"\"\xff\"", "not UTF-8 at byte 2"),
        (b"\"\\ud800\"", "unexpected end of hex escape at line 1 column 8"),
        (b"[01]", "invalid number at line 1 column 3"),
        (b"[1,]", "trailing comma at line 1 column 4"),
        (b"\"\x01\"", "control character"),
    ] {
        let message = message(text);
        assert!(message.contains(reason), "{message}, not {reason}");
    }
}

#[test]
fn nesting_has_a_limit() {
    let nested = |depth: usize| [vec![b'['; depth], vec![b']'; depth]].concat();
    assert!(parse(&nested(MAX_DEPTH)).is_ok());
    assert!(message(&nested(MAX_DEPTH + 1)).contains("nested deeper than 32 levels"));
    assert!(message(&nested(100_000)).contains("nested deeper than 32 levels"));
    assert!(message(&b"{\"a\":".repeat(100_000)).contains("nested deeper than 32 levels"));
}

#[test]
fn values_are_counted() {
    let zeros = |count: usize| format!("[{}0]", "0,".repeat(count - 1));
    assert!(parse(zeros(MAX_VALUES - 1).as_bytes()).is_ok());
    let too_many = "The body has too many values; at most 65536 are allowed, arrays and objects counted too";
    assert_eq!(message(zeros(MAX_VALUES).as_bytes()), too_many);
    assert_eq!(message(format!("[{}[]]", "[],".repeat(MAX_VALUES)).as_bytes()), too_many);
    let names: Vec<_> = (0..MAX_VALUES).map(|name| format!("\"{name}\":{{}}")).collect();
    assert_eq!(message(format!("{{{}}}", names.join(",")).as_bytes()), too_many);
    // As many as there may be, and something else wrong.
    let trailing = message(format!("{} 1", zeros(MAX_VALUES - 1)).as_bytes());
    assert!(trailing.contains("trailing characters"), "{trailing}");

    assert!(parse_line(zeros(MAX_ITEM_VALUES - 1).as_bytes(), 7).is_ok());
    let line = parse_line(zeros(MAX_ITEM_VALUES).as_bytes(), 7).unwrap_err();
    let expected = "Line 7 has too many values; at most 4096 are allowed, arrays and objects counted too";
    assert_eq!((line.status.as_u16(), line.message.as_str()), (400, expected));
}

#[test]
fn each_item_of_an_array_has_a_budget_of_its_own() {
    let full = format!("[{}0]", "0,".repeat(MAX_ITEM_VALUES - 2));
    let mut given = 0;
    let mut read = |text: String| {
        parse_array(text.as_bytes(), |_| {
            given += 1;
            Ok(())
        })
    };
    read(format!("[{}{full}]", format!("{full},").repeat(99))).unwrap();
    let error = read(format!("[0,{full},[{full}],0]")).unwrap_err();
    let expected = "The item [2] has too many values; at most 4096 are allowed, arrays and objects counted too";
    assert_eq!((error.status.as_u16(), error.message.as_str()), (400, expected));
    assert_eq!(given, 102);
}

#[test]
fn who_takes_the_items_may_end_it() {
    let mut given = 0;
    let read = parse_array(b"[1,2,3,4", |_| {
        given += 1;
        if given < 3 { Ok(()) } else { Err(ApiError::field("body", "is enough")) }
    });
    assert_eq!((read.unwrap_err().message.as_str(), given), ("body: is enough", 3));
}

#[test]
fn unknown_fields_are_named() {
    let value = parse(br#"{"capcity":1,"colour":2,"mode":"x"}"#).unwrap();
    let mut fields = BodyFields::new(value, "[3].", &["capacity", "mode"]);
    assert_eq!(fields.require("capacity", Ok::<_, String>), None);
    assert_eq!(fields.read("mode", |_| Err::<(), _>("must be something".to_owned())), None);
    let told: Vec<_> = fields.into_errors().into_iter().map(|error| (error.field, error.message)).collect();
    let expected = [
        ("[3].capcity", "is unknown; did you mean capacity?"),
        ("[3].colour", "is unknown; the fields are capacity, mode"),
        ("[3].capacity", "is required"),
        ("[3].mode", "must be something"),
    ];
    assert_eq!(told, expected.map(|(field, message)| (field.to_owned(), message.to_owned())));
}

#[test]
fn what_is_no_object_is_told_once() {
    let mut fields = BodyFields::new(Value::Null, "", &["capacity"]);
    assert_eq!(fields.require("capacity", Ok::<_, String>), None);
    let error = fields.finish().unwrap_err();
    assert_eq!((error.status.as_u16(), &*error.message), (422, "body: must be a JSON object"));
}

#[test]
fn media_types_that_no_one_means_are_refused() {
    for text in ["application/json", "Application/JSON; charset=utf-8", "application/x-www-form-urlencoded"] {
        check_content_type(Some(&text.parse().unwrap())).unwrap();
    }
    check_content_type(None).unwrap();
    for text in ["text/plain", "multipart/form-data; boundary=x", "application/xml", "", "json"] {
        assert_eq!(check_content_type(Some(&text.parse().unwrap())).unwrap_err().status, 415, "{text}");
    }
}
