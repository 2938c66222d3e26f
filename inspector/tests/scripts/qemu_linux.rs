//! Linux's pKVM, live and from snapshots.

use crate::compare::{assert_agree, document, remote};
use crate::run::succeed;
use fixtures::{Boot, Cpu, Guests, Kernel};
use std::time::Duration;
use tempfile::TempDir;

const LIMIT: Duration = Duration::from_secs(120);

fn agree(kernel: Kernel, cpu: Cpu, kaslr: bool) {
    let boot = Boot::linux(kernel).expect("the kernel is there");
    let boot = boot.cpu(cpu).cpus(2).guests(Guests::All).kaslr(kaslr);
    let mut machine = boot.start().expect("QEMU starts");
    machine
        .wait_for("init: idle", LIMIT)
        .expect("Linux gets there");
    machine.stop().expect("QEMU stops it");
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

#[test]
fn linux_6_1() {
    agree(Kernel::Linux61, Cpu::CortexA72, true);
}

#[test]
fn linux_6_1_where_it_was_linked() {
    agree(Kernel::Linux61, Cpu::Max, false);
}

#[test]
fn linux_7() {
    agree(Kernel::Linux7, Cpu::Max, true);
}

#[test]
fn linux_7_where_it_was_linked() {
    agree(Kernel::Linux7, Cpu::CortexA72, false);
}
