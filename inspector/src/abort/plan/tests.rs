use super::*;
use crate::model::testing::system;
use crate::model::{Symbol, Symbols};

#[test]
fn every_return_from_an_exception_is_found() {
    let code = [
        0xd503_201f,
        0xd69f_03e0,
        0xd65f_03c0,
        0xd69f_0bff,
        0xd69f_0fff_u32,
    ];
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    assert_eq!(erets(&bytes).collect::<Vec<_>>(), [4, 12, 16]);
    // Half an instruction is none.
    assert_eq!(erets(&bytes[..6]).count(), 0);
}

#[test]
fn the_ways_back_are_behind_the_calls_of_one_function() {
    // bl +0x20; nop; bl +0x18, both to 0x4020; bl +4.
    let code = [0x9400_0008, 0xd503_201f, 0x9400_0006, 0x9400_0001_u32];
    let bytes: Vec<u8> = code.iter().flat_map(|word| word.to_le_bytes()).collect();
    let found = |function| ways_back(&bytes, 0x4000, function).collect::<Vec<_>>();
    assert_eq!(found(0x4020), [0x4004, 0x400c]);
    assert_eq!(found(0x4010), [0x4010]);
    assert_eq!(found(0x4024), [0; 0]);
}

fn named(kind: HypervisorKind, names: &[&str]) -> System {
    let mut system = system();
    system.hypervisor.kind = kind;
    let symbol = |(at, name): (usize, &&str)| Symbol {
        name: (*name).to_owned(),
        address: 0x1000 * (at as u64 + 1),
        size: 0x100,
    };
    system.symbols = Symbols::new(names.iter().enumerate().map(symbol).collect());
    system
}

#[test]
fn functions_are_found_by_the_end_of_their_paths() {
    let system = named(
        HypervisorKind::Hyp,
        &[
            "hyp::abort::<impl hyp::init::Hyp>::handle_host_mem_abort",
            "hyp::pgtable::PageTable<A>::get_leaf",
            "hyp::debug::get_leaf",
            "hyp::pool::Pool::alloc",
            "alloc::alloc::alloc",
            "host_stage2_idmap",
        ],
    );
    let found = |name: &str| -> Vec<u64> {
        let function = HYP
            .iter()
            .find(|function| function.name == name)
            .expect(name);
        let stops = find(&system, function);
        stops.iter().map(|stop| stop.place.pc).collect()
    };
    assert_eq!(found("handle_host_mem_abort"), [0x1000]);
    assert_eq!(found("get_leaf"), [0x2000]);
    assert_eq!(found("alloc"), [0x4000]);
    assert_eq!(found("host_stage2_idmap"), [0x6000]);
    assert_eq!(found("take_over"), [0; 0]);
}

#[test]
fn of_linux_only_the_hypervisors_own_functions_are_stops() {
    let system = named(
        HypervisorKind::Pkvm,
        &[
            "kvm_pgtable_get_leaf",
            "__kvm_nvhe_kvm_pgtable_get_leaf",
            "hyp_panic",
        ],
    );
    let mut plan = Plan::default();
    plan.find_functions(&system);
    let names: Vec<_> = plan
        .functions
        .iter()
        .map(|stop| (stop.place.pc, stop.function.name))
        .collect();
    assert_eq!(names, [(0x2000, "kvm_pgtable_get_leaf")]);
    assert_eq!(plan.missing.len(), PKVM.len() - 1);
    assert!(
        plan.missing
            .iter()
            .any(|missing| missing.function == "hyp_panic")
    );
}

/// A CPU in a guest has the guest's vectors, and one without stage 2 the stub's.
#[test]
fn entries_are_the_vectors_of_cpus_in_their_host() {
    let mut system = system();
    for (cpu, (stage2, vectors)) in system.cpus.iter_mut().zip([
        (Some("host-s2"), 0x40_4020_0000),
        (Some("guest-s2:0x1000"), 0x40_4020_8000),
    ]) {
        cpu.stage2 = stage2.map(str::to_owned);
        cpu.registers.0.insert("VBAR_EL2".to_owned(), vectors);
    }
    assert_eq!(entries(&system), [0x40_4020_0400]);
    // This hypervisor has no symbol for the host's vectors.
    system.cpus[0].stage2 = None;
    assert_eq!(entries(&system), [0; 0]);
}
