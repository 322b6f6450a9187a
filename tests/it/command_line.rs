//! The command line: what `run` takes, which of flag, variable and file wins, and the exit codes.

use std::net::{SocketAddr, TcpListener};
use std::time::Duration;

use crate::harness::backend::Backend;
use crate::harness::client::{Client, Request};
use crate::harness::ports::free_address;
use crate::harness::process::{Process, run, run_with_closed_output};
use crate::harness::server::{Tollgate, command};
use crate::harness::setup::Setup;
use crate::harness::{PATIENCE, eventually, now};

fn names(server: &Tollgate, count: usize) -> String {
    let mut client = server.client();
    (0..count).map(|_| client.get("/").unwrap().backend().to_owned()).collect()
}

#[test]
fn run_works_with_flags_alone() {
    let [a, b, c] = ["a", "b", "c"].map(Backend::echo);
    let heavy = format!("{}=5", a.address);
    let (b, c) = (b.address.to_string(), c.address.to_string());
    let args = ["run", "--listen", "$LISTEN", "--backend", &heavy, "--backend", &b, "--backend", &c];
    let server = Tollgate::from_args(&args, &[]);
    assert_eq!(names(&server, 7), "aabacaa");
    assert_eq!(server.access_lines(7)[0]["upstream"], "default");
}

#[test]
fn without_a_command_it_is_run() {
    let a = Backend::echo("a");
    let server = Tollgate::from_args(&["--listen", "$LISTEN", "--backend", &a.address.to_string()], &[]);
    assert_eq!(names(&server, 1), "a");
}

#[test]
fn every_listener_serves() {
    let a = Backend::echo("a");
    let other = free_address();
    let (backend, second) = (a.address.to_string(), other.to_string());
    let args = ["run", "--listen", "$LISTEN", "--listen", &second, "--backend", &backend];
    let server = Tollgate::from_args(&args, &[]);
    assert_eq!(names(&server, 1), "a");
    assert!(eventually(PATIENCE, || Client::try_connect(other).is_ok_and(|mut c| c.get("/").is_ok())));
}

#[test]
fn variables_do_what_flags_do() {
    let [a, b] = ["a", "b"].map(Backend::echo);
    let backends = format!("{}=3,{}", a.address, b.address);
    let variables = [("TOLLGATE_LISTEN", "$LISTEN"), ("TOLLGATE_BACKENDS", &*backends)];
    let server = Tollgate::from_args(&["run"], &variables);
    let names = names(&server, 8);
    assert_eq!(names.matches('a').count(), 6, "{names}");
    let variables = [variables[0], variables[1], ("TOLLGATE_BALANCE", "no_such_rule")];
    let finished = run(command().arg("run").envs(variables.map(|(k, v)| (k, v.replace("$LISTEN", "127.0.0.1:1")))));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.err.contains("no_such_rule"), "{finished:?}");
}

#[test]
fn flags_beat_variables_which_beat_the_file() {
    let [file, variable, flag] = ["file", "variable", "flag"].map(Backend::echo);
    let yaml = Setup::default().pool("default", &[file.address], "").yaml();
    let (variable_address, flag_address) = (variable.address.to_string(), flag.address.to_string());
    let with_variable = [("TOLLGATE_BACKENDS", &*variable_address)];
    let run = ["run", "-c", "$FILE"];
    assert_eq!(names(&Tollgate::start(&yaml, &run, &[], false), 2), "filefile");
    assert_eq!(names(&Tollgate::start(&yaml, &run, &with_variable, false), 2), "variablevariable");
    let with_flag = ["run", "-c", "$FILE", "--backend", &flag_address];
    assert_eq!(names(&Tollgate::start(&yaml, &with_flag, &with_variable, false), 2), "flagflag");

    // The same for the listener: the file's own address must then stay free.
    let elsewhere = free_address();
    let yaml = yaml.replace("$LISTEN", &elsewhere.to_string());
    let server = Tollgate::start(&yaml, &run, &[("TOLLGATE_LISTEN", "$LISTEN")], false);
    assert_eq!(names(&server, 1), "file");
    assert!(Client::try_connect(elsewhere).is_err(), "the file's listener is open too");
}

#[test]
fn balance_is_chosen_by_flag() {
    let [a, b] = ["a", "b"].map(Backend::echo);
    let (a, b) = (a.address.to_string(), b.address.to_string());
    for balance in ["round_robin", "random", "least_connections", "least_time", "hash"] {
        let args = ["run", "--listen", "$LISTEN", "--backend", &a, "--backend", &b, "--balance", balance];
        // The backends are gone, which makes no difference to what is accepted.
        let server = Tollgate::from_args(&args, &[]);
        assert!(server.client().get("/").is_ok(), "{balance}");
    }
    let finished = run(command().args(["run", "--listen", "127.0.0.1:1", "--backend", &a, "--balance", "fair"]));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.err.contains("fair"), "{finished:?}");
}

#[test]
fn wrong_usage_is_2_and_says_what_is_wrong() {
    let cases: [(&[&str], &str); 15] = [
        (&["run", "--no-such-flag"], "--no-such-flag"),
        (&["no-such-command"], "no-such-command"),
        (&["run", "--listen", "nonsense", "--backend", "127.0.0.1:9"], "nonsense"),
        (&["run", "--listen", "127.0.0.1:70000", "--backend", "127.0.0.1:9"], "70000"),
        (&["run", "--listen", "127.0.0.1:1", "--backend", "127.0.0.1:9=0"], "0"),
        (&["run", "--listen", "127.0.0.1:1", "--backend", "127.0.0.1:9=many"], "many"),
        (&["run", "--listen", "127.0.0.1:1", "--backend", "no-port"], "no-port"),
        (&["run", "--listen", "127.0.0.1:1"], "backend"),
        (&["run", "--backend", "127.0.0.1:9"], "listen"),
        (
            &["run", "--listen", "127.0.0.1:1", "--backend", "127.0.0.1:9", "--admin", "0.0.0.0:2"],
            "TOLLGATE_ADMIN_TOKEN",
        ),
        (&["run", "--listen", "127.0.0.1:1", "--backend", "127.0.0.1:9", "--admin", "localhost:2"], "localhost"),
        (&["run", "--listen", "127.0.0.1:1", "--backend", "127.0.0.1:9", "--database", "data/"], "data/"),
        (&["run", "-c", "/no/such/file.yaml"], "/no/such/file.yaml"),
        (&["check"], "--conf"),
        (&["completions", "no-such-shell"], "no-such-shell"),
    ];
    for (args, word) in cases {
        let finished = run(command().args(args));
        assert_eq!(finished.code, Some(2), "{args:?}: {finished:?}");
        assert!(finished.err.contains(word), "{args:?} does not speak of {word}: {finished:?}");
    }
    // What later versions take is not accepted and ignored.
    assert_eq!(run(command().args(["run", "--upgrade"])).code, Some(2));
}

#[test]
fn a_port_that_is_taken_ends_it_with_1_at_once() {
    let holder = TcpListener::bind(free_address()).unwrap();
    let address = holder.local_addr().unwrap().to_string();
    let (free, admin) = (free_address(), free_address().to_string());
    let directory = tempfile::TempDir::new().unwrap();
    for listeners in [vec![address.clone()], vec![free.to_string(), address.clone()]] {
        let mut command = command();
        command.args(["run", "--backend", "127.0.0.1:9", "--admin", &admin]).current_dir(directory.path());
        for listener in &listeners {
            command.args(["--listen", listener]);
        }
        let start = now();
        let finished = Process::start(&mut command).wait_exit(PATIENCE);
        assert_eq!(finished.code, Some(1), "{finished:?}");
        assert!(now() - start < Duration::from_secs(2), "took {:?}", now() - start);
        assert!(finished.err.contains(&address), "{finished:?}");
    }
    assert!(Client::try_connect(free).is_err());
}

#[test]
fn help_and_version_are_0() {
    for (args, word) in [(&["--help"][..], "Usage"), (&["--version"], "tollgate"), (&["run", "--help"], "--listen")] {
        let finished = run(command().args(args));
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.out.contains(word), "{finished:?}");
    }
}

#[test]
fn completions_are_printed() {
    for shell in ["bash", "zsh", "fish"] {
        let finished = run(command().args(["completions", shell]));
        assert_eq!(finished.code, Some(0), "{finished:?}");
        assert!(finished.out.contains("tollgate") && finished.out.contains("check"), "{shell}");
    }
}

#[test]
fn a_closed_output_is_no_panic() {
    for args in [["completions", "bash"].as_slice(), &["schema"], &["--help"]] {
        let (mut process, output) = Process::start_unread(command().args(args));
        drop(output);
        let finished = process.wait_exit(PATIENCE);
        assert!(!finished.err.contains("panicked"), "{args:?}: {finished:?}");
    }
}

#[test]
fn a_verdict_that_nobody_reads_is_still_the_exit_code() {
    let directory = tempfile::TempDir::new().unwrap();
    let (good, bad) = (directory.path().join("good.yaml"), directory.path().join("bad.yaml"));
    std::fs::write(&good, Setup::default().pool("app", &[free_address()], "").yaml().replace("$LISTEN", "127.0.0.1:1"))
        .unwrap();
    std::fs::write(&bad, "listeners: []\nnonsense: 1\n").unwrap();
    for (args, file, code) in [
        (&["check", "-c"][..], &bad, 2),
        (&["check", "-c"], &good, 0),
        (&["run", "-t", "-c"], &good, 0),
        (&["run", "-t", "-c"], &bad, 2),
    ] {
        let finished = run_with_closed_output(command().args(args).arg(file));
        assert_eq!(finished.code, Some(code), "{args:?} {}: {finished:?}", file.display());
        assert!(!finished.err.contains("panicked"), "{args:?}: {finished:?}");
    }
}

#[test]
fn echo_tells_what_it_got_and_shapes_its_answer() {
    let echo = Backend::echo("sample");
    let mut client = Client::connect(echo.address);
    let request = Request::new("PUT", "/a/b?x=y").headers(&[("X-Some", "thing")]);
    let response = client.call(&request).unwrap();
    let value = response.json();
    assert_eq!((response.status, response.header("x-backend")), (200, Some("sample")));
    assert_eq!((&value["backend"], &value["method"]), (&"sample".into(), &"PUT".into()));
    assert!(value["path"].as_str().is_some_and(|path| path.starts_with("/a/b")), "{value}");
    let headers = value["headers"].as_object().unwrap();
    assert!(headers.iter().any(|(name, value)| name.eq_ignore_ascii_case("x-some") && value == "thing"), "{value}");
    assert!(value["client"].as_str().is_some_and(|client| client.starts_with("127.0.0.1")), "{value}");
    assert_eq!(client.get("/health").unwrap().status, 200);
    assert_eq!(client.get("/?status=503").unwrap().status, 503);
    assert_eq!(client.get("/?bytes=100000").unwrap().body.len(), 100_000);
    assert_eq!(client.call(&Request::new("HEAD", "/?bytes=100000")).unwrap().body.len(), 0);
    let start = now();
    client.get("/?delay_ms=250").unwrap();
    assert!(now() - start >= Duration::from_millis(250));
    assert_eq!(client.get("/?status=204").unwrap().status, 204);
    assert_eq!(client.get("/?status=nonsense&delay_ms=x&bytes=-1").map(|r| r.status < 500).ok(), Some(true));
    assert_eq!(client.get("/").unwrap().status, 200, "the connection goes on");
}

#[test]
fn the_demo_runs_on_8080_or_says_that_it_cannot() {
    let demo: SocketAddr = ([127, 0, 0, 1], 8080).into();
    let admin: SocketAddr = ([127, 0, 0, 1], 9901).into();
    let directory = tempfile::TempDir::new().unwrap();
    let mut demo_command = command();
    demo_command.arg("demo").current_dir(directory.path());
    let holder = TcpListener::bind(demo);
    let start = now();
    let finished = Process::start(&mut demo_command).wait_exit(PATIENCE);
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.err.contains("127.0.0.1:8080") && now() - start < Duration::from_secs(5), "{finished:?}");
    if holder.is_err() || TcpListener::bind(admin).is_err() {
        eprintln!("somebody else listens on {demo} or {admin}: the rest is skipped");
        return;
    }
    drop(holder);
    let mut process = Process::start(&mut demo_command);
    assert!(eventually(PATIENCE, || Client::try_connect(demo).is_ok()), "{}", process.err.text());
    let mut client = Client::connect(demo);
    let mut names: Vec<_> = (0..9).map(|_| client.get("/").unwrap().backend().to_owned()).collect();
    names.sort_unstable();
    names.dedup();
    assert_eq!(names.len(), 3, "three sample backends: {names:?}");
    let printed = || format!("{}{}", process.out.text(), process.err.text());
    for word in ["curl", "-H 'X-Api-Key: user1'", "127.0.0.1:8080", "127.0.0.1:9901/clients/user1", "clients list"] {
        assert!(eventually(PATIENCE, || printed().contains(word)), "{word} is not in {}", printed());
    }
    process.signal("TERM");
    assert_eq!(process.wait_exit(PATIENCE).code, Some(0));
}
