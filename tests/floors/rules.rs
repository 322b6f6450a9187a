//! The rules, each as a list of what breaks it.

use std::collections::{BTreeMap, BTreeSet};
use std::fmt::Write;

use crate::graph::{Edge, circles};
use crate::house::{self, CONSTANTS, EMPTY_NAMES, LIBRARIES, LONGEST_FILE, LONGEST_FUNCTION};
use crate::source::{SourceFile, Sources};

/// Everything in the wrong room: which file, what, and the line.
pub(crate) fn rooms(sources: &Sources) -> BTreeMap<String, String> {
    let mut wrong = BTreeSet::new();
    for module in sources.scopes.keys() {
        let part = module.last().filter(|part| EMPTY_NAMES.contains(&part.as_str()));
        wrong.extend(
            part.map(|part| (module.clone(), 0, format!("a module named `{part}` says nothing about what is inside"))),
        );
    }
    for file in &sources.files {
        let mut report = |line: usize, problem: String| wrong.insert((file.module.clone(), line, problem));
        if !file.module.is_empty() && house::room(&file.module).is_none() {
            report(0, "is in no room of the table".to_owned());
        }
        for (line, name, of) in &file.statics {
            // The allocator cannot be anything else, and is the program's, not a server's.
            let allocator = file.module == ["main"] && name == "ALLOCATOR";
            if !allocator && !CONSTANTS.contains(&of.as_str()) {
                report(*line, "a `static` item: state that two servers in one process would share".to_owned());
            }
        }
        for mention in &file.mentions {
            let foreign = sources.foreign(mention);
            if let Some((library, rooms)) = LIBRARIES.iter().find(|(library, _)| foreign == Some(library)) {
                let here = file.module.join("::");
                if !rooms.iter().any(|room| here == *room || here.starts_with(&format!("{room}::"))) {
                    let here = if here.is_empty() { "lib" } else { &here };
                    report(mention.line, format!("`{library}` is for {rooms:?} only, not for `{here}`"));
                }
            }
        }
    }
    for edge in sources.edges() {
        let from = &sources.files[edge.from].module;
        let to = edge.to.map_or(&edge.path, |to| &sources.files[to].module);
        // Tests of a part may stand on its neighbours.
        let free = from.is_empty() || edge.test && from.first() == to.first();
        if let Some(objection) = house::objection(from, to).filter(|_| !free) {
            wrong.insert((from.clone(), edge.line, objection));
        }
    }
    // The first line of each problem is the last that is put in.
    let problems = wrong.into_iter().rev();
    problems
        .map(|(module, line, problem)| (format!("{}: {problem}", module.join("::")), format!("line {line}")))
        .collect()
}

/// The uses from file to file, tests apart, with what is used.
fn uses(sources: &Sources) -> BTreeMap<(usize, usize), BTreeSet<String>> {
    let mut uses = BTreeMap::<_, BTreeSet<_>>::new();
    for Edge { from, to, path, .. } in sources.edges().into_iter().filter(|edge| !edge.test) {
        if let Some(to) = to.filter(|to| !sources.files[*to].test && !sources.files[from].module.is_empty()) {
            let inner = &sources.files[to].module;
            let name = path.iter().find(|part| !inner.contains(part)).or(path.last());
            uses.entry((from, to)).or_default().extend(name.cloned());
        }
    }
    uses
}

/// The circles that there are in spite of `pardoned` uses, which are left out, and the pardons that nobody needs.
pub(crate) fn circular(sources: &Sources, pardoned: &[(&str, &str)]) -> Vec<String> {
    let uses = uses(sources);
    let name = |file: usize| sources.files[file].module.join("::");
    let all: BTreeSet<_> = uses.keys().copied().collect();
    let in_circle = circles(&all);
    let mut wrong = Vec::new();
    let mut left = all.clone();
    for (from, to) in pardoned {
        let found = all.iter().find(|(a, b)| name(*a) == *from && name(*b) == *to);
        match found.filter(|(a, b)| in_circle.contains_key(a) && in_circle.get(a) == in_circle.get(b)) {
            Some(edge) => drop(left.remove(edge)),
            None => wrong.push(format!("{from} -> {to} is in no circle: remove it from the list of breaches")),
        }
    }
    let circles = circles(&left);
    let mut texts = BTreeMap::<usize, String>::new();
    for (from, to) in left.iter().filter(|(a, b)| circles.contains_key(a) && circles.get(a) == circles.get(b)) {
        let text = texts.entry(circles[from]).or_insert_with(|| "a circle of files:".to_owned());
        let names: Vec<_> = uses[&(*from, *to)].iter().map(String::as_str).collect();
        write!(text, "\n    {} -> {} ({})", name(*from), name(*to), names.join(", ")).unwrap();
    }
    wrong.extend(texts.into_values());
    wrong
}

/// The names that several types have, with where.
pub(crate) fn names(sources: &Sources) -> BTreeMap<String, String> {
    let mut places = BTreeMap::<_, Vec<_>>::new();
    for file in sources.files.iter().filter(|file| !file.test) {
        for name in &file.types {
            places.entry(name.clone()).or_default().push(file.module.join("::"));
        }
    }
    places.into_iter().filter(|(_, places)| places.len() > 1).map(|(name, places)| (name, places.join(", "))).collect()
}

/// The functions that are too long.
pub(crate) fn long_functions(sources: &Sources) -> BTreeMap<String, String> {
    let functions = sources.files.iter().filter(|file| !file.test).flat_map(|file| &file.functions);
    let long = functions.filter(|function| function.lines > LONGEST_FUNCTION && !function.excused);
    long.map(|function| (function.name.clone(), format!("{} lines", function.lines))).collect()
}

/// The files that are too long.
pub(crate) fn long_files(sources: &Sources) -> BTreeMap<String, String> {
    let long = |file: &&SourceFile| file.lines > LONGEST_FILE && !file.excused;
    sources.files.iter().filter(long).map(|file| (file.module.join("::"), format!("{} lines", file.lines))).collect()
}

/// What is found and not known, and what is known and no longer found.
pub(crate) fn beyond(found: &BTreeMap<String, String>, known: &[&str]) -> Vec<String> {
    let new = found.iter().filter(|(name, _)| !known.contains(&name.as_str()));
    let gone = known.iter().filter(|name| !found.contains_key(**name));
    new.map(|(name, what)| format!("{name}: {what}"))
        .chain(gone.map(|name| format!("{name} is mended: remove it from the list of breaches")))
        .collect()
}
