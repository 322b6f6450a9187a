//! Adding to the line of changes.
//!
//! A few changes are added one by one. Many, a bulk, are put down in a list of their own first, the stage, which nobody
//! looks at; then one entry of the line names it, which is the switch: before it nothing has happened, after it all of
//! it is in force. Who follows the line takes the stage in as a whole; whoever [tends](super::tend) the table folds it in
//! there. While a bulk is put down nobody else adds to the line, or it would always come too late.

use std::time::Duration;

use parking_lot::Mutex;
use redis::Value;
use tokio::sync::{mpsc, watch};
use tokio::time::timeout;

use super::answers::{self, LineTurn, META, Meta};
use super::outcome::{RegistryError, RegistryState};
use super::wire;
use crate::fleet::link::{LinkError, ScriptCall, StoreLink};
use crate::fleet::names::Names;
use crate::fleet::script::{self, Script};
use crate::store::sqlite::Sqlite;
use crate::store::{Authored, FleetCursor, Published};

/// How long one call may take.
pub(super) const CALL: Duration = Duration::from_secs(2);
/// How many entries are kept in the line.
pub(super) const LOG: &str = "100000";
/// How many of them are answered at once.
pub(super) const ENTRIES: &str = "1000";
/// How many changes go in one call.
pub(super) const PIECE: usize = 500;
/// More changes than these are a bulk.
const STAGED: usize = 1_000;
/// How many seconds a stage is kept that nobody has switched to, or that is folded in.
pub(super) const LAPSE: u32 = 600;
/// For how many microseconds nobody else adds to the line before a bulk: so many, and some for each of its changes.
/// Whoever ends in between is waited for no longer.
const HOLD: [u64; 2] = [5_000_000, 50];

/// This node's part in the line of changes.
pub(super) struct ChangeLine {
    pub(super) link: StoreLink,
    pub(super) store: Sqlite,
    pub(super) names: Names,
    pub(super) state: watch::Sender<RegistryState>,
    pub(super) asks: mpsc::Sender<PublishAsk>,
    pub(super) asked: Mutex<Option<mpsc::Receiver<PublishAsk>>>,
    /// Who this is to the others.
    pub(super) me: u64,
    /// The mark of the first bulk that is not folded in, as was last heard.
    pub(super) unfolded: watch::Sender<Option<u64>>,
    /// How many clients of the whole table are taken in, and of about how many.
    pub(super) taken: watch::Sender<(u64, u64)>,
}

/// Changes to be published, and where the answer goes.
pub(super) struct PublishAsk {
    pub(super) cursor: FleetCursor,
    pub(super) changes: Vec<Authored>,
    pub(super) answer: std::sync::mpsc::SyncSender<Published>,
}

/// A number that nobody has drawn before. Lua and Redis read it as text.
pub(super) fn drawn() -> u64 {
    fastrand::u64(1..1 << 62)
}

impl ChangeLine {
    /// That of the clients in `store`.
    pub(super) fn new(link: StoreLink, store: Sqlite, prefix: &str) -> Self {
        let (asks, asked) = mpsc::channel(1);
        let (state, unfolded, taken) = Default::default();
        let (names, asked) = (Names::new(prefix), Mutex::new(Some(asked)));
        ChangeLine { link, store, names, state, asks, asked, me: drawn(), unfolded, taken }
    }

    /// Adds changes to the line, if `cursor` is its end; without any, looks whether it is.
    pub(super) async fn turn(
        &self,
        cursor: &FleetCursor,
        changes: &[Authored],
        mark: u64,
    ) -> Result<LineTurn, LinkError> {
        if changes.len() <= STAGED {
            let mut args = Vec::new();
            changes.iter().for_each(|change| push(&mut args, change));
            return self.line(cursor, mark, args, None).await;
        }
        // Nothing counts before the switch.
        let unsure = |error| match error {
            LinkError::TimedOut => LinkError::Unreachable("the stage was not written in time".to_owned()),
            other => other,
        };
        let hold = HOLD[0] + HOLD[1] * changes.len() as u64;
        let held = self.line(cursor, mark, texts(&[hold]), None).await.map_err(unsure)?;
        if !matches!(held, LineTurn::Done { .. }) {
            return Ok(held);
        }
        let count = self.put_down(mark, changes).await.map_err(unsure)?;
        self.line(cursor, mark, texts(&[count]), Some(self.stage(mark))).await
    }

    /// Puts a bulk down in the stage of its mark; how many changes it has.
    pub(super) async fn put_down(&self, mark: u64, changes: &[Authored]) -> Result<u64, LinkError> {
        let (stage, mut count) = (self.stage(mark), 0);
        for piece in changes.chunks(PIECE) {
            let mut items = Vec::new();
            piece.iter().for_each(|change| push(&mut items, change));
            count += items.len() as u64 / 3;
            let mut put = redis::cmd("RPUSH");
            put.arg(&stage).arg(items);
            let mut lapse = redis::cmd("EXPIRE");
            lapse.arg(&stage).arg(LAPSE);
            self.link.commands(&[put, lapse], CALL).await?;
        }
        Ok(count)
    }

    pub(super) async fn line(
        &self,
        cursor: &FleetCursor,
        mark: u64,
        more: Vec<Vec<u8>>,
        stage: Option<Vec<u8>>,
    ) -> Result<LineTurn, LinkError> {
        let mut args = texts(&[cursor.generation, cursor.seq, cursor.mark, mark]);
        args.extend([ENTRIES, LOG].map(|text| text.as_bytes().to_vec()));
        args.extend(texts(&[self.me]));
        args.extend(more);
        let keys = ["meta", "all", "log", "bulks"].map(|name| self.names.clients(name)).into_iter().chain(stage);
        let answer = self.call(&script::REGISTRY_PUBLISH, keys.collect(), args, CALL).await?;
        let turn = answers::turn(&answer);
        if let Some(LineTurn::Done { unfolded, .. }) = &turn {
            self.heard(*unfolded);
        }
        turn.ok_or_else(|| LinkError::Script("an answer that makes no sense".to_owned()))
    }

    /// Takes note of the first bulk that is not folded in.
    pub(super) fn heard(&self, unfolded: Option<u64>) {
        self.unfolded.send_if_modified(|known| std::mem::replace(known, unfolded) != unfolded);
    }

    /// Where the bulk of that mark is put down.
    pub(super) fn stage(&self, mark: u64) -> Vec<u8> {
        self.names.clients(&format!("stage:{mark}"))
    }

    /// Lets some time pass, but no more when the store goes or comes.
    pub(super) async fn pause(&self, time: Duration) {
        // Either is as good.
        let _ = timeout(time, self.link.state().changed()).await;
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
