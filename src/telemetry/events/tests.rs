use std::os::unix::ffi::OsStringExt;

use super::*;
use crate::clock::{ManualClock, SystemClock};

/// Takes nothing while it is locked.
#[derive(Clone, Default)]
struct Output(Arc<Mutex<Vec<u8>>>);

impl io::Write for Output {
    fn write(&mut self, bytes: &[u8]) -> io::Result<usize> {
        self.0.lock().write(bytes)
    }

    fn flush(&mut self) -> io::Result<()> {
        Ok(())
    }
}

struct Bench {
    clock: Arc<ManualClock>,
    output: Output,
    events: EventLog,
}

impl Bench {
    fn new(filter: &str) -> Self {
        let (clock, output) = (Arc::new(ManualClock::new()), Output::default());
        let events = EventLog::new(filter, Box::new(output.clone()), clock.clone());
        events.start().unwrap();
        Bench { clock, output, events }
    }

    fn log(&self, level: Level, target: &str, message: &str) {
        let args = format_args!("{message}");
        self.events.log(&Record::builder().level(level).target(target).args(args).build());
    }

    /// What was written since.
    fn text(&self) -> String {
        self.events.flush();
        String::from_utf8(std::mem::take(&mut *self.output.0.lock())).unwrap()
    }

    /// The lines written since, without their timestamps.
    fn lines(&self) -> Vec<String> {
        let text = self.text();
        text.lines().map(|line| line.split_once(' ').unwrap().1.to_owned()).collect()
    }
}

#[test]
fn a_line_has_time_level_target_and_message() {
    let bench = Bench::new("info");
    bench.log(Level::Warn, "tollgate::upstream::health", "backend is down");
    let text = bench.text();
    let time = rfc3339(bench.clock.wall());
    assert_eq!(text, format!("{time} WARN  tollgate::upstream::health: backend is down\n"));
}

#[test]
fn a_line_cannot_be_forged() {
    let bench = Bench::new("info");
    bench.log(Level::Info, "app", "path /\r\n2026 ERROR app: \u{1b}[31mä\u{85}\u{2028}x");
    assert_eq!(bench.lines(), ["INFO  app: path /\\r\\n2026 ERROR app: \\u{1b}[31mä\\u{85}\\u{2028}x"]);
}

#[test]
fn the_default_shows_our_info_and_the_warnings_of_others() {
    let bench = Bench::new(&filter(|_| None).unwrap());
    for target in ["tollgate::server", "pingora_core"] {
        for level in [Level::Warn, Level::Info, Level::Debug] {
            bench.log(level, target, "x");
        }
    }
    assert_eq!(bench.lines(), ["WARN  tollgate::server: x", "INFO  tollgate::server: x", "WARN  pingora_core: x"]);
}

#[test]
fn our_variable_wins_over_rusts_and_an_empty_one_is_none() {
    let filter_of =
        |ours: &str, rusts: &str| filter(|name| Some(if name == "TOLLGATE_LOG" { ours } else { rusts }.into()));
    assert_eq!(filter_of("debug", "trace").unwrap(), "debug");
    assert_eq!(filter_of(" ", "trace").unwrap(), "trace");
    assert_eq!(filter_of("", "").unwrap(), DEFAULT_FILTER);
    for good in ["off", "INFO", "warn,tollgate=debug", "tollgate::proxy", "pingora_core=trace, error"] {
        assert_eq!(filter_of(good, "").unwrap(), good);
    }
    for wrong in ["verbose", "tollgate=loud", "debug;info", "=info", "info,,warn"] {
        let error = filter_of(wrong, "").unwrap_err().to_string();
        assert!(error.contains(&format!("not {wrong:?}")), "{error}");
    }
    // What is no text is wrong in ours, and in the one of others not ours to judge.
    let no_text = |of: &str| filter(|name| (name == of).then(|| OsString::from_vec(b"debug\xff".to_vec())));
    assert!(no_text("TOLLGATE_LOG").unwrap_err().to_string().starts_with("TOLLGATE_LOG must be a level"));
    assert_eq!(no_text("RUST_LOG").unwrap(), DEFAULT_FILTER);
}

#[test]
fn repeats_are_summed_up_with_ticks_and_at_the_end() {
    let bench = Bench::new("info");
    for _ in 0..100 {
        bench.log(Level::Error, "app", "no answer");
        bench.log(Level::Info, "app", "hello");
    }
    assert_eq!(bench.lines().len(), 101);
    bench.clock.advance(Duration::from_secs(9));
    bench.events.flush_due(bench.clock.now());
    assert_eq!(bench.lines(), [""; 0]);
    bench.clock.advance(Duration::from_secs(1));
    bench.events.flush_due(bench.clock.now());
    assert_eq!(bench.lines(), ["ERROR app: no answer (repeated 99 times in 10 s)"]);
    bench.log(Level::Warn, "app", "slow");
    bench.log(Level::Warn, "app", "slow");
    bench.events.stop();
    assert_eq!(bench.lines(), ["WARN  app: slow", "WARN  app: slow (repeated 1 time in 1 s)"]);
}

#[test]
fn what_may_hold_a_key_is_never_written() {
    let bench = Bench::new("trace,pingora_proxy=trace");
    bench.log(Level::Debug, "pingora_proxy::proxy_h1", "Sending header x-api-key: secret");
    bench.log(Level::Trace, "pingora_core::protocols::http::v1", "secret");
    assert_eq!(bench.lines(), [""; 0]);
    bench.log(Level::Debug, "tollgate::proxy", "fine");
    assert_eq!(bench.lines(), ["DEBUG tollgate::proxy: fine"]);
}

#[test]
fn every_change_of_state_and_every_answer_to_an_operator_is_a_line_of_its_own() {
    let bench = Bench::new("info");
    for target in EVERY_LINE {
        (0..3).for_each(|_| bench.log(Level::Warn, target, "up -> down"));
    }
    let [health, operator] = EVERY_LINE.map(|target| [format!("WARN  {target}: up -> down"), "".into()]);
    assert_eq!(
        bench.lines(),
        [&health[..1], &health[..1], &health[..1], &operator[..1], &operator[..1], &operator[..1]].concat()
    );
}

#[test]
fn what_is_filtered_out_is_not_counted() {
    let bench = Bench::new("off");
    bench.log(Level::Error, "app", "x");
    bench.log(Level::Error, "app", "x");
    bench.events.stop();
    assert_eq!(bench.lines(), [""; 0]);
}

#[test]
fn what_is_lost_is_counted_and_told_when_it_writes_again() {
    let (clock, output) = (Arc::new(ManualClock::new()), Output::default());
    let events = EventLog::new("info", Box::new(output.clone()), clock.clone());
    events.start().unwrap();
    let message = "x".repeat(1000);
    let stuck = output.0.lock();
    for _ in 0..3000 {
        let args = format_args!("{message}");
        events.log(&Record::builder().level(Level::Info).target("app").args(args).build());
    }
    events.flush_due(clock.now());
    let lost = events.dropped();
    assert!(lost > 1000, "{lost} of 3 MB");
    drop(stuck);
    for _ in 0..5 {
        events.flush();
        clock.advance(Duration::from_secs(1));
        events.log(&Record::builder().level(Level::Info).target("app").args(format_args!("on")).build());
        events.flush();
        events.flush_due(clock.now());
    }
    events.flush();
    let text = String::from_utf8(output.0.lock().clone()).unwrap();
    let told = text.lines().filter(|line| line.contains("WARN")).collect::<Vec<_>>();
    // The word that lines are lost finds no room either.
    let said = format!("WARN  {TARGET}: event log: writes again, {} lines were dropped", lost);
    assert!(told.len() == 1 && told[0].ends_with(&said), "{told:?}, not {said}");
}

#[test]
fn a_panic_is_a_line_whatever_the_filter_says() {
    let bench = Bench::new("off");
    let (events, told) = (bench.events.clone(), Arc::new(Mutex::new(Vec::new())));
    let (seen, before) = (Arc::clone(&told), std::panic::take_hook());
    std::panic::set_hook(Box::new(move |panic| {
        if std::thread::current().name() == Some("falls") {
            seen.lock().push(events.tell_panic(panic));
        } else {
            before(panic);
        }
    }));
    let fall = || {
        let thread = std::thread::Builder::new().name("falls".to_owned());
        thread.spawn(|| panic!("two\nlines")).unwrap().join().unwrap_err()
    };
    fall();
    let lines = bench.lines();
    let line = lines.first().unwrap();
    assert!(
        line.starts_with("ERROR tollgate::panic: thread falls panicked at src/telemetry/events/tests.rs:"),
        "{line}"
    );
    assert!(line.ends_with(": two\\nlines"), "{line}");
    bench.events.stop();
    fall();
    assert_eq!(*told.lock(), [true, false], "once it has ended, the hook of before tells");
}

#[test]
fn a_second_setup_is_refused_and_changes_nothing() {
    let clock: Arc<dyn Clock> = Arc::new(SystemClock);
    let _maybe_first = init(Arc::clone(&clock));
    let level = log::max_level();
    assert!(init(clock).is_err());
    assert_eq!(log::max_level(), level);
}
