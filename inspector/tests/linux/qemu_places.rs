//! Wherever the CPUs are, the answers are the oracle's.

use crate::machine::Linux;
use crate::oracle::{array, assert_agrees};
use fixtures::{Boot, Cpu, Finally, Guests, Kernel};
use serde_json::{Value, json};

fn boot(kernel: Kernel, cpu: Cpu, finally: Finally) -> Boot {
    let boot = Boot::linux(kernel).expect("a kernel");
    boot.cpu(cpu).finally(finally)
}

/// The CPUs of a machine on which all else is as the oracle says.
fn cpus(linux: &Linux) -> Vec<Value> {
    assert_agrees(linux, &linux.oracle());
    array(&linux.ask(&["cpus"]), "cpus").to_vec()
}

/// The CPU whose stage 2 is not the host's: there is one.
fn in_guest(cpus: &[Value]) -> &Value {
    let mut guests = cpus.iter().filter(|cpu| cpu["stage2"] != "host-s2");
    let found = guests.next().expect("a CPU runs a guest");
    assert_eq!(guests.next(), None, "the other CPU runs the host");
    found
}

#[test]
fn linux_6_1_in_a_guest() {
    let boot = boot(Kernel::Linux61, Cpu::Max, Finally::SpinInGuest);
    let linux = Linux::boot(boot.guests(Guests::Plain), &["init: spins in a guest"]);
    let cpus = cpus(&linux);
    // EL2 knows no VMs yet, so what the tables are called comes from the register.
    let cpu = in_guest(&cpus);
    let regime = cpu["stage2"].as_str().expect("a regime that is shown");
    assert!(regime.starts_with("guest-s2:vmid-"), "{cpu}");
    assert_eq!(cpu["vcpu"], Value::Null);
    let list = linux.ask(&["list", "--no-merge", "--regime", regime]);
    let pages = array(&list, "entries").iter();
    let pages: Vec<_> = pages
        .filter(|entry| entry["ia"].as_str() >= Some("0x40000000"))
        .collect();
    assert_eq!(
        pages.len(),
        9,
        "a page of instructions, and eight that it touched: {list}"
    );
}

#[test]
fn linux_7_in_a_guest() {
    let boot = boot(Kernel::Linux7, Cpu::NeoverseN1, Finally::SpinInGuest);
    let linux = Linux::boot(boot.guests(Guests::All), &["init: spins in a guest"]);
    let cpus = cpus(&linux);
    let cpu = in_guest(&cpus);
    assert_eq!(cpu["stage2"], "guest-s2:0x1001");
    assert_eq!(cpu["vcpu"], json!({"handle": "0x1001", "number": 0}));
}

#[test]
fn linux_6_1_in_user_space() {
    let boot = boot(Kernel::Linux61, Cpu::Max, Finally::Spin).kaslr(false);
    let linux = Linux::boot(boot, &["init: spins"]);
    let cpus = cpus(&linux);
    // The one that spins may be stopped where an interrupt has just taken it.
    assert!(cpus.iter().all(|cpu| cpu["el"] != 2), "{cpus:?}");
    assert!(
        cpus.iter().all(|cpu| cpu["stage2"] == "host-s2"),
        "{cpus:?}"
    );
}

#[test]
fn linux_7_after_a_panic() {
    let boot = boot(Kernel::Linux7, Cpu::NeoverseN1, Finally::Crash);
    let linux = Linux::boot(boot, &["init: ends", "end Kernel panic"]);
    let cpus = cpus(&linux);
    let mut calls = cpus.iter().flat_map(|cpu| array(cpu, "calls"));
    let panics = calls.any(|call| {
        let symbol = call["symbol"].as_str();
        symbol.is_some_and(|name| name.starts_with("panic") || name.starts_with("vpanic"))
    });
    assert!(panics, "{cpus:?}");
    linux.assert_nothing_to_follow();
}
