//! What nodes tell each other of callers: what each has counted and recorded.

use std::sync::Arc;
use std::time::{Duration, SystemTime};

use arc_swap::ArcSwap;
use serde::{Deserialize, Serialize};

use super::gather::Gatherer;
use crate::client::{Directory, Recorder, UsageFigures, together};
use crate::clock::{Clock, Timeline};

/// A question to all nodes. A node that is asked what it does not know, by a newer one, has counted nothing.
#[derive(Debug, Serialize, Deserialize)]
#[serde(rename_all = "snake_case")]
enum NodesQuestion {
    /// What these clients have done, by a credential of each. The answer has as many [`UsageRow`].
    Usage(Vec<String>),
    /// The requests of each second of a client, from a second since the Unix epoch on. The answer has pairs of how many
    /// seconds later, and how many.
    Recorded(String, u64),
    /// Who has asked most of late, or, when true, been refused most. The answer is [`OwnFigures::talkers`]'.
    Talkers(bool),
}

/// What one process has counted: allowed, limited, limited by the candidate, last seen in µs since the Unix epoch or 0.
type UsageRow = [u64; 4];

/// What this process has counted of clients.
pub struct OwnFigures {
    /// The clients.
    pub directory: Arc<ArcSwap<Directory>>,
    /// What is recorded of them.
    pub recorder: Arc<Recorder>,
    /// The time.
    pub clock: Arc<dyn Clock>,
    /// The limiter's time.
    pub timeline: Timeline,
    /// Tells, in JSON, who has asked most of late, or, when true, been refused most.
    pub talkers: Box<dyn Fn(bool) -> Option<String> + Send + Sync>,
}

impl OwnFigures {
    /// Answers another node's question.
    pub fn answer(&self, question: &str) -> Option<String> {
        let directory = self.directory.load();
        match serde_json::from_str(question).ok()? {
            NodesQuestion::Usage(clients) => {
                let wall = |nanos| self.timeline.wall(nanos, self.clock.as_ref());
                let counted = |credential: &String| {
                    let client = directory.by_credential(credential)?;
                    Some(written(&UsageFigures::of(&client.usage, wall)))
                };
                let all: Vec<UsageRow> = clients.iter().map(|client| counted(client).unwrap_or_default()).collect();
                serde_json::to_string(&all).ok()
            }
            NodesQuestion::Recorded(client, from) => {
                let client = directory.by_credential(&client)?;
                let recorded = self.recorder.recorded(&client.usage, from)?;
                let later: Vec<_> = recorded.iter().map(|(second, requests)| (second - from, *requests)).collect();
                serde_json::to_string(&later).ok()
            }
            NodesQuestion::Talkers(limited) => (self.talkers)(limited),
        }
    }
}

/// What all other nodes have counted of clients.
pub struct FleetSums {
    gatherer: Arc<Gatherer>,
}

impl FleetSums {
    /// As `gatherer` finds out.
    pub fn new(gatherer: Arc<Gatherer>) -> Self {
        FleetSums { gatherer }
    }

    /// What clients have done on all other nodes, each found by a credential, and the nodes of which that is not known.
    pub async fn usage(&self, credentials: Vec<String>) -> (Vec<UsageFigures>, Vec<String>) {
        let mut sums = vec![UsageFigures::default(); credentials.len()];
        let (answers, missing) = self.ask::<Vec<UsageRow>>(&NodesQuestion::Usage(credentials)).await;
        for counted in answers {
            sums.iter_mut().zip(&counted).for_each(|(sum, counted)| sum.add(&read(counted)));
        }
        (sums, missing)
    }

    /// The requests of each second of a client on all other nodes, and the nodes of which they are not known.
    pub async fn recorded(&self, credential: String, from: u64) -> (Vec<(u64, u32)>, Vec<String>) {
        let (answers, missing) = self.ask::<Vec<(u64, u32)>>(&NodesQuestion::Recorded(credential, from)).await;
        let moment = |(later, requests): (u64, u32)| (from.saturating_add(later), requests);
        (together(answers.into_iter().map(|seconds| seconds.into_iter().map(moment).collect())), missing)
    }

    /// What each other node tells of who has asked most of late, or been refused most, and the nodes that have not told.
    pub async fn talkers<T: for<'a> Deserialize<'a>>(&self, limited: bool) -> (Vec<T>, Vec<String>) {
        self.ask(&NodesQuestion::Talkers(limited)).await
    }

    async fn ask<T: for<'a> Deserialize<'a>>(&self, question: &NodesQuestion) -> (Vec<T>, Vec<String>) {
        let question = serde_json::to_string(question).unwrap_or_default();
        let gathered = self.gatherer.ask(&question).await;
        let answers = gathered.answers.iter().filter_map(|answer| serde_json::from_str(answer).ok());
        (answers.collect(), gathered.missing.clone())
    }
}

fn written(figures: &UsageFigures) -> UsageRow {
    let seen = figures.last_seen.and_then(|seen| seen.duration_since(SystemTime::UNIX_EPOCH).ok());
    let micros = seen.and_then(|seen| u64::try_from(seen.as_micros()).ok()).unwrap_or_default();
    [figures.allowed, figures.limited, figures.candidate_limited, micros]
}

fn read([allowed, limited, candidate_limited, micros]: &UsageRow) -> UsageFigures {
    let seen = SystemTime::UNIX_EPOCH.checked_add(Duration::from_micros(*micros)).filter(|_| *micros > 0);
    UsageFigures { allowed: *allowed, limited: *limited, candidate_limited: *candidate_limited, last_seen: seen }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::client::{Client, ClientId, Quota};
    use crate::clock::ManualClock;

    #[test]
    fn a_node_tells_what_it_has_counted() {
        let (clock, recorder) = (Arc::new(ManualClock::new()), Arc::new(Recorder::new(1)));
        let timeline = Timeline::new(clock.as_ref());
        let client =
            |name: &str| Client::new(1, ClientId::parse(name).unwrap(), Quota::new(1, 1.0).unwrap()).with_credential();
        let known = Arc::new(client("203.0.113.7"));
        let directory = Directory::new([Arc::clone(&known)]).unwrap();
        let own = OwnFigures {
            directory: Arc::new(ArcSwap::from_pointee(directory)),
            recorder: Arc::clone(&recorder),
            clock: Arc::clone(&clock) as _,
            timeline,
            talkers: Box::new(|limited| Some(format!("[{limited}]"))),
        };
        let now = timeline.nanos(clock.now());
        recorder.turn(&known.usage, now);
        known.usage.count_allowed(now);
        known.usage.count_limited(now);
        known.usage.count_candidate_limited();
        let ask = |question: &NodesQuestion| own.answer(&serde_json::to_string(question).unwrap());
        let names = [known.credential().unwrap(), client("nobody").credential().unwrap(), "?".to_owned()];
        let told = ask(&NodesQuestion::Usage(names.to_vec())).unwrap();
        let rows: Vec<UsageRow> = serde_json::from_str(&told).unwrap();
        let figures: Vec<UsageFigures> = rows.iter().map(read).collect();
        let micros = Duration::from_micros(now / 1_000);
        let first = UsageFigures {
            allowed: 1,
            limited: 1,
            candidate_limited: 1,
            last_seen: Some(SystemTime::UNIX_EPOCH + micros),
        };
        assert_eq!(figures, [first, UsageFigures::default(), UsageFigures::default()]);
        let from = now / 1_000_000_000 - 5;
        assert_eq!(ask(&NodesQuestion::Recorded(names[0].clone(), from)).unwrap(), "[[5,2]]");
        assert_eq!(ask(&NodesQuestion::Recorded(names[1].clone(), from)), None);
        assert_eq!(ask(&NodesQuestion::Talkers(true)).unwrap(), "[true]");
        // As a newer node may ask.
        assert_eq!(own.answer(r#"{"busiest":20}"#), None);
    }
}
