//! Events in, effects out.

use super::*;
use crate::tui::keymap::{Action, KEYMAP};
use crate::tui::panes::PaneId;
use crate::tui::state::{Effect, RATES};
use crate::tui::worker::Command;
use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};
use std::path::PathBuf;

/// States in which some key has something to do: at the start, in the middle, with a history both
/// ways, running, with more than fits.
fn starts(pane: PaneId) -> Vec<State> {
    let pane_key = PaneId::ALL
        .iter()
        .position(|other| *other == pane)
        .map_or(0, |at| at + 1);
    let go = |state: &mut State| {
        press(state, &pane_key.to_string());
    };
    let plain = || {
        let mut state = later_state(80, 24);
        go(&mut state);
        state
    };
    let mut middle = plain();
    key(&mut middle, KeyCode::End, KeyModifiers::NONE);
    key(&mut middle, KeyCode::Up, KeyModifiers::NONE);
    let mut right = plain();
    key(&mut right, KeyCode::Right, KeyModifiers::NONE);
    let mut history = later_state(80, 24);
    press(&mut history, "4\n4jjj\n");
    go(&mut history);
    press(&mut history, "k");
    let mut future = later_state(80, 24);
    press(&mut future, "4\n4jjj\n[[");
    go(&mut future);
    let mut shared = later_state(80, 24);
    press(&mut shared, "5g0x48003000\n");
    key(&mut shared, KeyCode::Down, KeyModifiers::NONE);
    go(&mut shared);
    let mut zoomed = plain();
    press(&mut zoomed, "---");
    // Little room for the panel, which is scrolled or can be.
    let little = || {
        let mut state = guests_state(76, 21);
        press(&mut state, "1g0x49004000\n+++++++++++++");
        go(&mut state);
        match pane {
            PaneId::Cpus => press(&mut state, "jjj"),
            PaneId::Vms => press(&mut state, "j"),
            _ => Update::default(),
        };
        state
    };
    let mut scrolled = little();
    press(&mut scrolled, "J");
    let mut listed = plain();
    let breakpoints = (0..40).map(|at| at * 4).collect();
    send(
        &mut listed,
        6,
        Event::Worker(Report::Breakpoints(breakpoints)),
    );
    if pane == PaneId::Abort {
        press(&mut listed, "vvvj");
        key(&mut listed, KeyCode::PageDown, KeyModifiers::NONE);
    }
    vec![
        plain(),
        middle,
        right,
        history,
        future,
        shared,
        zoomed,
        scrolled,
        listed,
        little(),
    ]
}

#[test]
fn every_key_does_something_wherever_it_holds() {
    for pane in PaneId::ALL {
        for binding in KEYMAP.iter().filter(|binding| binding.holds_in(pane)) {
            // To show the pane that is shown, in any of its ways, is nothing.
            if binding.action == Action::Show(pane) {
                continue;
            }
            for bound in binding.keys {
                let does = starts(pane).into_iter().any(|mut state| {
                    let before = draw(&state);
                    state.message = None;
                    let update = key(&mut state, bound.1, bound.0);
                    let complaint = state
                        .message
                        .as_ref()
                        .is_some_and(|message| message.problem);
                    !update.effects.is_empty() || !complaint && draw(&state) != before
                });
                assert!(does, "{} in {}", bound.label(), pane.title());
            }
        }
    }
}

#[test]
fn keys_about_the_machine_tell_the_worker() {
    let mut state = state(DARK, 80, 24);
    for (keys, command) in [
        ("c", Command::Continue),
        ("i", Command::Interrupt),
        ("r", Command::Capture),
        ("R", Command::Every(RATES[3])),
        ("f", Command::Every(None)),
        ("f", Command::Every(RATES[3])),
        ("w\n", Command::Save(PathBuf::from("snapshot-1.core"))),
    ] {
        let update = press(&mut state, keys);
        assert_eq!(update.effects, [Effect::Worker(command)], "{keys}");
    }
    let quit = key(&mut state, KeyCode::Char('c'), KeyModifiers::CONTROL);
    assert_eq!(quit.effects, [Effect::Quit(None)]);
}

#[test]
fn a_file_does_not_run_and_a_lost_link_does_nothing() {
    let mut file = state(DARK, 80, 24);
    file.live = false;
    for keys in ["c", "i"] {
        assert_eq!(press(&mut file, keys).effects, []);
        assert!(screen_text(&file).contains("this target is a file"));
    }
    let mut state = state(DARK, 80, 24);
    send(&mut state, 3, lost());
    for keys in ["c", "i", "r"] {
        assert_eq!(press(&mut state, keys).effects, []);
    }
}

#[test]
fn a_frozen_screen_keeps_its_capture_until_it_is_thawed() {
    let mut state = state(DARK, 120, 40);
    let first = state.capture.clone().expect("a capture");
    press(&mut state, "f");
    send(&mut state, 3, captured(&later(&first)));
    assert_eq!(state.capture, Some(first));
    assert!(screen_text(&state).contains("FROZEN (there is 2)"));
    press(&mut state, "f");
    assert_eq!(
        state.capture.as_ref().map(|capture| capture.number),
        Some(2)
    );
}

#[test]
fn it_is_drawn_only_when_something_changed() {
    let mut state = state(DARK, 80, 24);
    let at = |millis| Duration::from_millis(millis);
    assert!(!state.update(at(2100), Event::Tick).redraw);
    assert!(
        state.update(at(3000), Event::Tick).redraw,
        "the age is a second more"
    );
    let nothing = Event::Terminal(TerminalEvent::FocusGained);
    assert!(!state.update(at(3100), nothing).redraw);
    let up = MouseEvent {
        kind: MouseEventKind::Moved,
        column: 3,
        row: 9,
        modifiers: KeyModifiers::NONE,
    };
    assert!(
        !state
            .update(at(3200), Event::Terminal(TerminalEvent::Mouse(up)))
            .redraw
    );
}

#[test]
fn a_message_disappears() {
    let mut state = state(DARK, 80, 24);
    send(&mut state, 3, Event::Worker(Report::Saved("a.core".into())));
    assert!(screen_text(&state).contains("saved a.core"));
    send(&mut state, 9, Event::Tick);
    assert!(!screen_text(&state).contains("saved a.core"));
}

#[test]
fn a_worker_that_panicked_ends_the_program_with_an_error() {
    let mut state = state(DARK, 80, 24);
    let update = send(&mut state, 3, Event::Worker(Report::Gone));
    assert!(matches!(&update.effects[..], [Effect::Quit(Some(_))]));
}

/// Where a line of `go to` leads, from a pane.
#[test]
fn going_to_addresses_and_symbols() {
    let hyp = |pa: u64| (1, pa + 0x40_0000_0000);
    for (pane, typed, shown, pa, input) in [
        ("1", "0x48009000", PaneId::Map, Some(0x4800_9000), None),
        (
            "1",
            "host-s2:0x48009000",
            PaneId::Map,
            Some(0x4800_9000),
            Some((0, 0x4800_9000)),
        ),
        ("1", "handle_trap", PaneId::Map, Some(0x4020_0000), None),
        (
            "1",
            "hyp-s1:0x4040200000",
            PaneId::Map,
            Some(0x4020_0000),
            Some(hyp(0x4020_0000)),
        ),
        (
            "2",
            "0x48009000",
            PaneId::Tables,
            Some(0x4800_9000),
            Some((0, 0x4800_9000)),
        ),
        (
            "2",
            "hyp-s1:0x4048003000",
            PaneId::Tables,
            Some(0x4800_3000),
            Some(hyp(0x4800_3000)),
        ),
        (
            "3",
            "vectors+0x80",
            PaneId::Runs,
            Some(0x4020_0000),
            Some(hyp(0x4020_0000)),
        ),
        ("4", "0x48003abc", PaneId::Owners, Some(0x4800_3000), None),
        (
            "5",
            "HYP",
            PaneId::Page,
            Some(0x4024_0000),
            Some((0, 0x4024_0000)),
        ),
        (
            "6",
            "0x48003abc",
            PaneId::Page,
            Some(0x4800_3000),
            Some((0, 0x4800_3000)),
        ),
        (
            "7",
            "TicketLock::lock+16",
            PaneId::Page,
            Some(0x4020_2000),
            Some((0, 0x4020_2000)),
        ),
    ] {
        let mut state = state(DARK, 80, 24);
        press(&mut state, &format!("{pane}g{typed}\n"));
        let focus = state.focus();
        assert_eq!(
            (state.pane, focus.pa, focus.input),
            (shown, pa, input),
            "{pane} {typed}"
        );
        // And back.
        press(&mut state, "[");
        assert_eq!(
            state.pane,
            PaneId::ALL[pane.parse::<usize>().expect("a digit") - 1]
        );
        press(&mut state, "]");
        assert_eq!(
            (state.pane, state.focus().pa),
            (shown, pa),
            "{pane} {typed}, forward"
        );
    }
}

#[test]
fn what_is_nowhere_is_said_and_leaves_the_cursor() {
    for (pane, typed) in [
        ("4", "0x1234"),
        ("1", "no_such_symbol"),
        ("1", "handle_trap+0x5000"),
        ("6", "0xffffffffffffffff"),
        ("1", "host-s3:0x0"),
    ] {
        let mut state = state(DARK, 80, 24);
        press(&mut state, pane);
        let before = (state.pane, state.focus());
        press(&mut state, &format!("g{typed}\n"));
        assert_eq!((state.pane, state.focus()), before, "{typed}");
        assert!(
            state
                .message
                .as_ref()
                .is_some_and(|message| message.problem),
            "{typed}"
        );
        assert_eq!(state.back, []);
    }
}

#[test]
fn symbols_are_offered_and_taken() {
    let mut state = state(DARK, 80, 24);
    press(&mut state, "ghan");
    let names = |state: &State| state.prompt.as_ref().expect("it asks").matches.clone();
    assert_eq!(names(&state), ["handle_trap", "handle_host_mem_abort"]);
    key(&mut state, KeyCode::Down, KeyModifiers::NONE);
    key(&mut state, KeyCode::Down, KeyModifiers::NONE);
    press(&mut state, "\t");
    assert_eq!(names(&state), ["handle_host_mem_abort"]);
    press(&mut state, "\n");
    assert_eq!(state.focus().pa, Some(0x4020_0100));
}

#[test]
fn opening_leads_from_pane_to_pane() {
    let mut state = state(DARK, 80, 24);
    for (keys, shown, pa) in [
        ("4jjjjj\n", PaneId::Page, 0x4800_3000),
        ("\n", PaneId::Tables, 0x4800_3000),
        ("\n", PaneId::Page, 0x4800_3000),
        ("m", PaneId::Map, 0x4800_3000),
        ("t", PaneId::Tables, 0x4800_3000),
    ] {
        press(&mut state, keys);
        assert_eq!(
            (state.pane, state.focus().pa),
            (shown, Some(pa)),
            "{keys:?}"
        );
    }
    for shown in [
        PaneId::Map,
        PaneId::Page,
        PaneId::Tables,
        PaneId::Page,
        PaneId::Owners,
    ] {
        key(&mut state, KeyCode::Backspace, KeyModifiers::NONE);
        assert_eq!(state.pane, shown);
        assert_eq!(state.focus().pa, Some(0x4800_3000));
    }
}

#[test]
fn the_cursor_stays_on_its_row_when_a_capture_comes() {
    let mut state = state(DARK, 80, 24);
    press(&mut state, "3g0x48028000\n");
    let before = state.focus();
    let first = state.capture.clone().expect("a capture");
    send(&mut state, 5, captured(&later(&first)));
    assert_eq!(state.focus(), before);
}

#[test]
fn sorting_and_turning_round() {
    let mut state = state(DARK, 120, 40);
    press(&mut state, "4s");
    assert_eq!(
        state.focus().pa,
        Some(0x4000_0000),
        "the cursor stays on its row"
    );
    key(&mut state, KeyCode::Home, KeyModifiers::NONE);
    assert_eq!(state.focus().pa, Some(0x4802_8000), "the smallest first");
    press(&mut state, "S");
    key(&mut state, KeyCode::Home, KeyModifiers::NONE);
    assert_eq!(state.focus().pa, Some(0x4802_9000), "the largest first");
}

#[test]
fn copying_gives_the_value_under_the_cursor() {
    let mut state = state(DARK, 80, 24);
    for (keys, copied) in [
        ("1", "0x40000000"),
        ("2g0x48003000\n", "0x00800000480037ff"),
        ("4", "0x40000000"),
        ("6", "0x40250000"),
        ("7jjj", "0x80000001"),
    ] {
        press(&mut state, keys);
        assert_eq!(
            press(&mut state, "y").effects,
            [Effect::Copy(copied.into())],
            "{keys}"
        );
    }
}

fn click(state: &mut State, column: u16, row: u16) {
    mouse(state, MouseEventKind::Down(MouseButton::Left), column, row);
}

fn mouse(state: &mut State, kind: MouseEventKind, column: u16, row: u16) -> Update {
    let now = state.now;
    let event = MouseEvent {
        kind,
        column,
        row,
        modifiers: KeyModifiers::NONE,
    };
    state.update(now, Event::Terminal(TerminalEvent::Mouse(event)))
}

#[test]
fn the_mouse_chooses_tabs_rows_and_cells() {
    let mut state = state(DARK, 80, 24);
    let tabs = screen_text(&state).lines().nth(2).expect("tabs").to_owned();
    for pane in PaneId::ALL {
        let column = tabs.find(pane.title()).expect("a tab") as u16;
        click(&mut state, column, 2);
        assert_eq!(state.pane, pane);
    }
    press(&mut state, "4");
    click(&mut state, 10, 7);
    assert_eq!(state.focus().pa, Some(0x4040_0000));
    click(&mut state, 10, 7);
    assert_eq!(state.pane, PaneId::Page, "a second press opens");
    press(&mut state, "1");
    click(&mut state, 20, 6);
    let chosen = state.map.cursor;
    assert!(chosen > 0x4000_0000);
    let shift = state.map.shift;
    mouse(&mut state, MouseEventKind::ScrollUp, 20, 6);
    assert_eq!(
        state.map.shift,
        shift.map(|shift| shift - 1),
        "the wheel zooms"
    );
    assert_eq!(state.map.cursor, chosen, "where the mouse is");
    let top = state.map.top;
    mouse(&mut state, MouseEventKind::Drag(MouseButton::Left), 20, 3);
    assert!(state.map.top > top, "a drag pans");
}

#[test]
fn a_released_mouse_is_left_alone() {
    let mut state = state(DARK, 80, 24);
    assert_eq!(press(&mut state, "M").effects, [Effect::Mouse(false)]);
    let pane = state.pane;
    assert!(!mouse(&mut state, MouseEventKind::Down(MouseButton::Left), 14, 2).redraw);
    assert_eq!(state.pane, pane);
    assert_eq!(press(&mut state, "M").effects, [Effect::Mouse(true)]);
}

#[test]
fn zooming_keeps_the_cursor_and_fit_shows_everything() {
    let mut state = state(DARK, 80, 24);
    let fit = state.map.shift;
    press(&mut state, "g0x48028000\n+++++");
    assert_eq!(state.map.cell(state.map.cursor).start, 0x4802_8000);
    assert_eq!(state.map.shift, fit.map(|shift| shift - 5));
    press(&mut state, "0");
    assert_eq!(state.map.shift, fit);
    for _ in 0..60 {
        press(&mut state, "+");
    }
    assert_eq!(state.map.shift, Some(12), "not closer than a page");
}

#[test]
fn the_age_of_a_lock_counts_while_one_ticket_is_served() {
    let mut state = state(DARK, 160, 50);
    press(&mut state, "6");
    let first = state.capture.clone().expect("a capture");
    send(&mut state, 70, captured(&later(&first)));
    assert!(
        screen_text(&state).contains("≥ 1 min 10 s"),
        "{}",
        screen_text(&state)
    );
    let mut fake = Fake::new();
    fake.lock(0, 6, 8, Some((2, 0x40_4020_0140)));
    send(&mut state, 80, captured(&capture(&mut fake, Some(&first))));
    send(&mut state, 83, Event::Tick);
    assert!(
        screen_text(&state).contains("≥ 3 s"),
        "{}",
        screen_text(&state)
    );
}
