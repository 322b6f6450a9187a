//! `tollgate top`: in a real terminal, which tmux is, and as plain text.

use std::path::Path;
use std::process::Command;
use std::sync::atomic::{AtomicBool, Ordering};
use std::thread::scope;

use tempfile::TempDir;

use crate::harness::backend::Backend;
use crate::harness::client::Client;
use crate::harness::instance::Instance;
use crate::harness::process::{is_installed, run};
use crate::harness::server::command;
use crate::harness::{PATIENCE, eventually};

/// A terminal of this size in which `tollgate top` runs, and behind it a word on how it ended.
struct Tmux {
    dir: TempDir,
}

impl Tmux {
    /// `None`, which is told past the capture of the test's own output, where there is no tmux.
    fn start(args: &str, (width, height): (u16, u16)) -> Option<Self> {
        if !is_installed("tmux") {
            return None;
        }
        let tmux = Tmux { dir: TempDir::new().unwrap() };
        let (program, pid) = (command().get_program().to_str().unwrap().to_owned(), tmux.pid_file());
        let shown = format!(
            "echo before; sh -c 'echo $$ >{pid}; exec {program} top {args}'; echo ended with $?; \
             stty -a | grep -ow -e '-*icanon' -e '-*echo'; exec cat"
        );
        let (width, height) = (width.to_string(), height.to_string());
        let size = ["-x", &width, "-y", &height];
        let started = run(tmux.command().args(["-f", "/dev/null", "new-session", "-d"]).args(size).arg(shown));
        assert_eq!(started.code, Some(0), "{started:?}");
        Some(tmux)
    }

    fn pid_file(&self) -> String {
        self.dir.path().join("pid").display().to_string()
    }

    fn command(&self) -> Command {
        let mut tmux = Command::new("tmux");
        tmux.env_remove("TMUX").arg("-S").arg(self.dir.path().join("socket"));
        tmux
    }

    /// What it shows.
    fn screen(&self) -> String {
        run(self.command().args(["capture-pane", "-p"])).out
    }

    /// Waits until it shows all of these words.
    #[track_caller]
    fn shows(&self, words: &[&str]) -> String {
        let shown = || words.iter().all(|word| self.screen().contains(word));
        assert!(eventually(PATIENCE, shown), "{words:?} in {}", self.screen());
        self.screen()
    }

    fn press(&self, key: &str) {
        assert_eq!(run(self.command().args(["send-keys", key])).code, Some(0));
    }

    fn signal(&self, name: &str) {
        let pid = std::fs::read_to_string(Path::new(&self.pid_file())).unwrap();
        assert_eq!(run(Command::new("kill").args(["-s", name, pid.trim()])).code, Some(0));
    }

    /// Waits until it has ended well, and asserts that the terminal is as it was.
    #[track_caller]
    fn ended(&self) {
        let left = self.shows(&["before", "ended with 0", "\nicanon\necho\n"]);
        assert!(!left.contains("talkers"), "{left}");
    }
}

impl Drop for Tmux {
    fn drop(&mut self) {
        let _ = self.command().arg("kill-server").output();
    }
}

/// Asks over and over while `during` runs.
fn under_load(server: &Instance, during: impl FnOnce()) {
    let stop = AtomicBool::new(false);
    scope(|scope| {
        scope.spawn(|| {
            let mut client = Client::connect(server.address);
            while !stop.load(Ordering::Relaxed) {
                client.get("/").unwrap();
            }
        });
        during();
        stop.store(true, Ordering::Relaxed);
    });
}

/// Whether a line of `screen` names the backend as up and busy: so many requests a second stand last but `after` words.
fn is_busy(screen: &str, backend: &str, after: usize) -> bool {
    let line = screen.lines().find(|line| line.contains(backend)).unwrap_or_default();
    let words: Vec<_> = line.split_whitespace().collect();
    let rate = words.len().checked_sub(after + 1).and_then(|at| words[at].parse::<u64>().ok());
    words.contains(&"up") && rate.is_some_and(|rate| rate > 0)
}

#[test]
fn it_shows_what_happens_and_leaves_the_terminal_as_it_was() {
    let backend = Backend::echo("a");
    let server = Instance::start(backend.address, "");
    let Some(tmux) = Tmux::start(&format!("--admin {}", server.admin), (80, 24)) else { return };
    let name = backend.address.to_string();
    under_load(&server, || {
        tmux.shows(&[
            "ready",
            "requests/s",
            "2xx",
            "p99",
            "backends",
            "top talkers",
            "most limited",
            &name,
            "127.0.0.1",
        ]);
        assert!(eventually(PATIENCE, || is_busy(&tmux.screen(), &name, 1)), "{}", tmux.screen());
        let busy = |screen: &str| {
            screen.split_once("requests/s ").is_some_and(|(_, rest)| !rest.starts_with("0 ") && !rest.contains("p50 -"))
        };
        assert!(eventually(PATIENCE, || busy(&tmux.screen())), "{}", tmux.screen());
    });
    tmux.press("q");
    tmux.ended();
}

#[test]
fn a_narrow_terminal_has_a_list_at_a_time_and_a_signal_leaves_it_clean() {
    let backend = Backend::echo("a");
    let server = Instance::start(backend.address, "");
    let Some(tmux) = Tmux::start(&format!("--admin {}", server.admin), (40, 12)) else { return };
    let name = backend.address.to_string();
    let first = tmux.shows(&["requests/s", "buckets", "backends", &name]);
    assert!(!first.contains("talkers"), "{first}");
    under_load(&server, || assert!(eventually(PATIENCE, || is_busy(&tmux.screen(), &name, 0)), "{}", tmux.screen()));
    tmux.press("Tab");
    tmux.shows(&["top talkers", "caller", "127.0.0.1"]);
    tmux.press("Right");
    tmux.shows(&["most limited"]);
    tmux.press("Left");
    tmux.shows(&["top talkers"]);
    tmux.signal("TERM");
    tmux.ended();
}

#[test]
fn a_lost_line_and_other_signals_leave_the_terminal_as_it_was() {
    let backend = Backend::echo("a");
    let server = Instance::start(backend.address, "");
    for signal in ["HUP", "TERM", "INT"] {
        let Some(tmux) = Tmux::start(&format!("--admin {}", server.admin), (80, 24)) else { return };
        tmux.shows(&["ready", "top talkers"]);
        tmux.signal(signal);
        tmux.ended();
    }
}

#[test]
fn a_lost_proxy_is_told_and_found_again() {
    let backend = Backend::echo("a");
    let mut server = Instance::start(backend.address, "");
    let Some(tmux) = Tmux::start(&format!("--admin {}", server.admin), (120, 24)) else { return };
    tmux.shows(&["ready", &backend.address.to_string()]);
    server.kill();
    tmux.shows(&["no answer, asked again every second: cannot connect to", &backend.address.to_string()]);
    server.start_again();
    assert!(eventually(PATIENCE, || !tmux.screen().contains("no answer")), "{}", tmux.screen());
    tmux.shows(&["ready"]);
    tmux.press("C-c");
    tmux.ended();
}

#[test]
fn once_is_plain_text_and_without_a_terminal_there_is_nothing_else() {
    let backend = Backend::echo("a");
    let server = Instance::start(backend.address, "");
    under_load(&server, || {
        let once = run(command().args(["top", "--once", "--admin", &server.admin.to_string()]));
        assert_eq!((once.code, once.err.as_str()), (Some(0), ""), "{once:?}");
        assert!(is_busy(&once.out, &backend.address.to_string(), 1), "{}", once.out);
        assert!(once.out.starts_with("tollgate ") && !once.out.contains('\u{1b}'), "{}", once.out);
        assert!(
            ["requests/s", "top talkers", "most limited"].iter().all(|word| once.out.contains(word)),
            "{}",
            once.out
        );
    });
    let piped = run(command().args(["top", "--admin", &server.admin.to_string()]));
    assert_eq!((piped.code, piped.out.as_str()), (Some(2), ""));
    assert!(piped.err.contains("needs a terminal") && piped.err.contains("`tollgate top --once`"), "{}", piped.err);
    let away = run(command().args(["top", "--once", "--admin", "127.0.0.1:1"]));
    assert_eq!(away.code, Some(1));
    assert!(away.err.contains("cannot connect to 127.0.0.1:1"), "{}", away.err);
}
