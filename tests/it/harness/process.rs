//! Child processes whose output is read all along and which never outlive their test.

use std::io::{PipeReader, Read, Write, stderr};
use std::path::PathBuf;
use std::process::{Child, Command, Stdio};
use std::sync::{Arc, Condvar, Mutex};
use std::time::Duration;

use rustix::fs::{OFlags, fcntl_getfl, fcntl_setfl};

use super::{PATIENCE, eventually, now};

/// What a process has written to one of its outputs so far.
#[derive(Clone, Debug, Default)]
pub(crate) struct Output(Arc<(Mutex<Written>, Condvar)>);

#[derive(Debug, Default)]
struct Written {
    bytes: Vec<u8>,
    ended: bool,
}

impl Output {
    /// Reads `source` to its end on a thread of its own.
    pub(crate) fn follow(&self, mut source: impl Read + Send + 'static) {
        let output = self.clone();
        std::thread::spawn(move || {
            let mut piece = [0; 16 << 10];
            while let Ok(read @ 1..) = source.read(&mut piece) {
                output.0.0.lock().unwrap().bytes.extend_from_slice(&piece[..read]);
                output.0.1.notify_all();
            }
            output.0.0.lock().unwrap().ended = true;
            output.0.1.notify_all();
        });
    }

    pub(crate) fn text(&self) -> String {
        String::from_utf8_lossy(&self.0.0.lock().unwrap().bytes).into_owned()
    }

    /// The whole lines so far.
    pub(crate) fn lines(&self) -> Vec<String> {
        let text = self.text();
        let whole = text.rfind('\n').map_or("", |end| &text[..end]);
        if whole.is_empty() { Vec::new() } else { whole.split('\n').map(str::to_owned).collect() }
    }

    /// Waits until `found` is content with the whole lines so far, and returns them.
    #[track_caller]
    pub(crate) fn wait(&self, what: &str, limit: Duration, found: impl Fn(&[String]) -> bool) -> Vec<String> {
        let end = now() + limit;
        loop {
            let lines = self.lines();
            if found(&lines) {
                return lines;
            }
            let written = self.0.0.lock().unwrap();
            let left = end.saturating_duration_since(now()).min(Duration::from_millis(100));
            assert!(!left.is_zero(), "{what}: not within {limit:?} in:\n{}", String::from_utf8_lossy(&written.bytes));
            drop(self.0.1.wait_timeout(written, left).unwrap());
        }
    }

    /// Waits for a line with all of `words`, and returns it. The event log is written behind what it tells of.
    #[track_caller]
    pub(crate) fn wait_for(&self, words: &[&str], limit: Duration) -> String {
        let holds = |line: &String| words.iter().all(|word| line.contains(word));
        let lines = self.wait(&format!("an event with {words:?}"), limit, |lines| lines.iter().any(holds));
        lines.into_iter().find(holds).unwrap()
    }

    /// Waits for the end of the output.
    fn wait_end(&self, limit: Duration) {
        let written = self.0.0.lock().unwrap();
        drop(self.0.1.wait_timeout_while(written, limit, |written| !written.ended).unwrap());
    }
}

/// A running process; dropping it kills it.
#[derive(Debug)]
pub(crate) struct Process {
    child: Child,
    pub(crate) out: Output,
    pub(crate) err: Output,
}

/// How a process ended.
#[derive(Debug)]
pub(crate) struct Finished {
    /// The exit code; `None` when a signal ended it.
    pub(crate) code: Option<i32>,
    pub(crate) out: String,
    pub(crate) err: String,
}

impl Finished {
    /// Both outputs.
    pub(crate) fn all(&self) -> String {
        format!("{}{}", self.out, self.err)
    }
}

impl Process {
    /// Starts `command` and follows its outputs. Its input stays open until it ends.
    pub(crate) fn start(command: &mut Command) -> Self {
        let (process, out) = Self::start_unread(command);
        process.out.follow(out);
        process
    }

    /// Starts `command` and leaves its standard output unread, as a stuck pipe does.
    pub(crate) fn start_unread(command: &mut Command) -> (Self, std::process::ChildStdout) {
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(Stdio::piped());
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        let (out, err) = (Output::default(), Output::default());
        err.follow(child.stderr.take().unwrap());
        let unread = child.stdout.take().unwrap();
        (Process { child, out, err }, unread)
    }

    /// Starts `command` with a standard error that is full and stays so until what is returned is read.
    pub(crate) fn start_deaf(command: &mut Command) -> (Self, PipeReader) {
        let (unread, mut full) = std::io::pipe().unwrap();
        // Both ends of it share the flag, so it is taken back before anybody else writes.
        let flags = fcntl_getfl(&full).unwrap();
        fcntl_setfl(&full, flags | OFlags::NONBLOCK).unwrap();
        while full.write(&[b'.'; 4096]).is_ok() {}
        while full.write(b".").is_ok() {}
        fcntl_setfl(&full, flags).unwrap();
        let command = command.stdin(Stdio::piped()).stdout(Stdio::piped()).stderr(full);
        let mut child = command.spawn().unwrap_or_else(|e| panic!("cannot start {command:?}: {e}"));
        // The command holds the other end, too.
        command.stderr(Stdio::null());
        let (out, err) = (Output::default(), Output::default());
        out.follow(child.stdout.take().unwrap());
        err.follow(std::io::empty());
        (Process { child, out, err }, unread)
    }

    pub(crate) fn is_running(&mut self) -> bool {
        self.child.try_wait().unwrap().is_none()
    }

    /// Its process id.
    pub(crate) fn id(&self) -> u32 {
        self.child.id()
    }

    /// Sends a signal by its name, as in `TERM`. (The shell's `kill`, since the standard library has none but SIGKILL.)
    pub(crate) fn signal(&self, name: &str) {
        let pid = self.child.id().to_string();
        let status = Command::new("sh").args(["-c", r#"kill -s "$0" "$1""#, name, &pid]).status().unwrap();
        assert!(status.success(), "kill -s {name} {pid}");
    }

    /// Waits for the end; panics when it does not come in time.
    #[track_caller]
    pub(crate) fn wait_exit(&mut self, limit: Duration) -> Finished {
        let ended = eventually(limit, || !self.is_running());
        assert!(ended, "still running after {limit:?}: {}{}", self.out.text(), self.err.text());
        let code = self.child.wait().unwrap().code();
        self.out.wait_end(Duration::from_secs(2));
        self.err.wait_end(Duration::from_secs(2));
        Finished { code, out: self.out.text(), err: self.err.text() }
    }

    /// Kills with SIGKILL and waits until it is gone.
    pub(crate) fn kill(&mut self) {
        // It may have ended by itself, which is as good.
        let _ = self.child.kill();
        let _ = self.child.wait();
    }
}

impl Drop for Process {
    fn drop(&mut self) {
        self.kill();
    }
}

/// Runs `command` to its end with a standard output that nobody reads any more, as behind a `head` that has ended.
#[track_caller]
pub(crate) fn run_with_closed_output(command: &mut Command) -> Finished {
    let (reader, writer) = std::io::pipe().unwrap();
    drop(reader);
    let mut child = command.stdin(Stdio::null()).stdout(writer).stderr(Stdio::piped()).spawn().unwrap();
    let (out, err) = (Output::default(), Output::default());
    out.follow(std::io::empty());
    err.follow(child.stderr.take().unwrap());
    Process { child, out, err }.wait_exit(PATIENCE)
}

/// Runs `command` to its end with `input` as its standard input.
#[track_caller]
pub(crate) fn run_with_input(command: &mut Command, input: &str) -> Finished {
    let mut process = Process::start(command);
    let mut stdin = process.child.stdin.take().unwrap();
    let input = input.to_owned();
    // It may end without reading it all.
    let writer = std::thread::spawn(move || drop(stdin.write_all(input.as_bytes())));
    let finished = process.wait_exit(PATIENCE);
    writer.join().unwrap();
    finished
}

/// Runs `command` to its end.
#[track_caller]
pub(crate) fn run(command: &mut Command) -> Finished {
    Process::start(command).wait_exit(PATIENCE)
}

#[test]
fn output_and_exit_code_are_seen() {
    let finished = run(Command::new("sh").args(["-c", "echo one; echo two >&2; exit 3"]));
    assert_eq!((finished.code, finished.out.as_str(), finished.err.as_str()), (Some(3), "one\n", "two\n"));
}

#[test]
fn a_signal_reaches_the_process_and_only_whole_lines_count() {
    let mut process = Process::start(
        Command::new("sh").args(["-c", "trap 'echo got it; exit 5' TERM; printf 'ready\nhalf'; read x"]),
    );
    process.out.wait("ready", PATIENCE, |lines| lines == ["ready"]);
    process.signal("TERM");
    // The shell runs its trap after `read`, which ends with its input.
    drop(process.child.stdin.take());
    let finished = process.wait_exit(PATIENCE);
    assert_eq!((finished.code, finished.out.as_str()), (Some(5), "ready\nhalfgot it\n"));
}

/// Tells, past the capture of a test's own output, that it is skipped, as there is no `what`.
pub(crate) fn tell_skipped(what: &str) {
    let test = std::thread::current();
    let test = test.name().unwrap_or_default();
    let _ = writeln!(stderr(), "{test} is skipped: there is no {what}; `make setup-tests` installs it");
}

/// Whether there is such a program. Where there is none, that is told.
pub(crate) fn is_installed(program: &str) -> bool {
    let found = Command::new(program).arg("--version").output().is_ok();
    if !found {
        tell_skipped(program);
    }
    found
}

/// The library that shifts a program's clocks, where it is installed.
pub(crate) fn faketime() -> Option<PathBuf> {
    let directories = std::fs::read_dir("/usr/lib").ok()?.flatten();
    let mut libraries = directories.map(|directory| directory.path().join("faketime/libfaketimeMT.so.1"));
    libraries.find(|library| library.exists())
}
