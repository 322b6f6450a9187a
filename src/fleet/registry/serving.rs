//! Publishing for the writer of the store.

use std::time::Duration;

use tokio::sync::mpsc;

use super::answers::LineTurn;
use super::came::Came;
use super::publish::{ChangeLine, PublishAsk, drawn, texts};
use crate::fleet::link::LinkError;
use crate::store::{Authored, FleetCursor, Published};

/// How often to try again while another has a bulk to add, which is for some 20 s.
const HELD: usize = 400;
/// From one of these to the next.
const PAUSE: Duration = Duration::from_millis(50);

impl ChangeLine {
    /// Publishes for the writer of the store.
    pub(super) async fn serve(&self, mut asked: mpsc::Receiver<PublishAsk>) {
        while let Some(PublishAsk { cursor, changes, answer }) = asked.recv().await {
            // The writer may have stopped waiting.
            let _ = answer.try_send(self.publish(&cursor, &changes).await);
        }
    }

    pub(super) async fn publish(&self, cursor: &FleetCursor, changes: &[Authored]) -> Published {
        let mark = drawn();
        for _ in 0..HELD {
            let turn = match changes {
                // Who wanted to change something and must not keeps nobody waiting.
                [] => self.line(cursor, mark, texts(&[0]), None).await,
                _ => self.turn(cursor, changes, mark).await,
            };
            let turn = match turn {
                Ok(LineTurn::Held) => {
                    self.pause(PAUSE).await;
                    continue;
                }
                Ok(LineTurn::Behind(entries)) => self.what_came(cursor, entries).await.map(Ok),
                turn => turn.map(Err),
            };
            return match turn {
                Ok(Err(LineTurn::Done { seq, .. })) if changes.is_empty() => {
                    Published::Committed { seq, mark: cursor.mark }
                }
                Ok(Err(LineTurn::Done { seq, .. })) => Published::Committed { seq, mark },
                Ok(Ok(Came::Next(adoption))) => Published::Behind(adoption),
                // Whoever follows finds it out too, and sees to it.
                Ok(_) | Err(LinkError::Unreachable(_)) => Published::Unreachable,
                Err(LinkError::TimedOut) => Published::Unknown,
                Err(LinkError::Refused(reason) | LinkError::Script(reason)) => Published::Refused(reason),
            };
        }
        Published::Unreachable
    }
}
