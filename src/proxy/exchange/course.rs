//! What a connection to a backend and the hooks tell each other of one exchange.

use std::collections::VecDeque;
use std::sync::atomic::{AtomicBool, Ordering};
use std::time::Duration;

use parking_lot::Mutex;

use crate::proxy::gate::policies::ToldCosts;

/// One exchange over one connection to a backend, as far as it has come.
#[derive(Debug, Default)]
pub(in crate::proxy) struct Course {
    /// How long the connection had waited, when it had served another exchange before.
    idled: Mutex<Option<Duration>>,
    heard: AtomicBool,
    no_answer: Mutex<Option<&'static str>>,
    /// The lines of the request, as its client sent them.
    request: Mutex<Vec<u8>>,
    /// The lines of each answer, interim ones included, as far as they are passed on.
    answers: Mutex<VecDeque<Vec<u8>>>,
    /// What the final answer costs in policies, where it tells.
    costs: Mutex<Option<ToldCosts>>,
}

impl Course {
    /// Notes that the connection had served another exchange before, and waited for so long since.
    pub(in crate::proxy) fn set_idled(&self, idled: Duration) {
        *self.idled.lock() = Some(idled);
    }

    /// How long the connection had waited, when it had served another exchange before.
    pub(in crate::proxy) fn idled(&self) -> Option<Duration> {
        *self.idled.lock()
    }

    /// Notes that the backend has said something.
    pub(in crate::proxy) fn set_heard(&self) {
        self.heard.store(true, Ordering::Relaxed);
    }

    /// Whether the backend has said anything.
    pub(in crate::proxy) fn is_heard(&self) -> bool {
        self.heard.load(Ordering::Relaxed)
    }

    /// Notes why what the backend says is no answer.
    pub(in crate::proxy) fn set_no_answer(&self, why: &'static str) {
        *self.no_answer.lock() = Some(why);
    }

    /// Why what the backend says is no answer, if it is none.
    pub(in crate::proxy) fn no_answer(&self) -> Option<&'static str> {
        *self.no_answer.lock()
    }

    /// Notes how the lines of the request came.
    pub(in crate::proxy) fn set_request(&self, lines: Vec<u8>) {
        *self.request.lock() = lines;
    }

    /// How the lines of the request came. Asked once.
    pub(in crate::proxy) fn take_request(&self) -> Vec<u8> {
        std::mem::take(&mut self.request.lock())
    }

    /// Notes how the lines of one more answer came.
    pub(in crate::proxy) fn add_answer(&self, lines: Vec<u8>, costs: Option<ToldCosts>) {
        *self.costs.lock() = costs;
        self.answers.lock().push_back(lines);
    }

    /// What the final answer costs, once.
    pub(in crate::proxy) fn take_costs(&self) -> Option<ToldCosts> {
        self.costs.lock().take()
    }

    /// How the lines of the next answer came. Asked once for each.
    pub(in crate::proxy) fn next_answer(&self) -> Option<Vec<u8>> {
        self.answers.lock().pop_front()
    }
}
