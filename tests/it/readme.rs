//! The README's walk through a client's life, typed line by line as it stands there.

use std::process::Command;

use crate::harness::client::Client;
use crate::harness::instance::Instance;
use crate::harness::ports::free_address;
use crate::harness::process::Process;
use crate::harness::server::command;
use crate::harness::{PATIENCE, eventually};

const README: &str = include_str!("../../README.md");
/// The heading above the walk.
const HEADING: &str = "### A client's life";

/// A command and what it prints, in which `…` stands for anything.
#[derive(Debug)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// The commands of the first block below the heading.
fn steps() -> Vec<Step> {
    let section = README.split_once(HEADING).expect("the README has the heading").1;
    let block = section.split_once("```sh\n").unwrap().1.split_once("```").unwrap().0;
    let mut steps: Vec<Step> = Vec::new();
    for line in block.lines() {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), output: Vec::new() }),
            (None, Some(step)) if step.command.ends_with('\\') => {
                step.command.truncate(step.command.len() - 1);
                step.command.push_str(line.trim_start());
            }
            (None, Some(step)) => step.output.push(line.to_owned()),
            (None, None) => panic!("the block starts with {line:?}, not with a command"),
        }
    }
    steps
}

/// Whether `text` is `pattern` with something, or nothing, for each `…`.
fn fits(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = parts.next().and_then(|first| text.strip_prefix(first)) else { return false };
    let mut last = None;
    for part in parts {
        if let Some(between) = last.replace(part) {
            match rest.find(between) {
                Some(at) => rest = &rest[at + str::len(between)..],
                None => return false,
            }
        }
    }
    last.map_or(rest.is_empty(), |last| rest.ends_with(last))
}

#[test]
fn the_walk_through_a_clients_life_is_as_the_readme_has_it() {
    let backend = free_address();
    let _echo = Process::start(command().args(["echo", "--name", "a", "--listen", &backend.to_string()]));
    let server = Instance::start(backend, "");
    assert!(eventually(PATIENCE, || Client::connect(server.address).get("/").is_ok_and(|answer| answer.status == 200)));
    let steps = steps();
    assert!(steps.len() >= 8, "only {} commands: {steps:?}", steps.len());
    for Step { command, output } in steps {
        let typed = command
            .replace("127.0.0.1:8080", &server.address.to_string())
            .replace("127.0.0.1:9901", &server.admin.to_string());
        let run = Command::new("sh").args(["-c", &typed]).output().unwrap();
        let printed = String::from_utf8_lossy(&run.stdout).replace("\r\n", "\n");
        assert!(run.status.success(), "`{typed}` (is curl installed?): {}", String::from_utf8_lossy(&run.stderr));
        let expected = output.join("\n");
        assert!(fits(expected.trim_end(), printed.trim_end()), "`{command}` printed\n{printed}\nand not\n{expected}");
    }
}

#[test]
fn a_pattern_fits_what_it_should() {
    for (pattern, text, expected) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("…", "", true),
        ("a…c", "abc", true),
        ("a…c", "ab", false),
        ("a…b…c", "a1b2c", true),
        ("a…b…c", "a1c", false),
        ("…b…", "abc", true),
        ("{…\"x\":1,…}", "{\"y\":2,\"x\":1,\"z\":3}", true),
    ] {
        assert_eq!(fits(pattern, text), expected, "{pattern} {text}");
    }
}
