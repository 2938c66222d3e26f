//! The full screen.
//!
//! One thread owns the machine ([`worker`]), one reads the terminal; their events are taken by one
//! [`state::State`], which answers with effects. It is drawn when it changed (`screen`).
//!
//! | module | what |
//! |---|---|
//! | [`capture`] | a capture cut into areas of one class, and what changed |
//! | [`code`] | the instructions around program counters |
//! | [`source`] | the source lines around where CPUs are |
//! | [`keymap`] | the keys: one table for dispatch, help and footer |
//! | [`state`] | events in, effects out |
//! | [`panes`] | Map, Tables, Runs, Owners, Page, Locks, CPUs, VMs, Abort |
//! | [`panel`] | what is known of the thing under the cursor |
//! | `screen`, `grid`, `details`, [`theme`] | drawing |
//! | [`worker`] | the machine |
//! | `guard` | the terminal |

pub mod capture;
pub mod code;
mod details;
mod grid;
mod guard;
pub mod keymap;
pub mod list;
pub mod panel;
pub mod panes;
mod screen;
pub mod source;
pub mod state;
pub mod theme;
pub mod worker;

#[cfg(test)]
mod testing;
#[cfg(test)]
mod tests;

use crate::abort::Story;
use crate::session;
use crate::target::cancellation;
use anyhow::Context;
use guard::Guard;
use ratatui::crossterm::clipboard::CopyToClipboard;
use ratatui::crossterm::{event, execute};
use state::{Effect, Event, State};
use std::fs::File;
use std::io::{self, IsTerminal, Write, stdin, stdout};
use std::path::Path;
use std::sync::Arc;
use std::sync::atomic::Ordering;
use std::sync::mpsc::{RecvTimeoutError, Sender, channel};
use std::thread::JoinHandle;
use std::time::Instant;
use theme::{Depth, Theme};
use worker::{Command, Machine, Opener};

/// How the screen is wanted.
#[derive(Clone, Copy, PartialEq, Eq, Debug)]
pub struct Options {
    /// The terminal's ground is light; `None` asks the terminal.
    pub light: Option<bool>,
    /// Take the mouse.
    pub mouse: bool,
}

impl Default for Options {
    fn default() -> Self {
        Self {
            light: None,
            mouse: true,
        }
    }
}

/// What the main loop waits for.
enum Wake {
    Event(Event),
    /// A signal of job control or of the end.
    #[cfg(unix)]
    Signal(i32),
    /// The terminal cannot be read any more.
    Deaf(io::Error),
}

/// Writes stories as the document of `inspector abort --json`, for a target of that name.
pub type Export = fn(target: &str, stories: &[Arc<Story>], out: &mut dyn Write) -> io::Result<()>;

/// Shows the machine until the user leaves.
///
/// The machine is opened before the terminal is taken, so that a target that is not there is one
/// error and no flicker. Who calls this catches the signals that end a process until then.
///
/// # Errors
/// The target cannot be opened, or there is no terminal.
pub fn run(opener: session::Opener, options: Options, export: Export) -> anyhow::Result<()> {
    anyhow::ensure!(
        stdin().is_terminal() && stdout().is_terminal(),
        "the TUI needs a terminal on standard input and output; the other commands do not"
    );
    let mut opener: Opener = Box::new(move || Ok(Box::new(opener.open()?) as Box<dyn Machine>));
    let machine = opener()?;
    let theme = Theme {
        depth: Depth::detect(|name| std::env::var(name).ok()),
        light: options.light.unwrap_or_else(ask_light),
    };
    let mut state = State::new(theme, machine.name(), options.mouse);
    let (sender, wakes) = channel();
    let mut guard = Guard::take(options.mouse).context("the terminal cannot be taken")?;
    let reports = sender.clone();
    let report = move |report| {
        // Nobody listens any more only when the program ends.
        let _ = reports.send(Wake::Event(Event::Worker(report)));
    };
    let (commands, worker) = worker::spawn(machine, opener, report)?;
    let worker = Worker {
        commands,
        handle: Some(worker),
    };
    listen(sender.clone())?;
    let start = Instant::now();
    let size = guard.terminal.size()?;
    let resize = event::Event::Resize(size.width, size.height);
    let mut update = state.update(start.elapsed(), Event::Terminal(resize));
    loop {
        for effect in std::mem::take(&mut update.effects) {
            match effect {
                Effect::Quit(None) => return Ok(()),
                Effect::Quit(Some(reason)) => anyhow::bail!(reason),
                Effect::Worker(command) => worker.tell(command),
                Effect::Copy(text) => execute!(stdout(), CopyToClipboard::to_clipboard_from(text))?,
                Effect::Export(path, stories) => {
                    let target = state.target.clone();
                    let write = |out: &mut dyn Write| export(&target, &stories, out);
                    let result = write_new(&path, write).map(|()| path);
                    // Nobody listens any more only when the program ends.
                    let _ = sender.send(Wake::Event(Event::Exported(result)));
                }
                Effect::Mouse(on) => guard.set_mouse(on)?,
                Effect::Suspend => guard.suspend()?,
                Effect::Redraw => guard.redraw()?,
            }
            update.redraw = true;
        }
        if update.redraw {
            guard.terminal.draw(|frame| screen::draw(&state, frame))?;
        }
        let limit = screen::until_next_second(start.elapsed());
        let event = match wakes.recv_timeout(limit) {
            Ok(Wake::Event(event)) => event,
            #[cfg(unix)]
            Ok(Wake::Signal(signal_hook::consts::SIGTSTP)) => {
                guard.suspend()?;
                let size = guard.terminal.size()?;
                Event::Terminal(event::Event::Resize(size.width, size.height))
            }
            #[cfg(unix)]
            Ok(Wake::Signal(_)) => return Ok(()),
            Ok(Wake::Deaf(error)) => return Err(error).context("the terminal cannot be read"),
            Err(RecvTimeoutError::Timeout) => Event::Tick,
            Err(RecvTimeoutError::Disconnected) => return Ok(()),
        };
        update = state.update(start.elapsed(), event);
    }
}

/// Writes a file that is not there yet: the name is offered, so a wrong Enter must not cost an older one.
fn write_new(
    path: &Path,
    write: impl FnOnce(&mut dyn Write) -> io::Result<()>,
) -> Result<(), String> {
    let said = |error: io::Error| match error.kind() {
        io::ErrorKind::AlreadyExists => {
            format!("{} exists already: choose another name", path.display())
        }
        _ => format!("{}: {error}", path.display()),
    };
    let mut file = File::create_new(path).map_err(said)?;
    write(&mut file).map_err(said)
}

/// The worker's thread; ended and waited for when dropped, so that the machine is left as it was.
struct Worker {
    commands: Sender<Command>,
    handle: Option<JoinHandle<()>>,
}

impl Worker {
    fn tell(&self, command: Command) {
        // A worker that is gone has said so.
        let _ = self.commands.send(command);
    }
}

impl Drop for Worker {
    fn drop(&mut self) {
        self.tell(Command::Quit);
        // It may be waiting for a server that is silent.
        cancellation().store(true, Ordering::Relaxed);
        if let Some(handle) = self.handle.take() {
            let _ = handle.join();
        }
    }
}

/// Asks the terminal whether its ground is light. One that does not answer is taken for a dark one.
fn ask_light() -> bool {
    use terminal_colorsaurus::{QueryOptions, ThemeMode, theme_mode};
    theme_mode(QueryOptions::default()).is_ok_and(|mode| mode == ThemeMode::Light)
}

/// Starts the threads that read the terminal and take signals.
fn listen(sender: Sender<Wake>) -> io::Result<()> {
    #[cfg(unix)]
    {
        use signal_hook::consts::{SIGHUP, SIGINT, SIGTERM, SIGTSTP};
        let mut signals = signal_hook::iterator::Signals::new([SIGTSTP, SIGINT, SIGTERM, SIGHUP])?;
        let sender = sender.clone();
        std::thread::Builder::new()
            .name("signals".into())
            .spawn(move || {
                for signal in signals.forever() {
                    if sender.send(Wake::Signal(signal)).is_err() {
                        break;
                    }
                }
            })?;
    }
    std::thread::Builder::new()
        .name("terminal".into())
        .spawn(move || {
            loop {
                let wake = match event::read() {
                    Ok(event) => Wake::Event(Event::Terminal(event)),
                    Err(error) => Wake::Deaf(error),
                };
                let deaf = matches!(wake, Wake::Deaf(_));
                if sender.send(wake).is_err() || deaf {
                    break;
                }
            }
        })?;
    Ok(())
}
