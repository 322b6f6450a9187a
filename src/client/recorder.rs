//! What is recorded of clients: their requests a second, for an hour.
//!
//! A client's own counters say how many requests it has made in all. So nothing is counted twice: when the first
//! request of a new second comes, what the counters have gained since the second before is written down. That costs a
//! request a load and a compare, and the first one in each second of its client a lock that nobody else wants.
//!
//! Of at most so many clients, the busiest. Where there is room everybody is recorded from its first request on. Where
//! there is none, a client that was busier over a whole minute than the least busy of those that are recorded was on
//! average takes its place at the next look, once a second; what was recorded of that one is gone. Who is not recorded
//! at first is so for a minute at least.
//!
//! Memory: a word of 4 bytes for each second in which a client made requests, so at most some 16 KiB for each, 160 MB
//! for 10,000 clients that never rest. More than 1,048,575 requests in one second count as so many.
//!
//! Refused: to look at every client's counters each second, which takes a large part of a core for a million of them; a
//! ring of all 3,600 seconds for each, most of them 0.

use std::sync::Arc;
use std::sync::atomic::{AtomicUsize, Ordering};

use parking_lot::Mutex;

use super::Usage;
use super::recording::{BILLION, MINUTE, MOST_REQUESTS, RECORDED_SECONDS, Recording};

/// Records the requests of clients.
#[derive(Debug, Default)]
pub struct Recorder {
    /// Of how many at most.
    most: AtomicUsize,
    /// Of how many.
    count: AtomicUsize,
    recorded: Mutex<Vec<Arc<Usage>>>,
    /// Who wants a place, with its requests in a minute.
    waiting: Mutex<Vec<(u64, Arc<Usage>)>>,
}

impl Recorder {
    /// One that records `most` clients.
    pub fn new(most: usize) -> Self {
        Recorder { most: most.into(), ..Recorder::default() }
    }

    /// Records so many from now on; what there is of others goes at the next look.
    pub fn set_most(&self, most: usize) {
        self.most.store(most, Ordering::Relaxed);
    }

    /// Writes down the second that is over for `usage` at `now`, before the request is counted that found that out.
    #[cold]
    #[inline(never)]
    pub fn turn(&self, usage: &Arc<Usage>, now: u64) {
        let second = now / BILLION;
        let mut recording = usage.recording().lock();
        if !usage.is_second_over(now) {
            return;
        }
        let (total, most) = (usage.requests(), self.most.load(Ordering::Relaxed));
        let (over, base) = (recording.second, recording.base);
        (recording.second, recording.base) = (second, total);
        usage.set_second_end(second.saturating_add(1).saturating_mul(BILLION));
        if let Some(kept) = &mut recording.kept {
            kept.push(over, total - base);
        } else if self.count.fetch_add(1, Ordering::Relaxed) < most {
            recording.kept = Some(Box::default());
            drop(recording);
            self.recorded.lock().push(Arc::clone(usage));
        } else {
            self.count.fetch_sub(1, Ordering::Relaxed);
            let (began, before) = recording.minute;
            if second >= began + MINUTE {
                recording.minute = (second, total);
                drop(recording);
                let mut waiting = self.waiting.lock();
                // One that came back after more than two minutes has not been busy for one.
                if began > 0 && second < began + 2 * MINUTE && waiting.len() < most {
                    waiting.push((total - before, Arc::clone(usage)));
                }
            }
        }
    }

    /// Has a look at who is recorded: forgets what is over and who is gone, and gives the places of the least busy to
    /// busier ones who wait. To be called once a second or so; takes as long as there are clients recorded.
    pub fn look(&self, now: u64) {
        let second = now / BILLION;
        let mut waiting = std::mem::take(&mut *self.waiting.lock());
        let most = self.most.load(Ordering::Relaxed);
        if waiting.is_empty() && self.count.load(Ordering::Relaxed) <= most && !second.is_multiple_of(MINUTE) {
            return;
        }
        let mut recorded = self.recorded.lock();
        let mut busy: Vec<(u64, Arc<Usage>)> = Vec::with_capacity(recorded.len());
        for usage in recorded.drain(..) {
            let mut recording = usage.recording().lock();
            let latest = recording.second;
            let Some(kept) = &mut recording.kept else { continue };
            kept.forget(second);
            let requests = kept.per_minute(second);
            // Nobody else has it: its client is gone.
            let over = kept.words.is_empty() && latest + RECORDED_SECONDS <= second;
            if over || Arc::strong_count(&usage) == 1 {
                self.release(&mut recording);
                continue;
            }
            drop(recording);
            busy.push((requests, usage));
        }
        // The least busy last; those who wait, the busiest first.
        busy.sort_by_key(|(requests, _)| std::cmp::Reverse(*requests));
        while busy.len() > most {
            self.give_up(&mut busy);
        }
        waiting.sort_by_key(|(requests, _)| std::cmp::Reverse(*requests));
        for (requests, usage) in waiting {
            let full = busy.len() + recorded.len() >= most;
            if usage.recording().lock().kept.is_some()
                || full && busy.last().is_none_or(|(least, _)| *least >= requests)
            {
                continue;
            }
            if full {
                self.give_up(&mut busy);
            }
            usage.recording().lock().kept = Some(Box::default());
            self.count.fetch_add(1, Ordering::Relaxed);
            recorded.push(usage);
        }
        recorded.extend(busy.into_iter().map(|(_, usage)| usage));
    }

    /// What is recorded of `usage` from the second `from` on, the one that goes on included: each second with its
    /// requests, the earliest first. None when it is not recorded.
    pub fn recorded(&self, usage: &Usage, from: u64) -> Option<Vec<(u64, u32)>> {
        let recording = usage.recording().lock();
        let kept = recording.kept.as_ref()?;
        let present = usage.requests().saturating_sub(recording.base).min(MOST_REQUESTS) as u32;
        let all = kept.words.iter().map(|word| kept.read(*word));
        let all = all.chain((present > 0).then_some((recording.second, present)));
        Some(all.filter(|(second, _)| *second >= from).collect())
    }

    fn give_up(&self, busy: &mut Vec<(u64, Arc<Usage>)>) {
        if let Some((_, usage)) = busy.pop() {
            self.release(&mut usage.recording().lock());
        }
    }

    fn release(&self, recording: &mut Recording) {
        if recording.kept.take().is_some() {
            self.count.fetch_sub(1, Ordering::Relaxed);
        }
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const START: u64 = 1_700_000_000;

    /// Makes so many requests in a second.
    fn ask(recorder: &Recorder, usage: &Arc<Usage>, second: u64, requests: u64) {
        for request in 0..requests {
            let now = second * BILLION + request * (BILLION / requests.max(1));
            if usage.is_second_over(now) {
                recorder.turn(usage, now);
            }
            usage.count_allowed(now);
        }
    }

    #[test]
    fn each_second_has_its_requests_for_an_hour() {
        let (recorder, usage) = (Recorder::new(1), Arc::new(Usage::default()));
        assert_eq!(recorder.recorded(&usage, 0), None);
        ask(&recorder, &usage, START, 3);
        assert_eq!(recorder.recorded(&usage, 0), Some(vec![(START, 3)]));
        ask(&recorder, &usage, START + 1, 5);
        ask(&recorder, &usage, START + 7, 1);
        assert_eq!(recorder.recorded(&usage, 0), Some(vec![(START, 3), (START + 1, 5), (START + 7, 1)]));
        assert_eq!(recorder.recorded(&usage, START + 2), Some(vec![(START + 7, 1)]));
        ask(&recorder, &usage, START + 3_600, 2);
        let left = vec![(START + 1, 5), (START + 7, 1), (START + 3_600, 2)];
        ask(&recorder, &usage, START + 3_600, 0);
        assert_eq!(recorder.recorded(&usage, START + 1), Some(left));
        // A long rest, and what the words cannot tell apart.
        ask(&recorder, &usage, START + 100_000, 4);
        ask(&recorder, &usage, START + 100_001, 4);
        assert_eq!(recorder.recorded(&usage, 0), Some(vec![(START + 100_000, 4), (START + 100_001, 4)]));
    }

    #[test]
    fn the_busiest_have_the_places() {
        let recorder = Recorder::new(2);
        let callers: Vec<_> = (0..3).map(|_| Arc::new(Usage::default())).collect();
        let known = || callers.iter().map(|usage| recorder.recorded(usage, 0).is_some()).collect::<Vec<_>>();
        for second in START..START + 200 {
            ask(&recorder, &callers[0], second, 5);
            ask(&recorder, &callers[1], second, 1);
            ask(&recorder, &callers[2], second, 3);
            recorder.look(second * BILLION);
        }
        assert_eq!(known(), [true, false, true]);
        // A client that is gone leaves room, and so does one that has rested for an hour.
        let kept = callers[0].clone();
        drop(callers);
        recorder.look((START + 240) / 60 * 60 * BILLION);
        assert_eq!((recorder.count.load(Ordering::Relaxed), recorder.recorded(&kept, 0).is_some()), (1, true));
        recorder.look((START + 8_000) / 60 * 60 * BILLION);
        assert_eq!((recorder.count.load(Ordering::Relaxed), recorder.recorded(&kept, 0)), (0, None));
        recorder.set_most(0);
        ask(&recorder, &kept, START + 9_000, 1);
        assert_eq!(recorder.recorded(&kept, 0), None);
    }
}
