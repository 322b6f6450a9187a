use ratatui::Terminal;
use ratatui::backend::TestBackend;

use super::super::figures::CallerFigures;
use super::*;

fn screen(backends: usize, callers: usize) -> Screen {
    let backend = |n: usize| BackendFigures {
        pool: "app".into(),
        address: format!("10.0.0.1:{}", 9000 + n),
        state: ["up", "down", "drain"][n % 3].into(),
        in_flight: 3,
        rate: (n > 0).then_some(120.4),
        failures: 7,
    };
    let caller = |n: usize| CallerFigures { name: format!("user{n}"), requests: 500 - n as u64, limited: 13 };
    let callers: Vec<_> = (0..callers).map(caller).collect();
    let figures = Figures {
        process: "tollgate 0.1.0 ready".into(),
        answers: [900, 0, 3, 20, 1, 0],
        latencies: [Some(1.25), Some(3.5), None],
        now: [12, 4, 40],
        backends: (0..backends).map(backend).collect(),
        seconds: 300,
        callers: [callers.clone(), callers],
    };
    Screen::new("127.0.0.1:9901".into(), figures)
}

/// The lines of a terminal of that size.
fn drawn(screen: &Screen, width: u16, height: u16) -> Vec<String> {
    let mut terminal = Terminal::new(TestBackend::new(width, height)).unwrap();
    terminal.draw(|frame| screen.draw(frame.area(), frame.buffer_mut())).unwrap();
    let cells = terminal.backend().buffer().content.chunks(usize::from(width));
    cells.map(|row| row.iter().map(|cell| cell.symbol()).collect::<String>().trim_end().to_owned()).collect()
}

#[test]
fn a_usual_terminal_has_all_of_it() {
    let lines = drawn(&screen(3, 5), 80, 24);
    assert_eq!(lines[0], "tollgate 0.1.0 ready  127.0.0.1:9901");
    assert_eq!(lines[1], "requests/s 924  2xx 900  3xx 0  4xx 3  429 20  5xx 1  none 0");
    assert_eq!(lines[2], "p50 1.2ms  p95 3.5ms  p99 -  connections 12  in flight 4  buckets 40");
    assert!(lines[3].starts_with("─ backends ─") || lines[3].starts_with(" backends ─"), "{}", lines[3]);
    let row: Vec<_> = lines[6].split_whitespace().collect();
    assert_eq!(row, ["app", "10.0.0.1:9001", "down", "3", "120", "7"]);
    let titles = &lines[8];
    assert!(titles.contains("top talkers, last 300 s") && titles.contains("most limited, last 300 s"), "{titles}");
    assert_eq!(lines[10].split_whitespace().collect::<Vec<_>>(), ["user0", "500", "13", "user0", "500", "13"]);
    assert_eq!(lines[23], KEYS);
}

#[test]
fn a_narrow_one_has_a_pane_at_a_time() {
    let mut screen = screen(3, 5);
    for (title, row) in [("backends", "10.0.0.1:9000 up -"), ("top talkers", "user0 500 13"), ("most limited", "user0")]
    {
        let lines = drawn(&screen, 40, 24);
        assert!(lines.iter().any(|line| line.contains(title)), "{lines:#?}");
        let words = |line: &String| line.split_whitespace().collect::<Vec<_>>().join(" ");
        assert!(lines.iter().any(|line| words(line).starts_with(row)), "{row}: {lines:#?}");
        // The head is not cut off.
        let head = lines.join(" ");
        assert!(["none 0", "buckets 40", "p99 -"].iter().all(|word| head.contains(word)), "{lines:#?}");
        screen.turn(1);
    }
    assert_eq!(screen.focus, 0);
    screen.turn(2);
    assert_eq!(screen.focus, 2);
}

#[test]
fn no_size_is_too_small_and_nothing_is_too_much() {
    for screen in [screen(0, 0), screen(1000, 100), Screen::new(String::new(), Figures::default())] {
        for (width, height) in [(1, 1), (3, 2), (10, 4), (40, 10), (69, 16), (70, 15), (200, 60), (500, 3)] {
            assert_eq!(drawn(&screen, width, height).len(), usize::from(height));
        }
        assert!(screen.plain().lines().count() >= 3 + 3 * 2);
    }
}

#[test]
fn scrolling_stays_within_the_rows() {
    let mut screen = screen(100, 2);
    let first = |screen: &Screen| drawn(screen, 80, 20).into_iter().find(|line| line.starts_with("app")).unwrap();
    screen.scroll(10);
    assert!(first(&screen).contains("10.0.0.1:9010"));
    screen.scroll(isize::MAX);
    assert!(first(&screen).contains("10.0.0.1:9099"));
    screen.scroll(isize::MIN);
    assert!(first(&screen).contains("10.0.0.1:9000"));
    screen.scroll(-1);
    screen.scroll(50);
    screen.take(Ok(Figures { backends: screen.figures.backends[..3].to_vec(), ..Figures::default() }));
    assert!(first(&screen).contains("10.0.0.1:9002"), "fewer rows than were scrolled over");
}

#[test]
fn a_lost_connection_is_told_beside_what_was_known_and_is_over_with_the_next_answer() {
    let mut screen = screen(3, 5);
    screen.take(Err("cannot connect to 127.0.0.1:9901: refused\n  (more)".into()));
    let lines = drawn(&screen, 100, 24);
    assert_eq!(lines[1], "no answer, asked again every second: cannot connect to 127.0.0.1:9901: refused");
    assert!(lines[2].starts_with("requests/s 924"));
    screen.take(Ok(Figures::default()));
    assert!(!drawn(&screen, 100, 24).join("\n").contains("no answer"));
}

#[test]
fn plain_text_has_every_row() {
    let text = screen(40, 30).plain();
    assert!(text.starts_with("tollgate 0.1.0 ready  127.0.0.1:9901\nrequests/s 924"), "{text}");
    assert_eq!(text.lines().filter(|line| line.starts_with("app ")).count(), 40);
    assert_eq!(text.lines().filter(|line| line.starts_with("user")).count(), 60);
    assert!(text.ends_with('\n') && !text.contains('\u{1b}'));
}
