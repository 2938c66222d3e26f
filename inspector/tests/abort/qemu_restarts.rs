//! A machine that is not what it was when it was armed.

use crate::qemu_hyp::{LIMIT, arguments, working};
use crate::qemu_leaving::{armed, start};
use crate::qemu_linux;
use crate::qemu_linux_touches::{LEVEL_0, Obedient};
use crate::rounds::goes_on;
use crate::run::succeed;
use fixtures::Kernel;
use fixtures::qemu::Boot;
use std::io::{BufRead, BufReader};

#[test]
fn a_machine_that_restarts_is_one_sentence_and_is_followed_anew() {
    let mut machine = working(&Boot::hyp().expect("the image builds").cpus(2));
    let gdb = machine.gdb().to_owned();
    let child = armed(&machine);
    goes_on(&mut machine);
    machine.reset().expect("QEMU restarts it");
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("the machine has restarted"), "{errors}");
    // It ran, and runs; nothing is armed.
    machine.wait_for("round 2 done", LIMIT).expect("it boots");
    goes_on(&mut machine);
    let story = succeed(arguments(&machine, &gdb, &["abort"])).json();
    assert_eq!(story["aborts"].as_array().map(Vec::len), Some(1));
}

/// A machine that stood is let run, told its first abort of two, and has restarted before the second.
fn linux_restarts(kernel: Kernel) {
    let mut linux = Obedient::new(kernel);
    let first = 2 * LEVEL_0;
    let device = format!("device {first:#x}");
    linux.machine.tell(&device).expect("it listens");
    let range = format!("{first:#x}..{:#x}", 4 * LEVEL_0);
    let mut line =
        qemu_linux::arguments(&linux.machine, &["abort", "--ipa", &range, "--count", "2"]);
    line.retain(|word| *word != "--json");
    let mut child = start(&line);
    let mut told = String::new();
    let out = child.stdout.take().expect("a pipe");
    let mut out = BufReader::new(out);
    out.read_line(&mut told).expect("a line");
    // How much is for the kernel to say: 6.1 asks for more than a block.
    let mapped = [": mapped, ", &format!(" at {first:#x}")];
    assert!(mapped.iter().all(|words| told.contains(words)), "{told}");
    linux.machine.reset().expect("QEMU restarts it");
    // Nobody reads the rest of the story, which has its place in the pipe.
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("the machine has restarted"), "{errors}");
    // It stood, and stands; nothing is armed.
    linux.says("init: obeys");
    let story = linux.stories(&device, first, 0x1000, &[]).remove(0);
    assert_eq!(story["outcome"], "mapped", "{story}");
}

#[test]
fn linux_6_1_that_restarts_is_one_sentence_and_is_followed_anew() {
    linux_restarts(Kernel::Linux61);
}

#[test]
fn linux_7_that_restarts_is_one_sentence_and_is_followed_anew() {
    linux_restarts(Kernel::Linux7);
}
