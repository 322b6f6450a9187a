//! The variables that a server was started with, by their names, as its successor must have them.

use std::ffi::OsString;

use super::args::RunArgs;
use super::environment::{TOKEN, is_blank};
use crate::admin::Access;
use crate::config::{AdminSettings, Config};
use crate::server::StartEnvironment;

/// What begins the name of each variable, and the rest of those that `run` reads and that change what it does: without
/// `TOLLGATE_LOG` it tells less or more.
const PREFIX: &str = "TOLLGATE_";
const OF_RUN: [&str; 7] = ["ADMIN", "ADMIN_TOKEN", "BACKENDS", "BALANCE", "DATABASE", "FLEET", "LISTEN"];

/// The names of the variables with which `run` was started, which its successor must have, too.
///
/// In the place of a variable may be its flag, and in that of the token whatever closes the admin API or would not ask for
/// one.
pub(super) fn at_start(
    args: &RunArgs,
    config: &Config,
    variables: impl Iterator<Item = (OsString, OsString)>,
) -> StartEnvironment {
    let is_open = |admin: &AdminSettings| admin.access == Access::Loopback;
    let in_place = [
        (args.admin.is_some(), "TOLLGATE_ADMIN"),
        (!config.admin.as_ref().is_some_and(is_open), TOKEN),
        (!args.backend.is_empty(), "TOLLGATE_BACKENDS"),
        (args.balance.is_some(), "TOLLGATE_BALANCE"),
        (args.database.is_some(), "TOLLGATE_DATABASE"),
        (!args.listen.is_empty(), "TOLLGATE_LISTEN"),
        (config.fleet.is_some(), "TOLLGATE_FLEET"),
    ];
    let in_place = in_place.into_iter().filter(|(is_there, _)| *is_there).map(|(_, name)| name.to_owned());
    let mut environment = StartEnvironment { given: Vec::new(), answered: in_place.collect() };
    for (name, value) in variables {
        let Some((name, rest)) = name.to_str().and_then(|name| Some((name, name.strip_prefix(PREFIX)?))) else {
            continue;
        };
        environment.answered.push(name.to_owned());
        if OF_RUN.contains(&rest) && !is_blank(&value) {
            environment.given.push(name.to_owned());
        }
    }
    environment.given.sort_unstable();
    environment
}

#[cfg(test)]
mod tests {
    use std::os::unix::ffi::OsStringExt;

    use clap::Parser;

    use super::super::args::Args;
    use super::*;

    #[test]
    fn a_process_tells_which_variables_count_and_which_it_does_not_lack() {
        let told = |flags: &[&str], file: &str, variables: &[(&str, &[u8])]| {
            let dir = tempfile::tempdir().unwrap();
            let conf = dir.path().join("a.yaml");
            std::fs::write(&conf, format!("listeners: [{{address: 127.0.0.1:1}}]\n{file}")).unwrap();
            std::fs::write(dir.path().join("tokens"), "0123456789abcdef\n").unwrap();
            let all = ["--backend", "127.0.0.1:2"].iter().chain(flags);
            let args = Args::try_parse_from(["tollgate"].iter().chain(all)).unwrap().run;
            let mut overrides = args.overrides(|_| None).unwrap();
            overrides.directory = Some(dir.path().to_owned());
            let config = crate::config::load(Some(&conf), &overrides).unwrap();
            let variables = variables.iter().map(|(name, value)| (name.into(), OsString::from_vec(value.to_vec())));
            let StartEnvironment { given, mut answered } = at_start(&args, &config, variables);
            answered.sort();
            (given.join(" "), answered.join(" "))
        };
        let of = |given: &str, answered: &str| (given.to_owned(), answered.to_owned());
        assert_eq!(told(&[], "", &[]), of("", "TOLLGATE_BACKENDS"));
        let set = [
            ("TOLLGATE_LOG", &b"debug"[..]),
            ("TOLLGATE_BALANCE", b"\xff"),
            ("TOLLGATE_FLEET", b" "),
            ("TOLLGATE_ADMIN_TOKEN", b"0123456789abcdef"),
            ("TOLLGATE_LATER", b"1"),
            ("HOME", b"/"),
        ];
        let answered =
            "TOLLGATE_ADMIN_TOKEN TOLLGATE_BACKENDS TOLLGATE_BALANCE TOLLGATE_FLEET TOLLGATE_LATER TOLLGATE_LOG";
        assert_eq!(told(&[], "", &set), of("TOLLGATE_ADMIN_TOKEN TOLLGATE_BALANCE", answered));
        let fleet = "fleet: {store: \"redis://127.0.0.1:1\"}";
        assert_eq!(told(&[], fleet, &[]), of("", "TOLLGATE_BACKENDS TOLLGATE_FLEET"));
        let flags = ["--listen", "127.0.0.1:1", "--balance", "random", "--admin", "127.0.0.1:3", "--database", "a.db"];
        let twins = "TOLLGATE_ADMIN TOLLGATE_BACKENDS TOLLGATE_BALANCE TOLLGATE_DATABASE TOLLGATE_LISTEN";
        assert_eq!(told(&flags, "", &[]), of("", twins));
        let places = ["token_file: tokens", "address: null", "address: \"unix:a.sock\""];
        for closed in places.map(|place| format!("admin: {{{place}}}")) {
            assert_eq!(told(&[], &closed, &[]), of("", "TOLLGATE_ADMIN_TOKEN TOLLGATE_BACKENDS"), "{closed}");
        }
    }
}
