//! What is found wrong while a file is checked.

use std::collections::HashMap;

use super::problem::{KeyPath, Problem};
use super::value::ValueKind;
use super::written::{Section, Written};

/// Collects problems, and knows the lines of the file's keys.
#[derive(Debug, Default)]
pub(super) struct Report {
    /// The line of every key and item, from 1.
    pub(super) lines: HashMap<KeyPath, usize>,
    /// What was found so far.
    pub(super) problems: Vec<Problem>,
}

impl Report {
    /// Adds what is wrong at `path`.
    pub(super) fn add(&mut self, path: &KeyPath, message: impl Into<String>) {
        let problem = self.problem(path, message);
        self.problems.push(problem);
    }

    /// Something at `path`; the line is its own, or that of the nearest key above it.
    pub(super) fn problem(&self, path: &KeyPath, message: impl Into<String>) -> Problem {
        let above = std::iter::successors(Some(path.clone()), KeyPath::parent);
        let line = above.filter_map(|path| self.lines.get(&path).copied()).next();
        Problem { path: path.to_string(), message: message.into(), line }
    }

    /// What was written at `path`; none when nothing was, or when it is wrong, which is then reported.
    pub(super) fn take<T: ValueKind>(&mut self, path: &KeyPath, key: Written<T>) -> Option<T::Checked> {
        match key {
            Written::Given(value) => Some(value),
            Written::Absent | Written::Told => None,
            Written::Wrong(message) => {
                self.add(path, message);
                None
            }
        }
    }

    /// As [`take`](Report::take), and reports it when nothing was written.
    pub(super) fn need<T: ValueKind>(&mut self, path: &KeyPath, key: Written<T>) -> Option<T::Checked> {
        if matches!(key, Written::Absent) {
            self.add(path, format!("is missing, must be {}", T::wanted()));
        }
        self.take(path, key)
    }
}

/// The keys below one path of the file, as they are looked at.
pub(super) struct Level<'r> {
    pub(super) report: &'r mut Report,
    pub(super) at: KeyPath,
}

impl Level<'_> {
    /// The same, one key deeper.
    pub(super) fn below(&mut self, name: &str) -> Level<'_> {
        Level { at: self.at.key(name), report: self.report }
    }

    /// The keys of the section `name`, all absent where it is, and where they are.
    pub(super) fn section<T: Default>(&mut self, name: &str, key: Written<Section<T>>) -> (T, Level<'_>)
    where
        Section<T>: ValueKind<Checked = T>,
    {
        (self.take(name, key).unwrap_or_default(), self.below(name))
    }

    /// What was written at the key `name`; none when nothing was, or when it is wrong, which is then reported.
    pub(super) fn take<T: ValueKind>(&mut self, name: &str, key: Written<T>) -> Option<T::Checked> {
        self.report.take(&self.at.key(name), key)
    }

    /// As [`take`](Level::take), and `default` in place of nothing.
    pub(super) fn or<T: ValueKind>(&mut self, name: &str, key: Written<T>, default: T::Checked) -> T::Checked {
        self.take(name, key).unwrap_or(default)
    }

    /// As [`take`](Level::take), and reports it when nothing was written.
    pub(super) fn need<T: ValueKind>(&mut self, name: &str, key: Written<T>) -> Option<T::Checked> {
        self.report.need(&self.at.key(name), key)
    }

    /// Adds what is wrong at the key `name`.
    pub(super) fn add(&mut self, name: &str, message: impl Into<String>) {
        self.report.add(&self.at.key(name), message);
    }
}
