//! Whether a case has become worse than the committed figures.
//!
//! The ratio to nginx of the same run is compared, not the time itself, so that a slower or busier machine does not
//! count. A case that looks worse runs again, with more rounds: only what is worse twice counts.

use crate::bench::Bench;
use crate::case::Case;
use crate::contender::Kind;
use crate::figures::{Figures, Round};
use crate::record::{Record, is_worse, ratio};
use crate::stop::Fallible;

/// How many times as many rounds a suspicious case gets.
const AGAIN: usize = 3;

/// The outcome of one case.
#[derive(Clone, Debug)]
pub(crate) struct Verdict {
    case: &'static str,
    recorded: f64,
    now: f64,
    again: Option<f64>,
}

impl Verdict {
    /// Whether it is worse than recorded.
    pub(crate) fn is_worse(&self) -> bool {
        is_worse(self.again.unwrap_or(self.now), self.recorded)
    }
}

/// Judges the rounds of one case, and runs it again if need be; nothing when it is not in the record.
///
/// # Errors
///
/// As [`Bench::run`].
pub(crate) fn judge(
    bench: &Bench,
    case: &Case,
    rounds: usize,
    measured: &[Vec<Round>],
    record: &Record,
) -> Fallible<Option<Verdict>> {
    let (Some(recorded), Some(now)) = (record.ratio(case.name), ours(bench, measured)) else {
        println!("  no ratio on record, so none to compare with");
        return Ok(None);
    };
    let mut verdict = Verdict { case: case.name, recorded, now, again: None };
    if verdict.is_worse() {
        println!("  ratio {now:.2}, on record {recorded:.2}: once more, with {} rounds", rounds * AGAIN);
        verdict.again = ours(bench, &bench.run(case, rounds * AGAIN)?);
    }
    Ok(Some(verdict))
}

/// Says how all cases did.
///
/// # Errors
///
/// When one is worse.
pub(crate) fn conclude(verdicts: &[Verdict]) -> Fallible<()> {
    println!("\n{:<14} {:>10} {:>8} {:>12}", "case", "on record", "now", "repeated");
    for verdict in verdicts {
        let again = verdict.again.map_or_else(|| "–".to_owned(), |again| format!("{again:.2}"));
        let note = if verdict.is_worse() { "  worse by more than 10 %" } else { "" };
        println!("{:<14} {:>10.2} {:>8.2} {again:>12}{note}", verdict.case, verdict.recorded, verdict.now);
    }
    match verdicts.iter().filter(|verdict| verdict.is_worse()).count() {
        0 if verdicts.is_empty() => Err("no case could be compared".into()),
        0 => Ok(()),
        worse => Err(format!("{worse} of {} cases are worse than on record", verdicts.len()).into()),
    }
}

fn ours(bench: &Bench, measured: &[Vec<Round>]) -> Option<f64> {
    let rounds =
        |kind| bench.contenders.iter().position(|contender| contender.kind == kind).map(|place| &measured[place][..]);
    ratio(&Figures::of(rounds(Kind::Tollgate)?, rounds(Kind::Nginx)))
}
