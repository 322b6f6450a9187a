//! What certificate authorities ask of the nodes, and what that is to be answered, in the store.
//!
//! One hash for all of it, so that one command reads it, however many nodes are asked. It goes when nothing was put
//! there for ten minutes, and with it what nodes left that ended amid an order. Keys of accounts and certificates are
//! never there.

use std::collections::HashMap;
use std::time::Duration;

use async_trait::async_trait;
use log::warn;
use redis::{Cmd, cmd, from_redis_value};

use super::link::StoreLink;
use super::names::Names;
use crate::tls::AnswerBoard;

/// How long the store may take.
const LIMIT: Duration = Duration::from_millis(250);
/// For how long it keeps what is asked: an order is over within half of it.
const KEPT: Duration = Duration::from_secs(10 * 60);

/// What authorities ask now.
pub struct OpenChallenges {
    link: StoreLink,
    key: Vec<u8>,
}

impl OpenChallenges {
    /// What they ask the nodes of that fleet.
    pub fn new(link: StoreLink, names: &Names) -> Self {
        OpenChallenges { link, key: names.nodes("challenges") }
    }

    fn command(&self, name: &str) -> Cmd {
        let mut command = cmd(name);
        command.arg(&self.key);
        command
    }
}

#[async_trait]
impl AnswerBoard for OpenChallenges {
    async fn put(&self, token: &str, answer: &str) {
        let (mut set, mut expire) = (self.command("HSET"), self.command("EXPIRE"));
        set.arg(token).arg(answer);
        expire.arg(KEPT.as_secs());
        if let Err(error) = self.link.commands(&[set, expire], LIMIT).await {
            warn!("ACME: other nodes cannot answer what the authority asks, only this one: {}", error.reason());
        }
    }

    async fn remove(&self, tokens: &[String]) {
        let mut remove = self.command("HDEL");
        remove.arg(tokens);
        // What stays is of no use to anybody, and goes by itself.
        drop(self.link.commands(&[remove], LIMIT).await);
    }

    async fn all(&self) -> HashMap<String, String> {
        let answers = self.link.commands(&[self.command("HGETALL")], LIMIT).await;
        let all = answers.ok().and_then(|mut answers| from_redis_value(answers.pop()?).ok());
        all.unwrap_or_default()
    }
}
