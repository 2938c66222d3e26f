//! VMs and their regimes, which come and go; the panel.

use super::*;
use crate::tui::panes::PaneId;

/// The same without the first VM and its regime.
fn one_less(before: &Capture) -> Arc<Capture> {
    let mut system = (*captures()[3].system).clone();
    system
        .regimes
        .retain(|regime| regime.name != "guest-s2:0x1000");
    system.vms.remove(0);
    number(&Arc::new(system), Some(before))
}

#[test]
fn enter_leads_to_the_runs_of_a_vm_and_back() {
    let mut state = guests_state(120, 40);
    press(&mut state, "8j\n");
    assert_eq!(state.pane, PaneId::Runs);
    assert_eq!(state.focus().input, Some((3, 0x4000_0000)));
    assert!(screen_text(&state).contains("─ guest-s2:0x1001 ─"));
    press(&mut state, "[");
    assert_eq!(
        (state.pane, state.focus().value.as_str()),
        (PaneId::Vms, "0x1001")
    );
    press(&mut state, "t");
    assert_eq!(
        (state.pane, state.focus().input),
        (PaneId::Tables, Some((3, 0x4000_0000)))
    );
    press(&mut state, "[m");
    assert_eq!((state.pane, state.map.space), (PaneId::Map, 4));
    press(&mut state, "8j\n");
    assert_eq!(state.pane, PaneId::Vms, "the third has no tables");
    assert!(screen_text(&state).contains("has no tables that were captured"));
}

#[test]
fn going_to_addresses_of_guests() {
    for (pane, shown) in [
        ("1", PaneId::Map),
        ("2", PaneId::Tables),
        ("3", PaneId::Runs),
        ("6", PaneId::Map),
        ("8", PaneId::Map),
    ] {
        let mut state = guests_state(80, 24);
        press(&mut state, &format!("{pane}gguest-s2:0x1001:0x40004000\n"));
        assert_eq!(
            (state.pane, state.focus().input, state.focus().pa),
            (shown, Some((3, 0x4000_4000)), Some(0x4900_4000)),
            "{pane}"
        );
    }
}

#[test]
fn a_regime_is_followed_by_its_name_when_another_goes() {
    let mut state = guests_state(120, 40);
    let before = captures()[3].clone();
    press(&mut state, "8j\n");
    press(&mut state, "2gguest-s2:0x1001:0x40004000\n");
    press(&mut state, "1gguest-s2:0x1001:0x40004000\n");
    press(&mut state, "1gguest-s2:0x1000:0x80000000\n");
    press(&mut state, "1gguest-s2:0x1001:0x40004000\n");
    send(&mut state, 6, captured(&one_less(&before)));
    for pane in ["1", "2", "3"] {
        press(&mut state, pane);
        let screen = screen_text(&state);
        assert!(screen.contains("─ guest-s2:0x1001 "), "{screen}");
        assert_eq!(state.focus().input.map(|(regime, _)| regime), Some(2));
    }
    press(&mut state, "8");
    assert_eq!(state.focus().value, "0x1001", "the cursor stays on its VM");
    let gone = |place: &crate::tui::state::Place| place.space > 3;
    assert!(!state.back.iter().any(gone), "{:?}", state.back);
}

#[test]
fn a_regime_that_goes_leaves_its_panes_on_another() {
    let mut state = guests_state(120, 40);
    press(&mut state, "8\n");
    press(&mut state, "2gguest-s2:0x1000:0x80000000\n");
    press(&mut state, "1gguest-s2:0x1000:0x80000000\n");
    send(&mut state, 6, captured(&one_less(&captures()[3])));
    for (pane, words) in [
        ("1", "─ physical (1 of 4)"),
        ("2", "─ host-s2 ─"),
        ("3", "─ all regimes ─"),
    ] {
        press(&mut state, pane);
        let screen = screen_text(&state);
        assert!(screen.contains(words), "{words}\n{screen}");
    }
}

#[test]
fn the_panel_scrolls_to_its_end_and_starts_anew_on_another_thing() {
    let mut state = guests_state(80, 24);
    press(&mut state, "8j");
    assert!(!screen_text(&state).contains("vCPU 1"));
    assert!(screen_text(&state).contains(" J▾ ─"));
    press(&mut state, &"J".repeat(40));
    let end = screen_text(&state);
    assert!(end.contains("vCPU 1") && end.contains(" K▴ ─"), "{end}");
    press(&mut state, "K");
    assert_ne!(screen_text(&state), end, "it did not go beyond its end");
    press(&mut state, "kj");
    assert!(screen_text(&state).contains("handle     0x1001"));
    press(&mut state, "JJJ");
    send(
        &mut state,
        6,
        Event::Terminal(TerminalEvent::Resize(200, 60)),
    );
    assert!(
        screen_text(&state).contains("handle     0x1001"),
        "there is room"
    );
}
