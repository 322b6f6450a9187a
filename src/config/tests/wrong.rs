//! What is said of wrong files, word for word.

use std::path::Path;

use super::{START, check, lines};
use crate::config::{BackendOverride, Overrides, load, parse_database, parse_listen, parse_token};
use crate::upstream::Balance;

/// `wrong.txt` holds one case after another: a title behind `===`, the file, `>>>`, and all that is said of it.
#[test]
fn every_problem_is_told_with_its_path_and_line() {
    let cases: Vec<_> = include_str!("wrong.txt").split("=== ").skip(1).collect();
    assert!(cases.len() > 50, "{} cases", cases.len());
    for case in cases {
        let (title, rest) = case.split_once('\n').unwrap();
        let (text, said) = rest.split_once(">>>\n").unwrap();
        let said: Vec<_> = said.lines().filter(|line| !line.is_empty() && !line.starts_with("#####")).collect();
        assert!(!said.is_empty(), "{title}");
        assert_eq!(lines(check(text)), said, "{title}");
    }
}

#[test]
fn all_problems_together_name_the_file_and_count() {
    let problems = check(&format!("{START}    retries: 17\nlimit: 3\n")).unwrap_err();
    let said = "f.yaml has 2 problems:\n\
        upstreams[0].retries: must be a whole number from 0 to 16, not 17 (line 5)\n\
        limit: unknown key, did you mean limits? (allowed: access_log, admin, answers, database, direct, fleet, history, identity, limits, listeners, pingora, plans, rate_limit, routes, tracing, upstreams) \
        (line 6)";
    assert_eq!(problems.to_string(), said);
    assert_eq!((problems.source(), problems.iter().count()), ("f.yaml", 2));
}

#[test]
fn files_that_cannot_be_read_say_why() {
    let dir = tempfile::tempdir().unwrap();
    let said = |path: &Path| lines(load(Some(path), &Overrides::default()));
    let missing = dir.path().join("missing.yaml");
    assert_eq!(said(&missing), [format!("{}: there is no such file", missing.display())]);
    assert_eq!(said(dir.path()), [format!("{}: this is a directory, not a file", dir.path().display())]);
    let latin = dir.path().join("latin.yaml");
    std::fs::write(&latin, b"limits: {}\n# caf\xe9\n").unwrap();
    assert_eq!(said(&latin), [format!("{}: the file is not text in UTF-8 (line 2)", latin.display())]);
    assert_eq!(said(Path::new("/dev/zero")), ["/dev/zero: this is a device, not a file"]);
    let large = dir.path().join("large.yaml");
    std::fs::write(&large, vec![b'#'; (4 << 20) + 1]).unwrap();
    assert_eq!(said(&large), [format!("{}: the file is larger than 4 MiB", large.display())]);
}

#[test]
fn what_takes_too_much_to_read_is_refused() {
    let said = |text: &str| lines(check(text)).join("\n");
    let deep = "f.yaml: the file cannot be read as YAML: brackets are nested more than 32 deep";
    for text in
        ["a: ".to_owned() + &"[".repeat(100_000), "{a: ".repeat(100_000), "[".repeat(9_000) + &"]".repeat(9_000)]
    {
        assert_eq!(said(&text), deep);
    }
    for text in ["- ".repeat(100_000), "? ".repeat(100_000)] {
        assert!(said(&text).contains("recursion limit exceeded"));
    }
    // A billion laughs; the same in few steps; as a key that stands twice; behind a tag; few, of long strings.
    let names = ["a", "b", "c", "d", "e", "f", "g", "h", "i"];
    let nine = |name: &str| [format!("*{name}").as_str(); 9].join(",");
    let laughs: String = names.windows(2).map(|pair| format!("{0}: &{0} [{1}]\n", pair[1], nine(pair[0]))).collect();
    let thousand = |anchor: &str| [anchor; 1000].join(",");
    let steps = format!("b: &b [{}]\nc: &c [{}]\n", thousand("*a"), thousand("*b"));
    let long = "x".repeat(500_000);
    for text in [
        format!("a: &a [x,x,x,x,x,x,x,x,x]\n{laughs}"),
        format!("a: &a [1,2,3,4,5,6,7,8,9]\n{steps}d: [*c,*c]\n"),
        format!("a: &a [1,2,3,4,5,6,7,8,9]\nb: &b [{}]\nd: !t [{}]\n", thousand("*a"), thousand("*b")),
        format!("a: &a {long}\nb: [{}]\n", thousand("*a")),
        format!("a: &a\n  ? {long}\n  : 1\nb: [{}]\n", thousand("*a")),
    ] {
        let said = said(&text);
        assert!(said.contains("there are too many values, or aliases that stand for too many"), "{said}");
    }
    // What people do with aliases, and with brackets in words, is none of that.
    let fair = format!(
        "{START}    health_check: &a {{type: tcp}}\n  - {{name: b, backends: [{{address: 127.0.0.1:1}}], \
        health_check: *a}}\nroutes: [{{path: '/[{{[{{', upstream: app}}, {{path: '/x', upstream: b}}]\n# [[[\n"
    );
    assert!(check(&fair).is_ok(), "{}", said(&fair));
}

#[test]
fn ten_thousand_routes_are_read() {
    let routes: String =
        (0..10_000).map(|n| format!("  - {{host: h{n}.example.com, path: /v1, upstream: app}}\n")).collect();
    assert_eq!(check(&format!("{START}routes:\n{routes}")).unwrap().routes.len(), 10_000);
}

#[test]
fn a_line_is_found_in_every_style_of_writing() {
    let wrong = "not a number, but";
    for (text, line) in [
        (format!("{START}    \"retries\": {wrong}\n"), 5),
        (format!("{START}    ? retries\n    : {wrong}\n"), 5),
        (format!("\u{feff}# comment\n\n{START}    retries: >\n      {wrong}\n"), 7),
        (format!("{START}\n\r\n    retries: {wrong}\n"), 7),
    ] {
        let problems = check(&text).unwrap_err();
        let found: Vec<_> = problems.iter().map(|problem| (problem.path.as_str(), problem.line)).collect();
        assert_eq!(found, [("upstreams[0].retries", Some(line))], "{text}");
    }
}

#[test]
fn ten_thousand_problems_take_no_time_to_find() {
    let backends: String = (1..=10_000).map(|n| format!("      - {{adress: 10.0.0.1:{n}}}\n")).collect();
    let text = format!("listeners: [{{address: 0.0.0.0:80}}]\nupstreams:\n  - name: a\n    backends:\n{backends}");
    let problems = check(&text).unwrap_err();
    assert_eq!(problems.iter().count(), 20_000, "each address is missing, and each adress unknown");
    assert_eq!(problems.iter().last().unwrap().line, Some(10_004));
}

#[test]
fn arguments_are_refused_in_the_words_of_the_file() {
    let said = |text: &str| text.parse::<BackendOverride>().unwrap_err().to_string();
    assert_eq!(
        said("127.0.0.1"),
        "must be an IP address or a host name, and a port, such as 127.0.0.1:9001 or app.internal:80, \
         or the path of a socket, such as unix:/run/app.sock, not \"127.0.0.1\": the port is missing"
    );
    assert_eq!(said("127.0.0.1:80=0"), "the weight must be a whole number from 1 to 65535, not 0");
    assert_eq!(said("127.0.0.1:80="), "the weight must be a whole number from 1 to 65535, not \"\"");
    assert_eq!(
        parse_listen("localhost:80").unwrap_err().to_string(),
        "must be an IP address and a port, such as 0.0.0.0:8080 or \"[::]:8080\", not \"localhost:80\": to listen \
         takes an IP address, not a host name; 0.0.0.0 stands for all of them"
    );
    let said = |text: &str| parse_database(text).unwrap_err().to_string();
    assert_eq!(said("data/"), "must be the path of a file, not \"data/\"");
    assert_eq!(said(""), "must be the path of a file, not \"\"");
    assert_eq!(said(":memory:"), "must be the path of a file, not \":memory:\"");
    let said = |text: &str| parse_token(text).unwrap_err().to_string();
    assert_eq!(
        said("secret"),
        "a token must be 16 to 4096 visible ASCII characters, not 6 (`openssl rand -hex 32` makes a good one)"
    );
    assert_eq!(
        said("a secret of two and more words"),
        "a token must be 16 to 4096 visible ASCII characters, and this one has others"
    );
    assert_eq!(
        "fair".parse::<Balance>().unwrap_err().to_string(),
        "must be round_robin, random, least_connections, least_time or hash, not \"fair\""
    );
}

#[test]
fn problems_of_arguments_stand_under_their_flags() {
    let backend: BackendOverride = "127.0.0.1:9001".parse().unwrap();
    let overrides = Overrides {
        listen: vec!["0.0.0.0:80".parse().unwrap(), "127.0.0.1:80".parse().unwrap(), "127.0.0.1:0".parse().unwrap()],
        backends: vec![backend.clone(), backend],
        admin: Some("0.0.0.0:80".parse().unwrap()),
        ..Overrides::default()
    };
    assert_eq!(
        lines(load(None, &overrides)),
        [
            "--admin: must be an address of its own, but 0.0.0.0:80 is taken by --listen (0.0.0.0:80)",
            "--admin: must be a loopback address such as 127.0.0.1:9901, or have a token (admin.token_file or \
             TOLLGATE_ADMIN_TOKEN): 0.0.0.0:80 can be reached from other machines",
            "--backend: must be an address of its own in this upstream, but 127.0.0.1:9001 is that of --backend",
            "--listen: must be an IP address and a port, such as 0.0.0.0:8080 or \"[::]:8080\", not \"127.0.0.1:0\": \
             a port is a number from 1 to 65535",
            "--listen: must be an address of its own, but 127.0.0.1:80 is taken by --listen (0.0.0.0:80)",
        ]
    );
    let variables =
        Overrides { variables: vec!["TOLLGATE_ADMIN", "TOLLGATE_LISTEN", "TOLLGATE_BACKENDS"], ..overrides };
    let said = lines(load(None, &variables));
    let named = ["TOLLGATE_ADMIN:", "TOLLGATE_ADMIN:", "TOLLGATE_BACKENDS:", "TOLLGATE_LISTEN:", "TOLLGATE_LISTEN:"];
    assert!(said.iter().zip(named).all(|(line, name)| line.starts_with(name)) && said.len() == 5, "{said:#?}");
    assert_eq!(
        load(None, &Overrides::default()).unwrap_err().to_string(),
        "the command line has 2 problems:\n\
         --backend: is missing, must be given (as in --backend 127.0.0.1:9001) when there is no configuration file\n\
         --listen: is missing, must be given (as in --listen 127.0.0.1:8080) when there is no configuration file"
    );
}
