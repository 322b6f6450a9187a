//! A configuration, or a file that it names, that is no file, or takes too much to read: answered soon, with the
//! reason.

use std::fs;
use std::os::unix::fs::symlink;
use std::path::Path;
use std::time::Duration;

use nix::sys::stat::Mode;
use nix::unistd::mkfifo;

use crate::harness::backend::Backend;
use crate::harness::now;
use crate::harness::process::run;
use crate::harness::server::{Tollgate, command};
use crate::harness::setup::{NO_CHECK, Setup};

/// What an answer may take.
const SOON: Duration = Duration::from_secs(2);

type Make = fn(&Path);

/// What may stand in the place of a file.
const THINGS: [(Make, &str); 5] = [
    (|path| mkfifo(path, Mode::S_IRWXU).unwrap(), "nothing more came out of it within 1 s, and no end"),
    (|path| symlink("/dev/zero", path).unwrap(), "this is a device, not a file"),
    (|path| symlink("/dev/tty", path).unwrap(), "this is a device, not a file"),
    (|path| fs::create_dir(path).unwrap(), "this is a directory, not a file"),
    (|path| fs::File::create(path).unwrap().set_len(1 << 30).unwrap(), "the file is larger than"),
];

fn remove(path: &Path) {
    if fs::remove_file(path).is_err() {
        fs::remove_dir(path).unwrap();
    }
}

/// The most memory that it has taken so far, in KiB.
fn peak(server: &Tollgate) -> u64 {
    let status = fs::read_to_string(format!("/proc/{}/status", server.process.id())).unwrap();
    let line = status.lines().find_map(|line| line.strip_prefix("VmHWM:")).unwrap();
    line.split_whitespace().next().unwrap().parse().unwrap()
}

#[track_caller]
fn refused(server: &Tollgate, what: &str) {
    let start = now();
    let answer = server.ask("POST", "/config/reload", "");
    let (took, text) = (now() - start, answer.text());
    assert!(answer.status == 422 && text.contains(what), "{what}: {} {text}", answer.status);
    assert!(took < SOON, "{what}: {took:?}");
}

#[test]
fn a_reload_and_a_check_of_anything_are_answered_soon() {
    let backend = [Backend::scripted("a")];
    let mut server = Setup::app(&backend, NO_CHECK).start();
    let file = server.path("tollgate.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let check = |what: &str| {
        let start = now();
        let checked = run(command().args(["check", "-c"]).arg(&file));
        assert!(checked.code == Some(2) && checked.out.contains(what), "{what}: {checked:?}");
        assert!(now() - start < SOON, "{what}: {:?}", now() - start);
    };
    let before = peak(&server);
    for (make, what) in THINGS {
        remove(&file);
        make(&file);
        refused(&server, what);
        check(what);
    }
    remove(&file);
    let nines = |name: &str| [format!("*{name}").as_str(); 9].join(",");
    let laughs: String =
        ["a", "b", "c", "d", "e", "f"].windows(2).map(|p| format!("{0}: &{0} [{1}]\n", p[1], nines(p[0]))).collect();
    let long = format!("a: &a {}\nb: [{}]\n", "x".repeat(500_000), ["*a"; 50_000].join(","));
    for (text, what) in [
        ("[".repeat(100_000), "nested more than"),
        ("{a: ".repeat(100_000), "nested more than"),
        ("- ".repeat(100_000), "recursion limit"),
        (format!("a: &a [x,x,x,x,x,x,x,x,x]\n{laughs}"), "aliases that stand for too many"),
        (long, "aliases that stand for too many"),
    ] {
        fs::write(&file, text).unwrap();
        refused(&server, what);
        check(what);
    }
    let grown = peak(&server) - before;
    assert!(grown < 200 << 10, "{grown} KiB more");
    assert!(server.answers(), "the old one stays in force");
    fs::write(&file, good).unwrap();
    assert_eq!(server.ask("POST", "/config/reload", "").status, 200);
}

#[test]
fn so_is_one_whose_certificate_key_or_tokens_are_anything() {
    let backend = [Backend::scripted("a")];
    let server = Setup::app(&backend, NO_CHECK).start();
    let file = server.path("tollgate.yaml");
    let good = fs::read_to_string(&file).unwrap();
    let named = server.path("named");
    let name = named.display();
    let tls = good.replacen("]\n", &format!(", {{address: 127.0.0.1:1, tls: {{cert: {name}, key: {name}}}}}]\n"), 1);
    let tokens = format!("{good}admin: {{address: {}, token_file: {name}}}\n", server.admin);
    for (make, what) in THINGS {
        make(&named);
        fs::write(&file, &tokens).unwrap();
        refused(&server, what);
        fs::write(&file, &tls).unwrap();
        refused(
            &server,
            if what.starts_with("nothing") || what.contains("device") { "not a regular file" } else { what },
        );
        remove(&named);
    }
}

#[test]
fn a_pipe_of_the_shell_is_a_file_to_check() {
    let backend = [Backend::scripted("a")];
    let yaml = Setup::app(&backend, NO_CHECK).yaml().replace("$LISTEN", "127.0.0.1:8080");
    let mut shell = command_in_shell(&yaml);
    let checked = run(&mut shell);
    assert_eq!(checked.code, Some(0), "{checked:?}");
}

fn command_in_shell(yaml: &str) -> std::process::Command {
    let binary = command();
    let mut shell = std::process::Command::new("sh");
    let line = r#"printf '%s' "$1" | "$0" check -c /dev/stdin"#;
    shell.args(["-c", line]).arg(binary.get_program()).arg(yaml);
    shell
}
