//! The whole screen, drawn into memory.

use super::capture::Capture;
use super::screen;
use super::state::{Event, State};
use super::testing::Fake;
use super::theme::{Depth, Theme};
use super::worker::Report;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyModifiers};
use std::sync::Arc;
use std::time::Duration;

const DARK: Theme = Theme {
    depth: Depth::True,
    light: false,
};

/// A state with a size and a first capture.
fn state(theme: Theme, width: u16, height: u16) -> State {
    let mut state = State::new(theme, "fake", true);
    send(
        &mut state,
        0,
        Event::Terminal(TerminalEvent::Resize(width, height)),
    );
    send(
        &mut state,
        0,
        Event::Worker(Report::Opened {
            name: "fake".into(),
            notes: Vec::new(),
            live: true,
        }),
    );
    let system = Fake::new().system();
    let run = system.run_state.clone();
    let capture = Capture::new(Arc::new(system), None, 1, Duration::from_millis(3));
    send(
        &mut state,
        0,
        Event::Worker(Report::Captured(Arc::new(capture))),
    );
    send(
        &mut state,
        2,
        Event::Worker(Report::Run(run.expect("a fake says it"))),
    );
    state
}

fn send(state: &mut State, seconds: u64, event: Event) {
    state.update(Duration::from_secs(seconds), event);
}

fn press(state: &mut State, keys: &str) {
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            c => KeyCode::Char(c),
        };
        let now = state.now;
        state.update(
            now,
            Event::Terminal(TerminalEvent::Key(KeyEvent::new(code, KeyModifiers::NONE))),
        );
    }
}

fn draw(state: &State) -> Buffer {
    let backend = TestBackend::new(state.area.width, state.area.height);
    let mut terminal = Terminal::new(backend).expect("memory");
    terminal
        .draw(|frame| screen::draw(state, frame))
        .expect("memory");
    terminal.backend().buffer().clone()
}

/// The characters, a line a row.
fn text(buffer: &Buffer) -> String {
    let width = usize::from(buffer.area.width);
    let line = |row: &[ratatui::buffer::Cell]| {
        let line: String = row.iter().map(ratatui::buffer::Cell::symbol).collect();
        line.trim_end().to_owned() + "\n"
    };
    buffer.content.chunks(width).map(line).collect()
}

#[test]
fn every_pane_shows_what_it_is_for() {
    let expected = [
        ("1", "a cell"),
        ("2", "table 0x40300000"),
        ("3", "annotation"),
        ("4", "pages of RAM"),
        ("5", "in the tables"),
        ("6", "handle_host_mem_abort+0x40"),
        ("7", "HCR_EL2"),
    ];
    for (width, height) in [(80, 24), (120, 40), (300, 100)] {
        let mut state = state(DARK, width, height);
        for (key, words) in expected {
            press(&mut state, key);
            let screen = text(&draw(&state));
            assert!(screen.contains(words), "{words}:\n{screen}");
        }
    }
}
