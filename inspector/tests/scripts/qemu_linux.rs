//! Linux's pKVM, live and from snapshots.

use crate::compare::{assert_agree, assert_keeps, document, gdb, remote};
use crate::run::succeed;
use fixtures::{Boot, Cpu, Finally, Guests, Kernel};
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);

fn boot(kernel: Kernel, cpu: Cpu) -> Boot {
    let boot = Boot::linux(kernel).expect("the kernel is there");
    boot.cpu(cpu).cpus(2).guests(Guests::All)
}

fn agree(boot: &Boot, line: &str) {
    let mut machine = boot.start().expect("QEMU starts");
    machine.wait_for(line, LIMIT).expect("Linux gets there");
    machine.stop().expect("QEMU stops it");
    let vmlinux = machine.kernel().vmlinux.clone();
    let images = ["--image", vmlinux.to_str().expect("a plain path")];
    let live = document(&vmlinux, &remote(machine.gdb()));
    assert_agree(&live, machine.gdb(), &images);

    let folder = TempDir::new().expect("a folder");
    let path = |name| folder.path().join(name).display().to_string();
    let (file, by_gdb) = (path("snapshot"), path("by-gdb"));
    let connect = remote(machine.gdb());
    let snapshot = format!("hyp snapshot {by_gdb}");
    gdb(&vmlinux, &[&connect, &snapshot, "disconnect"], &[]);
    assert_keeps(&by_gdb, machine.gdb(), &images);
    let file = file.as_str();
    succeed([&["save", machine.gdb(), file], &images[..]].concat());
    drop(machine);
    let saved = document(&vmlinux, &format!("core-file {file}"));
    assert_agree(&saved, file, &images);
}

#[test]
fn linux_6_1() {
    agree(&boot(Kernel::Linux61, Cpu::CortexA72), "init: idle");
}

#[test]
fn linux_6_1_where_it_was_linked() {
    agree(&boot(Kernel::Linux61, Cpu::Max).kaslr(false), "init: idle");
}

#[test]
fn linux_7() {
    agree(&boot(Kernel::Linux7, Cpu::Max), "init: idle");
}

#[test]
fn linux_7_where_it_was_linked() {
    agree(
        &boot(Kernel::Linux7, Cpu::CortexA72).kaslr(false),
        "init: idle",
    );
}

/// That CPU's VTTBR_EL2, HCR_EL2 and VBAR_EL2 are the guest's, where the interrupt of the stop does not take it out.
#[test]
fn a_cpu_in_a_guest() {
    let boot = boot(Kernel::Linux7, Cpu::NeoverseN1).finally(Finally::SpinInGuest);
    agree(&boot, "init: spins in a guest");
}

#[test]
fn linux_6_1_is_stopped_where_its_el2_runs() {
    el2_is_stopped_where_it_runs(Kernel::Linux61, Cpu::CortexA72);
}

#[test]
fn linux_7_is_stopped_where_its_el2_runs() {
    el2_is_stopped_where_it_runs(Kernel::Linux7, Cpu::Max);
}

/// While Linux boots it touches most of its memory for the first time.
fn el2_is_stopped_where_it_runs(kernel: Kernel, cpu: Cpu) {
    let mut machine = boot(kernel, cpu).start().expect("QEMU starts");
    let up = "mode initialized successfully";
    machine.wait_for(up, LIMIT).expect("pKVM comes up");
    machine.stop().expect("QEMU stops it");
    let said = gdb(
        &machine.kernel().vmlinux,
        &[
            &remote(machine.gdb()),
            "hyp break handle_trap",
            "continue",
            "hyp symbols",
            "bt 1",
            "delete",
            "hyp abort",
            "hyp locks",
            "disconnect",
        ],
        &[],
    );
    let mut rest = said.as_str();
    for text in [
        "Breakpoint 1 at 0x",
        "hit Breakpoint 1, 0x",
        "EL2's symbols of ",
        "#0  handle_trap (",
        "abort from a lower level: ",
        "  IPA 0x",
        "  host ",
    ] {
        let found = rest.split_once(text);
        rest = found
            .unwrap_or_else(|| panic!("{text:?} is missing in:\n{said}"))
            .1;
    }
}
