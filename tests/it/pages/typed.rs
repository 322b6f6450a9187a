//! Commands of the pages, typed line by line as they stand there.
//!
//! A block of `sh` whose lines start with `$ ` is typed, and prints what stands below each command, in which `…` is
//! anything. A command that ends in `&` stays. A block of `yaml` below a line that ends in "Save this as `NAME`:" is
//! saved. Blocks without a prompt set a machine up, and are not typed.

use super::markdown::{Block, Page, Section};
use super::stage::Stage;
use super::{CLIENTS, CONFIGURATION, LIMITS, OPERATIONS, README, TLS};

/// What `make test-docker` types.
const ELSEWHERE: &str = "In containers";

/// A command and what it prints.
#[derive(Debug)]
struct Step {
    command: String,
    output: Vec<String>,
}

/// The commands of a block.
fn steps(block: &Block) -> Vec<Step> {
    let mut steps: Vec<Step> = Vec::new();
    for line in &block.lines {
        match (line.strip_prefix("$ "), steps.last_mut()) {
            (Some(command), _) => steps.push(Step { command: command.to_owned(), output: Vec::new() }),
            (None, Some(step)) if step.output.is_empty() && step.command.ends_with('\\') => {
                step.command.truncate(step.command.len() - 1);
                step.command.push_str(line.trim_start());
            }
            (None, Some(step)) => step.output.push(line.clone()),
            (None, None) => panic!("the block starts with {line:?}, not with a command"),
        }
    }
    steps
}

fn is_typed(block: &Block) -> bool {
    block.language == "sh" && block.lines.first().is_some_and(|line| line.starts_with("$ "))
}

/// Types a section on a stage of its own, and returns how many commands it has.
fn type_section(page: &Page, section: &Section) -> usize {
    let mut steps_of: Vec<_> = section.blocks.iter().filter(|block| is_typed(block)).map(steps).collect();
    if steps_of.is_empty() || section.heading == ELSEWHERE {
        return 0;
    }
    let commands: Vec<_> = steps_of.iter().flatten().map(|step| &*step.command).collect();
    let (count, place) = (commands.len(), format!("{}, {}", page.path, section.heading));
    let mut stage = Stage::for_commands(&commands);
    for block in &section.blocks {
        if let Some((_, name)) = block.before.strip_suffix("`:").and_then(|text| text.split_once("Save this as `")) {
            stage.save(name, &block.lines.join("\n"));
        } else if is_typed(block) {
            for Step { command, output } in steps_of.remove(0) {
                let (printed, expected) = (stage.type_in(&command, &place), output.join("\n"));
                let told = fits(expected.trim_end(), printed.trim_end());
                assert!(told, "{place}: `{command}` printed\n{printed}\nand not\n{expected}");
            }
        }
    }
    stage.check(&place);
    count
}

/// Types a page, which has at least so many commands.
fn type_page(page: &Page, at_least: usize) {
    let count: usize = page.sections().iter().map(|section| type_section(page, section)).sum();
    assert!(count >= at_least, "{}: only {count} commands are typed", page.path);
}

#[test]
fn the_readme_is_as_it_is_typed() {
    type_page(&README, 20);
}

#[test]
fn the_page_on_limits_is_as_it_is_typed() {
    type_page(&LIMITS, 4);
}

#[test]
fn the_page_on_clients_is_as_it_is_typed() {
    type_page(&CLIENTS, 8);
}

#[test]
fn the_page_on_the_configuration_is_as_it_is_typed() {
    type_page(&CONFIGURATION, 2);
}

#[test]
fn the_page_on_tls_is_as_it_is_typed() {
    type_page(&TLS, 2);
}

#[test]
fn the_page_on_operations_is_as_it_is_typed() {
    type_page(&OPERATIONS, 12);
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
