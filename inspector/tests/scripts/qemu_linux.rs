//! Linux's pKVM, live and from snapshots.

use crate::compare::{
    PHYSICAL, VIRTUAL, assert_agree, assert_agree_on_held_locks, assert_keeps, assert_says,
    document, gdb, remote, test_script,
};
use crate::run::succeed;
use fixtures::LIMIT;
use fixtures::{Boot, Cpu, Finally, Guests, Kernel, Machine};
use tempfile::TempDir;

fn boot(kernel: Kernel, cpu: Cpu) -> Boot {
    let boot = Boot::linux(kernel).expect("the kernel is there");
    boot.cpu(cpu).cpus(2).guests(Guests::All)
}

fn stopped(boot: &Boot, line: &str) -> Machine {
    let mut machine = boot.start().expect("QEMU starts");
    machine.wait_for(line, LIMIT).expect("Linux gets there");
    machine.stop().expect("QEMU stops it");
    machine
}

fn agree(machine: Machine) {
    let vmlinux = machine.kernel().vmlinux.clone();
    let images = ["--image", vmlinux.to_str().expect("a plain path")];
    let live = document(&vmlinux, &remote(machine.gdb()));
    assert_agree(&live, machine.gdb(), &images);

    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("snapshot");
    let file = file.to_str().expect("a plain path");
    succeed([&["save", machine.gdb(), file], &images[..]].concat());
    drop(machine);
    let saved = document(&vmlinux, &format!("core-file {file}"));
    assert_agree(&saved, file, &images);
}

/// A snapshot that gdb makes says what the machine does.
fn keeps(machine: &Machine) {
    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("snapshot");
    let file = file.to_str().expect("a plain path");
    let (connect, snapshot) = (remote(machine.gdb()), format!("hyp snapshot {file}"));
    let vmlinux = &machine.kernel().vmlinux;
    gdb(vmlinux, &[&connect, &snapshot, "disconnect"], &[]);
    let images = ["--image", vmlinux.to_str().expect("a plain path")];
    assert_keeps(file, machine.gdb(), &images);
}

#[test]
fn linux_6_1() {
    let machine = stopped(&boot(Kernel::Linux61, Cpu::CortexA72), "init: idle");
    keeps(&machine);
    agree(machine);
}

#[test]
fn linux_6_1_where_it_was_linked() {
    let boot = boot(Kernel::Linux61, Cpu::Max).kaslr(false);
    agree(stopped(&boot, "init: idle"));
}

#[test]
fn linux_7() {
    let machine = stopped(&boot(Kernel::Linux7, Cpu::Max), "init: idle");
    keeps(&machine);
    agree(machine);
}

#[test]
fn linux_7_where_it_was_linked() {
    let boot = boot(Kernel::Linux7, Cpu::CortexA72).kaslr(false);
    agree(stopped(&boot, "init: idle"));
}

/// That CPU's VTTBR_EL2, HCR_EL2 and VBAR_EL2 are the guest's, where the interrupt of the stop does not take it out.
#[test]
fn a_cpu_in_a_guest() {
    let boot = boot(Kernel::Linux7, Cpu::NeoverseN1).finally(Finally::SpinInGuest);
    agree(stopped(&boot, "init: spins in a guest"));
}

#[test]
fn linux_6_1_is_stopped_where_its_el2_runs() {
    el2_is_stopped_where_it_runs(Kernel::Linux61, Cpu::CortexA72);
}

#[test]
fn linux_7_is_stopped_where_its_el2_runs() {
    el2_is_stopped_where_it_runs(Kernel::Linux7, Cpu::Max);
}

/// When it runs on, a process touches what no CPU has touched yet.
fn el2_is_stopped_where_it_runs(kernel: Kernel, cpu: Cpu) {
    /// QEMU's PCIe window of 512 GiB.
    const WINDOW: &str = "device 0x8000000000";
    let boot = boot(kernel, cpu).finally(Finally::Obey);
    let mut machine = stopped(&boot, "init: obeys");
    machine.tell(WINDOW).expect("it listens");
    let vmlinux = machine.kernel().vmlinux.clone();
    let connect = remote(machine.gdb());
    let said = gdb(
        &vmlinux,
        &[
            &connect,
            "hyp break handle_trap",
            "continue",
            "hyp symbols",
            "bt 1",
            "delete",
            "hyp abort",
            // Here it has the host's lock.
            "hyp break kvm_pgtable_stage2_map",
            "continue",
            "hyp locks",
            "disconnect",
        ],
        &[],
    );
    assert_says(
        &said,
        &[
            "Breakpoint 1 at 0x",
            "hit Breakpoint 1, 0x",
            "EL2's symbols of ",
            "#0  handle_trap (",
            "abort from a lower level: ",
            "  IPA 0x",
            "  host ",
            "kvm_pgtable_stage2_map (",
            "  host ",
            "held by CPU ",
        ],
    );
    let images = ["--image", vmlinux.to_str().expect("a plain path")];
    let stopped = document(&vmlinux, &connect);
    assert_agree_on_held_locks(&stopped, machine.gdb(), &images);
}

/// gdb finds types soon in the file that has them, which `list` opens. Nothing is mapped any more, so that no CPU has the lock.
#[test]
fn values_of_linux_7_print_as_what_they_say() {
    let boot = boot(Kernel::Linux7, Cpu::Max).guests(Guests::None);
    let machine = stopped(&boot, "init: idle");
    let said = gdb(
        &machine.kernel().vmlinux,
        &[
            "set listsize 1",
            "list handle_host_mem_abort",
            &remote(machine.gdb()),
            &test_script("places.py"),
            PHYSICAL,
            "print *(kvm_pte_t *)$annotation",
            "print *(struct hyp_page *)$record",
            "print *(hyp_spinlock_t *)$lock",
            VIRTUAL,
            "disconnect",
        ],
        &[],
    );
    assert_says(
        &said,
        &[
            "= 0x2000000000000002 invalid, owner 1\n",
            "= refcount ",
            ", host no-page, hyp owned",
            "= free, ticket ",
        ],
    );
}
