//! Machines that idle: every answer is the oracle's.

use crate::machine::Linux;
use crate::oracle::{array, assert_agrees};
use fixtures::{Boot, Cpu, Guests, Kernel};
use serde_json::{Value, json};

fn idle(kernel: Kernel, cpu: Cpu, guests: Guests, kaslr: bool) {
    let boot = Boot::linux(kernel).expect("a kernel");
    let boot = boot.cpu(cpu).guests(guests).kaslr(kaslr);
    let linux = Linux::boot(boot, &["init: idle"]);
    let oracle = linux.oracle();
    assert_eq!(oracle["kernel"]["slide"] != "0x0", kaslr);
    assert_agrees(&linux, &oracle);
    // The names of 6.1 are relocated in RAM; those of 7 do not say where they were linked.
    let slide = match (kernel, kaslr) {
        (Kernel::Linux7, true) => oracle["kernel"]["slide"].clone(),
        _ => json!("unknown"),
    };
    assert_eq!(slide_without_file(&linux), slide);
}

fn slide_without_file(linux: &Linux) -> Value {
    let info = linux.ask_without(&["info"]).json();
    let mut facts = array(&info, "facts").iter();
    let slide = facts.find(|fact| fact["what"] == "KASLR slide");
    slide.expect("a fact")["value"].clone()
}

#[test]
fn linux_6_1_on_cortex_a72_with_a_guest() {
    idle(Kernel::Linux61, Cpu::CortexA72, Guests::All, true);
}

#[test]
fn linux_7_on_cortex_a72_at_its_linked_address() {
    idle(Kernel::Linux7, Cpu::CortexA72, Guests::All, false);
}

#[test]
fn linux_7_on_max_with_guests() {
    idle(Kernel::Linux7, Cpu::Max, Guests::All, true);
}
