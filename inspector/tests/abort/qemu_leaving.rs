//! However it ends, nothing of it stays in the machine, which is left as it was found.

use crate::client::Client;
use crate::qemu_hyp::{arguments, working};
use crate::rounds::goes_on;
use crate::run::inspector;
use crate::wire::{Then, Wire};
use fixtures::qemu::{Boot, Machine};
use std::process::{Child, Command, Stdio};
use std::sync::mpsc::channel;
use std::thread;

/// Asks for what never comes.
const NEVER: [&str; 3] = ["abort", "--ipa", "0x1000..0x2000"];

pub(crate) fn start(line: &[&str]) -> Child {
    let mut child = Command::new(env!("CARGO_BIN_EXE_inspector"));
    child
        .args(line)
        .stdout(Stdio::piped())
        .stderr(Stdio::piped());
    child.spawn().expect("the program runs")
}

/// One that waits for what never comes, and has come so far that it lets the machine run with its breakpoints set.
pub(crate) fn armed(machine: &Machine) -> Child {
    let wire = Wire::new();
    let child = start(&arguments(machine, wire.name(), &NEVER));
    let gdb = machine.gdb().to_owned();
    let (runs, it_runs) = channel();
    thread::spawn(move || {
        wire.carry(&gdb, |packet| {
            if packet == "vCont;c" {
                // Said again and again, for who has heard it once.
                let _ = runs.send(());
            }
            Then::Goes
        })
    });
    it_runs.recv().expect("it lets the machine run");
    child
}

pub(crate) fn signal(child: &Child, name: &str) {
    let id = child.id().to_string();
    let status = Command::new("kill")
        .args([name, &id])
        .status()
        .expect("kill runs");
    assert!(status.success());
}

#[test]
fn interrupted_while_armed_it_lets_the_machine_run_on() {
    let mut machine = working(&Boot::hyp().expect("the image builds").cpus(2));
    for name in ["-INT", "-TERM"] {
        let child = armed(&machine);
        goes_on(&mut machine);
        signal(&child, name);
        let output = child.wait_with_output().expect("it ends");
        let errors = String::from_utf8_lossy(&output.stderr);
        assert_eq!(output.status.code(), Some(3), "{errors}");
        assert!(errors.contains("interrupted"), "{errors}");
        goes_on(&mut machine);
    }
}

#[test]
fn a_machine_that_stood_stands_afterwards_and_has_no_breakpoints() {
    let mut machine = working(&Boot::hyp().expect("the image builds").cpus(2));
    let gdb = machine.gdb().to_owned();
    Client::connect(&gdb).order("Qqemu.PhyMemMode:0");
    let ran = inspector(arguments(&machine, &gdb, &["abort", "--count", "3"]));
    assert_eq!((ran.status, ran.stderr.as_str()), (0, ""));
    let mut client = Client::connect(&gdb);
    // A machine that ran would say that it stops.
    assert_eq!(client.ask("Qqemu.PhyMemMode:0"), b"OK");
    client.send("vCont;c");
    goes_on(&mut machine);
}

#[test]
fn a_machine_that_ends_is_one_sentence() {
    let machine = working(&Boot::hyp().expect("the image builds").cpus(2));
    let child = armed(&machine);
    drop(machine);
    let output = child.wait_with_output().expect("it ends");
    let errors = String::from_utf8(output.stderr).expect("text");
    let lines: Vec<&str> = errors.lines().collect();
    assert_eq!(lines.len(), 1, "{lines:?}");
    assert!(lines[0].starts_with("inspector: "), "{lines:?}");
}
