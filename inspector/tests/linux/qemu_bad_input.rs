//! Machines without pKVM, and files of no use: a sentence, exit status 3, and whatever can be shown.

use crate::machine::Linux;
use crate::oracle::{array, assert_agrees};
use crate::run::Ran;
use fixtures::{Boot, Finally, Guests, Kernel, Mode};
use serde_json::Value;
use std::fs;
use tempfile::TempDir;

/// One sentence on standard error, exit status 3, and the document still.
fn assert_refused(ran: &Ran, sentence: &str) {
    assert_eq!(ran.status, 3, "{}", ran.stderr);
    assert!(ran.stderr.contains(sentence), "{}", ran.stderr);
    assert_eq!(ran.stderr.lines().count(), 1, "{}", ran.stderr);
    assert_eq!(ran.json()["complete"], false);
}

fn boot(kernel: Kernel) -> Boot {
    Boot::linux(kernel).expect("a kernel")
}

#[test]
fn protected_mode_is_off() {
    let boot = boot(Kernel::Linux61).mode(Mode::Nvhe);
    let linux = Linux::boot(boot.guests(Guests::Plain), &["init: idle"]);
    let list = linux.try_ask(&["list"]);
    assert_refused(
        &list,
        "protected mode is off: KVM's mode is KVM_MODE_DEFAULT",
    );
    let list = list.json();
    let regimes = array(&list, "regimes");
    assert_eq!(regimes.len(), 1, "EL2's own: {regimes:?}");
    assert_eq!(regimes[0]["name"], "hyp-s1");
    assert!(!array(&list, "entries").is_empty());
}

#[test]
fn there_is_no_kvm() {
    let linux = Linux::boot(boot(Kernel::Linux7).mode(Mode::None), &["init: idle"]);
    let cpus = linux.try_ask(&["cpus"]);
    assert_refused(&cpus, "protected mode is off: KVM's mode is KVM_MODE_NONE");
    let cpus = cpus.json();
    let cpus = array(&cpus, "cpus");
    assert_eq!(cpus.len(), 2);
    assert!(cpus.iter().all(|cpu| cpu["symbol"].is_string()), "{cpus:?}");
}

#[test]
fn the_kernel_has_not_started() {
    let linux = Linux::boot(boot(Kernel::Linux7).paused(), &[]);
    let cpus = linux.try_ask(&["cpus"]);
    assert_refused(&cpus, "the kernel has not come so far yet");
    assert_eq!(array(&cpus.json(), "cpus").len(), 2);
}

/// What every command has to say, and that each says it in one sentence; without any file, too.
fn assert_all_refused(linux: &Linux, sentence: &str) {
    for command in ["info", "list", "owners", "cpus", "locks"] {
        assert_refused(&linux.try_ask(&[command]), sentence);
    }
    assert_refused(
        &linux.ask_without(&["cpus"]),
        "it never will, for the kernel has panicked on CPU ",
    );
}

/// Whether the calls of a CPU say that the kernel has panicked.
fn panics(cpus: &Value) -> bool {
    let calls = array(cpus, "cpus")
        .iter()
        .flat_map(|cpu| array(cpu, "calls"));
    let mut names = calls.filter_map(|call| call["symbol"].as_str());
    names.any(|name| name.starts_with("panic+"))
}

#[test]
fn linux_dies_before_kvm() {
    for kernel in Kernel::ALL {
        let boot = boot(kernel).die_in("rest_init").expect("a function");
        let linux = Linux::boot(boot, &["end Kernel panic"]);
        assert_all_refused(
            &linux,
            "EL2's own translation is off on every CPU; the kernel has not come so far yet, or KVM is off; \
             it never will, for the kernel has panicked on CPU 0",
        );
        let cpus = linux.try_ask(&["cpus"]).json();
        assert!(panics(&cpus), "{cpus}");
        let list = linux.try_ask(&["list"]).json();
        assert!(array(&list, "regimes").is_empty(), "{list}");
        linux.assert_nothing_to_follow();
    }
}

/// EL2 has its tables and the host's, which name what EL2 has taken; no CPU uses the latter yet.
#[test]
fn linux_dies_before_it_is_confined() {
    for kernel in Kernel::ALL {
        let boot = boot(kernel).die_in("_kvm_host_prot_finalize");
        let linux = Linux::boot(boot.expect("a function"), &["end Kernel panic"]);
        assert_all_refused(
            &linux,
            "pKVM has not finished its start: the host's tables exist, but no CPU uses them yet; \
             it never will, for the kernel has panicked on CPU ",
        );
        let list = linux.try_ask(&["list", "--owner", "hyp"]).json();
        let regimes: Vec<_> = array(&list, "regimes")
            .iter()
            .map(|regime| regime["name"].clone())
            .collect();
        assert_eq!(regimes, ["host-s2", "hyp-s1"]);
        let annotated = array(&list, "entries")
            .iter()
            .filter(|entry| entry["kind"] == "annotation");
        let annotated: u64 = annotated.filter_map(|entry| entry["size"].as_u64()).sum();
        let owners = linux.try_ask(&["owners", "--owner", "hyp"]).json();
        let owned = array(&owners, "ranges").iter();
        let owned: u64 = owned.filter_map(|range| range["size"].as_u64()).sum();
        // The carve-out alone has 8 MiB.
        assert!(
            annotated > 8 << 20 && owned >= annotated,
            "{annotated:#x} {owned:#x}"
        );
        assert!(panics(&linux.try_ask(&["cpus"]).json()));
        linux.assert_nothing_to_follow();
        let locks = linux.try_ask(&["locks"]).json();
        let names = array(&locks, "locks").iter().map(|lock| &lock["name"]);
        let names: Vec<_> = names.take(2).collect();
        assert_eq!(names, ["host", "hyp"]);
    }
}

/// Nothing of pKVM is missing then.
#[test]
fn there_is_no_init() {
    for kernel in Kernel::ALL {
        let linux = Linux::boot(boot(kernel).finally(Finally::NoInit), &["end Kernel panic"]);
        let oracle = linux.oracle();
        assert_agrees(&linux, &oracle);
        assert!(panics(&linux.ask(&["cpus"])));
        let info = linux.ask(&["info"]);
        let mut facts = array(&info, "facts").iter();
        let panic = facts.find(|fact| fact["what"] == "panic");
        let value = panic.and_then(|fact| fact["value"].as_str());
        assert!(
            value.is_some_and(|value| value.starts_with("on CPU ")),
            "{panic:?}"
        );
    }
}

/// A copy of vmlinux whose sections with types have names that nobody looks for.
fn without_types(vmlinux: &[u8]) -> Vec<u8> {
    let mut copy = vmlinux.to_vec();
    let word = |at: usize| u64::from_le_bytes(vmlinux[at..at + 8].try_into().expect("a word"));
    let half = |at: usize| u16::from_le_bytes(vmlinux[at..at + 2].try_into().expect("a half"));
    // e_shoff, e_shentsize and e_shstrndx of the ELF header; sh_offset and sh_size of the section that has the names.
    let section = word(40) as usize + usize::from(half(58)) * usize::from(half(62));
    let (start, size) = (word(section + 24) as usize, word(section + 32) as usize);
    let names = &mut copy[start..start + size];
    for old in [&b".BTF\0"[..], b".debug_"] {
        for at in 0..names.len() - old.len() {
            if names[at..].starts_with(old) {
                names[at + 1] = b'_';
            }
        }
    }
    copy
}

#[test]
fn the_file_is_of_no_use() {
    let linux = Linux::boot(boot(Kernel::Linux7), &["init: idle"]);
    let other = Kernel::Linux61.files().expect("a kernel").vmlinux;
    let list = linux.ask_with(&other, &["list"]);
    assert_eq!(list.status, 3, "{}", list.stderr);
    let refusal = list.stderr.lines().next().expect("a sentence");
    assert!(refusal.contains(other.to_str().expect("a plain path")));
    assert!(refusal.contains("is not the kernel that runs"), "{refusal}");
    let (given, running) = refusal
        .split_once("the running kernel's is ")
        .expect("both build ids");
    let id = |text: &str| {
        let words = text.split(|letter: char| !letter.is_ascii_hexdigit());
        words
            .filter(|word| word.len() == 40)
            .map(str::to_owned)
            .next()
    };
    assert!(id(given).is_some() && id(running).is_some(), "{refusal}");
    assert_ne!(id(given), id(running), "{refusal}");
    assert!(
        array(&list.json(), "regimes").len() >= 2,
        "by what is in RAM"
    );

    // An Image says as much as a vmlinux does.
    let image = Kernel::Linux61.files().expect("a kernel").image;
    let list = linux.ask_with(&image, &["list"]);
    assert_refused(&list, "is not the kernel that runs");
    assert!(
        array(&list.json(), "regimes").len() >= 2,
        "by what is in RAM"
    );

    let folder = TempDir::new().expect("a folder");
    let stripped = folder.path().join("vmlinux");
    let whole = fs::read(&linux.machine.kernel().vmlinux).expect("a file");
    fs::write(&stripped, without_types(&whole)).expect("a file");
    let list = linux.ask_with(&stripped, &["list"]);
    assert_refused(&list, "describes no types");
    let regimes = list.json();
    assert!(
        array(&regimes, "regimes").len() >= 2,
        "{}",
        regimes["regimes"]
    );
}
