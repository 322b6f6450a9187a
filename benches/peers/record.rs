//! `figures.json`, and the comparison with it.

use std::collections::BTreeMap;
use std::path::PathBuf;

use serde::{Deserialize, Serialize};

use crate::figures::Figures;
use crate::machine::Machine;
use crate::stop::Fallible;

/// How much worse than recorded a ratio may be.
const TOLERANCE: f64 = 1.10;

/// All figures of a run: by case, and then by contender.
pub(crate) type Results = BTreeMap<String, BTreeMap<String, Figures>>;

/// What one full run found.
#[derive(Clone, Debug, Default, Serialize, Deserialize)]
pub(crate) struct Record {
    /// On what.
    pub(crate) machine: Machine,
    /// How many rounds a case had at most, and of how many seconds.
    pub(crate) rounds: (usize, u64),
    /// By case and contender.
    pub(crate) cases: Results,
    /// The cases that this machine could not have, and why.
    #[serde(default)]
    pub(crate) left_out: BTreeMap<String, String>,
}

/// Where it is kept.
pub(crate) fn path() -> PathBuf {
    PathBuf::from(env!("CARGO_MANIFEST_DIR")).join("benches/peers/figures.json")
}

impl Record {
    /// The one that was written last.
    ///
    /// # Errors
    ///
    /// When there is none, or it cannot be read.
    pub(crate) fn read() -> Fallible<Self> {
        let path = path();
        let text = std::fs::read_to_string(&path)
            .map_err(|error| format!("{}: {error}; `make bench` writes it", path.display()))?;
        Ok(serde_json::from_str(&text).map_err(|error| format!("{}: {error}", path.display()))?)
    }

    /// Writes it.
    ///
    /// # Errors
    ///
    /// When it cannot be written.
    pub(crate) fn write(&self) -> Fallible<()> {
        Ok(std::fs::write(path(), self.json()?)?)
    }

    /// As JSON with a line for each contender of a case, so that two runs can be compared by `diff`.
    fn json(&self) -> Fallible<String> {
        let mut cases = Vec::new();
        for (case, contenders) in &self.cases {
            let mut lines = Vec::new();
            for (contender, figures) in contenders {
                lines.push(format!("      \"{contender}\": {}", serde_json::to_string(figures)?));
            }
            cases.push(format!("    \"{case}\": {{\n{}\n    }}", lines.join(",\n")));
        }
        let (machine, rounds) = (serde_json::to_string(&self.machine)?, serde_json::to_string(&self.rounds)?);
        let (cases, left_out) = (cases.join(",\n"), serde_json::to_string(&self.left_out)?);
        Ok(format!(
            "{{\n  \"machine\": {machine},\n  \"rounds\": {rounds},\n  \"left_out\": {left_out},\n  \"cases\": {{\n{cases}\n  \
             }}\n}}\n"
        ))
    }

    /// The ratio of tollgate to nginx in a case, in the median.
    pub(crate) fn ratio(&self, case: &str) -> Option<f64> {
        ratio(self.cases.get(case)?.get("tollgate")?)
    }
}

/// The ratio to nginx, in the median.
pub(crate) fn ratio(figures: &Figures) -> Option<f64> {
    figures.ratio.map(|ratio| ratio.median)
}

/// Whether `now` is worse than `recorded` by more than noise should make it.
pub(crate) fn is_worse(now: f64, recorded: f64) -> bool {
    now > recorded * TOLERANCE
}
