//! Asking all nodes, when somebody looks.
//!
//! The problem: some figures are each node's own (what it counted, what it recorded), and an operator wants those of
//! the fleet, from whichever node is asked. The rule: nothing is told before it is asked for. A question goes into a
//! stream that every node follows, each answers into a list of the question's own, and the asking node reads that until
//! all have answered, 250 ms at most. The same question about figures within a second has the same answers.
//!
//! Whoever did not answer is named, and not waited for in the next 5 s, unless it is found to have answered late. More
//! than one process may answer for a node, while it is upgraded: one that answered the question before is waited for.
//! Without the store nobody is asked, and all others are missing.
//!
//! Refused: counters in the store, a write for each change of each client for what is seldom looked at; connections
//! from node to node, with addresses, certificates and firewalls of their own; Pub/Sub, which needs another right, and
//! another kind of connection on a Cluster.

use std::collections::{BTreeMap, BTreeSet, HashMap};
use std::sync::Arc;
use std::time::{Duration, Instant};

use futures_util::future::BoxFuture;
use parking_lot::Mutex;
use redis::{Cmd, Value};
use tokio::sync::watch;
use tokio::time::sleep;

use super::link::{LinkError, StoreLink};
use super::names::Names;
use super::nodes::Nodes;
use crate::clock::Clock;

/// How long answers are waited for.
const PATIENCE: Duration = Duration::from_millis(250);
/// Between two looks whether they are there, at first and at most.
const LOOKS: [Duration; 2] = [Duration::from_millis(1), Duration::from_millis(8)];
/// How long answers are given to others who ask the same.
const FRESH: Duration = Duration::from_secs(1);
/// How long one who did not answer is not waited for.
const SILENT: Duration = Duration::from_secs(5);
/// The most questions whose answers are kept.
const KEPT: usize = 64;
/// The most questions in the stream: whoever is further behind is not waited for any more.
const LINE: usize = 100;
/// How long the stream stays when nobody asks, and answers that nobody reads, in seconds.
const STREAM_STAYS: u64 = 60;
const ANSWERS_STAY: u64 = 10;
/// How long to wait in the store for a question, and before trying again when it cannot be.
const LISTEN: Duration = Duration::from_millis(500);
const PAUSE: Duration = Duration::from_millis(200);

/// Answers a question for this process; has no answer to one that it does not know.
pub type AnswerForNode = Box<dyn Fn(&str) -> BoxFuture<'static, Option<String>> + Send + Sync>;

/// What nodes answered.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct Gathered {
    /// The answers of all other processes.
    pub answers: Vec<String>,
    /// The nodes that have not answered.
    pub missing: Vec<String>,
}

/// Asks all nodes of a fleet, and answers for this one.
pub struct Gatherer {
    link: StoreLink,
    names: Names,
    node: String,
    /// This process among all.
    process: String,
    nodes: Arc<Nodes>,
    clock: Arc<dyn Clock>,
    answer: AnswerForNode,
    heard: Mutex<HeardOf>,
    kept: Mutex<HashMap<String, (Instant, Arc<Gathered>)>>,
}

/// Who answers and who does not.
#[derive(Default)]
struct HeardOf {
    /// The last question.
    question: String,
    /// The processes that answered it.
    processes: BTreeSet<String>,
    /// The nodes that did not answer when they were waited for last, and when that was.
    silent: BTreeMap<String, Instant>,
}

impl Gatherer {
    /// For this node, which answers by `answer`.
    pub fn new(
        (link, names, node): (StoreLink, Names, &str),
        nodes: Arc<Nodes>,
        clock: Arc<dyn Clock>,
        answer: AnswerForNode,
    ) -> Self {
        let process = format!("{node}/{:08x}", fastrand::u32(..));
        let (heard, kept) = Default::default();
        Gatherer { link, names, node: node.to_owned(), process, nodes, clock, answer, heard, kept }
    }

    /// Asks all other nodes, or has answers that are not a second old.
    pub async fn ask(&self, question: &str) -> Arc<Gathered> {
        let now = self.clock.now();
        if let Some((at, gathered)) = self.kept.lock().get(question)
            && now.saturating_duration_since(*at) < FRESH
        {
            return Arc::clone(gathered);
        }
        let gathered = Arc::new(self.ask_anew(question).await);
        let mut kept = self.kept.lock();
        kept.retain(|_, (at, _)| now.saturating_duration_since(*at) < FRESH);
        if kept.len() < KEPT {
            kept.insert(question.to_owned(), (now, Arc::clone(&gathered)));
        }
        gathered
    }

    /// Asks all other nodes, whatever they answered before.
    pub async fn ask_anew(&self, question: &str) -> Gathered {
        self.gather(question).await.unwrap_or_else(|error| {
            log::debug!(target: "tollgate::fleet", "the other nodes cannot be asked: {error}");
            let missing = self.nodes.names().into_iter().filter(|name| *name != self.node).collect();
            Gathered { answers: Vec::new(), missing }
        })
    }

    async fn gather(&self, question: &str) -> Result<Gathered, LinkError> {
        let end = self.clock.now() + PATIENCE;
        let (name, stream) = (format!("{:016x}", fastrand::u64(..)), self.names.nodes("questions"));
        let before = self.heard.lock().question.clone();
        let mut add = redis::cmd("XADD");
        let said = format!("{name}\n{}\n{question}", self.process);
        add.arg(&stream).arg("MAXLEN").arg("=").arg(LINE).arg("*").arg("q").arg(said);
        let mut stay = redis::cmd("EXPIRE");
        stay.arg(&stream).arg(STREAM_STAYS);
        let answers = self.link.commands(&[add, stay, self.look(&before)], PATIENCE).await?;
        let late = answers.last().map(read).unwrap_or_default();
        let (nodes, processes) = self.awaited(late, name.clone());
        let (mut pause, mut answers) = (LOOKS[0], BTreeMap::<String, String>::new());
        loop {
            let here = |node: &String| answers.keys().any(|process| node_of(process) == node);
            if processes.iter().all(|process| answers.contains_key(process)) && nodes.iter().all(here) {
                break;
            }
            let left = end.saturating_duration_since(self.clock.now());
            if left.is_zero() {
                break;
            }
            sleep(pause.min(left)).await;
            pause = LOOKS[1].min(pause * 2);
            let found = self.link.commands(&[self.look(&name)], left.max(LOOKS[1])).await?;
            answers = found.first().map(read).unwrap_or_default();
        }
        let missing = self.conclude(&nodes, answers.keys().cloned().collect());
        Ok(Gathered { answers: answers.into_values().collect(), missing })
    }

    /// The nodes and the processes that are to be waited for, once `late` answered the question before; `name` is the
    /// next one.
    fn awaited(&self, late: BTreeMap<String, String>, name: String) -> (BTreeSet<String>, BTreeSet<String>) {
        let (mut heard, now) = (self.heard.lock(), self.clock.now());
        heard.question = name;
        for process in late.into_keys() {
            heard.silent.remove(node_of(&process));
            heard.processes.insert(process);
        }
        heard.silent.retain(|_, since| now.saturating_duration_since(*since) < SILENT);
        let silent = |node: &str| heard.silent.contains_key(node);
        let processes = heard.processes.iter().filter(|process| !silent(node_of(process))).cloned().collect();
        (self.others().into_iter().filter(|node| !silent(node)).collect(), processes)
    }

    /// Takes in who answered; the nodes that did not.
    fn conclude(&self, awaited: &BTreeSet<String>, answered: BTreeSet<String>) -> Vec<String> {
        let (mut heard, now) = (self.heard.lock(), self.clock.now());
        let here: BTreeSet<&str> = answered.iter().map(|process| node_of(process)).collect();
        let late = awaited.iter().filter(|node| !here.contains(node.as_str()));
        heard.silent.extend(late.map(|node| (node.clone(), now)));
        heard.silent.retain(|node, _| !here.contains(node.as_str()));
        let missing = self.others().into_iter().filter(|node| !here.contains(node.as_str())).collect();
        heard.processes = answered;
        missing
    }

    /// The other nodes that the store sees.
    fn others(&self) -> Vec<String> {
        self.nodes.list().iter().map(|seen| seen.node.clone()).filter(|node| *node != self.node).collect()
    }

    /// Reads the answers to a question.
    fn look(&self, question: &str) -> Cmd {
        let mut look = redis::cmd("LRANGE");
        look.arg(self.answers(question)).arg(0).arg(-1);
        look
    }

    fn answers(&self, question: &str) -> Vec<u8> {
        self.names.nodes(&format!("answers:{question}"))
    }

    /// Answers for this process, until `shutdown` says that the server stops.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        tokio::select! {
            biased;
            _ = shutdown.wait_for(|stopping| *stopping) => {}
            () = self.keep_listening() => {}
        }
    }

    async fn keep_listening(&self) {
        let mut state = self.link.state();
        while state.wait_for(|state| state.is_reachable()).await.is_ok() {
            if let Err(error) = self.listen().await {
                log::debug!(target: "tollgate::fleet", "following the questions of other nodes: {error}");
            }
            sleep(PAUSE.mul_f64(0.5 + fastrand::f64())).await;
        }
    }

    /// Answers what comes after what is there already.
    async fn listen(&self) -> Result<(), LinkError> {
        let mut connection = self.link.blocking().await?;
        let mut read = redis::cmd("XREAD");
        let stream = self.names.nodes("questions");
        read.arg("STREAMS").arg(&stream).arg("0");
        let there = connection.command(&read, LISTEN * 2).await?;
        let mut last = questions(&there).pop().map_or_else(|| "0".to_owned(), |(id, _)| id);
        loop {
            let mut read = redis::cmd("XREAD");
            read.arg("BLOCK").arg(u64::try_from(LISTEN.as_millis()).unwrap_or(500));
            read.arg("STREAMS").arg(&stream).arg(&last);
            for (id, said) in questions(&connection.command(&read, LISTEN * 2).await?) {
                last = id;
                let mut parts = said.splitn(3, '\n');
                let (Some(name), Some(process), Some(question)) = (parts.next(), parts.next(), parts.next()) else {
                    continue;
                };
                if process != self.process {
                    tokio::spawn(self.reply(name, (self.answer)(question)));
                }
            }
        }
    }

    /// Puts an answer, once it is there, where whoever asked reads it.
    fn reply(
        &self,
        question: &str,
        answer: BoxFuture<'static, Option<String>>,
    ) -> impl Future<Output = ()> + Send + use<> {
        let (link, list, process) = (self.link.clone(), self.answers(question), self.process.clone());
        async move {
            let answer = answer.await.unwrap_or_default();
            let (mut push, mut stay) = (redis::cmd("RPUSH"), redis::cmd("EXPIRE"));
            push.arg(&list).arg(format!("{process}\n{answer}"));
            stay.arg(&list).arg(ANSWERS_STAY);
            if let Err(error) = link.commands(&[push, stay], LISTEN).await {
                log::debug!(target: "tollgate::fleet", "answering another node: {error}");
            }
        }
    }
}

/// The node that a process is of.
fn node_of(process: &str) -> &str {
    process.rsplit_once('/').map_or(process, |(node, _)| node)
}

/// The processes that have answered, and what.
fn read(list: &Value) -> BTreeMap<String, String> {
    let answer = |value| {
        let said = text(value)?;
        let (process, answer) = said.split_once('\n')?;
        Some((process.to_owned(), answer.to_owned()))
    };
    items(list).iter().filter_map(answer).collect()
}

/// The entries of one stream: where each stands, and what it says.
fn questions(read: &Value) -> Vec<(String, String)> {
    let entries = match read {
        Value::Map(streams) => streams.first().map(|(_, entries)| entries),
        _ => items(read).first().and_then(|stream| items(stream).get(1)),
    };
    let question = |entry: &Value| {
        let [id, fields] = items(entry) else { return None };
        Some((text(id)?.to_owned(), items(fields).get(1).and_then(text).unwrap_or_default().to_owned()))
    };
    entries.map(items).unwrap_or_default().iter().filter_map(question).collect()
}

fn items(value: &Value) -> &[Value] {
    if let Value::Array(items) = value { items } else { &[] }
}

fn text(value: &Value) -> Option<&str> {
    if let Value::BulkString(bytes) = value { std::str::from_utf8(bytes).ok() } else { None }
}

#[cfg(test)]
mod tests;
