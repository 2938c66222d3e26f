//! The whole screen, drawn into memory; every key; whatever may come.

mod abort;
mod guests;
mod random;
mod screens;
mod state;
mod worker;

use super::capture::Capture;
use super::code;
use super::screen;
use super::state::{Event, State, Update};
use super::testing::Fake;
use super::theme::{Depth, Theme};
use super::worker::Report;
use crate::model::System;
use crate::target::RunState;
use ratatui::Terminal;
use ratatui::backend::TestBackend;
use ratatui::buffer::Buffer;
use ratatui::crossterm::event::{Event as TerminalEvent, KeyCode, KeyEvent, KeyModifiers};
use std::sync::{Arc, OnceLock};
use std::time::Duration;

const DARK: Theme = Theme {
    depth: Depth::True,
    light: false,
};

/// A first capture, a later one, one of a machine without a hypervisor, one of a machine with VMs.
fn captures() -> &'static [Arc<Capture>; 4] {
    static CAPTURES: OnceLock<[Arc<Capture>; 4]> = OnceLock::new();
    CAPTURES.get_or_init(|| {
        let first = capture(&mut Fake::new(), None);
        let later = later(&first);
        let mut bare = Fake::new();
        bare.bare = true;
        let bare = capture(&mut bare, Some(&later));
        let guests = number(&Arc::new(Fake::new().guests()), Some(&first));
        [first, later, bare, guests]
    })
}

/// A state with a size and a first capture, two seconds old.
fn state(theme: Theme, width: u16, height: u16) -> State {
    let mut state = State::new(theme, "fake", true);
    send(
        &mut state,
        0,
        Event::Terminal(TerminalEvent::Resize(width, height)),
    );
    send(&mut state, 0, opened());
    send(&mut state, 0, captured(&captures()[0]));
    send(
        &mut state,
        2,
        Event::Worker(Report::Run(super::testing::stopped())),
    );
    state
}

/// The same after a second capture, in which something changed and something is odd.
fn later_state(width: u16, height: u16) -> State {
    let mut state = state(DARK, width, height);
    send(&mut state, 5, captured(&captures()[1]));
    state
}

/// The same with VMs instead, of a kernel.
fn guests_state(width: u16, height: u16) -> State {
    let mut state = state(DARK, width, height);
    send(&mut state, 5, captured(&captures()[3]));
    state
}

fn later(before: &Capture) -> Arc<Capture> {
    let mut fake = Fake::new();
    fake.share(0x4800_9000);
    fake.share(0x4801_9000);
    fake.map_host(3, 0x4802_0000, 0x4802_0001);
    fake.map_host(3, 0x4804_0000, 0x0180_0000_4804_07ff);
    fake.lock(0, 5, 9, Some((1, 0x40_4020_0140)));
    fake.lock(1, 9, 10, Some((2, 0x40_4020_2010)));
    fake.set(0, "x3", 77);
    fake.set(3, "pc", 0x40_4020_0340);
    capture(&mut fake, Some(before))
}

fn capture(fake: &mut Fake, before: Option<&Capture>) -> Arc<Capture> {
    let system = Arc::new(fake.system());
    let mut capture = Arc::unwrap_or_clone(number(&system, before));
    capture.code = code::read(fake, &system).expect("a link");
    Arc::new(capture)
}

/// What was captured, counted and compared.
fn number(system: &Arc<System>, before: Option<&Capture>) -> Arc<Capture> {
    let number = before.map_or(1, |before| before.number + 1);
    let took = Duration::from_millis(3);
    Arc::new(Capture::new(Arc::clone(system), before, number, took))
}

fn captured(capture: &Arc<Capture>) -> Event {
    Event::Worker(Report::Captured(Arc::clone(capture)))
}

fn opened() -> Event {
    Event::Worker(Report::Opened {
        name: "fake".into(),
        notes: Vec::new(),
        live: true,
    })
}

fn lost() -> Event {
    Event::Worker(Report::Lost(
        "fake: link lost while reading: connection reset".into(),
    ))
}

fn running() -> Event {
    Event::Worker(Report::Run(RunState::Running))
}

fn send(state: &mut State, seconds: u64, event: Event) -> Update {
    state.update(Duration::from_secs(seconds), event)
}

fn key(state: &mut State, code: KeyCode, modifiers: KeyModifiers) -> Update {
    let now = state.now;
    let event = TerminalEvent::Key(KeyEvent::new(code, modifiers));
    state.update(now, Event::Terminal(event))
}

/// Presses the keys of a text, one after the other; `\n` is Enter, `\x1b` Escape.
fn press(state: &mut State, keys: &str) -> Update {
    let mut last = Update::default();
    for c in keys.chars() {
        let code = match c {
            '\n' => KeyCode::Enter,
            '\x1b' => KeyCode::Esc,
            '\t' => KeyCode::Tab,
            c => KeyCode::Char(c),
        };
        last = key(state, code, KeyModifiers::NONE);
    }
    last
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

fn screen_text(state: &State) -> String {
    text(&draw(state))
}
