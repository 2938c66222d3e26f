//! How often a capture waits for the link, which is what it costs over a slow one.

use crate::counted::Counted;
use crate::machine::Linux;
use fixtures::{Boot, Cpu, Guests, Kernel};
use inspector::arch::walk::walk_together;
use inspector::hypervisor;
use inspector::image::Images;
use inspector::target::{self, Target};

/// The registers and the tables of the host and the hypervisor are what issue 4 limits; the whole has some more.
fn assert_few(cpu: Cpu) {
    let boot = Boot::linux(Kernel::Linux7).expect("a kernel");
    let linux = Linux::boot(boot.cpu(cpu).guests(Guests::All), &["init: idle"]);
    let target = target::open(linux.machine.gdb(), fixtures::LIMIT).expect("it answers");
    let mut target = Counted { target, waits: 0 };
    let vmlinux = linux.machine.kernel().vmlinux.clone();
    let mut images = Images::open(&[vmlinux]).expect("it is a kernel");
    let system = hypervisor::capture(&mut target, &mut images).expect("the link holds");
    assert!(system.complete, "{:?}", system.problems);
    assert!(!system.vms.is_empty());
    let whole = target.waits;
    assert!(whole <= 20, "{whole} waits for a capture on {cpu:?}");

    let named = |name: &str| system.regimes.iter().find(|known| known.name == name);
    let both = ["host-s2", "hyp-s1"].map(|name| &named(name).expect("it is up").regime);
    target.waits = 0;
    target.all_registers().expect("the link holds");
    walk_together(&both, &mut |spans| target.read_phys(spans)).expect("the link holds");
    let tables = target.waits;
    assert!(tables <= 10, "{tables} waits for the tables on {cpu:?}");
    println!("{cpu:?}: {tables} waits for registers and tables, {whole} for all");
}

#[test]
fn of_linux_7_on_cortex_a72() {
    assert_few(Cpu::CortexA72);
}

#[test]
fn of_linux_7_on_max() {
    assert_few(Cpu::Max);
}
