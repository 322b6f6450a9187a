//! Every link of the pages leads to a file and a heading that are there, and every page can be found.

use std::path::{Component, Path, PathBuf};

use super::{PAGES, README};

fn root() -> &'static Path {
    Path::new(env!("CARGO_MANIFEST_DIR"))
}

/// A path without `..`.
fn plain(path: &Path) -> PathBuf {
    path.components().fold(PathBuf::new(), |mut plain, part| {
        match part {
            Component::ParentDir => drop(plain.pop()),
            part => plain.push(part),
        }
        plain
    })
}

/// What is wrong with a link of a page, if anything is.
fn mistake(from: &str, target: &str) -> Option<String> {
    if ["http://", "https://", "mailto:"].iter().any(|scheme| target.starts_with(scheme)) {
        return None;
    }
    let (file, anchor) = target.split_once('#').unwrap_or((target, ""));
    let path = match file {
        "" => PathBuf::from(from),
        file => plain(&Path::new(from).parent().unwrap().join(file)),
    };
    if !root().join(&path).exists() {
        return Some(format!("there is no {}", path.display()));
    }
    if anchor.is_empty() {
        return None;
    }
    let Some(page) = PAGES.iter().find(|page| Path::new(page.path) == path) else {
        return Some(format!("{} is no page of which headings are known", path.display()));
    };
    let there = page.anchors().iter().any(|one| one == anchor);
    (!there).then(|| format!("{} has no heading {anchor}: {:?}", page.path, page.anchors()))
}

#[test]
fn links_lead_to_files_and_headings_that_are_there() {
    let (mut count, mut mistakes) = (0, Vec::new());
    for page in PAGES {
        for (line, target) in page.links() {
            count += 1;
            mistakes.extend(mistake(page.path, target).map(|what| format!("{}:{line}: {target}: {what}", page.path)));
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(count > 60, "only {count} links were found");
    assert!(mistake("README.md", "docs/nothing.md").is_some());
    assert!(mistake("docs/limits.md", "../README.md#nothing").is_some());
    assert!(mistake("docs/limits.md", "#nothing").is_some());
}

#[test]
fn paths_that_pages_name_are_there() {
    let rooms = ["src/", "tests/", "benches/", "docs/", "conf/", "packaging/", "findings/", "fuzz/"];
    let (mut count, mut mistakes) = (0, Vec::new());
    for page in PAGES.iter().filter(|page| page.path != "CHANGELOG.md") {
        for (line, code) in page.code() {
            let path = code.split(' ').next().unwrap_or("").split("::").next().unwrap_or("");
            // What the reader makes, and patterns.
            if !rooms.iter().any(|room| path.starts_with(room)) || path.starts_with("conf/tls/") || path.contains('*') {
                continue;
            }
            count += 1;
            if !root().join(path).exists() {
                mistakes.push(format!("{}:{line}: there is no {path}", page.path));
            }
        }
    }
    assert!(mistakes.is_empty(), "{}", mistakes.join("\n"));
    assert!(count > 20, "only {count} paths were found");
}

#[test]
fn every_page_is_known_and_can_be_found_from_the_readme() {
    let linked: Vec<_> = README.links().into_iter().map(|(_, target)| target.split('#').next().unwrap()).collect();
    let mut found = 0;
    for dir in ["", "docs"] {
        for entry in std::fs::read_dir(root().join(dir)).unwrap() {
            let name = entry.unwrap().file_name().into_string().unwrap();
            let path = if dir.is_empty() { name } else { format!("{dir}/{name}") };
            if path.ends_with(".md") {
                found += 1;
                assert!(PAGES.iter().any(|page| page.path == path), "{path} is not among the pages that are checked");
                assert!(path == README.path || linked.contains(&&*path), "README.md does not lead to {path}");
            }
        }
    }
    assert!(found >= 13, "{found}");
}
