//! Taking in what others have added to the line, and coming level with it from whatever there is.

use std::collections::HashSet;
use std::time::Duration;

use redis::Cmd;
use tokio::sync::mpsc;

use super::answers::{self, LineTurn, Meta};
use super::came::Came;
use super::outcome::{FOREIGN, JoinOutcome, RegistryError, RegistryState};
use super::publish::{CALL, ChangeLine, LOG, PIECE, drawn, push, texts};
use super::whole::id_of;
use crate::fleet::link::{Blocking, LinkError};
use crate::fleet::script;
use crate::store::{Adoption, Authored, BucketStore, ClientRepository, FleetCursor, PageQuery, StoreError};

/// How often to look whether something came, when nothing says so.
const LOOK: Duration = Duration::from_millis(500);
/// The same when nothing can say so.
const POLL: Duration = Duration::from_millis(200);

/// What became of taking in what came.
enum Step {
    /// All is taken in.
    Level,
    /// There may be more.
    More,
    /// The whole table must be taken in.
    Whole,
    /// The registry is not there any more, or another one.
    Anew,
    /// The store has lost what was seen in this generation.
    Lost(u64),
}

/// A node that has met its fleet.
#[derive(Clone, Copy)]
pub(super) struct Meeting {
    pub(super) meta: Meta,
    /// How far the node has come in this fleet.
    mine: Option<FleetCursor>,
    /// Whether the node has had all of its clients, whatever has changed since.
    pub(super) has_all: bool,
}

impl ChangeLine {
    /// Follows for ever; meets the fleet again where that must be.
    pub(super) async fn keep_up(&self) {
        let mut reachable = self.link.state();
        loop {
            if reachable.wait_for(|state| state.is_reachable()).await.is_err() {
                return;
            }
            match self.sync().await {
                Ok(JoinOutcome::Joined { .. }) => {
                    if let Err(error) = self.follow().await {
                        log::debug!(target: "tollgate::fleet", "following the fleet's clients: {error}");
                    }
                    self.state.send_replace(RegistryState::Away);
                }
                Ok(JoinOutcome::Foreign) => {
                    if self.state.send_replace(RegistryState::Foreign) != RegistryState::Foreign {
                        log::error!(target: "tollgate::fleet", "{FOREIGN}");
                    }
                }
                Ok(JoinOutcome::Unreachable) | Err(RegistryError::Link(_)) => {}
                Err(error) => log::error!(target: "tollgate::fleet", "the fleet's clients cannot be had: {error}"),
            }
            self.pause(POLL.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Takes in what comes, until the whole table must be, or something goes wrong.
    async fn follow(&self) -> Result<(), RegistryError> {
        let mut waker = None;
        loop {
            match self.step().await? {
                Step::Level => {
                    self.state.send_if_modified(|state| std::mem::replace(state, RegistryState::Joined) != *state);
                    self.wait(&mut waker).await?;
                }
                Step::More => {}
                Step::Whole | Step::Anew | Step::Lost(_) => return Ok(()),
            }
        }
    }

    /// Waits until something may have come.
    async fn wait(&self, waker: &mut Option<Blocking>) -> Result<(), RegistryError> {
        if waker.is_none() {
            *waker = self.link.blocking().await.ok();
        }
        let (Some(connection), Some(cursor)) = (waker.as_mut(), self.cursor().await?) else {
            self.pause(POLL).await;
            return Ok(());
        };
        let mut read = Cmd::new();
        read.arg("XREAD").arg("COUNT").arg(1).arg("BLOCK").arg(u64::try_from(LOOK.as_millis()).unwrap_or(500));
        read.arg("STREAMS").arg(self.names.clients("log")).arg(format!("{}-0", cursor.seq));
        if connection.command(&read, LOOK * 2).await.is_err() {
            *waker = None;
            self.pause(POLL).await;
        }
        Ok(())
    }

    /// Takes in what came since.
    async fn step(&self) -> Result<Step, RegistryError> {
        let Some(cursor) = self.cursor().await? else { return Ok(Step::Anew) };
        if cursor.seq == 0 {
            return Ok(Step::Whole);
        }
        let adoption = match self.turn(&cursor, &[], drawn()).await? {
            LineTurn::Done { .. } => {
                let store = self.store.clone();
                if blocking(move || store.pending()).await?.is_empty() {
                    return Ok(Step::Level);
                }
                // What was changed here alone goes along with nothing.
                Adoption { changes: Vec::new(), cursor, anew: false, known: None }
            }
            LineTurn::Behind(entries) => match self.what_came(&cursor, entries).await? {
                Came::Next(adoption) => adoption,
                Came::Gone => return Ok(Step::Whole),
                Came::Other => return Ok(Step::Lost(cursor.generation)),
            },
            LineTurn::Lost => return Ok(Step::Lost(cursor.generation)),
            LineTurn::Other | LineTurn::Empty | LineTurn::Held | LineTurn::Stage => return Ok(Step::Anew),
        };
        self.store.adopt(adoption).wait().await?;
        Ok(Step::More)
    }

    pub(super) async fn cursor(&self) -> Result<Option<FleetCursor>, RegistryError> {
        let store = self.store.clone();
        Ok(blocking(move || store.fleet_cursor()).await?)
    }

    /// Meets the fleet, and joins it or comes level with it, from whatever there is.
    async fn sync(&self) -> Result<JoinOutcome, RegistryError> {
        match self.meet().await? {
            Some(meeting) => self.come_level(meeting).await,
            None => Ok(JoinOutcome::Foreign),
        }
    }

    /// Meets the fleet, and opens it where there is none; nothing when it is not this node's.
    pub(super) async fn meet(&self) -> Result<Option<Meeting>, RegistryError> {
        let mut mine = self.cursor().await?;
        let (mut found, mut opened) = (self.meta().await?, false);
        if found.is_none() {
            let cursor = match mine {
                Some(cursor) => cursor,
                None => self.begin().await?,
            };
            mine = Some(cursor);
            (found, opened) = self.open(cursor, None).await?;
        }
        let meta = found.ok_or(RegistryError::Senseless("the store makes no registry of clients"))?;
        let mine = mine.filter(|mine| mine.lineage == meta.lineage);
        let has_all = match mine {
            Some(mine) if opened || mine.seq > 0 => true,
            Some(_) => self.clients().await? >= self.all().await?,
            None if self.clients().await? > 0 => return Ok(None),
            None => false,
        };
        Ok(Some(Meeting { meta, mine, has_all }))
    }

    /// Notes the fleet that is about to be made, or whoever ends right after that does not know it for its own.
    async fn begin(&self) -> Result<FleetCursor, RegistryError> {
        let cursor = FleetCursor { lineage: drawn(), generation: 0, secret: self.store.secret(), seq: 0, mark: 0 };
        self.store.adopt(Adoption { changes: Vec::new(), cursor, anew: true, known: None }).wait().await?;
        Ok(cursor)
    }

    /// Takes in whatever is new since.
    pub(super) async fn come_level(&self, meeting: Meeting) -> Result<JoinOutcome, RegistryError> {
        let Meeting { mut meta, mine, .. } = meeting;
        if let Some(mine) = mine.filter(|mine| mine.generation == meta.generation) {
            loop {
                match self.step().await? {
                    Step::Level => return Ok(JoinOutcome::Joined { secret: meta.secret }),
                    Step::More => {}
                    Step::Whole => break,
                    // The next attempt finds out which.
                    Step::Anew => return Ok(JoinOutcome::Unreachable),
                    Step::Lost(generation) => {
                        log::error!(target: "tollgate::fleet", "the fleet's store has lost changes of clients that it had \
                            acknowledged; it is filled again from the nodes");
                        let (renewed, _) = self.open(mine, Some(generation)).await?;
                        meta = renewed.ok_or(RegistryError::Senseless("the store makes no registry of clients"))?;
                        self.offer_all(meta.generation).await?;
                        break;
                    }
                }
            }
        } else if mine.is_some() {
            self.offer_all(meta.generation).await?;
        }
        self.take_all(meta).await
    }

    /// How many clients this node has.
    async fn clients(&self) -> Result<u64, RegistryError> {
        let store = self.store.clone();
        let query = PageQuery { after: None, limit: 1, search: String::new() };
        Ok(blocking(move || store.page(&query)).await?.total)
    }

    /// Makes a registry, or a new generation of it instead of `lost`; what there is then, and whether that is of this
    /// call.
    async fn open(&self, mine: FleetCursor, lost: Option<u64>) -> Result<(Option<Meta>, bool), RegistryError> {
        let generation = drawn();
        let mut args = texts(&[mine.lineage, generation]);
        args.push(format!("{:032x}", mine.secret).into_bytes());
        args.push(lost.map(|lost| lost.to_string()).unwrap_or_default().into_bytes());
        let keys = vec![self.names.clients("meta"), self.names.clients("log")];
        let meta = answers::meta(&self.call(&script::REGISTRY_OPEN, keys, args, CALL).await?);
        let meta = meta.map_err(RegistryError::Senseless)?;
        Ok((meta, meta.is_some_and(|meta| meta.generation == generation)))
    }

    /// Offers the fleet the last change of each client, but those that were made here alone: those are published when
    /// all others are taken in.
    async fn offer_all(&self, generation: u64) -> Result<(), RegistryError> {
        let (pieces, mut incoming) = mpsc::channel::<Vec<Authored>>(2);
        let store = self.store.clone();
        let reading = tokio::task::spawn_blocking(move || -> Result<(), StoreError> {
            let alone: HashSet<_> = store.pending()?.iter().filter_map(id_of).collect();
            let mut piece = Vec::new();
            store.latest_changes(&mut |change| {
                if id_of(&change).is_some_and(|id| !alone.contains(&id)) {
                    piece.push(change);
                }
                piece.len() < PIECE || pieces.blocking_send(std::mem::take(&mut piece)).is_ok()
            })?;
            let _ = pieces.blocking_send(piece);
            Ok(())
        });
        while let Some(piece) = incoming.recv().await {
            let mut args = texts(&[generation, drawn()]);
            args.push(LOG.as_bytes().to_vec());
            piece.iter().for_each(|change| push(&mut args, change));
            let keys = vec![self.names.clients("meta"), self.names.clients("all"), self.names.clients("log")];
            let answer = self.call(&script::REGISTRY_OFFER, keys, args, CALL).await?;
            if !matches!(answers::turn(&answer), Some(LineTurn::Done { .. })) {
                return Err(LinkError::Unreachable("the registry of clients was lost meanwhile".to_owned()).into());
            }
        }
        reading.await.map_err(|_| RegistryError::Senseless("the clients could not be read"))??;
        Ok(())
    }
}

/// Reads from the file off the runtime's threads.
async fn blocking<T: Send + 'static>(
    read: impl FnOnce() -> Result<T, StoreError> + Send + 'static,
) -> Result<T, StoreError> {
    let read = tokio::task::spawn_blocking(read).await;
    read.unwrap_or_else(|_| Err(StoreError("a read of the store failed".to_owned())))
}
