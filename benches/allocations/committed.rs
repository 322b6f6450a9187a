//! The counts that the repository has, and whether others are worse.

use std::collections::BTreeMap;
use std::fmt::Write;

use crate::Cost;

const FILE: &str = concat!(env!("CARGO_MANIFEST_DIR"), "/benches/allocations/committed.tsv");
/// How many more may be asked for without saying so here.
const MORE: f64 = 1.0;

/// Allocations and reallocations together, by case.
pub(crate) struct Committed(BTreeMap<String, f64>);

impl Committed {
    /// As they are in the file.
    pub(crate) fn read() -> Self {
        let text = std::fs::read_to_string(FILE).unwrap_or_else(|error| panic!("{FILE}: {error}"));
        let lines = text.lines().filter(|line| !line.starts_with('#'));
        let cases = lines.map(|line| {
            let (name, count) = line.split_once('\t').unwrap_or_else(|| panic!("{FILE}: no tab in: {line}"));
            (name.to_owned(), count.parse().unwrap_or_else(|_| panic!("{FILE}: not a number in: {line}")))
        });
        Committed(cases.collect())
    }

    /// Writes the file anew.
    pub(crate) fn write(costs: &[(&str, Cost)]) {
        let mut text =
            "# Calls of the allocator per request; `cargo bench --bench allocations -- --save` writes this.\n"
                .to_owned();
        for (name, cost) in costs {
            writeln!(text, "{name}\t{:.2}", calls(cost)).expect("text can be written to");
        }
        std::fs::write(FILE, text).unwrap_or_else(|error| panic!("{FILE}: {error}"));
    }

    /// A line for each case that asks more often than it did, or that nothing is known of.
    pub(crate) fn worse(&self, costs: &[(&str, Cost)]) -> Vec<String> {
        let lines = costs.iter().filter_map(|(name, cost)| {
            let calls = calls(cost);
            match self.0.get(*name) {
                None => Some(format!("{name}: not in {FILE}; write it anew with --save")),
                Some(before) if calls > before + MORE => {
                    Some(format!("{name}: {calls:.2} per request, not {before:.2}"))
                }
                Some(_) => None,
            }
        });
        lines.collect()
    }
}

fn calls(cost: &Cost) -> f64 {
    cost.allocations + cost.reallocations
}
