use proptest::prelude::*;

use super::*;

const NOBODY: RuleValues<'static> =
    RuleValues { client_id: None, client_ip: IpAddr::V4(std::net::Ipv4Addr::LOCALHOST), request_id: "r1" };

fn name(name: &str) -> HeaderName {
    name.parse().unwrap()
}

fn edit(header: &str, from: &str, to: &str) -> HeaderEdit {
    HeaderEdit::new(name(header), Regex::new(from).unwrap(), to).unwrap()
}

fn set(spelt: &str, value: &str) -> HeaderLine {
    HeaderLine::new(name(spelt), spelt.to_owned(), value).unwrap()
}

/// What becomes of the lines of `text`.
fn applied(rules: &HeaderRules, text: &str, values: &RuleValues<'_>) -> String {
    let lines = text.lines().map(|line| line.split_once(": ").unwrap());
    let lines = lines.map(|(name, value)| (name.as_bytes(), value.as_bytes()));
    let mut out = String::new();
    rules.apply(lines, values, |name, value| {
        out += &format!("{}: {}\n", String::from_utf8_lossy(name), String::from_utf8_lossy(value));
    });
    out
}

#[test]
fn lines_are_taken_away_then_edited_then_set() {
    let rules = HeaderRules {
        remove: vec![name("cookie")],
        edit: vec![edit("destination", "^https:", "http:"), edit("destination", "//a/", "//b/")],
        set: vec![set("X-Env", "prod"), set("X-Who", "{client_id}/{client_ip}#{request_id}")],
    };
    let came = "Host: a\nCOOKIE: x\nDestination: https://a/x\nx-env: dev\nCookie: y\nX-Env: test\nA: 1\nX-Who: me\n";
    let known = RuleValues { client_id: Some("team"), ..NOBODY };
    let expected = "Host: a\nDestination: http://b/x\nA: 1\nX-Env: prod\nX-Who: team/127.0.0.1#r1\n";
    assert_eq!(applied(&rules, came, &known), expected);
    // Who is nobody has no name, and cannot bring one.
    assert_eq!(applied(&rules, came, &NOBODY), "Host: a\nDestination: http://b/x\nA: 1\nX-Env: prod\n");
    assert!(!rules.is_empty() && HeaderRules::default().is_empty());
}

#[test]
fn every_match_is_replaced_and_groups_by_number_and_name() {
    let edited = |from: &str, to: &str, value: &str| {
        let rules = HeaderRules { edit: vec![edit("a", from, to)], ..HeaderRules::default() };
        applied(&rules, &format!("a: {value}\n"), &NOBODY)
    };
    assert_eq!(edited("x", "yy", "x-x"), "a: yy-yy\n");
    assert_eq!(edited("(\\w+)=(?P<v>\\w+)", "${2}_$v$$$1", "k=w"), "a: w_w$k\n");
    assert_eq!(edited("(a)|b", "[$1]", "ab"), "a: [a][]\n");
    assert_eq!(edited("$", "; Secure", "k=v"), "a: k=v; Secure\n");
    assert_eq!(edited(".*", "", "gone"), "a: \n");
    assert_eq!(edited("^", " ", "x"), "a: x\n", "no value begins with a blank");
    // 64 KiB are the most that comes of an edit.
    let long = "x".repeat(1 << 10);
    assert_eq!(edited("x", &"y".repeat(64), &long), format!("a: {}\n", "y".repeat(64 << 10)));
    assert_eq!(edited("x", &"y".repeat(65), &long), "");
    assert_eq!(edited("$", &"y".repeat(64 << 10), &long), "");
}

#[test]
fn wrong_groups_and_placeholders_are_refused() {
    let group = |to: &str| HeaderEdit::new(name("a"), Regex::new("(x)(?<y>z)").unwrap(), to).unwrap_err();
    for (to, told) in [("$3", "$3"), ("a$1x", "$1x"), ("${nobody}", "$nobody"), ("${1", "${1"), ("$", "$"), ("$-", "$")]
    {
        assert_eq!(group(to), RuleError::Group(told.to_owned()), "{to}");
    }
    let line = |value: &str| HeaderLine::new(name("a"), "A".to_owned(), value);
    assert_eq!(line("{client_idd}").unwrap_err(), RuleError::Placeholder("client_idd".to_owned()));
    assert_eq!(line("x{client}").unwrap_err(), RuleError::Placeholder("client".to_owned()));
    let json = r#"{"group":"default"} {} { {client_ip"#;
    let rules = HeaderRules { set: vec![line(json).unwrap()], ..HeaderRules::default() };
    assert_eq!(applied(&rules, "", &NOBODY), format!("A: {json}\n"));
}

#[test]
fn a_host_is_set_to_a_host() {
    let host = |value: &str| HeaderLine::new(HOST, "Host".to_owned(), value).map(drop);
    for value in ["a.example", "a.example:8080", "192.0.2.1", "[2001:db8::1]:80"] {
        assert_eq!(host(value), Ok(()), "{value}");
    }
    for value in ["a b", "a/b", "{client_ip}", "a.{client_id}", "u@a", "http://a", "a,b"] {
        assert_eq!(host(value), Err(RuleError::HostValue), "{value}");
    }
}

#[test]
fn what_frames_a_message_is_nobodys() {
    use RuleSide::{Answer, Request};
    for verb in [RuleVerb::Remove, RuleVerb::Edit, RuleVerb::Set] {
        for framing in ["Connection", "Content-Length", "transfer-encoding", "TE", "Keep-Alive", "Proxy-Connection"] {
            assert_eq!(may(Request, verb, &name(framing)), Err(RuleError::Framing), "{framing}");
            assert_eq!(may(Answer, verb, &name(framing)), Err(RuleError::Framing), "{framing}");
        }
        assert_eq!(may(Request, verb, &EXPECT), Err(RuleError::Expect));
        assert_eq!(may(Answer, verb, &DATE), Err(RuleError::Date));
        assert_eq!((may(Request, verb, &DATE), may(Answer, verb, &name("server"))), (Ok(()), Ok(())));
        assert_eq!(may(Request, verb, &HOST).is_ok(), verb == RuleVerb::Set);
    }
}

proptest! {
    /// Whatever an edit meets, what leaves could have come.
    #[test]
    fn no_edit_makes_what_is_no_value(value in "[ -~\u{e4}]{0,40}", from in "[a-c.*()|^$]{0,6}", to in "[ -#%-~]{0,6}") {
        let Ok(from) = Regex::new(&from) else { return Ok(()) };
        let rules = HeaderRules { edit: vec![HeaderEdit::new(name("a"), from, &to).unwrap()], ..HeaderRules::default() };
        rules.apply([(&b"a"[..], value.as_bytes())].into_iter(), &NOBODY, |_, value| {
            assert!(http::HeaderValue::from_bytes(value).is_ok());
            assert_eq!(value.trim_ascii(), value);
        });
    }

    /// The same as the crate's own way, where that knows the groups.
    #[test]
    fn edits_agree_with_the_crate(value in "[a-c]{0,12}", to in "[a-c]?(\\$1|\\$\\{2\\}|\\$\\$|-){0,4}") {
        let from = Regex::new("(a+)(b)?").unwrap();
        let expected = from.replace_all(value.as_bytes(), to.as_bytes()).into_owned();
        let rules = HeaderRules { edit: vec![HeaderEdit::new(name("a"), from, &to).unwrap()], ..HeaderRules::default() };
        rules.apply([(&b"a"[..], value.as_bytes())].into_iter(), &NOBODY, |_, value| assert_eq!(value, expected));
    }
}
