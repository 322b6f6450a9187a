//! How long it takes to start, and to reload.

use std::fmt;
use std::time::Duration;

use crate::bench::Bench;
use crate::shapes::Shape;
use crate::stop::Fallible;
use crate::tollgate::Setting;

/// How often both are measured; the fastest counts, as others hold what else the machine did.
const ROUNDS: usize = 3;

/// Three cells of the table.
#[derive(Clone, Copy, Debug)]
pub(crate) struct Start {
    serves: Duration,
    reloads: Duration,
    resident: u64,
}

impl fmt::Display for Start {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        let ms = |time: Duration| format!("{:.0}", time.as_secs_f64() * 1e3);
        write!(f, "{} | {} | {}", ms(self.serves), ms(self.reloads), self.resident >> 20)
    }
}

impl Bench {
    /// Starts what a shape asks for, checks included, and reloads it with another weight of a backend and another
    /// route.
    ///
    /// # Errors
    ///
    /// When either fails.
    pub(crate) fn start(&self, shape: &Shape) -> Fallible<Start> {
        let directory = self.directory.path().join(format!("start-{}{}", shape.dimension.name(), shape.count));
        let database = self.clients(shape, &directory)?;
        let database = database.as_deref();
        let mut best = Start { serves: Duration::MAX, reloads: Duration::MAX, resident: u64::MAX };
        for round in 0..ROUNDS {
            let tollgate = self.tollgate(shape, &directory, database, true)?;
            best.serves = best.serves.min(tollgate.started_in);
            best.resident = best.resident.min(tollgate.process.resident()?);
            let rest = self.rest(shape, true, 2 + round);
            best.reloads = best.reloads.min(tollgate.reload(&self.core, &Setting { rest: &rest, database })?);
            tollgate.process.terminate(&self.stop, Duration::from_secs(60))?;
        }
        Ok(best)
    }
}
