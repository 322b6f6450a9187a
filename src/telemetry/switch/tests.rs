//! Switches over real files and pipes.

use std::fs;
use std::io::Read;
use std::path::Path;
use std::sync::atomic::{AtomicBool, Ordering};

use super::super::record::tests::SAMPLE;
use super::super::writer::tests::{ids, over, record, to_file, wait_until};
use super::super::{AccessLogFormat, AccessLogTarget, AccessRecord};
use super::*;
use crate::clock::{Clock, ManualClock};

fn file(path: &Path, format: AccessLogFormat) -> AccessLogSettings {
    AccessLogSettings { target: Some(AccessLogTarget::File(path.to_owned())), format, ..AccessLogSettings::default() }
}

fn switch(log: &AccessLog, settings: &AccessLogSettings) {
    log.apply(log.prepare(settings).unwrap());
}

/// The request ids of lines in the text form.
fn text_ids(text: &str) -> Vec<usize> {
    let id = |line: &str| {
        assert!(!line.starts_with('{'), "{line}");
        let (_, rest) = line.split_once(" request_id=").unwrap();
        rest.split(' ').next().unwrap().trim_matches('"').parse().unwrap()
    };
    text.lines().map(id).collect()
}

#[test]
fn what_was_recorded_before_stays_in_the_old_target_and_form() {
    let dir = tempfile::tempdir().unwrap();
    let [a, b, c] = ["a.log", "b.log", "c.log"].map(|name| dir.path().join(name));
    let off = AccessLogSettings { target: None, ..AccessLogSettings::default() };
    let (log, writer) = to_file(&a);
    let guard = writer.start().unwrap();
    record(&log, 0..100);
    switch(&log, &file(&b, AccessLogFormat::Text));
    record(&log, 100..200);
    switch(&log, &off);
    record(&log, 200..300);
    switch(&log, &file(&c, AccessLogFormat::Json));
    record(&log, 300..400);
    switch(&log, &file(&a, AccessLogFormat::Json));
    record(&log, 400..500);
    guard.stop();
    assert_eq!(log.dropped(), 0);
    let read = |path: &Path| fs::read_to_string(path).unwrap();
    assert_eq!(ids(&read(&a)), (0..100).chain(400..500).collect::<Vec<_>>());
    assert_eq!(text_ids(&read(&b)), (100..200).collect::<Vec<_>>());
    assert_eq!(ids(&read(&c)), (300..400).collect::<Vec<_>>());
}

#[test]
fn a_log_that_was_off_begins() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let off = AccessLogSettings { target: None, ..AccessLogSettings::default() };
    let (log, writer) = AccessLog::new(&off).unwrap();
    let guard = writer.start().unwrap();
    record(&log, 0..10);
    switch(&log, &file(&path, AccessLogFormat::Json));
    record(&log, 10..20);
    wait_until("the lines are written", || fs::read_to_string(&path).is_ok_and(|text| text.lines().count() == 10));
    guard.stop();
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), (10..20).collect::<Vec<_>>());
}

#[test]
fn another_form_alone_opens_nothing_again() {
    let dir = tempfile::tempdir().unwrap();
    let (path, moved) = (dir.path().join("access.log"), dir.path().join("access.log.1"));
    let (log, writer) = to_file(&path);
    let guard = writer.start().unwrap();
    record(&log, 0..10);
    fs::rename(&path, &moved).unwrap();
    switch(&log, &file(&path, AccessLogFormat::Text));
    record(&log, 10..20);
    guard.stop();
    assert!(!path.exists());
    let text = fs::read_to_string(&moved).unwrap();
    let (json, plain) = text.split_at(text.match_indices('\n').nth(9).unwrap().0 + 1);
    assert_eq!((ids(json), text_ids(plain)), ((0..10).collect(), (10..20).collect()));
}

#[test]
fn what_cannot_be_opened_changes_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let (path, other) = (dir.path().join("access.log"), dir.path().join("other.log"));
    let (log, writer) = to_file(&path);
    let guard = writer.start().unwrap();
    let missing = dir.path().join("missing/access.log");
    let error = log.prepare(&file(&missing, AccessLogFormat::Text)).unwrap_err();
    assert!(error.to_string().starts_with(&format!("access log {} cannot be opened: ", missing.display())), "{error}");
    // Something else was wrong with that reload.
    drop(log.prepare(&file(&other, AccessLogFormat::Text)).unwrap());
    record(&log, 0..10);
    guard.stop();
    assert_eq!(ids(&fs::read_to_string(&path).unwrap()), (0..10).collect::<Vec<_>>());
    assert_eq!(fs::read_to_string(&other).unwrap(), "");
}

#[test]
fn opening_again_means_the_new_file() {
    let dir = tempfile::tempdir().unwrap();
    let [old, new, moved] = ["old.log", "new.log", "new.log.1"].map(|name| dir.path().join(name));
    let (log, writer) = to_file(&old);
    // Nobody writes yet, so the writer finds all of it at once.
    record(&log, 0..10);
    switch(&log, &file(&new, AccessLogFormat::Json));
    record(&log, 10..20);
    fs::rename(&new, &moved).unwrap();
    log.reopen();
    record(&log, 20..30);
    writer.start().unwrap().stop();
    let read = |path: &Path| ids(&fs::read_to_string(path).unwrap());
    assert_eq!(read(&old), (0..10).collect::<Vec<_>>());
    assert_eq!(read(&moved), (10..20).collect::<Vec<_>>());
    assert_eq!(read(&new), (20..30).collect::<Vec<_>>());
}

#[test]
fn asking_again_and_again_while_the_writer_is_stuck_opens_once() {
    let dir = tempfile::tempdir().unwrap();
    let [path, moved] = ["access.log", "access.log.1"].map(|name| dir.path().join(name));
    let (log, writer) = to_file(&path);
    record(&log, 0..10);
    fs::rename(&path, &moved).unwrap();
    for _ in 0..1000 {
        log.reopen();
    }
    record(&log, 10..20);
    let shared = log.shared.as_ref().unwrap();
    {
        let mut switches = shared.switches.lock();
        assert_eq!((switches.waiting.len(), switches.oldest()), (1, u64::MAX));
    }
    writer.start().unwrap().stop();
    let read = |path: &Path| ids(&fs::read_to_string(path).unwrap());
    assert_eq!((read(&moved), read(&path)), ((0..10).collect(), (10..20).collect()));
}

/// A request's thread that was put to sleep between making its line and queueing it.
#[test]
fn a_late_line_still_goes_where_it_belongs_and_then_the_old_target_is_closed() {
    let dir = tempfile::tempdir().unwrap();
    let path = dir.path().join("access.log");
    let clock = ManualClock::new();
    let (mut reader, pipe) = std::io::pipe().unwrap();
    let (log, writer) = over(pipe, AccessLogFormat::Json);
    let mut guard = writer.start().unwrap();
    let shared = log.shared.as_ref().unwrap();
    let late = shared.destination.load();
    switch(&log, &file(&path, AccessLogFormat::Text));
    record(&log, 1..2);
    wait_until("the new file has its line", || fs::read_to_string(&path).is_ok_and(|text| !text.is_empty()));
    drop(guard.tick(clock.now()));
    shared.push_for(&late, &AccessRecord { request_id: "0", ..SAMPLE });
    drop(late);
    // It ends when the writer has closed its end of the pipe, though no line comes any more.
    let reading = std::thread::spawn(move || {
        let mut text = String::new();
        reader.read_to_string(&mut text).map(|_| text)
    });
    wait_until("the old target is closed", || {
        drop(guard.tick(clock.now()));
        reading.is_finished()
    });
    assert_eq!(ids(&reading.join().unwrap().unwrap()), [0]);
    wait_until("the writer is done with it", || !shared.switching.load(Ordering::SeqCst));
    guard.stop();
    assert_eq!(text_ids(&fs::read_to_string(&path).unwrap()), [1]);
}

/// Eight threads record while another one switches: each line is in one file once, in that file's form. All lines find
/// room in the queue, so that none may be missing.
#[test]
fn many_threads_lose_and_mix_nothing() {
    let dir = tempfile::tempdir().unwrap();
    let [json, text] = ["json.log", "text.log"].map(|name| dir.path().join(name));
    let (log, writer) = to_file(&json);
    let guard = writer.start().unwrap();
    let done = AtomicBool::new(false);
    std::thread::scope(|scope| {
        let (log, done) = (&log, &done);
        let settings = [file(&text, AccessLogFormat::Text), file(&json, AccessLogFormat::Json)];
        scope.spawn(move || {
            for settings in settings.iter().cycle() {
                // Each of them is an open file until the writer gets there.
                let many = || log.shared.as_ref().unwrap().switches.lock().waiting.len() > 8;
                wait_until("the writer keeps up", || !many());
                switch(log, settings);
                if done.load(Ordering::Relaxed) {
                    break;
                }
                std::thread::yield_now();
            }
        });
        let recorders: Vec<_> =
            (0..8).map(|thread| scope.spawn(move || record(log, thread * 1900..(thread + 1) * 1900))).collect();
        recorders.into_iter().for_each(|recorder| recorder.join().unwrap());
        done.store(true, Ordering::Relaxed);
    });
    guard.stop();
    assert_eq!(log.dropped(), 0);
    let (in_json, in_text) = (fs::read_to_string(&json).unwrap(), fs::read_to_string(&text).unwrap());
    let mut all = [ids(&in_json), text_ids(&in_text)].concat();
    all.sort_unstable();
    assert_eq!(all, (0..8 * 1900).collect::<Vec<_>>());
}
