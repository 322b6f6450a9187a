//! What authorities ask of other nodes behind the same name.
//!
//! The problem: an authority asks a name, and a balancer hands that to any node, which may not be the one that wants the
//! certificate. The rule: who wants it puts the answer on a board that all nodes see before it lets the authority ask;
//! who is asked what it does not know looks there.
//!
//! Strangers may ask as well, as often as they like. So a look takes all that is on the board, and serves everybody who
//! came before it began; there is one at a time, and ten a second at most. Nobody waits for longer than [`LIMIT`], a
//! board that cannot be read is an empty one, and only what an authority's token looks like is looked for, on a server
//! that wants certificates itself. Refused: a look for each token, which makes each request of a stranger a round
//! trip, or, with a bound on them, crowds the authority out.

use std::collections::HashMap;
use std::fmt;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::{Duration, Instant};

use async_trait::async_trait;
use tokio::sync::Mutex;
use tokio::time::{sleep, timeout};

use crate::clock::Clock;

/// How long a request waits for what others know.
const LIMIT: Duration = Duration::from_millis(250);
/// From the beginning of one look to that of the next.
const PAUSE: Duration = Duration::from_millis(100);

/// Where all nodes behind a name see the answers of each. None of them is a secret.
#[async_trait]
pub trait AnswerBoard: Send + Sync {
    /// Puts up what a token is answered.
    async fn put(&self, token: &str, answer: &str);

    /// Takes these away, which nobody asks for any more.
    async fn remove(&self, tokens: &[String]);

    /// All answers by their tokens; none when they cannot be read.
    async fn all(&self) -> HashMap<String, String>;
}

/// A board, and what was seen there last.
pub(super) struct SeenBoard {
    pub(super) board: Box<dyn AnswerBoard>,
    clock: Arc<dyn Clock>,
    /// Whether anybody has a use for it.
    used: AtomicBool,
    seen: Mutex<SeenAnswers>,
}

#[derive(Default)]
struct SeenAnswers {
    /// When the last look began that came to an end.
    at: Option<Instant>,
    answers: HashMap<String, String>,
    /// When a look began last.
    began: Option<Instant>,
}

impl SeenBoard {
    /// Not looked at before [`begin`](SeenBoard::begin).
    pub(super) fn new(board: Box<dyn AnswerBoard>, clock: Arc<dyn Clock>) -> Self {
        SeenBoard { board, clock, used: AtomicBool::new(false), seen: Mutex::default() }
    }

    /// Has it looked at from now on.
    pub(super) fn begin(&self) {
        self.used.store(true, Ordering::Relaxed);
    }

    /// Whether `token` may be there: it is as RFC 8555 section 8.1 has tokens, of 128 bits at least.
    pub(super) fn may_have(&self, token: &str) -> bool {
        let is_of_base64 = |byte: u8| byte.is_ascii_alphanumeric() || byte == b'-' || byte == b'_';
        self.used.load(Ordering::Relaxed) && (22..=128).contains(&token.len()) && token.bytes().all(is_of_base64)
    }

    /// What `token` is answered, if that is there by now.
    pub(super) async fn answer(&self, token: &str) -> Option<String> {
        let came = self.clock.now();
        let found = timeout(LIMIT, async {
            let mut seen = self.seen.lock().await;
            if seen.at.is_none_or(|at| at < came) {
                let since = seen.began.map_or(PAUSE, |began| self.clock.now().saturating_duration_since(began));
                sleep(PAUSE.saturating_sub(since)).await;
                // Whoever looks may go amid it, and has looked all the same.
                let now = self.clock.now();
                seen.began = Some(now);
                seen.answers = self.board.all().await;
                seen.at = Some(now);
            }
            seen.answers.get(token).cloned()
        });
        found.await.ok().flatten()
    }
}

impl fmt::Debug for SeenBoard {
    fn fmt(&self, f: &mut fmt::Formatter<'_>) -> fmt::Result {
        f.debug_struct("SeenBoard").field("used", &self.used).finish_non_exhaustive()
    }
}

#[cfg(test)]
mod tests {
    use std::sync::atomic::AtomicUsize;

    use futures_util::future::join_all;
    use tokio::time::Instant as TokioInstant;

    use super::*;
    use crate::clock::{BootTime, SystemClock};

    /// The time of a runtime whose time stands still while anybody runs.
    struct RuntimeClock;

    impl Clock for RuntimeClock {
        fn now(&self) -> Instant {
            TokioInstant::now().into_std()
        }

        fn wall(&self) -> std::time::SystemTime {
            SystemClock.wall()
        }

        fn boot(&self) -> Option<BootTime> {
            None
        }
    }

    #[derive(Default)]
    struct Wall {
        answers: parking_lot::Mutex<HashMap<String, String>>,
        looks: AtomicUsize,
    }

    /// A board that takes 10 ms to read.
    #[async_trait]
    impl AnswerBoard for Arc<Wall> {
        async fn put(&self, token: &str, answer: &str) {
            self.answers.lock().insert(token.to_owned(), answer.to_owned());
        }

        async fn remove(&self, tokens: &[String]) {
            self.answers.lock().retain(|token, _| !tokens.contains(token));
        }

        async fn all(&self) -> HashMap<String, String> {
            self.looks.fetch_add(1, Ordering::Relaxed);
            sleep(Duration::from_millis(10)).await;
            self.answers.lock().clone()
        }
    }

    fn seen() -> (Arc<Wall>, Arc<SeenBoard>) {
        let wall = Arc::<Wall>::default();
        let seen = SeenBoard::new(Box::new(Arc::clone(&wall)), Arc::new(RuntimeClock));
        seen.begin();
        (wall, Arc::new(seen))
    }

    const TOKEN: &str = "DGyRejmCefe7v4NfDGDKfA";

    #[test]
    fn what_no_authority_asks_is_not_looked_for() {
        let (_, board) = seen();
        assert!(board.may_have(TOKEN) && board.may_have(&"-_aZ09".repeat(7)) && board.may_have(&"a".repeat(128)));
        for other in ["", "a", &TOKEN[1..], &"a".repeat(129), "DGyRejmCefe7v4NfDGDKf=", "DGyRejmCefe7v4NfDGDKf/"] {
            assert!(!board.may_have(other), "{other}");
        }
        let unused = SeenBoard::new(Box::new(Arc::<Wall>::default()), Arc::new(RuntimeClock));
        assert!(!unused.may_have(TOKEN));
    }

    #[tokio::test(start_paused = true)]
    async fn what_strangers_ask_costs_ten_looks_a_second_and_the_authority_is_answered() {
        let (wall, board) = seen();
        let start = RuntimeClock.now();
        let end = start + Duration::from_secs(2);
        let stranger = async |number: usize| {
            while RuntimeClock.now() < end {
                let began = RuntimeClock.now();
                assert_eq!(board.answer(&format!("{number:043}")).await, None);
                assert!(RuntimeClock.now() - began <= PAUSE + Duration::from_millis(20));
            }
        };
        let authority = async {
            for round in 0..10 {
                sleep(Duration::from_millis(150)).await;
                let answer = format!("{TOKEN}.{round}");
                wall.put(TOKEN, &answer).await;
                assert_eq!(board.answer(TOKEN).await, Some(answer), "what was there before it came");
            }
            wall.remove(&[TOKEN.to_owned()]).await;
            assert_eq!(board.answer(TOKEN).await, None);
        };
        tokio::join!(authority, join_all((0..100).map(stranger)));
        let (looks, most) = (wall.looks.load(Ordering::Relaxed), (RuntimeClock.now() - start).as_millis() / 100 + 1);
        assert!(looks >= 20 && looks as u128 <= most, "{looks} of {most}");
    }

    #[tokio::test(start_paused = true)]
    async fn who_goes_amid_a_look_takes_nothing_from_others_and_a_slow_board_holds_nobody_up() {
        let (wall, board) = seen();
        wall.put(TOKEN, "answer").await;
        let goes = timeout(Duration::from_millis(5), board.answer(TOKEN));
        let (gone, stays) = tokio::join!(goes, board.answer(TOKEN));
        assert!(gone.is_err() && stays.as_deref() == Some("answer"));
        let lock = board.seen.lock().await;
        let began = RuntimeClock.now();
        assert_eq!(board.answer(TOKEN).await, None);
        let waited = RuntimeClock.now() - began;
        // A runtime's timers have a grain.
        assert!(waited >= LIMIT && waited <= LIMIT + Duration::from_millis(1), "{waited:?}");
        drop(lock);
    }
}
