//! The queue by itself.

use std::collections::HashSet;
use std::panic::{AssertUnwindSafe, catch_unwind};
use std::time::{Duration, UNIX_EPOCH};

use super::*;

fn at(millis: u64) -> SystemTime {
    UNIX_EPOCH + Duration::from_millis(millis)
}

fn push(queue: &LineQueue, millis: u64, text: &str) {
    queue.push(7, at(millis), |_, out| out.extend_from_slice(text.as_bytes()));
}

/// Puts a line into one batch of several.
fn put(queue: &LineQueue, batch: usize, millis: u64) {
    let text = format!("{batch} {millis}");
    let batch = queue.batches.iter().nth(batch).unwrap();
    queue.put(batch, 7, at(millis), |_, out| out.extend_from_slice(text.as_bytes()));
}

fn take(lines: &mut QueueReader) -> Vec<String> {
    let mut taken = Vec::new();
    lines.take(|generation, line| {
        assert_eq!(generation, 7);
        taken.push(String::from_utf8(line.to_vec()).unwrap());
    });
    taken
}

#[test]
fn lines_of_several_batches_come_in_the_order_in_which_their_requests_ended() {
    let queue = LineQueue::over(Sharded::of(4), QUEUE_BYTES);
    let mut lines = QueueReader::new(&queue);
    (0..4).for_each(|batch| (0..5).for_each(|step| put(&queue, batch, step * 4 + batch as u64)));
    let expected: Vec<_> = (0..20).map(|millis| format!("{} {millis}", millis % 4)).collect();
    assert_eq!(take(&mut lines), expected);
    assert_eq!(take(&mut lines), [""; 0]);
    put(&queue, 2, 0);
    assert_eq!(take(&mut lines), ["2 0"]);
}

#[test]
fn those_of_one_batch_stay_in_the_order_in_which_they_were_put_there() {
    let queue = LineQueue::over(Sharded::of(2), QUEUE_BYTES);
    let mut lines = QueueReader::new(&queue);
    // The clock was set back.
    [30, 10, 20].into_iter().for_each(|millis| put(&queue, 0, millis));
    put(&queue, 1, 25);
    assert_eq!(take(&mut lines), ["1 25", "0 30", "0 10", "0 20"]);
}

#[test]
fn what_may_wait_is_bounded_and_there_is_room_again_afterwards() {
    let queue = LineQueue::new();
    let mut lines = QueueReader::new(&queue);
    let line = "a".repeat(1000);
    let pushes = 2 * QUEUE_BYTES / line.len();
    for _ in 0..3 {
        let before = queue.dropped();
        (0..pushes).for_each(|_| push(&queue, 0, &line));
        let waiting = take(&mut lines).len();
        assert_eq!(waiting as u64 + queue.dropped() - before, pushes as u64);
        assert!((QUEUE_BYTES..=QUEUE_BYTES + GRANT).contains(&(waiting * line.len())), "{waiting}");
        assert_eq!(queue.granted(), 0);
    }
}

#[test]
fn what_is_left_or_comes_later_is_counted_when_nobody_takes_it() {
    let queue = LineQueue::new();
    let lines = QueueReader::new(&queue);
    push(&queue, 0, "left");
    drop(lines);
    assert_eq!((queue.dropped(), queue.granted()), (1, 0));
    push(&queue, 0, "late");
    assert_eq!((queue.dropped(), queue.granted()), (2, 0));
}

#[test]
fn what_was_taken_and_not_read_is_counted_when_the_reader_panics() {
    let queue = LineQueue::over(Sharded::of(2), QUEUE_BYTES);
    let mut lines = QueueReader::new(&queue);
    (0..10).for_each(|millis| put(&queue, millis as usize % 2, millis));
    let mut read = 0;
    let panicked = catch_unwind(AssertUnwindSafe(|| {
        lines.take(|_, _| {
            read += 1;
            assert!(read < 4, "on purpose");
        });
    }));
    assert!(panicked.is_err());
    put(&queue, 0, 10);
    drop(lines);
    // The line with which it panicked is neither.
    assert_eq!((read, queue.dropped(), queue.granted()), (4, 7, 0));
}

#[test]
fn each_line_of_many_threads_is_taken_once_or_counted() {
    const EACH: u64 = 20_000;
    let queue = LineQueue::new();
    let mut lines = QueueReader::new(&queue);
    let mut taken = Vec::new();
    std::thread::scope(|scope| {
        for thread in 0..4 {
            let queue = &queue;
            scope
                .spawn(move || (0..EACH).for_each(|number| push(queue, number, &(thread * EACH + number).to_string())));
        }
        while taken.len() < 2 * EACH as usize {
            lines.wait();
            taken.extend(take(&mut lines));
        }
        // While they still push, or not.
        drop(lines);
    });
    assert_eq!(taken.len() as u64 + queue.dropped(), 4 * EACH);
    assert_eq!(taken.iter().collect::<HashSet<_>>().len(), taken.len());
}

#[test]
fn the_first_line_of_a_batch_rings_and_no_other() {
    let queue = LineQueue::over(Sharded::of(1), QUEUE_BYTES);
    let mut lines = QueueReader::new(&queue);
    let rung = || std::mem::take(&mut *queue.bell.rung.lock());
    for _ in 0..2 {
        push(&queue, 0, "one");
        assert!(rung());
        push(&queue, 0, "two");
        assert!(!rung());
        assert_eq!(take(&mut lines).len(), 2);
    }
}

#[test]
fn a_ring_wakes_who_waits_and_is_not_forgotten() {
    let queue = LineQueue::new();
    let mut lines = QueueReader::new(&queue);
    queue.ring();
    lines.wait();
    let waiting = std::thread::spawn(move || {
        lines.wait();
        take(&mut lines)
    });
    push(&queue, 0, "line");
    assert_eq!(waiting.join().unwrap(), ["line"]);
}
