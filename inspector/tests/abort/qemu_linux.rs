//! Linux while it boots, which is when it touches most of its memory for the first time.

use crate::client::Client;
use crate::run::{inspector, succeed};
use crate::tables::{Root, check, number, written};
pub(crate) use fixtures::LIMIT;
use fixtures::{Boot, Cpu, Finally, Guests, Kernel, Machine};
use serde_json::Value;
use std::fs::File;
use std::os::unix::fs::FileExt;
use std::path::Path;
use std::time::Duration;
use tempfile::TempDir;

pub(crate) const RAM: u64 = 0x4000_0000;

pub(crate) fn arguments<'a>(machine: &'a Machine, rest: &[&'a str]) -> Vec<&'a str> {
    let vmlinux = machine.kernel().vmlinux.to_str().expect("a plain path");
    let mut line = vec![rest[0], machine.gdb(), "--image", vmlinux, "--json"];
    line.extend(&rest[1..]);
    line
}

/// A word of a machine's memory, which is a file.
pub(crate) fn word(ram: &File, at: u64) -> u64 {
    let mut bytes = [0; 8];
    ram.read_exact_at(&mut bytes, at - RAM).expect("it is RAM");
    u64::from_le_bytes(bytes)
}

fn started(kernel: Kernel, cpu: Cpu, ram: &Path) -> (Machine, File) {
    let boot = Boot::linux(kernel)
        .expect("the kernel is there")
        .cpu(cpu)
        .cpus(1);
    let machine = boot.paused().ram_file(ram).start().expect("QEMU starts");
    (machine, File::open(ram).expect("QEMU made it"))
}

/// One CPU, so that between two stops nothing but what a story tells can have changed the host's tables.
fn follows(kernel: Kernel, cpu: Cpu) {
    let folder = TempDir::new().expect("a folder");
    let (machine, ram) = started(kernel, cpu, &folder.path().join("ram"));
    // The first one waits for pKVM to come up, and says so.
    let first = inspector(arguments(&machine, &["abort"]));
    assert_eq!(first.status, 0, "{}", first.stderr);
    assert!(
        first.stderr.contains("waiting until one does"),
        "{}",
        first.stderr
    );
    let first = &first.json()["aborts"][0];
    assert_first(first);
    let root = Root::of(&succeed(arguments(&machine, &["info"])).json());
    let mut read = |at| word(&ram, at);
    check(first, &root, &mut read);
    let mut before = root.words(&mut read);
    let mut mapped = 0;
    for _ in 0..10 {
        let document = succeed(arguments(&machine, &["abort"])).json();
        let story = &document["aborts"][0];
        check(story, &root, &mut read);
        let after = root.words(&mut read);
        let addresses = before
            .keys()
            .chain(after.keys())
            .collect::<std::collections::BTreeSet<_>>();
        let of =
            |words: &std::collections::BTreeMap<u64, u64>, at| words.get(at).copied().unwrap_or(0);
        let changed: Vec<_> = addresses
            .into_iter()
            .map(|at| (*at, of(&before, at), of(&after, at)))
            .filter(|(_, old, new)| old != new)
            .collect();
        assert_eq!(written(story), changed, "{story}");
        mapped += usize::from(story["outcome"] == "mapped");
        assert_eq!(story["road"]["writes_by"], "under-lock", "{story}");
        let entry = &story["road"]["entry"]["symbol"];
        assert_eq!(entry, "__kvm_nvhe_handle_host_mem_abort", "{story}");
        before = after;
    }
    assert!(mapped > 0, "nothing was mapped");
}

/// Stage 2 has just come on in what EL1 has called, which is to go on at its next instruction: that cannot be fetched, or not
/// even its translation.
fn assert_first(story: &Value) {
    assert_eq!(number(&story["esr"]) >> 26, 0x20, "{story}");
    assert_eq!(story["far"], story["pc"], "{story}");
    let symbol = story["symbol"].as_str().expect("a name");
    assert!(symbol.starts_with("_kvm_host_prot_finalize+"), "{symbol}");
    assert_eq!(story["walk"]["result"], "hole", "{story}");
}

#[test]
fn linux_6_1_maps_what_its_story_says() {
    follows(Kernel::Linux61, Cpu::CortexA72);
}

#[test]
fn linux_7_maps_what_its_story_says() {
    follows(Kernel::Linux7, Cpu::CortexA72);
}

#[test]
fn linux_7_with_hvhe_maps_what_its_story_says() {
    follows(Kernel::Linux7, Cpu::NeoverseN1);
}

/// The same abort again and again: no lock, no mapping.
#[test]
fn a_livelock_is_told_as_what_it_is() {
    let folder = TempDir::new().expect("a folder");
    let (machine, _) = started(Kernel::Linux7, Cpu::CortexA57, &folder.path().join("ram"));
    let ran = inspector(arguments(&machine, &["abort", "--count", "5"]));
    assert_eq!(ran.status, 0, "{}", ran.stderr);
    let document = ran.json();
    let stories = document["aborts"].as_array().expect("an array");
    assert_eq!(stories.len(), 5);
    for story in stories {
        assert_eq!(story["outcome"], "gave-up");
        assert_eq!(
            (&story["ipa"], &story["pc"]),
            (&stories[0]["ipa"], &stories[0]["pc"])
        );
        assert_eq!(story["after"]["pc"], story["pc"], "the host tries again");
        assert_eq!(story["writes"], Value::Array(Vec::new()));
        assert_eq!(
            story["changes"]["locks"],
            Value::Array(Vec::new()),
            "no lock was taken"
        );
        assert_eq!(story["walk"]["result"], "hole");
    }
    // The second one was stepped, to see what decides.
    for story in &stories[1..] {
        let branch = &story["result"];
        let place = branch["symbol"].as_str().expect("a place");
        assert!(
            place.starts_with("__kvm_nvhe_handle_host_mem_abort+"),
            "{branch}"
        );
        let instruction = branch["instruction"].as_str().expect("an instruction");
        assert!(
            ["b.", "cbz", "cbnz", "tbz", "tbnz"]
                .iter()
                .any(|name| instruction.starts_with(name)),
            "{instruction}"
        );
        assert_eq!(branch, &stories[1]["result"]);
        let source = branch["source"].as_str().expect("a line");
        assert!(source.starts_with("arch/arm64/kvm/hyp/"), "{branch}");
        assert_eq!(branch["function"], "__translate_far_to_hpfar");
    }
    assert!(
        stories[1]["instructions"]
            .as_u64()
            .is_some_and(|count| (50..500).contains(&count)),
        "{}",
        stories[1]
    );
    // Nothing of it is left in the machine: it runs into no stop.
    let mut client = Client::connect(machine.gdb());
    client.order("Qqemu.PhyMemMode:0");
    client.send("vCont;c");
    assert_eq!(client.packet_within(Duration::from_millis(500)), None);
}

/// The number of `__kvm_vcpu_run` differs from kernel to kernel; its name is the kernel's own.
#[test]
fn hypercalls_have_the_kernels_names() {
    for (kernel, guests) in [
        (Kernel::Linux61, Guests::Plain),
        (Kernel::Linux7, Guests::All),
    ] {
        let boot = Boot::linux(kernel)
            .expect("the kernel is there")
            .cpu(Cpu::Max);
        let boot = boot.guests(guests).finally(Finally::SpinInGuest);
        let mut machine = boot.start().expect("QEMU starts");
        machine
            .wait_for("init: spins in a guest", LIMIT)
            .expect("Linux gets there");
        // Each tick of the host's takes the guest's CPU out of the guest, and it goes back.
        let ran = succeed(arguments(&machine, &["abort", "--call", "vcpu_run"]));
        let call = &ran.json()["calls"][0];
        assert_eq!(call["name"], "__kvm_vcpu_run", "{call}");
        // It goes into the guest, or, when an interrupt is due, straight back.
        let outcome = call["outcome"].as_str();
        assert!(matches!(outcome, Some("left" | "returned")), "{call}");
    }
}
