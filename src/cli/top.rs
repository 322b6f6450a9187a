//! `tollgate top`: what happens now, in a terminal.
//!
//! One thread asks the admin API once a second, another one draws and listens to keys, so that neither waits for the
//! other: a proxy that does not answer is told on the screen, beside what was known last, and is asked again. The
//! terminal is as it was before however this ends: by a key, by an error, by a panic, and by SIGTERM or a lost line,
//! which are flags that the loop looks at.
//!
//! Refused: to read the stream of `/live`, which has no backends and no callers, so that the rest would be asked for
//! anyway.

mod figures;
mod screen;

use std::io::{self, IsTerminal};
use std::process::ExitCode;
use std::sync::Arc;
use std::sync::atomic::{AtomicBool, Ordering};
use std::sync::mpsc::{Receiver, RecvTimeoutError, TryRecvError, channel};
use std::thread;
use std::time::Duration;

use clap::Args as ClapArgs;
use ratatui::crossterm::event::{self, Event, KeyCode, KeyEvent, KeyEventKind, KeyModifiers};
use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM};

use super::api::ApiClient;
use super::endpoint::EndpointArgs;
use super::failure::Failure;
use super::output::print;
use figures::{FiguresReader, FoundFigures};
use screen::Screen;

/// How often the API is asked.
const EVERY: Duration = Duration::from_secs(1);
/// How long a signal, or an answer, may wait for the loop to look.
const LOOK: Duration = Duration::from_millis(100);

/// What may be typed behind `tollgate top`.
#[derive(Debug, ClapArgs)]
pub(super) struct TopArgs {
    /// Print one picture as plain text, and end
    #[arg(long)]
    once: bool,
    #[command(flatten)]
    endpoint: EndpointArgs,
}

/// Shows what happens until it is told to end.
///
/// # Errors
/// When there is no terminal, or the API does not answer at first.
pub(super) fn run(args: TopArgs) -> Result<ExitCode, Failure> {
    let has_terminal = io::stdout().is_terminal() && io::stdin().is_terminal();
    if !args.once && !has_terminal {
        let told = "tollgate top needs a terminal; `tollgate top --once` prints one picture";
        return Err(Failure::Usage(told.to_owned()));
    }
    let endpoint = args.endpoint.resolve(|name| std::env::var_os(name))?;
    let place = endpoint.address.to_string();
    let mut reader = FiguresReader::new(ApiClient::new(endpoint));
    let first = reader.read()?;
    // What is counted a second takes two looks.
    let (stop, stopped) = channel::<()>();
    let mut screen = Screen::new(place, first);
    if args.once {
        let _ = stopped.recv_timeout(EVERY);
        screen.take(Ok(reader.read()?));
        return Ok(print(&screen.plain()));
    }
    let (send, found) = channel();
    let asking = thread::Builder::new().name("top".to_owned()).spawn(move || {
        while stopped.recv_timeout(EVERY) == Err(RecvTimeoutError::Timeout) {
            let figures = reader.read().map_err(|failure| failure.to_string());
            if send.send(figures).is_err() {
                return;
            }
        }
    });
    asking.map_err(Failure::Output)?;
    let done = show(&mut screen, &found).map_err(Failure::Output);
    drop(stop);
    done.map(|()| ExitCode::SUCCESS)
}

/// Puts the terminal back when it goes.
struct Restored;

impl Drop for Restored {
    fn drop(&mut self) {
        ratatui::restore();
    }
}

/// Draws until it is told to end.
fn show(screen: &mut Screen, found: &Receiver<FoundFigures>) -> io::Result<()> {
    let ends = Arc::new(AtomicBool::new(false));
    for signal in [SIGTERM, SIGINT, SIGHUP] {
        signal_hook::flag::register(signal, Arc::clone(&ends))?;
    }
    // A panic puts the terminal back before it is told, by a hook of ratatui's.
    let _restored = Restored;
    let mut terminal = ratatui::try_init()?;
    let mut changed = true;
    while !ends.load(Ordering::Relaxed) {
        changed |= take_all(found, |figures| screen.take(figures))?;
        if std::mem::take(&mut changed) {
            terminal.draw(|frame| screen.draw(frame.area(), frame.buffer_mut()))?;
        }
        if event::poll(LOOK)? {
            changed = true;
            if let Event::Key(key) = event::read()?
                && key.kind != KeyEventKind::Release
                && !obey(screen, key)
            {
                break;
            }
        }
    }
    Ok(())
}

/// Takes what was found since; whether there was anything.
///
/// # Errors
/// When nobody asks any more: its thread has failed, and the terminal was put back under the picture.
fn take_all<T>(found: &Receiver<T>, mut take: impl FnMut(T)) -> io::Result<bool> {
    let mut any = false;
    loop {
        match found.try_recv() {
            Ok(figures) => take(figures),
            Err(TryRecvError::Empty) => return Ok(any),
            Err(TryRecvError::Disconnected) => return Err(io::Error::other("nobody asks the admin API any more")),
        }
        any = true;
    }
}

/// Does what a key says; whether to go on.
fn obey(screen: &mut Screen, key: KeyEvent) -> bool {
    match key.code {
        KeyCode::Char('q') | KeyCode::Esc => return false,
        KeyCode::Char('c') if key.modifiers.contains(KeyModifiers::CONTROL) => return false,
        KeyCode::Tab | KeyCode::Right => screen.turn(1),
        KeyCode::BackTab | KeyCode::Left => screen.turn(2),
        KeyCode::Down | KeyCode::Char('j') => screen.scroll(1),
        KeyCode::Up | KeyCode::Char('k') => screen.scroll(-1),
        KeyCode::PageDown => screen.scroll(10),
        KeyCode::PageUp => screen.scroll(-10),
        KeyCode::Home => screen.scroll(isize::MIN),
        KeyCode::End => screen.scroll(isize::MAX),
        _ => {}
    }
    true
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn it_ends_when_the_thread_that_asks_has_failed() {
        let ((send, found), mut taken) = (channel(), Vec::new());
        assert!(!take_all(&found, |number| taken.push(number)).unwrap());
        (1..=2).for_each(|number| send.send(number).unwrap());
        assert!(take_all(&found, |number| taken.push(number)).unwrap());
        let failed = thread::spawn(move || {
            let _send = send;
            panic!("as an asking thread may");
        });
        assert!(failed.join().is_err());
        assert!(take_all(&found, |number| taken.push(number)).is_err());
        assert_eq!(taken, [1, 2]);
    }
}
