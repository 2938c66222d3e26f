//! The Abort pane, left at several stages of an abort of hyp's host, whose rounds go on only where nothing stops them.

use super::*;

/// Keys, and what the screen shows when it has come so far. The first stop is a CPU at the handler of aborts.
const STAGES: [&[(&str, &str)]; 6] = [
    &[("9", "no abort followed")],
    &[("9a", "signal 5  capture 2,")],
    &[
        ("9a", "signal 5  capture 2,"),
        ("n", "signal 5  capture 3,"),
    ],
    &[("9a", "signal 5  capture 2,"), ("s", "capture 3,")],
    // It stands before the write that it waits for.
    &[
        ("9a", "signal 5  capture 2,"),
        ("ulock hyp is taken\r", "signal 5  capture 3,"),
    ],
    // What never comes: it runs.
    &[("9F--ipa 0x1000..0x2000\r", "0x1000"), ("a", "▶ running")],
];

/// It stands or runs as before, and where it runs nothing stops it.
fn assert_free(machine: &mut Machine, runs: bool, by: &str) {
    let (mut client, ran) = look(machine);
    assert_eq!(ran, runs, "runs after {by}");
    rounds::runs_freely(&mut client, machine, by);
}

#[test]
fn qemu_hyp_is_left_as_found_by_the_abort_pane() {
    let boot = Boot::hyp().expect("the image builds").cpus(2);
    let mut machine = boot.start().expect("QEMU starts");
    machine.wait_for("round 2 done", LIMIT).expect("it runs");
    let image = machine.image().hyp.display().to_string();
    let gdb = machine.gdb().to_owned();
    let arguments = ["tui", &gdb, "--background", "dark", "--image", &image];
    for (stage, keys) in STAGES.into_iter().enumerate() {
        for (runs, how) in [(true, "q"), (false, "-TERM")] {
            set(&machine, runs);
            let look = Look::dark(160, 50);
            let folder = Path::new("/");
            let mut terminal =
                Terminal::start(Path::new(INSPECTOR), &arguments, folder, look).expect("it starts");
            terminal.wait_for("capture 1,").expect("a capture");
            for (keys, words) in keys {
                terminal.send(keys).expect("it reads");
                terminal.wait_for(words).expect("it is shown");
            }
            end(&mut terminal, how);
            assert_free(&mut machine, runs, &format!("{how} at stage {stage}"));
        }
    }
}

/// Each key of the pane, and what the screen says to it.
const KEYS: [(&str, &str); 19] = [
    ("9", "no abort followed"),
    ("x", "there is no breakpoint to delete"),
    ("F--cpu 0\r", "follows only --cpu 0"),
    ("a", "signal 5  capture 2,"),
    ("n", "signal 5  capture 3,"),
    ("s", "capture 4,"),
    ("o", "capture 5,"),
    // Told, and standing again.
    ("e", "signal 5  capture 6,"),
    ("/refused\r", "none is like this (Esc clears the filter)"),
    ("\x1b", "─ 1 of 1 ─"),
    (
        "F\x15--cpu 0 --ipa 0x40200000..0x40201000\r",
        "0..0x40201000 --cpu 0",
    ),
    // The panel of the other story.
    ("A", "signal 5  capture 7,"),
    ("", "memory of hyp: its text"),
    // No more "armed, 1 of 2".
    ("D", "─ 1 of 2 CPUs ─"),
    ("bhost_order\r", "breakpoint at 0x4100"),
    ("x", "choose one in the list of breakpoints"),
    // The host comes there once a round, on its first CPU.
    ("c", "0 EL1 host_order "),
    // The filter has come to the history.
    ("vv", "─ breakpoints ─"),
    ("x", "none: b sets one"),
];

#[test]
fn qemu_hyp_answers_to_each_key_of_the_abort_pane() {
    let boot = Boot::hyp().expect("the image builds").cpus(2);
    let mut machine = boot.start().expect("QEMU starts");
    machine.wait_for("round 2 done", LIMIT).expect("it runs");
    let image = machine.image();
    let [hyp, host] = [&image.hyp, &image.host].map(|path| path.display().to_string());
    let gdb = machine.gdb().to_owned();
    let arguments = [
        "tui",
        &gdb,
        "--background",
        "dark",
        "--image",
        &hyp,
        "--image",
        &host,
    ];
    let folder = tempfile::tempdir().expect("a folder");
    let look = Look::dark(160, 50);
    let mut terminal =
        Terminal::start(Path::new(INSPECTOR), &arguments, folder.path(), look).expect("it starts");
    terminal.wait_for("capture 1,").expect("a capture");
    for (keys, words) in KEYS {
        terminal.send(keys).expect("it reads");
        terminal.wait_for(words).expect("it is shown");
    }
    // The name that is offered.
    terminal.send("E\r").expect("it reads");
    terminal.wait_for("saved aborts.json").expect("it says so");
    let saved = std::fs::read(folder.path().join("aborts.json")).expect("a file");
    let saved: serde_json::Value = serde_json::from_slice(&saved).expect("JSON");
    let outcomes = saved["aborts"].as_array().expect("an array").iter();
    let outcomes: Vec<_> = outcomes.map(|story| story["outcome"].as_str()).collect();
    assert_eq!(outcomes.last(), Some(&Some("refused")), "{outcomes:?}");
    assert_eq!(outcomes.len(), 2, "{outcomes:?}");
    end(&mut terminal, "q");
    assert_free(&mut machine, true, "q");
}

/// A machine that has not executed anything: it stops at the host's first abort, of its first instruction.
#[test]
fn qemu_hyp_is_stopped_at_the_first_abort_of_all() {
    let boot = Boot::hyp().expect("the image builds").cpus(2).paused();
    let machine = boot.start().expect("QEMU starts");
    let image = machine.image();
    let [hyp, host] = [&image.hyp, &image.host].map(|path| path.display().to_string());
    let gdb = machine.gdb();
    let arguments = [
        "tui",
        gdb,
        "--background",
        "dark",
        "--image",
        &hyp,
        "--image",
        &host,
    ];
    let look = Look::dark(160, 50);
    let mut terminal =
        Terminal::start(Path::new(INSPECTOR), &arguments, Path::new("/"), look).expect("it starts");
    for (keys, words) in [
        ("9", "no abort followed"),
        ("a", "signal 5"),
        ("e", "─ 1 of 1 ─"),
    ] {
        terminal.send(keys).expect("it reads");
        terminal.wait_for(words).expect("it is shown");
    }
    let screen = terminal.screen().contents();
    assert!(screen.contains("host_start "), "{screen}");
    end(&mut terminal, "q");
}
