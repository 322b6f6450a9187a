//! The writer over real files and pipes.

use std::fs;
use std::io::{BufRead, BufReader, Read};
use std::path::Path;

use super::super::record::tests::SAMPLE;
use super::super::{AccessLog, AccessLogFormat, AccessLogSettings, AccessLogTarget, AccessRecord};
use super::*;
use crate::clock::{Clock, ManualClock, SystemClock};

/// Looks again and again until `done`, for half a minute.
pub(in crate::telemetry) fn wait_until(what: &str, mut done: impl FnMut() -> bool) {
    let deadline = SystemClock.now() + Duration::from_secs(30);
    while !done() {
        assert!(SystemClock.now() < deadline, "not in time: {what}");
        std::thread::park_timeout(Duration::from_millis(1));
    }
}

pub(in crate::telemetry) fn to_file(path: &Path) -> (AccessLog, AccessLogWriter) {
    let target = Some(AccessLogTarget::File(path.to_owned()));
    AccessLog::new(&AccessLogSettings { target, ..AccessLogSettings::default() }).unwrap()
}

pub(in crate::telemetry) fn over(
    out: impl io::Write + Send + 'static,
    format: AccessLogFormat,
) -> (AccessLog, AccessLogWriter) {
    AccessLog::over(LogTarget::of(out), AccessLogSettings { format, ..AccessLogSettings::default() })
}

pub(in crate::telemetry) fn record(log: &AccessLog, numbers: std::ops::Range<usize>) {
    for number in numbers {
        log.record(&AccessRecord { request_id: &number.to_string(), ..SAMPLE });
    }
}

/// The request ids of lines that must all parse.
pub(in crate::telemetry) fn ids(text: &str) -> Vec<usize> {
    assert!(text.is_empty() || text.ends_with('\n'));
    let id = |line| serde_json::from_str::<serde_json::Value>(line).unwrap()["request_id"].as_str().unwrap().parse();
    text.lines().map(|line| id(line).unwrap()).collect()
}

fn written(guard: &AccessLogGuard) -> u64 {
    guard.running.as_ref().unwrap().shared.written.load(Ordering::Relaxed)
}

/// The events of so many seconds.
fn events(guard: &mut AccessLogGuard, clock: &ManualClock, seconds: u32) -> Vec<String> {
    let second = |_| {
        clock.advance(Duration::from_secs(1));
        guard.tick(clock.now())
    };
    (0..seconds).filter_map(second).collect()
}

#[test]
fn stopping_writes_what_is_queued() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let (log, writer) = to_file(&path);
    record(&log, 0..5000);
    let guard = writer.start().unwrap();
    record(&log, 5000..10_000);
    guard.stop();
    assert_eq!(log.dropped(), 0);
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), (0..10_000).collect::<Vec<_>>());
    record(&log, 0..3);
    assert_eq!(log.dropped(), 3);
}

#[test]
fn a_line_appears_while_the_log_is_idle() {
    let (reader, pipe) = io::pipe().unwrap();
    let (log, writer) = over(pipe, AccessLogFormat::Json);
    let guard = writer.start().unwrap();
    let mut lines = BufReader::new(reader).lines();
    for number in 0..3 {
        record(&log, number..number + 1);
        assert_eq!(ids(&format!("{}\n", lines.next().unwrap().unwrap())), [number]);
    }
    guard.stop();
}

#[test]
fn many_threads_lose_and_tear_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let (log, writer) = to_file(&path);
    let guard = writer.start().unwrap();
    std::thread::scope(|scope| {
        for thread in 0..8 {
            let log = log.clone();
            scope.spawn(move || record(&log, thread * 1000..(thread + 1) * 1000));
        }
    });
    guard.stop();
    let mut ids = ids(&fs::read_to_string(&path).unwrap());
    ids.sort_unstable();
    assert_eq!(ids, (0..8000).collect::<Vec<_>>());
}

#[test]
fn a_stuck_pipe_holds_up_nobody_and_recovers() {
    let clock = ManualClock::new();
    let (mut reader, pipe) = io::pipe().unwrap();
    let (log, writer) = over(pipe, AccessLogFormat::Json);
    let mut guard = writer.start().unwrap();
    let started = SystemClock.now();
    record(&log, 0..100_000);
    assert!(SystemClock.now() - started < Duration::from_secs(20));
    // A pipe holds 64 KiB, less than 1000 lines; the rest is in the queue, or lost.
    let lost = log.dropped();
    assert!((40_000..60_000).contains(&lost), "{lost}");
    let told = events(&mut guard, &clock, 30);
    let stuck = "access log on standard output: writing failed: the reader is stuck or too slow; lines are dropped";
    assert_eq!(told, [stuck]);

    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    wait_until("the queue is written", || written(&guard) + lost == 100_000);
    record(&log, 100_000..100_001);
    wait_until("a further line is written", || written(&guard) + lost == 100_001);
    let over = format!("access log on standard output: writes again, {lost} lines were dropped");
    assert_eq!(events(&mut guard, &clock, 30), [over]);
    guard.stop();
    let ids = ids(&reading.join().unwrap().unwrap());
    assert!(ids.is_sorted() && ids.len() as u64 + lost == 100_001);
}

#[test]
fn stopping_leaves_a_stuck_writer_behind() {
    let (reader, pipe) = io::pipe().unwrap();
    let (log, writer) = over(pipe, AccessLogFormat::Json);
    let guard = writer.start().unwrap();
    record(&log, 0..2000);
    let started = SystemClock.now();
    guard.stop();
    assert!(SystemClock.now() - started < Duration::from_secs(10));
    drop(reader);
}

#[test]
fn a_full_disk_drops_counts_and_is_told_once() {
    let clock = ManualClock::new();
    let (log, writer) = to_file(Path::new("/dev/full"));
    let mut guard = writer.start().unwrap();
    let mut told = Vec::new();
    for round in 1..=20 {
        record(&log, 0..50);
        wait_until("all lines are dropped", || log.dropped() == round * 50);
        told.extend(events(&mut guard, &clock, 1));
    }
    let full = "access log /dev/full: writing failed: No space left on device (os error 28); lines are dropped";
    assert_eq!(told, [full]);
    guard.stop();
    assert_eq!(log.dropped(), 1000);
}

#[test]
fn a_reader_that_goes_away_is_an_error_like_any_other() {
    let clock = ManualClock::new();
    let (reader, pipe) = io::pipe().unwrap();
    let (log, writer) = over(pipe, AccessLogFormat::Text);
    let mut guard = writer.start().unwrap();
    drop(reader);
    record(&log, 0..10);
    wait_until("all lines are dropped", || log.dropped() == 10);
    let told = events(&mut guard, &clock, 1);
    assert!(told[0].contains("writing failed: Broken pipe"), "{told:?}");
    guard.stop();
}

#[test]
fn a_moved_file_is_opened_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let (log, writer) = to_file(&path);
    let guard = writer.start().unwrap();
    record(&log, 0..100);
    wait_until("the lines are written", || written(&guard) == 100);
    fs::rename(&path, &moved).unwrap();
    // What waits to be written belongs to the old file, too.
    record(&log, 100..200);
    log.reopen();
    record(&log, 200..300);
    guard.stop();
    assert_eq!(ids(&fs::read_to_string(&moved).unwrap()), (0..200).collect::<Vec<_>>());
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), (200..300).collect::<Vec<_>>());
}

#[test]
fn a_path_that_cannot_be_opened_again_keeps_the_old_file() {
    let dir = tempfile::tempdir().unwrap();
    let (logs, moved) = (dir.path().join("logs"), dir.path().join("moved"));
    fs::create_dir(&logs).unwrap();
    let (log, writer) = to_file(&logs.join("access.log"));
    let guard = writer.start().unwrap();
    fs::rename(&logs, &moved).unwrap();
    record(&log, 0..10);
    log.reopen();
    record(&log, 10..20);
    guard.stop();
    assert_eq!(log.dropped(), 0);
    assert_eq!(ids(&fs::read_to_string(moved.join("access.log")).unwrap()), (0..20).collect::<Vec<_>>());
}
