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

/// The host's next rounds.
fn goes_on(machine: &mut Machine) {
    for _ in 0..3 {
        machine
            .wait_for("done: 2 CPUs", LIMIT)
            .expect("the host goes on");
    }
}

/// It stands or runs as before, and where it runs nothing stops it.
fn assert_free(machine: &mut Machine, runs: bool, by: &str) {
    let (mut client, ran) = look(machine);
    assert_eq!(ran, runs, "runs after {by}");
    client.send("vCont;c");
    goes_on(machine);
    client.interrupt();
    let stop = client.stop();
    assert!(stop.starts_with("T02"), "{by}: {stop}");
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
