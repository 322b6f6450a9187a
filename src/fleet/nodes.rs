//! Which nodes there are.
//!
//! The problem: while the store is away, each node enforces its share of every quota, so each must know how many there
//! are, and by what names: one too few, and callers get more than is theirs. The rule: each says every second that it
//! is there, by the store's time, and counts for 5 s. A node believes in another one until it was missing for 5 s while
//! the store answered, or nobody would count just after a store came back empty. What was believed last is handed on,
//! to be kept over restarts.
//!
//! Two nodes of one name count as one, and give more than their shares together. Each says where it is, by which start of
//! which machine and which file its database is; so the processes of one node during an upgrade are told from another
//! node. Who finds, after its own last word, that of one elsewhere, says so, and goes on: refused is to end for it, since
//! nobody knows which of the two is the right one, and a file that was copied by mistake would take a node down that
//! serves (Consul refuses the later, Serf ends the one that fewer believe; there a name is an address that others call).

use std::collections::BTreeMap;
use std::sync::Arc;
use std::time::{Duration, Instant, SystemTime};

use arc_swap::ArcSwap;
use log::{info, warn};
use parking_lot::Mutex;
use redis::Value;
use tokio::sync::watch;
use tokio::time::{MissedTickBehavior, interval};

use super::link::{LinkError, ScriptCall, StoreLink};
use super::names::Names;
use super::script::NODES;
use crate::clock::Clock;

/// Between two signs of life.
const BEAT: Duration = Duration::from_secs(1);
/// How long one counts.
const COUNTS: Duration = Duration::from_secs(5);
/// How long the store is waited for.
const LIMIT: Duration = Duration::from_millis(500);

/// A node, as the store saw it.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct NodeSeen {
    /// Its name.
    pub node: String,
    /// Its version.
    pub version: String,
    /// When it was seen, by the store's clock.
    pub seen: SystemTime,
    /// Tokens that it holds.
    pub leased: u64,
}

/// Who is told of the names of all nodes when they change.
pub type NamesHeard = Box<dyn Fn(&[String]) + Send + Sync>;

/// Who says how many tokens this node holds.
pub type LeasedCount = Box<dyn Fn() -> u64 + Send + Sync>;

/// Says that this node is there, and hears of the others.
pub struct Nodes {
    link: StoreLink,
    key: Vec<u8>,
    node: String,
    version: String,
    /// Where this node is, and this process, among those of one node during an upgrade.
    process: String,
    clock: Arc<dyn Clock>,
    leased: LeasedCount,
    heard: NamesHeard,
    list: ArcSwap<Vec<NodeSeen>>,
    believed: Mutex<NodesBelieved>,
}

/// The names that are believed in, and when each was seen last, by this process's clock.
struct NodesBelieved {
    names: BTreeMap<String, Instant>,
    /// When the store answered last.
    answered: Option<Instant>,
    /// When one elsewhere was last seen that has this node's name.
    double: Option<Instant>,
}

impl Nodes {
    /// This node, which is at `place`, of a fleet of which `known` were believed in before.
    pub fn new(
        link: StoreLink,
        names: &Names,
        (node, version, place): (&str, &str, u64),
        known: Vec<String>,
        clock: Arc<dyn Clock>,
        (leased, heard): (LeasedCount, NamesHeard),
    ) -> Self {
        let now = clock.now();
        let mut names_now: BTreeMap<String, Instant> = known.into_iter().map(|name| (name, now)).collect();
        names_now.insert(node.to_owned(), now);
        Nodes {
            link,
            key: names.nodes("all"),
            node: node.to_owned(),
            version: version.to_owned(),
            process: format!("{place:020}{}", fastrand::u64(..)),
            clock,
            leased,
            heard,
            list: ArcSwap::default(),
            believed: Mutex::new(NodesBelieved { names: names_now, answered: None, double: None }),
        }
    }

    /// Says every second that this node is there, until the server stops, and then that it leaves.
    pub async fn run(&self, mut shutdown: watch::Receiver<bool>) {
        let mut beats = interval(BEAT);
        beats.set_missed_tick_behavior(MissedTickBehavior::Delay);
        let mut state = self.link.state();
        let mut away = true;
        loop {
            tokio::select! {
                biased;
                _ = shutdown.wait_for(|stopping| *stopping) => break,
                // A store that came back hears of this node at once.
                _ = state.wait_for(|state| state.is_reachable()), if away => {}
                _ = beats.tick(), if !away => {}
            }
            away = self.beat().await.is_err() && !self.link.state().borrow().is_reachable();
        }
        let _ = self.ask(None).await;
    }

    /// Says that this node is there, and hears of the others.
    pub async fn beat(&self) -> Result<(), LinkError> {
        let (list, elsewhere) = self.ask(Some((self.leased)())).await?;
        let names = list.iter().map(|seen| seen.node.clone()).collect();
        self.list.store(Arc::new(list));
        self.note_double(elsewhere, self.clock.now());
        let names = self.believe(names, self.clock.now());
        if let Some(names) = names {
            (self.heard)(&names);
        }
        Ok(())
    }

    /// The nodes that the store saw within the last 5 s, when it was asked last.
    pub fn list(&self) -> Arc<Vec<NodeSeen>> {
        self.list.load_full()
    }

    /// The names of the nodes that are believed in, in order; this one among them.
    pub fn names(&self) -> Vec<String> {
        self.believed.lock().names.keys().cloned().collect()
    }

    /// Whether another node has this one's name.
    pub fn has_double(&self) -> bool {
        self.believed.lock().double.is_some()
    }

    /// Takes in whether the last word by this node's name was said elsewhere.
    fn note_double(&self, elsewhere: bool, now: Instant) {
        let mut believed = self.believed.lock();
        let long_ago = |at: Instant| now.saturating_duration_since(at) > COUNTS;
        // Before this one's first word it may be of one that has ended.
        let seen = elsewhere && believed.answered.is_some_and(|answered| !long_ago(answered));
        match believed.double {
            None if seen => warn!(
                "fleet: another node is called {}, too: they count as one, and give more than their shares while the store is \
                 away; give one of them another fleet.node, and never copy a database",
                self.node
            ),
            Some(at) if long_ago(at) => info!("fleet: no other node is called {} any more", self.node),
            _ => {}
        }
        believed.double = if seen { Some(now) } else { believed.double.filter(|at| !long_ago(*at)) };
    }

    /// Takes in who was seen; all names, if they are others than before or the first.
    fn believe(&self, seen: Vec<String>, now: Instant) -> Option<Vec<String>> {
        let mut believed = self.believed.lock();
        let first = believed.answered.is_none();
        if believed.answered.is_none_or(|answered| now.saturating_duration_since(answered) > 2 * BEAT) {
            // While nobody could be seen, nobody was missing.
            believed.names.values_mut().for_each(|seen| *seen = now);
        }
        believed.answered = Some(now);
        let before = believed.names.len();
        let mut changed = first;
        for name in seen.into_iter().chain([self.node.clone()]) {
            changed |= believed.names.insert(name, now).is_none();
        }
        let counted = believed.names.len();
        believed.names.retain(|_, seen| now.saturating_duration_since(*seen) <= COUNTS);
        changed |= believed.names.len() != counted || counted != before;
        changed.then(|| believed.names.keys().cloned().collect())
    }

    /// One call of the script: to say that this node is there, holding so much, or that it leaves.
    async fn ask(&self, leased: Option<u64>) -> Result<(Vec<NodeSeen>, bool), LinkError> {
        let mut args = vec![COUNTS.as_micros().to_string(), self.node.clone(), self.process.clone()];
        args.extend(leased.map(|_| self.version.clone()));
        args.extend(leased.map(|leased| leased.to_string()));
        let args = args.into_iter().map(String::into_bytes).collect();
        let call = ScriptCall { script: &NODES, keys: vec![self.key.clone()], args };
        let answer = self.link.calls(&[call], LIMIT).await.pop();
        let Value::Array(items) = answer.unwrap_or(Err(LinkError::TimedOut))? else {
            return Err(LinkError::Script("not a list of nodes".to_owned()));
        };
        let (items, last) = items.as_chunks::<4>();
        let mut list: Vec<NodeSeen> = items.iter().filter_map(node_seen).collect();
        list.sort_by(|a, b| a.node.cmp(&b.node));
        Ok((list, matches!(last, [Value::Int(1)])))
    }
}

fn node_seen([node, version, seen, leased]: &[Value; 4]) -> Option<NodeSeen> {
    let text = |value: &Value| match value {
        Value::BulkString(bytes) => String::from_utf8(bytes.clone()).ok(),
        _ => None,
    };
    let micros = text(seen)?.parse().ok()?;
    Some(NodeSeen {
        node: text(node)?,
        version: text(version)?,
        seen: SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(micros))?,
        leased: text(leased)?.parse().ok()?,
    })
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::clock::{ManualClock, SystemClock};
    use crate::fleet::link::tests::{runtime, settings, start, until};
    use crate::fleet::servers::{Engine, StoreServer};

    fn node(link: &StoreLink, name: &str, clock: Arc<dyn Clock>) -> (Nodes, Arc<Mutex<Vec<Vec<String>>>>) {
        node_at(link, (name, 1), clock)
    }

    fn node_at(
        link: &StoreLink,
        (name, place): (&str, u64),
        clock: Arc<dyn Clock>,
    ) -> (Nodes, Arc<Mutex<Vec<Vec<String>>>>) {
        let heard = Arc::new(Mutex::new(Vec::new()));
        let hears = Arc::clone(&heard);
        let parts: (LeasedCount, NamesHeard) =
            (Box::new(|| 7), Box::new(move |names: &[String]| hears.lock().push(names.to_vec())));
        (Nodes::new(link.clone(), &Names::new("t"), (name, "1.2.3", place), Vec::new(), clock, parts), heard)
    }

    #[test]
    fn nodes_see_each_other_until_they_leave() {
        for engine in Engine::all() {
            let server = StoreServer::start(engine);
            runtime().block_on(async {
                let (link, _stop) = start(&settings(&server.url()));
                until(&link, true).await;
                let clock = Arc::new(ManualClock::new());
                let (a, heard) = node(&link, "a", Arc::<ManualClock>::clone(&clock));
                let (b, _) = node(&link, "b", Arc::new(SystemClock));
                a.beat().await.unwrap();
                b.beat().await.unwrap();
                a.beat().await.unwrap();
                let list = a.list();
                let seen: Vec<_> = list.iter().map(|n| (n.node.as_str(), n.version.as_str(), n.leased)).collect();
                assert_eq!(seen, [("a", "1.2.3", 7), ("b", "1.2.3", 7)], "{engine:?}");
                // The next version of `b` has begun: what the one before says at its end is not for it.
                let (next, _) = node(&link, "b", Arc::new(SystemClock));
                next.beat().await.unwrap();
                b.ask(None).await.unwrap();
                a.beat().await.unwrap();
                assert_eq!(a.list().len(), 2);
                next.ask(None).await.unwrap();
                for _ in 0..6 {
                    a.beat().await.unwrap();
                    assert_eq!((a.list().len(), a.names()), (1, vec!["a".to_owned(), "b".to_owned()]));
                    clock.advance(BEAT);
                }
                a.beat().await.unwrap();
                assert_eq!(a.names(), ["a"]);
                let heard = heard.lock();
                let heard: Vec<Vec<&str>> = heard.iter().map(|n| n.iter().map(String::as_str).collect()).collect();
                assert_eq!(heard, [vec!["a"], vec!["a", "b"], vec!["a"]]);
            });
        }
    }

    #[test]
    fn two_nodes_of_one_name_find_each_other_and_two_processes_of_one_do_not() {
        for engine in Engine::all() {
            let server = StoreServer::start(engine);
            runtime().block_on(async {
                let (link, _stop) = start(&settings(&server.url()));
                until(&link, true).await;
                let clock = Arc::new(ManualClock::new());
                let of = |place| node_at(&link, ("a", place), Arc::<ManualClock>::clone(&clock)).0;
                let (old, new, other) = (of(1), of(1), of(u64::MAX));
                old.beat().await.unwrap();
                for _ in 0..3 {
                    new.beat().await.unwrap();
                    old.beat().await.unwrap();
                }
                assert!(!old.has_double() && !new.has_double(), "{engine:?}: an upgrade");
                // The old one may have ended: that is known when it says a word again.
                other.beat().await.unwrap();
                assert!(!other.has_double(), "{engine:?}");
                new.beat().await.unwrap();
                other.beat().await.unwrap();
                assert!(new.has_double() && other.has_double(), "{engine:?}");
                for _ in 0..7 {
                    clock.advance(BEAT);
                    new.beat().await.unwrap();
                }
                assert!(!new.has_double(), "{engine:?}: it went");
            });
        }
    }

    #[test]
    fn nobody_is_missing_while_nobody_can_be_seen() {
        let clock = Arc::new(ManualClock::new());
        let (link, now) = (StoreLink::new(&settings("redis://127.0.0.1:1"), Arc::new(SystemClock)), clock.now());
        let (a, _) = node(&link, "a", Arc::<ManualClock>::clone(&clock));
        let at = |seconds| now + Duration::from_secs(seconds);
        assert!(a.believe(vec!["a".into(), "b".into()], at(0)).is_some());
        assert_eq!(a.believe(vec!["a".into()], at(100)), None);
        assert_eq!(a.names(), ["a", "b"]);
        assert_eq!(a.believe(vec!["a".into()], at(102)), None);
        assert_eq!(a.believe(vec!["a".into()], at(104)), None);
        assert_eq!(a.believe(vec!["a".into()], at(106)), Some(vec!["a".to_owned()]));
    }
}
