//! Environment variables: read by the command that they are for, and by no other; empty is as good as unset, but for
//! the token.

use std::ffi::OsStr;
use std::os::unix::ffi::OsStrExt;

use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::process::run;
use crate::harness::server::{Tollgate, command};
use crate::harness::setup::Setup;

/// The variables of `run`, which `check` judges by, too, and what is wrong for each.
const WRONG: [(&str, &str); 6] = [
    ("TOLLGATE_LISTEN", "bogus"),
    ("TOLLGATE_BACKENDS", "bogus"),
    ("TOLLGATE_BALANCE", "bogus"),
    ("TOLLGATE_ADMIN", "bogus"),
    ("TOLLGATE_DATABASE", "bogus/"),
    ("TOLLGATE_FLEET", "redis://bogus:0"),
];

const TOKEN: &str = "TOLLGATE_ADMIN_TOKEN";

/// A good file, and the directory that holds it.
fn good_file() -> (TempDir, String) {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("good.yaml");
    let yaml = Setup::default().pool("app", &["127.0.0.1:9".parse().unwrap()], "").yaml();
    std::fs::write(&file, yaml.replace("$LISTEN", "127.0.0.1:1")).unwrap();
    (directory, file.to_str().unwrap().to_owned())
}

#[test]
fn a_wrong_variable_of_run_does_not_stop_other_commands() {
    for (name, wrong) in WRONG {
        for args in [&["schema"][..], &["completions", "bash"], &["--version"]] {
            let finished = run(command().args(args).env(name, wrong));
            assert_eq!(finished.code, Some(0), "{name} {args:?}: {finished:?}");
        }
    }
}

#[test]
fn a_wrong_variable_is_2_for_run_and_check_and_named() {
    let (_directory, good) = good_file();
    for (name, wrong) in WRONG {
        let check = ["check", "-c", &good];
        for args in [&["run", "-c", &good][..], &["run", "-t", "-c", &good], &["-t", "-c", &good], &check] {
            let finished = run(command().args(args).env(name, wrong));
            assert_eq!(finished.code, Some(2), "{name} {args:?}: {finished:?}");
            assert!(finished.all().contains(name) && finished.all().contains("bogus"), "{name} {args:?}: {finished:?}");
        }
    }
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let a = Backend::echo("a");
    let yaml = Setup::default().pool("default", &[a.address], "");
    let yaml = yaml.line("admin: {address: $ADMIN}").line("database: $DIR/tollgate.db").yaml();
    let empty = WRONG.map(|(name, _)| (name, ""));
    let server = Tollgate::start(&yaml, &["run", "-c", "$FILE"], &empty, false);
    assert_eq!(server.client().get("/").unwrap().backend(), "a");
    // And where something is needed, nothing is not enough.
    let finished = run(command().arg("run").envs(empty));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.err.contains("nothing to serve"), "{finished:?}");
}

#[test]
fn a_flag_wins_over_a_wrong_variable_only_by_being_right() {
    let a = Backend::echo("a");
    let backend = a.address.to_string();
    let args = ["run", "--listen", "$LISTEN", "--backend", &backend, "--balance", "random"];
    let server = Tollgate::from_args(&args, &[("TOLLGATE_BALANCE", "least_connections")]);
    assert_eq!(server.client().get("/").unwrap().backend(), "a");
}

#[test]
fn the_token_counts_for_run_and_check_and_is_never_shown() {
    let directory = TempDir::new().unwrap();
    let file = directory.path().join("open.yaml");
    let yaml = Setup::default().pool("app", &["127.0.0.1:9".parse().unwrap()], "").line("admin: {address: 0.0.0.0:2}");
    std::fs::write(&file, yaml.yaml().replace("$LISTEN", "127.0.0.1:1")).unwrap();
    for args in [["check", "-c"].as_slice(), &["run", "-t", "-c"]] {
        let with = |token: &str| run(command().args(args).arg(&file).env(TOKEN, token));
        let without = run(command().args(args).arg(&file));
        assert_eq!(without.code, Some(2), "{without:?}");
        assert!(without.all().contains("admin.address: must be a loopback address"), "{without:?}");
        let good = with("0123456789abcdef");
        assert_eq!(good.code, Some(0), "{good:?}");
        let short = with("hunter2");
        assert_eq!(short.code, Some(2), "{short:?}");
        assert!(short.all().contains("TOLLGATE_ADMIN_TOKEN: a token must be 16 to 4096"), "{short:?}");
        assert!(!short.all().contains("hunter2"), "{short:?}");
    }
    assert_eq!(run(command().arg("schema").env(TOKEN, "hunter2")).code, Some(0));
}

#[test]
fn a_token_that_is_blank_or_no_text_does_not_leave_the_api_open() {
    let (_directory, good) = good_file();
    let no_text = OsStr::from_bytes(b"0123456789abcdef\xff");
    let runs: [&[&str]; 4] =
        [&["check", "-c", &good], &["run", "-t", "-c", &good], &["run", "-c", &good], &["-t", "-c", &good]];
    for args in runs {
        for token in [OsStr::new(""), OsStr::new(" \n"), no_text] {
            let finished = run(command().args(args).env(TOKEN, token));
            assert_eq!(finished.code, Some(2), "{args:?} {token:?}: {finished:?}");
            for part in ["TOLLGATE_ADMIN_TOKEN: a token must be 16 to 4096 visible ASCII characters", "unset it"] {
                assert!(finished.err.contains(part), "{args:?} {token:?}: {finished:?}");
            }
            assert!(!finished.all().contains("0123456789"), "{finished:?}");
        }
    }
    let list = ["clients", "list", "--admin", "127.0.0.1:1"];
    let finished = run(command().args(list).env(TOKEN, no_text));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.err.contains("TOLLGATE_ADMIN_TOKEN: a token must be"), "{finished:?}");
    // 1, for Docker keeps 2 to itself.
    let finished = run(command().args(["healthcheck", "--admin", "127.0.0.1:1"]).env(TOKEN, no_text));
    assert_eq!(finished.code, Some(1), "{finished:?}");
    assert!(finished.err.contains("TOLLGATE_ADMIN_TOKEN: a token must be"), "{finished:?}");
}

#[test]
fn a_variable_that_is_no_text_is_2_and_named() {
    let (_directory, good) = good_file();
    let no_text = OsStr::from_bytes(b"127.0.0.1:1\xff");
    for name in WRONG.map(|(name, _)| name) {
        let finished = run(command().args(["run", "-t", "-c", &good]).env(name, no_text));
        assert_eq!(finished.code, Some(2), "{name}: {finished:?}");
        assert!(finished.err.contains(&format!("{name}: must be text in UTF-8")), "{name}: {finished:?}");
    }
    let finished = run(command().args(["run", "-c", &good]).env("TOLLGATE_LOG", no_text));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.err.contains("TOLLGATE_LOG must be a level"), "{finished:?}");
    let finished = run(command().args(["clients", "list"]).env("TOLLGATE_ADMIN", no_text));
    assert_eq!(finished.code, Some(2), "{finished:?}");
    assert!(finished.err.contains("TOLLGATE_ADMIN: must be text in UTF-8"), "{finished:?}");
}
