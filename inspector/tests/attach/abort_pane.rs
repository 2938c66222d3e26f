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

/// A machine that does what it is told, the pane on it, and the root of its host's stage 2. Only aborts there are followed.
fn obedient(kernel: Kernel) -> (Machine, Terminal, u64) {
    let boot = Boot::linux(kernel).expect("a kernel").cpu(Cpu::CortexA72);
    let boot = boot.cpus(CPUS as u32).finally(Finally::Obey);
    let mut machine = boot.start().expect("QEMU starts");
    machine.wait_for("init: obeys", LIMIT).expect("init runs");
    let gdb = machine.gdb().to_owned();
    let vmlinux = machine.kernel().vmlinux.display().to_string();
    let info = inspector(["info", &gdb, "--image", &vmlinux, "--json"].map(str::to_owned));
    let info: serde_json::Value = serde_json::from_str(&info.stdout).expect("JSON");
    let root = info["regimes"][0]["root"].as_str().expect("a root");
    let root = u64::from_str_radix(root.trim_start_matches("0x"), 16).expect("a number");
    let arguments = ["tui", &gdb, "--background", "dark", "--image", &vmlinux];
    let look = Look::dark(160, 50);
    let terminal =
        Terminal::start(Path::new(INSPECTOR), &arguments, Path::new("/"), look).expect("it starts");
    terminal.wait_for("capture 1,").expect("a capture");
    let only = format!("--ipa {root:#x}..{:#x}", root + 0x1000);
    for (keys, words) in [
        (format!("9F{only}\r"), only.as_str()),
        ("A".to_owned(), "▶ running"),
    ] {
        terminal.send(&keys).expect("it reads");
        terminal.wait_for(words).expect("it is shown");
    }
    machine
        .tell(&format!("read {root:#x}"))
        .expect("it listens");
    (machine, terminal, root)
}

/// An entry more in the root, which EL2 counts in the record of that page.
#[test]
fn qemu_linux_7_says_who_writes_the_record_of_a_page() {
    let (mut machine, mut terminal, root) = obedient(Kernel::Linux7);
    terminal.wait_for("─ refused ─").expect("the root is hyp's");
    terminal.send("urecord\r").expect("it reads");
    terminal.wait_for("waiting for a write").expect("it runs");
    // What an entry at level 0 covers, of which nothing is mapped yet.
    machine.tell("device 0x10000000000").expect("it listens");
    let title = format!("the record of page {root:#x} was written");
    terminal.wait_for(&title).expect("it is counted");
    for words in [
        "__kvm_nvhe_hyp_get_page+0x",
        "host held by this CPU",
        "host-pool held by this CPU",
        "__kvm_nvhe_handle_host_mem_abort",
    ] {
        terminal.wait_for(words).expect("it is told");
    }
    end(&mut terminal, "q");
}

/// 6.1 has no other answer to a touch of hyp's memory. A run to the next refused one ends there, too.
#[test]
fn qemu_linux_6_1_is_stopped_in_its_panic() {
    let (_machine, mut terminal, _) = obedient(Kernel::Linux61);
    for words in [
        "─ panic ─",
        "the hypervisor panicked at",
        "no trap is followed after that",
    ] {
        terminal.wait_for(words).expect("it panics");
    }
    end(&mut terminal, "q");
}
