//! A connection as long as it lasts: to one server, or to the nodes of a Cluster.

use std::time::Duration;

use futures_util::future::join_all;
use redis::aio::{ConnectionLike, MultiplexedConnection};
use redis::cluster::ClusterClient;
use redis::cluster_async::ClusterConnection;
use redis::cluster_routing::{MultipleNodeRoutingInfo, ResponsePolicy, RoutingInfo};
use redis::{Cmd, Pipeline, RedisError, Value};
use tokio::sync::watch;
use tokio::time::timeout;

use super::errors::{LinkError, StoreFault};
use super::opening::{certificates, connect, info, words};
use super::sentinels::Sentinels;
use super::state::LinkState;
use crate::fleet::names::Names;
use crate::fleet::script;
use crate::fleet::settings::{FleetSettings, HostPort, StoreKind};

/// The oldest version that has what the scripts use.
const OLDEST: u32 = 7;
/// The longest that connecting takes, with all that is asked first.
pub(super) const CONNECTING: Duration = Duration::from_secs(1);

/// An open connection.
#[derive(Clone)]
enum Wires {
    One(MultiplexedConnection),
    Many(ClusterConnection),
}

/// An open connection, and what was learnt of the store by it.
pub(super) struct Session {
    wires: Wires,
    /// Where it leads, for people.
    pub(super) place: String,
    /// What it leads to, for people.
    pub(super) version: String,
    pub(super) policy: Option<String>,
    /// The primary that Sentinel named.
    pub(super) primary: Option<HostPort>,
}

impl Session {
    /// Connects, looks what is there, and loads the scripts.
    pub(super) async fn open(settings: &FleetSettings) -> Result<Session, LinkError> {
        let primary = match settings.store.kind {
            StoreKind::Sentinel { .. } => Some(Sentinels::default().primary(settings).await?),
            _ => None,
        };
        let place = primary.as_ref().map_or_else(|| settings.store.to_string(), ToString::to_string);
        let wires = Wires::open(settings, primary.as_ref(), None).await?;
        let mut session = Session { wires, place, version: String::new(), policy: None, primary };
        session.look().await?;
        session.load_scripts().await?;
        session.try_writes(&Names::new(&settings.prefix)).await?;
        Ok(session)
    }

    /// Whether writes are taken, everywhere where there will be some: on a Cluster on other nodes, and on one server
    /// nowhere else.
    pub(super) async fn try_writes(&self, names: &Names) -> Result<(), LinkError> {
        let trials = names.trials();
        let write = |key: &Vec<u8>| {
            let mut set = redis::cmd("SET");
            set.arg(key).arg("").arg("PX").arg(1).clone()
        };
        let writes: Vec<Cmd> = trials.iter().map(write).collect();
        let faults = self.send(writes, CONNECTING).await.into_iter().filter_map(Result::err);
        faults.filter(StoreFault::is_refusal).map(|fault| Err(fault.error)).next().unwrap_or(Ok(()))
    }

    /// Whether it leads to the nodes of a Cluster.
    pub(super) fn is_cluster(&self) -> bool {
        matches!(self.wires, Wires::Many(_))
    }

    /// Another connection to the same place, on which answers may take long.
    pub(super) async fn beside(&self, settings: &FleetSettings) -> Result<Beside, LinkError> {
        let primary = self.primary.as_ref();
        Wires::open(settings, primary, Some(())).await.map(Beside)
    }

    /// Sends commands, and answers each within `limit`. On one server they go as one pipeline. On a Cluster each goes
    /// its own way, side by side on the same connections, as a pipeline that meets a moved slot would be sent again
    /// whole, with what was carried out already.
    pub(super) async fn send(&self, commands: Vec<Cmd>, limit: Duration) -> Vec<Result<Value, StoreFault>> {
        if commands.is_empty() {
            return Vec::new();
        }
        match &self.wires {
            Wires::One(wire) => {
                let count = commands.len();
                let mut pipeline = Pipeline::with_capacity(count);
                for command in commands {
                    pipeline.add_command(command);
                }
                let mut wire = wire.clone();
                match timeout(limit, wire.req_packed_commands(&pipeline, 0, count)).await {
                    Ok(Ok(answers)) if answers.len() == count => {
                        answers.into_iter().map(|answer| answered(answer).map_err(StoreFault::of_one_server)).collect()
                    }
                    Ok(Err(error)) => vec![Err(StoreFault::of(&error).of_one_server()); count],
                    Ok(Ok(_)) | Err(_) => vec![Err(StoreFault::late()); count],
                }
            }
            Wires::Many(wires) => {
                join_all(commands.iter().map(|command| async {
                    let mut wires = wires.clone();
                    match timeout(limit, wires.req_packed_command(command)).await {
                        Ok(Ok(answer)) => answered(answer),
                        Ok(Err(error)) => Err(StoreFault::of(&error)),
                        Err(_) => Err(StoreFault::late()),
                    }
                }))
                .await
            }
        }
    }

    /// Asks for a sign of life; on a Cluster of any node.
    pub(super) async fn ping(&self) -> Result<(), LinkError> {
        self.everywhere(&redis::cmd("PING"), Some(ResponsePolicy::OneSucceeded)).await.map(drop).map_err(words)
    }

    /// Loads all scripts, on each node.
    pub(super) async fn load_scripts(&self) -> Result<(), LinkError> {
        for script in script::all() {
            let mut load = redis::cmd("SCRIPT");
            load.arg("LOAD").arg(script.source);
            let loaded = self.everywhere(&load, Some(ResponsePolicy::AllSucceeded)).await;
            loaded.map_err(words)?;
        }
        Ok(())
    }

    /// How many keys were thrown away for want of memory; none where that may not be asked.
    pub(super) async fn evicted_keys(&self) -> Option<u64> {
        let mut info = redis::cmd("INFO");
        info.arg("stats");
        let said = self.everywhere(&info, None).await.ok()?;
        // Of a Cluster beside the addresses of its nodes; nothing where it was refused.
        let counts: Vec<u64> =
            texts(&said).iter().filter_map(|text| field(text, "evicted_keys")?.parse().ok()).collect();
        (!counts.is_empty()).then(|| counts.iter().sum())
    }

    /// The version, which must be new enough; what is done when memory is full; whether it takes writes.
    async fn look(&mut self) -> Result<(), LinkError> {
        self.ping().await?;
        let mut info = redis::cmd("INFO");
        info.arg("server");
        let said = texts(&self.everywhere(&info, None).await.unwrap_or(Value::Nil));
        "a version that may not be asked".clone_into(&mut self.version);
        for text in &said {
            let redis = field(text, "redis_version").unwrap_or_default();
            let major = redis.split('.').next().and_then(|major| major.parse::<u32>().ok());
            self.version = match field(text, "valkey_version") {
                Some(valkey) => format!("Valkey {valkey}"),
                None => format!("Redis {redis}"),
            };
            if major.is_some_and(|major| major < OLDEST) {
                let needed = format!("Valkey, or Redis from {OLDEST}.0 on, is needed");
                return Err(LinkError::Refused(format!("{} is too old: {needed}", self.version)));
            }
        }
        let mut policy = redis::cmd("CONFIG");
        policy.arg("GET").arg("maxmemory-policy");
        let said = texts(&self.everywhere(&policy, None).await.unwrap_or(Value::Nil));
        let known = |word: &&String| word.as_str() == "noeviction" || word.contains('-') && *word != "maxmemory-policy";
        let policies: Vec<String> = said.iter().filter(known).cloned().collect();
        // The worst of a Cluster's nodes.
        self.policy = policies.iter().find(|policy| *policy != "noeviction").or(policies.first()).cloned();
        if let Wires::One(wire) = &self.wires {
            let role = redis::cmd("ROLE").query_async::<Value>(&mut wire.clone()).await;
            if role.is_ok_and(|role| texts(&role).first().is_some_and(|role| role == "slave")) {
                return Err(LinkError::Refused("it is a replica, which takes no writes".to_owned()));
            }
        }
        Ok(())
    }

    /// Asks the server, or each primary of a Cluster.
    async fn everywhere(&self, command: &Cmd, policy: Option<ResponsePolicy>) -> Result<Value, RedisError> {
        match &self.wires {
            Wires::One(wire) => wire.clone().req_packed_command(command).await,
            Wires::Many(wires) => {
                let all = RoutingInfo::MultiNode((MultipleNodeRoutingInfo::AllMasters, policy));
                wires.clone().route_command(command.clone(), all).await
            }
        }
    }
}

impl Wires {
    /// A connection to the store; `patient`, for commands that wait there.
    async fn open(
        settings: &FleetSettings,
        primary: Option<&HostPort>,
        patient: Option<()>,
    ) -> Result<Self, LinkError> {
        let certificates = certificates(settings)?;
        if let StoreKind::Cluster(nodes) = &settings.store.kind {
            let nodes = nodes.iter().map(|node| info(settings, node, true)).collect::<Result<Vec<_>, _>>()?;
            let mut builder = ClusterClient::builder(nodes)
                .connection_timeout(Duration::from_millis(500))
                // Each caller has its own, shorter one.
                .response_timeout(Duration::from_secs(if patient.is_some() { 3600 } else { 2 }))
                .retries(8)
                .min_retry_wait(5)
                .max_retry_wait(100);
            if let Some(certificates) = certificates {
                builder = builder.certs(certificates);
            }
            let client = builder.build().map_err(words)?;
            return client.get_async_connection().await.map(Wires::Many).map_err(words);
        }
        let node = match (&settings.store.kind, primary) {
            (_, Some(primary)) | (StoreKind::Single(primary), None) => primary,
            _ => return Err(LinkError::Unreachable("no server to connect to".to_owned())),
        };
        connect(info(settings, node, true)?, certificates).await.map(Wires::One).map_err(words)
    }
}

/// A connection of its own that is not in use yet.
pub(super) struct Beside(Wires);

/// A connection for commands that wait in the store, such as `XREAD BLOCK`.
pub struct Blocking {
    wires: Wires,
    state: watch::Receiver<LinkState>,
    /// The state that it was opened in.
    opened: LinkState,
}

impl Blocking {
    pub(super) fn new(beside: Beside, state: watch::Receiver<LinkState>, opened: LinkState) -> Self {
        Blocking { wires: beside.0, state, opened }
    }

    /// Runs one command, which takes `limit` at most. Fails once the link was lost, too: then the store may be another
    /// one, and a new connection is needed.
    pub async fn command(&mut self, command: &Cmd, limit: Duration) -> Result<Value, LinkError> {
        let asked = async {
            match &mut self.wires {
                Wires::One(wire) => wire.req_packed_command(command).await,
                Wires::Many(wires) => wires.req_packed_command(command).await,
            }
        };
        tokio::select! {
            biased;
            answer = timeout(limit, asked) => match answer {
                Ok(Ok(answer)) => Ok(answer),
                Ok(Err(error)) => Err(StoreFault::of(&error).error),
                Err(_) => Err(LinkError::TimedOut),
            },
            _ = self.state.wait_for(|state| self.opened.is_reachable() && *state != self.opened) => {
                Err(LinkError::lost())
            }
        }
    }
}

fn answered(answer: Value) -> Result<Value, StoreFault> {
    if let Value::ServerError(error) = &answer { Err(StoreFault::of_server(error)) } else { Ok(answer) }
}

/// All texts in an answer, however deep.
fn texts(value: &Value) -> Vec<String> {
    match value {
        Value::BulkString(bytes) => vec![String::from_utf8_lossy(bytes).into_owned()],
        Value::SimpleString(text) | Value::VerbatimString { text, .. } => vec![text.clone()],
        Value::Array(items) | Value::Set(items) => items.iter().flat_map(texts).collect(),
        Value::Map(pairs) => pairs.iter().flat_map(|(key, value)| [texts(key), texts(value)].concat()).collect(),
        _ => Vec::new(),
    }
}

/// What INFO says of one field.
fn field<'a>(info: &'a str, name: &str) -> Option<&'a str> {
    info.lines().find_map(|line| line.strip_prefix(name)?.strip_prefix(':')).map(str::trim)
}
