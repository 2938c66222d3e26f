//! Running up to something.

use super::*;
use crate::addr::Span;
use crate::tui::state::Effect;
use crate::tui::testing::{Stop, stopped};
use crate::tui::worker::{Point, Until, Watch, Written};

/// Where CPU 1 stands: at a call.
const CALL: u64 = 0x40_4020_014c;

fn stop(cpu: usize, pc: u64) -> Stop {
    Stop {
        cpu,
        pc,
        deep: 0,
        write: None,
    }
}

fn rig(script: impl IntoIterator<Item = Stop>) -> Rig {
    let mut fake = Fake::new();
    fake.script = script.into_iter().collect();
    let rig = Rig::start(fake, Vec::new());
    rig.run_state();
    rig
}

#[test]
fn one_instruction_of_one_cpu() {
    let rig = rig([]);
    rig.tell(Command::Step(1));
    assert_eq!(rig.pcs()[..2], [0x4100_0420, CALL + 4]);
    assert_eq!(rig.run_state(), stopped());
}

#[test]
fn a_call_is_run_through_until_this_cpu_is_behind_it() {
    // Another CPU comes there first, and this one in a call of the same function by itself.
    let inner = Stop {
        deep: 0x40,
        ..stop(1, CALL + 4)
    };
    let rig = rig([stop(3, CALL + 4), inner, stop(1, CALL + 4)]);
    rig.tell(Command::Capture);
    let before = rig.capture().system.cpus[1].registers.get("sp");
    rig.run_state();
    rig.tell(Command::StepOver(1));
    assert_eq!(rig.run_state(), RunState::Running);
    let capture = rig.capture();
    let cpu = &capture.system.cpus[1];
    assert_eq!((cpu.pc, cpu.registers.get("sp")), (Some(CALL + 4), before));
    // What is no call is a step.
    rig.tell(Command::StepOver(1));
    assert_eq!(rig.pcs()[1], CALL + 8);
}

#[test]
fn a_breakpoint_ends_whatever_run() {
    let rig = rig([stop(2, 0x40_4020_0340), stop(0, 0x40_4020_0340)]);
    rig.tell(Command::Break(0x40_4020_0340));
    let set = |report: &Report| match report {
        Report::Breakpoints(addresses) => Some(addresses.clone()),
        _ => None,
    };
    assert_eq!(rig.wait(set), [0x40_4020_0340]);
    rig.tell(Command::StepOver(1));
    assert_eq!(rig.pcs()[1..3], [CALL, 0x40_4020_0340]);
    rig.tell(Command::Continue);
    assert_eq!(rig.pcs()[0], 0x40_4020_0340);
    rig.tell(Command::Unbreak(0x40_4020_0340));
    assert_eq!(rig.wait(set), Vec::<u64>::new());
}

#[test]
fn a_server_without_room_is_told_and_the_machine_stands() {
    let mut fake = Fake::new();
    fake.room = 0;
    let rig = Rig::start(fake, Vec::new());
    rig.tell(Command::Break(8));
    assert_eq!(rig.failure(), "no breakpoint at 0x8: no room");
    rig.tell(Command::StepOver(1));
    assert_eq!(rig.failure(), "no breakpoint behind the call: no room");
    rig.tell(Command::Step(1));
    assert_eq!(rig.pcs()[1], CALL + 4);
}

/// The host's lock of the fake.
fn lock(until: Until) -> Watch {
    Watch {
        what: "lock host".to_owned(),
        at: Span::new(0x40_4025_0000, 4),
        pa: 0x4025_0000,
        until,
    }
}

#[test]
fn a_lock_that_is_taken_or_contended_says_who() {
    let writes = [
        // Released until it is free. Then taken, and wanted by another.
        (1, 0x0008_0006_u32),
        (1, 0x0008_0007),
        (2, 0x0008_0008),
        (3, 0x0009_0008),
        (0, 0x000a_0008),
    ];
    let script = writes.map(|(cpu, word)| Stop {
        write: Some((0x4025_0000, word)),
        ..stop(cpu, 0x40_4020_2010)
    });
    for (until, cpu, old, new) in [
        (Until::Changed, 1, 0x0008_0005, 0x0008_0006),
        (Until::Taken, 3, 0x0008_0008, 0x0009_0008),
        (Until::Contended, 0, 0x0009_0008, 0x000a_0008),
    ] {
        let rig = rig(script);
        let watch = lock(until);
        rig.tell(Command::Until(watch.clone()));
        let written = rig.wait(|report| match report {
            Report::Written(written) => Some(written.clone()),
            _ => None,
        });
        let pc = 0x40_4020_2010;
        assert_eq!(
            written,
            Written {
                watch,
                cpu,
                pc,
                old,
                new
            }
        );
    }
}

#[test]
fn a_run_that_never_ends_is_interrupted_and_leaves_no_breakpoint() {
    // There is room for one.
    let mut fake = Fake::new();
    fake.room = 1;
    let rig = Rig::start(fake, Vec::new());
    rig.run_state();
    for command in [Command::StepOver(1), Command::Until(lock(Until::Taken))] {
        rig.tell(command);
        assert_eq!(rig.run_state(), RunState::Running);
        rig.tell(Command::Capture);
        assert_eq!(
            rig.failure(),
            "the machine runs up to something: stop it first"
        );
        rig.tell(Command::Step(1));
        assert_eq!(rig.failure(), "the machine runs: stop it first");
        rig.tell(Command::Interrupt);
        assert_eq!(rig.pcs()[1], CALL);
        rig.run_state();
    }
    rig.tell(Command::Break(8));
    rig.wait(|report| matches!(report, Report::Breakpoints(_)).then_some(()));
}

#[test]
fn the_link_may_break_while_it_runs() {
    let fake = Fake::new();
    let broken = Arc::clone(&fake.broken);
    let rig = Rig::start(fake, vec![Fake::new()]);
    rig.run_state();
    rig.tell(Command::Until(lock(Until::Taken)));
    assert_eq!(rig.run_state(), RunState::Running);
    broken.store(true, Ordering::SeqCst);
    rig.wait(|report| matches!(report, Report::Lost(_)).then_some(()));
    rig.wait(|report| matches!(report, Report::Opened { .. }).then_some(()));
    rig.tell(Command::Step(1));
    assert_eq!(rig.capture().system.cpus[1].pc, Some(CALL));
    assert_eq!(rig.capture().system.cpus[1].pc, Some(CALL + 4));
}

#[test]
fn no_breakpoint_is_passed_by_the_step_that_writes() {
    let (pc, word) = (0x40_4020_2010, 0x0008_0006);
    let write = Stop {
        write: Some((0x4025_0000, word)),
        ..stop(1, pc)
    };
    let rig = rig([write, stop(2, 0x40_4020_0340)]);
    rig.tell(Command::Break(pc + 4));
    rig.tell(Command::Until(lock(Until::Taken)));
    assert_eq!(rig.pcs()[1], pc + 4);
}

#[test]
fn a_host_without_stage_2_is_waited_for() {
    let mut fake = Fake::new();
    for cpu in 0..4 {
        fake.set(cpu, "HCR_EL2", 0);
    }
    let rig = Rig::start(fake, Vec::new());
    rig.run_state();
    rig.tell(Command::Follow(Point::Entry));
    let waiting = |report: &Report| {
        let text = "waiting for a host under stage 2";
        (*report == Report::Working(text)).then_some(())
    };
    rig.wait(waiting);
    rig.tell(Command::Interrupt);
    rig.capture();
    assert_eq!(rig.run_state(), stopped());
}

/// Until the machine is said to stand, a key that runs it waits for that.
#[test]
fn a_key_pressed_while_a_run_comes_to_its_end_is_kept() {
    let rig = rig([stop(1, CALL + 4)]);
    let mut state = later_state(100, 40);
    press(&mut state, "9lo");
    rig.tell(Command::StepOver(1));
    loop {
        let report = rig.wait(|report| Some(report.clone()));
        let stands = matches!(report, Report::Run(RunState::Stopped { .. }));
        let update = send(&mut state, 6, Event::Worker(report.clone()));
        if stands {
            assert_eq!(update.effects, [Effect::Worker(Command::Step(1))]);
            break;
        }
        press(&mut state, "s");
        let screen = screen_text(&state);
        assert!(screen.contains("s comes next"), "{report:?}\n{screen}");
    }
}

#[test]
fn a_restart_is_said_without_being_asked_for() {
    let mut fake = Fake::new();
    fake.restarts = true;
    let rig = Rig::start(fake, Vec::new());
    rig.run_state();
    rig.tell(Command::Follow(Point::Entry));
    assert_eq!(rig.run_state(), RunState::Running);
    assert!(rig.failure().starts_with("the machine has restarted"));
    assert_eq!(rig.run_state(), stopped());
}

/// Nothing more comes of the machine, and nobody asks it for more.
#[test]
fn a_panic_ends_the_run_and_every_one_after_it() {
    let panicked = "the machine has panicked";
    let rig = rig([stop(3, 0x40_4020_1000)]);
    rig.tell(Command::Follow(Point::Entry));
    assert_eq!(rig.run_state(), RunState::Running);
    assert_eq!(rig.pcs()[3], 0x40_4020_1000);
    assert!(matches!(
        rig.run_state(),
        RunState::Stopped { cpu: Some(3), .. }
    ));
    assert!(rig.failure().contains(panicked));
    rig.tell(Command::Follow(Point::Entry));
    let again = rig.wait(|report| match report {
        Report::Failed(text) => Some(text.clone()),
        Report::Run(state) => Some(format!("{state:?}")),
        _ => None,
    });
    assert!(again.contains(panicked), "{again}");
}
