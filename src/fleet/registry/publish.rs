//! Adding to the line of changes.

use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::{mpsc, watch};

use super::answers::{self, LineTurn, LogEntry, META, Meta};
use super::outcome::{RegistryError, RegistryState};
use super::wire;
use crate::fleet::link::{LinkError, ScriptCall, StoreLink};
use crate::fleet::names::Names;
use crate::fleet::script::{self, Script};
use crate::store::sqlite::Sqlite;
use crate::store::{Adoption, Authored, FleetCursor, Published};

/// How long one call may take; a large one for each thousand changes more.
pub(super) const CALL: Duration = Duration::from_secs(2);
/// How many changes are kept in the line.
pub(super) const LOG: &str = "100000";
/// How many of them are answered at once.
pub(super) const ENTRIES: &str = "1000";
/// How many changes go in one call.
pub(super) const PIECE: usize = 500;
/// More changes than these are put down in the store first, and added by one call then.
const STAGED: usize = 5_000;

/// This node's part in the line of changes.
pub(super) struct ChangeLine {
    pub(super) link: StoreLink,
    pub(super) store: Sqlite,
    pub(super) names: Names,
    pub(super) state: watch::Sender<RegistryState>,
    pub(super) asks: mpsc::Sender<PublishAsk>,
    pub(super) asked: Mutex<Option<mpsc::Receiver<PublishAsk>>>,
}

/// Changes to be published, and where the answer goes.
pub(super) struct PublishAsk {
    pub(super) cursor: FleetCursor,
    pub(super) changes: Vec<Authored>,
    pub(super) answer: std::sync::mpsc::SyncSender<Published>,
}

/// How long a call with so many changes may take.
pub(super) fn patience(changes: usize) -> Duration {
    CALL + CALL / 100 * u32::try_from(changes / 1_000).unwrap_or(u32::MAX).min(10_000)
}

/// A number that nobody has drawn before. Lua and Redis read it as text.
pub(super) fn drawn() -> u64 {
    fastrand::u64(1..1 << 62)
}

impl ChangeLine {
    /// That of the clients in `store`.
    pub(super) fn new(link: StoreLink, store: Sqlite, prefix: &str) -> Self {
        let (asks, asked) = mpsc::channel(1);
        let (names, state) = (Names::new(prefix), watch::Sender::default());
        ChangeLine { link, store, names, state, asks, asked: Mutex::new(Some(asked)) }
    }

    /// Publishes for the writer of the store.
    pub(super) async fn serve(&self, mut asked: mpsc::Receiver<PublishAsk>) {
        while let Some(PublishAsk { cursor, changes, answer }) = asked.recv().await {
            // The writer may have stopped waiting.
            let _ = answer.try_send(self.publish(&cursor, &changes).await);
        }
    }

    pub(super) async fn publish(&self, cursor: &FleetCursor, changes: &[Authored]) -> Published {
        let mark = drawn();
        match self.turn(cursor, changes, mark).await {
            Ok(LineTurn::Done(seq)) if changes.is_empty() => Published::Committed { seq, mark: cursor.mark },
            Ok(LineTurn::Done(seq)) => Published::Committed { seq, mark },
            Ok(LineTurn::Behind(entries)) => match adoption(cursor, entries) {
                Ok(Some(adoption)) => Published::Behind(adoption),
                // Whoever follows finds it out too, and sees to it.
                Ok(None) | Err(_) => Published::Unreachable,
            },
            Ok(LineTurn::Other | LineTurn::Empty | LineTurn::Lost) | Err(LinkError::Unreachable(_)) => {
                Published::Unreachable
            }
            Err(LinkError::TimedOut) => Published::Unknown,
            Err(LinkError::Script(reason)) => {
                log::error!(target: "tollgate::fleet", "the fleet's store does not take changes of clients: {reason}");
                Published::Unreachable
            }
        }
    }

    /// Adds changes to the line, if `cursor` is its end.
    pub(super) async fn turn(
        &self,
        cursor: &FleetCursor,
        changes: &[Authored],
        mark: u64,
    ) -> Result<LineTurn, LinkError> {
        let mut args = texts(&[cursor.generation, cursor.seq, cursor.mark, mark]);
        args.extend([ENTRIES, LOG].map(|text| text.as_bytes().to_vec()));
        let mut keys = vec![self.names.clients("meta"), self.names.clients("all"), self.names.clients("log")];
        if changes.len() <= STAGED {
            changes.iter().for_each(|change| push(&mut args, change));
        } else {
            let stage = self.names.clients(&format!("stage:{mark}"));
            for piece in changes.chunks(PIECE) {
                let mut items = Vec::new();
                piece.iter().for_each(|change| push(&mut items, change));
                let mut put = redis::cmd("RPUSH");
                put.arg(&stage).arg(items);
                let mut lapse = redis::cmd("EXPIRE");
                lapse.arg(&stage).arg(600);
                // Nothing counts before the switch.
                let unsure = |error| match error {
                    LinkError::TimedOut => LinkError::Unreachable("the stage was not written in time".to_owned()),
                    other => other,
                };
                self.link.commands(&[put, lapse], CALL).await.map_err(unsure)?;
            }
            keys.push(stage);
        }
        let answer = self.call(&script::REGISTRY_PUBLISH, keys, args, patience(changes.len())).await?;
        answers::turn(&answer).ok_or_else(|| LinkError::Script("an answer that makes no sense".to_owned()))
    }

    pub(super) async fn call(
        &self,
        script: &'static Script,
        keys: Vec<Vec<u8>>,
        args: Vec<Vec<u8>>,
        limit: Duration,
    ) -> Result<Value, LinkError> {
        let mut answers = self.link.calls(&[ScriptCall { script, keys, args }], limit).await;
        answers.pop().unwrap_or(Err(LinkError::TimedOut))
    }

    pub(super) async fn meta(&self) -> Result<Option<Meta>, RegistryError> {
        let mut get = redis::cmd("HMGET");
        get.arg(self.names.clients("meta")).arg(&META);
        let answers = self.link.commands(&[get], CALL).await?;
        answers::meta(answers.first().unwrap_or(&Value::Nil)).map_err(RegistryError::Senseless)
    }
}

/// What is to be taken in of what came after `cursor`; none when some of it is gone, and an error when the change at
/// the cursor is another one than was seen.
pub(super) fn adoption(cursor: &FleetCursor, entries: Vec<LogEntry>) -> Result<Option<Adoption>, ()> {
    let first = entries.first().map(|entry| (entry.seq, entry.mark));
    match first {
        Some((seq, mark)) if seq == cursor.seq => {
            if mark != cursor.mark {
                return Err(());
            }
        }
        // Nothing stands at the first number.
        Some((2, _)) if cursor.seq == 1 => {}
        _ => return Ok(None),
    }
    let Some((seq, mark)) = entries.last().map(|entry| (entry.seq, entry.mark)) else { return Ok(None) };
    let changes = entries.into_iter().filter(|entry| entry.seq > cursor.seq);
    let changes = changes.filter_map(|LogEntry { seq, change, .. }| {
        if change.is_none() {
            log::error!(target: "tollgate::fleet", "change {seq} of the fleet's clients makes no sense and is passed over");
        }
        change.map(|change| (seq, change))
    });
    Ok(Some(Adoption { changes: changes.collect(), cursor: FleetCursor { seq, mark, ..*cursor }, anew: false }))
}

/// What the scripts take of a change: its client, its order, and itself.
pub(super) fn push(args: &mut Vec<Vec<u8>>, change: &Authored) {
    let shown = change.change.after.as_ref().or(change.change.before.as_ref());
    if let (Some(shown), Some(text)) = (shown, wire::written(change)) {
        let (version, at, number) = change.order();
        args.extend([shown.id.as_str().into(), format!("{version} {at} {number} ").into_bytes(), text.into_bytes()]);
    }
}

pub(super) fn texts(numbers: &[u64]) -> Vec<Vec<u8>> {
    numbers.iter().map(|number| number.to_string().into_bytes()).collect()
}
