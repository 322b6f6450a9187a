//! Environment variables: read by the command that they are for, and by no other; empty is as good as unset.

use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::process::run;
use crate::harness::server::{Tollgate, command};
use crate::harness::setup::Setup;

const NAMES: [&str; 3] = ["TOLLGATE_LISTEN", "TOLLGATE_BACKENDS", "TOLLGATE_BALANCE"];

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
    let (_directory, good) = good_file();
    for name in NAMES {
        for args in [&["schema"][..], &["check", "-c", &good], &["completions", "bash"], &["--version"]] {
            let finished = run(command().args(args).env(name, "bogus"));
            assert_eq!(finished.code, Some(0), "{name} {args:?}: {finished:?}");
        }
    }
}

#[test]
fn a_wrong_variable_is_2_for_run_and_named() {
    let (_directory, good) = good_file();
    for name in NAMES {
        for args in [&["run", "-c", &good][..], &["run", "-t", "-c", &good], &["-t", "-c", &good]] {
            let finished = run(command().args(args).env(name, "bogus"));
            assert_eq!(finished.code, Some(2), "{name} {args:?}: {finished:?}");
            assert!(finished.all().contains(name) && finished.all().contains("bogus"), "{name} {args:?}: {finished:?}");
        }
    }
}

#[test]
fn an_empty_variable_is_as_good_as_none() {
    let a = Backend::echo("a");
    let yaml = Setup::default().pool("default", &[a.address], "").yaml();
    let empty = NAMES.map(|name| (name, ""));
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
