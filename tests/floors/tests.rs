use std::collections::BTreeSet;
use std::path::Path;
use std::sync::LazyLock;

use crate::source::Sources;
use crate::{breaches, map, rules};

static SOURCES: LazyLock<Sources> = LazyLock::new(Sources::read);

#[track_caller]
fn none(wrong: &[String]) {
    assert!(wrong.is_empty(), "\n{}", wrong.join("\n"));
}

#[test]
fn every_room_uses_only_what_is_below() {
    assert!(SOURCES.files.len() > 5, "found only {} sources", SOURCES.files.len());
    none(&rules::beyond(&rules::rooms(&SOURCES), breaches::ROOMS));
}

#[test]
fn no_files_use_each_other_in_a_circle() {
    none(&rules::circular(&SOURCES, breaches::CIRCLES));
}

#[test]
fn a_name_is_one_type() {
    none(&rules::beyond(&rules::names(&SOURCES), breaches::NAMES));
}

#[test]
fn what_is_long_says_why() {
    none(&rules::beyond(&rules::long_functions(&SOURCES), breaches::FUNCTIONS));
    none(&rules::beyond(&rules::long_files(&SOURCES), breaches::FILES));
}

/// `UPDATE=1` draws it anew.
#[test]
fn the_map_is_what_the_imports_say() {
    let (page, path) = (map::page(&SOURCES), Path::new(env!("CARGO_MANIFEST_DIR")).join("docs/architecture-map.md"));
    if std::env::var_os("UPDATE").is_some() {
        std::fs::write(&path, &page).unwrap();
    }
    assert_eq!(std::fs::read_to_string(&path).unwrap(), page, "UPDATE=1 cargo test --test floors writes it anew");
}

#[test]
fn the_crate_shows_the_table_of_the_house() {
    let root = SOURCES.files.iter().find(|file| file.module.is_empty()).unwrap();
    let there = |room: &str| SOURCES.scopes.keys().any(|module| module.join("::") == room);
    let rooms = crate::house::ROOMS.iter().filter(|(room, _)| there(room) && *room != "main");
    let rooms: BTreeSet<_> = rooms.map(|(room, floor)| ((*floor).to_owned(), (*room).to_owned())).collect();
    assert_eq!(map::table(&root.doc), rooms);
}

/// One file in a house where every room that it names has something.
fn problems(name: &str, text: &str) -> Vec<String> {
    let rooms =
        crate::house::ROOMS.iter().map(|(room, _)| (room.replace("::", "/"), "pub struct X; pub fn f() {}".to_owned()));
    let mut texts: Vec<_> = rooms.filter(|(room, _)| room != name).collect();
    texts.push((name.to_owned(), text.to_owned()));
    let sources = Sources::of(texts.iter().map(|(name, text)| (name.as_str(), text.as_str())));
    rules::rooms(&sources).into_iter().map(|(problem, line)| format!("{problem} ({line})")).collect()
}

#[test]
fn imports_from_below_and_within_are_fine() {
    for (file, source) in [
        ("proxy", "use crate::{clock::X, upstream::{X as Y, f}, route};"),
        ("proxy/reject", "use crate::proxy::X; use crate::telemetry::f; use super::X as Y;"),
        ("proxy/pingora", "use crate::proxy::gate::X; use super::exchange::f;"),
        ("server", "use crate::config::X; fn f() { crate::proxy::f(); }"),
        ("upstream/selector/random", "use super::super::X; mod tests { use super::super::super::f; }"),
        ("upstream", "mod tests { use super::*; mod deeper { use super::super::X; } }"),
        ("main", "static ALLOCATOR: MiMalloc = MiMalloc; fn main() { tollgate::cli::f() }"),
        (
            "upstream",
            "// use crate::proxy::X;\n/* crate::proxy /* nested */ crate::cli */ /// [`crate::server`]\nfn f() {}",
        ),
        ("upstream", r##"fn f() { g("crate:: proxy", r#"use crate::cli;"#, b"crate::cli", '"', '\'', "\\"); }"##),
        ("upstream", "fn f(x: &'static str) -> T<'static> { x.tollgate::<A>() }"),
        ("store/sqlite/migrate", "use rusqlite::Connection;"),
        ("cli/args", "use clap::Parser; use clap;"),
        ("proxy", "fn f(clap: u8) -> u8 { clap }"),
        ("proxy/gate", "#[cfg(test)] mod tests { use crate::proxy::exchange::X; }"),
        // Its own children are passed on, not used.
        ("proxy", "pub use exchange::X;"),
    ] {
        assert_eq!(problems(file, source), Vec::<String>::new(), "{source}");
    }
}

#[test]
fn each_breach_is_seen() {
    for (file, source, word) in [
        ("upstream", "use crate::proxy::X;", "`proxy`"),
        ("upstream", "use crate::{clock, proxy::X};", "`proxy`"),
        ("upstream", "use crate::{clock::{X, f}, route, config::X as Y};", "`config`"),
        ("upstream", "fn f() { let s = \"x\"; crate::telemetry::f(); }", "`telemetry`"),
        ("upstream", "fn f() { assert!(x, \"{}\", crate::telemetry::f()); }", "`telemetry`"),
        ("upstream", "pub(crate) use super::server::X;", "`server`"),
        ("upstream", "use crate::cli; fn g() { cli::f() }", "`cli`"),
        ("upstream", "#[serde(with = \"crate::cli::f\")] struct Y;", "`cli`"),
        ("upstream", "#[cfg(test)] mod tests { use super::super::proxy::X; }", "`proxy`"),
        ("clock", "use crate::route::X;", "`route`"),
        ("telemetry", "use crate::proxy::X;", "`proxy`"),
        ("config", "use crate::server::X;", "`server`"),
        ("proxy", "use crate::store::X;", "`store`"),
        ("proxy/gate", "use crate::store::X;", "`store`"),
        ("proxy/gate", "use super::exchange::X;", "`proxy::exchange`"),
        ("proxy/gate", "use crate::proxy::X;", "`proxy`"),
        ("proxy/reject", "type C = crate::config::X;", "`config`"),
        ("admin", "use crate::proxy::X;", "`proxy`"),
        ("admin", "use crate::proxy::gate::X;", "`proxy::gate`"),
        ("process", "use crate::telemetry::X;", "`telemetry`"),
        ("server", "use crate::cli::X;", "`cli`"),
        ("server", "use crate::Everything;", "`Everything`"),
        ("proxy", "use crate::*;", "`*`"),
        ("proxy", "macro_rules! m { () => { $crate::cli::f() } }", "`cli`"),
        ("server", "fn f() { crate::nowhere::f() }", "`nowhere"),
        ("store", "use rusqlite::Connection;", "rusqlite"),
        ("store/memory", "fn f(c: &rusqlite::Connection) {}", "rusqlite"),
        ("upstream", "use pingora_proxy::Session;", "pingora_proxy"),
        ("server", "use clap;", "clap"),
        ("lib", "pub use serde_yaml::Value;", "serde_yaml"),
        ("proxy/utils", "", "utils"),
        ("proxy", "mod helpers {}", "helpers"),
        ("nowhere", "", "no room"),
        ("proxy", "static COUNT: AtomicU64 = AtomicU64::new(0);", "static"),
        ("main", "static COUNT: AtomicU64 = AtomicU64::new(0);", "static"),
        ("proxy", "static ALLOCATOR: MiMalloc = MiMalloc;", "static"),
        ("proxy", "thread_local! { static X: u8 = 1; }", "static"),
        ("proxy", "fn f<'a>(c: char) -> bool { c == '\\'' } use crate::cli::X;", "`cli`"),
    ] {
        let found = problems(file, source);
        assert!(found.len() == 1 && found[0].contains(word), "{source}: {found:?}");
    }
}

#[test]
fn a_problem_has_its_line() {
    let source = "//! One.\n\n/* two\nlines */\nuse crate::cli::X;\n";
    assert_eq!(problems("clock", source), ["clock: `clock` (floor 0) imports `cli` (floor 6) (line 5)"]);
}

#[test]
fn a_circle_is_one_of_definitions() {
    let circular = |texts: &[(&str, &str)], pardoned: &[(&str, &str)]| {
        rules::circular(&Sources::of(texts.iter().copied()), pardoned)
    };
    // Declaring and passing on is no use.
    let passed = [("a/mod", "mod b; mod c; pub use b::B;"), ("a/b", "pub struct B;"), ("a/c", "use super::B;")];
    assert_eq!(circular(&passed, &[]), Vec::<String>::new());
    let defined = [("a/mod", "mod b; pub use b::B; const N: u8 = 1;"), ("a/b", "pub struct B; use super::N;")];
    assert_eq!(circular(&defined, &[]), Vec::<String>::new());
    // A name among the parent's own imports is the parent's.
    let borrowed = [
        ("a/mod", "mod b; use b::B; use crate::c::C;"),
        ("a/b", "pub struct B; use super::C;"),
        ("c", "pub struct C;"),
    ];
    let expected = "a circle of files:\n    a -> a::b (B)\n    a::b -> a (C)";
    assert_eq!(circular(&borrowed, &[]), [expected]);
    assert_eq!(circular(&borrowed, &[("a::b", "a")]), Vec::<String>::new());
    assert_eq!(
        circular(&defined, &[("a::b", "a")]),
        ["a::b -> a is in no circle: remove it from the list of breaches"]
    );
    // However far round, through a module or in passing; but not in tests.
    let round = [
        ("a", "use crate::b; fn f() { b::f() }"),
        ("b", "pub fn f() { crate::c::f() }"),
        ("c", "pub fn f() { g!(crate::a::f()) }"),
    ];
    let found = circular(&round, &[]);
    assert_eq!(found, ["a circle of files:\n    a -> b (f)\n    b -> c (f)\n    c -> a (f)"]);
    let tests = [
        ("a", "fn f() { crate::b::f() } #[cfg(test)] mod t;"),
        ("b", "#[cfg(test)] mod tests { use crate::a::f; }"),
        ("a/t", "use crate::b::f;"),
    ];
    assert_eq!(circular(&tests, &[]), Vec::<String>::new());
}

#[test]
fn names_and_lengths_are_of_what_is_no_test() {
    let long = |doc: &str| format!("{doc}\nfn f() {{{}}}", "\n".repeat(60));
    let text = "enum A {} impl T for A { type Error = (); } #[cfg(test)] mod tests { struct B; fn f() {} }";
    let sources = Sources::of([
        ("a", text),
        ("b", "trait A {} fn f() { struct B; }"),
        ("c", &long("/// Long because it is.")),
        ("d", &long("/// Long.")),
    ]);
    assert_eq!(rules::names(&sources).into_iter().collect::<Vec<_>>(), [("A".to_owned(), "a, b".to_owned())]);
    assert_eq!(
        rules::long_functions(&sources).into_iter().collect::<Vec<_>>(),
        [("d::f".to_owned(), "61 lines".to_owned())]
    );
    let found = rules::names(&sources);
    assert_eq!(rules::beyond(&found, &[]), ["A: a, b"]);
    assert_eq!(rules::beyond(&found, &["A", "B"]), ["B is mended: remove it from the list of breaches"]);
}
