//! Which file uses which: every path that is named is followed, through `pub use`, to the file where the name is
//! defined.
//!
//! So that a `mod.rs` may declare and re-export its children without being in a circle with them. A name that a child
//! takes out of its parent's private imports is the parent's: the child would break with it.

use std::collections::{BTreeMap, BTreeSet};

use crate::source::{Mention, ModulePath, Sources};

/// A use of something in another file.
pub(crate) struct Edge {
    pub(crate) from: usize,
    /// `None` when the path leads out of the files there are.
    pub(crate) to: Option<usize>,
    /// What is named, as far as it is known.
    pub(crate) path: ModulePath,
    pub(crate) line: usize,
    pub(crate) test: bool,
}

/// Where a path leads.
#[derive(Debug, PartialEq)]
enum End {
    /// To something defined in this file.
    Defined(usize),
    /// To a module itself, of which nothing is used yet.
    Module,
    /// To another crate, or to something local.
    Outside,
}

impl Sources {
    /// Every use of something in another file, and every path to what is in none.
    pub(crate) fn edges(&self) -> Vec<Edge> {
        let mut edges = Vec::new();
        for (from, file) in self.files.iter().enumerate() {
            for mention in &file.mentions {
                let Some(path) = self.absolute(&mention.at, &mention.path, 0) else { continue };
                let to = match self.end(&path, 0) {
                    End::Module if self.scopes.contains_key(&path) => continue,
                    End::Module | End::Outside => None,
                    End::Defined(to) => Some(to),
                };
                let declares = |to: usize| mention.passed_on && self.files[to].module.starts_with(&file.module);
                if to.is_none_or(|to| to != from && !declares(to)) {
                    edges.push(Edge { from, to, path, line: mention.line, test: file.test || mention.test });
                }
            }
        }
        edges
    }

    /// What another crate's names are used as: `rusqlite` in `rusqlite::Connection`.
    pub(crate) fn foreign<'m>(&self, mention: &'m Mention) -> Option<&'m str> {
        let first = mention.path.first()?;
        self.absolute(&mention.at, &mention.path, 0).is_none().then_some(first)
    }

    /// `path` as it is written in `at`, from the crate's root on. `None` when it is another crate's.
    fn absolute(&self, at: &[String], path: &[String], depth: usize) -> Option<ModulePath> {
        let (first, rest) = path.split_first()?;
        let of = |base: &[String], rest: &[String]| Some([base, rest].concat());
        match first.as_str() {
            "crate" => of(&[], rest),
            "tollgate" if at.first().is_some_and(|top| top == "main") => of(&[], rest),
            "self" => of(at, rest),
            "super" => {
                let ups = path.iter().take_while(|part| *part == "super").count();
                of(&at[..at.len().checked_sub(ups)?], &path[ups..])
            }
            _ if depth > 8 => None,
            _ if !rest.is_empty() && self.scopes.contains_key(&[at, &path[..1]].concat()) => of(at, path),
            _ => {
                let scope = self.scopes.get(at)?;
                match scope.imported.get(first) {
                    Some((imported, _)) if imported[..] != path[..] && imported.first() != Some(first) => {
                        of(&self.absolute(at, imported, depth + 1)?, rest)
                    }
                    None if scope.defined.contains(first) => of(at, path),
                    _ => None,
                }
            }
        }
    }

    fn end(&self, path: &[String], depth: usize) -> End {
        let mut at = 0;
        let mut scope = self.scopes.get(&path[..0]);
        while let (Some(inside), Some(name)) = (scope, path.get(at)) {
            let last = at + 1 == path.len();
            let inner = self.scopes.get(&path[..=at]);
            if inner.is_some() && !last {
                (scope, at) = (inner, at + 1);
                continue;
            }
            if name == "*" && at > 0 || inside.defined.contains(name) {
                return End::Defined(inside.file);
            }
            let follow = |target: &[String], rest: &[String]| match self.absolute(&path[..at], target, 0) {
                Some(target) if depth < 8 => self.end(&[&target[..], rest].concat(), depth + 1),
                _ => End::Outside,
            };
            match inside.imported.get(name) {
                Some((target, true)) => return follow(target, &path[at + 1..]),
                Some((_, false)) if inner.is_none() => return End::Defined(inside.file),
                _ if inner.is_some() => return End::Module,
                _ => {}
            }
            let mut spread = inside.passed_on.iter().map(|target| follow(target, &path[at..]));
            return spread.find(|end| matches!(end, End::Defined(_))).unwrap_or(End::Outside);
        }
        End::Module
    }
}

/// The files that reach each other, a number for each circle: files that are in none are left out.
pub(crate) fn circles(edges: &BTreeSet<(usize, usize)>) -> BTreeMap<usize, usize> {
    let mut next = BTreeMap::<usize, Vec<usize>>::new();
    for (from, to) in edges {
        next.entry(*from).or_default().push(*to);
    }
    let reached = |start: usize| {
        let (mut seen, mut waiting) = (BTreeSet::new(), vec![start]);
        while let Some(at) = waiting.pop() {
            let fresh = next.get(&at).into_iter().flatten().filter(|to| seen.insert(**to));
            waiting.extend(fresh.copied().collect::<Vec<_>>());
        }
        seen
    };
    let reach: BTreeMap<_, _> = next.keys().map(|start| (*start, reached(*start))).collect();
    let reaches = |from: usize, to: usize| reach.get(&from).is_some_and(|seen| seen.contains(&to));
    let mut found = BTreeMap::new();
    for at in next.keys().filter(|at| reaches(**at, **at)) {
        let first = reach[at].iter().find(|other| reaches(**other, *at));
        found.extend(first.map(|first| (*at, *first)));
    }
    found
}
