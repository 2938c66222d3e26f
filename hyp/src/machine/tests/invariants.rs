//! What holds at every step of a run.

use super::super::layout::{self, Function};
use super::super::*;
use super::ask;
use crate::debug::Breakpoint;
use crate::debug::owners::owners;
use crate::debug::registers::{Register, System};
use crate::debug::walk::Regime;
use crate::debug::{Inferior, files};
use proptest::prelude::*;
use std::collections::BTreeSet;

/// A lock's tickets, holder and taker, from its 16 bytes in simulated memory.
struct Word {
    owner: u16,
    next: u16,
    holder: u32,
    taker: u64,
}

fn locks(machine: &Machine) -> Vec<Word> {
    let read = |lock: &Lock<'_>| {
        let mut bytes = [0; 16];
        assert_eq!(machine.read_phys(lock.pa, &mut bytes), 16);
        Word {
            owner: u16::from_le_bytes([bytes[0], bytes[1]]),
            next: u16::from_le_bytes([bytes[2], bytes[3]]),
            holder: u32::from_le_bytes([bytes[4], bytes[5], bytes[6], bytes[7]]),
            taker: machine.read_word(lock.pa + 8),
        }
    };
    layout::LOCKS.iter().map(read).collect()
}

fn level(machine: &Machine, cpu: usize) -> u64 {
    machine.register(cpu, Register::Cpsr).unwrap() >> 2 & 3
}

fn symbol(machine: &Machine, va: u64) -> &'static str {
    let symbol = machine.facts.symbols.iter().find(|symbol| {
        va.checked_sub(symbol.address)
            .is_some_and(|offset| offset < symbol.size)
    });
    symbol
        .unwrap_or_else(|| std::panic!("{va:#x} is in no function"))
        .name
}

/// Rules L1 to L3 and L6 of lock words, and what a debugger may rely on beside them.
#[test]
fn locks_are_held_by_cpus_at_el2_and_waited_for_in_lock() {
    let mut machine = Machine::start(4).unwrap();
    let mut contended = BTreeSet::new();
    for _ in 0..3000 {
        machine.run_steps(1);
        let pcs: Vec<_> = (0..4)
            .map(|cpu| symbol(&machine, machine.register(cpu, Register::Pc).unwrap()))
            .collect();
        let mut waiters = 0;
        for (i, lock) in locks(&machine).iter().enumerate() {
            if lock.owner == lock.next {
                assert_eq!((lock.holder, lock.taker), (crate::lock::NO_CPU, 0));
                continue;
            }
            waiters += usize::from(lock.next.wrapping_sub(lock.owner)) - 1;
            if lock.next.wrapping_sub(lock.owner) > 1 {
                contended.insert(layout::LOCKS[i].name);
            }
            // Nobody between the ticket's turn and the record: the next CPU has it, and waits for a turn.
            if lock.holder != crate::lock::NO_CPU {
                assert_eq!(level(&machine, lock.holder as usize), 2);
                let taker = symbol(&machine, lock.taker);
                assert!(
                    ["host_stage2_idmap", "pkvm_host_share_hyp", "alloc"].contains(&taker),
                    "{taker}"
                );
            }
        }
        let spinning = pcs.iter().filter(|pc| **pc == "lock").count();
        assert!(waiters <= spinning, "{waiters} waiters, CPUs in {pcs:?}");
    }
    assert!(contended.contains("host"), "{contended:?}");
}

#[test]
fn a_cpu_is_always_in_a_function_of_its_exception_level() {
    let mut machine = Machine::start(3).unwrap();
    let mut seen = BTreeSet::new();
    for _ in 0..6000 {
        machine.run_steps(1);
        for cpu in 0..3 {
            let pc = machine.register(cpu, Register::Pc).unwrap();
            let name = symbol(&machine, pc);
            let hyp = pc >= Function::HypVectors.address();
            assert_eq!(level(&machine, cpu), if hyp { 2 } else { 1 }, "in {name}");
            assert!(machine.translate(cpu, pc).is_some(), "{name} is not mapped");
            let sp = machine.register(cpu, Register::Sp).unwrap();
            assert!(machine.translate(cpu, sp).is_some(), "no stack in {name}");
            seen.insert(name);
        }
    }
    for name in [
        "host_vectors",
        "host_main",
        "host_touch",
        "host_call",
        "hyp_vectors",
        "handle_trap",
        "handle_host_hcall",
        "handle_host_mem_abort",
        "host_stage2_idmap",
        "pkvm_host_share_hyp",
        "get_leaf",
        "set_leaf",
        "set_page",
        "alloc",
        "lock",
    ] {
        assert!(seen.contains(name), "no CPU was ever in {name}");
    }
}

#[test]
fn hypercalls_return_what_the_series_says() {
    let mut machine = Machine::start(4).unwrap();
    let mut results = BTreeSet::new();
    // Where an HVC returns to.
    machine
        .insert(Breakpoint::Software {
            va: Function::HostCall.address() + 4,
        })
        .unwrap();
    for _ in 0..400 {
        let Some(Stop::Breakpoint { cpu }) = machine.run_steps(10_000) else {
            std::panic!("no hypercall in 10000 steps");
        };
        let esr = machine.register(cpu, Register::System(System::ESR_EL2));
        assert_eq!(esr, Some(0x5a00_0000), "HVC #0");
        let x = [0, 1].map(|n| machine.register(cpu, Register::X(n)).unwrap() as i64);
        results.insert(x);
    }
    let expected = [[-1, 0], [0, -22], [0, -1], [0, 0]];
    assert_eq!(results, BTreeSet::from(expected));
}

#[test]
fn joint_states_are_legal_whenever_no_cpu_is_in_the_middle_of_a_change() {
    let mut machine = Machine::start(4).unwrap();
    let mut settled = 0;
    for _ in 0..150 {
        machine.run_steps(37);
        if machine.shared.unsettled.lock().contains(&true) {
            continue;
        }
        settled += 1;
        owners(&machine, Region::ALL, |joint| {
            use crate::debug::owners::Owner;
            assert!(
                matches!(joint.owner(), Owner::Host | Owner::Hyp),
                "{joint:?}"
            );
            true
        });
    }
    assert!(settled > 20, "only {settled}");
}

proptest! {
    #![proptest_config(ProptestConfig::with_cases(24))]

    /// Whatever a debugger writes into the tables, the machine runs on or stops in a panic of hyp, and
    /// everything that can be asked is answered.
    #[test]
    fn any_damage_is_survived(
        damage in prop::collection::vec(
            (
                0u64..160,
                0u64..512,
                prop_oneof![
                    any::<u64>(),
                    // A table somewhere in the pools, or behind RAM.
                    (0u64..160).prop_map(|page| (0x4022_2000 + page * 4096) | 3),
                    Just(0x9000_0003),
                    Just(0),
                ],
            ),
            1..12,
        ),
    ) {
        let mut machine = Machine::start(2).unwrap();
        let pools = machine.facts.pools;
        for (page, slot, word) in damage {
            let pages = pools.iter().flat_map(|pool| (0..pool.pages).map(|n| pool.base + n * 4096));
            let Some(table) = pages.clone().nth(page as usize % pages.count()) else {
                continue;
            };
            machine.write_phys(table + slot * 8, &word.to_le_bytes()).unwrap();
            machine.run_steps(200);
        }
        for line in ["locks", "cpus", "stats", "owners 0x40000000..0x40400000", "page 0x40222000"] {
            prop_assert!(!ask(&machine, line).is_empty(), "{}", line);
        }
        let mut bytes = vec![0; 4104 * 4];
        for file in [files::File::Description, files::File::Tables(Regime::HostS2)] {
            prop_assert!(files::pread(&machine, file, 0, &mut bytes).is_some());
        }
    }
}
