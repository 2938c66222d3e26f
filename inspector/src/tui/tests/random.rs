//! Whatever is typed, clicked, resized or captured, nothing panics.

use super::*;
use crate::tui::keymap::KEYMAP;
use crate::tui::panes::PaneId;
use proptest::prelude::*;
use ratatui::crossterm::event::{MouseButton, MouseEvent, MouseEventKind};

fn keys() -> impl Strategy<Value = Event> {
    let bound: Vec<_> = KEYMAP
        .iter()
        .flat_map(|binding| binding.keys)
        .copied()
        .collect();
    let bound = prop::sample::select(bound).prop_map(|key| KeyEvent::new(key.1, key.0));
    let typed = prop::sample::select("0x48fhostyp+:\u{e9} /".chars().collect::<Vec<_>>());
    let typed = typed.prop_map(|c| KeyEvent::from(KeyCode::Char(c)));
    let other = prop::sample::select(vec![KeyCode::Enter, KeyCode::Esc, KeyCode::Delete]);
    prop_oneof![4 => bound, 2 => typed, 1 => other.prop_map(KeyEvent::from)]
        .prop_map(|key| Event::Terminal(TerminalEvent::Key(key)))
}

fn mouse() -> impl Strategy<Value = Event> {
    let kind = prop::sample::select(vec![
        MouseEventKind::Down(MouseButton::Left),
        MouseEventKind::Drag(MouseButton::Left),
        MouseEventKind::Up(MouseButton::Left),
        MouseEventKind::ScrollUp,
        MouseEventKind::ScrollDown,
    ]);
    (kind, 0..150_u16, 0..60_u16).prop_map(|(kind, column, row)| {
        Event::Terminal(TerminalEvent::Mouse(MouseEvent {
            kind,
            column,
            row,
            modifiers: KeyModifiers::NONE,
        }))
    })
}

fn events() -> impl Strategy<Value = Event> {
    let taken = (0..4_usize).prop_map(|i| captured(&captures()[i]));
    let said = prop::sample::select(vec![opened(), lost(), running(), Event::Tick]);
    let resize = (1..140_u16, 1..60_u16)
        .prop_map(|(width, height)| Event::Terminal(TerminalEvent::Resize(width, height)));
    let paste = "\\PC{0,8}".prop_map(|text| Event::Terminal(TerminalEvent::Paste(text)));
    prop_oneof![12 => keys(), 3 => mouse(), 1 => taken, 1 => said, 2 => resize, 1 => paste]
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(48))]

    #[test]
    fn nothing_panics(
        (width, height) in prop_oneof![(1..140_u16, 1..60_u16), Just((100, 40))],
        pane in prop::sample::select(PaneId::ALL.to_vec()),
        events in prop::collection::vec(events(), 1..60),
    ) {
        let mut state = state(DARK, width, height);
        state.pane = pane;
        for (i, event) in events.into_iter().enumerate() {
            send(&mut state, i as u64, event);
            let buffer = draw(&state);
            prop_assert_eq!(buffer.area, state.area);
        }
    }
}

#[test]
fn the_smallest_screens_are_drawn() {
    let mut state = state(DARK, 80, 24);
    for height in [1, 2, 3, 15, 16, 17, 18, 22, 35] {
        for width in (1..72).step_by(5).chain([64, 110, 150]) {
            send(
                &mut state,
                2,
                Event::Terminal(TerminalEvent::Resize(width, height)),
            );
            for pane in "12345678?".chars() {
                press(&mut state, &pane.to_string());
                assert_eq!(draw(&state).area, state.area);
            }
        }
    }
}
