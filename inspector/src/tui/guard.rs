//! The terminal is taken once and always given back: at the end, on an error, on a panic, and while
//! the program is suspended.

use ratatui::Terminal;
use ratatui::backend::CrosstermBackend;
use ratatui::crossterm::cursor::Show;
use ratatui::crossterm::event::{
    DisableBracketedPaste, DisableMouseCapture, EnableBracketedPaste, EnableMouseCapture,
};
use ratatui::crossterm::execute;
use ratatui::crossterm::style::force_color_output;
use ratatui::crossterm::terminal::{
    EnterAlternateScreen, LeaveAlternateScreen, disable_raw_mode, enable_raw_mode,
};
use ratatui::layout::{Position, Rect};
use std::io::{self, Stdout, stdout};
use std::sync::Once;
use std::sync::atomic::{AtomicBool, Ordering};

/// Whether the terminal is ours at the moment; the panic hook asks.
static TAKEN: AtomicBool = AtomicBool::new(false);
static HOOK: Once = Once::new();

/// The terminal while it is ours.
pub(super) struct Guard {
    /// For drawing.
    pub(super) terminal: Terminal<CrosstermBackend<Stdout>>,
    mouse: bool,
}

impl Guard {
    /// Takes the terminal: raw mode, the alternate screen, the mouse if wanted.
    ///
    /// # Errors
    /// Standard output is no terminal, or refuses.
    pub(super) fn take(mouse: bool) -> io::Result<Self> {
        HOOK.call_once(|| {
            let previous = std::panic::take_hook();
            std::panic::set_hook(Box::new(move |info| {
                release();
                previous(info);
            }));
        });
        // With NO_COLOR set, crossterm would replace every change of style by a full reset and so lose
        // bold and reverse. Our theme has no colours then, which is what is asked for.
        force_color_output(true);
        acquire(mouse)?;
        let terminal = Terminal::new(CrosstermBackend::new(stdout()))?;
        Ok(Self { terminal, mouse })
    }

    /// Takes or releases the mouse.
    ///
    /// # Errors
    /// The terminal refuses.
    pub(super) fn set_mouse(&mut self, on: bool) -> io::Result<()> {
        self.mouse = on;
        if on {
            execute!(stdout(), EnableMouseCapture)
        } else {
            execute!(stdout(), DisableMouseCapture)
        }
    }

    /// Gives the terminal back, stops this process as Ctrl-Z does, and takes the terminal again when it
    /// is continued.
    ///
    /// # Errors
    /// The terminal refuses.
    pub(super) fn suspend(&mut self) -> io::Result<()> {
        release();
        #[cfg(unix)]
        signal_hook::low_level::emulate_default_handler(signal_hook::consts::SIGTSTP)?;
        acquire(self.mouse)?;
        self.redraw()
    }

    /// Makes the next draw write every cell, also for a terminal whose size changed.
    ///
    /// Not by `Terminal::clear`: that asks the terminal for the cursor's position, and the answer would
    /// go to the thread that reads keys.
    ///
    /// # Errors
    /// The terminal refuses.
    pub(super) fn redraw(&mut self) -> io::Result<()> {
        let size = self.terminal.size()?;
        self.terminal.resize(Rect::from((Position::ORIGIN, size)))
    }
}

impl Drop for Guard {
    fn drop(&mut self) {
        release();
    }
}

fn acquire(mouse: bool) -> io::Result<()> {
    enable_raw_mode()?;
    TAKEN.store(true, Ordering::SeqCst);
    execute!(stdout(), EnterAlternateScreen, EnableBracketedPaste)?;
    if mouse {
        execute!(stdout(), EnableMouseCapture)?;
    }
    Ok(())
}

/// Gives the terminal back, once. Errors have nowhere to go: the terminal is gone.
fn release() {
    if TAKEN.swap(false, Ordering::SeqCst) {
        let _ = execute!(
            stdout(),
            DisableMouseCapture,
            DisableBracketedPaste,
            LeaveAlternateScreen,
            Show
        );
        let _ = disable_raw_mode();
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use fixtures::terminal::{Look, Terminal as Screen};

    /// Set for the process that takes its terminal and panics.
    const INSIDE: &str = "INSPECTOR_TEST_PANIC";
    const NAME: &str = "tui::guard::tests::terminal_is_given_back_after_a_panic";

    #[test]
    fn terminal_is_given_back_after_a_panic() {
        if std::env::var_os(INSIDE).is_some() {
            let _guard = Guard::take(true).expect("a terminal");
            // As the worker would: on another thread.
            let _ = std::thread::spawn(|| panic!("on purpose")).join();
            std::process::exit(7);
        }
        let program = std::env::current_exe().expect("this test");
        let script = format!(
            "{INSIDE}=1 '{}' --exact {NAME} --nocapture; echo \"status $?\"; stty -a; echo done; read end",
            program.display()
        );
        let folder = std::path::Path::new("/");
        let look = Look::dark(100, 40);
        let terminal = Screen::start("/bin/sh".as_ref(), &["-c", &script], folder, look);
        let terminal = terminal.expect("a shell");
        let contents = terminal.wait_for("done").expect("it ends");
        let screen = terminal.screen();
        assert!(
            contents.contains("on purpose") && contents.contains("status 7"),
            "{contents}"
        );
        assert!(!screen.alternate_screen() && !screen.hide_cursor() && !screen.bracketed_paste());
        assert_eq!(screen.mouse_protocol_mode(), vt100::MouseProtocolMode::None);
        assert!(
            contents.contains(" icanon") && contents.contains(" echo "),
            "{contents}"
        );
    }
}
