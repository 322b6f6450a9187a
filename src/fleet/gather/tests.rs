//! Against real servers.

use super::*;
use crate::clock::{ManualClock, SystemClock};
use crate::fleet::link::tests::{LONG, runtime, settings, start, until};
use crate::fleet::nodes::{LeasedCount, NamesHeard};
use crate::fleet::servers::{Engine, StoreServer};

/// A node of the fleet in the store at `url`, which answers each question with its name, and `?` to none.
struct AskingNode {
    gatherer: Arc<Gatherer>,
    nodes: Arc<Nodes>,
    clock: Arc<ManualClock>,
    _link: watch::Sender<bool>,
    /// While somebody holds it, it answers nothing.
    busy: Arc<Mutex<()>>,
    follows: tokio::task::JoinHandle<()>,
}

impl Drop for AskingNode {
    fn drop(&mut self) {
        self.follows.abort();
    }
}

async fn node(url: &str, name: &'static str) -> AskingNode {
    let (link, stop) = start(&settings(url));
    until(&link, true).await;
    let clock = Arc::new(ManualClock::new());
    let (names, busy) = (Names::new("t"), Arc::<Mutex<()>>::default());
    let parts: (LeasedCount, NamesHeard) = (Box::new(|| 0), Box::new(|_| ()));
    let nodes = Nodes::new(link.clone(), &names, (name, "1", 1), Vec::new(), Arc::new(SystemClock), parts);
    let (nodes, held) = (Arc::new(nodes), Arc::clone(&busy));
    let answer: AnswerForNode = Box::new(move |question: &str| {
        // What else waits for this thread of the runtime goes on without it.
        tokio::task::block_in_place(|| drop(held.lock()));
        Box::pin(std::future::ready((question != "?").then(|| format!("{name} {question}"))))
    });
    let gatherer = Gatherer::new((link, names, name), Arc::clone(&nodes), Arc::clone(&clock) as _, answer);
    let gatherer = Arc::new(gatherer);
    let running = Arc::clone(&gatherer);
    let (never, stopping) = watch::channel(false);
    let follows = tokio::spawn(async move {
        let _never = never;
        running.run(stopping).await;
    });
    nodes.beat().await.unwrap();
    AskingNode { gatherer, nodes, clock, _link: stop, busy, follows }
}

/// The answers and the missing, once all nodes listen.
async fn answers(node: &AskingNode, question: &str, count: usize) -> Vec<String> {
    node.nodes.beat().await.unwrap();
    let end = SystemClock.now() + LONG;
    loop {
        // Later than any answer is kept, and than anybody is not waited for.
        node.clock.advance(SILENT);
        let gathered = gather(node, question).await;
        if gathered.answers.len() == count && gathered.missing.is_empty() {
            return gathered.answers;
        }
        assert!(SystemClock.now() < end, "{gathered:?}");
    }
}

/// One question. The node's clock stands still, so its patience is as long as the store lets it be.
async fn gather(node: &AskingNode, question: &str) -> Gathered {
    let asked = node.gatherer.ask(question);
    tokio::pin!(asked);
    loop {
        tokio::select! {
            gathered = &mut asked => return Gathered::clone(&gathered),
            () = sleep(PATIENCE) => node.clock.advance(PATIENCE),
        }
    }
}

#[test]
fn all_other_nodes_answer_each_once() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        runtime().block_on(async {
            let a = node(&server.url(), "a").await;
            assert_eq!(gather(&a, "alone").await, Gathered::default(), "{engine:?}");
            let (b, c) = (node(&server.url(), "b").await, node(&server.url(), "c").await);
            let mut all = answers(&a, "x", 2).await;
            all.sort();
            assert_eq!(all, ["b x", "c x"], "{engine:?}");
            let mut all = answers(&b, "y\nz", 2).await;
            all.sort();
            assert_eq!(all, ["a y\nz", "c y\nz"], "{engine:?}");
            // What nobody knows is answered, with nothing.
            assert_eq!(answers(&c, "?", 2).await, ["", ""], "{engine:?}");
            // Nothing of it stays in the store.
            let stays = server.command("TTL t:{nodes}:questions");
            assert!(stays.starts_with(":6") || stays.starts_with(":5"), "{engine:?}: {stays}");
        });
    }
}

#[test]
#[expect(clippy::await_holding_lock, reason = "the one who waits for it is on another thread")]
fn one_that_does_not_answer_is_named_and_waited_for_once() {
    for engine in Engine::all() {
        let server = StoreServer::start(engine);
        runtime().block_on(async {
            let [a, b, c] =
                [node(&server.url(), "a").await, node(&server.url(), "b").await, node(&server.url(), "c").await];
            answers(&a, "x", 2).await;
            let held = c.busy.lock();
            let told = |answers: &[&str], missing: &[&str]| Gathered {
                answers: answers.iter().map(|text| (*text).to_owned()).collect(),
                missing: missing.iter().map(|text| (*text).to_owned()).collect(),
            };
            assert_eq!(gather(&a, "1").await, told(&["b 1"], &["c"]), "{engine:?}");
            // It is not waited for again: the clock, which would end that, stands still.
            assert_eq!(*a.gatherer.ask("2").await, told(&["b 2"], &["c"]), "{engine:?}");
            // Answers are kept for a second, what was missing too.
            drop(b);
            assert_eq!(*a.gatherer.ask("2").await, told(&["b 2"], &["c"]), "{engine:?}");
            drop(held);
            // It answers the last question late, and so is known to be there again before it would be waited for anyway;
            // the other one is gone.
            let mut last = Gathered::default();
            for question in 0..SILENT.as_millis() / PATIENCE.as_millis() - 2 {
                last = gather(&a, &format!("late {question}")).await;
                if last == told(&[&format!("c late {question}")], &["b"]) {
                    break;
                }
            }
            assert_eq!((last.answers.len(), &last.missing[..]), (1, &["b".to_owned()][..]), "{engine:?}: {last:?}");
        });
    }
}

#[test]
fn a_second_process_of_a_node_answers_too() {
    let server = StoreServer::start(Engine::all()[0]);
    runtime().block_on(async {
        let (a, old) = (node(&server.url(), "a").await, node(&server.url(), "b").await);
        let next = node(&server.url(), "b").await;
        assert_eq!(answers(&a, "x", 2).await, ["b x", "b x"]);
        // The one before ends.
        old.follows.abort();
        drop(old);
        assert_eq!(answers(&a, "x", 1).await, ["b x"]);
        // The old process of this very node.
        let again = node(&server.url(), "b").await;
        assert!(answers(&again, "x", 2).await.contains(&"b x".to_owned()));
        drop(next);
    });
}

#[test]
fn without_the_store_nobody_is_asked() {
    let mut server = StoreServer::start(Engine::all()[0]);
    runtime().block_on(async {
        let [a, _b] = [node(&server.url(), "a").await, node(&server.url(), "b").await];
        answers(&a, "x", 1).await;
        server.kill();
        until(&a.gatherer.link, false).await;
        // The clock stands still: nothing is waited for.
        let gathered = a.gatherer.ask("y").await;
        assert_eq!((&gathered.answers[..], &gathered.missing[..]), (&[][..], &["b".to_owned()][..]));
    });
}
