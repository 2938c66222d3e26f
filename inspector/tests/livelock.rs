//! Linux 7.x on a cortex-a57, which never gets beyond its first host abort: what the walk-through in WALKTHROUGH.md shows.

use client::Client;
use fixtures::{Boot, Cpu, Kernel, qemu::Machine};
use run::succeed;
use serde_json::Value;
use std::fs;

#[path = "support/client.rs"]
#[expect(dead_code, reason = "shared with tests that ask for more")]
mod client;
#[path = "support/run.rs"]
#[expect(dead_code, reason = "shared with tests that ask for more")]
mod run;

/// More looks than it takes until one finds the machine in its loop.
const LOOKS: usize = 30;

fn look(machine: &Machine, words: &[&str]) -> Value {
    let vmlinux = machine.kernel().vmlinux.to_str().expect("a plain path");
    let (command, rest) = words.split_first().expect("a command");
    let mut line = vec![*command, machine.gdb()];
    line.extend(rest);
    line.extend(["--image", vmlinux, "--json"]);
    succeed(line).json()
}

/// The first CPU at EL2 with an abort that came from the host; attaching stops the machine, leaving lets it run on.
fn aborting(machine: &Machine) -> Value {
    let cpus = look(machine, &["cpus"]);
    let cpus = cpus["cpus"].as_array().expect("an array");
    let at_el2 = |cpu: &&Value| cpu["el"] == 2 && !cpu["abort"].is_null();
    cpus.iter().find(at_el2).cloned().unwrap_or_default()
}

/// Lets it run until the kernel is about to switch the host's stage 2 on.
fn run_to_the_last_step(machine: &Machine) {
    let names = fs::read_to_string(&machine.kernel().system_map).expect("it is beside vmlinux");
    let mut lines = names.lines();
    let line = lines.find(|line| line.ends_with(" _kvm_host_prot_finalize"));
    let address = line.and_then(|line| line.split(' ').next());
    let place = format!("1,{},4", address.expect("the kernel has it"));
    let mut client = Client::connect(machine.gdb());
    client.order(&format!("Z{place}"));
    client.send("vCont;c");
    client.stop();
    client.order(&format!("z{place}"));
    client.order("D");
}

#[test]
fn a_first_host_abort_that_never_ends() {
    let boot = Boot::linux(Kernel::Linux7).expect("the kernel is there");
    let boot = boot.cpu(Cpu::CortexA57).kaslr(false).paused();
    let machine = boot.start().expect("QEMU starts");
    run_to_the_last_step(&machine);
    let first = (0..LOOKS).map(|_| aborting(&machine));
    let first = { first }.find(|cpu| !cpu.is_null()).expect("an abort");

    let abort = &first["abort"];
    assert_eq!(
        abort["what"],
        "instruction abort from a lower level: translation fault, level 0, on a stage-1 walk"
    );
    assert_eq!(abort["regime"], "host-s2");
    assert_eq!(abort["result"], "hole", "nobody maps it");
    let symbol = abort["symbol"].as_str().expect("a symbol");
    assert!(symbol.starts_with("_kvm_host_prot_finalize+"), "{symbol}");
    let calls = first["calls"].as_array().expect("an array");
    let from = calls.iter().find(|call| call["pc"] == abort["pc"]);
    assert!(from.is_some(), "the way back leads to the host: {calls:?}");
    let ipa = abort["ipa"].as_str().expect("an IPA");
    assert_eq!(look(&machine, &["walk", "host-s2", ipa])["result"], "hole");
    let page = look(&machine, &["page", ipa]);
    assert_eq!(
        (&page["owner"], &page["host"]),
        (&"host".into(), &"owned".into())
    );

    let again = (0..LOOKS).map(|_| aborting(&machine));
    let again = { again }.find(|cpu| !cpu.is_null()).expect("an abort");
    assert_eq!(again["cpu"], first["cpu"], "the same CPU");
    assert_eq!(again["abort"], first["abort"], "the very same abort");

    let locks = look(&machine, &["locks"]);
    let locks = locks["locks"].as_array().expect("an array");
    let host = locks.iter().find(|lock| lock["name"] == "host");
    let host = host.expect("the host's lock");
    assert_eq!(
        (&host["held"], &host["owner_ticket"]),
        (&false.into(), &0.into()),
        "it was never taken: {host}"
    );
}
