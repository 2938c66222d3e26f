//! A memory dump of QEMU says what the machine itself says, but for what only registers tell.

use crate::machine::Linux;
use crate::oracle::array;
use crate::run::{Ran, inspector};
use fixtures::{Boot, Cpu, Guests, Kernel};
use serde_json::Value;
use std::path::{Path, PathBuf};
use tempfile::TempDir;

const RAM: u64 = 0x4000_0000;

/// A machine with guests that stands still, and dumps of it.
struct Dumped {
    linux: Linux,
    folder: TempDir,
}

impl Dumped {
    fn boot(kernel: Kernel, cpu: Cpu) -> Self {
        let boot = Boot::linux(kernel).expect("a kernel");
        let boot = boot.cpu(cpu).guests(Guests::All);
        let linux = Linux::boot(boot, &["init: idle"]);
        linux.machine.stop().expect("it stops");
        Self {
            linux,
            folder: TempDir::new().expect("a folder"),
        }
    }

    fn dump(&self, name: &str, range: Option<(u64, u64)>) -> PathBuf {
        let file = self.folder.path().join(name);
        self.linux.machine.dump(&file, range).expect("a dump");
        file
    }

    /// What a dump says with the kernel's file.
    fn ask(&self, dump: &Path, words: &[&str]) -> Ran {
        let image = text(&self.linux.machine.kernel().vmlinux);
        ask(text(dump), &[words, &["--image", image, "--json"]].concat())
    }
}

fn ask(target: &str, words: &[&str]) -> Ran {
    inspector([&words[..1], &[target], &words[1..]].concat())
}

fn text(path: &Path) -> &str {
    path.to_str().expect("a plain path")
}

fn assert_same(dumped: &Ran, live: &Ran, words: &[&str]) {
    assert_eq!(
        (dumped.status, dumped.stderr.as_str()),
        (0, ""),
        "{words:?}"
    );
    let (dumped, live) = (dumped.without_target(), live.without_target());
    let mut lines = dumped.lines().zip(live.lines());
    assert_eq!(lines.find(|(a, b)| a != b), None, "{words:?}");
    assert_eq!(dumped.len(), live.len(), "{words:?}");
}

/// What every CPU of the dump says of itself is what it said live, less its system registers, which are not in it.
fn assert_cpus_agree(dumped: &Ran, live: &Ran) {
    assert_eq!((dumped.status, dumped.stderr.as_str()), (0, ""));
    let (dumped, live) = (dumped.json(), live.json());
    let (dumped, live) = (array(&dumped, "cpus"), array(&live, "cpus"));
    assert_eq!(dumped.len(), live.len());
    for (dumped, live) in dumped.iter().zip(live) {
        // From EL2 the host's calls are reached by registers.
        let below_el2 = live["el"] != 2;
        let known = ["cpu", "el", "pc", "symbol", "vcpu", "stage2", "calls"];
        for known in &known[..if below_el2 { 7 } else { 5 }] {
            assert_eq!(dumped[known], live[known], "{known}");
        }
        assert!(dumped["pc"].is_string() && dumped["symbol"].is_string());
        let mut registers = dumped["registers"].as_object().expect("registers").values();
        assert!(registers.all(Value::is_null), "{dumped}");
    }
}

fn compare(kernel: Kernel, cpu: Cpu) {
    let machine = Dumped::boot(kernel, cpu);
    let whole = machine.dump("whole", None);
    for words in [
        &["list", "--no-merge"][..],
        &["owners"],
        &["locks"],
        &["vms"],
        &["page", "0x41000000"],
        &["walk", "host-s2", "0x41000000"],
        &["walk", "hyp-s1", "0x41000000"],
    ] {
        let live = machine.linux.try_ask(words);
        assert_same(&machine.ask(&whole, words), &live, words);
    }
    let live = machine.linux.try_ask(&["cpus"]);
    assert_cpus_agree(&machine.ask(&whole, &["cpus"]), &live);

    // The hypervisor's memory is at the end of RAM, and so are the roots of all tables.
    let half = machine.dump("half", Some((RAM, 256 << 20)));
    let list = machine.ask(&half, &["list"]);
    assert_eq!(list.status, 3);
    assert!(
        list.stderr.contains("is not in this file"),
        "{}",
        list.stderr
    );
    let list = list.json();
    assert_eq!(list["complete"], false);
    assert!(array(&list, "regimes").len() >= 2, "{list}");
}

#[test]
fn linux_6_1() {
    compare(Kernel::Linux61, Cpu::CortexA72);
}

#[test]
fn linux_7() {
    compare(Kernel::Linux7, Cpu::Max);
}

/// Names and types are in the dump itself, where the kernel names its data.
#[test]
fn without_the_kernels_file() {
    let machine = Dumped::boot(Kernel::Linux7, Cpu::CortexA72);
    let whole = machine.dump("whole", None);
    for words in [
        &["list", "--no-merge"][..],
        &["owners"],
        &["locks"],
        &["vms"],
    ] {
        let words = [words, &["--json"]].concat();
        let live = ask(machine.linux.machine.gdb(), &words);
        let dumped = ask(text(&whole), &words);
        assert_same(&dumped, &live, &words);
    }
}
