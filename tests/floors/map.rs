//! The map of the house, drawn from what its files use.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::house::{ROOMS, room};
use crate::source::Sources;

/// The rooms that each room uses, tests apart.
fn imports(sources: &Sources) -> BTreeMap<&'static str, BTreeSet<&'static str>> {
    let mut imports = BTreeMap::<_, BTreeSet<_>>::new();
    for file in sources.files.iter().filter(|file| !file.test) {
        imports.extend(room(&file.module).map(|(room, _)| (room, BTreeSet::new())));
    }
    for edge in sources.edges().into_iter().filter(|edge| !edge.test) {
        let from = room(&sources.files[edge.from].module);
        let to = edge.to.and_then(|to| room(&sources.files[to].module));
        if let (Some((from, _)), Some((to, _))) = (from, to)
            && from != to
        {
            imports.entry(from).or_default().insert(to);
        }
    }
    imports
}

/// The page that shows the map.
pub(crate) fn page(sources: &Sources) -> String {
    let imports = imports(sources);
    let mut page = "# The rooms and what they use\n\n\
        Drawn from the sources by `UPDATE=1 cargo test --test floors`, which also fails when it is no longer true, or when a\n\
        room uses one that is not below it. [`architecture.md`](architecture.md) says why the house is laid out so.\n\n\
        | floor | room | uses |\n|---|---|---|\n"
        .to_owned();
    // A room that only passes on what its own rooms have is no part of the picture.
    let there = || {
        ROOMS.iter().rev().filter(|(room, _)| {
            imports.contains_key(room)
                && !(imports[room].is_empty()
                    && ROOMS
                        .iter()
                        .any(|(inner, _)| inner.strip_prefix(room).is_some_and(|rest| rest.starts_with("::"))))
        })
    };
    for (room, floor) in there() {
        let uses: Vec<_> = imports[room].iter().map(|room| format!("`{room}`")).collect();
        writeln!(page, "| {floor} | `{room}` | {} |", uses.join(", ")).unwrap();
    }
    page.push_str(
        "\nThe same as a drawing; an arrow that others already say (a room uses what a room uses that it uses) is left out.\n\n\
        ```mermaid\nflowchart TD\n",
    );
    for (room, _) in there() {
        for to in &imports[room] {
            if !imports[room].iter().any(|between| reaches(&imports, between, to)) {
                writeln!(page, "    {}[{room}] --> {}[{to}]", room.replace("::", "_"), to.replace("::", "_")).unwrap();
            }
        }
    }
    page.push_str("```\n");
    page
}

/// Whether `from` uses `to`, itself or by others.
fn reaches(imports: &BTreeMap<&str, BTreeSet<&str>>, from: &str, to: &str) -> bool {
    let (mut seen, mut waiting) = (BTreeSet::new(), vec![from]);
    while let Some(at) = waiting.pop() {
        waiting.extend(imports.get(at).into_iter().flatten().filter(|next| seen.insert(**next)));
    }
    seen.contains(to)
}

/// The rooms of the table in a doc, `| 3a | [`proxy::gate`] | … |`, with their floors.
pub(crate) fn table(doc: &str) -> BTreeSet<(String, String)> {
    let cell = |cell: &str| cell.trim().trim_matches(['[', ']', '`']).to_owned();
    let rows = doc.lines().filter_map(|line| line.trim().strip_prefix("| ")?.split_once('|'));
    let rows = rows.filter_map(|(floor, rest)| Some((cell(floor), cell(rest.split_once('|')?.0))));
    rows.filter(|(floor, _)| floor.starts_with(|digit: char| digit.is_ascii_digit())).collect()
}
