//! Who asks most, and who is refused most: clients by their names, everybody else by address.
//!
//! The problem: callers cannot be counted one by one, since anybody may come from as many addresses as he likes; and
//! whoever counts must not slow down what is counted.
//!
//! The rule: each thread of the proxy feeds a sketch of its own (space-saving: Metwally, Agrawal, El Abbadi 2005), in
//! which [`PLACES`] callers have a place and a new one takes that of the least, with what that had counted as the error
//! of its own. A thread tells its sketch of the first [`EXACT`] requests of each verdict in a second, and then of every
//! [`STEP`]th, which counts for so many. Which one that is says the counter of verdicts that is raised anyhow, so most
//! requests pay a comparison. Once a second the sketches of the threads are added to that of the present minute; what is
//! told is the sum of the last [`MINUTES`].
//!
//! A caller's number may be too small as well: by what was not drawn, and by minutes in which it was not among the
//! greatest.
//!
//! Refused: the counters of clients, which know no addresses, and of which a million would have to be compared; a count
//! in each bucket, since full buckets are forgotten.

use std::cmp::Reverse;
use std::collections::{HashMap, VecDeque};

use ipnet::IpNet;
use parking_lot::Mutex;
use serde::{Deserialize, Serialize};

use crate::client::ClientId;

/// How many callers have a place in a sketch of a thread, and in one of a minute.
const PLACES: usize = 128;
const MINUTE_PLACES: usize = 512;
/// How many requests of a thread are counted one by one in each second, of each verdict.
const EXACT: u64 = 128;
/// Of the others every so manyth is counted, for all of them.
const STEP: u64 = 16;
/// How many minutes count.
const MINUTES: usize = 5;
/// Seconds in a minute.
const MINUTE: u64 = 60;

/// A caller, by what an operator would make it a client by. It is written as `client:NAME` or `address:NETWORK`.
#[derive(Clone, Debug, PartialEq, Eq, Hash, PartialOrd, Ord, Serialize, Deserialize)]
#[serde(into = "String", try_from = "String")]
pub enum Talker {
    /// A client.
    Client(ClientId),
    /// An address, or for IPv6 the network that shares a bucket.
    Address(IpNet),
}

impl From<Talker> for String {
    fn from(talker: Talker) -> String {
        match talker {
            Talker::Client(id) => format!("client:{id}"),
            Talker::Address(network) => format!("address:{network}"),
        }
    }
}

impl TryFrom<String> for Talker {
    type Error = &'static str;

    fn try_from(text: String) -> Result<Talker, &'static str> {
        let talker = match text.split_once(':') {
            Some(("client", id)) => ClientId::parse(id).ok().map(Talker::Client),
            Some(("address", network)) => network.parse().ok().map(Talker::Address),
            _ => None,
        };
        talker.ok_or("must be client:NAME or address:NETWORK")
    }
}

/// How much a caller has asked for of late.
#[derive(Clone, Debug, PartialEq, Eq, Serialize, Deserialize)]
pub struct Talk {
    /// Who.
    pub talker: Talker,
    /// Its requests, about.
    pub requests: u64,
    /// Those that were refused for want of a token, about.
    pub limited: u64,
    /// By how many the number that they are sorted by may be too large.
    pub error: u64,
}

/// What callers are sorted by.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum TalkersBy {
    /// All their requests.
    Requests,
    /// Those that were refused for want of a token.
    Limited,
}

impl TalkersBy {
    /// The first of what several have told, at most `limit`, the greatest first: each caller with the sum of its numbers.
    pub fn together(self, told: impl IntoIterator<Item = Talk>, limit: usize) -> Vec<Talk> {
        let mut sums = HashMap::<Talker, Talk>::new();
        for talk in told {
            match sums.get_mut(&talk.talker) {
                Some(sum) => {
                    sum.requests = sum.requests.saturating_add(talk.requests);
                    sum.limited = sum.limited.saturating_add(talk.limited);
                    sum.error = sum.error.saturating_add(talk.error);
                }
                None => drop(sums.insert(talk.talker.clone(), talk)),
            }
        }
        let mut sums: Vec<Talk> = sums.into_values().collect();
        let number = |talk: &Talk| if self == TalkersBy::Requests { talk.requests } else { talk.limited };
        sums.sort_unstable_by(|one, other| (number(other), &one.talker).cmp(&(number(one), &other.talker)));
        sums.truncate(limit);
        sums
    }
}

/// For how many requests the one counts that found its thread's counter at `count`, when that was at `mark` as the
/// second began: none is for nothing.
#[inline]
pub(super) fn weight(count: u64, mark: u64) -> Option<u64> {
    match count.wrapping_sub(mark) {
        ..EXACT => Some(1),
        _ if count.is_multiple_of(STEP) => Some(STEP),
        _ => None,
    }
}

/// What one thread has heard in this second.
#[derive(Debug, Default)]
pub(super) struct ThreadTalk(Mutex<Both>);

impl ThreadTalk {
    /// Counts `weight` requests.
    #[cold]
    pub(super) fn add(&self, talker: Talker, weight: u64, limited: bool) {
        let mut both = self.0.lock();
        if limited {
            both.limited.add(talker.clone(), Count { count: weight, error: 0 }, PLACES);
        }
        both.requests.add(talker, Count { count: weight, error: 0 }, PLACES);
    }
}

/// One sketch for each order.
#[derive(Clone, Debug, Default)]
struct Both {
    requests: Sketch,
    limited: Sketch,
}

/// Some callers with their counts, the greatest among them.
#[derive(Clone, Debug, Default)]
struct Sketch(HashMap<Talker, Count, ahash::RandomState>);

#[derive(Clone, Copy, Debug, Default, PartialEq, Eq)]
struct Count {
    count: u64,
    /// How much of it may be others'.
    error: u64,
}

impl Sketch {
    /// Adds to what `talker` has, who takes the place of the least when there are `most`.
    fn add(&mut self, talker: Talker, more: Count, most: usize) {
        if let Some(known) = self.0.get_mut(&talker) {
            known.count += more.count;
            known.error += more.error;
            return;
        }
        let mut least = Count::default();
        if self.0.len() >= most
            && let Some(goes) = self.0.iter().min_by_key(|(_, count)| count.count).map(|(talker, _)| talker.clone())
        {
            least = self.0.remove(&goes).unwrap_or_default();
        }
        self.0.insert(talker, Count { count: least.count + more.count, error: least.count + more.error });
    }

    fn of(&self, talker: &Talker) -> u64 {
        self.0.get(talker).map_or(0, |count| count.count)
    }
}

/// The callers of the last minutes.
#[derive(Debug, Default)]
pub(super) struct Talkers(Mutex<VecDeque<(u64, Both)>>);

impl Talkers {
    /// Adds what the threads have heard up to the second `now`. To be called once a second.
    pub(super) fn collect<'a>(&self, threads: impl Iterator<Item = &'a ThreadTalk>, now: u64) {
        let heard: Vec<_> = threads.map(|heard| std::mem::take(&mut *heard.0.lock())).collect();
        let mut minutes = self.0.lock();
        if minutes.back().is_none_or(|(began, _)| now >= began + MINUTE) {
            minutes.push_back((now, Both::default()));
        }
        while minutes.len() > MINUTES
            || minutes.front().is_some_and(|(began, _)| began + MINUTE * MINUTES as u64 <= now)
        {
            minutes.pop_front();
        }
        let Some((_, present)) = minutes.back_mut() else { return };
        for Both { requests, limited } in heard {
            requests.0.into_iter().for_each(|(who, more)| present.requests.add(who, more, MINUTE_PLACES));
            limited.0.into_iter().for_each(|(who, more)| present.limited.add(who, more, MINUTE_PLACES));
        }
    }

    /// The greatest, at most `limit`, the greatest first; and since which second they are counted.
    pub(super) fn top(&self, by: TalkersBy, limit: usize) -> (Vec<Talk>, Option<u64>) {
        let minutes: Vec<(u64, Both)> = self.0.lock().iter().cloned().collect();
        let (mut sum, since) = (Both::default(), minutes.first().map(|(began, _)| *began));
        for (_, minute) in minutes {
            minute.requests.0.into_iter().for_each(|(who, more)| sum.requests.add(who, more, usize::MAX));
            minute.limited.0.into_iter().for_each(|(who, more)| sum.limited.add(who, more, usize::MAX));
        }
        let sorted = if by == TalkersBy::Requests { &sum.requests } else { &sum.limited };
        let mut top: Vec<_> = sorted.0.iter().collect();
        top.sort_unstable_by_key(|(talker, count)| (Reverse(count.count), *talker));
        let talk = |(talker, count): (&Talker, &Count)| {
            let (requests, limited) = (sum.requests.of(talker), sum.limited.of(talker));
            // Whoever has no place among all requests has at least those that were refused.
            Talk { talker: talker.clone(), requests: requests.max(limited), limited, error: count.error }
        };
        (top.into_iter().take(limit).map(talk).collect(), since)
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    fn address(number: u32) -> Talker {
        Talker::Address(IpNet::from(std::net::IpAddr::V4(number.into())))
    }

    fn top(talkers: &Talkers, by: TalkersBy, limit: usize) -> Vec<(Talker, u64, u64)> {
        talkers.top(by, limit).0.into_iter().map(|talk| (talk.talker, talk.requests, talk.limited)).collect()
    }

    #[test]
    fn few_requests_are_counted_one_by_one_and_many_by_the_step() {
        assert_eq!((weight(1_000, 1_000), weight(1_000 + EXACT - 1, 1_000)), (Some(1), Some(1)));
        let counted: u64 = (0..10_000).filter_map(|count| weight(count, 0)).sum();
        assert!(counted.abs_diff(10_000) < STEP, "{counted}");
        let counted: u64 = (5_003..15_003).filter_map(|count| weight(count, 5_003)).sum();
        assert!(counted.abs_diff(10_000) <= STEP, "{counted}");
    }

    #[test]
    fn the_greatest_are_found_among_strangers() {
        let (heard, talkers) = ([ThreadTalk::default(), ThreadTalk::default()], Talkers::default());
        // Each of ten callers makes 2,000 requests or more, between 50,000 that come once.
        for round in 0..2_000_u32 {
            for caller in 0..10 {
                heard[(round % 2) as usize].add(address(caller), 1 + u64::from(caller), caller == 3);
            }
            (0..25).for_each(|other| heard[1].add(address(1_000_000 + round * 25 + other), 1, false));
        }
        talkers.collect(heard.iter(), 1_000);
        let found = top(&talkers, TalkersBy::Requests, 5);
        assert_eq!(found.iter().map(|(who, ..)| who.clone()).collect::<Vec<_>>(), [9, 8, 7, 6, 5].map(address));
        for ((_, requests, _), true_count) in found.iter().zip([20_000, 18_000, 16_000, 14_000, 12_000]) {
            assert!((true_count..true_count + 2 * 50_000 / PLACES as u64).contains(requests), "{found:?}");
        }
        assert_eq!(top(&talkers, TalkersBy::Limited, 5), [(address(3), found_count(&talkers, 3), 8_000)]);
        let sizes = talkers.0.lock();
        assert!(sizes.iter().all(|(_, both)| both.requests.0.len() <= MINUTE_PLACES));
    }

    fn found_count(talkers: &Talkers, number: u32) -> u64 {
        let all = top(talkers, TalkersBy::Requests, usize::MAX);
        all.into_iter().find(|(who, ..)| *who == address(number)).map_or(0, |(_, requests, _)| requests)
    }

    #[test]
    fn what_several_tell_adds_up() {
        let client = |name: &str| Talker::Client(ClientId::parse(name).unwrap());
        let talk = |talker, requests, limited, error| Talk { talker, requests, limited, error };
        let told = [
            talk(client("10.0.0.1"), 5, 5, 1),
            talk(address(7), 9, 0, 0),
            talk(client("10.0.0.1"), 5, 1, 2),
            talk(client("b"), 9, 7, 0),
        ];
        let [first, second] = [talk(client("10.0.0.1"), 10, 6, 3), talk(client("b"), 9, 7, 0)];
        assert_eq!(TalkersBy::Requests.together(told.clone(), 2), [first.clone(), second.clone()]);
        assert_eq!(TalkersBy::Limited.together(told.clone(), 9), [second, first, talk(address(7), 9, 0, 0)]);
        let text = serde_json::to_string(&told).unwrap();
        assert_eq!(serde_json::from_str::<Vec<Talk>>(&text).unwrap(), told);
        for wrong in ["client:", "address:x", "address:1.2.3.4", "b", ""] {
            assert!(Talker::try_from(wrong.to_owned()).is_err(), "{wrong}");
        }
    }

    #[test]
    fn what_is_minutes_old_is_forgotten() {
        let (heard, talkers) = (ThreadTalk::default(), Talkers::default());
        heard.add(address(1), 7, true);
        talkers.collect(std::iter::once(&heard), 600);
        heard.add(address(2), 5, false);
        talkers.collect(std::iter::once(&heard), 700);
        assert_eq!(talkers.top(TalkersBy::Requests, 9).1, Some(600));
        assert_eq!(top(&talkers, TalkersBy::Requests, 9), [(address(1), 7, 7), (address(2), 5, 0)]);
        talkers.collect(std::iter::empty(), 600 + MINUTE * MINUTES as u64);
        assert_eq!(top(&talkers, TalkersBy::Requests, 9), [(address(2), 5, 0)]);
        talkers.collect(std::iter::empty(), 10_000);
        assert_eq!(top(&talkers, TalkersBy::Requests, 9), []);
    }
}
