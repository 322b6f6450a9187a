//! The house rules that a compiler does not know, kept by reading the sources.
//!
//! A module imports only from floors below its own, so the picture in `src/lib.rs` cannot drift from the code. The reading is
//! done on tokens, not on lines: comments, strings and lifetimes are no imports, and `use crate::{a, b::c}` is two.

#[cfg(test)]
#[path = "floors/tokens.rs"]
mod tokens;

#[cfg(test)]
mod checks {
    use std::collections::BTreeSet;
    use std::path::Path;

    use crate::tokens::{Token, tokens};

    /// The modules and their floors.
    const FLOORS: &[(&str, u8)] = &[
        ("clock", 0),
        ("client", 0),
        ("decimal", 0),
        ("limit", 0),
        ("route", 0),
        ("tls", 1),
        ("upstream", 1),
        ("store", 2),
        ("proxy", 3),
        ("telemetry", 3),
        ("admin", 4),
        ("process", 4),
        ("config", 5),
        ("server", 5),
        ("cli", 6),
        ("main", 7),
    ];

    /// Imports within a floor that are allowed all the same: a bucket is under a client's quota, the proxy writes access
    /// records, the server builds from the configuration.
    const SAME_FLOOR: &[(&str, &str)] = &[("limit", "client"), ("proxy", "telemetry"), ("server", "config")];

    /// Imports from a lower floor that are refused all the same: no database on the request path, and an admin interface that
    /// works whatever the proxy does.
    const REFUSED: &[(&str, &str)] = &[("proxy", "store"), ("admin", "proxy")];

    /// Libraries that only some modules may name.
    const LIBRARIES: &[(&str, &[&str])] = &[
        ("rusqlite", &["store::sqlite"]),
        ("clap", &["cli", "main"]),
        ("clap_complete", &["cli", "main"]),
        ("clap_mangen", &["cli"]),
        ("pingora_proxy", &["proxy", "server"]),
        ("pingora_load_balancing", &["upstream", "server"]),
        ("serde_yaml", &["config"]),
        ("axum", &["admin"]),
        ("utoipa", &["admin"]),
        ("prometheus_client", &["telemetry"]),
    ];

    /// Names that say nothing about what is inside.
    const EMPTY_NAMES: &[&str] = &["utils", "util", "common", "helpers", "helper", "types", "manager", "misc"];

    /// Where a token stands: the file's module path and the inline modules around it.
    fn places(tokens: &[(usize, Token)], file: &[&str]) -> Vec<Vec<String>> {
        let mut path: Vec<String> = file.iter().map(|part| (*part).to_owned()).collect();
        let (mut depth, mut opened) = (0, Vec::new());
        let mut places = Vec::with_capacity(tokens.len());
        for (at, (_, token)) in tokens.iter().enumerate() {
            match token {
                Token::Mark("{") => {
                    depth += 1;
                    if let [.., (_, Token::Word(keyword)), (_, Token::Word(name))] = &tokens[..at]
                        && keyword == "mod"
                    {
                        path.push(name.clone());
                        opened.push(depth);
                    }
                }
                Token::Mark("}") => {
                    if opened.last() == Some(&depth) {
                        opened.pop();
                        path.pop();
                    }
                    depth -= 1;
                }
                _ => {}
            }
            places.push(path.clone());
        }
        places
    }

    /// What a path or a group names first: `a::b` is `a`, `{a, b::{c, d}, self}` is `a`, `b`, `self`.
    fn heads(tokens: &[(usize, Token)]) -> Vec<String> {
        match tokens.first() {
            Some((_, Token::Word(word))) => vec![word.clone()],
            Some((_, Token::Mark("*"))) => vec!["*".to_owned()],
            Some((_, Token::Mark("{"))) => {
                let (mut heads, mut depth, mut fresh) = (Vec::new(), 0, false);
                for (_, token) in tokens {
                    match token {
                        Token::Mark("{") => (depth, fresh) = (depth + 1, depth == 0),
                        Token::Mark("}") => depth -= 1,
                        Token::Mark(",") => fresh = depth == 1,
                        Token::Word(word) if fresh => (heads, fresh) = ([heads, vec![word.clone()]].concat(), false),
                        Token::Mark("*") if fresh => (heads, fresh) = ([heads, vec!["*".to_owned()]].concat(), false),
                        _ => {}
                    }
                    if depth == 0 {
                        break;
                    }
                }
                heads
            }
            _ => Vec::new(),
        }
    }

    fn floor(module: &str) -> Option<u8> {
        FLOORS.iter().find(|(name, _)| *name == module).map(|(_, floor)| *floor)
    }

    /// Why `from` may not import `to`; nothing when it may.
    fn objection(from: &str, to: &str) -> Option<String> {
        let (Some(upper), Some(lower)) = (floor(from), floor(to)) else {
            return Some(format!("`{from}` names `{to}`, which is not a module in the table of floors"));
        };
        let refused = REFUSED.contains(&(from, to));
        let allowed = from == to || lower < upper || SAME_FLOOR.contains(&(from, to));
        (refused || !allowed).then(|| format!("`{from}` (floor {upper}) imports `{to}` (floor {lower})"))
    }

    /// Everything wrong in one file. `file` is its module path: `["upstream", "selector"]`, `["main"]`, or nothing for
    /// `lib.rs`.
    fn problems(file: &[&str], source: &str) -> Vec<String> {
        let tokens = tokens(source);
        let places = places(&tokens, file);
        let mut problems = BTreeSet::new();
        for part in file.iter().filter(|part| EMPTY_NAMES.contains(*part)) {
            problems.insert((0, format!("a module named `{part}` says nothing about what is inside")));
        }
        let word = |at: usize| match tokens.get(at) {
            Some((_, Token::Word(word))) => word.as_str(),
            _ => "",
        };
        let is_path = |at: usize| tokens.get(at).is_some_and(|(_, token)| *token == Token::Mark("::"));
        for (at, (line, token)) in tokens.iter().enumerate() {
            let Token::Word(name) = token else { continue };
            let before = at.checked_sub(1).map(|before| &tokens[before].1);
            let inside = before == Some(&Token::Mark("::")) || before == Some(&Token::Mark("."));
            let mut report = |problem: String| problems.insert((*line, problem));
            match name.as_str() {
                // The allocator cannot be anything else, and is the program's, not a server's.
                "static" if file == ["main"] && word(at + 1) == "ALLOCATOR" => {}
                "static" => {
                    report("a `static` item: state that two servers in one process would share".to_owned());
                }
                "mod" if EMPTY_NAMES.contains(&word(at + 1)) => {
                    report(format!("a module named `{}` says nothing about what is inside", word(at + 1)));
                }
                // The binary's own file names the library by its name.
                "crate" | "tollgate" if !inside && is_path(at + 1) => {
                    let from = file.first().copied().unwrap_or("lib");
                    for to in heads(&tokens[at + 2..]) {
                        if file.is_empty() {
                            continue;
                        }
                        if let Some(objection) = objection(from, &to) {
                            report(objection);
                        }
                    }
                }
                "super" if !inside && is_path(at + 1) => {
                    let ups = (0..).take_while(|up| word(at + 2 * up) == "super" && is_path(at + 2 * up + 1)).count();
                    // Past the top of its own module it is `crate::` by another name.
                    if !file.is_empty() && ups >= places[at].len() {
                        for to in heads(&tokens[at + 2 * ups..]) {
                            if let Some(objection) = objection(file[0], &to) {
                                report(objection);
                            }
                        }
                    }
                }
                _ => {}
            }
            let used = is_path(at + 1) || (matches!(before, Some(Token::Word(keyword)) if keyword == "use"));
            if let Some((_, modules)) = LIBRARIES.iter().find(|(library, _)| library == name)
                && used
                && !inside
            {
                let here = file.join("::");
                if !modules.iter().any(|module| here == *module || here.starts_with(&format!("{module}::"))) {
                    let here = if here.is_empty() { "lib" } else { &here };
                    problems.insert((*line, format!("`{name}` is for {modules:?} only, not for `{here}`")));
                }
            }
        }
        problems.into_iter().map(|(line, problem)| format!("line {line}: {problem}")).collect()
    }

    /// Every source below `directory` with its module path.
    fn sources(directory: &Path, module: &[String], found: &mut Vec<(Vec<String>, String)>) {
        for entry in std::fs::read_dir(directory).unwrap() {
            let path = entry.unwrap().path();
            let stem = path.file_stem().unwrap().to_str().unwrap().to_owned();
            let mut inner = module.to_vec();
            if path.is_dir() {
                inner.push(stem);
                sources(&path, &inner, found);
            } else if path.extension().is_some_and(|extension| extension == "rs") {
                if !matches!(stem.as_str(), "mod" | "lib") {
                    inner.push(stem);
                }
                found.push((inner, std::fs::read_to_string(&path).unwrap()));
            }
        }
    }

    #[test]
    fn the_sources_keep_the_house_rules() {
        let mut found = Vec::new();
        sources(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &[], &mut found);
        assert!(found.len() > 5, "found only {} sources", found.len());
        let mut wrong = Vec::new();
        for (module, source) in &found {
            let path: Vec<_> = module.iter().map(String::as_str).collect();
            if path.first().is_some_and(|top| floor(top).is_none()) {
                wrong.push(format!("{}: not in the table of floors", path.join("::")));
            }
            wrong.extend(problems(&path, source).into_iter().map(|problem| format!("{}: {problem}", path.join("::"))));
        }
        assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
    }

    #[test]
    fn imports_from_below_and_within_are_fine() {
        for (file, source) in [
            (&["proxy"][..], "use crate::{clock::Clock, upstream::{Pool, Lease}, route};"),
            (&["proxy", "reject"], "use crate::proxy::Context; use crate::telemetry::AccessRecord; use super::x;"),
            (&["server"], "use crate::config::Config; fn f() { crate::proxy::new(); }"),
            (
                &["upstream", "selector", "random"],
                "use super::super::Pool; mod tests { use super::super::super::Pool; }",
            ),
            (&["upstream"], "mod tests { use super::*; mod deeper { use super::super::Pool; } }"),
            (&["main"], "static ALLOCATOR: MiMalloc = MiMalloc; fn main() { tollgate::cli::main() }"),
            (
                &["upstream"],
                "// use crate::proxy::X;\n/* crate::proxy /* nested */ crate::cli */ /// [`crate::server`]\nfn f() {}",
            ),
            (&["upstream"], r##"fn f() { g("crate::proxy", r#"use crate::cli;"#, b"crate::cli", '"', '\'', "\\"); }"##),
            (&["upstream"], "fn f(x: &'static str) -> T<'static> { x.tollgate::<A>() }"),
            (&["store", "sqlite", "migrate"], "use rusqlite::Connection;"),
            (&["cli", "args"], "use clap::Parser; use clap;"),
            (&["proxy"], "fn f(clap: u8) -> u8 { clap }"),
        ] {
            assert_eq!(problems(file, source), Vec::<String>::new(), "{source}");
        }
    }

    #[test]
    fn each_breach_is_seen() {
        for (file, source, word) in [
            (&["upstream"][..], "use crate::proxy::X;", "`proxy`"),
            (&["upstream"], "use crate::{clock, proxy::X};", "`proxy`"),
            (&["upstream"], "use crate::{clock::{A, B}, route, config};", "`config`"),
            (&["upstream"], "fn f() { let s = \"x\"; crate::telemetry::log(); }", "`telemetry`"),
            (&["upstream"], "pub(crate) use super::server::Server;", "`server`"),
            (&["upstream", "selector"], "use super::super::{clock, cli};", "`cli`"),
            (&["upstream"], "mod tests { use super::super::proxy::X; }", "`proxy`"),
            (&["clock"], "use crate::route::Route;", "`route`"),
            (&["telemetry"], "use crate::proxy::X;", "`proxy`"),
            (&["config"], "use crate::server::X;", "`server`"),
            (&["proxy"], "use crate::store::X;", "`store`"),
            (&["proxy", "reject"], "type C = crate::config::Config;", "`config`"),
            (&["admin"], "use crate::proxy::X;", "`proxy`"),
            (&["server"], "use crate::cli::Args;", "`cli`"),
            (&["server"], "use crate::Everything;", "`Everything`"),
            (&["proxy"], "use crate::*;", "`*`"),
            (&["proxy"], "macro_rules! m { () => { $crate::cli::f() } }", "`cli`"),
            (&["server"], "use tollgate::cli::Args;", "`cli`"),
            (&["store"], "use rusqlite::Connection;", "rusqlite"),
            (&["store", "memory"], "fn f(c: &rusqlite::Connection) {}", "rusqlite"),
            (&["upstream"], "use pingora_proxy::Session;", "pingora_proxy"),
            (&["server"], "use clap;", "clap"),
            (&[], "pub use serde_yaml::Value;", "serde_yaml"),
            (&["proxy", "utils"], "", "utils"),
            (&["proxy"], "mod helpers;", "helpers"),
            (&["proxy"], "static COUNT: AtomicU64 = AtomicU64::new(0);", "static"),
            (&["main"], "static COUNT: AtomicU64 = AtomicU64::new(0);", "static"),
            (&["proxy"], "static ALLOCATOR: MiMalloc = MiMalloc;", "static"),
            (&["proxy"], "thread_local! { static X: u8 = 1; }", "static"),
            (&["proxy"], "fn f<'a>(c: char) -> bool { c == '\\'' } use crate::cli;", "`cli`"),
        ] {
            let found = problems(file, source);
            assert!(found.len() == 1 && found[0].contains(word), "{source}: {found:?}");
        }
    }

    #[test]
    fn a_problem_has_its_line() {
        let source = "//! One.\n\n/* two\nlines */\nuse crate::cli::X;\n";
        assert_eq!(problems(&["clock"], source), ["line 5: `clock` (floor 0) imports `cli` (floor 6)"]);
    }
}
