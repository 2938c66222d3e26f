//! The pane of aborts, and running up to something.

use super::*;
use crate::abort::{self, Story, Wanted, testing as stories};
use crate::addr::Span;
use crate::image::Source;
use crate::model::{Frame, PageRecords};
use crate::tui::panes::PaneId;
use crate::tui::panes::abort::View;
use crate::tui::source::Listing;
use crate::tui::state::Effect;
use crate::tui::testing::stopped;
use crate::tui::worker::{Command, Point, Until, Watch, Written};

/// The pane on CPU 1, which is in an abort.
fn abort_state(width: u16, height: u16) -> State {
    let mut state = later_state(width, height);
    press(&mut state, "9l");
    state
}

fn stands(state: &mut State) -> Update {
    let at = Duration::from_secs(6);
    state.update(at, Event::Worker(Report::Run(stopped())))
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
        press(&mut state, "vvvj");
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
    press(&mut state, "vvv");
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
    ] {
        assert_eq!(commands(press(&mut state, keys)), [command], "{keys}");
        stands(&mut state);
    }
    for (keys, command) in [
        ("b0x40402000c0\n", Command::Break(0x40_4020_00c0)),
        ("bget_\x1bbhost_share_hyp\n", Command::Break(0x40_4020_0300)),
    ] {
        assert_eq!(commands(press(&mut state, keys)), [command], "{keys}");
    }
    let breakpoints = vec![0x40_4020_0300, 0x40_4020_0150];
    send(
        &mut state,
        6,
        Event::Worker(Report::Breakpoints(Vec::new())),
    );
    assert_eq!(commands(press(&mut state, "x")), []);
    assert!(screen_text(&state).contains("there is no breakpoint to delete"));
    send(
        &mut state,
        6,
        Event::Worker(Report::Breakpoints(breakpoints)),
    );
    assert!(screen_text(&state).contains("breakpoint at 0x4040200300, "));
    assert_eq!(commands(press(&mut state, "x")), []);
    assert!(screen_text(&state).contains("choose one in the list of breakpoints"));
    assert_eq!(
        commands(press(&mut state, "vvvjx")),
        [Command::Unbreak(0x40_4020_0150)]
    );
    // A key that runs the machine is obeyed at once after those that do not.
    assert_eq!(commands(press(&mut state, "D")), [Command::Disarm]);
    assert_eq!(commands(press(&mut state, "s")), [Command::Step(2)]);
    stands(&mut state);
    for keys in ["b0x3\n", "bnowhere\n"] {
        assert_eq!(commands(press(&mut state, keys)), []);
        assert!(screen_text(&state).contains("is no symbol and no address of an instruction"));
    }
}

#[test]
fn one_key_waits_for_the_machine_to_stand() {
    let mut state = abort_state(100, 40);
    assert_eq!(commands(press(&mut state, "s")), [Command::Step(1)]);
    for keys in ["s", "n", "ss"] {
        assert_eq!(commands(press(&mut state, keys)), []);
        let screen = screen_text(&state);
        assert!(screen.contains("stepping: "), "{screen}");
        assert!(screen.contains("comes next"), "{screen}");
    }
    assert_eq!(commands(stands(&mut state)), [Command::Step(1)]);
    assert_eq!(commands(stands(&mut state)), []);
    // What is run up to something, too; but it may never come.
    assert_eq!(
        commands(press(&mut state, "a")),
        [Command::Follow(Point::Entry)]
    );
    send(&mut state, 6, running());
    send(&mut state, 6, Event::Worker(Report::Working("following")));
    assert_eq!(commands(press(&mut state, "n")), []);
    assert_eq!(commands(press(&mut state, "i")), [Command::Interrupt]);
    assert_eq!(commands(stands(&mut state)), []);
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
    stands(&mut state);
    press(&mut state, "unothing\n");
    assert!(screen_text(&state).contains("`nothing` cannot be waited for"));
    send(&mut state, 9, running());
    assert_eq!(state.abort.written, None);
}

#[test]
fn the_record_of_the_page_can_be_waited_for() {
    let mut state = abort_state(100, 40);
    let mut capture = Capture::clone(&captures()[1]);
    let mut system = System::clone(&capture.system);
    // Such that the record of the page is at the start of the fake's.
    system.page_records = Some(PageRecords {
        base: 0x40_4026_0000 - 4 * 0x4_9001,
        page_shift: 12,
        size: 4,
    });
    capture.system = Arc::new(system);
    send(&mut state, 6, captured(&Arc::new(capture)));
    let watch = Watch {
        what: "the record of page 0x49001000".to_owned(),
        at: Span::new(0x40_4026_0000, 4),
        pa: 0x4026_0000,
        until: Until::Changed,
    };
    assert_eq!(
        commands(press(&mut state, "urecord\n")),
        [Command::Until(watch)]
    );
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
    press(&mut state, "vvvjj");
    assert_eq!(state.abort.breakpoint(), Some(12));
}

/// A story of CPU 1 that has come as far as its look-up, as the fake's registers tell it.
fn under_way() -> Arc<Story> {
    Arc::new(stories::mapped())
}

fn told(state: &mut State, seconds: u64, story: Story) {
    send(state, seconds, Event::Worker(Report::Told(Arc::new(story))));
}

fn following(state: &mut State, stories: Vec<Arc<Story>>) {
    let armed = true;
    send(
        state,
        6,
        Event::Worker(Report::Following { armed, stories }),
    );
}

/// With four aborts told, the last of them at the address that CPU 1 faulted at.
fn told_state(width: u16, height: u16) -> State {
    let mut state = abort_state(width, height);
    let all = [
        stories::mapped(),
        stories::refused(),
        stories::gave_up(),
        stories::mapped(),
    ];
    for (story, at) in all.into_iter().zip([7, 9, 70, 71]) {
        told(&mut state, at, story);
    }
    state
}

#[test]
fn the_stages_light_up() {
    for (width, height) in [(80, 24), (160, 50)] {
        let mut state = abort_state(width, height);
        following(&mut state, vec![under_way()]);
        insta::assert_snapshot!(
            format!("abort_under_way_{width}x{height}"),
            screen_text(&state)
        );
        // Another CPU is in none.
        press(&mut state, "l");
        assert!(!screen_text(&state).contains("▶look-up"));
    }
}

#[test]
fn aborts_of_the_session_are_rows_and_told_again() {
    for (width, height) in [(80, 24), (160, 50)] {
        let mut state = told_state(width, height);
        press(&mut state, "v");
        insta::assert_snapshot!(
            format!("abort_history_{width}x{height}"),
            screen_text(&state)
        );
        press(&mut state, "v");
        insta::assert_snapshot!(
            format!("abort_regions_{width}x{height}"),
            screen_text(&state)
        );
    }
    let mut state = told_state(160, 50);
    press(&mut state, "v");
    press(&mut state, "/gave\n");
    let screen = screen_text(&state);
    assert!(
        screen.contains("1 of 1 of 4") && screen.contains("abort 3 of CPU 1"),
        "{screen}"
    );
    press(&mut state, "\x1b");
    assert!(screen_text(&state).contains("1 of 4"));
}

#[test]
fn the_source_stands_above_the_instructions() {
    for (width, height) in [(80, 24), (160, 50)] {
        let mut state = abort_state(width, height);
        let mut capture = Capture::clone(&captures()[1]);
        let mut system = System::clone(&capture.system);
        system.cpus[1].source = Some(Source {
            file: "src/abort.rs".to_owned(),
            line: 42,
        });
        system.cpus[1].inlines = vec![Frame {
            symbol: Some("lock".to_owned()),
            source: Some(Source {
                file: "src/lock.rs".to_owned(),
                line: 7,
            }),
            inlined: true,
            ..Frame::returning(0x40_4020_0150, None)
        }];
        capture.system = Arc::new(system);
        let lines = (30..60)
            .map(|line| format!("    let x{line} = {line};"))
            .collect();
        capture.source = vec![None, Some(Listing { first: 30, lines })];
        send(&mut state, 6, captured(&Arc::new(capture)));
        insta::assert_snapshot!(
            format!("abort_source_{width}x{height}"),
            screen_text(&state)
        );
    }
}

#[test]
fn the_cpu_that_was_waited_for_is_shown_whichever_the_server_names() {
    let mut state = abort_state(100, 40);
    let mut story = stories::mapped();
    // Where CPU 2 stands.
    story.cpu = 2;
    story.road.entry = Some(stories::place(0x40_4020_2010, "hyp_vectors+0x400"));
    let named = RunState::Stopped {
        cpu: Some(3),
        reason: "signal 5".to_owned(),
    };
    let run = |state: &mut State, keys: &str| {
        press(state, keys);
        send(state, 6, running());
        following(state, vec![Arc::new(story.clone())]);
        send(state, 6, Event::Worker(Report::Run(named.clone())));
        state.abort.cpu
    };
    assert_eq!(run(&mut state, "a"), 2);
    assert_eq!(run(&mut state, "hn"), 1);
    assert_eq!(run(&mut state, "c"), 3);
    told(&mut state, 7, stories::refused());
    assert_eq!(run(&mut state, "A"), 1);
    // A breakpoint of the user's is worth more.
    let pc = captures()[1].system.cpus[3].pc.expect("a PC");
    send(&mut state, 8, Event::Worker(Report::Breakpoints(vec![pc])));
    assert_eq!(run(&mut state, "a"), 3);
}

#[test]
fn keys_follow_aborts() {
    let mut state = abort_state(100, 40);
    for (keys, command) in [
        ("a", Command::Follow(Point::Entry)),
        ("A", Command::Follow(Point::Outcome(abort::Until::Refused))),
        ("n", Command::Follow(Point::Stage(1))),
        ("e", Command::Follow(Point::End(1))),
        ("D", Command::Disarm),
    ] {
        assert_eq!(commands(press(&mut state, keys)), [command], "{keys}");
        stands(&mut state);
    }
    // While it runs, the next one can be asked for all the same.
    send(&mut state, 6, running());
    assert_eq!(
        commands(press(&mut state, "a")),
        [Command::Follow(Point::Entry)]
    );
}

#[test]
fn what_is_followed_is_said_in_the_words_of_the_command_line() {
    let mut state = abort_state(100, 40);
    press(&mut state, "F");
    insta::assert_snapshot!("abort_wanted", screen_text(&state));
    let wanted = Wanted {
        ipa: Some(Span::new(0x4900_0000, 0x20_0000)),
        cpu: Some(1),
        ..Wanted::default()
    };
    let update = press(
        &mut state,
        "--ipa 0x49000000..0x49200000 --cpu 1 --until mapped\n",
    );
    assert_eq!(commands(update), [Command::Want(wanted)]);
    assert!(
        screen_text(&state)
            .contains("follows only --ipa 0x49000000..0x49200000 --cpu 1 --until mapped")
    );
    let next = Command::Follow(Point::Outcome(abort::Until::Mapped));
    assert_eq!(commands(press(&mut state, "A")), [next]);
    stands(&mut state);
    // What was said is there to be changed.
    press(&mut state, "F");
    key(&mut state, KeyCode::Char('u'), KeyModifiers::CONTROL);
    let update = press(&mut state, "\n");
    assert_eq!(commands(update), [Command::Want(Wanted::default())]);
    for (keys, problem) in [
        ("F--cpu x\n", "invalid value 'x' for '--cpu <N>'"),
        ("Fshare\n", "unexpected argument 'share' found"),
        ("F--ipa 5..1\n", "expected A..B with A not above B"),
        ("F--ipa 5..5\n", "no address is in it"),
    ] {
        assert_eq!(commands(press(&mut state, keys)), []);
        let screen = screen_text(&state);
        assert!(screen.contains(problem), "{screen}");
    }
}

#[test]
fn the_aborts_that_are_shown_are_saved() {
    let mut state = told_state(100, 40);
    press(&mut state, "/refused\n");
    let update = press(&mut state, "E\n");
    let [Effect::Export(path, stories)] = &update.effects[..] else {
        panic!("{update:?}");
    };
    assert_eq!(path.to_str(), Some("aborts.json"));
    assert_eq!(stories.len(), 1);
    assert_eq!(*stories[0], stories::refused());
    send(&mut state, 80, Event::Exported(Ok(path.clone())));
    assert!(screen_text(&state).contains("saved aborts.json"));
    send(&mut state, 81, Event::Exported(Err("no room".to_owned())));
    assert!(screen_text(&state).contains("no room"));
}

#[test]
fn the_map_and_the_tables_mark_what_the_last_abort_changed() {
    let mut state = later_state(120, 40);
    let mut capture = Capture::clone(&captures()[1]);
    let mut story = stories::mapped();
    let at = capture.system.regimes[0].tables[3].pa;
    for write in &mut story.writes {
        (write.at, write.ia, write.size) = (at, 0x4100_0000, 2 << 20);
    }
    capture.mark_abort(Some(&story));
    send(&mut state, 6, captured(&Arc::new(capture)));
    press(&mut state, "1v");
    let screen = screen_text(&state);
    assert!(screen.contains("◆  changed by the last abort"), "{screen}");
    assert!(screen.matches('◆').count() > 1, "{screen}");
    press(&mut state, "2");
    let found = (0..40).any(|_| {
        press(&mut state, "j");
        screen_text(&state).contains("◆ last abort")
    });
    assert!(found, "{}", screen_text(&state));
}

#[test]
fn every_outcome_is_told_again() {
    for (width, height) in [(80, 24), (160, 50)] {
        for (name, keys) in [("refused", "vkk"), ("gave_up", "vk"), ("call", "v")] {
            let mut state = told_state(width, height);
            if name == "call" {
                told(&mut state, 72, stories::shared());
            }
            press(&mut state, keys);
            let name = format!("abort_{name}_{width}x{height}");
            insta::assert_snapshot!(name, screen_text(&state));
        }
    }
}

#[test]
fn a_kernels_cpus_at_every_size() {
    for (width, height) in [(80, 24), (160, 50)] {
        let mut state = guests_state(width, height);
        press(&mut state, "9");
        let name = format!("abort_kernel_{width}x{height}");
        insta::assert_snapshot!(name, screen_text(&state));
    }
}

#[test]
fn a_long_path_gives_way_to_the_function_and_the_line() {
    let mut state = abort_state(80, 24);
    let mut capture = Capture::clone(&captures()[1]);
    let mut system = System::clone(&capture.system);
    system.cpus[1].symbol = Some("__kvm_nvhe_host_stage2_idmap_locked+0x40".to_owned());
    let file = "arch/arm64/kvm/hyp/nvhe/mem_protect.c".to_owned();
    system.cpus[1].source = Some(Source { file, line: 512 });
    capture.system = Arc::new(system);
    send(&mut state, 6, captured(&Arc::new(capture)));
    let screen = screen_text(&state);
    let title = screen
        .lines()
        .find(|line| line.contains("─ CPU 1"))
        .unwrap_or_default();
    for part in [
        "__kvm_nvhe_host_s",
        "+0x40 · mem_protect.c:512 ─",
        "─ 2 of 4 CPUs ─",
    ] {
        assert!(title.contains(part), "{title}");
    }
}

#[test]
fn what_is_armed_is_said_before_there_is_an_abort() {
    for (width, height) in [(80, 24), (160, 50)] {
        let mut state = abort_state(width, height);
        assert!(screen_text(&state).contains("no abort followed"));
        following(&mut state, Vec::new());
        assert!(screen_text(&state).contains("armed; this CPU is in no abort"));
        press(&mut state, "F--call share\n");
        assert!(screen_text(&state).contains("only --call share"));
    }
}
