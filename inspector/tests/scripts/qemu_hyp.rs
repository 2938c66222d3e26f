//! hyp, by every road.

use crate::compare::{assert_agree, document, gdb, remote};
use crate::run::succeed;
use fixtures::LIMIT;
use fixtures::qemu::{Boot, Cpu};
use std::path::Path;
use tempfile::TempDir;

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn agree(cpu: Cpu) {
    let boot = Boot::hyp().expect("the image builds");
    let mut machine = boot
        .cpu(cpu)
        .cpus(2)
        .channel()
        .start()
        .expect("QEMU starts");
    machine
        .wait_for("round 2 done", LIMIT)
        .expect("the host runs");
    let hyp = machine.image().hyp.clone();
    let images = ["--image", text(&hyp)];
    let folder = TempDir::new().expect("a folder");

    for (road, server) in [("QEMU", machine.gdb()), ("channel", machine.channel())] {
        let live = document(&hyp, &remote(server));
        assert_agree(&live, server, &images);
        let file = folder.path().join(road);
        succeed([&["save", server, text(&file)], &images[..]].concat());
        let saved = document(&hyp, &format!("core-file {}", text(&file)));
        assert_agree(&saved, text(&file), &images);
        // The machine runs on.
        gdb(&hyp, &[&remote(server), "detach"], &[]);
    }
    // What CPUs were doing that hyp's own debugger has stopped, seen by QEMU's.
    gdb(&hyp, &[&remote(machine.channel()), "disconnect"], &[]);
    let parked = document(&hyp, &remote(machine.gdb()));
    assert_agree(&parked, machine.gdb(), &images);
    let cpus = parked["cpus"].as_array().expect("an array").iter();
    let all_parked = cpus.clone().all(|cpu| cpu["parked"] == true);
    assert!(all_parked, "{cpus:?}");
}

#[test]
fn on_armv8_0() {
    agree(Cpu::CortexA57);
}

#[test]
fn on_a_cpu_with_everything() {
    agree(Cpu::Max);
}
