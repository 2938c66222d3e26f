//! A server that has no room for breakpoints: hyp's, whose places are all taken.

use crate::client::Client;
use crate::qemu_hyp::{arguments, read, working};
use crate::qemu_leaving::start;
use crate::rounds::goes_on;
use crate::wire::{Then, Wire};
use fixtures::qemu::{Boot, Machine};
use inspector::image::Images;
use inspector::target::rsp;
use serde_json::Value;
use std::process::Output;

/// Memory that nobody uses.
const UNUSED: u64 = 0x4350_0000;
/// VA − PA of hyp.
const OFFSET: u64 = 0x40_0000_0000;
/// A place has three words: two addresses, and the instruction.
const PLACE: usize = 24;
const PLACES: usize = 64;

/// Takes all places but `free`, by QEMU's gdb server.
fn take_places(machine: &Machine, free: usize) {
    let mut images = Images::open(&[machine.image().hyp.clone()]).expect("an ELF");
    let symbols = images.symbols();
    let places = symbols
        .iter()
        .find(|symbol| symbol.name.ends_with("breakpoints::PLACES"))
        .expect("hyp's breakpoints");
    assert_eq!(places.size as usize, PLACES * PLACE);
    let mut qemu = Client::connect(machine.gdb());
    qemu.order("Qqemu.PhyMemMode:1");
    for word in 0..(PLACES - free) * PLACE / 8 {
        let at = places.address - OFFSET + 8 * word as u64;
        let data = rsp::to_hex(&UNUSED.to_le_bytes());
        qemu.order(&format!("M{at:x},8:{data}"));
    }
    qemu.order("Qqemu.PhyMemMode:0");
    qemu.order("D");
}

/// What `abort` says where only so many places are free.
fn follow(machine: &Machine, free: usize) -> Output {
    let wire = Wire::new();
    let child = start(&arguments(machine, wire.name(), &["abort", "--count", "1"]));
    let mut packets = 0;
    wire.carry(machine.channel(), |_| {
        // A client's greeting frees all, and is answered before its next packet.
        if packets == 1 {
            take_places(machine, free);
        }
        packets += 1;
        Then::Goes
    });
    child.wait_with_output().expect("it ends")
}

#[test]
fn a_channel_that_is_full_is_one_sentence_and_left_without_breakpoints() {
    let mut machine = working(&Boot::hyp().expect("the image builds").cpus(2).channel());
    let output = follow(&machine, 0);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert_eq!(output.status.code(), Some(3), "{errors}");
    println!("{errors}");
    assert_eq!(errors.lines().count(), 1, "{errors}");
    assert!(errors.contains("no room for another"), "{errors}");
    goes_on(&mut machine);

    let output = follow(&machine, 3);
    let errors = String::from_utf8_lossy(&output.stderr);
    assert!(output.status.success(), "{errors}");
    let document: Value = serde_json::from_slice(&output.stdout).expect("JSON");
    let missing = document["aborts"][0]["road"]["missing"].as_array();
    let says = |missing: &Value| missing["reason"] == "the server has no room for another";
    assert!(
        missing.is_some_and(|missing| missing.iter().any(says)),
        "{document}"
    );
    goes_on(&mut machine);
    let mut qemu = Client::connect(machine.gdb());
    qemu.order("Qqemu.PhyMemMode:1");
    assert_eq!(read(&mut qemu, UNUSED), 0);
    qemu.order("Qqemu.PhyMemMode:0");
}
