//! How much of request bodies is taken before it is passed on.
//!
//! The problem: a client may send no more than a window in each round trip, so 64 KiB make an upload over 100 ms slow,
//! and what the window allows is memory that a slow backend can make the server hold.
//!
//! The rule. A stream may send [`STREAM`] bytes ahead, and all streams of a connection [`FIRST`] together. Once a
//! backend has taken [`USED`] bytes of a body, the connection's window grows by what is left of it, in one step, since
//! each further step costs a round trip. What windows have grown by is taken from a [`WindowBudget`] that all
//! connections share, at most [`GROWN`] for each connection and never more than a part of what is there, so that nobody
//! takes the last of it. It is given back as the body ends or, where nobody said how long the body is, as far as later
//! bodies use it up: a window cannot be taken back. While more than half of the budget is there, a connection has room
//! for a [`STREAM`] from its start, which saves the first body the round trip. Several large bodies on one connection
//! have smaller windows each, so that one which nobody takes leaves room for the others. With the budget spent, a
//! stream has [`SMALL`] bytes.
//!
//! Refused: an estimate of bandwidth and delay by PING, as hyper has it. It takes a round trip for each doubling, seven
//! for 8 MiB. So were windows that grow by SETTINGS alone: they count only when the client has answered the SETTINGS
//! before.

use std::sync::Arc;

use parking_lot::Mutex;
use tokio::sync::Notify;

use crate::proxy::downstream::budget::WindowBudget;

/// What a stream may send ahead, when it is the only large one of its connection.
const STREAM: u32 = 8 << 20;
/// The least that a stream may send ahead, and what it may when the budget is spent.
const SMALL: u32 = 64 << 10;
/// What all requests of a connection may send ahead at first.
const FIRST: u32 = 1 << 20;
/// What that may grow by, to 16 MiB.
const GROWN: u32 = 15 << 20;
/// What a backend has taken of a body before the window grows.
const USED: u64 = 32 << 10;
/// How far a window may be from what it should be before it is set anew, and the least that it grows by.
const STEP: u32 = 256 << 10;

/// The windows of one connection.
#[derive(Debug)]
pub(in crate::proxy) struct Windows {
    budget: Arc<WindowBudget>,
    state: Mutex<WindowState>,
    /// What the connection's window is larger by from its start to its end.
    floor: u32,
    changed: Notify,
}

#[derive(Debug)]
struct WindowState {
    /// What bodies want the connection's window to be larger by.
    wanted: u32,
    /// What it was made larger by when it was last set.
    set: u32,
    /// What is taken from the budget: never less than what the client may send beyond the first window, or has sent and
    /// nobody has taken.
    charged: u32,
    /// The large bodies that are coming.
    uploads: u32,
}

impl Windows {
    /// The windows of a new connection.
    pub(in crate::proxy) fn new(budget: Arc<WindowBudget>) -> Arc<Self> {
        let floor = budget.take_of_plenty(STREAM);
        let state = WindowState { wanted: 0, set: floor, charged: floor, uploads: 0 };
        Arc::new(Windows { budget, state: Mutex::new(state), floor, changed: Notify::new() })
    }

    /// What each stream may send ahead now.
    pub(in crate::proxy) fn of_stream(&self) -> u32 {
        let uploads = self.state.lock().uploads;
        if uploads == 0 && self.budget.allows() < STEP { SMALL } else { window(uploads) }
    }

    /// Waits until one of them should be set anew.
    pub(in crate::proxy) async fn changed(&self) {
        self.changed.notified().await;
    }

    /// What the connection is to be allowed from now on.
    pub(in crate::proxy) fn set(&self) -> u32 {
        let mut state = self.state.lock();
        state.set = state.wanted.max(self.floor);
        FIRST + state.set
    }
}

impl Drop for Windows {
    fn drop(&mut self) {
        self.budget.give(self.state.get_mut().charged);
    }
}

/// What each of so many large bodies may send ahead. Were each of them to stand still with all of that, the connection
/// would still have room for others.
fn window(uploads: u32) -> u32 {
    match uploads {
        0 | 1 => STREAM,
        2 => 2 << 20,
        3 | 4 => 1 << 20,
        5..=7 => 512 << 10,
        8..=15 => 256 << 10,
        _ => SMALL,
    }
}

/// What one body has of its connection's windows.
#[derive(Debug)]
pub(in crate::proxy) struct Share {
    windows: Arc<Windows>,
    /// What is still to come, where that was announced.
    left: Option<u64>,
    taken: u64,
    /// What the connection's window should be larger by for this body.
    grown: u32,
    /// Whether it counts as a large one.
    counts: bool,
}

impl Share {
    /// For a body of this length, if it was announced.
    pub(in crate::proxy) fn new(windows: &Arc<Windows>, length: Option<u64>) -> Self {
        Share { windows: Arc::clone(windows), left: length, taken: 0, grown: 0, counts: false }
    }

    /// Takes note that so many bytes of the body were passed on.
    pub(in crate::proxy) fn took(&mut self, bytes: usize) {
        self.taken += bytes as u64;
        self.left = self.left.map(|left| left.saturating_sub(bytes as u64));
        let left = self.left.map_or(STREAM, |left| u32::try_from(left).unwrap_or(u32::MAX));
        if !self.counts && (self.taken < USED || left < FIRST / 2) {
            return;
        }
        let (windows, budget) = (&self.windows, &self.windows.budget);
        let mut state = windows.state.lock();
        // What was allowed beyond what is wanted now has been used up by as much.
        let beyond = state.charged.saturating_sub(state.set.max(state.wanted).max(windows.floor));
        let used = u32::try_from(bytes).unwrap_or(u32::MAX).min(beyond);
        state.charged -= used;
        budget.give(used);
        if !std::mem::replace(&mut self.counts, true) {
            state.uploads += 1;
        }
        if left < self.grown {
            state.wanted -= self.grown - left;
            self.grown = left;
        }
        let more = left.min(window(state.uploads)).saturating_sub(self.grown).min(GROWN - state.wanted);
        if more >= STEP {
            let spare = state.charged - state.wanted;
            let charge = budget.take(more.saturating_sub(spare));
            let more = more.min(spare + charge);
            state.charged += charge;
            state.wanted += more;
            self.grown += more;
        }
        if state.wanted.max(windows.floor).abs_diff(state.set) >= STEP {
            windows.changed.notify_one();
        }
    }

    /// The body is over, or nobody takes any more of it.
    pub(in crate::proxy) fn end(&mut self) {
        if std::mem::take(&mut self.counts) {
            let mut state = self.windows.state.lock();
            state.wanted -= std::mem::take(&mut self.grown);
            state.uploads -= 1;
            self.windows.changed.notify_one();
        }
        // So that no more of it counts.
        (self.taken, self.left) = (0, Some(0));
    }
}

impl Drop for Share {
    fn drop(&mut self) {
        self.end();
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    const MIB: u32 = 1 << 20;
    const BUDGET: u32 = crate::proxy::downstream::budget::BUDGET;

    fn left(budget: &WindowBudget) -> u32 {
        budget.left()
    }

    /// A budget of which so much is taken that no connection has more than others from its start.
    fn scarce() -> Arc<WindowBudget> {
        let budget = WindowBudget::new();
        while budget.take_of_plenty(MIB) > 0 {}
        Arc::new(budget)
    }

    #[test]
    fn while_there_is_plenty_a_connection_has_room_from_its_start_to_its_end() {
        let budget = Arc::new(WindowBudget::new());
        let windows = Windows::new(Arc::clone(&budget));
        assert_eq!((windows.set(), left(&budget)), (FIRST + STREAM, BUDGET - STREAM));
        for length in [Some(8 << 20), None] {
            let mut share = Share::new(&windows, length);
            for _ in 0..128 {
                share.took(64 << 10);
                assert_eq!(windows.set(), FIRST + STREAM);
            }
        }
        let (mut first, mut second) = (Share::new(&windows, None), Share::new(&windows, None));
        first.took(64 << 10);
        second.took(64 << 10);
        assert_eq!((windows.set(), left(&budget)), (FIRST + STREAM + 2 * MIB, BUDGET - STREAM - 2 * MIB));
        drop((first, second, windows));
        assert_eq!(left(&budget), BUDGET);
    }

    #[test]
    fn a_window_grows_at_once_by_what_is_left_and_is_given_back_with_it() {
        let budget = scarce();
        let all = left(&budget);
        let windows = Windows::new(Arc::clone(&budget));
        let mut share = Share::new(&windows, Some(8 << 20));
        share.took(20 << 10);
        assert_eq!((windows.set(), windows.of_stream()), (FIRST, STREAM), "nothing is used yet");
        share.took(20 << 10);
        assert_eq!(windows.set(), FIRST + 8 * MIB - (40 << 10));
        assert_eq!(left(&budget), all - (8 * MIB - (40 << 10)));
        for _ in 0..7 {
            share.took(1 << 20);
            windows.set();
        }
        assert_eq!(windows.set(), FIRST + MIB - (40 << 10));
        // What the client was told before it was told less is still charged until it is used.
        assert!(left(&budget) <= all - (MIB - (40 << 10)));
        drop((share, windows));
        assert_eq!(left(&budget), all);
    }

    #[test]
    fn a_window_that_cannot_be_taken_back_stays_charged_until_it_is_used() {
        let budget = scarce();
        let all = left(&budget);
        let windows = Windows::new(Arc::clone(&budget));
        let mut first = Share::new(&windows, None);
        first.took(64 << 10);
        assert_eq!(windows.set(), FIRST + STREAM);
        drop(first);
        assert_eq!((windows.set(), left(&budget)), (FIRST, all - STREAM));
        // The next one has it without another charge.
        let mut second = Share::new(&windows, Some(4 << 20));
        second.took(64 << 10);
        assert!(left(&budget) >= all - STREAM && left(&budget) <= all - STREAM + (64 << 10));
        windows.set();
        for _ in 0..63 {
            second.took(64 << 10);
            windows.set();
        }
        assert!(left(&budget) >= all - 5 * MIB, "{}", all - left(&budget));
        drop((second, windows));
        assert_eq!(left(&budget), all);
    }

    #[test]
    fn no_connection_has_more_than_its_bound_and_all_have_no_more_than_theirs() {
        let budget = Arc::new(WindowBudget::new());
        let mut all = Vec::new();
        for _ in 0..200 {
            let windows = Windows::new(Arc::clone(&budget));
            let shares: Vec<_> = (0..128)
                .map(|_| {
                    let mut share = Share::new(&windows, None);
                    share.took(64 << 10);
                    share
                })
                .collect();
            assert!(windows.set() <= 16 * MIB);
            assert_eq!(windows.of_stream(), SMALL);
            all.push((windows, shares));
        }
        let granted: u32 = all.iter().map(|(windows, _)| windows.set() - FIRST).sum();
        assert!(granted <= BUDGET && granted == BUDGET - left(&budget), "{granted}");
        assert_eq!(Windows::new(Arc::clone(&budget)).of_stream(), SMALL, "it is spent");
        drop(all);
        assert_eq!(left(&budget), BUDGET);
    }

    #[test]
    fn small_bodies_change_nothing() {
        let budget = scarce();
        let all = left(&budget);
        let windows = Windows::new(Arc::clone(&budget));
        let mut share = Share::new(&windows, Some(500 << 10));
        share.took(250 << 10);
        share.took(250 << 10);
        drop(share);
        assert_eq!((windows.set(), left(&budget)), (FIRST, all));
    }
}
