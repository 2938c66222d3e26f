//! Machines that idle: every answer is the oracle's.

use crate::machine::Linux;
use crate::oracle::assert_agrees;
use fixtures::{Boot, Cpu, Guests, Kernel};

fn idle(kernel: Kernel, cpu: Cpu, guests: Guests, kaslr: bool) {
    let boot = Boot::linux(kernel).expect("a kernel");
    let boot = boot.cpu(cpu).guests(guests).kaslr(kaslr);
    let linux = Linux::boot(boot, &["init: idle"]);
    let oracle = linux.oracle();
    assert_eq!(oracle["kernel"]["slide"] != "0x0", kaslr);
    assert_agrees(&linux, &oracle);
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
