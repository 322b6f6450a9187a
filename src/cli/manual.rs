//! The manual page, `packaging/man/tollgate.1`.
//!
//! The problem: a page that is written by hand forgets the flag of last week. The rule: what the arguments know is made
//! from them, command by command; what they do not know (files, signals, examples) is prose in
//! `packaging/man/tollgate.1.in`, which has the two meet at one line. A test keeps the committed page equal, `make man`
//! writes it anew, and a package is built without running anything.
//!
//! Refused: a page for each command, as `clap_mangen` writes them by itself. That is seventeen pages with a line or two
//! each, and nobody finds the flag of `clients add` by searching `man tollgate`.

use clap::{Arg, Command, CommandFactory};
use clap_mangen::Man;

use super::args::Args;

const TEMPLATE: &str = include_str!("../../packaging/man/tollgate.1.in");
/// The line of the template that the commands take the place of.
const COMMANDS: &str = ".\\\" @COMMANDS@\n";
/// The word of the template that the version takes the place of.
const VERSION: &str = "@VERSION@";

/// The whole page, in the macros of man(7).
fn page() -> String {
    let tollgate = Args::command();
    let mut commands = String::new();
    for command in tollgate.get_subcommands() {
        write_command(&mut commands, "tollgate", command);
    }
    TEMPLATE.replacen(COMMANDS, &commands, 1).replace(VERSION, env!("CARGO_PKG_VERSION"))
}

/// Writes what `command` does and takes, and then the same of the commands below it.
fn write_command(page: &mut String, parent: &str, command: &Command) {
    if command.is_hide_set() {
        return;
    }
    let name = format!("{parent} {}", command.get_name());
    // A command on its own: flags that one above it hands down are told there, and --help needs no telling.
    let mut alone = command.clone().bin_name(&name).disable_help_flag(true).disable_help_subcommand(true);
    alone.build();
    let mut alone = alone.mut_args(with_its_values);
    let usage = alone.render_usage().to_string();
    let usage = usage.strip_prefix("Usage: ").unwrap_or(&usage);
    page.push_str(&format!(".SS {}\n", in_one_argument(usage)));
    let about = command.get_about().map(ToString::to_string).unwrap_or_default();
    page.push_str(&folded(&with_code(&escaped(&format!("{about}.")))));
    if command.has_subcommands() {
        page.push_str(&handed_down(command, &name));
    }
    let mut options = Vec::new();
    Man::new(alone).render_options_section(&mut options).expect("a vector takes every byte");
    let options = String::from_utf8(options).expect("the text of arguments is UTF-8");
    page.extend(options.lines().skip_while(|line| !line.starts_with(".SH")).map(line_of_option));
    command.get_subcommands().for_each(|below| write_command(page, &name, below));
}

/// A sentence on the flags that the commands below this one take, too.
fn handed_down(command: &Command, name: &str) -> String {
    let flags = command.get_arguments().filter(|flag| flag.is_global_set()).filter_map(Arg::get_long);
    let flags: Vec<_> = flags.map(|flag| format!("\\fB\\-\\-{}\\fR", escaped(flag))).collect();
    folded(&format!("All commands of \\fB{}\\fR take {}.", escaped(name), flags.join(", ")))
}

/// Tells the values that an argument may have in its sentence, where a list of them would take half a screen.
fn with_its_values(argument: Arg) -> Arg {
    let values: Vec<_> = argument.get_possible_values().iter().map(|value| value.get_name().to_owned()).collect();
    let help = argument.get_help().map(ToString::to_string).unwrap_or_default();
    match values.split_last() {
        Some((last, others)) if !others.is_empty() => {
            argument.help(format!("{help}: {} or {last}", others.join(", "))).hide_possible_values(true)
        }
        _ => argument,
    }
}

/// A line of a section of options, as it stands within a command's own section.
fn line_of_option(line: &str) -> String {
    match line {
        heading if heading.starts_with(".SH ") => String::new(),
        request if request.starts_with('.') => format!("{request}\n"),
        text => folded(&with_code(text).replace("\\*(Aq", "\\(aq")),
    }
}

/// `text` in lines of no more than 80 characters. A word that would be a request at the start of a line stays on the
/// one before.
fn folded(text: &str) -> String {
    let mut lines = String::new();
    let mut width = 0;
    for word in text.split(' ') {
        if width > 0 && (width + 1 + word.len() <= 80 || word.starts_with(['.', '\''])) {
            lines.push(' ');
            width += 1;
        } else if width > 0 {
            lines.push('\n');
            width = 0;
        }
        lines.push_str(word);
        width += word.len();
    }
    lines.push('\n');
    lines
}

/// `text` as one argument of a macro.
fn in_one_argument(text: &str) -> String {
    format!("\"{}\"", escaped(text).replace('"', "\\(dq"))
}

/// `text` with nothing in it that the formatter takes for its own.
fn escaped(text: &str) -> String {
    text.replace('\\', "\\e").replace('-', "\\-")
}

/// Sets what stands between backquotes in bold, which is what they are for on a terminal.
fn with_code(line: &str) -> String {
    let mut parts = line.split('`');
    let mut text = parts.next().unwrap_or_default().to_owned();
    for (at, part) in parts.enumerate() {
        text.push_str(if at % 2 == 0 { "\\fB" } else { "\\fR" });
        text.push_str(part);
    }
    text
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    use super::*;

    /// `UPDATE=1` in the environment writes the page anew, which is what `make man` does.
    #[test]
    fn the_committed_page_is_the_one_of_the_code() {
        let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("packaging/man/tollgate.1");
        if std::env::var_os("UPDATE").is_some() {
            std::fs::write(&path, page()).unwrap();
        }
        let committed = std::fs::read_to_string(&path).unwrap_or_default();
        assert!(committed == page(), "packaging/man/tollgate.1 is not what the code says: run `make man`");
    }
    /// What a command takes, and what the commands below it take.
    fn flags(command: &Command) -> Vec<String> {
        let own = command.get_arguments().filter_map(Arg::get_long).map(str::to_owned);
        own.chain(command.get_subcommands().flat_map(flags)).collect()
    }

    #[test]
    fn every_flag_is_on_the_page_and_nothing_of_the_frame_is_left() {
        let page = page();
        let flags = flags(&Args::command());
        assert!(flags.len() > 20, "{flags:?}");
        for flag in flags {
            let bold = format!("\\fB\\-\\-{}\\fR", escaped(&flag));
            assert!(page.lines().any(|line| line.contains(&bold)), "--{flag} is not told");
        }
        for left in ["@", "`", "\\*"] {
            assert!(!page.replace(". _ : @ /", "").contains(left), "{left:?} is left over");
        }
    }

    #[test]
    fn no_word_of_a_sentence_becomes_a_request_of_the_formatter() {
        let text = format!("{} .br 'br end", "a".repeat(79));
        assert_eq!(folded(&text), format!("{} .br 'br\nend\n", "a".repeat(79)));
        assert_eq!(escaped("a-b\\fB"), "a\\-b\\efB");
        assert_eq!(with_code("see `run` and `-c`"), "see \\fBrun\\fR and \\fB-c\\fR");
    }
}
