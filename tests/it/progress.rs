//! What takes long shows a bar on a terminal, and nothing elsewhere. The terminal is one that `script` opens.

use std::fmt::Write as _;
use std::process::Command;

use crate::harness::backend::Backend;
use crate::harness::fleet::Fleet;
use crate::harness::instance::Instance;
use crate::harness::process::run;
use crate::harness::server::command;
use crate::harness::setup::{NO_CHECK, Setup};
use crate::harness::store::Engine;

/// What `tollgate` with these arguments, and none that a shell would touch, shows on a terminal, before it ends with `code`.
fn on_a_terminal(arguments: &[&str], code: i32) -> String {
    let mut script = Command::new("script");
    let typed = format!("{} {}", env!("CARGO_BIN_EXE_tollgate"), arguments.join(" "));
    let done = run(script.args(["--quiet", "--return", "--command", &typed, "/dev/null"]).env("TERM", "xterm"));
    assert_eq!(done.code, Some(code), "{done:?}");
    done.out
}

#[test]
fn an_import_shows_how_far_it_is_on_a_terminal_alone() {
    let backend = Backend::scripted("a");
    let server = Setup::default().pool("app", &[backend.address], NO_CHECK).start();
    let place = tempfile::tempdir().unwrap();
    let file = place.path().join("clients.ndjson");
    let mut lines = String::new();
    for number in 0..20_000 {
        writeln!(lines, r#"{{"client_id":"c{number}","capacity":10,"rate_per_sec":1}}"#).unwrap();
    }
    std::fs::write(&file, lines).unwrap();
    let (file, admin) = (file.to_str().unwrap(), server.admin.to_string());
    let apply = ["clients", "apply", file, "--admin", &admin];
    let shown = on_a_terminal(&apply, 0);
    assert!(shown.contains(&format!("sending {file}")) && shown.contains("B/s"), "{shown:?}");
    // The API says how far it is with what it has.
    assert!(shown.contains("changing clients: ") && shown.contains("/20,000, "), "{shown:?}");
    assert!(shown.contains("changing clients: ") && shown.contains("20000"), "{shown:?}");
    // It is wiped away before the outcome is said.
    let outcome = shown.rsplit("\x1b[2K").next().unwrap();
    assert!(!outcome.contains("sending") && outcome.contains("20000"), "{outcome:?}");
    let piped = run(command().args(apply));
    assert_eq!((piped.code, &*piped.err), (Some(0), ""), "{piped:?}");
    assert!(!piped.out.contains('\x1b'), "{piped:?}");
}

#[test]
fn a_node_that_takes_in_a_fleets_clients_shows_how_far_it_is_on_a_terminal_alone() {
    let fleet = Fleet::start(Engine::all()[0], 1, "", "");
    fleet.create("a", 5, 1.0);
    let mut node = Instance::start(fleet.backend.address, "");
    node.stop();
    let upstreams = format!("upstreams: [{{name: app, backends: [{{address: \"{}\"}}]}}]", fleet.backend.address);
    // What it comes to next ends it.
    node.configure(&format!("access_log: {{path: /dev/null/no}}\n{upstreams}\n{}", fleet.lines("late")));
    let file = node.file();
    let typed = ["run", "-c", file.to_str().unwrap()];
    let shown = on_a_terminal(&typed, 1);
    assert!(shown.contains("taking in the fleet's clients") && shown.contains("/s, "), "{shown:?}");
    let said = shown.rsplit("\x1b[2K").next().unwrap();
    assert!(said.contains("/dev/null/no") && !said.contains("taking in"), "{said:?}");
    let piped = run(command().args(typed));
    assert!(piped.code == Some(1) && !piped.err.contains("taking in"), "{piped:?}");
}
