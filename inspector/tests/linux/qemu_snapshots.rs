//! What was saved on Linux says the same where there is no kernel file.

use crate::machine::Linux;
use crate::run::succeed;
use fixtures::{Boot, Cpu, Guests, Kernel};
use std::fs;
use tempfile::TempDir;

/// Of a machine with 512 MiB.
const SIZE_LIMIT: u64 = 2 << 20;

fn snapshot(kernel: Kernel, cpu: Cpu) {
    let boot = Boot::linux(kernel).expect("a kernel");
    let boot = boot.cpu(cpu).guests(Guests::All);
    let linux = Linux::boot(boot, &["init: idle"]);
    // So that it stands still.
    linux.oracle();
    let asked: [&[&str]; 8] = [
        &["list", "--no-merge"],
        &["owners"],
        &["locks"],
        &["cpus"],
        &["vms"],
        &["page", "0x41000000"],
        &["walk", "host-s2", "0x41000000"],
        &["walk", "hyp-s1", "0x41000000"],
    ];
    let live: Vec<_> = asked.iter().map(|words| linux.try_ask(words)).collect();

    let folder = TempDir::new().expect("a folder");
    let file = folder.path().join("snapshot");
    let name = file.to_str().expect("a plain path");
    let saved = linux.try_ask(&["save", name]);
    assert_eq!(saved.status, 0, "{}", saved.stderr);
    drop(linux);
    let size = fs::metadata(&file).expect("a file").len();
    assert!(size <= SIZE_LIMIT, "{size} bytes");
    for (words, live) in asked.iter().zip(live) {
        let line = [&words[..1], &[name], &words[1..], &["--json"]].concat();
        let saved = succeed(line).without_target();
        let live = live.without_target();
        let differs = saved
            .lines()
            .zip(live.lines())
            .find(|(saved, live)| saved != live);
        assert_eq!(differs, None, "{words:?}");
        assert_eq!(saved.len(), live.len(), "{words:?}");
    }
}

#[test]
fn linux_6_1() {
    snapshot(Kernel::Linux61, Cpu::CortexA72);
}

#[test]
fn linux_7() {
    snapshot(Kernel::Linux7, Cpu::Max);
}
