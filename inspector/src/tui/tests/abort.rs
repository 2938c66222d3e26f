//! The pane of aborts, and running up to something.

use super::*;
use crate::addr::Span;
use crate::tui::panes::PaneId;
use crate::tui::panes::abort::View;
use crate::tui::state::Effect;
use crate::tui::worker::{Command, Until, Watch, Written};

/// The pane on CPU 1, which is in an abort.
fn abort_state(width: u16, height: u16) -> State {
    let mut state = later_state(width, height);
    press(&mut state, "9l");
    state
}

fn commands(update: Update) -> Vec<Command> {
    let command = |effect| match effect {
        Effect::Worker(command) => Some(command),
        _ => None,
    };
    update.effects.into_iter().filter_map(command).collect()
}

#[test]
fn an_abort_at_every_size() {
    for (width, height) in [(80, 24), (120, 40), (160, 50)] {
        let mut state = abort_state(width, height);
        insta::assert_snapshot!(format!("abort_{width}x{height}"), screen_text(&state));
        send(
            &mut state,
            6,
            Event::Worker(Report::Breakpoints(vec![0x40_4020_0150, 0x40_4020_0300])),
        );
        press(&mut state, "vj");
        insta::assert_snapshot!(
            format!("abort_breakpoints_{width}x{height}"),
            screen_text(&state)
        );
    }
}

#[test]
fn what_is_not_to_be_seen_is_said() {
    let mut state = abort_state(100, 40);
    press(&mut state, "h");
    let screen = screen_text(&state);
    assert!(
        screen.contains("memory holds no instructions here"),
        "{screen}"
    );
    press(&mut state, "v");
    let screen = screen_text(&state);
    assert!(screen.contains("none: b sets one"), "{screen}");
}

#[test]
fn keys_run_the_cpu_that_is_shown() {
    let mut state = abort_state(100, 40);
    for (keys, command) in [
        ("s", Command::Step(1)),
        ("ls", Command::Step(2)),
        ("o", Command::StepOver(2)),
        ("b0x40402000c0\n", Command::Break(0x40_4020_00c0)),
        ("bget_\x1bbhost_share_hyp\n", Command::Break(0x40_4020_0300)),
    ] {
        assert_eq!(commands(press(&mut state, keys)), [command], "{keys}");
    }
    let breakpoints = vec![0x40_4020_0300, 0x40_4020_0150];
    send(
        &mut state,
        6,
        Event::Worker(Report::Breakpoints(breakpoints)),
    );
    assert_eq!(
        commands(press(&mut state, "jx")),
        [Command::Unbreak(0x40_4020_0150)]
    );
    for keys in ["b0x3\n", "bnowhere\n"] {
        assert_eq!(commands(press(&mut state, keys)), []);
        assert!(screen_text(&state).contains("is no symbol and no address of an instruction"));
    }
}

#[test]
fn keys_do_not_pile_up_and_wait_for_the_machine_to_stand() {
    let mut state = abort_state(100, 40);
    send(&mut state, 6, Event::Worker(Report::Working("stepping")));
    assert_eq!(commands(press(&mut state, "s")), []);
    assert_eq!(commands(press(&mut state, "i")), [Command::Interrupt]);
    send(&mut state, 6, running());
    for keys in ["s", "o", "u"] {
        assert_eq!(commands(press(&mut state, keys)), []);
        assert!(screen_text(&state).contains("the machine runs; i stops it"));
    }
    // A stop shows the CPU that made it.
    let stopped = RunState::Stopped {
        cpu: Some(3),
        reason: "signal 5".to_owned(),
    };
    send(&mut state, 7, Event::Worker(Report::Run(stopped)));
    assert_eq!(state.abort.cpu, 3);
}

#[test]
fn what_can_be_waited_for_is_offered() {
    let mut state = abort_state(100, 40);
    press(&mut state, "u");
    insta::assert_snapshot!("abort_until", screen_text(&state));
    let taken = press(&mut state, "hyp is cont\n");
    let watch = Watch {
        what: "lock hyp".to_owned(),
        at: Span::new(0x40_4025_0010, 4),
        pa: 0x4025_0010,
        until: Until::Contended,
    };
    assert_eq!(commands(taken), [Command::Until(watch.clone())]);
    let written = Written {
        watch,
        cpu: 1,
        pc: 0x40_4020_0148,
        old: 0x000a_0009,
        new: 0x000b_0009,
    };
    send(&mut state, 8, Event::Worker(Report::Written(written)));
    insta::assert_snapshot!("abort_written", screen_text(&state));
    press(&mut state, "unothing\n");
    assert!(screen_text(&state).contains("`nothing` cannot be waited for"));
    send(&mut state, 9, running());
    assert_eq!(state.abort.written, None);
}

#[test]
fn the_address_of_the_abort_leads_to_other_panes() {
    for (keys, pane, words) in [
        ("\n", PaneId::Page, "0x49001000"),
        ("m", PaneId::Map, "0x49001000"),
        ("t", PaneId::Tables, "level 2,"),
    ] {
        let mut state = abort_state(160, 50);
        press(&mut state, keys);
        assert_eq!(state.pane, pane);
        let screen = screen_text(&state);
        assert!(screen.contains(words), "{keys}\n{screen}");
        press(&mut state, "[");
        assert_eq!(state.pane, PaneId::Abort);
    }
}

#[test]
fn the_wheel_and_a_press_choose_a_breakpoint() {
    let mut state = abort_state(100, 40);
    send(
        &mut state,
        6,
        Event::Worker(Report::Breakpoints(vec![4, 8, 12])),
    );
    assert_eq!(state.abort.view, View::Code);
    press(&mut state, "jj");
    assert_eq!(state.abort.breakpoint(), Some(12));
}
